"""Writing to the two streams so that nothing about them can end in a traceback.

A stream may be closed (`>&-`), closed early (`| head`), unable to show a character, or no terminal.
"""

from __future__ import annotations

import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes longer to import than all that this module needs
    from typing import TextIO

_STYLES = {
    "good": "\x1b[32m",
    "bad": "\x1b[31m",
    "note": "\x1b[33m",
    "place": "\x1b[36m",
    "head": "\x1b[1m",
}
_RESET = "\x1b[0m"
#: Control characters in a source would drive the terminal; shown as git and less show them.
_CARETS = {code: f"^{chr(code ^ 64)}" for code in (*range(32), 127) if code not in (9, 10)}


class OutputError(Exception):
    """A stream that cannot be written to, though its reader is still there."""


def replace_closed() -> None:
    """Put something harmless where a stream was closed before the start; click expects one."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  it lives as long as we do


def out(data: str | bytes) -> None:
    """Write to standard output."""
    _write(sys.stdout, data)


def err(text: str) -> None:
    """Write to standard error."""
    _write(sys.stderr, text)


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person reads this stream directly."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def visible(text: str) -> str:
    """Return a text with the control characters shown that are in it."""
    return text.translate(_CARETS)


class Paint:
    """Colours for one stream: none unless it is a terminal and nobody asked for none."""

    def __init__(self, on: bool = False) -> None:
        self.on = on

    @classmethod
    def of(cls, stream: TextIO | None) -> Paint:
        asked_not = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(is_terminal(stream) and not asked_not)

    def __call__(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self.on and text else text

    def diff(self, text: str) -> str:
        """Colour a diff for a terminal, and show the control characters that are in it."""
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return "".join(self._diff_line(line) + "\n" for line in text.split("\n")[:-1])

    def _diff_line(self, line: str) -> str:
        line = visible(line.removesuffix("\r"))
        if line.startswith(("diff --git ", "--- ", "+++ ", "new file ")):
            return self("head", line)
        for mark, style in (("@", "place"), ("+", "good"), ("-", "bad"), ("\\", "note")):
            if line.startswith(mark):
                return self(style, line)
        return line


def _write(stream: TextIO | None, data: str | bytes) -> None:
    if stream is None:
        return
    try:
        if isinstance(data, bytes):
            stream.flush()
            stream.buffer.write(data)
            stream.buffer.flush()
        else:
            encoding = stream.encoding or "utf-8"
            stream.write(data.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
    except OSError as error:
        # Windows says EINVAL for a pipe whose reader is gone.
        silence(stream)
        if error.errno not in (errno.EPIPE, errno.EINVAL):
            raise OutputError(f"cannot write the output: {error.strerror}") from None


def silence(stream: TextIO) -> None:
    """Send the rest, and what Python flushes at exit, where nobody minds."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no real stream, as in tests
        pass
