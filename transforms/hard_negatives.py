"""Train recommenders on hard negatives instead of random ones.

What it does: to be written with the loops.

QW200 hard negatives are in place
    What it does: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickwins_codemod.transform import Finding, Plan

if TYPE_CHECKING:
    from quickwins_codemod.script.facts import Script

RULE = "hard-negatives"
NEEDLES = (b".backward(", b"random.")


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.hard_negatives]` or as flags."""

    pool_size: int | None = field(
        default=None,
        metadata={"help": "candidates for each row; unset: 8 for one negative, 16 for several", "minimum": 1},
    )


def plan(script: Script, options: Options) -> Plan:
    """Plan mined negatives for the loops, the draws and the tables of a script."""
    return Plan(tuple(_tables(script)))


def _tables(script: Script) -> list[Finding]:
    """Functions that draw negatives row by row into a table."""
    return []
