"""The contract between the engine and a quick win, and the list of all quick wins.

A quick win is one module in `transforms/`. It must import without libcst or torch, since the
command line asks it for its name, its options and its codes. It has

- `RULE`: its name in reports, flags and configuration
- `NEEDLES`: byte strings; a file that lacks all of them is no candidate for this rule
- `Options`: a frozen dataclass; each field has a default and `metadata={"help": ...}`
- a docstring whose blocks `QW123 title` + indented text are the pages of its codes
- `plan(script, options) -> Plan`: pure; it reads the model and answers with findings
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from quickwins_codemod.verdict import Status, Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.edits import Edit
    from quickwins_codemod.script.facts import Script

_BLOCK = re.compile(r"^(QW\d{3}) (.+)$")


@dataclass(frozen=True)
class Finding:
    """What a transform says of one site, and the edits that belong to it, all or none.

    runtime_names: what the edited script must import from the bundled runtime.
    partners: verdicts that others apply and that this needs beside it; where one of those is left
        out, this finding is too, and the verdict that stands with it is said instead.
    """

    verdicts: tuple[Verdict, ...]
    edits: tuple[Edit, ...] = ()
    runtime_names: frozenset[str] = frozenset()
    partners: tuple[tuple[Verdict, Verdict], ...] = ()

    @property
    def applied(self) -> tuple[Verdict, ...]:
        return tuple(v for v in self.verdicts if v.status == "applied")


def verdict_at(
    rule: str,
    script: Script,
    status: Status,
    code: str,
    node: cst.CSTNode,
    message: str,
    hint: str | None = None,
) -> Verdict:
    """Say something of the place where a node begins."""
    at = script.tree.position(node)
    return Verdict(rule, status, code, at.line, at.column, message, hint)


class Refusal(Exception):
    """Raised while a site is planned, where it must stay as it is."""

    def __init__(self, code: str, node: cst.CSTNode, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.node, self.message, self.hint = code, node, message, hint

    def finding(self, rule: str, script: Script) -> Finding:
        return Finding((
            verdict_at(rule, script, "refused", self.code, self.node, self.message, self.hint),
        ))


@dataclass(frozen=True)
class Plan:
    """All that a transform found in one script."""

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Code:
    """One stable code, with the page that `quickwins explain` prints."""

    code: str
    rule: str
    title: str
    page: str


@dataclass(frozen=True)
class Transform:
    """One quick win, as the engine sees it."""

    rule: str
    title: str
    needles: tuple[bytes, ...]
    options_type: type
    page: str
    codes: tuple[Code, ...]
    plan: Callable[[Script, Any], Plan]

    def is_candidate(self, data: bytes) -> bool:
        return any(needle in data for needle in self.needles)


def codes_of(docstring: str, rule: str) -> tuple[str, tuple[Code, ...]]:
    """Split a docstring into its opening text and the pages of its codes."""
    opening: list[str] = []
    codes: list[tuple[str, str, list[str]]] = []
    for line in textwrap.dedent(docstring).splitlines():
        match = _BLOCK.match(line)
        if match:
            codes.append((match[1], match[2], []))
        elif codes:
            codes[-1][2].append(line)
        else:
            opening.append(line)
    pages = tuple(
        Code(code, rule, title, textwrap.dedent("\n".join(body)).strip("\n"))
        for code, title, body in codes
    )
    return "\n".join(opening).strip("\n"), pages


@cache
def all_transforms() -> tuple[Transform, ...]:
    """Return every quick win, in the order of their codes."""
    package = importlib.import_module("quickwins_codemod.transforms")
    modules = [
        importlib.import_module(f"{package.__name__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    ]
    found = [_from_module(module) for module in modules if hasattr(module, "RULE")]
    return tuple(sorted(found, key=lambda t: t.codes[0].code))


def _from_module(module: ModuleType) -> Transform:
    page, codes = codes_of(module.__doc__ or "", module.RULE)
    title = page.split("\n", 1)[0]
    return Transform(
        module.RULE, title, module.NEEDLES, module.Options, page, codes, module.plan
    )
