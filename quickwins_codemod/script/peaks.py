"""The highest learning rate that an existing schedule reaches, where the source tells it.

torch's schedules work relative to the optimizer's own rate. A class of the script's own is
followed on paper: its `step` is interpreted (arithmetic, `if`, `min`, nothing else; never run as
Python) with made-up constructor arguments, and the highest rate seen is matched against the ways
in which such classes are written. What matches for every set of arguments is taken, the rest is
not known.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Optimizer, Scheduler, Script
from quickwins_codemod.script.tree import walk

#: What stands for a peak that the old schedule climbed to: the optimizer's own rate.
OWN_RATE = "own"
_BASE = 0.013
_STEPS = 160
_TRIALS = ((7.0, 11.0, 23.0, 31.0), (12.0, 5.0, 40.0, 19.0), (29.0, 17.0, 6.0, 13.0))
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "float": float, "int": int, "len": len, "pow": pow,
    "math.cos": math.cos, "math.sin": math.sin, "math.sqrt": math.sqrt, "math.exp": math.exp,
    "math.log": math.log, "math.pow": math.pow, "np.cos": math.cos, "np.sqrt": math.sqrt,
    "np.exp": math.exp, "numpy.cos": math.cos, "numpy.sqrt": math.sqrt,
}
_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Not: operator.not_, ast.Is: operator.is_, ast.IsNot: operator.is_not,
}


def peak_of(script: Script, scheduler: Scheduler, optimizer: Optimizer) -> str | None:
    """The code of the highest rate that a schedule reaches; None where it is not known.

    "" where it starts at the optimizer's own rate and falls, OWN_RATE where it climbs to it first.
    """
    if scheduler.custom is not None:
        return _own_class(script, scheduler, optimizer)
    call = scheduler.creation
    if scheduler.class_name == "CyclicLR":
        return next(
            (script.tree.code(a.value) for a in call.args
             if a.keyword is not None and a.keyword.value == "max_lr"),
            script.tree.code(call.args[2].value) if len(call.args) > 2 else None,
        )
    if scheduler.class_name in ("LambdaLR", "MultiplicativeLR") and _is_unit_rate(optimizer):
        return None  # lr=1.0 and a lambda that gives the rate itself
    kinds = [_course(script, part) for part in (scheduler, *scheduler.children)]
    if None in kinds:
        return None
    return OWN_RATE if OWN_RATE in kinds else ""


def _course(script: Script, scheduler: Scheduler) -> str | None:
    """OWN_RATE for a warm-up, "" for a schedule that falls, None for one that exceeds the rate."""
    if scheduler.class_name in ("LinearLR", "ConstantLR"):
        first = _factor(scheduler, "start_factor" if scheduler.class_name == "LinearLR" else "factor")
        last = _factor(scheduler, "end_factor", default=1.0)
        return OWN_RATE if first < last else ""
    if scheduler.class_name == "LambdaLR":
        factors = _followed(script, scheduler)
        if factors:
            top = max(factors)
            if top > 1.02:
                return None
            return OWN_RATE if factors[0] < 0.5 * top else ""
        named = script.tree.code(scheduler.creation)
    else:
        named = scheduler.class_name
    climbs = re.search(r"warm.?up(?!.*restart)", named, re.IGNORECASE) is not None
    return OWN_RATE if climbs else ""


def _factor(scheduler: Scheduler, name: str, default: float = 1 / 3) -> float:
    for argument in scheduler.creation.args:
        if argument.keyword is not None and argument.keyword.value == name:
            value = literal_value(argument.value)
            return value if isinstance(value, (int, float)) else default
    return default


def _followed(script: Script, scheduler: Scheduler) -> list[float]:
    """The factors of a LambdaLR's function at its first steps, where they can be worked out."""
    given = [a.value for a in scheduler.creation.args
             if a.keyword is not None and a.keyword.value == "lr_lambda"]
    given += [a.value for a in scheduler.creation.args[1:2] if a.keyword is None]
    if not given:
        return []
    function = given[0]
    if isinstance(function, cst.Name):
        variable = script.names.variable(function)
        function = script.names.functions.get(variable, function) if variable else function
    sheet = _Sheet(script, None)
    constants = {}
    for name in (n for n in walk(function) if isinstance(n, cst.Name)):
        variable = script.names.variable(name)
        found = script.names.assignments.get(variable, ()) if variable is not None else ()
        value = literal_value(found[0].value) if len(found) == 1 else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            constants[name.value] = value
    try:
        if isinstance(function, cst.Lambda):
            node = ast.parse(script.tree.code(function), mode="eval").body
            return [float(sheet._value(node.body, {**constants, node.args.args[0].arg: step}))
                    for step in range(_STEPS)]
        if isinstance(function, cst.FunctionDef):
            parsed = sheet._parsed(function)
            name = parsed.args.args[0].arg
            return [float(sheet._call_body(parsed, {**constants, name: step}))
                    for step in range(_STEPS)]
    except (_Unknown, ArithmeticError, ValueError, TypeError, RecursionError, IndexError, SyntaxError):
        return []
    return []


def _is_unit_rate(optimizer: Optimizer) -> bool:
    for call in optimizer.creations:
        for index, argument in enumerate(call.args):
            named = argument.keyword is not None and argument.keyword.value == "lr"
            value = literal_value(argument.value)
            if (named or index == 1 and argument.keyword is None) and isinstance(value, (int, float)):
                return value >= 0.5
    return False


def _own_class(script: Script, scheduler: Scheduler, optimizer: Optimizer) -> str | None:
    owner = scheduler.custom
    init = script.names.method(owner, "__init__")
    if init is None:
        return None
    given = script.names.arguments(scheduler.creation, init)
    if given is None:
        return None
    codes = {name: script.tree.code(value) for name, value in given.items()}
    made = frozenset(optimizer.creations)
    driven = {name for name, value in given.items() if script.names.creations(value) & made}
    found = {_matched(script, owner, init, codes, driven, trial) for trial in _TRIALS}
    return found.pop() if len(found) == 1 else None


class _Unknown(Exception):
    """The paper calculation met something that it does not follow."""


def _matched(
    script: Script,
    owner: cst.ClassDef,
    init: cst.FunctionDef,
    codes: dict[str, str],
    driven: set[str],
    trial: tuple,
) -> str | None:
    """How the peak is written in terms of the constructor's arguments, for one set of values."""
    sheet = _Sheet(script, owner)
    try:
        values = sheet.construct(init, driven, trial)
        rates = sheet.rates()
    except (_Unknown, ArithmeticError, ValueError, TypeError, RecursionError):
        return None
    if not rates:
        return None
    peak = max(rates)
    if math.isclose(peak, _BASE, rel_tol=0.02):
        return OWN_RATE if rates[0] < 0.5 * peak else ""
    for name, value in values.items():
        if name in codes and math.isclose(peak, value, rel_tol=0.02):
            return codes[name]
    return _product_of_powers(peak, values, codes)


def _product_of_powers(
    peak: float, values: dict[str, float], codes: dict[str, str]
) -> str | None:
    """`d_model ** -0.5 * warmup_steps ** -0.5`: the peak of the Transformer's own schedule."""
    names = [n for n in values if n in codes]
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            if math.isclose(
                peak, values[first] ** -0.5 * values[second] ** -0.5, rel_tol=1e-6
            ):
                return f"{_power(codes[first])} * {_power(codes[second])}"
    return None


def _power(code: str) -> str:
    simple = all(c.isalnum() or c in "._" for c in code)
    return f"{code} ** -0.5" if simple else f"({code}) ** -0.5"


class _Sheet:
    """Arithmetic of one class, done by hand on made-up values."""

    def __init__(self, script: Script, owner: cst.ClassDef | None) -> None:
        self.script, self.owner = script, owner
        self.attributes: dict[str, Any] = {}
        self.written: list[float] = []

    def construct(
        self, init: cst.FunctionDef, driven: set[str], trial: tuple
    ) -> dict[str, float]:
        """Run __init__; driven: the parameters that are the optimizer. Returns the other values."""
        node = self._parsed(init)
        names = [a.arg for a in node.args.args[1:]]
        made = iter(trial)
        values: dict[str, float] = {}
        local: dict[str, Any] = {}
        for name in names:
            if name in driven:
                local[name] = _OPTIMIZER
            else:
                values[name] = local[name] = next(made, 3.0)
        self._run(node.body, local)
        return values

    def rates(self) -> list[float]:
        step = self.script.names.method(self.owner, "step") or self.script.names.method(
            self.owner, "get_lr"
        )
        if step is None:
            raise _Unknown
        node = self._parsed(step)
        derived = "base_lrs" not in self.attributes and step.name.value == "get_lr"
        for count in range(_STEPS):
            if derived:
                self.attributes.update({"last_epoch": count, "base_lrs": [_BASE]})
            result = self._call_body(node, {})
            if derived and isinstance(result, list):
                self.written += result
        return [rate for rate in self.written if isinstance(rate, (int, float))]

    def _parsed(self, function: cst.FunctionDef) -> ast.FunctionDef:
        code = self.script.tree.module.code_for_node(function.with_changes(leading_lines=[]))
        return ast.parse(textwrap.dedent(code).strip()).body[0]  # type: ignore[return-value]

    def _call_body(self, node: ast.FunctionDef, local: dict[str, Any]) -> Any:
        for argument, default in zip(
            node.args.args[::-1], node.args.defaults[::-1]
        ):
            local.setdefault(argument.arg, self._value(default, local))
        try:
            self._run(node.body, local)
        except _Returned as returned:
            return returned.value
        return None

    def _run(self, body: list[ast.stmt], local: dict[str, Any]) -> None:
        for statement in body:
            match statement:
                case ast.Expr(ast.Constant()) | ast.Pass():
                    continue
                case ast.Expr(ast.Call(ast.Attribute(ast.Call(ast.Name("super"))))):
                    continue
                case ast.Expr(ast.Call() as call):
                    self._value(call, local)
                case ast.Assign([target], value):
                    self._store(target, self._value(value, local), local)
                case ast.AnnAssign(target, _, value) if value is not None:
                    self._store(target, self._value(value, local), local)
                case ast.AugAssign(target, op, value):
                    old = self._value(_loaded(target), local)
                    self._store(target, _OPERATORS[type(op)](old, self._value(value, local)), local)
                case ast.If(test, then, other):
                    self._run(then if self._value(test, local) else other, local)
                case ast.For(target, iterated, inner):
                    for item in self._items(iterated, local):
                        self._store(target, item, local)
                        self._run(inner, local)
                case ast.Return(value):
                    raise _Returned(None if value is None else self._value(value, local))
                case _:
                    raise _Unknown

    def _items(self, node: ast.expr, local: dict[str, Any]) -> Iterator[Any]:
        match node:
            case ast.Call(ast.Name("zip"), arguments):
                yield from zip(*(list(self._items(a, local)) for a in arguments))
            case ast.Call(ast.Name("enumerate"), [inner]):
                yield from enumerate(self._items(inner, local))
            case _:
                value = self._value(node, local)
                if not isinstance(value, list):
                    raise _Unknown
                yield from value

    def _store(self, target: ast.expr, value: Any, local: dict[str, Any]) -> None:
        match target:
            case ast.Name(name):
                local[name] = value
            case ast.Attribute(ast.Name("self"), name):
                self.attributes[name] = value
            case ast.Subscript(inner, ast.Constant("lr")) if self._value(inner, local) is _GROUP:
                self.written.append(value)
            case ast.Tuple(elements):
                for element, item in zip(elements, value):
                    self._store(element, item, local)
            case _:
                raise _Unknown

    def _value(self, node: ast.expr, local: dict[str, Any]) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Name(name) if name in local:
                return local[name]
            case ast.Attribute(ast.Name("self"), name) if name in self.attributes:
                return self.attributes[name]
            case ast.Attribute(ast.Name("math" | "np" | "numpy"), "pi"):
                return math.pi
            case ast.Attribute(inner, "param_groups") if self._value(inner, local) is _OPTIMIZER:
                return [_GROUP]
            case ast.Subscript(inner, key):
                return self._item(self._value(inner, local), self._value(key, local))
            case ast.BinOp(left, op, right):
                return _OPERATORS[type(op)](self._value(left, local), self._value(right, local))
            case ast.UnaryOp(op, operand):
                return _OPERATORS[type(op)](self._value(operand, local))
            case ast.Compare(left, [op], [right]):
                return _OPERATORS[type(op)](self._value(left, local), self._value(right, local))
            case ast.BoolOp(op, [first, *others]):
                value = self._value(first, local)
                for other in others:
                    go_on = value if isinstance(op, ast.And) else not value
                    value = self._value(other, local) if go_on else value
                return value
            case ast.IfExp(test, then, other):
                return self._value(then if self._value(test, local) else other, local)
            case ast.ListComp(element, [ast.comprehension(target, iterated, [])]):
                found = []
                for item in self._items(iterated, local):
                    inner = dict(local)
                    self._store(target, item, inner)
                    found.append(self._value(element, inner))
                return found
            case ast.List(elements) | ast.Tuple(elements):
                return [self._value(e, local) for e in elements]
            case ast.Call(function, arguments, keywords):
                return self._call(function, arguments, keywords, local)
        raise _Unknown

    def _item(self, value: Any, key: Any) -> Any:
        if value is _GROUP and key in ("lr", "initial_lr"):
            return _BASE
        if isinstance(value, list) and isinstance(key, int):
            return value[key]
        raise _Unknown

    def _call(
        self, function: ast.expr, arguments: list, keywords: list, local: dict[str, Any]
    ) -> Any:
        values = [self._value(a, local) for a in arguments]
        match function:
            case ast.Attribute(ast.Name("self"), name):
                method = self.script.names.method(self.owner, name)
                if method is None or keywords:
                    raise _Unknown
                node = self._parsed(method)
                names = [a.arg for a in node.args.args[1:]]
                return self._call_body(node, dict(zip(names, values)))
            case _:
                known = _FUNCTIONS.get(ast.unparse(function))
                if known is None or keywords:
                    raise _Unknown
                return known(*values)


class _Returned(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


_OPTIMIZER, _GROUP = object(), object()


def _loaded(target: ast.expr) -> ast.expr:
    """A target read as an expression."""
    return ast.parse(ast.unparse(target), mode="eval").body
