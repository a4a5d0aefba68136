"""Two sets of tracked runs side by side: reading a record, averaging its runs, comparing.

A record is what the runtime's Tracker writes beside a run: lines of JSON, the first about the run
and each other about one epoch (`runtime/tracking.py`). Which runs there are is the matter of
`runs.py`. Nothing here knows torch, and nothing here writes.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

#: The version of the record that is understood.
VERSION = 1
#: Metrics that say how a run went and not how good its model is.
SPEED, EPOCH_SECONDS = "samples_per_second", "epoch_seconds"
PEAKS = ("peak_gpu_memory_mb", "peak_memory_mb")
WALL = "elapsed_seconds"
_USERS = ("users_evaluated", "users_without_relevant")

_PREFIX = re.compile(r"(val|valid|validation|eval|evaluation|test)[_/](?=.)", re.IGNORECASE)
_PREFIXES = ("", "val", "valid", "validation", "eval", "evaluation", "test")
#: The order of the table; what is not named comes after it, by the alphabet.
_ORDER = (
    "ndcg recall hit_rate precision map mrr auc diversity embedding_diversity novelty"
    " serendipity coverage gini"
).split()
_HIGHER = frozenset(
    "ndcg recall hit hitrate precision map mrr auc auroc accuracy acc f1 r2".split()
) | {SPEED}
_LOWER = frozenset("loss rmse mse mae error perplexity nll".split()) | {EPOCH_SECONDS, WALL, *PEAKS}
#: Beyond it sums of squares overflow. No metric that means something is as large.
_LARGEST = 1e100

Better = Literal["higher", "lower"]
When = Literal["best", "last", "run"]


class RecordError(Exception):
    """A record that cannot be read: where, at which line if it is one, and why."""


class CompareError(Exception):
    """Runs that cannot be compared; its text is one line for the user."""


@dataclass(frozen=True)
class Header:
    """What is known of a run before its epochs.

    names: what it goes by beside its tags: the record's id, and the wandb run's id and name.
    source: the file of its record, or its page on the server.
    """

    id: str
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    script: str = ""
    arguments: tuple[str, ...] = ()
    started: str = ""
    python: str = ""
    torch: str = ""
    device: str = ""
    source: str = ""


@dataclass(frozen=True)
class Epoch:
    """One line of a record: metrics that are no finite number are None, as are unknown seconds."""

    number: int
    seconds: float | None
    rates: tuple[float, ...]
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Run:
    """One training run; cut says that its record ends in half a line, which was left out."""

    header: Header
    epochs: tuple[Epoch, ...]
    cut: bool = False

    def names(self) -> set[str]:
        """Return the names of all metrics of all epochs."""
        return {name for epoch in self.epochs for name in epoch.metrics}

    def values(self, name: str) -> list[float | None]:
        """Return a metric for each epoch, None where it was not logged or not finite."""
        return [epoch.metrics.get(name) for epoch in self.epochs]


@dataclass(frozen=True)
class Side:
    """The runs that one word of the command line stands for."""

    word: str
    runs: tuple[Run, ...]

    def names(self) -> set[str]:
        """Return the names of all metrics of all runs."""
        return {name for run in self.runs for name in run.names()}


@dataclass(frozen=True)
class Value:
    """Mean over n runs; spread is their sample standard deviation, None below two runs."""

    mean: float | None
    spread: float | None
    n: int


@dataclass(frozen=True)
class Row:
    """One line of the table.

    name: the metric. when: at the "best" or the "last" epoch, or over the whole "run".
    better: which direction is, None where neither is. change: in percent of the baseline's mean,
        None where one mean is not known or the baseline's is 0, or next to it.
    """

    name: str
    when: When
    better: Better | None
    baseline: Value
    optimized: Value

    @property
    def change(self) -> float | None:
        before, after = self.baseline.mean, self.optimized.mean
        if before is None or after is None or before == 0:
            return None
        percent = 100 * (after - before) / abs(before)
        return percent if math.isfinite(percent) else None

    @property
    def verdict(self) -> Literal["better", "worse", "same", "within spread", ""]:
        """How the means changed; empty where neither direction is better, or one is unknown.

        Within spread: by no more than runs of one side differ (the larger standard deviation).
        """
        before, after = self.baseline.mean, self.optimized.mean
        if self.better is None or before is None or after is None:
            return ""
        if before == after:
            return "same"
        spreads = [self.baseline.spread, self.optimized.spread]
        if None not in spreads and abs(after - before) <= max(spreads):
            return "within spread"
        return "better" if (after > before) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """What the reports show.

    best_by: the metric whose highest value makes an epoch the best, None without one.
    only: for each side, baseline first, the metrics that only it has.
    notes: what to know before believing the numbers, one sentence each.
    problems: the records that could not be read, one line each.
    """

    baseline: Side
    optimized: Side
    best_by: str | None
    rows: tuple[Row, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    notes: tuple[str, ...]
    problems: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.baseline, self.optimized


def plain(text: str) -> str:
    """Return a foreign text on one line, without what would drive a terminal."""
    line = " ".join(text.split())
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line
    )


# Reading a record


def read_header(path: Path, source: str) -> Header | None:
    """Return what the first line of a record says, None where it is empty or half-written.

    source: how the file is named in messages. Raises RecordError.
    """
    try:
        with open(path, "rb") as file:
            line = file.readline(1 << 20)
    except OSError as error:
        raise RecordError(f"{source}: cannot be read: {error.strerror}") from None
    if not line.endswith(b"\n") and _object(line) is None:
        return None
    return _header(line, path, source)


def read(path: Path, source: str) -> Run:
    """Read a whole record. Raises RecordError, also for one that has no first line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{source}: cannot be read: {error.strerror}") from None
    first, *lines = data.split(b"\n")
    header = _header(first, path, source)
    while lines and not lines[-1].strip():
        lines.pop()
    epochs = []
    for number, line in enumerate(lines, 2):
        found = _object(line)
        if found is None and number == len(lines) + 1:
            return Run(header, tuple(epochs), cut=True)
        if found is None or not isinstance(found.get("metrics", {}), dict):
            raise RecordError(f"{source}:{number}: is not a line of a record")
        if found.get("type") == "epoch":
            epochs.append(_epoch(found, len(epochs) + 1))
    return Run(header, tuple(epochs))


def _header(line: bytes, path: Path, source: str) -> Header:
    found = _object(line)
    if found is None or found.get("type") != "run":
        raise RecordError(f"{source}:1: is not the first line of a record")
    if found.get("version") != VERSION:
        raise RecordError(
            f"{source}:1: is a record of version {plain(str(found.get('version')))}, and this is"
            f" quickwins for version {VERSION}; install a newer one"
        )
    server = found.get("wandb")
    server = server if isinstance(server, dict) else {}
    arguments = found.get("arguments")
    words = [found.get("id"), path.stem, server.get("id"), server.get("name")]
    return Header(
        id=_text(found.get("id")) or path.stem,
        tags=tuple(filter(None, [_text(found.get("tag"))])),
        names=tuple(dict.fromkeys(word for word in words if isinstance(word, str) and word)),
        script=_text(found.get("script")),
        arguments=tuple(map(str, arguments)) if isinstance(arguments, list) else (),
        started=_text(found.get("started")),
        python=_text(found.get("python")),
        torch=_text(found.get("torch")),
        device=_text(found.get("device")),
        source=source,
    )


def _epoch(found: dict[str, Any], number: int) -> Epoch:
    rates = found.get("learning_rate")
    given = found.get("epoch")
    return Epoch(
        number=given if isinstance(given, int) else number,
        seconds=number_of(found.get("elapsed_seconds")),
        rates=tuple(
            rate
            for rate in map(number_of, rates if isinstance(rates, list) else [])
            if rate is not None
        ),
        metrics={
            name: number_of(value)
            for name, value in found.get("metrics", {}).items()
            if value is None or _is_number(value)
        },
    )


def number_of(value: Any) -> float | None:
    """Return what JSON holds as a float, None for what is no finite number or no number at all."""
    if not _is_number(value) or not abs(value) < _LARGEST:  # NaN is not below it either
        return None
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# Names of metrics


def bare(name: str) -> str:
    """Return a metric's name without the prefix that says on which rows it was computed."""
    return _PREFIX.sub("", name, count=1) if _PREFIX.match(name) else name


def _same_names(sides: Sequence[Side]) -> list[Side]:
    """Drop prefixes, so that `val_ndcg@10` of one script meets `ndcg@10` of another.

    Where one run has two names that would become one (its own `loss` beside `val_loss`), these
    stay as they are on both sides.
    """
    runs = [run.names() for side in sides for run in side.runs]
    counts = [Counter(map(bare, names)) for names in runs]
    clashing = {short for count in counts for short, number in count.items() if number > 1}
    spelled = {
        name: name if bare(name) in clashing else bare(name) for names in runs for name in names
    }

    def renamed(run: Run) -> Run:
        epochs = (
            replace(epoch, metrics={spelled[name]: v for name, v in epoch.metrics.items()})
            for epoch in run.epochs
        )
        return replace(run, epochs=tuple(epochs))

    return [replace(side, runs=tuple(map(renamed, side.runs))) for side in sides]


def order(name: str) -> tuple[Any, ...]:
    """Return the key that sorts metrics: NDCG@10, its other cut-offs, what ranks too, the rest."""
    short = bare(name)
    family, _, k = short.partition("@")
    rank = _ORDER.index(family) if family in _ORDER else len(_ORDER)
    prefix = name[: len(name) - len(short)].rstrip("_/").lower()
    cutoff = int(k) if k.isdecimal() else 0
    return rank, cutoff != 10, cutoff, short, _PREFIXES.index(prefix), name


def better(name: str) -> Better | None:
    """Say which direction of a metric is better; neither of novelty, coverage and the like."""
    short = bare(name)
    if short in _LOWER or short in _HIGHER:
        return "lower" if short in _LOWER else "higher"
    words = set(re.split(r"[\W_]+", short.lower()))
    if words & _LOWER:
        return "lower"
    return "higher" if words & _HIGHER else None


# Comparing


def compare(
    baseline: Sequence[Run],
    optimized: Sequence[Run],
    words: tuple[str, str] = ("baseline", "optimized"),
    problems: Sequence[str] = (),
) -> Comparison:
    """Average the runs of each side and set them against each other.

    words: what the sides were asked for by. Raises CompareError where there is nothing to compare.
    """
    given = [Side(word, tuple(runs)) for word, runs in zip(words, (baseline, optimized))]
    notes = [
        f"{plain(run.header.source)}: its last line is half-written and was left out"
        for side in given for run in side.runs if run.cut
    ]  # fmt: skip
    for number, side in enumerate(given):
        empty = [run for run in side.runs if not run.epochs]
        if len(empty) == len(side.runs):
            raise CompareError(
                f'"{plain(side.word)}" has no finished epoch yet:'
                f" {', '.join(plain(run.header.source) for run in empty)}"
            )
        notes += [f"{plain(run.header.source)}: has no finished epoch; left out" for run in empty]
        given[number] = replace(side, runs=tuple(run for run in side.runs if run.epochs))
    before, after = _same_names(given)
    common = before.names() & after.names()
    only = (before.names() - common, after.names() - common)
    if not common:
        raise CompareError(
            "the runs have no metric in common;"
            + ",".join(
                f' "{plain(side.word)}" has {_named(names) or "none"}'
                for side, names in zip((before, after), only)
            )
        )
    best_by = _best_by(before, after, common)
    rows = _rows(before, after, common, best_by)
    return Comparison(
        before,
        after,
        best_by,
        tuple(rows),
        (tuple(sorted(only[0], key=order)), tuple(sorted(only[1], key=order))),
        tuple(_notes(before, after, rows) + notes),
        tuple(problems),
    )


def value(numbers: Iterable[float | None]) -> Value:
    """Average what is known of so many runs."""
    known = [number for number in numbers if number is not None]
    if not known:
        return Value(None, None, 0)
    spread = statistics.stdev(known) if len(known) > 1 else None
    return Value(statistics.fmean(known), spread, len(known))


def _best_by(before: Side, after: Side, common: set[str]) -> str | None:
    for name in sorted(common, key=order):
        runs = (*before.runs, *after.runs)
        known = all(any(v is not None for v in run.values(name)) for run in runs)
        if bare(name).startswith("ndcg@") and known:
            return name
    return None


def best_epoch(run: Run, best_by: str) -> Epoch | None:
    """Return the first epoch with a metric's best value, None of a run that does not know it."""
    known = [epoch for epoch in run.epochs if epoch.metrics.get(best_by) is not None]
    pick = min if better(best_by) == "lower" else max
    return pick(known, key=lambda epoch: epoch.metrics[best_by] or 0.0, default=None)


@dataclass(frozen=True)
class Measure:
    """One number of a run: a metric at one of its epochs, or what the whole run took.

    of: reads it, None where it is not known.
    """

    name: str
    when: When
    better: Better | None
    of: Callable[[Run], float | None]


def measures(names: Iterable[str], best_by: str | None) -> list[Measure]:
    """Return what can be measured of runs with these metrics, in the order of the table.

    best_by: the metric whose best value makes an epoch the best, None without one.
    """

    def at(pick: Callable[[Run], Epoch | None], name: str) -> Callable[[Run], float | None]:
        def of(run: Run) -> float | None:
            epoch = pick(run)
            return None if epoch is None else epoch.metrics.get(name)

        return of

    def number(run: Run) -> float | None:
        epoch = best_epoch(run, best_by or "")
        return None if epoch is None else float(epoch.number)

    cost = (SPEED, EPOCH_SECONDS, *PEAKS, *_USERS)
    quality = sorted((name for name in names if bare(name) not in cost), key=order)
    chosen: list[tuple[When, Callable[[Run], Epoch | None]]] = [
        ("last", lambda run: run.epochs[-1] if run.epochs else None)
    ]
    found = []
    if best_by is not None:
        found.append(Measure("epoch", "best", None, number))
        chosen.insert(0, ("best", lambda run: best_epoch(run, best_by)))
    found += [
        Measure(name, when, better(name), at(pick, name))
        for when, pick in chosen
        for name in quality
    ]
    return found + _costs()


def _costs() -> list[Measure]:
    """Speed, time and memory of the whole run."""

    def mean(name: str) -> Callable[[Run], float | None]:
        return lambda run: value(run.values(name)).mean

    def peak(name: str) -> Callable[[Run], float | None]:
        return lambda run: max((v for v in run.values(name) if v is not None), default=None)

    def wall(run: Run) -> float | None:
        return next((e.seconds for e in reversed(run.epochs) if e.seconds is not None), None)

    readings = {
        SPEED: mean(SPEED),
        EPOCH_SECONDS: mean(EPOCH_SECONDS),
        WALL: wall,
        **{name: peak(name) for name in PEAKS},
    }
    return [Measure(name, "run", better(name), of) for name, of in readings.items()]


def _rows(before: Side, after: Side, common: set[str], best_by: str | None) -> list[Row]:
    """Average each measure; a cost that a side does not know is left out."""
    rows = []
    for measure in measures(common, best_by):
        values = [value(map(measure.of, side.runs)) for side in (before, after)]
        if measure.when != "run" or all(v.n for v in values):
            rows.append(Row(measure.name, measure.when, measure.better, *values))
    return rows


# What to know before believing the numbers


def _notes(before: Side, after: Side, rows: Sequence[Row]) -> list[str]:
    notes = []
    if len(before.runs) == len(after.runs) == 1:
        notes.append("one run each: no spread is known")
    elif min(len(before.runs), len(after.runs)) == 1:
        alone = min(before, after, key=lambda side: len(side.runs))
        notes.append(f'one run of "{plain(alone.word)}": no spread is known of it')
    differing: list[tuple[str, Callable[[Run], str]]] = [
        ("scripts", lambda run: run.header.script),
        ("numbers of epochs", lambda run: str(len(run.epochs))),
        ("numbers of evaluated users", _users),
        ("devices", lambda run: run.header.device),
        ("versions of torch", lambda run: run.header.torch),
    ]
    for what, of in differing:
        values = [sorted(filter(None, map(of, side.runs))) for side in (before, after)]
        found = [sorted(set(side)) for side in values]
        if what == "scripts" and one_script({*found[0], *found[1]}):
            continue
        mixed = values[0] != values[1] and len(found[0]) > 1  # equal where seeds split the users alike
        if all(found) and (found[0] != found[1] or mixed):
            sides = " against ".join(" and ".join(map(plain, values)) for values in found)
            notes.append(f"different {what}, so this is no fair comparison: {sides}")
    for side, values in (
        (before, [r.baseline for r in rows]),
        (after, [r.optimized for r in rows]),
    ):
        for row, found_value in zip(rows, values):
            missing = len(side.runs) - found_value.n
            if missing:
                place = {"best": " at the best epoch", "last": " at the last epoch", "run": ""}
                share = "" if len(side.runs) == 1 else f" {missing} of {len(side.runs)} runs of"
                notes.append(
                    f"{plain(row.name)} is not known{place[row.when]} of{share}"
                    f' "{plain(side.word)}"'
                )
    return notes


def _users(run: Run) -> str:
    for name in sorted(run.names()):
        if bare(name) == _USERS[0]:
            known = [v for v in run.values(name) if v is not None]
            return f"{known[-1]:,.0f}" if known else ""
    return ""


def one_script(scripts: Iterable[str]) -> bool:
    """Tell whether these paths may be one script, run from several folders."""
    parts = sorted((_parts(script) for script in scripts), key=len)
    return all(parts[-1][-len(short) :] == short for short in parts)


def is_script(script: str, asked: str) -> bool:
    """Tell whether a script's path ends in the path that was asked for."""
    wanted = _parts(asked)
    return bool(wanted) and _parts(script)[-len(wanted) :] == wanted


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]


def _named(names: Iterable[str], most: int = 10) -> str:
    ordered = [plain(name) for name in sorted(names, key=order)]
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more
