"""Runs training scripts that are watched, with a wandb of our own, and looks at what they did."""

from __future__ import annotations

import json
import math
import random
import runpy
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import amp_helpers
import pytest
from amp_helpers import FIXTURES, codes, said

from quickwins_codemod import bundle
from quickwins_codemod.verdict import FileOutcome

__all__ = ["PAIRS", "REFUSED", "Run", "codes", "look_at", "ranking_at_k", "said", "train"]

PAIRS = FIXTURES / "pairs" / "metrics"
REFUSED = FIXTURES / "refused" / "metrics"
RULE = "metrics"


def look_at(source: str | bytes, folder: Path, **options: object) -> FileOutcome:
    """What the tool says of one file that stands alone in a folder; options: of this rule."""
    return amp_helpers.look_at(source, folder, (RULE,), rule=RULE, **options)


@dataclass
class Run:
    """What one run did.

    names: the script's own, in the end. logged: what wandb was given, with the step. record: the
    lines of the Tracker's file. parameters: of all optimizers after their last step. streams: the
    random states of `random` and torch in the end.
    """

    names: dict = field(default_factory=dict)
    logged: list[tuple[dict, int | None]] = field(default_factory=list)
    record: list[dict] = field(default_factory=list)
    parameters: dict[int, list] = field(default_factory=dict)
    steps: int = 0
    streams: tuple = ()

    @property
    def epochs(self) -> list[dict]:
        return [line for line in self.record if line["type"] == "epoch"]

    def logged_with(self, ending: str) -> list[dict]:
        """What was logged with a key that ends so."""
        return [data for data, _ in self.logged if any(key.endswith(ending) for key in data)]


class _FakeRun:
    """As much of a wandb run as the scripts and the Tracker use."""

    id, project, entity, disabled = "r1", "films", None, False

    def __init__(self, logged: list) -> None:
        self.name, self.tags, self._logged = "calm-sea-1", (), logged

    def log(self, data: dict, step: int | None = None) -> None:
        self._logged.append((dict(data), step))

    def finish(self) -> None:
        pass


def _fake_wandb(logged: list) -> types.ModuleType:
    module = types.ModuleType("wandb")
    module.run = None

    def init(**_: object) -> _FakeRun:
        module.run = _FakeRun(logged)
        return module.run

    def log(data: dict, step: int | None = None) -> None:
        assert module.run is not None, "wandb.log() without a run"
        module.run.log(data, step)

    module.init, module.log = init, log
    return module


def train(
    path: Path, folder: Path, runtime: Path | None = None, arguments: tuple[str, ...] = ()
) -> Run:
    """Run a script in this process; the record goes to a folder."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    torch.set_num_threads(1)
    random.seed(0)
    run = Run()
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.setattr(sys, "path", [*([str(runtime)] if runtime else []), *sys.path])
        patch.setitem(sys.modules, "wandb", _fake_wandb(run.logged))
        patch.setenv("QUICKWINS_RUNS", str(folder))
        patch.delenv("QUICKWINS_TAG", raising=False)
        hook = register_optimizer_step_post_hook(lambda optimizer, *_: _stepped(run, optimizer))
        try:
            run.names = runpy.run_path(str(path), run_name="__main__")
        finally:
            hook.remove()
            for name in set(sys.modules) - modules:
                if name.partition(".")[0] == bundle.PACKAGE:
                    del sys.modules[name]
    run.streams = (random.getstate(), torch.get_rng_state().tolist())
    files = sorted(folder.glob("*.jsonl")) if folder.exists() else []
    assert len(files) == (runtime is not None), "one record for each run"
    for file in files:
        run.record += map(json.loads, file.read_text("utf-8").splitlines())
    return run


def _stepped(run: Run, optimizer) -> None:
    run.steps += 1
    run.parameters[id(optimizer)] = [
        p.detach().clone() for group in optimizer.param_groups for p in group["params"]
    ]


def ranking_at_k(
    score, n_items: int, train: list, held_out: list, k: int = 10, excluded: tuple[int, ...] = ()
) -> dict[str, float]:
    """Mean NDCG over users, how many they are, and the coverage of their lists, in plain Python.

    score: from a user to the scores of all items. train, held_out: pairs of user and item.
    """
    values, shown = [], set()
    for user in sorted({u for u, _ in held_out}):
        seen = {i for u, i in train if u == user} | set(excluded)
        relevant = {i for u, i in held_out if u == user} - seen
        if relevant:
            scores = score(user)
            assert len(scores) == n_items
            ranked = sorted((i for i in range(n_items) if i not in seen), key=lambda i: -scores[i])
            values.append(_ndcg(ranked[:k], relevant, k))
            shown.update(ranked[:k])
    return {
        f"ndcg@{k}": sum(values) / len(values),
        "coverage": len(shown) / (n_items - len(excluded)),
        "users_evaluated": len(values),
    }


def _ndcg(ranked: list[int], relevant: set[int], k: int) -> float:
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(ranked) if item in relevant)
    return gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
