"""Draw the negatives of a table row by row, as the sample data loaders do, and in one draw.

On one made data set of 100,000 ratings: the two functions of fixtures/recsys that draw negatives
into a table, as they are and as the rule hard-negatives leaves them, in turns within one process.
First what they give is compared: columns, counts, types, and that no positive is among it.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sidebyside import measure, report

from quickwins_codemod import bundle, pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms

SAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "recsys"
PER_USER = "neural_collaborative_filtering/src/data_loader.py"
PAIRS = "two_tower_model/src/data_loader.py"
Function = Callable[[], pd.DataFrame]


def made_ratings(rows: int, users: int, items: int, seed: int) -> pd.DataFrame:
    """Distinct pairs of a user and an item, with popular and rare items."""
    generator = np.random.default_rng(seed)
    keys: np.ndarray = np.empty(0, dtype=np.int64)
    while len(keys) < rows:
        user = generator.integers(users, size=rows)
        item = (items * generator.random(rows) ** 2.5).astype(np.int64)
        keys = np.unique(np.concatenate([keys, user * items + item]))
    keys = generator.permutation(keys)[:rows]
    return pd.DataFrame({
        "userId": keys // items + 1,
        "movieId": keys % items + 1,
        "rating": generator.integers(1, 11, size=rows) / 2,
        "timestamp": generator.integers(10**9, 2 * 10**9, size=rows),
    })


def rewritten(file: str, root: Path) -> Path:
    """The file as the rule leaves it, alone in a repository with the runtime."""
    target = root / file
    target.parent.mkdir(parents=True)
    target.write_bytes((SAMPLE / file).read_bytes())
    options = {t.rule: t.options_type() for t in all_transforms()}
    settings = Settings(rules=options, select=("hard-negatives",))
    outcome = pipeline.process(target, pipeline.Context(root, root, settings))
    if outcome is None or outcome.after is None:
        sys.exit(f"{file} was not rewritten")
    target.write_bytes(outcome.after)
    for part in bundle.plan(root, root):
        (root / part.path).parent.mkdir(exist_ok=True)
        (root / part.path).write_bytes(part.after or b"")
    return target


def compared(ratings: pd.DataFrame, before: Function, after: Function) -> None:
    """Print what both give, and end where they differ in more than the drawn ids."""
    results = {}
    for name, run in (("before", before), ("after", after)):
        np.random.seed(0)
        results[name] = run()
    old, new = results["before"], results["after"]
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        sys.exit("columns or counts differ")
    if not (old.dtypes == new.dtypes).all():
        sys.exit("types differ")
    popularity = ratings["movieId"].value_counts()
    positives = pd.MultiIndex.from_frame(ratings[["userId", "movieId"]])
    for name, frame in results.items():
        drawn = frame[len(ratings) :]
        hits = pd.MultiIndex.from_frame(drawn[["userId", "movieId"]]).isin(positives).sum()
        mean = drawn["movieId"].map(popularity).mean()
        print(f"  {name:<7}{len(drawn):>8,} negatives, {hits} positives among them, "
              f"mean popularity {mean:.1f} ratings")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--ratings", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=6_000)
    parser.add_argument("--items", type=int, default=4_000)
    parser.add_argument("--ratio", type=float, default=1.0, help="pairs drawn for each rating")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    ratings = made_ratings(args.ratings, args.users, args.items, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        sys.path.insert(0, folder)
        sources = {
            file: (SAMPLE / file, rewritten(file, root / file.split("/")[0]))
            for file in (PER_USER, PAIRS)
        }
        sys.path[:0] = [str(root / file.split("/")[0]) for file in sources]
        for file, paths in sources.items():
            print(f"{file}:")
            parts: list[Function] = []
            for path in paths:
                module = runpy.run_path(str(path))
                if file == PER_USER:
                    parts.append(lambda draw=module["create_negative_samples"]: draw(ratings))
                else:
                    data = module["TwoTowerData"].from_ratings(ratings)
                    parts.append(lambda data=data: data._add_negative_samples(ratings, args.ratio))
            compared(ratings, *parts)
            named = dict(zip(("row by row", "in one draw"), parts))
            report(measure(named, args.rounds), "in one draw")


if __name__ == "__main__":
    main()
