"""What the formats for other programs share: which verdicts they carry, how grave, in what words.

A change that is due is an error, whichever of `diff` and `check` found it; after `apply` the same
change is done, and a notice. A refusal is a notice, since nothing is wrong with the file. What is
done already is no finding.
"""

from __future__ import annotations

from typing import Literal

from quickwins_codemod.report.text import Command, one_line
from quickwins_codemod.verdict import FileOutcome, Verdict

Severity = Literal["error", "warning", "notice"]


def of(outcome: FileOutcome) -> list[Verdict]:
    """Return the verdicts on a file that a reviewer wants, in the order of the file."""
    wanted = [verdict for verdict in outcome.verdicts if verdict.status != "already"]
    return sorted(wanted, key=lambda v: (v.line, v.column, v.code))


def severity(outcome: FileOutcome, verdict: Verdict, command: Command) -> Severity:
    """Return how grave a verdict is; in a file that could not be processed, each is an error."""
    if outcome.status == "error":
        return "error"
    if verdict.status == "applied":
        return "notice" if command == "apply" else "error"
    return "warning" if verdict.status == "warning" else "notice"


def said(verdict: Verdict, command: Command) -> str:
    """Return the message, with what to do by hand on a line of its own.

    Messages speak of a rewrite as done, so a change says whether it is: `due: ...`, `done: ...`.
    """
    message = one_line(verdict.message)
    if verdict.status == "applied":
        message = f"{'done' if command == 'apply' else 'due'}: {message}"
    return f"{message}\n{one_line(verdict.hint)}" if verdict.hint else message


def utf8(text: str) -> str:
    """Return a text without lone surrogates, which stand for bytes that are no UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
