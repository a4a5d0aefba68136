"""Checks that each win is active: runs of rewritten scripts, as they are and with one defect."""

import dataclasses
import re
import shutil
import subprocess
import sys

import helpers
import launching
import pytest
from launching import Job, launch_all
from trial_helpers import make_attempt

from quickwins_codemod import activity, compare, configuration, repository
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.trials import (
    Attempt,
    MiningSeen,
    Observation,
    OptimizerSeen,
    ScalerSeen,
    ScheduleSeen,
    Variant,
)

RULES = ("onecycle", "hard-negatives", "amp", "metrics")
FP16, BF16 = {"QUICKWINS_AMP": "fp16"}, {"QUICKWINS_AMP": "bf16"}
TOWER, BPR = "two_tower_model/train_with_wandb.py", "bpr.py"
#: For each planted defect: the script, what is replaced in which file, the environment, and the
#: checks that must speak of it.
PLANTED = {
    "nothing": (TOWER, None, "", "", FP16, set()),
    "no step of the schedule": (
        TOWER, TOWER, r"\n *scheduler\.step\(\)", "", FP16, {"schedule-not-stepped"},
    ),
    "a clip above unscale_": (
        TOWER, TOWER, r"(\n *)(scaler\.unscale_\(optimizer\))\n *(nn\.utils\.clip_grad_norm_.*)",
        r"\1\3\1\2", FP16, {"scaled-clip"},
    ),
    "a ranking term that is not trained": (
        TOWER, TOWER, r" \+ 0\.3 \* ranking_loss", "", {}, {"ranking-not-trained"},
    ),
    "a ranking term that takes seen items": (
        TOWER, "quickwins_runtime/negatives.py", r"return scores\.masked_fill\(seen, -math\.inf\)",
        "return scores.masked_fill(~seen, -math.inf)", {}, {"mined-seen"},
    ),
    "nothing, and negatives drawn in the loop": (BPR, None, "", "", FP16, set()),
    "the schedule steps by epoch": (
        BPR, BPR, r"\n +scheduler\.step\(\)(.*?)\n( +)model\.eval\(\)",
        r"\1\n\2scheduler.step()\n\2model.eval()", FP16, {"schedule-steps", "peak-place", "end"},
    ),
    "a cycle that is too long": (
        BPR, BPR, r"epochs=args\.epochs,", "epochs=3 * args.epochs,", FP16, {"schedule-length"},
    ),
    "a cycle that is too short": (
        BPR, BPR, r"steps_per_epoch=len\(train_loader\)",
        "steps_per_epoch=len(train_loader) - 2", FP16, {"schedule-length"},
    ),
    "the rate is set by hand": (
        BPR, BPR, r"(\n +)(scheduler\.step\(\))",
        r"\1\2\1optimizer.param_groups[0]['lr'] = 1e-5", FP16, {"peak-height"},
    ),
    "no unscale_": (BPR, BPR, r"\n *scaler\.unscale_\(optimizer\)", "", FP16, {"scaled-clip"}),
    "no autocast": (BPR, BPR, r"with autocast\(device\):", "if True:", BF16, {"autocast-missing"}),
    "backward under autocast": (
        BPR, BPR, r"\n +optimizer\.zero_grad\(\)\n( +)(scaler\.scale\(.*\)\.backward\(\))",
        r"\n\1    optimizer.zero_grad()\n\1    \2", BF16, {"backward-under-autocast"},
    ),
    "no update of the scaler": (
        BPR, BPR, r"scaler\.update\(\)", "scaler._per_optimizer_states.clear()", FP16,
        {"scaler-not-updated"},
    ),
    "metrics that are not logged": (
        BPR, BPR, r"tracker\.log\(ranking_metrics\.evaluate\(model\)\)", "pass", {},
        {"not-logged"},
    ),
    "metrics that are NaN": (
        BPR, BPR, r"ranking_metrics\.evaluate\(model\)", "{'ndcg@10': float('nan')}", {},
        {"not-finite"},
    ),
    "no Tracker": (
        BPR, BPR, r"tracker = Tracker\(.*\)",
        "tracker = type('T', (), dict.fromkeys(('log', 'start_training', 'end_training'),"
        " lambda *a: 0))()", {}, {"record-missing"},
    ),
    "mining that gives back the draw": (
        BPR, "quickwins_runtime/negatives.py", r"mined = torch\.where\(usable, .*\)",
        "mined = own", {}, {"mining-inactive"},
    ),
    "mining that gives seen items": (
        BPR, "quickwins_runtime/negatives.py",
        r"return scores\.masked_fill\(seen, -math\.inf\)", "return scores", {}, {"mined-seen"},
    ),
    "no mining": (
        BPR, BPR, r"\n *negative = negatives\.mine\(.*\)", "", {}, {"mining-missing"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """The sample, rewritten by all rules, with small data; and what was said of each script."""
    root = tmp_path_factory.mktemp("planted") / "recsys"
    shutil.copytree(
        helpers.SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", ".quickwins")
    )
    (root / BPR).write_text(launching.SCRIPT)
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "25", "--items", "60"], cwd=root,
        check=True, capture_output=True,
    )  # fmt: skip
    # Made-up data teach nothing by which the warm-up would end.
    (root / "pyproject.toml").write_text("[tool.quickwins.hard-negatives]\nwarmup-auc = 0\n")
    settings = configuration.load(root, all_transforms())
    scripts = sorted({case[0] for case in PLANTED.values()})
    result = repository.run([root / script for script in scripts], root, settings)
    repository.write(result, allow_dirty=True)
    codes = {o.path: {v.code for v in o.verdicts} for o in result.outcomes if o.status == "changed"}
    return root, {script: tuple(sorted(codes[script])) for script in scripts}


@pytest.fixture(scope="module")
def attempts(rewritten, tmp_path_factory):
    """One attempt for each planted defect."""
    root, codes = rewritten
    place = tmp_path_factory.mktemp("attempts")
    jobs = []
    for number, (script, path, pattern, new, environment, _) in enumerate(PLANTED.values()):
        copy = place / str(number) / "recsys"
        shutil.copytree(root, copy)
        if path is not None:
            before = (copy / path).read_text()
            after = re.sub(pattern, new, before, flags=re.S if "(.*?)" in pattern else 0)
            assert after != before, pattern
            compile(after, path, "exec")
            (copy / path).write_text(after)
        words = ("--epochs", "2")
        if script == TOWER:
            words += ("--ratings-path", "data/ratings.csv", "--movies-path", "data/movies.csv")
            words += ("--gradient-clipping", "--batch-size", "32")
        jobs.append(Job(place / f"{number}.out", copy, script, words, environment=environment))
    found = {}
    for (name, case), job, done in zip(PLANTED.items(), jobs, launch_all(jobs)):
        assert done.code == 0, (name, done.err)
        variant = Variant("all", RULES, codes[case[0]])
        attempt = Attempt("all", 0, "done", 0, 1.0, observation=done.seen, runs=done.runs)
        found[name] = (attempt, *activity.check(variant, attempt))
    return found


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_told_from_others(attempts, name):
    _, defects, _ = attempts[name]

    assert {defect.check for defect in defects} == PLANTED[name][-1], defects
    rules = {"schedule": "onecycle", "peak": "onecycle", "end": "onecycle", "mi": "hard-negatives"}
    for defect in defects:
        wanted = [rule for start, rule in rules.items() if defect.check.startswith(start)]
        assert not wanted or defect.rule in wanted
        assert "\n" not in defect.message and len(defect.message) < 200


def test_what_a_sound_run_is_seen_to_do(attempts):
    attempt, _, notes = attempts["nothing"]
    seen = attempt.observation
    (optimizer,), (schedule,), (scaler,), (mining,) = (
        seen.optimizers, seen.schedules, seen.scalers, seen.mining,
    )  # fmt: skip

    assert (optimizer.kind, schedule.kind, scaler.kind) == ("AdamW", "OneCycle", "GradScaler")
    steps = optimizer.steps + scaler.skipped
    assert schedule.total_steps == schedule.calls == scaler.steps == seen.backwards == steps > 20
    assert seen.forwards == 2 * steps == seen.forwards_autocast
    assert seen.clips == steps and seen.clips_scaled == 0
    assert mining.ranking_calls == steps and mining.checked > 100 and mining.ranking_gradients
    assert set(mining.statistics) == {"score_gap", "random_share", "validation_positives"}
    assert seen.peak_memory_mb > 50 and seen.device == "cpu" and seen.amp == "fp16"
    assert not seen.problems and not seen.foreign
    if scaler.skipped:
        assert any("as it should" in note for note in notes)


def test_on_a_cpu_without_being_asked_mixed_precision_is_not_exercised(attempts):
    _, _, notes = attempts["a ranking term that is not trained"]

    assert any(note.startswith("mixed precision was not exercised") for note in notes)


# What needs no run


RANDOM = {"random_share": 1.0, "auc": 0.6}
SOUND = Observation(
    optimizers=(OptimizerSeen("Adam", 100, 4e-5, 1e-3, 10, 4e-9),),
    schedules=(
        ScheduleSeen("OneCycle", ("OneCycle",), 0, 100, 100, 99, 0, 1e-3, 4e-9, 0.1),
    ),
    forwards=100,
    backwards=100,
    device="cuda",
)  # fmt: skip


def checks(observation, *codes, rules=RULES, epochs=3):
    attempt = make_attempt("all", 0, 0.2, observation=observation)
    (run,) = attempt.runs
    run = dataclasses.replace(run, epochs=(run.epochs * epochs)[:epochs])
    attempt = dataclasses.replace(attempt, runs=(run,))
    defects, notes = activity.check(Variant("all", rules, codes), attempt)
    return {d.check for d in defects}, notes


def cycle(**changes):
    (schedule,) = SOUND.schedules
    return dataclasses.replace(SOUND, schedules=(dataclasses.replace(schedule, **changes),))


def rates(**changes):
    (optimizer,) = SOUND.optimizers
    return dataclasses.replace(SOUND, optimizers=(dataclasses.replace(optimizer, **changes),))


@pytest.mark.parametrize(
    ("observation", "codes", "expected"),
    [
        (SOUND, ("QW101",), set()),
        (SOUND, ("QW102",), set()),
        (dataclasses.replace(SOUND, schedules=()), ("QW101",), {"schedule-missing"}),
        (dataclasses.replace(SOUND, schedules=()), ("QW120",), set()),
        (cycle(calls=99), ("QW101",), {"schedule-steps"}),
        (cycle(calls=0), ("QW101",), {"schedule-not-stepped"}),
        (cycle(total_steps=99), ("QW101",), {"schedule-length"}),
        (cycle(total_steps=200), ("QW101", "QW150"), set()),
        (rates(peak_step=30), ("QW101",), {"peak-place"}),
        (rates(peak=5e-4), ("QW101",), {"peak-height"}),
        (rates(last=5e-4), ("QW101",), {"end"}),
        (
            dataclasses.replace(
                SOUND, schedules=(*SOUND.schedules, ScheduleSeen("StepLR", ("StepLR",), 0, calls=2))
            ),
            ("QW101",), {"two-schedules"},
        ),
    ],
)  # fmt: skip
def test_a_schedule(observation, codes, expected):
    found, _ = checks(observation, *codes, rules=("onecycle", "metrics"), epochs=4)

    # A cycle of 200 steps peaks at 20.
    assert found - {"peak-place"} == expected - {"peak-place"}


def test_a_cycle_that_an_early_stop_cuts_is_explained():
    early = cycle(total_steps=250)
    rules = ("onecycle", "metrics")
    found, notes = checks(early, "QW101", "QW150", rules=rules, epochs=2)
    assert "schedule-length" not in found
    assert any("stopped early, after 2 of 5 epochs" in note for note in notes)

    assert "schedule-length" in checks(early, "QW101", rules=rules, epochs=2)[0]
    odd = cycle(total_steps=251)
    assert "schedule-length" in checks(odd, "QW101", "QW150", rules=rules, epochs=2)[0]


def test_skipped_steps_are_explained_and_no_defect():
    seen = dataclasses.replace(
        rates(steps=97, last=2e-6),
        scalers=(ScalerSeen("GradScaler", True, 100, 100, 100, 3, 100),),
        forwards_autocast=100,
        autocast_types=("float16",),
    )
    found, notes = checks(seen, "QW101", "QW301", rules=("onecycle", "amp", "metrics"))

    assert found == set()
    assert any("skipped 3 of 100" in note for note in notes)


@pytest.mark.parametrize(
    ("changes", "codes", "expected"),
    [
        ({"forwards_autocast": 100}, ("QW301",), {"scaler-missing"}),
        ({"forwards_autocast": 100, "amp": "bf16"}, ("QW301",), set()),
        ({"forwards_autocast": 100, "autocast_types": ("bfloat16",)}, ("QW301",), set()),
        ({"forwards_autocast": 50, "amp": "bf16"}, ("QW301",), {"autocast-missing"}),
        ({"forwards_autocast": 50, "amp": "bf16"}, ("QW301", "QW311"), set()),
        ({"amp": "off"}, ("QW301",), set()),
        ({"device": "cpu"}, ("QW301",), set()),
        ({"device": "mps"}, ("QW301",), set()),
        ({"norms_scaled": 3, "norms": 4}, ("QW303",), {"scaled-norm"}),
        ({"norms_scaled": 3, "norms": 4}, ("QW300",), set()),
        (
            {
                "forwards_autocast": 100,
                "scalers": (ScalerSeen("GradScaler", True, 100, 100, 100, 100, 100),),
            },
            ("QW301",),
            {"all-skipped"},
        ),
        (
            {
                "forwards_autocast": 100,
                "scalers": (ScalerSeen("GradScaler", True, 100, 0, 0, 0, 0),),
            },
            ("QW301",),
            {"scaler-not-stepped"},
        ),
        (
            {
                "forwards_autocast": 100,
                "scalers": (ScalerSeen("GradScaler", True, 50, 100, 100, 0, 100),),
            },
            ("QW301",),
            {"backward-unscaled"},
        ),
    ],
)
def test_mixed_precision(changes, codes, expected):
    seen = dataclasses.replace(SOUND, **changes)

    assert checks(seen, *codes, rules=("amp", "metrics"))[0] == expected


@pytest.mark.parametrize(
    ("mining", "codes", "expected"),
    [
        (MiningSeen(mine_calls=5, checked=50, replaced=40), ("QW201",), set()),
        (MiningSeen(mine_calls=5, checked=50, replaced=40, seen=1), ("QW201",), {"mined-seen"}),
        (MiningSeen(mine_calls=5, checked=50), ("QW201",), {"mining-inactive"}),
        (MiningSeen(), ("QW202",), {"mining-not-called"}),
        (MiningSeen(mask_calls=5), ("QW204",), set()),
        (MiningSeen(mine_calls=5, warmup_steps=5, checked=50), ("QW201",), set()),
        (MiningSeen(mine_calls=5, checked=50, warmup_auc=0.75, statistics=RANDOM), ("QW201",), set()),
        (
            MiningSeen(mine_calls=5, checked=50, warmup_auc=0.5, statistics=RANDOM),
            ("QW201",), {"mining-inactive"},
        ),
        (
            MiningSeen(ranking_calls=9, ranking_gradients=9, checked=90, seen=9, expected_seen=4.0),
            ("QW202",), set(),
        ),
        (
            MiningSeen(ranking_calls=9, ranking_gradients=9, checked=90, seen=20, expected_seen=4),
            ("QW202",), {"mined-seen"},
        ),
    ],
)  # fmt: skip
def test_mining(mining, codes, expected):
    seen = dataclasses.replace(SOUND, mining=(mining,))

    assert checks(seen, *codes, rules=("hard-negatives", "metrics"))[0] == expected


def test_a_function_that_draws_for_a_table_leaves_nothing_to_see():
    assert checks(SOUND, "QW203", rules=("hard-negatives", "metrics"))[0] == set()


def test_metrics_must_reach_the_log_under_any_name():
    for keys, expected in (
        (("loss",), {"not-in-wandb"}),
        (("loss", "val_ndcg@10_epoch"), set()),
        ((), set()),
    ):
        seen = dataclasses.replace(SOUND, logged=keys)
        assert checks(seen, rules=("metrics",))[0] == expected


def test_a_variant_without_metrics_is_checked_for_its_wins_alone():
    seen = dataclasses.replace(SOUND, schedules=())
    attempt = make_attempt("onecycle", 0, 0.2, observation=seen, runs=())
    variant = Variant("onecycle", ("onecycle",), ("QW102", "QW410"), ("train.py",))
    defects, _ = activity.check(variant, attempt)
    assert [defect.check for defect in defects] == ["schedule-missing"]


def test_a_win_that_changes_only_what_is_not_imported_is_not_exercised():
    seen = dataclasses.replace(SOUND, schedules=(), imported=("train.py", "data.py"))
    attempt = make_attempt("onecycle", 0, 0.2, observation=seen)
    for files, told in ((("other.py",), 1), (("other.py", "data.py"), 0)):
        variant = Variant("onecycle", ("onecycle", "metrics"), ("QW101",), files)
        defects, notes = activity.check(variant, attempt)
        assert sum("onecycle was not exercised: what it changes" in n for n in notes) == told
        assert len(defects) == 1 - told


def test_what_was_not_seen_is_said():
    attempt = make_attempt("all", 0, 0.2, observation=None)
    assert "nothing was checked" in activity.check(Variant("all", RULES), attempt)[1][0]
    assert "own process" in checks(Observation(), "QW101")[1][0]
    assert checks(dataclasses.replace(SOUND, foreign=("pkg.data",)))[0] == {"foreign-module"}
    assert "/data/x" in checks(dataclasses.replace(SOUND, wrote_outside=("/data/x",)))[1][-1]


def test_seeds_that_are_one_are_found():
    attempts = [make_attempt("baseline", seed, 0.1) for seed in range(3)]
    slower = dataclasses.replace(
        attempts[1].runs[0].epochs[0], metrics={**attempts[1].runs[0].epochs[0].metrics,
        compare.SPEED: 1.0, "peak_memory_mb": 1.0},
    )  # fmt: skip
    run = dataclasses.replace(attempts[1].runs[0], epochs=(slower, *attempts[1].runs[0].epochs[1:]))
    attempts[1] = dataclasses.replace(attempts[1], runs=(run,))

    assert "all 3 runs" in activity.one_seed(attempts)
    assert activity.one_seed(attempts[:1]) is None
    assert activity.one_seed([*attempts, make_attempt("baseline", 3, 0.11)]) is None
