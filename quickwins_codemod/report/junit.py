"""The report that test viewers show (JUnit's XML): one test for each candidate file.

A file passes when nothing is due in it, fails when a change is due, is skipped when it was left
alone with a reason, and is an error when it could not be processed; the gravest of these holds,
and its text lists every finding. The runtime's own files are no tests. There is no standard for
this format; attributes are those that Jenkins, GitLab and pytest agree on, without times, so that
two runs over one tree give the same bytes.
"""

from __future__ import annotations

import re
from typing import Literal
from xml.etree import ElementTree

from quickwins_codemod.report import findings
from quickwins_codemod.report.text import Command, one_line
from quickwins_codemod.verdict import FileOutcome, RunResult

Ending = Literal["error", "failure", "skipped", "passed"]

_TYPES = {"error": {"type": "not-processed"}, "failure": {"type": "change-due"}, "skipped": {}}
# All that XML 1.0 cannot hold, escaped or not; lone surrogates, which stand for bytes, among it.
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(result: RunResult, command: Command) -> str:
    """Return the report as text. ASCII only, so that no terminal and no locale can spoil it."""
    files = [outcome for outcome in result.outcomes if outcome.status != "added"]
    endings = [_ending(outcome, command) for outcome in files]
    counts = {
        "tests": str(len(files)),
        "failures": str(endings.count("failure")),
        "errors": str(endings.count("error")),
        "skipped": str(endings.count("skipped")),
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"quickwins {command}", **counts})
    for outcome, ending in zip(files, endings):
        suite.append(_case(outcome, ending, command))
    ElementTree.indent(root)
    return ElementTree.tostring(root, "us-ascii", xml_declaration=True).decode("ascii") + "\n"


def _ending(outcome: FileOutcome, command: Command) -> Ending:
    if outcome.status == "error":
        return "error"
    if outcome.has_change and command != "apply":
        return "failure"
    return "skipped" if outcome.status == "refused" else "passed"


def _case(outcome: FileOutcome, ending: Ending, command: Command) -> ElementTree.Element:
    path = _fit(outcome.path)
    case = ElementTree.Element("testcase", {"classname": "quickwins", "name": path, "file": path})
    found = findings.of(outcome)
    said = [
        f"{one_line(outcome.path)}:{v.line}:{v.column}: {v.code} {findings.said(v, command)}"
        for v in found
    ]
    lines = _fit("\n".join(said))
    if ending == "passed":
        if lines:
            ElementTree.SubElement(case, "system-out").text = lines
        return case
    status = "applied" if ending == "failure" else "refused"
    reasons = (f"{v.code} {one_line(v.message)}" for v in found if v.status == status)
    about = {"message": _fit("; ".join(dict.fromkeys(reasons))), **_TYPES[ending]}
    ElementTree.SubElement(case, ending, about).text = lines
    return case


def _fit(text: str) -> str:
    return _UNFIT.sub("\ufffd", text)
