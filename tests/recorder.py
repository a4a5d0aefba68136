"""What a training script really does: the rate of every optimizer step, and the schedules it has.

Inside a test, `with recording() as record:`. For a script in a process of its own,
`python recorder.py OUT.json SCRIPT [ARGS...]`, which runs the script as `python SCRIPT` would; rows
that it logs to wandb are recorded too, by a stand-in for wandb.
"""

from __future__ import annotations

import importlib.machinery
import json
import math
import os
import runpy
import sys
import types
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Run:
    """One optimizer: the rates it was made with, and those of its groups at each of its steps."""

    made_with: list[float]
    rates: list[list[float]] = field(default_factory=list)
    schedules: list[dict] = field(default_factory=list)


@dataclass
class Record:
    runs: list[Run] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    logged: list[dict] = field(default_factory=list)

    @property
    def trained(self) -> list[Run]:
        """The optimizers that stepped at all."""
        return [run for run in self.runs if run.rates]

    def as_json(self) -> dict:
        runs = [vars(run) for run in self.runs]
        return {"runs": runs, "warnings": self.warnings, "logged": self.logged}

    @staticmethod
    def from_json(data: dict) -> Record:
        return Record([Run(**run) for run in data["runs"]], data["warnings"], data["logged"])


@contextmanager
def recording():
    """Record every optimizer that is made, until the end of the block."""
    import torch
    from torch.optim import Optimizer
    from torch.optim import lr_scheduler as schedules
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    record = Record()
    by_optimizer: dict[int, Run] = {}
    alive: list[object] = []  # so that no id is used twice
    watched: list[tuple[Run, object, dict]] = []

    def rates(optimizer):
        return [float(group["lr"]) for group in optimizer.param_groups]

    def note_step(optimizer, args, kwargs):
        if id(optimizer) in by_optimizer:
            by_optimizer[id(optimizer)].rates.append(rates(optimizer))

    def note_optimizer(optimizer, *args, **kwargs):
        plain_optimizer(optimizer, *args, **kwargs)
        alive.append(optimizer)
        by_optimizer[id(optimizer)] = run = Run(rates(optimizer))
        record.runs.append(run)

    def noting(plain):
        def note_schedule(schedule, optimizer, *args, **kwargs):
            plain(schedule, optimizer, *args, **kwargs)
            run = by_optimizer.get(id(optimizer))
            if run is not None and all(seen is not schedule for _, seen, _ in watched):
                entry = {"class": type(schedule).__name__}
                run.schedules.append(entry)
                watched.append((run, schedule, entry))
        return note_schedule

    classes = {schedules.LRScheduler, schedules.ReduceLROnPlateau}
    plain_optimizer = Optimizer.__init__
    plain_schedules = {c: c.__init__ for c in classes}
    hook = register_optimizer_step_pre_hook(note_step)
    Optimizer.__init__ = note_optimizer
    for c in classes:
        c.__init__ = noting(plain_schedules[c])
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield record
    finally:
        hook.remove()
        Optimizer.__init__ = plain_optimizer
        for c in classes:
            c.__init__ = plain_schedules[c]
        record.warnings += [str(w.message) for w in caught]
        for _, schedule, entry in watched:
            entry["total_steps"] = getattr(schedule, "total_steps", None)
            entry["last_step"] = schedule.last_epoch
        del torch


def one_cycle_rate(step: int, total: int, peak: float, climb: float = 0.1) -> float:
    """The rate of one step of one cycle, from its description alone.

    From peak / 25 up to the peak along half a cosine, at the end of the first tenth of the steps;
    then down along half a cosine, at the last step, to a ten-thousandth of the first rate.
    """
    first, last = peak / 25, peak / 25 / 10_000
    top, end = climb * total - 1, total - 1
    top = min(max(top, 1), end - 1)
    if step <= top:
        return first + (peak - first) * (1 - math.cos(math.pi * step / top)) / 2
    return last + (peak - last) * (1 + math.cos(math.pi * (step - top) / (end - top))) / 2


def schedule_complaints(messages: list[str]) -> list[str]:
    """The warnings that speak of a schedule that is stepped wrongly."""
    words = ("lr_scheduler", "scheduler.step", "epoch parameter", "onecycle", "total_steps")
    return [m for m in messages if any(word in m.lower() for word in words)]


def _wandb(rows: list[dict]) -> types.ModuleType:
    """A module that takes what a script logs, and says nothing to anybody."""

    class Logged:
        def __init__(self):
            self.summary = {}

        def log(self, row, *args, **kwargs):
            rows.append({key: value for key, value in row.items() if _is_number(value)})

        def finish(self):
            pass

    module = types.ModuleType("wandb")
    module.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    module.init = lambda *args, **kwargs: Logged()
    return module


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def main() -> None:
    out, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    import torch

    torch.set_num_threads(1)
    with recording() as record:
        sys.modules["wandb"] = _wandb(record.logged)
        runpy.run_path(os.path.abspath(script), run_name="__main__")
    with open(out, "w", encoding="utf-8") as file:
        json.dump(record.as_json(), file)


if __name__ == "__main__":
    main()
