"""TOML as text: parsed, cut into its statements, and the line on which a key is set.

A statement ends with the first line at which what stands since the last one parses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def parse(text: str) -> dict[str, Any]:
    """Return what a text says, or raise ValueError."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]

    return tomllib.loads(text)


@dataclass(frozen=True)
class Statement:
    """A header, or a key with its value, or a line without either."""

    text: str
    found: dict[str, Any]
    header: bool

    @property
    def table(self) -> tuple[str, ...]:
        """The names of a header, in its order."""
        names, inner = [], self.found
        while isinstance(inner, dict) and inner:
            ((name, inner),) = inner.items()
            names.append(name)
        return tuple(names)


def statements(text: str) -> list[Statement]:
    """Cut a text that parses into its statements; together they are the text."""
    found = []
    pieces: list[str] = []
    for line in _LINE.findall(text):  # str.splitlines would cut where TOML does not
        pieces.append(line)
        whole = "".join(pieces)
        try:
            value = parse(whole)
        except ValueError:
            continue
        found.append(Statement(whole, value, whole.lstrip().startswith("[")))
        pieces = []
    if pieces:  # cannot be, in a file that parses
        found.append(Statement("".join(pieces), {}, False))
    return found


def line_of(text: str, names: Sequence[str]) -> int | None:
    """Return the line of the statement that first speaks of a key, None where none does.

    names: from the top of the document. Of a table it is the line of its header, or of a key in it
        that comes before.
    """
    table: tuple[str, ...] = ()
    line = 1
    for statement in statements(text):
        if statement.header:
            table = statement.table
        inner: Any = statement.found if statement.header else _nested(table, statement.found)
        for name in names:
            inner = inner.get(name) if isinstance(inner, dict) else None
        if inner is not None:
            return line
        line += statement.text.count("\n")
    return None


def _nested(table: Sequence[str], found: dict[str, Any]) -> dict[str, Any]:
    for name in reversed(table if found else ()):
        found = {name: found}
    return found
