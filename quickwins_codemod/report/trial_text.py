"""What a trial showed, for a terminal: verdicts first, then what to keep, the figures, what ran.

The words and figures are those of the page, too (`trial_page.py`). No number stands here that the
trial did not measure.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from quickwins_codemod.compare import Measure, plain, value
from quickwins_codemod.judging import Case, Difference, Judgement, Ruling
from quickwins_codemod.report import comparison, terminal
from quickwins_codemod.report.comparison import decimals_of, number, spelled
from quickwins_codemod.trials import (
    BASELINE,
    MEASURING,
    WITHOUT,
    Attempt,
    Defect,
    Observation,
    Trial,
)

if TYPE_CHECKING:
    from rich.table import Table

_WORDS = {
    ("quality", "helps"): "helps quality",
    ("quality", "hurts"): "hurts quality",
    ("time", "helps"): "saves time",
    ("time", "hurts"): "costs time",
    ("memory", "helps"): "saves memory",
    ("memory", "hurts"): "costs memory",
}
_STYLES = {"helps": "good", "hurts": "bad", "not active": "bad"}
_ENDED = {
    "failed": "failed",
    "timed-out": "ran out of time",
    "interrupted": "was interrupted",
    "pending": "has not run",
}
_LINE = 100
#: So many of the last lines of a failed run are shown.
_LOG = 6


def show(judgement: Judgement, config: str) -> None:
    """Write the report to standard output. config: the lines that are recommended."""
    paint = terminal.Paint.of(sys.stdout)
    width = None if terminal.is_terminal(sys.stdout) else comparison.WIDE
    terminal.out(text(judgement, config, paint, width))


def text(
    judgement: Judgement,
    config: str,
    paint: terminal.Paint | None = None,
    width: int | None = comparison.WIDE,
) -> str:
    """Return the report. width: of a line of the table, None for that of the terminal."""
    paint = paint or terminal.Paint()
    wrapped = partial(_wrapped, min(_LINE, width or shutil.get_terminal_size().columns))
    lines = [paint("head", line) for line in wrapped(title(judgement))]
    lines += wrapped(basis(judgement))
    for problem in problems(judgement):
        lines += ["", *(paint("bad", line) for line in wrapped(problem))]
    for whose, log in logs(judgement.trial):
        lines += ["", f"{whose}:", *(f"    {plain(line)}" for line in log)]
    verdicts = [*_verdicts(judgement, paint, wrapped)]
    lines += ["", *verdicts] if verdicts else []
    lines += _advised(judgement, config, paint, wrapped)
    if judgement.measures:
        lines += ["", *comparison.drawn(_table(judgement), paint, width)]
    for heading, told in (("What ran", ran(judgement)), ("Notes", judgement.notes)):
        if told:
            lines += ["", paint("head", heading)]
            lines += [line for one in told for line in wrapped(one, "  ", "    ")]
    return "\n".join(lines).rstrip("\n") + "\n"


def _wrapped(width: int, words: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        plain(words), width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


# What it is about


def title(judgement: Judgement) -> str:
    """Say what was tried."""
    trial = judgement.trial
    seeds = "1 seed" if len(trial.seeds) == 1 else f"{len(trial.seeds)} seeds"
    return f"What the wins did to {plain(trial.script)}, over {seeds}"


def basis(judgement: Judgement) -> str:
    """Say what a verdict on quality rests on."""
    trial = judgement.trial
    if not trial.variants:
        return "No rule that was selected changes this script, so nothing was run."
    stands = "the script as it stands" if trial.unmeasured else "the script with measuring alone"
    against = (
        f"Each win is set against the baseline, {stands}, seed by seed; in brackets is the"
        " 95 % interval of the mean difference."
    )
    if judgement.headline is not None:
        return f"Quality is {plain(judgement.headline)} at the epoch where it is best. {against}"
    if trial.unmeasured and any(case.differences for case in judgement.cases):
        return (
            "Quality is not judged: no metrics could be added, and the script logs none to wandb once"
            f" an epoch. {against}"
        )
    return "No run without the wins ended with a metric, so there is nothing to judge by."


def problems(judgement: Judgement) -> list[str]:
    """Name what stands against believing any of it: defects, failures, a tree that has changed."""
    trial = judgement.trial
    said = [
        f"{_kind(defect)}: {defect.message} ({where}; please report it)"
        for defect, where in _defects(trial).items()
    ]
    said += _original(trial)
    for how, attempts in _failures(trial):
        untold = [a for a in attempts if trial.original is None or a.variant != BASELINE]
        said += [f"{_named(untold)} {how}"] if untold else []
    if trial.changed:
        said.append(
            "the original tree changed while the trial ran (by the script, or by you):"
            f" {', '.join(trial.changed)}"
        )
    return said


def _kind(defect: Defect) -> str:
    return "MEASURING" if defect.rule == MEASURING else f"NOT ACTIVE: {defect.rule}"


def _defects(trial: Trial) -> dict[Defect, str]:
    found: dict[Defect, list[Attempt]] = {}
    for attempt in trial.attempts:
        for defect in attempt.defects:
            found.setdefault(defect, []).append(attempt)
    return {defect: _named(attempts) for defect, attempts in found.items()}


def _named(attempts: Sequence[Attempt]) -> str:
    """Name attempts by their variants, each with its seeds."""
    seeds: dict[str, list[int]] = {}
    for attempt in attempts:
        seeds.setdefault(attempt.variant, []).append(attempt.seed + 1)
    return ", ".join(
        f"{variant} with {'seed' if len(found) == 1 else 'seeds'} {', '.join(map(str, found))}"
        for variant, found in seeds.items()
    )


def _original(trial: Trial) -> list[str]:
    """Say how the script fared without any rewrite, which is asked where the baseline failed."""
    original = trial.original
    if original is None:
        return []
    base = next((a for a in trial.of(BASELINE) if a.status == "failed"), None)
    if original.status == "failed":
        same = base is not None and _cause(base) == _cause(original)
        after = "ends with the same error" if same or base is None else f"ends with: {error(base)}"
        return [
            f"{trial.script} fails before the rewrite too, by an error of its own: {error(original)}",
            f"The rewritten script {after}. Nothing was measured; mend that first, or choose other"
            " arguments.",
        ]
    if original.status == "done" and base is not None:
        return [
            f"{trial.script} runs to its end as it stands, and fails once it measures itself; please"
            f" report it: {error(base)}"
        ]
    return [f"The script as it stands {_ENDED.get(original.status, original.status)}."]


def _cause(attempt: Attempt) -> tuple[str, str]:
    """Return what ended a run, without the line, which a rewrite moves."""
    failure = attempt.failure
    return (failure.type, failure.message) if failure else ("", error(attempt))


def _failures(trial: Trial) -> Iterator[tuple[str, list[Attempt]]]:
    """Give how attempts failed, and which did so; after a failed baseline, no other was run."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in trial.attempts:
        if trial.original is not None and attempt.status == "pending":
            continue
        if attempt.status == "failed":
            groups.setdefault(f"failed: {error(attempt)}", []).append(attempt)
        elif attempt.status in _ENDED:
            groups.setdefault(_ENDED[attempt.status], []).append(attempt)
    yield from groups.items()


def logs(trial: Trial) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Give the last lines that failed attempts wrote, once for each error."""
    for _, attempts in _failures(trial):
        first = attempts[0]
        if first.status == "failed" and first.stderr:
            yield f"{_named([first])} wrote at last", first.stderr[-_LOG:]


def error(attempt: Attempt) -> str:
    """Return a script's own error in one line."""
    failure = attempt.failure
    if failure is None:
        last = next((line for line in reversed(attempt.stderr) if line.strip()), "")
        return plain(last) or f"exit code {attempt.exit_code}"
    place = f" ({failure.path}:{failure.line})" if failure.path else ""
    message = f": {failure.message}" if failure.message else ""
    return plain(f"{failure.type}{message}{place}")


# Verdicts


def heads(case: Case) -> list[tuple[str, str]]:
    """Return the verdicts on a case in some words each, with the outcome of each."""
    first = case.quality
    if first.outcome == "not active":
        return [("not active", f"not active: {first.reason}")]
    if all((r.outcome, r.reason) == ("no verdict", first.reason) for r in case.rulings):
        return [("no verdict", f"no verdict: {first.reason}")]
    found: dict[str, list[Ruling]] = {}
    for ruling in case.rulings:
        found.setdefault(_head(ruling), []).append(ruling)
    return [
        (
            rulings[0].outcome,
            head + _these([ruling.aspect for ruling in rulings]) * head.endswith(" "),
        )
        for head, rulings in found.items()
    ]


def _head(ruling: Ruling) -> str:
    """Return a verdict in words; one that ends with a space wants the name of the aspect."""
    if ruling.outcome == "no measurable difference":
        return "no measurable difference in "
    return _WORDS.get((ruling.aspect, ruling.outcome), "no verdict on ")


def _these(words: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def details(case: Case) -> Iterator[tuple[Ruling, str]]:
    """Say of each verdict what it rests on."""
    told = {words for _, words in heads(case)}
    for ruling in case.rulings:
        parts = []
        if ruling.difference is not None and ruling.difference.pairs:
            parts.append(f"{measured(ruling.difference)}: {between(ruling.difference)}")
        if ruling.reason and not any(ruling.reason in words for words in told):
            parts.append(ruling.reason)
        if ruling.outcome == "no measurable difference" and ruling.difference is not None:
            parts += _unseen(ruling.difference)
        if parts:
            yield ruling, "; ".join(parts)


def measured(found: Difference | Measure) -> str:
    """Return the name of a measure, and at which epoch it was read where that matters."""
    if found.name == "epoch":
        return "number of the best epoch"
    place = {"best": " at the best epoch", "last": " at the last epoch", "run": ""}[found.when]
    return f"{comparison.label(found.name)}{place}"


def between(found: Difference) -> str:
    """Return a measure before and after, and the change with its interval."""
    before, after = found.before.mean, found.after.mean
    size = before or after
    decimals = decimals_of(size) if size else None
    return f"{number(before, decimals)} to {number(after, decimals)}, {change(found)}"


def change(found: Difference) -> str:
    """Return the change in percent with its interval, or as it is where it is from 0."""
    mean, low, high = (found.percent(n) for n in (found.mean, found.low, found.high))
    if mean is None or found.name == "epoch":
        return absolute(found)
    around = "" if low is None or high is None else f" [{_signed(low, 1)}, {_signed(high, 1)}]"
    return f"{_signed(mean, 1)} %{around}"


def absolute(found: Difference) -> str:
    """Return the mean difference with its interval."""
    size = found.before.mean or found.after.mean or found.mean
    decimals = decimals_of(size) if size else 4
    decimals = 1 if found.name == "epoch" else decimals
    around = ""
    if found.low is not None and found.high is not None:
        around = f" [{_signed(found.low, decimals)}, {_signed(found.high, decimals)}]"
    return f"{_signed(found.mean, decimals)}{around}"


def _signed(found: float | None, decimals: int) -> str:
    if found is None:
        return "n/a"
    words = f"{found:+,.{min(decimals, 9)}f}"
    return words.replace("-", "+") if found == 0 else words


def _unseen(found: Difference) -> list[str]:
    if found.smallest is None:
        return []
    share = found.percent(found.smallest)
    size = number(found.smallest) if share is None else f"{share:,.1f} %"
    return [f"less than {size} would not have shown with {len(found.pairs)} seeds"]


def _verdicts(
    judgement: Judgement, paint: terminal.Paint, wrapped: Callable[..., list[str]]
) -> Iterator[str]:
    for case in shown(judgement):
        told = heads(case)
        whole = wrapped(f"{named(case)}: {', '.join(words for _, words in told)}", "", "    ")
        if len(whole) == 1:
            words = ", ".join(paint(_STYLES.get(o, "note"), plain(said)) for o, said in told)
            whole = [f"{paint('head', plain(named(case)))}: {words}"]
        yield from whole
        for _, detail in details(case):
            yield from wrapped(detail, "    ", "      ")
        if said := price(case):
            yield from wrapped(said, "    ", "      ")
        for missing in case.missing:
            yield from wrapped(f"without {missing}", "    ", "      ")
        if reached := reaching(case, judgement.headline):
            yield from wrapped(reached, "    ", "      ")
    for gone in judgement.trial.inapplicable:
        why = f" ({gone.code}: {gone.message})" if gone.code else ""
        yield from wrapped(f"{gone.rule}: changes nothing in this script{why}", "", "    ")


def price(case: Case) -> str:
    """Name what is worse where quality is not, such as an error of the ratings beside a ranking."""
    told = [f"{comparison.label(found.name)} {change(found)}" for found in case.worse]
    return f"worse at that epoch, each taken by itself: {', '.join(told)}" if told else ""


def named(case: Case) -> str:
    """Name a case: a variant, or what all others were with and without."""
    return case.variant if case.against == BASELINE else f"{case.win} beside the others"


def shown(judgement: Judgement) -> list[Case]:
    """Return the cases to speak of; all but each is told by what it lacks, not by what it did."""
    if judgement.headline is None and not any(case.differences for case in judgement.cases):
        return []  # nothing was measured, which is said once
    return [
        c for c in judgement.cases if c.against != BASELINE or not c.variant.startswith(WITHOUT)
    ]


def reaching(case: Case, headline: str | None) -> str:
    """Say when the other side's best was reached."""
    if not case.reached or headline is None:
        return ""
    there = [one for one in case.reached if one.reached]
    other = "the baseline" if case.against == BASELINE else case.against
    said = (
        f"the best {plain(headline)} of {other} was reached with {len(there)} of"
        f" {len(case.reached)} seeds"
    )
    sides = {
        "s": [(one.seconds_before, one.seconds_after) for one in there],
        "steps": [(one.steps_before, one.steps_after) for one in there],
    }
    times = []
    for unit, found in sides.items():
        before, after = value(b for b, _ in found).mean, value(a for _, a in found).mean
        if before is not None and after is not None:
            decimals = 0 if unit == "steps" else None
            times.append(f"{number(after, decimals)} {unit} against {number(before, decimals)}")
    return f"{said}, after {' and '.join(times)} (means of these)" if times else said


# What to keep


def _advised(
    judgement: Judgement, config: str, paint: terminal.Paint, wrapped: Callable[..., list[str]]
) -> Iterator[str]:
    found = judgement.recommendation
    yield ""
    yield paint("head", "Recommended" if found.select else "No recommendation")
    if found.select:
        yield from (f"    {line}".rstrip() for line in config.rstrip("\n").split("\n"))
    for sentence in advised(judgement):
        yield from wrapped(sentence, "  ", "    ")


def advised(judgement: Judgement) -> list[str]:
    """Say why these rules are recommended, and what was measured of them together."""
    found = judgement.recommendation
    advice = found.advice if shown(judgement) else ()
    ordered = sorted(advice, key=lambda advice: not advice.keep)
    said = [f"{'keep' if a.keep else 'leave'} {a.rule}: {a.reason}" for a in ordered]
    said += found.notes
    case = judgement.case(found.variant)
    if case is not None and case.quality.difference is not None:
        what = measured(case.quality.difference)
        together = "these rules together" if len(found.select) > 2 else "this rule"
        said.append(f"{together}, as measured: {what} {between(case.quality.difference)}")
    elif found.variant == BASELINE:
        stays = "; metrics stays, since it measures" if found.select else ""
        said.append(f"no win earned its place here{stays}")
        more = max(5, 2 * len(judgement.trial.seeds))
        said.append(f"more seeds show smaller differences; {again(judgement.trial, seeds=more)}")
    elif len(judgement.trial.seeds) < 2:
        said.append(f"one seed gives no verdict; {again(judgement.trial, seeds=5)}")
    if found.untried:
        said.append(
            f"{' and '.join(found.untried)} were never run together without the rest;"
            f" {again(judgement.trial, found.untried)}"
        )
    return said


def again(trial: Trial, select: Sequence[str] = (), seeds: int = 0) -> str:
    """Return the command line that tries other rules or more seeds, all else as it was."""
    words = shlex.split(trial.command)
    end = words.index("--") if "--" in words else len(words)
    flags = words[2:end]
    for name, new in (("--seeds", str(seeds or "")), ("--select", ",".join(select))):
        if not new:
            continue
        while name in flags:
            place = flags.index(name)
            del flags[place : place + 2]
        flags = [name, new, *flags]
    return f"run: {shlex.join([*words[:2], *flags, *words[end:]])}"


# Figures


def rows(judgement: Judgement, measure: Measure) -> Iterator[tuple[str, str, Difference | None]]:
    """Give each variant's mean of a measure, and its difference; all but each come last."""
    for variant in judgement.trial.variants:
        found = judgement.value(variant.name, measure)
        if found.n:
            case = judgement.case(variant.name)
            yield variant.name, spelled(found, measure.name), _of(case, measure)
    for case in judgement.cases:
        if case.against != BASELINE and (found := _of(case, measure)) is not None:
            yield f"{case.variant}, less {case.against}", "", found


def _of(case: Case | None, measure: Measure) -> Difference | None:
    differences: Iterable[Difference] = case.differences if case else ()
    return next((d for d in differences if (d.name, d.when) == (measure.name, measure.when)), None)


def _table(judgement: Judgement) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("mean ± deviation", justify="right")
    table.add_column("difference", justify="right")
    shown = [m for m in judgement.measures if m.when != "last"]
    for position, measure in enumerate(shown or judgement.measures):
        if position:
            table.add_row()
        table.add_row(Text(measured(measure), style="bold"))
        for name, mean, found in rows(judgement, measure):
            table.add_row(Text(f"  {plain(name)}"), mean, "" if found is None else change(found))
    return table


# What ran


def ran(judgement: Judgement) -> list[str]:
    """Say on what machine it ran, and what the launcher saw the wins do, with the first seed."""
    trial = judgement.trial
    seen = [
        f"{variant.name}: {'; '.join(words)}"
        for variant in trial.variants
        for attempt in trial.of(variant.name)[:1]
        if attempt.observation is not None and (words := active(attempt.observation))
    ]
    return [environment(trial), *seen]


def environment(trial: Trial) -> str:
    about = trial.environment
    parts = [
        about.device,
        f"torch {about.torch}" if about.torch else "",
        f"Python {about.python}" if about.python else "",
        f"{about.cpus} CPUs" if about.cpus else "",
        about.platform,
        f"quickwins {about.quickwins}" if about.quickwins else "",
        f"QUICKWINS_AMP={trial.amp}" if trial.amp else "",
        f"started {trial.started}" if trial.started else "",
    ]
    return ", ".join(map(plain, filter(None, parts)))


def active(seen: Observation) -> list[str]:
    """Say what a run did that belongs to the wins."""
    said = [
        f"{one.steps:,} steps of {one.kind}, rate {_rate(one.first)} to {_rate(one.peak)} at step"
        f" {one.peak_step:,} to {_rate(one.last)}"
        for one in seen.optimizers
        if one.steps
    ]
    for schedule in seen.schedules:
        total = f" of {schedule.total_steps:,}" if schedule.total_steps else ""
        said.append(f"{schedule.kind} stepped {schedule.calls:,}{total} times")
    if seen.forwards_autocast:
        types = f" ({', '.join(seen.autocast_types)})" if seen.autocast_types else ""
        said.append(
            f"{seen.forwards_autocast:,} of {seen.forwards:,} forwards under autocast{types}"
        )
    said += [
        f"{one.steps:,} scaled steps, {one.skipped:,} skipped"
        for one in seen.scalers
        if one.enabled
    ]
    for mining in seen.mining:
        calls = mining.mine_calls + mining.ranking_calls + mining.mask_calls
        figures = ", ".join(f"{name} {number(n)}" for name, n in mining.statistics.items())
        said.append(f"negatives mined {calls:,} times" + (f" ({figures})" if figures else ""))
    return said


def _rate(found: float | None) -> str:
    return "n/a" if found is None else f"{found:.3g}"
