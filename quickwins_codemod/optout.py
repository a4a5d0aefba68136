"""Opt-out comments: `# quickwins: skip`, or `skip[amp, QW101]` for these rules and codes only.

At the end of a statement's line (any of its lines) one covers that statement, of a compound
statement the header; on the line of a `def`, a `class` or a decorator, all that stands in it; on a
line of its own above all code but the module's docstring, the whole file. A finding goes as a
whole, since its edits belong together: where what it applies stands under an opt-out, or where one
of its edits would change, move or take out a line under one, or set code within a function, a class
or a file that is opted out. Code set beside a line leaves that line as it is.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quickwins_codemod.edits import InsertAfter, InsertBefore, target
from quickwins_codemod.settings import FILE_RULE, Rule, suggest
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    from quickwins_codemod.script.tree import Tree
    from quickwins_codemod.transform import Finding

_COMMENT = re.compile(r"#\s*quickwins:\s*skip\b(?:\s*(\[)([^\]#]*)(\]?))?")
#: Said of a site by each rule, though its number is a file's.
_MANAGED = "QW004"
_LAST = 1 << 62


@dataclass(frozen=True)
class _OptOut:
    """One comment and the lines that it covers.

    names: rules and codes, None for all; unknown: what its brackets hold besides.
    block: it covers a function, a class or the file, so insertions in there count too.
    flaw: why it cannot mean anything, with what to do.
    """

    line: int
    column: int
    first: int
    last: int
    block: bool = False
    names: tuple[str, ...] | None = None
    unknown: tuple[str, ...] = ()
    flaw: tuple[str, str] | None = None

    def takes(self, verdict: Verdict) -> Iterator[str | None]:
        """The names of this opt-out that a verdict goes by."""
        if self.names is None:
            yield None
        else:
            yield from (name for name in self.names if name in (verdict.rule, verdict.code))

    def spans(self, line: int) -> bool:
        return self.first <= line <= self.last


class OptOuts:
    """The opt-outs of one file, and which of them silenced something."""

    def __init__(self, text: str, rules: Sequence[Rule]) -> None:
        self._owners: dict[str, set[str]] = {_MANAGED: {rule.rule for rule in rules}}
        for rule in rules:
            self._owners[rule.rule] = {rule.rule}
            self._owners.update((code.code, {rule.rule}) for code in rule.codes)
        self._rules = {rule.rule for rule in rules}
        self._found = list(self._read(text)) if _COMMENT.search(text) else []
        self._used: set[tuple[_OptOut, str | None]] = set()

    def without(self, findings: Iterable[Finding], tree: Tree) -> list[Finding]:
        """Return what is left of the findings."""
        if not self._found:
            return list(findings)
        kept = (self._left(finding, tree) for finding in findings)
        return [finding for finding in kept if finding is not None]

    def remarks(self, judged: Collection[str]) -> list[Verdict]:
        """Return a warning (QW010) for each opt-out that silenced nothing or names nothing known.

        judged: the rules whose findings were all seen; of others nothing can be said.
        """
        said = []
        for found in self._found:
            if found.flaw is not None:
                said.append(_remark(found, *found.flaw))
                continue
            for name in found.unknown:
                near = suggest(name, self._owners)
                said.append(_remark(
                    found, f'this opt-out has an unknown rule or code "{name}"{near}',
                    "name a rule or a code that `quickwins explain` lists",
                ))
            unused = [
                name for name in ((None,) if found.names is None else found.names)
                if (found, name) not in self._used
                and (self._owners[name] if name else self._rules) <= set(judged)
            ]
            if unused:
                of = f" of {', '.join(map(str, unused))}" if found.names else ""
                said.append(_remark(
                    found, f"this opt-out{of} silences nothing",
                    "delete it, or put it on the line that `quickwins check` names",
                ))
        return said

    def _left(self, finding: Finding, tree: Tree) -> Finding | None:
        from quickwins_codemod.selfcheck import changed_lines

        beside = (InsertBefore, InsertAfter)
        changed = changed_lines(tree, [e for e in finding.edits if not isinstance(e, beside)])
        anchors = {tree.position(target(edit)).line for edit in finding.edits}
        left, dropped = [], False
        for verdict in finding.verdicts:
            silent = False
            for found in self._found:
                names = list(found.takes(verdict))
                applied = verdict.status == "applied"
                lines = {verdict.line}
                if applied:
                    lines |= changed | anchors if found.block else changed
                if names and any(map(found.spans, lines)):
                    self._used.update((found, name) for name in names)
                    silent = True
                    dropped = dropped or applied
            if not silent:
                left.append(verdict)
        return None if dropped else replace(finding, verdicts=tuple(left))

    def _read(self, text: str) -> Iterator[_OptOut]:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        blocks, code = _blocks(text)
        for token, lines in _comments(text):
            for match in _COMMENT.finditer(token.string):
                line, column = token.start[0], token.start[1] + match.start() + 1
                flaw, block = None, True
                if lines is not None:
                    first, last = blocks.get(lines[0], lines)
                    block = lines[0] in blocks
                elif line < code:
                    first, last = 1, _LAST
                else:
                    first, last = 1, 0
                    flaw = (
                        "this opt-out stands on a line of its own, where it silences nothing",
                        "put it at the end of the line that it is about, or above all code",
                    )
                names, unknown = self._names(match[2]) if match[1] else (None, ())
                if match[1] and (not match[3] or not (names or unknown)):
                    first, last = 1, 0
                    flaw = (
                        "this opt-out cannot be read",
                        "write `# quickwins: skip`, or `# quickwins: skip[amp, QW101]`",
                    )
                yield _OptOut(line, column, first, last, block, names, unknown, flaw)

    def _names(self, listed: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        spelled = {name.lower(): name for name in self._owners}
        written = [name.strip() for name in listed.split(",") if name.strip()]
        plain = {name: spelled.get(name.lower().replace("_", "-")) for name in written}
        known = dict.fromkeys(name for name in plain.values() if name is not None)
        return tuple(known), tuple(name for name, found in plain.items() if found is None)


def _remark(found: _OptOut, message: str, hint: str) -> Verdict:
    return Verdict(FILE_RULE, "warning", "QW010", found.line, found.column, message, hint)


def _comments(text: str) -> Iterator[tuple[tokenize.TokenInfo, tuple[int, int] | None]]:
    """Each comment with the first and last line of the statement or header that it stands on."""
    start: int | None = None
    held: list[tokenize.TokenInfo] = []
    blank = (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            if start is None:
                yield token, None
            else:
                held.append(token)
        elif token.type == tokenize.NEWLINE:
            yield from ((comment, (start or token.start[0], token.start[0])) for comment in held)
            start, held = None, []
        elif token.type not in blank and start is None:
            start = token.start[0]


def _blocks(text: str) -> tuple[dict[int, tuple[int, int]], int]:
    """The lines of each function and class by the lines that open it, and where code begins."""
    module = ast.parse(text)
    blocks = {}
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            opening = [*(d.lineno for d in node.decorator_list), node.lineno]
            blocks.update(dict.fromkeys(opening, (opening[0], node.end_lineno or node.lineno)))
    body = module.body[1:] if ast.get_docstring(module, clean=False) is not None else module.body
    if not body:
        return blocks, _LAST
    first = body[0]
    return blocks, min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", ()))])
