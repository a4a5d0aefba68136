"""Draws of unseen items and pairs: never a positive, the right distribution, clear errors."""

import subprocess
import sys
from collections import Counter
from itertools import permutations, product

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from quickwins_codemod.runtime import first_rows, unseen_items, unseen_pairs  # noqa: E402
from quickwins_codemod.runtime import sampling  # noqa: E402

torch.set_num_threads(1)
SEEN = ([0, 0, 1, 1, 2], [0, 1, 1, 4, 2])

#: One set of ids as users have them.
KINDS = {
    "list": list,
    "range": lambda ids: range(len(ids)),
    "tensor": torch.tensor,
    "array": np.array,
    "narrow": lambda ids: np.array(ids, dtype=np.int16),
    "floats": lambda ids: np.array(ids, dtype=float),
    "text": lambda ids: [f"id {i}" for i in ids],
    "array of text": lambda ids: np.array([f"id {i}" for i in ids]),
    "objects": lambda ids: np.array([f"id {i}" for i in ids], dtype=object),
    "tuples": lambda ids: [(i, "a") for i in ids],
}


def as_columns(pairs):
    return tuple(zip(*sorted(pairs))) if pairs else ((), ())


def close_to(counts, expected, draws):
    """Counts within five standard deviations of what their probabilities say."""
    for key in {*counts, *expected}:
        p = expected.get(key, 0.0)
        assert abs(counts[key] - draws * p) <= 5 * (draws * p * (1 - p)) ** 0.5, (key, counts)


# -- never a positive, the right shape ---------------------------------------------------------------

sizes = st.integers(1, 7)


@st.composite
def worlds(draw):
    users, items = draw(sizes), draw(sizes)
    every = list(product(range(users), range(items)))
    return users, items, draw(st.sets(st.sampled_from(every)))


@settings(deadline=None, max_examples=150)
@given(worlds(), st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 0.75]), st.booleans(),
       st.integers(0, 2**31 - 2))
def test_each_user_gets_unseen_items_in_order(world, count, replace, popularity, scores, seed):
    users, items, seen = world
    score = (lambda u, i: [hash((a, b)) % 7 for a, b in zip(u, i)]) if scores else None
    options = {"popularity": popularity, "score": score, "seed": seed}
    left = [items - sum(u == user for u, _ in seen) for user in range(users)]
    if count and min(left) < (1 if replace else count):
        with pytest.raises(ValueError, match=f"user {left.index(min(left))} |user "):
            unseen_items(users, items, as_columns(seen), count, replace=replace, **options)
        if replace:
            return
    drawn = unseen_items(
        users, items, as_columns(seen), count, replace=replace, short=not replace, **options
    )
    each = [count if replace else min(count, n) for n in left]
    assert drawn[0] == [user for user in range(users) for _ in range(each[user])]
    pairs = list(zip(*drawn))
    assert not set(pairs) & seen
    assert all(0 <= item < items for item in drawn[1])
    assert replace or len(set(pairs)) == len(pairs)
    again = unseen_items(
        users, items, as_columns(seen), count, replace=replace, short=not replace, **options
    )
    assert again == drawn


@settings(deadline=None, max_examples=100)
@given(worlds(), st.integers(0, 30), st.booleans(), st.integers(0, 2**31 - 2))
def test_pairs_are_unseen_whether_columns_or_a_function_say_so(world, count, scores, seed):
    users, items, seen = world
    score = (lambda u, i: list(i)) if scores else None
    forms = [as_columns(seen), lambda user, item: (user, item) in seen]
    if len(seen) == users * items and count:
        for form in forms:
            with pytest.raises(ValueError, match="there is no negative to draw"):
                unseen_pairs(users, items, form, count, score=score, seed=seed)
        return
    drawn = [unseen_pairs(users, items, form, count, score=score, seed=seed) for form in forms]
    assert drawn[0] == drawn[1]
    assert len(drawn[0][0]) == len(drawn[0][1]) == count
    assert not set(zip(*drawn[0])) & seen


@pytest.mark.parametrize("users", KINDS)
@pytest.mark.parametrize("items", KINDS)
def test_ids_of_every_kind_give_the_same_draws(users, items):
    plain = unseen_items([0, 1, 2], list(range(6)), SEEN, 3, replace=False, seed=3)
    as_users, as_items = KINDS[users]([0, 1, 2]), KINDS[items](list(range(6)))
    all_users, all_items = (
        ids.tolist() if torch.is_tensor(ids) else list(ids) for ids in (as_users, as_items)
    )
    seen = ([all_users[u] for u in SEEN[0]], [all_items[i] for i in SEEN[1]])
    drawn = unseen_items(as_users, as_items, seen, 3, replace=False, seed=3)

    assert drawn[0] == [all_users[u] for u in plain[0]]
    assert drawn[1] == [all_items[i] for i in plain[1]]
    # Those of a tensor come as Python numbers.
    assert {type(item) for item in drawn[1]} == {type(all_items[0])}


def test_columns_of_different_kinds_meet_by_value():
    seen = (np.array([0, 0, 1], dtype=np.int32), torch.tensor([0, 1, 2]))
    users, items = unseen_items([0, 1], np.arange(3.0), seen, 20, seed=0)
    assert set(zip(users, items)) == {(0, 2.0), (1, 0.0), (1, 1.0)}


def test_positives_of_others_do_not_matter():
    assert unseen_items([7], [1, 2], ([7, 8, 7], [1, 2, 99]), 2, seed=0) == ([7, 7], [2, 2])


def test_a_user_may_come_up_again_and_items_twice():
    users, items = unseen_items([5, 6, 5], ["a", "b", "b"], ([5], ["a"]), 2, seed=0)
    assert users == [5, 5, 6, 6, 5, 5]
    assert {item for user, item in zip(users, items) if user == 5} == {"b"}

    found = Counter(unseen_items([6] * 4000, ["a", "b", "b"], ([5], ["a"]), 1, seed=0)[1])
    close_to(found, {"a": 1 / 3, "b": 2 / 3}, 4000)
    assert unseen_items([6], ["a", "b", "b"], ([], []), 3, replace=False, short=True)[1] in (
        ["a", "b"], ["b", "a"]
    )
    once = unseen_items([6] * 4000, ["a", "b", "b"], ([], []), 1, replace=False, seed=0)[1]
    close_to(Counter(once), {"a": 1 / 2, "b": 1 / 2}, 4000)


# -- distributions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [32, 0])
def test_with_replacement_every_unseen_item_is_as_likely(rounds, monkeypatch):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)  # 0: item by item from the start
    users, items = unseen_items([0, 1], 5, SEEN, 6000, seed=1)

    found = Counter(zip(users, items))
    close_to(found, {(0, i): 1 / 6 for i in (2, 3, 4)} | {(1, i): 1 / 6 for i in (0, 2, 3)}, 12000)


@pytest.mark.parametrize("rounds", [32, 1, 0])
def test_without_replacement_every_order_is_as_likely(rounds, monkeypatch):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    users, items = unseen_items([0] * 6000, 5, SEEN, 2, replace=False, seed=1)

    found = Counter(zip(items[::2], items[1::2]))
    close_to(found, {order: 1 / 6 for order in permutations((2, 3, 4), 2)}, 6000)


@pytest.mark.parametrize("rounds", [32, 0])
def test_popular_items_are_likelier_by_the_power_that_is_given(rounds, monkeypatch):
    monkeypatch.setattr(sampling, "_ROUNDS", rounds)
    seen = ([1, 2, 3, 1, 2, 3, 4], [0, 0, 0, 1, 2, 2, 2])  # counts 3, 1, 3, 0
    for power in (1.0, 0.5):
        weights = [4**power, 2**power, 4**power, 1.0]
        found = Counter(unseen_items([0] * 8000, 4, seen, 1, popularity=power, seed=2)[1])
        close_to(found, {i: w / sum(weights) for i, w in enumerate(weights)}, 8000)

        orders = {}
        for a, b in permutations(range(4), 2):
            orders[a, b] = weights[a] / sum(weights) * weights[b] / (sum(weights) - weights[a])
        items = unseen_items(
            [0] * 8000, 4, seen, 2, replace=False, popularity=power, seed=2
        )[1]
        close_to(Counter(zip(items[::2], items[1::2])), orders, 8000)


def test_pairs_are_even_over_all_that_are_unseen():
    found = Counter(zip(*unseen_pairs(3, 5, SEEN, 20000, seed=0)))
    unseen = set(product(range(3), range(5))) - set(zip(*SEEN))
    close_to(found, {pair: 1 / len(unseen) for pair in unseen}, 20000)


def test_pairs_are_drawn_where_hardly_any_is_left():
    seen = [pair for pair in product(range(40), range(50)) if pair != (17, 3)]
    assert unseen_pairs(40, 50, as_columns(seen), 3, seed=0) == ([17] * 3, [3] * 3)
    assert unseen_pairs(40, 50, lambda u, i: (u, i) != (17, 3), 1, seed=0) == ([17], [3])


@pytest.mark.parametrize(("count", "rows"), [(2.5, 3), (0, 0), (-4, 0), (3, 3)])
def test_as_many_pairs_as_a_loop_that_runs_while_there_are_fewer(count, rows):
    assert len(unseen_pairs(3, 5, SEEN, count, seed=0)[0]) == rows


# -- scores --------------------------------------------------------------------------------------------


def test_one_draw_is_the_highest_of_eight():
    calls = []

    def score(users, items):
        calls.append(len(items))
        return torch.tensor(items, requires_grad=True, dtype=torch.float32)

    items = unseen_items([0] * 3000, 1000, ([], []), 1, score=score, seed=0)[1]
    assert sum(calls) == 8 * 3000
    # The mean of the highest of 8 even draws is 8/9 of the range.
    assert sum(items) / 3000 == pytest.approx(1000 * 8 / 9, rel=0.01)


@pytest.mark.parametrize("replace", [True, False])
def test_of_several_half_are_the_highest_of_a_pool_and_half_are_random(replace):
    items = unseen_items(
        [0] * 2000, 1000, ([], []), 4, replace=replace, score=lambda u, i: i, seed=0
    )[1]
    rows = np.array(items).reshape(-1, 4)
    # Of 16: the highest and second highest lie at 16/17 and 15/17; the others average 7.5/17.
    assert rows[:, :2].mean() == pytest.approx(1000 * 15.5 / 17, rel=0.02)
    assert rows[:, 2:].mean() == pytest.approx(1000 * 7.5 / 17, rel=0.03)


def test_a_table_of_scores_is_indexed_by_users_and_items():
    table = torch.zeros(3, 50)
    table[1, 10] = 1.0
    users, items = unseen_items([0, 1] * 500, 50, ([], []), 1, score=table, seed=0)
    share = sum(i == 10 for u, i in zip(users, items) if u == 1) / 500
    assert share == pytest.approx(1 - (49 / 50) ** 8, abs=0.06)
    assert unseen_items([0, 1] * 500, 50, ([], []), 1, score=table.numpy(), seed=0)[1] == items


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_never_win(bad):
    def score(users, items):
        return [bad if i >= 10 else float(i) for i in items]

    items = unseen_items([0] * 500, 20, ([], []), 1, score=score, seed=0)[1]
    assert sum(i < 10 for i in items) >= 495  # a pool of eight bad ones comes once in 256

    assert len(unseen_items([0] * 9, 20, ([], []), 3, score=lambda u, i: [bad] * len(i))[1]) == 27


def test_a_score_of_pairs_keeps_the_users_even():
    users, items = unseen_pairs(4, 100, ([], []), 4000, score=lambda u, i: u, seed=0)
    close_to(Counter(users), {u: 1 / 4 for u in range(4)}, 4000)


# -- seeds, memory ---------------------------------------------------------------------------------------


def test_the_seed_decides_and_global_streams_stay():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, two, other = (unseen_items(3, 5, SEEN, 9, seed=seed) for seed in (1, 1, 2))
    assert one == two != other
    assert torch.equal(torch.get_rng_state(), state)

    unseeded = unseen_items(3, 5, SEEN, 9)
    assert unseeded != unseen_items(3, 5, SEEN, 9)
    torch.manual_seed(0)
    assert unseen_items(3, 5, SEEN, 9) == unseeded


def test_parts_of_a_large_draw_make_one(monkeypatch):
    monkeypatch.setattr(sampling, "_CHUNK", 16)
    for replace in (True, False):
        users, items = unseen_items(
            [0, 1, 2] * 40, 9, SEEN, 3, replace=replace, score=lambda u, i: i, seed=0
        )
        assert users == [u for u in [0, 1, 2] * 40 for _ in range(3)]
        assert not set(zip(users, items)) & set(zip(*SEEN))


def test_memory_grows_with_rows_and_not_with_users_times_items():
    code = (
        "import resource, torch\n"
        "from quickwins_codemod.runtime import unseen_items\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "before = peak()\n"
        "users, items = 100_000, 200_000\n"
        "u, i = torch.randint(users, (300_000,)), torch.randint(items, (300_000,))\n"
        "drawn = unseen_items(users, items, (u, i), 3, replace=False, popularity=0.75, seed=0)\n"
        "assert len(drawn[0]) == 300_000\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400  # in MiB; a byte for each user and item would be 19,000


# -- rows of a table ----------------------------------------------------------------------------------


def test_the_first_row_of_each_id_is_found():
    table = {"id": [3, 1, 3, 2], "age": [30, 10, 31, 20], "name": ["c", "a", "d", "b"]}
    assert first_rows(table, "id", [2, 3, 3]) == {
        "id": [2, 3, 3], "age": [20, 30, 30], "name": ["b", "c", "c"]
    }
    assert first_rows(table, "name", ["a"])["age"] == [10]
    assert first_rows(table, "id", []) == {"id": [], "age": [], "name": []}


def test_a_missing_row_is_named():
    with pytest.raises(IndexError, match="'z' is in no row of column 'name'"):
        first_rows({"name": np.array(["a", "b"])}, "name", ["a", "z"])


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: unseen_items([4, 5], 2, ([5, 5], [0, 1]), 1), "user 5 has fewer than 1 of the 2"),
        (lambda: unseen_items(["x"], 3, (["x"], [0]), 3, replace=False), "user 'x' has fewer than 3"),
        (lambda: unseen_items([1], [], ([], []), 1), "user 1 has fewer than 1 of the 0"),
        (lambda: unseen_items(1, 2, ([0], [0, 1]), 1), r"got \[1, 2\] entries"),
        (lambda: unseen_items(1, 2, ([0],), 1), r"two columns of equal length"),
        (lambda: unseen_items(1, 2, lambda u, i: False, 1, popularity=1.0), "as two columns"),
        (lambda: unseen_items(1, 2, ([], []), 1, score=lambda u, i: [1.0]), "gave 1 numbers for 8"),
        (lambda: unseen_pairs(2, 0, ([], []), 1), "there is no negative to draw"),
        (lambda: unseen_pairs(0, 2, lambda u, i: False, 1), "there is no negative to draw"),
    ],
)
def test_errors_say_what_was_given_and_what_to_do(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_nothing_wanted_is_nothing_drawn():
    assert unseen_items([], 5, SEEN, 3) == ([], [])
    assert unseen_items([0, 1], 5, SEEN, 0) == unseen_items([0, 1], 5, SEEN, -1) == ([], [])
    assert unseen_items([0], 0, ([], []), 2, replace=False, short=True) == ([], [])
    assert unseen_items([], 5, SEEN, 3, score=lambda u, i: i) == ([], [])


def test_the_module_needs_torch_alone():
    code = (
        "import sys\n"
        "for name in ('pandas', 'numpy'):\n"
        "    sys.modules[name] = None\n"
        "import importlib.util, pathlib\n"
        f"spec = importlib.util.spec_from_file_location('sampling', {sampling.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(module.unseen_items(2, ['a', 'b'], ([0], ['a']), 1, seed=0)[0])\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout == "[0, 1]\n", done.stderr
