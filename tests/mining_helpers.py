"""Runs rewritten training scripts and records what was mined in them."""

from __future__ import annotations

import importlib
import runpy
import sys
from dataclasses import dataclass, field
from pathlib import Path

import amp_helpers
from amp_helpers import FIXTURES, codes, said

from quickwins_codemod import bundle
from quickwins_codemod.verdict import FileOutcome

__all__ = ["PAIRS", "REFUSED", "Mined", "Record", "codes", "look_at", "said", "train"]

PAIRS = FIXTURES / "pairs" / "hard_negatives"
REFUSED = FIXTURES / "refused" / "hard_negatives"
RULE = "hard-negatives"


def look_at(source: str | bytes, folder: Path, select: tuple[str, ...] = (RULE,), **options) -> FileOutcome:
    """What the tool says of one file that stands alone in a folder; options: of this rule."""
    return amp_helpers.look_at(source, folder, select, rule=RULE, **options)


@dataclass
class Mined:
    """One call of `mine`: users and positives may be None, the pool's range is [low, high)."""

    users: object
    positives: object
    labels: object
    drawn: object
    result: object
    by_history: bool
    seen: object
    low: int
    high: int


@dataclass
class Record:
    """What one run did: calls of the runtime, and optimizer steps."""

    mined: list[Mined] = field(default_factory=list)
    ranked: list[float] = field(default_factory=list)
    masked: list[tuple] = field(default_factory=list)
    statistics: list[dict] = field(default_factory=list)
    made: int = 0
    steps: int = 0
    parameters: list = field(default_factory=list)


def train(path: Path, runtime: Path | None = None) -> Record:
    """Run a script in this process."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(1)
    record = Record()
    saved_path, saved_argv, saved_modules = sys.path[:], sys.argv, set(sys.modules)
    sys.argv = [str(path)]
    sys.path.insert(0, str(path.parent))
    hook = register_optimizer_step_post_hook(
        lambda optimizer, *_: _stepped(record, optimizer)
    )
    if runtime is not None:
        sys.path.insert(0, str(runtime))
        _watch(importlib.import_module(f"{bundle.PACKAGE}.negatives").HardNegatives, record)
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        hook.remove()
        sys.path[:], sys.argv = saved_path, saved_argv
        for name in set(sys.modules) - saved_modules:  # the runtime, and what lies beside the script
            place = getattr(sys.modules[name], "__file__", None) or ""
            if name.partition(".")[0] == bundle.PACKAGE or place.startswith(str(path.parent)):
                del sys.modules[name]
    return record


def _stepped(record: Record, optimizer) -> None:
    record.steps += 1
    record.parameters = [
        p.detach().clone() for group in optimizer.param_groups for p in group["params"]
    ]


def _watch(cls, record: Record) -> None:
    """Note every call of the runtime's methods; the module is thrown away after the run."""
    made, mine, ranking_loss = cls.__init__, cls.mine, cls.ranking_loss
    mask, statistics = cls.mask_in_batch, cls.statistics

    def watched_init(self, *args, **kwargs):
        made(self, *args, **kwargs)
        record.made += 1

    def watched_mine(self, model, users, drawn, positives=None, **kwargs):
        result = mine(self, model, users, drawn, positives, **kwargs)
        record.mined.append(Mined(
            users.clone(), positives, kwargs.get("labels"), drawn.clone(), result.clone(),
            self.seen.by_history, self.seen, self.candidates.start, self.candidates.stop,
        ))
        return result

    def watched_loss(self, *args, **kwargs):
        loss = ranking_loss(self, *args, **kwargs)
        record.ranked.append(float(loss.detach()))
        return loss

    def watched_mask(self, logits, items, users=None):
        result = mask(self, logits, items, users)
        record.masked.append((logits.detach().clone(), items, users, result.detach().clone()))
        return result

    def watched_statistics(self):
        found = statistics(self)
        record.statistics.append(found)
        return found

    cls.__init__, cls.mine, cls.ranking_loss = watched_init, watched_mine, watched_loss
    cls.mask_in_batch, cls.statistics = watched_mask, watched_statistics
