"""The configuration of a run: built-in values, `[tool.quickwins]`, then the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What is in force for one run.

    select, ignore: rule names or codes; an empty select means every rule.
    exclude: patterns in .gitignore's syntax, relative to the root.
    runtime: "bundled" copies quickwins_runtime/ into the repository, "installed" imports
        quickwins_codemod.runtime from the installed package.
    rules: for each rule name, an instance of that rule's Options dataclass.
    """

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    per_file_ignores: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runtime: str = "bundled"
    rules: Mapping[str, Any] = field(default_factory=dict)
