"""The ranking metrics, against their definitions in plain Python, and their evaluation of models."""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from hypothesis import given, settings, strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from quickwins_codemod.runtime import (  # noqa: E402
    RankingMetrics,
    catalog_coverage,
    diversity_at_k,
    gini,
    hit_rate_at_k,
    ndcg_at_k,
    novelty_at_k,
    recall_at_k,
    serendipity,
)
from quickwins_codemod.runtime import metrics as module  # noqa: E402
from quickwins_codemod.runtime.interactions import Interactions  # noqa: E402

ORACLES = Path(__file__).resolve().parents[1] / "fixtures" / "metrics_oracles.json"
NAN = math.nan
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(expected):
    return pytest.approx(expected, abs=1e-6, nan_ok=True)


# The definitions, in plain Python


def first(recommended, k):
    return list(dict.fromkeys(recommended))[:k]


def plain_ndcg(recommended, relevant, k):
    gained = sum(
        1 / math.log2(rank + 1)
        for rank, item in enumerate(first(recommended, k), 1)
        if item in relevant
    )
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return gained / best if relevant else NAN


def plain_recall(recommended, relevant, k):
    return len(set(first(recommended, k)) & relevant) / len(relevant) if relevant else NAN


def plain_hit_rate(recommended, relevant, k):
    return float(bool(set(first(recommended, k)) & relevant)) if relevant else NAN


def cosine(a, b):
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b)) / lengths if lengths else 0.0


def plain_diversity(recommended, features, k):
    items = first(recommended, k)
    distances = [
        1 - cosine(features[a], features[b]) for n, a in enumerate(items) for b in items[n + 1 :]
    ]
    return sum(distances) / len(distances) if distances else NAN


def plain_novelty(recommended, counts, n_users, k):
    bits = [-math.log2(max(counts[item], 1) / n_users) for item in first(recommended, k)]
    return sum(bits) / len(bits) if bits else NAN


def plain_serendipity(recommended, relevant, counts, k):
    items, n = first(recommended, k), len(counts)
    ladder = sorted(set(counts) - {0}, reverse=True)
    surprise = []
    for rank, item in enumerate(items, 1):
        own = (n + 1 - rank) / n
        any_user = (n + 1 - (ladder.index(counts[item]) + 1)) / n if counts[item] else 0.0
        surprise.append(max(own - any_user, 0.0) * (item in relevant))
    return sum(surprise) / len(surprise) if surprise else NAN


def plain_coverage(lists, n_items, k):
    return len({item for items in lists for item in first(items, k)}) / n_items


def plain_gini(lists, n_items, k):
    """Half the mean difference of all pairs, relative to the mean."""
    counts = [0] * n_items
    for items in lists:
        for item in first(items, k):
            counts[item] += 1
    differences = sum(abs(a - b) for a in counts for b in counts)
    return differences / (2 * n_items * sum(counts)) if sum(counts) else NAN


@st.composite
def cases(draw):
    n_items = draw(st.integers(1, 12))
    item = st.integers(0, n_items - 1)
    users = draw(st.integers(0, 5))
    number = st.one_of(st.just(0.0), st.floats(-4, 4, width=16))
    return {
        "n_items": n_items,
        "lists": [draw(st.lists(item, max_size=15)) for _ in range(users)],
        "relevant": [draw(st.sets(item)) for _ in range(users)],
        "features": [[draw(number) for _ in range(2)] for _ in range(n_items)],
        "counts": [draw(st.integers(0, 9)) for _ in range(n_items)],
        "k": draw(st.integers(1, 14)),
    }


def padded(lists):
    """A tensor of lists, with padding anywhere."""
    longest = max(map(len, lists), default=0)
    rows = [[*items[:1], *[-1] * (longest - len(items)), *items[1:]] for items in lists]
    return torch.tensor(rows, dtype=torch.int32).reshape(len(lists), longest)


@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_metric_is_its_definition(case):
    lists, relevant, k, counts = case["lists"], case["relevant"], case["k"], case["counts"]
    features = torch.tensor(case["features"])
    for given_lists in (padded(lists), lists) if lists else (padded(lists),):
        for ours, plain in (
            (ndcg_at_k, plain_ndcg),
            (recall_at_k, plain_recall),
            (hit_rate_at_k, plain_hit_rate),
        ):
            expected = [plain(*pair, k) for pair in zip(lists, relevant)]
            wanted = relevant if lists else torch.empty(0, 3)
            assert ours(given_lists, wanted, k).tolist() == near(expected)
        assert diversity_at_k(given_lists, features, k).tolist() == near(
            [plain_diversity(items, case["features"], k) for items in lists]
        )
        assert novelty_at_k(given_lists, counts, 9, k).tolist() == near(
            [plain_novelty(items, counts, 9, k) for items in lists]
        )
        wanted = relevant if lists else torch.empty(0, 3)
        assert serendipity(given_lists, wanted, counts, k).tolist() == near(
            [plain_serendipity(*pair, counts, k) for pair in zip(lists, relevant)]
        )
        n_items = case["n_items"]
        assert catalog_coverage(given_lists, n_items, k) == near(plain_coverage(lists, n_items, k))
        assert gini(given_lists, n_items, k) == near(plain_gini(lists, n_items, k))
