"""Starts scripts under the launcher, many in the time that one import of torch takes.

`launch_all(jobs)` runs this file once, which imports what scripts import and forks for each job.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from quickwins_codemod import trials
from quickwins_codemod.attempting import LAUNCHER

MODULES = (
    "numpy", "torch", "torch._dynamo", "pandas", "sklearn.model_selection", "sklearn.preprocessing",
    "wandb",
)  # fmt: skip

#: All four rules apply to it. It fails or hangs before it imports torch, where it is asked to.
SCRIPT = '''\
"""Train matrix factorisation by BPR and validate it each epoch."""

import argparse
import sys
import time

if "--fail" in sys.argv:
    raise RuntimeError("no data there")
if "--hang" in sys.argv:
    time.sleep(60)
if "--only-as-it-stands" in sys.argv:
    sys.exit("rewritten" if "quickwins_" + "runtime" in open(__file__).read() else 0)

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

USERS, ITEMS = 30, 40


class Factors(nn.Module):
    def __init__(self, num_users, num_items, width=8):
        super().__init__()
        self.users = nn.Embedding(num_users, width)
        self.items = nn.Embedding(num_items, width)

    def forward(self, users, items):
        return (self.users(users) * self.items(items)).sum(-1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(7)
    users = torch.randint(0, USERS, (600,))
    items = torch.randint(0, ITEMS, (600,))
    train_loader = DataLoader(TensorDataset(users[:500], items[:500]), batch_size=50, shuffle=True)
    val_loader = DataLoader(TensorDataset(users[500:], items[500:]), batch_size=50)
    device = torch.device("cpu")
    model = Factors(USERS, ITEMS).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(args.epochs):
        model.train()
        for user, positive in train_loader:
            user, positive = user.to(device), positive.to(device)
            negative = torch.randint(0, ITEMS, (len(user),), device=device)
            difference = model(user, positive) - model(user, negative)
            loss = -nn.functional.logsigmoid(difference).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.eval()
        total = 0.0
        with torch.no_grad():
            for user, positive in val_loader:
                total += -nn.functional.logsigmoid(model(user, positive)).mean().item()
        val_loss = total / len(val_loader)
        print(f"epoch {epoch + 1}: {val_loss:.4f}")
        torch.save(model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
'''


@dataclass
class Job:
    """A script to start in a copy of a tree. folder: where what is seen goes, and records."""

    folder: Path
    copy: Path
    script: str
    arguments: tuple[str, ...] = ()
    seed: int | None = 0
    original: Path | None = None
    launched: bool = True  # False: as plain Python runs it
    records: bool = False  # whether the launcher writes a record, for want of a Tracker
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Launched:
    code: int
    out: str
    err: str
    seen: trials.Observation | None
    runs: tuple


def launch_all(jobs: list[Job]) -> list[Launched]:
    """Run all jobs, one after the other."""
    orders = []
    for job in jobs:
        job.folder.mkdir(parents=True, exist_ok=True)
        original = job.original or job.folder / "original"
        record = str(job.folder / trials.record_name(1)) if job.records else None
        launch = {
            "original": str(original), "copy": str(job.copy), "seed": job.seed, "record": record
        }  # fmt: skip
        (job.folder / "launch.json").write_text(json.dumps(launch))
        words = [job.script, *job.arguments]
        if job.launched:
            words = [str(LAUNCHER), str(job.folder), *words]
        environment = {
            "WANDB_MODE": "disabled",
            "QUICKWINS_RUNS": str(job.folder),
            **job.environment,
        }
        orders.append([words, str(job.copy), str(job.folder), environment])
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(orders), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [
        Launched(
            code,
            (job.folder / "stdout.log").read_text(),
            (job.folder / "stderr.log").read_text(),
            trials.read_observation(job.folder),
            _runs(job.folder),
        )
        for job, code in zip(jobs, json.loads(done.stdout))
    ]


def _runs(folder: Path) -> tuple:
    for number, path in enumerate(sorted(folder.glob("2*.jsonl")), 1):
        path.rename(folder / trials.record_name(number))
    return trials.read_runs(folder)


def _main() -> None:
    for name in MODULES:
        try:
            __import__(name)
        except ImportError:
            pass
    sys.modules["torch"].set_num_threads(1)
    codes = []
    for words, copy, folder, environment in json.load(sys.stdin):
        child = os.fork()
        if not child:
            os.chdir(copy)
            os.environ.update(environment)
            for stream, name in ((1, "stdout.log"), (2, "stderr.log")):
                os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.argv = words
            sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
            runpy.run_path(words[0], run_name="__main__")
            sys.exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    json.dump(codes, sys.stdout)


if __name__ == "__main__":
    _main()
