"""What a trial shows: for each win a verdict, from differences between runs with the same seed.

The intervals are those of the paired t test, at 95 %. With few seeds they are wide, and that is
what is known: a signed-rank test cannot reach 5 % with fewer than six pairs at all. One measure
alone decides about quality, chosen before looking (`headline`), one about time and one about memory;
all others are shown and decide nothing. Each verdict still errs in one of twenty trials in which
nothing changed.

Nothing here runs, prints or writes; what ran is read by `trials.py`. scipy is imported when the
first interval is asked for, and its absence is a reason for no verdict.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from quickwins_codemod import compare
from quickwins_codemod.compare import (
    EPOCH_SECONDS,
    PEAKS,
    SPEED,
    WALL,
    Better,
    Measure,
    Run,
    Value,
    bare,
    better,
    order,
)
from quickwins_codemod.trials import ALL, BASELINE, MEASURING, WITHOUT, Attempt, Defect, Trial

CONFIDENCE = 0.95
#: Below it no interval can be had, and hence no verdict.
FEWEST = 2
#: What to install where scipy is missing.
INSTALL = "pip install 'quickwins-codemod[trial]'"
#: What HardNegatives.statistics() tells of the mining, and not of the model.
_MINING = re.compile(r"(^|[/_])negatives/")
#: Values that differ by less of their size are one value, computed twice.
_SAME = 1e-9
_COSTS = (SPEED, EPOCH_SECONDS, WALL, *PEAKS)

Outcome = Literal["helps", "hurts", "no measurable difference", "no verdict", "not active"]
Aspect = Literal["quality", "time", "memory"]

#: Defects that are of the whole rewrite, though they are told of the rule that every variant has.
_ALL_RULES = ("foreign-module",)
_COSTLY: tuple[Aspect, ...] = ("time", "memory")
#: What an interval can say.
_JUDGED = ("helps", "hurts", "no measurable difference")


# Differences


@dataclass(frozen=True)
class Pair:
    """One measure of two runs with one seed."""

    seed: int
    before: float
    after: float

    @property
    def difference(self) -> float:
        return self.after - self.before


@dataclass(frozen=True)
class Difference:
    """One measure of a variant, less that of another, over the seeds that both have.

    when: as in compare.Measure. low, high: the interval of the mean; None below two pairs, without
        scipy, and where all differences are one, of which no chance is known.
    """

    name: str
    when: compare.When
    better: Better | None
    pairs: tuple[Pair, ...]
    low: float | None = None
    high: float | None = None

    @property
    def before(self) -> Value:
        return compare.value(pair.before for pair in self.pairs)

    @property
    def after(self) -> Value:
        return compare.value(pair.after for pair in self.pairs)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(p.difference for p in self.pairs) if self.pairs else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation of the differences."""
        if len(self.pairs) < FEWEST:
            return None
        return statistics.stdev(pair.difference for pair in self.pairs)

    @property
    def is_constant(self) -> bool:
        """Tell whether the difference is the same with every seed, 0 for example."""
        found = [pair.difference for pair in self.pairs]
        return max(found) - min(found) <= _SAME * self._size

    @property
    def is_zero(self) -> bool:
        return all(abs(pair.difference) <= _SAME * self._size for pair in self.pairs)

    @property
    def _size(self) -> float:
        return max(max(abs(pair.before), abs(pair.after)) for pair in self.pairs)

    @property
    def smallest(self) -> float | None:
        """How large a mean difference with this spread must be for its interval to leave out 0."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def percent(self, number: float | None) -> float | None:
        """Return a difference in percent of the mean before, None where that is 0 or next to it."""
        base = self.before.mean
        if number is None or not base:
            return None
        share = 100 * number / abs(base)
        return share if math.isfinite(share) else None


def difference(
    measure: Measure, pairs: Iterable[tuple[int, Run, Run]], with_interval: bool = True
) -> Difference:
    """Read one measure of pairs of runs; a seed of which one side is not known is left out."""
    found = []
    for seed, before, after in pairs:
        values = measure.of(before), measure.of(after)
        if values[0] is not None and values[1] is not None:
            found.append(Pair(seed, *values))
    made = Difference(measure.name, measure.when, measure.better, tuple(found))
    if not with_interval or len(found) < FEWEST or made.is_constant:
        return made
    low, high = interval([pair.before for pair in found], [pair.after for pair in found])
    return replace(made, low=low, high=high)


def interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the paired t interval of the mean of `after` less `before`. Raises ImportError."""
    from scipy import stats

    found = stats.ttest_rel(after, before).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)


def has_scipy() -> bool:
    """Tell whether intervals can be had here."""
    try:
        import scipy.stats  # noqa: F401
    except ImportError:
        return False
    return True


# Verdicts


@dataclass(frozen=True)
class Ruling:
    """A verdict on one aspect, from one measure. reason: why, where the interval does not say it."""

    aspect: Aspect
    outcome: Outcome
    reason: str = ""
    difference: Difference | None = None


@dataclass(frozen=True)
class Reached:
    """When one seed's variant first was as good as the best of the other side.

    target: the best value of the other side's headline. seconds and steps: since the start, None
    where they are not known, and after where it never was as good.
    """

    seed: int
    target: float
    seconds_before: float | None
    seconds_after: float | None
    steps_before: int | None
    steps_after: int | None
    reached: bool


@dataclass(frozen=True)
class Case:
    """One variant against another.

    win: the rule that they differ by, empty where it is several. missing: a sentence for each seed
    that is not a pair. broke: with how many seeds the variant failed where the other side did not.
    """

    variant: str
    against: str
    win: str
    rulings: tuple[Ruling, ...]
    differences: tuple[Difference, ...] = ()
    reached: tuple[Reached, ...] = ()
    missing: tuple[str, ...] = ()
    broke: int = 0
    defects: tuple[Defect, ...] = ()

    def ruling(self, aspect: Aspect) -> Ruling:
        return next(ruling for ruling in self.rulings if ruling.aspect == aspect)

    @property
    def quality(self) -> Ruling:
        return self.ruling("quality")

    @property
    def worse(self) -> tuple[Difference, ...]:
        """What is measurably worse at the best epoch, taken by itself, where quality is not."""
        if self.quality.outcome not in ("helps", "no measurable difference"):
            return ()
        return tuple(
            found
            for found in self.differences
            if found.when == "best" and found.low is not None and found.high is not None
            if (found.better == "higher" and found.high < 0)
            or (found.better == "lower" and found.low > 0)
        )


@dataclass(frozen=True)
class Advice:
    """Whether to keep a rule, and why; one sentence without a full stop."""

    rule: str
    keep: bool
    reason: str


@dataclass(frozen=True)
class Recommendation:
    """What of the trial to put into the configuration.

    select: the rules, `metrics` among them; empty where nothing can be recommended. variant: which
    of those that ran has just these. untried: rules that each earned their place, but were never
    run together. notes: what stands against it, one sentence each.
    """

    select: tuple[str, ...]
    variant: str
    advice: tuple[Advice, ...]
    untried: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """All that a trial shows.

    headline: the metric that decides about quality, at the best epoch by it; None where the
    baseline has none. measures: all that some run knows, in the order of the table. cases: each win
    alone and all together against the baseline, then all against all but each.
    """

    trial: Trial
    headline: str | None
    measures: tuple[Measure, ...]
    cases: tuple[Case, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]

    def value(self, variant: str, measure: Measure) -> Value:
        """Average a measure over the finished runs of a variant."""
        return compare.value(measure.of(run) for run in finished(self.trial, variant).values())

    def case(self, variant: str, against: str = BASELINE) -> Case | None:
        found = (c for c in self.cases if (c.variant, c.against) == (variant, against))
        return next(found, None)


def finished(trial: Trial, variant: str) -> dict[int, Run]:
    """Return the records of a variant's attempts that ran to their end, by seed.

    They have the losses and the like that the script itself logged once an epoch, too.
    """
    return {
        attempt.seed: _with_logged(attempt.run, attempt)
        for attempt in trial.of(variant)
        if attempt.status == "done" and attempt.run is not None
    }


def _with_logged(run: Run, attempt: Attempt) -> Run:
    """Add what was logged as often as there were epochs, is better one way, and is not there yet."""
    logged = attempt.observation.values if attempt.observation is not None else {}
    there = tuple(run.names())
    found = {
        name: values
        for name, values in logged.items()
        if len(values) == len(run.epochs) and better(name) is not None
        if not _is_batch(name) and not _MINING.search(name)
        if not any(
            name == known
            or re.search(rf"[/_]{re.escape(known)}$", name)
            or known in name and tuple(run.values(known)) == tuple(values)  # val_ndcg@10_epoch
            for known in there
        )
    }
    if not found:
        return run
    epochs = (
        replace(epoch, metrics={**epoch.metrics, **{name: v[place] for name, v in found.items()}})
        for place, epoch in enumerate(run.epochs)
    )
    return replace(run, epochs=tuple(epochs))


def headline(runs: Sequence[Run]) -> str | None:
    """Choose what decides about quality: NDCG, else what ranks too, else what held-out rows say.

    runs: of the baseline, since a win must not choose its own measure.
    """
    names = set.intersection(*(run.names() for run in runs)) if runs else set()
    known = sorted(
        (n for n in names if all(any(v is not None for v in run.values(n)) for run in runs)),
        key=order,
    )
    quality = [name for name in known if bare(name) not in _COSTS]
    choices: list[Callable[[str], bool]] = [
        lambda name: bare(name).startswith("ndcg@"),
        lambda name: "@" in name and better(name) == "higher",
        lambda name: better(name) == "higher" and _is_held_out(name),
        lambda name: better(name) == "higher" and not _is_of_training(name),
        lambda name: better(name) == "lower" and _is_held_out(name) and "loss" in name,
        lambda name: better(name) == "lower" and _is_held_out(name),
        lambda name: better(name) == "higher",
        lambda name: better(name) == "lower",
    ]
    return next((name for choice in choices for name in quality if choice(name)), None)


def _is_held_out(name: str) -> bool:
    held_out = {"val", "valid", "validation", "eval", "evaluation", "test", "dev"}
    return bool(_words(name) & held_out)


def _is_of_training(name: str) -> bool:
    return bool(_words(name) & {"train", "training"})


def _is_batch(name: str) -> bool:
    """Tell what is logged for some batches, in short runs for as many as there are epochs."""
    return bool(_words(name) & {"batch", "step", "iter", "iteration"})


def _words(name: str) -> set[str]:
    return set(re.split(r"[\W_]+", name.lower()))


def judge(trial: Trial) -> Judgement:
    """Look at a trial, finished or not."""
    base = list(finished(trial, BASELINE).values())
    chosen = headline(base)
    runs = [run for v in trial.variants for run in finished(trial, v.name).values()]
    names = {name for run in runs for name in run.names()}
    measures = compare.measures(names, chosen)
    shown = [m for m in measures if any(m.of(run) is not None for run in runs)]
    scipy = has_scipy()
    cases = [
        _case(trial, variant.name, BASELINE, chosen, shown, scipy)
        for variant in trial.variants
        if variant.name != BASELINE
    ]
    ablated = [v.name for v in trial.variants if v.name.startswith(WITHOUT)]
    cases += [_case(trial, ALL, name, chosen, shown, scipy) for name in ablated]
    notes = _notes(trial, shown, scipy)
    recommendation = _recommend(trial, cases)
    return Judgement(trial, chosen, tuple(shown), tuple(cases), recommendation, tuple(notes))


def _case(
    trial: Trial,
    variant: str,
    against: str,
    chosen: str | None,
    measures: Sequence[Measure],
    scipy: bool,
) -> Case:
    before, after = finished(trial, against), finished(trial, variant)
    pairs = _pairs(before, after)
    differences = [difference(measure, pairs, scipy) for measure in measures]
    differences = [found for found in differences if found.pairs]
    wins = _differing(trial, variant, against)
    attempts = trial.of(variant)
    defects = tuple(
        dict.fromkeys(
            defect
            for attempt in attempts
            for defect in attempt.defects
            if defect.rule in wins or defect.check in _ALL_RULES
        )
    )
    broke = [a for a in attempts if a.status in ("failed", "timed-out") and a.seed in before]
    missing = _missing(trial, {against: before, variant: after}, chosen)
    judged = [
        _ruling(aspect, found, measure, defects, wins, attempts, missing, scipy)
        for aspect, measure, found in (
            ("quality", chosen or "", _found(differences, chosen or "", "best")),
            ("time", EPOCH_SECONDS, _first(differences, (EPOCH_SECONDS, WALL))),
            ("memory", PEAKS[0], _first(differences, PEAKS)),
        )
    ]
    return Case(
        variant,
        against,
        wins[0] if len(wins) == 1 else "",
        tuple(judged),
        tuple(differences),
        tuple(_reached(trial, variant, against, pairs, chosen)) if chosen else (),
        missing,
        len(broke),
        defects,
    )


def _pairs(before: dict[int, Run], after: dict[int, Run]) -> list[tuple[int, Run, Run]]:
    return [(seed, run, after[seed]) for seed, run in before.items() if seed in after]


def _differing(trial: Trial, variant: str, against: str) -> tuple[str, ...]:
    wins = {v.name: v.wins for v in trial.variants}
    return tuple(rule for rule in wins[variant] if rule not in wins[against])


def _found(differences: Sequence[Difference], name: str, when: compare.When) -> Difference | None:
    return next((d for d in differences if d.name == name and d.when == when), None)


def _first(differences: Sequence[Difference], names: Sequence[str]) -> Difference | None:
    return next((d for name in names if (d := _found(differences, name, "run"))), None)


_STATUS = {
    "failed": "failed",
    "timed-out": "ran out of time",
    "interrupted": "was interrupted",
    "pending": "has not run",
    "done": "wrote no epoch to its record",
}


def _missing(
    trial: Trial, sides: dict[str, dict[int, Run]], chosen: str | None
) -> tuple[str, ...]:
    """Say of each seed that gives no pair why, the other side first.

    sides: the variants that are compared, with their finished runs by seed.
    """
    said = []
    for seed in trial.seeds:
        for name, runs in sides.items():
            attempt = next((a for a in trial.of(name) if a.seed == seed), Attempt(name, seed))
            if attempt.status != "done" or attempt.run is None:
                said.append(f"seed {seed + 1}: {name} {_STATUS[attempt.status]}")
                break
            if chosen and all(value is None for value in runs[seed].values(chosen)):
                said.append(f"seed {seed + 1}: {chosen} of {name} is never a finite number")
                break
    return tuple(said)


def _ruling(
    aspect: Aspect,
    found: Difference | None,
    measure: str,
    defects: Sequence[Defect],
    wins: Sequence[str],
    attempts: Sequence[Attempt],
    missing: Sequence[str],
    scipy: bool,
) -> Ruling:
    def no(reason: str) -> Ruling:
        return Ruling(aspect, "no verdict", reason, found)

    if defects:
        return Ruling(aspect, "not active", defects[0].message, found)
    if idle := _idle(wins, attempts):
        return no(idle)
    if found is None or len(found.pairs) < FEWEST:
        return no(_too_few(aspect, found, measure, len(attempts), missing))
    if aspect == "quality" and (odd := _suspicious(found)):
        return no(odd)
    if found.is_zero:
        return Ruling(aspect, "no measurable difference", "the same with every seed", found)
    if found.is_constant:
        return Ruling(aspect, _direction(found), "the same difference with every seed", found)
    if not scipy:
        return no(f"an interval needs scipy: {INSTALL}")
    assert found.low is not None and found.high is not None
    if found.low <= 0 <= found.high:
        return Ruling(aspect, "no measurable difference", "", found)
    return Ruling(aspect, _direction(found), "", found)


def _direction(found: Difference) -> Outcome:
    return "helps" if ((found.mean or 0.0) > 0) == (found.better == "higher") else "hurts"


def _too_few(
    aspect: Aspect, found: Difference | None, measure: str, asked: int, missing: Sequence[str]
) -> str:
    if missing:
        return f"too few runs to compare ({'; '.join(missing)})"
    if asked < FEWEST:
        return "one seed cannot tell a gain from chance"
    what = f" ({measure})" if measure and found is None else ""
    return f"{aspect} is not measured on both sides{what}"


def _suspicious(found: Difference) -> str:
    """Say what numbers of a training that depends on its seed would not do."""
    if found.is_zero:
        return f"{found.name} is the same as before with every seed, digit for digit"
    sides = [p.before for p in found.pairs], [p.after for p in found.pairs]
    if all(len(set(side)) == 1 for side in sides):
        return (
            f"every seed gave the same {found.name}, so these are copies of one run: the script sets"
            " a seed of its own"
        )
    if found.is_constant:
        return f"{found.name} differs by the same with every seed, which chance would not do"
    return ""


def _idle(wins: Sequence[str], attempts: Sequence[Attempt]) -> str:
    """Say that the one win that was added had nothing to do with this device, or these arguments."""
    seen = [attempt.observation for attempt in attempts if attempt.observation is not None]
    if not seen:
        return ""
    if tuple(wins) == ("amp",) and not any(o.forwards_autocast for o in seen):
        device = seen[0].device or "this device"
        return f"not exercised: no forward pass ran in half precision on {device}"
    mining = [one for o in seen for one in o.mining]
    # A ranking term is trained, whatever its negatives are, and so has an effect to judge.
    only_mined = mining and not any(one.ranking_calls for one in mining)
    if tuple(wins) == ("hard-negatives",) and only_mined and all(m.stayed_random for m in mining):
        if all(one.mine_calls <= one.warmup_steps for one in mining):
            return "not exercised: the run was no longer than the warm-up, where negatives are random"
        return "not exercised: the model ranked too badly for hard negatives (warmup-auc)"
    return ""


def _reached(
    trial: Trial,
    variant: str,
    against: str,
    pairs: Sequence[tuple[int, Run, Run]],
    chosen: str,
) -> Iterable[Reached]:
    for seed, before, after in pairs:
        best = compare.best_epoch(before, chosen)
        if best is None or not any(value is not None for value in after.values(chosen)):
            continue
        target = best.metrics[chosen]
        assert target is not None
        lower = better(chosen) == "lower"
        there = next(
            (
                epoch
                for epoch in after.epochs
                if (value := epoch.metrics.get(chosen)) is not None
                and (value <= target if lower else value >= target)
            ),
            None,
        )
        yield Reached(
            seed,
            target,
            best.seconds,
            there.seconds if there else None,
            steps_at(trial, against, seed, before.epochs.index(best)),
            steps_at(trial, variant, seed, after.epochs.index(there)) if there else None,
            there is not None,
        )


def steps_at(trial: Trial, variant: str, seed: int, place: int) -> int | None:
    """Return how many steps the optimizer had taken at the end of an epoch, the first is place 0.

    Known where there is one optimizer that stepped and all epochs had as many steps; the launcher
    counts those of the whole run.
    """
    attempt = next((a for a in trial.of(variant) if a.seed == seed), None)
    if attempt is None or attempt.observation is None or attempt.run is None:
        return None
    stepped = [seen.steps for seen in attempt.observation.optimizers if seen.steps]
    epochs = len(attempt.run.epochs)
    if len(stepped) != 1 or stepped[0] % epochs:
        return None
    return stepped[0] // epochs * (place + 1)


# Recommending


def _recommend(trial: Trial, cases: Sequence[Case]) -> Recommendation:
    """Keep what helped; of sets of rules, recommend only one that ran and earned its place."""
    alone = {case.win: case for case in cases if case.against == BASELINE and case.win}
    within = {case.win: case for case in cases if case.against != BASELINE}
    advice = [_advice(rule, case, within.get(rule)) for rule, case in alone.items()]
    advice += [
        Advice(gone.rule, False, "it changes nothing in this script")
        for gone in trial.inapplicable
        if gone.rule not in alone
    ]
    if not any(c.quality.outcome in _JUDGED for c in cases):
        return Recommendation((), "", tuple(advice))
    by_variant = {case.variant: case for case in cases if case.against == BASELINE}
    # What had nothing to do, as mixed precision on a CPU, changed nothing of what it ran with.
    idle = {rule for rule in alone if _idle((rule,), trial.of(alone[rule].variant))}
    wins = {v.name: frozenset(v.wins) - idle for v in trial.variants}
    kept = frozenset(a.rule for a in advice if a.keep)
    harmful = {rule for rule, case in alone.items() if _harms(case, within.get(rule))}
    earned = [c for name, c in by_variant.items() if _earns(c) and not wins[name] & harmful]
    notes = _interactions(alone, by_variant.get(ALL), trial)
    chosen = next((c for c in earned if wins[c.variant] == kept), None)
    if chosen is None:
        parts = [case for case in earned if wins[case.variant] <= kept]
        chosen = max(parts or earned, key=_gain, default=None)
        if chosen is not None and not wins[chosen.variant] <= kept:
            notes.append(f"no rule earned its place alone; {_named(chosen)} they did")
    best = max(earned, key=_gain, default=None)
    if chosen is not None and best is not None and _is_worse(trial, chosen, best):
        notes.append(
            f"{_named(chosen)} is measurably worse than {_named(best)}, which is recommended instead"
        )
        chosen = best
    untried = tuple(rule for rule in alone if rule in kept)
    if kept in wins.values():
        untried = ()
    name = chosen.variant if chosen else BASELINE
    measuring = () if trial.unmeasured else (MEASURING,)
    if beside := [
        rule for v in trial.variants if v.name == name for rule in v.wins if rule in idle
    ]:
        notes.append(f"{_and(beside)} ran with these, and did nothing here")
    return Recommendation(
        (*(rule for rule in alone if rule in wins[name]), *measuring),
        name,
        tuple(advice),
        untried,
        tuple(notes),
    )


def _advice(rule: str, alone: Case, within: Case | None) -> Advice:
    cases = [case for case in (alone, within) if case is not None]
    if defects := [defect for case in cases for defect in case.defects]:
        return Advice(rule, False, f"it was not active: {defects[0].message}")
    helps, hurts = (_places(alone, within, outcome) for outcome in ("helps", "hurts"))
    if hurts:
        return Advice(rule, False, f"it hurts quality{_where(hurts, within)}")
    if any(case.broke for case in cases):
        return Advice(rule, False, "the script failed with it where it did not without")
    costs = {a: {case.ruling(a).outcome for case in cases} for a in _COSTLY}
    gains = [a for a, found in costs.items() if "helps" in found and "hurts" not in found]
    losses = [a for a, found in costs.items() if "hurts" in found]
    price = f", and costs {_and(losses)}" if losses else ""
    if helps:
        return Advice(rule, True, f"it helps quality{_where(helps, within)}{price}")
    if not any(case.quality.outcome in _JUDGED for case in cases):
        return Advice(rule, False, f"no verdict: {alone.quality.reason}")
    saved = f"it saves {_and(gains)}" if gains else "no gain in time or memory"
    same = f"no measurable difference in quality, {saved}{price}"
    return Advice(rule, bool(gains) and not losses, same)


def _where(places: Sequence[str], within: Case | None) -> str:
    """Say alone or beside the others, where both were tried."""
    return f" {_and(places)}" if within is not None else ""


def _places(alone: Case, within: Case | None, outcome: Outcome) -> list[str]:
    """Say where a rule's quality had an outcome."""
    cases = (("alone", alone), ("beside the others", within))
    return [place for place, case in cases if case and case.quality.outcome == outcome]


def _harms(alone: Case, within: Case | None) -> bool:
    cases = [case for case in (alone, within) if case is not None]
    return any(c.broke or c.quality.outcome in ("hurts", "not active") for c in cases)


def _and(words: Sequence[str]) -> str:
    return " and ".join(words)


def _earns(case: Case) -> bool:
    """Tell whether a variant is worth its place beside the baseline."""
    outcome = case.quality.outcome
    if case.broke or outcome not in ("helps", "no measurable difference"):
        return False
    costs = [case.ruling(aspect).outcome for aspect in _COSTLY]
    return outcome == "helps" or ("helps" in costs and "hurts" not in costs)


def _gain(case: Case) -> float:
    found = case.quality.difference
    if found is None or found.mean is None:
        return -math.inf
    return found.mean if found.better == "higher" else -found.mean


def _is_worse(trial: Trial, case: Case, other: Case) -> bool:
    """Tell whether a variant's quality is measurably worse than another's, of the same trial."""
    found = case.quality.difference
    if found is None:
        return False
    pairs = _pairs(finished(trial, other.variant), finished(trial, case.variant))
    at_best = next(m for m in compare.measures([found.name], found.name) if m.name == found.name)
    between = difference(at_best, pairs)
    if between.low is None or between.high is None:
        return False
    return between.low > 0 if found.better == "lower" else between.high < 0


def _interactions(alone: dict[str, Case], together: Case | None, trial: Trial) -> list[str]:
    """Say where all rules together do less than one of them."""
    helping = [rule for rule, case in alone.items() if case.quality.outcome == "helps"]
    said = {"hurts": "hurt", "no measurable difference": "make no measurable difference"}
    if together is None or not helping:
        return []
    notes = []
    if together.quality.outcome in said:
        notes.append(
            f"the rules interact: {_and(helping)} {'helps' if len(helping) == 1 else 'help'} alone,"
            f" and all together {said[together.quality.outcome]}"
        )
    worse = [rule for rule in helping if _is_worse(trial, together, alone[rule])]
    notes += [f"all together are measurably worse than {rule} alone" for rule in worse]
    return notes


def _named(case: Case) -> str:
    return "all together" if case.variant == ALL else f"{case.variant} alone"


# What to know before believing it


def _notes(trial: Trial, measures: Sequence[Measure], scipy: bool) -> list[str]:
    notes = [*trial.notes]
    if trial.unmeasured and trial.variants:
        notes.append(
            f"no metrics could be added ({trial.unmeasured}): quality is what the script itself logs"
            " to wandb once an epoch, and times are those of its passes over a DataLoader"
        )
    if not scipy:
        notes.append(f"no intervals and no verdicts: scipy is not installed ({INSTALL})")
    if 1 < len(trial.seeds) < 5 and measures:
        notes.append(
            f"{len(trial.seeds)} seeds give wide intervals; five or more show smaller differences"
        )
    runs = {v.name: list(finished(trial, v.name).values()) for v in trial.variants}
    base = {len(run.epochs) for run in runs.get(BASELINE, [])}
    for name, found in runs.items():
        epochs = {len(run.epochs) for run in found}
        if found and base and epochs != base:
            notes.append(
                f"{name} ran for {_span(epochs)} epochs and the baseline for {_span(base)}, so"
                " compare their last epochs with care"
            )
    known = {
        name: {m.name for m in measures if any(m.of(run) is not None for run in found)}
        for name, found in runs.items()
        if found
    }
    for name, has in known.items():
        lacking = [m for m in dict.fromkeys(m.name for m in measures) if m not in has]
        if lacking:
            notes.append(f"{name} does not have {', '.join(lacking)}")
    attempts = [*trial.attempts, *([trial.original] if trial.original else [])]
    notes += dict.fromkeys(note for attempt in attempts for note in attempt.notes)
    return notes


def _span(numbers: set[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
