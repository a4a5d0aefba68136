"""What HardNegatives makes of random negatives, how hard ones, and that nothing else moves."""

import copy
import functools
import math
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from quickwins_codemod import runtime  # noqa: E402

# Most tests look at what is taken once the model ranks well enough for it.
HardNegatives = functools.partial(runtime.HardNegatives, warmup_auc=0.0)
ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)

COUNT, USERS, ITEMS = 600, 25, 60
_generator = torch.Generator().manual_seed(3)
USER_IDS = torch.randint(USERS, (COUNT,), generator=_generator)
ITEM_IDS = torch.randint(ITEMS, (COUNT,), generator=_generator)
DATA = (USER_IDS, ITEM_IDS)
SEEN = set(zip(USER_IDS.tolist(), ITEM_IDS.tolist()))


def numbers(*shape, end=ITEMS, start=0, seed=0):
    return torch.randint(start, end, shape, generator=torch.Generator().manual_seed(seed))


BATCH = 64
U, P = USER_IDS[:BATCH], ITEM_IDS[:BATCH]
DRAWN, DRAWN4 = numbers(BATCH), numbers(BATCH, 4)


def by_id(users, items):
    """A score that is known: the higher the id of an item, the better."""
    return items.float()


class Watching:
    """A score that notes what it was asked for."""

    def __init__(self, score=by_id):
        self.score, self.asked = score, []

    def __call__(self, users, items):
        self.asked.append((users, items))
        return self.score(users, items)

    def pool(self, size, rows=None):
        """The candidates of each row in a call of mine(); positives may be asked for after them."""
        items = torch.cat([items for _, items in self.asked])
        return items[: (rows or BATCH) * size].reshape(-1, size)


class Factors(nn.Module):
    def __init__(self, users=USERS, items=ITEMS, width=8):
        super().__init__()
        self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
        self.norm, self.dropout = nn.BatchNorm1d(width), nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(width).eval()

    def encode_users(self, users):
        return self.dropout(self.norm(self.users(users)))

    def encode_items(self, items):
        return self.frozen(self.items(items))

    def forward(self, users, items):
        return (self.encode_users(users) * self.encode_items(items)).sum(1)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Factors()


def seen(users, items):
    """Whether each row's user has seen each of its items."""
    rows = items.reshape(len(users), -1).tolist()
    return [[(u, i) in SEEN for i in row] for u, row in zip(users.tolist(), rows)]


def valid_in(users, pool, positives=None):
    """By hand: which candidates [R, P] the users have not seen and are no positives."""
    valid = ~torch.tensor(seen(users, pool))
    return valid if positives is None else valid & (pool != positives[:, None])


# Which items


@given(
    st.data(),
    st.sampled_from([None, 1, 2, 3, 5]),
    st.sampled_from([None, 1, 2, 4, 9, 33]),
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([None, 0.0, 0.3, 1.0]),
    st.booleans(),
    st.sampled_from([torch.int64, torch.int32]),
)
@settings(max_examples=150, deadline=None)
def test_never_a_seen_item_and_always_within_range(
    data, count, pool_size, top_share, random_share, has_positives, dtype
):
    low = data.draw(st.integers(0, 10))
    high = low + data.draw(st.integers(1, 12))
    ids = st.integers(low, high - 1)
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 4), ids), min_size=1, max_size=30))
    users = torch.tensor(data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6)))
    shape = (len(users),) if count is None else (len(users), count)
    drawn = numbers(*shape, start=low, end=high, seed=data.draw(st.integers(0, 99))).to(dtype)
    positives = numbers(len(users), start=low, end=high, seed=7) if has_positives else None
    negatives = HardNegatives(
        pairs,
        low=low,
        high=high,
        pool_size=pool_size,
        top_share=top_share,
        random_share=random_share,
    )
    score = Watching()
    mined = negatives.mine(score, users, drawn, positives)
    assert (mined.shape, mined.dtype, mined.requires_grad) == (drawn.shape, dtype, False)
    count = count or 1
    pool_size = pool_size or (8 if count == 1 else 16)
    if pool_size <= count:
        assert torch.equal(mined, drawn)
        return
    pools = score.pool(pool_size, len(users)).tolist()
    for row, (user, pool) in enumerate(zip(users.tolist(), pools)):
        own = drawn[row].reshape(-1).tolist()
        assert pool[:count] == own and all(low <= item < high for item in pool)
        valid = {item for item in pool if (user, item) not in set(pairs)}
        if positives is not None:
            valid.discard(int(positives[row]))
        found = mined[row].reshape(-1).tolist()
        assert set(found) <= valid if valid else found == own
        assert len(set(found)) == min(count, len(valid)) or not valid


def test_one_negative_is_the_hardest_of_eight():
    score = Watching()
    mined = HardNegatives(DATA).mine(score, U, DRAWN, P)
    pool = score.pool(8)
    assert torch.equal(pool[:, 0], DRAWN)
    valid = valid_in(U, pool, P)
    assert not valid.all() and valid.any(1).all()
    assert torch.equal(mined, pool.masked_fill(~valid, -1).amax(1))


def test_several_negatives_are_half_hard_and_half_random():
    score = Watching()
    mined = HardNegatives(DATA).mine(score, U, numbers(BATCH, 5), P)
    pool = score.pool(16)
    valid = valid_in(U, pool, P)
    assert valid.sum(1).min() > 5
    for row in range(BATCH):
        candidates = [int(item) for item, is_valid in zip(pool[row], valid[row]) if is_valid]
        distinct = list(dict.fromkeys(candidates))
        hard = sorted(distinct, reverse=True)[:3]
        rest = [item for item in distinct if item not in hard]
        assert mined[row].tolist() == hard + rest[:2]  # the row's own draw comes first


@pytest.mark.parametrize("count, hard", [(2, 1), (3, 2), (4, 2), (7, 4)])
def test_hard_ones_are_rounded_up(count, hard):
    data, score = ([99], [0]), Watching()
    negatives = HardNegatives(data, low=0, high=10**6)
    drawn = numbers(BATCH, count, end=10**6)
    mined = negatives.mine(score, U, drawn)
    best = score.pool(16).sort(dim=1, descending=True).values
    assert torch.equal(mined[:, :hard], best[:, :hard])
    assert (mined[:, hard:] < best[:, hard - 1 : hard]).all()


@pytest.mark.parametrize("count, size", [(1, 8), (2, 16), (8, 16), (9, 18), (50, 100)])
def test_default_pools(count, size):
    score = Watching()
    HardNegatives(DATA).mine(score, U, numbers(BATCH, count))
    assert sum(len(items) for _, items in score.asked) == BATCH * size


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 1), (BATCH, 4)])
def test_a_pool_of_one_is_the_draw(shape, model):
    drawn = numbers(*shape)
    assert torch.equal(HardNegatives(DATA, pool_size=1).mine(model, U, drawn, P), drawn)


def test_hard_ones_from_the_best_share():
    negatives = HardNegatives(([99], [0]), low=0, high=10**6, pool_size=16, top_share=0.25)
    score, users = Watching(), torch.zeros(4000, dtype=torch.int64)
    mined = negatives.mine(score, users, numbers(4000, end=10**6))
    best = score.pool(16, 4000).sort(dim=1, descending=True).values
    rank = (best == mined[:, None]).long().argmax(1)
    counts = rank.bincount(minlength=16)
    assert counts[4:].sum() == 0
    assert counts[:4].min() > 850 and counts[:4].max() < 1150  # 1000 each, five sigma of 27


def test_several_hard_ones_from_the_best_share():
    negatives = HardNegatives(
        ([99], [0]), low=0, high=10**6, pool_size=16, top_share=0.5, random_share=0
    )
    score = Watching()
    mined = negatives.mine(score, U, numbers(BATCH, 4, end=10**6))
    best = score.pool(16).sort(dim=1, descending=True).values
    assert (mined >= best[:, 7:8]).all() and (mined.sort(1).values[:, 0] < best[:, 4]).any()
    assert all(len(set(row)) == 4 for row in mined.tolist())


def test_a_random_share_of_single_negatives():
    negatives = HardNegatives(([99], [0]), low=0, high=10**6, random_share=0.25)
    drawn = numbers(4000, end=10**6)
    mined = negatives.mine(by_id, torch.zeros(4000, dtype=torch.int64), drawn)
    # A draw is the hardest of 8 by chance, too.
    assert (mined == drawn).float().mean() == pytest.approx(0.25 + 0.75 / 8, abs=0.04)


@pytest.mark.parametrize("share, hard", [(0.0, 4), (0.25, 3), (0.5, 2), (0.75, 1), (1.0, 0)])
def test_a_random_share_of_several_negatives(share, hard):
    negatives = HardNegatives(([99], [0]), low=0, high=10**6, random_share=share)
    drawn = numbers(BATCH, 4, end=10**6)
    mined = negatives.mine(by_id, U, drawn)
    still = (mined[:, :, None] == drawn[:, None]).any(2)
    assert still[:, hard:].all() and (hard == 0 or not still[:, :hard].all())
    assert negatives.statistics()["negatives/random_share"] == pytest.approx(1 - hard / 4)


def test_warm_up_leaves_the_draw():
    negatives = HardNegatives(DATA, warmup_steps=2)
    for _ in range(2):
        assert torch.equal(negatives.mine(by_id, U, DRAWN, P), DRAWN)
    assert not torch.equal(negatives.mine(by_id, U, DRAWN, P), DRAWN)


def test_a_row_without_candidates_keeps_its_draw():
    everything = torch.cartesian_prod(torch.tensor([3]), torch.arange(ITEMS))
    negatives = HardNegatives(torch.cat([everything, torch.tensor([[4, 5]])]))
    users = torch.tensor([3, 4, 3, 4])
    for drawn in (torch.tensor([7, 5, 8, 5]), torch.tensor([[7, 7], [5, 5], [8, 9], [5, 5]])):
        mined = negatives.mine(by_id, users, drawn)
        assert torch.equal(mined[::2], drawn[::2])
        assert (mined[1::2] != 5).all()


def test_few_candidates_are_repeated_and_not_seen_ones_taken():
    pairs = [(0, item) for item in range(ITEMS) if item not in (11, 12)]
    negatives = HardNegatives(pairs, pool_size=400, low=0, high=ITEMS)
    mined = negatives.mine(by_id, torch.zeros(9, dtype=torch.int64), numbers(9, 5))
    assert mined.tolist() == [[12, 11, 12, 11, 12]] * 9


def test_several_positives_of_a_row():
    pairs = [(9, item) for item in range(12)]
    positives = torch.tensor([[11, 10, 9], [11, 3, 4]])
    negatives = HardNegatives(pairs, pool_size=300)
    mined = negatives.mine(by_id, torch.tensor([0, 1]), torch.tensor([0, 0]), positives)
    assert mined.tolist() == [8, 10]


def test_padding_that_never_occurs_is_never_drawn():
    negatives = HardNegatives(([0, 1], [1, 5]), pool_size=500)
    assert negatives.candidates == range(1, 6)
    score = Watching()
    negatives.mine(score, torch.tensor([9]), torch.tensor([3]))
    assert set(score.pool(500, 1).flatten().tolist()) == {1, 2, 3, 4, 5}


def test_candidates_are_uniform():
    score = Watching()
    users = torch.zeros(2000, dtype=torch.int64)
    HardNegatives(([9], [0]), low=3, high=13).mine(score, users, numbers(2000, start=3, end=13))
    counts = score.pool(8, 2000)[:, 1:].flatten().bincount(minlength=13)[3:]
    assert counts.min() > 1400 * 0.85 and counts.max() < 1400 * 1.15


# Forms of a batch


def test_users_may_be_repeated_for_each_negative():
    results = []
    for users in (U, U[:, None], U[:, None].expand(-1, 4), U.repeat_interleave(4)):
        results.append(HardNegatives(DATA).mine(by_id, users, DRAWN4, P))
    assert all(torch.equal(results[0], other) for other in results)


def test_users_and_negatives_may_both_be_flat():
    users, drawn, positives = U.repeat_interleave(4), DRAWN4.flatten(), P.repeat_interleave(4)
    mined = HardNegatives(DATA).mine(by_id, users, drawn, positives)
    assert mined.shape == drawn.shape
    assert not any(sum(seen(users, mined), []))


def test_users_that_differ_within_a_row_are_told_apart():
    users = numbers(4, BATCH, end=USERS)  # fewer rows than the users' own shape says
    mined = HardNegatives(DATA).mine(by_id, users.flatten(), DRAWN4.reshape(4, BATCH))
    assert not any(sum(seen(users.flatten(), mined.flatten()), []))


@pytest.mark.parametrize("shape", [(0,), (0, 4)])
def test_an_empty_batch(shape, model):
    none = torch.empty(0, dtype=torch.int64)
    mined = HardNegatives(DATA).mine(model, none, torch.empty(shape, dtype=torch.int64), none)
    assert mined.shape == shape
    loss = HardNegatives(DATA).ranking_loss(model, none, none)
    loss.backward()
    assert loss.item() == 0


def test_only_negative_rows_of_a_mixed_batch_are_mined():
    labels = (torch.arange(BATCH) % 3 == 0).float()
    items = torch.where(labels == 1, P, DRAWN)
    for form in (labels, labels.bool(), labels[:, None]):
        score = Watching()
        mined = HardNegatives(DATA).mine(score, U, items, labels=form)
        rows = labels == 0
        assert torch.equal(mined[~rows], items[~rows])
        expected = HardNegatives(DATA).mine(by_id, U[rows], items[rows])
        assert torch.equal(mined[rows], expected) and not torch.equal(expected, items[rows])
        assert sum(len(asked) for asked, _ in score.asked) == 8 * int(rows.sum())
    assert torch.equal(HardNegatives(DATA).mine(by_id, U, items, labels=torch.ones(BATCH)), items)


def test_a_mixed_batch_with_several_items_in_a_row():
    items = torch.cat([P[:, None], DRAWN4], 1)
    labels = torch.zeros(BATCH, 5)
    labels[:, 0] = 1
    mined = HardNegatives(DATA).mine(by_id, U, items, labels=labels)
    assert mined.shape == items.shape and torch.equal(mined[:, 0], P)
    assert not any(sum(seen(U, mined[:, 1:]), [])) and not torch.equal(mined, items)


def test_a_mixed_batch_with_positives():
    labels = torch.arange(BATCH) % 2
    negatives = HardNegatives(([99], [0]), low=0, high=ITEMS, pool_size=300)
    best = torch.full((BATCH,), ITEMS - 1)
    mined = negatives.mine(by_id, U, DRAWN, best, labels=labels)
    assert (mined[labels == 0] == ITEMS - 2).all()


def test_labels_in_the_data_say_what_is_seen():
    rows = [(0, 1, 1.0), (0, 2, 0.0), (0, 3, 1.0)]
    mined = HardNegatives(rows, labels=2, pool_size=50).mine(
        by_id, torch.tensor([0]), torch.tensor([2])
    )
    assert mined.tolist() == [2]


class OfHistory(nn.Module):
    """Scores an item by a history: its id, if this model may say so."""

    def forward(self, histories, items):
        assert histories.dim() == 2 and len(histories) == len(items)
        return items.float() + 0 * histories.sum(1)


@pytest.mark.parametrize("length", [1, 4, 7])
@pytest.mark.parametrize("count", [None, 4])
def test_histories_in_place_of_users(length, count):
    histories = numbers(BATCH, length, start=ITEMS // 2, seed=5)
    drawn = numbers(BATCH) if count is None else numbers(BATCH, count)
    data = TensorDataset(numbers(90, 6), torch.arange(90) % ITEMS)
    negatives = HardNegatives(data, pool_size=40, random_share=0)
    mined = negatives.mine(OfHistory(), histories, drawn, P).reshape(BATCH, -1)
    assert mined.float().mean() > ITEMS * 0.8
    others = torch.cat([histories, P[:, None]], 1)
    assert not (mined[:, :, None] == others[:, None]).any()


def test_histories_are_told_from_users_that_are_repeated(model):
    negatives = HardNegatives(DATA)
    histories = numbers(BATCH, 4)
    assert negatives.mine(OfHistory(), histories, DRAWN4).shape == (BATCH, 4)
    same = histories[:, :1].expand(-1, 4)  # such as padding only: it stays a history
    assert negatives.mine(OfHistory(), same, DRAWN4).shape == (BATCH, 4)


def test_histories_padded_with_negative_numbers():
    histories = torch.tensor([[-1, -1, 5], [-1, 7, 9]])
    negatives = HardNegatives(DATA)
    assert negatives.mine(OfHistory(), histories, torch.tensor([1, 2])).shape == (2,)


# The score


def test_bad_scores_never_win():
    def score(users, items):
        values = items.float()
        for rest, bad in enumerate((math.nan, math.inf, -math.inf)):
            values[items % 4 == rest] = bad
        return values

    for drawn in (DRAWN, DRAWN4):
        mined = HardNegatives(([99], [0]), low=0, high=ITEMS, pool_size=64).mine(score, U, drawn)
        assert (mined % 4 == 3).all()


def test_without_a_finite_score_the_draw_stays():
    mined = HardNegatives(DATA).mine(lambda u, i: i * math.nan, U, DRAWN4)
    assert torch.equal(mined, DRAWN4)


@pytest.mark.parametrize(
    "output, words",
    [
        (lambda u, i: (by_id(u, i), by_id(u, i)), r"512 pairs.*shape \(512,\).*2 values \(shape"),
        (lambda u, i: {"score": by_id(u, i)}, r"shape \(512,\).*object of type dict.*score="),
        (lambda u, i: torch.ones(len(u), 2), r"shape \(512,\).*returned shape \(512, 2\)"),
        (lambda u, i: torch.ones(3), r"shape \(512,\).*returned shape \(3,\)"),
        (lambda u, i: by_id(u, i).mean(), r"shape \(512,\).*returned shape \(\)"),
        (lambda u, i: None, r"object of type NoneType"),
    ],
)
def test_another_output_is_named(output, words):
    for call in (
        lambda negatives: negatives.mine(output, U, DRAWN),
        lambda negatives: negatives.mine(nn.Linear(1, 1), U, DRAWN, score=output),
        lambda negatives: negatives.ranking_loss(output, U, P),
    ):
        with pytest.raises(ValueError, match=words):
            call(HardNegatives(DATA))


@pytest.mark.parametrize(
    "form",
    [
        lambda s: s[:, None],
        lambda s: (s,),
        lambda s: [s[None]],
        lambda s: s.half(),
        lambda s: s.squeeze(),
        lambda s: s.int(),
    ],
)
def test_forms_of_one_score_for_each_pair(form):
    expected = HardNegatives(DATA).mine(by_id, U, DRAWN)
    found = HardNegatives(DATA).mine(lambda u, i: form(by_id(u, i)), U, DRAWN)
    assert torch.equal(found, expected)


def test_a_model_is_asked_in_parts_of_bounded_size():
    score = Watching()
    mined = HardNegatives(DATA, max_rows=100).mine(score, U, DRAWN4)
    sizes = [len(users) for users, _ in score.asked]
    assert max(sizes) <= 100 and sum(sizes) == BATCH * 16
    assert torch.equal(mined, HardNegatives(DATA).mine(by_id, U, DRAWN4))


def test_a_single_row_is_scored_too():
    one = HardNegatives(DATA, pool_size=2, max_rows=1)
    assert one.mine(lambda u, i: i.float().squeeze(), U[:1], DRAWN[:1]).shape == (1,)


def test_a_function_of_a_model_scores(model):
    class Scored(Factors):
        def forward(self, *unexpected):
            raise AssertionError("forward was called")

        def score(self, users, items):
            assert not self.training and not torch.is_grad_enabled()
            return items.float()

    scored = Scored().train()
    expected = HardNegatives(DATA).mine(by_id, U, DRAWN)
    for owner in (scored, None):  # a bound method says which model is to be in eval mode
        mined = HardNegatives(DATA).mine(owner, U, DRAWN, score=scored.score)
        assert torch.equal(mined, expected)
    assert scored.training


def test_a_model_in_several_modules():
    users, items = nn.Sequential(nn.Embedding(USERS, 4), nn.Dropout()), nn.Embedding(ITEMS, 4)

    def score(user_ids, item_ids):
        assert not users.training and not users[1].training and not items.training
        return (users(user_ids) * items(item_ids)).sum(1)

    first, again = (
        HardNegatives(DATA).mine((users, items), U, DRAWN, score=score) for _ in range(2)
    )
    assert torch.equal(first, again) and users[1].training
    with pytest.raises(ValueError, match="cannot score by an object of type tuple: pass score="):
        HardNegatives(DATA).mine((users, items), U, DRAWN)


def test_wrapped_models_are_scored_within(model):
    class Compiled(nn.Module):  # as torch.compile makes it
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, *unexpected):
            raise AssertionError("would be compiled again")

    expected = HardNegatives(DATA).mine(model, U, DRAWN, P)
    for wrapped in (Compiled(model), nn.DataParallel(Compiled(model)), torch.compile(model)):
        assert torch.equal(HardNegatives(DATA).mine(wrapped, U, DRAWN, P), expected)


# Encoders


class Counting(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.sizes = encoder, []

    def forward(self, ids):
        assert not self.training
        self.sizes.append(len(ids))
        return self.encoder(ids)


def encoders():
    torch.manual_seed(1)
    return Counting(nn.Embedding(USERS, 4)), Counting(nn.Embedding(50_000, 4))


@pytest.mark.parametrize("pool_size, multiplies", [(8, False), (60, True)])
@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize("max_rows", [2**18, 30])
def test_encoders_choose_as_their_dot_product_does(pool_size, multiplies, count, max_rows):
    batch = 600
    users, items = encoders()
    rows = numbers(batch, end=USERS)
    drawn = numbers(batch, end=50_000) if count is None else numbers(batch, count, end=50_000)
    negatives = HardNegatives(
        DATA, low=0, high=50_000, pool_size=pool_size, random_share=0, max_rows=max_rows
    )
    mined = negatives.mine((users, items), rows, drawn, encode=(users, items))
    assert sum(users.sizes) == batch and max(users.sizes + items.sizes) <= max_rows
    assert sum(items.sizes) == drawn.numel() + batch  # not a multiple of the pool
    assert users.training and items.training
    # Replay the draw, and choose by hand.
    replay = HardNegatives(DATA)._generator(torch.device("cpu"))
    own = drawn.reshape(batch, -1)
    shared = torch.randint(0, 50_000, (batch,), generator=replay)
    places = torch.randint(0, batch, (batch, pool_size - own.shape[1]), generator=replay)
    assert (batch <= 48 * places.shape[1]) is multiplies
    pool = torch.cat([own, shared[places]], 1)
    with torch.no_grad():
        user_vectors, item_vectors = users.encoder(rows), items.encoder(pool)
    scores = (user_vectors[:, None] * item_vectors).sum(2)
    scores = scores.masked_fill(torch.tensor(seen(rows, pool)), -math.inf)
    for row in range(batch):
        best = dict.fromkeys(pool[row, scores[row].argsort(descending=True)].tolist())
        assert mined[row].reshape(-1).tolist() == list(best)[: own.shape[1]]


def test_a_small_catalogue_is_encoded_whole():
    users, items = encoders()
    HardNegatives(DATA).mine(None, U, DRAWN, encode=(users, items))
    assert sum(items.sizes) == BATCH + ITEMS


def test_encoders_draw_each_item_alike():
    chosen = torch.zeros(500, dtype=torch.int64)
    constant = (lambda ids: torch.ones(len(ids), 1), lambda ids: ids[:, None].remainder(7.0))
    negatives = HardNegatives(([99], [0]), low=0, high=500)
    users = torch.zeros(300, dtype=torch.int64)
    for _ in range(40):
        mined = negatives.mine(None, users, torch.zeros_like(users), encode=constant)
        chosen += mined.bincount(minlength=500)
    best = chosen[6::7]  # those with the highest score, nearly all of what is mined
    assert best.sum() > 0.6 * 12000 and best.min() > 0.3 * best.float().mean()


@pytest.mark.parametrize(
    "encode, words",
    [
        ((lambda u: torch.ones(3, 2), nn.Embedding(ITEMS, 2)), r"64 users.*\(64, d\).*\(3, 2\)"),
        ((nn.Embedding(USERS, 2), lambda i: i.float()), r"items.*returned shape \(124,\)"),
        ((lambda u: (u, u), nn.Embedding(ITEMS, 2)), r"64 users.*2 values"),
    ],
)
def test_encoders_that_give_no_vectors_are_named(encode, words):
    with pytest.raises(ValueError, match=words):
        HardNegatives(DATA).mine(None, U, DRAWN, encode=encode)


# Without a trace


def streams():
    return (
        random.getstate(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
    )


def calls(model):
    encode = (model.encode_users, model.encode_items)
    yield lambda negatives: negatives.mine(model, U, DRAWN, P)
    yield lambda negatives: negatives.mine(model, U, DRAWN4)
    yield lambda negatives: negatives.mine(model, U, DRAWN4, encode=encode)
    yield lambda negatives: negatives.mine(model, U, DRAWN, labels=DRAWN % 2)


def test_flags_statistics_of_layers_and_random_streams_are_untouched(model):
    model.users.eval()  # frozen by the script
    flags = [module.training for module in model.modules()]
    assert True in flags and False in flags
    state, before = copy.deepcopy(model.state_dict()), streams()
    for call in calls(model):
        call(HardNegatives(DATA, random_share=0.3, top_share=0.5))
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert streams() == before and torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())


def test_random_numbers_that_a_model_draws_in_eval_mode_are_put_back():
    def noisy(users, items):
        return F.dropout(items.float())

    before = streams()
    HardNegatives(DATA).mine(noisy, U, DRAWN)
    assert streams() == before


def test_flags_are_put_back_after_an_error(model):
    flags = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError):
        HardNegatives(DATA).mine(model, U, DRAWN, score=lambda u, i: model(u, i) / (1 // 0))
    assert [module.training for module in model.modules()] == flags


def test_a_model_that_overrides_train_is_not_disturbed():
    class Frozen(Factors):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    model = Frozen().train()
    HardNegatives(DATA).mine(model, U, DRAWN)
    assert model.training and not model.norm.training and model.dropout.training


def test_the_default_device_of_a_script_does_not_matter(model):
    rows = [(int(user), int(item)) for user, item in zip(*DATA)]
    data = torch.utils.data.Subset(rows, range(COUNT))
    wanted = HardNegatives(data).mine(model, U, DRAWN4, P)
    empty = HardNegatives(data).statistics()
    with torch.device("meta"):  # on which no number can be read
        negatives = HardNegatives(data)
        assert negatives.statistics() == empty
        assert torch.equal(negatives.mine(model, U, DRAWN4, P), wanted)
        negatives.ranking_loss(model, U, P)
        negatives.mask_in_batch(torch.ones(BATCH, BATCH, device="cpu"), P, U)
        assert negatives.statistics()["negatives/random_share"] > 0


def test_one_seed_gives_one_result(model):
    for call in calls(model):
        first, again, other = (
            [call(negatives) for _ in range(3)]
            for negatives in (
                HardNegatives(DATA),
                HardNegatives(DATA, seed=0),
                HardNegatives(DATA, seed=1),
            )
        )
        assert all(map(torch.equal, first, again))
        assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], other[0])


@pytest.mark.parametrize("seed", [0, 42])
def test_candidates_do_not_repeat_what_a_script_of_the_same_seed_draws(seed):
    torch.manual_seed(seed)
    drawn, score = torch.randint(10**6, (BATCH,)), Watching()
    HardNegatives(([0], [0]), low=0, high=10**6, seed=seed).mine(score, U, drawn)
    repeated = torch.isin(score.pool(8)[:, 1:], drawn)
    assert not repeated.any()


def test_the_random_streams_do_not_matter(model):
    results = []
    for seed in range(2):
        torch.manual_seed(seed)
        results.append(HardNegatives(DATA).mine(model, U, DRAWN))
    assert torch.equal(*results)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    negatives = HardNegatives(DATA, validation=DATA)
    first = negatives.mine(by_id, U, DRAWN)
    again = copied(negatives)
    assert torch.equal(again.mine(by_id, U, DRAWN), first)  # from the seed on
    assert again.statistics().keys() == {"negatives/random_share", "negatives/validation_positives"}


# Mixed precision


@pytest.mark.parametrize("encoded", [False, True])
def test_mining_within_autocast_leaves_the_gradients_of_the_step(encoded):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(ITEMS, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    score = lambda u, i: (model(u) * model(i)).sum(1)  # noqa: E731
    encode = (model, model) if encoded else None
    negatives = HardNegatives(DATA)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mined = negatives.mine(model, U, DRAWN, P, score=score, encode=encode)
        loss = (score(U, mined) - score(U, P)).mean()
    loss.backward()
    found = [weight.grad.clone() for weight in model.parameters()]
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (score(U, mined) - score(U, P)).mean().backward()
    assert all(torch.equal(g, w.grad) and g.any() for g, w in zip(found, model.parameters()))


def test_the_ranking_loss_within_autocast_is_float32_and_has_gradients(model):
    layers = nn.Sequential(nn.Embedding(ITEMS, 8), nn.Linear(8, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = HardNegatives(DATA).ranking_loss(
            layers, U, P, score=lambda u, i: layers(u % ITEMS).mul(layers(i)).sum(1)
        )
    loss.backward()
    assert loss.dtype is torch.float32 and layers[1].weight.grad.any()


# The ranking loss


def test_the_ranking_loss_is_what_it_is_said_to_be(model):
    model.eval()
    score = Watching(model)
    loss = HardNegatives(DATA, scale=3.0).ranking_loss(model, U, P, score=score)
    *mining, (users, items) = score.asked
    pool = torch.cat([items for _, items in mining]).reshape(BATCH, 8)
    with torch.no_grad():
        scores = model(U.repeat_interleave(8), pool.flatten()).reshape(BATCH, 8)
    valid = valid_in(U, pool, P)
    mined = pool.gather(1, scores.masked_fill(~valid, -math.inf).argmax(1, keepdim=True))[:, 0]
    assert torch.equal(users, torch.cat([U, U])) and torch.equal(items, torch.cat([P, mined]))
    expected = F.softplus(-3.0 * (model(U, P) - model(U, mined))).mean()
    assert loss.shape == () and loss.item() == pytest.approx(expected.item())
    loss.backward()
    found = [weight.grad.clone() for weight in (model.users.weight, model.items.weight)]
    model.zero_grad()
    expected.backward()
    for gradient, weight in zip(found, (model.users.weight, model.items.weight)):
        torch.testing.assert_close(gradient, weight.grad)


def test_the_ranking_loss_is_computed_in_the_mode_of_the_model(model):
    means = model.norm.running_mean.clone()
    HardNegatives(DATA).ranking_loss(model, U, P)
    assert not torch.equal(model.norm.running_mean, means)  # one training forward
    assert model.norm.num_batches_tracked == 1


@pytest.mark.parametrize("rows", [1, 2])
def test_a_model_that_squeezes_takes_a_batch_of_one(rows, model):
    model.eval()
    negatives = HardNegatives(DATA)
    loss = negatives.ranking_loss(
        model, U[:rows], P[:rows], score=lambda u, i: model(u, i)[:, None].squeeze()
    )
    loss.backward()
    assert loss.item() > 0


def test_only_liked_rows_are_ranked(model):
    model.eval()
    ratings = torch.arange(BATCH) % 5 + 1.0
    score = Watching(model)
    negatives = HardNegatives(DATA, positives="liked")
    loss = negatives.ranking_loss(model, U, P, ratings, score=score)
    _, items = score.asked[-1]
    gaps = model(U, P) - model(U, items[BATCH:])
    expected = F.softplus(-20 * gaps)[ratings >= ratings.mean()].mean()
    assert loss.item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="liked.*ratings"):
        negatives.ranking_loss(model, U, P)
    everything = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
    nothing_left = HardNegatives(everything, positives="liked")
    assert nothing_left.ranking_loss(model, U, P, ratings).item() == 0


def test_a_batch_in_which_no_row_is_liked(model):
    negatives = HardNegatives(DATA, positives="liked")
    loss = negatives.ranking_loss(model, U, P, torch.full((BATCH,), math.nan))
    loss.backward()
    assert loss.item() == 0 and not model.users.weight.grad.any()


def test_the_rows_own_item_is_not_its_negative(model):
    score = Watching()
    held_out = torch.full((BATCH,), ITEMS - 1)  # not in the data
    HardNegatives(DATA, pool_size=300).ranking_loss(None, U, held_out, score=score)
    assert (score.asked[-1][1][BATCH:] != held_out).all()


def test_encoders_mine_and_the_model_itself_is_trained(model):
    model.eval()
    encode = (lambda u: torch.ones(len(u), 1), lambda i: i.float()[:, None])
    whole = Watching(model)
    loss = HardNegatives(DATA, pool_size=200).ranking_loss(whole, U, P, encode=encode)
    [(users, items)] = whole.asked
    highest = [max(i for i in range(ITEMS) if (u, i) not in SEEN) for u in U.tolist()]
    assert (items[BATCH:] == torch.tensor(highest)).float().mean() > 0.9
    expected = F.softplus(-20 * (model(U, P) - model(U, items[BATCH:]))).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_rows_without_candidates_do_not_count(model):
    everything = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
    negatives = HardNegatives(everything)
    loss = negatives.ranking_loss(model, U, P)
    assert loss.item() == 0
    loss.backward()
    assert all(not w.grad.any() for w in (model.users.weight, model.items.weight))
    some = HardNegatives(everything[everything[:, 0] != U[0]], pool_size=64)
    model.eval()
    score = Watching(model)
    loss = some.ranking_loss(model, U, P, score=score)
    _, items = score.asked[-1]
    rows = U == U[0]
    gaps = model(U, P) - model(U, items[BATCH:])
    assert loss.item() == pytest.approx(F.softplus(-20 * gaps)[rows].mean().item())


@pytest.mark.parametrize("encoded", [False, True])
def test_training_with_the_ranking_loss_ranks_better(encoded):
    torch.manual_seed(0)
    users, items = nn.Embedding(USERS, 16), nn.Embedding(ITEMS, 16)
    nn.init.normal_(users.weight, std=0.1), nn.init.normal_(items.weight, std=0.1)

    def score(u, i):
        return torch.sigmoid((users(u) * items(i)).sum(1))

    def misranked():
        every = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
        with torch.no_grad():
            scores = score(*every.unbind(1)).reshape(USERS, ITEMS)
        is_seen = torch.tensor(seen(torch.arange(USERS), every[:, 1]))
        pairs = [(s[~m][None] >= s[m][:, None]).float().mean() for s, m in zip(scores, is_seen)]
        return float(torch.stack(pairs).mean())

    before, negatives = misranked(), HardNegatives(DATA)
    optimizer = torch.optim.Adam([users.weight, items.weight], lr=0.02)
    encode = (users, items) if encoded else None
    for _ in range(60):
        optimizer.zero_grad()
        negatives.ranking_loss((users, items), U_ALL, P_ALL, score=score, encode=encode).backward()
        optimizer.step()
    assert before > 0.4 and misranked() < 0.1


U_ALL, P_ALL = DATA


@pytest.mark.parametrize("positives", ["all", "liked"])
def test_warming_up_the_ranking_loss_takes_random_unseen_items(positives):
    negatives = HardNegatives(DATA, warmup_steps=1, pool_size=50, positives=positives)
    ratings, score = torch.ones(BATCH), Watching()
    means = []
    for _ in range(2):
        score.asked.clear()
        negatives.ranking_loss(None, U, P, ratings, score=score)
        mined = score.asked[-1][1][BATCH:]
        assert not any(sum(seen(U, mined), []))
        means.append(mined.float().mean())
    assert means[0] < ITEMS * 0.6 < ITEMS * 0.8 < means[1]


# Random ones at first


def by_seen(users, items):
    """A perfect model: what the user has seen first, and then the higher ids."""
    known = torch.tensor([pair in SEEN for pair in zip(users.tolist(), items.tolist())])
    return items + 1000.0 * known


def by_unseen(users, items):
    return -by_seen(users, items)


def mine_plainly(negatives, score):
    return negatives.mine(score, U, DRAWN, P)


def mine_several(negatives, score):
    return negatives.mine(score, U, DRAWN4, P)


def mine_mixed(negatives, score):
    """Positives are known by their labels only."""
    is_positive = torch.arange(2 * BATCH) % 2 == 0
    items = torch.where(is_positive, P.repeat_interleave(2), DRAWN.repeat_interleave(2))
    users = U.repeat_interleave(2)
    return negatives.mine(score, users, items, labels=is_positive.float())[1::2]


def mine_encoded(negatives, score):
    """Users are one-hot, and items the scores of all users."""
    table = score(*torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS)).T)
    table = table.reshape(USERS, ITEMS)
    return negatives.mine(
        None, U, DRAWN, P, encode=(lambda u: F.one_hot(u, USERS).float(), lambda i: table.T[i])
    )


def mine_for_a_ranking_loss(negatives, score):
    watching = Watching(score)
    negatives.ranking_loss(None, U, P, torch.ones(BATCH), score=watching)
    return watching.asked[-1][1][BATCH:]


WAYS = [mine_plainly, mine_several, mine_mixed, mine_encoded, mine_for_a_ranking_loss]


def mean_id(way, negatives, score, times=12):
    """Mean id of what is taken, as a share of the largest; none of it has been seen."""
    taken = torch.cat([way(negatives, score).reshape(BATCH, -1) for _ in range(times)], 1)
    assert not any(sum(seen(U, taken), []))
    return float(taken.float().mean()) / ITEMS


@pytest.mark.parametrize("way", WAYS)
def test_negatives_are_random_until_the_model_ranks_and_again_when_it_no_longer_does(way):
    negatives = runtime.HardNegatives(DATA, pool_size=16)
    assert mean_id(way, negatives, by_unseen) == pytest.approx(0.5, abs=0.05)
    assert negatives.statistics()["negatives/random_share"] == 1.0
    # The moving average needs about thirty batches.
    for _ in range(40):
        way(negatives, by_seen)
    negatives.statistics()
    hard = mean_id(way, negatives, by_seen)
    share = negatives.statistics()["negatives/random_share"]
    assert hard > (0.58 if way is mine_several else 0.8)
    assert share == (0.5 if way is mine_several else 0.0)
    for _ in range(40):
        way(negatives, by_unseen)
    negatives.statistics()
    way(negatives, by_unseen)
    assert negatives.statistics()["negatives/random_share"] == 1.0


@pytest.mark.parametrize("way", WAYS)
def test_a_model_that_ranks_already_gets_hard_ones_from_the_first_batch(way):
    negatives = runtime.HardNegatives(DATA, pool_size=16)
    way(negatives, by_seen)
    found = negatives.statistics()
    assert found["negatives/auc"] == 1.0  # though many random items have been seen, and rank as high
    assert found["negatives/random_share"] == (0.5 if way is mine_several else 0.0)


@pytest.mark.parametrize("way", WAYS)
def test_hard_ones_come_at_an_auc_that_can_be_set(way):
    """Of half the users everything is ranked rightly, of the others wrongly."""

    def by_half(users, items):
        return torch.where(users < USERS // 2, by_seen(users, items), by_unseen(users, items))

    for warmup_auc, is_random in ((0.2, False), (0.8, True), (0.0, False)):
        negatives = runtime.HardNegatives(DATA, pool_size=16, warmup_auc=warmup_auc)
        mean_id(way, negatives, by_half)
        found = negatives.statistics()
        assert (found["negatives/random_share"] == 1.0) == is_random
        assert ("negatives/auc" in found) == (warmup_auc > 0)
        assert found.get("negatives/auc", 0.5) == pytest.approx(float((U < USERS // 2).float().mean()), abs=0.1)


def test_the_auc_is_looked_at_seldom_after_the_first_batches():
    score = Watching()
    negatives = runtime.HardNegatives(DATA, pool_size=16)
    for _ in range(160):
        negatives.ranking_loss(None, U, P, score=score)
    looks = [users for users, _ in score.asked if len(users) == 2 * BATCH]
    assert len(looks) - 160 == 64 + 6  # beside those that have a gradient
    # Each later one weighs as much as those that were left out.
    before = negatives._auc[1]
    assert before == pytest.approx(1 - 0.95**160, abs=1e-5)


def test_only_liked_rows_are_ranked_for_the_auc():
    ratings = torch.where(U < USERS // 2, 5.0, 1.0)
    for positives, expected in (("liked", 1.0), ("all", float((U < USERS // 2).float().mean()))):
        negatives = runtime.HardNegatives(DATA, positives=positives)
        for _ in range(20):
            negatives.ranking_loss(
                None, U, P, ratings,
                score=lambda u, i: torch.where(u < USERS // 2, by_seen(u, i), by_unseen(u, i)),
            )  # fmt: skip
        assert negatives.statistics()["negatives/auc"] == pytest.approx(expected, abs=0.05)


def test_without_positives_hard_ones_are_taken_at_once():
    negatives = runtime.HardNegatives(DATA)
    negatives.mine(by_id, U, DRAWN)
    assert negatives.statistics() == {"negatives/random_share": 0.0}


def test_scores_that_are_not_finite_do_not_count_for_the_auc():
    negatives = runtime.HardNegatives(DATA)
    negatives.mine(lambda u, i: torch.where(u < 5, math.nan, by_seen(u, i)), U, DRAWN, P)
    assert negatives.statistics()["negatives/auc"] == 1.0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_copy_goes_on_with_the_warm_up_where_it_was(copied):
    negatives = runtime.HardNegatives(DATA)
    for _ in range(100):
        negatives.mine(by_unseen, U, DRAWN, P)
    other = copied(negatives)
    other.statistics()
    other.mine(by_seen, U, DRAWN, P)
    assert other.statistics()["negatives/random_share"] == 1.0


# Errors that a script may take for its own


def test_an_attribute_error_of_the_model_is_not_taken_for_the_scripts(model):
    def broken(users, items):
        return items.float().no_such_thing

    negatives = HardNegatives(DATA)
    for call in (
        lambda: negatives.ranking_loss(model, U, P, score=broken),
        lambda: negatives.mine(model, U, DRAWN, score=broken),
        lambda: negatives.ranking_loss(model, None, P),
        lambda: negatives.mine(model, U, DRAWN, positives=[1]),
    ):
        with pytest.raises(RuntimeError, match="AttributeError while mining.*has no attribute"):
            call()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda n: n.mine(by_id, U, DRAWN + ITEMS), "item id .* out of range: .*0 to 59"),
        (lambda n: n.mine(by_id, U, DRAWN - ITEMS), "item id -.* out of range: .*0 to 59"),
        (lambda n: n.mine(by_id, U - 5, DRAWN), "user id -5 is out of range: .*0 and above"),
        (lambda n: n.ranking_loss(by_id, U, P - 60), "item id -.* out of range"),
        (lambda n: n.mine(by_id, U[:7], DRAWN), r"users of shape \(7,\).*shape \(64,\)"),
        (lambda n: n.mine(by_id, U, DRAWN[:7]), r"users of shape \(64,\).*shape \(7,\)"),
        (lambda n: n.mine(by_id, U, DRAWN.float()), "items must be an integer tensor.*float32"),
        (lambda n: n.mine(by_id, U, DRAWN.tolist()), "items must be an integer tensor.*list"),
        (lambda n: n.mine(by_id, U, DRAWN4[None]), r"items .* two dimensions.*\(1, 64, 4\)"),
        (lambda n: n.mine(by_id, U, DRAWN, P[:7]), r"positives of shape \(7,\).* 64 rows"),
        (lambda n: n.mine(by_id, U, DRAWN, labels=U[:7]), r"one label for each.*\(7,\)"),
        (lambda n: n.mine(by_id, U, DRAWN, P[:7], labels=U), r"one positive for each.*\(7,\)"),
        (lambda n: n.ranking_loss(by_id, U[:7], P), "one user for each item.* 7 and 64"),
        (lambda n: n.mask_in_batch(torch.ones(4, 5), P[:4]), r"\(4, 4\) for 4 items.*\(4, 5\)"),
        (lambda n: n.mask_in_batch(torch.ones(4, 4), P[:4], U[:3]), "3 users for 4 items"),
    ],
)
def test_wrong_batches_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(HardNegatives(DATA, low=0, high=ITEMS))


def test_the_offending_id_is_named():
    drawn = DRAWN.clone()
    drawn[5] = 77
    with pytest.raises(ValueError, match="item id 77 is out of range: item ids are to be 0 to 59"):
        HardNegatives(DATA, high=ITEMS).mine(by_id, U, drawn)
    assert HardNegatives(DATA).mine(by_id, U, drawn).shape == (BATCH,)  # no range was given
    with pytest.raises(ValueError, match="item id 77"):
        HardNegatives(DATA, high=ITEMS).mine(by_id, U, drawn, labels=torch.zeros(BATCH))
    labels = torch.zeros(BATCH)
    labels[5] = 1  # not drawn, but the row's positive
    HardNegatives(DATA, high=ITEMS).mine(by_id, U, drawn, labels=labels)


def test_ids_that_the_model_does_not_have_are_named(model):
    negatives = HardNegatives(DATA, high=500, pool_size=40)
    with pytest.raises(IndexError, match="item ids 0 to 49.*candidates are drawn from low="):
        negatives.mine(model, U, DRAWN)
    encode = (model.encode_users, model.encode_items)
    with pytest.raises(IndexError, match="item ids .* to 49"):
        negatives.mine(model, U, DRAWN, encode=encode)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"pool_size": 0}, "pool_size.*at least 1.*0"),
        ({"pool_size": 2.5}, "pool_size.*2.5"),
        ({"top_share": 1.5}, "top_share.*0 and 1.*1.5"),
        ({"random_share": -0.1}, "random_share.*-0.1"),
        ({"warmup_steps": -1}, "warmup_steps.*-1"),
        ({"warmup_auc": 1.5}, "warmup_auc.*1.5"),
        ({"max_rows": 0}, "max_rows"),
        ({"positives": "some"}, 'positives.*"all" or "liked".*some'),
        ({"low": 5, "high": 5}, "item ids 5 to 5"),
        ({"low": -1, "high": 5}, "item ids -1 to 5"),
        ({"high": 0}, "item ids 0 to 0"),
        ({"data": []}, "hold 0 interactions; pass low= and high="),
        ({"users": 2}, "users are to be found by 2"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        HardNegatives(**{"data": DATA, **arguments}).candidates


def test_a_loader_without_rows_but_with_a_range():
    negatives = HardNegatives(DataLoader([]), low=0, high=ITEMS)
    assert negatives.mine(by_id, U, DRAWN).shape == (BATCH,)


# In-batch softmax


def test_in_batch_logits_by_hand():
    logits = torch.randn(BATCH, BATCH, generator=torch.Generator().manual_seed(0))
    counts = ITEM_IDS.bincount(minlength=ITEMS)
    lowest = torch.finfo(torch.float32).min
    for users in (U, U[:, None], None):
        found = HardNegatives(DATA).mask_in_batch(logits, P, users)
        for row in range(BATCH):
            for column in range(BATCH):
                item = int(P[column])
                hit = item == P[row] or users is not None and (int(U[row]), item) in SEEN
                expected = logits[row, column] - math.log(int(counts[item]) / COUNT)
                if row != column and hit:
                    expected = lowest
                assert float(found[row, column]) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_in_batch_softmax_keeps_its_dtype_and_gradients_and_is_finite(dtype):
    logits = torch.randn(BATCH, BATCH).to(dtype).requires_grad_()
    same = torch.full((BATCH,), 7)
    for items in (P, same):  # the same item in all rows: only the diagonal is left
        masked = HardNegatives(DATA).mask_in_batch(logits, items, U)
        assert masked.dtype is dtype and masked.isfinite().all()
        loss = F.cross_entropy(masked.float(), torch.arange(BATCH))
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()
    assert loss.item() == 0


def test_in_batch_softmax_with_histories():
    histories = numbers(BATCH, 5)
    negatives = HardNegatives(TensorDataset(histories, P))
    masked = negatives.mask_in_batch(torch.zeros(BATCH, BATCH), P, histories)
    lowest = torch.finfo(torch.float32).min
    for row in range(BATCH):
        for column in range(BATCH):
            hit = P[column] == P[row] or int(P[column]) in histories[row].tolist()
            assert (masked[row, column] == lowest) == (hit and row != column)


# Statistics


def test_statistics_are_of_the_calls_since_the_last():
    negatives = HardNegatives(DATA)
    assert negatives.statistics() == {}
    score = Watching()
    mined = negatives.mine(score, U, DRAWN, P)
    found = negatives.statistics()
    assert found["negatives/score_gap"] == pytest.approx(float((P - mined).float().mean()))
    assert found["negatives/random_share"] == 0.0
    assert "negatives/validation_positives" not in found
    assert all(type(value) is float for value in found.values())
    assert negatives.statistics() == {}


def test_positives_are_scored_for_the_statistics_every_sixteenth_call():
    negatives, score = HardNegatives(DATA), Watching()
    for _ in range(20):
        negatives.mine(score, U, DRAWN, P)
    assert sum(len(users) for users, _ in score.asked) == BATCH * (20 * 8 + 2)
    negatives.statistics()
    negatives.mine(score, U, DRAWN, P)  # each epoch has at least one
    assert "negatives/score_gap" in negatives.statistics()


def test_the_share_of_random_negatives():
    negatives = HardNegatives(DATA, warmup_steps=1)
    negatives.mine(by_id, U, DRAWN)
    assert negatives.statistics() == {"negatives/random_share": 1.0}
    negatives.mine(by_id, U, DRAWN4)
    assert negatives.statistics()["negatives/random_share"] == 0.5
    negatives.mine(by_id, U, DRAWN4)
    negatives.mine(by_id, U, DRAWN)
    assert negatives.statistics()["negatives/random_share"] == pytest.approx(2 / 5)
    negatives.mine(lambda u, i: i * math.nan, U, DRAWN)
    assert negatives.statistics()["negatives/random_share"] == 1.0


@pytest.mark.parametrize("method", ["mine", "ranking_loss"])
def test_the_share_of_validation_positives(method):
    held_out = [(user, ITEMS - 1) for user in range(USERS)]
    negatives = HardNegatives(DATA, validation=held_out, pool_size=40)
    score = Watching()
    if method == "mine":
        mined = negatives.mine(score, U, DRAWN, P)
    else:
        negatives.ranking_loss(None, U, P, score=score)
        mined = score.asked[-1][1][BATCH:]
    share = float((mined == ITEMS - 1).float().mean())
    found = negatives.statistics()["negatives/validation_positives"]
    assert 0.2 < share < 1 and found == pytest.approx(share)  # and it is not excluded


def test_validation_positives_are_counted_among_the_hard_ones_only():
    held_out = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS))
    negatives = HardNegatives(DATA, validation=held_out)
    negatives.mine(by_id, U, DRAWN4)
    assert negatives.statistics()["negatives/validation_positives"] == 1.0
    negatives.mine(by_id, U, DRAWN4, score=lambda u, i: i * math.nan)  # none but random draws
    assert "negatives/validation_positives" not in negatives.statistics()


def test_statistics_of_the_ranking_loss(model):
    model.eval()
    score = Watching(model)
    negatives = HardNegatives(DATA)
    negatives.ranking_loss(model, U, P, score=score)
    gap = model(U, P) - model(U, score.asked[-1][1][BATCH:])
    found = negatives.statistics()
    assert found["negatives/score_gap"] == pytest.approx(float(gap.mean().detach()), abs=1e-5)
    assert found["negatives/random_share"] == 0.0


# Several processes

PROCESS = """
import os
import sys
import torch
import torch.distributed as dist
from torch import nn
from quickwins_codemod.runtime import HardNegatives

torch.set_num_threads(1)
rank, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=count)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(20, 8), nn.Embedding(50, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, users, items):
        return (self.norm(self.users(users)) * self.items(items)).sum(1).squeeze()


torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(Model())
users, items = torch.arange(200) % 20, torch.arange(200) * 7 % 50
negatives = HardNegatives((users, items))
u, i = users[rank::count][:32], items[rank::count][:32]
drawn = torch.full((32,), 3)
mined = negatives.mine(model, users[: 32 - 8 * rank], drawn[: 32 - 8 * rank])  # unlike batches
every = [torch.empty(24, dtype=torch.int64) for _ in range(count)]
dist.all_gather(every, mined[:24])
if count > 1:
    assert not torch.equal(every[0], every[1]), "both processes drew the same candidates"
statistics = negatives.statistics()
assert statistics["negatives/random_share"] == 0, statistics

optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    loss = (model(u, i) - 3.0).square().mean()
    (loss + 0.3 * negatives.ranking_loss(model, u, i)).backward()
    optimizer.step()
for weight in model.parameters():
    copies = [torch.empty_like(weight) for _ in range(count)]
    dist.all_gather(copies, weight.detach())
    assert all(torch.equal(copies[0], copy) for copy in copies), "the processes have parted"
    assert weight.grad.any()
gap = torch.tensor([negatives.statistics()["negatives/score_gap"]])
gaps = [torch.empty(1) for _ in range(count)]
dist.all_gather(gaps, gap)
assert all(torch.equal(gaps[0], other) for other in gaps), "statistics are not of all processes"
only = HardNegatives((users, items))
if rank == 0:
    only.mine(model, u, drawn)
assert only.statistics() == {"negatives/random_share": 0.0}, "known on one process only"
dist.barrier()
dist.destroy_process_group()
print("fine", flush=True)
os._exit(0)  # torch's own threads have been seen to abort the interpreter while it ends
"""


def test_two_processes(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), "2", str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=100)
            assert process.returncode == 0 and "fine" in output, output
    finally:
        for process in processes:
            process.kill()


def test_the_data_are_read_at_the_first_batch_and_once():
    """A data set that draws its rows anew before each epoch has none when the object is made."""

    class Resampled(torch.utils.data.Dataset):
        reads = 0

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, index):
            self.reads += 1
            return self.rows[index]

    data = Resampled()
    negatives = HardNegatives(data)
    assert "pool_size" in repr(negatives)
    data.rows = [(0, 1), (0, 2), (1, 3)]
    users, drawn = torch.tensor([0, 1]), torch.tensor([2, 3])
    first = negatives.mine(by_id, users, drawn)
    reads = data.reads
    negatives.mine(by_id, users, drawn)

    assert first.tolist() == [3, 2]  # what the other has, and the user has not
    assert data.reads == reads > 0
