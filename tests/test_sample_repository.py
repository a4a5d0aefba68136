"""The fixtures train: what the rewrites start from works before anything is rewritten."""

import importlib.util
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
SAMPLE = FIXTURES / "recsys"
PAIR_INPUTS = sorted((FIXTURES / "pairs" / "onecycle").glob("*.in.py"))

SCRIPTS = {
    "ncf": "neural_collaborative_filtering",
    "sequential": "sequential_models",
    "two_tower": "two_tower_model",
    "hybrid_movie": "hybrid_recommendation_movie/hybrid_recommendation",
    "hybrid_tv": "hybrid_recommendation_tv/hybrid_recommendation",
    "implicit_neumf": "implicit_feedback/neumf",
    "implicit_two_tower": "implicit_feedback/two_tower",
}


def load(path):
    spec = importlib.util.spec_from_file_location(f"sample_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A copy of the sample repository with a small data set in it."""
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("sample") / "recsys"
    shutil.copytree(SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models"))
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "60", "--items", "50"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return root


@pytest.fixture(scope="module")
def ratings(sample):
    import pandas

    return pandas.read_csv(sample / "data" / "ratings.csv")


def train(script, cwd, output, *arguments, wandb_mode="disabled"):
    """Run one script for two epochs from `cwd` and return what it says about its end."""
    data = next(folder for folder in (cwd, *cwd.parents) if (folder / "data").is_dir()) / "data"
    command = [sys.executable, os.path.relpath(script, cwd)]
    command += ["--ratings-path", data / "ratings.csv", "--movies-path", data / "movies.csv"]
    command += ["--epochs", "2", "--device", "cpu", "--output-dir", output, *arguments]
    environment = {
        **os.environ,
        "WANDB_MODE": wandb_mode,
        "WANDB_DIR": str(output.parent),
        "WANDB_SILENT": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_and_saves_its_best_model(name, sample, tmp_path):
    script = sample / SCRIPTS[name] / "train_with_wandb.py"
    said = train(script, script.parent, tmp_path / "models")

    assert "after 2 epochs" in said
    saved = torch.load(tmp_path / "models" / f"best_{name}_model.pt", weights_only=False)
    assert {"epoch", "model_state_dict", "optimizer_state_dict", "val_loss"} <= saved.keys()


def test_a_run_from_the_root_is_the_same_run(sample, tmp_path):
    script = sample / SCRIPTS["hybrid_tv"] / "train_with_wandb.py"
    results = []
    for number, cwd in enumerate((sample, script.parent)):
        output = tmp_path / str(number) / "models"
        output.parent.mkdir()
        train(script, cwd, output, "--gradient-clipping")
        results.append(json.loads((output / "hybrid_tv_metrics.json").read_text()))

    assert results[0] == results[1]


def test_the_hand_made_mixed_precision_runs_and_is_tracked_offline(sample, tmp_path):
    pytest.importorskip("wandb")
    script = sample / SCRIPTS["ncf"] / "train_with_wandb.py"
    train(script, sample, tmp_path / "models", "--amp", "--wandb-offline", wandb_mode="offline")

    assert list(tmp_path.glob("wandb/offline-run-*"))


@pytest.mark.parametrize("count", [1, 4, 30])
def test_ncf_negatives_are_unrated_items_each_once(ratings, count):
    loader = load(SAMPLE / "neural_collaborative_filtering/src/data_loader.py")
    combined = loader.create_negative_samples(ratings, num_negatives=count)

    assert combined[: len(ratings)].equals(ratings)
    added = combined[len(ratings) :]
    assert (added["rating"] == 0).all() and (added["timestamp"] == 0).all()
    assert not combined.duplicated(["userId", "movieId"]).any()
    unrated = ratings["movieId"].nunique() - ratings.groupby("userId")["movieId"].nunique()
    assert added.groupby("userId").size().equals(unrated.clip(upper=count))


def test_two_tower_negatives_are_new_pairs_with_their_features(ratings):
    loader = load(SAMPLE / "two_tower_model/src/data_loader.py")
    data = loader.TwoTowerData.from_ratings(ratings)
    joined = ratings.merge(data.user_features, on="userId").merge(data.item_features, on="movieId")
    combined = data._add_negative_samples(joined, 0.25)

    assert list(combined.columns) == list(joined.columns)
    added = combined[len(joined) :]
    assert len(added) == int(len(joined) * 0.25)
    assert (added["rating"] == 0).all() and (added["timestamp"] == 0).all()
    assert not set(zip(added["userId"], added["movieId"])) & set(
        zip(ratings["userId"], ratings["movieId"])
    )
    means = data.user_features.set_index("userId")["user_mean"]
    assert (added["user_mean"].values == means[added["userId"]].values).all()


def test_two_tower_negatives_are_drawn_before_the_split(ratings):
    loader = load(SAMPLE / "two_tower_model/src/data_loader.py")
    data = loader.TwoTowerData.from_ratings(ratings)
    parts = data.prepare(negative_sampling=True, neg_ratio=0.5)

    assert sum(map(len, parts)) == len(ratings) + int(len(ratings) * 0.5)
    assert all((part["rating"] == 0).any() for part in parts)


@pytest.mark.parametrize("path", PAIR_INPUTS, ids=lambda path: path.name.removesuffix(".in.py"))
def test_the_input_of_a_pair_runs(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")

    assert capsys.readouterr().out
