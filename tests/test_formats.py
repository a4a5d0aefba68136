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
from xml.etree import ElementTree

import pytest

from quickwins_codemod import flags
from quickwins_codemod.report import github, junit
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


# JUnit


def cases(text: str) -> dict[str, ElementTree.Element]:
    """Read a report, check that its totals are those of its tests, and return the tests by name."""
    root = ElementTree.fromstring(text)
    (suite,) = root.findall("testsuite")
    found = suite.findall("testcase")
    counted = {
        "tests": len(found),
        **{f"{kind}s": len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error")},
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for element in (root, suite):
        assert {name: int(element.get(name, "-1")) for name in counted} == counted
    return {case.get("name", ""): case for case in found}


def only(case: ElementTree.Element) -> ElementTree.Element:
    (child,) = case
    return child


def test_one_test_for_each_candidate() -> None:
    found = cases(junit.render(ALL, "check"))
    assert list(found) == ["e.py", "n.py", "two/train.py", "z.py"]
    assert all(c.get("file") == name for name, c in found.items())
    broken, failed, skipped = (only(found[n]) for n in ("e.py", "two/train.py", "z.py"))
    assert (broken.tag, broken.get("message")) == ("error", "QW001 bad syntax")
    assert failed.tag == "failure"
    assert failed.get("message") == "QW101 ReduceLROnPlateau replaced by OneCycle"
    assert failed.text == (
        "two/train.py:2:9: QW150 early stopping\nraise the patience\n"
        "two/train.py:4:9: QW101 due: ReduceLROnPlateau replaced by OneCycle"
    )
    assert (skipped.tag, skipped.get("message")) == ("skipped", "QW110 two optimizers")
    assert skipped.text == "z.py:5:9: QW110 two optimizers\nsplit it"
    assert len(found["n.py"]) == 0, "a file with nothing to do passes and says nothing"
    assert cases(junit.render(result(ADDED), "check")) == {}


def test_after_apply_a_changed_file_passes_and_says_what_was_done() -> None:
    found = cases(junit.render(ALL, "apply"))
    passed = only(found["two/train.py"])
    assert passed.tag == "system-out"
    assert "QW101 done: ReduceLROnPlateau replaced by OneCycle" in (passed.text or "")
    assert only(found["e.py"]).tag == "error"


def test_each_reason_is_said_once_in_the_headline() -> None:
    verdicts = (verdict("applied", "QW101", 1), verdict("applied", "QW101", 2),
                verdict("applied", "QW103", 3), verdict("refused", "QW110", 4))  # fmt: skip
    many = dataclasses.replace(CHANGED, verdicts=verdicts)
    failure = only(cases(junit.render(result(many), "check"))["two/train.py"])
    assert failure.get("message") == "QW101 said; QW103 said"
    assert (failure.text or "").count("\n") == 3


def test_what_xml_cannot_hold_is_replaced() -> None:
    bad = "".join(map(chr, range(32))) + "\x7f\ufffe\uffff\ud800\udce9<&>\"'é\U0001f600]]>"
    odd = FileOutcome(f"a{bad}.py", "refused", (verdict("refused", "QW110", 1, bad, bad),))
    written = junit.render(result(odd), "check")
    assert written.isascii()
    ((name, case),) = cases(written).items()
    assert name.startswith("a\ufffd") and name.endswith("<&>\"'é\U0001f600]]>.py")
    assert "\t\n" in name and "\x1b" not in name
    assert "é\U0001f600]]>" in (only(case).text or "")


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


@pytest.mark.parametrize("form", [f for f in flags.FORMATS if f != "text"])
def test_exit_codes_stay_and_nothing_is_written_beside_a_report(here: Path, form: str) -> None:
    for text, code in (("x\n", 0), ("old\n", 1), ("broken\nold\n", 3)):
        (here / "sub/a.py").write_text(text)
        done = quickwins(here, "check", "sub", "--format", form)
        assert (done.returncode, done.stderr) == (code, b"")
        assert quickwins(here, "diff", "sub", "--format", form).returncode == (code if code == 3 else 0)
        again = quickwins(here, "check", "sub", "--format", form, LC_ALL="C", PYTHONUTF8="0")
        assert again.stdout == done.stdout


def test_two_runs_are_not_compared_in_a_format_for_findings(here: Path) -> None:
    done = quickwins(here, "compare", "a", "b", "--format", "github")
    assert done.returncode == 2
    assert b"compare: Invalid value for '--format'" in done.stderr


def test_a_test_report_comes_whole_from_the_command_line(here: Path) -> None:
    (here / "sub/a.py").write_text("old\n")
    (here / "sub/b.py").write_text("cannot\n")
    found = cases(quickwins(here, "check", "sub", "--format", "junit").stdout.decode())
    assert {n: only(c).tag for n, c in found.items()} == {
        "sub/a.py": "failure", "sub/b.py": "skipped",
    }  # fmt: skip
    found = cases(quickwins(here, "apply", "sub", "--format", "junit").stdout.decode())
    assert "done: old became new" in (only(found["sub/a.py"]).text or "")


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
