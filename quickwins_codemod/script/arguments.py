"""Where a script's `--tag NAME` option goes, and how its value is written at a place in the code.

argparse and click are understood, where the parser, its options and what it returns are all made
in this file. An option may break a script in ways that have nothing to do with its value: a second
`--tag`, a `--tag` that was an abbreviation of `--tags`, a `Model(**vars(args))` that is handed one
argument more. Such scripts get none; `TagOption.why` says so in words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import libcst as cst

from quickwins_codemod.edits import AddParameter, Edit, InsertAfter
from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Frame, Script
from quickwins_codemod.script.names import Variable, all_parameters
from quickwins_codemod.script.placing import Place
from quickwins_codemod.script.tree import walk

_FLAG = "--tag"
_HELP = "name of this run in quickwins compare"
_GROUPS = ("add_argument_group", "add_mutually_exclusive_group")
_PARSES = ("parse_args", "parse_known_args")
#: What may be called with all options as keywords, whatever they are.
_TAKES_ANY = ("dict", "types.SimpleNamespace", "argparse.Namespace")
_METHODS_TAKE_ANY = ("format", "update")


@dataclass(frozen=True)
class TagPlan:
    """The tag as code, valid where it was asked for, and what adds the option.

    edits: none where the script has a usable `--tag` already.
    """

    expression: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class _Parsed:
    """What a parser made of the command line: its namespace, or that as a dict."""

    parser: cst.Call
    kind: Literal["namespace", "dict"]


@dataclass(frozen=True)
class _Holder:
    """A variable that is seen at the place and holds what a parser made.

    given: the functions that were handed it on its way.
    """

    text: str
    parsed: _Parsed
    given: frozenset[cst.FunctionDef]


class _Unclear(Exception):
    """The option cannot be added, or its value not be written at the place; says why."""


class TagOption:
    """Plans the option of one script.

    why: in words, why the last plan was None.
    """

    def __init__(self, script: Script) -> None:
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.neighbours = script.neighbours
        self.why = ""
        self._made: dict[cst.CSTNode, set[cst.Call | None]] = {}
        self._open: set[cst.CSTNode] = set()  # what is being followed: `args = vars(args)`

    def plan(
        self, frames: Sequence[Frame], place: Place, outer: cst.CSTNode
    ) -> TagPlan | None:
        """The tag at a place, or None where it comes from the environment only.

        frames: from the place's function outwards, as Placing.frames gives them; outer: the loop
        until whose end the expression must hold.
        """
        self.why = ""
        try:
            home = self.tree.function(place.statement)
            if isinstance(home, cst.FunctionDef) and self._is_command(home):
                return self._click(home, frames, place, outer)
            return self._argparse(frames, place, outer)
        except _Unclear as unclear:
            self.why = str(unclear)
            return None

    # -- argparse: what is seen at the place -------------------------------------------------

    def _argparse(
        self, frames: Sequence[Frame], place: Place, outer: cst.CSTNode
    ) -> TagPlan:
        holders = self._holders(frames, place, outer)
        holder = max(holders, key=lambda h: len(self._options(h.parsed.parser)))
        option, edits = self._option(holder.parsed.parser)
        return TagPlan(self._read(holder, option), edits)

    def _read(self, holder: _Holder, name: str) -> str:
        """The option's value; with a default where another caller's options may lack it."""
        safe = any(self._runs_elsewhere(function) for function in holder.given)
        q = _quote((self._options(holder.parsed.parser) or [holder.parsed.parser])[-1])
        if holder.parsed.kind == "dict":
            return f"{holder.text}.get({q}{name}{q})" if safe else f"{holder.text}[{q}{name}{q}]"
        return f"getattr({holder.text}, {q}{name}{q}, None)" if safe else f"{holder.text}.{name}"

    def _holders(
        self, frames: Sequence[Frame], place: Place, outer: cst.CSTNode
    ) -> list[_Holder]:
        """At least one; of several, any could be meant."""
        home = self.tree.function(place.statement)
        level = next((i for i, f in enumerate(frames) if f.function is home), 0)
        holders, why = [], "no options of argparse or click that this file reads are known here"
        for node in self._visible(home, place):
            given: set[cst.FunctionDef] = set()
            found = self._parsed(node, given)
            if not any(found):
                continue
            (parsed, *others) = found
            text = self.placing.expression_at(node, level, frames, place, outer)
            if parsed is None or others:
                why = f"`{self.tree.code(node)}` may be something else than this file's options"
            elif text is None:
                why = f"`{self.tree.code(node)}` does not hold the options in the whole loop"
            else:
                holders.append(_Holder(text, parsed, frozenset(given)))
        if not holders:
            raise _Unclear(why)
        return holders

    def _visible(self, home: cst.CSTNode, place: Place) -> Iterator[cst.BaseExpression]:
        """One node for each variable that the place can see: local, of self, or read already."""
        given = {name for name, _ in self.placing.parameters(home)}
        for parameter in all_parameters(home.params) if given else ():
            bound = self.names.assignments.get(Variable(home, parameter.name.value), ())
            before = [a for a in bound if self.placing.dominates(a.statement, place.statement)]
            if before or not bound:
                yield parameter.name
        owner = self.names.method_class(home)
        root = self.names.root_class(owner) if owner is not None else None
        for variable, assignments in self.names.assignments.items():
            target, name = assignments[0].target, variable.name
            if not isinstance(target, (cst.Name, cst.Attribute)):
                continue
            if variable.scope is root and name.startswith("self."):
                yield target
            elif isinstance(target, cst.Attribute) or name in given:
                continue
            elif variable.scope is home:
                yield target
            elif self.placing.scope_of(home, name) is variable.scope:
                if any(self.names.variable(n) == variable for n in self._names(name, home)):
                    yield target

    def _names(self, name: str, within: cst.CSTNode) -> Iterator[cst.Name]:
        return (n for n in walk(within) if isinstance(n, cst.Name) and n.value == name)

    def _runs_elsewhere(self, function: cst.FunctionDef) -> bool:
        """Whether a function is used as a value, or imported by another file."""
        owner = self.names.method_class(function)
        name = owner.name.value if owner is not None else function.name.value
        for node in self.tree.all(cst.Name):
            if node.value == name and owner is None:
                variable = self.names.variable(node)
                called = isinstance(self.tree.parents[node], cst.Call)
                is_it = variable is not None and self.names.functions.get(variable) is function
                if is_it and not called and self.tree.parents[node] is not function:
                    return True
        if self.neighbours is None:
            return False
        stem = re.escape(self.neighbours.script.stem)
        imported = rf"(?:import\b[^\n#]*|from\s+[\w.]*)\b{stem}"
        return self.neighbours.mention(imported, name)

    # -- argparse: where values come from ----------------------------------------------------

    def _parsed(
        self, node: cst.BaseExpression, given: set[cst.FunctionDef]
    ) -> set[_Parsed | None]:
        """What an expression may be of parsers' results; None stands for anything else."""
        if node in self._open:
            return {None}
        self._open.add(node)
        found = {self._result(value, i, given) for value, i in self._values(node, None, given)}
        self._open.remove(node)
        return found or {None}

    def _result(
        self, node: cst.BaseExpression | None, index: int | None, given: set[cst.FunctionDef]
    ) -> _Parsed | None:
        if isinstance(node, cst.Attribute) and node.attr.value == "__dict__" and index is None:
            return self._as_dict(node.value, given)
        if not isinstance(node, cst.Call):
            return None
        if self.names.dotted(node.func) == "vars" and len(node.args) == 1 and index is None:
            return self._as_dict(node.args[0].value, given)
        if not isinstance(node.func, cst.Attribute) or node.func.attr.value not in _PARSES:
            return None
        if index != (None if node.func.attr.value == "parse_args" else 0):
            return None
        parsers = self._parsers(node.func.value)
        (parser, *others) = parsers
        return _Parsed(parser, "namespace") if parser is not None and not others else None

    def _as_dict(
        self, node: cst.BaseExpression, given: set[cst.FunctionDef]
    ) -> _Parsed | None:
        (parsed, *others) = self._parsed(node, given)
        if parsed is None or others or parsed.kind == "dict":
            return None
        return _Parsed(parsed.parser, "dict")

    def _parsers(self, node: cst.BaseExpression) -> set[cst.Call | None]:
        """The `ArgumentParser(...)` that an expression, or the group that it is, belongs to."""
        if node in self._made:
            return self._made[node]
        self._made[node] = {None}  # breaks cycles
        found: set[cst.Call | None] = set()
        for value, index in self._values(node, None, set()):
            if not isinstance(value, cst.Call) or index is not None:
                found.add(None)
            elif self.names.dotted(value.func) == "argparse.ArgumentParser":
                found.add(value)
            elif isinstance(value.func, cst.Attribute) and value.func.attr.value in _GROUPS:
                found |= self._parsers(value.func.value)
            else:
                found.add(None)
        self._made[node] = found or {None}
        return self._made[node]

    def _values(
        self,
        node: cst.BaseExpression | None,
        index: int | None,
        given: set[cst.FunctionDef],
        seen: frozenset[object] = frozenset(),
    ) -> Iterator[tuple[cst.BaseExpression | None, int | None]]:
        """What an expression's value may be, followed through names and functions of the file.

        index: an element of it; None for the expression: something that is not shown. Functions
        whose parameters were followed to their callers are added to given.
        """
        if isinstance(node, cst.IfExp):
            yield from self._values(node.body, index, given, seen)
            yield from self._values(node.orelse, index, given, seen)
        elif isinstance(node, (cst.Tuple, cst.List)) and index is not None:
            item = node.elements[index] if index < len(node.elements) else None
            yield from self._values(
                item.value if isinstance(item, cst.Element) else None, None, given, seen
            )
        elif isinstance(node, cst.Subscript) and index is None:
            inner = node.slice[0].slice
            position = literal_value(inner.value) if isinstance(inner, cst.Index) else None
            if type(position) is int and position >= 0:
                yield from self._values(node.value, position, given, seen)
            else:
                yield node, None
        elif isinstance(node, cst.Call):
            function = self.names.callee(node)
            if function is None or function.name.value == "__init__":
                yield node, index
            elif function not in seen:
                yield from self._returned(function, index, given, seen | {function})
        elif isinstance(node, cst.Name) or (
            isinstance(node, cst.Attribute)
            and isinstance(node.value, cst.Name)
            and self.names.instance_class(node.value) is not None
            and node.attr.value != "__dict__"
        ):
            variable = self.names.variable(node)
            if variable is None:
                yield node, index
            elif variable not in seen:
                yield from self._bound(variable, index, given, seen | {variable})
        else:
            yield node, index

    def _returned(
        self,
        function: cst.FunctionDef,
        index: int | None,
        given: set[cst.FunctionDef],
        seen: frozenset[object],
    ) -> Iterator[tuple[cst.BaseExpression | None, int | None]]:
        returns = self.names.returns(function)
        plain = function.asynchronous is None and not function.decorators
        if not returns or not plain:
            yield None, None
        for value in returns if plain else ():
            yield from self._values(value, index, given, seen)

    def _bound(
        self,
        variable: Variable,
        index: int | None,
        given: set[cst.FunctionDef],
        seen: frozenset[object],
    ) -> Iterator[tuple[cst.BaseExpression | None, int | None]]:
        scope = variable.scope
        assignments = self.names.assignments.get(variable, ())
        for assignment in assignments:
            if assignment.kind != "assign" or (index is not None and assignment.index is not None):
                yield None, None
                continue
            element = index if assignment.index is None else assignment.index
            yield from self._values(assignment.value, element, given, seen)
        is_parameter = isinstance(scope, cst.FunctionDef) and any(
            name == variable.name for name, _ in self.placing.parameters(scope)
        )
        if not is_parameter:
            if not assignments:
                yield None, None
            return
        if any(self.tree.block(a.statement) is scope.body for a in assignments):
            return  # `def main(args=None): args = parser.parse_args(args)`
        given.add(scope)
        callers = self.names.callers.get(scope, ())
        if not callers:
            yield None, None
        for call in callers:
            value = (self.names.arguments(call, scope) or {}).get(variable.name)
            yield from self._values(value, index, given, seen)

    # -- argparse: the option ------------------------------------------------------------------

    def _option(self, parser: cst.Call) -> tuple[str, tuple[Edit, ...]]:
        """The name that the option's value has, and the edits that add it."""
        self._readable(parser)
        options = self._options(parser)
        for call in options:
            if _FLAG in _flags(call):
                return self._existing(call, parser), ()
        if any(_destination(call) == "tag" for call in options) or any(
            a.keyword is not None and a.keyword.value == "tag"
            for call in self._methods("set_defaults", parser) for a in call.args
        ):
            raise _Unclear("another option of this script is stored as `tag`")
        exact = literal_value(_keyword(parser, "allow_abbrev")) is False
        for call in self.tree.all(cst.Call):
            if self._is_method(call, "add_argument") and not (exact and call in options):
                longer = next((f for f in _flags(call) if f.startswith(_FLAG)), None)
                if longer == _FLAG:
                    raise _Unclear(f"another parser of this script has a `{_FLAG}`")
                if longer is not None:
                    raise _Unclear(f"`{_FLAG}` is an abbreviation of `{longer}` in this script")
        self._unused(parser)
        return "tag", (self._added(parser, options),)

    def _readable(self, parser: cst.Call) -> None:
        """The options of a parser are all spelled out in this file, and it reads a command line."""
        for argument in parser.args:
            word = argument.keyword.value if argument.keyword is not None else argument.star
            if word in ("parents", "prefix_chars", "**"):
                raise _Unclear(f"the parser of this script is made with `{word}`")
        if self._methods("add_subparsers", parser):
            raise _Unclear("the parser of this script has subcommands")
        for call in self._options(parser):
            positional = [a for a in call.args if a.keyword is None and a.star != "**"]
            if any(not isinstance(literal_value(a.value), str) for a in positional):
                raise _Unclear("an option of this script has a name that is not spelled out")
        for call in self.tree.all(cst.Call):
            if self.names.callee(call) is None and any(self._hands(a, parser) for a in call.args):
                if self._adds_plain_options(call):
                    continue
                name = self.tree.code(call.func)
                raise _Unclear(f"`{name}` may add options to the parser in another file")
        for call in (c for name in _PARSES for c in self._methods(name, parser)):
            line = call.args[0] if call.args else None
            if line is not None and line.keyword is not None:
                line = next((a for a in call.args if a.keyword.value == "args"), None)
            if line is not None and self._is_fixed(line.value):
                raise _Unclear("the parser of this script reads no command line")

    def _adds_plain_options(self, call: cst.Call) -> bool:
        """A function of the repository that only adds options to its one argument, none like a tag."""
        module, _, name = (self.names.dotted(call.func) or "").rpartition(".")
        text = self.neighbours.source(module) if self.neighbours is not None and module else None
        if text is None or len(call.args) != 1 or call.args[0].keyword is not None:
            return False
        try:
            body = ast.parse(text).body
        except (SyntaxError, ValueError):
            return False
        found = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == name]
        if len(found) != 1 or len(found[0].args.args) != 1 or found[0].decorator_list:
            return False
        parameter = found[0].args.args[0].arg
        uses = [n for n in ast.walk(found[0]) if isinstance(n, ast.Name) and n.id == parameter]
        options = [
            n for n in ast.walk(found[0])
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
            and n.func.attr == "add_argument" and n.func.value in uses
        ]
        return len(options) == len(uses) and all(map(_is_plain_option, options))

    def _is_fixed(self, line: cst.BaseExpression) -> bool:
        """`parse_args([])`, `parse_args("--epochs 3".split())`."""
        if isinstance(line, cst.Call) and isinstance(line.func, cst.Attribute):
            return isinstance(line.func.value, cst.BaseString)
        return isinstance(line, (cst.List, cst.Tuple))

    def _hands(self, argument: cst.Arg, parser: cst.Call) -> bool:
        value, held = argument.value, [argument.value]
        if isinstance(value, (cst.List, cst.Tuple)):
            held = [element.value for element in value.elements]
        return any(
            isinstance(v, (cst.Name, cst.Attribute)) and parser in self._parsers(v) for v in held
        )

    def _options(self, parser: cst.Call) -> list[cst.Call]:
        return self._methods("add_argument", parser)

    def _methods(self, name: str, parser: cst.Call) -> list[cst.Call]:
        """The calls of a method of a parser, or of one of its groups, in source order."""
        return [
            call for call in self.tree.all(cst.Call)
            if self._is_method(call, name) and parser in self._parsers(call.func.value)
        ]

    def _is_method(self, call: cst.Call, name: str) -> bool:
        return isinstance(call.func, cst.Attribute) and call.func.attr.value == name

    def _existing(self, call: cst.Call, parser: cst.Call) -> str:
        """The name of a `--tag` that the script has, where it takes one string or none."""
        for ancestor in self.tree.ancestors(call):
            sometimes = isinstance(ancestor, (cst.If, cst.For, cst.While, cst.Try))
            if sometimes and not self.tree.is_within(parser, ancestor):
                raise _Unclear(f"this script has a `{_FLAG}` under a condition")
        for argument in call.args:
            word, value = argument.keyword, literal_value(argument.value)
            fine = word is None or {
                "nargs": False,
                "const": False,
                "type": self.tree.code(argument.value) == "str",
                "action": value == "store",
                "default": value is None or isinstance(value, str),
                "dest": isinstance(value, str),
            }.get(word.value, True)
            if argument.star or not fine:
                raise _Unclear(f"this script has a `{_FLAG}` that is not one string")
        return _destination(call)

    def _unused(self, parser: cst.Call) -> None:
        """Nothing of the script asks for a tag yet, or takes its options one by one."""
        for node in self.tree.all(cst.Attribute):
            if node.attr.value == "tag" and self._is_of(node.value, parser):
                raise _Unclear(f"`{self.tree.code(node)}` means something in this script already")
            written = isinstance(self.tree.parents[node], cst.AssignTarget)
            if node.attr.value == "__dict__" and written and self._is_of(node.value, parser):
                raise _Unclear(f"`{self.tree.code(node)}` is set anew in this script")
        for node in self.tree.all(cst.SimpleString):
            if node.evaluated_value != "tag":
                continue
            kinds = (cst.Call, cst.Subscript)
            around = next((a for a in self.tree.ancestors(node) if isinstance(a, kinds)), node)
            func = around.func if isinstance(around, cst.Call) else around
            asked = [func.value] if isinstance(func, (cst.Attribute, cst.Subscript)) else []
            asked += [a.value for a in around.args[:1]] if isinstance(around, cst.Call) else []
            if any(self._is_of(n, parser) for n in asked):
                raise _Unclear("the options of this script are asked for a `tag` already")
        for call in self.tree.all(cst.Call):
            spread = any(a.star == "**" and self._is_all(a.value, parser) for a in call.args)
            if spread and not self._takes_any(call):
                name = self.tree.code(call.func)
                raise _Unclear(f"`{name}` is called with all options of this script as keywords")

    def _takes_any(self, call: cst.Call) -> bool:
        function = self.names.callee(call)
        if function is not None:
            return function.params.star_kwarg is not None
        if isinstance(call.func, cst.Attribute) and call.func.attr.value in _METHODS_TAKE_ANY:
            return True
        return self.names.dotted(call.func) in _TAKES_ANY

    def _is_of(self, node: cst.BaseExpression, parser: cst.Call) -> bool:
        return any(p is not None and p.parser is parser for p in self._parsed(node, set()))

    def _is_all(self, node: cst.BaseExpression, parser: cst.Call) -> bool:
        """Whether a dict may hold all options: `vars(args)`, or what is made of its items."""
        for value, _ in self._values(node, None, set()):
            for inner in walk(value) if value is not None else ():
                parent = self.tree.parents[inner]
                if isinstance(parent, cst.Subscript) and parent.value is inner:
                    continue
                if isinstance(parent, cst.Attribute) and parent.attr.value not in ("items", "copy"):
                    continue
                if _Parsed(parser, "dict") in self._parsed(inner, set()):
                    return True
        return False

    def _added(self, parser: cst.Call, options: Sequence[cst.Call]) -> Edit:
        """The new option below the last one that stands beside the parser's own statement."""
        made = self.tree.statement(parser)
        targets = [t.target for t in made.targets] if isinstance(made, cst.Assign) else []
        if isinstance(made, cst.AnnAssign):
            targets = [made.target]
        if len(targets) != 1 or self._parsers(targets[0]) != {parser}:
            raise _Unclear("the parser of this script has no name")
        anchor, neighbour = made, options[0] if options else parser
        for statement in self.tree.siblings(made):
            call = statement.value if isinstance(statement, cst.Expr) else None
            if self.tree.order[statement] > self.tree.order[made]:
                if self._may_parse(statement, parser):
                    break
                if call in options:
                    anchor, neighbour = statement, call
        q = _quote(neighbour)
        name = self.tree.code(targets[0])
        code = f"{name}.add_argument({q}{_FLAG}{q}, default=None, help={q}{_HELP}{q})"
        return InsertAfter(anchor, code)

    def _may_parse(self, statement: cst.CSTNode, parser: cst.Call) -> bool:
        """Whether a statement reads the command line, or calls a function that may."""
        calls = [call for name in _PARSES for call in self._methods(name, parser)]
        home = self.tree.function(statement)
        here = [c for c in calls if self.tree.function(c) is home]
        if any(self.tree.is_within(call, statement) for call in here):
            return True
        return len(here) < len(calls) and any(
            self._hands(a, parser) for c in self.tree.calls_within(statement) for a in c.args
        )

    # -- click -----------------------------------------------------------------------------------

    def _is_command(self, function: cst.FunctionDef) -> bool:
        return any(self._decorates(d) == "command" for d in function.decorators)

    def _decorates(self, decorator: cst.Decorator) -> str | None:
        """`command`, `option` or another name of click's; None for a decorator of another kind."""
        node = decorator.decorator
        func = node.func if isinstance(node, cst.Call) else node
        dotted = self.names.dotted(func) or ""
        if dotted.startswith("click."):
            return dotted.removeprefix("click.")
        if isinstance(func, cst.Attribute) and func.attr.value == "command":
            variable = self.names.variable(func.value)
            group = self.names.functions.get(variable) if variable is not None else None
            if group is not None and any(self._decorates(d) == "group" for d in group.decorators):
                return "command"
        return None

    def _click(
        self,
        function: cst.FunctionDef,
        frames: Sequence[Frame],
        place: Place,
        outer: cst.CSTNode,
    ) -> TagPlan:
        if any(self._decorates(d) is None for d in function.decorators):
            raise _Unclear(f"`{function.name.value}` has a decorator that is not click's")
        options = [d for d in function.decorators if self._decorates(d) == "option"]
        if not options:
            raise _Unclear(f"`{function.name.value}` has no options yet")
        for option in options:
            if any(a.star or not _is_string(a) for a in option.decorator.args if a.keyword is None):
                raise _Unclear("an option of this script has a name that is not spelled out")
            if _FLAG in _flags(option.decorator):
                return self._existing_click(option.decorator, function, frames, place, outer)
        context = next((p.name.value for p in all_parameters(function.params)), "")
        for call in self.tree.calls_within(function.body):
            name = self.tree.code(call.func)
            if name == f"{context}.forward" or name in ("locals", "vars") and not call.args:
                raise _Unclear(f"`{name}` takes all options of this script together")
        if not self.placing.is_free("tag", [function]) or any(
            _click_name(o.decorator) == "tag" for o in options
        ):
            raise _Unclear("the name `tag` means something in this script already")
        q = _quote(options[-1].decorator)
        func = self.tree.code(options[-1].decorator.func)
        code = f"@{func}({q}{_FLAG}{q}, default=None, help={q}{_HELP}{q})"
        return TagPlan("tag", (InsertAfter(options[-1], code), AddParameter(function, "tag=None")))

    def _existing_click(
        self,
        call: cst.Call,
        function: cst.FunctionDef,
        frames: Sequence[Frame],
        place: Place,
        outer: cst.CSTNode,
    ) -> TagPlan:
        plain = ("help", "show_default", "default", "required", "envvar", "prompt", "type")
        for argument in call.args:
            word, value = argument.keyword, literal_value(argument.value)
            if word is None:
                continue
            text = self.names.dotted(argument.value) in ("str", "click.STRING")
            fine = {"type": text, "default": value is None or isinstance(value, str)}
            if word.value not in plain or not fine.get(word.value, True):
                raise _Unclear(f"this script has a `{_FLAG}` that is not one string")
        name = _click_name(call)
        for parameter in all_parameters(function.params):
            if parameter.name.value == name and parameter is not function.params.star_kwarg:
                level = next((i for i, f in enumerate(frames) if f.function is function), 0)
                text = self.placing.expression_at(parameter.name, level, frames, place, outer)
                if text is not None:
                    return TagPlan(text, ())
        raise _Unclear(f"the `{_FLAG}` of this script is not known where the run is tracked")


def _is_string(argument: cst.Arg) -> bool:
    return isinstance(literal_value(argument.value), str)


def _flags(call: cst.Call) -> list[str]:
    """The names that are given to an option, with their dashes."""
    return [literal_value(a.value) for a in call.args if a.keyword is None and _is_string(a)]


def _keyword(call: cst.Call, name: str) -> cst.BaseExpression | None:
    found = (a.value for a in call.args if a.keyword is not None and a.keyword.value == name)
    return next(found, None)


def _destination(call: cst.Call) -> str:
    """The attribute that argparse stores an option as: its first long name, without dashes."""
    given = literal_value(_keyword(call, "dest"))
    flags = _flags(call)
    if isinstance(given, str) or not flags:
        return given if isinstance(given, str) else ""
    name = next((f for f in flags if f.startswith("--")), flags[0])
    return name.lstrip("-").replace("-", "_")


def _click_name(call: cst.Call) -> str:
    """The parameter that click hands an option to: the bare name, or the one with most dashes."""
    flags = [part for flag in _flags(call) for part in flag.split("/")[:1]]
    bare = [f for f in flags if f.isidentifier()]
    if bare or not flags:
        return bare[0] if bare else ""
    name = max(flags, key=lambda f: len(f) - len(f.lstrip("-")))
    return name.lstrip("-").replace("-", "_").lower()


def _quote(call: cst.Call) -> str:
    """The quote that a call uses for its first string."""
    found = (n.quote for n in walk(call) if isinstance(n, cst.SimpleString))
    return next((q for q in found if len(q) == 1), '"')


def _is_plain_option(call: ast.Call) -> bool:
    """Its names are spelled out, and neither they nor where it is stored are those of a tag."""
    names = [a.value if isinstance(a, ast.Constant) else None for a in call.args]
    stored = {k.arg: k.value for k in call.keywords}
    if None in stored or "dest" in stored or not names:
        return False
    return all(isinstance(n, str) and not n.lstrip("-").startswith("tag") for n in names)
