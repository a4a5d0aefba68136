"""The reports for other programs: what GitHub, a test viewer and a code scanner make of them.

The results are made up; the last tests run the command line on the made-up rule of
fake_quickwins.py.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod.report import github
from quickwins_codemod.verdict import FileOutcome, RunResult, Status, Verdict

FAKE = str(Path(__file__).with_name("fake_quickwins.py"))


def verdict(
    status: Status, code: str, line: int = 1, message: str = "said", hint: str | None = None
) -> Verdict:
    return Verdict("onecycle", status, code, line, 9, message, hint)


CHANGED = FileOutcome(
    "two/train.py",
    "changed",
    (
        verdict("applied", "QW101", 4, "ReduceLROnPlateau replaced by OneCycle"),
        verdict("already", "QW109", 3),
        verdict("warning", "QW150", 2, "early stopping", "raise the patience"),
    ),
    before=b"a\nb\nc\nd\n",
    after=b"a\nb\nc\nD\n",
)
ADDED = FileOutcome("quickwins_runtime/__init__.py", "added", before=None, after=b"x = 1\n")
REFUSED = FileOutcome(
    "z.py", "refused", (verdict("refused", "QW110", 5, "two optimizers", "split it"),), b"z\n"
)
BROKEN = FileOutcome("e.py", "error", (Verdict("file", "refused", "QW001", 2, 3, "bad syntax"),))
DONE = FileOutcome("n.py", "unchanged", (verdict("already", "QW109", 1),), b"n\n")


def result(*outcomes: FileOutcome, root: str = ".") -> RunResult:
    return RunResult(os.path.abspath(root), 168, 4, outcomes)


ALL = result(BROKEN, DONE, ADDED, CHANGED, REFUSED)


# GitHub


def annotations(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Read workflow commands as the runner does: split at the marks first, unescape then."""
    found = []
    for line in text.split("\n")[:-1]:
        match = re.fullmatch(r"::(error|warning|notice) (.*?)::(.*)", line)
        assert match, line
        pairs = (part.split("=", 1) for part in match[2].split(","))
        found.append((match[1], {k: unescaped(v) for k, v in pairs}, unescaped(match[3])))
    return found


def unescaped(text: str) -> str:
    return re.sub("%(25|0D|0A|3A|2C)", lambda m: chr(int(m[1], 16)), text)


def test_one_annotation_for_each_finding() -> None:
    assert github.render(ALL, "check") == (
        "::error file=e.py,line=2,col=3,title=QW001 file::bad syntax\n"
        "::warning file=two/train.py,line=2,col=9,title=QW150 onecycle"
        "::early stopping%0Araise the patience\n"
        "::error file=two/train.py,line=4,col=9,title=QW101 onecycle"
        "::due: ReduceLROnPlateau replaced by OneCycle\n"
        "::notice file=z.py,line=5,col=9,title=QW110 onecycle::two optimizers%0Asplit it\n"
    )
    assert github.render(ALL, "diff") == github.render(ALL, "check")
    assert github.render(result(DONE, ADDED), "check") == ""


def test_after_apply_a_change_is_done_and_no_error() -> None:
    kinds = {at["title"]: (kind, said) for kind, at, said in annotations(github.render(ALL, "apply"))}
    assert kinds["QW101 onecycle"] == ("notice", "done: ReduceLROnPlateau replaced by OneCycle")
    assert kinds["QW001 file"][0] == "error"


@pytest.mark.parametrize(
    "path", ["a,b.py", "a::b.py", "a:b,line=9.py", "100%.py", "%0A.py", "a\n::error::b.py", "ü.py"]
)
def test_no_file_name_breaks_out_of_its_annotation(path: str) -> None:
    said = "50% of a::b, c:\r\nd"
    odd = FileOutcome(path, "refused", (verdict("refused", "QW110", 1, said, "100%25"),))
    ((kind, at, message),) = annotations(github.render(result(odd), "check"))
    assert kind == "notice"
    assert at == {"file": path, "line": "1", "col": "9", "title": "QW110 onecycle"}
    assert message == "50% of a::b, c: d\n100%25"


def test_a_name_that_is_no_utf8_can_be_written() -> None:
    odd = dataclasses.replace(REFUSED, path="\udce9.py")
    assert "file=\ufffd.py," in github.render(result(odd), "check")


# The command line


@pytest.fixture
def here(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "sub").mkdir()
    return tmp_path


def quickwins(here: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PRE_COMMIT", "QUICKWINS_DEBUG")}
    return subprocess.run(
        [sys.executable, FAKE, *arguments], cwd=here, env={**kept, **extra}, capture_output=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("form", ["github"])
def test_exit_codes_stay_and_nothing_is_written_beside_a_report(here: Path, form: str) -> None:
    for text, code in (("x\n", 0), ("old\n", 1), ("broken\nold\n", 3)):
        (here / "sub/a.py").write_text(text)
        done = quickwins(here, "check", "sub", "--format", form)
        assert (done.returncode, done.stderr) == (code, b"")
        assert quickwins(here, "diff", "sub", "--format", form).returncode == (code if code == 3 else 0)
        again = quickwins(here, "check", "sub", "--format", form, LC_ALL="C", PYTHONUTF8="0")
        assert again.stdout == done.stdout
    assert quickwins(here, "compare", "a", "b", "--format", form).returncode == 2


def test_annotations_count_from_the_top_of_the_repository(here: Path) -> None:
    (here / "sub/ü.py").write_text("x\nan old one\n", encoding="utf-8")
    for start, path in ((here, "sub"), (here / "sub", ".")):
        done = quickwins(start, "check", path, "--format", "github", PYTHONIOENCODING="ascii")
        assert done.stdout.decode() == (
            "::error file=sub/ü.py,line=2,col=4,title=QW901 made-up::due: old became new\n"
        )
    done = quickwins(here, "apply", "sub", "--format", "github", "--allow-dirty")
    assert done.stdout.decode().startswith("::notice file=sub/ü.py,line=2,")
    assert b"done: old became new" in done.stdout
    assert (here / "sub/ü.py").read_bytes() == b"x\nan new one\n"
