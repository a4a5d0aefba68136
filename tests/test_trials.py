"""The folder of a trial: what is written is what is read, and what is not a trial is refused."""

import dataclasses
import json

import pytest
from trial_helpers import make_attempt, make_trial, write_trial

from quickwins_codemod import trials
from quickwins_codemod.trials import Attempt, Defect, Failure, Inapplicable, MiningSeen, TrialError


def test_a_trial_is_read_as_it_was_written(tmp_path):
    trial = make_trial(
        inapplicable=(Inapplicable("amp", "QW310", "no loss", "train.py", 7),),
        time_limit=60,
        notes=("a note – with a dash",),
        original=make_attempt(
            "original", 0, 0.1, status="failed", failure=Failure("OSError", "gone", "train.py", 3)
        ),
    )

    assert trials.read(write_trial(tmp_path, trial)) == dataclasses.replace(trial, time_limit=60.0)


def test_defects_and_mining_are_read_as_they_were_written(tmp_path):
    attempt = make_attempt("all", 1, 0.2, defects=(Defect("amp", "scaled-clip", "clipped"),))
    seen = dataclasses.replace(
        attempt.observation, mining=(MiningSeen(mine_calls=3, statistics={"score_gap": 0.5}),)
    )
    trial = make_trial()
    attempts = tuple(
        dataclasses.replace(attempt, observation=seen) if (a.variant, a.seed) == ("all", 1) else a
        for a in trial.attempts
    )
    trial = dataclasses.replace(trial, attempts=attempts)

    assert trials.read(write_trial(tmp_path, trial)) == trial


def test_an_attempt_that_was_not_written_is_pending(tmp_path):
    trial = make_trial()
    write_trial(tmp_path, trial)
    (tmp_path / "onecycle" / "seed-2" / "attempt.json").unlink()

    found = trials.read(tmp_path)

    assert [a for a in found.attempts if a.status != "done"] == [Attempt("onecycle", 2)]
    assert [(a.variant, a.seed) for a in found.attempts] == [
        (variant, seed)
        for seed in range(3)
        for variant in ("baseline", "onecycle", "hard-negatives", "all")
    ]


def test_the_longest_record_is_the_run_of_an_attempt():
    attempt = make_attempt("baseline", 0, 0.1)
    (long,) = attempt.runs
    short = dataclasses.replace(long, epochs=long.epochs[:1])

    assert dataclasses.replace(attempt, runs=(short, long)).run == long
    assert dataclasses.replace(attempt, runs=()).run is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("trial.json", "{"),
        ("trial.json", "[]"),
        ("trial.json", '{"version": 2}'),
        ("trial.json", '{"version": 1}'),
        ("baseline/seed-0/attempt.json", '{"variant": "baseline", "seed": "0"}'),
        ("baseline/seed-0/attempt.json", '{"variant": "baseline", "seed": 0, "status": "lost"}'),
        ("baseline/seed-0/observation.json", '{"optimizers": [{"kind": 1}]}'),
        ("baseline/seed-0/record.jsonl", '{"type": "epoch"}\n'),
    ],
)
def test_what_is_no_trial_is_refused_in_one_line(tmp_path, name, text):
    write_trial(tmp_path, make_trial())
    (tmp_path / name).write_text(text)

    with pytest.raises(TrialError) as error:
        trials.read(tmp_path)

    assert name.rpartition("/")[2] in str(error.value) and "\n" not in str(error.value)


def test_what_a_later_version_adds_is_left_out(tmp_path):
    trial = make_trial()
    path = write_trial(tmp_path, trial) / "trial.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))

    assert trials.read(tmp_path) == trial


def test_the_variants_of_three_wins():
    names = {v.name: v.select for v in trials.variants(("onecycle", "amp"))}

    assert names == {
        "baseline": ("metrics",),
        "onecycle": ("onecycle", "metrics"),
        "amp": ("amp", "metrics"),
        "all": ("onecycle", "amp", "metrics"),
    }


def test_one_win_needs_no_variant_of_all():
    assert [v.name for v in trials.variants(("amp",), ablate=True)] == ["baseline", "amp"]


def test_ablation_leaves_out_each_win_in_turn():
    found = trials.variants(("onecycle", "hard-negatives", "amp"), ablate=True)

    assert [(v.name, v.wins) for v in found[5:]] == [
        ("all-but-onecycle", ("hard-negatives", "amp")),
        ("all-but-hard-negatives", ("onecycle", "amp")),
        ("all-but-amp", ("onecycle", "hard-negatives")),
    ]
