"""The ranking metrics against their definitions in plain Python, and the evaluation of models."""

import json
import math
import random
import subprocess
import sys
import warnings
from collections import Counter
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


def near(expected, tolerance=1e-6):
    return pytest.approx(expected, abs=tolerance, nan_ok=True)


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


def plain_serendipity(recommended, relevant, counts, k, n=None):
    items, n = first(recommended, k), n or len(counts)
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
    shown = Counter(item for items in lists for item in first(items, k))
    counts = [*shown.values(), *[0] * (n_items - len(shown))]
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


# Other libraries


def oracle_cases(kind):
    cases = json.loads(ORACLES.read_text(encoding="utf-8"))[kind]
    return [
        pytest.param(case, int(k), id=f"{name}-{k}")
        for name, case in cases.items()
        for k in (1, 3, 10)
    ]


@pytest.mark.parametrize("case, k", oracle_cases("lists"))
def test_rectools_agrees(case, k):
    lists, relevant, theirs = case["recommended"], case["relevant"], case["rectools"][str(k)]
    counts = torch.zeros(case["n_items"], dtype=torch.long)
    for items in case["train"]:
        counts[items] += 1
    n_items, n_users = case["n_items"], len(case["train"])
    # RecTools has no value for users without relevant items, and 0 for lists of a single item.
    expected = {
        name: [NAN if v is None else v for v in theirs[name]]
        for name in theirs
        if name != "coverage"
    }
    expected["diversity"] = [
        value if min(len(items), k) > 1 else NAN
        for value, items in zip(expected["diversity"], lists)
    ]
    ours = {
        "ndcg": ndcg_at_k(lists, relevant, k),
        "recall": recall_at_k(lists, relevant, k),
        "hit_rate": hit_rate_at_k(lists, relevant, k),
        "diversity": diversity_at_k(lists, torch.tensor(case["features"]), k),
        "novelty": novelty_at_k(lists, counts, n_users, k),
        "serendipity": serendipity(lists, relevant, counts, k),
    }
    for name, values in ours.items():
        assert values.tolist() == near(expected[name]), name
    assert catalog_coverage(lists, n_items, k) == near(theirs["coverage"])


@pytest.mark.parametrize("case, k", oracle_cases("scores"))
def test_torchmetrics_agrees(case, k):
    scores, relevant, theirs = case["scores"], case["relevant"], case["torchmetrics"][str(k)]
    lists = torch.tensor(scores).argsort(dim=1, descending=True)
    assert ndcg_at_k(lists, relevant, k).tolist() == near(theirs["ndcg"])
    assert recall_at_k(lists, relevant, k).tolist() == near(theirs["recall"])
    assert hit_rate_at_k(lists, relevant, k).tolist() == near(theirs["hit_rate"])

    metrics = RankingMetrics(n_items=len(scores[0]), k=k)
    metrics.update(torch.tensor(scores), relevant=relevant)
    found = metrics.compute()
    for name, values in theirs.items():
        assert found[f"{name}@{k}"] == near(sum(values) / len(values))


@pytest.mark.parametrize("k", [1, 2, 10, 50])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_scikit_learn_agrees(k, share):
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(int(100 * share) + k)
    scores = rng.permuted(np.tile(np.linspace(-3, 3, 30), (20, 1)), axis=1)
    truth = rng.random((20, 30)) < share
    truth[:, 0] |= ~truth.any(axis=1)
    expected = [sklearn_metrics.ndcg_score(t[None], s[None], k=k) for t, s in zip(truth, scores)]

    relevant = [np.flatnonzero(row) for row in truth]
    assert ndcg_at_k((-scores).argsort(axis=1), relevant, k).tolist() == near(expected)
    metrics = RankingMetrics(n_items=30, k=k)
    metrics.update(scores, relevant=relevant)
    assert metrics.compute()[f"ndcg@{k}"] == near(np.mean(expected))


# Forms of input


def test_a_single_list_has_a_single_value():
    features = torch.eye(9)
    for recommended in ([4, 7, 1], torch.tensor([4, 7, 1]), np.array([4, 7, 1], dtype=np.uint8)):
        for relevant in ([7], {7}, torch.tensor([7]), (7, 7)):
            value = ndcg_at_k(recommended, relevant, 10)
            assert value.shape == () and float(value) == near(1 / math.log2(3))
        assert diversity_at_k(recommended, features, 10).item() == 1.0
        assert catalog_coverage(recommended, 9, 2) == 2 / 9
    assert math.isnan(ndcg_at_k([], [], 3)) and math.isnan(diversity_at_k([], features, 3))


def test_lists_of_items_with_scores_are_lists_of_items():
    pairs = [[(3, 0.9), (np.int64(1), np.float32(0.8))], [(torch.tensor(2), torch.tensor(0.1))]]
    assert recall_at_k(pairs, [{1, 5}, {2}], 5).tolist() == [0.5, 1.0]
    assert recall_at_k(pairs[0], [1, 5], 5).item() == 0.5
    assert recall_at_k([(3, 1), (2, 5)], [{1, 5}, {2}], 5).tolist() == [0.5, 1.0]  # lists of two


def test_one_relevant_item_for_each_list():
    lists = torch.tensor([[3, 1], [2, 0]])
    for targets in (torch.tensor([1, 1]), [1, 1], torch.tensor([[1], [1]])):
        assert hit_rate_at_k(lists, targets, 2).tolist() == [1.0, 0.0]


def test_a_repeated_item_counts_at_its_first_place_only():
    assert ndcg_at_k([[5, 5, 6, 7]], [[5, 6]], 2).tolist() == [1.0]
    assert recall_at_k([[5, 5, 5]], [[5, 6]], 3).tolist() == [0.5]
    assert diversity_at_k([[5, 5, 6]], torch.eye(7), 2).tolist() == [1.0]


def test_lists_longer_than_k_are_cut():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(30, 4, generator=generator)
    lists = torch.stack([torch.randperm(30, generator=generator) for _ in range(3)])
    for k in (2, 3, 10):
        cut = diversity_at_k(lists[:, :k], features, 30)
        assert torch.equal(diversity_at_k(lists, features, k), cut)
    assert not torch.allclose(
        diversity_at_k(lists, features, 3), diversity_at_k(lists, features, 10)
    )


def test_large_ids_are_kept_apart():
    ids = [2**62 + offset for offset in range(4)]
    lists = [[ids[0]], [ids[1]], [ids[2]]]
    assert hit_rate_at_k(lists, [[ids[0]], [ids[0]], [ids[3]]], 5).tolist() == [1.0, 0.0, 0.0]


def test_features_without_direction_are_orthogonal_to_all():
    features = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 0.0]])
    assert diversity_at_k([[0, 1], [0, 3], [1, 2]], features, 5).tolist() == near([1.0, 1.0, 0.0])
    assert diversity_at_k([0, 1, 2], features, 5).item() == near(2 / 3)
    opposite = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert diversity_at_k([0, 1], opposite, 5).item() == 2.0


def test_rounding_does_not_lead_out_of_the_range():
    generator = torch.Generator().manual_seed(5)
    alike = torch.randn(200, 1, 7, generator=generator).expand(-1, 9, -1).reshape(-1, 7)
    found = diversity_at_k(torch.arange(1800).view(200, 9), alike, 9)
    assert 0.0 <= found.min() and found.max() < 1e-12
    opposite = torch.stack([alike[:200], -alike[:200]], dim=1).reshape(-1, 7)
    found = diversity_at_k(torch.arange(400).view(200, 2), opposite, 9)
    assert found.max() <= 2.0 and found.min() > 2.0 - 1e-12


def test_features_that_are_not_finite_spoil_their_own_lists_only():
    features = torch.tensor([[NAN, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert diversity_at_k([[0, 1], [1, 2]], features, 5).tolist() == near([NAN, 1.0])


@pytest.mark.parametrize(
    "kind", [torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.int8]
)
def test_features_of_any_type(kind):
    features = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 1, 0]], dtype=kind)
    expected = plain_diversity([0, 1, 2], features.double().tolist(), 3)
    assert diversity_at_k([0, 1, 2], features, 3).item() == near(expected)


def test_popularity_as_counts_and_as_shares():
    for popularity in ([0, 1, 4, 8], torch.tensor([0.0, 1, 4, 8]), np.array([0, 0.125, 0.5, 1.0])):
        assert novelty_at_k([[0], [1], [2], [3]], popularity, 8, 3).tolist() == [3.0, 3.0, 1.0, 0.0]
    # Whole numbers are counts, also where all of them could be shares.
    assert novelty_at_k([0, 1], [0, 1], 8, 3).item() == 3.0


def test_gini_from_even_to_all_alike():
    assert gini([[0, 1], [2, 3]], 4, 2) == 0.0
    assert gini([[0], [0]], 4, 1) == 0.75
    assert (
        math.isnan(gini(torch.empty(0, 3), 4, 2)) and catalog_coverage(torch.empty(0, 3), 4, 2) == 0
    )


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: ndcg_at_k([1], [1], 0), ValueError, "k must be 1 or more"),
        (lambda: ndcg_at_k([1], [1], 2.0), TypeError, "k must be an integer"),
        (lambda: ndcg_at_k([1.5], [1], 2), TypeError, "recommended must be integer ids"),
        (lambda: ndcg_at_k(torch.ones(2, 2), [1], 2), TypeError, "recommended must be integer ids"),
        (lambda: ndcg_at_k(["a"], [1], 2), TypeError, "recommended must be integer ids"),
        (lambda: ndcg_at_k(torch.ones(1, 1, 1).long(), [1], 2), ValueError, r"shape \[1, 1, 1\]"),
        (lambda: ndcg_at_k([1, [2]], [1], 2), TypeError, "not both"),
        (lambda: ndcg_at_k([[1], [2]], [[1]], 2), ValueError, "2 lists .* 1 of relevant"),
        (lambda: diversity_at_k([1, 3], torch.eye(3), 2), ValueError, "item id 3 .* rows is 3"),
        (lambda: novelty_at_k([1], [1, 9], 8, 2), ValueError, "item 1 has a popularity of 9.*8"),
        (lambda: novelty_at_k([1], [1, -1], 8, 2), ValueError, "item 1 has a popularity of -1"),
        (lambda: novelty_at_k([1], [0.5, NAN], 8, 2), ValueError, "item 1 has a popularity of nan"),
        (lambda: novelty_at_k([1], [0, 0], 0, 2), ValueError, "n_users must be 1 or more"),
        (lambda: novelty_at_k([2], [1, 1], 8, 2), ValueError, "item id 2 .* popularities is 2"),
        (lambda: serendipity([2], [2], [1, 1], 2), ValueError, "item id 2 .* popularities is 2"),
        (lambda: catalog_coverage([4], 4, 2), ValueError, "item id 4 .* n_items is 4"),
        (lambda: gini([4], 4, 2), ValueError, "item id 4 .* n_items is 4"),
    ],
)
def test_wrong_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# The evaluation of scores and models


USERS, ITEMS = 30, 25


def some_pairs(count, seed):
    generator = torch.Generator().manual_seed(seed)
    users = torch.randint(0, USERS, (count,), generator=generator)
    return users, torch.randint(0, ITEMS, (count,), generator=generator)


TRAIN, HELD_OUT = some_pairs(150, 1), some_pairs(70, 2)


class Factors(nn.Module):
    """Matrix factorisation, with a score that no two items share."""

    def __init__(self, users=USERS, items=ITEMS, **options):
        super().__init__()
        self.users, self.items = nn.Embedding(users, 4), nn.Embedding(items, 4, **options)
        generator = torch.Generator().manual_seed(3)
        for part in (self.users, self.items):
            nn.init.normal_(part.weight, generator=generator)
        self.calls = []

    def forward(self, users, items):
        self.calls.append(len(users))
        return (self.users(users) * self.items(items)).sum(-1)


def grid(model, users):
    with torch.no_grad():
        return model.users(users) @ model.items.weight.T


def plain_evaluation(scores, train, held_out, k, features, embeddings=None, excluded=()):
    """What `evaluate` should say, user by user; `scores` are of all users."""
    seen, relevant = ({u: set() for u in range(len(scores))} for _ in range(2))
    for table, (users, items) in ((seen, train), (relevant, held_out)):
        for user, item in zip(users.tolist(), items.tolist()):
            table[user].add(item)
    n_items = scores.shape[1] - len(excluded)
    counts = [
        0 if item in excluded else sum(item in items for items in seen.values())
        for item in range(scores.shape[1])
    ]
    n_users = sum(bool(items) for items in seen.values())
    lists, wanted = [], []
    for user, row in enumerate(scores.tolist()):
        never = seen[user] | set(excluded)
        ranked = sorted(set(range(len(row))) - never, key=lambda item: -row[item])[:k]
        if relevant[user] - never:
            lists.append(ranked)
            wanted.append(relevant[user] - never)

    def mean(values):
        values = [value for value in values if not math.isnan(value)]
        return sum(values) / len(values) if values else NAN

    vectors = (features if embeddings is None else embeddings).tolist()
    name = "diversity" if embeddings is None else "embedding_diversity"
    return {
        f"ndcg@{k}": mean(plain_ndcg(*pair, k) for pair in zip(lists, wanted)),
        f"recall@{k}": mean(plain_recall(*pair, k) for pair in zip(lists, wanted)),
        f"hit_rate@{k}": mean(plain_hit_rate(*pair, k) for pair in zip(lists, wanted)),
        f"{name}@{k}": mean(plain_diversity(items, vectors, k) for items in lists),
        f"novelty@{k}": mean(plain_novelty(items, counts, n_users or 1, k) for items in lists),
        f"serendipity@{k}": mean(
            plain_serendipity(*pair, counts, k, n_items) for pair in zip(lists, wanted)
        ),
        "coverage": len({item for items in lists for item in items}) / n_items,
        "gini": plain_gini(lists, n_items, k),
        "users_evaluated": len(lists),
        "users_without_relevant": 0,
    }


EXTRAS = ("gini", "serendipity")
FEATURES = torch.randn(ITEMS, 3, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("k", [1, 10, 40])
@pytest.mark.parametrize("batch_size", [1, 7, 2**14])
def test_scores_a_model_and_encoders_come_to_the_same(k, batch_size):
    model = Factors()
    expected = plain_evaluation(grid(model, torch.arange(USERS)), TRAIN, HELD_OUT, k, FEATURES)
    if k == 1:
        del expected["diversity@1"]  # undefined for every list
    metrics = RankingMetrics(
        TRAIN, HELD_OUT, ITEMS, k=k, features=FEATURES, extras=EXTRAS, batch_size=batch_size
    )
    assert metrics.evaluate(model) == near(expected)
    assert max(model.calls) <= batch_size
    assert metrics.evaluate(model, encode=(model.users, model.items)) == near(expected)
    assert metrics.evaluate((), score=model) == near(expected)

    metrics.reset()
    for users in torch.arange(USERS).flip(0).split(11):
        metrics.update(grid(model, users), users)
    without = USERS - expected["users_evaluated"]
    assert metrics.compute() == near({**expected, "users_without_relevant": without})
    assert without > 0


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_any_data_come_to_what_the_definitions_say(data):
    users, items = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 9))
    pair = st.tuples(st.integers(0, users - 1), st.integers(0, items - 1))
    train, held_out = (
        torch.tensor(data.draw(st.lists(pair, max_size=15)), dtype=torch.long).reshape(-1, 2).T
        for _ in range(2)
    )
    ranks = [data.draw(st.permutations(range(items))) for _ in range(users)]
    scores = torch.tensor(ranks, dtype=torch.float32)
    excluded = data.draw(st.sets(st.integers(0, items - 1), max_size=items - 1))
    k = data.draw(st.integers(1, 10))
    expected = plain_evaluation(scores, train, held_out, k, FEATURES, excluded=excluded)
    metrics = RankingMetrics(
        tuple(train), tuple(held_out), items, k=k, features=FEATURES, excluded=excluded,
        extras=EXTRAS, batch_size=data.draw(st.sampled_from([1, 3, 100])),
    )  # fmt: skip
    found = metrics.evaluate((), score=lambda u, i: scores[u, i])
    if not expected["users_evaluated"]:
        expected["coverage"] = NAN
    if not len(train[0]):
        del expected[f"novelty@{k}"], expected[f"serendipity@{k}"]
    assert found == near({name: v for name, v in expected.items() if not math.isnan(v)})


def test_n_items_may_be_read_from_the_data():
    metrics = RankingMetrics(TRAIN, HELD_OUT)
    assert metrics.n_items == ITEMS
    assert "ndcg@10" in metrics.evaluate(Factors())


def test_excluded_items_are_no_part_of_the_catalogue():
    model = Factors()
    scores = grid(model, torch.arange(USERS))
    excluded = [0, int(scores.sum(0).argmax())]
    expected = plain_evaluation(scores, TRAIN, HELD_OUT, 5, FEATURES, excluded=excluded)
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, k=5, features=FEATURES, excluded=excluded)
    found = metrics.evaluate(model)
    names = ("ndcg@5", "recall@5", "diversity@5", "novelty@5", "coverage", "users_evaluated")
    assert {name: found[name] for name in names} == near({name: expected[name] for name in names})
    everything = RankingMetrics(TRAIN, HELD_OUT, ITEMS, k=5, excluded=range(3, ITEMS))
    everything.update(scores, torch.arange(USERS), relevant=torch.zeros(USERS, dtype=torch.long))
    assert everything.compute()["coverage"] == 1.0  # of the three that are left


def test_embeddings_are_read_when_lists_are_added():
    model = Factors()
    sources = {
        "module": model.items,
        "parameter": model.items.weight,
        "function": lambda: model.items.weight,
    }
    found = {
        name: RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=source)
        for name, source in sources.items()
    }
    for _ in range(2):
        scores, weights = grid(model, torch.arange(USERS)), model.items.weight.detach()
        expected = plain_evaluation(scores, TRAIN, HELD_OUT, 10, None, weights)
        for metrics in found.values():
            ours = metrics.evaluate(model)
            assert ours["embedding_diversity@10"] == near(expected["embedding_diversity@10"])
            assert "diversity@10" not in ours
        with torch.no_grad():
            model.items.weight[: ITEMS // 2] *= -1.0


def test_sequence_models_say_what_is_relevant_and_seen():
    logits = torch.tensor([[9.0, 8, 7, 6], [9.0, 8, 7, 6], [9.0, 8, 7, 6]])
    targets = torch.tensor([2, 3, 0])
    histories = torch.tensor([[0, 1, -1], [0, 0, 0], [0, -1, -1]])
    metrics = RankingMetrics(n_items=4, k=2)
    metrics.update(logits, relevant=targets, seen=histories)
    # The third row has its only relevant item in its history.
    expected = {"ndcg@2": 0.5, "recall@2": 0.5, "hit_rate@2": 0.5, "coverage": 0.75}
    assert metrics.compute() == near(
        {**expected, "users_evaluated": 2, "users_without_relevant": 1}
    )
    metrics.reset()
    metrics.update(logits[:1], relevant=torch.tensor(0))  # squeezed
    assert metrics.compute()["ndcg@2"] == 1.0
    metrics.reset()
    metrics.update(logits, relevant=[[0], [0, 1, 2], set()])
    assert metrics.compute()["recall@2"] == near((1 + 2 / 3) / 2)


def test_interactions_where_histories_stand_for_users():
    histories, targets = torch.tensor([[1, 2], [2, 3], [0, 1], [3, 0]]), torch.tensor([3, 3, 3, 0])
    loader = DataLoader(TensorDataset(histories, targets), batch_size=2)
    metrics = RankingMetrics(loader, n_items=4, k=1)
    metrics.update(torch.eye(4)[[0, 3]], relevant=targets[[3, 0]])
    # One of four histories leads to item 0, three of four to item 3.
    assert metrics.compute()["novelty@1"] == near((2.0 + math.log2(4 / 3)) / 2)
    with pytest.raises(ValueError, match="held_out has histories in the place of users"):
        RankingMetrics(loader, loader, n_items=4)


def test_loaders_data_sets_and_interactions_are_read():
    ratings = torch.rand(len(TRAIN[0]))
    data = TensorDataset(*TRAIN, ratings)
    expected = RankingMetrics(TRAIN, HELD_OUT, ITEMS).evaluate(Factors())
    for train in (data, DataLoader(data, batch_size=8, shuffle=True), Interactions(data)):
        assert RankingMetrics(train, HELD_OUT, ITEMS).evaluate(Factors()) == expected
    liked = Interactions((*HELD_OUT, torch.arange(len(HELD_OUT[0])) % 2), labels=2)
    odd = tuple(column[1::2] for column in HELD_OUT)
    first, second = (
        RankingMetrics(TRAIN, held, ITEMS).evaluate(Factors()) for held in (liked, odd)
    )
    assert first == second != expected


def test_pairs_that_come_twice_count_once():
    twice = [tuple(torch.cat([column, column]) for column in pairs) for pairs in (TRAIN, HELD_OUT)]
    once = RankingMetrics(TRAIN, HELD_OUT, ITEMS, extras=EXTRAS).evaluate(Factors())
    assert RankingMetrics(*twice, ITEMS, extras=EXTRAS).evaluate(Factors()) == once


@pytest.mark.parametrize("held_out", [None, ([], []), TRAIN])
def test_without_anything_to_find_only_the_counts_are_left(held_out):
    metrics = RankingMetrics(TRAIN, held_out, ITEMS, features=FEATURES, extras=EXTRAS)
    model = Factors()
    nothing = {"users_evaluated": 0, "users_without_relevant": 0}
    assert metrics.evaluate(model) == nothing and model.calls == []
    metrics.update(grid(model, torch.arange(3)), torch.arange(3))
    assert metrics.compute() == {**nothing, "users_without_relevant": 3}
    metrics.update(torch.empty(0, ITEMS), torch.empty(0, dtype=torch.long))
    assert metrics.compute() == {**nothing, "users_without_relevant": 3}


def test_without_training_data_there_is_no_novelty():
    found = RankingMetrics(None, HELD_OUT, ITEMS, extras=EXTRAS).evaluate(Factors())
    assert set(found) == {
        *("ndcg@10", "recall@10", "hit_rate@10", "coverage", "gini"),
        *("users_evaluated", "users_without_relevant"),
    }


def test_catalogue_smaller_than_k():
    metrics = RankingMetrics(([0, 1], [0, 0]), ([0, 1], [1, 2]), 3, features=torch.eye(3))
    metrics.update(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1]))
    found = metrics.compute()
    assert found["ndcg@10"] == near((1 / math.log2(3) + 1) / 2)
    assert found["recall@10"] == 1.0 and found["coverage"] == near(2 / 3)
    assert found["diversity@10"] == 1.0 and found["novelty@10"] == 1.0


def test_scores_that_are_no_numbers_never_win():
    scores = torch.tensor([[NAN, 1.0, -torch.inf, torch.inf], [NAN, NAN, NAN, NAN]])
    metrics = RankingMetrics(n_items=4, k=3, features=torch.eye(4))
    metrics.update(scores, relevant=[[0, 1, 2], [3]])
    expected = plain_ndcg([3, 1], {0, 1, 2}, 3) / 2
    assert metrics.compute()["ndcg@3"] == near(expected)
    assert metrics.compute()["coverage"] == 0.5
    assert metrics.compute()["diversity@3"] == 1.0  # of the first row alone


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_scores_of_any_type_are_left_as_they_were(kind):
    scores = torch.stack([torch.randperm(ITEMS) for _ in range(USERS)]).to(kind)
    kept = scores.clone()
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, features=FEATURES)
    metrics.update(scores.requires_grad_(kind.is_floating_point), torch.arange(USERS))
    assert torch.equal(scores, kept)
    expected = plain_evaluation(kept.float(), TRAIN, HELD_OUT, 10, FEATURES)
    assert metrics.compute()["ndcg@10"] == near(expected["ndcg@10"])


def test_scores_closer_than_float32_can_tell():
    scores = 1.0 + 1e-12 * torch.arange(ITEMS, dtype=torch.float64).repeat(USERS, 1)
    metrics = RankingMetrics(n_items=ITEMS, k=1)
    metrics.update(scores, relevant=torch.full((USERS,), ITEMS - 1))
    assert metrics.compute()["ndcg@1"] == 1.0


# Items of equal score


def test_ties_are_broken_at_random_and_always_in_the_same_way():
    items = 1000
    relevant = torch.arange(items)
    found = []
    for seed in (0, 0, 1):
        metrics = RankingMetrics(n_items=items, k=10, seed=seed)
        metrics.update(torch.zeros(items, items), relevant=relevant)
        found.append(metrics.compute())
    assert found[0] == found[1]
    assert all(one["recall@10"] == near(0.01) and one["coverage"] == 0.01 for one in found)
    lists = [
        module._top_k(torch.zeros(1, items), 10, RankingMetrics(n_items=items, seed=seed)._priority)
        for seed in (0, 1)
    ]
    assert lists[0].tolist() != lists[1].tolist()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_top_k_is_a_sort_by_score_and_priority(data):
    n = data.draw(st.integers(1, 9))
    level = st.sampled_from([0.0, 1.0, 2.0, -torch.inf, torch.inf])
    rows = data.draw(st.lists(st.lists(level, min_size=n, max_size=n), max_size=4))
    priority = data.draw(st.permutations(range(n)))
    k = data.draw(st.integers(1, 10))
    scores = torch.tensor(rows).reshape(len(rows), n)
    found = module._top_k(scores, k, torch.tensor(priority, dtype=torch.int32))
    for row, ours in zip(rows, found.tolist()):
        ranked = sorted(range(n), key=lambda item: (-row[item], -priority[item]))
        kept = [item for item in ranked if row[item] > -torch.inf][:k]
        assert ours == kept + [-1] * (min(k, n) - len(kept))


# The sample of users, the time and the memory it takes


def evaluated_users(metrics, model, **named):
    """Which users `update_from_model` evaluates, in order."""
    seen = []

    def score(users, items):
        seen.extend(dict.fromkeys(users.tolist()))
        return model(users, items)

    number = metrics.update_from_model(model, score=score, **named)
    assert number == len(seen) == len(set(seen))
    return seen


def test_the_sample_is_the_same_for_every_epoch_and_run():
    model, torch_state = Factors(), torch.get_rng_state()
    everybody = evaluated_users(RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=None), model)
    sample = RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=8)
    torch.manual_seed(5)
    assert evaluated_users(sample, model) == evaluated_users(sample, model) == everybody[:8]
    again = RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=8)
    assert evaluated_users(again, model) == everybody[:8] != sorted(everybody)[:8]
    other = RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=8, seed=1)
    assert evaluated_users(other, model) != everybody[:8]
    assert sorted(everybody) == sorted(set(everybody)) and len(everybody) < USERS
    assert evaluated_users(sample, model, users=[3, 1]) == [3, 1]
    torch.set_rng_state(torch_state)


def test_the_time_budget_cuts_the_sample_short(monkeypatch):
    model, now = Factors(), [0.0]

    def score(users, items):
        now[0] += 1.0
        return model(users, items)

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    for seconds, expected in ((3.0, 3), (0.0, 1), (None, 12)):
        metrics = RankingMetrics(
            TRAIN, HELD_OUT, ITEMS, max_users=12, seconds=seconds, batch_size=ITEMS
        )
        assert metrics.update_from_model(model, score=score) == expected
        assert metrics.compute()["users_evaluated"] == expected
    whole = RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=12, seconds=None)
    cut = RankingMetrics(TRAIN, HELD_OUT, ITEMS, max_users=12, seconds=3.0, batch_size=ITEMS)
    assert evaluated_users(cut, Factors(), users=None) == evaluated_users(whole, Factors())[:12]


def test_no_more_scores_are_held_than_the_setting_says(monkeypatch):
    model, blocks = Factors(), []
    real = module._top_k
    monkeypatch.setattr(
        module, "_top_k", lambda s, *rest: blocks.append(s.numel()) or real(s, *rest)
    )
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, batch_size=2)
    metrics.update_from_model(model)
    assert max(blocks) == ITEMS and max(model.calls) == 2
    blocks.clear()
    metrics.update_from_model(model, encode=(model.users, model.items))
    assert max(blocks) <= 512 and len(blocks) == math.ceil(
        metrics.compute()["users_evaluated"] / 2 / 20
    )
    blocks.clear()
    metrics.update(grid(model, torch.arange(USERS)), torch.arange(USERS))
    assert blocks == [500, 250]


# Watching changes nothing


class Noisy(Factors):
    """With all that evaluation could disturb, and submodules in modes of their own."""

    def __init__(self):
        super().__init__(max_norm=1.0)
        self.norm, self.frozen = nn.BatchNorm1d(4), nn.BatchNorm1d(4).eval()
        self.drop = nn.Dropout(0.5)
        self.seen = set()

    def forward(self, users, items):
        self.seen.add((self.training, self.drop.training, torch.is_grad_enabled()))
        self.seen.add(torch.is_autocast_enabled("cpu"))
        vectors = self.drop(self.frozen(self.norm(self.users(users) * self.items(items))))
        noise = torch.rand(()) if not torch.is_grad_enabled() else 0.0  # as Monte Carlo dropout
        return vectors.sum(-1) + noise


def trained(metrics, epochs=3):
    torch.manual_seed(0)
    model = Noisy()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    loader = DataLoader(TensorDataset(*TRAIN), batch_size=16, shuffle=True)
    for _ in range(epochs):
        for users, items in loader:
            optimizer.zero_grad()
            model(users, items).square().mean().backward()
            optimizer.step()
        if metrics is not None:
            metrics.evaluate(model)
    return model, torch.rand(3)


def test_training_goes_on_as_if_nobody_had_watched(monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("the counters of peak memory are the script's")

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forbidden)
    model = Noisy()
    plain, plain_random = trained(None)
    embeddings = nn.Embedding(ITEMS, 2)
    watched, watched_random = trained(
        RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=embeddings, extras=EXTRAS)
    )
    assert torch.equal(plain_random, watched_random)
    for (name, ours), theirs in zip(watched.state_dict().items(), plain.state_dict().values()):
        assert torch.equal(ours, theirs), name
    assert watched.training and watched.drop.training and not watched.frozen.training
    assert watched.seen == {(True, True, True), (False, False, False), False}
    assert model.training


def test_a_model_that_draws_numbers_of_its_own_leaves_every_stream_where_it_was():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.numpy, self.python = np.random.default_rng(1), random.Random(1)
            self.torch = torch.Generator().manual_seed(1)

        def forward(self, scores):
            noise = self.numpy.random() + self.python.random() + np.random.rand() + random.random()
            return scores + noise + torch.rand((), generator=self.torch) + torch.rand(())

    class Drawing(Factors):
        def __init__(self):
            super().__init__()
            self.inner = Inner()

        def forward(self, users, items):
            return self.inner(super().forward(users, items))

    def streams():
        return [
            random.getstate(),
            [np.asarray(part).tolist() for part in np.random.get_state()],
            torch.get_rng_state().tolist(),
            inner.numpy.bit_generator.state,
            inner.python.getstate(),
            inner.torch.get_state().tolist(),
        ]

    model = Drawing()
    inner = model.inner
    before = streams()
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS)
    assert metrics.evaluate(model)["users_evaluated"] > 0
    assert metrics.evaluate(model, score=model.forward)["users_evaluated"] > 0
    assert streams() == before


def test_flags_and_weights_are_put_back_after_an_error():
    model = Noisy()
    weights = model.items.weight.detach().clone()

    def score(users, items):
        model(users, items)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        RankingMetrics(TRAIN, HELD_OUT, ITEMS).evaluate(model, score=score)
    assert model.training and model.drop.training and not model.frozen.training
    assert torch.equal(model.items.weight, weights)


def test_regions_of_the_script_make_no_difference():
    model = Factors()
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=model.items, extras=EXTRAS)
    expected = metrics.evaluate(model)
    encode = (model.users, model.items)
    for region in (torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode()):
        with region:
            assert metrics.evaluate(model) == expected
            assert metrics.evaluate(model, encode=encode) == near(expected)
            metrics.reset()
        metrics.update_from_model(model)  # a state from inference mode can be added to
        assert metrics.compute() == expected
        with region:
            metrics.reset()
            metrics.update(grid(model, metrics._users).float(), metrics._users)
            assert metrics.compute() == near(expected, 1e-2)
    assert model.items.weight.requires_grad and not metrics._sums.requires_grad


def test_the_scripts_default_device_makes_no_difference():
    model = Factors()
    metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=model.items, extras=EXTRAS)
    expected = metrics.evaluate(model)
    scores, users = grid(model, torch.arange(USERS)), torch.arange(USERS)
    torch.set_default_device("meta")
    try:
        assert metrics.evaluate(model) == expected
        metrics.update(scores, users, seen=[[0]] * USERS)
        metrics.update(scores, relevant=[[0]] * USERS)
        assert serendipity([[1, 0]], [[1]], [0, 1], 2).tolist() == [0.0]
        assert gini([[1, 0]], 2, 1) == 0.5
    finally:
        torch.set_default_device(None)


def test_wrapped_models_are_called_inside_of_their_wrappers():
    model = Factors()
    expected = RankingMetrics(TRAIN, HELD_OUT, ITEMS).evaluate(model)
    for wrapper in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        wrapper.forward = None  # calling it would fail
        assert RankingMetrics(TRAIN, HELD_OUT, ITEMS).evaluate(wrapper) == expected


RANK = """
import json, os, sys
import torch, torch.distributed as dist
rank, meeting_point, *folders = sys.argv[1:]
sys.path[:0] = folders
from test_runtime_metrics import Factors, HELD_OUT, ITEMS, TRAIN, EXTRAS
from quickwins_codemod.runtime import RankingMetrics

dist.init_process_group("gloo", meeting_point, world_size=2, rank=int(rank))
model = Factors()
parallel = torch.nn.parallel.DistributedDataParallel(model)
metrics = RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=model.items, extras=EXTRAS)
number = metrics.update_from_model(parallel)
found = [metrics.compute(), metrics.compute()]
metrics.reset()
if rank == "0":  # the other has nothing to add
    metrics.update(torch.eye(ITEMS)[:1], relevant=[[0]])
found.append(metrics.compute())
if rank == "0":
    alone = RankingMetrics(TRAIN, HELD_OUT, ITEMS, sync=False)
    found.append(alone.evaluate(parallel))
dist.barrier()
dist.destroy_process_group()
print(json.dumps({"number": number, "found": found}), flush=True)
os._exit(0)  # torch's own threads have been seen to abort the interpreter while it ends
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_ranks_share_the_sample_and_add_up(tmp_path):
    here = Path(__file__).resolve()
    common = [(tmp_path / "meeting").as_uri(), str(here.parent), str(here.parents[1])]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), *common],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    first, second = (json.loads(printed) for printed, _ in outputs)

    model = Factors()
    single = RankingMetrics(TRAIN, HELD_OUT, ITEMS, item_embeddings=model.items, extras=EXTRAS)
    expected = single.evaluate(model)
    assert first["number"] + second["number"] == expected["users_evaluated"]
    assert abs(first["number"] - second["number"]) <= 1
    for found in (*first["found"][:2], *second["found"][:2]):
        assert found == near(expected)
    assert first["found"][2] == second["found"][2]
    assert first["found"][2]["users_evaluated"] == 1 and first["found"][2]["ndcg@10"] == 1.0
    assert first["found"][3]["ndcg@10"] == near(expected["ndcg@10"])


# What is wrong is named


def scoring(result):
    return lambda: RankingMetrics(TRAIN, HELD_OUT, ITEMS).evaluate((), score=result)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: RankingMetrics(TRAIN, HELD_OUT, 9), ValueError, "item id 24 .* n_items is 9"),
        (lambda: RankingMetrics(TRAIN, HELD_OUT, 0), ValueError, "n_items must be 1 or more"),
        (lambda: RankingMetrics(TRAIN, HELD_OUT, k=0), ValueError, "k must be 1 or more"),
        (lambda: RankingMetrics(TRAIN, HELD_OUT, max_users=0), ValueError, "max_users must be"),
        (
            lambda: RankingMetrics(TRAIN, extras=["mrr"]),
            ValueError,
            "gini and serendipity, not mrr",
        ),
        (lambda: RankingMetrics(TRAIN, excluded=[-1]), ValueError, "excluded holds -1"),
        (lambda: RankingMetrics(TRAIN, excluded=[ITEMS]), ValueError, "excluded holds 25"),
        (lambda: RankingMetrics(TRAIN, features=torch.eye(3)), ValueError, r"\[3, 3\].*\[25, d\]"),
        (lambda: RankingMetrics(TRAIN, features=torch.ones(25)), ValueError, r"\[25\].*\[25, d\]"),
        (
            lambda: RankingMetrics(TRAIN, features=FEATURES, item_embeddings=FEATURES),
            ValueError,
            "features or item_embeddings, not both",
        ),
        (lambda: RankingMetrics(([-1], [0])), ValueError, "user id -1"),
        (
            scoring(lambda u, i: (u, i)),
            ValueError,
            "one score for each of 600 .* a tuple: pass score=",
        ),
        (
            scoring(lambda u, i: torch.ones(len(u), 2)),
            ValueError,
            r"returned \[600, 2\]: pass score=",
        ),
        (scoring(None), TypeError, "a tuple cannot be called: pass score= or encode="),
        (
            lambda: RankingMetrics(TRAIN, HELD_OUT, 99).evaluate(Factors()),
            IndexError,
            "0 to 98 .*n_items must be the number",
        ),
        (
            lambda: RankingMetrics(TRAIN, HELD_OUT).evaluate((), encode=(lambda u: u, lambda i: i)),
            ValueError,
            r"one vector for each of 25 ids, \[25, d\], but returned \[25\]",
        ),
        (
            lambda: RankingMetrics(TRAIN).evaluate((), score=max, encode=(max, max)),
            ValueError,
            "score or encode, not both",
        ),
        (
            lambda: RankingMetrics(n_items=4).update(torch.ones(2, 3), [0, 1]),
            ValueError,
            r"shape \[2, 3\], but must be \[users, 4\]",
        ),
        (lambda: RankingMetrics(n_items=4).update(torch.ones(2, 4)), ValueError, "needs the users"),
        (
            lambda: RankingMetrics(n_items=4).update(torch.ones(2, 4), [0]),
            ValueError,
            "2 rows of scores, but 1 users",
        ),
        (
            lambda: RankingMetrics(n_items=4).update(torch.ones(2, 4), relevant=[[0], [4]]),
            ValueError,
            "item id 4 is out of range: n_items is 4",
        ),
        (
            lambda: RankingMetrics(n_items=4).update(torch.ones(1, 4), relevant=[0], seen=[[9]]),
            ValueError,
            "item id 9 is out of range",
        ),
    ],
)
def test_wrong_use_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
