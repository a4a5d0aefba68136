"""Single random draws: of a range or of a sequence, by numpy, random or torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from quickwins_codemod.script.facts import Problem, Script
from quickwins_codemod.script.tree import walk

#: Anything below 2**31 - 1 is a seed for every generator.
_BOUND = "2**31 - 1"
_DRAWS = {"choice", "randint", "random_integers", "randrange", "sample", "choices", "integers"}
_STREAMS = {
    "numpy.random": "numpy", "random": "random", "torch": "torch",
    "numpy.random.RandomState": "numpy", "numpy.random.default_rng": "generator",
    "numpy.random.Generator": "generator", "random.Random": "random",
}


@dataclass(frozen=True)
class Draw:
    """One random draw: the code of what it draws from, and of a seed from the same stream.

    even: every item is as likely as the others.
    """

    call: cst.Call
    items: str
    seed: str
    even: bool = True


class Unclear(Exception):
    """Something a draw for all rows at once would have to know and the source does not show."""

    def __init__(self, kind: str, node: cst.CSTNode, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(kind, node, detail)


class Draws:
    """The random draws of one script."""

    def __init__(self, script: Script) -> None:
        self.tree, self.names = script.tree, script.names

    def stream(self, func: cst.CSTNode) -> tuple[str, str, str] | None:
        """Kind of the random stream that a function draws from, the function, and what owns it."""
        dotted = self.names.dotted(func) or ""
        module, _, name = dotted.rpartition(".")
        if module in _STREAMS and name in _DRAWS:
            owner = self.tree.code(func.value) if isinstance(func, cst.Attribute) else ""
            return _STREAMS[module], name, owner
        if isinstance(func, cst.Attribute) and func.attr.value in _DRAWS:
            kinds = {
                _STREAMS.get(self.names.dotted(made.func) or "")
                for made in self.names.creations(func.value)
            }
            kind = kinds.pop() if len(kinds) == 1 else None
            if kind is not None:
                return kind, func.attr.value, self.tree.code(func.value)
        return None

    def is_random(self, call: cst.Call) -> bool:
        return self.stream(call.func) is not None

    def seed(self, call: cst.Call) -> str:
        """The code of a seed from the stream that a call draws from."""
        kind, name, owner = self.stream(call.func)
        if not owner:  # imported by its bare name
            bare = self.tree.code(call.func)
            return {
                ("numpy", "choice"): f"{bare}({_BOUND})",
                ("numpy", "randint"): f"{bare}({_BOUND})",
                ("random", "choice"): f"{bare}(range({_BOUND}))",
                ("random", "randint"): f"{bare}(0, {_BOUND})",
                ("random", "randrange"): f"{bare}({_BOUND})",
                ("random", "sample"): f"{bare}(range({_BOUND}), 1)[0]",
                ("random", "choices"): f"{bare}(range({_BOUND}))[0]",
                ("torch", "randint"): f"{bare}({_BOUND}, (1,)).item()",
            }.get((kind, name), "None")
        return {
            "numpy": f"{owner}.randint({_BOUND})",
            "random": f"{owner}.randrange({_BOUND})",
            "torch": f"{owner}.randint({_BOUND}, (1,)).item()",
            "generator": f"{owner}.integers({_BOUND})",
        }[kind]

    def of(self, node: cst.CSTNode) -> Draw | None:
        """A draw of one value, each of a range or a sequence with the same probability."""
        inner = node
        if isinstance(inner, cst.Call) and self.names.dotted(inner.func) == "int":
            inner = inner.args[0].value if len(inner.args) == 1 else inner
        if isinstance(inner, cst.Call) and isinstance(inner.func, cst.Attribute):
            if inner.func.attr.value == "item" and not inner.args:
                inner = inner.func.value
        if isinstance(inner, cst.Subscript):
            return self._indexed(inner) or self._first_of(inner)
        if not isinstance(inner, cst.Call):
            return None
        stream = self.stream(inner.func)
        if stream is None:
            return None
        kind, name, _ = stream
        code = [self.tree.code(a.value) for a in inner.args]
        plain = all(a.keyword is None and not a.star for a in inner.args)
        if code and _has_odds(inner):
            return Draw(inner, code[0], self.seed(inner), even=False)
        items = None
        if name == "choice" and plain and len(code) == 1:
            items = code[0]
        elif kind == "torch" and plain and len(code) in (2, 3) and inner is not node:
            shape = "".join(code[-1].split())
            items = _range(code[:-1]) if shape in ("(1,)", "(1)", "[1]", "()") else None
        elif (kind, name) == ("random", "randint") and plain and len(code) == 2:
            items = f"range({code[0]}, {code[1]} + 1)"
        elif name in ("randint", "randrange", "integers") and plain and len(code) in (1, 2):
            items = _range(code) if kind != "torch" else None
        return Draw(inner, items, self.seed(inner)) if items is not None else None

    def even(self, draw: Draw) -> Draw:
        if not draw.even:
            message = f"{draw.items} is drawn from with other odds than even"
            raise Unclear("odds", draw.call, message)
        return draw

    def _indexed(self, node: cst.Subscript) -> Draw | None:
        """`items[randint(len(items))]`"""
        index = node.slice[0].slice if len(node.slice) == 1 else None
        inner = self.of(index.value) if isinstance(index, cst.Index) else None
        held = self.tree.code(node.value)
        if inner is None or inner.items.replace(" ", "") not in (
            f"range(len({held}))", f"range(0,len({held}))", f"range(0,len({held})-1+1)",
        ):
            return None
        return Draw(inner.call, held, inner.seed)

    def _first_of(self, node: cst.Subscript) -> Draw | None:
        """`sample(items, 1)[0]`, `choices(items)[0]`"""
        call = node.value
        stream = self.stream(call.func) if isinstance(call, cst.Call) else None
        if stream is None or not call.args or self.tree.plain(node.slice[0]) != "0":
            return None
        more = [self.tree.plain(a).rstrip(",") for a in call.args[1:]]
        draws_one = more in (["1"], ["k=1"], ["size=1"]) or not more and stream[1] == "choices"
        if stream[1] in ("choice", "sample", "choices") and (draws_one or _has_odds(call)):
            items = self.tree.code(call.args[0].value)
            return Draw(call, items, self.seed(call), even=not _has_odds(call))
        return None


def trains(loop: cst.CSTNode) -> bool:
    """Whether a loop runs a backward pass."""
    return any(isinstance(n, cst.Attribute) and n.attr.value == "backward" for n in walk(loop))


def _has_odds(call: cst.Call) -> bool:
    odds = ("p", "weights", "cum_weights")
    return any(a.keyword is not None and a.keyword.value in odds for a in call.args)


def _range(bounds: Sequence[str]) -> str:
    return f"range({', '.join(bounds)})"


def word(node: cst.CSTNode | None) -> str | None:
    return node.value if isinstance(node, cst.Name) else None


def attribute(node: cst.CSTNode | None) -> str | None:
    return node.attr.value if isinstance(node, cst.Attribute) else None
