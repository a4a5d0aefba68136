"""The main job, end to end: the sample repository is rewritten, and each of its scripts trains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import recorder

torch = pytest.importorskip("torch")

RECORDER = Path(recorder.__file__)
SCRIPTS = {
    "ncf": "neural_collaborative_filtering",
    "sequential": "sequential_models",
    "two_tower": "two_tower_model",
    "hybrid_movie": "hybrid_recommendation_movie/hybrid_recommendation",
    "hybrid_tv": "hybrid_recommendation_tv/hybrid_recommendation",
    "implicit_neumf": "implicit_feedback/neumf",
    "implicit_two_tower": "implicit_feedback/two_tower",
}
EPOCHS = 3
#: The Transformer's own schedule peaks at width ** -0.5 * warm-up steps ** -0.5.
PEAKS = {"sequential": [16**-0.5 * 25**-0.5]}
ARGUMENTS = {"sequential": ["--embedding-dim", "16", "--warmup-steps", "25"]}


def quickwins(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", *arguments],
        cwd=cwd, capture_output=True, text=True,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the sample repository with data, before anything is rewritten."""
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("sample") / "recsys"
    shutil.copytree(
        helpers.SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models")
    )
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "60", "--items", "50"],
        cwd=root, check=True, capture_output=True,
    )
    return root


@pytest.fixture(scope="module")
def rewritten(repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("rewritten") / "recsys"
    shutil.copytree(repository, root)
    done = quickwins("apply", ".", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def run(root, name, cwd, output):
    """Run one script under the recorder, from a working directory, as its users do."""
    script = root / SCRIPTS[name] / "train_with_wandb.py"
    report = output.parent / "record.json"
    command = [sys.executable, RECORDER, report, os.path.relpath(script, cwd)]
    command += ["--ratings-path", root / "data/ratings.csv", "--movies-path", root / "data/movies.csv"]
    command += ["--epochs", EPOCHS, "--early-stopping-patience", "99", "--device", "cpu"]
    command += ["--output-dir", output, *ARGUMENTS.get(name, ())]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return recorder.Record.from_json(json.loads(report.read_text()))


@pytest.fixture(scope="module")
def runs(rewritten, tmp_path_factory):
    """Each script's record and output folder, run once from its own folder when first asked for."""
    done = {}

    def get(name):
        if name not in done:
            output = tmp_path_factory.mktemp(name) / "models"
            done[name] = (run(rewritten, name, rewritten / SCRIPTS[name], output), output)
        return done[name]

    return get


def test_each_script_is_rewritten_and_nothing_else_but_the_runtime(repository, rewritten):
    changed = {
        path.relative_to(rewritten).as_posix()
        for path in rewritten.rglob("*.py")
        if not (old := repository / path.relative_to(rewritten)).exists()
        or old.read_bytes() != path.read_bytes()
    }
    scripts = {f"{folder}/train_with_wandb.py" for folder in SCRIPTS.values()}
    loaders = {f"{SCRIPTS[name]}/src/data_loader.py" for name in ("ncf", "two_tower")}

    assert {p for p in changed if not p.startswith("quickwins_runtime/")} == scripts | loaders
    assert "quickwins_runtime/__init__.py" in changed


def test_a_second_check_finds_nothing_to_do(rewritten):
    done = quickwins("check", ".", cwd=rewritten)

    assert done.returncode == 0, done.stdout


def test_a_second_apply_changes_no_byte(rewritten):
    before = {path: path.read_bytes() for path in rewritten.rglob("*.py")}
    done = quickwins("apply", ".", cwd=rewritten)

    assert done.returncode == 0, done.stdout
    assert before == {path: path.read_bytes() for path in rewritten.rglob("*.py")}


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_step_of_a_script_has_the_rate_of_one_cycle(name, runs):
    record, _ = runs(name)
    (only,) = record.trained

    assert len(only.rates) % EPOCHS == 0 and len(only.rates) >= 10
    helpers.assert_one_cycle(only, PEAKS.get(name))
    assert not recorder.schedule_complaints(record.warnings)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_the_same_from_the_root(name, rewritten, runs, tmp_path):
    record, _ = runs(name)
    from_root = run(rewritten, name, rewritten, tmp_path / "models")

    assert [r.rates for r in from_root.trained] == [r.rates for r in record.trained]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_checkpoint_holds_the_state_of_the_schedule(name, runs):
    record, output = runs(name)
    steps = len(record.trained[0].rates)
    saved = torch.load(output / f"best_{name}_model.pt", weights_only=False)
    state = saved["scheduler_state_dict"]

    assert state["total_steps"] == steps
    # the step after the saved epoch, or the last one of all
    assert state["last_epoch"] == min((saved["epoch"] + 1) * steps // EPOCHS, steps - 1)


def test_a_change_of_the_rate_is_still_logged_and_is_that_of_an_epoch(runs):
    record, _ = runs("ncf")
    (only,) = record.trained
    rates = [rate for (rate,) in only.rates]
    length = len(rates) // EPOCHS
    changes = [row for row in record.logged if "lr_change/old_lr" in row]

    assert len(changes) == EPOCHS
    for epoch, row in enumerate(changes):
        after = rates[(epoch + 1) * length] if epoch + 1 < EPOCHS else rates[-1]
        assert row["lr_change/old_lr"] == pytest.approx(rates[epoch * length])
        assert row["lr_change/new_lr"] == pytest.approx(after)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_rate_of_a_batch_is_logged(name, runs):
    record, _ = runs(name)
    logged = {row["batch/learning_rate"] for row in record.logged if "batch/learning_rate" in row}
    rates = {rate for step in record.trained[0].rates for rate in step}

    assert logged and all(any(rate == pytest.approx(r) for r in rates) for rate in logged)


@pytest.mark.parametrize("name", ["ncf", "two_tower"])
def test_nothing_that_was_logged_is_missing(name, repository, runs, tmp_path):
    record, _ = runs(name)
    before = run(repository, name, repository / SCRIPTS[name], tmp_path / "models")

    def keys(rows):
        return {key for row in rows for key in row}

    assert keys(before.logged) <= keys(record.logged)
    assert len(before.logged) <= len(record.logged)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "sequential"])
def test_what_is_mined_is_logged_with_each_epoch_and_the_term_with_batches(name, runs):
    record, _ = runs(name)
    epochs = [row for row in record.logged if "train/negatives/score_gap" in row]
    terms = [v for row in record.logged for k, v in row.items() if k.endswith("ranking_loss")]
    rates = not name.startswith("implicit")  # those train by ranking already

    assert len(epochs) == EPOCHS
    for row in epochs:
        assert 0 < row["train/negatives/auc"] < 1
        assert 0 <= row["train/negatives/random_share"] <= 1
    assert bool(terms) == rates and min(terms, default=1.0) > 0


def test_hard_ones_are_mined_from_the_first_step_without_a_warm_up(repository, tmp_path):
    root = tmp_path / "recsys"
    shutil.copytree(repository, root)
    done = quickwins("apply", "two_tower_model", "--warmup-auc", "0", cwd=root)
    assert done.returncode == 0, done.stderr
    record = run(root, "two_tower", root, tmp_path / "models")
    epochs = [row for row in record.logged if "train/negatives/score_gap" in row]

    assert len(epochs) == EPOCHS
    for row in epochs:
        assert row["train/negatives/random_share"] == 0.0
        assert 0 <= row["train/negatives/validation_positives"] <= 1
        assert "train/negatives/auc" not in row


@pytest.mark.parametrize("name", ["ncf", "two_tower"])
def test_the_rating_loss_that_is_logged_is_the_root_s_square(name, runs):
    """RMSE is the root of the loss alone, without the term that is trained beside it."""
    record, _ = runs(name)
    rows = [row for row in record.logged if {"train/loss", "train/rmse"} <= set(row)]

    assert len(rows) == EPOCHS
    for row in rows:
        assert row["train/rmse"] ** 2 <= row["train/loss"] * 1.001  # a mean of roots is smaller
        assert row["train/loss"] < 12  # squared stars; 0.3 times the term would be seen above
