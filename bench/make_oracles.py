"""Write fixtures/metrics_oracles.json: what RecTools and torchmetrics say of some made-up lists.

Neither is installed beside the tests: RecTools asks for older numpy and pandas than they have. Made
with RecTools 0.19.0 and torchmetrics 1.9.0, in an environment of its own:

    python -m venv oracles && oracles/bin/pip install torch torchmetrics scipy pandas attrs tqdm \
        typeguard pydantic
    oracles/bin/pip install --no-deps rectools
    oracles/bin/python bench/make_oracles.py
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rectools import Columns
from rectools.metrics import (
    NDCG,
    CatalogCoverage,
    HitRate,
    IntraListDiversity,
    MeanInvUserFreq,
    Recall,
    Serendipity,
)
from rectools.metrics.distances import PairwiseDistanceCalculator
from scipy.spatial.distance import cosine
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
)

OUT = Path(__file__).resolve().parents[1] / "fixtures" / "metrics_oracles.json"
FACTORS = 3


class CosineDistance(PairwiseDistanceCalculator):
    """One pair after the other, by scipy."""

    def __init__(self, features: np.ndarray) -> None:
        self.features = features

    def _get_distances_for_item_pairs(self, first: Any, second: Any) -> np.ndarray:
        return np.array([cosine(self.features[i], self.features[j]) for i, j in zip(first, second)])


def make_lists(rng: np.random.Generator, users: int, items: int, lengths: tuple[int, int]) -> dict:
    """Lists, what is relevant, training interactions, and features of the items."""

    def draw(low: int, high: int) -> list[int]:
        count = min(int(rng.integers(low, high + 1)), items)
        return [int(item) for item in rng.choice(items, size=count, replace=False)]

    train = [sorted(draw(1, max(2, items // 4))) for _ in range(users)]
    return {
        "n_items": items,
        "recommended": [draw(*lengths) for _ in range(users)],
        # The first users have no relevant items, and more than a list holds.
        "relevant": [[], draw(items // 2, items)] + [draw(1, 6) for _ in range(users - 2)],
        "train": train,
        "features": rng.normal(size=(items, FACTORS)).round(2).tolist(),
    }


def rectools_says(case: dict, k: int) -> dict:
    """Per user, None where RecTools leaves a user out; and the coverage."""
    lists, items = case["recommended"], range(case["n_items"])
    recommended = [(u, i, rank + 1) for u, ids in enumerate(lists) for rank, i in enumerate(ids)]
    reco = pd.DataFrame(recommended, columns=[Columns.User, Columns.Item, Columns.Rank])
    relevant, train = starmap(pairs, [(case["relevant"],), (case["train"],)])

    def per_user(values: pd.Series) -> list[float | None]:
        return [float(values[u]) if u in values.index else None for u in range(len(lists))]

    distance = CosineDistance(np.array(case["features"]))
    diversity = IntraListDiversity(k, distance_calculator=distance).calc_per_user(reco)
    return {
        "ndcg": per_user(NDCG(k, divide_by_achievable=True).calc_per_user(reco, relevant)),
        "recall": per_user(Recall(k).calc_per_user(reco, relevant)),
        "hit_rate": per_user(HitRate(k).calc_per_user(reco, relevant)),
        "diversity": per_user(diversity),
        "novelty": per_user(MeanInvUserFreq(k).calc_per_user(reco, train)),
        "serendipity": per_user(Serendipity(k).calc_per_user(reco, relevant, train, items)),
        "coverage": CatalogCoverage(k, normalize=True).calc(reco, items),
    }


def pairs(lists: list[list[int]]) -> pd.DataFrame:
    rows = [(user, item) for user, ids in enumerate(lists) for item in ids]
    return pd.DataFrame(rows, columns=[Columns.User, Columns.Item])


def make_scores(rng: np.random.Generator, users: int, items: int) -> dict:
    """Positive scores, no two of a user alike, and relevance of every item."""
    scores = [(rng.permutation(items) + 1) / (items + 1) for _ in range(users)]
    relevance = rng.random((users, items)) < rng.uniform(0.02, 0.6, size=(users, 1))
    relevance[0] = True
    relevance[:, 0] |= ~relevance.any(axis=1)
    return {
        "scores": np.round(scores, 4).tolist(),
        "relevant": [np.flatnonzero(row).tolist() for row in relevance],
    }


def torchmetrics_says(case: dict, k: int) -> dict:
    found: dict[str, list[float]] = {"ndcg": [], "recall": [], "hit_rate": []}
    for row, ids in zip(case["scores"], case["relevant"]):
        scores = torch.tensor(row, dtype=torch.float64)
        target = torch.zeros(len(row), dtype=torch.bool)
        target[ids] = True
        found["ndcg"].append(retrieval_normalized_dcg(scores, target.long(), top_k=k).item())
        found["recall"].append(retrieval_recall(scores, target, top_k=k).item())
        found["hit_rate"].append(retrieval_hit_rate(scores, target, top_k=k).item())
    return found


def main() -> None:
    rng = np.random.default_rng(6)
    lists = {
        "ordinary": make_lists(rng, 12, 40, (10, 10)),
        "short": make_lists(rng, 8, 25, (1, 4)),
        "catalogue smaller than k": make_lists(rng, 6, 4, (2, 4)),
    }
    scores = {
        "ordinary": make_scores(rng, 8, 30),
        "catalogue smaller than k": make_scores(rng, 4, 6),
    }
    for case in lists.values():
        case["rectools"] = {str(k): rectools_says(case, k) for k in (1, 3, 10)}
    for case in scores.values():
        case["torchmetrics"] = {str(k): torchmetrics_says(case, k) for k in (1, 3, 10)}
    made_by = {name: version(name) for name in ("rectools", "torchmetrics", "torch")}
    text = json.dumps({"made_by": made_by, "lists": lists, "scores": scores}, indent=1)
    # One line for each list of numbers.
    OUT.write_text(compact(text), encoding="utf-8")
    print(f"written to {OUT.name}: {len(lists)} cases of lists, {len(scores)} of scores")


def compact(text: str) -> str:
    inner = re.compile(r"\[[^\[\]{}]*\]")
    return inner.sub(lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


if __name__ == "__main__":
    main()
