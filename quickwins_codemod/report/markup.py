"""What the HTML pages share: one file each, with no script and no address in it, in both schemes.

Foreign text, such as a tag that comes from a record, goes through `safe`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from quickwins_codemod.compare import plain

#: Nothing is loaded and nothing runs, whatever the text of a page may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2430; --faint: #5b6573;
  --line: #d5dae1; --panel: #f6f7f9; --baseline: #b3510c; --optimized: #0b63ce;
  --better: #176c37; --worse: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14181f; --ink: #e6e9ee; --faint: #a0a9b6;
  --line: #38404c; --panel: #1c222b; --baseline: #f2994a; --optimized: #64a8ff;
  --better: #6fcf97; --worse: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; overflow-wrap: anywhere; }
ul { padding-left: 1.25rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
td.n, th.n { text-align: right; }
tbody th { font-weight: 400; min-width: 6.5rem; }
th { overflow-wrap: break-word; }
tr.part th { font-weight: 600; padding-top: 1rem; }
.better { color: var(--better); } .worse { color: var(--worse); }
footer { margin-top: 2rem; color: var(--faint); font-size: .85rem; }
@media (max-width: 36rem) { body { padding: .75rem; } .figures { font-size: .85rem; }
  .figures th, .figures td { padding: .25rem; } }
@media print { :root { color-scheme: light; --page: #ffffff; --ink: #000000; --faint: #444444;
  --line: #bbbbbb; --panel: #ffffff; --baseline: #b3510c; --optimized: #0b63ce;
  --better: #176c37; --worse: #b3261e; }
  body { max-width: none; padding: 0; font-size: .8rem; } .wide { overflow: visible; }
  tr, h2, h3 { break-inside: avoid; break-after: avoid; } }
"""


def document(title: str, style: str, body: Iterable[str]) -> str:
    """Return a page; title is text, style is what it needs beside the common one."""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{safe(title)}</title>",
        f"<style>\n{_STYLE}{style}</style>",
        "</head>",
        "<body>",
        *body,
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def safe(text: str) -> str:
    """Return foreign text so that it is text, on one line, wherever it stands in a page."""
    return html.escape(plain(text))


def unbroken(cell: str) -> str:
    """Let the figure of a cell break before its spread only."""
    return cell.replace(" ± ", " ±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")
