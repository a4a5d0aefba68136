"""What one batch of a loop holds: which value in the loop's body is which column of the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.loops import is_progress_bar, wrapped_source
from quickwins_codemod.script.names import Assignment, Names, Variable
from quickwins_codemod.script.tree import Tree, walk

#: Calls that hand on the values they are called on, whatever they do to device, type or shape.
_KEEPING = {
    "to", "cuda", "cpu", "long", "int", "float", "double", "half", "contiguous", "view", "reshape",
    "squeeze", "unsqueeze", "flatten", "clone", "detach", "type", "type_as", "pin_memory",
    "non_blocking", "requires_grad_", "ravel", "repeat", "repeat_interleave", "expand", "expand_as",
}
_WRAPPING = {
    "Variable", "tensor", "as_tensor", "from_numpy", "LongTensor", "FloatTensor", "IntTensor",
    "squeeze", "unsqueeze",
}
_SEQUENCES = {"enumerate", "list", "tuple", "iter"}


@dataclass(frozen=True)
class Column:
    """A column of a batch: its position in a tuple, its key in a dict, or its attribute's name."""

    key: int | str
    attribute: bool = False

    @property
    def code(self) -> str:
        """How a reader of the batch is told of it."""
        return repr(self.key) if isinstance(self.key, int) else f'"{self.key}"'


class Batch:
    """The columns of what one loop over a loader yields, as its body names them.

    call: a call in the loop of a function that is given the batch, or columns of it; body is that
    function's then, and names are the parameters.
    """

    def __init__(
        self,
        tree: Tree,
        names: Names,
        loop: cst.For,
        call: cst.Call | None = None,
        function: cst.FunctionDef | None = None,
    ) -> None:
        self.tree, self.names, self.loop = tree, names, loop
        self.body: cst.CSTNode = loop.body
        self.source, target = self._taken_apart(loop)
        self.whole: Variable | None = None
        self.parts: dict[Variable, Column] = {}
        if isinstance(target, (cst.Tuple, cst.List)):
            for index, element in enumerate(target.elements):
                variable = names.variable(element.value)
                if variable is not None:
                    self.parts[variable] = Column(index)
        elif target is not None:
            self.whole = names.variable(target)
        if call is not None and function is not None:
            self._hand_on(call, function)

    def _hand_on(self, call: cst.Call, function: cst.FunctionDef) -> None:
        """What the parameters of a function are that is called with the batch."""
        whole, parts = None, {}
        for name, value in (self.names.arguments(call, function) or {}).items():
            column = self.column(value)
            if column is not None:
                parts[Variable(function, name)] = column
            elif self.whole is not None and self._is_whole(value):
                whole = Variable(function, name)
        self.whole, self.parts, self.body = whole, parts, function.body

    def _taken_apart(
        self, loop: cst.For
    ) -> tuple[cst.BaseExpression, cst.BaseExpression | None]:
        """What is iterated, and the target of one batch: the counter of enumerate left out."""
        node, target = loop.iter, loop.target
        for _ in range(8):
            source = wrapped_source(self.tree, self.names, node, self.loop)
            if source is not None:
                node = source
                continue
            if not (isinstance(node, cst.Call) and node.args):
                return node, target
            name = self.names.dotted(node.func) or self.tree.code(node.func)
            if name == "enumerate":
                if not isinstance(target, cst.Tuple) or len(target.elements) != 2:
                    return node.args[0].value, None
                target = target.elements[1].value
            elif not (name in _SEQUENCES or is_progress_bar(name)):
                return node, target
            node = next(
                (a.value for a in node.args if a.keyword and a.keyword.value == "iterable"),
                node.args[0].value,
            )
        return node, target

    def column(self, node: cst.BaseExpression, depth: int = 0) -> Column | None:
        """The column that an expression in the loop's body is, moved or reshaped perhaps."""
        if depth > 8:
            return None
        if isinstance(node, cst.Call):
            inner = self._kept(node)
            return self.column(inner, depth + 1) if inner is not None else None
        direct = self._of_whole(node)
        if direct is not None:
            return direct
        variable = self.names.variable(node)
        if variable is None:
            return None
        if variable in self.parts:
            # `users = users.to(device)` keeps it what it was; anything else makes it another.
            if all(self._keeps(a, variable) for a in self._inside(variable)):
                return self.parts[variable]
            return None
        found = {self._assigned(a, depth) for a in self._inside(variable) if not self._keeps(a, variable)}
        return found.pop() if len(found) == 1 else None

    def _inside(self, variable: Variable) -> Iterator[Assignment]:
        for assignment in self.names.assignments.get(variable, ()):
            if assignment.statement is not self.loop and self.tree.is_within(
                assignment.statement, self.body
            ):
                yield assignment

    def _keeps(self, assignment: Assignment, variable: Variable) -> bool:
        value = assignment.value
        while isinstance(value, cst.Call):
            value = self._kept(value)
        return value is not None and assignment.index is None and self.names.variable(value) == variable

    def _kept(self, call: cst.Call) -> cst.BaseExpression | None:
        """The value that a call hands on: `x.to(device)`, `torch.as_tensor(x)`."""
        func = call.func
        if isinstance(func, cst.Attribute) and func.attr.value in _KEEPING and not (
            self.names.dotted(func) or ""
        ).startswith("torch."):
            return func.value
        name = (self.names.dotted(func) or self.tree.code(func)).rpartition(".")[2]
        return call.args[0].value if name in _WRAPPING and call.args else None

    def _of_whole(self, node: cst.BaseExpression) -> Column | None:
        """`batch[0]`, `batch["user"]`, `batch.user` of a loop over whole batches."""
        if self.whole is None:
            return None
        if isinstance(node, cst.Subscript) and len(node.slice) == 1:
            index = node.slice[0].slice
            key = literal_value(index.value) if isinstance(index, cst.Index) else None
            if self._is_whole(node.value) and isinstance(key, (int, str)):
                return Column(key)
        if isinstance(node, cst.Attribute) and self._is_whole(node.value):
            return Column(node.attr.value, attribute=True)
        return None

    def _is_whole(self, node: cst.BaseExpression) -> bool:
        variable = self.names.variable(node)
        if variable is None:
            return False
        if variable == self.whole:
            return all(self._moves_whole(a.value) for a in self._inside(variable))
        inside = list(self._inside(variable))
        return bool(inside) and all(a.index is None and self._moves_whole(a.value) for a in inside)

    def _moves_whole(self, value: cst.BaseExpression | None) -> bool:
        """`[x.to(device) for x in batch]`, `{k: v.to(device) for k, v in batch.items()}`, `batch.to()`."""
        if isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
            if value.func.attr.value in ("to", "cuda"):
                return self.names.variable(value.func.value) == self.whole
        if isinstance(value, cst.Call) and self.tree.code(value.func) in ("tuple", "list") and value.args:
            value = value.args[0].value
        if isinstance(value, (cst.ListComp, cst.GeneratorExp)):
            element = value.elt
        elif isinstance(value, cst.DictComp):
            element = value.value
        else:
            return value is not None and self.names.variable(value) == self.whole
        iterated = value.for_in.iter
        if isinstance(iterated, cst.Call) and isinstance(iterated.func, cst.Attribute):
            iterated = iterated.func.value if iterated.func.attr.value == "items" else iterated
        moved = self._kept(element) if isinstance(element, cst.Call) else element
        return (
            self.names.variable(iterated) == self.whole
            and value.for_in.inner_for_in is None
            and not value.for_in.ifs
            and moved is not None
            and any(self.tree.code(n) == self.tree.code(moved) for n in walk(value.for_in.target))
        )

    def _assigned(self, assignment: Assignment, depth: int) -> Column | None:
        if assignment.value is None or assignment.kind != "assign":
            return None
        if assignment.index is None:
            return self.column(assignment.value, depth + 1)
        # `users, items, ratings = batch`, moved to a device or not
        value = assignment.value
        if isinstance(value, (cst.Name, cst.Attribute)) and self._is_whole(value):
            return Column(assignment.index)
        if not isinstance(value, (cst.Tuple, cst.List)) and self._moves_whole(value):
            return Column(assignment.index)
        return None
