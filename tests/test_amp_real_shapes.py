"""The sample repository with mixed precision alone: what is rewritten, and how it then trains."""

import json
import os
import shutil
import subprocess
import sys

import amp_helpers as amp
import pytest

torch = pytest.importorskip("torch")

SAMPLE = amp.FIXTURES / "recsys"
SCRIPTS = {
    "ncf": "neural_collaborative_filtering",
    "sequential": "sequential_models",
    "two_tower": "two_tower_model",
    "hybrid_movie": "hybrid_recommendation_movie/hybrid_recommendation",
    "hybrid_tv": "hybrid_recommendation_tv/hybrid_recommendation",
    "implicit_neumf": "implicit_feedback/neumf",
    "implicit_two_tower": "implicit_feedback/two_tower",
}
CLIPPED = ["sequential", "two_tower"]
REWRITTEN = [*CLIPPED, "implicit_neumf", "implicit_two_tower"]
CLIPPING = {"two_tower": ["--gradient-clipping"]}


def apply(root):
    done = subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", "apply", "--select", "amp", "."],
        cwd=root, capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of the sample repository with data, before anything is rewritten."""
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("sample") / "recsys"
    shutil.copytree(SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models"))
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "60", "--items", "50"],
        cwd=root, check=True, capture_output=True,
    )
    return root


@pytest.fixture(scope="module")
def rewritten(repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("rewritten") / "recsys"
    shutil.copytree(repository, root)
    apply(root)
    return root


@pytest.fixture(scope="module")
def runs(repository, rewritten, tmp_path_factory):
    """What a script did before or after, and its best validation loss; each run once."""
    done = {}

    def get(name, after=True, precision=None, *arguments):
        key = (name, after, precision, *arguments)
        if key not in done:
            root = rewritten if after else repository
            folder = root / SCRIPTS[name]
            output = tmp_path_factory.mktemp(name)
            command = [sys.executable, amp.__file__, output / "record.json", "train_with_wandb.py"]
            command += ["--ratings-path", root / "data/ratings.csv"]
            command += ["--movies-path", root / "data/movies.csv"]
            command += ["--epochs", "2", "--device", "cpu", "--output-dir", output / "models"]
            environment = {k: v for k, v in os.environ.items() if k != "QUICKWINS_AMP"}
            environment |= {
                "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "WANDB_MODE": "disabled",
                "WANDB_SILENT": "true",
            }
            if precision is not None:
                environment["QUICKWINS_AMP"] = precision
            finished = subprocess.run(
                [str(part) for part in [*command, *CLIPPING.get(name, ()), *arguments]],
                cwd=folder, capture_output=True, text=True, env=environment,
            )
            assert finished.returncode == 0, finished.stderr
            record = amp.Record(**json.loads((output / "record.json").read_text()))
            saved = torch.load(output / f"models/best_{name}_model.pt", weights_only=False)
            done[key] = record, saved
        return done[key]

    return get


def test_three_scripts_change_and_nothing_else(repository, rewritten):
    changed = {
        path.relative_to(rewritten).as_posix()
        for path in rewritten.rglob("*.py")
        if not (old := repository / path.relative_to(rewritten)).exists()
        or old.read_bytes() != path.read_bytes()
    }

    assert {path for path in changed if not path.startswith("quickwins_runtime/")} == {
        f"{SCRIPTS[name]}/train_with_wandb.py" for name in ("ncf", *REWRITTEN)
    }


def test_the_report_says_what_each_script_is(repository):
    done = subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", "diff", "--select", "amp", "--format", "json", "."],
        cwd=repository, capture_output=True, text=True,
    )
    verdicts = {
        entry["path"]: sorted((v["status"], v["code"]) for v in entry["verdicts"])
        for entry in json.loads(done.stdout)["files"]
        if entry["verdicts"]
    }

    assert verdicts == {
        f"{SCRIPTS['ncf']}/train_with_wandb.py": [("already", "QW300"), ("applied", "QW303")],
        f"{SCRIPTS['sequential']}/train_with_wandb.py": [("applied", "QW301")],
        f"{SCRIPTS['two_tower']}/train_with_wandb.py": [("applied", "QW301")],
        f"{SCRIPTS['hybrid_movie']}/train_with_wandb.py": [("already", "QW300")],
        f"{SCRIPTS['hybrid_tv']}/train_with_wandb.py": [("already", "QW300")],
        f"{SCRIPTS['implicit_neumf']}/train_with_wandb.py": [("applied", "QW301")],
        f"{SCRIPTS['implicit_two_tower']}/train_with_wandb.py": [("applied", "QW301")],
    }


def test_a_second_apply_changes_nothing(rewritten):
    before = {path: path.read_bytes() for path in rewritten.rglob("*.py")}
    apply(rewritten)

    assert before == {path: path.read_bytes() for path in rewritten.rglob("*.py")}


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_script_trains_in_half_precision(name, precision, runs):
    before, saved_before = runs(name, False)
    after, saved = runs(name, True, precision)

    assert after.wrong == []
    assert after.forwards and all(after.forwards) and all(after.losses)
    assert len(after.forwards) == len(before.forwards)
    assert not any(after.evaluations)
    assert after.backwards == after.scaled == before.backwards
    assert after.steps + after.skipped == before.steps and after.skipped <= 3
    assert after.clips == before.clips > 0
    assert saved["val_loss"] == pytest.approx(saved_before["val_loss"], rel=0.05)
    assert bool(saved["scaler_state_dict"]) is (precision == "fp16")


@pytest.mark.parametrize("name", CLIPPED)
def test_in_full_precision_a_script_trains_as_before(name, runs):
    before, saved_before = runs(name, False)
    after, saved = runs(name, True, "off")

    assert not any(after.forwards) and after.norms == before.norms
    assert saved["val_loss"] == saved_before["val_loss"]
    for key, weights in saved_before["model_state_dict"].items():
        assert torch.equal(weights, saved["model_state_dict"][key])


def test_the_repaired_norm_is_that_of_unscaled_gradients(runs):
    """The branch with the scaler is run: on a CPU, by the script's own flag."""
    broken, _ = runs("ncf", False, None, "--amp")
    mended, _ = runs("ncf", True, None, "--amp")
    full, _ = runs("ncf", True)

    assert "clip_grad_norm_ on scaled gradients" in broken.wrong
    assert mended.wrong == [] and all(mended.forwards)
    assert mended.scaled == mended.backwards == mended.clips == mended.unscaled
    assert min(broken.norms) > 1000 * max(mended.norms)
    assert mended.norms[:5] == pytest.approx(full.norms[:5], rel=0.1)
