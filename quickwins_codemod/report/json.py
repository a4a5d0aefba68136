"""The machine report: one object, a stable contract (`version` rises when it breaks)."""

from __future__ import annotations

import json
from typing import Any

from quickwins_codemod.verdict import FileOutcome, RunResult, Verdict

VERSION = 1


def render(result: RunResult) -> str:
    """Return the report as text. ASCII only, so that no terminal and no locale can spoil it."""
    return json.dumps(as_object(result), indent=2) + "\n"


def as_object(result: RunResult) -> dict[str, Any]:
    """Return the report as the object that is written out.

    summary: `files` are the Python files found, `candidates` those that a rule could apply to;
        the others count files by their status.
    files: every candidate, every file of the runtime, every file that failed, sorted by path.
        `diff` is null where there is none. Bytes that are not UTF-8 show as U+FFFD in it: a patch
        to apply comes from `--patch`.
    """
    return {
        "version": VERSION,
        "summary": {
            "files": result.files,
            "candidates": result.candidates,
            "changed": len(result.with_status("changed")),
            "added": len(result.with_status("added")),
            "refused": len(result.with_status("refused")),
            "errors": len(result.errors),
        },
        "files": [_file(outcome) for outcome in result.outcomes],
    }


def _file(outcome: FileOutcome) -> dict[str, Any]:
    return {
        "path": _utf8(outcome.path),
        "status": outcome.status,
        "diff": _utf8(outcome.diff()) or None,
        "verdicts": [_verdict(verdict) for verdict in outcome.verdicts],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "rule": verdict.rule,
        "status": verdict.status,
        "code": verdict.code,
        "line": verdict.line,
        "column": verdict.column,
        "message": _utf8(verdict.message),
        "hint": None if verdict.hint is None else _utf8(verdict.hint),
    }


def _utf8(text: str) -> str:
    # Lone surrogates stand for bytes that are no UTF-8; most parsers refuse them in JSON.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
