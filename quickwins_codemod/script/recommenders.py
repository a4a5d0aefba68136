"""Models that score users and items: which arguments are ids, and what a call of one answers.

An id is known by its use: an argument that looks up rows of an embedding. That of two ids the first
is the user's is how such models are written; names decide only where they say the opposite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import libcst as cst

from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.names import Names, names_in
from quickwins_codemod.script.neighbours import Neighbours
from quickwins_codemod.script.tree import Tree, walk

_EMBEDDING = re.compile(r"(^|\.)(Embedding|EmbeddingBag)$")
_USER = re.compile(r"user|member|customer|reader|viewer|visitor|person|client|uid", re.IGNORECASE)
_ITEM = re.compile(
    r"item|movie|product|book|song|track|article|video|show|anime|business|game|news|recipe"
    r"|iid|pos|neg",
    re.IGNORECASE,
)
#: Calls on an id tensor that leave it one.
_SAME_IDS = {"long", "int", "to", "cuda", "view", "reshape", "squeeze", "unsqueeze", "flatten"}

#: Methods of a module that return it.
_RETURNING_SELF = {"to", "cuda", "cpu", "float", "double", "train", "eval", "requires_grad_"}


@dataclass(frozen=True)
class Scoring:
    """A call that scores one item for one user: `model(users, items)`.

    model: the expression that is called, `model` or `model.score`; owner: what holds the weights.
    others: arguments that are no ids, as features that come with the batch.
    """

    call: cst.Call
    model: cst.BaseExpression
    owner: cst.BaseExpression
    users: cst.BaseExpression
    items: cst.BaseExpression
    others: tuple[cst.Arg, ...] = ()


@dataclass(frozen=True)
class Encoding:
    """A call that makes vectors of one kind of ids: `model.encode_user(users)`."""

    call: cst.Call
    encoder: cst.BaseExpression
    owner: cst.BaseExpression
    ids: cst.BaseExpression


class Recommenders:
    """Reads the calls of models in one script."""

    def __init__(self, script: Script) -> None:
        self.script, self.tree, self.names = script, script.tree, script.names

    # -- classes --------------------------------------------------------------------------------

    def ids(self, func: cst.BaseExpression) -> list[str] | None:
        """The parameters of what is called that are ids, in order; None where it is not seen."""
        found = self._alike(func)
        return found[0].ids(found[1]) if found is not None else None

    def function(self, func: cst.BaseExpression) -> tuple[Lookups, cst.FunctionDef] | None:
        """The one forward (or method) that a call of an expression can run, in whichever file."""
        found = self._functions(func)
        return found[0] if len(found) == 1 else None

    def _alike(self, func: cst.BaseExpression) -> tuple[Lookups, cst.FunctionDef] | None:
        """The same, or one of several that take the same arguments, ids in the same places."""
        found = self._functions(func)
        taken = {
            (tuple(p.name.value for p in function.params.params), *lookups.ids(function))
            for lookups, function in found
        }
        return found[0] if len(taken) == 1 else None

    def _functions(self, func: cst.BaseExpression) -> list[tuple[Lookups, cst.FunctionDef]]:
        if isinstance(func, cst.Attribute) and not self._is_module(func):
            holder, method = func.value, func.attr.value
        else:
            holder, method = func, "forward"
        found: dict[cst.CSTNode, tuple[Lookups, cst.FunctionDef]] = {}
        for lookups, owner in self._classes(holder):
            function = lookups.names.method(owner, method)
            if function is not None:
                found[function] = (lookups, function)
        return list(found.values())

    def _is_module(self, func: cst.Attribute) -> bool:
        """`self.model(...)`: an attribute that is itself a model, not a method of one."""
        return bool(list(self._classes(func)))

    def _classes(self, node: cst.BaseExpression) -> Iterator[tuple[Lookups, cst.ClassDef]]:
        own = Lookups(self.tree, self.names)
        for call in self.names.creations(node):
            for maker in self._makers(call):
                yield from self._made(own, maker.func)
        if isinstance(node, cst.Name):
            owner = self.names.instance_class(node)
            if owner is not None:
                yield own, owner

    def _makers(self, call: cst.Call, depth: int = 0) -> Iterator[cst.Call]:
        """The constructor behind `NCF(...).to(device)`, `DistributedDataParallel(model)`."""
        inner: cst.BaseExpression | None = None
        if isinstance(call.func, cst.Attribute) and call.func.attr.value in _RETURNING_SELF:
            inner = call.func.value
        elif call.args and re.search(r"DataParallel$|compile$", self.tree.code(call.func)):
            inner = call.args[0].value
        if inner is None or depth > 4:
            yield call
            return
        for made in self.names.creations(inner):
            if made is not call:
                yield from self._makers(made, depth + 1)

    def _made(self, own: Lookups, func: cst.BaseExpression) -> Iterator[tuple[Lookups, cst.ClassDef]]:
        owner = self.names.local_class(func)
        if owner is not None:
            yield own, owner
            return
        dotted = self.names.dotted(func)
        if dotted is not None and self.script.neighbours is not None:
            found = imported_class(self.script.neighbours, dotted)
            if found is not None:
                yield found

    # -- calls -----------------------------------------------------------------------------------

    def scoring(self, call: cst.Call) -> Scoring | None:
        """A call as the scoring of one item for each user; None where it is something else."""
        pairs = {self._pair(call, *found) for found in self._functions(call.func)}
        pair = pairs.pop() if len(pairs) == 1 else None
        if pair is None:
            return None
        others = tuple(a for a in call.args if a.value not in pair)
        return Scoring(call, call.func, self._owner(call.func), *pair, others)

    def _pair(
        self, call: cst.Call, lookups: Lookups, function: cst.FunctionDef
    ) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
        """The users and the items that a call gives to one of the functions it can run."""
        wanted = lookups.ids(function)
        given = lookups.names.arguments(call, function) or {}
        ids = [name for name in wanted if name in given]
        optional = {p.name.value for p in function.params.params if p.default is not None}
        if len(ids) != 2 or not set(wanted) <= {*ids, *optional}:
            return None
        first, second = (given[name] for name in ids)
        if self._says_item(first, ids[0]) and self._says_user(second, ids[1]):
            return second, first
        return first, second

    def triple(self, call: cst.Call) -> tuple[cst.BaseExpression, ...] | None:
        """The users, positives and negatives of `model(users, positives, negatives)`."""
        found = self._alike(call.func)
        if found is None or any(a.star for a in call.args):
            return None
        given = found[0].names.arguments(call, found[1]) or {}
        ids = [name for name in found[0].ids(found[1]) if name in given]
        return tuple(given[n] for n in ids) if len(ids) == 3 == len(call.args) else None

    def encoding(self, call: cst.Call) -> Encoding | None:
        """A call as the encoding of ids, one argument, to vectors."""
        if len(call.args) != 1 or call.args[0].star or call.args[0].keyword is not None:
            return None
        made = {self.tree.code(c.func) for c in self.names.creations(call.func)}
        is_table = any(_EMBEDDING.search(m) for m in made)
        if not is_table and len(self.ids(call.func) or ()) != 1:
            return None
        owner = call.func if is_table else self._owner(call.func)
        return Encoding(call, call.func, owner, call.args[0].value)

    def _owner(self, func: cst.BaseExpression) -> cst.BaseExpression:
        if isinstance(func, cst.Attribute) and not self._is_module(func):
            return func.value
        return func

    def _says_user(self, value: cst.BaseExpression, parameter: str) -> bool:
        text = f"{self.tree.code(value)} {parameter}"
        return bool(_USER.search(text)) and not _ITEM.search(text)

    def _says_item(self, value: cst.BaseExpression, parameter: str) -> bool:
        text = f"{self.tree.code(value)} {parameter}"
        return bool(_ITEM.search(text)) and not _USER.search(text)


class Lookups:
    """Which parameters of the functions of one module are used as ids of embeddings."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names

    def ids(self, function: cst.FunctionDef, depth: int = 0) -> list[str]:
        """The parameters that look up rows of an embedding, in their order."""
        found = self._looked_up(function, depth)
        return [
            p.name.value
            for p in (*function.params.posonly_params, *function.params.params)
            if p.name.value in found
        ]

    def _looked_up(self, function: cst.FunctionDef, depth: int) -> set[str]:
        found: set[str] = set()
        for node in walk(function.body):
            if isinstance(node, cst.Call):
                found |= self._by_call(node, depth)
            elif isinstance(node, cst.Subscript):  # `table[ids]`, `table[ids, :]`
                index = node.slice[0].slice
                if isinstance(index, cst.Index) and self._is_table(node.value):
                    found |= self.parameter(index.value)
        return found

    def _by_call(self, call: cst.Call, depth: int) -> set[str]:
        if not call.args:
            return set()
        if self._is_table(call.func) or (self.names.dotted(call.func) or "").endswith(
            "functional.embedding"
        ):
            return self.parameter(call.args[0].value)
        inner = self.run_by(call)
        if inner is None or depth > 3:
            return set()
        ids = self.ids(inner, depth + 1)
        given = self.names.arguments(call, inner) or {}
        return {n for name in ids if name in given for n in self.parameter(given[name])}

    def run_by(self, call: cst.Call) -> cst.FunctionDef | None:
        """The method, or the forward of a part of the model, that a call in a forward runs."""
        method = self.names.callee(call)
        if method is not None and method.name.value != "__init__":
            return method
        owner = self.names.class_of(call.func)
        return self.names.method(owner, "forward") if owner is not None else None

    def _is_table(self, node: cst.BaseExpression) -> bool:
        """An embedding, its weight, or a parameter that is indexed by ids."""
        if isinstance(node, cst.Attribute) and node.attr.value == "weight":
            node = node.value
        made = {self.tree.code(c.func) for c in self.names.creations(node)}
        return any(_EMBEDDING.search(m) or m.rpartition(".")[2] == "Parameter" for m in made) or (
            self._in_dict(node)
        )

    def _in_dict(self, node: cst.BaseExpression) -> bool:
        """`self.embeddings["user"]` of an nn.ModuleDict, or `[0]` of an nn.ModuleList, of embeddings."""
        if not isinstance(node, cst.Subscript):
            return False
        return any(
            isinstance(n, cst.Call) and _EMBEDDING.search(self.tree.code(n.func))
            for call in self.names.creations(node.value)
            for n in walk(call)
        )

    def parameter(self, node: cst.BaseExpression) -> set[str]:
        """The parameter that an expression is, whatever its shape or device."""
        while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            if node.func.attr.value not in _SAME_IDS:
                return set()
            node = node.func.value
        return {node.value} if isinstance(node, cst.Name) else set()


@lru_cache(maxsize=256)
def imported_class(neighbours: Neighbours, dotted: str) -> tuple[Lookups, cst.ClassDef] | None:
    """A class that a script imports from a module of its repository, with that module's names."""
    module, _, wanted = dotted.rpartition(".")
    text = neighbours.source(module)
    if text is None or f"class {wanted}" not in text:
        return None
    lookups = _lookups(text)
    if lookups is None:
        return None
    classes = lookups.tree.all(cst.ClassDef)
    owner = next((c for c in classes if c.name.value == wanted), None)
    return (lookups, owner) if owner is not None else None


@lru_cache(maxsize=32)  # scripts of one repository import the same modules
def _lookups(text: str) -> Lookups | None:
    try:
        tree = Tree(cst.parse_module(text))
    except (cst.ParserSyntaxError, RecursionError):
        return None
    return Lookups(tree, Names(tree))


def depends_on(expression: cst.BaseExpression, function: cst.FunctionDef, names: Names) -> set[str]:
    """The parameters of a function that a value in it is computed from."""
    parameters = {p.name.value for p in function.params.params}
    found: set[str] = set()
    seen: set[str] = set()
    queue = [expression]
    while queue:
        for name in names_in(queue.pop()):
            if name.value in seen:
                continue
            seen.add(name.value)
            variable = names.variable(name)
            assigned = names.assignments.get(variable, ()) if variable is not None else ()
            if name.value in parameters:
                found.add(name.value)
            queue += [a.value for a in assigned if a.value is not None]
    return found
