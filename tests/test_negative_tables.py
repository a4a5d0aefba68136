"""Tables of random negatives: the same rows, columns, counts and types, from one draw.

A new pair is `fixtures/pairs/hard_negatives/table_NAME.in.py` and `.out.py`, with a case below that
calls its function; a new refusal is `fixtures/refused/hard_negatives/QW22x_reason.py`, where
`# <- CODE` ends each line that is named.
"""

import random
import re
import runpy
import subprocess
import sys
from collections import Counter

import mining_helpers as mining
import pytest
from helpers import place_runtime
from renamer import renamed
from test_renaming import by_black, dense

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

INPUTS = sorted(mining.PAIRS.glob("table_*.in.py"))
REFUSED = sorted(mining.REFUSED.glob("QW22[0-5]_*.py"))
#: Cases whose rows are drawn more often for popular items.
POPULAR = {"per_user", "filtered_rows", "for_each_epoch", "rows_of_a_frame"}
MARK = re.compile(r"# <- (QW\d{3})$")


def name(path):
    return re.sub(r"^table_|\.(in|out)\.py$|\.py$", "", path.name)


def output(path):
    return path.with_name(path.name.replace(".in.", ".out."))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return place_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture
def load(runtime, monkeypatch):
    """Run a module under a seed, and give what it defines."""
    monkeypatch.syspath_prepend(str(runtime))

    def run(path, seed=0):
        np.random.seed(seed)
        random.seed(seed)
        torch.manual_seed(seed)
        return runpy.run_path(str(path))

    return run


# -- what each case draws from -------------------------------------------------------------------


def ratings(users=12, items=25, rows=90, user="userId", item="movieId", kind=int):
    """Ratings with popular and rare items, where the last user has rated all items but two."""
    generator = np.random.default_rng(0)
    pairs = {
        (int(generator.integers(users - 1)), int(generator.random() ** 2 * items))
        for _ in range(rows)
    }
    pairs |= {(users - 1, i) for i in range(items - 2)} | {(0, items - 2), (0, items - 1)}
    frame = pd.DataFrame(sorted(pairs), columns=[user, item])
    frame = frame.sample(frac=1, random_state=0, ignore_index=True)
    frame[user], frame[item] = frame[user].map(kind), frame[item].map(kind)
    return frame


def rated(**options):
    frame = ratings(**options)
    frame["rating"] = np.arange(len(frame)) % 5 + 1.0
    frame["timestamp"] = np.arange(len(frame))
    return frame


def people(frame):
    return frame.groupby("userId", as_index=False).agg(
        mean=("rating", "mean"), count=("rating", "size")
    )


def movies(frame):
    return frame.groupby("movieId", as_index=False).agg(
        mean=("rating", "mean"), first=("timestamp", "min")
    )


def per_user(module):
    frame = rated()
    return module["with_negatives"](frame), frame


def features(module, frame=None, left=None, right=None, ratio=1.3):
    frame = rated() if frame is None else frame
    left = people(frame) if left is None else left
    right = movies(frame) if right is None else right
    data = module["Data"](frame, left, right)
    return data._extended(frame, ratio), frame


def edges(module):
    frame = ratings()
    rows = module["absent_edges"](torch.tensor(frame.to_numpy()), 12, 25)
    assert rows.dtype == torch.int64
    return pd.DataFrame(rows.tolist(), columns=["userId", "movieId"]), frame


def instances(module):
    frame = ratings(items=20)
    known = dict.fromkeys(frame.itertuples(index=False, name=None), 1)
    rows = module["instances"](known, 3)
    return pd.DataFrame(dict(zip(("userId", "movieId", "label"), rows))), frame


def dataset(module):
    frame = ratings(items=20)
    data = module["build"](list(frame.itertuples(index=False, name=None)))
    data.resample()
    return pd.DataFrame(data.rows, columns=["userId", "movieId", "label"]), frame


def while_true(module):
    frame = ratings()
    frame["movieId"] += 1
    known = frame.groupby("userId")["movieId"].apply(set).to_dict()
    pairs = (pair for pair in frame.itertuples(index=False, name=None))
    rows = module["triples"](pairs, known, 25)
    assert [row[:2] for row in rows] == list(frame.itertuples(index=False, name=None))
    return pd.DataFrame([(u, j) for u, _, j in rows], columns=["userId", "movieId"]), frame


def left_over(module):
    frame = ratings()
    owned = frame.groupby("userId")["movieId"].apply(set).to_dict()
    rows = module["left_over"](owned, 25, 4)
    return pd.DataFrame(rows, columns=["userId", "movieId", "label"]), frame


def filtered(module):
    frame = ratings(user="user", item="item", kind=str)
    rows = module["add_rows"](frame, 3, sorted(frame["item"].unique()))
    return _with_ids(rows), _with_ids(frame)


def of_a_frame(module):
    frame = ratings(user="user", item="item")
    return _with_ids(module["extend"](frame, 3)), _with_ids(frame)


def script(module):
    rows = {"userId": module["users"], "movieId": module["items"], "label": module["labels"]}
    return pd.DataFrame(rows), _with_ids(module["ratings"])


def for_each_epoch(module):
    frame = ratings(user="user", item="item")
    rows = module["negatives_of"](frame, 200)
    return pd.DataFrame(rows, columns=["userId", "movieId"]), _with_ids(frame)


def _with_ids(frame):
    return frame.rename(columns={"user": "userId", "item": "movieId"})


CASES = {
    "per_user": per_user, "features_before_split": features, "edges_of_a_graph": edges,
    "instances": instances, "resampling_dataset": dataset, "while_true": while_true,
    "left_over": left_over, "filtered_rows": filtered, "rows_of_a_frame": of_a_frame,
    "in_a_script": script, "for_each_epoch": for_each_epoch,
}
#: Cases that draw users too, so that only the sum of a user's rows is fixed.
FREE_USERS = {"features_before_split", "edges_of_a_graph", "for_each_epoch"}


def pairs_of(frame):
    return list(frame[["userId", "movieId"]].itertuples(index=False, name=None))


def drawn_of(rows, positives):
    """The rows that were added: not the positives that some functions return too."""
    label = next((c for c in ("label", "rating") if c in rows), None)
    return rows if label is None else rows[rows[label] == 0]


# -- before and after ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = mining.look_at(path.read_bytes(), tmp_path)

    assert outcome.after is not None, mining.said(outcome)
    assert outcome.after.decode() == output(path).read_bytes().decode()
    assert mining.codes(outcome, "applied") == ["QW203"]
    how = "by popularity" if name(path) in POPULAR else "evenly"
    assert how in next(v.message for v in outcome.verdicts if v.status == "applied")


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_nothing_is_left_to_do(path, tmp_path):
    again = mining.look_at(output(path).read_bytes(), tmp_path)

    assert again.after is None, again.diff()
    assert mining.codes(again) == ["QW200"], mining.said(again)


def test_every_pair_has_a_case_and_an_output():
    assert {name(path) for path in INPUTS} == set(CASES)
    assert all(output(path).exists() for path in INPUTS)


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_has_the_same_rows_columns_counts_and_types(path, load):
    before, _ = CASES[name(path)](load(path))
    after, positives = CASES[name(path)](load(output(path)))

    assert len(after) == len(before) > 0
    pd.testing.assert_series_equal(after.dtypes, before.dtypes)
    # Rows that are not drawn, and their places, are as they were.
    fixed = after.columns.difference(["userId", "movieId"] if name(path) in FREE_USERS else ["movieId"])
    stays = [c for c in fixed if c not in ("mean", "count", "first", "mean_x", "mean_y")]
    pd.testing.assert_frame_equal(after[stays], before[stays])
    given = len(after) - len(drawn_of(after, positives))
    assert given == len(before) - len(drawn_of(before, positives))


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_never_draws_a_positive_and_draws_what_the_script_could_have_drawn(path, load):
    before, _ = CASES[name(path)](load(path))
    after, positives = CASES[name(path)](load(output(path)))
    drawn, old = drawn_of(after, positives), drawn_of(before, positives)

    assert not set(pairs_of(drawn)) & set(pairs_of(positives))
    assert set(drawn["userId"]) <= set(positives["userId"])
    items = set(range(21 if "instances" in path.name or "dataset" in path.name else 26))
    if positives["movieId"].dtype.kind in "iu":
        assert set(drawn["movieId"]) <= items
    distinct = name(path) in ("per_user", "left_over")
    assert (max(Counter(pairs_of(drawn)).values()) == 1) is distinct
    assert (max(Counter(pairs_of(old)).values()) == 1) is distinct


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_repeats_under_the_seed_that_the_script_sets(path, load):
    first, again, other = (CASES[name(path)](load(output(path), seed))[0] for seed in (0, 0, 1))

    pd.testing.assert_frame_equal(first, again)
    # The script at the top level seeds itself, and the generator of a loop is its own.
    assert first.equals(other) is (name(path) in ("in_a_script", "for_each_epoch"))


def test_the_old_draws_and_the_new_have_one_distribution(load):
    def counts(path):
        found = Counter()
        module = load(path)
        for _ in range(40):
            rows, positives = features(module, ratio=5)
            found.update(pairs_of(drawn_of(rows, positives)))
        return found

    path = mining.PAIRS / "table_features_before_split.in.py"
    # One half of the loop's rows would take minutes: compare with what they must be.
    new = counts(output(path))
    _, positives = features(load(path), ratio=0.1)
    users, items = positives["userId"].unique(), positives["movieId"].unique()
    every = {(u, i) for u in users for i in items} - set(pairs_of(positives))
    assert set(new) == every
    expected = sum(new.values()) / len(every)
    chi = sum((new[pair] - expected) ** 2 / expected for pair in every)
    assert abs(chi - len(every)) < 5 * (2 * len(every)) ** 0.5


# -- types, missing values, clashes ----------------------------------------------------------------

FEATURES = {
    "floats_beside_ints": lambda f: people(f),
    "ints_only": lambda f: people(f).drop(columns="mean"),
    "narrow": lambda f: people(f).astype({"userId": "int16", "mean": "float32", "count": "int16"}),
    "narrow_beside_text": lambda f: people(f).astype({"count": "int16"}).assign(title="a"),
    "nullable": lambda f: people(f).astype({"count": "Int64"}),
    "bools": lambda f: people(f).assign(heavy=lambda p: p["count"] > 7),
    "text": lambda f: people(f).assign(title="a", count=lambda p: p["count"]),
    "missing": lambda f: people(f).assign(mean=lambda p: p["mean"].where(p["mean"] > 3)),
    "nothing": lambda f: people(f).assign(note=None),
    "dates": lambda f: people(f).assign(since=pd.Timestamp("2020-01-01")),
    "kinds": lambda f: people(f).assign(kind=pd.Categorical(["x", "y"] * 6)),
    "twice": lambda f: pd.concat([people(f), people(f).assign(count=-1)]),
    "clash": lambda f: people(f).assign(rating=9, first=2.5, movieId=-1),
    "only_the_id": lambda f: people(f)[["userId"]],
}


@pytest.mark.parametrize("case", FEATURES)
def test_features_have_the_types_and_values_of_rows_read_one_by_one(case, load):
    path = mining.PAIRS / "table_features_before_split.in.py"
    frame = rated()
    left = FEATURES[case](frame)
    before, _ = features(load(path), frame, left)
    after, _ = features(load(output(path)), frame, left)

    assert list(after.columns) == list(before.columns)
    pd.testing.assert_series_equal(after.dtypes, before.dtypes)
    columns = [c for c in before.columns if c not in ("movieId", "first", "mean")]
    key = lambda rows: {  # noqa: E731
        row[0]: row for row in rows[len(frame):][["userId", *columns]].astype(object)
        .where(rows[len(frame):][["userId", *columns]].notna(), "missing")
        .itertuples(index=False, name=None)
    }
    old, new = key(before), key(after)
    assert len(set(old) & set(new)) > 6
    assert all(old[user] == new[user] for user in set(old) & set(new))


@pytest.mark.parametrize("kind", ["int32", "float64", "str", "category", "Int64", "uint8"])
@pytest.mark.parametrize("which", ["per_user", "features_before_split"])
def test_ids_of_every_type_come_out_as_before(kind, which, load):
    path = mining.PAIRS / f"table_{which}.in.py"
    frame = rated().astype({"userId": kind, "movieId": kind})

    def run(path):
        module = load(path)
        if which == "per_user":
            return module["with_negatives"](frame)
        left = frame[["userId"]].drop_duplicates().assign(age=1.5)
        right = frame[["movieId"]].drop_duplicates().assign(year=1999)
        return module["Data"](frame, left, right)._extended(frame, 1.0)

    before, after = run(path), run(output(path))
    pd.testing.assert_series_equal(after.dtypes, before.dtypes)
    assert len(after) == len(before)
    assert not set(pairs_of(after[len(frame):])) & set(pairs_of(frame))


@pytest.mark.parametrize("ratio", [0, -1.0])
def test_no_row_adds_no_column(ratio, load):
    path = mining.PAIRS / "table_features_before_split.in.py"
    for source in (path, output(path)):
        rows, frame = features(load(source), ratio=ratio)
        pd.testing.assert_frame_equal(rows, frame)


def test_a_missing_row_of_features_is_an_error_as_before(load):
    path = mining.PAIRS / "table_features_before_split.in.py"
    frame = rated()
    for source in (path, output(path)):
        with pytest.raises(IndexError):
            features(load(source), frame, people(frame)[:2])


# -- what is decided ---------------------------------------------------------------------------------

LOOP = """\
import numpy as np


def negatives(frame, number):
    known = set(zip(frame["user"], frame["item"]))
    users, items = frame["user"].unique(), frame["item"].unique()
    rows = []
    for _ in range(number):
        user, item = np.random.choice(users), np.random.choice(items)
        while (user, item) in known:
            user, item = np.random.choice(users), np.random.choice(items)
        rows.append((user, item))
    return rows
"""


def emitted(tmp_path, text, **others):
    for file, content in others.items():
        (tmp_path / f"{file}.py").write_text(content)
    outcome = mining.look_at(text, tmp_path, file="loader.py")
    assert "QW203" in mining.codes(outcome, "applied"), mining.said(outcome)
    return outcome.after.decode(), mining.codes(outcome, "warning")


def test_harder_by_popularity_where_nothing_calls_it_or_a_loop_trains_on_it(tmp_path):
    new, warnings = emitted(tmp_path, LOOP)
    assert "popularity=0.75" in new and "score=None" in new and warnings == ["QW253"]

    trains = "\nfor epoch in range(3):\n    rows = negatives(frame, 5)\n    loss(rows).backward()\n"
    new, warnings = emitted(tmp_path, LOOP + trains)
    assert "popularity=0.75" in new and "score=None" in new and warnings == []


def test_even_where_what_becomes_of_the_rows_is_not_seen(tmp_path):
    for rest, others in [
        ("\nrows = negatives(frame, 5)\n", {}),
        ("", {"train": "from loader import negatives\nnegatives(frame, 3)\n"}),
        ("\ndraw = negatives\n", {}),
    ]:
        new, warnings = emitted(tmp_path, LOOP + rest, **others)
        assert "popularity" not in new and "score=None" in new and warnings == []


@pytest.mark.parametrize(
    "rest",
    [
        "\ntrain, test = train_test_split(negatives(frame, 5))\n",
        "\nrows = negatives(frame, 5)\nmore = [*rows, 1]\ntrain, test = random_split(more, [1, 2])\n",
        "\ndef load():\n    return negatives(frame, 5)\n\nrows = load()\na, b = train_test_split(rows)\n",
        "\ndef load():\n    rows = negatives(frame, 5)\n    return rows\n\na = folds.split(load())\n",
    ],
)
def test_even_and_without_a_score_before_a_split(rest, tmp_path):
    new, warnings = emitted(tmp_path, LOOP + rest)

    assert "popularity" not in new and "score" not in new and warnings == ["QW254"]


def test_text_that_is_split_is_no_split_of_rows(tmp_path):
    rest = '\nrows = negatives(frame, 5)\nwords = "a b".split(" ")\n'

    assert emitted(tmp_path, LOOP + rest)[1] == []


def test_a_function_that_takes_any_argument_gains_none(tmp_path):
    new, _ = emitted(tmp_path, LOOP.replace("frame, number):", "frame, number, *more):"))
    assert "score" not in new

    new, _ = emitted(tmp_path, LOOP.replace("rows = []", "rows, score = [], 1"))
    assert "negative_score=None" in new and "score=negative_score" in new


def test_columns_that_change_after_the_set_was_made_are_not_read_again(tmp_path):
    new, _ = emitted(tmp_path, LOOP.replace("    rows = []", "    frame = frame[:9]\n    rows = []"))

    assert "known = set(zip" in new and "in known" in new


@pytest.mark.parametrize(
    "change", ["known.add((1, 2))", "more(known)", "other = known", "known |= {(1, 2)}"]
)
def test_a_set_that_may_have_changed_is_asked_itself(change, tmp_path):
    new, _ = emitted(tmp_path, LOOP.replace("    rows = []", f"    {change}\n    rows = []"))

    assert "known = set(zip" in new and "in known" in new


def test_positives_that_a_function_of_the_file_adds_to_are_seen(tmp_path):
    text = """\
import random


class Sampler:
    def note(self, user, item):
        self.taken[user].add(item)

    def rows(self, users):
        found = []
        for user in users:
            item = random.randrange(9)
            while item in self.taken[user]:
                item = random.randrange(9)
            self.note(user, item)
            found.append(item)
        return found
"""
    assert mining.codes(mining.look_at(text, tmp_path)) == ["QW221"]
    quiet = text.replace("self.taken[user].add(item)", "print(user, item)")
    assert "QW203" in mining.codes(mining.look_at(quiet, tmp_path))


PER_USER = """\
import random


def rows_of(owned, catalogue, number):
    rows = []
    for user in owned:
        left = list(set(catalogue) - set(owned[user]))
        for item in random.sample(left, number):
            rows.append((user, item))
    return rows
"""


def test_an_item_that_stands_in_the_catalogue_twice_is_no_likelier(tmp_path):
    new, _ = emitted(tmp_path, PER_USER)  # without replacement the runtime takes care of it
    assert "owned, catalogue, lambda user, item: item in set(owned[user]), number" in new

    again = PER_USER.replace("random.sample(left, number)", "random.choices(left, k=number)")
    new, _ = emitted(tmp_path, again)
    assert "owned, set(catalogue)" in new


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        # Of a list, the sample may hold an item twice that stands in it twice.
        ("list(set(catalogue) - set(owned[user]))", "[i for i in catalogue if i not in owned[user]]",
         ["QW220"]),
        # What follows the draw is no row, or needs more than user and item.
        ("rows.append((user, item))", "rows.append((user, item, len(left)))", ["QW220"]),
        ("random.sample(left, number)", "random.sample(left, number)[:2]", ["QW220"]),
        ("random.sample(left, number)", "random.sample(left, len(owned[user]))", ["QW222"]),
        ("        for item", "        print(user)\n        for item", ["QW220"]),
        ("    return rows", "    return rows, user", ["QW225"]),
        ("rows.append((user, item))", "owned[user].add(item)", ["QW221"]),
        # Numbers are subtracted, no items taken away.
        ("list(set(catalogue) - set(owned[user]))", "catalogue - owned[user]", []),
    ],
)
def test_other_loops_over_users_are_left_alone(old, new, code, tmp_path):
    assert PER_USER.count(old) == 1
    outcome = mining.look_at(PER_USER.replace(old, new), tmp_path)

    assert mining.codes(outcome) == code, mining.said(outcome)
    assert outcome.after is None


PER_ROW = """\
import random


def rows_of(pairs, owned, items, number):
    rows = []
    for user, item in pairs:
        for _ in range(number):
            other = random.choice(items)
            while other in owned[user]:
                other = random.choice(items)
            rows.append((user, item, other))
    return rows
"""


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("in owned[user]:", "in user.items:", ["QW220"]),
        ("in owned[user]:", "in owned[user] or other == item:", ["QW220"]),
        ("for user, item in pairs:", "for user, item in pairs.groupby(owned):", None),
        ("            other = random.choice(items)\n            while",
         "            other = random.choice(items[user])\n            while", ["QW220"]),
        ("            rows.append", "            if other > 3:\n                continue\n"
         "            rows.append", None),
        ("            other = random.choice(items)\n            while",
         "            if user > 3:\n                continue\n            other = random.choice(items)"
         "\n            while", ["QW222"]),
        ("range(number)", "range(len(owned[user]))", ["QW222"]),
        ("            rows.append((user, item, other))", "            yield other", ["QW222"]),
        ("            rows.append((user, item, other))",
         "            rows.append((user, item, other, random.random(), random.choice(items)))",
         ["QW220"]),
        ("    return rows", "    return rows, other", None),
        ("for user, item in pairs:", "for user, item in pairs:\n        user = next(owned)", ["QW222"]),
    ],
)
def test_other_loops_over_rows_are_left_alone_or_run_as_before(old, new, code, tmp_path):
    assert PER_ROW.count(old) == 1
    outcome = mining.look_at(PER_ROW.replace(old, new), tmp_path)

    if code is None:
        assert "QW203" in mining.codes(outcome), mining.said(outcome)
    else:
        assert mining.codes(outcome) == code, mining.said(outcome)


def test_names_imported_bare_are_known(tmp_path):
    text = LOOP.replace("import numpy as np", "from numpy.random import choice")
    new, _ = emitted(tmp_path, text.replace("np.random.choice", "choice"))

    assert "seed=choice(2**31 - 1)" in new


def test_a_test_is_no_training(tmp_path):
    assert mining.look_at(LOOP, tmp_path, file="test_loader.py").verdicts == ()


def test_a_score_draws_what_scores_high(load):
    for which in ("per_user", "for_each_epoch", "while_true", "instances"):
        path = output(mining.PAIRS / f"table_{which}.in.py")
        module = load(path)
        function = next(module[f] for f in ("with_negatives", "negatives_of", "triples", "instances")
                        if f in module)
        plain = load(path)
        scored = {**module, function.__name__: lambda *args: function(*args, score=high)}
        even, positives = CASES[which](plain)
        hard, _ = CASES[which](scored)
        assert len(even) == len(hard)
        gain = drawn_of(hard, positives)["movieId"].mean() - drawn_of(even, positives)["movieId"].mean()
        assert gain > 2
        assert not set(pairs_of(drawn_of(hard, positives))) & set(pairs_of(positives))


def high(users, items):
    return torch.tensor(items, dtype=torch.float32)


# -- other spellings -----------------------------------------------------------------------------------

LAYOUTS = {"black": by_black, "narrow": lambda t: by_black(t, line_length=50), "dense": dense}


@pytest.mark.parametrize("path", [*INPUTS, *REFUSED], ids=name)
def test_other_names_get_the_same_verdicts(path, tmp_path):
    text = path.read_text("utf-8")
    plain, other = (
        sorted((v.status, v.code) for v in mining.look_at(t, tmp_path).verdicts)
        for t in (text, renamed(text))
    )

    assert renamed(text).count("name_") > 5
    assert other == plain


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_another_layout_draws_the_same(path, layout, tmp_path, load):
    text = LAYOUTS[layout](path.read_text("utf-8"))
    outcome = mining.look_at(text, tmp_path)
    assert outcome.after is not None, mining.said(outcome)
    script = tmp_path / "rewritten.py"
    script.write_bytes(outcome.after)

    rows, _ = CASES[name(path)](load(script))
    expected, _ = CASES[name(path)](load(output(path)))
    pd.testing.assert_frame_equal(rows, expected)


# -- what is left alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_is_left_alone_and_the_report_says_where_and_why(path, tmp_path):
    marks = sorted(
        (found[1], number)
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if (found := MARK.search(line))
    )
    outcome = mining.look_at(path.read_bytes(), tmp_path)

    assert outcome.after is None
    assert sorted((v.code, v.line) for v in outcome.verdicts) == marks, mining.said(outcome)
    assert mining.codes(outcome, "refused") == [code for code, _ in marks]
    assert path.name.partition("_")[0] in [code for code, _ in marks]


@pytest.mark.parametrize(
    "text",
    [
        "import random\nfor _ in range(3):\n    print(random.choice([1, 2]))\n",
        "import random\nx = random.randint(0, 9)\nwhile x in {1, 2}:\n    x = random.randint(0, 9)\n",
        "import random\nfor _ in range(3):\n    x = random.sample(range(9), 2)\n",
    ],
)
def test_other_draws_are_not_spoken_of(text, tmp_path):
    assert mining.look_at(text, tmp_path).verdicts == ()


# -- in a repository -------------------------------------------------------------------------------------


def test_a_loader_that_scripts_of_other_folders_import_still_starts(tmp_path):
    package = tmp_path / "two_towers" / "src"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text(LOOP)
    start = (
        "import sys\nfrom pathlib import Path\n"
        "sys.path.insert(0, str(Path(__file__).resolve().parent / {folder!r}))\n"
        "from {module} import negatives\nprint(negatives.__name__)\n"
    )
    (tmp_path / "from_root.py").write_text(start.format(folder="two_towers/src", module="data"))
    (tmp_path / "two_towers" / "beside.py").write_text(start.format(folder=".", module="src.data"))
    command = [sys.executable, "-m", "quickwins_codemod", "apply", "--select", mining.RULE]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unseen_pairs" in (package / "data.py").read_text()

    for folder, script in [
        (".", "from_root.py"), (".", "two_towers/beside.py"), ("two_towers", "beside.py")
    ]:
        ran = subprocess.run(
            [sys.executable, script], cwd=tmp_path / folder, capture_output=True, text=True
        )
        assert ran.stdout == "negatives\n", ran.stderr
    check = subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", "check", "--select", mining.RULE, "."],
        cwd=tmp_path, capture_output=True, text=True,
    )
    assert check.returncode == 0, check.stdout
