"""Functions of a script that one call alone runs, and that are read as a part of its caller."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from quickwins_codemod.script.names import Names
from quickwins_codemod.script.tree import LOOPS, Tree, walk

_LITERALS = (cst.Dict, cst.List, cst.Set, cst.Tuple, cst.BaseNumber, cst.BaseString)


class Helpers:
    """Tells of a function whether all of its runs are known, and what runs below a call."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names
        self._calls: dict[cst.FunctionDef, set[cst.Call]] = {}

    def only_call(self, function: cst.FunctionDef) -> cst.Call | str:
        """The one call of a function in its file, or in words why there is not just one."""
        name = function.name.value
        calls = self.names.callers.get(function, [])
        if not calls:
            return f"`{name}` is not called in this file"
        if len(calls) > 1:
            return f"`{name}` is called in {len(calls)} places"
        if self.tree.function(calls[0]) is function:
            return f"`{name}` calls itself"
        if any(self.tree.code(d.decorator) != "staticmethod" for d in function.decorators):
            return f"`{name}` is decorated"
        suspends = any(isinstance(n, cst.Yield) for n in walk(function.body))
        if function.asynchronous is not None or suspends:
            return f"`{name}` is a coroutine or a generator"
        same = [f for f in self.tree.all(cst.FunctionDef) if f.name.value == name]
        if any(f is not function and self._replaces(f, function) for f in same):
            return f"`{name}` is defined again, or overridden in a subclass"
        if any(self._may_be(node, function) for node in self._mentions(name, calls[0])):
            return f"`{name}` is used as a value, or on an object that is not known"
        return calls[0]

    def loops(self, node: cst.CSTNode, function: cst.CSTNode) -> list[cst.CSTNode]:
        """The loops of a function around a node of it, inner first."""
        found = []
        for ancestor in self.tree.ancestors(node):
            if ancestor is function:
                break
            if isinstance(ancestor, LOOPS):
                found.append(ancestor)
        return found

    def beside(self, call: cst.Call) -> Iterator[cst.Call]:
        """The other calls in the outermost loop around a call, or in its function."""
        function = self.tree.function(call)
        around = [*self.loops(call, function), function]
        for node in walk(around[-2] if len(around) > 1 else function):
            if isinstance(node, cst.Call) and node is not call:
                if self.tree.function(node) is function:
                    yield node

    def runs(self, call: cst.Call, wanted: frozenset[cst.Call]) -> bool:
        """Whether a call is one of some calls, or of a function of the file that runs one."""
        helper = self.names.callee(call)
        return call in wanted or helper is not None and not wanted.isdisjoint(self._below(helper))

    def _below(self, function: cst.FunctionDef) -> set[cst.Call]:
        """Every call in a function, and in those of the file that it calls."""
        if function not in self._calls:
            found, functions = set[cst.Call](), [function]
            for inner in functions:
                for call in self.tree.calls_within(inner.body):
                    found.add(call)
                    helper = self.names.callee(call)
                    if helper is not None and helper not in functions:
                        functions.append(helper)
            self._calls[function] = found
        return self._calls[function]

    def _owner(self, function: cst.FunctionDef) -> cst.ClassDef | None:
        """The class in whose body a function stands, static methods included."""
        owner = self.tree.parents.get(self.tree.parents[function])
        return owner if isinstance(owner, cst.ClassDef) else None

    def _replaces(self, other: cst.FunctionDef, function: cst.FunctionDef) -> bool:
        mine, theirs = self._owner(function), self._owner(other)
        if mine is None or theirs is None:
            return mine is theirs and self.tree.function(other) is self.tree.function(function)
        return mine in self.names.hierarchy(theirs) or theirs in self.names.hierarchy(mine)

    def _mentions(self, name: str, call: cst.Call) -> Iterator[cst.CSTNode]:
        for node in self.tree.all(cst.Name):
            if node.value == name and node is not call.func and self.names._is_read(node):
                yield node
        for node in self.tree.all(cst.Attribute):
            if node.attr.value == name and node is not call.func:
                yield node

    def _may_be(self, node: cst.CSTNode, function: cst.FunctionDef) -> bool:
        """Whether a name, or an attribute of some object, may mean a function."""
        owner = self._owner(function)
        if isinstance(node, cst.Name):
            variable = self.names.variable(node)
            return variable is not None and self.names.functions.get(variable) is function
        if owner is None:
            return False
        related = self.names.class_of(node.value)
        if related is not None:
            return owner in self.names.hierarchy(related) or related in self.names.hierarchy(owner)
        return not self._is_other(node.value)

    def _is_other(self, node: cst.BaseExpression) -> bool:
        """Whether an object is known to be none of the file's own classes."""
        made = self.names.creations(node)
        if made:
            return all(self.names.local_class(c.func) is None for c in made)
        variable = self.names.variable(node)
        if variable is None:
            return isinstance(node, _LITERALS)
        if variable in self.names.imports:
            return True
        values = [a.value for a in self.names.assignments.get(variable, ())]
        is_parameter = isinstance(variable.scope, cst.FunctionDef) and bool(
            self.names.parameter_values(variable.scope, variable.name)
        )
        return bool(values) and not is_parameter and all(isinstance(v, _LITERALS) for v in values)
