"""Loops that draw random negatives row by row, and what one draw for all rows needs to know.

Three shapes, each known by what is computed and not by names: for each user some of the items that
are left when the user's own are taken away (`UserDraws`); so many pairs of a user and an item that
are no positives (`PairDraws`); for each row an item that is drawn again while it is a positive
(`RowDraw`). Draws in a training loop, and the one draw of a `__getitem__`, are not among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Union

import libcst as cst

from quickwins_codemod.script.tabledraws import Draw, Draws, Unclear, attribute, trains, word
from quickwins_codemod.script.facts import Problem, Script
from quickwins_codemod.script.names import names_in
from quickwins_codemod.script.tree import LOOPS, statements_of, walk

#: Stands in code for the name of a list that is yet to be made.
ROWS = "__rows__"
_MUTATORS = {
    "add", "append", "update", "extend", "discard", "remove", "pop", "clear", "insert",
    "setdefault", "difference_update", "popitem",
}
#: Calls that give the same values in another container, or as an array of them.
_WRAPPERS = {"list", "tuple", "sorted", "set", "frozenset", "numpy.array", "numpy.asarray"}
_PURE = {
    "len", "min", "max", "int", "float", "str", "range", "zip", "numpy.setdiff1d", "numpy.unique",
}
_ARRAYS = {"unique", "values", "tolist", "to_list", "to_numpy"}


@dataclass(frozen=True)
class Seen:
    """The code of the positives: two columns, or a test of one user and one item."""

    code: str
    is_columns: bool


@dataclass(frozen=True)
class UserDraws:
    """For each of `users`, `count` of the unseen items; `body` runs for each drawn pair.

    replace: an item may come twice; short: all that are left where there are fewer.
    """

    function: cst.CSTNode
    loop: cst.For
    user: str
    item: str
    users: str
    items: str
    seen: Seen
    count: str
    replace: bool
    short: bool
    seed: str
    body: tuple[cst.CSTNode, ...]


@dataclass(frozen=True)
class TableRows:
    """A body that looks the features of a drawn pair up and makes one row of them.

    lookups: statement, frame, key column and id of each `frame[frame[key] == id].iloc[0]`;
    append: the statement that puts `row`, as code, into the list `rows`, which only a DataFrame is
    made of;
    start: the statement that makes the list.
    """

    lookups: tuple[tuple[cst.CSTNode, str, str, str, str], ...]
    append: cst.CSTNode
    row: str
    rows: str
    start: cst.CSTNode


@dataclass(frozen=True)
class PairDraws:
    """`count` pairs of one of `users` and one of `items`; `body` runs for each."""

    function: cst.CSTNode
    loop: cst.CSTNode
    user: str
    item: str
    users: str
    items: str
    seen: Seen
    count: str
    seed: str
    body: tuple[cst.CSTNode, ...]
    table: TableRows | None


@dataclass(frozen=True)
class RowDraw:
    """An item for each row that loops run over, drawn again while the user has it.

    first: the first draw, whose place one of the items drawn before takes; retry: the loop that
    draws again, or the whole loop where that draws first too. users: the user of each row, as
    code. rows: what the outermost loop runs over, where that may be used up by one run; it is
    ROWS in `users`.
    """

    function: cst.CSTNode
    loop: cst.For
    item: str
    first: cst.CSTNode | None
    retry: cst.While
    users: str
    items: str
    seen: Seen
    count: str
    seed: str
    rows: cst.BaseExpression | None


Reading = Union[UserDraws, PairDraws, RowDraw]


class RowDraws:
    """The reading of one script; ask `sites()`."""

    def __init__(self, script: Script) -> None:
        self.tree, self.names = script.tree, script.names
        self.draws = Draws(script)

    def sites(self) -> list[Reading | Problem]:
        """One for each loop that draws negatives row by row, in source order."""
        found: dict[cst.CSTNode, Reading | Problem] = {}
        for call in self.tree.all(cst.Call):
            if not self.draws.is_random(call):
                continue
            for look, loop in self._loops_of(call):
                if loop in found or any(self.tree.is_within(loop, other) for other in found):
                    break
                try:
                    found[loop] = look(loop, call)
                except Unclear as unclear:
                    found[loop] = unclear.problem
                break
        return list(found.values())

    def calls(self) -> list[cst.Call]:
        """Where the script draws for all rows at once already, with the bundled runtime."""
        return [
            call for call in self.tree.all(cst.Call)
            if re.fullmatch(
                r"quickwins_(runtime|codemod\.runtime)\.unseen_(items|pairs)",
                self.names.dotted(call.func) or "",
            )
        ]

    def unread_pairs(self, function: cst.FunctionDef, gone: cst.CSTNode) -> list[cst.CSTNode]:
        """The statements that make a set of pairs which nothing outside of a node reads."""
        found = []
        for statement in statements_of(function.body):
            name = _assigned_name(statement)
            if name is None or self._zipped(statement.value) is None:
                continue
            reads = [
                n for n in walk(function)
                if isinstance(n, cst.Name) and n.value == name
                and not self.tree.is_within(n, statement) and not self.tree.is_within(n, gone)
            ]
            if not reads:
                found.append(statement)
        return found

    def unread_locals(self, site: RowDraw) -> list[cst.CSTNode]:
        """The statements in the loops whose values only the test of the draw reads."""
        found: list[cst.CSTNode] = []
        gone: list[cst.CSTNode] = [site.retry]
        statements = [
            n for n in walk(site.loop)
            if _assigned_name(n) is not None and n is not site.first and self._is_pure(n)
            and not self.tree.is_within(n, site.retry)
        ]
        for statement in reversed(statements):
            name = _assigned_name(statement)
            mentions = [
                n for n in walk(site.function)
                if isinstance(n, cst.Name) and n.value == name
                and not any(self.tree.is_within(n, g) for g in (*gone, statement))
            ]
            if name in self._read_in(gone) and not mentions:
                found.append(statement)
                gone.append(statement)
        return found

    def _read_in(self, nodes: Sequence[cst.CSTNode]) -> set[str]:
        return {w for node in nodes for w in _words([node])}

    def words(self, function: cst.CSTNode) -> set[str]:
        """Every name in a function."""
        return {n.value for n in walk(function) if isinstance(n, cst.Name)}

    # -- which loops -----------------------------------------------------------------------

    def _loops_of(
        self, call: cst.Call
    ) -> Iterator[tuple[Callable[[Any, cst.Call], Reading], cst.CSTNode]]:
        """The reading that may know the loop around a draw, with the loop that it reads."""
        function = self.tree.function(call)
        if isinstance(function, cst.Lambda) or _name_of(function) == "__getitem__":
            return
        loops = [
            a for a in self.tree.ancestors(call)
            if isinstance(a, LOOPS) and self.tree.function(a) is function
            and self.tree.is_within(call, a.body)
        ]
        if not loops or any(trains(loop) for loop in loops):
            return
        statement = self.tree.statement(call)
        pool = self._pool(call)
        if isinstance(loops[0], cst.For) and pool is not None and self._difference(
            pool, _locals_of(loops[0])
        ):
            yield self._per_user, loops[0]
            return
        targets = [name for name, value in _bound(statement) if self.tree.is_within(call, value)]
        test = self._membership(loops, targets[0]) if targets else None
        if not test:
            return
        drawn = self._drawn_names(loops)
        pair = _pair(test.left)
        outer = [
            loop for loop in loops if not isinstance(loop, cst.While) or _is_counting(loop)
        ]
        if pair is not None and set(pair) <= drawn and outer:
            yield self._pairs, outer[0]
        elif outer:
            yield self._per_row, outer[0]

    def _membership(self, loops: Sequence[cst.CSTNode], name: str) -> cst.Comparison | None:
        """The test, in the loops around a draw, whether what was drawn is a positive."""
        for node in walk(loops[0] if len(loops) == 1 else loops[1]):
            if not isinstance(node, cst.Comparison) or _in(node) is None:
                continue
            left = _pair(node.left) or [word(node.left)]
            if name in left:
                return node
        return None

    def _drawn_names(self, loops: Sequence[cst.CSTNode]) -> set[str]:
        found = set()
        for node in walk(loops[-1]):
            found |= {name for name, value in _bound(node) if self.draws.of(value) is not None}
        return found

    # -- for each user, some of the items that are left ---------------------------------------

    def _pool(self, call: cst.Call) -> cst.BaseExpression | None:
        """What several values are drawn from."""
        _, name, _ = self.draws.stream(call.func)
        if name not in ("choice", "sample", "choices") or not call.args:
            return None
        return call.args[0].value if call.args[0].keyword is None else None

    def _difference(
        self, node: cst.CSTNode, local: dict[str, cst.BaseExpression]
    ) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
        """All items and those that are taken away from them, where an expression does that."""
        node = self._unwrapped(node, local)
        if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract):
            if self._is_set(node.left, local) or self._is_set(node.right, local):
                return node.left, node.right
        if isinstance(node, cst.Call):
            plain = [a.value for a in node.args if a.keyword is None and not a.star]
            if self.names.dotted(node.func) == "numpy.setdiff1d" and len(plain) >= 2:
                return plain[0], plain[1]
            if attribute(node.func) == "difference" and len(plain) == 1:
                return node.func.value, plain[0]
        if isinstance(node, (cst.ListComp, cst.SetComp, cst.GeneratorExp)):
            loop = node.for_in
            if loop.inner_for_in is None and len(loop.ifs) == 1:
                test = loop.ifs[0].test
                same = word(node.elt) and word(node.elt) == word(loop.target)
                if same and isinstance(test, cst.Comparison) and _in(test) is False:
                    if word(test.left) == word(node.elt):
                        return loop.iter, test.comparisons[0].comparator
        return None

    def _is_set(self, node: cst.BaseExpression, local: dict[str, cst.BaseExpression]) -> bool:
        """Whether an expression is seen to be a set, so that `-` takes items away."""
        for _ in range(4):
            if isinstance(node, cst.Name):
                made = local.get(node.value) or self._made(node)
                if made is None:
                    return False
                node = made
        if isinstance(node, cst.Call):
            return self.names.dotted(node.func) in ("set", "frozenset")
        return isinstance(node, (cst.Set, cst.SetComp))

    def _is_distinct(
        self, node: cst.BaseExpression, local: dict[str, cst.BaseExpression], depth: int = 0
    ) -> bool:
        """Whether no item can stand in a container twice."""
        if isinstance(node, cst.Name) and depth < 4:
            made = local.get(node.value) or self._made(node)
            return made is not None and self._is_distinct(made, local, depth + 1)
        if isinstance(node, cst.Call):
            dotted = self.names.dotted(node.func)
            if dotted in ("set", "frozenset", "range", "numpy.arange", "numpy.unique"):
                return True
            if dotted in _WRAPPERS and len(node.args) == 1:
                return self._is_distinct(node.args[0].value, local, depth + 1)
            return attribute(node.func) in ("unique", "keys")
        return isinstance(node, (cst.Set, cst.SetComp))

    def _unwrapped(
        self, node: cst.CSTNode, local: dict[str, cst.BaseExpression], arrays: bool = False
    ) -> cst.CSTNode:
        """The expression behind local names and calls that only change the container."""
        for _ in range(20):
            if isinstance(node, cst.Name) and node.value in local:
                node = local[node.value]
                continue
            if isinstance(node, cst.Call):
                dotted = self.names.dotted(node.func)
                if dotted in _WRAPPERS and len(node.args) == 1 and node.args[0].keyword is None:
                    node = node.args[0].value
                    continue
                if arrays and not node.args and attribute(node.func) in _ARRAYS:
                    node = node.func.value
                    continue
            if arrays and attribute(node) == "values":
                node = node.value
                continue
            break
        return node

    def _per_user(self, loop: cst.For, call: cst.Call) -> UserDraws:
        function = self.tree.function(loop)
        user = word(loop.target)
        statements = _body(loop)
        local = _locals_of(loop)
        found = self._difference(self._pool(call), local)
        if user is None or loop.orelse is not None or found is None:
            raise Unclear("shape", loop, "the loop does not run over one user at a time")
        everything, own = found
        consumer = statements[-1]
        if not isinstance(consumer, cst.For) or consumer.orelse is not None:
            raise Unclear(
                "shape", self.tree.statement(call),
                "what is drawn for a user is not put into rows by a loop at the end",
            )
        item = word(consumer.target)
        is_direct = self._unwrapped(consumer.iter, {}, arrays=True) is call
        drawn = "" if is_direct else word(consumer.iter)
        if item is None or drawn is None:
            raise Unclear("shape", consumer, "the loop over the drawn items is not understood")
        short = self._only_defines(statements[:-1], drawn, call, local)
        count, replace, in_draw = self._size(call, local)
        if count is None:
            raise Unclear("odds", call, "the arguments of the draw are not understood")
        short = short or in_draw
        body = _body(consumer)
        loose = (set(local) | {drawn}) & set(_words(body))
        leaves = (cst.Break, cst.Return, cst.Yield)
        if loose or any(isinstance(n, leaves) for s in body for n in walk(s)):
            raise Unclear(
                "shape", consumer, "the rows need more of the draw than the user and the item"
            )
        self._fixed(count, {user, *local}, call, "how many are drawn differs from user to user")
        items = self._unwrapped(everything, local)
        is_kept = isinstance(self._unwrapped(self._pool(call), local), cst.ListComp)
        if is_kept and not self._is_distinct(everything, local):
            raise Unclear("shape", items, "an item may stand in the list more than once")
        if replace and not self._is_distinct(items, local):
            items = cst.parse_expression(f"set({self.tree.code(items)})")
        self._fixed(items, {user, *local}, call, "what is drawn from differs from user to user")
        seen = self._own_items(own, user, item, local)
        self._unchanged(body, [seen.code, self.tree.code(items)])
        self._ends(function, loop, {user, item, drawn, *local})
        return UserDraws(
            function, loop, user, item, self.tree.code(self._untimed(loop.iter)),
            self.tree.code(items), seen, self.tree.code(count), replace, short,
            self.draws.seed(call), body,
        )

    def _only_defines(
        self,
        statements: Sequence[cst.CSTNode],
        drawn: str,
        call: cst.Call,
        local: dict[str, cst.BaseExpression],
    ) -> bool:
        """Whether a user with few items left gets all of them; nothing else may happen before."""
        short = False
        for statement in statements:
            if isinstance(statement, cst.If) and self.tree.is_within(call, statement):
                short = self._all_or_some(statement, drawn, call, local)
            elif _assigned_name(statement) is None or not self._is_pure(statement, call):
                raise Unclear("shape", statement, "something else is done for each user")
            elif _assigned_name(statement) == drawn and isinstance(statement.value, cst.IfExp):
                chosen = statement.value
                draws_first = self.tree.is_within(call, chosen.body)
                self._guards(chosen.test, call, local, draws_first)
                sides = [chosen.body, chosen.orelse]
                self._is_all(sides[0 if draws_first else 1], call)
                self._is_rest(sides[1 if draws_first else 0], call, local)
                short = True
            elif self.tree.is_within(call, statement):
                self._is_all(statement.value, call)
        return short

    def _is_all(self, node: cst.BaseExpression, call: cst.Call) -> None:
        if self._unwrapped(node, {}, arrays=True) is not call:
            raise Unclear("shape", node, "more is done with the draw than to run over it")

    def _is_pure(self, node: cst.CSTNode, *known: cst.CSTNode) -> bool:
        """Whether all calls, besides the known ones, only compute a value."""
        return all(
            call in known
            or self.names.dotted(call.func) in _WRAPPERS | _PURE
            or attribute(call.func) in _ARRAYS | {"get", "difference", "isin", "keys", "item"}
            for call in self.tree.calls_within(node)
        )

    def _all_or_some(
        self, branch: cst.If, drawn: str, call: cst.Call, local: dict[str, cst.BaseExpression]
    ) -> bool:
        """`if len(left) >= k: drawn = choice(left, k) else: drawn = left`, either way round."""
        both = [list(statements_of(branch.body))]
        if isinstance(branch.orelse, cst.Else):
            both.append(list(statements_of(branch.orelse.body)))
        if len(both) != 2 or any(len(s) != 1 or _assigned_name(s[0]) != drawn for s in both):
            raise Unclear("shape", branch, "a user with few items left is treated in its own way")
        draws_first = self.tree.is_within(call, both[0][0])
        self._guards(branch.test, call, local, draws_first)
        self._is_all(both[0 if draws_first else 1][0].value, call)
        self._is_rest(both[1 if draws_first else 0][0].value, call, local)
        return True

    def _guards(
        self, test: cst.CSTNode, call: cst.Call, local: dict[str, cst.BaseExpression], draws: bool
    ) -> None:
        """The test is whether so many items are left."""
        code = self.tree.plain(test)
        pool = self._base(self._pool(call), local)
        count = self.tree.plain(self._size(call, local)[0] or call)
        signs = (">=", ">") if draws else ("<", "<=")
        wanted = {f"len({pool}){sign}{count}" for sign in signs}
        flipped = {">=": "<=", ">": "<", "<": ">", "<=": ">="}
        wanted |= {f"{count}{flipped[sign]}len({pool})" for sign in signs}
        if code not in wanted:
            raise Unclear("shape", test, "a user with few items left is treated in its own way")

    def _is_rest(
        self, node: cst.CSTNode, call: cst.Call, local: dict[str, cst.BaseExpression]
    ) -> None:
        if self._base(node, local) != self._base(self._pool(call), local):
            raise Unclear("shape", node, "a user with few items left gets something else")

    def _base(self, node: cst.CSTNode, local: dict[str, cst.BaseExpression]) -> str:
        """The name of the local that holds the items left, however it is wrapped."""
        while True:
            if isinstance(node, cst.Call) and self.names.dotted(node.func) in _WRAPPERS:
                if len(node.args) != 1:
                    break
                node = node.args[0].value
            elif isinstance(node, cst.Name) and isinstance(local.get(node.value), cst.Call):
                inner = local[node.value]
                if self.names.dotted(inner.func) not in _WRAPPERS or len(inner.args) != 1:
                    break
                if word(inner.args[0].value) not in local:
                    break
                node = inner.args[0].value
            else:
                break
        return self.tree.plain(node)

    def _size(
        self, call: cst.Call, local: dict[str, cst.BaseExpression]
    ) -> tuple[cst.BaseExpression | None, bool, bool]:
        """How many are drawn, whether with replacement, and whether fewer where few are left."""
        kind, name, _ = self.draws.stream(call.func)
        given = {a.keyword.value: a.value for a in call.args if a.keyword is not None}
        plain = [a.value for a in call.args if a.keyword is None and not a.star]
        order = {"choice": ("a", "size", "replace"), "sample": ("population", "k"),
                 "choices": ("population",)}[name]
        given.update(zip(order, plain))
        known = {*order, *({"k"} if name == "choices" else ())}
        size = given.get("size" if name == "choice" else "k")
        if size is None or not set(given) <= known or len(plain) > len(order):
            return None, False, False
        replace = name == "choices"
        if name == "choice":
            says = self.tree.code(given["replace"]) if "replace" in given else "True"
            if says not in ("True", "False"):
                return None, False, False
            replace = says == "True"
        if isinstance(size, cst.Name) and size.value in local:
            size = local[size.value]
        short = False
        if isinstance(size, cst.Call) and self.names.dotted(size.func) == "min":
            left = f"len({self._base(self._pool(call), local)})"
            parts = [a.value for a in size.args]
            counts = [p for p in parts if self.tree.plain(p) != left]
            if len(parts) != 2 or len(counts) != 1 or replace:
                return None, False, False
            size, short = counts[0], True
        return size, replace, short

    def _own_items(
        self,
        node: cst.BaseExpression,
        user: str,
        item: str,
        local: dict[str, cst.BaseExpression],
    ) -> Seen:
        """The items of one user: a column where another is the user, or a container's entry."""
        columns = self._filtered(self._unwrapped(node, local, arrays=True), user)
        if columns is not None:
            return Seen(f"({columns[0]}, {columns[1]})", True)
        parent = self.tree.parents.get(node)
        of, seen = self._entry(
            node, item, local, {user}, made_set=isinstance(parent, cst.Arg)
        )
        if of != user:
            raise Unclear("shape", node, "the positives of a user are not understood")
        return seen

    def _filtered(self, node: cst.CSTNode, user: str) -> tuple[str, str] | None:
        """The columns of `frame[frame[users] == user][items]`, and of its form with `.loc`."""
        mask: cst.CSTNode | None = None
        frame = items = ""
        if isinstance(node, cst.Subscript) and attribute(node.value) == "loc":
            if len(node.slice) == 2 and all(isinstance(s.slice, cst.Index) for s in node.slice):
                frame = self.tree.code(node.value.value)
                mask = node.slice[0].slice.value
                items = f"{frame}[{self.tree.code(node.slice[1].slice.value)}]"
        elif isinstance(node, (cst.Subscript, cst.Attribute)):
            inner = node.value
            if isinstance(inner, cst.Subscript) and len(inner.slice) == 1:
                index = inner.slice[0].slice
                mask = index.value if isinstance(index, cst.Index) else None
                base = inner.value.value if attribute(inner.value) == "loc" else inner.value
                frame = self.tree.code(base)
                tail = self.tree.code(node)[len(self.tree.code(inner)) :]
                items = frame + tail
        if not isinstance(mask, cst.Comparison) or len(mask.comparisons) != 1:
            return None
        if not isinstance(mask.comparisons[0].operator, cst.Equal):
            return None
        sides = [mask.left, mask.comparisons[0].comparator]
        plain = "".join(frame.split())
        column = [s for s in sides if self.tree.plain(s).startswith(plain) and word(s) != user]
        if len(column) != 1 or user not in (word(sides[0]), word(sides[1])):
            return None
        if not isinstance(column[0], (cst.Subscript, cst.Attribute)):
            return None
        if self.tree.plain(column[0].value) != plain or user in _words([column[0]]):
            return None
        return self.tree.code(column[0]), items

    # -- so many pairs ---------------------------------------------------------------------

    def _pairs(self, loop: cst.CSTNode, call: cst.Call) -> PairDraws:
        function = self.tree.function(loop)
        statements = _body(loop)
        draws, test, body = self._drawn_pair(statements, loop)
        first, second = _pair(test.left)
        by_name = {name: draw for name, draw in draws}
        if set(by_name) != {first, second} or len(draws) != 2:
            raise Unclear("shape", loop, "more is drawn than a user and an item")
        container = test.comparisons[0].comparator
        self._fixed(container, set(by_name), test, "what is a positive depends on the draw")
        seen, swapped = self._container(container, first, second, test)
        user, item = (second, first) if swapped else (first, second)
        rows = ""
        if isinstance(loop, cst.While):
            rows, count = self._growing(loop, body, function)
        else:
            count = self._times(loop)
            if (word(loop.target) or "") in _words(body):
                raise Unclear("shape", loop, "the number of the row is part of the row")
        written = set(_assigned_names(body))
        self._fixed(count, {user, item, *written}, loop, "how many rows are drawn changes")
        for draw in by_name.values():
            self._fixed(
                cst.parse_expression(draw.items), {user, item, *written}, draw.call,
                "what is drawn from changes from row to row",
            )
        if any(isinstance(n, (cst.Break, cst.Return, cst.Yield)) for s in body for n in walk(s)):
            raise Unclear("rows", loop, "the loop may end before all rows are drawn")
        self._unchanged(body, [seen.code, by_name[user].items, by_name[item].items])
        table = self._table(body, user, item, function, loop)
        self._ends(function, loop, {user, item, *written})
        return PairDraws(
            function, loop, user, item, by_name[user].items, by_name[item].items, seen,
            self.tree.code(count), by_name[user].seed, tuple(body), table,
        )

    def _drawn_pair(
        self, statements: Sequence[cst.CSTNode], loop: cst.CSTNode
    ) -> tuple[list[tuple[str, Draw]], cst.Comparison, list[cst.CSTNode]]:
        """The draws at the head of a loop, the test of the pair, and what is done with it."""
        draws, rest = self._leading_draws(statements)
        after: list[cst.CSTNode] = []
        inner = rest[0] if rest else None
        if not draws and isinstance(inner, cst.While) and _is_true(inner.test):
            after = rest[1:]  # while True: draw; if it is no positive: use it, and leave
            draws, rest = self._leading_draws(_body(inner))
            test, body = self._branch(rest, loop)
            if not body or not isinstance(body[-1], cst.Break):
                raise Unclear("shape", inner, "the loop that draws again does not end plainly")
            return draws, test, [*body[:-1], *after]
        if isinstance(inner, cst.While):
            test = inner.test
            again, more = self._leading_draws(_body(inner))
            same = sorted((n, d.items) for n, d in again) == sorted((n, d.items) for n, d in draws)
            if not isinstance(test, cst.Comparison) or _in(test) is not True or more or not same:
                raise Unclear("shape", inner, "the loop that draws again does not draw the same")
            return draws, test, rest[1:]
        test, body = self._branch(rest, loop)
        if isinstance(loop, cst.For):
            raise Unclear("rows", loop, "a row whose pair is a positive is left out")
        return draws, test, body

    def _branch(
        self, statements: Sequence[cst.CSTNode], loop: cst.CSTNode
    ) -> tuple[cst.Comparison, list[cst.CSTNode]]:
        """`if pair not in positives: …`, or `if pair in positives: continue` and the rest."""
        first = statements[0] if statements else None
        if isinstance(first, cst.If) and first.orelse is None:
            test, inside = first.test, list(statements_of(first.body))
            known = isinstance(test, cst.Comparison) and _pair(test.left) is not None
            if known and _in(test) is False and len(statements) == 1:
                return test, inside
            leaves = len(inside) == 1 and isinstance(inside[0], cst.Continue)
            if known and _in(test) is True and leaves:
                return test, list(statements[1:])
        raise Unclear("shape", first or loop, "what follows the draw is not understood")

    def _leading_draws(
        self, statements: Sequence[cst.CSTNode]
    ) -> tuple[list[tuple[str, Draw]], list[cst.CSTNode]]:
        found: list[tuple[str, Draw]] = []
        rest = list(statements)
        while rest:
            bound = [(name, self.draws.of(value)) for name, value in _bound(rest[0])]
            if not bound or any(draw is None for _, draw in bound):
                break
            found += [(name, self.draws.even(draw)) for name, draw in bound]
            rest.pop(0)
        return found, rest

    def _growing(
        self, loop: cst.While, body: Sequence[cst.CSTNode], function: cst.CSTNode
    ) -> tuple[str, cst.BaseExpression]:
        """`while len(rows) < n`, where each pass puts one more into an empty list."""
        rows = word(loop.test.left.args[0].value)
        count = loop.test.comparisons[0].comparator
        for statement in body:
            for node in walk(statement):
                if isinstance(node, cst.Continue) and next(
                    a for a in self.tree.ancestors(node) if isinstance(a, LOOPS)
                ) is loop:
                    raise Unclear("rows", node, "a drawn pair may be left out")
        grows = [s for s in body if _appended(s, rows) is not None]
        others = [
            n for s in body for n in walk(s) if isinstance(n, cst.Name) and n.value == rows
        ]
        if len(grows) != 1 or len(others) != 1:
            raise Unclear("rows", loop, "the list does not grow by one row at a time")
        self._start(loop, rows, function)
        return rows, count

    def _start(self, loop: cst.CSTNode, rows: str, function: cst.CSTNode) -> cst.CSTNode:
        """The statement that makes a list empty; nothing may fill it before the loop."""
        before = [
            n for n in walk(function)
            if isinstance(n, cst.Name) and n.value == rows
            and self.tree.order[n] < self.tree.order[loop]
        ]
        statement = self.tree.statement(before[-1]) if before else loop
        empty = (
            _assigned_name(statement) == rows
            and self.tree.plain(statement.value) in ("[]", "list()")
            and self.tree.block(statement) is self.tree.block(loop)
        )
        if not empty:
            raise Unclear("rows", loop, f"{rows} is not seen to be empty before the loop")
        return statement

    def _times(self, loop: cst.For) -> cst.BaseExpression:
        iterated = self._untimed(loop.iter)
        if isinstance(iterated, cst.Call) and self.names.dotted(iterated.func) in (
            "range", "tqdm.trange", "tqdm.auto.trange"
        ):
            if len(iterated.args) == 1 and loop.orelse is None:
                return iterated.args[0].value
        raise Unclear("rows", loop, "how many rows the loop draws is not a plain range")

    def _container(
        self, node: cst.BaseExpression, first: str, second: str, test: cst.Comparison
    ) -> tuple[Seen, bool]:
        """The positives that pairs are looked up in, as columns where a set was made of them."""
        columns = self._set_columns(node, test)
        if columns is not None:
            return Seen(f"({columns[0]}, {columns[1]})", True), False
        plain = node
        if isinstance(plain, cst.Call) and attribute(plain.func) == "keys" and not plain.args:
            plain = plain.func.value
        if not isinstance(plain, (cst.Name, cst.Attribute)):
            raise Unclear("shape", test, "what the pair is looked up in is not understood")
        pair = self.tree.code(test.left)
        code = f"lambda {first}, {second}: {pair} in {self.tree.code(node)}"
        return Seen(code, False), False

    def _set_columns(
        self, node: cst.BaseExpression, place: cst.CSTNode
    ) -> tuple[str, str] | None:
        """The columns that a set was made of, where they are still the same at a place below."""
        made = self._made(node)
        columns = self._zipped(made) if made is not None else None
        function = self.tree.function(place)
        if columns is None or self.tree.function(made) is not function:
            return None
        start, end = self.tree.order[self.tree.statement(made)], self.tree.order[place]
        if any(self._hands_on(n) for n in walk(function) if word(n) == node.value):
            return None
        roots = _roots(columns)
        for statement in walk(function):
            if not start < self.tree.order[statement] < end:
                continue
            in_place = isinstance(statement, cst.Arg) and statement.keyword is not None and (
                statement.keyword.value == "inplace"
            )
            bound = isinstance(statement, (cst.AssignTarget, cst.AugAssign, cst.For))
            if in_place or bound and roots & _targets(statement.target):
                return None
        return columns

    def _hands_on(self, node: cst.CSTNode) -> bool:
        """Whether a name gives its value to something that may change it."""
        parent = self.tree.parents.get(node)
        if isinstance(parent, cst.Arg):
            call = self.tree.parents[parent]
            dotted = self.names.dotted(call.func) if isinstance(call, cst.Call) else ""
            return dotted not in _WRAPPERS | _PURE | {"print", "enumerate", "tqdm.tqdm"}
        return isinstance(parent, (cst.Assign, cst.Element, cst.DictElement)) and (
            parent.value is node
        )

    def _made(self, node: cst.BaseExpression) -> cst.BaseExpression | None:
        """The one value of a local name, where nothing else changes it."""
        variable = self.names.variable(node) if isinstance(node, cst.Name) else None
        bound = self.names.assignments.get(variable, []) if variable is not None else []
        if len(bound) != 1 or bound[0].index is not None or bound[0].kind != "assign":
            return None
        if any(
            isinstance(c.func, cst.Attribute) and c.func.attr.value in _MUTATORS
            and word(c.func.value) == node.value
            for c in self.tree.all(cst.Call)
        ):
            return None
        return bound[0].value

    def _zipped(self, node: cst.BaseExpression) -> tuple[str, str] | None:
        """The two columns of `set(zip(a, b))` and of a set of a matrix's rows."""
        if isinstance(node, cst.SetComp) and node.for_in.inner_for_in is None:
            pair, target = _pair(node.elt), _pair(node.for_in.target)
            if node.for_in.ifs or pair is None or pair != target:
                return None
            return self._columns(node.for_in.iter)
        if not isinstance(node, cst.Call) or self.names.dotted(node.func) not in (
            "set", "frozenset", "list"
        ):
            return None
        return self._columns(node.args[0].value) if len(node.args) == 1 else None

    def _columns(self, node: cst.BaseExpression) -> tuple[str, str] | None:
        if not isinstance(node, cst.Call) or len(node.args) != 2:
            return None
        first, second = (a.value for a in node.args)
        dotted = self.names.dotted(node.func)
        if dotted == "zip" and all(self._again(a) for a in (first, second)):
            return self.tree.code(first), self.tree.code(second)
        if dotted == "map" and self.names.dotted(first) == "tuple":
            if isinstance(second, cst.Call) and attribute(second.func) == "tolist":
                matrix = self.tree.code(second.func.value)
                if isinstance(second.func.value, (cst.Name, cst.Attribute)):
                    return f"{matrix}[:, 0]", f"{matrix}[:, 1]"
        return None

    # -- rows of a table -------------------------------------------------------------------

    def _table(
        self,
        body: Sequence[cst.CSTNode],
        user: str,
        item: str,
        function: cst.CSTNode,
        loop: cst.CSTNode,
    ) -> TableRows | None:
        """How a body that looks up features makes its row; None where it looks nothing up."""
        lookups = []
        for statement in body:
            found = self._lookup(statement, {user, item})
            if found is not None:
                lookups.append(found)
        searches = [
            n for s in body for n in walk(s)
            if isinstance(n, cst.Comparison) and isinstance(n.comparisons[0].operator, cst.Equal)
            and {word(n.left), word(n.comparisons[0].comparator)} & {user, item}
        ]
        if not lookups and not searches:
            return None
        if len(lookups) != len(searches):
            raise Unclear(
                "lookup", searches[0], "what is looked up for a row is not its first match"
            )
        held = {name for _, name, *_ in lookups}
        append, row, rows = None, "", ""
        for statement in body:
            if any(statement is found[0] for found in lookups):
                continue
            if append is not None:
                raise Unclear("lookup", statement, "something is done after the row is complete")
            name = _assigned_name(statement)
            if name and isinstance(statement.value, cst.Dict) and not row:
                row = name
                self._values_of(statement.value, {user, item}, held)
            elif self._fills(statement, row, held, {user, item}):
                continue
            else:
                target = _appended_to(statement)
                given = _appended(statement, target)
                if isinstance(given, cst.Dict) and not row:
                    row = self.tree.code(given)
                    self._values_of(given, {user, item}, held)
                elif target is None or not row or word(given) != row:
                    raise Unclear("lookup", statement, "how the row is made is not understood")
                append, rows = statement, target
        if append is None:
            raise Unclear("lookup", body[-1], "the row is not put into a list")
        start = self._start(loop, rows, function)
        after = [
            n for n in walk(function)
            if isinstance(n, cst.Name) and n.value == rows
            and self.tree.order[n] > self.tree.order[body[-1]]
            and not self.tree.is_within(n, loop)
        ]
        for read in after:
            argument = self.tree.parents[read]
            call = self.tree.parents.get(argument)
            is_frame = (
                isinstance(call, cst.Call) and self.names.dotted(call.func) == "pandas.DataFrame"
                and len(call.args) == 1
            )
            if not is_frame:
                raise Unclear("lookup", read, f"{rows} is used for more than a DataFrame")
        if not after:
            raise Unclear("lookup", append, f"{rows} is not seen to become a DataFrame")
        return TableRows(tuple(lookups), append, row, rows, start)

    def _lookup(
        self, statement: cst.CSTNode, ids: set[str]
    ) -> tuple[cst.CSTNode, str, str, str, str] | None:
        """`name = frame[frame[key] == id].iloc[0]`"""
        name = _assigned_name(statement)
        value = statement.value if name else None
        if not isinstance(value, cst.Subscript) or attribute(value.value) != "iloc":
            return None
        first = getattr(value.slice[0].slice, "value", None)
        if len(value.slice) != 1 or not isinstance(first, cst.Integer) or first.evaluated_value:
            return None
        search = value.value.value
        if not isinstance(search, cst.Subscript) or len(search.slice) != 1:
            return None
        frame = search.value.value if attribute(search.value) == "loc" else search.value
        mask = getattr(search.slice[0].slice, "value", None)
        if not isinstance(mask, cst.Comparison) or len(mask.comparisons) != 1:
            return None
        column, wanted = mask.left, word(mask.comparisons[0].comparator)
        if not isinstance(mask.comparisons[0].operator, cst.Equal) or wanted not in ids:
            return None
        if not isinstance(column, cst.Subscript) or len(column.slice) != 1:
            return None
        if self.tree.plain(column.value) != self.tree.plain(frame):
            return None
        key = column.slice[0].slice.value
        if set(_words([frame, key])) & ids:
            return None
        return statement, name, self.tree.code(frame), self.tree.code(key), wanted

    def _values_of(self, row: cst.Dict, ids: set[str], held: set[str]) -> None:
        """Each value of the row is a drawn id, a looked up feature, or the same for all rows."""
        drawn = False
        for element in row.elements:
            value = getattr(element, "value", None)
            if not isinstance(element, cst.DictElement):
                raise Unclear("lookup", element, "the row takes in another dict")
            drawn = drawn or word(value) in ids
            if word(value) not in ids and not self._same_for_all(value, ids, held):
                raise Unclear("lookup", value, "a value of the row is computed for each row")
        if not drawn:
            raise Unclear("lookup", row, "the row does not hold the drawn ids")

    def _same_for_all(self, value: cst.CSTNode, ids: set[str], held: set[str]) -> bool:
        if isinstance(value, cst.Subscript):
            return word(value.value) in held and not set(_words([value.slice[0]])) & ids
        if isinstance(value, cst.UnaryOperation):
            value = value.expression
        literal = isinstance(value, (cst.Integer, cst.Float, cst.SimpleString))
        return literal or (word(value) in ("True", "False", "None"))

    def _fills(self, statement: cst.CSTNode, row: str, held: set[str], ids: set[str]) -> bool:
        """`for column in frame.columns: row[column] = features[column]`, `if` or not; or one."""
        if not row:
            return False
        if isinstance(statement, cst.For) and statement.orelse is None:
            column = word(statement.target)
            if column is None or column in ids | held | {row}:
                return False
            if set(_words([statement.iter])) & ids:
                return False
            return all(self._fills(s, row, held, ids) for s in _body(statement))
        if isinstance(statement, cst.If) and statement.orelse is None:
            if set(_words([statement.test])) & (ids | held | {row}):
                return False
            return all(self._fills(s, row, held, ids) for s in statements_of(statement.body))
        if isinstance(statement, (cst.Continue, cst.Pass)):
            return True
        if isinstance(statement, cst.Assign) and len(statement.targets) == 1:
            target = statement.targets[0].target
            if isinstance(target, cst.Subscript) and word(target.value) == row:
                value = statement.value
                return word(value) in ids or self._same_for_all(value, ids, held)
        return False

    # -- for each row an item that is no positive ----------------------------------------------

    def _per_row(self, inner: cst.CSTNode, call: cst.Call) -> RowDraw:
        function = self.tree.function(inner)
        if not isinstance(inner, cst.For) or inner.orelse is not None:
            raise Unclear("shape", inner, "rows are not drawn by a `for` loop")
        item, first, retry, test = self._redrawn(inner, call)
        chain: list[cst.For] = [inner]
        while True:
            parent = self.tree.parents.get(self.tree.parents[chain[0]])
            if not isinstance(parent, cst.For) or parent.orelse is not None:
                break
            chain.insert(0, parent)
        draw = self.draws.of((first if first is not None else _body(retry)[0]).value)
        user, seen, bound = self._user_of(test, item, chain)
        chain, users = self._user_column(user, bound, chain)
        again = bound & {w for loop in chain for w in _assigned_names(_body(loop))} - {
            n.value for loop in chain[1:] for n in names_in(loop.target)
        }
        if again:
            raise Unclear("rows", chain[0], f"{min(again)} is set anew in the loop")
        last = chain[-1]
        count = "1"
        if len(chain) > 1 and not set(_words([last.target])) & bound:
            number = self._times(last)
            self._fixed(
                number, {w for loop in chain for w in _assigned_names([loop])}, last,
                "how many are drawn differs from row to row",
            )
            count, chain = self.tree.code(number), chain[:-1]
        if not self._is_pure(cst.parse_expression(users)):
            raise Unclear("rows", chain[0], "the user of a row is computed by a call")
        users_code, rows = self._comprehension(users, chain)
        changing = {w for loop in chain for w in _assigned_names([loop])}
        self._fixed(
            cst.parse_expression(draw.items), changing, draw.call,
            "what is drawn from differs from row to row",
        )
        self._always_runs(chain, inner, first or retry)
        self._unchanged([chain[0]], [seen.code, draw.items, users_code])
        return RowDraw(
            function, chain[0], item, first, retry, users_code, draw.items, seen, count,
            draw.seed, rows,
        )

    def _redrawn(
        self, inner: cst.For, call: cst.Call
    ) -> tuple[str, cst.CSTNode | None, cst.While, cst.Comparison]:
        """The drawn name, its first draw, the loop that draws again and its test."""
        statements = _body(inner)
        own = [s for s in statements if isinstance(s, cst.While) and self._draws_again(s)]
        if len(own) != 1:
            raise Unclear(
                "shape", self.tree.statement(call), "the draw and its test are not in one place"
            )
        retry = own[0]
        inside = _body(retry)
        if _is_true(retry.test):
            draws, rest = self._leading_draws(inside)
            plain = len(draws) == 1 and len(rest) == 1 and isinstance(rest[0], cst.If)
            if plain and rest[0].orelse is None and isinstance(rest[0].test, cst.Comparison):
                leaves = list(statements_of(rest[0].body))
                is_left = len(leaves) == 1 and isinstance(leaves[0], cst.Break)
                if _in(rest[0].test) is False and is_left:
                    return draws[0][0], None, retry, rest[0].test
            raise Unclear("shape", retry, "the loop that draws again does more than that")
        index = statements.index(retry)
        first = statements[index - 1] if index else None
        item = _assigned_name(first) if first is not None else None
        before = self.draws.of(first.value) if item else None
        if before is not None:
            self.draws.even(before)
        draws, rest = self._leading_draws(inside)
        test = retry.test
        same = before and len(draws) == 1 and not rest and draws[0][0] == item
        if not same or draws[0][1].items != before.items or not isinstance(test, cst.Comparison):
            raise Unclear("shape", retry, "the loop that draws again does not draw the same")
        if _in(test) is not True:
            raise Unclear("shape", retry, "the test of the draw is not understood")
        return item, first, retry, test

    def _draws_again(self, loop: cst.While) -> bool:
        return any(self.draws.is_random(call) for call in self.tree.calls_within(loop))

    def _user_of(
        self, test: cst.Comparison, item: str, chain: Sequence[cst.For]
    ) -> tuple[str, Seen, set[str]]:
        """The user as an expression of the loops' targets, the positives, and those targets."""
        targets = {n.value for loop in chain for n in names_in(loop.target)}
        local = {k: v for loop in chain for k, v in _locals_of(loop).items() if k not in targets}
        pair, container = test.left, test.comparisons[0].comparator
        if isinstance(pair, (cst.Tuple, cst.List)):
            others = [e.value for e in pair.elements if word(e.value) != item]
            if len(pair.elements) != 2 or len(others) != 1:
                raise Unclear("shape", test, "the test is not of a user and an item")
            user = self._inlined(others[0], local)
            seen = self._pairs_seen(test, others[0], item, local)
        else:
            inner = self._unwrapped(container, local, arrays=True)
            filtered = [(t, self._filtered(inner, t)) for t in targets & set(_words([inner]))]
            found = next(((t, columns) for t, columns in filtered if columns is not None), None)
            if found is not None:
                user, (one, two) = found
                seen = Seen(f"({one}, {two})", True)
            else:
                user, seen = self._entry(container, item, local, targets)
        bound = {n.value for n in names_in(cst.parse_expression(user))} & targets
        if not bound:
            raise Unclear("shape", test, "the user is not known before the loop")
        return user, seen, bound

    def _pairs_seen(
        self,
        test: cst.Comparison,
        user: cst.BaseExpression,
        item: str,
        local: dict[str, cst.BaseExpression],
    ) -> Seen:
        """The positives that `(user, item)` is looked up in."""
        container = test.comparisons[0].comparator
        self._fixed(container, set(local), test, "the positives change from row to row")
        columns = self._set_columns(container, test)
        if columns is not None:
            is_second = word(test.left.elements[0].value) == item
            one, two = reversed(columns) if is_second else columns
            return Seen(f"({one}, {two})", True)
        self._is_looked_up(container)
        name = word(user) or "user"
        parts = [name if e.value is user else item for e in test.left.elements]
        left, right = ("[", "]") if isinstance(test.left, cst.List) else ("(", ")")
        code = f"{left}{', '.join(parts)}{right} in {self.tree.code(container)}"
        return Seen(f"lambda {name}, {item}: {code}", False)

    def _is_looked_up(self, container: cst.CSTNode) -> None:
        for call in self.tree.calls_within(container):
            if not self._is_pure(call):
                raise Unclear(
                    "shape", call, "what the draw is looked up in is computed each time"
                )

    def _entry(
        self,
        container: cst.BaseExpression,
        item: str,
        local: dict[str, cst.BaseExpression],
        names: set[str],
        made_set: bool = False,
    ) -> tuple[str, Seen]:
        """The user, and the test, of items that are the user's entry: `owned[user]`, `.get(user)`.

        made_set: the entry is run over, and not asked by `in`, which of a column looks at labels.
        """
        entry = self._unwrapped(container, local, arrays=True)
        base = index = None
        if isinstance(entry, cst.Subscript) and len(entry.slice) == 1:
            base, index = entry.value, getattr(entry.slice[0].slice, "value", None)
        elif isinstance(entry, cst.Call) and attribute(entry.func) == "get" and entry.args:
            base, index = entry.func.value, entry.args[0].value
        if index is None or set(_words([base])) & (names | set(local)):
            raise Unclear("shape", container, "the positives of the row's user are not seen")
        self._is_looked_up(container)
        user = self._inlined(index, local)
        code = self._inlined(container, local)
        name = user if user.isidentifier() else "user"
        code = code.replace(f"[{user}]", f"[{name}]").replace(f".get({user}", f".get({name}")
        if made_set and not code.startswith(("set(", "frozenset(")):
            code = f"set({code})"
        left = {n.value for n in names_in(cst.parse_expression(code))} & (names | set(local))
        if not left <= {name}:
            raise Unclear("shape", container, "the positives of the row's user are not seen")
        return user, Seen(f"lambda {name}, {item}: {item} in {code}", False)

    def _inlined(self, node: cst.BaseExpression, local: dict[str, cst.BaseExpression]) -> str:
        """The code of an expression, with names that a loop binds once replaced by their value."""
        code = self.tree.code(node)
        for _ in range(4):
            names = {n.value for n in names_in(cst.parse_expression(code))} & set(local)
            for name in names:
                value = self.tree.code(local[name])
                simple = isinstance(local[name], (cst.Name, cst.Attribute, cst.Subscript, cst.Call))
                value = value if simple else f"({value})"
                code = re.sub(rf"(?<![\w.'\"]){name}(?![\w'\"])", lambda _: value, code)
        return code

    def _user_column(
        self, user: str, bound: set[str], chain: list[cst.For]
    ) -> tuple[list[cst.For], str]:
        """The loops from the one that binds the user inwards."""
        for index, loop in enumerate(chain):
            if {n.value for n in names_in(loop.target)} & bound:
                return chain[index:], user
        raise Unclear("shape", chain[-1], "the user is not known before the loop")

    def _comprehension(
        self, users: str, chain: Sequence[cst.For]
    ) -> tuple[str, cst.BaseExpression | None]:
        """The user of every row as code, and the outer iterable where it must be kept in a list."""
        outer = self._untimed(chain[0].iter)
        for loop in chain[1:]:
            if not self._again(self._untimed(loop.iter)):
                raise Unclear("rows", loop, "what the loop runs over may be used up by one run")
        column = self._iterated_column(outer, chain[0].target, users)
        if column is not None and len(chain) == 1:
            return column, None
        rows = None if self._again(outer) else outer
        if rows is not None and outer is not chain[0].iter:
            raise Unclear("rows", chain[0], "what the loop runs over may be used up by one run")
        over = self.tree.code(outer) if rows is None else ROWS
        if len(chain) == 1 and self.tree.code(chain[0].target) == users:
            return over, rows
        loops = [f"for {self.tree.code(chain[0].target)} in {over}"]
        loops += [
            f"for {self.tree.code(loop.target)} in {self.tree.code(self._untimed(loop.iter))}"
            for loop in chain[1:]
        ]
        return f"[{users} {' '.join(loops)}]", rows

    def _iterated_column(
        self, outer: cst.BaseExpression, target: cst.BaseExpression, users: str
    ) -> str | None:
        """`frame[column]`, where the loop runs over `frame.iterrows()` and reads `row[column]`."""
        pair = _pair(target)
        if not isinstance(outer, cst.Call) or pair is None:
            return None
        if attribute(outer.func) != "iterrows" or outer.args:
            return None
        value = cst.parse_expression(users)
        as_int = isinstance(value, cst.Call) and word(value.func) == "int" and len(value.args) == 1
        if as_int:
            value = value.args[0].value
        if not isinstance(value, cst.Subscript) or word(value.value) != pair[1]:
            return None
        key = cst.Module([]).code_for_node(value)[len(pair[1]) :]
        return f"{self.tree.code(outer.func.value)}{key}{'.astype(int)' if as_int else ''}"

    def _again(self, node: cst.BaseExpression) -> bool:
        """Whether an iterable can surely be run through twice."""
        if isinstance(node, cst.Call):
            if self.names.dotted(node.func) in ("range", "list", "tuple", "set", "sorted", "len"):
                return True
            method = attribute(node.func)
            return method in {"keys", "items", "values", "iterrows", "itertuples", *_ARRAYS} and (
                not node.args
            )
        if isinstance(node, (cst.List, cst.Tuple, cst.Set, cst.ListComp, cst.Subscript)):
            return True
        if attribute(node) in {"values", "index", "columns"}:
            return True
        if isinstance(node, cst.Name):
            made = self._made(node)
            return made is not None and not isinstance(made, cst.Name) and self._again(made)
        return False

    def _always_runs(self, chain: Sequence[cst.For], inner: cst.For, draw: cst.CSTNode) -> None:
        """Each row draws once: nothing leaves a round before the draw, or draws a second time."""
        for node in walk(chain[0]):
            if isinstance(node, (cst.Continue, cst.Break, cst.Return, cst.Yield)):
                retry = any(isinstance(a, cst.While) for a in self._between(node, chain[0]))
                if not retry and self.tree.order[node] < self.tree.order[draw]:
                    raise Unclear("rows", node, "a row may be left out before its draw")
                if isinstance(node, cst.Yield):
                    raise Unclear("rows", node, "rows are given out one by one")
        first = self.tree.statement(draw)
        others = [
            n for n in walk(chain[0])
            if isinstance(n, cst.Call) and self.draws.is_random(n)
            and not self.tree.is_within(n, first)
            and not any(isinstance(a, cst.While) for a in self._between(n, chain[0]))
        ]
        if others:
            raise Unclear("shape", others[0], "the loop draws something else as well")
        retries = [
            n for n in walk(chain[0])
            if isinstance(n, cst.While) and self._draws_again(n)
        ]
        if len(retries) > 1:
            raise Unclear("shape", retries[1], "the loop draws in two places")

    def _between(self, node: cst.CSTNode, outer: cst.CSTNode) -> Iterator[cst.CSTNode]:
        for ancestor in self.tree.ancestors(node):
            if ancestor is outer:
                return
            yield ancestor

    # -- what must hold of all ----------------------------------------------------------------

    def _fixed(
        self, node: cst.CSTNode, names: set[str], place: cst.CSTNode, detail: str
    ) -> None:
        if set(_words([node])) & names:
            raise Unclear("rows", place, detail)

    def _unchanged(self, body: Sequence[cst.CSTNode], codes: Sequence[str]) -> None:
        """Nothing in the body changes what is drawn from or excluded."""
        roots = _roots(codes)
        called = {
            self.names.callee(call) for s in body for call in self.tree.calls_within(s)
        } - {None}
        for statement in (*body, *called):
            for node in walk(statement):
                changed = None
                if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
                    if node.func.attr.value in _MUTATORS:
                        changed = node.func.value
                elif isinstance(node, (cst.AugAssign, cst.AssignTarget)):
                    if isinstance(node.target, cst.Subscript) or isinstance(node, cst.AugAssign):
                        changed = node.target
                while isinstance(changed, cst.Subscript):
                    changed = changed.value
                name = word(changed) or attribute(changed) if changed is not None else None
                if name in roots:
                    raise Unclear("changing", node, f"{name} changes from row to row")

    def _ends(self, function: cst.CSTNode, loop: cst.CSTNode, names: set[str]) -> None:
        """What the loop binds is not read after it."""
        names = set(names)
        for node in walk(function):
            if not isinstance(node, cst.Name) or node.value not in names:
                continue
            if self.tree.order[node] < self.tree.order[loop] or self.tree.is_within(node, loop):
                continue
            parent = self.tree.parents[node]
            bound = isinstance(parent, (cst.AssignTarget, cst.For, cst.CompFor)) and (
                getattr(parent, "target", None) is node
            )
            named = isinstance(parent, cst.Attribute) and parent.attr is node
            if isinstance(parent, cst.Arg) and parent.keyword is node or named:
                continue
            if bound:
                names.discard(node.value)
                continue
            raise Unclear("after", node, f"{node.value} is used after the loop")

    def _untimed(self, node: cst.BaseExpression) -> cst.BaseExpression:
        """What a progress bar runs over."""
        if isinstance(node, cst.Call) and node.args and node.args[0].keyword is None:
            dotted = self.names.dotted(node.func) or ""
            if dotted.startswith("tqdm") and dotted.rpartition(".")[2] == "tqdm":
                return node.args[0].value
        return node


# -- syntax ----------------------------------------------------------------------------------


def _name_of(function: cst.CSTNode) -> str:
    return function.name.value if isinstance(function, cst.FunctionDef) else ""


def _words(nodes: Sequence[cst.CSTNode]) -> list[str]:
    return [n.value for node in nodes for n in names_in(node)]


def _roots(codes: Sequence[str]) -> set[str]:
    """The names and attributes that expressions read."""
    nodes = [node for code in codes for node in walk(cst.parse_expression(code))]
    return {n.value for n in nodes if isinstance(n, cst.Name)} - {"self"}


def _body(loop: Any) -> list[cst.CSTNode]:
    return list(statements_of(loop.body))


def _assigned_name(statement: cst.CSTNode) -> str | None:
    """The name that a plain assignment binds."""
    if isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        return word(statement.targets[0].target)
    if isinstance(statement, cst.AnnAssign) and statement.value is not None:
        return word(statement.target)
    return None


def _bound(statement: cst.CSTNode) -> list[tuple[str, cst.BaseExpression]]:
    """The names that an assignment binds with their values: `a = x`, `a, b = x, y`."""
    name = _assigned_name(statement)
    if name is not None:
        return [(name, statement.value)]
    if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
        return []
    target, value = statement.targets[0].target, statement.value
    if not isinstance(target, cst.Tuple) or not isinstance(value, cst.Tuple):
        return []
    names = [word(e.value) for e in target.elements]
    if not all(names) or len(names) != len(value.elements):
        return []
    return [(name, e.value) for name, e in zip(names, value.elements)]


def _assigned_names(statements: Sequence[cst.CSTNode]) -> Iterator[str]:
    """Every name that statements bind, loop targets too."""
    for statement in statements:
        for node in walk(statement):
            if isinstance(node, (cst.AssignTarget, cst.For, cst.AugAssign, cst.AnnAssign)):
                for name in walk(node.target):
                    if isinstance(name, cst.Name):
                        yield name.value
                        if isinstance(node.target, (cst.Subscript, cst.Attribute)):
                            break


def _targets(node: cst.CSTNode) -> set[str]:
    """The names that an assignment changes: `x` of `x[i] = …`, `a` of `self.a = …`."""
    if isinstance(node, cst.Subscript):
        return _targets(node.value)
    if isinstance(node, cst.Attribute):
        return {node.attr.value}
    return {n.value for n in walk(node) if isinstance(n, cst.Name)}


def _locals_of(loop: cst.For) -> dict[str, cst.BaseExpression]:
    """Names that the body of a loop binds once, directly, with their values."""
    every = list(_assigned_names(_body(loop)))
    found = {}
    for statement in _body(loop):
        name = _assigned_name(statement)
        if name and every.count(name) == 1:
            found[name] = statement.value
        elif isinstance(statement, cst.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0].target, statement.value
            parts = _parts(value, len(target.elements)) if isinstance(target, cst.Tuple) else []
            for element, part in zip(target.elements if parts else (), parts):
                name = word(element.value)
                if name and every.count(name) == 1:
                    found[name] = part
    return found


def _parts(value: cst.BaseExpression, count: int) -> list[cst.BaseExpression]:
    """What the names of `a, b = value` are bound to."""
    if isinstance(value, (cst.Tuple, cst.List)):
        return [e.value for e in value.elements] if len(value.elements) == count else []
    if isinstance(value, (cst.Name, cst.Attribute, cst.Subscript)):
        text = cst.Module([]).code_for_node(value)
        return [cst.parse_expression(f"{text}[{index}]") for index in range(count)]
    return []


def _pair(node: cst.CSTNode | None) -> list[str] | None:
    """The names of a pair of two plain names."""
    if not isinstance(node, (cst.Tuple, cst.List)) or len(node.elements) != 2:
        return None
    names = [word(e.value) for e in node.elements]
    return names if all(names) else None


def _in(node: cst.Comparison) -> bool | None:
    """True for `in`, False for `not in`, None for any other comparison."""
    if len(node.comparisons) != 1:
        return None
    operator = node.comparisons[0].operator
    if isinstance(operator, cst.In):
        return True
    return False if isinstance(operator, cst.NotIn) else None


def _is_true(node: cst.CSTNode) -> bool:
    return word(node) == "True" or (isinstance(node, cst.Integer) and node.value == "1")


def _is_counting(loop: cst.While) -> bool:
    """`while len(rows) < n`"""
    test = loop.test
    if not isinstance(test, cst.Comparison) or len(test.comparisons) != 1:
        return False
    left = test.left
    return (
        isinstance(test.comparisons[0].operator, cst.LessThan)
        and isinstance(left, cst.Call) and word(left.func) == "len" and len(left.args) == 1
        and word(left.args[0].value) is not None and loop.orelse is None
    )


def _appended_to(statement: cst.CSTNode) -> str | None:
    """The list that `rows.append(row)` grows."""
    call = statement.value if isinstance(statement, cst.Expr) else None
    if isinstance(call, cst.Call) and attribute(call.func) == "append" and len(call.args) == 1:
        return word(call.func.value)
    return None


def _appended(statement: cst.CSTNode, rows: str | None) -> cst.BaseExpression | None:
    if rows is not None and _appended_to(statement) == rows:
        return statement.value.args[0].value
    return None
