"""`quickwins apply -i` in a real terminal: what is asked, what the keys do, and what is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod.report import prompting

if sys.platform == "win32":
    pytest.skip("pexpect needs a POSIX terminal", allow_module_level=True)
import pexpect

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
PAIRS = FIXTURES / "pairs"
PROMPT = re.compile(r"\((\d+)/(\d+)\) ([\w-]+) (QW\d+): take this \[y,n,a,s,e,k,q,\?\]\? ")
MEND = re.compile(r"Edit again, drop the edit, skip the file \[e,d,s,\?\]\? ")
COLOURS = re.compile("\x1b\\[[0-9;]*m")
#: What the bar of a slow run draws and wipes before the first question.
BAR = re.compile("\x1b\\[\\?25l.*\x1b\\[2K", re.DOTALL)
#: Files of the made repository: four rules, two sites of one, one site.
FILES = {
    "a_all.py": FIXTURES / "recsys" / "two_tower_model" / "train_with_wandb.py",
    "b_two.py": PAIRS / "amp" / "step_below_a_norm.in.py",
    "sub/c_one.py": PAIRS / "onecycle" / "plateau.in.py",
}


def environment(**extra: str) -> dict[str, str]:
    hidden = ("PRE_COMMIT", "QUICKWINS_DEBUG", "NO_COLOR", "VISUAL", "EDITOR", "COLUMNS", "LINES")
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    return {**kept, "TERM": "xterm", **extra}


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.email=a@b.c", "-c", "user.name=a"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "sub").mkdir(parents=True)
    for name, source in FILES.items():
        shutil.copyfile(source, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "start")
    return folder


def quickwins(folder: Path, *words: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "quickwins_codemod", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(**extra), stdin=subprocess.DEVNULL,
        capture_output=True, timeout=120,
    )  # fmt: skip


def tree(folder: Path) -> dict[str, bytes]:
    """The user's files, and those that were added."""
    found = sorted(folder.rglob("*.py"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


class Dialogue:
    """A run in a terminal, answered one key at a time."""

    def __init__(self, folder: Path, *words: str, columns: int = 100, **extra: str) -> None:
        self.child = pexpect.spawn(
            sys.executable, ["-m", "quickwins_codemod", "apply", "-i", *words], cwd=str(folder),
            dimensions=(30, columns), encoding="utf-8", timeout=90,
            env=environment(**{"NO_COLOR": "1", **extra}),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.shown = ""

    def prompt(self, pattern: re.Pattern[str] = PROMPT) -> tuple[str, ...]:
        """Wait for the next question; return its number, the last one, rule and code."""
        self.child.expect(pattern)
        self.shown = BAR.sub("", self.child.before)
        return self.child.match.groups()

    def answer(self, *keys: str) -> Dialogue:
        for key in keys:
            self.prompt()
            self.child.sendline(key)
        return self

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and what was said since the last question."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.signalstatus is None
        return self.child.exitstatus, self.child.before.replace("\r\n", "\n")


def declined_sites(folder: Path) -> list[tuple[str, str]]:
    """What a plain run would change, by file and code."""
    report = json.loads(quickwins(folder, "check", ".", "--format", "json").stdout)
    return sorted(
        (file["path"], verdict["code"])
        for file in report["files"] for verdict in file["verdicts"]
        if verdict["status"] == "applied"
    )  # fmt: skip


def all_compile(folder: Path) -> None:
    for name, data in tree(folder).items():
        compile(data, name, "exec", dont_inherit=True)


# What the keys do


def test_yes_to_everything_is_apply(repository: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(repository, tmp_path / "plain")
    assert quickwins(plain, "apply", ".").returncode == 0
    total = len(declined_sites(repository))
    code, said = Dialogue(repository, ".").answer(*"y" * total).end()
    assert code == 0 and tree(repository) == tree(plain)
    assert "Changed: 3 files" in said and "Declined" not in said
    assert quickwins(repository, "check", ".").returncode == 0


def test_a_mixture_and_the_next_run_finds_what_was_declined(repository: Path) -> None:
    dialogue, declined = Dialogue(repository, "."), []
    while True:
        found = dialogue.child.expect([PROMPT, pexpect.EOF])
        if found == 1:
            break
        number, total, _, code = dialogue.child.match.groups()
        place = re.findall(r"^(\S+\.py):\d+:\d+  ", dialogue.child.before, re.MULTILINE)[-1]
        key = "yn"[int(number) % 2]
        declined += [(place, code)] if key == "n" else []
        dialogue.child.sendline(key)
    assert int(number) == int(total) > 5
    assert f"Declined: {len(declined)} sites" in dialogue.child.before
    all_compile(repository)
    assert declined_sites(repository) == sorted(declined)


@pytest.mark.parametrize("rule", ["onecycle", "amp", "metrics"])
def test_declining_a_rule_is_ignoring_it(rule: str, repository: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(repository, tmp_path / "plain")
    assert quickwins(plain, "apply", ".", "--ignore", rule).returncode == 0
    dialogue = Dialogue(repository, ".")
    while dialogue.child.expect([PROMPT, pexpect.EOF]) == 0:
        dialogue.child.sendline("n" if dialogue.child.match[3] == rule else "y")
    assert tree(repository) == tree(plain) and tree(plain) != {}


def test_declining_a_site_is_opting_it_out(repository: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(repository, tmp_path / "plain")
    dialogue = Dialogue(repository, "b_two.py", "--select", "onecycle")
    assert dialogue.prompt()[:2] == ("1", "2")
    line = int(re.findall(r"b_two\.py:(\d+):", dialogue.shown)[-1])
    dialogue.child.sendline("n")
    dialogue.answer("y").end()
    comment = b"  # quickwins: skip[onecycle]"
    lines = (plain / "b_two.py").read_bytes().split(b"\n")
    lines[line - 1] += comment
    (plain / "b_two.py").write_bytes(b"\n".join(lines))
    quickwins(plain, "apply", "b_two.py", "--select", "onecycle", "--allow-dirty")
    opted_out = (plain / "b_two.py").read_bytes()
    assert comment in opted_out
    assert (repository / "b_two.py").read_bytes() == opted_out.replace(comment, b"")


def test_all_of_a_rule_in_every_file(repository: Path) -> None:
    dialogue, asked = Dialogue(repository, "."), []
    while dialogue.child.expect([PROMPT, pexpect.EOF]) == 0:
        rule = dialogue.child.match[3]
        asked.append(rule)
        dialogue.child.sendline("a" if rule == "onecycle" else "n")
    assert asked.count("onecycle") == 1
    left = {code for _, code in declined_sites(repository)}
    assert left and not {code for code in left if code.startswith("QW1")}
    for name in FILES:
        assert b"OneCycle(" in (repository / name).read_bytes()


def test_skip_leaves_one_file_and_quit_the_rest(repository: Path) -> None:
    before = tree(repository)
    dialogue = Dialogue(repository, ".").answer("y", "s", "y", "q")
    code, said = dialogue.end()
    after = tree(repository)
    assert code == 0 and "Changed: 1 file" in said and "a_all.py stays as it is" not in said
    assert after["a_all.py"] == before["a_all.py"], "what was taken in it is dropped"
    assert after["sub/c_one.py"] == before["sub/c_one.py"]
    assert after["b_two.py"] != before["b_two.py"]
    assert "quickwins_runtime/__init__.py" in after
    all_compile(repository)


def test_nothing_taken_leaves_nothing_behind(repository: Path) -> None:
    before = tree(repository)
    code, said = Dialogue(repository, ".").answer("q").end()
    assert code == 0 and tree(repository) == before and not (repository / "quickwins_runtime").exists()
    assert re.search(r"Declined: \d+ sites", said) and ": nothing taken" in said


def test_the_end_of_the_input_is_quit(repository: Path) -> None:
    dialogue = Dialogue(repository, "b_two.py", "--select", "onecycle").answer("y")
    dialogue.prompt()
    dialogue.child.sendeof()
    code, said = dialogue.end()
    assert code == 0 and "Changed: 1 file" in said and "Declined: 1 site;" in said
    assert (repository / "b_two.py").read_bytes().count(b"= OneCycle(") == 1


def test_an_interrupt_writes_nothing(repository: Path) -> None:
    before = tree(repository)
    dialogue = Dialogue(repository, ".").answer("y", "y")
    dialogue.prompt()
    dialogue.child.sendintr()
    code, said = dialogue.end()
    assert code == 130 and said.endswith("quickwins: interrupted\n") and "Traceback" not in said
    assert tree(repository) == before


def test_help_and_keys_that_are_none(repository: Path) -> None:
    dialogue = Dialogue(repository, "sub", "--select", "onecycle")
    _, _, rule, code = dialogue.prompt()
    for key, said in [
        ("?", f"# quickwins: skip[{rule}]"), ("?", f"quickwins explain {code}"),
        ("x", '"x" is no answer: type one of y, n, a, s, e, k, q, or ? for help'),
        ("", "an answer is needed"), ("yn", '"yn" is no answer'),
        ("\u00e9\x1b[A", "is no answer"), ("k", "no site before this one was asked about"),
    ]:  # fmt: skip
        dialogue.child.sendline(key)
        dialogue.prompt()
        assert said in " ".join(dialogue.shown.split()), key
    dialogue.child.sendline("No")
    assert dialogue.end()[0] == 0


def test_back_asks_the_last_one_again(repository: Path) -> None:
    dialogue = Dialogue(repository, "b_two.py", "--select", "onecycle").answer("n", "k", "y", "n")
    dialogue.end()
    text = (repository / "b_two.py").read_bytes()
    assert text.count(b"= OneCycle(") == 1 and len(declined_sites(repository)) >= 1


def test_what_does_not_hold_alone_is_asked_about_together(tmp_path: Path) -> None:
    shutil.copyfile(PAIRS / "onecycle" / "two_optimizers.in.py", tmp_path / "gan.py")
    dialogue = Dialogue(tmp_path, ".")
    assert dialogue.prompt()[:2] == ("1", "2")
    assert "Together with it, since the one does not hold without the other:" in dialogue.shown
    assert len(re.findall(r"^gan\.py:\d+:\d+  onecycle  QW101", dialogue.shown, re.MULTILINE)) == 2
    dialogue.child.sendline("n")
    code, said = dialogue.end()
    assert code == 0 and "(left out)" in " ".join(said.split()) and "Declined: 2 sites" in said
    assert "it does not hold without what you declined: QW101 in line " in said


# Editing


def editor(folder: Path, *steps: str) -> str:
    """An editor that does one step a call: `text` is what it saves, or it fails."""
    script = folder / "editor.py"
    script.write_text(
        "import pathlib, sys\n"
        f"steps, log = {list(steps)!r}, pathlib.Path({str(folder / 'log')!r})\n"
        "done = log.read_text().count('call') if log.exists() else 0\n"
        "log.open('a').write('call\\n')\n"
        "path, step = pathlib.Path(sys.argv[-1]), steps[done]\n"
        "if step == 'fail':\n    sys.exit(1)\n"
        "if step != 'close':\n    path.write_bytes(path.read_bytes() + step.encode())\n"
    )
    return f"{sys.executable} {script}"


@pytest.mark.parametrize(("steps", "mend", "ending"), [
    (["mine = 1\n"], "", b"mine = 1\n"),
    (["close"], "", b""),
    (["((\n"], "d", b""),
    (["((\n", "))\n"], "e", b"((\n))\n"),
    (["fail", "mine = 1\n"], "?e", b"mine = 1\n"),
])  # fmt: skip
def test_the_file_is_edited_once_it_is_answered(
    steps: list[str], mend: str, ending: bytes, repository: Path, tmp_path: Path
) -> None:
    plain = shutil.copytree(repository, tmp_path / "plain")
    quickwins(plain, "apply", "b_two.py", "--select", "onecycle")
    command = editor(tmp_path, *steps)
    dialogue = Dialogue(repository, "b_two.py", "--select", "onecycle", EDITOR=command)
    dialogue.answer("e")
    dialogue.prompt()
    assert "the editor opens when the last site" in " ".join(dialogue.shown.split())
    dialogue.child.sendline("y")
    for key in mend:
        dialogue.prompt(MEND)
        dialogue.child.sendline(key)
    assert dialogue.end()[0] == 0
    assert (tmp_path / "log").read_text().count("call") == len(steps)
    expected = (plain / "b_two.py").read_bytes() + ending
    assert (repository / "b_two.py").read_bytes() == expected


def test_an_edit_that_cannot_be_used_can_leave_the_file_as_it_was(
    repository: Path, tmp_path: Path
) -> None:
    before = tree(repository)
    command = editor(tmp_path, "\u00e9 = (")
    dialogue = Dialogue(repository, "sub", VISUAL=command, EDITOR="false").answer("e")
    while dialogue.child.expect([PROMPT, MEND]) == 0:
        dialogue.child.sendline("n")
    assert "was never closed" in dialogue.child.before
    dialogue.child.sendline("s")
    assert dialogue.end()[0] == 0 and tree(repository) == before


@pytest.mark.parametrize(("named", "command"), [
    ("vim", "vim +7"), ("/usr/bin/nano -w", "/usr/bin/nano -w +7"), ("code --wait", "code --wait"),
])  # fmt: skip
def test_an_editor_that_takes_a_line_is_told_it(
    named: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", named)
    assert prompting._editor(7) == command
    monkeypatch.delenv("EDITOR")
    assert prompting._editor(7) is None


# What is shown


@pytest.mark.parametrize("columns", [40, 200])
def test_a_site_at_any_width(columns: int, repository: Path) -> None:
    dialogue = Dialogue(repository, ".", columns=columns)
    dialogue.prompt()
    lines = dialogue.shown.replace("\r\n", "\n").split("\n")
    diff = next(n for n, line in enumerate(lines) if line.startswith("@@ "))
    assert [line for line in lines[:diff] if len(line) >= columns] == []
    said = " ".join(" ".join(lines[:diff]).split())
    assert re.search(r"a_all\.py \(file 1 of 3, \d+ sites\) a_all\.py:\d+:\d+ [\w-]+ QW\d+ ", said)
    assert " Why: " in said
    assert not [line for line in lines if line.startswith(("--- ", "+++ ", "diff "))]
    dialogue.child.sendline("?")
    dialogue.prompt()
    helped = dialogue.shown.replace("\r\n", "\n").split("\n")[1:]
    assert [line for line in helped if len(line) >= columns] == []
    dialogue.child.sendintr()
    assert dialogue.end()[0] == 130


@pytest.mark.parametrize(("extra", "coloured"), [
    ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": "", "TERM": "dumb"}, False),
])  # fmt: skip
def test_colours(extra: dict[str, str], coloured: bool, repository: Path) -> None:
    dialogue = Dialogue(repository, "sub", **extra)
    assert dialogue.child.expect([re.compile(r"take this \[y,n,a,s,e,k,q,\?\]\?")]) == 0
    shown = dialogue.child.before
    assert bool(COLOURS.search(shown)) == coloured
    if coloured:
        assert "\x1b[32m+" in shown and "\x1b[31m-" in shown and "\x1b[36m@@" in shown
        assert re.search("\x1b\\[36msub/c_one\\.py:\\d+:\\d+\x1b\\[0m  onecycle  \x1b\\[33mQW", shown)
    dialogue.child.sendintr()
    dialogue.end()


def test_control_characters_are_shown(tmp_path: Path) -> None:
    source = (PAIRS / "onecycle" / "plateau.in.py").read_text()
    line = next(row for row in source.split("\n") if "ReduceLROnPlateau(" in row)
    indent = line[: len(line) - len(line.lstrip())]
    text = source.replace(line, f'{indent}noise = "\x1b[2J\x07"\n{line}')
    (tmp_path / "bell\x07.py").write_text(text)
    dialogue = Dialogue(tmp_path, ".")
    dialogue.prompt()
    assert "\x1b" not in dialogue.shown and "\x07" not in dialogue.shown
    assert 'noise = "^[[2J^G"' in dialogue.shown and "bell^G.py:" in dialogue.shown
    dialogue.child.sendline("q")
    dialogue.end()


# Where nothing is asked


@pytest.mark.parametrize("words", [[], ["--format", "json"], ["--format", "github"]])
def test_it_needs_a_terminal_and_a_text_report(words: list[str], repository: Path) -> None:
    before = tree(repository)
    done = quickwins(repository, "apply", "-i", ".", *words)
    assert done.returncode == 2 and done.stdout == b""
    said = done.stderr.decode()
    assert said.startswith("quickwins: apply: --interactive ") and said.count("\n") == 1
    code, said = Dialogue(repository, ".", "--format", "json").end()
    assert code == 2 and said.count("\n") == 1 and tree(repository) == before


def test_nothing_is_asked_where_nothing_is_due(repository: Path) -> None:
    assert quickwins(repository, "apply", ".").returncode == 0
    before = tree(repository)
    code, said = Dialogue(repository, ".", "--allow-dirty").end()
    assert code == 0 and "nothing to change" in said and tree(repository) == before


def test_a_dirty_file_is_told_before_the_first_question(repository: Path) -> None:
    with (repository / "a_all.py").open("ab") as file:
        file.write(b"\nx = 1\n")
    dialogue = Dialogue(repository, ".", "--select", "onecycle")
    number, total, *_ = dialogue.prompt()
    assert (number, total) == ("1", "3")
    said = " ".join(dialogue.shown.split())
    assert "a_all.py: has changes that are not staged; not asked about" in said
    assert "b_two.py (file 1 of 2, 2 sites)" in said
    dialogue.child.sendline("q")
    code, said = dialogue.end()
    assert code == 3 and "QW007" in said
    allowed = Dialogue(repository, ".", "--select", "onecycle", "--allow-dirty")
    assert allowed.prompt()[1] == "4"
    allowed.child.sendintr()
    allowed.end()


def test_a_file_that_changes_during_the_questions_is_left_alone(repository: Path) -> None:
    dialogue = Dialogue(repository, "b_two.py", "--select", "onecycle").answer("y")
    dialogue.prompt()
    with (repository / "b_two.py").open("ab") as file:
        file.write(b"x = 1\n")
    mine = (repository / "b_two.py").read_bytes()
    dialogue.child.sendline("y")
    code, _ = dialogue.end()
    assert code == 3 and (repository / "b_two.py").read_bytes() == mine


# The sample


def test_the_sample_repository(tmp_path: Path) -> None:
    folder = shutil.copytree(FIXTURES / "recsys", tmp_path / "sample")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    dialogue, keys = Dialogue(folder, "."), iter("ynysyyynknyyyyyyn" + 30 * "y")
    answered: list[str] = []
    while dialogue.child.expect([PROMPT, pexpect.EOF]) == 0:
        answered.append(next(keys))
        dialogue.child.sendline(answered[-1])
    dialogue.child.close()
    assert dialogue.child.exitstatus == 0 and len(answered) > 12
    all_compile(folder)
    declined = int(re.findall(r"Declined: (\d+) sites", dialogue.child.before)[0])
    assert len(declined_sites(folder)) == declined > 3
    git(folder, "add", ".")
    assert quickwins(folder, "apply", ".").returncode == 0
    all_compile(folder)
    assert quickwins(folder, "check", ".").returncode == 0
