"""The short way of `check` and `apply`: taken only where the command line would say the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod import cli, entry, repository, sieve, transform
from quickwins_codemod.disk import journal
from quickwins_codemod.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
RULES = transform.all_transforms()
PLAIN = "def double(number):\n    return 2 * number\n"
NEEDLES = sorted({needle for rule in RULES for needle in rule.needles})
ENTRY = "from quickwins_codemod import entry; entry.main()"
LONG = "from quickwins_codemod import cli; cli.main()"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one plain file, which is the current folder."""
    folder = tmp_path / "repository"
    (folder / ".git").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "tool.py").write_text(PLAIN)
    (folder / "sub" / "other.py").write_text(PLAIN)
    monkeypatch.chdir(folder)
    return folder


def run(program: str, *words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, "-c", program, *words], timeout=60, **given)  # type: ignore[call-overload]


def both(*words: str, **options: object) -> None:
    """Run both ways, and compare all that can be seen of them."""
    short, long = run(ENTRY, *words, **options), run(LONG, *words, **options)
    assert (short.returncode, short.stdout, short.stderr) == (
        long.returncode, long.stdout, long.stderr,
    )  # fmt: skip


# The same words


@pytest.mark.parametrize("command", ["check", "apply"])
@pytest.mark.parametrize("paths", [
    ["tool.py"], ["tool.py", "sub/other.py"], ["--", "tool.py"], ["./tool.py"],
])  # fmt: skip
def test_it_says_what_the_command_line_says(command: str, paths: list[str], here: Path) -> None:
    assert entry.nothing_to_do([command, *paths])
    both(command, *paths)


def test_many_files(here: Path) -> None:
    names = [f"f{number}.py" for number in range(1200)]
    for name in names:
        (here / name).write_text(PLAIN)
    assert entry.nothing_to_do(["check", *names])
    assert b"1,200 Python files" in run(ENTRY, "check", *names).stderr
    both("check", *names)


@pytest.mark.parametrize("command", ["check", "apply"])
def test_on_a_terminal(command: str, here: Path) -> None:
    pty = pytest.importorskip("pty")
    seen = []
    for program in (ENTRY, LONG):
        master, slave = pty.openpty()
        done = run(program, command, "tool.py", stdout=slave)
        os.close(slave)
        seen.append((done.returncode, done.stderr, os.read(master, 4096)))
        os.close(master)
    assert seen[0] == seen[1] and b"nothing to change." in seen[0][2] and not seen[0][1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk(here: Path) -> None:
    with open("/dev/full", "wb") as full:
        both("apply", "tool.py", stdout=full)
        assert run(ENTRY, "apply", "tool.py", stdout=full).returncode == cli.FAILED


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", "| true"])
def test_closed_streams(closed: str, here: Path) -> None:
    seen = []
    for program in (ENTRY, LONG):
        line = f"'{sys.executable}' -c '{program}' apply tool.py {closed}; echo $?"
        seen.append(subprocess.run(line, shell=True, capture_output=True, timeout=60))
    assert seen[0].stdout == seen[1].stdout and seen[0].stderr == seen[1].stderr


# When it is taken


def test_it_loads_next_to_nothing(here: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); from quickwins_codemod import entry\n"
        "assert entry.nothing_to_do(['check', 'tool.py']); entry._say(['check', 'tool.py'])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = set(run(program).stdout.decode().split())
    ours = {name for name in loaded if name.startswith("quickwins_codemod")}
    assert loaded - ours <= {"__future__", "errno", "stat"}
    assert ours == {"quickwins_codemod"} | {
        f"quickwins_codemod.{name}"
        for name in ("entry", "sieve", "transforms", "report", "report.terminal")
    }


@pytest.mark.parametrize("needle", NEEDLES)
def test_not_for_a_file_that_a_rule_might_apply_to(needle: bytes, here: Path) -> None:
    (here / "tool.py").write_bytes(PLAIN.encode() + b"# " + needle + b"\n")
    assert not entry.nothing_to_do(["check", "tool.py"])
    assert not entry.nothing_to_do(["apply", "sub/other.py", "tool.py"])


def test_not_for_a_file_with_an_opt_out(here: Path) -> None:
    (here / "tool.py").write_text("number = 1  # quickwins: skip[amp]\n")
    assert not entry.nothing_to_do(["check", "tool.py"])
    assert b"tool.py:1:13: QW010 " in run(ENTRY, "check", "tool.py").stdout


@pytest.mark.parametrize("words", [
    [], ["check"], ["apply", "--"], ["diff", "tool.py"], ["--help"], ["check", "--help"],
    ["check", "tool.py", "--select", "amp"], ["check", "--format=json", "tool.py"],
    ["check", "no.py"], ["check", "."], ["check", "sub"], ["check", ""], ["check", "a\0.py"],
    ["check", "tool.py", "tool.py"], ["check", "tool.py", "./tool.py"],
    ["check", "link.py"], ["check", "folder/other.py", "sub/other.py"],
    ["check", "../outside.py"], ["check", "away/outside.py"],
    ["check", "quickwins_runtime/schedule.py"],
])  # fmt: skip
def test_not_for_anything_else(words: list[str], here: Path) -> None:
    (here / "quickwins_runtime").mkdir()
    (here / "quickwins_runtime" / "schedule.py").write_text(PLAIN)
    (here.parent / "outside.py").write_text(PLAIN)
    try:
        (here / "link.py").symlink_to("tool.py")
        (here / "folder").symlink_to("sub")
        (here / "away").symlink_to("..")
    except OSError:
        pytest.skip("no links here")
    assert not entry.nothing_to_do(words)


def test_a_path_that_starts_with_a_dash(here: Path) -> None:
    (here / "-tool.py").write_text(PLAIN)
    assert not entry.nothing_to_do(["check", "-tool.py"])
    assert entry.nothing_to_do(["check", "--", "-tool.py"])
    both("check", "--", "-tool.py")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions that hold")
def test_not_for_a_file_that_cannot_be_read(here: Path) -> None:
    (here / "tool.py").chmod(0)
    assert not entry.nothing_to_do(["check", "tool.py"])


def test_not_where_a_shell_asks_for_completions(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_QUICKWINS_COMPLETE", "bash_source")
    assert not entry.nothing_to_do(["check", "tool.py"])


@pytest.mark.parametrize("text", [
    '[tool.quickwins]\nexclude = ["tool.py"]\n', "[tool]\nquickwins.select = []\n",
    '[tool."quick\\u0077ins"]\nnonsense = 1\n',
])  # fmt: skip
def test_not_under_a_configuration(text: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = here / "pyproject.toml"
    config.write_text(text)
    assert not entry.nothing_to_do(["check", "tool.py"])
    monkeypatch.chdir(here / "sub")
    assert not entry.nothing_to_do(["check", "other.py"])
    config.write_text("[project]\nname = 'films'\n")
    assert entry.nothing_to_do(["check", "other.py"])
    (here.parent / "pyproject.toml").write_text(text)
    assert entry.nothing_to_do(["check", "other.py"]), "that one is above the repository"


def test_not_where_a_killed_run_left_its_work(here: Path) -> None:
    state = here / ".quickwins"
    (state / "runs").mkdir(parents=True)
    assert not entry.nothing_to_do(["check", "tool.py"]), "its .gitignore is missing"
    (state / ".gitignore").write_text("*\n")
    assert entry.nothing_to_do(["check", "tool.py"])
    for name in ("pending", "new", "undone", "trash"):
        (state / name).mkdir()
        assert journal.is_unfinished(here) and not entry.nothing_to_do(["check", "tool.py"])
        (state / name).rmdir()
    assert not journal.is_unfinished(here) and entry.nothing_to_do(["check", "tool.py"])


@pytest.mark.parametrize("folder", ["sub", ".", ".."])
def test_not_where_a_killed_run_is_on_the_way(
    folder: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "sub" / "deep").mkdir()
    (here / "sub" / "deep" / "other.py").write_text(PLAIN)
    (here / folder / ".quickwins" / "pending").mkdir(parents=True)
    assert entry.nothing_to_do(["check", "sub/deep/other.py"]) is (folder == "..")
    monkeypatch.chdir(here / "sub" / "deep")
    assert entry.nothing_to_do(["check", "other.py"]) is (folder == "..")


# What it goes by


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
def test_the_needles_of_each_rule_are_read_from_its_source(rule: transform.Transform) -> None:
    module = sys.modules[rule.plan.__module__]
    assert module.__file__ is not None
    assert sieve.needles_of(Path(module.__file__).read_bytes()) == rule.needles


@pytest.mark.parametrize(("source", "needles"), [
    (b'RULE = "a"\nNEEDLES = (b"x(",)\n', (b"x(",)),
    (b'RULE = "a"\r\nNEEDLES = (\r\n    b"x(",  # )\r\n    b")y",\r\n)\r\n', (b"x(", b")y")),
    (b'"""No rule."""\nNEEDLES = (b"x",)\n', ()),
    (b'RULE = "a"\nNEEDLES = (b"x", OTHER)\n', None),
    (b'RULE = "a"\nNEEDLES = ("x",)\n', None),
    (b'RULE = "a"\nNEEDLES = ()\n', None),
    (b'RULE = "a"\nNEEDLES = tuple(NAMES)\n', None),
    (b'RULE = "a"\nNEEDLES = (b"x",\n', None),
])  # fmt: skip
def test_needles_that_cannot_be_read_are_no_needles(
    source: bytes, needles: tuple[bytes, ...] | None
) -> None:
    assert sieve.needles_of(source) == needles


def test_it_is_the_long_way_where_a_rule_cannot_be_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quickwins_codemod import transforms

    (here / "rules").mkdir()
    rule = here / "rules" / "fifth.py"
    monkeypatch.setattr(transforms, "__path__", [str(here / "rules")])
    for text, taken in (
        ('RULE = "fifth"\nNEEDLES = (b"gamma",)\n', True),
        ('RULE = "fifth"\nNEEDLES = (b"double",)\n', False),
        ('RULE = "fifth"\nNEEDLES = some()\n', False),
        ("", False),  # no rules at all: installed in a way that this does not know
    ):
        rule.write_text(text)
        assert entry.nothing_to_do(["check", "tool.py"]) is taken, text


def test_it_is_taken_for_just_the_files_that_are_no_candidates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folders = ("fixtures", "quickwins_codemod", "transforms")
    sources = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    ruled_out = set()
    for number, source in enumerate(sources):
        name = f"f{number}.py"
        (tmp_path / name).write_bytes(source.read_bytes())
        if entry.nothing_to_do(["check", name]):
            ruled_out.add(name)
    settings = Settings(rules={rule.rule: rule.options_type() for rule in RULES})
    tasks = {
        f"f{number}.py" for number in range(len(sources))
        if repository._sift(tmp_path / f"f{number}.py", f"f{number}.py", settings) is not None
    }
    assert len(ruled_out) > 10 and len(tasks) > 10
    assert ruled_out | tasks == {f"f{number}.py" for number in range(len(sources))}
    assert not ruled_out & tasks
