"""One module's syntax tree, indexed once: parents, enclosing statements and functions, positions.

libcst's metadata providers copy or visit the whole tree each; the analysis needs parents
everywhere and positions for a handful of nodes, which one walk and one code generation give for a
fraction of that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import libcst as cst
from libcst._nodes.internal import CodegenState

_SKIPPED_FIELDS = (
    "whitespace", "leading_lines", "lpar", "rpar", "comma", "semicolon", "header", "footer",
    "trailing_whitespace", "lines_after", "lbrace", "rbrace", "lbracket", "rbracket", "indent",
    "encoding", "default_", "has_trailing", "operator_",
)
_fields: dict[type, tuple[str, ...]] = {}

STATEMENTS = (cst.BaseSmallStatement, cst.BaseCompoundStatement)
FUNCTIONS = (cst.FunctionDef, cst.Lambda, cst.Module)
LOOPS = (cst.For, cst.While)


def child_fields(node: cst.CSTNode) -> tuple[str, ...]:
    kind = type(node)
    if kind not in _fields:
        _fields[kind] = tuple(
            f.name for f in dataclasses.fields(kind) if not f.name.startswith(_SKIPPED_FIELDS)
        )
    return _fields[kind]


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The child nodes in source order, without whitespace and punctuation."""
    for name in child_fields(node):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            yield value
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, cst.CSTNode):
                    yield item


def walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The node and everything below it, in source order; iterative, so depth is no limit."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(list(children(current))))


@dataclasses.dataclass(frozen=True, order=True)
class Position:
    """Where a node begins; line and column count from 1."""

    line: int
    column: int


class Tree:
    """A parsed module with the questions that the analysis asks of syntax alone."""

    def __init__(self, module: cst.Module) -> None:
        self.module = module
        self.parents: dict[cst.CSTNode, cst.CSTNode] = {}
        self.order: dict[cst.CSTNode, int] = {}
        self.nodes: dict[type, list[Any]] = {}
        stack: list[cst.CSTNode] = [module]
        while stack:
            node = stack.pop()
            self.order[node] = len(self.order)
            self.nodes.setdefault(type(node), []).append(node)
            below = list(children(node))
            for child in below:
                self.parents[child] = node
            stack.extend(reversed(below))
        self._codes: dict[cst.CSTNode, str] = {}

    def all(self, kind: type) -> list[Any]:
        """Every node of exactly this type, in source order."""
        return self.nodes.get(kind, [])

    def calls_within(self, outer: cst.CSTNode) -> list[cst.Call]:
        """Every call inside a node, in source order."""
        return [n for n in walk(outer) if isinstance(n, cst.Call)]

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The parents of a node, nearest first, up to the module."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def is_within(self, node: cst.CSTNode, outer: cst.CSTNode) -> bool:
        return node is outer or any(a is outer for a in self.ancestors(node))

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """The innermost statement (small or compound) that holds a node."""
        while not isinstance(node, STATEMENTS):
            node = self.parents[node]
        return node

    def function(self, node: cst.CSTNode) -> cst.CSTNode:
        """The innermost function definition, lambda or module around a node."""
        return next(a for a in self.ancestors(node) if isinstance(a, FUNCTIONS))

    def enclosing_class(self, node: cst.CSTNode) -> cst.ClassDef | None:
        """The class whose body holds a node directly or through one method."""
        for ancestor in self.ancestors(node):
            if isinstance(ancestor, cst.ClassDef):
                return ancestor
        return None

    def block(self, statement: cst.CSTNode) -> cst.CSTNode:
        """The body (indented block, one-line suite or module) that holds a statement."""
        parent = self.parents[statement]
        if isinstance(parent, cst.SimpleStatementLine):
            parent = self.parents[parent]
        return parent

    def line_node(self, statement: cst.CSTNode) -> cst.CSTNode:
        """What stands in a block for a statement: its line, or the compound statement itself."""
        parent = self.parents[statement]
        return parent if isinstance(parent, cst.SimpleStatementLine) else statement

    def siblings(self, statement: cst.CSTNode) -> list[cst.CSTNode]:
        """All statements of the block that holds a statement, small ones taken apart."""
        return list(statements_of(self.block(statement)))

    def code(self, node: cst.CSTNode) -> str:
        """The source text of a node, without surrounding parentheses' comments."""
        if node not in self._codes:
            self._codes[node] = self.module.code_for_node(node).strip()
        return self._codes[node]

    def plain(self, node: cst.CSTNode) -> str:
        """The source text without white space and outer parentheses, for comparing code whatever
        its layout."""
        text = "".join(self.code(node).split())
        around = len(getattr(node, "lpar", ()))
        return text[around:-around] if around else text

    def position(self, node: cst.CSTNode) -> Position:
        return self._positions.start(node)

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """First and last line of a node, comments above it not counted."""
        return self._positions.lines(node)

    @cached_property
    def text(self) -> str:
        """The module's source text."""
        return self._positions.text

    @cached_property
    def _positions(self) -> _Positions:
        state = _RecordingState(
            default_indent=self.module.default_indent, default_newline=self.module.default_newline
        )
        self.module._codegen(state)
        return _Positions(state)


def statements_of(block: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The statements directly in a block, small ones taken out of their lines."""
    for item in block.body:
        if isinstance(item, cst.SimpleStatementLine):
            yield from item.body
        else:
            yield item


class _RecordingState(CodegenState):
    """Notes at which token each node begins and ends; offsets are worked out on demand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.begin: dict[cst.CSTNode, int] = {}
        self.end: dict[cst.CSTNode, int] = {}

    def before_codegen(self, node: cst.CSTNode) -> None:
        self.begin[node] = len(self.tokens)

    def after_codegen(self, node: cst.CSTNode) -> None:
        self.end.setdefault(node, len(self.tokens))

    @contextmanager
    def record_syntactic_position(
        self, node: cst.CSTNode, *, start_node: Any = None, end_node: Any = None
    ) -> Iterator[None]:
        start = len(self.tokens)
        yield
        self.begin[node] = start if start_node is None else self.begin.get(start_node, start)
        self.end[node] = (
            len(self.tokens) if end_node is None else self.end.get(end_node, len(self.tokens))
        )


class _Positions:
    def __init__(self, state: _RecordingState) -> None:
        self._state = state
        self.text = "".join(state.tokens)
        self._lines: list[int] = [1]
        self._columns: list[int] = [1]
        line, column = 1, 1
        for token in state.tokens:
            breaks = token.count("\n") or token.count("\r")
            line += breaks
            column = len(token) - max(token.rfind("\n"), token.rfind("\r")) if breaks else (
                column + len(token)
            )
            self._lines.append(line)
            self._columns.append(column)

    def start(self, node: cst.CSTNode) -> Position:
        token = self._state.begin[node]
        return Position(self._lines[token], self._columns[token])

    def lines(self, node: cst.CSTNode) -> tuple[int, int]:
        first = self._lines[self._state.begin[node]]
        end = self._state.end[node]
        last, column = self._lines[end], self._columns[end]
        return first, max(first, last - 1 if column == 1 and last > first else last)
