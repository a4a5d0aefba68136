"""Before and after, and what is left alone: each a file in fixtures/, found by glob.

A new pair is `fixtures/pairs/onecycle/NAME.in.py` and `NAME.out.py`. A new refusal is
`fixtures/refused/onecycle/CODE_reason.py`, where `# <- CODE` ends each line that is named.
"""

import re

import helpers
import pytest

INPUTS = sorted(helpers.PAIRS.glob("*.in.py"))
REFUSED = sorted(helpers.REFUSED.glob("*.py"))
#: Pairs that train in two runs, the second from the first one's checkpoint.
RESUMED = {"checkpoint_resume", "resume_before_the_loader", "resume_with_schedule"}
#: Pairs whose old schedule had a peak of its own.
OWN_PEAK = {"own_warmup_class": [16**-0.5 * 10**-0.5]}
#: Outputs as they should be, which the tool does not reach yet, with the reason.
AWAITED: dict[str, str] = {}
_MARK = re.compile(r"# <- (QW\d{3})$")


def name(path):
    return path.name.removesuffix(".in.py").removesuffix(".py")


def output(path):
    return path.with_name(name(path) + ".out.py")


@pytest.fixture
def runtime(tmp_path):
    folder = tmp_path / "runtime"
    folder.mkdir()
    return helpers.place_runtime(folder)


def awaited(path):
    reason = AWAITED.get(name(path))
    marks = pytest.mark.xfail(reason=reason, strict=True) if reason else ()
    return pytest.param(path, id=name(path), marks=marks)


@pytest.mark.parametrize("path", [awaited(p) for p in INPUTS])
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = helpers.assert_rewritten(path.read_bytes(), tmp_path)

    assert helpers.new_text(outcome) == output(path).read_text("utf-8")


@pytest.mark.parametrize("path", [p for p in INPUTS if name(p) not in RESUMED], ids=name)
def test_trains_as_often_under_one_cycle_for_each_optimizer(path, runtime, tmp_path, capsys):
    outcome = helpers.look_at(path.read_bytes(), tmp_path)
    complete = not {"QW150", "QW151"} & set(helpers.codes(outcome, "warning"))
    record = helpers.train(output(path), runtime)

    assert record.trained and not helpers.recorder.schedule_complaints(record.warnings)
    for run in record.trained:
        peaks = OWN_PEAK.get(name(path))
        helpers.assert_one_cycle(run, peaks, complete, helpers.factor(outcome))
    if complete:
        before = helpers.train(path)
        assert [len(r.rates) for r in record.trained] == [len(r.rates) for r in before.trained]


@pytest.mark.parametrize("pair", sorted(RESUMED))
def test_a_resumed_run_goes_on_in_the_same_cycle(pair, runtime, capsys):
    first, second = helpers.train(helpers.PAIRS / f"{pair}.out.py", runtime).trained
    total = second.schedules[0]["total_steps"]
    rates = first.rates + second.rates

    assert first.schedules[0]["total_steps"] == total == len(rates)
    helpers.assert_follows_cycle(rates, total, [3.0 * rate for rate in first.made_with])


def test_every_input_has_an_output():
    assert [name(p) for p in INPUTS] == [
        p.name.removesuffix(".out.py") for p in sorted(helpers.PAIRS.glob("*.out.py"))
    ]


def test_there_are_two_refusals_for_three_pairs_at_least():
    assert len(REFUSED) * 3 >= len(INPUTS) * 2


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_is_left_alone_and_the_report_says_where_and_why(path, tmp_path):
    marks = sorted(
        (found[1], number)
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if (found := _MARK.search(line))
    )
    outcome = helpers.look_at(path.read_bytes(), tmp_path)

    assert outcome.after is None and outcome.before == path.read_bytes()
    assert sorted((v.code, v.line) for v in outcome.verdicts) == marks
    assert {v.status for v in outcome.verdicts} == {"refused"}
    assert path.name.partition("_")[0] in [code for code, _ in marks]


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_a_refusal_is_one_sentence_with_something_to_do(path, tmp_path):
    for verdict in helpers.look_at(path.read_bytes(), tmp_path).verdicts:
        assert verdict.message and "\n" not in verdict.message and verdict.message[-1] != "."
        assert verdict.hint and "\n" not in verdict.hint


def test_every_code_that_refuses_has_a_file_that_shows_it():
    from quickwins_codemod.transform import all_transforms

    known = {c.code for t in all_transforms() if t.rule == "onecycle" for c in t.codes}
    refusing = {code for code in known if "QW110" <= code <= "QW149"}

    assert {path.name.partition("_")[0] for path in REFUSED} - {"QW004"} == refusing
