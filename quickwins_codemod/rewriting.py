"""Apply edits to a parsed module in one pass, touching nothing but the nodes on their way.

Only the ancestors of edited nodes are rebuilt; every other node, with its whitespace and comments,
is the original object. Edits on one node compose in the order given; a node that is both removed
and replaced is a defect of a transform and raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import libcst as cst

from quickwins_codemod.edits import (
    AddArgument,
    AddDictEntry,
    AddParameter,
    AddTerm,
    Edit,
    Enclose,
    EndBlockBefore,
    InsertAfter,
    InsertBefore,
    Remove,
    RemoveImport,
    Replace,
    Wrap,
    target,
)
from quickwins_codemod.script.branches import emptied
from quickwins_codemod.script.tree import Tree, child_fields


class ConflictingEdits(Exception):
    """Two edits that cannot both hold; a defect of the transforms, caught by the self-check."""


def apply_edits(tree: Tree, edits: Sequence[Edit]) -> cst.Module:
    """Return the module with all edits applied."""
    return _Rewriter(tree, edits).module()


def removed_nodes(tree: Tree, edits: Sequence[Edit]) -> list[cst.CSTNode]:
    """What goes: the statements that edits remove, and the branches that are empty without them."""
    removed = {e.node: e.topic for e in edits if isinstance(e, Remove)}
    return [*removed, *emptied(tree, removed)]


class _Rewriter:
    def __init__(self, tree: Tree, edits: Sequence[Edit]) -> None:
        self.tree = tree
        self.before: dict[cst.CSTNode, list[str]] = {}
        self.after: dict[cst.CSTNode, list[str]] = {}
        self.joined: dict[cst.CSTNode, list[str]] = {}
        self.removed: dict[cst.CSTNode, str | None] = {}
        self.changed: dict[cst.CSTNode, list[Edit]] = {}
        self.wraps: dict[cst.CSTNode, Wrap] = {}
        self.ended: dict[cst.CSTNode, int] = {}  # a block -> its first item that moves out of it
        self.below_comment: set[cst.CSTNode] = set()
        for edit in sorted(edits, key=lambda e: getattr(e, "rank", 0)):
            if isinstance(edit, InsertBefore):
                self.before.setdefault(edit.anchor, []).append(edit.code)
                if edit.below_comment:
                    self.below_comment.add(edit.anchor)
            elif isinstance(edit, InsertAfter):
                self.after.setdefault(edit.anchor, []).append(edit.code)
                if edit.joined:
                    self.joined.setdefault(edit.anchor, []).append(edit.code)
            elif isinstance(edit, Remove):
                self.removed[edit.node] = edit.topic
            elif isinstance(edit, Wrap):
                self.wraps[edit.first] = edit
            elif isinstance(edit, EndBlockBefore):
                block = tree.block(edit.first)
                self.ended[block] = block.body.index(tree.line_node(edit.first))
            elif isinstance(edit, RemoveImport) and _takes_all(edit.statement, edits):
                self.removed[edit.statement] = None
            else:
                self.changed.setdefault(target(edit), []).append(edit)
        for node, topic in emptied(tree, self.removed).items():
            self.removed[node] = topic
        if self.removed.keys() & self.changed.keys():
            raise ConflictingEdits("a node is removed and changed")
        for node, found in self.changed.items():
            if sum(isinstance(e, Replace) for e in found) > 1:
                raise ConflictingEdits(f"{tree.code(node)[:40]} is replaced twice")
        touched = [*self.before, *self.after, *self.removed, *self.changed, *self.wraps]
        touched += [block.body[index] for block, index in self.ended.items()]
        self.left_over: dict[cst.CSTNode, list[cst.EmptyLine]] = {}
        self.dirty = {a for node in touched for a in tree.ancestors(node)} | set(self.changed)

    def module(self) -> cst.Module:
        return self._rebuilt(self.tree.module)

    def _rebuilt(self, node: cst.CSTNode) -> Any:
        if node not in self.dirty:
            return node
        changes = {}
        for name in child_fields(node):
            value = getattr(node, name)
            if isinstance(value, cst.CSTNode):
                if value in self.removed:
                    changes[name] = None  # the else branch of an if
                elif isinstance(value, cst.SimpleStatementSuite) and self._needs_lines(value.body):
                    changes[name] = self._as_block(value)
                elif value in self.dirty:
                    changes[name] = self._rebuilt(value)
            elif isinstance(value, (list, tuple)) and value:
                if name == "body" and _is_block(node):
                    rebuilt = self._block(node, value[: self.ended.get(node)])
                elif name == "decorators":
                    rebuilt = self._decorators(value)
                else:
                    rebuilt = [self._rebuilt(v) if isinstance(v, cst.CSTNode) else v for v in value]
                if any(a is not b for a, b in zip(rebuilt, value)) or len(rebuilt) != len(value):
                    changes[name] = rebuilt
        if node in self.ended:
            changes["footer"] = []
        elif self.left_over.get(node):  # comments above a removed last statement
            changes["footer"] = [*self.left_over[node], *node.footer]
        new = node.with_changes(**changes) if changes else node
        for edit in sorted(self.changed.get(node, ()), key=_layer):
            new = self._change(new, edit)
            if isinstance(edit, AddTerm):
                new = self._as_operand(new, node)
        return new

    def _as_operand(self, new: cst.BinaryOperation, old: cst.CSTNode) -> cst.BinaryOperation:
        """A sum with parentheses, unless it is a whole argument or value."""
        whole = (cst.Arg, cst.Assign, cst.AnnAssign, cst.Return)
        enclosed = any(isinstance(e, Enclose) for e in self.changed[old])
        if enclosed or isinstance(self.tree.parents[old], whole):
            return new
        return new.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])

    # -- blocks ----------------------------------------------------------------------------

    def _block(self, block: cst.CSTNode, body: Sequence[cst.CSTNode]) -> list[cst.CSTNode]:
        if isinstance(block, (cst.SimpleStatementLine, cst.SimpleStatementSuite)):
            return self._small(body)
        new: list[cst.CSTNode] = []
        held: list[cst.EmptyLine] = []  # what stood above a removed statement and stays
        items = list(body)
        while items:
            item = items.pop(0)
            wrap = self.wraps.pop(_smalls(item)[0], None)
            if wrap is not None:
                new += self._wrapped(block, wrap, [item, *items])
                del items[: self._wrapped_length - 1]
                continue
            inner = list(_smalls(item))
            alone = len(inner) == 1
            above = [c for s in inner[:1] for c in self.before.get(s, ())]
            below = [c for s in inner[-1:] for c in self.after.get(s, ())]
            if all(s in self.removed for s in inner):
                kept = _without_comment(item.leading_lines, self.removed[inner[0]])
                inserted = [s for code in (*above, *below) for s in self._parsed(code)]
                if inserted:
                    inserted[0] = inserted[0].with_changes(leading_lines=[*held, *kept])
                    held = []
                    new += inserted
                else:
                    held = _joined(held, kept)
                continue
            if not alone and self._needs_lines(inner):
                lines = self._as_lines(inner)
                lines[0] = lines[0].with_changes(leading_lines=item.leading_lines)
                lines[-1] = lines[-1].with_changes(trailing_whitespace=item.trailing_whitespace)
                above_lines = [s for code in above for s in self._parsed(code)]
                new += [*above_lines, *lines, *(s for code in below for s in self._parsed(code))]
                continue
            rebuilt = self._rebuilt(item) if item in self.dirty or not alone else item
            replaced = self.changed.get(inner[0]) if alone else None
            follows: list[cst.EmptyLine] = []
            if replaced and isinstance(item, cst.SimpleStatementLine):
                statements = self._replaced_line(item, rebuilt, replaced)
            elif getattr(item, "body", None) in self.ended:
                statements, follows = self._ended(item, rebuilt)
            else:
                statements = [rebuilt]
            if held:
                first = statements[0]
                statements[0] = first.with_changes(
                    leading_lines=_joined(held, first.leading_lines)
                )
                held = []
            if above:
                inserted = [s for code in above for s in self._parsed(code)]
                if inner[0] in self.below_comment:
                    first = statements[0]
                    inserted[0] = inserted[0].with_changes(leading_lines=first.leading_lines)
                    statements[0] = first.with_changes(leading_lines=[])
                statements = [*inserted, *statements]
            new += statements
            new += [s for code in below for s in self._parsed(code)]
            held = follows
        while held and held[0].comment is None:  # a blank line at the end of a block says nothing
            held = held[1:]
        self.left_over[block] = held
        if not new and isinstance(block, cst.IndentedBlock):
            new = [cst.parse_statement("pass")]
        return new

    def _wrapped(
        self, block: cst.CSTNode, wrap: Wrap, items: Sequence[cst.CSTNode]
    ) -> list[cst.CSTNode]:
        """The statements from wrap.first to wrap.last under its header."""
        ends = [i for i, item in enumerate(items) if _smalls(item)[-1] is wrap.last]
        if not ends:
            raise ConflictingEdits("a line is shared by what is wrapped and what is not")
        self._wrapped_length = ends[0] + 1
        inside = items[: ends[0] + 1]
        joined = self.joined.get(wrap.last, [])
        after = [code for code in self.after.pop(wrap.last, []) if code not in joined]
        if joined:
            self.after[wrap.last] = joined
        body = self._block(block, inside)
        header = cst.parse_statement(f"{wrap.header}\n    pass\n")
        first = body[0]
        body[0] = first.with_changes(leading_lines=[])
        wrapped = header.with_changes(
            body=cst.IndentedBlock(body=body), leading_lines=first.leading_lines
        )
        self._wrapped_length = ends[0] + 1
        return [wrapped, *(s for code in after for s in self._parsed(code))]

    def _ended(
        self, old: Any, rebuilt: Any
    ) -> tuple[list[cst.CSTNode], list[cst.EmptyLine]]:
        """A compound statement, what moves out of its block, and the last comments there."""
        block = old.body
        tail = self._block(block, block.body[self.ended[block]:])
        follows = [*self.left_over.pop(block, ()), *block.footer]
        if self.ended[block]:
            return [rebuilt, *tail], follows
        above = list(rebuilt.leading_lines)
        if block.header.comment is not None:
            above.append(cst.EmptyLine(comment=block.header.comment))
        tail[0] = tail[0].with_changes(leading_lines=[*above, *tail[0].leading_lines])
        return tail, follows

    def _replaced_line(
        self, old: cst.SimpleStatementLine, new: cst.SimpleStatementLine, edits: list[Edit]
    ) -> list[cst.CSTNode]:
        """A statement whose replacement is one or more lines; the rest of its line stays."""
        replace = next((e for e in edits if isinstance(e, Replace)), None)
        if replace is None:
            return [new]
        lines = self._parsed(replace.code)
        above = _without_comment(old.leading_lines, replace.topic)
        lines[0] = lines[0].with_changes(leading_lines=above)
        if isinstance(lines[-1], cst.SimpleStatementLine):
            trailing = old.trailing_whitespace
            if replace.topic is not None and not _is_pragma(trailing.comment):
                trailing = trailing.with_changes(comment=None, whitespace=cst.SimpleWhitespace(""))
            lines[-1] = lines[-1].with_changes(trailing_whitespace=trailing)
        return lines

    def _needs_lines(self, body: Sequence[cst.CSTNode]) -> bool:
        """Whether an insertion between statements of one line cannot share that line."""
        codes = [
            code
            for index, statement in enumerate(body)
            for code in (*self.before.get(statement, ()), *self.after.get(statement, ()))
        ]
        return any(
            not isinstance(s, cst.SimpleStatementLine) for c in codes for s in self._parsed(c)
        )

    def _as_lines(self, body: Sequence[cst.CSTNode]) -> list[Any]:
        """Statements of one line on lines of their own, with what is inserted between them."""
        lines: list[Any] = []
        for index, statement in enumerate(body):
            if index:
                lines += [s for code in self.before.get(statement, ()) for s in self._parsed(code)]
            if statement not in self.removed:
                small = self._rebuilt(statement).with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
                lines.append(cst.SimpleStatementLine(body=[small]))
            if index < len(body) - 1:
                lines += [s for code in self.after.get(statement, ()) for s in self._parsed(code)]
        return lines

    def _as_block(self, suite: cst.SimpleStatementSuite) -> cst.IndentedBlock:
        """A one-line body broken into a block."""
        first, last = suite.body[0], suite.body[-1]
        before = [s for code in self.before.get(first, ()) for s in self._parsed(code)]
        after = [s for code in self.after.get(last, ()) for s in self._parsed(code)]
        return cst.IndentedBlock(body=[*before, *self._as_lines(suite.body), *after])

    def _small(self, body: Sequence[cst.CSTNode]) -> list[cst.CSTNode]:
        """Statements that share a line: `a; b`. Insertions between them stay on the line."""
        line = self.tree.parents[body[0]]
        shared = isinstance(line, cst.SimpleStatementSuite)
        new: list[cst.CSTNode] = []
        for index, statement in enumerate(body):
            inner = index < len(body) - 1
            codes_before = self.before.get(statement, ()) if (index or shared) else ()
            codes_after = self.after.get(statement, ()) if (inner or shared) else ()
            for code in codes_before:
                new += self._parsed_small(code)
            if statement not in self.removed:
                edits = self.changed.get(statement, ())
                replace = next((e for e in edits if isinstance(e, Replace)), None)
                alone = len(body) == 1 and not shared
                if replace is not None and not alone:
                    new += self._parsed_small(replace.code)
                else:
                    new.append(statement if replace is not None else self._rebuilt(statement))
            for code in codes_after:
                new += self._parsed_small(code)
        if not new:
            new = [cst.Pass()]
        joined = [
            s.with_changes(semicolon=cst.Semicolon(whitespace_after=cst.SimpleWhitespace(" ")))
            if isinstance(s.semicolon, cst.MaybeSentinel) and i < len(new) - 1
            else s
            for i, s in enumerate(new)
        ]
        if body[-1].semicolon is cst.MaybeSentinel.DEFAULT:
            joined[-1] = joined[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        return joined

    def _decorators(self, decorators: Sequence[cst.Decorator]) -> list[cst.Decorator]:
        new: list[cst.Decorator] = []
        for decorator in decorators:
            new.append(self._rebuilt(decorator))
            for code in self.after.get(decorator, ()):
                new += cst.parse_statement(f"{code}\ndef f(): pass\n").decorators
        return new

    def _parsed(self, code: str) -> list[Any]:
        module = cst.parse_module(code)
        first, *rest = module.body
        return [first.with_changes(leading_lines=[*module.header, *first.leading_lines]), *rest]

    def _parsed_small(self, code: str) -> list[cst.CSTNode]:
        found = []
        for statement in self._parsed(code):
            if not isinstance(statement, cst.SimpleStatementLine):
                raise ConflictingEdits("a compound statement cannot share a line")
            found += statement.body
        return found

    # -- single nodes ------------------------------------------------------------------------

    def _change(self, node: Any, edit: Edit) -> Any:
        if isinstance(edit, Replace):
            if isinstance(node, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                return node  # done where its block is rebuilt
            return cst.parse_expression(edit.code)
        if isinstance(edit, AddTerm):
            return cst.BinaryOperation(node, cst.Add(), cst.parse_expression(edit.code))
        if isinstance(edit, Enclose):
            bare = node.with_changes(lpar=[], rpar=[]) if hasattr(node, "lpar") else node
            inside = self.tree.module.code_for_node(bare)
            return cst.parse_expression(f"{edit.before}{inside}{edit.after}")
        if isinstance(edit, AddArgument):
            return _with_argument(node, edit.code, edit.hang)
        if isinstance(edit, AddParameter):
            return _with_parameter(node, edit.code)
        if isinstance(edit, AddDictEntry):
            return self._with_entry(node, edit)
        if isinstance(edit, RemoveImport):
            return _without_name(node, edit.name)
        raise ConflictingEdits(f"unknown edit {edit!r}")

    def _with_entry(self, node: cst.Dict, edit: AddDictEntry) -> cst.Dict:
        new = cst.parse_expression("{" + edit.code + "}").elements[0]
        elements = list(node.elements)
        if not elements:
            return node.with_changes(elements=[new])
        places = [e is edit.after for e in edit.mapping.elements]
        index = places.index(True) if True in places else len(places) - 1
        earlier = [e for e in self.changed[edit.mapping] if isinstance(e, AddDictEntry)]
        index += sum(
            places.index(True) >= edit.mapping.elements.index(e.after)
            for e in earlier[: earlier.index(edit)]
            if e.after is not None and True in places
        )
        previous = elements[index]
        gap = elements[index - 1].comma if index else _first_gap(node)
        own, following = _split_comma(previous.comma, gap, last=index == len(elements) - 1)
        if edit.hang is not None:
            own = _hanging(edit.hang)
            if index < len(elements) - 1:
                following = _hanging(edit.hang)
        if index == len(elements) - 1:
            own, node = _with_comment_of(node, own)
        elements[index] = previous.with_changes(comma=own)
        elements.insert(index + 1, new.with_changes(comma=following))
        return node.with_changes(elements=elements)


def _layer(edit: Edit) -> int:
    """In which order the changes to one node are made: replaced, added to, enclosed."""
    return {AddTerm: 1, Enclose: 2}.get(type(edit), 0)


def _takes_all(statement: cst.ImportFrom, edits: Sequence[Edit]) -> bool:
    gone = {e.name for e in edits if isinstance(e, RemoveImport) and e.statement is statement}
    return all(alias.name.value in gone for alias in statement.names)


def _without_name(node: cst.ImportFrom, name: str) -> cst.ImportFrom:
    names = list(node.names)
    index = next(i for i, a in enumerate(names) if a.name.value == name)
    gone = names.pop(index)
    if index == len(names):
        names[-1] = names[-1].with_changes(comma=gone.comma)
    return node.with_changes(names=names)


def _split_comma(comma: Any, gap: Any, last: bool) -> tuple[Any, Any]:
    """The commas of an element and of a new one after it; a comment stays with its element."""
    if not isinstance(comma, cst.Comma):
        return _between(gap, None), comma
    after = comma.whitespace_after
    if not isinstance(after, cst.ParenthesizedWhitespace):
        return (_between(gap, comma) if last else comma), comma
    plain = after.with_changes(first_line=cst.TrailingWhitespace(newline=after.first_line.newline))
    model = gap.whitespace_after if isinstance(gap, cst.Comma) else after
    if last and isinstance(model, cst.ParenthesizedWhitespace):
        own = after.with_changes(
            empty_lines=[], indent=model.indent, last_line=model.last_line
        )
    else:
        own = after.with_changes(empty_lines=[])
    return comma.with_changes(whitespace_after=own), comma.with_changes(whitespace_after=plain)


def _with_comment_of(node: cst.Dict, comma: cst.Comma) -> tuple[cst.Comma, cst.Dict]:
    """The comma after what was the last element, with the comment that stands behind that, and the
    dict without: libcst has it before the closing brace."""
    closing = node.rbrace.whitespace_before
    if not isinstance(closing, cst.ParenthesizedWhitespace) or closing.first_line.comment is None:
        return comma, node
    line = closing.first_line
    after = comma.whitespace_after
    if not isinstance(after, cst.ParenthesizedWhitespace):
        after = closing.with_changes(empty_lines=[])
    plain = closing.with_changes(first_line=cst.TrailingWhitespace(newline=line.newline))
    brace = node.rbrace.with_changes(whitespace_before=plain)
    return comma.with_changes(whitespace_after=after.with_changes(first_line=line)), (
        node.with_changes(rbrace=brace)
    )


def _between(model: Any, own: Any) -> cst.Comma:
    """A comma whose line break is that between the neighbours, without their comments."""
    for comma in (model, own):
        if isinstance(comma, cst.Comma):
            after = comma.whitespace_after
            if isinstance(after, cst.ParenthesizedWhitespace):
                plain = cst.TrailingWhitespace(newline=after.first_line.newline)
                after = after.with_changes(first_line=plain, empty_lines=[])
            return cst.Comma(whitespace_after=after)
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))


def _first_gap(node: cst.Dict) -> Any:
    """The line break after `{`, as a comma to copy, for a dict with one element."""
    after = node.lbrace.whitespace_after
    if isinstance(after, cst.ParenthesizedWhitespace):
        return cst.Comma(whitespace_after=after)
    return None


def _hanging(hang: int) -> cst.Comma:
    """A comma after which the next element stands on a line of its own, so far in."""
    return cst.Comma(
        whitespace_after=cst.ParenthesizedWhitespace(
            indent=True, last_line=cst.SimpleWhitespace(" " * hang)
        )
    )


def _with_argument(call: cst.Call, code: str, hang: int | None) -> cst.Call:
    argument = cst.parse_expression(f"f({code})").args[0]
    args = list(call.args)
    if not args:
        return call.with_changes(args=[argument])
    stars = next((i for i, a in enumerate(args) if a.star == "**"), len(args))
    last = args[stars - 1] if stars else None
    if last is None or stars < len(args):
        args.insert(stars, argument.with_changes(
            comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))))
        return call.with_changes(args=args)
    gap = args[-2].comma if len(args) > 1 else None
    args[-1] = last.with_changes(
        comma=_hanging(hang) if hang is not None else _between(gap, None),
        whitespace_after_arg=cst.SimpleWhitespace(""),
    )
    args.append(argument.with_changes(
        comma=last.comma, whitespace_after_arg=last.whitespace_after_arg))
    return call.with_changes(args=args)


def _with_parameter(function: cst.FunctionDef, code: str) -> cst.FunctionDef:
    parameter = cst.parse_statement(f"def f({code}): pass").params.params[0]
    params = list(function.params.params)
    ends = isinstance(function.params.star_arg, (cst.Param, cst.ParamStar)) or bool(
        function.params.star_kwarg
    )
    if not params:
        return function.with_changes(params=function.params.with_changes(params=[parameter]))
    last = params[-1]
    gap = params[-2].comma if len(params) > 1 else None
    tail = last.comma if ends or isinstance(last.comma, cst.Comma) else parameter.comma
    params[-1] = last.with_changes(
        comma=_between(gap, None), whitespace_after_param=cst.SimpleWhitespace("")
    )
    params.append(parameter.with_changes(
        comma=tail, whitespace_after_param=last.whitespace_after_param))
    return function.with_changes(params=function.params.with_changes(params=params))


def _smalls(item: cst.CSTNode) -> Sequence[cst.CSTNode]:
    return item.body if isinstance(item, cst.SimpleStatementLine) else [item]


def _is_block(node: cst.CSTNode) -> bool:
    return isinstance(
        node,
        (cst.Module, cst.IndentedBlock, cst.SimpleStatementLine, cst.SimpleStatementSuite),
    )


def _without_comment(lines: Iterable[cst.EmptyLine], topic: str | None) -> list[cst.EmptyLine]:
    """The lines above a removed statement, less its own comment where that is about the topic."""
    kept = list(lines)
    start = len(kept)
    while start and kept[start - 1].comment is not None:
        start -= 1
    own = " ".join(line.comment.value for line in kept[start:])
    if topic is not None and own and re.search(topic, own, re.IGNORECASE):
        return kept[:start]
    return kept


def _is_pragma(comment: cst.Comment | None) -> bool:
    """A comment for tools; any other on the line of a replaced call speaks of its arguments."""
    words = r"#\s*(noqa|type:|pylint|fmt:|pragma|nosec|pyright|mypy|ruff|isort|quickwins)"
    return comment is not None and re.match(words, comment.value) is not None


def _joined(held: Sequence[cst.EmptyLine], lines: Sequence[cst.EmptyLine]) -> list[cst.EmptyLine]:
    """Lines from above a removed statement put over the next one, blank lines not doubled."""
    lines = list(lines)
    if held and all(line.comment is None for line in held) and lines and lines[0].comment is None:
        return lines
    return [*held, *lines]
