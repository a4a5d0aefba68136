"""Edits as data: what a transform asks for, against nodes of the original tree.

New code is given as text and parsed once when the edits are applied (`rewriting.py`), so a
transform reads like the diff that it makes and needs no syntax classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import libcst as cst


@dataclass(frozen=True)
class InsertBefore:
    """Statements placed above a statement and the comment that belongs to it.

    below_comment: between the comment and the statement instead.
    """

    anchor: cst.CSTNode
    code: str
    below_comment: bool = False


@dataclass(frozen=True)
class InsertAfter:
    """Statements placed directly below a statement, or a decorator below a decorator.

    rank: of several insertions at one place, the lower stands nearer to the statement.
    joined: it belongs to the statement, also where that is the last one under a Wrap.
    """

    anchor: cst.CSTNode
    code: str
    rank: int = 0
    joined: bool = False


@dataclass(frozen=True)
class Remove:
    """A statement taken out, with the comment above it where that speaks of `topic` only.

    topic: a regular expression; None keeps every comment.
    """

    node: cst.CSTNode
    topic: str | None = None


@dataclass(frozen=True)
class Replace:
    """A statement or an expression that becomes other code of the same kind.

    topic: as in Remove, for a comment above a statement that its replacement makes untrue.
    """

    node: cst.CSTNode
    code: str
    topic: str | None = None


@dataclass(frozen=True)
class AddTerm:
    """One more summand for an expression, in parentheses where the place needs them.

    Of several changes to one expression, it is replaced first, then added to, then enclosed.
    """

    node: cst.CSTNode
    code: str


@dataclass(frozen=True)
class Enclose:
    """An expression put between two pieces of code: `scaler.scale(` and `)`."""

    node: cst.CSTNode
    before: str
    after: str


@dataclass(frozen=True)
class AddArgument:
    """One more argument at the end of a call.

    hang: columns from the statement's start, for an argument on a line of its own.
    """

    call: cst.CSTNode
    code: str
    hang: int | None = None


@dataclass(frozen=True)
class AddParameter:
    """One more parameter at the end of a function's ordinary ones."""

    function: cst.CSTNode
    code: str


@dataclass(frozen=True)
class AddDictEntry:
    """A `key: value` in a dict literal, after one of its elements (None: at the end).

    hang: as in AddArgument.
    """

    mapping: cst.CSTNode
    after: cst.CSTNode | None
    code: str
    hang: int | None = None


@dataclass(frozen=True)
class Wrap:
    """A run of statements of one block put under a header: `with autocast(device):`."""

    first: cst.CSTNode
    last: cst.CSTNode
    header: str


@dataclass(frozen=True)
class EndBlockBefore:
    """A statement and all below it in its block, moved out of the compound statement around it.

    They stand directly below that statement then; where the first of its block moves, it goes.
    """

    first: cst.CSTNode


@dataclass(frozen=True)
class RemoveImport:
    """One name taken out of a `from … import …`, or the statement where it is the only one."""

    statement: cst.CSTNode
    name: str


Edit = Union[
    InsertBefore,
    InsertAfter,
    Remove,
    Replace,
    Wrap,
    EndBlockBefore,
    AddArgument,
    AddParameter,
    AddDictEntry,
    RemoveImport,
]


def target(edit: Edit) -> cst.CSTNode:
    """The node of the original tree that an edit is about."""
    for name in ("anchor", "node", "call", "function", "mapping", "statement", "first"):
        if hasattr(edit, name):
            return getattr(edit, name)
    raise TypeError(edit)
