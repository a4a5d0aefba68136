"""Keeps a script that runs in a copy from writing to the original tree.

Large files of the copy are links to the original. Before one is opened for writing, the link is
replaced by a copy; a folder that is a link, by a folder of links. A write by an absolute path into
the original is refused, with an error that says so. It hears of writes by Python's audit events, so
that a library which opens files by itself passes it by, and so does another process: the trial
compares the tree with what it was before, whatever is said here.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import threading
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: For each event, the arguments that are paths whose file is changed, links followed.
_FILES = {
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,),
    "os.setxattr": (0,), "os.removexattr": (0,), "shutil.rmtree": (0,), "sqlite3.connect": (0,),
}  # fmt: skip
#: … and those that only name an entry of a folder.
_ENTRIES = {
    "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.rename": (0, 1), "os.link": (1,),
    "os.symlink": (1,),
}  # fmt: skip
_MOST = 20


class Guard:
    """original, copy: the two trees. folder: the attempt's, where anything may be written."""

    def __init__(self, original: str, copy: str, folder: str) -> None:
        self.original, self.copy = os.path.realpath(original), os.path.realpath(copy)
        # Records and copies; nothing there is the user's own.
        self.home = os.path.join(self.original, ".quickwins")
        self.folder = os.path.realpath(folder)
        self.outside: dict[str, None] = {}
        self._busy = threading.local()
        home = os.path.expanduser("~")
        self._temporary = [os.path.realpath(tempfile.gettempdir()), "/dev", "/proc", "/sys"]
        self._hidden = os.path.join(os.path.realpath(home), ".")  # caches and settings

    def start(self) -> None:
        """Let the script find its own modules in the copy, and watch from now on."""
        sys.path[:] = [self._in_copy(entry) for entry in sys.path]
        for name, module in list(sys.modules.items()):
            # How setuptools finds the packages of an editable install.
            places = getattr(module, "MAPPING", None) if "__editable__" in name else None
            if isinstance(places, dict):
                places.update({key: self._in_copy(place) for key, place in places.items()})
        sys.addaudithook(self._hear)

    def found(self) -> dict[str, Any]:
        """Return what the observation says of files and modules."""
        # Not by getattr: a module that imports others when it is asked for a name would do so now.
        found = {
            name: getattr(module, "__dict__", {}).get("__file__")
            for name, module in list(sys.modules.items())
        }
        files = {
            name: os.path.realpath(path)
            for name, path in found.items()
            if isinstance(path, str) and os.path.isabs(path)
        }
        foreign = [name for name, path in files.items() if self._is_original(path)]
        imported = {
            os.path.relpath(path, self.copy).replace(os.sep, "/")
            for path in files.values()
            if _is_below(path, self.copy)
        }
        return {
            "wrote_outside": list(self.outside),
            "imported": sorted(imported),
            "foreign": sorted(foreign)[:_MOST],
        }

    def before_write(self, path: Any, flags: int = os.O_WRONLY) -> None:
        """Let a file be written: what is a link to the original becomes a copy first.

        Raises PermissionError for a file of the original tree.
        """
        full = _full(path)
        if full is None or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            if _is_below(full, self.copy):
                self._own(full, empty=bool(flags & os.O_TRUNC))
            self._allow(os.path.realpath(full))
        finally:
            self._busy.on = False

    def before_change(self, path: Any) -> None:
        """Let an entry of a folder be made, moved or removed. Raises PermissionError, too."""
        full = _full(path)
        if full is None or getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            folder, name = os.path.split(full)
            if _is_below(folder, self.copy):
                self._own(folder, empty=False)
            self._allow(os.path.join(os.path.realpath(folder), name))
        finally:
            self._busy.on = False

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if isinstance(flags, int) and flags & _WRITING:
                self.before_write(path, flags)
        elif event in _FILES:
            for index in _FILES[event]:
                self.before_write(given[index])
        elif event in _ENTRIES:
            for index in _ENTRIES[event]:
                self.before_change(given[index])

    def _own(self, path: str, empty: bool) -> None:
        """Replace links on the way to a path in the copy that lead into the original."""
        current = self.copy
        for part in os.path.relpath(path, self.copy).split(os.sep):
            current = os.path.join(current, part)
            if not os.path.islink(current):
                continue
            target = os.path.realpath(current)
            if not self._is_original(target) or not os.path.exists(target):
                continue
            temporary = f"{current}.quickwins-{os.getpid()}"
            if os.path.isdir(target):
                os.mkdir(temporary)
                for entry in os.listdir(target):
                    os.symlink(os.path.join(target, entry), os.path.join(temporary, entry))
                os.remove(current)
            elif empty and current == path:
                open(temporary, "wb").close()
                shutil.copymode(target, temporary)
            else:
                shutil.copy2(target, temporary)
            os.replace(temporary, current)

    def _allow(self, real: str) -> None:
        if any(_is_below(real, folder) for folder in (self.copy, self.folder, self.home)):
            return
        if self._is_original(real):
            raise PermissionError(
                errno.EACCES,
                "quickwins runs this script in a copy, and it would write to the original tree;"
                " let the script take the path as an argument, or a relative one",
                real,
            )
        known = any(_is_below(real, folder) for folder in self._temporary)
        if known or real.startswith(self._hidden) or "__pycache__" in real:
            return
        if len(self.outside) < _MOST:
            self.outside[real] = None

    def _is_original(self, path: str) -> bool:
        inside = _is_below(path, self.original) and not _is_below(path, self.home)
        return inside and "site-packages" not in path

    def _in_copy(self, path: Any) -> Any:
        if not isinstance(path, str) or not self._is_original(os.path.realpath(path)):
            return path
        relative = os.path.relpath(os.path.realpath(path), self.original)
        there = os.path.normpath(os.path.join(self.copy, relative))
        return there if os.path.exists(there) else path


def _full(path: Any) -> Any:
    """Return a path as absolute text, None for what is no path (a number of an open file)."""
    try:
        text = os.fsdecode(path)
    except TypeError:
        return None
    if text == ":memory:" or not text:
        return None
    return os.path.abspath(text[5:].partition("?")[0] if text.startswith("file:") else text)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
