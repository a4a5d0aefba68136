"""Whether a loss rises or falls with a score: the sign of a derivative, read from the source.

Hard negatives are the ones a model scores highest, which is right only where a higher score means a
better match. The loss tells: it must rise with the score of a negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.names import Names, Variable, names_in
from quickwins_codemod.script.tree import Tree

_RISING = {
    "mean", "sum", "squeeze", "unsqueeze", "view", "reshape", "flatten", "float", "double", "to",
    "cuda", "cpu", "contiguous", "expand", "expand_as", "repeat", "log", "exp", "sigmoid", "tanh",
    "relu", "softplus", "logsigmoid", "clamp", "clamp_min", "clip", "log1p", "expm1", "sqrt",
    "type", "item", "softmax", "max", "logsumexp", "repeat_interleave", "elu", "leaky_relu", "half",
    "ReLU", "Sigmoid", "LogSigmoid", "Softplus", "Tanh", "Identity", "nanmean", "log_sigmoid",
}
_POINTWISE = {
    "BCEWithLogitsLoss", "BCELoss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "MSELoss", "mse_loss", "SoftMarginLoss", "soft_margin_loss",
}
_RANKING = {"MarginRankingLoss", "margin_ranking_loss"}
_ONES, _ZEROS = re.compile(r"(^|\.)(ones|ones_like|new_ones)$"), re.compile(
    r"(^|\.)(zeros|zeros_like|new_zeros)$"
)


class Signs:
    """Signs of one loss with respect to some expressions.

    rising, variables: the expressions and variables whose sign is asked for; part: which of the
    tensors that were joined for the call is meant. Every answer is +1, -1, 0 (does not depend on
    them) or None (not provable).
    """

    def __init__(
        self,
        tree: Tree,
        names: Names,
        rising: Iterable[cst.CSTNode] = (),
        variables: Iterable[Variable] = (),
        part: int | None = None,
    ) -> None:
        self.tree, self.names, self.part = tree, names, part
        self.rising, self.variables = set(rising), set(variables)

    def of(
        self, node: cst.BaseExpression, bound: Mapping[Variable, int | None] | None = None, depth: int = 0
    ) -> int | None:
        """The sign of an expression; bound: of the parameters of the function it stands in."""
        bound = bound or {}
        if depth > 40:
            return None
        if node in self.rising:
            return 1
        variable = self.names.variable(node)
        if variable is not None:
            return self._variable(variable, bound, depth)
        if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
            return _negated(self.of(node.expression, bound, depth + 1))
        if isinstance(node, cst.BinaryOperation):
            return self._operation(node, bound, depth)
        if isinstance(node, cst.Call):
            return self._call(node, bound, depth)
        if isinstance(node, cst.Subscript):
            return self.of(node.value, bound, depth + 1)
        if isinstance(node, cst.Attribute):
            return self.of(node.value, bound, depth + 1)
        if isinstance(node, (cst.Tuple, cst.List)):
            return _together(self.of(e.value, bound, depth + 1) for e in node.elements)
        if isinstance(node, cst.IfExp):
            return _together(self.of(n, bound, depth + 1) for n in (node.body, node.orelse))
        return 0

    def _variable(
        self, variable: Variable, bound: Mapping[Variable, int | None], depth: int
    ) -> int | None:
        if variable in self.variables:
            return 1
        if variable in bound:
            return bound[variable]
        found = self.names.assignments.get(variable, ())
        signs: list[int | None] = []
        own: list[cst.BaseExpression] = []
        for assignment in found:
            if assignment.value is None:
                value = getattr(assignment.statement, "value", None)
                if assignment.kind == "augment" and value is not None:
                    operator = assignment.statement.operator
                    sign = self.of(value, bound, depth + 1)
                    if isinstance(operator, cst.SubtractAssign):
                        sign = _negated(sign)
                    elif not isinstance(operator, cst.AddAssign):
                        sign = 0 if sign == 0 else None
                    signs.append(sign)
                continue
            if assignment.index is not None and self.part is not None and self._is_cut(assignment.value):
                whole = self.of(assignment.value.func.value, bound, depth + 1)
                signs.append(whole if assignment.index == self.part else 0 if whole else whole)
            elif self._reads(assignment.value, variable):
                own.append(assignment.value)
            else:
                signs.append(self.of(assignment.value, bound, depth + 1))
        start = _together(signs)
        signs += [self._self_sum(value, variable, bound, depth, start) for value in own]
        return _together(signs)

    def _is_cut(self, value: cst.BaseExpression) -> bool:
        """`scores.chunk(2)`, `scores.split(n)`: the tensors that were joined for the call, apart again."""
        return (
            isinstance(value, cst.Call)
            and isinstance(value.func, cst.Attribute)
            and value.func.attr.value in ("chunk", "split", "tensor_split")
            and self.names.dotted(value.func.value) is None
        )

    def _reads(self, node: cst.CSTNode, variable: Variable) -> bool:
        return any(self.names.variable(n) == variable for n in names_in(node))

    def _self_sum(
        self,
        value: cst.BaseExpression,
        variable: Variable,
        bound: Mapping[Variable, int | None],
        depth: int,
        start: int | None,
    ) -> int | None:
        """`loss = loss + term` and `loss = loss / k`: the sign of what is added.

        start: the variable's sign by its other assignments.
        """
        inner = dict(bound)
        inner[variable] = 0
        if start == 0 == self.of(value, inner, depth + 1):
            return 0  # `ids = mine(ids)`: nothing that is asked for goes in
        own = Signs(
            self.tree, self.names, self.rising, {*self.variables, variable}, self.part
        ).of(value, bound, depth + 1)
        added = self.of(value, inner, depth + 1)
        return added if own in (1, added) else None

    def _operation(
        self, node: cst.BinaryOperation, bound: Mapping[Variable, int | None], depth: int
    ) -> int | None:
        left, right = (self.of(n, bound, depth + 1) for n in (node.left, node.right))
        if isinstance(node.operator, cst.Add):
            return _together((left, right))
        if isinstance(node.operator, cst.Subtract):
            return _together((left, _negated(right)))
        if left == 0 == right:
            return 0
        if isinstance(node.operator, cst.Multiply):
            if right == 0:
                return _times(left, self._factor(node.right))
            return _times(right, self._factor(node.left)) if left == 0 else None
        if isinstance(node.operator, cst.Divide) and right == 0:
            return _times(left, self._factor(node.right))
        return None

    def _factor(self, node: cst.BaseExpression) -> int:
        """The sign of a number: a temperature, a weight or a size is above zero."""
        if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
            return -1
        value = literal_value(node)
        return -1 if isinstance(value, (int, float)) and value < 0 else 1

    # -- calls ------------------------------------------------------------------------------------

    def _call(
        self, call: cst.Call, bound: Mapping[Variable, int | None], depth: int
    ) -> int | None:
        made = [self.tree.code(c.func).rpartition(".")[2] for c in self.names.creations(call.func)]
        dotted = self.names.dotted(call.func) or self.tree.code(call.func)
        named = {dotted.rpartition(".")[2], *made}
        arguments = [a.value for a in call.args]
        if named & _POINTWISE and len(arguments) >= 2:
            return self._pointwise(arguments[0], arguments[1], bound, depth)
        if named & _RANKING and len(arguments) >= 3:
            return self._ranking(arguments, bound, depth)
        inner = self._function(call)
        if inner is not None:
            return self._inside(call, inner, bound, depth)
        values = list(arguments)
        is_method = isinstance(call.func, cst.Attribute) and not self._is_module(call.func.value)
        if is_method:
            values.insert(0, call.func.value)
        signs = [self.of(v, bound, depth + 1) for v in values]
        if all(s == 0 for s in signs):
            return 0
        if any(s != 0 for s in signs[1:]):
            if named & {"cat", "stack", "concat", "maximum", "add"}:
                return _together(signs)
            if named & {"sub", "subtract"} and len(signs) == 2:
                return _together((signs[0], _negated(signs[1])))
            return None
        if named & {"neg", "negative"}:
            return _negated(signs[0])
        return signs[0] if named & (_RISING | {"cat", "stack", "concat"}) else None

    def _is_module(self, node: cst.BaseExpression) -> bool:
        """`F`, `torch.nn.functional`: a function's home and not the value it works on."""
        return isinstance(node, (cst.Name, cst.Attribute)) and self.names.dotted(node) is not None

    def _function(self, call: cst.Call) -> cst.FunctionDef | None:
        """The function of this file that a call runs, or the forward of its class."""
        function = self.names.callee(call)
        if function is not None and function.name.value != "__init__":
            return function
        owner = self.names.class_of(call.func) if function is None else None
        return self.names.method(owner, "forward") if owner is not None else None

    def _inside(
        self, call: cst.Call, function: cst.FunctionDef, bound: Mapping[Variable, int | None], depth: int
    ) -> int | None:
        """The sign of what a function of the file returns, its parameters bound to the arguments."""
        given: dict[Variable, int | None] = {}
        parameters = [p.name.value for p in function.params.params]
        if self.names.method_class(function) is not None:
            parameters = parameters[1:]
        for position, argument in enumerate(call.args):
            name = argument.keyword.value if argument.keyword is not None else (
                parameters[position] if position < len(parameters) else None
            )
            if name is None or argument.star:
                return None
            given[Variable(function, name)] = self.of(argument.value, bound, depth + 1)
        if all(sign == 0 for sign in given.values()):
            return 0
        returned = self.names.returns(function)
        return _together(self.of(r, given, depth + 1) for r in returned) if returned else None

    def _pointwise(
        self,
        score: cst.BaseExpression,
        label: cst.BaseExpression,
        bound: Mapping[Variable, int | None],
        depth: int,
    ) -> int | None:
        """A loss of scores and labels falls with the score of a 1 and rises with that of a 0."""
        sign = self.of(score, bound, depth + 1)
        if sign == 0:
            return 0
        parts, labels = self._parts(score), self._parts(label)
        if len(parts) == len(labels) > 1:
            return _together(
                self._labelled(self.of(p, bound, depth + 1), label) for p, label in zip(parts, labels)
            )
        if self.part is not None and self.part < len(labels) > 1:
            return self._labelled(sign, labels[self.part])
        return self._labelled(sign, label)

    def _labelled(self, sign: int | None, label: cst.BaseExpression) -> int | None:
        places = self._set_apart(label)
        kind = self._label_of_part(_unshaped(label), places) if places else self.label(label)
        if sign == 0:
            return 0
        return sign if kind == 0 else _negated(sign) if kind == 1 else None

    def label(self, node: cst.BaseExpression) -> int | None:
        """1 for a tensor of ones, 0 for one of zeros, None for any other."""
        value = literal_value(node)
        if value in (0, 1):
            return int(value)
        kinds = {self._filled(call) for call in self.names.creations(node)} - {None}
        return kinds.pop() if len(kinds) == 1 else None

    def _label_of_part(
        self, labels: cst.BaseExpression, places: list[tuple[str, cst.BaseExpression]]
    ) -> int | None:
        """The label of the part that is meant, where some elements were set after all were made."""
        ((place, value), *others) = places
        if others or self.part is None or place == "other" or place == "last" and self.part > 0:
            return None
        is_set = self.part == 0 if place == "first" else self.part > 0
        return self.label(value if is_set else labels)

    def _set_apart(self, label: cst.BaseExpression) -> list[tuple[str, cst.BaseExpression]]:
        """Which elements of the labels are set, and to what.

        "first": of the first part, as by `labels[:, 0] = 1` or `labels[:n] = 1`; "rest": all that
        follow it; "last": a last column.
        """
        variable = self.names.variable(_unshaped(label))
        if variable is None:
            return []
        return [
            (_part_set([self.tree.code(e.slice) for e in target.slice]), node.value)
            for node in self.tree.all(cst.Assign)
            for target in (t.target for t in node.targets)
            if isinstance(target, cst.Subscript) and self.names.variable(target.value) == variable
        ]

    def _filled(self, call: cst.Call) -> int | None:
        while isinstance(call.func, cst.Attribute) and isinstance(call.func.value, cst.Call):
            call = call.func.value  # torch.ones(n).to(device)
        code = self.tree.code(call.func)
        return 1 if _ONES.search(code) else 0 if _ZEROS.search(code) else None

    def _parts(self, node: cst.BaseExpression) -> list[cst.BaseExpression]:
        """What `torch.cat([a, b])` joins, looked through names and calls of a model on them."""
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        values = [a.value for a in found if a.value is not None and a.index is None]
        if len(values) == 1 and node not in self.rising:
            return self._parts(values[0])
        if isinstance(node, cst.Call):
            name = self.tree.code(node.func).rpartition(".")[2]
            if name in ("cat", "concat", "concatenate", "hstack") and node.args:
                joined = node.args[0].value
                if isinstance(joined, (cst.Tuple, cst.List)):
                    return [e.value for e in joined.elements]
            if isinstance(node.func, cst.Attribute) and name in _RISING | {"to", "view"}:
                if isinstance(node.func.value, (cst.Call, cst.Name)):
                    return self._parts(node.func.value)
        return [node]

    def _ranking(
        self, arguments: list[cst.BaseExpression], bound: Mapping[Variable, int | None], depth: int
    ) -> int | None:
        """MarginRankingLoss(a, b, y): max(0, margin - y (a - b))."""
        first, second = (self.of(a, bound, depth + 1) for a in arguments[:2])
        together = _together((_negated(first), second))
        label = self.label(arguments[2])
        if label == 1:
            return together
        if isinstance(arguments[2], cst.UnaryOperation) and self.label(arguments[2].expression) == 1:
            return _negated(together)
        value = literal_value(arguments[2])
        return _negated(together) if value == -1 else None


def _part_set(place: list[str]) -> str:
    """Which part of joined labels an index means: "first", "rest", "last", or "other"."""
    if len(place) == 2 and place[0] in (":", "..."):  # parts are columns
        known = {"0": "first", ":1": "first", "1:": "rest", "-1": "last", "-1:": "last"}
        return known.get(place[1], "other")
    if len(place) == 1 and place[0].count(":") == 1 and len(place[0]) > 1:  # parts are rows
        return "first" if place[0].startswith(":") else "rest" if place[0].endswith(":") else "other"
    return "other"


def _unshaped(node: cst.BaseExpression) -> cst.BaseExpression:
    """Labels without what only changes their shape, type or device."""
    while (
        isinstance(node, cst.Call)
        and isinstance(node.func, cst.Attribute)
        and node.func.attr.value in ("view", "reshape", "flatten", "float", "to", "cuda", "squeeze")
    ):
        node = node.func.value
    return node


def _negated(sign: int | None) -> int | None:
    return None if sign is None else -sign


def _times(sign: int | None, factor: int) -> int | None:
    return None if sign is None else sign * factor


def _together(signs: Iterable[int | None]) -> int | None:
    """The sign of a sum: that of its terms where they agree."""
    found = set(signs)
    if None in found:
        return None
    found.discard(0)
    if not found:
        return 0
    return found.pop() if len(found) == 1 else None
