"""A bar on standard error for a run that takes long enough to wonder about."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from quickwins_codemod.report.terminal import is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 0.5
_EVERY = 0.1


class Bar:
    """Counts files; shows itself after half a second, on a terminal only."""

    def __init__(self) -> None:
        self._wanted = is_terminal(sys.stderr)
        self._next = time.monotonic() + _PATIENCE
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        if not self._wanted or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        if self._progress is None:
            self._progress = _start(total)
        self._progress.update(self._progress.task_ids[0], completed=done, refresh=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()


def _start(total: int) -> Progress:
    # Imported now and not above: rich takes longer to import than most runs take.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("quickwins"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    # No refresh thread: worker processes may be forked from this one.
    progress = Progress(
        *columns, console=Console(file=sys.stderr), transient=True, auto_refresh=False
    )
    progress.add_task("", total=total)
    progress.start()
    return progress
