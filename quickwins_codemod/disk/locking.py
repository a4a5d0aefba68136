"""One writer at a time: a lock on a folder, which the system takes back from a process that dies.

Where folders can be locked nothing is written for it. Elsewhere (Windows, some network disks) a
file in the folder's `.quickwins/` is locked, and stays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quickwins_codemod.disk.atomic import WriteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
#: The descriptor and the number of holders of each folder that this process has locked.
_held: dict[str, list[int]] = {}


class Busy(WriteError):
    """Another process has the lock."""


@contextmanager
def locked(folder: Path, lock_file: Callable[[], Path]) -> Iterator[None]:
    """Hold the lock of a folder, alone among all processes; this one may take it again.

    lock_file: makes the file that is locked where a folder cannot be. Raises Busy at once if
    another process holds it, WriteError where nothing can be locked.
    """
    key = os.path.realpath(folder)
    if key not in _held:
        _held[key] = [_take(folder, lock_file), 0]
    entry = _held[key]
    entry[1] += 1
    try:
        yield
    finally:
        entry[1] -= 1
        if not entry[1]:
            del _held[key]
            os.close(entry[0])


def _take(folder: Path, lock_file: Callable[[], Path]) -> int:
    try:
        if fcntl is not None:
            with suppress(_Unsupported):
                return _locked_descriptor(folder, os.O_RDONLY)
        return _locked_descriptor(lock_file(), os.O_RDWR | os.O_CREAT)
    except _Unsupported as error:
        raise WriteError(f"{folder}: cannot be locked: {error}") from None
    except OSError as error:
        raise WriteError(f"{folder}: cannot be locked: {error.strerror or error}") from None


class _Unsupported(Exception):
    """A file system that cannot lock this."""


def _locked_descriptor(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags, 0o666)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return descriptor
    except OSError as error:
        os.close(descriptor)
        if error.errno in _BUSY:
            raise Busy(
                f"another quickwins is writing in {path if path.is_dir() else path.parents[1]};"
                " wait until it has ended, and run again"
            ) from None
        raise _Unsupported(error.strerror) from None


def _let_go() -> None:
    # A forked worker has a copy of each descriptor, and would hold the lock for a parent that died.
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
