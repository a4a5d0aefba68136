"""Where a script imports, and the one edit that lets it import the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import libcst as cst

from quickwins_codemod.edits import Edit, InsertAfter, InsertBefore, RemoveImport, Replace, target
from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.tree import Tree, statements_of

if TYPE_CHECKING:
    from quickwins_codemod.bundle import PathLine

_ALIAS = "Quickwins"


def runtime_name(script: Script, name: str) -> str:
    """What a name of the runtime is called in this script: itself, unless that is taken."""
    from quickwins_codemod.script.names import Variable

    variable = Variable(script.tree.module, name)
    dotted = script.names.imports.get(variable, "")
    if dotted in (f"quickwins_runtime.{name}", f"quickwins_codemod.runtime.{name}"):
        return name
    taken = any(name in names for names in script.names._locals.values())
    if not taken:
        return name
    return f"{_ALIAS.lower()}_{name}" if name[0].islower() else f"{_ALIAS}{name}"


def import_edit(
    script: Script,
    names: frozenset[str],
    origin: str,
    edits: Sequence[Edit],
    line: PathLine | None,
    after_line: int,
) -> Edit | None:
    """The insertion of `from origin import names`, after the imports that a reader sees first.

    Where an earlier run has put such a line there, that one takes the names. line: a sys.path line that must stand above; after_line: the line of the script's own that puts
    the runtime's folder on the path, or 0.
    """
    tree = script.tree
    present = {v.name: d for v, d in script.names.imports.items() if v.scope is tree.module}
    wanted = []
    for name in sorted(names):
        bound = runtime_name(script, name)
        if present.get(bound) != f"{origin}.{name}":
            wanted.append(name if bound == name else f"{name} as {bound}")
    if not wanted:
        return None
    earlier = _earlier_import(tree, origin, edits)
    if earlier is not None and line is None:
        have = [tree.code(alias).rstrip(", ") for alias in earlier.names]
        merged = sorted({*have, *wanted}, key=lambda text: text.split()[0])
        return Replace(earlier, f"from {origin} import {', '.join(merged)}")
    code = [f"from {origin} import {', '.join(wanted)}"]
    anchor = _anchor(tree, edits, after_line)
    if line is not None:
        missing = [i for i in line.imports if not _has_import(tree, i, anchor)]
        code = ["", *missing, line.text, *code]
    text = "\n".join(code) + "\n"
    if anchor is not None:
        return InsertAfter(anchor, text)
    first = next(iter(statements_of(tree.module)))
    return InsertBefore(first, text)


def _earlier_import(tree: Tree, origin: str, edits: Sequence[Edit]) -> cst.ImportFrom | None:
    """The import of the runtime on one line, at module level above the first thing that uses it."""
    first_use = _first_use(tree, edits)
    for statement in statements_of(tree.module):
        if tree.order[statement] >= first_use:
            return None
        if (
            isinstance(statement, cst.ImportFrom)
            and not isinstance(statement.names, cst.ImportStar)
            and statement.module is not None
            and tree.code(statement.module) == origin
            and not statement.relative
            and statement.lpar is None
            and len(set(tree.span(statement))) == 1
        ):
            return statement
    return None


def _first_use(tree: Tree, edits: Sequence[Edit]) -> int:
    uses = [e for e in edits if not isinstance(e, RemoveImport)]
    return min((tree.order[_top(tree, target(e))] for e in uses), default=0)


def _anchor(tree: Tree, edits: Sequence[Edit], after_line: int) -> cst.CSTNode | None:
    """The last import at module level above the first thing that uses the runtime."""
    first_use = _first_use(tree, edits)
    anchor: cst.CSTNode | None = None
    for index, statement in enumerate(statements_of(tree.module)):
        if tree.order[statement] >= first_use:
            break
        is_import = isinstance(statement, (cst.Import, cst.ImportFrom))
        docstring = index == 0 and isinstance(statement, cst.Expr) and isinstance(
            statement.value, (cst.SimpleString, cst.ConcatenatedString)
        )
        provides = after_line and tree.span(statement)[0] <= after_line <= tree.span(statement)[1]
        if is_import or docstring or provides:
            anchor = statement
    return anchor


def _top(tree: Tree, node: cst.CSTNode) -> cst.CSTNode:
    """The module-level statement that holds a node."""
    while True:
        parent = tree.parents[node]
        if isinstance(parent, cst.Module):
            return node if not isinstance(node, cst.SimpleStatementLine) else node.body[0]
        if isinstance(parent, cst.SimpleStatementLine) and isinstance(
            tree.parents[parent], cst.Module
        ):
            return node
        node = parent


def _has_import(tree: Tree, code: str, anchor: cst.CSTNode | None) -> bool:
    """Whether a module-level import above (or at) the anchor binds the same name to the same thing."""
    wanted = cst.parse_module(code).body[0].body[0]
    name = wanted.names[0].name.value
    module = getattr(wanted, "module", None)
    last = tree.order[anchor] if anchor is not None else -1
    for statement in statements_of(tree.module):
        if tree.order[statement] > last or type(statement) is not type(wanted):
            continue
        if isinstance(statement.names, cst.ImportStar):
            continue
        if module is not None and tree.code(statement.module or cst.Name("")) != module.value:
            continue
        if any(a.name.value == name and a.asname is None for a in statement.names):
            return True
    return False
