"""Two versions of a file side by side: the hunks of its diff as rows of lines that belong together.

It knows no HTML. The hunks are those of the unified diff, so each of its lines is here once, in its
order. Where lines gave way to others, those that are alike share a row, with the words that differ.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, zip_longest
from pathlib import Path

from quickwins_codemod.source import SourceError, decode

#: Lines of which at least so much is the same share a row.
_ALIKE = 0.4
#: A block with more pairs of lines than this is paired from its top, which takes linear time.
_PAIRS = 10_000
#: Words are compared in lines up to so many of them, since the time grows with their square.
_WORDS = 400
_WORD = re.compile(r"\w+|\s|[^\w\s]")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Line:
    """One line of one version.

    number: counted from 1, by the newlines that git counts. ending: what closes it, empty at the
    end of a file that lacks a newline. differs: the parts of the text, by start and end, that the
    line beside it has not.
    """

    number: int
    text: str
    ending: str
    differs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Row:
    """A line before and the line after that it became; one of them may be missing."""

    old: Line | None
    new: Line | None


@dataclass(frozen=True)
class Block:
    """Rows that are all the same in both versions, or all changed.

    old, new: the lines of either version, by number.
    """

    changed: bool
    rows: tuple[Row, ...]
    old: range
    new: range


@dataclass(frozen=True)
class Hunk:
    """Changes that stand close together, with the lines around them."""

    blocks: tuple[Block, ...]

    @property
    def old(self) -> range:
        return range(self.blocks[0].old.start, self.blocks[-1].old.stop)

    @property
    def new(self) -> range:
        return range(self.blocks[0].new.start, self.blocks[-1].new.stop)


@dataclass(frozen=True)
class Version:
    """The lines of one version of a file, cut where git cuts them and decoded as Python does."""

    data: bytes

    @cached_property
    def encoding(self) -> str | None:
        """What the bytes are valid in, by Python's own rules; None where there is nothing."""
        try:
            return decode(Path(), self.data).encoding
        except SourceError:
            return None

    @cached_property
    def raw(self) -> list[bytes]:
        parts = self.data.split(b"\n")
        lines = [part + b"\n" for part in parts[:-1]]
        return [*lines, parts[-1]] if parts[-1] else lines

    @cached_property
    def lines(self) -> list[Line]:
        return [Line(number, *_ended(text)) for number, text in enumerate(self._texts, 1)]

    @cached_property
    def endings(self) -> set[str]:
        return {line.ending for line in self.lines if line.ending}

    def line_of(self, number: int) -> int:
        """Return the number of a line that Python counts, which also cuts at a lone CR."""
        return self._numbers[number - 1] if 0 < number <= len(self._numbers) else number

    @cached_property
    def _numbers(self) -> list[int]:
        """The number of each line of Python's, where it is another one."""
        if b"\r" not in self.data.replace(b"\r\n", b""):
            return []
        return [line.number for line in self.lines for _ in range(1 + line.text.count("\r"))]

    @cached_property
    def _texts(self) -> list[str]:
        if self.encoding is not None:
            # Only the ends of lines are ASCII in every encoding that Python takes for source.
            parts = re.split("(?<=\n)", decode(Path(), self.data).text)
            texts = parts if parts[-1] else parts[:-1]
            if len(texts) == len(self.raw):
                return texts
        return [line.decode("utf-8", "surrogateescape") for line in self.raw]


def hunks(old: Version, new: Version, context: int = 3) -> list[Hunk]:
    """Return the hunks that a unified diff with so much context has."""
    if old.raw == new.raw:
        return []
    matcher = difflib.SequenceMatcher(None, old.raw, new.raw)
    return [
        Hunk(tuple(_block(old, new, *opcode) for opcode in group))
        for group in matcher.get_grouped_opcodes(context)
    ]


def _ended(text: str) -> tuple[str, str]:
    for ending in ("\r\n", "\n"):
        if text.endswith(ending):
            return text.removesuffix(ending), ending
    return text, ""


def _block(
    old: Version, new: Version, tag: str, start: int, end: int, new_start: int, new_end: int
) -> Block:
    before, after = old.lines[start:end], new.lines[new_start:new_end]
    if tag == "equal":
        rows = [Row(*lines) for lines in zip(before, after)]
    else:
        pairs = _paired([line.text for line in before], [line.text for line in after])
        rows = [
            Row(*_with_words(
                None if one is None else before[one], None if other is None else after[other]
            ))
            for one, other in pairs
        ]
    spans = range(start + 1, end + 1), range(new_start + 1, new_end + 1)
    return Block(tag != "equal", tuple(rows), *spans)


def _paired(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int | None, int | None]]:
    """Pair the lines of two blocks in their order; what lies between like lines, from its top."""
    done, new_done = 0, 0
    for one, other in [*_alike(old, new), (len(old), len(new))]:
        yield from zip_longest(range(done, one), range(new_done, other))
        if one < len(old):
            yield one, other
        done, new_done = one + 1, other + 1


def _alike(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs of like lines, none of which cross, that are most alike in all."""
    if not old or not new or len(old) * len(new) > _PAIRS:
        return []
    words, new_words = [_weights(line) for line in old], [_weights(line) for line in new]
    # best[i][j]: what the lines from i and from j on can give at most
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    gain = [[_likeness(one, other) for other in new_words] for one in words]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            paired = gain[i][j] + best[i + 1][j + 1] if gain[i][j] else 0.0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if gain[i][j] and best[i][j] == gain[i][j] + best[i + 1][j + 1]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _weights(line: str) -> Counter[str]:
    """Count the words of a line; one that says something weighs more than a sign."""
    return Counter({
        word: number * (3 if word[0].isalnum() or word[0] == "_" else 1)
        for word, number in Counter(_WORD.findall(line)).items()
        if not word.isspace()
    })


def _likeness(one: Counter[str], other: Counter[str]) -> float:
    if not one and not other:  # both lines are empty
        return 1.0
    share = 2 * (one & other).total() / (one.total() + other.total())
    return share if share >= _ALIKE else 0.0


def _with_words(old: Line | None, new: Line | None) -> tuple[Line | None, Line | None]:
    """Note in two lines that share a row the words that differ, where the rest is alike."""
    if old is None or new is None:
        return old, new
    if not _likeness(_weights(old.text), _weights(new.text)):
        return old, new
    # Of two indentations, the inner part of the deeper one is new.
    indents = [len(text) - len(text.lstrip()) for text in (old.text, new.text)]
    words, new_words = (
        _WORD.findall(text[indent:]) for text, indent in zip((old.text, new.text), indents)
    )
    if max(len(words), len(new_words)) > _WORDS:
        return old, new
    shared = len(os.path.commonprefix([old.text[: indents[0]], new.text[: indents[1]]]))
    matcher = difflib.SequenceMatcher(None, words, new_words, autojunk=False)
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    return (
        replace(old, differs=_spans(old.text, shared, words, [code[1:3] for code in changes])),
        replace(new, differs=_spans(new.text, shared, new_words, [code[3:5] for code in changes])),
    )


def _spans(
    text: str, shared: int, words: Sequence[str], changes: Sequence[tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    """Turn ranges of the words below an indentation into ranges of a line's characters.

    shared: so much of the indentation is the same. Ranges with but a space between become one.
    """
    starts = list(accumulate(map(len, words), initial=len(text) - sum(map(len, words))))
    spans = [(shared, starts[0])] if shared < starts[0] else []
    for first, last in changes:
        start, end = starts[first], starts[last]
        if start == end:
            continue
        if spans and _SPACE.fullmatch(text, spans[-1][1], start):
            start = spans.pop()[0]
        spans.append((start, end))
    return tuple(spans)
