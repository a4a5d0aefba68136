"""The README says what is so: its commands, its codes, its diff and its configuration are real."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from quickwins_codemod import cli, configuration, verdict
from quickwins_codemod.options import options_of
from quickwins_codemod.settings import FILE_RULE, Settings
from quickwins_codemod.transform import all_transforms, codes_of

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RULES = all_transforms()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.M | re.S)
    assert found, title
    return found[1]


def blocks(language: str, text: str = README) -> list[str]:
    """Return the fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    return [body for name, body in fenced if name == language]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without their heads."""
    lines = re.findall(r"^\|(.*)\|$", text, re.M)
    table = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [cells for cells in table if re.match(r"`?\w*\d|`", cells[0])]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", *words], cwd=ROOT,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# Quick start


def test_the_quick_start_has_two_blocks_to_run() -> None:
    first, second = blocks("sh", section("Quick start"))

    assert "pip install -e .\n" in first and "quickwins diff fixtures/recsys" in first
    assert "pip install -e '.[test]'" in second and "pytest" in second
    for block in (first, second):
        assert block.startswith("python3 -m venv ")
        assert not re.search(r"^\$|^#|<[a-z]+>", block, re.M), "must run as it stands"


def test_the_first_block_shows_a_diff() -> None:
    done = command("diff", "fixtures/recsys")

    assert done.returncode == 0
    # seven training scripts and two data loaders
    assert done.stdout.count("+from quickwins_runtime import ") == 9


def test_the_diff_shown_is_the_diff_made() -> None:
    (shown,) = blocks("diff")
    made = command("diff", "fixtures/recsys").stdout

    head, *hunks = re.split(r"^(?=@@ )", shown, flags=re.M)
    assert head in made
    assert len(hunks) >= 3 and not [hunk for hunk in hunks if hunk not in made]


@pytest.fixture(scope="module")
def make_picture() -> ModuleType:
    path = ROOT / "docs" / "make_picture.py"
    spec = importlib.util.spec_from_file_location("make_picture", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_says_what_the_tool_prints(make_picture: ModuleType, tmp_path: Path) -> None:
    drawing = ElementTree.parse(make_picture.PICTURE)
    shown = ["".join(t.itertext()) for t in drawing.iter("{http://www.w3.org/2000/svg}text")]
    done = subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", "diff", make_picture.SCRIPT],
        cwd=make_picture.prepare(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip

    printed = [make_picture.PROMPT, *done.stdout.splitlines(), "", *done.stderr.splitlines()]
    assert shown == printed, "out of date; run docs/make_picture.py"


def test_the_picture_is_what_its_script_draws(make_picture: ModuleType) -> None:
    pytest.importorskip("pty")
    drawn = make_picture.draw(make_picture.printed())

    assert make_picture.PICTURE.read_text(encoding="utf-8") == drawn
    assert drawn.count("http") == 1, "nothing but the namespace is an address"


def test_the_picture_is_shown_with_words_for_it() -> None:
    (words,) = re.findall(r"^!\[([^\]]+)\]\(docs/diff\.svg\)$", README, re.M)

    assert "scheduler.step()" in words
    assert README.index("docs/diff.svg") < README.index("\n## ")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_ci_finds_the_block_that_runs_the_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    program = re.search(r"^awk '(.*?)'", script, re.M | re.S)
    assert program
    found = subprocess.run(
        ["awk", program[1], str(ROOT / "README.md")], capture_output=True, text=True, check=True
    )

    assert found.stdout == blocks("sh", section("Quick start"))[1]


# Commands, flags and exit codes


def test_each_command_and_flag_that_is_named_exists() -> None:
    group = cli.build(RULES)
    shown = [line for block in blocks("console") + blocks("sh") for line in block.splitlines()]
    shown += re.findall(r"`(quickwins [^`]+)`", README)
    named = [words for line in shown for words in re.findall(r"\bquickwins( [^#|>]+)", line)]
    assert len(named) > 10
    for words in named:
        name, *rest = words.partition(" -- ")[0].split()  # the rest is a script's own
        known = {flag for parameter in group.commands[name].params for flag in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known | {"--help", "--"}, words


def test_each_long_flag_in_the_text_exists() -> None:
    group = cli.build(RULES)
    known = {f for c in group.commands.values() for p in c.params for f in p.opts} | {"--help"}
    others = {"--check", "--cached", "--name-only", "--diff-filter"}  # of git
    others |= {"--no-format", "--epochs", "--tag"}  # of libcst, of training scripts
    others |= {"--work", "--scripts"}  # of bench/movielens.py

    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known | others


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    codes = {int(code) for code, _ in rows(section("Usage")) if code.isdigit()}

    assert codes == {cli.NOTHING, cli.DUE, cli.USAGE, cli.FAILED}


def test_each_exit_code_means_what_the_table_says(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (: scheduler.step(\n")
    (tmp_path / "plain.py").write_text("number = 1\n")

    assert command("check", str(tmp_path / "plain.py")).returncode == cli.NOTHING
    assert command("check", "fixtures/recsys").returncode == cli.DUE
    assert command("check", str(tmp_path / "not-there")).returncode == cli.USAGE
    assert command("check", str(tmp_path)).returncode == cli.FAILED


# Configuration and hooks


def test_the_example_configuration_is_accepted(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    (tmp_path / "pyproject.toml").write_text(example, encoding="utf-8")

    loaded = configuration.load(tmp_path, RULES)

    assert isinstance(loaded, Settings) and loaded.origins
    for rule in RULES:
        assert loaded.rules[rule.rule] == rule.options_type(), "the values shown are the defaults"


def test_the_example_names_every_option() -> None:
    (example,) = blocks("toml")
    for rule in RULES:
        _, _, table = example.partition(f"[tool.quickwins.{rule.rule}]\n")
        keys = set(re.findall(r"^(?:# )?([a-z-]+) = ", table.partition("\n[")[0], re.M))
        assert keys == {option.key for option in options_of(rule.options_type)}


def test_the_hooks_that_are_named_exist() -> None:
    hooks = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
    ids = set(re.findall(r"^- id: (\S+)$", hooks, re.M))

    assert ids == set(re.findall(r"\bquickwins-(?:check|apply)\b", section("pre-commit")))


# Rules and codes


def test_every_refusal_and_warning_has_its_row() -> None:
    text = section("What it refuses, and why")
    in_tables = {cells[0] for cells in rows(text)}
    expected = {
        code.code for rule in RULES for code in rule.codes if int(code.code[2:]) % 100 >= 10
    }
    _, file_codes = codes_of(verdict.__doc__ or "", FILE_RULE)

    expected.add("QW004")
    assert not expected - in_tables, "codes without a row in the README's tables"
    assert not in_tables - expected, "rows in the README's tables for codes that are no more"
    assert {code.code for code in file_codes} <= set(re.findall(r"QW\d{3}", text))


def test_only_rules_that_exist_are_said_to_work() -> None:
    works = {cells[0].strip("`") for cells in rows(section("Rules")) if cells[1] == "works"}

    assert works == {rule.rule for rule in RULES}


def test_the_report_for_programs_is_one_object() -> None:
    done = command("diff", "fixtures/recsys", "--format", "json")

    assert json.loads(done.stdout)["version"] == 1
