"""Workflow commands, which GitHub Actions shows as annotations on the lines of a pull request.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

from quickwins_codemod.report import findings
from quickwins_codemod.report.text import Command
from quickwins_codemod.verdict import RunResult

# `%` comes first, or it would escape the escapes. A property ends at a comma or at `::`.
_DATA = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_PROPERTY = (*_DATA, (":", "%3A"), (",", "%2C"))


def render(result: RunResult, command: Command) -> str:
    """Return one command a line and a finding; paths count from the top of the repository."""
    lines = []
    for outcome in result.outcomes:
        for verdict in findings.of(outcome):
            properties = {
                "file": outcome.path,
                "line": str(verdict.line),
                "col": str(verdict.column),
                "title": f"{verdict.code} {verdict.rule}",
            }
            place = ",".join(f"{k}={_escaped(v, _PROPERTY)}" for k, v in properties.items())
            kind = findings.severity(outcome, verdict, command)
            lines.append(f"::{kind} {place}::{_escaped(findings.said(verdict, command), _DATA)}\n")
    return findings.utf8("".join(lines))


def _escaped(text: str, escapes: tuple[tuple[str, str], ...]) -> str:
    for character, escape in escapes:
        text = text.replace(character, escape)
    return text
