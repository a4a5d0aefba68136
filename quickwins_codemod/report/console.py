"""Which part of a report goes to which stream, and in what form.

A diff, findings and reports for programs go to standard output. The summary joins the first two
there when a person reads it; where they go into a pipe or a file, the summary goes to standard
error, so that `quickwins diff . > x.patch` leaves a valid patch.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from quickwins_codemod.report import patch, paths, terminal, text
from quickwins_codemod.settings import short
from quickwins_codemod.transform import Transform
from quickwins_codemod.verdict import RunResult


def show_for_programs(
    result: RunResult, form: str, command: text.Command, rules: Sequence[Transform]
) -> None:
    """Write a report for programs and nothing else, in one of flags.FORMATS but `text`.

    Its bytes are the same in every locale. rules: those whose pages a report may quote.
    """
    # Imported when asked for: reports for people, which most runs write, do not wait for XML.
    if form == "json":
        from quickwins_codemod.report import json

        terminal.out(json.render(result))
    elif form == "sarif":
        from quickwins_codemod.report import sarif

        terminal.out(sarif.render(paths.for_git(result), command, rules))
    elif form == "junit":
        from quickwins_codemod.report import junit

        terminal.out(junit.render(paths.for_git(result), command))
    else:
        from quickwins_codemod.report import github

        terminal.out(github.render(paths.for_git(result), command).encode())


def show_diff(result: RunResult) -> None:
    """Write the diff: for eyes on a terminal, else byte for byte."""
    data = patch.render(paths.for_git(result))
    if terminal.is_terminal(sys.stdout):
        shown = data.decode("utf-8", "surrogateescape")
        terminal.out(terminal.Paint.of(sys.stdout).diff(shown))
    else:
        terminal.out(data)


def show_findings(result: RunResult) -> None:
    """Write one line for each finding."""
    lines = text.findings(paths.from_here(result))
    terminal.out("".join(f"{line}\n" for line in lines))


def show_summary(
    result: RunResult,
    command: text.Command,
    again: Callable[[str], str],
    page: Path | None = None,
) -> None:
    """Write the closing summary.

    again: gives the command line with another verb. page: the HTML file that was written, too.
    """
    beside = command != "apply" and not terminal.is_terminal(sys.stdout)
    stream, write = (sys.stderr, terminal.err) if beside else (sys.stdout, terminal.out)
    here = paths.from_here(result)
    stage = None if in_hook() else stage_command(result)
    steps = text.next_steps(here, command, again, stage, undo_command(result))
    gap = "\n" if command == "diff" and result.changes and not beside else ""
    shown = None if page is None else str(page)
    write(gap + text.summary(here, command, steps, terminal.Paint.of(stream), shown))


def stage_command(result: RunResult) -> str | None:
    """Return the `git add` for all that was written, None outside a repository."""
    if not result.changes or paths.git_top(Path(result.root)) is None:
        return None
    return shlex.join(["git", "add", *(o.path for o in paths.from_here(result).changes)])


def undo_command(result: RunResult) -> str:
    """Return what takes an apply back when it is typed here."""
    root, here = Path(result.root), Path(os.path.realpath(os.curdir))
    is_found = root.is_relative_to(here) or here.is_relative_to(root)
    return shlex.join(["quickwins", "undo", *([] if is_found else [short(root)])])


def in_hook() -> bool:
    """Tell whether pre-commit runs this."""
    return os.environ.get("PRE_COMMIT") == "1"
