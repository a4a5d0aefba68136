"""One file put in the place of another, so that no reader and no crash sees half of it."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


class WriteError(Exception):
    """A run that could not be written; its text is one line for the user."""


def write_atomically(path: Path, data: bytes, root: Path | None = None) -> None:
    """Put `data` in the place of a file, so that a reader sees the old bytes or the new ones.

    Mode, extended attributes and, where permitted, ownership stay. A link stays a link: its target
    is written, unless that lies outside `root` (WriteError).
    """
    real = Path(os.path.realpath(path))
    if root is not None and not real.is_relative_to(os.path.realpath(root)):
        raise WriteError(f"{path}: lies outside {root}, where nothing is written")
    temporary = temporary_beside(real, secrets.token_hex(6))
    try:
        replace(real, data, temporary)
    except BaseException:  # KeyboardInterrupt too: nothing of ours may lie about
        with suppress(OSError):
            os.unlink(temporary)
        raise


def temporary_beside(path: Path, word: str) -> Path:
    """Return the name under which a file's new bytes are collected, on the same disk."""
    # A long name is cut, since a name has 255 bytes at most.
    return path.with_name(f".{path.name[:50]}.quickwins-{word}.tmp")


def replace(path: Path, data: bytes, temporary: Path, mode: int | None = None) -> None:
    """Write `data` to `temporary` and let it take the place of `path`; an error leaves it there.

    mode: of a file that is not there; by default what the umask gives.
    """
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    # Closed to others until it has the old file's mode; a new file gets the umask's.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    _fill(os.open(temporary, flags, 0o666 if old is None else 0o600), data)
    if old is not None:
        _copy_attributes(path, old, temporary)
    elif mode is not None:
        os.chmod(temporary, mode)
    os.replace(temporary, path)
    sync_folder(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """Write into the file itself: not atomic, for a file that must stay somebody else's."""
    flags = os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    _fill(os.open(path, flags), data)


def would_change_owner(old: os.stat_result) -> bool:
    """Tell whether a file of ours in the place of this one would belong to somebody else."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return False
    groups = {os.getegid(), *os.getgroups()}
    return old.st_uid != os.geteuid() or old.st_gid not in groups


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder outlive a power cut."""
    with suppress(OSError):  # not every system can; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def contents(path: Path) -> bytes | None:
    """Return the bytes of a regular file, None where there is none or it cannot be read."""
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _fill(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_attributes(path: Path, old: os.stat_result, new: Path) -> None:
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(new, old.st_uid, old.st_gid)
    os.chmod(new, stat.S_IMODE(old.st_mode))  # after chown, which clears set-id bits
    if hasattr(os, "listxattr"):  # access lists of Linux are among them
        with suppress(OSError):
            for name in os.listxattr(path):
                with suppress(OSError):  # one that only the system may set
                    os.setxattr(new, name, os.getxattr(path, name))
