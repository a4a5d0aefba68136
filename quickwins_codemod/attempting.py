"""One run of a script in a copy of its repository, as a child process that can be stopped.

The copy is made for this run alone, so that no checkpoint of one is resumed by the next, and the
rewrite is written there. `child/launcher.py` starts the script in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from quickwins_codemod import repository, workspace
from quickwins_codemod.disk.atomic import WriteError
from quickwins_codemod.verdict import RunResult

LAUNCHER = Path(__file__).with_name("child") / "launcher.py"
#: Seconds between two looks at a run, and seconds that it has to end by itself when it is told to.
_EVERY, _GRACE = 0.3, 5.0
_TREE, _SCRATCH, _RECORDS = "tree", "scratch", "records"

Ending = Literal["ended", "timed-out", "interrupted"]


class AttemptError(Exception):
    """A run that could not be started; its text is one line for the user."""


@dataclass(frozen=True)
class Place:
    """Where a script is. root: the repository; folder: the current one; script: from the root.

    given: the script as it was typed.
    """

    root: Path
    folder: Path
    script: str
    given: str


@dataclass(frozen=True)
class Prepared:
    """A copy that is ready: what to start, where, and with which environment."""

    command: tuple[str, ...]
    copy: Path
    cwd: Path
    environment: Mapping[str, str]
    records: Path


@dataclass(frozen=True)
class Ended:
    """How a child process ended. code: as subprocess has it, negative for a signal."""

    how: Ending
    code: int
    seconds: float


def prepare(
    place: Place,
    layout: workspace.Layout,
    folder: Path,
    python: str,
    arguments: Sequence[str],
    result: RunResult | None,
    *,
    seed: int | None = None,
    tag: str = "",
    records: Path | None = None,
    amp: str = "",
    watched: bool = False,
) -> Prepared:
    """Make a copy below a folder, write the rewrite into it, and say how to start the script.

    result: what to write; None leaves the script as it is. seed: which repetition it is; None
    leaves all random streams alone. records: where Trackers write; a folder of this run, if not
    given. watched: let the launcher write a record there, for want of a Tracker. Raises AttemptError.
    """
    workspace.remove(folder)
    records = records or folder / _RECORDS
    try:
        copy = layout.copy(folder / _TREE)
        scratch = folder / _SCRATCH
        scratch.mkdir()
        if result is not None:
            _rewrite(result, copy)
        record = str(records / f"{tag or 'watched'}.jsonl") if watched else None
        launch = {
            "original": str(place.root), "copy": str(copy), "seed": seed, "record": record
        }  # fmt: skip
        (folder / "launch.json").write_text(json.dumps(launch), encoding="utf-8")
    except workspace.WorkspaceError as error:
        raise AttemptError(str(error)) from None
    except OSError as error:
        raise AttemptError(f"{folder}: cannot be written: {error.strerror}") from None
    cwd = copy / place.folder.relative_to(place.root)
    words = workspace.moved([place.given, *arguments], place.root, copy, place.folder)
    environment = {
        **workspace.moved_environment(os.environ, place.root, copy),
        # A run of a trial is no run of the user's project on the server.
        "WANDB_MODE": "disabled" if os.environ.get("WANDB_MODE") == "disabled" else "offline",
        "WANDB_SILENT": "true",
        **{f"WANDB_{name}": str(scratch) for name in ("DIR", "CACHE_DIR", "DATA_DIR")},
        "QUICKWINS_RUNS": str(records),
        **({"QUICKWINS_TAG": tag} if tag else {}),
        **({"QUICKWINS_AMP": amp} if amp else {}),
        **({} if seed is None else {"PYTHONHASHSEED": str(seed), "PYTHONUNBUFFERED": "1"}),
    }
    command = (python, str(LAUNCHER), str(folder), *words)
    return Prepared(command, copy, cwd, environment, records)


def clean(folder: Path) -> None:
    """Remove the copy of a run, and what was only needed while it ran."""
    for name in (_TREE, _SCRATCH, _RECORDS):
        workspace.remove(folder / name)
    (folder / "launch.json").unlink(missing_ok=True)


def run(
    prepared: Prepared,
    stdout: IO[bytes],
    stderr: IO[bytes],
    limit: float | None,
    tick: Callable[[float], None],
) -> Ended:
    """Run it in a process group of its own, and stop all of that at the limit or when interrupted.

    tick: called every now and then with the seconds since the start. Raises AttemptError.
    """
    began = time.monotonic()
    child = _start(prepared, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, apart=True)
    how: Ending = "ended"
    try:
        while child.poll() is None:
            seconds = time.monotonic() - began
            if limit is not None and seconds > limit:
                how = "timed-out"
                break
            tick(seconds)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_EVERY)
    except KeyboardInterrupt:
        how = "interrupted"
    finally:
        if child.poll() is None:
            _stop(child)
    return Ended(how, child.returncode, time.monotonic() - began)


def run_here(prepared: Prepared) -> int:
    """Run it on the streams of this process, and return its exit code as a shell has it."""
    child = _start(prepared)
    while True:
        try:
            code = child.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue  # a terminal interrupts the child, too, and the child says what comes of it


def _rewrite(result: RunResult, copy: Path) -> None:
    try:
        written = repository.write(dataclasses.replace(result, root=str(copy)), allow_dirty=True)
    except WriteError as error:
        raise AttemptError(str(error)) from None
    for outcome in written.outcomes:
        if outcome.status == "error" and any(v.code == "QW009" for v in outcome.verdicts):
            raise AttemptError(f"{outcome.path}: changed meanwhile; start again")


def _start(prepared: Prepared, apart: bool = False, **streams: Any) -> subprocess.Popen[bytes]:
    groups: dict[str, Any] = {}
    if apart and os.name != "nt":
        groups = {"start_new_session": True}
    elif apart:
        groups = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    try:
        return subprocess.Popen(
            prepared.command, cwd=prepared.cwd, env=dict(prepared.environment), **streams, **groups
        )
    except OSError as error:
        raise AttemptError(f"{prepared.command[0]}: cannot be started: {error.strerror}") from None


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to end, so that it notes what it did, and then end all that it started."""
    try:
        child.terminate()
        child.wait(_GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    if os.name != "nt":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.wait()
