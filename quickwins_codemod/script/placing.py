"""Where new code may stand: expressions carried between functions, and names bound at a place."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import libcst as cst

from quickwins_codemod.script.branches import emptied
from quickwins_codemod.script.conditions import Conditions, literal_value
from quickwins_codemod.script.facts import Count, Frame, Training
from quickwins_codemod.script.names import Names, Variable, all_parameters, names_in
from quickwins_codemod.script.tree import Tree, statements_of, walk

_MUTATORS = {
    "append", "extend", "insert", "pop", "remove", "clear", "update", "add", "discard", "popleft",
    "appendleft", "setdefault",
}
_ENDS = (cst.Return, cst.Raise)
_BLACK_LINE = 88
_LONG_LINE = 100


@dataclass(frozen=True)
class Place:
    """A point between statements: directly after (or before) a statement in a function.

    inclusive: what the statement itself binds is bound here.
    """

    statement: cst.CSTNode
    inclusive: bool = True


class Placing:
    """Answers whether, and how, an expression can be written at another place."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names
        self.conditions = Conditions(tree, names)

    def after(self, statement: cst.CSTNode) -> Place:
        return Place(statement)

    def before(self, statement: cst.CSTNode) -> Place:
        return Place(statement, inclusive=False)

    # -- carrying an expression ------------------------------------------------------------

    def count_at(
        self, count: Count, frames: Sequence[Frame], place: Place, until: cst.CSTNode
    ) -> str | None:
        """The text of a count at a place, or None where it cannot be written there.

        until: the loop whose run the count is for; nothing the text reads may be bound again
        between the place and that loop's end.
        """
        pieces = []
        for part in count.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            text = self.expression_at(part, count.frame, frames, place, until, dict(count.fixed))
            if text is None:
                return None
            atomic = _is_atomic(part) or _is_wrapped(count.parts, part)
            pieces.append(text if atomic else self.operand(text))
        return "".join(pieces)

    def operand(self, text: str) -> str:
        """An expression's text with parentheses, unless it binds as closely as any operator."""
        return text if _is_simple(text) else f"({text})"

    def count_code(self, count: Count) -> str:
        """A count as it reads where it was found."""
        return "".join(p if isinstance(p, str) else self.tree.code(p) for p in count.parts)

    def expression_at(
        self,
        node: cst.BaseExpression,
        frame: int,
        frames: Sequence[Frame],
        place: Place,
        until: cst.CSTNode,
        fixed: Mapping[str, str] | None = None,
    ) -> str | None:
        """The text that has this expression's value at a place, or None.

        fixed: names that stand for a literal.
        """
        home = self.tree.function(place.statement)
        levels = [i for i, f in enumerate(frames) if f.function is home and i >= frame]
        known = {n: fixed[n.value] for n in names_in(node) if fixed and n.value in fixed}
        if known:
            text = self._substituted(node, known) if levels and levels[0] == frame else None
        elif levels:
            text = self._carried(node, frame, levels[0], frames)
        else:
            text = self._through_self(node, frame, frames, home)
        if text is None:
            return None
        if self._is_bound(text, home, place, until):
            return text
        if levels and levels[0] == frame and not known:
            inlined = self._inlined(node, until)
            if inlined is not None and self._is_bound(inlined, home, place, until):
                return inlined
        return None

    def _inlined(self, node: cst.BaseExpression, loop: cst.CSTNode, depth: int = 0) -> str | None:
        """An expression with what a loop sets written out: `n // size` for its `n_batch`."""
        replaced: dict[cst.CSTNode, str] = {}
        for name in names_in(node):
            variable = self.names.variable(name)
            found = self.names.assignments.get(variable, []) if variable is not None else []
            if not any(self.tree.is_within(a.statement, loop) for a in found):
                continue
            value = found[0].value
            plain = len(found) == 1 and found[0].kind == "assign" and found[0].index is None
            if not plain or value is None or not _is_pure(value) or depth > 2:
                return None
            text = self._inlined(value, loop, depth + 1)
            if text is None:
                return None
            replaced[name] = self.operand(text)
        return self._substituted(node, replaced)

    def _carried(
        self, node: cst.BaseExpression, level: int, goal: int, frames: Sequence[Frame]
    ) -> str | None:
        """Rewrite an expression of frame `level` in the terms of the outer frame `goal`."""
        if level == goal:
            return self.tree.code(node)
        replaced: dict[cst.CSTNode, str] = {}
        frame = frames[level]
        for name in names_in(node):
            text = self._name_outwards(name, level, goal, frames)
            if text is None:
                return None
            if text != name.value:
                replaced[name] = text
        if isinstance(node, (cst.Lambda, cst.BaseComp)) or frame.call is None:
            return None
        return self._substituted(node, replaced)

    def _name_outwards(
        self, name: cst.Name, level: int, goal: int, frames: Sequence[Frame]
    ) -> str | None:
        frame = frames[level]
        function, call = frame.function, frame.call
        variable = self.names.variable(name)
        if variable is None or variable.scope is not function:
            outer = frames[goal].function
            shadowed = variable is not None and self._shadows(outer, name.value, variable)
            return None if shadowed else name.value
        if not isinstance(function, cst.FunctionDef) or call is None:
            return None
        if self.names.instance_class(name) is not None:
            return self._receiver(call, function, level, goal, frames)
        bound = self.names.assignments.get(variable, [])
        if any(p.name.value == name.value for p in all_parameters(function.params)):
            if bound:
                return None
            argument = (self.names.arguments(call, function) or {}).get(name.value)
            if argument is None:
                return self._default(function, name.value)
            return self._parenthesised(self._carried(argument, level + 1, goal, frames), argument)
        values = [a.value for a in bound if a.kind == "assign" and a.index is None]
        if len(bound) != 1 or not values or values[0] is None:
            return None
        if any(isinstance(n, cst.Call) for n in walk(values[0])) and not self._is_len(values[0]):
            return None
        return self._parenthesised(self._carried(values[0], level, goal, frames), values[0])

    def _is_len(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Call) and self.tree.code(node.func) == "len"

    def _parenthesised(self, text: str | None, node: cst.BaseExpression) -> str | None:
        return None if text is None else self.operand(text)

    def _receiver(
        self, call: cst.Call, function: cst.FunctionDef, level: int, goal: int, frames: Sequence[Frame]
    ) -> str | None:
        """What `self` is called one frame further out: the object the method was called on."""
        if not isinstance(call.func, cst.Attribute):
            return None
        value = call.func.value
        if isinstance(value, cst.Call):
            return "self" if self.tree.code(value.func) == "super" else None
        return self._carried(value, level + 1, goal, frames)

    def _default(self, function: cst.FunctionDef, name: str) -> str | None:
        for parameter in all_parameters(function.params):
            if parameter.name.value == name and parameter.default is not None:
                code = self.tree.code(parameter.default)
                return code if isinstance(literal_value(parameter.default), (int, float)) else None
        return None

    def _through_self(
        self, node: cst.BaseExpression, level: int, frames: Sequence[Frame], home: cst.CSTNode
    ) -> str | None:
        """An expression of attributes of self, written in another method of the same class."""
        owner = self.names.method_class(home)
        if owner is None:
            return None
        text: str | None = None
        for goal in range(level, len(frames)):
            text = self._carried(node, level, goal, frames)
            function = frames[goal].function
            inner = self.names.method_class(function)
            if text is None:
                return None
            if inner is not None and self.names.root_class(inner) is self.names.root_class(owner):
                self_name = function.params.params[0].name.value if function.params.params else ""
                here = home.params.params[0].name.value if home.params.params else ""
                try:
                    parsed = cst.parse_expression(text)
                except cst.ParserSyntaxError:
                    return None
                locals_used = {n.value for n in names_in(parsed)} & self.names._locals.get(
                    function, set()
                ) - {self_name}
                if not locals_used and self_name == here:
                    return text
        return None

    def _substituted(self, node: cst.BaseExpression, replaced: dict[cst.CSTNode, str]) -> str:
        if not replaced:
            return self.tree.code(node)

        class Substitute(cst.CSTTransformer):
            def leave_Name(self, original_node: cst.Name, updated_node: cst.Name):  # noqa: N802
                text = replaced.get(original_node)
                return updated_node if text is None else cst.parse_expression(text)

        return self.tree.module.code_for_node(node.visit(Substitute())).strip()

    # -- what is bound where -----------------------------------------------------------------

    def _shadows(self, function: cst.CSTNode, name: str, variable: Variable) -> bool:
        return function is not variable.scope and name in self.names._locals.get(function, ())

    def _is_bound(self, text: str, home: cst.CSTNode, place: Place, until: cst.CSTNode) -> bool:
        try:
            parsed = cst.parse_expression(text)
        except cst.ParserSyntaxError:
            return False
        return all(
            self._name_is_bound(name, home, place, until) for name in names_in(parsed)
        ) and self._attributes_hold(parsed, home, place, until)

    def _name_is_bound(
        self, name: cst.Name, home: cst.CSTNode, place: Place, until: cst.CSTNode
    ) -> bool:
        scope = self.scope_of(home, name.value)
        if scope is None:
            return hasattr(builtins, name.value)
        variable = Variable(scope, name.value)
        if scope is not home:
            return True  # a global or a closure's variable: bound before the function runs
        if self.bound_again(variable, place, until) or self._mutated(name.value, place, until):
            return False
        return self.binds_before(variable, place)

    def scope_of(self, home: cst.CSTNode, name: str) -> cst.CSTNode | None:
        """The scope in which a name would be looked up from inside a function."""
        chain = [home, *(a for a in self.tree.ancestors(home) if not isinstance(a, cst.ClassDef))]
        for scope in chain:
            if name in self.names._elsewhere.get(scope, {}):
                return self.names._elsewhere[scope][name]
            if name in self.names._locals.get(scope, ()):
                return scope
        return None

    def _attributes_hold(
        self, parsed: cst.BaseExpression, home: cst.CSTNode, place: Place, until: cst.CSTNode
    ) -> bool:
        """`self.epochs` and `args.epochs` are set before the place and not set again."""
        owner = self.names.method_class(home)
        for node in walk(parsed):
            if not (isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name)):
                continue
            is_self = owner is not None and home.params.params and (
                node.value.value == home.params.params[0].name.value
            )
            if is_self:
                variable = Variable(self.names.root_class(owner), f"self.{node.attr.value}")
                here = [
                    a for a in self.names.assignments.get(variable, ())
                    if self.tree.function(a.statement) is home
                ]
                if here and not self.binds_before(variable, place):
                    return False
                in_init = isinstance(home, cst.FunctionDef) and home.name.value == "__init__"
                if in_init and not here and not self._inherited(variable, owner):
                    return False
            else:
                scope = self.scope_of(home, node.value.value)
                variable = Variable(scope, f"{node.value.value}.{node.attr.value}") if scope else None
            if variable is not None and self.bound_again(variable, place, until):
                return False
            if self._mutated(f"{node.value.value}.{node.attr.value}", place, until):
                return False
        return True

    def _mutated(self, code: str, place: Place, until: cst.CSTNode) -> bool:
        """Whether something grows or shrinks between the place and the end of a loop."""
        start = self.tree.order[place.statement]
        last = max(self.tree.order[n] for n in walk(until))
        home = self.tree.function(place.statement)
        for call in self.tree.all(cst.Call):
            func = call.func
            if not (isinstance(func, cst.Attribute) and func.attr.value in _MUTATORS):
                continue
            if self.tree.code(func.value) != code:
                continue
            same = self.tree.function(call) is home
            if self.tree.is_within(call, until) or (same and start <= self.tree.order[call] <= last):
                return True
        return False

    def _inherited(self, variable: Variable, owner: cst.ClassDef) -> bool:
        """A base class sets it, or it is a class attribute, so it exists in __init__."""
        attribute = variable.name.partition(".")[2]
        return any(
            Variable(c, attribute) in self.names.assignments for c in self.names.hierarchy(owner)
        ) or any(
            self.tree.enclosing_class(a.statement) is not owner
            for a in self.names.assignments.get(variable, ())
        )

    def bound_again(self, variable: Variable, place: Place, until: cst.CSTNode) -> bool:
        """Whether something binds the variable between the place and the end of a loop."""
        start = self.tree.order[place.statement]
        last = max(self.tree.order[n] for n in walk(until))
        for assignment in self.names.assignments.get(variable, ()):
            order = self.tree.order[assignment.statement]
            if assignment.statement is place.statement and place.inclusive:
                continue
            same = self.tree.function(assignment.statement) is self.tree.function(place.statement)
            if not same and self.tree.is_within(assignment.statement, until):
                return True
            if same and start <= order <= last:
                return True
        return False

    def binds_before(self, variable: Variable, place: Place) -> bool:
        """Whether every way to the place has bound the variable."""
        scope = variable.scope
        if isinstance(scope, cst.FunctionDef) and any(
            p.name.value == variable.name for p in all_parameters(scope.params)
        ):
            return True
        statement = place.statement
        if place.inclusive and self.binds(statement, variable):
            return True
        return self._bound_by_earlier(statement, variable)

    def _bound_by_earlier(self, statement: cst.CSTNode, variable: Variable) -> bool:
        node = statement
        while True:
            for sibling in self.tree.siblings(node):
                if sibling is node:
                    break
                if self.binds(sibling, variable):
                    return True
            owner = self.tree.parents.get(self.tree.block(node))
            while owner is not None and not isinstance(
                owner, (cst.BaseCompoundStatement, cst.Module)
            ):
                owner = self.tree.parents.get(owner)
            if owner is None or isinstance(owner, (cst.FunctionDef, cst.ClassDef, cst.Module)):
                return False
            if isinstance(owner, (cst.For, cst.With)) and self._header_binds(owner, variable):
                return True
            if isinstance(owner, cst.Try) and self._after_try_body(owner, node, variable):
                return True
            node = self._statement_in_block(owner)

    def _after_try_body(self, owner: cst.Try, node: cst.CSTNode, variable: Variable) -> bool:
        return (
            owner.orelse is not None
            and self.tree.is_within(node, owner.orelse)
            and any(self.binds(s, variable) for s in statements_of(owner.body))
        )

    def _statement_in_block(self, owner: cst.CSTNode) -> cst.CSTNode:
        """An `elif` stands inside the `if` above it; go up to the one that is in a block."""
        while isinstance(self.tree.parents.get(owner), cst.If) and isinstance(owner, cst.If):
            owner = self.tree.parents[owner]
        return owner

    def binds(self, statement: cst.CSTNode, variable: Variable) -> bool:
        """Whether running a statement surely binds a variable (or never comes back)."""
        if isinstance(statement, cst.BaseSmallStatement):
            return isinstance(statement, _ENDS) or any(
                a.statement is statement for a in self.names.assignments.get(variable, ())
            )
        if isinstance(statement, cst.If):
            below = statement.orelse
            if below is None:
                return False
            other = (
                self.binds(below, variable)
                if isinstance(below, cst.If)
                else self._block_binds(below.body, variable)
            )
            return other and self._block_binds(statement.body, variable)
        if isinstance(statement, cst.With):
            return self._header_binds(statement, variable) or self._block_binds(
                statement.body, variable
            )
        if isinstance(statement, cst.Try):
            handled = all(self._block_binds(h.body, variable) for h in statement.handlers)
            return handled and self._block_binds(statement.body, variable)
        if isinstance(statement, (cst.FunctionDef, cst.ClassDef)):
            return statement.name.value == variable.name
        return False

    def _header_binds(self, statement: cst.CSTNode, variable: Variable) -> bool:
        return any(
            a.statement is statement for a in self.names.assignments.get(variable, ())
        )

    def _block_binds(self, block: cst.CSTNode, variable: Variable) -> bool:
        return any(self.binds(s, variable) for s in statements_of(block))

    def dominates(self, first: cst.CSTNode, second: cst.CSTNode) -> bool:
        """Whether `first` surely ran when `second` runs, both in one function."""
        if self.tree.order[first] >= self.tree.order[second]:
            return False
        return self.tree.is_within(second, self.tree.block(first))

    # -- statements and their neighbours --------------------------------------------------------

    def is_plain_assignment(self, statement: cst.CSTNode, call: cst.Call) -> bool:
        """`name = Call(...)` and nothing else in the statement."""
        if isinstance(statement, cst.AnnAssign):
            return statement.value is call
        return (
            isinstance(statement, cst.Assign)
            and len(statement.targets) == 1
            and statement.value is call
        )

    def first_statement(self, loop: cst.CSTNode) -> cst.CSTNode:
        return next(iter(statements_of(loop.body)))

    def after_update(self, statement: cst.CSTNode) -> cst.CSTNode:
        """The `scaler.update()` that follows a step, or the step itself."""
        siblings = self.tree.siblings(statement)
        index = next(i for i, s in enumerate(siblings) if s is statement)
        for follower in siblings[index + 1 : index + 2]:
            if isinstance(follower, cst.Expr) and isinstance(follower.value, cst.Call):
                func = follower.value.func
                if isinstance(func, cst.Attribute) and func.attr.value == "update":
                    return follower
        return statement

    def binding_statement(self, statement: cst.CSTNode, variable: Variable) -> cst.CSTNode:
        """The outermost statement that binds the variable whichever branch runs."""
        best = statement
        for ancestor in self.tree.ancestors(statement):
            if isinstance(ancestor, (cst.FunctionDef, cst.ClassDef, cst.Module)):
                break
            if isinstance(ancestor, (cst.If, cst.Try)) and self.binds(ancestor, variable):
                best = self._statement_in_block(ancestor)
        return best

    def is_dead_without(self, variable: Variable, gone: Iterable[cst.CSTNode]) -> cst.CSTNode | None:
        """The one plain assignment of a local that nothing but removed statements reads."""
        found = self.names.assignments.get(variable, ())
        if len(found) != 1 or not isinstance(variable.scope, cst.FunctionDef):
            return None
        statement = found[0].statement
        if found[0].value is None or not self.is_plain_assignment(statement, found[0].value):
            return None
        if not _is_pure(found[0].value):
            return None
        removed = list(gone)
        for name in self.tree.all(cst.Name):
            if name.value == variable.name and self.names.variable(name) == variable:
                inside = any(self.tree.is_within(name, r) for r in (*removed, statement))
                if not inside:
                    return None
        return statement

    def import_needed_only_by(
        self, func: cst.BaseExpression, gone: Iterable[cst.CSTNode]
    ) -> tuple[cst.ImportFrom, str] | None:
        """The module-level `from x import name` whose name nothing but removed code reads.

        Two imports of one schedule's factories go by two edits on one statement; a third user of
        the name, an `__all__`, or a package's __init__ keeps it.
        """
        variable = self.names.variable(func) if isinstance(func, cst.Name) else None
        found = self.names.assignments.get(variable, []) if variable is not None else []
        if len(found) != 1 or found[0].kind != "import":
            return None
        statement = found[0].statement
        if not isinstance(statement, cst.ImportFrom) or isinstance(statement.names, cst.ImportStar):
            return None
        if not any(a.name.value == func.value and a.asname is None for a in statement.names):
            return None
        if self.tree.function(statement) is not self.tree.module or "__all__" in self.tree.text:
            return None
        removed = list(gone)
        for name in self.tree.all(cst.Name):
            if name.value == func.value and self.names.variable(name) == variable:
                if not any(self.tree.is_within(name, r) for r in (*removed, statement)):
                    return None
        return statement, func.value

    def is_known(self, node: cst.CSTNode, anchor: cst.CSTNode) -> bool:
        """Whether all that an expression reads is bound where a statement of its scope begins."""
        scope = self.tree.function(anchor)
        read = {self.names.variable(name) for name in names_in(node)}
        return all(
            self.binds_before(variable, self.before(anchor))
            for variable in read & set(self.names.assignments)
            if variable.scope is scope
        )

    def locals_read(self, node: cst.CSTNode) -> set[Variable]:
        """The local variables that an expression or statement reads."""
        found = {self.names.variable(name) for name in names_in(node)}
        return {v for v in found if v is not None and isinstance(v.scope, cst.FunctionDef)}

    def emptied(self, removed: Iterable[cst.CSTNode]) -> list[cst.CSTNode]:
        """The branches that hold nothing else than removed statements."""
        return list(emptied(self.tree, dict.fromkeys(removed)))

    def frames(self, function: cst.CSTNode) -> list[Frame]:
        """A function, and the one caller of each on the way outwards."""
        frames: list[Frame] = []
        while True:
            callers = self.names.callers.get(function, [])
            call = callers[0] if len(callers) == 1 else None
            if call is None or any(f.function is function for f in frames):
                return [*frames, Frame(function, None)]
            frames.append(Frame(function, call))
            function = self.tree.function(call)

    @cached_property
    def line_length(self) -> int:
        """88 in a file that keeps to it, as black does; 100 in one that does not."""
        longest = max(map(len, self.tree.text.split("\n")))
        return _BLACK_LINE if longest <= _BLACK_LINE else _LONG_LINE

    def hang(self, node: cst.Dict | cst.Call, code: str, limit: int) -> int | None:
        """How far in one more element goes on a line of its own; None where the line has room.

        None as well where the elements stand on lines of their own already.
        """
        elements = node.elements if isinstance(node, cst.Dict) else node.args
        first, last = self.tree.span(node)
        if not elements or first != last:
            return None
        line = re.split(r"\r\n?|\n", self.tree.text)[first - 1]
        if len(line.rstrip()) + len(code) + 2 <= limit:
            return None
        statement = self.tree.position(self.tree.statement(node)).column
        return self.tree.position(elements[0]).column - statement

    def start_in(self, variable: Variable, source: str, statement: cst.CSTNode) -> str | None:
        """What a variable is set to from a checkpoint beside a statement: `checkpoint["epoch"] + 1`."""
        for sibling in self.tree.siblings(statement):
            for assignment in self.names.assignments.get(variable, ()):
                if assignment.statement is sibling and assignment.value is not None:
                    code = self.tree.code(assignment.value)
                    return code if source and source in code else None
        return None

    def parameters(self, function: cst.CSTNode) -> list[tuple[str, bool]]:
        """Names of a function's parameters, and whether each may be left out."""
        if not isinstance(function, cst.FunctionDef):
            return []
        return [(p.name.value, p.default is not None) for p in all_parameters(function.params)]

    def has_optional(self, function: cst.CSTNode) -> bool:
        """Whether a function has a parameter that may be left out, `*args` among them."""
        if isinstance(function, cst.FunctionDef) and isinstance(function.params.star_arg, cst.Param):
            return True
        return any(optional for _, optional in self.parameters(function))

    def is_parameter(self, node: cst.BaseExpression, function: cst.CSTNode) -> bool:
        """Whether an expression is what a function was given, and not set by itself."""
        variable = self.names.variable(node)
        return variable is not None and variable.scope is function and any(
            name == variable.name for name, _ in self.parameters(function)
        )

    def is_test(self, node: cst.CSTNode) -> bool:
        """Whether a node stands in a test function or a TestCase."""
        for ancestor in self.tree.ancestors(node):
            if isinstance(ancestor, cst.FunctionDef) and ancestor.name.value.startswith("test_"):
                return True
            if isinstance(ancestor, cst.ClassDef) and any(
                self.tree.code(base.value).endswith("TestCase") for base in ancestor.bases
            ):
                return True
        return False

    def switch_around(
        self, use: cst.CSTNode, loop: cst.CSTNode, steps: Iterable[cst.CSTNode], made: Iterable[cst.Call]
    ) -> cst.BaseExpression | None:
        """A test around a use in a loop that is decided once for the whole run: an option.

        Tests that ask for the thing made itself, and those that the optimizer steps under too, are
        none.
        """
        made = frozenset(made)
        for ancestor in self.tree.ancestors(use):
            if ancestor is loop:
                return None
            if not isinstance(ancestor, cst.If) or any(self.tree.is_within(s, ancestor) for s in steps):
                continue
            parts = [n for n in walk(ancestor.test) if isinstance(n, (cst.Name, cst.Attribute))]
            if any(self.names.creations(n) & made for n in parts):
                continue
            if not self.conditions.changes_within(ancestor.test, loop):
                return ancestor.test
        return None

    def with_comments(self, statement: cst.CSTNode) -> str:
        """A small statement as a line, with the comments directly above it and behind it."""
        line = self.tree.line_node(statement)
        above: list[str] = []
        for empty in reversed(line.leading_lines):
            if empty.comment is None:
                break
            above.insert(0, f"{empty.comment.value}\n")
        behind = line.trailing_whitespace.comment
        end = f"  {behind.value}" if behind is not None else ""
        return f"{''.join(above)}{self.tree.code(statement)}{end}\n"

    def is_statement(self, call: cst.Call) -> bool:
        """Whether a call stands alone as a statement."""
        return isinstance(self.tree.parents.get(call), cst.Expr)

    def outermost_loop(self, node: cst.CSTNode, function: cst.CSTNode) -> cst.CSTNode:
        """The outermost loop of a function around a node, or the node's own statement."""
        found = self.tree.statement(node)
        for ancestor in self.tree.ancestors(node):
            if ancestor is function:
                break
            if isinstance(ancestor, (cst.For, cst.While)):
                found = ancestor
        return found

    def is_accumulation(self, condition: cst.If, training: Training) -> bool:
        """Whether an `if` around a step is the boundary of gradient accumulation."""
        loop = next((a for a in self.tree.ancestors(condition) if isinstance(a, cst.For)), None)
        if loop is None:
            return False
        outer = next((a for a in self.tree.ancestors(loop) if isinstance(a, cst.For)), None)
        frame = Frame(self.tree.function(loop), None)
        over = loop.iter.args[0].value if isinstance(loop.iter, cst.Call) and loop.iter.args else loop.iter
        found = self.conditions.accumulation(condition.test, False, loop, outer, frame, over)
        return found is not None and found.kind != "every"

    def may_follow(self, first: cst.CSTNode, second: cst.CSTNode) -> bool:
        """Whether both run in one pass: they are not in two branches of one `if`."""
        below = first
        for ancestor in self.tree.ancestors(first):
            if isinstance(ancestor, cst.If) and self.tree.is_within(second, ancestor):
                mine = below is ancestor.body
                other = self.tree.is_within(second, ancestor.body)
                return mine == other
            below = ancestor
        return True

    def after_all(self, nodes: Sequence[cst.CSTNode]) -> cst.CSTNode:
        """The statement that holds the last of some nodes, in the innermost block that holds all."""
        last = max(nodes, key=self.tree.order.__getitem__)
        statement = self.tree.statement(last)
        for ancestor in (statement, *self.tree.ancestors(statement)):
            if isinstance(ancestor, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                block = self.tree.block(ancestor)
                if all(self.tree.is_within(n, block) for n in nodes):
                    return ancestor
        return statement

    def in_inner_loop(self, node: cst.CSTNode, block: cst.CSTNode) -> bool:
        """Whether a loop stands between a node and a block around it."""
        for ancestor in self.tree.ancestors(node):
            if ancestor is block:
                return False
            if isinstance(ancestor, (cst.For, cst.While)):
                return True
        return False

    def has_own_line(self, statement: cst.CSTNode) -> bool:
        """Whether a statement shares its line with no other, nor with the header of its block."""
        if isinstance(statement, cst.BaseCompoundStatement):
            return True
        parent = self.tree.parents[statement]
        return isinstance(parent, cst.SimpleStatementLine) and len(parent.body) == 1

    def ancestor_in(self, node: cst.CSTNode, block: cst.CSTNode) -> cst.CSTNode | None:
        """The statement of a block that holds a node."""
        return next((s for s in statements_of(block) if self.tree.is_within(node, s)), None)

    def existence_guard(self, value: cst.CSTNode) -> str | None:
        """The test in `x.state_dict() if "x" in locals() else None`."""
        return self.tree.code(value.test) if isinstance(value, cst.IfExp) else None

    def attributes_read(self, node: cst.CSTNode) -> list[str]:
        """The texts of all `name.attribute` expressions in a node."""
        return [
            self.tree.code(n)
            for n in walk(node)
            if isinstance(n, cst.Attribute) and isinstance(n.value, cst.Name)
        ]

    def effects_of_arguments(self, call: cst.Call) -> str | None:
        """The code of an argument that does something, as `validate()` in `step(validate())`."""
        for argument in call.args:
            for node in walk(argument.value):
                if isinstance(node, cst.Await) or isinstance(node, cst.Call) and not self._is_plain(node):
                    return self.tree.code(argument.value)
        return None

    def _is_plain(self, call: cst.Call) -> bool:
        """A call that only computes: len(x), np.mean(x), loss.item()."""
        dotted = self.names.dotted(call.func) or ""
        name = self.tree.code(call.func).rpartition(".")[2]
        return (
            name in _PURE_CALLS
            or name in _PURE_METHODS
            or dotted.startswith(("numpy.", "math.", "torch.", "statistics."))
        )

    def always_runs(
        self, statement: cst.CSTNode, loop: cst.CSTNode, frames: Sequence[Frame]
    ) -> bool:
        """Whether a statement ran whenever a loop begins: it stands under no condition of its own."""
        home = self.tree.function(statement)
        node = loop
        for frame in frames:
            if self.tree.function(node) is home:
                return self.dominates(statement, node)
            if self.tree.function(node) is frame.function and frame.call is not None:
                node = frame.call
        if self.tree.function(node) is home:
            return self.dominates(statement, node)
        for ancestor in self.tree.ancestors(statement):
            if isinstance(ancestor, (cst.FunctionDef, cst.Module)):
                return True
            if isinstance(ancestor, (cst.If, cst.Try, cst.For, cst.While)):
                return False
        return True

    def is_free(self, name: str, functions: Iterable[cst.CSTNode]) -> bool:
        """Whether a name means nothing yet in these functions or around them."""
        return all(self.scope_of(function, name) is None for function in functions)


def _is_atomic(node: cst.CSTNode) -> bool:
    return isinstance(node, (cst.Name, cst.Attribute, cst.Call, cst.Subscript, cst.Integer))


def _is_simple(text: str) -> bool:
    """No operator outside brackets, so the text needs no parentheses of its own."""
    try:
        node = cst.parse_expression(text)
    except cst.ParserSyntaxError:
        return False
    return _is_atomic(node) or bool(getattr(node, "lpar", ()))


def _is_wrapped(parts: Sequence[object], part: object) -> bool:
    """The part stands between a call's parentheses or commas, or alone."""
    index = list(parts).index(part)
    before = parts[index - 1] if index else ""
    after = parts[index + 1] if index + 1 < len(parts) else ""
    opens = before == "" or (isinstance(before, str) and before.rstrip().endswith(("(", ",")))
    closes = after == "" or (isinstance(after, str) and after.lstrip().startswith((")", ",")))
    return opens and closes


_PURE_CALLS = {
    "len", "int", "float", "max", "min", "round", "abs", "get", "ceil", "floor", "getattr", "sum",
}
_PURE_METHODS = {"item", "mean", "detach", "cpu", "numpy", "tolist", "compute", "avg", "values"}


def _is_pure(node: cst.CSTNode) -> bool:
    """Nothing happens when an expression is evaluated: arithmetic, len(), config.get()."""
    for inner in walk(node):
        if isinstance(inner, cst.Call):
            func = inner.func
            name = func.attr.value if isinstance(func, cst.Attribute) else getattr(func, "value", "")
            if name not in _PURE_CALLS:
                return False
        elif isinstance(inner, (cst.Await, cst.Yield, cst.NamedExpr)):
            return False
    return True
