"""Paths for a reader: outcomes are relative to the root, people and git stand elsewhere."""

from __future__ import annotations

import dataclasses
import os
import posixpath
from pathlib import Path

from quickwins_codemod.verdict import RunResult


def from_here(result: RunResult) -> RunResult:
    """Return the result with paths that can be opened from the current directory."""
    return _moved(result, _relative(result.root, os.getcwd()))


def for_git(result: RunResult) -> RunResult:
    """Return the result with the paths that `git apply` wants.

    Inside a repository these count from its top level, as in git's own patches: git silently
    skips a patch with other paths when it runs in a subfolder.
    """
    top = git_top(Path(result.root))
    base = top or Path.cwd()
    prefix = _relative(result.root, str(base))
    return result if prefix.startswith("..") or os.path.isabs(prefix) else _moved(result, prefix)


def git_top(root: Path) -> Path | None:
    """Return the top level of the git repository that a folder is in."""
    return next((f for f in (root, *root.parents) if os.path.lexists(f / ".git")), None)


def _relative(root: str, base: str) -> str:
    try:
        return os.path.relpath(os.path.realpath(root), os.path.realpath(base))
    except ValueError:  # another drive
        return root


def _moved(result: RunResult, prefix: str) -> RunResult:
    if prefix == os.curdir:
        return result
    prefix = prefix.replace(os.sep, "/").rstrip("/") + "/"
    outcomes = [
        dataclasses.replace(o, path=posixpath.normpath(prefix + o.path)) for o in result.outcomes
    ]
    return dataclasses.replace(result, outcomes=tuple(outcomes))
