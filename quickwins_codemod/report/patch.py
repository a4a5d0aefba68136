"""The patch that `git apply` takes, byte for byte whatever the files are encoded in."""

from __future__ import annotations

from pathlib import Path

from quickwins_codemod.verdict import RunResult


def render(result: RunResult) -> bytes:
    """Return one patch for all changes of a run: first what a reviewer reads, then the runtime."""
    ordered = sorted(result.changes, key=lambda outcome: outcome.status == "added")
    diffs = (outcome.diff() for outcome in ordered)
    return "".join(diffs).encode("utf-8", "surrogateescape")


def write(path: Path, result: RunResult) -> None:
    """Write the patch; an empty file says that there is nothing to do."""
    path.write_bytes(render(result))
