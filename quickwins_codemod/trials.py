"""What a trial is: variants, attempts, what was seen in each; read from and written to a folder.

A trial's folder is `.quickwins/trials/<id>/` below the root of the repository:

    trial.json                       what was asked for, and on which machine
    <variant>/seed-<n>/attempt.json  how one run of the script ended, and what the checks said
                      /record.jsonl  what the runtime's Tracker wrote (record-2.jsonl, … of others),
                                     or the launcher, where there can be no Tracker
                      /observation.json  what the launcher saw the script do
                      /stdout.log, stderr.log

Each file is written atomically, and attempt.json last, so that an interrupted trial goes on from
what is there: an attempt without one is pending. `trial.py` runs the attempts, `activity.py` checks
them. Nothing here runs a script, judges a gain or knows torch.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from quickwins_codemod import compare

#: The version of the files that is understood.
VERSION = 1
#: The rule that every variant has, so that all of them are measured by the same code. Where it
#: cannot be applied, none has it, and the launcher writes the record (`child/recording.py`).
MEASURING = "metrics"
BASELINE, ALL = "baseline", "all"
#: The script as it stands, without a rewrite; run where the baseline fails.
ORIGINAL = "original"
WITHOUT = "all-but-"

_TRIAL, _ATTEMPT, _OBSERVATION = "trial.json", "attempt.json", "observation.json"
_RECORD = "record"

Status = Literal["done", "failed", "timed-out", "interrupted", "pending"]


class TrialError(Exception):
    """A trial's folder that cannot be read; its text is one line for the user."""


@dataclass(frozen=True)
class Variant:
    """One form of the script.

    select: the rules that are applied to it, `metrics` among them if it can be. codes: all that was
        said of the script and the files it imports, once each. files: those that the wins change.
    """

    name: str
    select: tuple[str, ...]
    codes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def wins(self) -> tuple[str, ...]:
        """The rules that are on trial in it: none in the baseline."""
        return tuple(rule for rule in self.select if rule != MEASURING)

    @property
    def measures_itself(self) -> bool:
        """Whether it has the metrics, and a Tracker."""
        return MEASURING in self.select


@dataclass(frozen=True)
class Inapplicable:
    """A rule that was not tried: it changes nothing in the script and in the files it imports.

    code, message, path, line: the first refusal, or what says that it is there already; empty and
        0 where the rule found nothing to say.
    """

    rule: str
    code: str = ""
    message: str = ""
    path: str = ""
    line: int = 0


@dataclass(frozen=True)
class Failure:
    """The exception that ended a script. path, line: where in the user's own code, if known."""

    type: str
    message: str
    path: str = ""
    line: int = 0


@dataclass(frozen=True)
class Defect:
    """A win that was not active in an attempt as it should have been.

    check: a short name that stays the same ("schedule-length"). message: one sentence.
    """

    rule: str
    check: str
    message: str


# What the launcher saw; `child/` writes it under these names


@dataclass(frozen=True)
class OptimizerSeen:
    """One optimizer: its steps, and the rate of its first group at them.

    rates: pairs of step (from 1) and rate, thinned to some hundreds. peak_step counts from 1.
    """

    kind: str
    steps: int = 0
    first: float | None = None
    peak: float | None = None
    peak_step: int = 0
    last: float | None = None
    rates: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class ScheduleSeen:
    """One learning-rate scheduler of torch's classes, or derived from them.

    bases: names of its classes, its own first. optimizer: its place in Observation.optimizers.
    calls: of step(). position: its last_epoch at the end. steps_before: of the optimizer, when the
        schedule was made. peak, end: rates of the first group as its arguments say, for OneCycle.
    """

    kind: str
    bases: tuple[str, ...] = ()
    optimizer: int | None = None
    total_steps: int | None = None
    calls: int = 0
    position: int | None = None
    steps_before: int = 0
    peak: float | None = None
    end: float | None = None
    pct_start: float | None = None


@dataclass(frozen=True)
class ScalerSeen:
    """One gradient scaler. skipped: its steps that did not step the optimizer. scale: the last."""

    kind: str
    enabled: bool = False
    scaled: int = 0
    unscaled: int = 0
    steps: int = 0
    skipped: int = 0
    updates: int = 0
    scale: float | None = None


@dataclass(frozen=True)
class MiningSeen:
    """One HardNegatives.

    mine_calls, ranking_calls, mask_calls: of `mine`, `ranking_loss`, `mask_in_batch`.
    ranking_gradients: how often the backward pass reached one of the ranking terms looked at.
    checked: mined items that were looked up; replaced: of those of `mine`, how many are not the
        row's own draw; seen: how many the user has seen, though the pool had others;
    expected_seen: how many of the ranking term's may be, as all of their pool had been seen.
    statistics: the last of each that `statistics()` gave, without the prefix.
    """

    mine_calls: int = 0
    ranking_calls: int = 0
    ranking_gradients: int = 0
    mask_calls: int = 0
    warmup_steps: int = 0
    warmup_auc: float = 0.0
    checked: int = 0
    replaced: int = 0
    seen: int = 0
    expected_seen: float = 0.0
    statistics: Mapping[str, float] = field(default_factory=dict)

    @property
    def stayed_random(self) -> bool:
        """Whether it was never over its warm-up, or no longer at the end."""
        if 0 < self.mine_calls + self.ranking_calls <= self.warmup_steps:
            return True
        found = self.statistics
        return found.get("random_share") == 1.0 and found.get("auc", 1.0) < self.warmup_auc


@dataclass(frozen=True)
class Observation:
    """What a script did while it ran.

    forwards, eval_forwards: calls of modules with parameters that no other module made, in training
        with gradient, and all others; …_autocast: of these under autocast, and to which types.
    clips, norms: calls of torch's clipping with a finite and an infinite bound (which only asks for
        the norm); …_scaled: of these while the gradients were still multiplied by a scale.
    logged: keys that went to wandb; not_finite: of these, which ever were NaN or infinite; values:
        of these, all that were given, None for what is no finite number; not of keys that were
        logged more than a thousand times.
    device: where the trained parameters are ("cpu", "cuda"). amp: QUICKWINS_AMP.
    wrote_outside: files that were written outside of the copy.
    imported: files of the copy that were run, the script among them.
    foreign: modules imported from the original tree, not from its copy.
    problems: what could not be watched, one line each.
    """

    optimizers: tuple[OptimizerSeen, ...] = ()
    schedules: tuple[ScheduleSeen, ...] = ()
    scalers: tuple[ScalerSeen, ...] = ()
    mining: tuple[MiningSeen, ...] = ()
    forwards: int = 0
    forwards_autocast: int = 0
    eval_forwards: int = 0
    eval_forwards_autocast: int = 0
    autocast_types: tuple[str, ...] = ()
    backwards: int = 0
    backwards_autocast: int = 0
    clips: int = 0
    clips_scaled: int = 0
    norms: int = 0
    norms_scaled: int = 0
    logged: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    values: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    device: str = ""
    amp: str = ""
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    wrote_outside: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    failure: Failure | None = None


@dataclass(frozen=True)
class Attempt:
    """One run of one variant with one seed.

    seconds: wall time of the process, start of Python included. command: as typed in a checkout
        that is rewritten that way. stderr: its last lines. runs: the records, one of each Tracker.
    notes: what the checks could not look at, and what they explain; one sentence each.
    """

    variant: str
    seed: int
    status: Status = "pending"
    exit_code: int | None = None
    seconds: float | None = None
    command: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    failure: Failure | None = None
    defects: tuple[Defect, ...] = ()
    notes: tuple[str, ...] = ()
    runs: tuple[compare.Run, ...] = field(default=(), metadata={"elsewhere": True})
    observation: Observation | None = field(default=None, metadata={"elsewhere": True})

    @property
    def run(self) -> compare.Run | None:
        """The record with the most epochs, None where there is none with any."""
        found = [run for run in self.runs if run.epochs]
        return max(found, key=lambda run: len(run.epochs)) if found else None


@dataclass(frozen=True)
class Environment:
    """Where a trial ran. python, torch: versions; device: the card's name, or "cpu"."""

    python: str = ""
    torch: str = ""
    device: str = ""
    cpus: int = 0
    platform: str = ""
    quickwins: str = ""


@dataclass(frozen=True)
class Trial:
    """A script, its variants, and their attempts in the order in which they are run.

    script, folder: the script and the current folder, both from the root ("" is the root itself).
    select: the rules on trial, those that do not apply among them. seeds: the first leaves the
        script's own seeds as they are.
    amp: QUICKWINS_AMP for all attempts, if it was set. time_limit: seconds for each attempt.
    unmeasured: why the metrics could not be added, so that no variant has them; empty where all do.
    fingerprint: of the rewritten sources, the arguments, and the data they name.
    original: the run of the script as it stands, if the baseline failed.
    changed: files of the original tree that are not as they were before the trial.
    command: what repeats the trial; commands: for each variant, what runs it once.
    """

    id: str
    script: str
    folder: str = ""
    arguments: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    select: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = ()
    inapplicable: tuple[Inapplicable, ...] = ()
    environment: Environment = Environment()
    started: str = ""
    amp: str = ""
    time_limit: float | None = None
    unmeasured: str = ""
    fingerprint: str = ""
    command: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = field(default=(), metadata={"elsewhere": True})
    original: Attempt | None = field(default=None, metadata={"elsewhere": True})

    def of(self, variant: str) -> tuple[Attempt, ...]:
        """Return the attempts of a variant, one for each seed."""
        return tuple(attempt for attempt in self.attempts if attempt.variant == variant)


def variants(
    rules: Sequence[str], ablate: bool = False, measures: bool = True
) -> tuple[Variant, ...]:
    """Return what there is to run for these wins: none, each alone, all, and all but each.

    rules: those on trial that apply, `metrics` not among them. measures: whether that applies.
    """
    measuring = (MEASURING,) if measures else ()
    found = [Variant(BASELINE, measuring)]
    found += [Variant(rule, (rule, *measuring)) for rule in rules]
    if len(rules) > 1:
        found.append(Variant(ALL, (*rules, *measuring)))
    if ablate and len(rules) > 2:  # of two, the one without the other is there already
        found += [
            Variant(f"{WITHOUT}{rule}", (*(r for r in rules if r != rule), *measuring))
            for rule in rules
        ]
    return tuple(found)


# On disk


def attempt_folder(folder: Path, variant: str, seed: int) -> Path:
    """Return where the files of an attempt are in the folder of its trial."""
    return folder / variant / f"seed-{seed}"


def write(folder: Path, trial: Trial) -> None:
    """Write what a trial is; its attempts are written one by one."""
    _write(folder / _TRIAL, {"version": VERSION, **_plain(trial)})


def write_attempt(folder: Path, attempt: Attempt) -> None:
    """Write how an attempt ended; its record and observation are there already."""
    place = attempt_folder(folder, attempt.variant, attempt.seed)
    _write(place / _ATTEMPT, {"version": VERSION, **_plain(attempt)})


def read(folder: Path) -> Trial:
    """Read a trial with all its attempts, pending ones among them. Raises TrialError."""
    trial = _build(Trial, _object(folder / _TRIAL), folder / _TRIAL)
    order = [(variant.name, seed) for seed in trial.seeds for variant in trial.variants]
    attempts = (read_attempt(folder, variant, seed) for variant, seed in order)
    original = read_attempt(folder, ORIGINAL, trial.seeds[0]) if trial.seeds else None
    return replace(
        trial,
        attempts=tuple(attempts),
        original=None if original is None or original.status == "pending" else original,
    )


def read_attempt(folder: Path, variant: str, seed: int) -> Attempt:
    """Read one attempt, pending where it has not been written. Raises TrialError."""
    place = attempt_folder(folder, variant, seed)
    if not (place / _ATTEMPT).exists():
        return Attempt(variant, seed)
    attempt = _build(Attempt, _object(place / _ATTEMPT), place / _ATTEMPT)
    return replace(attempt, runs=read_runs(place), observation=read_observation(place))


def read_runs(place: Path) -> tuple[compare.Run, ...]:
    """Read the records in an attempt's folder. Raises TrialError."""
    found = []
    for path in sorted(place.glob(f"{_RECORD}*.jsonl"), key=lambda path: (len(path.name), path)):
        try:
            if compare.read_header(path, path.name) is not None:
                found.append(compare.read(path, path.name))
        except compare.RecordError as error:
            raise TrialError(str(error)) from None
    return tuple(found)


def record_name(number: int) -> str:
    """Return the name of an attempt's first, second, … record."""
    return f"{_RECORD}.jsonl" if number == 1 else f"{_RECORD}-{number}.jsonl"


def read_observation(place: Path) -> Observation | None:
    """Read what the launcher wrote, None where it came to write nothing. Raises TrialError."""
    path = place / _OBSERVATION
    return _build(Observation, _object(path), path) if path.exists() else None


def _write(path: Path, data: dict[str, Any]) -> None:
    from quickwins_codemod.writing import write_atomically  # it needs subprocess; reading does not

    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, text.encode("utf-8", "surrogatepass") + b"\n")


def _plain(value: Any) -> dict[str, Any]:
    kept = [f.name for f in dataclasses.fields(value) if not f.metadata.get("elsewhere")]
    whole = dataclasses.asdict(replace(value, **_emptied(value)))
    return {name: whole[name] for name in kept}


def _emptied(value: Any) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(value) if f.metadata.get("elsewhere")}


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise TrialError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise TrialError(f"{path}: is not JSON") from None
    if not isinstance(found, dict) or found.get("version", VERSION) != VERSION:
        raise TrialError(f"{path}: is not of version {VERSION} of a trial's files")
    return found


def _build(kind: type, found: Mapping[str, Any], path: Path) -> Any:
    """Make a dataclass of what JSON holds; what it does not know is left out."""
    try:
        return _typed(kind, found)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise TrialError(f"{path}: is not what quickwins writes there") from None


def _typed(kind: Any, value: Any) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (known,) = [one for one in inner if one is not type(None)]
        return _typed(known, value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{
            f.name: _typed(hints[f.name], value[f.name])
            for f in dataclasses.fields(kind)
            if f.name in value and not f.metadata.get("elsewhere")
        })  # fmt: skip
    if origin is tuple:
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        if not isinstance(value, list) or len(kinds) != len(value):
            raise ValueError(value)
        return tuple(map(_typed, kinds, value))
    if origin is Literal:
        return inner[inner.index(value)]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {str(key): _typed(inner[1], item) for key, item in value.items()}
    if kind is float and isinstance(value, int):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise ValueError(value)
    return value
