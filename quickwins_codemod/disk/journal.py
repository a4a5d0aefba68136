"""The journal of a run: what each file held before, kept until the run is done and then for `undo`.

All of it lies in `.quickwins/` in the root of the run, which git ignores:

    new/        a journal that is being written; nothing else has happened yet
    pending/    its run is writing, or was killed while it wrote: it will be taken back
    applied/N/  the journal of a run that is done; the highest number is the last
    undone/     the journal of an undo that is done, whose `applied/N` is about to go
    trash/      what is about to go
    rescued/N/  the journal of a killed run some of whose files were edited before it was taken back

One rename takes a journal from one state to the next, so a kill finds it in one or the other.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from quickwins_codemod.disk import atomic
from quickwins_codemod.disk.atomic import WriteError
from quickwins_codemod.discovery import STATE

#: So many runs can be taken back, one after the other.
KEPT = 10
_VERSION = 1
_INDEX = "journal.json"


@dataclass(frozen=True)
class Change:
    """One file and what it is to hold: bytes before and after, None where there is no file.

    path: as reports spell it, relative to the root.
    """

    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class _Entry:
    """What the journal says of one file; its old bytes lie beside it.

    real: relative to the root, links followed. before, after: hashes. mode: of the old file.
    torn: it is written in place, so that a kill can leave a beginning of the new bytes.
    twin: the number of the entry whose file is this one by another name (a hard link).
    """

    path: str
    real: str
    before: str | None
    after: str | None
    mode: int | None = None
    torn: bool = False
    twin: int | None = None


@dataclass
class TakenBack:
    """What became of the files of a run that did not end. A file it never reached is in none."""

    restored: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


class Journal:
    """The changes of one run on disk, made one by one, and made undone."""

    def __init__(self, root: Path, folder: Path, data: dict[str, Any]) -> None:
        self.root, self.folder = root, folder
        try:
            self.word = str(data["word"])
            self.command = str(data["command"])
            self.time = str(data["time"])
            self.undoes = data["undoes"]
            self._entries = [_Entry(**entry) for entry in data["entries"]]
            self._folders = [str(folder) for folder in data["folders"]]
        except (KeyError, TypeError):
            raise _no_journal(folder) from None
        # It may have come with a repository: nothing in it leads out of the root.
        names = [*self._folders, *(entry.real for entry in self._entries if entry.real)]
        if not self.word.isalnum() or any(_leads_out(root, name) for name in names):
            raise WriteError(f"{folder}: names files outside {root}; move it away")

    @property
    def paths(self) -> list[str]:
        return [entry.path for entry in self._entries if entry.path]

    def changed_since(self) -> list[str]:
        """Return the paths of files that are not as the run left them."""
        return [e.path for e in self._entries if _hash(self._bytes(e)) != e.after]

    def created(self) -> list[str]:
        """Return the paths of files that were not there before."""
        return [entry.path for entry in self._entries if entry.path and entry.before is None]

    def reversed(self) -> list[Change]:
        """Return the changes that take this run back. Raises WriteError."""
        numbered = enumerate(self._entries)
        return [Change(e.path, self._bytes(e), self._old(n)) for n, e in numbered if e.path]

    # One run

    def write(self, number: int, data: bytes | None) -> None:
        """Make one change: the file's new bytes, or its end."""
        self._set(self._entries[number], data)

    def drop(self, numbers: Sequence[int]) -> None:
        """Leave changes out that were not made."""
        for number in numbers:
            # Its old bytes go by number, so the place stays.
            self._entries[number] = _Entry("", "", None, None)
        data = _read(self.folder)
        data["entries"] = [asdict(entry) for entry in self._entries]
        atomic.write_atomically(self.folder / _INDEX, _json(data))

    def commit(self) -> None:
        """Make it the last run; one that undoes another takes that one's journal away instead."""
        state = self.folder.parent
        if self.undoes is not None:
            self._move(state / "undone")
            _finish_undo(state)
            return
        numbers = _numbers(state / "applied")
        self._move(state / "applied" / f"{max(numbers, default=0) + 1:06d}")
        for number in sorted(numbers)[: -KEPT + 1]:
            _discard(state / "applied" / f"{number:06d}")

    def take_back(self) -> TakenBack:
        """Restore every file that the run has reached and nobody has edited since."""
        result = TakenBack()
        for number, entry in enumerate(self._entries):
            if entry.path:
                self._take_back(number, entry, result)
        if not result.failed:
            self._remove_folders()
            state = self.folder.parent
            if result.edited:
                name = f"{max(_numbers(state / 'rescued'), default=0) + 1:06d}"
                self._move(state / "rescued" / name)
            else:
                _discard(self.folder)
        return result

    def old_copy(self, path: str) -> Path:
        """Return where the old bytes of a file lie."""
        number = next(n for n, entry in enumerate(self._entries) if entry.path == path)
        return self.folder / f"{number}.before"

    def clean_up(self) -> None:
        """Remove folders that were made for files which are gone now."""
        self._remove_folders()

    def _take_back(self, number: int, entry: _Entry, result: TakenBack) -> None:
        path = self.root / entry.real
        try:
            with suppress(FileNotFoundError):
                os.unlink(atomic.temporary_beside(path, self.word))
            now = self._bytes(entry)
            is_new = _hash(now) == entry.after or (entry.torn and self._is_torn(number, now))
            if _hash(now) == entry.before:
                if entry.twin is not None:
                    self._set(entry, now)
            elif is_new:
                self._set(entry, self._old(number))
                result.restored.append(entry.path)
            else:
                result.edited.append(entry.path)
        except (OSError, WriteError):
            result.failed.append(entry.path)

    def _set(self, entry: _Entry, data: bytes | None) -> None:
        path = self.root / entry.real
        if data is None:
            path.unlink()
            _forget_bytecode(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = atomic.temporary_beside(path, self.word)
        if entry.twin is not None:
            self._join(self.root / self._entries[entry.twin].real, path, data, temporary)
        elif entry.torn:
            atomic.overwrite(path, data)
        else:
            atomic.replace(path, data, temporary, entry.mode)

    def _join(self, first: Path, path: Path, data: bytes, temporary: Path) -> None:
        """Make two names mean one file again, which the writing of the first has parted."""
        if os.path.samefile(first, path):
            return
        if atomic.contents(first) != data:  # somebody has edited it meanwhile
            atomic.replace(path, data, temporary)
            return
        os.link(first, temporary)
        os.replace(temporary, path)
        atomic.sync_folder(path.parent)

    def _bytes(self, entry: _Entry) -> bytes | None:
        return atomic.contents(self.root / entry.real) if entry.path else None

    def _old(self, number: int) -> bytes | None:
        entry = self._entries[number]
        if entry.before is None:
            return None
        data = atomic.contents(self.folder / f"{number}.before")
        if _hash(data) != entry.before:
            raise WriteError(
                f"{self.folder / f'{number}.before'}: is not what {entry.path} held before; it"
                " cannot be restored from there"
            )
        return data

    def _is_torn(self, number: int, now: bytes | None) -> bool:
        if now is None:
            return False
        # By the write itself or by its taking back.
        texts = [(self.folder / f"{number}.{word}").read_bytes() for word in ("after", "before")]
        return any(text.startswith(now) for text in texts)

    def _remove_folders(self) -> None:
        for folder in reversed(self._folders):
            with suppress(OSError):  # somebody else has put a file there
                (self.root / folder).rmdir()

    def _move(self, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        os.rename(self.folder, target)
        atomic.sync_folder(target.parent)
        atomic.sync_folder(self.folder.parent)
        self.folder = target


def begin(
    root: Path, changes: Sequence[Change], command: str = "", undoes: Journal | None = None
) -> Journal:
    """Write down what is about to be changed; the journal is pending from then on."""
    state = state_folder(root)
    folder = state / "new"
    folder.mkdir()
    twins: dict[tuple[int, int], int] = {}
    entries = []
    for number, change in enumerate(changes):
        entries.append(_entry(root, change, twins, number))
        if change.before is not None:
            _write(folder / f"{number}.before", change.before)
        if entries[-1].torn:
            _write(folder / f"{number}.after", change.after or b"")
    data = {
        "version": _VERSION,
        "word": secrets.token_hex(6),
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "command": command,
        "undoes": undoes and undoes.folder.name,
        "entries": [asdict(entry) for entry in entries],
        "folders": list(undoes._folders if undoes else _missing_folders(root, entries)),
    }
    _write(folder / _INDEX, _json(data))
    atomic.sync_folder(folder)
    os.rename(folder, state / "pending")
    atomic.sync_folder(state)
    return Journal(root, state / "pending", data)


def pending(root: Path) -> Journal | None:
    """Return the journal of a run that did not end."""
    return _load(root, root / STATE / "pending")


def last(root: Path) -> Journal | None:
    """Return the journal of the last run that is done and not taken back."""
    numbers = _numbers(root / STATE / "applied")
    return _load(root, root / STATE / "applied" / f"{max(numbers):06d}") if numbers else None


def is_unfinished(folder: Path) -> bool:
    """Tell whether a run was killed here; where none ever was, that costs one look at the disk."""
    state = folder / STATE
    if not state.is_dir() or state.is_symlink():
        return False
    left = any(os.path.lexists(state / name) for name in ("pending", "new", "undone", "trash"))
    return left or _is_in_the_open(state)


def tidy(root: Path) -> None:
    """Remove what a killed run left in the state folder, but for its journal."""
    state = root / STATE
    if not is_unfinished(root):
        return
    _ignore(state)
    if (state / "undone").exists():
        _finish_undo(state)
    for name in ("new", "trash"):
        if (state / name).exists():
            shutil.rmtree(state / name)


def state_folder(root: Path) -> Path:
    """Return the folder for what the tool keeps in a root, made where there is none."""
    state = root / STATE
    if os.path.lexists(state) and (state.is_symlink() or not state.is_dir()):
        raise WriteError(f"{state}: is no folder of quickwins; move it away")
    state.mkdir(exist_ok=True)
    _ignore(state)
    return state


def _ignore(state: Path) -> None:
    if _is_in_the_open(state):
        (state / ".gitignore").write_bytes(b"*\n")


def _is_in_the_open(state: Path) -> bool:
    """Tell whether git sees the folder: also where a kill has left the file empty."""
    try:
        return not os.stat(state / ".gitignore").st_size
    except FileNotFoundError:
        return True


def _leads_out(root: Path, name: str) -> bool:
    path = os.path.normpath(os.path.join(root, name))
    # The folder, since what stands in the place of a file is replaced and not followed.
    real = os.path.realpath(os.path.dirname(path))
    return not Path(real).is_relative_to(os.path.realpath(root)) or path == os.path.dirname(path)


def _entry(
    root: Path, change: Change, twins: dict[tuple[int, int], int], number: int
) -> _Entry:
    real = Path(os.path.realpath(root / change.path))
    relative = real.relative_to(os.path.realpath(root)).as_posix()
    hashes = _hash(change.before), _hash(change.after)
    try:
        old = os.stat(real)
    except FileNotFoundError:
        return _Entry(change.path, relative, *hashes)
    twin = twins.setdefault((old.st_dev, old.st_ino), number) if old.st_nlink > 1 else number
    return _Entry(
        change.path,
        relative,
        *hashes,
        mode=stat.S_IMODE(old.st_mode),
        torn=change.after is not None and atomic.would_change_owner(old),
        twin=None if twin == number else twin,
    )


def _missing_folders(root: Path, entries: Sequence[_Entry]) -> Iterator[str]:
    """Name the folders that must be made, outer ones first."""
    seen = set()
    for entry in entries:
        parents = [p for p in (root / entry.real).parents if p.is_relative_to(root)]
        for folder in reversed(parents):
            if folder not in seen and not folder.exists():
                seen.add(folder)
                yield folder.relative_to(root).as_posix()


def _forget_bytecode(path: Path) -> None:
    """Remove what Python compiled from a module that is gone; it would keep the folder alive."""
    cache = path.parent / "__pycache__"
    for compiled in cache.glob(f"{glob.escape(path.stem)}.*.pyc"):
        with suppress(OSError):
            compiled.unlink()
    with suppress(OSError):
        cache.rmdir()


def _load(root: Path, folder: Path) -> Journal | None:
    if not os.path.lexists(folder):
        return None
    return Journal(root, folder, _read(folder))


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    try:
        data = json.loads(path.read_bytes())
        if data["version"] == _VERSION:
            return data
        said = f"was written by another version of quickwins ({data['version']})"
    except OSError as error:
        said = f"cannot be read: {error.strerror or error}"
    except (ValueError, KeyError, TypeError):
        raise _no_journal(folder) from None
    raise WriteError(f"{path}: {said}; move {folder} away to go on without it")


def _no_journal(folder: Path) -> WriteError:
    return WriteError(f"{folder / _INDEX}: is no journal of quickwins; move {folder} away")


def _json(data: dict[str, Any]) -> bytes:
    # In ASCII, where the surrogates that stand for odd bytes in names are kept.
    return json.dumps(data, indent=1).encode("ascii")


def _write(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _finish_undo(state: Path) -> None:
    number = str(_read(state / "undone")["undoes"])
    if number.isdigit():
        _discard(state / "applied" / number)
    _discard(state / "undone")


def _discard(folder: Path) -> None:
    if not folder.exists():
        return
    trash = folder.parent / "trash" if folder.parent.name == STATE else folder.parent.parent / "trash"
    if trash.exists():
        shutil.rmtree(trash)
    os.rename(folder, trash)
    shutil.rmtree(trash)


def _numbers(folder: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder) if name.isdigit()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _hash(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()
