"""Verdicts of a trial: against scipy, against cases worked by hand, and against chance itself."""

from __future__ import annotations

import builtins
import dataclasses
import sys

import numpy as np
import pytest
import trial_helpers
from trial_helpers import make_attempt, make_trial

from quickwins_codemod import compare, judging, trials
from quickwins_codemod.judging import Difference, Pair, judge
from quickwins_codemod.trials import Defect, Inapplicable

stats = pytest.importorskip("scipy.stats")


def quality(trial, variant="hard-negatives", against="baseline"):
    case = judge(trial).case(variant, against)
    assert case is not None
    return case.quality


def two(before, after, **changes):
    """A trial of one win that reaches these values."""
    return make_trial({"baseline": before, "hard-negatives": after}, **changes)


def with_attempts(trial, change):
    """The trial with each attempt changed by a function, which gets and returns one."""
    return dataclasses.replace(trial, attempts=tuple(map(change, trial.attempts)))


def with_metrics(trial, change):
    """The trial with the metrics of each epoch changed by a function of attempt and metrics."""

    def changed(attempt):
        runs = tuple(
            dataclasses.replace(
                run,
                epochs=tuple(
                    dataclasses.replace(epoch, metrics=change(attempt, dict(epoch.metrics)))
                    for epoch in run.epochs
                ),
            )
            for run in attempt.runs
        )
        return dataclasses.replace(attempt, runs=runs)

    return with_attempts(trial, changed)


def exercised(attempt):
    """The attempt with all its forwards under autocast."""
    seen = dataclasses.replace(attempt.observation, forwards_autocast=60)
    return dataclasses.replace(attempt, observation=seen)


# Intervals


def test_the_interval_of_a_case_worked_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, deviation 1, and 4.3027 is the 97.5 % point of t with 2 degrees.
    low, high = judging.interval([10.0, 10.0, 10.0], [11.0, 12.0, 13.0])
    assert low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_interval_is_that_of_scipy_on_differences(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    before = random.normal(0.2, 0.02, seeds)
    after = before + random.normal(0.01, 0.01, seeds)
    found = quality(two(tuple(before), tuple(after))).difference
    gaps = after - before
    expected = stats.t.interval(0.95, seeds - 1, loc=gaps.mean(), scale=stats.sem(gaps))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.mean == pytest.approx(gaps.mean()) and found.spread == pytest.approx(
        gaps.std(ddof=1)
    )
    assert found.smallest == pytest.approx((expected[1] - expected[0]) / 2)


def test_pairing_is_by_seed_and_takes_out_what_seeds_share() -> None:
    before, after = (0.10, 0.20, 0.30, 0.40), (0.111, 0.210, 0.312, 0.409)
    assert quality(two(before, after)).outcome == "helps"
    assert stats.ttest_ind(after, before).pvalue > 0.8, "unpaired, nothing would be seen"


def test_percent_is_of_the_mean_before() -> None:
    found = Difference("x", "best", "higher", (Pair(0, 0.1, 0.2), Pair(1, 0.3, 0.2)), -0.9, 0.9)
    assert found.percent(found.mean) == pytest.approx(0.0) and found.percent(0.1) == pytest.approx(
        50
    )
    negative = Difference("x", "best", "higher", (Pair(0, -0.1, 0.1),))
    assert negative.percent(negative.mean) == pytest.approx(200)
    zero = Difference("x", "best", "higher", (Pair(0, 0.0, 0.2),))
    assert zero.percent(zero.mean) is None and zero.percent(None) is None


# What decides about quality


def named(**metrics):
    epochs = tuple(compare.Epoch(n, float(n), (), metrics) for n in (1, 2))
    return compare.Run(compare.Header("x"), epochs)


@pytest.mark.parametrize(
    ("metrics", "chosen"),
    [
        (["loss", "recall@10", "ndcg@5", "ndcg@10"], "ndcg@10"),
        (["loss", "recall@10", "val_ndcg@20"], "val_ndcg@20"),
        (["loss", "val_loss", "coverage", "recall@10", "hit_rate@10"], "recall@10"),
        (["loss", "val_loss", "val_auc"], "val_auc"),
        (["loss", "val_loss", "val_rmse"], "val_loss"),
        (["loss", "val_rmse"], "val_rmse"),
        (["train/accuracy", "train/loss", "val/loss"], "val/loss"),
        (["train/accuracy", "val/loss", "val/accuracy"], "val/accuracy"),
        (["accuracy", "train_accuracy", "loss"], "accuracy"),
        (["train_accuracy", "loss"], "train_accuracy"),
        (["epoch/train_loss", "epoch/val_loss"], "epoch/val_loss"),
        (["loss", "coverage"], "loss"),
        (["coverage", "novelty@10", "samples_per_second", "epoch_seconds"], None),
        ([], None),
    ],
)
def test_the_headline(metrics: list[str], chosen: str | None) -> None:
    assert judging.headline([named(**dict.fromkeys(metrics, 0.5))]) == chosen


def test_the_headline_is_one_that_every_run_of_the_baseline_knows() -> None:
    every, other = {"ndcg@10": 0.5, "recall@10": 0.4}, {"ndcg@10": None, "recall@10": 0.4}
    assert judging.headline([named(**every), named(**other)]) == "recall@10"
    assert judging.headline([]) is None


def test_a_loss_is_at_its_best_where_it_is_lowest() -> None:
    trial = with_metrics(
        two((0.1, 0.2, 0.15), (0.2, 0.3, 0.26)), lambda _, m: {"val_loss": 1 - m["ndcg@10"]}
    )
    found = quality(trial)
    assert found.outcome == "helps" and found.difference.name == "val_loss"
    assert found.difference.before.mean == pytest.approx(0.85), "of epoch 2, where ndcg was highest"
    assert found.difference.high < 0


# Verdicts


def test_helps_hurts_and_no_measurable_difference() -> None:
    base, up, down, noise = (0.10, 0.11, 0.12), (0.15, 0.165, 0.17), (0.05, 0.065, 0.07), (
        0.11, 0.10, 0.125,
    )  # fmt: skip
    assert quality(two(base, up)).outcome == "helps"
    assert quality(two(base, down)).outcome == "hurts"
    found = quality(two(base, noise))
    assert found.outcome == "no measurable difference"
    assert found.difference.low < 0 < found.difference.high
    assert 0 < found.difference.smallest < 0.1


def test_time_and_memory_have_verdicts_of_their_own() -> None:
    cost = {"baseline": [(2.0, 300.0), (2.2, 301.0), (2.1, 303.0)],
            "hard-negatives": [(4.1, 300.5), (4.0, 300.0), (4.3, 304.0)]}  # fmt: skip

    def change(attempt, metrics):
        seconds, memory = cost[attempt.variant][attempt.seed]
        return {**metrics, "epoch_seconds": seconds, "peak_memory_mb": memory}

    trial = with_metrics(two((0.10, 0.11, 0.12), (0.15, 0.165, 0.17)), change)
    case = judge(trial).case("hard-negatives")
    outcomes = [ruling.outcome for ruling in case.rulings]
    assert outcomes == ["helps", "hurts", "no measurable difference"]
    assert case.ruling("time").difference.name == "epoch_seconds"
    assert case.ruling("memory").difference.name == "peak_memory_mb"
    gpu = with_metrics(
        trial, lambda a, m: {**m, "peak_gpu_memory_mb": 900.0 - 300 * len(a.variant) / 8}
    )
    memory = judge(gpu).case("hard-negatives").ruling("memory")
    assert memory.difference.name == "peak_gpu_memory_mb", "where both have it"
    assert memory.outcome == "helps" and memory.reason == "the same difference with every seed"


def test_one_seed_is_no_verdict() -> None:
    found = quality(two((0.10,), (0.15,)))
    assert (found.outcome, found.reason) == (
        "no verdict", "one seed cannot tell a gain from chance"
    )  # fmt: skip
    assert found.difference.mean == pytest.approx(0.05), "it is shown all the same"
    assert not judge(two((0.10,), (0.15,))).recommendation.select


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ((0.1, 0.1, 0.1), (0.2, 0.2, 0.2), "every seed gave the same ndcg@10"),
        ((0.1, 0.12, 0.13), (0.1, 0.12, 0.13), "is the same as before with every seed"),
        ((0.1, 0.12, 0.13), (0.2, 0.22, 0.23), "differs by the same with every seed"),
    ],
)
def test_numbers_that_chance_would_not_give_are_no_verdict(before, after, reason) -> None:
    found = quality(two(before, after))
    assert found.outcome == "no verdict" and reason in found.reason


def test_pairs_that_exist_are_used_and_missing_ones_named() -> None:
    def change(attempt):
        if (attempt.variant, attempt.seed) == ("hard-negatives", 1):
            return dataclasses.replace(attempt, status="failed", runs=())
        if (attempt.variant, attempt.seed) == ("baseline", 3):
            return dataclasses.replace(attempt, status="timed-out", runs=())
        return attempt

    whole = two((0.10, 0.11, 0.12, 0.13, 0.14), (0.15, 0.165, 0.17, 0.18, 0.195))
    case = judge(with_attempts(whole, change)).case("hard-negatives")
    assert [pair.seed for pair in case.quality.difference.pairs] == [0, 2, 4]
    assert case.missing == ("seed 2: hard-negatives failed", "seed 4: baseline ran out of time")
    assert case.quality.outcome == "helps" and case.broke == 1
    advice = judge(with_attempts(whole, change)).recommendation
    assert advice.select == ("metrics",), "what fails by itself is not recommended"
    assert "the script failed with it where it did not without" in advice.advice[0].reason


def test_fewer_than_two_pairs_are_no_verdict() -> None:
    def change(attempt):
        bad = attempt.variant == "hard-negatives" and attempt.seed > 0
        return dataclasses.replace(attempt, status="failed") if bad else attempt

    found = quality(with_attempts(two((0.1, 0.11, 0.12), (0.15, 0.16, 0.18)), change))
    assert found.outcome == "no verdict"
    assert found.reason == (
        "too few runs to compare (seed 2: hard-negatives failed; seed 3: hard-negatives failed)"
    )


def test_a_metric_that_is_never_finite_is_missing() -> None:
    def change(attempt, metrics):
        bad = attempt.variant == "hard-negatives" and attempt.seed == 2
        return {**metrics, "ndcg@10": None} if bad else metrics

    case = judge(
        with_metrics(two((0.1, 0.11, 0.12), (0.15, 0.165, 0.18)), change)
    ).case("hard-negatives")  # fmt: skip
    assert case.missing == ("seed 3: ndcg@10 of hard-negatives is never a finite number",)
    assert [pair.seed for pair in case.quality.difference.pairs] == [0, 1]
    assert len(case.ruling("time").difference.pairs) == 3


def test_a_win_that_was_not_active_is_a_defect_and_no_lack_of_gain() -> None:
    defect = Defect("hard-negatives", "never-mined", "no negative was mined in 60 steps")

    def change(attempt):
        bad = attempt.variant in ("hard-negatives", "all") and attempt.seed == 1
        return dataclasses.replace(attempt, defects=(defect,)) if bad else attempt

    found = judge(with_attempts(make_trial(), change))
    for variant, outcome in (
        ("hard-negatives", "not active"), ("all", "not active"),
        ("onecycle", "no measurable difference"),
    ):  # fmt: skip
        case = found.case(variant)
        assert case.quality.outcome == outcome
        assert case.defects == ((defect,) if outcome == "not active" else ())
    assert found.recommendation.select == ("metrics",)
    reasons = {advice.rule: advice.reason for advice in found.recommendation.advice}
    assert reasons["hard-negatives"] == "it was not active: no negative was mined in 60 steps"


def test_a_defect_of_another_rule_is_not_this_rules() -> None:
    defect = Defect("amp", "clip-scaled", "gradients were clipped while scaled")
    trial = with_attempts(make_trial(), lambda a: dataclasses.replace(a, defects=(defect,)))
    assert quality(trial).outcome == "helps"


def test_mixed_precision_on_a_cpu_is_not_exercised() -> None:
    gains = {"baseline": (0.1, 0.11, 0.12), "amp": (0.1, 0.11, 0.12)}
    case = judge(make_trial(gains)).case("amp")
    assert {ruling.outcome for ruling in case.rulings} == {"no verdict"}
    assert case.quality.reason == "not exercised: no forward pass ran in half precision on cpu"

    trial = with_attempts(make_trial({**gains, "amp": (0.1, 0.12, 0.11)}), exercised)
    assert quality(trial, "amp").outcome == "no measurable difference"


def test_mining_that_never_left_its_warm_up_is_not_exercised() -> None:
    def warming(calls):
        def change(attempt):
            mining = (trials.MiningSeen(mine_calls=calls, warmup_steps=100),)
            seen = dataclasses.replace(attempt.observation, mining=mining)
            return dataclasses.replace(attempt, observation=seen)

        return change

    found = quality(with_attempts(make_trial(), warming(60)))
    assert found.outcome == "no verdict" and "no longer than the warm-up" in found.reason
    assert quality(with_attempts(make_trial(), warming(101))).outcome == "helps"


def test_mining_by_a_model_that_never_ranked_is_not_exercised() -> None:
    def ranking(auc, calls="mine_calls"):
        def change(attempt):
            known = {"random_share": 1.0, "auc": auc}
            mining = (trials.MiningSeen(**{calls: 60}, warmup_auc=0.75, statistics=known),)
            seen = dataclasses.replace(attempt.observation, mining=mining)
            return dataclasses.replace(attempt, observation=seen)

        return change

    found = quality(with_attempts(make_trial(), ranking(0.6)))
    assert found.outcome == "no verdict"
    assert found.reason == (
        "not exercised: the model ranked too badly for hard negatives (warmup-auc)"
    )
    assert quality(with_attempts(make_trial(), ranking(0.8))).outcome == "helps"
    term = quality(with_attempts(make_trial(), ranking(0.6, "ranking_calls")))
    assert term.outcome == "helps"  # of the term, whose negatives stayed random


def test_a_module_of_the_original_tree_spoils_every_rule_of_its_variant() -> None:
    defect = Defect("metrics", "foreign-module", "model: imported from the original tree")

    def change(attempt):
        bad = attempt.variant == "onecycle"
        return dataclasses.replace(attempt, defects=(defect,)) if bad else attempt

    found = judge(with_attempts(make_trial(), change))
    assert found.case("onecycle").quality.outcome == "not active"
    assert found.case("hard-negatives").quality.outcome == "helps"


def test_a_baseline_that_fails_leaves_no_verdict() -> None:
    def change(attempt):
        bad = attempt.variant == "baseline"
        return dataclasses.replace(attempt, status="failed", runs=()) if bad else attempt

    found = judge(with_attempts(make_trial(), change))
    assert found.headline is None and not found.recommendation.select
    assert {r.outcome for case in found.cases for r in case.rulings} == {"no verdict"}


def test_a_trial_that_has_just_begun_can_be_judged() -> None:
    waiting = with_attempts(make_trial(), lambda a: trials.Attempt(a.variant, a.seed))
    found = judge(waiting)
    assert found.headline is None and not found.measures
    assert "seed 1: baseline has not run" in found.cases[0].quality.reason


def test_without_scipy_there_is_a_reason_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def absent(name, *more):
        if name.startswith("scipy"):
            raise ImportError(name)
        return usual(name, *more)

    for name in [name for name in sys.modules if name.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    found = judge(make_trial())
    case = found.case("hard-negatives")
    assert case.quality.outcome == "no verdict" and judging.INSTALL in case.quality.reason
    assert case.quality.difference.mean == pytest.approx(0.0423333333)
    assert any(judging.INSTALL in note for note in found.notes)


def test_different_epochs_and_metrics_of_one_variant_are_said() -> None:
    def shorter(attempt):
        if attempt.variant != "onecycle":
            return attempt
        (run,) = attempt.runs
        return dataclasses.replace(attempt, runs=(dataclasses.replace(run, epochs=run.epochs[:2]),))

    def more(attempt, metrics):
        return {**metrics, "ranking_loss": 0.3} if attempt.variant == "hard-negatives" else metrics

    found = judge(with_metrics(with_attempts(make_trial(), shorter), more))
    assert any(
        n.startswith("onecycle ran for 2 epochs and the baseline for 3") for n in found.notes
    )
    assert "baseline does not have ranking_loss" in found.notes
    assert not [d for c in found.cases for d in c.differences if d.name == "ranking_loss"]


def logging(values):
    """Let each attempt log these keys, given by a function of the attempt."""

    def change(attempt):
        seen = dataclasses.replace(attempt.observation, values=values(attempt))
        return dataclasses.replace(attempt, observation=seen)

    return change


def test_what_the_script_logged_once_an_epoch_is_measured_too() -> None:
    trial = with_attempts(
        make_trial(),
        logging(
            lambda a: {
                "val/rmse": (1.0, 0.8 + 0.01 * a.seed, 0.9), "val/ndcg@10": (0.1, 0.2, 0.3),
                "batch/loss": (1.0,) * 3, "train/negatives/auc": (0.5, 0.6, 0.7),
                "train_negatives/auc_epoch": (0.5, 0.6, 0.7),
                "rmse": (1.0,) * 60, "temperature": (1.0, 2.0, 3.0), "lr": (1.0, 1.0, 1.0),
                "final/test_rmse": (0.7,),
            }
        ),
    )  # fmt: skip
    found = judge(trial)
    names = {measure.name for measure in found.measures}
    assert "val/rmse" in names
    assert not names & {
        "val/ndcg@10", "batch/loss", "rmse", "temperature", "lr", "final/test_rmse",
        "train/negatives/auc", "train_negatives/auc_epoch",
    }  # fmt: skip
    (at_best,) = [m for m in found.measures if (m.name, m.when) == ("val/rmse", "best")]
    assert at_best.better == "lower"
    assert found.value("baseline", at_best).mean == pytest.approx(0.81), "of epoch 2"


def test_what_is_logged_under_another_name_as_well_is_measured_once() -> None:
    def twice(attempt):
        values = tuple(attempt.run.values("ndcg@10"))
        return {"val_ndcg@10_epoch": values, "own_ndcg@10_too": tuple(v / 2 for v in values)}

    names = {measure.name for measure in judge(with_attempts(make_trial(), logging(twice))).measures}
    assert "own_ndcg@10_too" in names and "val_ndcg@10_epoch" not in names


def test_without_a_ranking_metric_the_scripts_own_validation_decides() -> None:
    def plain(attempt, metrics):
        return {"samples_per_second": metrics["samples_per_second"]}

    trial = with_attempts(
        with_metrics(two(BASE, BASE), plain),
        logging(
            lambda a: {
                "train/loss": (3.0, 2.0, 1.0),
                "val/loss": (
                    1.0,
                    0.8
                    + 0.01 * a.seed
                    - 0.2 * (a.variant != "baseline")
                    + 0.003 * a.seed**2 * (a.variant != "baseline"),
                    0.9,
                ),
            }
        ),
    )
    found = judge(trial)
    assert found.headline == "val/loss"
    assert found.case("hard-negatives").quality.outcome == "helps"


# Time to quality


def test_when_the_baselines_best_was_reached() -> None:
    case = judge(two((0.10, 0.10, 0.12), (0.18, 0.10, 0.11))).case("hard-negatives")
    first, second, third = case.reached
    # 0.18 * 0.6 at epoch 1 is above 0.10; an epoch takes 2 s before and 4 s after, 20 steps each.
    assert (first.seconds_before, first.seconds_after) == (4.0, 4.0)
    assert (first.steps_before, first.steps_after) == (40, 20)
    assert (second.seconds_after, second.steps_after, second.reached) == (8.0, 40, True)
    assert (third.seconds_after, third.steps_after, third.reached) == (None, None, False)


def test_steps_are_known_where_epochs_have_as_many() -> None:
    trial = two((0.1, 0.2), (0.1, 0.2))
    assert [judging.steps_at(trial, "baseline", 0, place) for place in range(3)] == [20, 40, 60]

    def odd(attempt):
        (seen,) = attempt.observation.optimizers
        steps = dataclasses.replace(seen, steps=61)
        return dataclasses.replace(
            attempt, observation=dataclasses.replace(attempt.observation, optimizers=(steps,))
        )

    assert judging.steps_at(with_attempts(trial, odd), "baseline", 0, 0) is None


# Recommendation

BASE = (0.100, 0.110, 0.104)
UP, MORE, SAME, DOWN = (
    tuple(value * factor + extra for value, extra in zip(BASE, (0.0, 0.002, -0.001)))
    for factor in (1.4, 1.6, 1.0, 0.7)
)


def advised(gains, **changes):
    return judge(make_trial({"baseline": BASE, **gains}, **changes)).recommendation


def test_what_helps_is_kept_and_quoted_from_a_variant_that_ran() -> None:
    found = advised({"onecycle": SAME, "hard-negatives": UP, "all": UP})
    assert found.select == ("hard-negatives", "metrics") and found.variant == "hard-negatives"
    kept = {advice.rule: advice.keep for advice in found.advice}
    assert kept == {"onecycle": False, "hard-negatives": True}
    assert not found.untried


def test_all_are_kept_where_each_helps_and_all_do_too() -> None:
    found = advised({"onecycle": UP, "hard-negatives": UP, "all": MORE})
    assert found.variant == "all" and found.select == ("onecycle", "hard-negatives", "metrics")


def test_a_set_that_never_ran_is_named_and_one_that_ran_is_recommended() -> None:
    trial = make_trial(
        {"baseline": BASE, "onecycle": UP, "hard-negatives": MORE, "amp": DOWN, "all": UP}
    )
    found = judge(with_attempts(trial, exercised)).recommendation
    assert found.untried == ("onecycle", "hard-negatives")
    assert found.variant == "hard-negatives" and found.select == ("hard-negatives", "metrics")


def test_what_did_nothing_is_not_recommended_with_what_it_ran_beside() -> None:
    found = advised({"onecycle": UP, "hard-negatives": UP, "amp": BASE, "all": MORE})
    assert found.variant == "all", "mixed precision changed nothing of it, on a CPU"
    assert found.select == ("onecycle", "hard-negatives", "metrics") and not found.untried
    assert found.notes == ("amp ran with these, and did nothing here",)


@pytest.mark.parametrize("together", [SAME, DOWN])
def test_rules_that_interact_badly_are_not_recommended_together(together) -> None:
    found = advised({"onecycle": UP, "hard-negatives": MORE, "all": together})
    assert found.variant == "hard-negatives"
    assert any(note.startswith("the rules interact: onecycle and hard-neg") for note in found.notes)
    assert "all together are measurably worse than hard-negatives alone" in found.notes


def test_all_that_help_less_than_a_part_give_way_to_it() -> None:
    found = advised({"onecycle": UP, "hard-negatives": MORE, "all": UP})
    assert found.variant == "hard-negatives"
    assert any("which is recommended instead" in note for note in found.notes)


def test_all_together_may_earn_what_none_does_alone() -> None:
    found = advised({"onecycle": SAME, "hard-negatives": SAME, "all": UP})
    assert found.variant == "all"
    assert "no rule earned its place alone; all together they did" in found.notes


def test_what_hurts_is_never_recommended() -> None:
    found = advised({"onecycle": DOWN, "hard-negatives": SAME, "all": UP})
    assert found.select == ("metrics",) and found.variant == "baseline"
    assert found.advice[0].reason == "it hurts quality"


@pytest.mark.parametrize(
    ("seconds", "memory", "keep", "reason"),
    [
        ((1.0, 1.1, 1.05), (300.0, 301.0, 303.0), True, "it saves time"),
        ((2.0, 2.2, 2.1), (200.0, 202.0, 201.0), True, "it saves memory"),
        ((1.0, 1.1, 1.05), (200.0, 202.0, 201.0), True, "it saves time and memory"),
        ((1.0, 1.1, 1.05), (400.0, 402.0, 401.0), False, "it saves time, and costs memory"),
        ((3.0, 3.1, 3.05), (300.0, 301.0, 303.0), False, "no gain in time or memory, and costs time"),
    ],
)  # fmt: skip
def test_what_leaves_quality_alone_must_save_something(seconds, memory, keep, reason) -> None:
    def change(attempt, metrics):
        if attempt.variant == "baseline":
            return {**metrics, "epoch_seconds": (2.0, 2.2, 2.11)[attempt.seed],
                    "peak_memory_mb": (300.0, 301.0, 303.0)[attempt.seed]}  # fmt: skip
        return {**metrics, "epoch_seconds": seconds[attempt.seed],
                "peak_memory_mb": memory[attempt.seed]}  # fmt: skip

    trial = with_metrics(make_trial({"baseline": BASE, "onecycle": SAME}), change)
    found = judge(trial).recommendation
    assert found.advice[0].keep is keep and reason in found.advice[0].reason
    assert found.select == (("onecycle", "metrics") if keep else ("metrics",))


def test_a_rule_that_does_not_apply_is_told_and_left_out() -> None:
    gone = Inapplicable("amp", "QW350", "embeddings only")
    found = advised({"hard-negatives": UP}, inapplicable=(gone,))
    assert found.advice[-1].rule == "amp" and not found.advice[-1].keep
    assert found.select == ("hard-negatives", "metrics")


def ablated(**gains):
    """A trial of three rules with all but each, by the names of what is gone."""
    rules = ("onecycle", "hard-negatives", "amp")
    variants = trials.variants(rules, ablate=True)
    reached = {v.name: gains.get(v.name.replace("-", "_"), UP) for v in variants}
    attempts = tuple(
        dataclasses.replace(
            attempt,
            observation=dataclasses.replace(attempt.observation, forwards_autocast=60),
        )
        for seed in range(3)
        for variant in variants
        for attempt in [make_attempt(variant.name, seed, reached[variant.name][seed])]
    )
    return dataclasses.replace(make_trial(), select=rules, variants=variants, attempts=attempts)


def test_ablation_sets_all_against_all_but_each() -> None:
    trial = ablated(
        baseline=BASE, onecycle=SAME, amp=SAME, hard_negatives=UP, all=MORE,
        all_but_onecycle=UP, all_but_hard_negatives=SAME, all_but_amp=MORE,
    )  # fmt: skip
    found = judge(trial)
    case = found.case("all", "all-but-onecycle")
    assert case.win == "onecycle" and case.quality.outcome == "helps"
    reasons = {advice.rule: (advice.keep, advice.reason) for advice in found.recommendation.advice}
    keep, reason = reasons["onecycle"]
    assert keep and reason.startswith("it helps quality beside the others")
    keep, reason = reasons["hard-negatives"]
    assert keep and reason.startswith("it helps quality alone and beside the others")
    assert not reasons["amp"][0]
    assert found.recommendation.variant == "all-but-amp", "it ran, and has just those two"
    assert found.recommendation.select == ("onecycle", "hard-negatives", "metrics")


# Chance


def outcomes(seeds: int, gain: float, repeats: int = 250) -> dict[str, int]:
    """Count the verdicts of trials whose win changes NDCG@10 by this and by chance."""
    random = np.random.default_rng(1000 * seeds)
    count: dict[str, int] = {}
    for _ in range(repeats):
        base = random.normal(0.2, 0.02, seeds)
        after = base + gain + random.normal(0.0, 0.01, seeds)
        pairs = [
            (seed, trial_helpers.make_attempt("baseline", seed, before).run,
             trial_helpers.make_attempt("onecycle", seed, later).run)
            for seed, (before, later) in enumerate(zip(base, after))
        ]  # fmt: skip
        (measure,) = [
            m
            for m in compare.measures(["ndcg@10"], "ndcg@10")
            if (m.name, m.when) == ("ndcg@10", "best")
        ]
        found = judging.difference(measure, pairs)
        ruling = judging._ruling("quality", found, "ndcg@10", (), ("onecycle",), (), (), True)
        count[ruling.outcome] = count.get(ruling.outcome, 0) + 1
    return count


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_chance_alone_rarely_gives_a_verdict(seeds: int) -> None:
    found = outcomes(seeds, gain=0.0)
    wrong = found.get("helps", 0) + found.get("hurts", 0)
    # 5 % of 250 are 12.5, with a standard deviation of 3.4.
    assert 2 <= wrong <= 24
    assert wrong + found["no measurable difference"] == 250


@pytest.mark.parametrize(("gain", "outcome"), [(0.06, "helps"), (-0.06, "hurts")])
def test_a_large_effect_is_found(gain: float, outcome: str) -> None:
    assert outcomes(5, gain).get(outcome, 0) >= 245
    assert outcomes(3, gain).get(outcome, 0) >= 200
