"""Curves of tracked runs for an HTML page: charts in SVG, some runs against others.

Each run is a thin line, the mean of a series a thick one; the baseline is dashed, so that a print
in black tells them apart. `STYLE` is what a page with charts needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from quickwins_codemod.compare import Epoch, Run
from quickwins_codemod.report.comparison import number as spelled
from quickwins_codemod.report.markup import safe

STYLE = """\
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
.run, .mean { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.run { stroke-width: 1; opacity: .55; } .mean { stroke-width: 3; }
.baseline .mean { stroke-dasharray: 7 5; }
.baseline path { stroke: var(--baseline); } .optimized path { stroke: var(--optimized); }
.baseline circle { fill: var(--baseline); } .optimized circle { fill: var(--optimized); }
@media (max-width: 36rem) { svg text { font-size: 17px; } }
@media print { .charts { grid-template-columns: 1fr 1fr; } }
"""
_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 12, 44
#: A longer line is drawn by the lowest and highest point of so many stretches.
_STRETCHES = 400
#: Single points are marked, and told about under the mouse, where there is room for them.
_MARKED = 60

Kind = Literal["baseline", "optimized"]
#: The axis of seconds since the start.
WALL_TIME = "wall time, s"
#: What a chart shows of an epoch, None where that is not known.
Reading = Callable[[Epoch], "float | None"]


@dataclass(frozen=True)
class Series:
    """Runs that belong together; kind says how they are drawn, word how they are called."""

    kind: Kind
    word: str
    runs: tuple[Run, ...]


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


def chart(
    series: Sequence[Series],
    name: str,
    against: str,
    y: Reading,
    x: Reading,
    each: str = "epoch",
) -> Iterator[str]:
    """Draw one chart; none where no run has a point. The x of a wall time need not be whole.

    each: what one point is, for the words under the mouse.
    """
    panels = [_panel(one, x, y) for one in series]
    points = [point for panel in panels for curve in panel.runs for point in curve.points]
    if not points:
        return
    across = Axis.over([point.x for point in points], whole=against != WALL_TIME)
    up = Axis.over([point.y for point in points])
    words = " and ".join(safe(one.word) for one in series)
    keys = " and ".join(f'<span class="key {one.kind}">{safe(one.word)}</span>' for one in series)
    # The baseline comes last: where the lines are one, the other is seen between its dashes.
    drawn = "".join(_drawn(panel, across, up, each) for panel in reversed(panels))
    title = f"{safe(name)} by {safe(against)}"
    yield (
        f"<figure><figcaption>{title}: {keys}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{title}: {words}</title>'
        f"{_axes(across, up, against)}{drawn}</svg></figure>"
    )


def metric(name: str) -> Reading:
    """Read a metric of an epoch."""
    return lambda epoch: epoch.metrics.get(name)


def epoch_number(epoch: Epoch) -> float | None:
    return float(epoch.number)


def seconds(epoch: Epoch) -> float | None:
    return epoch.seconds


def rate(epoch: Epoch) -> float | None:
    """Read the learning rate, of the first group where there are several."""
    return epoch.rates[0] if epoch.rates else None


def rate_name(series: Iterable[Series]) -> str:
    """Say which learning rate is drawn."""
    groups = max(
        (len(epoch.rates) for one in series for run in one.runs for epoch in run.epochs), default=0
    )
    return "learning rate" if groups < 2 else f"learning rate, first of {groups} groups"


def _panel(series: Series, x: Reading, y: Reading) -> _Panel:
    ordered = [dict(_placed(run, x, y)) for run in series.runs]
    runs = tuple(
        _Curve(f"{series.word}, {run.header.id}", tuple(points.values()))
        for run, points in zip(series.runs, ordered)
    )
    if len(runs) == 1:
        return _Panel(series.kind, runs, runs[0])
    shared = sorted(set.intersection(*map(set, ordered))) if ordered else []
    mean = [
        _Point(run_points[0].epoch, fmean(p.x for p in run_points), fmean(p.y for p in run_points))
        for place in shared
        for run_points in [[points[place] for points in ordered]]
    ]
    name = f"{series.word}, mean of {len(runs)} runs"
    return _Panel(series.kind, runs, _Curve(name, tuple(mean)))


def _placed(run: Run, x: Reading, y: Reading) -> Iterator[tuple[int, _Point]]:
    for place, epoch in enumerate(run.epochs):
        across, up = x(epoch), y(epoch)
        if across is not None and up is not None:
            yield place, _Point(epoch.number, across, up)


@dataclass(frozen=True)
class Axis:
    """A range of numbers with round ticks at and between its ends."""

    ticks: tuple[float, ...]
    step: float

    @classmethod
    def over(cls, numbers: Sequence[float], whole: bool = False) -> Axis:
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


def _across(axis: Axis, number: float) -> float:
    return _LEFT + axis.share(number) * (_WIDTH - _LEFT - _RIGHT)


def _up(axis: Axis, number: float) -> float:
    return _HEIGHT - _BOTTOM - axis.share(number) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(across: Axis, up: Axis, against: str) -> str:
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


def _drawn(panel: _Panel, across: Axis, up: Axis, each: str) -> str:
    parts = [f'<g class="{panel.kind}">']
    if panel.runs != (panel.mean,):
        parts += [_path("run", curve, across, up) for curve in panel.runs]
    parts.append(_path("mean", panel.mean, across, up))
    radius = 2.5 if panel.kind == "baseline" else 3.5
    if len(panel.mean.points) <= _MARKED:
        parts += [
            f'<circle cx="{_across(across, p.x):.1f}" cy="{_up(up, p.y):.1f}" r="{radius}">'
            f"<title>{safe(panel.mean.name)}, {each} {p.epoch}: {spelled(p.y)}</title>"
            "</circle>"
            for p in panel.mean.points
        ]
    return "".join([*parts, "</g>"])


def _path(kind: str, curve: _Curve, across: Axis, up: Axis) -> str:
    if not curve.points:
        return ""
    places = [f"{_across(across, p.x):.1f} {_up(up, p.y):.1f}" for p in _thinned(curve.points)]
    # A single point is a line to itself, which round caps make a dot.
    line = "L".join(places) if len(places) > 1 else f"{places[0]}h0"
    return f'<path class="{kind}" d="M{line}"><title>{safe(curve.name)}</title></path>'


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
