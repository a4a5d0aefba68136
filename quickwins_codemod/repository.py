"""Many files: found, sifted by their bytes, handed to the pipeline, one outcome each, in order."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quickwins_codemod import bundle, discovery, sieve, transform
from quickwins_codemod.settings import FILE_RULE, Settings
from quickwins_codemod.source import SourceError, read_bytes
from quickwins_codemod.verdict import FileOutcome, RunResult, Verdict
from quickwins_codemod.workers import spread

if TYPE_CHECKING:
    from quickwins_codemod.pipeline import Context, Planned

#: Below so many candidates a pool of processes costs more than it gives.
MANY = 16
#: So many files a worker are worth its start.
SHARE = 8

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class _Task:
    path: str
    settings: Settings


def run(
    paths: Sequence[Path],
    root: Path,
    settings: Settings,
    *,
    workers: int = 0,
    progress: Progress | None = None,
    before_reading: Callable[[Sequence[Path]], bool] | None = None,
) -> RunResult:
    """Look at every Python file under the paths; change nothing.

    workers: so many processes; 0 chooses by the number of candidates and processors.
    progress: called with the number of candidates done and of all.
    before_reading: called with the folders that hold a folder of the tool's own; tells whether it
        changed any file.
    """
    root = root.resolve()  # as what is found below it is spelled
    found = discovery.find_python_files(paths, root, settings.exclude)
    if before_reading is not None and before_reading(found.states):
        found = discovery.find_python_files(paths, root, settings.exclude)
    files = _within(found.files, root, settings)
    problems = {path: (code, message) for path, code, message in found.problems}
    outcomes = [_error(path, *problems[full]) for full, path in _within(problems, root, settings)]
    unread = sum(not (root / outcome.path).is_dir() for outcome in outcomes)
    tasks: list[_Task] = []
    for full, path in files:
        try:
            task = _sift(full, path, settings)
        except SourceError as error:
            outcomes.append(_error(path, error.code, error.message))
            continue
        if task is not None:
            tasks.append(task)
    done: list[FileOutcome] = []
    if tasks:
        from quickwins_codemod.pipeline import Context

        context = Context(root=root, runtime_home=bundle.locate(root), settings=settings)
        done = [o for o in _process(tasks, context, workers, progress) if o is not None]
    outcomes += done
    if settings.runtime == "bundled" and any(outcome.has_change for outcome in done):
        runtime = bundle.plan(root, bundle.locate(root))
        outcomes = _with_runtime(outcomes, runtime)
    return RunResult(
        root=str(root),
        files=len(files) + unread,
        candidates=len(done),
        outcomes=tuple(sorted(outcomes, key=lambda outcome: outcome.path)),
    )


def planned(path: str, root: Path, settings: Settings) -> Planned | FileOutcome | None:
    """Look at one file of a run again, up to what is found in it (see pipeline.planned)."""
    from quickwins_codemod import pipeline

    context = pipeline.Context(root, bundle.locate(root), settings.for_file(path))
    return pipeline.planned(root / path, context)


def refusals(result: RunResult, allow_dirty: bool = False) -> list[FileOutcome]:
    """Return what `write` would say of the files that it leaves alone; raises WriteError."""
    from quickwins_codemod import writing

    return writing.refusals(result.outcomes, Path(result.root), allow_dirty)


def write(result: RunResult, allow_dirty: bool = False, command: str = "") -> RunResult:
    """Write what a run proposes, and return what came of it; raises writing.WriteError.

    command: how the user spelt the run.
    """
    from quickwins_codemod import writing  # it needs subprocess, which `diff` and `check` do not

    report = writing.apply(result.outcomes, Path(result.root), allow_dirty, command)
    refused = {outcome.path: outcome for outcome in report.refused}
    outcomes = tuple(
        refused.get(outcome.path, outcome)
        for outcome in result.outcomes
        # A runtime that no script needs in the end was not added.
        if outcome.status != "added" or outcome.path in report.written
    )
    return dataclasses.replace(result, outcomes=outcomes)


def _within(files: Iterable[Path], root: Path, settings: Settings) -> list[tuple[Path, str]]:
    """Pair each file with its path from the root; drop what the outer patterns leave out."""
    pairs = [(full, full.relative_to(root).as_posix()) for full in files]
    return [(full, path) for full, path in pairs if not settings.leaves_out(path)]


def _sift(full: Path, path: str, settings: Settings) -> _Task | None:
    """Return the task that a file is, None where its bytes show that there is nothing to say."""
    local = settings.for_file(path)
    wanted = [
        t
        for t in transform.all_transforms()
        if local.wants_rule(t.rule, (code.code for code in t.codes))
    ]
    if not wanted:
        return None
    data = read_bytes(full)
    if any(t.is_candidate(data) for t in wanted) or sieve.mentions_opt_out(data):
        return _Task(path, local)
    return None


def _with_runtime(
    outcomes: Sequence[FileOutcome], runtime: Sequence[FileOutcome]
) -> list[FileOutcome]:
    """Join the runtime's files; a runtime that cannot be placed takes the rewrites with it."""
    missing = [o for o in runtime if o.status in ("refused", "error")]
    if not missing:
        return [*outcomes, *runtime]
    reasons = tuple(verdict for outcome in missing for verdict in outcome.verdicts)
    unplaced = Verdict(
        FILE_RULE,
        "refused",
        reasons[0].code,
        1,
        1,
        f"needs the runtime, which cannot be placed: {reasons[0].message}",
        reasons[0].hint,
    )
    kept = [
        FileOutcome(o.path, "refused", (unplaced,), o.before) if o.has_change else o
        for o in outcomes
    ]
    return kept + missing


def _process(
    tasks: Sequence[_Task], context: Context, workers: int, progress: Progress | None
) -> list[FileOutcome | None]:
    workers = workers or _worth(len(tasks))
    work = functools.partial(_work, context=context)
    results: dict[_Task, FileOutcome | None] = {}
    for task, outcome in (
        spread(work, tasks, workers, _died)
        if min(workers, len(tasks)) > 1
        else ((task, work(task)) for task in tasks)
    ):
        results[task] = outcome
        if progress is not None:
            progress(len(results), len(tasks))
    return [results[task] for task in tasks]


def _worth(candidates: int) -> int:
    """Choose a number of workers."""
    if candidates <= MANY:
        return 1
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        processors = os.cpu_count() or 1
    return max(1, min(processors, candidates // SHARE))


def _work(task: _Task, context: Context) -> FileOutcome | None:
    """Process one file; a defect of ours costs that file and no other."""
    from quickwins_codemod.pipeline import process

    try:
        context = dataclasses.replace(context, settings=task.settings)
        return process(context.root / task.path, context)
    except RecursionError:
        return _error(task.path, "QW006", "is nested deeper than can be followed")
    except Exception as error:
        if os.environ.get("QUICKWINS_DEBUG"):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return _error(
            task.path,
            "QW005",
            f"a defect of quickwins: {said}",
            "please report it with this file; QUICKWINS_DEBUG=1 shows where it happened",
        )


def _died(task: _Task) -> FileOutcome:
    return _error(
        task.path,
        "QW005",
        "a defect of quickwins: the process that worked on this file died",
        "please report it with this file, or leave the file out with --exclude",
    )


def _error(path: str, code: str, message: str, hint: str | None = None) -> FileOutcome:
    verdict = Verdict(FILE_RULE, "refused", code, 1, 1, message, hint)
    return FileOutcome(path, "error", (verdict,))
