"""A comparison for a terminal, as one table, and for programs, as one object."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    PEAKS,
    SPEED,
    WALL,
    Comparison,
    Row,
    Run,
    Side,
    Value,
    plain,
)
from quickwins_codemod.report import terminal

if TYPE_CHECKING:
    from rich.table import Table

#: The version of the report for programs; it rises when that breaks.
VERSION = 1
#: What the names of measurements mean, with their unit.
LABELS = {
    SPEED: "samples per second, mean over epochs",
    EPOCH_SECONDS: "training seconds per epoch, mean",
    WALL: "wall time, s",
    PEAKS[0]: "peak GPU memory, MiB",
    PEAKS[1]: "peak process memory, MiB",
}
#: Wide enough that nothing is broken over lines where no terminal sets the width.
WIDE = 1000
_STYLES = {"better": "green", "worse": "red"}


def show(result: Comparison) -> None:
    """Write the table to standard output, and what could not be read to standard error."""
    paint = terminal.Paint.of(sys.stdout)
    terminal.out(text(result, paint, None if terminal.is_terminal(sys.stdout) else WIDE))
    _show_problems(result)


def show_json(result: Comparison) -> None:
    """Write the report for programs."""
    terminal.out(render(result))
    _show_problems(result)


def _show_problems(result: Comparison) -> None:
    for problem in result.problems:
        terminal.err(f"quickwins: {plain(problem)}\n")


# For people


def text(result: Comparison, paint: terminal.Paint | None = None, width: int | None = None) -> str:
    """Return who is compared, the table, and what to know before believing it.

    width: of a line, None for that of the terminal.
    """
    paint = paint or terminal.Paint()
    lines = [about(side) for side in result.sides]
    lines += ["", *drawn(_table(result), paint, width), ""]
    lines += [f"note: {plain(note)}" for note in (*missing(result), *result.notes)]
    return "\n".join(lines).rstrip("\n") + "\n"


def about(side: Side) -> str:
    """Say in one line which runs a side has."""
    runs = side.runs
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    epochs = _span({len(run.epochs) for run in runs})
    torch = {f"torch {run.header.torch}" for run in runs if run.header.torch}
    told = [
        *sorted({run.header.script for run in runs} - {""}),
        f"{epochs} {'epoch' if epochs == '1' else 'epochs'}",
        *sorted({run.header.device for run in runs} - {""}),
        *sorted(torch),
    ]
    return f"{plain(side.word)}: {count} ({', '.join(map(plain, told))})"


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def sections(result: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """Give the rows under their headings."""
    best = "At the best epoch" + (f" by {plain(result.best_by)}" if result.best_by else "")
    headings = (("best", best), ("last", "At the last epoch"), ("run", "Speed, time and memory"))
    for when, heading in headings:
        rows = [row for row in result.rows if row.when == when]
        if rows:
            yield heading, rows


def label(name: str) -> str:
    """Return a metric's name as it is shown."""
    return LABELS.get(name, plain(name))


def number(found: float | None, decimals: int | None = None) -> str:
    """Return a number with four digits that count, or with so many decimals."""
    if found is None:
        return "n/a"
    if decimals is None:
        decimals = decimals_of(found)
    return f"{found:.3e}" if decimals > 9 or abs(found) >= 1e15 else f"{found:,.{decimals}f}"


def decimals_of(found: float) -> int:
    """Return the decimals that show four digits that count."""
    return max(0, 3 - math.floor(math.log10(abs(found)))) if found else 0


def spelled(found: Value, name: str) -> str:
    """Return a mean, and with its decimals the spread where there is one."""
    decimals = None if found.mean is None else decimals_of(found.mean)
    if name == "epoch":
        decimals = 0 if found.n == 1 else 1
    mean = number(found.mean, decimals)
    return mean if found.spread is None else f"{mean} ± {number(found.spread, decimals)}"


def change(row: Row) -> str:
    """Return the relative change in percent; that of the number of an epoch would mislead."""
    if row.change is None or row.name == "epoch":
        return ""
    return f"{row.change:+,.1f} %".replace("-0.0 %", "+0.0 %")


def missing(result: Comparison) -> list[str]:
    """Name the metrics that only one side has."""
    return [
        f'only "{plain(side.word)}" has {", ".join(map(plain, names))}'
        for side, names in zip(result.sides, result.only)
        if names
    ]


def drawn(table: Table, paint: terminal.Paint, width: int | None) -> Iterable[str]:
    """Return the lines of a table; width: of a line, None for that of the terminal."""
    # Imported now and not above: rich takes longer to import than the other commands run.
    from rich.console import Console

    lines = io.StringIO()
    console = Console(
        file=lines,
        width=width,
        force_terminal=paint.on,
        color_system="standard" if paint.on else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table, markup=False)
    return [line.rstrip() for line in lines.getvalue().splitlines()]


def _table(result: Comparison) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for side in result.sides:
        table.add_column(Text(plain(side.word)), justify="right", overflow="fold")
    table.add_column("change", justify="right")
    table.add_column("")
    for position, (heading, rows) in enumerate(sections(result)):
        if position:
            table.add_row()
        table.add_row(Text(heading, style="bold"))
        for row in rows:
            table.add_row(
                Text(f"  {label(row.name)}"),
                spelled(row.baseline, row.name),
                spelled(row.optimized, row.name),
                change(row),
                Text(row.verdict, style=_STYLES.get(row.verdict, "")),
            )
    return table


# For programs


def render(result: Comparison) -> str:
    """Return the report as text, ASCII only."""
    return json.dumps(as_object(result), indent=2) + "\n"


def as_object(result: Comparison) -> dict[str, Any]:
    """Return the comparison as the object that is written out.

    metrics: in the order of the table. `at` is `best` or `last` for a metric at that epoch, `run`
        for the mean over epochs (samples_per_second, epoch_seconds), the last elapsed_seconds or
        the highest peak. `better` is `higher`, `lower` or null; `spread` is the sample standard
        deviation over `n` runs, null below two.
    only: the metrics that only one side has.
    """
    return {
        "version": VERSION,
        "baseline": _side(result.baseline),
        "optimized": _side(result.optimized),
        "best_by": result.best_by,
        "metrics": [
            {
                "name": row.name,
                "at": row.when,
                "better": row.better,
                "baseline": _value(row.baseline),
                "optimized": _value(row.optimized),
                "change_percent": row.change,
            }
            for row in result.rows
        ],
        "only": {"baseline": list(result.only[0]), "optimized": list(result.only[1])},
        "notes": list(result.notes),
        "problems": list(result.problems),
    }


def _side(side: Side) -> dict[str, Any]:
    return {"name": side.word, "runs": [_run(run) for run in side.runs]}


def _run(run: Run) -> dict[str, Any]:
    header = run.header
    return {
        "id": header.id,
        "tags": list(header.tags),
        "script": header.script,
        "arguments": list(header.arguments),
        "started": header.started,
        "python": header.python,
        "torch": header.torch,
        "device": header.device,
        "source": header.source,
        "epochs": len(run.epochs),
    }


def _value(found: Value) -> dict[str, Any]:
    return {"mean": found.mean, "spread": found.spread, "n": found.n}
