"""Conditions around a step: known ones, gradient accumulation, guards, and limits on a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import libcst as cst

from quickwins_codemod.script.facts import Boundary, Frame
from quickwins_codemod.script.names import Names, all_parameters
from quickwins_codemod.script.tree import Tree, statements_of, walk

_GUARDS = ("isnan", "isinf", "isfinite", "is_nan", "is_inf")
_UNKNOWN = object()
_SOMETHING = object()


@dataclass(frozen=True)
class _Index:
    """A number that grows by one a batch. first: its value at the test in the first batch."""

    first: int
    over_epochs: bool = False


class Conditions:
    """Answers what the analysis asks about tests, in one module."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names
        self.phase: tuple[str, Any] | None = None

    # -- tests with a known answer ----------------------------------------------------------

    def truth(
        self, test: cst.BaseExpression, values: Mapping[str, Any], frame: Frame | None = None
    ) -> bool | None:
        """The test's outcome where literals, or what a caller passes, decide it."""
        if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
            inner = self.truth(test.expression, values, frame)
            return None if inner is None else not inner
        if isinstance(test, cst.BooleanOperation):
            sides = [self.truth(t, values, frame) for t in (test.left, test.right)]
            if isinstance(test.operator, cst.And):
                return False if False in sides else (True if sides == [True, True] else None)
            return True if True in sides else (False if sides == [False, False] else None)
        if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
            return self._comparison(test, values, frame)
        value = self._value(test, values, frame)
        if value is _UNKNOWN:
            return None
        return True if value is _SOMETHING else bool(value)

    def _comparison(
        self, test: cst.Comparison, values: Mapping[str, Any], frame: Frame | None
    ) -> bool | None:
        target = test.comparisons[0]
        left = self._value(test.left, values, frame)
        right = self._value(target.comparator, values, frame)
        if left is _UNKNOWN or right is _UNKNOWN:
            return None
        if isinstance(target.operator, (cst.Is, cst.IsNot)):
            same = left is right
            return same if isinstance(target.operator, cst.Is) else not same
        if _SOMETHING in (left, right):
            return None
        if isinstance(target.operator, cst.Equal):
            return left == right
        return left != right if isinstance(target.operator, cst.NotEqual) else None

    def _value(self, node: cst.BaseExpression, values: Mapping[str, Any], frame: Frame | None) -> Any:
        literal = literal_value(node)
        if literal is not _UNKNOWN:
            return literal
        code = self.tree.code(node)
        if code in values:
            return values[code]
        if frame is not None and frame.call is not None and isinstance(node, cst.Name):
            return self._passed(node, frame)
        return _UNKNOWN

    def _passed(self, name: cst.Name, frame: Frame) -> Any:
        function = frame.function
        if not isinstance(function, cst.FunctionDef):
            return _UNKNOWN
        parameter = next(
            (p for p in all_parameters(function.params) if p.name.value == name.value), None
        )
        variable = self.names.variable(name)
        if parameter is None or self.names.assignments.get(variable):
            return _UNKNOWN
        arguments = self.names.arguments(frame.call, function)
        if arguments is None:
            return _UNKNOWN
        argument = arguments.get(name.value, parameter.default)
        if argument is None:
            return _UNKNOWN
        literal = literal_value(argument)
        if literal is _UNKNOWN and self.names.creations(argument):
            made = self.names.creations(argument)
            return _SOMETHING if not self._may_be_none(argument) and made else _UNKNOWN
        return literal

    def _may_be_none(self, node: cst.BaseExpression) -> bool:
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, ()) if variable is not None else ()
        return any(
            a.value is not None and literal_value(a.value) is None or isinstance(a.value, cst.IfExp)
            for a in found
        )

    def can_reach(
        self, site: cst.Call, frame: Frame, creations: frozenset[cst.Call]
    ) -> bool:
        """Whether a step of this optimizer may happen in a function when this call runs it."""
        function, call = frame.function, frame.call
        if call is None or not isinstance(function, cst.FunctionDef):
            return True
        arguments = self.names.arguments(call, function)
        if arguments is None:
            return True
        for parameter in all_parameters(function.params):
            values = self.names.parameter_values(function, parameter.name.value)
            if not any(self.names.creations(value) & creations for value in values):
                continue
            argument = arguments.get(parameter.name.value)
            if argument is None or not self.names.creations(argument) & creations:
                return False
        if not self.tree.is_within(site, function):
            return True
        below: cst.CSTNode = site
        for ancestor in self.tree.ancestors(site):
            if ancestor is function:
                return True
            if isinstance(ancestor, cst.If) and below is not ancestor.test:
                known = self.truth(ancestor.test, {}, frame)
                if known is not None and known is not (below is ancestor.body):
                    return False
            below = ancestor
        return True

    def literals(self, node: cst.BaseExpression) -> list[Any] | None:
        """The values of a list or tuple of literals."""
        if not isinstance(node, (cst.List, cst.Tuple)):
            return None
        values = [literal_value(element.value) for element in node.elements]
        return None if _UNKNOWN in values else values

    # -- guards --------------------------------------------------------------------------------

    def is_guard(self, test: cst.BaseExpression, loop: cst.For) -> bool:
        """A test that only keeps a broken or odd batch out.

        It asks for nan or inf, for a gradient norm too large, for None, for a type, or for how many
        rows the batch has. A test joined of several is one only where all its parts are.
        """
        if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
            return self.is_guard(test.expression, loop)
        if isinstance(test, cst.BooleanOperation):
            return self.is_guard(test.left, loop) and self.is_guard(test.right, loop)
        if isinstance(test, cst.Comparison):
            operators = [c.operator for c in test.comparisons]
            if isinstance(operators[0], (cst.Is, cst.IsNot)):
                return literal_value(test.comparisons[0].comparator) is None
            return any(self._measures(n, loop) for n in walk(test)) or self._is_norm(test)
        calls = [n for n in walk(test) if isinstance(n, cst.Call)]
        return any(self.tree.code(c.func).split(".")[-1] in (*_GUARDS, "isinstance") for c in calls)

    def _measures(self, node: cst.CSTNode, loop: cst.For) -> bool:
        """The rows of this batch (`len(batch)`, `x.shape[0]`, `x.size(0)`), or a nan test."""
        if isinstance(node, cst.Attribute) and node.attr.value == "shape":
            return self._is_of_batch(node.value, loop)
        if isinstance(node, cst.Call):
            name = self.tree.code(node.func).split(".")[-1]
            if name in ("size", "numel") and isinstance(node.func, cst.Attribute):
                return self._is_of_batch(node.func.value, loop)
            if name == "len" and len(node.args) == 1:
                return self._is_of_batch(node.args[0].value, loop)
            return name in _GUARDS
        return False

    def _is_of_batch(self, node: cst.BaseExpression, loop: cst.For) -> bool:
        """A name that every batch binds anew; not a list that grows over batches."""
        while isinstance(node, (cst.Subscript, cst.Attribute)):
            node = node.value
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, ()) if variable is not None else ()
        if not found and variable is not None and isinstance(variable.scope, cst.FunctionDef):
            return True  # a parameter of the function that makes one step
        return bool(found) and all(
            a.kind != "augment"
            and (a.statement is loop or self.tree.is_within(a.statement, loop.body))
            for a in found
        )

    def _is_norm(self, test: cst.Comparison) -> bool:
        for node in walk(test):
            if isinstance(node, cst.Name):
                made = self.names.creations(node)
                if any(self.tree.code(c.func).endswith("clip_grad_norm_") for c in made):
                    return True
        return False

    def is_constant(self, test: cst.BaseExpression) -> bool:
        """Calls whose answer does not change during a run."""
        constant = ("isinstance", "hasattr", "is_available", "is_main_process", "get_rank", "getattr")
        calls = [n for n in walk(test) if isinstance(n, cst.Call)]
        return all(self.tree.code(c.func).split(".")[-1] in constant for c in calls)

    def changes_within(self, test: cst.BaseExpression, loop: cst.CSTNode) -> bool:
        """Whether a test may have another outcome in another pass of a loop."""
        if any(isinstance(n, cst.Call) for n in walk(test)) and not self.is_constant(test):
            return True
        for kind in (cst.Name, cst.Attribute):
            for node in walk(test):
                if not isinstance(node, kind):
                    continue
                variable = self.names.variable(node)
                for assignment in self.names.assignments.get(variable, ()) if variable else ():
                    if self.tree.is_within(assignment.statement, loop):
                        return True
        return False

    # -- gradient accumulation -------------------------------------------------------------------

    def accumulation(
        self,
        test: cst.BaseExpression,
        negated: bool,
        batch_loop: cst.For,
        epoch_loop: cst.CSTNode | None,
        frame: Frame,
        over: cst.BaseExpression | None = None,
    ) -> Boundary | None:
        """Read `(i + 1) % k == 0` and its relatives; None where the test is something else.

        over: what the batch loop runs over, where that has a len().
        """
        if frame.function is not self.tree.function(batch_loop):
            return None
        tail = None
        if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.Or):
            test, tail = test.left, test.right
            if not self._is_remainder(test):
                test, tail = tail, test
        remainder = self._remainder(test, negated)
        if remainder is None:
            return None
        counted, divisor, rest = remainder
        index = self._index(counted, batch_loop, epoch_loop, test)
        if index is None:
            return None
        if isinstance(divisor, cst.Integer) and divisor.evaluated_value == 1 and tail is None:
            return Boundary()
        fires_last = index.first == (1 if rest == "zero" else 0)
        fires_first = index.first == 0 and rest == "zero"
        if tail is not None:
            if index.over_epochs or not fires_last or negated:
                return None
            last = self._is_last(tail, batch_loop, epoch_loop, over)
            return Boundary("ceil", divisor) if last else None
        if index.over_epochs:
            return Boundary("counter", divisor) if fires_last else None
        if fires_last:
            return Boundary("floor", divisor)
        return Boundary("start", divisor) if fires_first else None

    def _is_remainder(self, test: cst.BaseExpression) -> bool:
        return any(
            isinstance(n, cst.BinaryOperation) and isinstance(n.operator, cst.Modulo)
            for n in walk(test)
        )

    def _remainder(
        self, test: cst.BaseExpression, negated: bool
    ) -> tuple[cst.BaseExpression, cst.BaseExpression, str] | None:
        """Take `A % K == 0` apart, also as `not A % K`, `A % K != 0` negated, `A % K == K - 1`."""
        if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
            return self._remainder(test.expression, not negated)
        wanted = cst.NotEqual if negated else cst.Equal
        rest = "zero"
        if isinstance(test, cst.Comparison) and len(test.comparisons) == 1:
            target = test.comparisons[0]
            if not isinstance(target.operator, wanted):
                return None
            left, right = test.left, target.comparator
            if isinstance(left, cst.Integer):
                left, right = right, left
            if not (isinstance(left, cst.BinaryOperation) and isinstance(left.operator, cst.Modulo)):
                return None
            if self.tree.plain(right) == f"{self.tree.plain(left.right)}-1":
                rest = "last"
            elif literal_value(right) != 0:
                return None
            test = left
        elif not negated:
            return None
        if not (isinstance(test, cst.BinaryOperation) and isinstance(test.operator, cst.Modulo)):
            return None
        return test.left, test.right, rest

    def _index(
        self,
        node: cst.BaseExpression,
        batch_loop: cst.For,
        epoch_loop: cst.CSTNode | None,
        at: cst.CSTNode,
    ) -> _Index | None:
        """The value of `i`, `i + 1` or a counter at `at`, where it grows by one a batch."""
        offset = 0
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Add):
            left, right = node.left, node.right
            if isinstance(left, cst.Integer):
                left, right = right, left
            if not isinstance(right, cst.Integer):
                return None
            node, offset = left, right.evaluated_value
        start = self.loop_index(node, batch_loop)
        if start is not None:
            return _Index(start + offset)
        found = self._counter(node, batch_loop, epoch_loop, at)
        return found and _Index(found.first + offset, found.over_epochs)

    def loop_index(self, node: cst.BaseExpression, loop: cst.For) -> int | None:
        """Where an enumerate or range index of this loop starts; None for anything else."""
        if not isinstance(node, cst.Name):
            return None
        target = loop.target
        by_enumerate = isinstance(target, cst.Tuple) and (
            self.tree.code(target.elements[0].value) == node.value
        )
        if not by_enumerate and self.tree.code(target) != node.value:
            return None
        call = self._iterated(loop.iter, "enumerate" if by_enumerate else "range")
        if call is None:
            return None
        if by_enumerate:
            starts = [a.value for i, a in enumerate(call.args) if i == 1 or a.keyword]
            first = literal_value(starts[0]) if starts else 0
        else:
            first = literal_value(call.args[0].value) if len(call.args) == 2 else 0
            if len(call.args) == 3:
                return None
        return first if isinstance(first, int) else None

    def _iterated(self, node: cst.BaseExpression, wanted: str) -> cst.Call | None:
        """The enumerate(...) or range(...) below progress bars and names for it."""
        for _ in range(6):
            if isinstance(node, cst.Call):
                name = self.names.dotted(node.func) or ""
                if name == wanted or (wanted == "range" and name.endswith("trange")):
                    return node
                if not node.args:
                    return None
                node = node.args[0].value
                continue
            variable = self.names.variable(node)
            found = self.names.assignments.get(variable, []) if variable is not None else []
            if len(found) != 1 or found[0].value is None:
                return None
            node = found[0].value
        return None

    def _counter(
        self,
        node: cst.BaseExpression,
        batch_loop: cst.For,
        epoch_loop: cst.CSTNode | None,
        at: cst.CSTNode,
    ) -> _Index | None:
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        sets = [a for a in found if a.kind != "augment"]
        grows = [a for a in found if a.kind == "augment"]
        if len(sets) != 1 or len(grows) != 1 or sets[0].value is None:
            return None
        grow, initial = grows[0].statement, sets[0].statement
        direct = any(s is grow for s in statements_of(batch_loop.body))
        by_one = isinstance(grow.operator, cst.AddAssign) and literal_value(grow.value) == 1
        if not (direct and by_one and literal_value(sets[0].value) == 0):
            return None
        if self.tree.is_within(initial, batch_loop):
            return None
        first = 1 if self.tree.order[grow] < self.tree.order[at] else 0
        inside = epoch_loop is not None and self.tree.is_within(initial, epoch_loop)
        return _Index(first, over_epochs=epoch_loop is not None and not inside)

    def _is_last(
        self,
        test: cst.BaseExpression,
        loop: cst.For,
        epoch_loop: cst.CSTNode | None,
        over: cst.BaseExpression | None,
    ) -> bool:
        """`i + 1 == len(loader)` or `i == len(loader) - 1`."""
        if not (isinstance(test, cst.Comparison) and len(test.comparisons) == 1):
            return False
        target = test.comparisons[0]
        if not isinstance(target.operator, (cst.Equal, cst.GreaterThanEqual)):
            return False
        left, right = test.left, target.comparator
        if self._index(left, loop, epoch_loop, test) is None:
            left, right = right, left
        index = self._index(left, loop, epoch_loop, test)
        length = self._length_minus(right, over)
        return index is not None and not index.over_epochs and length is not None and index.first == 1 - length

    def _length_minus(
        self, node: cst.BaseExpression, over: cst.BaseExpression | None
    ) -> int | None:
        """How much less than len(over) an expression is: 0 for len(x), 1 for len(x) - 1."""
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract):
            inner, less = self._length_minus(node.left, over), literal_value(node.right)
            return inner + less if inner is not None and isinstance(less, int) else None
        if isinstance(node, cst.Call):
            same = len(node.args) == 1 and self._is_same(node.args[0].value, over)
            return 0 if same and self.tree.code(node.func) == "len" else None
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        if len(found) == 1 and isinstance(found[0].value, (cst.Call, cst.BinaryOperation)):
            return self._length_minus(found[0].value, over)
        return None

    def _is_same(self, node: cst.BaseExpression, over: cst.BaseExpression | None) -> bool:
        """Whether two expressions are the same loader, or a progress bar around it."""
        if over is None:
            return False
        if self.tree.plain(node) == self.tree.plain(over):
            return True
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        return len(found) == 1 and isinstance(found[0].value, cst.Call) and any(
            self.tree.plain(a.value) == self.tree.plain(over) for a in found[0].value.args[:1]
        )

    # -- limits ------------------------------------------------------------------------------------

    def break_limit(
        self, stop: cst.Break, loop: cst.For, epoch_loop: cst.CSTNode | None, step: cst.CSTNode
    ) -> tuple[cst.BaseExpression, int, bool] | None:
        """`if i >= n: break` as (n, difference): the loop then steps n + difference times.

        The third value tells whether the index counts on over all epochs.
        """
        tested = next((a for a in self.tree.ancestors(stop) if isinstance(a, cst.If)), None)
        if tested is None or all(s is not tested for s in statements_of(loop.body)):
            return None
        if not self.tree.is_within(stop, tested.body):
            return None
        test = tested.test
        if not (isinstance(test, cst.Comparison) and len(test.comparisons) == 1):
            return None
        target = test.comparisons[0]
        if isinstance(target.operator, cst.Equal) and not isinstance(target.comparator, cst.Integer):
            return None  # a limit of 0 or -1, the usual "no limit", is never met
        index = self._index(test.left, loop, epoch_loop, test)
        late = isinstance(target.operator, cst.GreaterThan)
        if index is None or not (
            late or isinstance(target.operator, (cst.GreaterThanEqual, cst.Equal))
        ):
            return None
        after_step = self.tree.order[tested] > self.tree.order[step]
        difference = int(late) + int(after_step) - index.first
        return target.comparator, difference, index.over_epochs


def literal_value(node: cst.BaseExpression | None) -> Any:
    """The value of a literal; a marker that equals nothing else where the node is none."""
    if isinstance(node, (cst.SimpleString, cst.Integer, cst.Float)):
        return node.evaluated_value
    if isinstance(node, cst.Name) and node.value in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[node.value]
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
        inner = literal_value(node.expression)
        return -inner if isinstance(inner, (int, float)) else _UNKNOWN
    return _UNKNOWN
