"""What `quickwins trial` prints and writes once its runs have ended; the runs are made up here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_judging import BASE, SAME, two, with_attempts
from trial_helpers import make_trial

from quickwins_codemod import cli, configuration, interpreters, trial
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.trials import Defect

pytest.importorskip("scipy")

RULES = all_transforms()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interpreters, "find", lambda asked, root: None)
    return tmp_path


@pytest.fixture
def ran(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[trial.Request]:
    """The requests that came to be run; each ends as the usual made trial."""
    return ends_as(monkeypatch, make_trial())


def ends_as(monkeypatch: pytest.MonkeyPatch, made) -> list[trial.Request]:
    asked: list[trial.Request] = []

    def prepare(request: trial.Request) -> SimpleNamespace:
        asked.append(request)
        return SimpleNamespace(trial=made, done=0, run=lambda progress: made)

    monkeypatch.setattr(trial, "prepare", prepare)
    return asked


def say(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.invoke(["trial", "train.py", *words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "a defect of" not in err
    return code, out, err


def test_the_report_the_page_and_the_configuration(here: Path, ran, capsys) -> None:
    (here / "pyproject.toml").write_bytes(b"[project]\r\nname = 'x'\r\n")
    code, out, err = say(capsys, "--html", "page.html", "--write-config", "--pool-size", "4")
    assert code == 0 and out.startswith("What the wins did to two_tower_model/")
    assert "    [tool.quickwins.hard-negatives]\n    pool-size = 4\n" in out
    assert "pool-size = 4" in (here / "page.html").read_text(encoding="utf-8")
    assert err.endswith(
        "quickwins: pyproject.toml now has select and hard-negatives.pool-size as recommended\n"
    )
    assert (here / "pyproject.toml").read_bytes() == (
        b"[project]\r\nname = 'x'\r\n\r\n[tool.quickwins]\r\n"
        b'select = ["hard-negatives", "metrics"]\r\n\r\n[tool.quickwins.hard-negatives]\r\n'
        b"pool-size = 4\r\n"
    )
    assert configuration.load(here, RULES).select == ("hard-negatives", "metrics")
    code, _, err = say(capsys, "--write-config", "--pool-size", "4")
    assert err.endswith("quickwins: pyproject.toml has what is recommended already\n")


def test_a_win_that_was_not_active_is_an_error_for_programs_too(here: Path, monkeypatch, capsys) -> None:
    def spoil(attempt):
        return replace(attempt, defects=(Defect("onecycle", "schedule-unused", "never stepped"),))

    ends_as(monkeypatch, with_attempts(make_trial(), spoil))
    code, out, _ = say(capsys)
    assert code == 3 and "NOT ACTIVE: onecycle: never stepped" in out


def test_without_a_configuration_one_is_made(here: Path, ran, capsys) -> None:
    code, out, err = say(capsys, "--write-config", "--format", "json")
    assert code == 0 and json.loads(out)["recommendation"]["variant"] == "hard-negatives"
    assert err.endswith("quickwins: pyproject.toml was made, with select as recommended\n")
    written = '[tool.quickwins]\nselect = ["hard-negatives", "metrics"]\n'
    assert (here / "pyproject.toml").read_text() == written


def test_what_stays_ignored_is_said(here: Path, ran, capsys) -> None:
    (here / "pyproject.toml").write_text('[tool.quickwins]\nignore = ["hard-negatives"]\n')
    _, _, err = say(capsys, "--write-config", "--select", "hard-negatives")
    assert "; its ignore still leaves out hard-negatives\n" in err


def test_without_a_recommendation_nothing_is_written(here: Path, monkeypatch, capsys) -> None:
    ends_as(monkeypatch, two((0.1,), (0.2,)))
    code, out, err = say(capsys, "--write-config")
    assert code == 0 and "No recommendation" in out
    assert err.endswith("quickwins: nothing is recommended, so pyproject.toml stays as it is\n")
    assert not (here / "pyproject.toml").exists()


def test_no_win_that_earned_its_place_leaves_the_metrics(here: Path, monkeypatch, capsys) -> None:
    ends_as(monkeypatch, make_trial({"baseline": BASE, "onecycle": SAME}))
    _, out, _ = say(capsys, "--write-config")
    assert "no win earned its place here" in out and "--seeds 6" in out
    assert (here / "pyproject.toml").read_text() == '[tool.quickwins]\nselect = ["metrics"]\n'


def test_a_named_configuration_is_the_one_that_is_written(here: Path, ran, capsys) -> None:
    (here / "other.toml").write_text("[tool.quickwins]\n")
    (here / "pyproject.toml").write_text("[tool.quickwins]\n")
    _, _, err = say(capsys, "--config", "other.toml", "--write-config")
    assert err.endswith("quickwins: other.toml now has select as recommended\n")
    assert (here / "pyproject.toml").read_text() == "[tool.quickwins]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.quickwins\n", "pyproject.toml:1:16: not TOML: "),
        ("[project\n", "pyproject.toml:1:9: not TOML: "),
        ("[tool]\nquickwins = {}\n", "pyproject.toml: its tool.quickwins is written in a way that"),
    ],
)
def test_a_configuration_that_cannot_take_it_is_refused_before_anything_runs(
    here: Path, ran, capsys, text: str, said: str
) -> None:
    (here / "pyproject.toml").write_text(text)
    code, out, err = say(capsys, "--write-config")
    assert (code, out) == (cli.USAGE, "") and err.startswith(f"quickwins: {said}")
    assert err.count("\n") == 1 and not ran
    assert (here / "pyproject.toml").read_text() == text


@pytest.mark.parametrize("page", ["missing/page.html", "."])
def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    here: Path, ran, capsys, page: str
) -> None:
    code, out, err = say(capsys, "--html", page)
    assert (code, out) == (cli.USAGE, "") and err.count("\n") == 1 and not ran
    assert err.startswith(f"quickwins: --html {page}: cannot be written")


def test_the_command_that_repeats_the_trial_names_script_and_arguments(here, ran, capsys) -> None:
    say(capsys, "--seeds", "2", "--pool-size", "4", "--", "--epochs", "3", "--", "x")
    assert ran[0].command == (
        "quickwins trial --pool-size 4 --seeds 2 train.py -- --epochs 3 -- x"
    )  # fmt: skip


def test_a_trial_of_nothing_has_a_report_too(here: Path, monkeypatch, capsys) -> None:
    ends_as(monkeypatch, make_trial(variants=(), attempts=()))
    code, out, _ = say(capsys)
    assert code == 0 and "No rule that was selected changes this script" in out
    code, out, _ = say(capsys, "--format", "json")
    assert json.loads(out)["variants"] == []
