"""What becomes of drawn rows: split afterwards, trained on, or used by nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import libcst as cst

from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.tabledraws import attribute, trains, word
from quickwins_codemod.script.tree import LOOPS, walk


@dataclass(frozen=True)
class Fate:
    """What becomes of the drawn rows.

    kind: `split` into training and evaluation rows afterwards; drawn by a call in a `training`
    loop; `unused`, since nothing calls the function; `unknown`.
    node: the split, or the call.
    """

    kind: str
    node: cst.CSTNode | None = None


class Fates:
    """Answers for one script, and for the repository that it lies in."""

    def __init__(self, script: Script) -> None:
        self.script, self.tree, self.names = script, script.tree, script.names

    def of(self, function: cst.CSTNode, loop: cst.CSTNode) -> Fate:
        """What becomes of the rows that a loop draws, as far as the repository shows."""
        split = self._split_in(function, loop, None)
        if split is not None:
            return Fate("split", split)
        if not isinstance(function, cst.FunctionDef):
            return Fate("unknown")
        name = function.name.value
        calls = self._calls_of(function)
        for call in calls:
            split = self._split_after(call, 0)
            if split is not None:
                return Fate("split", split)
        elsewhere = self._is_named_elsewhere(name)
        if not calls and not elsewhere and not self.is_named(function):
            return Fate("unused")
        if calls and not elsewhere and all(self._in_training(call) for call in calls):
            return Fate("training", calls[0])
        return Fate("unknown")

    def _calls_of(self, function: cst.FunctionDef) -> list[cst.Call]:
        """Calls of a function, and calls of something of its name that may be the function."""
        name = function.name.value
        return [
            call for call in self.tree.all(cst.Call)
            if name in (word(call.func), attribute(call.func))
            and self.names.callee(call) in (function, None)
        ]

    def is_named(self, function: cst.FunctionDef) -> bool:
        """Whether anything but its definition and its own body names the function."""
        name = function.name.value
        named = [*self.tree.all(cst.Name), *self.tree.all(cst.SimpleString)]
        return any(
            node.value.strip("\"'") == name and not self.tree.is_within(node, function)
            for node in named
        )

    def _is_named_elsewhere(self, name: str) -> bool:
        """Whether another file of the repository has the name of a function in it."""
        neighbours = self.script.neighbours
        return neighbours is None or neighbours.mention(name)

    def _in_training(self, call: cst.Call) -> bool:
        return any(isinstance(a, LOOPS) and trains(a) for a in self.tree.ancestors(call))

    def _split_after(self, call: cst.Call, depth: int) -> cst.CSTNode | None:
        """A split into training and evaluation rows of what a call returned."""
        for ancestor in self.tree.ancestors(call):
            if isinstance(ancestor, cst.Call) and _is_split(ancestor):
                return ancestor
        statement = self.tree.statement(call)
        function = self.tree.function(call)
        tainted = {
            self.tree.code(t.target) for t in getattr(statement, "targets", ())
        } | ({self.tree.code(statement.target)} if isinstance(statement, cst.AnnAssign) else set())
        found = self._split_in(function, statement, tainted) if tainted else None
        if found is not None:
            return found
        gives = isinstance(statement, cst.Return) or any(
            tainted & set(self._read(r)) for r in self._after(function, statement, cst.Return)
        )
        if gives and isinstance(function, cst.FunctionDef) and depth < 4:
            for outer in self._calls_of(function):
                found = self._split_after(outer, depth + 1)
                if found is not None:
                    return found
        return None

    def _split_in(
        self, function: cst.CSTNode, start: cst.CSTNode, tainted: set[str] | None
    ) -> cst.CSTNode | None:
        """A split below a statement; of rows that depend on `tainted`, where that is given."""
        tainted = set(tainted) if tainted is not None else None
        if tainted is not None and any("." in name for name in tainted):
            function = self.tree.enclosing_class(start) or function
            start = function  # an attribute is there in every method
        for node in self._after(function, start, cst.CSTNode):
            if isinstance(node, cst.Call) and _is_split(node):
                if tainted is None or tainted & {
                    w for a in node.args for w in self._read(a.value)
                }:
                    return node
            if tainted and isinstance(node, cst.Assign) and tainted & set(self._read(node.value)):
                tainted |= {self.tree.code(t.target) for t in node.targets}
        return None

    def _after(self, function: cst.CSTNode, start: cst.CSTNode, kind: type) -> list[Any]:
        """The nodes of a kind in a function that stand below a statement."""
        first = self.tree.order[start]
        return [
            n for n in walk(function)
            if isinstance(n, kind) and self.tree.order[n] > first
            and (start is function or not self.tree.is_within(n, start))
        ]

    def _read(self, node: cst.CSTNode) -> list[str]:
        """The names and attributes that an expression reads, as code."""
        return [
            self.tree.code(n) for n in walk(node) if isinstance(n, (cst.Name, cst.Attribute))
        ]


def _is_split(call: cst.Call) -> bool:
    """`train_test_split(rows)`, `random_split(data, …)`, `folds.split(rows)`; no text's `split`."""
    name = word(call.func) or attribute(call.func) or ""
    if name == "sample":
        return any(a.keyword is not None and a.keyword.value == "frac" for a in call.args)
    texts = call.args and isinstance(call.args[0].value, cst.SimpleString)
    return "split" in name.lower() and bool(call.args) and not texts
