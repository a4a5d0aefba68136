"""A copy of a repository to run a script in: small files copied, large ones linked, none written.

The copy lies below the original, in `.quickwins/`, so that a script which asks git finds its
repository. Beside it stand links to what stands beside the original, so that `../data` is found.
Links lead to the original's bytes: what keeps a script from writing through them is
`child/guard.py`, and `fingerprint` tells afterwards whether anything was written all the same.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from quickwins_codemod.discovery import SKIPPED, STATE, SUFFIXES

#: Files up to this size are copied: code, configuration, small data and what a script rewrites.
SMALL = 2**20
#: A folder with more files than this, and no code in it, is linked as a whole.
MANY = 500
_LEFT_OUT = SKIPPED | {"wandb", ".venv", ".pytest_cache"}


class WorkspaceError(Exception):
    """A copy that cannot be made; its text is one line for the user."""


@dataclass(frozen=True)
class Layout:
    """What a copy of a tree consists of, from its root, with forward slashes; looked at once.

    links: files and folders that become links to the original. own: links of the tree's own, with
    where they lead.
    """

    root: Path
    folders: tuple[str, ...]
    files: tuple[str, ...]
    links: tuple[str, ...]
    own: tuple[tuple[str, str], ...]

    def copy(self, place: Path) -> Path:
        """Make a copy below a folder, and return its root. Raises WorkspaceError."""
        target = place / (self.root.name or "root")
        try:
            target.mkdir(parents=True)
            for folder in self.folders:
                (target / folder).mkdir()
            for file in self.files:
                shutil.copy2(self.root / file, target / file)
            for link in self.links:
                _link(self.root / link, target / link)
            for link, leads_to in self.own:
                _link(Path(leads_to), target / link)
            self._surround(place)
        except OSError as error:
            raise WorkspaceError(f"{error.filename}: cannot be copied: {error.strerror}") from None
        return target

    def _surround(self, place: Path) -> None:
        with os.scandir(self.root.parent) as entries:
            names = [entry.name for entry in entries]
        for name in names if len(names) <= MANY else ():
            if not (place / name).exists():
                _link(self.root.parent / name, place / name)


def layout(root: Path) -> Layout:
    """Look at a tree: what is copied, what is linked, what is left out (environments, `.git`)."""
    folders: list[str] = []
    files: list[str] = []
    links: list[str] = []
    own: list[tuple[str, str]] = []

    def look(folder: Path, base: str) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = f"{base}{entry.name}"
            if entry.name in _LEFT_OUT:
                continue
            if entry.is_symlink():
                own.append((path, _target(Path(entry.path), root)))
            elif entry.is_dir():
                if _is_environment(entry.path):
                    continue
                if _is_bulk(Path(entry.path)):
                    links.append(path)
                else:
                    folders.append(path)
                    look(Path(entry.path), f"{path}/")
            elif entry.is_file():
                small = entry.stat().st_size <= SMALL or entry.name.endswith(SUFFIXES)
                (files if small else links).append(path)

    try:
        look(root, "")
    except OSError as error:
        raise WorkspaceError(f"{error.filename}: cannot be read: {error.strerror}") from None
    return Layout(root, tuple(folders), tuple(files), tuple(links), tuple(own))


def fingerprint(root: Path) -> dict[str, tuple[int, ...]]:
    """Return size, time, number and mode of every file of a tree, as far as a copy has it."""
    found: dict[str, tuple[int, ...]] = {}
    for path, about in _walk(root, ""):
        found[path] = (about.st_size, about.st_mtime_ns, about.st_ino, about.st_mode)
    return found


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the paths that were added, removed or written between two fingerprints."""
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


def remove(place: Path) -> None:
    """Remove a copy; links are removed, and what they lead to is not."""

    def again(function: object, path: str, _: object) -> None:
        with suppress(OSError):  # of a script that took the right to write from a folder
            os.chmod(os.path.dirname(path), 0o700)
            os.chmod(path, 0o700)
            os.remove(path) if not os.path.isdir(path) else shutil.rmtree(path)

    if place.exists():
        shutil.rmtree(place, onerror=again)


def moved(words: Sequence[str], root: Path, copy: Path, folder: Path) -> list[str]:
    """Return a script's arguments for a run in the copy.

    An absolute path into the tree leads into the copy then, also as `--name=PATH`. A relative one
    leads there by itself, unless it leaves the tree; that becomes absolute if there is such a file.
    folder: the current one, in the original.
    """
    return [_moved(word, root, copy, folder) for word in words]


def moved_environment(environment: Mapping[str, str], root: Path, copy: Path) -> dict[str, str]:
    """Return the environment with paths into the tree led into the copy, where they exist there."""

    def one(word: str) -> str:
        target = _in_copy(word, root, copy)
        return target if target is not None and os.path.exists(target) else word

    return {
        name: os.pathsep.join(map(one, value.split(os.pathsep))) if str(root) in value else value
        for name, value in environment.items()
    }


def _moved(word: str, root: Path, copy: Path, folder: Path) -> str:
    name, equals, value = word.partition("=")
    if not (equals and name.startswith("-")):
        name, equals, value = "", "", word
    target = _in_copy(value, root, copy)
    if target is None and ".." in value.replace("\\", "/").split("/"):
        full = os.path.normpath(folder / value)
        inside = Path(full).is_relative_to(root)
        target = None if inside or not os.path.lexists(full) else full
    return word if target is None else f"{name}{equals}{target}"


def _in_copy(path: str, root: Path, copy: Path) -> str | None:
    if not os.path.isabs(path):
        return None
    real = Path(os.path.realpath(path)) if os.path.exists(path) else Path(os.path.normpath(path))
    for full in (Path(os.path.normpath(path)), real):
        if full.is_relative_to(root) and not full.is_relative_to(root / STATE):
            inside = copy / full.relative_to(root)
            return f"{inside}{os.sep}" if path.endswith(os.sep) else str(inside)
    return None


def _walk(folder: Path, base: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # gone, or not ours to read: the copy has nothing of it either
        return
    for entry in entries:
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_dir(follow_symlinks=False):
            if not _is_environment(entry.path):
                yield from _walk(Path(entry.path), f"{base}{entry.name}/")
            continue
        with suppress(OSError):
            yield f"{base}{entry.name}", entry.stat(follow_symlinks=False)


def _is_environment(folder: str) -> bool:
    """Tell whether a folder is a virtual environment, or one of conda's."""
    return any(os.path.exists(os.path.join(folder, name)) for name in ("pyvenv.cfg", "conda-meta"))


def _is_bulk(folder: Path) -> bool:
    count = 0
    for path, about in _walk(folder, ""):
        if path.endswith(SUFFIXES) or stat.S_ISLNK(about.st_mode):
            return False
        count += 1
    return count > MANY


def _target(link: Path, root: Path) -> str:
    """Return where a link of the tree leads: relative inside of it, absolute outside."""
    leads_to = os.readlink(link)
    full = Path(os.path.normpath(link.parent / leads_to))
    if full.is_relative_to(root):
        return os.path.relpath(full, link.parent)
    return str(full)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError:
        if os.name != "nt" or not source.is_file():  # Windows asks for a right
            raise
        shutil.copy2(source, target)
