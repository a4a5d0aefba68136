"""Lines of code as HTML: syntax, the words that differ, and characters that do not show or deceive.

A character that is no part of what one sees, such as one that turns the direction of writing, is
spelled out, so that the page shows what the interpreter reads.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from quickwins_codemod.report.sidebyside import Block, Line, Row, Version
from quickwins_codemod.report.syntax import KINDS, Piece, pieces

_INDENT = "indent"
#: The class of each kind in the page, short since a page has many thousands.
CLASSES = dict(zip((*KINDS, _INDENT), "kscnfbaw"))
#: Letters by their category that show as nothing.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")


class Code:
    """One version of a file, and its lines that are to be shown."""

    def __init__(
        self, version: Version, shown: Iterable[range], show_endings: bool = False
    ) -> None:
        self._show_endings = show_endings
        self._pieces = pieces([line.text for line in version.lines], shown)

    def of(self, line: Line) -> str:
        """Return the text of a line."""
        shown = marked(self._pieces[line.number], line.differs)
        if self._show_endings and line.ending == "\r\n":
            shown += hidden("\r")
        if not line.ending:
            shown += ' <span class="u">no newline at the end</span>'
        return shown


def side_by_side(blocks: Sequence[Block], old: Code, new: Code) -> Iterator[str]:
    """Return a table of two columns, before and after, with a body for each block."""
    yield '<table class="code two"><thead><tr><th scope="col"><span class="v">before</span></th>'
    yield '<th scope="col"><span class="v">after</span></th></tr></thead>'
    for block in blocks:
        yield '<tbody class="changed">' if block.changed else "<tbody>"
        for row in block.rows:
            yield f"<tr>{_old(row, block, old)}{_new(row, block, new)}</tr>"
        yield "</tbody>"
    yield "</table>"


def one_sided(lines: Sequence[Line], code: Code, pointed: int = 0) -> Iterator[str]:
    """Return a table of one column; the pointed line is the one that a text speaks of."""
    yield '<table class="code one"><tbody>'
    for line in lines:
        kind = ' class="at"' if line.number == pointed else ""
        yield f"<tr><td{kind}>{_number(line)}{code.of(line)}</td></tr>"
    yield "</tbody></table>"


def visible(text: str) -> str:
    """Return foreign text as it stands, with what does not show spelled out."""
    if text.isascii() and text.isprintable():
        return html.escape(text)
    return "".join(
        html.escape(letter)
        if (letter.isprintable() and letter not in _BLANK) or letter == "\t"
        else hidden(letter)
        for letter in text
    )


def hidden(letter: str) -> str:
    """Spell a character that does not show."""
    point = ord(letter)
    if point < 32 or point == 127:
        spelled = f"^{chr(point ^ 64)}"
    elif 0xDC80 <= point <= 0xDCFF:  # a byte that is no text in the file's encoding
        spelled = f"\\x{point - 0xDC00:02x}"
    else:
        spelled = f"U+{point:04X}"
    name = html.escape(unicodedata.name(letter, "a character that does not show"))
    return f'<span class="u" title="{name}">{spelled}</span>'


def _old(row: Row, block: Block, code: Code) -> str:
    line = row.old
    if line is None:
        return "<td></td>"
    if not block.changed:
        return f"<td>{_number(line)}{code.of(line)}</td>"
    sign = '<i>-<span class="v"> removed: </span></i>'
    return f'<td class="d">{_number(line)}{sign}<del>{code.of(line)}</del></td>'


def _new(row: Row, block: Block, code: Code) -> str:
    line = row.new
    if line is None:
        return "<td></td>"
    if not block.changed:
        return f"<td>{_number(line)}{code.of(line)}</td>"
    sign = '<i>+<span class="v"> added: </span></i>'
    return f'<td class="a">{_number(line)}{sign}<ins>{code.of(line)}</ins></td>'


def _number(line: Line) -> str:
    return f"<b>{line.number}</b>"


def marked(line: Sequence[Piece], differs: Sequence[tuple[int, int]] = ()) -> str:
    """Return the pieces of a line, with the parts that differ in <mark>."""
    borders = [border for span in differs for border in span]
    parts, place, inside = [], 0, False
    for kind, text in _with_indent(line):
        end = place + len(text)
        while True:
            if borders and borders[0] == place:
                borders.pop(0)
                inside = not inside
                parts.append("<mark>" if inside else "</mark>")
            if place == end:
                break
            stop = min(end, borders[0]) if borders else end
            parts.append(_piece(kind, text[len(text) - (end - place) :][: stop - place]))
            place = stop
    return "".join(parts)


def _with_indent(line: Sequence[Piece]) -> Iterator[Piece]:
    """Part the indentation from what follows, since a phone has less room for it."""
    for number, (kind, text) in enumerate(line):
        bare = text if number or kind else text.lstrip(" ")
        if bare != text:
            yield _INDENT, text[: len(text) - len(bare)]
        if bare:
            yield kind, bare


def _piece(kind: str | None, text: str) -> str:
    shown = visible(text)
    return f'<span class="{CLASSES[kind]}">{shown}</span>' if kind else shown
