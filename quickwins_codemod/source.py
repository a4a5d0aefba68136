"""One Python file between bytes and text: encoding, byte-order mark and line endings kept."""

from __future__ import annotations

import codecs
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path


class SourceError(Exception):
    """A file that cannot be taken up; `code` is the QW0xx that says why."""

    def __init__(self, code: str, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.code, self.message, self.line, self.column = code, message, line, column


@dataclass(frozen=True)
class Source:
    """The text of one file, and what it takes to write it back byte for byte."""

    path: Path
    data: bytes
    text: str
    encoding: str

    def encode(self, text: str) -> bytes:
        """Turn rewritten text back into this file's encoding and byte-order mark."""
        body = text.encode("utf-8" if self.encoding == "utf-8-sig" else self.encoding)
        return codecs.BOM_UTF8 + body if self.encoding == "utf-8-sig" else body


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file, or raise SourceError (QW003)."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError("QW003", f"cannot be read: {error.strerror or error}") from None


def decode(path: Path, data: bytes) -> Source:
    """Decode as Python does (PEP 263), or raise SourceError (QW002)."""
    if b"\x00" in data:
        line = data[: data.index(b"\x00")].count(b"\n") + 1
        raise SourceError("QW002", "contains a NUL byte, which Python does not accept", line)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        # tokenize reads the first two lines only, and says of a bad byte there no more than this.
        line = 1 + (b"coding" not in data.split(b"\n", 1)[0] and b"coding" in data[:400])
        raise SourceError("QW002", f"cannot be decoded: {error.msg}", line) from None
    body = data[len(codecs.BOM_UTF8) :] if encoding == "utf-8-sig" else data
    try:
        text = body.decode("utf-8" if encoding == "utf-8-sig" else encoding)
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise SourceError("QW002", f"is not valid {encoding}: byte {error.start}", line) from None
    return Source(path, data, text, encoding)
