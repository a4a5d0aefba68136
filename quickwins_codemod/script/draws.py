"""Random draws of ids: which variables hold them, in a loop or in the rows of a dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.names import Names, Variable
from quickwins_codemod.script.neighbours import LOADER
from quickwins_codemod.script.recommenders import imported_class
from quickwins_codemod.script.tree import Tree, walk

_DRAW = re.compile(
    r"^(torch\.(randint|randint_like|multinomial)"
    r"|numpy\.random\.(randint|choice|random_integers)"
    r"|random\.(randint|randrange|choice|choices|sample))$"
)
_GENERATOR_DRAWS = {"integers", "choice", "randint", "randrange", "sample", "choices"}
_GENERATORS = re.compile(r"^(numpy\.random\.(default_rng|RandomState|Generator)|random\.Random)$")
#: What changes shape, type or device of drawn ids and leaves them ids.
_KEEPING = {
    "to", "cuda", "cpu", "long", "int", "view", "reshape", "squeeze", "unsqueeze", "flatten", "tensor",
    "as_tensor", "LongTensor", "from_numpy", "array", "asarray", "item", "int64", "stack", "where",
    "tolist", "list", "expand", "contiguous", "t", "repeat", "repeat_interleave", "astype", "IntTensor",
}
_GROWING = {"append", "extend", "add"}


@dataclass(frozen=True)
class Range:
    """The ids that a draw can give: from low, below high; None where the source does not show it."""

    low: cst.BaseExpression | None
    high: cst.BaseExpression | None
    closed: bool = False


class Draws:
    """Follows random draws of integers in the functions of one module."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names

    def is_draw(self, call: cst.Call) -> bool:
        dotted = self.names.dotted(call.func) or ""
        if _DRAW.match(dotted):
            return True
        func = call.func
        if isinstance(func, cst.Attribute) and func.attr.value in _GENERATOR_DRAWS:
            return any(
                _GENERATORS.match(self.names.dotted(made.func) or "")
                for made in self.names.creations(func.value)
            )
        return False

    def drawn(
        self, node: cst.BaseExpression, depth: int = 0, within: cst.CSTNode | None = None
    ) -> cst.Call | None:
        """The draw that an expression's value comes from, its shape and type changed perhaps.

        within: names are followed to what is assigned there and no further; data that was made at
        random elsewhere is no draw.
        """
        if depth > 12:
            return None
        if isinstance(node, cst.Call):
            return self._of_call(node, depth, within)
        if isinstance(node, (cst.ListComp, cst.GeneratorExp)):
            return self.drawn(node.elt, depth + 1, within)
        if isinstance(node, (cst.List, cst.Tuple)):
            found = [self.drawn(e.value, depth + 1, within) for e in node.elements]
            return found[0] if found and all(found) else None
        if isinstance(node, cst.Subscript):
            return self.drawn(node.value, depth + 1, within)
        if isinstance(node, cst.IfExp):
            return self.drawn(node.body, depth + 1, within) or self.drawn(
                node.orelse, depth + 1, within
            )
        if isinstance(node, cst.BinaryOperation):  # `torch.randint(n, …) + 1`
            return self.drawn(node.left, depth + 1, within)
        variable = self.names.variable(node)
        return self.of_variable(variable, depth + 1, within) if variable is not None else None

    def of_variable(
        self, variable: Variable, depth: int = 0, within: cst.CSTNode | None = None
    ) -> cst.Call | None:
        """The draw that a variable holds, or that its elements are."""
        for assignment in self.names.assignments.get(variable, ()):
            value = assignment.value
            if value is None or assignment.index is not None:
                continue
            if self._is_itself(value, variable) or not self._counts(assignment.statement, within):
                continue
            found = self.drawn(value, depth + 1, within)
            if found is not None:
                return found
        for call in self.tree.all(cst.Call):
            func = call.func
            if isinstance(func, cst.Attribute) and func.attr.value in _GROWING and call.args:
                same = self.names.variable(func.value) == variable and self._counts(call, within)
                if same and depth < 8:
                    found = self.drawn(call.args[0].value, depth + 2, within)
                    if found is not None:
                        return found
        return None

    def _counts(self, node: cst.CSTNode, within: cst.CSTNode | None) -> bool:
        return within is None or self.tree.is_within(node, within)

    def _is_itself(self, value: cst.BaseExpression, variable: Variable) -> bool:
        while isinstance(value, cst.Call) and isinstance(value.func, cst.Attribute):
            value = value.func.value
        return self.names.variable(value) == variable

    def _of_call(
        self, call: cst.Call, depth: int, within: cst.CSTNode | None
    ) -> cst.Call | None:
        if self.is_draw(call):
            return call
        inner = self.names.callee(call)
        if inner is not None and inner.name.value != "__init__" and depth < 6:
            for returned in self.names.returns(inner):
                found = self.drawn(returned, depth + 2, inner if within is not None else None)
                if found is not None:
                    return found
            return None
        name = self.tree.code(call.func).rpartition(".")[2]
        if name not in _KEEPING:
            return None
        if isinstance(call.func, cst.Attribute):
            found = self.drawn(call.func.value, depth + 1, within)
            if found is not None:
                return found
        for argument in call.args:
            found = self.drawn(argument.value, depth + 1, within)
            if found is not None:
                return found
        return None

    def range_of(self, call: cst.Call) -> Range | None:
        """The range of `randint(low, high)` and the like."""
        dotted = self.names.dotted(call.func) or self.tree.code(call.func)
        name = dotted.rpartition(".")[2]
        given = {a.keyword.value: a.value for a in call.args if a.keyword is not None}
        plain = [a.value for a in call.args if a.keyword is None]
        if name == "randint_like":
            bounds = plain[1:]
        elif name == "randint" and dotted.startswith("torch."):
            sizes = [i for i, v in enumerate(plain) if self._is_size(v)]
            bounds = plain[: sizes[0]] if sizes else plain
        elif name in ("randint", "integers", "randrange"):
            bounds = plain[:2]
        elif name == "choice" and plain and not dotted.startswith("random."):
            if isinstance(plain[0], (cst.Integer, cst.Attribute)) or self._is_count(plain[0]):
                return Range(None, plain[0])
            return None
        else:
            return None
        low = given.get("low") or (bounds[0] if len(bounds) > 1 else None)
        high = given.get("high") or (bounds[-1] if bounds else None)
        if high is None:
            low, high = None, low
        closed = dotted == "random.randint"
        return Range(low, high, closed) if high is not None else None

    def _is_size(self, node: cst.BaseExpression) -> bool:
        code = self.tree.code(node)
        return isinstance(node, (cst.Tuple, cst.List)) or code.endswith((".shape", ".size()"))

    def _is_count(self, node: cst.BaseExpression) -> bool:
        """A number by its value or its use as the size of an embedding."""
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, ()) if variable is not None else ()
        return any(
            isinstance(literal_value(a.value), int)
            or isinstance(a.value, cst.Call) and self.tree.code(a.value.func) in ("len", "max", "int")
            for a in found
            if a.value is not None
        )


@dataclass(frozen=True)
class RowDraws:
    """What a dataset draws at random: the columns of its rows, or a part of its rows as a whole.

    columns: positions or keys whose value is drawn whenever a row is read. whole: the rows
    themselves come from a function that draws, as where negatives are put beside positives.
    """

    columns: frozenset[int | str]
    whole: bool


def row_draws(script: Script, loader: cst.BaseExpression) -> RowDraws | None:
    """The draws in the dataset behind a loader; None where no dataset can be seen."""
    found = [d for dataset in datasets(script, loader) for d in (_of_dataset(script, dataset),) if d]
    if not found:
        return None
    columns = frozenset(c for d in found for c in d.columns)
    return RowDraws(columns, any(d.whole for d in found))


def datasets(script: Script, loader: cst.BaseExpression) -> Iterator[cst.Call]:
    """The calls that make the dataset of a loader, or the loader's own where there is none."""
    names = script.names
    for call in names.creations(loader):
        if LOADER.search(names.dotted(call.func) or ""):
            data = call.args[0].value if call.args else None
            given = [a.value for a in call.args if a.keyword is not None and a.keyword.value == "dataset"]
            for node in [*given, data][:1]:
                yield from names.creations(node) if node is not None else ()
        else:
            yield call


def _of_dataset(script: Script, dataset: cst.Call) -> RowDraws | None:
    names = script.names
    own = Draws(script.tree, names)
    owner = names.local_class(dataset.func)
    home = own
    if owner is None and script.neighbours is not None:
        dotted = names.dotted(dataset.func)
        found = imported_class(script.neighbours, dotted) if dotted is not None else None
        if found is not None:
            lookups, owner = found
            home = Draws(lookups.tree, lookups.names)
    given = any(_made_with_zeros(own, a.value) for a in dataset.args)
    if owner is None:
        return RowDraws(frozenset(), given) if given or dataset.args else None
    getter = home.names.method(owner, "__getitem__")
    columns = frozenset(_drawn_columns(home, getter, owner)) if getter is not None else frozenset()
    inside = any(
        _puts_zero_rows(home, n) for n in walk(owner) if isinstance(n, cst.FunctionDef)
    )
    return RowDraws(columns, given or inside)


def _drawn_columns(
    draws: Draws, getter: cst.FunctionDef, owner: cst.ClassDef
) -> Iterator[int | str]:
    rows = _drawn_in_rows(draws, owner)

    def is_drawn(node: cst.BaseExpression) -> bool:
        return draws.drawn(node, within=getter) is not None or _is_of_rows(draws, node, rows)

    for returned in draws.names.returns(getter):
        if isinstance(returned, (cst.Tuple, cst.List)):
            for index, element in enumerate(returned.elements):
                if is_drawn(element.value):
                    yield index
        elif isinstance(returned, cst.Dict):
            for element in returned.elements:
                key = literal_value(element.key) if isinstance(element, cst.DictElement) else None
                if isinstance(key, str) and is_drawn(element.value):
                    yield key


def _drawn_in_rows(draws: Draws, owner: cst.ClassDef) -> set[tuple[str, int]]:
    """Positions that are drawn in rows put into an attribute: `self.rows.append([user, item, drawn])`."""
    found = set()
    for function in (n for n in walk(owner) if isinstance(n, cst.FunctionDef)):
        for call in draws.tree.calls_within(function):
            if not (isinstance(call.func, cst.Attribute) and call.func.attr.value in _GROWING):
                continue
            row = call.args[0].value if call.args else None
            if isinstance(row, (cst.Tuple, cst.List)):
                for index, element in enumerate(row.elements):
                    if draws.drawn(element.value, within=function) is not None:
                        found.add((draws.tree.plain(call.func.value), index))
    return found


def _is_of_rows(
    draws: Draws, node: cst.BaseExpression, rows: set[tuple[str, int]], depth: int = 0
) -> bool:
    """`self.rows[index][2]`, or `rows[index][2]` with a name for the attribute."""
    if isinstance(node, cst.IfExp):
        return any(_is_of_rows(draws, n, rows, depth) for n in (node.body, node.orelse))
    if isinstance(node, cst.Subscript) and isinstance(node.value, cst.Subscript):
        index = node.slice[0].slice
        place = literal_value(index.value) if isinstance(index, cst.Index) else None
        for attribute, position in rows:
            if place == position and draws.tree.plain(node.value.value) == attribute:
                return True
        return depth < 4 and any(
            _named(draws, node.value.value, attribute) and place == position
            for attribute, position in rows
        )
    variable = draws.names.variable(node)
    found = draws.names.assignments.get(variable, ()) if variable is not None else ()
    return depth < 4 and any(
        a.value is not None and a.index is None and _is_of_rows(draws, a.value, rows, depth + 1)
        for a in found
    )


def _named(draws: Draws, node: cst.BaseExpression, attribute: str) -> bool:
    """Whether a name may stand for an attribute: `rows = self.rows if training else self.pairs`."""
    variable = draws.names.variable(node)
    found = draws.names.assignments.get(variable, ()) if variable is not None else ()
    return any(
        draws.tree.plain(n) == attribute
        for a in found
        if a.value is not None
        for n in walk(a.value)
        if isinstance(n, cst.Attribute)
    )


def _made_with_zeros(draws: Draws, node: cst.BaseExpression) -> bool:
    """An argument whose value a function of the file makes, drawing rows with label 0 in it."""
    names = draws.names
    seen: set[cst.CSTNode] = set()
    queue: list[cst.CSTNode] = [node]
    while queue:
        current = queue.pop()
        if current in seen or len(seen) > 200:
            continue
        seen.add(current)
        for inner in walk(current):
            if isinstance(inner, cst.Call):
                function = names.callee(inner)
                if function is not None and function not in seen:
                    seen.add(function)
                    if _puts_zero_rows(draws, function):
                        return True
            variable = names.variable(inner) if isinstance(inner, (cst.Name, cst.Attribute)) else None
            found = names.assignments.get(variable, ()) if variable is not None else ()
            queue += [a.value for a in found if a.value is not None]
    return False


def _puts_zero_rows(draws: Draws, function: cst.FunctionDef) -> bool:
    """A drawn id stands beside a label 0: in one row, or appended next to it."""
    for node in walk(function.body):
        if isinstance(node, (cst.Tuple, cst.List)):
            values = [e.value for e in node.elements]
        elif isinstance(node, cst.Dict):
            values = [e.value for e in node.elements if isinstance(e, cst.DictElement)]
        else:
            continue
        zero = any(literal_value(v) == 0 and literal_value(v) is not False for v in values)
        if zero and any(draws.drawn(v, within=function) is not None for v in values):
            return True
    if _labels_of_zeros(draws, function):
        return True
    grown: dict[cst.CSTNode, list[cst.BaseExpression]] = {}
    for node in walk(function.body):
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.args:
            if node.func.attr.value in _GROWING:
                block = draws.tree.block(draws.tree.statement(node))
                grown.setdefault(block, []).append(node.args[0].value)
    for values in grown.values():
        zero = any(literal_value(v) == 0 or _is_zeros(v) for v in values)
        if zero and any(draws.drawn(v, within=function) is not None for v in values):
            return True
    return False


def _labels_of_zeros(draws: Draws, function: cst.FunctionDef) -> bool:
    """Rows with a drawn id are collected, and a list of as many zeros is made beside them."""
    collected = any(
        isinstance(c.func, cst.Attribute)
        and c.func.attr.value in _GROWING
        and c.args
        and isinstance(c.args[0].value, (cst.Tuple, cst.List))
        and any(
            draws.drawn(e.value, within=function) is not None for e in c.args[0].value.elements
        )
        for c in draws.tree.calls_within(function)
    )
    return collected and any(
        _is_zeros(n) or isinstance(n, cst.ListComp) and literal_value(n.elt) == 0
        for n in walk(function.body)
    )


def _is_zeros(node: cst.BaseExpression) -> bool:
    """`[0] * n`, `[0, 0]`."""
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Multiply):
        node = node.left
    return isinstance(node, cst.List) and bool(node.elements) and all(
        literal_value(e.value) == 0 for e in node.elements
    )
