"""What a trial showed as one HTML file: verdicts, intervals, what to keep, figures, curves, runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quickwins_codemod import writing
from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    PEAKS,
    SPEED,
    Epoch,
    Measure,
    Run,
    bare,
    order,
    plain,
)
from quickwins_codemod.judging import Aspect, Case, Judgement, Ruling, finished, steps_at
from quickwins_codemod.report import comparison, curves, markup, trial_text
from quickwins_codemod.report.markup import safe
from quickwins_codemod.trials import ALL, BASELINE, Attempt, Trial

_STYLE = """\
.problem { border: 2px solid var(--worse); border-radius: .4rem; padding: .5rem .75rem;
  margin: .5rem 0; overflow-wrap: anywhere; }
.cases { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.case { background: var(--panel); border-radius: .4rem; padding: .6rem .8rem; min-width: 0;
  border-left: .3rem solid var(--line); break-inside: avoid; }
.case.helps { border-left-color: var(--better); }
.case.hurts, .case.not { border-left-color: var(--worse); }
.case h3 { margin: 0 0 .2rem; }
.case p { margin: .1rem 0 .3rem; font-weight: 600; }
.case ul { margin: .2rem 0 0; padding-left: 1.1rem; font-size: .85rem; color: var(--faint); }
.charts.pairs { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.helps { color: var(--better); } .hurts, .not { color: var(--worse); }
.case.helps, .case.hurts, .case.not { color: inherit; }
pre { background: var(--panel); border-radius: .4rem; padding: .6rem .8rem; overflow-x: auto;
  font: .85rem/1.45 ui-monospace, monospace; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
.forest text.name { fill: var(--ink); paint-order: stroke; stroke: var(--panel); stroke-width: 4px; }
.forest line { stroke: var(--faint); stroke-width: 2.5; } .forest circle { fill: var(--faint); }
.forest .zero { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.forest .helps line { stroke: var(--better); } .forest .helps circle { fill: var(--better); }
.forest .hurts line { stroke: var(--worse); } .forest .hurts circle { fill: var(--worse); }
summary { cursor: pointer; padding: .3rem 0; }
details[open] summary { margin-bottom: .5rem; }
.runs td, .runs th { font-size: .85rem; }
.runs .long { min-width: 14rem; overflow-wrap: anywhere; }
@media print { .case, pre { border: 1px solid var(--line); } pre { white-space: pre-wrap; } }
"""
_STEP = "optimizer step"
_COSTS = (SPEED, EPOCH_SECONDS, *PEAKS)
_WIDTH, _SIDE, _ROW, _TOP, _BOTTOM = 480, 34, 42, 4, 28


def write(path: Path, judgement: Judgement, config: str) -> None:
    """Write the page atomically, over a file that is there. Raises OSError."""
    writing.write_atomically(path, render(judgement, config).encode("utf-8"))


def render(judgement: Judgement, config: str) -> str:
    """Return the page. config: the lines that are recommended."""
    title = trial_text.title(judgement)
    body = [
        f"<h1>{safe(title)}</h1>",
        f"<p>{safe(trial_text.basis(judgement))}</p>",
        *(f'<p class="problem">{safe(said)}</p>' for said in trial_text.problems(judgement)),
        *_logs(judgement.trial),
        *_verdicts(judgement),
        *_forests(judgement),
        *_advised(judgement, config),
        *_table(judgement),
        *_curves(judgement),
        *_list("What ran", trial_text.ran(judgement)),
        *_commands(judgement.trial),
        *_attempts(judgement.trial),
        *_list("Notes", judgement.notes),
        "<footer>Made by quickwins trial. In the curves, thin lines are single runs, a thick line is"
        " the mean over the seeds, and the baseline is dashed.</footer>",
    ]
    return markup.document(title, _STYLE + curves.STYLE, body)


def _list(heading: str, told: Sequence[str]) -> Iterator[str]:
    if told:
        yield f"<h2>{heading}</h2><ul>"
        yield from (f"<li>{safe(one)}</li>" for one in told)
        yield "</ul>"


def _logs(trial: Trial) -> Iterator[str]:
    for whose, log in trial_text.logs(trial):
        yield f"<p>{safe(whose)}:</p><pre>" + "\n".join(map(safe, log)) + "</pre>"


# Verdicts


def _verdicts(judgement: Judgement) -> Iterator[str]:
    gone = [
        f"{gone.rule} changes nothing in this script"
        + (f": {gone.message}" if gone.message else "")
        for gone in judgement.trial.inapplicable
    ]
    cases = trial_text.shown(judgement)
    if cases:
        yield "<h2>Verdicts</h2>"
        yield '<div class="cases">'
    for case in cases:
        words = ", ".join(
            f'<span class="{_class(outcome)}">{safe(said)}</span>'
            for outcome, said in trial_text.heads(case)
        )
        told = [said for _, said in trial_text.details(case)]
        told += filter(None, [trial_text.price(case)])
        told += [f"without {missing}" for missing in case.missing]
        told += filter(None, [trial_text.reaching(case, judgement.headline)])
        yield (
            f'<div class="case {_class(case.quality.outcome)}">'
            f"<h3>{safe(trial_text.named(case))}</h3><p>{words}</p>"
        )
        if told:
            yield f"<ul>{''.join(f'<li>{markup.unbroken(safe(one))}</li>' for one in told)}</ul>"
        yield "</div>"
    if cases:
        yield "</div>"
    yield from (f"<p>{safe(one)}</p>" for one in gone)


def _class(outcome: str) -> str:
    return {"helps": "helps", "hurts": "hurts", "not active": "not"}.get(outcome, "open")


def _forests(judgement: Judgement) -> Iterator[str]:
    """Draw the interval of each case beside the others', for quality, time and memory."""
    aspects: tuple[Aspect, ...] = ("quality", "time", "memory")
    figures = [figure for aspect in aspects for figure in _forest(judgement, aspect)]
    if figures:
        yield '<h2>Differences, with their intervals</h2><div class="charts">'
        yield from figures
        yield "</div>"


def _forest(judgement: Judgement, aspect: Aspect) -> Iterator[str]:
    found = [
        (case, ruling, *shares)
        for case in trial_text.shown(judgement)
        for ruling in [case.ruling(aspect)]
        if (shares := _shares(ruling)) is not None
    ]
    if not found:
        return
    first = found[0][1].difference
    assert first is not None
    axis = curves.Axis.over([0.0, *(n for row in found for n in row[2:])])
    height = _TOP + _ROW * len(found) + _BOTTOM

    def across(share: float) -> float:
        return _SIDE + axis.share(share) * (_WIDTH - 2 * _SIDE)

    bottom = height - _BOTTOM
    parts = [f'<path class="grid" d="M{_SIDE} {bottom}H{_WIDTH - _SIDE}"/>']
    ticks = list(zip(axis.ticks, axis.words()))
    for tick, word in ticks if len(ticks) <= 6 else ticks[::2]:
        x = across(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{word} %</text>')
    parts.append(
        f'<line class="zero" x1="{across(0):.1f}" x2="{across(0):.1f}" y1="{_TOP}" y2="{bottom}"/>'
    )
    for place, (case, ruling, low, mean, high) in enumerate(found):
        assert ruling.difference is not None
        y = _TOP + _ROW * (place + 0.72)
        name = trial_text.named(case)
        said = f"{name}: {trial_text.change(ruling.difference)}"
        parts.append(
            f'<text class="name" x="4" y="{y - 14:.1f}">{safe(name)}</text>'
            f'<g class="{_class(ruling.outcome)}"><title>{safe(said)}</title>'
            f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle cx="{across(mean):.1f}" cy="{y:.1f}" r="4.5"/></g>'
        )
    better = f"; {first.better} is better" if first.better else ""
    title = f"{safe(trial_text.measured(first))}, change in percent{better}"
    yield (
        f'<figure class="forest"><figcaption>{title}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img"><title>{title}</title>'
        f"{''.join(parts)}</svg></figure>"
    )


def _shares(ruling: Ruling) -> tuple[float, float, float] | None:
    """Return low end, mean and high end in percent; without an interval all are the mean."""
    found = ruling.difference
    mean = None if found is None else found.percent(found.mean)
    if found is None or mean is None:
        return None
    low, high = found.percent(found.low), found.percent(found.high)
    return (mean if low is None else low), mean, (mean if high is None else high)


def _advised(judgement: Judgement, config: str) -> Iterator[str]:
    yield f"<h2>{'Recommended' if judgement.recommendation.select else 'No recommendation'}</h2>"
    if judgement.recommendation.select:
        lines = (safe(line) for line in config.rstrip("\n").split("\n"))
        yield "<pre>" + "\n".join(lines) + "</pre>"
    if told := trial_text.advised(judgement):
        yield f"<ul>{''.join(f'<li>{safe(one)}</li>' for one in told)}</ul>"


# Figures


def _table(judgement: Judgement) -> Iterator[str]:
    if not judgement.measures:
        return
    yield "<h2>Figures</h2>"
    heads = "".join(
        f'<th scope="col" class="n">{head}</th>'
        for head in ("mean ± deviation", "difference", "in percent")
    )
    main = [measure for measure in judgement.measures if measure.when != "last"]
    last = [measure for measure in judgement.measures if measure.when == "last"]
    yield from _tabled(judgement, heads, main)
    if last:
        yield "<details><summary>At the last epoch</summary>"
        yield from _tabled(judgement, heads, last)
        yield "</details>"
    yield (
        "<p>Mean ± sample standard deviation over seeds; differences are paired by seed, in brackets"
        " the 95 % interval of their mean.</p>"
    )


def _tabled(judgement: Judgement, heads: str, measures: Sequence[Measure]) -> Iterator[str]:
    yield '<div class="wide"><table class="figures">'
    yield f"<thead><tr><td></td>{heads}</tr></thead><tbody>"
    for measure in measures:
        name = safe(trial_text.measured(measure))
        yield f'<tr class="part"><th colspan="4" scope="colgroup">{name}</th></tr>'
        for variant, mean, found in trial_text.rows(judgement, measure):
            cells = [mean, "", ""]
            if found is not None:
                share = trial_text.change(found)
                cells = [mean, trial_text.absolute(found), share if "%" in share else ""]
            yield (
                f'<tr><th scope="row">{safe(variant)}</th>'
                + "".join(f'<td class="n">{markup.unbroken(cell)}</td>' for cell in cells)
                + "</tr>"
            )
    yield "</tbody></table></div>"


# Curves


def _curves(judgement: Judgement) -> Iterator[str]:
    base = _series(judgement.trial, BASELINE, "baseline")
    if not base.runs:
        return
    yield "<h2>Learning curves</h2>"
    for case in _drawn(judgement):
        pair = [base, _series(judgement.trial, case.variant, "optimized")]
        if not pair[1].runs:
            continue
        yield f"<h3>{safe(case.variant)} against the baseline</h3>"
        yield '<div class="charts pairs">'
        if judgement.headline is not None:
            yield from _by_all(pair, judgement.headline)
        yield from _rates(judgement.trial, case.variant, pair)
        yield "</div>"
        others = [*_others(pair, judgement.headline)]
        if others:
            yield f"<details><summary>All other metrics of {safe(case.variant)}</summary>"
            yield '<div class="charts">'
            yield from others
            yield "</div></details>"


def _drawn(judgement: Judgement) -> list[Case]:
    """Return the cases whose curves are drawn: each win, then all together."""
    against = [case for case in judgement.cases if case.against == BASELINE]
    return [case for case in against if case.win or case.variant == ALL]


def _series(trial: Trial, variant: str, kind: curves.Kind) -> curves.Series:
    runs = []
    for seed, run in finished(trial, variant).items():
        steps = [steps_at(trial, variant, seed, place) for place in range(len(run.epochs))]
        epochs = (
            epoch if step is None else replace(epoch, metrics={**epoch.metrics, _STEP: float(step)})
            for epoch, step in zip(run.epochs, steps)
        )
        header = replace(run.header, id=f"seed {seed + 1}")
        runs.append(Run(header, tuple(epochs)))
    return curves.Series(kind, variant, tuple(runs))


def _by_all(pair: Sequence[curves.Series], name: str) -> Iterator[str]:
    read = curves.metric(name)
    yield from curves.chart(pair, name, "epoch", read, curves.epoch_number)
    yield from curves.chart(pair, name, curves.WALL_TIME, read, curves.seconds)
    yield from curves.chart(pair, name, _STEP, read, curves.metric(_STEP))


def _rates(trial: Trial, variant: str, pair: Sequence[curves.Series]) -> Iterator[str]:
    """Draw the learning rate by step where the launcher saw it, else by epoch."""
    seen = [
        replace(one, runs=_rate_runs(trial, name)) for one, name in zip(pair, (BASELINE, variant))
    ]
    name = "learning rate"
    if all(one.runs for one in seen):
        yield from curves.chart(seen, name, _STEP, curves.rate, curves.epoch_number, "step")
    else:
        name = curves.rate_name(pair)
        yield from curves.chart(pair, name, "epoch", curves.rate, curves.epoch_number)


def _rate_runs(trial: Trial, variant: str) -> tuple[Run, ...]:
    """Return the rates at the steps of the first optimizer that stepped, with the first seed."""
    for seed, run in finished(trial, variant).items():
        attempt = next(a for a in trial.of(variant) if a.seed == seed)
        optimizers = attempt.observation.optimizers if attempt.observation else ()
        rates = next((one.rates for one in optimizers if one.steps), ())
        if rates:
            header = replace(run.header, id=f"seed {seed + 1}")
            return (Run(header, tuple(Epoch(step, None, (rate,), {}) for step, rate in rates)),)
    return ()


def _others(pair: Sequence[curves.Series], headline: str | None) -> Iterator[str]:
    names = sorted({name for one in pair for run in one.runs for name in run.names()}, key=order)
    for name in names:
        if name in (headline, _STEP) or bare(name).startswith("users_"):
            continue
        shown = "training seconds" if bare(name) == EPOCH_SECONDS else comparison.label(name)
        shown = shown.removesuffix(", mean over epochs")
        yield from curves.chart(pair, shown, "epoch", curves.metric(name), curves.epoch_number)


# What ran


def _commands(trial: Trial) -> Iterator[str]:
    yield "<h2>Commands</h2>"
    if trial.command:
        yield f'<p>The trial again:</p><pre class="command">{safe(trial.command)}</pre>'
    if trial.commands:
        lines = "\n".join(safe(command) for command in trial.commands.values())
        yield f'<p>Each variant once:</p><pre class="command">{lines}</pre>'


def _attempts(trial: Trial) -> Iterator[str]:
    yield "<h2>Runs</h2>"
    yield '<div class="wide"><table class="runs">'
    heads = "".join(
        f'<th scope="col">{head}</th>'
        for head in ("variant", "seed", "ended", "seconds", "epochs", "error or defect", "command")
    )
    yield f"<thead><tr>{heads}</tr></thead><tbody>"
    for attempt in (*trial.attempts, *([trial.original] if trial.original else [])):
        seconds = comparison.number(attempt.seconds, 1) if attempt.seconds is not None else ""
        epochs = str(len(attempt.run.epochs)) if attempt.run else ""
        cells = "".join(
            f'<td class="n">{cell}</td>'
            for cell in (attempt.seed + 1, attempt.status, seconds, epochs)
        )
        yield (
            f"<tr><td>{safe(attempt.variant)}</td>{cells}"
            f'<td class="long">{safe(_trouble(attempt))}</td>'
            f'<td class="long">{safe(" ".join(attempt.command))}</td></tr>'
        )
    yield "</tbody></table></div>"


def _trouble(attempt: Attempt) -> str:
    told = [trial_text.error(attempt)] if attempt.status == "failed" else []
    told += [f"{defect.rule}: {defect.message}" for defect in attempt.defects]
    return plain("; ".join(told))
