"""Reports: the machine's contract, what a person reads, and patches that git takes."""

from __future__ import annotations

import io
import json as stdlib_json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from quickwins_codemod.report import json, pages, patch, paths, progress, terminal, text
from quickwins_codemod.settings import ConfigError
from quickwins_codemod.transform import Code, Plan, Transform
from quickwins_codemod.verdict import FileOutcome, FileStatus, RunResult, Status, Verdict


def verdict(
    status: Status, code: str, line: int = 1, message: str = "said", hint: str | None = None
) -> Verdict:
    return Verdict("onecycle", status, code, line, 9, message, hint)


def outcome(
    path: str,
    status: FileStatus,
    *verdicts: Verdict,
    before: bytes | None = b"",
    after: bytes | None = None,
) -> FileOutcome:
    return FileOutcome(path, status, verdicts, before, after)


CHANGED = outcome(
    "two/train.py",
    "changed",
    verdict("applied", "QW101", 412, "ReduceLROnPlateau replaced by OneCycle"),
    verdict("already", "QW102", 3),
    verdict("warning", "QW150", 7, "early stopping", "raise the patience"),
    before=b"a\n",
    after=b"b\n",
)
ADDED = outcome("quickwins_runtime/__init__.py", "added", before=None, after=b"x = 1\n")
REFUSED = outcome("z.py", "refused", verdict("refused", "QW110", 5, "two optimizers", "split it"))
BROKEN = FileOutcome("e.py", "error", (Verdict("file", "refused", "QW001", 2, 3, "bad syntax"),))


def result(*outcomes: FileOutcome, root: str = ".", files: int = 168) -> RunResult:
    return RunResult(os.path.abspath(root), files, 44, outcomes)


ALL = result(BROKEN, ADDED, CHANGED, REFUSED)


# The machine report


def test_the_contract_of_the_machine_report() -> None:
    report = stdlib_json.loads(json.render(ALL))
    assert report["version"] == 1
    assert report["summary"] == {
        "files": 168, "candidates": 44, "changed": 1, "added": 1, "refused": 1, "errors": 1,
    }  # fmt: skip
    assert [file["status"] for file in report["files"]] == ["error", "added", "changed", "refused"]
    changed = report["files"][2]
    assert set(changed) == {"path", "status", "diff", "verdicts"}
    assert changed["path"] == "two/train.py"
    assert "--- a/two/train.py\n+++ b/two/train.py\n@@ -1 +1 @@\n-a\n+b\n" in changed["diff"]
    assert changed["verdicts"][0] == {
        "rule": "onecycle",
        "status": "applied",
        "code": "QW101",
        "line": 412,
        "column": 9,
        "message": "ReduceLROnPlateau replaced by OneCycle",
        "hint": None,
    }
    assert report["files"][3]["diff"] is None


def test_bytes_that_are_no_utf8_do_not_break_the_machine_report() -> None:
    latin = outcome("\udce9.py", "changed", before=b"\xe9 = 1\n", after=b"\xe9 = 2\n")
    written = json.render(result(latin))
    assert written.isascii()
    file = stdlib_json.loads(written)["files"][0]
    assert file["path"] == "\ufffd.py"
    assert "+\ufffd = 2\n" in file["diff"]


# What a person reads


def test_one_line_for_each_finding() -> None:
    assert text.findings(ALL) == [
        "e.py:2:3: QW001 bad syntax",
        "two/train.py:7:9: QW150 early stopping",
        "two/train.py:412:9: QW101 ReduceLROnPlateau replaced by OneCycle",
        "z.py:5:9: QW110 two optimizers",
    ]


def test_a_finding_stays_on_one_line() -> None:
    odd = outcome("a\nb.py", "refused", verdict("refused", "QW110", 1, "one\ntwo"))
    assert text.findings(result(odd)) == ["a b.py:1:9: QW110 one two"]


def test_the_closing_summary() -> None:
    steps = text.next_steps(ALL, "diff", lambda verb: f"quickwins {verb} .")
    assert text.summary(ALL, "diff", steps) == (
        "To change: 1 file\n"
        "  two/train.py  QW101 ReduceLROnPlateau replaced by OneCycle (line 412)\n"
        "To add: quickwins_runtime/ (1 file)\n"
        "Left alone: 1 site\n"
        "  QW110 two optimizers\n"
        "      z.py:5:9\n"
        "      split it\n"
        "Look at: 1 warning\n"
        "  QW150 early stopping\n"
        "      two/train.py:7:9\n"
        "      raise the patience\n"
        "Done already: 1 site in 1 file\n"
        "Not processed: 1 file\n"
        "  QW001 bad syntax\n"
        "      e.py:2:3\n"
        "168 Python files, 44 candidates: 1 to change, 1 to add, 1 left alone, 1 not processed.\n"
        "Next: quickwins apply .   # write it\n"
        "      quickwins explain QW110   # why, and what to do\n"
    )


def test_after_apply_the_summary_speaks_of_what_was_done() -> None:
    steps = text.next_steps(ALL, "apply", lambda verb: "", "git add two/train.py")
    said = text.summary(ALL, "apply", steps)
    assert "Changed: 1 file\n" in said and "Added: quickwins_runtime/" in said
    assert "1 changed, 1 added" in said
    assert "Next: git add two/train.py   # what was written, for your next commit\n" in said


def test_nothing_to_change_is_said() -> None:
    assert text.summary(result(files=1), "diff") == (
        "1 Python file, 44 candidates: nothing to change.\n"
    )


def test_the_summary_of_check_does_not_repeat_the_findings() -> None:
    assert text.summary(ALL, "check").count("\n") == 1


def test_a_thing_done_several_times_is_said_once() -> None:
    many = outcome("a.py", "changed", *(verdict("applied", "QW101", n) for n in (9, 4)), after=b"x")
    assert "a.py  QW101 said (lines 4, 9)" in text.summary(result(many), "diff")


def test_sites_are_listed_by_reason_and_counted() -> None:
    refused = [
        outcome(f"{n:03}.py", "refused", verdict("refused", f"QW11{n % 2}", hint="do it"))
        for n in range(41)
    ]
    said = text.summary(result(*refused), "diff")
    assert "Left alone: 41 sites\n  QW110 said\n      000.py:1:9, 002.py:1:9, 004.py:1:9 and 18 more\n" in said
    assert said.count("do it\n") == 2, "a hint is said once for each reason"
    assert said.count("\n") < 10
    assert len(text.findings(result(*refused))) == 41


def test_a_long_list_of_files_is_cut() -> None:
    changed = [
        outcome(f"{n:03}.py", "changed", verdict("applied", "QW101"), after=b"x") for n in range(40)
    ]
    said = text.summary(result(*changed), "diff")
    assert "  and 25 more; `quickwins check` lists each\n" in said
    assert said.count("\n") < 22


# Terminals


def test_colours_only_where_a_person_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.Paint.of(Terminal()).on  # type: ignore[arg-type]
    assert not terminal.Paint.of(None).on
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.Paint.of(Terminal()).on  # type: ignore[arg-type]


def test_a_coloured_diff_is_the_diff() -> None:
    shown = terminal.Paint(True).diff("--- a/x\n@@ -1 +1 @@\n-old\r\n+new\x1b[2J\n\\ No newline\n")
    assert shown.split("\n")[:4] == [
        "\x1b[1m--- a/x\x1b[0m",
        "\x1b[36m@@ -1 +1 @@\x1b[0m",
        "\x1b[31m-old\x1b[0m",
        "\x1b[32m+new^[[2J\x1b[0m",
    ], "a file cannot drive the terminal"
    assert terminal.Paint(False).diff("+new\n") == "+new\n"


def test_a_bar_shows_itself_on_a_terminal_when_a_run_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, patience, shown in (
        (Screen(), 0.0, True),
        (Screen(), 60.0, False),
        (io.StringIO(), 0.0, False),
    ):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(progress, "_PATIENCE", patience)
        with progress.Bar() as bar:
            bar(7, 44)
        assert ("7/44" in stream.getvalue()) is shown


# Patches

CASES = {
    "plain.py": (b"a\nb\n", b"a\nB\n"),
    "crlf.py": (b"a\r\nb\r\nc\r\n", b"a\r\nB\r\nc\r\n"),
    "latin.py": ("# coding: latin-1\né = 1\n".encode("latin-1"),
                 "# coding: latin-1\né = 2\n".encode("latin-1")),
    "bom.py": (b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"),
    "no_newline.py": (b"a\nb", b"a\nB"),
    "gains_newline.py": (b"a\nb", b"a\nb\n"),
    "form_feed.py": (b"a\x0cb\nc\n", b"a\x0cb\nd\n"),
    "with space.py": (b"a\n", b"b\n"),
    "ü.py": (b"a\n", b"b\n"),
    "new/file.py": (None, b"x = 1\n"),
    "new/empty.py": (None, b""),
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "start"), [(".", "."), ("sub/folder", "."), ("sub/folder", "sub/folder")]
)
def test_git_apply_takes_the_patch_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, start: str
) -> None:
    root = tmp_path / where
    (tmp_path / "sub/folder").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.chdir(tmp_path)
    for name, (before, _) in CASES.items():
        if before is not None:
            (root / name).write_bytes(before)
    outcomes = [
        outcome(name, "changed" if before is not None else "added", before=before, after=after)
        for name, (before, after) in CASES.items()
    ]
    patch.write(tmp_path / "x.patch", paths.for_git(result(*outcomes, root=where)))
    git = ["git", "apply", str(tmp_path / "x.patch")]
    done = subprocess.run(git, cwd=tmp_path / start, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: (root / name).read_bytes() for name in CASES} == {
        name: after for name, (_, after) in CASES.items()
    }


def test_a_patch_without_changes_is_empty(tmp_path: Path) -> None:
    assert patch.render(result(REFUSED)) == b""


def test_the_runtime_comes_last_in_a_patch() -> None:
    assert patch.render(ALL).index(b"two/train.py") < patch.render(ALL).index(b"quickwins_runtime")


def test_paths_from_where_the_reader_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    inside = result(REFUSED, root=str(tmp_path / "sub"))
    monkeypatch.chdir(tmp_path)
    assert paths.from_here(inside).outcomes[0].path == "sub/z.py"
    assert paths.for_git(inside).outcomes[0].path == "sub/z.py"
    monkeypatch.chdir(tmp_path / "sub")
    assert paths.from_here(inside).outcomes[0].path == "z.py"
    above = result(REFUSED, root=str(tmp_path))
    assert paths.from_here(above).outcomes[0].path == "../z.py"
    assert paths.for_git(above).outcomes[0].path == "z.py", "git takes no path that leads up"


# Pages

RULE = Transform(
    "onecycle", "One cycle", (b"x",), object, "One cycle\n\nWhy: speed.",
    (Code("QW101", "onecycle", "replaced", "What it does: replaces."),),
    lambda script, options: Plan(),
)  # fmt: skip


def test_pages_come_from_docstrings() -> None:
    assert pages.page("qw101", [RULE]) == (
        "QW101 (onecycle): replaced\n\nWhat it does: replaces.\n"
    )
    assert pages.page("OneCycle", [RULE]) == (
        "onecycle\n\nOne cycle\n\nWhy: speed.\n\n  QW101  replaced\n"
    )
    assert pages.page("QW001", [RULE]).startswith("QW001 (file): the file cannot be parsed\n\nWhat")
    assert "  QW101  replaced\n" in pages.table([RULE])
    with pytest.raises(ConfigError, match='"onecylce"; did you mean "onecycle"?'):
        pages.page("onecylce", [RULE])
