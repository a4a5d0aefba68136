"""What the parts of Python text are, line by line: keyword, string, comment … It knows no HTML."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

from pygments.lexers.python import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String

#: One word for each look; the first that fits is taken, and all else is plain.
KINDS = ("keyword", "string", "comment", "number", "definition", "builtin", "decorator")
_FITS = (
    (Comment, "comment"),
    (String, "string"),
    (Number, "number"),
    (Keyword, "keyword"),
    (Operator.Word, "keyword"),
    (Name.Builtin, "builtin"),
    (Name.Exception, "builtin"),
    (Name.Function, "definition"),
    (Name.Class, "definition"),
    (Name.Decorator, "decorator"),
)
#: A comment or a string, closed or not; only a string with three quotes or a backslash has lines.
_STRINGS = re.compile(
    r"""\#[^\n]*
    | \"\"\"(?:[^"\\]+|\\.|"(?!""))*(?:\"\"\")?
    | '''(?:[^'\\]+|\\.|'(?!''))*(?:''')?
    | "(?:[^"\\\n]+|\\.)*"?
    | '(?:[^'\\\n]+|\\.)*'?""",
    re.DOTALL | re.VERBOSE,
)

#: A longer line is data; it is left plain, since to colour it takes a second for each 50 kB.
_LONG = 5_000

#: A stretch of one line and its kind, None where it is plain.
Piece = tuple["str | None", str]


def pieces(lines: Sequence[str], shown: Iterable[range]) -> dict[int, list[Piece]]:
    """Return the pieces of the lines that are shown, by their number from 1; joined, they are it.

    lines: all of the file, without their ends. Whether a line begins within a string is known from
    them; apart from that, what stands above a line does not change what it is made of.
    """
    wanted = sorted({n for some in shown for n in some if n <= len(lines)})
    found: dict[int, list[Piece]] = {
        n: [(None, lines[n - 1])] for n in wanted if len(lines[n - 1]) > _LONG
    }
    within = _within_strings(lines)
    for first, last in _runs(n for n in wanted if n not in found):
        start = within.get(first, first)
        part = dict(zip(range(start, last + 1), _lexed("\n".join(lines[start - 1 : last]))))
        found.update((n, part[n]) for n in range(first, last + 1))
    return found


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the first and last of each run of numbers that follow one another."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run[0], run[-1]
            run = []
        run.append(number)
    if run:
        yield run[0], run[-1]


def _within_strings(lines: Sequence[str]) -> dict[int, int]:
    """Return each line that begins within a string, with the line that the string begins on."""
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    within = {}
    for match in _STRINGS.finditer("\n".join(lines)):
        first = bisect_right(starts, match.start())
        within.update(dict.fromkeys(range(first + 1, bisect_right(starts, match.end()) + 1), first))
    return within


def _lexed(text: str) -> Iterator[list[Piece]]:
    line: list[Piece] = []
    for _, token, value in PythonLexer().get_tokens_unprocessed(text):
        kind = _kind(token)
        for number, part in enumerate(value.split("\n")):
            if number:
                yield line
                line = []
            if part:
                _add(line, kind, part)
    yield line


def _add(line: list[Piece], kind: str | None, part: str) -> None:
    if line and line[-1][0] == kind:
        line[-1] = (kind, line[-1][1] + part)
    else:
        line.append((kind, part))


@cache
def _kind(token: Any) -> str | None:
    return next((kind for type_, kind in _FITS if token in type_), None)
