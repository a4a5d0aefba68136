"""Reading who has seen what: all forms of data give the same pairs, and reading leaves no trace."""

import collections
import copy
import dataclasses
import pickle
import random

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
hypothesis = pytest.importorskip("hypothesis")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch.utils.data import (  # noqa: E402
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from quickwins_codemod.runtime.interactions import Interactions  # noqa: E402

torch.set_num_threads(1)
Row = collections.namedtuple("Row", "person film stars")

COUNT, USERS, ITEMS = 700, 30, 40
_generator = torch.Generator().manual_seed(3)
USER_IDS = torch.randint(USERS, (COUNT,), generator=_generator)
ITEM_IDS = torch.randint(2, ITEMS, (COUNT,), generator=_generator)
RATINGS = torch.randint(1, 11, (COUNT,), generator=_generator) / 2 - 2.0  # from -1.5 to 3


def pairs(seen):
    """All pairs that are seen, by asking for each."""
    users, items = torch.arange(USERS + 2), torch.arange(ITEMS + 3)
    return set(map(tuple, seen.contain(users[:, None], items[None]).nonzero().tolist()))


def zipped(users=USER_IDS, items=ITEM_IDS):
    return set(zip(users.tolist(), items.tolist()))


class Rows(Dataset):
    """A data set that makes each row by a function of its index."""

    def __init__(self, make, count=COUNT):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.make(index)


class Columns(Dataset):
    """A data set that keeps its columns; counts how often it is asked."""

    def __init__(self, **columns):
        self.__dict__.update(columns)
        self.asked = 0

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        self.asked += 1
        return self.users[index], self.items[index], self.ratings[index]


def row(index):
    return int(USER_IDS[index]), int(ITEM_IDS[index]), float(RATINGS[index])


# What data may be


def test_pairs_are_looked_up():
    seen = Interactions((USER_IDS, ITEM_IDS))
    assert pairs(seen) == zipped()
    assert (len(seen), seen.low, seen.high) == (COUNT, int(ITEM_IDS.min()), int(ITEM_IDS.max()) + 1)


FRAME = pd.DataFrame({"u": USER_IDS.numpy(), "title": "x", "i": ITEM_IDS.numpy(), "items": 0})
NAMES = {"users": "u", "items": "i"}


@pytest.mark.parametrize(
    "data, places",
    [
        ((USER_IDS, ITEM_IDS), {}),
        ([USER_IDS.to(torch.int32), ITEM_IDS], {}),
        ((USER_IDS.numpy(), ITEM_IDS.numpy().astype(np.uint8)), {}),
        ((USER_IDS.numpy()[::-1], ITEM_IDS.numpy()[::-1]), {}),
        ((USER_IDS.tolist(), ITEM_IDS.tolist()), {}),
        ((USER_IDS.float(), ITEM_IDS.double()), {}),
        ((FRAME["u"], FRAME["i"]), {}),
        ((RATINGS, USER_IDS, ITEM_IDS), {"users": -2, "items": -1}),
        (torch.stack([USER_IDS, ITEM_IDS], 1), {}),
        (np.stack([ITEM_IDS, USER_IDS], 1), {"users": 1, "items": 0}),
        (FRAME, NAMES),
        (FRAME.set_index("title"), NAMES),
        (FRAME.rename(columns={"i": "items", "items": "i"}), {"users": "u", "items": "items"}),
        ({"u": USER_IDS, "i": ITEM_IDS.numpy(), "other": ["x"] * 3}, NAMES),
        (Row(USER_IDS, ITEM_IDS, None), {"users": "person", "items": "film"}),
        ([row(i) for i in range(COUNT)], {}),
        ([dict(u=row(i)[0], i=row(i)[1]) for i in range(COUNT)], NAMES),
        ([list(row(i)) for i in range(COUNT)], {"users": -3, "items": -2}),
    ],
)
def test_columns_and_tables(data, places):
    assert pairs(Interactions(data, **places)) == zipped()


@dataclasses.dataclass
class Sample:
    person: int
    film: int


BY_NAME = {"users": "person", "items": "film"}
DATASETS = {
    "tensors": (TensorDataset(USER_IDS, ITEM_IDS, RATINGS), {}),
    "tuples": (Rows(row), {}),
    "from the end": (Rows(row), {"users": -3, "items": -2}),
    "scalar tensors": (Rows(lambda i: (USER_IDS[i], ITEM_IDS[i])), {}),
    "numpy scalars": (Rows(lambda i: (np.int64(USER_IDS[i]), ITEM_IDS.numpy()[i])), {}),
    "one tensor": (Rows(lambda i: torch.tensor(row(i))), {}),
    "dicts": (Rows(lambda i: {"person": USER_IDS[i], "film": row(i)[1], "id": "x"}), BY_NAME),
    "named tuples by name": (Rows(lambda i: Row(*row(i))), BY_NAME),
    "named tuples by position": (Rows(lambda i: Row(*row(i))), {}),
    "objects": (Rows(lambda i: Sample(*row(i)[:2])), BY_NAME),
    "columns": (Columns(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS), {}),
    "a list": ([row(i) for i in range(COUNT)], {}),
    "a tuple of rows": (tuple(row(i) for i in range(COUNT)), {}),
}


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("batch_size", [None, 32])
def test_loaders(name, batch_size):
    data, places = DATASETS[name]
    shuffled = DataLoader(data, batch_size, shuffle=True, collate_fn=None)
    assert pairs(Interactions(shuffled, **places)) == zipped()


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "a tuple of rows"])
def test_data_sets(name):
    data, places = DATASETS[name]
    assert pairs(Interactions(data, **places)) == zipped()


@pytest.mark.parametrize("name", ["tensors", "columns", "tuples"])
def test_subsets_and_concatenations(name):
    data, _ = DATASETS[name]
    chosen = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))[:300]
    expected = zipped(USER_IDS[chosen], ITEM_IDS[chosen])
    assert pairs(Interactions(Subset(data, chosen.tolist()))) == expected
    assert pairs(Interactions(Subset(data, chosen))) == expected
    assert pairs(Interactions(Subset(Subset(data, chosen), range(300)))) == expected
    halves = ConcatDataset([Subset(data, range(400)), data, Subset(data, [])])
    assert pairs(Interactions(DataLoader(halves, batch_size=8))) == zipped()
    assert len(Interactions(halves)) == 400 + COUNT


@pytest.mark.parametrize("name", ["tensors", "columns", "tuples", "a list"])
@pytest.mark.parametrize("collate", [None, lambda rows: [list(column) for column in zip(*rows)]])
def test_a_sampler_that_leaves_rows_out(name, collate):
    data, _ = DATASETS[name]
    chosen = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2))[:400].tolist()
    sampler = torch.utils.data.SubsetRandomSampler(chosen)
    batches = torch.utils.data.BatchSampler(sampler, 16, False)
    expected = zipped(USER_IDS[chosen], ITEM_IDS[chosen])
    for arguments in (dict(sampler=sampler, batch_size=16), dict(batch_sampler=batches)):
        loader = DataLoader(data, collate_fn=collate, **arguments)
        assert pairs(Interactions(loader)) == expected
    for sampler in (
        torch.utils.data.RandomSampler(data),
        torch.utils.data.WeightedRandomSampler([1.0] * COUNT, 50),
        torch.utils.data.DistributedSampler(data, num_replicas=2, rank=1),
    ):
        assert pairs(Interactions(DataLoader(data, sampler=sampler))) == zipped()


def test_a_subset_that_changes_its_rows_is_read_as_it_is():
    class Shifted(Subset):
        def __getitem__(self, index):
            user, item, rating = super().__getitem__(index)
            return user, item + 1, rating

        __getitems__ = None

    data = Shifted(DATASETS["columns"][0], range(COUNT))
    assert pairs(Interactions(data)) == zipped(USER_IDS, ITEM_IDS + 1)


def test_batched_fetching_is_used_where_a_data_set_has_it():
    class Batched(Rows):
        def __getitems__(self, indices):
            return [self.make(index) for index in indices]

        def __getitem__(self, index):
            raise AssertionError("asked row by row")

    assert pairs(Interactions(DataLoader(Batched(row), batch_size=4))) == zipped()


# Rows with several items


def histories():
    by_user = collections.defaultdict(list)
    for user, item in zip(USER_IDS.tolist(), ITEM_IDS.tolist()):
        by_user[user].append(item)
    return sorted(by_user.items())


def test_a_row_may_hold_all_items_of_a_user():
    rows = [(user, torch.tensor(items)) for user, items in histories()]
    assert pairs(Interactions(rows)) == zipped()
    rows = [{"u": user, "i": items} for user, items in histories()]
    assert pairs(Interactions(DataLoader(rows, batch_size=None), **NAMES)) == zipped()


def test_columns_may_hold_several_items_for_a_user():
    items = ITEM_IDS.reshape(-1, 2)
    expected = zipped(USER_IDS[::2], items[:, 0]) | zipped(USER_IDS[::2], items[:, 1])
    assert pairs(Interactions((USER_IDS[::2], items))) == expected
    assert pairs(Interactions(TensorDataset(USER_IDS[::2], items))) == expected
    repeated = USER_IDS[::2, None].expand(-1, 2)
    assert pairs(Interactions(TensorDataset(repeated, items))) == expected
    assert pairs(Interactions([(u, i) for u, i in zip(repeated, items)])) == expected
    assert pairs(Interactions(TensorDataset(USER_IDS[:, None], ITEM_IDS[:, None]))) == zipped()


@pytest.mark.parametrize("as_rows", [False, True])
def test_histories_in_place_of_users(as_rows):
    sequences = torch.randint(1, 9, (50, 6), generator=torch.Generator().manual_seed(0))
    data = TensorDataset(sequences, torch.arange(5, 55))
    seen = Interactions([data[i] for i in range(50)] if as_rows else data)
    assert seen.by_history and (seen.low, seen.high) == (5, 55)
    with pytest.raises(ValueError, match="histories in place of user ids"):
        seen.contain(torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64))


# Labels


@pytest.mark.parametrize(
    "data",
    [
        (USER_IDS, ITEM_IDS, RATINGS),
        TensorDataset(USER_IDS, ITEM_IDS, RATINGS),
        DataLoader(Rows(row)),
        DataLoader(Columns(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS.double())),
        (USER_IDS[:, None], ITEM_IDS[:, None], RATINGS[:, None]),
        (USER_IDS, ITEM_IDS[:, None], RATINGS),
    ],
)
def test_only_rows_with_a_positive_label_are_seen(data):
    kept = RATINGS > 0
    assert 0 < int(kept.sum()) < COUNT
    assert pairs(Interactions(data, labels=2)) == zipped(USER_IDS[kept], ITEM_IDS[kept])


def test_labels_of_several_items_in_a_row():
    rows = [(1, [3, 4, 5], [1, 0, 1]), (2, [6, 7], 1), (3, [8, 9], torch.tensor(0))]
    assert pairs(Interactions(rows, labels=2)) == {(1, 3), (1, 5), (2, 6), (2, 7)}


def test_labels_are_found_among_kept_columns_by_their_sign():
    class Rounded(Columns):
        def __getitem__(self, index):
            user, item, rating = super().__getitem__(index)
            return user, item, torch.tensor(rating, dtype=torch.float32)

    ratings = (RATINGS.double() + 0.1).tolist()  # not the same in float32
    data = Rounded(users=USER_IDS, items=ITEM_IDS, ratings=ratings)
    kept = RATINGS >= 0
    assert pairs(Interactions(data, labels=2)) == zipped(USER_IDS[kept], ITEM_IDS[kept])
    assert data.asked < COUNT / 5


# Collating functions


def as_dict(rows):
    users, items, _ = zip(*rows)
    return {"person": torch.tensor(users), "film": torch.tensor(items), "names": ["x"] * len(rows)}


@pytest.mark.parametrize("batch_size", [1, 32, COUNT])
def test_a_collating_function_says_what_a_batch_is(batch_size):
    loader = DataLoader(Rows(row), batch_size, collate_fn=as_dict)
    assert pairs(Interactions(loader, **BY_NAME)) == zipped()


def test_a_collating_function_without_batches():
    loader = DataLoader(Rows(row), batch_size=None, collate_fn=lambda r: Row(*r))
    assert pairs(Interactions(loader, **BY_NAME)) == zipped()


def test_a_collating_function_with_a_batch_sampler():
    sampler = torch.utils.data.BatchSampler(range(COUNT), 64, False)
    loader = DataLoader(Rows(row), batch_sampler=sampler, collate_fn=as_dict)
    assert pairs(Interactions(loader, **BY_NAME)) == zipped()


# Columns that a data set keeps


@pytest.mark.parametrize(
    "columns",
    [
        dict(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS),
        dict(users=USER_IDS.numpy(), items=ITEM_IDS.numpy(), ratings=RATINGS.numpy()),
        dict(users=USER_IDS.tolist(), items=ITEM_IDS.tolist(), ratings=RATINGS.tolist()),
        dict(users=pd.Series(USER_IDS), items=pd.Series(ITEM_IDS), ratings=pd.Series(RATINGS)),
        dict(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS, copy=ITEM_IDS.clone().int()),
        dict(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS, names=np.array(["x"] * COUNT)),
    ],
)
def test_kept_columns_are_taken_without_asking_for_all_rows(columns):
    data = Columns(**columns)
    assert pairs(Interactions(DataLoader(data, batch_size=16))) == zipped()
    assert data.asked < COUNT / 5


def test_columns_of_kept_tables_are_taken():
    asked = []

    class Framed(Rows):
        def __init__(self, kept, make):
            super().__init__(make)
            self.kept = kept

        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    both = torch.stack([ITEM_IDS, USER_IDS], 1)
    for kept in (FRAME, both, both.numpy(), {"a": USER_IDS, "b": ITEM_IDS}):
        assert pairs(Interactions(Framed(kept, row))) == zipped()
    assert len(asked) < COUNT


def test_rows_count_and_not_the_columns_that_look_like_them():
    class Remapped(Columns):  # agrees with the kept column nowhere
        def __getitem__(self, index):
            return self.users[index], self.items[index] + 1

    kept = dict(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS)
    assert pairs(Interactions(Remapped(**kept))) == zipped(USER_IDS, ITEM_IDS + 1)

    class Reversed(Columns):
        def __getitem__(self, index):
            return super().__getitem__(COUNT - 1 - index)

    assert pairs(Interactions(Reversed(**kept))) == zipped()


def test_two_columns_that_agree_on_the_probed_rows_only_are_not_guessed_between():
    seen = []

    class Watched(Columns):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    Interactions(Watched(users=USER_IDS, items=ITEM_IDS, ratings=RATINGS))
    decoy = ITEM_IDS.clone()
    decoy[[i for i in range(COUNT) if i not in seen]] = 0  # agrees where it was looked
    data = Columns(decoy=decoy, users=USER_IDS, items=ITEM_IDS, ratings=RATINGS)
    assert pairs(Interactions(data)) == zipped()


# No trace


def states():
    return (
        random.getstate(),
        torch.get_rng_state().tolist(),
        [part.tolist() if hasattr(part, "tolist") else part for part in np.random.get_state()],
    )


class Drawing(Dataset):
    """Draws its negatives with every generator there is."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(1)
        self.numpy = np.random.default_rng(1)
        self.legacy = np.random.RandomState(1)
        self.python = random.Random(1)

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        drawn = random.randrange(9) + np.random.randint(9) + int(torch.randint(9, ()))
        own = torch.randint(9, (), generator=self.generator) + self.numpy.integers(9)
        return USER_IDS[index], ITEM_IDS[index], drawn, int(own) + self.python.randrange(9)

    def next_draws(self):
        own = int(torch.randint(1000, (), generator=self.generator)), self.python.random()
        return *own, self.numpy.integers(1000), self.legacy.randint(1000)


@pytest.mark.parametrize("wrap", [lambda d: d, DataLoader, lambda d: Subset(d, range(COUNT))])
def test_reading_leaves_the_random_streams_alone(wrap):
    data, untouched = Drawing(), Drawing()
    before = states()
    assert pairs(Interactions(wrap(data))) == zipped()
    assert states() == before
    assert data.next_draws() == untouched.next_draws()


def test_the_random_streams_are_put_back_after_an_error_too():
    before = states()
    with pytest.raises(ValueError):
        Interactions(Drawing(), items=9)
    assert states() == before


def test_no_worker_is_started_and_the_loader_is_not_iterated(monkeypatch):
    monkeypatch.setattr(DataLoader, "__iter__", lambda self: pytest.fail("iterated"))
    loader = DataLoader(Rows(row), batch_size=8, num_workers=2, shuffle=True)
    assert pairs(Interactions(loader)) == zipped()


def test_given_columns_are_not_changed():
    users, items = USER_IDS.clone(), ITEM_IDS.clone()
    Interactions((users, items))
    assert torch.equal(users, USER_IDS) and torch.equal(items, ITEM_IDS)


def test_no_warning_for_columns_that_are_read_only(recwarn):
    fixed = ITEM_IDS.numpy().copy()
    fixed.flags.writeable = False
    Interactions((USER_IDS, fixed))
    Interactions(FRAME, **NAMES)
    assert not list(recwarn)


# What cannot be read


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(1, 2)])


@pytest.mark.parametrize(
    "data, places, error, words",
    [
        (DataLoader(Stream()), {}, TypeError, "Stream is an IterableDataset.*data=\\(user ids"),
        (Rows(row), {"users": "u"}, ValueError, "users.*'u'.*tuple of 3.*users=.*data=\\(user"),
        (Rows(row), {"items": 3}, ValueError, "items.*3.*tuple of 3 \\(int, int, float\\)"),
        (Rows(lambda i: {"a": 1, "b": 2}), {}, ValueError, "dict with the keys 'a', 'b'"),
        (Rows(lambda i: Row(1, 2, 3)), {"items": "x"}, ValueError, "Row with the fields person, f"),
        (Rows(lambda i: 3), {}, ValueError, "an object of type int"),
        (Rows(lambda i: "text"), {}, ValueError, "not numbers"),
        (Rows(lambda i: ("anna", 1)), {}, ValueError, "users in the data are not numbers.*anna"),
        (Rows(lambda i: (1, None)), {}, ValueError, "items in the data are not numbers"),
        (FRAME, {}, ValueError, "users.*0.*DataFrame with the columns 'u', 'title', 'i'"),
        (FRAME, {"users": "title", "items": "i"}, ValueError, "users in the data are not numbers"),
        (iter([(1, 2)]), {}, TypeError, "cannot read interactions from an object of type .*iter"),
        (None, {}, TypeError, "cannot read interactions from an object of type NoneType"),
        ("ratings.csv", {}, TypeError, "cannot read interactions from an object of type str"),
        ((USER_IDS, ITEM_IDS[:9]), {}, ValueError, "of one length.* 700 users, 9 items"),
        ((torch.tensor([1, 2]), torch.tensor([3, -7])), {}, ValueError, "item id -7 .*negative"),
        ((torch.tensor([-1, 2]), torch.tensor([3, 7])), {}, ValueError, "user id -1 .*negative"),
        (
            (torch.tensor([1, 2]), torch.tensor([3, 7.5])),
            {},
            ValueError,
            "item id 7.5 .*no integer",
        ),
        ((torch.tensor([1, 2]), torch.tensor([3, float("nan")])), {}, ValueError, "item id nan"),
        ((torch.tensor([2**40]), torch.tensor([2**40])), {}, ValueError, f"{2**40} .*too large"),
        ((USER_IDS, torch.zeros(COUNT, 2, 2, dtype=torch.int64)), {}, ValueError, "be paired"),
    ],
)
def test_what_cannot_be_read_is_named(data, places, error, words):
    with pytest.raises(error, match=words):
        Interactions(data, **places)


def test_no_interactions_at_all():
    empty = torch.empty(0, dtype=torch.int64)
    for data in ((empty, empty), [], TensorDataset(empty, empty), Subset(Rows(row), [])):
        seen = Interactions(data)
        assert (len(seen), seen.low, seen.high) == (0, 0, 0)
        assert not seen.contain(torch.tensor([0, 5]), torch.tensor([0, 5])).any()
        assert not seen.contain_all(torch.tensor([0, 5]), torch.tensor([0, 5, 6])).any()
        assert seen.log_share(torch.tensor([3])).tolist() == [0.0]


# Looking up

ids = st.integers(0, 12)
known = st.lists(st.tuples(ids, ids), max_size=40)
asked = st.lists(st.tuples(st.integers(-2, 20), st.integers(-20, 30)), min_size=1, max_size=30)


@given(known, asked, st.sampled_from([torch.int32, torch.int64]))
@settings(max_examples=200, deadline=None)
def test_exactly_the_pairs_in_the_data_are_seen(known, asked, dtype):
    seen = Interactions(known)
    users, items = torch.tensor(asked, dtype=dtype).unbind(1)
    expected = [pair in set(known) for pair in asked]
    assert seen.contain(users, items).tolist() == expected
    table = [[(u, i) in set(known) for i in items.tolist()] for u in users.tolist()]
    assert seen.contain(users[:, None], items[None]).tolist() == table
    assert seen.contain_all(users, items).tolist() == table


def test_all_pairs_of_a_batch_are_seen_alike_however_they_are_looked_up():
    seen = Interactions((USER_IDS, ITEM_IDS))
    users = USER_IDS[:60]
    for items in (ITEM_IDS[100:103], ITEM_IDS[100:400]):
        expected = seen.contain(users[:, None], items[None])
        assert torch.equal(seen.contain_all(users, items), expected)


def test_ids_near_the_limit_of_keys():
    user, width = 2**41 - 3, 2**22
    seen = Interactions(([user, 0], [width - 1, 5]))
    users = torch.tensor([user, user, user + 1, 2**62, 0, 0])
    items = torch.tensor([width - 1, 5, width - 1, 5, 5, 2**62])
    assert seen.contain(users, items).tolist() == [True, False, False, False, True, False]


def test_shares_of_items():
    seen = Interactions(([0, 1, 2, 2], [7, 7, 7, 3]))
    shares = seen.log_share(torch.tensor([[7, 3], [4, 100]], dtype=torch.int32)).exp()
    assert shares.dtype is torch.float32
    assert shares.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.25])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied):
    seen = Interactions((USER_IDS, ITEM_IDS))
    seen.log_share(ITEM_IDS), pairs(seen)
    assert pairs(copied(seen)) == zipped()


def test_memory_is_eight_bytes_for_an_interaction():
    seen = Interactions((USER_IDS, ITEM_IDS))
    pairs(seen)
    tensors = [value for value in vars(seen).values() if isinstance(value, torch.Tensor)]
    tensors += list(seen._moved.values())
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    assert sum(storages.values()) == 8 * COUNT
