"""Two real runs of the sample repository, compared: the table, and the page in a browser."""

import json
import os
import re
import shutil
import subprocess
import sys

import helpers
import pytest
from browser import browse, browser, probed
from test_comparison_page import LOOK

pytest.importorskip("torch")
pytest.importorskip("pandas")

SCRIPT = "two_tower_model/train_with_wandb.py"
METRICS = {"ndcg@10", "recall@10", "hit_rate@10", "embedding_diversity@10", "novelty@10", "coverage"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The sample with two runs in its records: with `metrics` alone, and with all rules applied."""
    root = tmp_path_factory.mktemp("compared") / "recsys"
    shutil.copytree(
        helpers.SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models")
    )
    run(root, sys.executable, "make_data.py", "data", "--users", "60", "--items", "50")
    for tag, rules in (("baseline", ["--select", "metrics"]), ("optimized", [])):
        quickwins(root, "apply", *rules, ".")
        run(
            root, sys.executable, SCRIPT, "--ratings-path", "data/ratings.csv", "--movies-path",
            "data/movies.csv", "--epochs", "3", "--tag", tag,
        )  # fmt: skip
    return root


def run(root, *command):
    environment = {**os.environ, "WANDB_MODE": "disabled", "QUICKWINS_AMP": "off"}
    environment.pop("QUICKWINS_RUNS", None)
    environment.pop("QUICKWINS_TAG", None)
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def quickwins(root, *arguments):
    return run(root, sys.executable, "-m", "quickwins_codemod", *arguments)


def test_the_other_rules_still_apply_after_the_metrics(sample):
    text = (sample / SCRIPT).read_text()

    for built in ("OneCycle(", "HardNegatives(", "GradScaler(", "Tracker(", "RankingMetrics("):
        assert text.count(f" = {built}") == 1, built
    assert "ReduceLROnPlateau" not in text


def test_the_table_is_that_of_the_two_records(sample):
    records = {}
    for path in (sample / ".quickwins" / "runs").glob("*.jsonl"):
        header, *epochs = map(json.loads, path.read_text().splitlines())
        records[header["tag"]] = epochs
    report = json.loads(quickwins(sample, "compare", "baseline", "optimized", "--format", "json"))

    assert [len(epochs) for epochs in records.values()] == [3, 3]
    last = {row["name"]: row for row in report["metrics"] if row["at"] == "last"}
    assert set(last) >= METRICS
    for name in METRICS:
        for side in ("baseline", "optimized"):
            assert last[name][side]["mean"] == records[side][-1]["metrics"][name]
    assert "one run each: no spread is known" in report["notes"]


@browser
def test_the_page_shows_the_curves_of_both(sample, tmp_path):
    page = tmp_path / "compared.html"
    quickwins(sample, "compare", "baseline", "optimized", "--html", str(page))
    text = page.read_text(encoding="utf-8")

    browse(tmp_path, text, "--dump-dom")  # which fails where the browser has anything to say
    done = browse(tmp_path, probed(text, LOOK), "--dump-dom", "--window-size=1200,900")
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    lines = [line.split("|") for line in found.split(";")]
    for side in ("baseline", "optimized"):
        widths = [int(width) for which, _, _, width, _ in lines if which == side]
        assert len(widths) >= 2 * len(METRICS), "by epoch and by wall time"
        assert min(widths) > 0 and max(widths) > 400
