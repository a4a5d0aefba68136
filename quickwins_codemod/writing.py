"""Writing to the user's tree: all of a run or none of it, nothing unsaved lost, and taken back.

A run that was killed while it wrote is taken back by the next command, see `recover`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quickwins_codemod.disk import journal, locking
from quickwins_codemod.disk.atomic import WriteError, contents, write_atomically
from quickwins_codemod.disk.gitindex import unstaged, work_tree
from quickwins_codemod.disk.journal import Change, Journal, TakenBack
from quickwins_codemod.disk.locking import Busy
from quickwins_codemod.discovery import STATE
from quickwins_codemod.settings import FILE_RULE, short
from quickwins_codemod.verdict import FileOutcome, Verdict



@dataclass
class WriteReport:
    """written: paths relative to the root; refused: an error outcome for each file left alone."""

    written: list[str] = field(default_factory=list)
    refused: list[FileOutcome] = field(default_factory=list)


@dataclass(frozen=True)
class Recovered:
    """A run that had been killed while it wrote, and was taken back.

    what: the command that was killed, "apply" or "undo". time: when it began, ISO 8601 in UTC.
    restored: the files that are as before it, relative to the root, as in `edited`. edited: files that somebody edited since, which
    stay, each with the place of its bytes from before the run.
    """

    root: Path
    what: str
    time: str
    restored: tuple[str, ...]
    edited: tuple[tuple[str, Path], ...]


@dataclass(frozen=True)
class Undone:
    """A run that was taken back: what it was, and its files, relative to the root."""

    root: Path
    command: str
    time: str
    restored: tuple[str, ...]
    removed: tuple[str, ...]


def apply(
    outcomes: Iterable[FileOutcome], root: Path, allow_dirty: bool = False, command: str = ""
) -> WriteReport:
    """Write what the outcomes propose; the runtime's files first, since scripts import them.

    A file is refused that differs from its `before` (QW009) or, unless `allow_dirty`, from the git
    index (QW007), or that has another name outside the run (QW011). Raises WriteError when writing
    fails, after taking back what was written. command: how the user spelt the run, for `undo`.
    """
    due = [outcome for outcome in outcomes if outcome.has_change]
    with locked(root):
        recover(root)
        return _apply(due, root, allow_dirty, command)


def refusals(
    outcomes: Iterable[FileOutcome], root: Path, allow_dirty: bool = False
) -> list[FileOutcome]:
    """Return an error outcome for each file that `apply` leaves alone as it is (QW007, QW011)."""
    # The runtime's files are told from edited ones by their hash, so git is not asked.
    asked = {root / o.path: o for o in outcomes if o.has_change and o.status != "added"}
    dirty = set() if allow_dirty else unstaged(root, list(asked))
    linked = _linked_from_outside(list(asked))
    found = []
    for path, outcome in asked.items():
        if path in dirty:
            found.append(_refusal(outcome, "QW007", "has changes that are not staged"))
        elif path in linked:
            found.append(_refusal(outcome, "QW011", "has another name (a hard link)"))
    return found


def undo(root: Path) -> Undone | None:
    """Take the last run in this root back, None where there is none.

    Raises WriteError when one of its files is not as it left them, and changes nothing then.
    """
    with locked(root):
        last = journal.last(root)
        if last is None:
            return None
        changed = last.changed_since()
        if changed:
            raise WriteError(
                f"nothing was taken back, since {_named(changed)} changed after the run of"
                f" {last.time}; put {'it' if len(changed) == 1 else 'them'} back as it left"
                f" {'it' if len(changed) == 1 else 'them'}, and run again"
            )
        changes = last.reversed()
        with _Transaction(root, changes, last.command, last) as transaction:
            for number, change in enumerate(changes):
                transaction.write(number, change.after)
            transaction.journal.clean_up()
        removed = tuple(last.created())
        restored = tuple(path for path in last.paths if path not in removed)
        return Undone(root, last.command, last.time, restored, removed)


def recover(root: Path) -> Recovered | None:
    """Take back what a killed run left in this root half done, if there is such a run.

    Raises Busy where a run is still writing there, WriteError where a file cannot be restored.
    """
    if not journal.is_unfinished(root):
        return None
    with locked(root):
        try:
            journal.tidy(root)
            killed = journal.pending(root)
            if killed is None:
                return None
            back = killed.take_back()
        except OSError as error:
            raise WriteError(f"{error.filename or root}: {error.strerror or error}") from None
        what = "apply" if killed.undoes is None else "undo"
        if back.failed:
            raise WriteError(
                f"the `{what}` of {killed.time} was interrupted, and {_named(back.failed)} cannot"
                " be restored; mend what keeps it from being written, and run again"
            )
        edited = tuple((path, killed.old_copy(path)) for path in back.edited)
        return Recovered(root, what, killed.time, tuple(back.restored), edited)


def last_root(roots: Iterable[Path]) -> Path | None:
    """Return that of the roots whose last run is the latest, None where none has one."""
    times = {root: run.time for root in roots for run in [_last(root)] if run is not None}
    return max(times, key=times.__getitem__, default=None)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Be the only one that writes in the git repository of this root, or below the root.

    Raises Busy if another process does, and WriteError where that cannot be made sure.
    """
    # A copy that a trial has made is nobody else's, though it lies in the user's repository.
    folder = root if STATE in root.parts else work_tree(root) or root
    with locking.locked(folder, lambda: journal.state_folder(root) / "lock"):
        yield


def _apply(due: Sequence[FileOutcome], root: Path, allow_dirty: bool, command: str) -> WriteReport:
    report = WriteReport(refused=refusals(due, root, allow_dirty))
    kept = {outcome.path for outcome in report.refused}
    runtime = [outcome for outcome in due if outcome.status == "added"]
    scripts = []
    for outcome in due:
        path = _target(root, outcome.path)
        if outcome in runtime:
            if not _is_as_read(path, outcome, root):
                raise WriteError(f"{outcome.path}: changed meanwhile; nothing was written")
        elif outcome.path not in kept:
            scripts.append(outcome)
    stale = [outcome for outcome in scripts if not _is_as_read(root / outcome.path, outcome, root)]
    scripts = [outcome for outcome in scripts if outcome not in stale]
    if (stale or report.refused) and not scripts:
        runtime = []  # nobody would import it
    # Another run may have written the same.
    left = [o for o in (*runtime, *scripts) if contents(root / o.path) != o.after]
    if left:
        stale += _written(left, root, command, report)
    report.refused += [_refusal(o, "QW009", "changed while it was being rewritten") for o in stale]
    return report


def _written(
    outcomes: Sequence[FileOutcome], root: Path, command: str, report: WriteReport
) -> list[FileOutcome]:
    """Write the outcomes; return those whose files changed while the others were written."""
    stale = []
    changes = [Change(o.path, o.before, o.after) for o in outcomes]
    with _Transaction(root, changes, command) as transaction:
        for number, outcome in enumerate(outcomes):
            if _is_as_read(root / outcome.path, outcome, root):
                transaction.write(number, outcome.after)
                report.written.append(outcome.path)
            else:
                stale.append(number)
        if stale:
            transaction.journal.drop(stale)
    return [outcomes[number] for number in stale]


class _Transaction:
    """Changes that are taken back when one of them fails, also after a kill."""

    def __init__(
        self, root: Path, changes: Sequence[Change], command: str, undoes: Journal | None = None
    ) -> None:
        self.root, self.changes = root, changes
        self.command, self.undoes = command, undoes
        self.current = str(root / journal.STATE)

    def __enter__(self) -> _Transaction:
        try:
            journal.tidy(self.root)
            self.journal = journal.begin(self.root, self.changes, self.command, self.undoes)
        except OSError as error:
            raise WriteError(
                f"{error.filename or self.current}: cannot be written: {error.strerror or error};"
                " nothing was changed"
            ) from error
        return self

    def write(self, number: int, data: bytes | None) -> None:
        self.current = self.changes[number].path
        self.journal.write(number, data)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self.journal.commit()
                return
            except OSError as failure:
                self.current, error = str(self.journal.folder), failure
        back = self.journal.take_back()
        if isinstance(error, OSError):
            said = f"{self.current}: cannot be written: {error.strerror or error}"
            raise WriteError(f"{said}; {self._fate(back)}") from error

    def _fate(self, back: TakenBack) -> str:
        if back.failed:
            return (
                f"could not take back {_named(back.failed)}: when it can be written again,"
                " `quickwins undo` does it"
            )
        if back.edited:
            where = short(self.journal.folder)
            return (
                f"all was taken back but {_named(back.edited)}, edited meanwhile; what it held"
                f" before is in {where}"
            )
        return "nothing was changed"


def _linked_from_outside(paths: Sequence[Path]) -> set[Path]:
    """Return the files that have more names than those given; rewriting would part them."""
    found = {}
    for path in paths:
        try:
            found[path] = os.stat(path)
        except OSError:  # told later
            continue
    names = Counter((stat.st_dev, stat.st_ino) for stat in found.values())
    return {p for p, stat in found.items() if stat.st_nlink > names[stat.st_dev, stat.st_ino]}


def _last(root: Path) -> Journal | None:
    return journal.pending(root) or journal.last(root)


def _target(root: Path, relative: str) -> Path:
    path = root / relative
    if not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(root)):
        raise WriteError(f"{relative}: lies outside {root}, where nothing is written")
    return path


def _is_as_read(path: Path, outcome: FileOutcome, root: Path) -> bool:
    """Say whether a file is still what the outcome was made from (or already what it proposes)."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return False
    now = contents(path)
    if now is None and os.path.lexists(path):  # a folder, a pipe, a broken link
        return False
    return now in (outcome.before, outcome.after)


def _refusal(outcome: FileOutcome, code: str, message: str) -> FileOutcome:
    hint = {
        "QW007": "stage or commit the edit, or pass --allow-dirty",
        "QW009": "run `quickwins apply` again",
        "QW011": "make it a file of its own (`cp`, then `mv` over it), or a symbolic link",
    }[code]
    return FileOutcome(
        outcome.path, "error", (Verdict(FILE_RULE, "refused", code, 1, 1, message, hint),)
    )


def _named(paths: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + rest
