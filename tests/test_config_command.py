"""`quickwins config` shows what a run would use: each value, and who set it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quickwins_codemod import cli
from quickwins_codemod.configuration import load
from quickwins_codemod.options import options_of
from quickwins_codemod.transform import all_transforms

RULES = all_transforms()
FILE = """
[tool.quickwins]
ignore = ["amp", "QW150"]
exclude = ["third_party/"]
[tool.quickwins.per-file-ignores]
"old/**" = ["metrics", "QW110"]
"*_gen.py" = ["onecycle"]
[tool.quickwins.onecycle]
pct_start = 0.2
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.build(RULES), ["config", *words], standalone_mode=False)


def values(*words: str) -> dict[str, tuple[Any, str]]:
    done = run(*words, "--format", "json")
    assert done.return_value == cli.NOTHING
    report = json.loads(done.stdout)
    assert report["version"] == 1
    return {v["key"]: (v["value"], v["origin"]) for v in report["values"]}


def lines(*words: str) -> dict[str, str]:
    """What the text says of each key, with single blanks."""
    done = run(*words)
    assert done.return_value == cli.NOTHING
    said = [line.split(None, 1) for line in done.stdout.splitlines()]
    return {key: " ".join(rest.split()) for key, rest in said}


def test_without_a_file_all_is_default_and_every_option_is_there(root: Path) -> None:
    found = values()
    assert {origin for _, origin in found.values()} == {"default"}
    options = {
        f"{rule.rule}.{option.key}": option.default
        for rule in RULES
        for option in options_of(rule.options_type)
    }
    plain = {"select": [], "ignore": [], "exclude": [], "runtime": "bundled"}
    assert {key: value for key, (value, _) in found.items()} == {
        **plain, "per-file-ignores": {}, **options
    }  # fmt: skip


def test_the_text_says_in_words_what_is_not_set(root: Path) -> None:
    found = lines()
    assert found["select"] == "all default"
    assert found["ignore"] == found["per-file-ignores"] == "none default"
    assert found["onecycle.max-lr"] == "unset default"
    assert found["amp.eval"] == "false default"


def test_the_columns_are_aligned(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    said = run("--select", "amp,metrics,onecycle,hard-negatives,QW101").stdout.splitlines()
    starts = {line.rindex("default") for line in said if line.endswith("default")}
    assert len(starts) == 1
    assert all(line[start - 2 : start] == "  " for line in said[1:] for start in starts)


def test_a_value_of_the_file_names_the_file(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    found = values()
    assert found["ignore"] == (["amp", "QW150"], "pyproject.toml")
    assert found["onecycle.pct-start"] == (0.2, "pyproject.toml")
    assert found["onecycle.div-factor"][1] == "default"
    assert found['per-file-ignores."old/**"'] == (["metrics", "QW110"], "pyproject.toml")
    assert found['per-file-ignores."*_gen.py"'] == (["onecycle"], "pyproject.toml")


def test_the_file_is_named_from_the_current_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("pyproject.toml").write_text(FILE)
    monkeypatch.chdir("sub")
    found = values()
    above = str(Path("..") / "pyproject.toml")
    assert found["onecycle.pct-start"] == (0.2, above)
    assert found["exclude"] == (["third_party/"], above), "its patterns count from its folder"
    found = values("--exclude", "old/")
    assert found["exclude"] == (["third_party/", "old/"], f"{above} and --exclude")


def test_another_path_has_its_own_file(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    Path("sub", "pyproject.toml").write_text("[tool.quickwins]\nruntime = 'installed'\n")
    assert values("sub")["runtime"] == ("installed", str(Path("sub", "pyproject.toml")))
    assert values("sub")["ignore"] == ([], "default")
    assert values()["runtime"] == ("bundled", "default")


def test_flags_show_what_they_would_do(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    found = values(
        "--select", "amp", "--ignore", "QW321", "--exclude", "a.py", "--k", "5", "--eval"
    )  # fmt: skip
    assert found["select"] == (["amp"], "--select")
    assert found["ignore"] == (["QW150", "QW321"], "pyproject.toml and --ignore and --select")
    assert found["exclude"] == (["third_party/", "a.py"], "pyproject.toml and --exclude")
    assert found["metrics.k"] == (5, "--k")
    assert found["amp.eval"] == (True, "--eval")
    assert found["onecycle.pct-start"] == (0.2, "pyproject.toml")


def test_a_selection_that_takes_nothing_from_the_ignored_is_no_origin(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    assert values("--select", "onecycle")["ignore"] == (["amp", "QW150"], "pyproject.toml")


def test_a_named_file_is_the_one_shown(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    Path("other.toml").write_text("[tool.quickwins]\nselect = ['QW101']\n")
    found = values("--config", "other.toml")
    assert found["select"] == (["QW101"], "other.toml")
    assert found["ignore"] == ([], "default")


def test_what_is_shown_is_what_a_run_uses(root: Path) -> None:
    Path("pyproject.toml").write_text(FILE)
    settings = load(root, RULES)
    for rule in RULES:
        for option in options_of(rule.options_type):
            shown, _ = values()[f"{rule.rule}.{option.key}"]
            assert shown == getattr(settings.rules[rule.rule], option.name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], 'pyproject.toml:2: tool.quickwins.selct: unknown key; did you mean "select"?'),
        (["--config", "no.toml"], "no.toml: cannot be read: No such file or directory"),
        (["nowhere"], "nowhere: no such file or directory"),
        (["--config", "good.toml", "--select", "apm"],
         '--select: unknown rule or code "apm"; did you mean "amp"?'),
        (["--config", "good.toml", "--k", "0"],
         "config: Invalid value for '--k': must be at least 1, not 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_ends_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    Path("pyproject.toml").write_text("[tool.quickwins]\nselct = []\n")
    Path("good.toml").write_text("[tool.quickwins]\n")
    assert cli.invoke(["config", *words]) == cli.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.replace(str(root) + "/", "") == f"quickwins: {said}\n"
