"""Without a Tracker, the launcher writes when epochs ended and what they took."""

import math
import subprocess
import sys
import textwrap

import pytest
from launching import Job, launch_all

PRELUDE = '''\
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(47, 4)
y = x.sum(1, keepdim=True)
train_loader = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True)
val_loader = DataLoader(TensorDataset(x[:12], y[:12]), batch_size=5)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
other = torch.optim.Adam(model.parameters(), lr=0.01)


def step(x, y, optimizer=optimizer):
    optimizer.zero_grad()
    nn.functional.mse_loss(model(x), y).backward()
    optimizer.step()


def validate():
    with torch.no_grad():
        return sum(nn.functional.mse_loss(model(x), y).item() for x, y in val_loader)

'''

#: For each way to write a loop: the script, and for each epoch the rows that it saw, None where
#: nobody knows.
LOOPS = {
    "epochs": (
        """
        first = next(iter(train_loader))
        for epoch in range(3):
            for x, y in train_loader:
                step(x, y)
            print(validate())
            optimizer.param_groups[0]["lr"] /= 2
        """,
        [47, 47, 47],
    ),
    "validation within an epoch": (
        """
        for epoch in range(2):
            for place, (x, y) in enumerate(train_loader):
                step(x, y)
                if place % 4 == 3:
                    validate()
        """,
        [47, 47],
    ),
    "left by a break": (
        """
        for epoch in range(2):
            for place, (x, y) in enumerate(train_loader):
                step(x, y)
                if place == 3:
                    break
            validate()
        """,
        [20, 20],
    ),
    "two loaders, two optimizers": (
        """
        for epoch in range(2):
            for (x, y), (a, b) in zip(train_loader, val_loader):
                step(x, y)
                step(a, b, other)
        """,
        [12, 12],
    ),
    "two loaders by turns": (
        """
        for epoch in range(2):
            others = iter(val_loader)
            for place, (x, y) in enumerate(train_loader):
                step(x, y)
                if place < 2:
                    step(*next(others), other)
        """,
        [47, 47],
    ),
    "iterators that are made anew": (
        """
        batches = iter(train_loader)
        for _ in range(25):
            try:
                x, y = next(batches)
            except StopIteration:
                batches = iter(train_loader)
                x, y = next(batches)
            step(x, y)
        """,
        [47, 47, 25],
    ),
    "workers that stay": (
        """
        rows = TensorDataset(x, y)
        loader = DataLoader(rows, batch_size=5, num_workers=1, persistent_workers=True)
        for epoch in range(2):
            for a, b in loader:
                step(a, b)
        """,
        [47, 47],
    ),
    "batches in a dict": (
        """
        from collections import UserDict

        class Rows:
            def __len__(self):
                return 12

            def __getitem__(self, place):
                return {"x": x[place], "y": y[place]}

        def collate(rows):
            return UserDict({name: torch.stack([row[name] for row in rows]) for name in "xy"})

        for batch in DataLoader(Rows(), batch_size=5):
            step(batch["x"], batch["y"])
        for batch in DataLoader(Rows(), batch_size=4, collate_fn=collate):
            step(batch["x"], batch["y"])
        """,
        [12, 12],
    ),
    "batches of lists": (
        """
        rows = list(zip(x, y))
        for batch in DataLoader(rows, batch_size=5, collate_fn=lambda rows: {"rows": str(rows)}):
            step(x, y)
        """,
        [None],
    ),
    "no loader": ("for epoch in range(3):\n    step(x, y)\n", [None]),
    "no training": ("print(validate())", []),
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    place = tmp_path_factory.mktemp("recording")
    jobs = []
    for number, (text, _) in enumerate(LOOPS.values()):
        copy = place / f"copy-{number}"
        copy.mkdir()
        (copy / "train.py").write_text(PRELUDE + textwrap.dedent(text))
        jobs.append(Job(place / f"out-{number}", copy, "train.py", records=True))
    return dict(zip(LOOPS, launch_all(jobs)))


@pytest.mark.parametrize("name", LOOPS)
def test_a_pass_with_steps_is_an_epoch(launched, name):
    result = launched[name]
    assert (result.code, result.err, result.seen.problems) == (0, "", ())
    epochs = result.runs[0].epochs if result.runs else ()
    rows = [
        round(e.metrics["samples_per_second"] * e.metrics["epoch_seconds"])
        if "samples_per_second" in e.metrics
        else None
        for e in epochs
    ]

    assert rows == LOOPS[name][1]
    assert [e.number for e in epochs] == list(range(1, len(epochs) + 1))


def test_times_rates_and_memory_are_those_of_the_run(launched):
    (run,) = launched["epochs"].runs
    seconds = [epoch.metrics["epoch_seconds"] for epoch in run.epochs]

    assert [epoch.rates for epoch in run.epochs] == [(0.1,), (0.05,), (0.025,)]
    assert all(one > 0 and math.isfinite(one) for one in seconds)
    assert run.epochs[-1].seconds >= sum(seconds)  # of validation, too
    assert all(epoch.metrics["peak_memory_mb"] > 10 for epoch in run.epochs)
    assert run.header.device == "cpu" and run.header.script == "train.py"


def test_training_is_the_same_with_a_record(tmp_path, launched):
    (tmp_path / "train.py").write_text(PRELUDE + textwrap.dedent(LOOPS["epochs"][0]))
    plain = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert plain.stdout == launched["epochs"].out != ""
