"""Runs a script without and with the wins, one attempt after the other, and measures.

    place = locate(script, None, cwd)
    plan = prepare(place, arguments, settings, rules, ...)
    trial = plan.run(progress)

The first seed of all variants comes first, then the second, so that a trial that is interrupted has
compared what it can. What has been done stays done: the same trial goes on where it stopped.
Verdicts are the matter of `judging.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from quickwins_codemod import (
    __version__,
    activity,
    attempting,
    closure,
    compare,
    repository,
    trials,
    workspace,
)
from quickwins_codemod.attempting import AttemptError, Place
from quickwins_codemod.discovery import STATE
from quickwins_codemod.disk.atomic import WriteError
from quickwins_codemod.disk.journal import state_folder
from quickwins_codemod.interpreters import Interpreter
from quickwins_codemod.settings import Rule, Settings, suggest
from quickwins_codemod.trials import (
    BASELINE,
    MEASURING,
    ORIGINAL,
    Attempt,
    Failure,
    Inapplicable,
    Trial,
    Variant,
)
from quickwins_codemod.verdict import RunResult, Verdict

_LINES, _WIDTH = 20, 300
_SIGNALS = {6: "aborted", 9: "killed, as it happens when memory runs out", 11: "segmentation fault"}


class PlaceError(Exception):
    """A script that cannot be tried from here; one line, a matter of usage."""


class UnreadableError(Exception):
    """A script that cannot be rewritten at all; one line for the user."""


class Interrupted(Exception):
    """A trial that was interrupted; trial: what there is of it."""

    def __init__(self, trial: Trial) -> None:
        super().__init__("interrupted")
        self.trial = trial


@dataclass(frozen=True)
class Moment:
    """Where a trial is. number: of this attempt among total; seeds: how many there are.

    epoch, epochs: the last that ended, and how many there will be, if known. metric: its name and
    value. left: seconds until the end of the trial, estimated from the attempts that have ended.
    """

    variant: str
    seed: int
    number: int
    total: int
    seeds: int
    variants: int
    seconds: float = 0.0
    epoch: int = 0
    epochs: int | None = None
    metric: tuple[str, float] | None = None
    left: float | None = None


class Progress(Protocol):
    """What is told of a trial while it runs."""

    def moment(self, moment: Moment) -> None: ...
    def ended(self, moment: Moment, attempt: Attempt) -> None: ...


def locate(script: str, root: Path | None, cwd: Path) -> Place:
    """Find the repository that a script belongs to. Raises PlaceError.

    It is the folder that is given, else the top of the git work tree, else the current folder.
    """
    cwd = Path(os.path.realpath(cwd))
    full = Path(os.path.realpath(cwd / script))
    if not full.is_file():
        near = suggest(script, [path.name for path in cwd.glob("*.py")])
        raise PlaceError(f"{script}: no such file{near}")
    if root is not None:
        top = Path(os.path.realpath(cwd / root))
    else:
        above = (folder for folder in full.parents if os.path.lexists(folder / ".git"))
        top = next(above, cwd if full.is_relative_to(cwd) else full.parent)
    if not full.is_relative_to(top):
        raise PlaceError(f"--root {root}: {script} is not below it")
    if not cwd.is_relative_to(top):
        raise PlaceError(
            f"{script}: belongs to {top}, and it is run in a copy of that; go there first"
        )
    if top in (Path(top.anchor), Path.home()):
        raise PlaceError(f"{top} is no repository: name the folder to copy by --root DIR")
    return Place(top, cwd, full.relative_to(top).as_posix(), script)


def rewrite(place: Place, settings: Settings) -> RunResult:
    """Look at the script and what it imports; change nothing."""
    return repository.run(_sources(place), place.root, settings)


@dataclass(frozen=True)
class Request:
    """What to try. seeds: how many; rules: all there are; words: flags that every command needs."""

    place: Place
    arguments: tuple[str, ...]
    settings: Settings
    rules: Sequence[Rule]
    interpreter: Interpreter
    seeds: int = 3
    ablate: bool = False
    amp: str = ""
    time_limit: float | None = None
    restart: bool = False
    words: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class Plan:
    """A trial that is ready to run, and what of it has been done before."""

    request: Request
    trial: Trial
    folder: Path
    rewrites: dict[str, RunResult]

    @property
    def done(self) -> int:
        """How many attempts need not be run any more."""
        return sum(not self._is_due(attempt) for attempt in self.trial.attempts)

    def run(self, progress: Progress) -> Trial:
        """Run what is to be run. Raises Interrupted, AttemptError, trials.TrialError."""
        place = self.request.place
        with _only_one(self.folder), _ended_as_interrupted():
            trials.write(self.folder, self.trial)
            workspace.remove(self.folder / ORIGINAL)  # of a failure that may be mended by now
            before = workspace.fingerprint(place.root)
            try:
                interrupted = self._run_all(progress)
            finally:
                self._close(workspace.differences(before, workspace.fingerprint(place.root)))
            trial = trials.read(self.folder)
        if interrupted:
            raise Interrupted(trial)
        return trial

    def _run_all(self, progress: Progress) -> bool:
        """Run the attempts; tell whether they were interrupted."""
        layout = workspace.layout(self.request.place.root)
        attempts = list(self.trial.attempts)
        for index, attempt in enumerate(attempts):
            if not self._is_due(attempt):
                continue
            moment = self._moment(index, attempts)
            attempts[index] = done = self._attempt(layout, moment, progress)
            progress.ended(self._moment(index, attempts), done)
            if done.status == "interrupted":
                return True
            if done.status == "failed" and index == 0:  # nothing to compare with
                asked = dataclasses.replace(moment, variant=ORIGINAL)
                original = self._attempt(layout, asked, progress)
                progress.ended(asked, original)
                return original.status == "interrupted"
        return False

    def _is_due(self, attempt: Attempt) -> bool:
        if attempt.status == "timed-out":
            limit = self.request.time_limit
            return limit is None or limit > (attempt.seconds or 0.0)
        return attempt.status != "done"

    def _attempt(self, layout: workspace.Layout, moment: Moment, progress: Progress) -> Attempt:
        request, variant = self.request, moment.variant
        folder = trials.attempt_folder(self.folder, variant, moment.seed)
        prepared = attempting.prepare(
            request.place,
            layout,
            folder,
            request.interpreter.path,
            request.arguments,
            self.rewrites.get(variant),
            seed=moment.seed,
            tag=variant,
            amp=request.amp,
            watched=bool(self.trial.unmeasured),
        )
        watch = _Records(prepared.records)

        def tick(seconds: float) -> None:
            epoch, metric = watch.look()
            left = None if moment.left is None else max(0.0, moment.left - seconds)
            progress.moment(
                dataclasses.replace(moment, seconds=seconds, epoch=epoch, metric=metric, left=left)
            )

        with open(folder / "stdout.log", "wb") as out, open(folder / "stderr.log", "wb") as err:
            ended = attempting.run(prepared, out, err, request.time_limit, tick)
        for number, path in enumerate(watch.paths(), 1):
            os.replace(path, folder / trials.record_name(number))
        attempt = self._told(variant, moment.seed, ended, folder, prepared.copy)
        attempting.clean(folder)
        trials.write_attempt(folder=self.folder, attempt=attempt)
        return attempt

    def _told(
        self, variant: str, seed: int, ended: attempting.Ended, folder: Path, copy: Path
    ) -> Attempt:
        seen = trials.read_observation(folder)
        status: trials.Status = "done" if ended.code == 0 else "failed"
        failure = None
        if ended.how == "ended" and ended.code:
            failure = seen.failure if seen is not None and seen.failure else _died(ended.code)
        attempt = Attempt(
            variant,
            seed,
            status if ended.how == "ended" else ended.how,
            exit_code=ended.code,
            seconds=ended.seconds,
            command=("python", self.request.place.given, *self.request.arguments),
            stderr=_tail(folder / "stderr.log", copy),
            failure=failure,
            runs=trials.read_runs(folder),
            observation=seen,
        )
        if attempt.status != "done" or variant == ORIGINAL:
            return attempt
        form = next(form for form in self.trial.variants if form.name == variant)
        defects, notes = activity.check(form, attempt)
        return dataclasses.replace(attempt, defects=defects, notes=notes)

    def _moment(self, index: int, attempts: Sequence[Attempt]) -> Moment:
        attempt = attempts[index]
        names = [variant.name for variant in self.trial.variants]
        epochs = [len(a.run.epochs) for a in attempts if a.status == "done" and a.run]
        return Moment(
            attempt.variant,
            attempt.seed,
            names.index(attempt.variant) + 1,
            len(attempts),
            len(self.trial.seeds),
            len(names),
            epochs=epochs[-1] if epochs else None,
            left=self._left(attempts),
        )

    def _left(self, attempts: Sequence[Attempt]) -> float | None:
        """Estimate the seconds that all due attempts take, from those of their variants."""
        known: dict[str, list[float]] = {}
        for attempt in attempts:
            if attempt.status == "done" and attempt.seconds is not None:
                known.setdefault(attempt.variant, []).append(attempt.seconds)
        if not known:
            return None
        means = {variant: sum(found) / len(found) for variant, found in known.items()}
        usual = sum(means.values()) / len(means)
        return sum(means.get(a.variant, usual) for a in attempts if self._is_due(a))

    def _close(self, changed: Sequence[str]) -> None:
        trial = trials.read(self.folder)
        note = activity.one_seed(trial.attempts)
        trials.write(
            self.folder,
            dataclasses.replace(
                trial,
                notes=tuple(filter(None, [note])),
                changed=tuple(sorted({*trial.changed, *changed})),
            ),
        )


def prepare(request: Request) -> Plan:
    """Rewrite the script in all variants, in memory, and look at what has been done of the trial.

    Where the metrics cannot be added, all variants go without, and the launcher watches their times.

    Raises UnreadableError, PlaceError, trials.TrialError.
    """
    place, settings = request.place, request.settings
    wanted = [
        rule.rule
        for rule in request.rules
        if rule.rule != MEASURING and settings.wants_rule(rule.rule, (c.code for c in rule.codes))
    ]
    if not wanted:
        raise PlaceError("no win is selected: --select one of the rules beside metrics")
    rewrites = {BASELINE: rewrite(place, _selecting(request, (MEASURING,)))}
    unmeasured = _unmeasured(rewrites[BASELINE], place)
    if unmeasured:
        del rewrites[BASELINE]  # it is the script as it stands
    measuring = () if unmeasured else (MEASURING,)
    applicable, inapplicable = [], []
    for rule in wanted:
        result = rewrite(place, _selecting(request, (rule, *measuring)))
        if any(v.rule == rule and v.status == "applied" for _, v in _verdicts(result)):
            applicable.append(rule)
            rewrites[rule] = result
        else:
            inapplicable.append(_why_not(rule, result))
    variants = []
    forms = trials.variants(applicable, request.ablate, not unmeasured) if applicable else ()
    for variant in forms:
        if variant.name not in rewrites and variant.select:
            rewrites[variant.name] = rewrite(place, _selecting(request, variant.select))
        said = list(_verdicts(rewrites[variant.name])) if variant.select else []
        codes = {v.code for _, v in said}
        files = {path for path, v in said if v.status == "applied" and v.rule in variant.wins}
        variants.append(
            dataclasses.replace(variant, codes=tuple(sorted(codes)), files=tuple(sorted(files)))
        )
    trial = _new(request, variants, inapplicable, rewrites, unmeasured)
    folder = place.root / STATE / "trials" / trial.id
    return Plan(request, _resumed(trial, folder, request.restart), folder, rewrites)


def _new(
    request: Request,
    variants: Sequence[Variant],
    inapplicable: Sequence[Inapplicable],
    rewrites: dict[str, RunResult],
    unmeasured: str,
) -> Trial:
    place = request.place
    known = _fingerprint(request, rewrites)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(place.script).stem)[:40] or "script"
    seeds = tuple(range(request.seeds))
    order = [(variant.name, seed) for seed in seeds for variant in variants]
    now = datetime.now(timezone.utc)
    folder = place.folder.relative_to(place.root).as_posix()
    return Trial(
        id=f"{stem}-{known[:10]}",
        script=place.script,
        folder="" if folder == "." else folder,
        arguments=request.arguments,
        seeds=seeds,
        select=tuple([*(i.rule for i in inapplicable), *_wins(variants)]),
        variants=tuple(variants),
        inapplicable=tuple(inapplicable),
        environment=request.interpreter.environment,
        started=f"{now:%Y-%m-%dT%H:%M:%SZ}",
        amp=request.amp,
        time_limit=request.time_limit,
        unmeasured=unmeasured,
        fingerprint=known,
        command=request.command,
        commands={variant.name: _once(request, variant) for variant in variants},
        attempts=tuple(Attempt(variant, seed) for variant, seed in order),
    )


def _wins(variants: Sequence[Variant]) -> list[str]:
    return list(dict.fromkeys(win for variant in variants for win in variant.wins))


def _once(request: Request, variant: Variant) -> str:
    """Return the command that runs a variant once."""
    words = ["python", request.place.given, *request.arguments]
    if variant.select:
        words = ["quickwins", "run", request.place.given, "--select", ",".join(variant.select)]
        words += [*request.words, *(["--", *request.arguments] if request.arguments else [])]
    amp = f"QUICKWINS_AMP={request.amp} " if request.amp else ""
    return amp + shlex.join(words)


def _resumed(trial: Trial, folder: Path, restart: bool) -> Trial:
    """Take over what has been done of a trial; forget it where that is asked for."""
    if restart:
        workspace.remove(folder)
    if not (folder / "trial.json").exists():
        return trial
    old = trials.read(folder)
    _state_folder(folder.parents[2])
    found = tuple(trials.read_attempt(folder, a.variant, a.seed) for a in trial.attempts)
    return dataclasses.replace(trial, started=old.started, changed=old.changed, attempts=found)


def _fingerprint(request: Request, rewrites: dict[str, RunResult]) -> str:
    """Hash all that makes attempts comparable; the number of seeds and the time limit do not."""
    place, about = request.place, request.interpreter.environment
    parts: list[object] = [
        __version__, place.script, str(place.folder.relative_to(place.root)), request.arguments,
        dataclasses.astuple(about), request.amp,
    ]  # fmt: skip
    for path in _sources(place):
        parts.append((str(path.relative_to(place.root)), _digest(path.read_bytes())))
    for name in sorted(rewrites):
        outcomes = rewrites[name].outcomes
        parts += [(name, o.path, _digest(o.after or b"")) for o in outcomes if o.has_change]
    for word in request.arguments:  # the data that they name
        path = place.folder / word.rpartition("=")[2]
        with suppress(OSError, ValueError):
            about_data = path.stat()
            if path.is_file():
                parts.append((about_data.st_size, about_data.st_mtime_ns))
    return _digest(json.dumps(parts, default=list).encode())[:32]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sources(place: Place) -> list[Path]:
    path = [place.folder / entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    below = [folder for folder in path if folder.is_relative_to(place.root)]
    return closure.files(place.root / place.script, place.root, below)


def _selecting(request: Request, wanted: Sequence[str]) -> Settings:
    """Return the settings for a variant: of what was selected, these rules; and the metrics."""
    settings = request.settings
    names = {rule.rule: {rule.rule, *(c.code for c in rule.codes)} for rule in request.rules}
    select: list[str] = []
    for rule in wanted:
        chosen = [name for name in settings.select if name in names[rule]]
        select += chosen if chosen and rule != MEASURING else [rule]
    ignore = tuple(name for name in settings.ignore if name != MEASURING)
    return dataclasses.replace(settings, select=tuple(select), ignore=ignore)


def _verdicts(result: RunResult) -> Iterator[tuple[str, Verdict]]:
    for outcome in result.outcomes:
        if outcome.status != "added":
            yield from ((outcome.path, verdict) for verdict in outcome.verdicts)


def _unmeasured(result: RunResult, place: Place) -> str:
    """Say why no metrics can be added, nothing where they are. Raises UnreadableError."""
    found = [(path, v) for path, v in _verdicts(result) if path == place.script]
    for path, verdict in found:
        if verdict.code.startswith("QW0") and verdict.status == "refused":
            raise UnreadableError(f"{path}:{verdict.line}: {verdict.code} {verdict.message}")
    said = [(p, v) for p, v in _verdicts(result) if v.rule == MEASURING]
    if any(v.status in ("applied", "already") for _, v in said):
        return ""
    why = "; ".join(f"{p}:{v.line}: {v.code} {v.message}" for p, v in said if v.status == "refused")
    return why or "no training loop with a validation was found in the script or what it imports"


def _why_not(rule: str, result: RunResult) -> Inapplicable:
    said = [(path, v) for path, v in _verdicts(result) if v.rule == rule]
    for status in ("refused", "already", "warning"):
        for path, verdict in said:
            if verdict.status == status:
                return Inapplicable(rule, verdict.code, verdict.message, path, verdict.line)
    return Inapplicable(rule, message="found nothing to change")


def _died(code: int) -> Failure:
    if code < 0:
        said = _SIGNALS.get(-code, "ended by a signal")
        return Failure("Signal", f"signal {-code}: {said}")
    return Failure("ExitCode", f"exit code {code}")


def _tail(path: Path, copy: Path) -> tuple[str, ...]:
    """Return the last lines of a log, with paths as in the repository."""
    with suppress(OSError), open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _LINES * 1000))
        text = file.read().decode("utf-8", "replace").replace(f"{copy}{os.sep}", "")
        lines = [compare.plain(line)[:_WIDTH] for line in text.splitlines() if line.strip()]
        return tuple(lines[-_LINES:])
    return ()


class _Records:
    """The records of a run while it writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

    def look(self) -> tuple[int, tuple[str, float] | None]:
        """Return the last epoch that has ended, and its first metric."""
        runs = []
        for path in self.paths():
            with suppress(compare.RecordError):
                if compare.read_header(path, path.name) is not None:
                    runs.append(compare.read(path, path.name))
        run = max(runs, key=lambda run: len(run.epochs), default=None)
        if run is None or not run.epochs:
            return 0, None
        metrics = run.epochs[-1].metrics
        for name in sorted(metrics, key=compare.order):
            value = metrics[name]
            if value is not None:
                return len(run.epochs), (name, value)
        return len(run.epochs), None


def _state_folder(root: Path) -> Path:
    try:
        return state_folder(root)
    except WriteError as error:
        raise AttemptError(str(error)) from None
    except OSError as error:
        raise AttemptError(f"{root / STATE}: cannot be written: {error.strerror}") from None


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep a second process from running the same trial. Raises AttemptError."""
    _state_folder(folder.parents[2])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AttemptError("this trial is being run by another process") from None
        yield


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Let a signal to end (of a scheduler, of a terminal that closes) end the child as well."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {}
    with suppress(ValueError):  # not the main thread, where no handler can be set
        before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def run_once(
    place: Place,
    result: RunResult,
    interpreter: Interpreter,
    arguments: Sequence[str],
    keep: bool,
    say: Callable[[str], None],
) -> int:
    """Run the rewritten script once in a copy, and return its exit code. Raises AttemptError."""
    home = _state_folder(place.root)
    folder = home / "copies" / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    records = Path(os.environ.get("QUICKWINS_RUNS") or home / "runs").absolute()
    before = workspace.fingerprint(place.root)
    try:
        layout = workspace.layout(place.root)
        prepared = attempting.prepare(
            place, layout, folder, interpreter.path, arguments, result, records=records
        )
        code = attempting.run_here(prepared)
    finally:
        changed = workspace.differences(before, workspace.fingerprint(place.root))
        if not keep:
            workspace.remove(folder)
    touched = f"CHANGED while it ran: {', '.join(changed[:3])}" if changed else "was not touched"
    kept = f"is kept in {prepared.copy}" if keep else "is removed (--keep keeps it)"
    say(f"the original {touched}; the copy {kept}")
    return code
