"""Writing on real trees and real git repositories; failures are put into the system calls."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import git_helpers
import pytest
from git_helpers import git

from quickwins_codemod import writing
from quickwins_codemod.verdict import FileOutcome, FileStatus
from quickwins_codemod.disk import gitindex
from quickwins_codemod.disk.gitindex import unstaged
from quickwins_codemod.writing import WriteError, apply, write_atomically

ODD = ["a b.py", "é.py", "new\nline.py", "[x].py", "-f.py", "sub/:(top)x.py"]
ODD += [os.fsdecode(b"\xff.py")]


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    git_helpers.hide_settings(monkeypatch)


def repository(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "m")
    return folder


def change(path: str, before: bytes | None = b"old\n", after: bytes = b"new\n") -> FileOutcome:
    status: FileStatus = "added" if path.startswith("quickwins_runtime/") else "changed"
    return FileOutcome(path, status, before=before, after=after)


def tree(root: Path) -> dict[str, bytes]:
    paths = [p for p in sorted(root.rglob("*")) if not {".git", ".quickwins"} & {*p.parts}]
    return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else b"/" for p in paths}


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_text("old\n")


def codes(report: writing.WriteReport) -> list[tuple[str, str, str]]:
    return [(o.path, o.status, o.verdicts[0].code) for o in report.refused]


# --- one file ---------------------------------------------------------------------------------


def test_keeps_the_mode_and_leaves_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_bytes(b"old\n")
    file.chmod(0o751)
    write_atomically(file, b"new\n")
    assert tree(tmp_path) == {"x.py": b"new\n"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o751


def test_a_new_file_gets_the_mode_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x.py", b"")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x.py").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_keeps_the_owner(tmp_path: Path) -> None:
    fill(tmp_path, "x.py")
    os.chown(tmp_path / "x.py", 1234, 4321)
    write_atomically(tmp_path / "x.py", b"new\n")
    owner = (tmp_path / "x.py").stat()
    assert (owner.st_uid, owner.st_gid) == (1234, 4321)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    fill(root, "d/real.py")
    fill(tmp_path, "outside.py")
    (root / "x.py").symlink_to("d/real.py")
    (root / "out.py").symlink_to("../outside.py")
    write_atomically(root / "x.py", b"new\n", root)
    assert (root / "x.py").is_symlink() and (root / "d/real.py").read_bytes() == b"new\n"
    with pytest.raises(WriteError, match="out.py: lies outside"):
        write_atomically(root / "out.py", b"new\n", root)
    assert (tmp_path / "outside.py").read_bytes() == b"old\n"


def test_the_longest_name_works(tmp_path: Path) -> None:
    for name in ("x" * 252 + ".py", "é" * 126 + ".py"):
        write_atomically(tmp_path / name, b"new\n")
        assert (tmp_path / name).read_bytes() == b"new\n"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    fill(tmp_path, "x.py")

    def fail(*_: object) -> None:
        assert list(tmp_path.glob(".x.py.quickwins-*.tmp"))
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        write_atomically(tmp_path / "x.py", b"new\n")
    monkeypatch.undo()
    assert tree(tmp_path) == {"x.py": b"old\n"}


# --- what git says ----------------------------------------------------------------------------


def test_unstaged_tells_edited_from_staged_and_untracked(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", "clean.py", "edited.py", "staged.py", "both.py", "touched.py")
    for name in ("edited.py", "staged.py", "both.py"):
        (root / name).write_text("mine\n")
    git(root, "add", "staged.py", "both.py")
    (root / "both.py").write_text("more\n")
    os.utime(root / "touched.py", (1, 1))
    fill(root, "untracked.py")
    fill(root, "intended.py")
    git(root, "add", "-N", "intended.py")
    paths = list(root.glob("*.py"))
    assert {p.name for p in unstaged(root, paths)} == {"edited.py", "both.py", "intended.py"}


def test_unstaged_with_odd_names_and_a_root_below_the_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitindex, "_BATCH", 3)
    repository(tmp_path / "r", *(f"in/{n}" for n in ODD), *(f"in/{n}.clean" for n in ODD))
    root = tmp_path / "r/in"
    git(tmp_path / "r", "config", "diff.external", "false")
    for name in ODD:
        (root / name).write_text("mine\n")
    paths = [root / name for name in ODD]
    clean = [root / f"{name}.clean" for name in ODD]
    assert unstaged(root, paths + clean) == set(paths)


def test_unstaged_follows_links_and_nested_repositories(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", "real.py", "a.py")
    inner = repository(root / "inner", "b.py", "c.py")
    (root / "link.py").symlink_to("real.py")
    git(root, "add", "link.py")
    for path in (root / "real.py", inner / "b.py"):
        path.write_text("mine\n")
    paths = [root / "link.py", root / "a.py", inner / "b.py", inner / "c.py"]
    assert unstaged(root, paths) == {root / "link.py", inner / "b.py"}


def test_without_git_nothing_is_unstaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "x.py")
    assert unstaged(tmp_path, [tmp_path / "x.py"]) == set()
    (tmp_path / ".git").mkdir()  # no repository, whatever it is
    (tmp_path / "y.py").write_text("other\n")
    assert unstaged(tmp_path, [tmp_path / "x.py", tmp_path / "y.py"]) == set()
    root = repository(tmp_path / "r", "x.py")
    (root / "x.py").write_text("mine\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unstaged(root, [root / "x.py"]) == set()


def test_a_git_that_cannot_tell_is_an_error(tmp_path: Path) -> None:
    root = repository(tmp_path / "r", "x.py")
    (root / ".git/index").write_bytes(b"broken")
    with pytest.raises(WriteError, match="--allow-dirty"):
        unstaged(root, [root / "x.py"])
    with pytest.raises(WriteError):
        apply([change("x.py")], root)
    assert apply([change("x.py")], root, allow_dirty=True).written == ["x.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_repository_of_somebody_else_is_an_error_too(tmp_path: Path) -> None:
    """As in a container with a mounted work tree: git refuses to look."""
    root = repository(tmp_path / "r", "x.py")
    for path in (root, root / ".git"):
        os.chown(path, 65534, 65534)
    with pytest.raises(WriteError, match="dubious ownership.*--allow-dirty"):
        unstaged(root, [root / "x.py"])


@pytest.mark.parametrize("prefix", ["", "inner"])
def test_the_index_of_the_commit_being_made_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """`git commit FILE` runs its hooks with an index of its own."""
    root = repository(tmp_path / "r", "inner/x.py")
    (root / "inner/x.py").write_text("mine\n")
    hook = root / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nenv | grep ^GIT_ > seen; cp $GIT_INDEX_FILE kept-index\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "commit", "-qm", "m", "inner/x.py")
    monkeypatch.chdir(root)
    path = root / "inner/x.py"
    assert unstaged(root / prefix, [path]) == {path}
    monkeypatch.setenv("GIT_INDEX_FILE", "kept-index")
    assert unstaged(root / prefix, [path]) == set()
    monkeypatch.setenv("GIT_DIR", ".git")
    assert unstaged(root / prefix, [path]) == set()
    other = repository_beside(tmp_path, monkeypatch)
    assert unstaged(other, [other / "y.py"]) == {other / "y.py"}


def repository_beside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with monkeypatch.context() as clean:
        clean.delenv("GIT_DIR")
        clean.delenv("GIT_INDEX_FILE")
        other = repository(folder / "other", "y.py")
    (other / "y.py").write_text("mine\n")
    return other


# --- a run ------------------------------------------------------------------------------------


def test_apply_writes_what_changed_and_the_runtime_first(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "b.py")
    outcomes = [
        change("a.py"),
        FileOutcome("b.py", "unchanged", before=b"old\n"),
        change("quickwins_runtime/__init__.py", None),
    ]
    report = apply(outcomes, tmp_path)
    assert report.written == ["quickwins_runtime/__init__.py", "a.py"] and not report.refused
    assert tree(tmp_path) == {
        "a.py": b"new\n", "b.py": b"old\n",
        "quickwins_runtime": b"/", "quickwins_runtime/__init__.py": b"new\n",
    }  # fmt: skip
    assert apply(outcomes, tmp_path).written == [], "what is there already is not written again"


def test_apply_refuses_files_that_changed_meanwhile(tmp_path: Path) -> None:
    fill(tmp_path, "same.py", "edited.py", "pipe.py", "gone.py")
    (tmp_path / "edited.py").write_text("mine\n")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "pipe.py").unlink()
    os.mkfifo(tmp_path / "pipe.py")
    report = apply([change(f"{n}.py") for n in ("same", "edited", "gone", "pipe")], tmp_path)
    assert report.written == ["same.py"]
    assert codes(report) == [(f"{n}.py", "error", "QW009") for n in ("edited", "gone", "pipe")]
    assert (tmp_path / "edited.py").read_text() == "mine\n"


def test_apply_refuses_unstaged_edits_unless_allowed(tmp_path: Path) -> None:
    root = repository(tmp_path, "x.py", "y.py")
    (root / "x.py").write_text("mine\n")
    outcomes = [change("x.py", b"mine\n"), change("y.py"), change("quickwins_runtime/r.py", None)]
    report = apply(outcomes, root)
    assert codes(report) == [("x.py", "error", "QW007")]
    assert report.written == ["quickwins_runtime/r.py", "y.py"]
    assert apply(outcomes, root, allow_dirty=True).written == ["x.py"]


def test_no_runtime_is_placed_for_nobody(tmp_path: Path) -> None:
    root = repository(tmp_path, "x.py")
    (root / "x.py").write_text("mine\n")
    report = apply([change("x.py", b"mine\n"), change("quickwins_runtime/r.py", None)], root)
    assert report.written == [] and tree(root) == {"x.py": b"mine\n"}


def test_a_runtime_edited_meanwhile_stops_the_run(tmp_path: Path) -> None:
    fill(tmp_path, "x.py")
    (tmp_path / "quickwins_runtime").mkdir()
    fill(tmp_path, "quickwins_runtime/r.py")
    with pytest.raises(WriteError, match="quickwins_runtime/r.py: changed meanwhile"):
        apply([change("x.py"), change("quickwins_runtime/r.py", None)], tmp_path)
    assert (tmp_path / "x.py").read_bytes() == b"old\n"


@pytest.mark.parametrize("path", ["../x.py", "a/../../x.py", "/tmp/x.py"])
def test_apply_never_leaves_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root").mkdir()
    for root in (tmp_path / "root", Path(".")):
        with pytest.raises(WriteError, match="lies outside"):
            apply([change(path, None)], root)


def test_apply_does_not_write_through_a_link_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fill(tmp_path, "x.py")
    (root / "x.py").symlink_to("../x.py")
    assert codes(apply([change("x.py")], root)) == [("x.py", "error", "QW009")]
    assert (tmp_path / "x.py").read_bytes() == b"old\n"


@pytest.mark.parametrize("fatal", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "error", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt()]
)
@pytest.mark.parametrize("late", [False, True], ids=["before the rename", "after the rename"])
def test_a_failure_in_the_middle_takes_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: int, error: BaseException, late: bool
) -> None:
    fill(tmp_path, "a.py", "b.py", "c.py")
    before = tree(tmp_path)
    calls, replace = 0, os.replace

    def failing(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal and not late:
            raise error
        replace(source, target)
        if calls == fatal:
            raise error

    monkeypatch.setattr(os, "replace", failing)
    outcomes = [*map(change, ("a.py", "b.py", "c.py")), change("quickwins_runtime/r.py", None)]
    expected = WriteError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        apply(outcomes, tmp_path)
    assert tree(tmp_path) == before
    if expected is WriteError:
        assert "Read-only file system; nothing was changed" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_taken_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.py", "b.py")
    replace, calls = os.replace, 0

    def once(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(WriteError, match=r"b.py: .*No space left on device; .*back a.py: when"):
        apply([change("a.py"), change("b.py")], tmp_path)


def test_an_edit_made_during_the_run_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.py", "b.py")

    def fail_on_b(source: str, target: Path) -> None:
        if target.name == "b.py":
            (tmp_path / "a.py").write_text("mine\n")
            raise OSError(errno.ENOSPC, "No space left on device")
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", fail_on_b)
    with pytest.raises(WriteError, match="but a.py, edited meanwhile.* in .*rescued/000001$"):
        apply([change("a.py"), change("b.py")], tmp_path)
    assert (tmp_path / "a.py").read_text() == "mine\n"
    assert (tmp_path / ".quickwins/rescued/000001/0.before").read_text() == "old\n"
