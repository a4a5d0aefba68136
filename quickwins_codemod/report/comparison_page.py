"""A comparison as one HTML file: who is compared, the table, the curves and the runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from quickwins_codemod import writing
from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    PEAKS,
    SPEED,
    Comparison,
    bare,
    order,
    plain,
)
from quickwins_codemod.report import comparison, curves, markup
from quickwins_codemod.report.markup import safe

_STYLE = """\
.runs td, .runs th { font-size: .85rem; }
.runs .long { min-width: 14rem; overflow-wrap: anywhere; }
"""
_KINDS: tuple[curves.Kind, ...] = ("baseline", "optimized")


def write(path: Path, result: Comparison) -> None:
    """Write the page atomically, over a file that is there. Raises OSError."""
    writing.write_atomically(path, render(result).encode("utf-8"))


def render(result: Comparison) -> str:
    """Return the page."""
    title = " and ".join(plain(side.word) for side in result.sides) + ", compared"
    body = [
        f"<h1>{safe(title)}</h1>",
        *_legend(result),
        *_notes(result),
        *_table(result),
        *_curves(result),
        *_runs(result),
        "<footer>Made by quickwins compare. Thin lines are single runs, a thick line is the mean of"
        " a side, over the epochs that all its runs have.</footer>",
    ]
    return markup.document(title, _STYLE + curves.STYLE, body)


def _legend(result: Comparison) -> Iterator[str]:
    for kind, side, look in zip(_KINDS, result.sides, ("dashed", "solid")):
        role = look if side.word == kind else f"{kind}, {look}"
        yield (
            f'<p><span class="key {kind}">{safe(side.word)}</span> ({role})'
            f"{safe(comparison.about(side).removeprefix(plain(side.word)))}</p>"
        )


def _notes(result: Comparison) -> Iterator[str]:
    problems = [f"not read: {problem}" for problem in result.problems]
    notes = [*result.notes, *comparison.missing(result), *problems]
    if notes:
        yield "<ul>"
        yield from (f"<li>{safe(note)}</li>" for note in notes)
        yield "</ul>"


def _table(result: Comparison) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    yield '<div class="wide"><table class="figures">'
    heads = "".join(f'<th scope="col" class="n">{safe(side.word)}</th>' for side in result.sides)
    yield f'<thead><tr><td></td>{heads}<th scope="col" class="n">change</th></tr></thead>'
    yield "<tbody>"
    for heading, rows in comparison.sections(result):
        yield f'<tr class="part"><th colspan="4" scope="colgroup">{safe(heading)}</th></tr>'
        for row in rows:
            cells = [
                markup.unbroken(comparison.spelled(found, row.name))
                for found in (row.baseline, row.optimized)
            ]
            word = row.verdict.partition(" ")[0]
            verdict = f' <span class="{word}">{row.verdict}</span>' if row.verdict else ""
            cells.append(markup.unbroken(comparison.change(row)) + verdict)
            yield (
                f'<tr><th scope="row">{safe(comparison.label(row.name))}</th>'
                + "".join(f'<td class="n">{cell}</td>' for cell in cells)
                + "</tr>"
            )
    yield "</tbody></table></div>"
    if any(found.n > 1 for row in result.rows for found in (row.baseline, row.optimized)):
        yield "<p>mean ± sample standard deviation over runs</p>"


def _runs(result: Comparison) -> Iterator[str]:
    yield "<h2>Runs</h2>"
    yield '<div class="wide"><table class="runs">'
    heads = "side,run,tags,script,arguments,started,epochs,device,python,torch,record"
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads.split(","))
    yield f"<thead><tr>{cells}</tr></thead>"
    yield "<tbody>"
    for kind, side in zip(_KINDS, result.sides):
        for run in side.runs:
            header = run.header
            yield (
                f'<tr><td class="key {kind}">{kind}</td><td>{safe(header.id)}</td>'
                f"<td>{safe(', '.join(header.tags))}</td><td>{safe(header.script)}</td>"
                f'<td class="long">{safe(shlex.join(header.arguments))}</td>'
                f"<td>{safe(header.started)}</td><td>{len(run.epochs)}</td>"
                f"<td>{safe(header.device)}</td><td>{safe(header.python)}</td>"
                f"<td>{safe(header.torch)}</td><td>{safe(header.source)}</td></tr>"
            )
    yield "</tbody></table></div>"


def _curves(result: Comparison) -> Iterator[str]:
    series = [curves.Series(kind, side.word, side.runs) for kind, side in zip(_KINDS, result.sides)]
    names = sorted({name for side in result.sides for name in side.names()}, key=order)
    cost = (SPEED, EPOCH_SECONDS, *PEAKS)
    quality = [n for n in names if bare(n) not in cost and not bare(n).startswith("users_")]
    yield "<h2>Learning curves</h2>"
    for name in quality:
        read = curves.metric(name)
        figures = [
            *curves.chart(series, name, "epoch", read, curves.epoch_number),
            *curves.chart(series, name, curves.WALL_TIME, read, curves.seconds),
        ]
        if figures:
            yield f"<h3>{safe(name)}</h3>"
            yield '<div class="charts">'
            yield from figures
            yield "</div>"
    yield "<h2>Learning rate, speed and memory</h2>"
    yield '<div class="charts">'
    rate = curves.rate_name(series)
    yield from curves.chart(series, rate, "epoch", curves.rate, curves.epoch_number)
    for name in cost:
        shown = "training seconds" if name == EPOCH_SECONDS else comparison.label(name)
        shown = shown.removesuffix(", mean over epochs")
        read = curves.metric(name)
        yield from curves.chart(series, shown, "epoch", read, curves.epoch_number)
    yield "</div>"
