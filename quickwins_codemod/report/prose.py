"""What a report says in words as HTML: a sentence, and the page of a code."""

from __future__ import annotations

import re
from collections.abc import Iterator

from quickwins_codemod.report.code_markup import marked, visible
from quickwins_codemod.report.findings import utf8
from quickwins_codemod.report.syntax import pieces
from quickwins_codemod.report.text import one_line
from quickwins_codemod.transform import Code

_LABEL = re.compile(r"([A-Z][\w ]{2,30}):(?=\s|$)")
_QUOTED = re.compile(r"`([^`]+)`")


def prose(text: str) -> str:
    """Return a sentence of a report; what it quotes in backticks is code."""
    parts = _QUOTED.split(one_line(utf8(text)).rstrip("."))
    return "".join(
        f"<code>{visible(part)}</code>" if number % 2 else visible(part)
        for number, part in enumerate(parts)
    )


def explanation(page: Code) -> Iterator[str]:
    """Return the page of a code: paragraphs, and what is indented as code."""
    for block in re.split(r"\n{2,}(?=\S)|(?<=\S)\n{2,}(?=    )", page.page):
        if block.startswith("    "):
            yield _listing("\n".join(line[4:] for line in block.rstrip().split("\n")))
        else:
            label = _LABEL.match(block)
            rest = block[label.end() :] if label else block
            yield f"<p>{f'<b>{label[0]}</b> ' if label else ''}{_sentences(rest)}</p>"


def _sentences(paragraph: str) -> str:
    full_stop = "." if paragraph.rstrip().endswith(".") else ""
    return prose(paragraph) + full_stop


def _listing(text: str) -> str:
    """Return a block of code that stands alone, an example; lines of a diff have their colours."""
    lines = text.split("\n")
    is_diff = any(line[:1] in ("+", "-") and not line.startswith("--") for line in lines)
    signs = [line[:1] for line in lines] if is_diff else [""] * len(lines)
    bare = [line[1:] for line in lines] if is_diff else lines
    shown = []
    found = pieces(bare, [range(1, len(bare) + 1)])
    for number, sign in enumerate(signs, 1):
        tag = {"-": "del", "+": "ins"}.get(sign)
        body = sign + marked(found[number])
        shown.append(f"<{tag}>{body}</{tag}>" if tag else body)
    return f'<pre class="example">{"<br>".join(shown)}</pre>'
