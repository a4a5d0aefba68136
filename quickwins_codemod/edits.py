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
    """Statements placed above a statement and the comment that belongs to it."""

    anchor: cst.CSTNode
    code: str


@dataclass(frozen=True)
class InsertAfter:
    """Statements placed directly below a statement."""

    anchor: cst.CSTNode
    code: str


@dataclass(frozen=True)
class Remove:
    """A statement taken out, with the comment above it where that speaks of `topic` only.

    topic: a regular expression; None keeps every comment.
    """

    node: cst.CSTNode
    topic: str | None = None


@dataclass(frozen=True)
class Replace:
    """A statement or an expression that becomes other code of the same kind."""

    node: cst.CSTNode
    code: str


@dataclass(frozen=True)
class AddArgument:
    """One more argument at the end of a call."""

    call: cst.CSTNode
    code: str


@dataclass(frozen=True)
class AddParameter:
    """One more parameter at the end of a function's ordinary ones."""

    function: cst.CSTNode
    code: str


@dataclass(frozen=True)
class AddDictEntry:
    """A `key: value` in a dict literal, after one of its elements (None: at the end)."""

    mapping: cst.CSTNode
    after: cst.CSTNode | None
    code: str


Edit = Union[InsertBefore, InsertAfter, Remove, Replace, AddArgument, AddParameter, AddDictEntry]


def target(edit: Edit) -> cst.CSTNode:
    """The node of the original tree that an edit is about."""
    for name in ("anchor", "node", "call", "function", "mapping"):
        if hasattr(edit, name):
            return getattr(edit, name)
    raise TypeError(edit)
