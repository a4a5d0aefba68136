"""A comparison as one HTML file: table and curves, drawn here, with no script and no address in it.

The curves are SVG elements of the page. Each run is a thin line, the mean of a side a thick one;
the baseline is dashed, so that a print in black tells them apart. All text that comes from a
record, such as a tag, is foreign and goes through `_safe`.
"""

from __future__ import annotations

import html
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from quickwins_codemod import writing
from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    PEAKS,
    SPEED,
    Comparison,
    Epoch,
    Run,
    Side,
    bare,
    order,
    plain,
)
from quickwins_codemod.report import comparison

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
.runs td, .runs th { font-size: .85rem; }
.runs .long { min-width: 14rem; overflow-wrap: anywhere; }
.better { color: var(--better); } .worse { color: var(--worse); }
.key { font-weight: 600; } .key.baseline { color: var(--baseline); }
.key.optimized { color: var(--optimized); }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; padding: .5rem; background: var(--panel); border-radius: .4rem;
  break-inside: avoid; min-width: 0; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--faint); font: 13px system-ui, sans-serif; }
.grid { stroke: var(--line); stroke-width: 1; }
@media (max-width: 36rem) { body { padding: .75rem; } .figures { font-size: .85rem; }
  .figures th, .figures td { padding: .25rem; } svg text { font-size: 17px; } }
.run, .mean { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.run { stroke-width: 1; opacity: .55; } .mean { stroke-width: 3; }
.baseline .mean { stroke-dasharray: 7 5; }
.baseline path { stroke: var(--baseline); } .optimized path { stroke: var(--optimized); }
.baseline circle { fill: var(--baseline); } .optimized circle { fill: var(--optimized); }
footer { margin-top: 2rem; color: var(--faint); font-size: .85rem; }
@media print { :root { color-scheme: light; --page: #ffffff; --ink: #000000; --faint: #444444;
  --line: #bbbbbb; --panel: #ffffff; --baseline: #b3510c; --optimized: #0b63ce;
  --better: #176c37; --worse: #b3261e; }
  body { max-width: none; padding: 0; font-size: .8rem; } .wide { overflow: visible; }
  tr, h2, h3 { break-inside: avoid; break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; } }
"""
#: Nothing is loaded and nothing runs, whatever a record may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_KINDS = ("baseline", "optimized")

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 12, 44
#: A longer line is drawn by the lowest and highest point of so many stretches.
_STRETCHES = 400
#: Single points are marked, and told about under the mouse, where there is room for them.
_MARKED = 60


def write(path: Path, result: Comparison) -> None:
    """Write the page atomically, over a file that is there. Raises OSError."""
    writing.write_atomically(path, render(result).encode("utf-8"))


def render(result: Comparison) -> str:
    """Return the page."""
    title = " and ".join(_safe(side.word) for side in result.sides)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<link rel="icon" href="data:,">',
        f"<title>{title}, compared</title>",
        f"<style>\n{_STYLE}</style>",
        "</head>",
        "<body>",
        f"<h1>{title}, compared</h1>",
        *_legend(result),
        *_notes(result),
        *_table(result),
        *_curves(result),
        *_runs(result),
        "<footer>Made by quickwins compare. Thin lines are single runs, a thick line is the mean of"
        " a side, over the epochs that all its runs have.</footer>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _safe(text: str) -> str:
    return html.escape(plain(text))


def _legend(result: Comparison) -> Iterator[str]:
    for kind, side, look in zip(_KINDS, result.sides, ("dashed", "solid")):
        role = look if side.word == kind else f"{kind}, {look}"
        yield (
            f'<p><span class="key {kind}">{_safe(side.word)}</span> ({role})'
            f"{_safe(comparison.about(side).removeprefix(plain(side.word)))}</p>"
        )


def _notes(result: Comparison) -> Iterator[str]:
    problems = [f"not read: {problem}" for problem in result.problems]
    notes = [*result.notes, *comparison.missing(result), *problems]
    if notes:
        yield "<ul>"
        yield from (f"<li>{_safe(note)}</li>" for note in notes)
        yield "</ul>"


def _table(result: Comparison) -> Iterator[str]:
    yield "<h2>Figures</h2>"
    yield '<div class="wide"><table class="figures">'
    heads = "".join(f'<th scope="col" class="n">{_safe(side.word)}</th>' for side in result.sides)
    yield f'<thead><tr><td></td>{heads}<th scope="col" class="n">change</th></tr></thead>'
    yield "<tbody>"
    for heading, rows in comparison.sections(result):
        yield f'<tr class="part"><th colspan="4" scope="colgroup">{_safe(heading)}</th></tr>'
        for row in rows:
            cells = [
                _unbroken(comparison.spelled(found, row.name))
                for found in (row.baseline, row.optimized)
            ]
            word = row.verdict.partition(" ")[0]
            verdict = f' <span class="{word}">{row.verdict}</span>' if row.verdict else ""
            cells.append(_unbroken(comparison.change(row)) + verdict)
            yield (
                f'<tr><th scope="row">{_safe(comparison.label(row.name))}</th>'
                + "".join(f'<td class="n">{cell}</td>' for cell in cells)
                + "</tr>"
            )
    yield "</tbody></table></div>"
    if any(found.n > 1 for row in result.rows for found in (row.baseline, row.optimized)):
        yield "<p>mean ± sample standard deviation over runs</p>"


def _unbroken(cell: str) -> str:
    """Let a cell break before its spread only."""
    return cell.replace(" ± ", " ±\N{NO-BREAK SPACE}").replace(" %", "\N{NO-BREAK SPACE}%")


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
                f'<tr><td class="key {kind}">{kind}</td><td>{_safe(header.id)}</td>'
                f"<td>{_safe(', '.join(header.tags))}</td><td>{_safe(header.script)}</td>"
                f'<td class="long">{_safe(shlex.join(header.arguments))}</td>'
                f"<td>{_safe(header.started)}</td><td>{len(run.epochs)}</td>"
                f"<td>{_safe(header.device)}</td><td>{_safe(header.python)}</td>"
                f"<td>{_safe(header.torch)}</td><td>{_safe(header.source)}</td></tr>"
            )
    yield "</tbody></table></div>"


# Curves


@dataclass(frozen=True)
class _Point:
    epoch: int
    x: float
    y: float


@dataclass(frozen=True)
class _Curve:
    """What one run, or the mean of a side, draws."""

    name: str
    points: tuple[_Point, ...]


@dataclass(frozen=True)
class _Panel:
    """What one side draws: its runs, and their mean."""

    kind: str
    runs: tuple[_Curve, ...]
    mean: _Curve


_Reading = Callable[[Epoch], "float | None"]


def _curves(result: Comparison) -> Iterator[str]:
    names = sorted({name for side in result.sides for name in side.names()}, key=order)
    cost = (SPEED, EPOCH_SECONDS, *PEAKS)
    quality = [n for n in names if bare(n) not in cost and not bare(n).startswith("users_")]
    yield "<h2>Learning curves</h2>"
    for name in quality:
        figures = [
            *_figure(result, name, "epoch", _metric(name), _number),
            *_figure(result, name, "wall time, s", _metric(name), _seconds),
        ]
        if figures:
            yield f"<h3>{_safe(name)}</h3>"
            yield '<div class="charts">'
            yield from figures
            yield "</div>"
    groups = max(len(e.rates) for side in result.sides for run in side.runs for e in run.epochs)
    rate = "learning rate" if groups < 2 else f"learning rate, first of {groups} groups"
    yield "<h2>Learning rate, speed and memory</h2>"
    yield '<div class="charts">'
    yield from _figure(result, rate, "epoch", lambda e: e.rates[0] if e.rates else None, _number)
    for name in cost:
        shown = "training seconds" if name == EPOCH_SECONDS else comparison.label(name)
        shown = shown.removesuffix(", mean over epochs")
        yield from _figure(result, shown, "epoch", _metric(name), _number)
    yield "</div>"


def _metric(name: str) -> _Reading:
    return lambda epoch: epoch.metrics.get(name)


def _number(epoch: Epoch) -> float | None:
    return float(epoch.number)


def _seconds(epoch: Epoch) -> float | None:
    return epoch.seconds


def _figure(result: Comparison, name: str, against: str, y: _Reading, x: _Reading) -> Iterator[str]:
    """Draw one chart; none where no run has a point."""
    panels = [_panel(kind, side, x, y) for kind, side in zip(_KINDS, result.sides)]
    points = [point for panel in panels for curve in panel.runs for point in curve.points]
    if not points:
        return
    across = _Axis.over([point.x for point in points], whole=against == "epoch")
    up = _Axis.over([point.y for point in points])
    words = " and ".join(_safe(side.word) for side in result.sides)
    keys = " and ".join(
        f'<span class="key {kind}">{_safe(side.word)}</span>'
        for kind, side in zip(_KINDS, result.sides)
    )
    # The baseline comes last: where the lines are one, the other is seen between its dashes.
    drawn = "".join(_drawn(panel, across, up) for panel in reversed(panels))
    title = f"{_safe(name)} by {_safe(against)}"
    yield (
        f"<figure><figcaption>{title}: {keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}: {words}</title>'
        f"{_axes(across, up, against)}{drawn}</svg></figure>"
    )


def _panel(kind: str, side: Side, x: _Reading, y: _Reading) -> _Panel:
    runs = tuple(_Curve(f"{side.word}, {r.header.id}", _points(r, x, y)) for r in side.runs)
    if len(runs) == 1:
        return _Panel(kind, runs, runs[0])
    ordered = [{place: point for place, point in _placed(r, x, y)} for r in side.runs]
    shared = sorted(set.intersection(*map(set, ordered)))
    mean = [
        _Point(run_points[0].epoch, fmean(p.x for p in run_points), fmean(p.y for p in run_points))
        for place in shared
        for run_points in [[points[place] for points in ordered]]
    ]
    return _Panel(kind, runs, _Curve(f"{side.word}, mean of {len(runs)} runs", tuple(mean)))


def _points(run: Run, x: _Reading, y: _Reading) -> tuple[_Point, ...]:
    return tuple(point for _, point in _placed(run, x, y))


def _placed(run: Run, x: _Reading, y: _Reading) -> Iterator[tuple[int, _Point]]:
    for place, epoch in enumerate(run.epochs):
        across, up = x(epoch), y(epoch)
        if across is not None and up is not None:
            yield place, _Point(epoch.number, across, up)


@dataclass(frozen=True)
class _Axis:
    """A range of numbers with round ticks at and between its ends."""

    ticks: tuple[float, ...]
    step: float

    @classmethod
    def over(cls, numbers: Sequence[float], whole: bool = False) -> _Axis:
        low, high = min(numbers), max(numbers)
        if high - low <= 1e-9 * max(abs(low), abs(high)):  # a line that is flat, or one point
            around = 1.0 if whole else abs(low) / 10 or 1.0
            low, high = low - around, high + around
        rough = (high - low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = power * next(f for f in (1, 2, 5, 10) if f * power >= rough * (1 - 1e-9))
        step = max(step, 1.0) if whole else step
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(tuple(step * number for number in range(first, last + 1)), step)

    def share(self, number: float) -> float:
        """Say how far along the axis a number lies, from 0 to 1."""
        return (number - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def words(self) -> list[str]:
        """Spell the ticks, all with the decimals that the step needs."""
        largest = max(map(abs, self.ticks))
        if largest >= 1e6 or self.step < 1e-5:
            return [f"{tick:.3g}" for tick in self.ticks]
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [f"{tick + 0.0:,.{decimals}f}" for tick in self.ticks]


def _across(axis: _Axis, number: float) -> float:
    return _LEFT + axis.share(number) * (_WIDTH - _LEFT - _RIGHT)


def _up(axis: _Axis, number: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(number) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(across: _Axis, up: _Axis, against: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick, word in zip(up.ticks, up.words()):
        y = _up(up, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{word}</text>')
    for tick, word in zip(across.ticks, across.words()):
        x = _across(across, tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{word}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle">{against}</text>')
    return "".join(parts)


def _drawn(panel: _Panel, across: _Axis, up: _Axis) -> str:
    parts = [f'<g class="{panel.kind}">']
    if panel.runs != (panel.mean,):
        parts += [_path("run", curve, across, up) for curve in panel.runs]
    parts.append(_path("mean", panel.mean, across, up))
    radius = 2.5 if panel.kind == "baseline" else 3.5
    if len(panel.mean.points) <= _MARKED:
        parts += [
            f'<circle cx="{_across(across, p.x):.1f}" cy="{_up(up, p.y):.1f}" r="{radius}">'
            f"<title>{_safe(panel.mean.name)}, epoch {p.epoch}: {comparison.number(p.y)}</title>"
            "</circle>"
            for p in panel.mean.points
        ]
    return "".join([*parts, "</g>"])


def _path(kind: str, curve: _Curve, across: _Axis, up: _Axis) -> str:
    if not curve.points:
        return ""
    places = [f"{_across(across, p.x):.1f} {_up(up, p.y):.1f}" for p in _thinned(curve.points)]
    # A single point is a line to itself, which round caps make a dot.
    line = "L".join(places) if len(places) > 1 else f"{places[0]}h0"
    return f'<path class="{kind}" d="M{line}"><title>{_safe(curve.name)}</title></path>'


def _thinned(points: Sequence[_Point]) -> Iterable[_Point]:
    if len(points) <= 2 * _STRETCHES:
        return points
    kept = {0, len(points) - 1}
    for stretch in range(_STRETCHES):
        inside = range(
            stretch * len(points) // _STRETCHES, (stretch + 1) * len(points) // _STRETCHES
        )
        kept.add(min(inside, key=lambda place: points[place].y))
        kept.add(max(inside, key=lambda place: points[place].y))
    return [points[place] for place in sorted(kept)]
