"""Writing to the user's tree: each file atomically, all of a run or none, nothing unsaved lost."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from quickwins_codemod.settings import FILE_RULE
from quickwins_codemod.verdict import FileOutcome, Verdict

_BATCH = 200  # paths to one call of git; the system bounds the length of a command line
_GIT_VARIABLES = ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_COMMON_DIR")


class WriteError(Exception):
    """A run that could not be written; its text is one line for the user."""


@dataclass
class WriteReport:
    """written: paths relative to the root; refused: an error outcome for each file left alone."""

    written: list[str] = field(default_factory=list)
    refused: list[FileOutcome] = field(default_factory=list)


def apply(outcomes: Iterable[FileOutcome], root: Path, allow_dirty: bool = False) -> WriteReport:
    """Write what the outcomes propose; the runtime's files first, since scripts import them.

    A file is refused that differs from its `before` (QW009) or, unless `allow_dirty`, from the git
    index (QW007). Raises WriteError when writing fails, after taking back what was written.
    """
    report = WriteReport()
    due = [outcome for outcome in outcomes if outcome.has_change]
    runtime = [outcome for outcome in due if outcome.status == "added"]
    scripts = []
    # The runtime's files are told from edited ones by their hash, so git is not asked.
    asked = [root / outcome.path for outcome in due if outcome not in runtime]
    dirty = set() if allow_dirty else unstaged(root, asked)
    for outcome in due:
        path = _target(root, outcome.path)
        if outcome in runtime:
            if not _is_as_read(path, outcome, root):
                raise WriteError(f"{outcome.path}: changed meanwhile; nothing was written")
        elif path in dirty:
            report.refused.append(_refusal(outcome, "QW007", "has changes that are not staged"))
        else:
            scripts.append(outcome)
    stale = [outcome for outcome in scripts if not _is_as_read(root / outcome.path, outcome, root)]
    scripts = [outcome for outcome in scripts if outcome not in stale]
    if (stale or report.refused) and not scripts:
        runtime = []  # nobody would import it
    with _Transaction(root) as transaction:
        for outcome in (*runtime, *scripts):
            # Looked at again: writing the others took time.
            if not _is_as_read(root / outcome.path, outcome, root):
                stale.append(outcome)
            elif transaction.write(outcome):
                report.written.append(outcome.path)
    report.refused += [_refusal(o, "QW009", "changed while it was being rewritten") for o in stale]
    return report


def write_atomically(path: Path, data: bytes, root: Path | None = None) -> None:
    """Put `data` in the place of a file, so that a reader sees the old bytes or the new ones.

    Mode and, where permitted, ownership stay. A link stays a link: its target is written, unless
    that lies outside `root` (WriteError).
    """
    real = Path(os.path.realpath(path))
    if root is not None and not real.is_relative_to(os.path.realpath(root)):
        raise WriteError(f"{path}: lies outside {root}, where nothing is written")
    try:
        old = os.stat(real)
    except FileNotFoundError:
        old = None
    # A long name is cut, since a name has 255 bytes at most.
    temporary = real.with_name(f".{real.name[:50]}.quickwins-{secrets.token_hex(6)}.tmp")
    try:
        # Closed to others until it has the old file's mode; a new file gets the umask's.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(temporary, flags, 0o666 if old is None else 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if old is not None:
            _copy_owner_and_mode(old, temporary)
        os.replace(temporary, real)
    except BaseException:  # KeyboardInterrupt too: nothing of ours may lie about
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(real.parent)


def unstaged(root: Path, paths: Sequence[Path]) -> set[Path]:
    """Return those of the paths whose work tree differs from the git index.

    Staged and untracked files do not; without a git work tree, or without git, none does. Raises
    WriteError when there is a work tree and git cannot tell.
    """
    trees: defaultdict[Path, dict[str, Path]] = defaultdict(dict)
    current = _work_tree(Path.cwd())
    if "GIT_DIR" in os.environ:  # git then takes the current directory for the top level
        current = Path(os.path.realpath(os.environ.get("GIT_WORK_TREE", os.getcwd())))
    for path in paths:
        real = Path(os.path.realpath(root / path))
        tree = _work_tree(real.parent)
        if tree is None and current is not None and real.is_relative_to(current):
            tree = current
        if tree is not None:
            trees[tree][real.relative_to(tree).as_posix()] = path
    found = set()
    for tree, names in trees.items():
        # A hook's variables name the index of the commit being made, of its own repository only.
        hidden = () if tree == current else _GIT_VARIABLES
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        if "GIT_DIR" in environment:  # relative to where we are, and git will run elsewhere
            environment["GIT_DIR"] = os.path.abspath(environment["GIT_DIR"])
        if not _is_repository(tree, environment):
            continue
        for batch in _batches(list(names)):
            found |= {names[name] for name in _differing(tree, batch, environment) & names.keys()}
    return found


def _is_repository(tree: Path, environment: dict[str, str]) -> bool:
    # Asked first: where git finds no repository, `git diff A B` compares A with B.
    try:
        _git(tree, environment, "rev-parse", "--git-dir")
    except FileNotFoundError:  # git is not installed
        return False
    except WriteError as error:
        if "not a git repository" in str(error) and "GIT_DIR" not in environment:
            return False
        raise
    return True


def _differing(tree: Path, names: list[str], environment: dict[str, str]) -> set[str]:
    options = ["--name-only", "-z", "--relative", "--no-ext-diff", "--no-renames"]
    output = _git(tree, environment, "diff", *options, "--ignore-submodules", "--", *names)
    return {os.fsdecode(name) for name in output.split(b"\0") if name}


def _git(tree: Path, environment: dict[str, str], *words: str) -> bytes:
    command = ["git", "--literal-pathspecs", "-c", "core.fsmonitor=false"]
    command += ["-c", "diff.autoRefreshIndex=true", *words]
    # No optional lock: a hook may hold the index, and looking should change nothing.
    environment = {**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True
    )
    if done.returncode == 0:
        return done.stdout
    message = os.fsdecode(done.stderr).strip().partition("\n")[0]
    raise WriteError(
        f"git cannot tell which files have unstaged changes ({message});"
        " --allow-dirty goes on without asking it"
    )


def _work_tree(folder: Path) -> Path | None:
    folder = Path(os.path.realpath(folder))
    return next((p for p in (folder, *folder.parents) if os.path.lexists(p / ".git")), None)


def _batches(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _BATCH):
        yield names[start : start + _BATCH]


class _Transaction:
    """Writes that are taken back when one of them fails."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.done: list[FileOutcome] = []
        self.folders: list[Path] = []
        self.current = ""

    def __enter__(self) -> _Transaction:
        return self

    def write(self, outcome: FileOutcome) -> bool:
        """Write one outcome; say whether anything had to be."""
        path, self.current = self.root / outcome.path, outcome.path
        if outcome.after is None or _bytes(path) == outcome.after:
            return False  # another run has written the same
        for folder in reversed([p for p in path.parents if not p.exists()]):
            folder.mkdir()
            self.folders.append(folder)
        self.done.append(outcome)  # before the write: it may be interrupted after the rename
        write_atomically(path, outcome.after, self.root)
        return True

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        lost = [outcome.path for outcome in reversed(self.done) if not self._take_back(outcome)]
        for folder in reversed(self.folders):
            with suppress(OSError):  # somebody else has put a file there
                folder.rmdir()
        if isinstance(error, OSError):
            fate = f"could not take back {', '.join(lost)}" if lost else "nothing was changed"
            raise WriteError(
                f"{self.current}: cannot be written: {error.strerror or error}; {fate}"
            ) from error

    def _take_back(self, outcome: FileOutcome) -> bool:
        path = self.root / outcome.path
        try:
            if _bytes(path) != outcome.after:
                return _bytes(path) == outcome.before
            if outcome.before is None:
                path.unlink()
            else:
                write_atomically(path, outcome.before, self.root)
        except OSError:
            return False
        return True


def _target(root: Path, relative: str) -> Path:
    path = root / relative
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise WriteError(f"{relative}: lies outside {root}, where nothing is written")
    return path


def _is_as_read(path: Path, outcome: FileOutcome, root: Path) -> bool:
    """Say whether a file is still what the outcome was made from (or already what it proposes)."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return False
    now = _bytes(path)
    if now is None and os.path.lexists(path):  # a folder, a pipe, a broken link
        return False
    return now in (outcome.before, outcome.after)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _refusal(outcome: FileOutcome, code: str, message: str) -> FileOutcome:
    hint = {
        "QW007": "stage or commit the edit, or pass --allow-dirty",
        "QW009": "run `quickwins apply` again",
    }[code]
    return FileOutcome(
        outcome.path, "error", (Verdict(FILE_RULE, "refused", code, 1, 1, message, hint),)
    )


def _copy_owner_and_mode(old: os.stat_result, path: Path) -> None:
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))  # after chown, which clears set-id bits


def _sync_directory(folder: Path) -> None:
    with suppress(OSError):  # not every system can; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
