"""What each win gives the sample scripts on MovieLens-100k, by `quickwins trial`.

usage: python bench/movielens.py --work FOLDER [--seeds N] [--epochs N] [--scripts NAME …]
                                 [--split random|last] [--batch-size N] [--learning-rate RATE]
                                 [--select RULES] [--users N] [--amp fp16|bf16]

Makes a repository in FOLDER from `fixtures/recsys`, puts the ratings there, and runs `quickwins trial`
on NeuMF, two-tower, sequential and the two scripts for implicit feedback, as a user would. An
interrupted bench goes on where it stopped. It prints a Markdown table, and leaves a page for each
script in FOLDER.

One line of each copy is changed where the split is drawn, the same for all variants: it comes from a
column of the ratings instead. `random` holds out a tenth of each user's ratings for validation and a
tenth for test, at random; `last` the last rating of each user for test, and the one before it for
validation. A module beside them, `parts.py`, lets the metrics rank for the
test rows, too, under the same rules as for those of validation: all items but the user's train items,
every held-out item relevant. NDCG@10 and RMSE are those of the epoch with the best NDCG@10 on
validation; RMSE is the script's own, on validation, in its own unit. The sequential script splits by
itself, one item of each user for validation, and its NDCG@10 is of that.

The seeds of a trial differ in first weights and order of batches; the split is one. Early stopping is
off. Intervals are those of the trial: paired by seed, 95 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from movielens_data import Ratings, Split, ndcg, read

SAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "recsys"


@dataclass(frozen=True)
class Training:
    """A script of the sample, and how its baseline is trained."""

    folder: str
    epochs: int
    learning_rate: float
    more: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        return f"{self.folder}/train_with_wandb.py"


TRAININGS = {
    "NeuMF": Training("neural_collaborative_filtering", 10, 0.003),
    "two-tower": Training("two_tower_model", 12, 0.003),
    # Its own schedule warms up for 4,000 batches of 64.
    "sequential": Training("sequential_models", 10, 0.001, ("--warmup-steps", "250")),
    "implicit NeuMF": Training("implicit_feedback/neumf", 15, 0.001),
    "implicit two-tower": Training("implicit_feedback/two_tower", 20, 0.003),
}
#: Where all but the sequential script draw their split.
SPLITTING = (
    "neural_collaborative_filtering/src/data_loader.py",
    "two_tower_model/train_with_wandb.py",
    "implicit_feedback/pairs.py",
)
DRAWN = "from sklearn.model_selection import train_test_split\n"
GIVEN = "from parts import train_test_split\n"
PARTS = '''\
"""The split that the column `part` says, and the ranking metrics on its test rows."""

import functools
import sys

from common import RatingRows
from torch.utils.data import DataLoader

held_out = {}


def train_test_split(rows, **_):
    """Return what is left and what is held out: the test rows first, then those of validation."""
    part = "test" if (rows["part"] == "test").any() else "val"
    held_out[part] = rows[rows["part"] == part]
    if part == "val":
        watch(sys.modules.get("quickwins_runtime"))
    return rows[rows["part"] != part], held_out[part]


def watch(runtime):
    """Let RankingMetrics rank for the test rows, too, and for all its users, however long it takes."""
    metrics = getattr(runtime, "RankingMetrics", None)
    if metrics is None:
        return
    make, evaluate = metrics.__init__, metrics.evaluate

    @functools.wraps(make)
    def made(self, train, validation, *given, **named):
        named = {**named, "seconds": None}
        make(self, train, validation, *given, **named)
        if not making:
            making.append(self)
            test = held_out["test"]
            rows = RatingRows(test["user_idx"], test["item_idx"], test["rating"])
            twins[id(self)] = metrics(train, DataLoader(rows, 1024), *given, **named)
            making.clear()

    @functools.wraps(evaluate)
    def evaluated(self, *given, **named):
        found = evaluate(self, *given, **named)
        twin = twins.get(id(self))
        if twin is None:
            return found
        test = evaluate(twin, *given, **named)
        return {**found, **{f"test_{name}": value for name, value in test.items()}}

    making, twins = [], {}
    metrics.__init__, metrics.evaluate = made, evaluated
'''

VALIDATION, TEST = "ndcg@10", "test_ndcg@10"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, help="instead of each script's own number")
    parser.add_argument("--scripts", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--split", choices=["random", "last"], default="random")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, help="instead of each script's own")
    parser.add_argument(
        "--users", type=int, default=0, help="rank for so many, always the same; 0: for all 943"
    )
    parser.add_argument("--select", default="onecycle,hard-negatives,amp", metavar="RULES")
    parser.add_argument(
        "--amp", choices=["fp16", "bf16"], help="on a CPU, where it is off otherwise"
    )
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = read(options.work)
    parts = split_random(rows) if options.split == "random" else split_last(rows)
    repository = make_repository(options.work / f"recsys-{options.split}", rows, parts)
    reports = {name: run(name, repository, options) for name in options.scripts}
    print("\n".join(table(reports, popularity(rows, parts))))


# Data


def split_random(rows: Sequence[Sequence[str]]) -> list[str]:
    """Say of each row in which part it is: of n of a user, n // 10 for each held-out part."""
    chance = random.Random(0)
    parts = ["train"] * len(rows)
    for places in by_user(rows):
        chance.shuffle(places)
        tenth = len(places) // 10
        for place in places[:tenth]:
            parts[place] = "val"
        for place in places[tenth : 2 * tenth]:
            parts[place] = "test"
    return parts


def split_last(rows: Sequence[Sequence[str]]) -> list[str]:
    """The same with the last row of each user for test, and the one before it for validation."""
    parts = ["train"] * len(rows)
    for places in by_user(rows):
        *_, before, last = sorted(places, key=lambda place: (float(rows[place][3]), place))
        parts[before], parts[last] = "val", "test"
    return parts


def by_user(rows: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    places = defaultdict(list)
    for place, row in enumerate(rows):
        places[row[0]].append(place)
    yield from places.values()


def popularity(rows: Sequence[Sequence[str]], parts: Sequence[str]) -> float:
    """NDCG@10 on test of a ranking of all items by how often they were rated in training."""
    columns = [numbered([row[place] for row in rows]) for place in (0, 1)]
    whole = Ratings(*map(torch.tensor, columns), torch.tensor([float(row[2]) for row in rows]))
    n_users, n_items = (max(column) + 1 for column in columns)
    masks, pieces = [], []
    for part in ("train", "val", "test"):
        piece = whole[torch.tensor([found == part for found in parts])]
        mask = torch.zeros(n_users, n_items, dtype=torch.bool)
        mask[piece.users, piece.items] = True
        masks.append(mask)
        pieces.append(piece)
    counts = torch.bincount(pieces[0].items, minlength=n_items)
    data = Split(n_users, n_items, *pieces, *masks)
    return ndcg(lambda users: counts.expand(len(users), -1), data)[1]


def numbered(names: Sequence[str]) -> list[int]:
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return [numbers[name] for name in names]


def make_repository(folder: Path, rows: Sequence[Sequence[str]], parts: Sequence[str]) -> Path:
    """Copy the sample, once, and put the ratings and the split there."""
    if (folder / "data" / "ratings.csv").exists():
        return folder
    ignored = shutil.ignore_patterns("__pycache__", "wandb", "models", "data", ".quickwins")
    shutil.copytree(SAMPLE, folder, ignore=ignored, dirs_exist_ok=True)
    for name in SPLITTING:
        text = (folder / name).read_text(encoding="utf-8")
        if text.count(DRAWN) != 1:
            raise SystemExit(f"{name}: draws its split in another way now; look at DRAWN")
        (folder / name).write_text(text.replace(DRAWN, GIVEN), encoding="utf-8")
    (folder / "parts.py").write_text(PARTS, encoding="utf-8")
    (folder / "data").mkdir()
    with open(folder / "data" / "movies.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["movieId", "title", "genres"]]
            + [[item, f"Title {item} (1990)", "Drama"] for item in sorted({row[1] for row in rows})]
        )
    with open(folder / "data" / "ratings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp", "part"])
        writer.writerows([*row[:3], int(float(row[3])), part] for row, part in zip(rows, parts))
    return folder


# Trials


def run(name: str, repository: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the trial of a script, and return its report."""
    training = TRAININGS[name]
    epochs = options.epochs or training.epochs
    stem = f"{name.replace(' ', '-')}-{options.split}"
    page = options.work.absolute() / f"{stem}.html"
    words = [
        "--seeds", str(options.seeds), "--python", sys.executable, "--root", ".",
        "--format", "json", "--html", str(page), "--select", options.select,
        "--max-users", str(options.users), *(["--amp", options.amp] if options.amp else []),
        training.script, "--",
        "--ratings-path", "data/ratings.csv", "--movies-path", "data/movies.csv",
        "--epochs", str(epochs), "--batch-size", str(options.batch_size),
        "--learning-rate", str(options.learning_rate or training.learning_rate),
        "--early-stopping-patience", str(epochs), *training.more,
    ]  # fmt: skip
    command = [sys.executable, "-m", "quickwins_codemod", "trial", *words]
    # Two-tower imports its split above the line that puts the repository on its path.
    environment = {**os.environ, "PYTHONPATH": str(repository.absolute())}
    # Not by subprocess.run, which would kill the trial on Ctrl-C before it has cleaned up.
    with subprocess.Popen(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, text=True
    ) as trial:
        written, _ = trial.communicate()
    if not written:
        raise SystemExit(f"{name}: the trial ended with {trial.returncode} and no report")
    report: dict[str, Any] = json.loads(written)
    (options.work / f"{stem}.json").write_text(written, encoding="utf-8")
    return report


# The table


def table(reports: dict[str, dict[str, Any]], popular: float) -> list[str]:
    """Markdown: a row for each variant of each script."""
    lines = [
        "| script | variant | runs | NDCG@10 | against the baseline | times popularity | RMSE |"
        " training s per epoch | memory, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| popularity | | | {popular:.3f} | | 1.0 | | | |",
    ]
    for name, report in reports.items():
        cases = {
            case["variant"]: case for case in report["comparisons"] if case["against"] == "baseline"
        }
        for variant in report["variants"]:
            values = {(value["name"], value["at"]): value for value in variant["values"]}
            shown = TEST if values.get((TEST, "best"), {}).get("n") else VALIDATION
            found = values.get((shown, "best"))
            if found is None or not found["n"]:  # no run of it came to its end
                lines.append(f"| {name} | {variant['name']} | 0 | | | | | | |")
                continue
            cells = [
                name,
                variant["name"],
                str(found["n"]),
                spread(found, ".3f") + ("" if shown == TEST else " (validation)"),
                change(cases.get(variant["name"]), shown),
                f"{found['mean'] / popular:.1f}" if shown == TEST else "",
                next((spread(v, ".3f") for (n, at), v in values.items()
                      if n.endswith("rmse") and "train" not in n and at == "best" and v["n"]), ""),
                spread(values.get(("epoch_seconds", "run")), ".2f"),
                spread(values.get(("peak_gpu_memory_mb", "run")), ".0f")
                or spread(values.get(("peak_memory_mb", "run")), ".0f"),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(value: dict[str, Any] | None, form: str) -> str:
    if value is None or not value["n"]:
        return ""
    around = "" if value["spread"] is None else f" ± {value['spread']:{form}}"
    return f"{value['mean']:{form}}{around}"


def change(case: dict[str, Any] | None, name: str) -> str:
    found = (
        [d for d in case["differences"] if (d["name"], d["at"]) == (name, "best")] if case else []
    )
    if not found or found[0]["percent"] is None:
        return ""
    around = found[0]["percent_interval"]
    told = "" if around is None else f" [{around[0]:+.0f}, {around[1]:+.0f}]"
    return f"{found[0]['percent']:+.0f} %{told}"


if __name__ == "__main__":
    main()
