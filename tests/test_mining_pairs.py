"""Hard negatives, before and after, and what is left alone: each a file in fixtures/, by glob.

A new pair is `fixtures/pairs/hard_negatives/NAME.in.py` and `NAME.out.py`; a new refusal is
`fixtures/refused/hard_negatives/CODE_reason.py`, where `# <- CODE` ends each line that is named
(`untouched_...` where none is, since nothing in the script is a recommender's).
`table_...` are functions that draw into tables (see test_negative_tables.py).
"""

import re

import black
import mining_helpers as mining
import pytest
from helpers import place_runtime
from renamer import renamed

torch = pytest.importorskip("torch")

INPUTS = [p for p in sorted(mining.PAIRS.glob("*.in.py")) if not p.name.startswith("table_")]
REFUSED = [p for p in sorted(mining.REFUSED.glob("*.py")) if not re.match(r"QW22[0-5]", p.name)]
MARK = re.compile(r"# <- (QW\d{3})$")


def name(path):
    return re.sub(r"\.(in|out)\.py$|\.py$", "", path.name)


def output(path):
    return path.with_name(name(path) + ".out.py")


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return place_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = mining.look_at(path.read_bytes(), tmp_path)

    assert outcome.after is not None, mining.said(outcome)
    assert outcome.after.decode() == output(path).read_bytes().decode()


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_nothing_is_left_to_do(path, tmp_path):
    again = mining.look_at(output(path).read_bytes(), tmp_path)

    assert again.after is None, again.diff()
    assert "QW200" in mining.codes(again, "already"), mining.said(again)
    assert not mining.codes(again, "applied", "refused")


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_trains_on_what_users_have_not_seen(path, runtime, capsys):
    before = mining.train(path)
    after = mining.train(output(path), runtime)

    assert after.made == 1
    assert after.steps == before.steps > 0
    assert len(after.mined) + len(after.ranked) + len(after.masked) >= after.steps
    for call in after.mined:
        assert call.result.shape == call.drawn.shape and call.result.dtype == call.drawn.dtype
        _assert_unseen(call)
    assert all(loss > 0 for loss in after.ranked)


def _assert_unseen(call):
    result = call.result.reshape(len(call.result), -1)
    negative = torch.ones_like(result, dtype=torch.bool)
    if call.labels is not None:
        negative = (call.labels == 0).reshape(-1, 1).expand_as(result)
        assert torch.equal(call.result[~negative[:, 0]], call.drawn[~negative[:, 0]])
    if call.by_history:
        seen = (result.unsqueeze(2) == call.users.unsqueeze(1)).any(2)
    else:
        users = call.users.reshape(len(result), -1)[:, :1]
        seen = call.seen.contain(users.expand_as(result), result)
    assert not bool((seen & negative).any())
    drawn = call.drawn.reshape(result.shape)
    assert bool(((result >= call.low) & (result < call.high) | (result == drawn)).all())


def test_mining_changes_what_is_trained_and_repeats_under_one_seed(runtime, capsys):
    path = mining.PAIRS / "bpr_in_loop.in.py"
    random, first, second = (
        mining.train(path), mining.train(output(path), runtime), mining.train(output(path), runtime)
    )

    assert all(map(torch.equal, first.parameters, second.parameters))
    assert not all(map(torch.equal, random.parameters, first.parameters))


def test_a_pool_of_one_is_the_script_s_own_draw(tmp_path, capsys):
    place_runtime(tmp_path)
    path = mining.PAIRS / "bpr_in_loop.in.py"
    text = output(path).read_text().replace("HardNegatives(loader,", "HardNegatives(loader, pool_size=1,")
    script = tmp_path / "train.py"
    script.write_text(text)

    before, after = mining.train(path), mining.train(script, tmp_path)
    assert all(map(torch.equal, before.parameters, after.parameters))


def test_logged_losses_mean_what_they_meant(runtime, capsys):
    """The regression's own loss is logged, without the term that is trained beside it."""
    path = mining.PAIRS / "rating_loop.in.py"
    mining.train(path)
    before = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    after_run = mining.train(output(path), runtime)
    after = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]

    assert len(before) == len(after) == 3
    assert max(after) < max(before) + 0.5  # a sum with 0.3 times the term would be above
    assert min(after_run.ranked) > 2


def test_statistics_are_logged_once_an_epoch(runtime, capsys):
    record = mining.train(output(mining.PAIRS / "rating_logged.in.py"), runtime)
    printed = capsys.readouterr().out

    assert len(record.statistics) == 3
    for statistics in record.statistics:
        assert set(statistics) == {
            "negatives/score_gap", "negatives/auc", "negatives/random_share"
        }
        assert statistics["negatives/random_share"] == 1.0  # on data that teach nothing
    assert printed.count("negatives/score_gap") == 3
    assert printed.count("train/ranking_loss") == 6


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_no_name_is_a_sign(path, tmp_path):
    """The same script with all of its own identifiers renamed gets the same verdicts."""
    source = path.read_text()
    plain = mining.look_at(source, tmp_path)
    other = mining.look_at(renamed(source), tmp_path)

    assert mining.codes(other) == mining.codes(plain)


@pytest.mark.parametrize("path", sorted(mining.PAIRS.glob("*.in.py")), ids=name)
def test_no_layout_is_a_sign(path, tmp_path):
    """The same script with its lines broken wherever they can be gets the same verdicts."""
    source = path.read_text()
    plain = mining.look_at(source, tmp_path)
    other = mining.look_at(black.format_str(source, mode=black.Mode(line_length=30)), tmp_path)

    assert sorted(mining.codes(other)) == sorted(mining.codes(plain))


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_must_not_touch(path, tmp_path):
    source = path.read_text()
    outcome = mining.look_at(source, tmp_path)

    marked = [
        (number, match[1])
        for number, line in enumerate(source.splitlines(), start=1)
        if (match := MARK.search(line))
    ]
    assert outcome.after is None, outcome.diff()
    assert sorted((v.line, v.code) for v in outcome.verdicts if v.status != "warning") == marked


def test_there_are_two_refusals_for_three_pairs_at_least():
    assert len(REFUSED) * 3 >= len(INPUTS) * 2
