"""SARIF 2.1.0, which code scanners and editors read.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os.html

Each finding is a result; a file that could not be processed is none, but a notification of the
tool. The changes to one file belong together, so the first change that is due in it carries them
all as one fix. After `apply` a change is informational and carries no fix, for it is done; its
place is that in the text before.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quickwins_codemod import __version__
from quickwins_codemod.report import findings, pages
from quickwins_codemod.report.text import Command
from quickwins_codemod.source import Source, decode
from quickwins_codemod.transform import Code, Transform
from quickwins_codemod.verdict import FileOutcome, RunResult, Verdict

_STANDARD = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os"
SCHEMA = f"{_STANDARD}/schemas/sarif-schema-2.1.0.json"
# The lines that verdicts count, which are Python's; SARIF's own default lacks the last.
_NEWLINES = ("\r\n", "\n", "\r")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)|[^\r\n]+")
_LEVELS = {"error": "error", "warning": "warning", "notice": "note"}


def render(result: RunResult, command: Command, rules: Sequence[Transform]) -> str:
    """Return the report as text. ASCII only, so that no terminal and no locale can spoil it.

    rules: those whose pages explain the codes.
    """
    report = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(result, command, rules)]}
    return json.dumps(report, indent=2) + "\n"


def _run(result: RunResult, command: Command, rules: Sequence[Transform]) -> dict[str, Any]:
    processed = [outcome for outcome in result.outcomes if outcome.status != "error"]
    known = pages.by_code(rules)
    used = _codes(processed)
    failures = _codes(result.errors)
    needs_runtime = any(outcome.status == "added" for outcome in result.outcomes)
    return {
        "tool": {
            "driver": {
                "name": "quickwins",
                "version": __version__,
                "rules": [_descriptor(known[code], _default_level(code)) for code in used],
                "notifications": [_descriptor(known[code], "error") for code in failures],
            }
        },
        "invocations": [
            {
                "executionSuccessful": not failures,
                "toolExecutionNotifications": [
                    _notification(outcome, found, failures, command)
                    for outcome in result.errors
                    for found in findings.of(outcome)
                ],
            }
        ],
        "artifacts": [
            {"location": _location(outcome.path), "encoding": source.encoding}
            for outcome in processed
            if command != "apply" and outcome.status == "changed"
            for source in [_source(outcome)]
            if source.encoding not in ("utf-8", "utf-8-sig")
        ],
        "defaultEncoding": "utf-8",
        "newlineSequences": list(_NEWLINES),
        "columnKind": "unicodeCodePoints",
        "results": [
            entry
            for outcome in processed
            for entry in _results(outcome, used, command, needs_runtime)
        ],
    }


def _codes(outcomes: Iterable[FileOutcome]) -> list[str]:
    return sorted({found.code for outcome in outcomes for found in findings.of(outcome)})


def _descriptor(code: Code, level: str) -> dict[str, Any]:
    opening = " ".join(code.page.partition("\n\n")[0].split())
    return {
        "id": code.code,
        "name": code.rule,
        "shortDescription": {"text": code.title},
        "fullDescription": {"text": opening},
        "help": {"text": code.page},
        "defaultConfiguration": {"level": level},
    }


def _default_level(code: str) -> str:
    """Return the level that the number of a code stands for; of files, nothing is ever applied."""
    number = int(code[-2:])
    if number < 10 and not code.startswith("QW0"):
        return "error"
    return "note" if number < 50 else "warning"


def _notification(
    outcome: FileOutcome, found: Verdict, failures: Sequence[str], command: Command
) -> dict[str, Any]:
    return {
        "descriptor": {"id": found.code, "index": failures.index(found.code)},
        "level": "error",
        "message": {"text": findings.utf8(findings.said(found, command))},
        "locations": [_place(outcome, found)],
    }


def _results(
    outcome: FileOutcome, used: Sequence[str], command: Command, needs_runtime: bool
) -> list[dict[str, Any]]:
    entries = []
    seen: Counter[str] = Counter()
    due = command != "apply" and outcome.status == "changed"
    fix = _fix(outcome, needs_runtime) if due else None
    for found in findings.of(outcome):
        done = command == "apply" and found.status == "applied"
        level = _LEVELS[findings.severity(outcome, found, command)]
        entry = {
            "ruleId": found.code,
            "ruleIndex": used.index(found.code),
            "kind": "informational" if done else "fail",
            "level": "none" if done else level,  # the one that goes with a kind other than `fail`
            "message": {"text": findings.utf8(findings.said(found, command))},
            "locations": [_place(outcome, found)],
            "partialFingerprints": {"quickwinsFinding/v1": _fingerprint(outcome, found, seen)},
        }
        if fix is not None and found.status == "applied":
            entry["fixes"], fix = [fix], None
        entries.append(entry)
    return entries


def _place(outcome: FileOutcome, found: Verdict) -> dict[str, Any]:
    region = {"startLine": found.line, "startColumn": found.column}
    return {"physicalLocation": {"artifactLocation": _location(outcome.path), "region": region}}


def _location(path: str) -> dict[str, str]:
    uri = quote(path.encode("utf-8", "surrogateescape"))
    return {"uri": uri, "uriBaseId": "%SRCROOT%"}


def _fingerprint(outcome: FileOutcome, found: Verdict, seen: Counter[str]) -> str:
    """Hash what stays when a finding moves to another line: path, code and the line's own text.

    Findings that agree in all three are told apart by their order, which `seen` counts.
    """
    lines = re.split(rb"\r\n|\n|\r", outcome.before or b"")
    text = lines[found.line - 1].strip() if found.line <= len(lines) else b""
    path = outcome.path.encode("utf-8", "surrogateescape")
    alike = hashlib.sha256(b"\0".join((path, found.code.encode(), text))).hexdigest()
    seen[alike] += 1
    return f"{alike[:32]}:{seen[alike]}"


def _fix(outcome: FileOutcome, needs_runtime: bool) -> dict[str, Any]:
    said = "Make all changes to this file that are due."
    if needs_runtime:
        said += " It then imports a runtime, which `quickwins apply` adds and this fix does not."
    new = decode(Path(outcome.path), outcome.after or b"").text
    change = {
        "artifactLocation": _location(outcome.path),
        "replacements": _replacements(_source(outcome).text, new),
    }
    return {"description": {"text": said}, "artifactChanges": [change]}


def _source(outcome: FileOutcome) -> Source:
    return decode(Path(outcome.path), outcome.before or b"")


def _replacements(old: str, new: str) -> list[dict[str, Any]]:
    """Return what turns one text into the other, in whole lines.

    Each region is one of the old text, as 3.56.3 of the standard wants it, and ends before the
    first column of the line below it, so that line endings are replaced too.
    """
    before, after = _LINE.findall(old), _LINE.findall(new)
    matcher = difflib.SequenceMatcher(None, before, after)
    replacements = []
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        last, column = end + 1, 1
        if end == len(before) and end > start and not before[-1].endswith(("\n", "\r")):
            last, column = end, len(before[-1]) + 1
        region = {"startLine": start + 1, "startColumn": 1, "endLine": last, "endColumn": column}
        replacement: dict[str, Any] = {"deletedRegion": region}
        if new_end > new_start:
            replacement["insertedContent"] = {"text": "".join(after[new_start:new_end])}
        replacements.append(replacement)
    return replacements
