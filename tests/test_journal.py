"""All of a run or none of it: kills at every change on disk, `undo`, and two writers at once.

A kill is SIGKILL in a forked child, sent by an audit hook when Python is about to change the disk for
the n-th time, whatever code does so. What a power cut would do to unsynced data is not tested.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import git_helpers
import psutil
import pytest
from git_helpers import git

from quickwins_codemod import cli, writing
from quickwins_codemod.disk import journal
from quickwins_codemod.verdict import FileOutcome
from quickwins_codemod.writing import WriteError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and signals")

CHANGES = {
    "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.setxattr",
}  # fmt: skip
SCRIPT = """\
import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
model = torch.nn.Linear(2, 1).to(device)
data = torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1))
loader = torch.utils.data.DataLoader(data, batch_size=2)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
for epoch in range(3):
    for inputs, targets in loader:
        optimizer.zero_grad()
        outputs = model(inputs.to(device))
        torch.nn.functional.mse_loss(outputs, targets.to(device)).backward()
        optimizer.step()
    scheduler.step()
"""


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    git_helpers.hide_settings(monkeypatch)


def in_child(action: Callable[[], object], kill_at: int = 0) -> int:
    """Run an action in a fork; 0 where it ended, else minus the signal that killed it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.fsync = lambda descriptor: None  # slow, and of no use without a power cut
            if kill_at:
                _arm(kill_at)
            action()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _arm(kill_at: int) -> None:
    left = kill_at

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o3
        if writes or event in CHANGES:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def each_kill(reset: Callable[[], None], action: Callable[[], object]) -> Iterator[int]:
    """Kill the action at its first change on disk, its second, and so on until it ends."""
    for number in range(1, 10_000):
        reset()
        code = in_child(action, number)
        if code == 0:
            return
        assert code == -signal.SIGKILL, f"ended with {code} at change {number}"
        yield number
    raise AssertionError("never ended")


Tree = dict[str, tuple[bytes | str | None, int]]


def tree(root: Path) -> Tree:
    """Each file, link and folder with its bytes or target and its mode, but for what git ignores."""
    found: Tree = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", ".quickwins")]
        for name in (*folders, *files):
            path = Path(folder, name)
            held: bytes | str | None = None
            if path.is_symlink():
                held = os.readlink(path)
            elif path.is_file():
                held = path.read_bytes()
            found[str(path.relative_to(root))] = held, path.lstat().st_mode
    return found


def outcomes(number: int) -> list[FileOutcome]:
    scripts = [
        FileOutcome(f"d{n % 7}/f{n}.py", "changed", before=b"old %d\n" % n, after=b"new %d\n" % n)
        for n in range(number)
    ]
    runtime = [
        FileOutcome(f"quickwins_runtime/{name}.py", "added", after=name.encode())
        for name in ("__init__", "schedule")
    ]
    return [*scripts, *runtime]


class Repository:
    """A git repository in which an `apply` can be killed again and again."""

    def __init__(self, root: Path, number: int) -> None:
        self.root, self.outcomes = root, outcomes(number)
        for outcome in self.outcomes:
            if outcome.before is not None:
                path = root / outcome.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(outcome.before)
                path.chmod(0o640)
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "m")
        self.old = tree(root)
        assert in_child(self.apply) == 0
        self.new = tree(root)
        self.taken_back_to(self.old)
        assert self.old != self.new

    def apply(self) -> None:
        report = writing.apply(self.outcomes, self.root)
        assert not report.refused and len(report.written) == len(self.outcomes)

    def taken_back_to(self, state: Tree) -> None:
        """Put the files into a state by hand, and forget all journals."""
        now = tree(self.root)
        for name in sorted(now.keys() - state.keys(), reverse=True):
            path = self.root / name
            path.rmdir() if now[name][0] is None else path.unlink()
        for name in sorted(name for name in state if state[name] != now.get(name)):
            held, mode = state[name]
            path = self.root / name
            if held is None:
                path.mkdir()
            else:
                path.write_bytes(held)  # type: ignore[arg-type]
            path.chmod(stat.S_IMODE(mode))
        shutil.rmtree(self.root / ".quickwins", ignore_errors=True)

    def check_whole(self, ask_git: bool = True) -> Tree:
        """The tree is all old or all new, and git sees nothing else."""
        now = tree(self.root)
        assert now in (self.old, self.new), _differences(now, self.old, self.new)
        state = self.root / ".quickwins"
        assert not state.exists() or (state / ".gitignore").read_bytes() == b"*\n"
        if not ask_git:
            return now
        changed = [f" M {o.path}" for o in self.outcomes if o.before is not None]
        status = git(self.root, "status", "--porcelain").splitlines()
        expected = [] if now == self.old else [*changed, "?? quickwins_runtime/"]
        assert sorted(status) == sorted(expected)
        return now


def _differences(now: Tree, *wanted: Tree) -> list[list[str]]:
    return [sorted(n for n in {*now, *w} if now.get(n) != w.get(n)) for w in wanted]


# --- kills --------------------------------------------------------------------------------------


def test_a_kill_at_any_change_of_an_apply_leaves_all_old_or_all_new(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 50)
    seen = []
    for number in each_kill(lambda: repository.taken_back_to(repository.old), repository.apply):
        writing.recover(tmp_path)
        now = repository.check_whole(ask_git=number < 10 or number % 20 == 0)
        seen.append(now == repository.new)
    assert len(seen) > 3 * 50, "every file is saved, written and renamed"
    assert seen == sorted(seen), "once it is done it stays done"


def test_a_kill_at_any_change_of_an_undo_leaves_all_old_or_all_new(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 5)

    def reset() -> None:
        repository.taken_back_to(repository.old)
        assert in_child(repository.apply) == 0

    seen = []
    for _ in each_kill(reset, lambda: writing.undo(tmp_path)):
        writing.recover(tmp_path)
        now = repository.check_whole()
        seen.append(now == repository.old)
        # What is done is done once: a second undo finds the run, or that there is none.
        undone = writing.undo(tmp_path)
        assert (undone is None) == (now == repository.old)
        assert repository.check_whole() == repository.old
    assert True in seen and seen == sorted(seen)


def test_a_kill_of_the_recovery_is_recovered_from(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 3)
    count = 0
    for number in range(1, 60, 4):

        def reset(number: int = number) -> None:
            repository.taken_back_to(repository.old)
            in_child(repository.apply, number)

        for _ in each_kill(reset, lambda: writing.recover(tmp_path)):
            writing.recover(tmp_path)
            repository.check_whole()
            count += 1
    assert count > 20


def test_the_next_command_takes_back_what_a_kill_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.py", "b.py", "c.py"):
        (tmp_path / "sub" / name).write_text(SCRIPT)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "m")
    old = tree(tmp_path)
    commands = (
        ["diff", "."], ["check", "sub/a.py"], ["apply", "sub"], ["undo"], ["undo", "sub"],
        ["run", "sub/a.py", "--python", "none"], ["trial", "sub/a.py", "--python", "none"],
    )  # fmt: skip
    for command in commands:
        # From the top or from the folder: the run that was killed had another root than the next.
        for root in (".", "sub"):
            assert in_child(lambda r=root: cli.invoke(["apply", r]), kill_at=30) == -signal.SIGKILL
            assert tree(tmp_path) != old, "the kill came in the middle"
            code = cli.invoke(command)
            said = capsys.readouterr()
            assert "the `apply` of 20" in said.out + said.err, command
            assert "was interrupted while it wrote; " in said.out + said.err
            if command == ["apply", "sub"]:
                assert code == 0 and cli.invoke(["undo"]) == 0
            assert tree(tmp_path) == old, (command, root)
            assert git(tmp_path, "status", "--porcelain") == ""
            capsys.readouterr()


def test_a_real_command_killed_by_another_process(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"train_{number}.py").write_text(SCRIPT)
    old = tree(tmp_path)
    code = (
        "import os, sys, time\n"
        "from quickwins_codemod import cli\n"
        "replace, count = os.replace, 0\n"
        "def slowly(*names):\n"
        "    global count\n"
        "    replace(*names)\n"
        "    count += 1\n"
        "    if count == 20:\n"
        "        print('halfway', flush=True)\n"
        "        time.sleep(60)\n"
        "os.replace = slowly\n"
        "cli.invoke(['apply', '.'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "halfway\n"
        assert tree(tmp_path) != old
        busy = _quickwins("check", ".", cwd=tmp_path)
        assert "another quickwins is writing in" in busy.stderr and busy.returncode == 1
        process.kill()
    done = _quickwins("check", ".", cwd=tmp_path)
    assert done.returncode == 1 and "files were restored" in done.stderr
    assert done.stdout.count("QW1") == 50
    assert tree(tmp_path) == old


def test_a_file_edited_after_the_kill_is_kept_and_its_old_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path, 5)
    in_child(repository.apply, kill_at=40)
    written = [o for o in repository.outcomes if (tmp_path / o.path).read_bytes() == o.after]
    edited = next(o for o in written if o.before is not None)
    (tmp_path / edited.path).write_bytes(b"mine\n")
    monkeypatch.chdir(tmp_path)
    assert cli.invoke(["check", "."]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "edited" in line]
    assert line.startswith(f"quickwins: {edited.path} was edited since and stays")
    assert Path(line.rsplit(" ", 1)[1]).read_bytes() == edited.before
    now = tree(tmp_path)
    assert now.pop(edited.path)[0] == b"mine\n"
    assert now == {name: held for name, held in repository.old.items() if name != edited.path}
    assert cli.invoke(["check", "."]) == 0 and "edited" not in capsys.readouterr().err


def test_what_cannot_be_restored_is_said_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path, 5)
    in_child(repository.apply, kill_at=40)
    with monkeypatch.context() as full:

        def fail(*names: object) -> None:
            raise OSError(28, "No space left on device")

        full.setattr(os, "replace", fail)
        with pytest.raises(WriteError, match=r"the `apply` of .* was interrupted, and d\d/f\d"):
            writing.recover(tmp_path)
    assert writing.recover(tmp_path) is not None
    assert repository.check_whole() == repository.old


# --- undo ---------------------------------------------------------------------------------------


MODES = (0o644, 0o755, 0o600, 0o444, 0o400, 0o640, 0o711, 0o2755, 0o664)
ENDINGS = ("\n", "\r\n", "\n")
COOKIES = (
    ("", "utf-8"),
    ("\ufeff", "utf-8"),
    ("# -*- coding: latin-1 -*-\n", "latin-1"),
    ("# vim: set fileencoding=cp1252 :\n", "cp1252"),
    ("#!/usr/bin/env python\n# coding: utf-8\n", "utf-8"),
    ("# coding: koi8-r\n", "koi8-r"),
)
NAMES = ("plain", "with space", "é", "new\nline", "[x]", "-dash", "日本", "quote'\"", "%s{}")


def odd_files(root: Path, number: int) -> None:
    """Training scripts in all spellings: modes, encodings, line ends, names, links, folders."""
    draw = random.Random(0)
    for n in range(number):
        cookie, encoding = draw.choice(COOKIES)
        word = {"koi8-r": "шаг", "utf-8": "é日", "latin-1": "é", "cp1252": "€"}[encoding]
        text = f"{cookie}# {word} {n}\n{SCRIPT}"
        text = text.replace("\n", draw.choice(ENDINGS))
        if n % 11 == 0:
            text = text.replace("    ", "\t")
        if n % 13 == 0:
            text = text.rstrip()
        if n % 17 == 0:
            text = text.replace("model =", "\f\nmodel =", 1)
        folder = root / draw.choice(("", "a", "a/b", "c d"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{draw.choice(NAMES)}_{n}.py"
        path.write_bytes(text.encode(encoding))
        path.chmod(draw.choice(MODES))
    raw = os.fsdecode(b"bytes_\xff.py")
    (root / raw).write_text(SCRIPT)
    (root / "elsewhere").mkdir()
    (root / "elsewhere/linked").write_text(SCRIPT)
    (root / "link.py").symlink_to("elsewhere/linked")
    (root / "twin_1.py").write_text(SCRIPT)
    os.link(root / "twin_1.py", root / "twin_2.py")


def test_undo_restores_every_byte_of_500_odd_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd_files(tmp_path, 496)
    old = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    assert cli.invoke(["apply", ".", "--select", "onecycle"]) == 0, capsys.readouterr().out[-2000:]
    new = tree(tmp_path)
    changed = {name for name in new if name not in old or new[name][0] != old[name][0]}
    assert len([name for name in changed if not name.startswith("quickwins_runtime")]) == 500
    assert {name: held[1] for name, held in new.items() if name in old} == {
        name: held[1] for name, held in old.items()
    }, "modes and links are kept"
    assert (tmp_path / "twin_1.py").samefile(tmp_path / "twin_2.py")
    capsys.readouterr()

    assert cli.invoke(["undo"]) == 0
    assert tree(tmp_path) == old
    assert (tmp_path / "twin_1.py").samefile(tmp_path / "twin_2.py")
    said = capsys.readouterr().out
    assert said.startswith("Taken back: quickwins apply --select onecycle . of 20")
    assert "  and 485 more restored\n" in said
    assert cli.invoke(["undo"]) == 0
    assert capsys.readouterr().out.startswith("nothing to take back")


def test_undo_refuses_where_a_file_was_edited_since_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(tmp_path, 4)
    repository.apply()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d1/f1.py").write_bytes(b"mine\n")
    (tmp_path / "d2/f2.py").unlink()
    now = tree(tmp_path)
    assert cli.invoke(["undo"]) == cli.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("quickwins: nothing was taken back, since d1/f1.py, d2/f2.py changed after")
    assert tree(tmp_path) == now
    for name in ("d1/f1.py", "d2/f2.py"):
        (tmp_path / name).write_bytes(repository.new[name][0])  # type: ignore[arg-type]
        (tmp_path / name).chmod(0o640)
    assert cli.invoke(["undo"]) == 0
    assert repository.check_whole() == repository.old


def test_undo_removes_what_python_compiled_but_no_file_of_the_users(tmp_path: Path) -> None:
    repository = Repository(tmp_path, 1)
    repository.apply()
    cache = tmp_path / "quickwins_runtime/__pycache__"
    cache.mkdir()
    (cache / "schedule.cpython-311.pyc").write_bytes(b"")
    assert writing.undo(tmp_path) is not None
    assert tree(tmp_path) == repository.old
    repository.apply()
    (tmp_path / "quickwins_runtime/mine.txt").write_text("mine\n")
    assert writing.undo(tmp_path) is not None
    assert (tmp_path / "quickwins_runtime/mine.txt").read_text() == "mine\n"
    assert not (tmp_path / "quickwins_runtime/schedule.py").exists()


def test_runs_are_taken_back_one_after_the_other_and_only_the_last_ten(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"0")
    for number in range(12):
        change = FileOutcome("a.py", "changed", before=b"%d" % number, after=b"%d" % (number + 1))
        assert writing.apply([change], tmp_path).written == ["a.py"]
    for number in reversed(range(2, 12)):
        assert writing.undo(tmp_path) is not None
        assert path.read_bytes() == b"%d" % number
    assert writing.undo(tmp_path) is None and path.read_bytes() == b"2"


@pytest.mark.parametrize("damage", ["gone", "other"])
def test_old_bytes_that_are_damaged_are_not_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    repository = Repository(tmp_path, 3)
    repository.apply()
    saved = next((tmp_path / ".quickwins/applied/000001").glob("*.before"))
    saved.unlink() if damage == "gone" else saved.write_bytes(b"other\n")
    monkeypatch.chdir(tmp_path)
    assert cli.invoke(["undo"]) == cli.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{saved.name}: is not what d" in line
    assert tree(tmp_path) == repository.new


def test_a_file_edited_during_the_run_is_no_part_of_what_undo_takes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path, 3)
    replace = os.replace

    def edited_meanwhile(source: str, target: Path) -> None:
        replace(source, target)
        if Path(target).name == "f0.py":
            (tmp_path / "d1/f1.py").write_bytes(b"mine\n")

    with monkeypatch.context() as during:
        during.setattr(os, "replace", edited_meanwhile)
        report = writing.apply(repository.outcomes, tmp_path)
    assert [outcome.path for outcome in report.refused] == ["d1/f1.py"]
    assert writing.undo(tmp_path) is not None
    now = tree(tmp_path)
    assert now.pop("d1/f1.py")[0] == b"mine\n"
    assert now == {name: held for name, held in repository.old.items() if name != "d1/f1.py"}


def test_undo_takes_back_the_latest_run_at_above_and_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "-q")
    for folder in ("a", "b", "a/c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_text(SCRIPT)
    old = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    for folder in ("a/c", "b"):
        assert cli.invoke(["apply", folder, "--allow-dirty"]) == 0
        time.sleep(0.01)
    capsys.readouterr()
    monkeypatch.chdir(tmp_path / "a")
    assert cli.invoke(["undo"]) == 0
    assert "restored  c/train.py" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert cli.invoke(["undo"]) == 0
    assert "restored  b/train.py" in capsys.readouterr().out
    assert tree(tmp_path) == old
    assert cli.invoke(["undo", "nowhere"]) == cli.USAGE


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '{"version": 2}', '{"version": 1, "entries": 3}', "null"]
)
def test_a_broken_journal_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for state in ("pending", "applied/000001"):
        folder = tmp_path / ".quickwins" / state
        folder.mkdir(parents=True)
        (folder / "journal.json").write_text(text)
        assert cli.invoke(["undo"]) == cli.FAILED
        (line,) = capsys.readouterr().err.splitlines()
        assert "journal.json: " in line and "move " in line
        subprocess.run(["rm", "-r", tmp_path / ".quickwins"], check=True)


@pytest.mark.parametrize("where", ["../out.py", "/etc/out.py", "a/../../out.py", "link/out.py"])
def test_a_journal_that_came_with_a_repository_cannot_reach_out_of_it(
    tmp_path: Path, where: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "out.py").write_bytes(b"new 0\n")
    (root / "link").symlink_to("..")
    (root / "a.py").write_bytes(b"old 0\n")
    change = journal.Change("a.py", b"old 0\n", b"new 0\n")
    found = journal.begin(root, [change])
    index = found.folder / "journal.json"
    index.write_text(index.read_text().replace('"real": "a.py"', f'"real": "{where}"'))
    with pytest.raises(WriteError, match="names files outside"):
        writing.recover(root)
    assert (tmp_path / "out.py").read_bytes() == b"new 0\n"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_state_folder_that_is_none_stops_an_apply(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.py").write_bytes(b"old")
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        (root / ".quickwins").write_text("")
    else:
        (root / ".quickwins").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteError, match=".quickwins: is no folder of quickwins"):
        writing.apply([FileOutcome("a.py", "changed", before=b"old", after=b"new")], root)
    assert (root / "a.py").read_bytes() == b"old" and not list((tmp_path / "elsewhere").iterdir())


# --- owners and links ---------------------------------------------------------------------------


def as_nobody(action: Callable[[], object], kill_at: int = 0) -> int:
    def demoted() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        action()

    return in_child(demoted, kill_at)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder in which another user may write, with a file of ours that he may write to."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    (root / "a.py").write_bytes(b"old text\n")
    (root / "a.py").chmod(0o666)
    return root


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")


@needs_root
def test_a_file_of_somebody_else_stays_his(shared: Path) -> None:
    change = FileOutcome("a.py", "changed", before=b"old text\n", after=b"new text\n")
    assert as_nobody(lambda: writing.apply([change], shared)) == 0
    held = (shared / "a.py").stat()
    assert (shared / "a.py").read_bytes() == b"new text\n"
    assert (held.st_uid, stat.S_IMODE(held.st_mode)) == (os.geteuid(), 0o666)
    assert as_nobody(lambda: writing.undo(shared)) == 0
    assert (shared / "a.py").read_bytes() == b"old text\n"
    assert (shared / "a.py").stat().st_uid == os.geteuid()


@needs_root
def test_a_file_of_somebody_else_that_may_not_be_written_stops_the_run(shared: Path) -> None:
    (shared / "a.py").chmod(0o644)
    change = FileOutcome("a.py", "changed", before=b"old text\n", after=b"new text\n")

    def refused() -> None:
        with pytest.raises(WriteError, match="a.py: cannot be written: Permission denied; nothing"):
            writing.apply([change], shared)

    assert as_nobody(refused) == 0
    assert (shared / "a.py").read_bytes() == b"old text\n"


@needs_root
@pytest.mark.parametrize("half", [b"", b"new", b"new text\n"])
def test_a_kill_in_the_middle_of_a_write_in_place_is_taken_back(shared: Path, half: bytes) -> None:
    change = journal.Change("a.py", b"old text\n", b"new text\n")
    assert as_nobody(lambda: journal.begin(shared, [change])) == 0
    (shared / "a.py").write_bytes(half)
    assert as_nobody(lambda: writing.recover(shared)) == 0
    assert (shared / "a.py").read_bytes() == b"old text\n"
    assert not (shared / ".quickwins/pending").exists()


def test_a_file_with_a_name_outside_the_run_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "backup.py").write_bytes(b"old")
    os.link(tmp_path / "backup.py", root / "a.py")
    (root / "b.py").write_bytes(b"old")
    changes = [FileOutcome(n, "changed", before=b"old", after=b"new") for n in ("a.py", "b.py")]
    report = writing.apply(changes, root)
    assert [(o.path, o.verdicts[0].code) for o in report.refused] == [("a.py", "QW011")]
    assert report.written == ["b.py"]
    assert (tmp_path / "backup.py").read_bytes() == (root / "a.py").read_bytes() == b"old"


def test_two_names_of_one_file_stay_one_also_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"old")
    changes = [FileOutcome(n, "changed", before=b"old", after=b"new") for n in ("a.py", "b.py")]

    def reset() -> None:
        subprocess.run(["rm", "-rf", tmp_path / ".quickwins", tmp_path / "b.py"], check=True)
        (tmp_path / "a.py").write_bytes(b"old")
        os.link(tmp_path / "a.py", tmp_path / "b.py")

    for _ in each_kill(reset, lambda: writing.apply(changes, tmp_path)):
        writing.recover(tmp_path)
        assert (tmp_path / "a.py").samefile(tmp_path / "b.py")
        assert sorted(os.listdir(tmp_path)) in (["a.py", "b.py"], [".quickwins", "a.py", "b.py"])


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="needs extended attributes")
def test_extended_attributes_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"old")
    try:
        os.setxattr(path, "user.origin", b"here")
    except OSError:
        pytest.skip("this file system has none")
    writing.write_atomically(path, b"new")
    assert os.getxattr(path, "user.origin") == b"here"


# --- two at once --------------------------------------------------------------------------------


def _quickwins(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", *words],
        cwd=cwd, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


#: An apply that says when it has read everything, and waits for a line before it writes.
WAITING = """\
import sys
from quickwins_codemod import cli, repository

write = repository.write

def waiting(*arguments):
    print("read", flush=True)
    sys.stdin.readline()
    return write(*arguments)

repository.write = waiting
sys.exit(cli.invoke(sys.argv[1:]))
"""


@pytest.mark.parametrize("versions_with_git", [False, True])
def test_of_two_applies_one_wins_and_the_other_says_so(
    tmp_path: Path, versions_with_git: bool
) -> None:
    root, alone = tmp_path / "root", tmp_path / "alone"
    for folder in (root, alone):
        (folder / "sub").mkdir(parents=True)
        for number in range(4):
            (folder / "sub" / f"train_{number}.py").write_text(SCRIPT)
        if versions_with_git:
            git(folder, "init", "-q")
            git(folder, "add", "-A")
            git(folder, "commit", "-qm", "m")
    first = ["apply", ".", "--select", "onecycle"]
    assert _quickwins(*first, cwd=alone).returncode == 0

    command = [sys.executable, "-c", WAITING, *first]
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as winner:
        assert winner.stdin is not None and winner.stdout is not None
        assert winner.stdout.readline() == "read\n"
        second = _quickwins("apply", ".", "--select", "amp", cwd=root)
        assert second.returncode == cli.FAILED
        (line,) = second.stderr.splitlines()
        assert line.startswith("quickwins: another quickwins is writing in ")
        if versions_with_git:  # another root of the same repository
            below = _quickwins("apply", "sub/train_0.py", cwd=root / "sub")
            assert below.returncode == cli.USAGE or "another quickwins" in below.stderr
            inside = _quickwins("apply", "train_0.py", cwd=root / "sub")
            assert inside.returncode == cli.FAILED and "another quickwins" in inside.stderr
        assert _quickwins("undo", cwd=root).stdout.startswith("nothing to take back")
        winner.stdin.write("\n")
        winner.stdin.flush()
        winner.stdout.read()
        assert winner.wait() == 0
    assert tree(root) == tree(alone)
    assert _quickwins(*first, cwd=root).stdout.startswith("Done already")


def test_many_at_once_mix_nothing(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"train_{number}.py").write_text(SCRIPT)
    wins = ("onecycle", "amp")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "quickwins_codemod", "apply", ".", "--select", wins[n % 2]],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[0] for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes and set(codes) <= {0, cli.FAILED}, said
    assert all("another quickwins" in s for s, code in zip(said, codes) if code)
    texts = {path.read_text() for path in tmp_path.glob("train_*.py")}
    assert len(texts) == 1 and texts != {SCRIPT}, "each run wrote all files or none"


def test_a_killed_run_keeps_no_worker_and_no_lock(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"train_{number}.py").write_text(SCRIPT)
    command = [sys.executable, "-c", WAITING, "apply", ".", "--workers", "2"]
    slow = "import time\nfrom quickwins_codemod import pipeline\n"
    slow += "process = pipeline.process\n"
    slow += "pipeline.process = lambda *a: (time.sleep(0.2), process(*a))[1]\n"
    command[2] = slow + command[2]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        children: list[psutil.Process] = []
        while len(children) < 2:
            children = psutil.Process(process.pid).children()
            time.sleep(0.05)
        process.kill()
    assert _quickwins("apply", "train_0.py", cwd=tmp_path).returncode == 0
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_a_copy_that_a_trial_made_has_a_lock_of_its_own(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    copy = tmp_path / ".quickwins/trials/one/tree"
    copy.mkdir(parents=True)

    def elsewhere() -> None:
        with pytest.raises(writing.Busy), writing.locked(tmp_path):
            pass
        with writing.locked(copy):
            pass

    with writing.locked(tmp_path):
        assert in_child(elsewhere) == 0, "and a fork does not let go of its parent's lock"
        assert in_child(elsewhere) == 0
