"""What a trial's reports say: verdicts first, nothing hidden, no number that was not measured."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from test_judging import BASE, MORE, SAME, UP, ablated, two, with_attempts, with_metrics
from trial_helpers import make_trial

from quickwins_codemod import configedit
from quickwins_codemod.judging import judge
from quickwins_codemod.report import terminal, trial_json, trial_text
from quickwins_codemod.trials import Attempt, Defect, Failure, Inapplicable, Trial

pytest.importorskip("scipy")

OWN_BUG = Failure("UnboundLocalError", "cannot access local variable 'os'", "seq/train.py", 512)


def config(found) -> str:
    return configedit.lines(found.recommendation.select, {})


def text(trial: Trial, **given) -> str:
    found = judge(trial)
    return trial_text.text(found, config(found), **given)


def flat(trial: Trial) -> str:
    return " ".join(text(trial).split())


def report(trial: Trial) -> dict:
    found = judge(trial)
    written = trial_json.render(found, config(found))
    assert written.isascii()
    return json.loads(written)


def failing(*variants: str, failure: Failure = OWN_BUG):
    def change(attempt: Attempt) -> Attempt:
        if attempt.variant not in variants:
            return attempt
        return dataclasses.replace(attempt, status="failed", runs=(), exit_code=1, failure=failure)

    return change


# Text


def test_verdicts_come_first_and_say_what_was_measured() -> None:
    said = text(make_trial())
    lines = said.splitlines()
    assert lines[0] == "What the wins did to two_tower_model/train_with_wandb.py, over 3 seeds"
    place = lines.index(
        "hard-negatives: helps quality, costs time, no measurable difference in memory"
    )
    assert (
        lines[place + 1]
        == "    ndcg@10 at the best epoch: 0.1047 to 0.1470, +40.4 % [+34.5, +46.4]"
    )
    assert said.index("helps quality") < said.index("Recommended") < said.index("mean ± deviation")
    assert (
        "ndcg@10 at the best epoch: 0.1047 to 0.1050, +0.3 % [-4.6, +5.3]; less than 4.9 % would not"
        " have shown with 3 seeds" in " ".join(said.split())
    )


def test_every_number_of_the_table_is_one_that_was_measured() -> None:
    found = judge(make_trial())
    rows = {
        (measure.name, measure.when, name): (mean, difference)
        for measure in found.measures
        for name, mean, difference in trial_text.rows(found, measure)
    }
    mean, difference = rows["ndcg@10", "best", "hard-negatives"]
    assert mean == "0.1470 ± 0.0062"
    assert trial_text.absolute(difference) == "+0.0423 [+0.0361, +0.0486]"
    assert rows["ndcg@10", "best", "baseline"] == ("0.1047 ± 0.0050", None)
    assert rows["elapsed_seconds", "run", "all"][0] == "12.00 ± 0.00"
    table = text(make_trial())
    for cell in ("0.1470 ± 0.0062", "+40.4 % [+34.5, +46.4]", "12.00 ± 0.00", "+100.0 %"):
        assert cell in table


def test_claims_of_others_are_not_repeated() -> None:
    said = text(make_trial())
    for claim in ("15", "18 %", "half", "38 %", "0.280", "0.320"):
        assert not re.search(rf"(?<![\d.]){re.escape(claim)}(?![\d.])", said), claim


def test_the_time_to_the_baselines_best() -> None:
    assert (
        "the best ndcg@10 of the baseline was reached with 3 of 3 seeds, after 8.000 s against 4.000"
        " and 40 steps against 40 (means of these)" in flat(make_trial())
    )
    assert "was reached with 0 of 3 seeds" in flat(two(BASE, (0.05, 0.06, 0.07)))


def test_a_defect_is_the_first_thing_that_is_said() -> None:
    defect = Defect(
        "onecycle", "schedule-length", "the schedule is 120 long, the optimizer took 60"
    )

    def change(attempt: Attempt) -> Attempt:
        bad = attempt.variant == "onecycle" and attempt.seed < 2
        return dataclasses.replace(attempt, defects=(defect,)) if bad else attempt

    said = flat(with_attempts(make_trial(), change))
    told = (
        "NOT ACTIVE: onecycle: the schedule is 120 long, the optimizer took 60 (onecycle with seeds"
    )
    assert f"{told} 1, 2; please report it)" in said and said.index("NOT ACTIVE") < said.index(
        "hard-negatives: helps"
    )
    assert "onecycle: not active: the schedule is 120 long, the optimizer took 60" in said
    assert "leave onecycle: it was not active" in said


def test_a_script_that_fails_by_itself_is_not_blamed_on_the_rewrite() -> None:
    original = Attempt("original", 0, "failed", exit_code=1, failure=OWN_BUG)
    moved = dataclasses.replace(OWN_BUG, line=525)

    def change(attempt: Attempt) -> Attempt:
        if (attempt.variant, attempt.seed) == ("baseline", 0):
            return failing("baseline", failure=moved)(attempt)
        return Attempt(attempt.variant, attempt.seed)

    trial = dataclasses.replace(with_attempts(make_trial(), change), original=original)
    said = flat(trial)
    assert (
        "train_with_wandb.py fails before the rewrite too, by an error of its own: UnboundLocalError:"
        " cannot access local variable 'os' (seq/train.py:512) The rewritten script ends with the same"
        " error. Nothing was measured" in said
    )
    assert "No run without the wins ended with a metric" in said and "No recommendation" in said
    assert "onecycle" not in said, "nothing was measured, and that is said once"


def test_a_script_that_only_fails_once_it_is_measured_is_to_be_reported() -> None:
    trial = with_attempts(make_trial(), failing("baseline"))
    trial = dataclasses.replace(trial, original=Attempt("original", 0, "done", exit_code=0))
    said = flat(trial)
    assert (
        "runs to its end as it stands, and fails once it measures itself; please report it" in said
    )


def test_a_failure_without_an_exception_shows_the_last_line_of_its_own() -> None:
    def change(attempt: Attempt) -> Attempt:
        if attempt.variant != "onecycle":
            return attempt
        return dataclasses.replace(
            attempt, status="failed", runs=(), exit_code=-9, stderr=("one", "\x1b[31mKilled", " ")
        )

    said = text(with_attempts(make_trial(), change))
    killed = "\N{REPLACEMENT CHARACTER}[31mKilled"
    assert f"onecycle with seeds 1, 2, 3 failed: {killed}\n" in said
    assert f"onecycle with seed 1 wrote at last:\n    one\n    {killed}\n" in said


def test_one_seed_says_how_to_get_a_verdict() -> None:
    said = flat(two((0.1,), (0.2,)))
    assert "hard-negatives: no verdict: one seed cannot tell a gain from chance" in said
    assert "ndcg@10 at the best epoch: 0.1000 to 0.2000, +100.0 %" in said
    assert (
        "No recommendation leave hard-negatives: no verdict: one seed cannot tell a gain from chance"
        " one seed gives no verdict; run: quickwins trial --seeds 5 two_tower_model/train_with_wandb.py"
        " -- --epochs 3" in said
    )


def test_a_set_that_never_ran_comes_with_the_command_that_runs_it() -> None:
    down = tuple(value * 0.7 + extra for value, extra in zip(BASE, (0.0, 0.002, -0.001)))
    trial = make_trial(
        {"baseline": BASE, "onecycle": UP, "hard-negatives": MORE, "amp": down, "all": UP},
        command="quickwins trial train.py --select amp,onecycle --seeds 3 --pool-size 4 -- --seeds 9",
    )

    def exercised(attempt: Attempt) -> Attempt:
        seen = dataclasses.replace(attempt.observation, forwards_autocast=60)
        return dataclasses.replace(attempt, observation=seen)

    assert (
        "onecycle and hard-negatives were never run together without the rest; run: quickwins trial"
        " --select onecycle,hard-negatives train.py --seeds 3 --pool-size 4 -- --seeds 9"
        in flat(with_attempts(trial, exercised))
    )


def test_rules_that_change_nothing_and_trees_that_changed_are_said() -> None:
    gone = Inapplicable("amp", "QW310", "the loss may overflow", "model.py", 3)
    said = flat(make_trial(inapplicable=(gone,), changed=("data/cache.npy",)))
    assert "amp: changes nothing in this script (QW310: the loss may overflow)" in said
    assert (
        "the original tree changed while the trial ran (by the script, or by you): data/cache.npy"
        in said
    )


def test_all_but_each_are_told_by_what_they_lack() -> None:
    said = text(ablated(baseline=BASE, all_but_onecycle=SAME))
    assert "onecycle beside the others: helps quality" in said
    assert "\nall-but-onecycle:" not in said and "  all, less all-but-onecycle" in said


def test_what_a_gain_costs_elsewhere_is_said() -> None:
    def change(attempt: Attempt, metrics: dict) -> dict:
        rmse = 0.9 + 0.01 * attempt.seed + (attempt.variant == "all") * (0.1 + 0.002 * attempt.seed)
        return {**metrics, "val_rmse": rmse, "coverage": 0.5 - 0.1 * (attempt.variant == "all")}

    said = flat(with_metrics(make_trial(), change))
    told = "worse at that epoch, each taken by itself: val_rmse +11.2 % [+10.7, +11.8]"
    assert said.count("worse at that epoch") == 1 and told in said
    assert said.index("all: helps quality") < said.index(told)
    cases = report(with_metrics(make_trial(), change))["comparisons"]
    assert [case["worse_besides"] for case in cases] == [[], [], ["val_rmse"]]


def test_a_change_from_zero_is_told_as_it_is() -> None:
    zero = with_metrics(
        two(BASE, (0.2, 0.21, 0.19)),
        lambda a, m: {**m, "ndcg@10": 0.0 if a.variant == "baseline" else m["ndcg@10"]},
    )
    assert "ndcg@10 at the best epoch: 0.0000 to 0.2000, +0.2000 [+0.1752, +0.2248]" in flat(zero)


def test_colours_are_for_terminals() -> None:
    assert "\x1b" not in text(make_trial())
    assert "\x1b[32mhelps quality\x1b[0m" in text(make_trial(), paint=terminal.Paint(True))


# For programs


def test_the_report_for_programs() -> None:
    found = report(make_trial())
    assert found["version"] == 1 and found["headline"] == "ndcg@10"
    assert found["trial"]["seeds"] == [0, 1, 2] and found["environment"]["torch"] == "2.13.0"
    assert [v["name"] for v in found["variants"]] == [
        "baseline",
        "onecycle",
        "hard-negatives",
        "all",
    ]
    baseline = found["variants"][0]
    assert baseline["command"].startswith("quickwins run ") and baseline["select"] == ["metrics"]
    values = {(v["name"], v["at"]): v for v in baseline["values"]}
    assert values["ndcg@10", "best"]["mean"] == pytest.approx(0.1046666667)
    assert values["ndcg@10", "last"]["mean"] == pytest.approx(0.0942)
    assert values["ndcg@10", "best"]["n"] == 3 and values["coverage", "best"]["better"] is None
    assert [a["status"] for a in baseline["attempts"]] == ["done"] * 3
    assert baseline["attempts"][0]["seen"]["optimizers"][0]["steps"] == 60
    case = next(c for c in found["comparisons"] if c["variant"] == "hard-negatives")
    assert case["win"] == "hard-negatives" and case["against"] == "baseline"
    verdicts = {aspect: ruling["verdict"] for aspect, ruling in case["verdicts"].items()}
    assert verdicts == {
        "quality": "helps", "time": "hurts", "memory": "no measurable difference"
    }  # fmt: skip
    (ndcg,) = [d for d in case["differences"] if (d["name"], d["at"]) == ("ndcg@10", "best")]
    assert [pair["seed"] for pair in ndcg["pairs"]] == [0, 1, 2]
    assert ndcg["interval"] == pytest.approx([0.03608, 0.04858], abs=1e-5)
    assert ndcg["percent"] == pytest.approx(40.446, abs=1e-3)
    assert case["time_to_quality"][0]["steps_after"] == 40
    assert found["recommendation"]["select"] == ["hard-negatives", "metrics"]
    assert found["recommendation"]["config"].startswith("[tool.quickwins]\nselect = [")
    assert {a["rule"]: a["keep"] for a in found["advice"]} == {
        "onecycle": False, "hard-negatives": True
    }  # fmt: skip


def test_what_is_not_known_is_null() -> None:
    found = report(two((0.1,), (0.2,)))
    (case,) = found["comparisons"]
    assert found["recommendation"] is None and found["original"] is None
    assert case["verdicts"]["quality"] == {
        "verdict": "no verdict", "reason": "one seed cannot tell a gain from chance",
        "measure": "ndcg@10", "at": "best", "smallest_visible": None,
    }  # fmt: skip
    assert {d["interval"] for d in case["differences"]} == {None}
    bare = report(with_attempts(make_trial(), lambda a: Attempt(a.variant, a.seed)))
    assert bare["headline"] is None and bare["comparisons"][0]["differences"] == []


def test_failures_are_told_to_programs() -> None:
    original = Attempt("original", 0, "failed", exit_code=1, failure=OWN_BUG)
    trial = with_attempts(make_trial(), failing("baseline"))
    found = report(dataclasses.replace(trial, original=original))
    assert found["original"]["failure"]["type"] == "UnboundLocalError"
    assert found["variants"][0]["attempts"][0]["failure"]["line"] == 512
    assert found["comparisons"][0]["missing"][0] == "seed 1: baseline failed"


@pytest.mark.parametrize("width", [60, 80, 1000])
def test_lines_are_no_longer_than_the_terminal(width: int) -> None:
    defect = Defect("onecycle", "schedule-length", "the schedule is 120 long " * 9)
    trial = with_attempts(make_trial(), lambda a: dataclasses.replace(a, defects=(defect,)))
    lines = text(trial, width=width).splitlines()
    verdicts = [line for line in lines if ": helps" in line or ": no" in line]
    assert verdicts and max(len(line) for line in lines if line not in verdicts) <= min(width, 100)
