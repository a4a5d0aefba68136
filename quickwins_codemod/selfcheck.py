"""Which lines of the old text are edited, and that no other line of it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quickwins_codemod.edits import (
    AddParameter,
    Edit,
    EndBlockBefore,
    InsertAfter,
    InsertBefore,
    Replace,
    Wrap,
    target,
)

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.facts import Script
    from quickwins_codemod.script.tree import Tree


def stray_line(old: str, new: str, script: Script, edits: Sequence[Edit]) -> int | None:
    """The first line of the old text that was changed or removed without an edit on it.

    Lines that are only added are not looked at: where an edit's text lands is fixed by its anchor,
    and code that was not asked for cannot come out of text that was not touched.
    """
    planned = changed_lines(script.tree, edits)
    rest = iter(new.split("\n"))
    for number, line in enumerate(old.split("\n"), start=1):
        if number in planned or not line.strip():
            continue
        # Each line that nobody planned to touch must come next among the new ones, in its order.
        if all(line != other for other in rest):
            return number
    return None


def touched_lines(script: Script, edits: Sequence[Edit]) -> frozenset[int]:
    """The lines of the old text that edits change, and those that insertions stand next to."""
    tree = script.tree
    touched = changed_lines(tree, edits)
    for edit in edits:
        first, last = tree.span(target(edit))
        if isinstance(edit, InsertBefore):
            touched.update(_comment_lines(tree, edit.anchor), (first,))
        elif isinstance(edit, InsertAfter):
            touched.add(last)
    return frozenset(touched)


def changed_lines(tree: Tree, edits: Sequence[Edit]) -> set[int]:
    """The lines of the old text that edits change, move or remove."""
    from quickwins_codemod.rewriting import removed_nodes

    changed: set[int] = set()
    for edit in edits:
        node = target(edit)
        first, last = tree.span(node)
        if isinstance(edit, Wrap):
            last = tree.span(edit.last)[1]
        if isinstance(edit, AddParameter):
            last = max(first, tree.span(edit.function.params)[1])
        if isinstance(edit, EndBlockBefore):
            changed.update(_moved_lines(tree, edit))
        if not isinstance(edit, (InsertBefore, InsertAfter)):
            changed.update(range(first, last + 1))
        elif first == last:
            changed.add(first)  # `if ready: step()` takes the insertion on its own line
        if isinstance(edit, Replace):
            changed.update(_comment_lines(tree, node))
    for node in removed_nodes(tree, edits):
        first, last = tree.span(node)
        changed.update(range(first, last + 1))
        changed.update(_comment_lines(tree, node))
    return changed


def _moved_lines(tree: Tree, edit: EndBlockBefore) -> range:
    """The lines from a statement to the end of its block; the header's too where nothing stays."""
    block = tree.block(edit.first)
    owner = tree.parents[block]
    whole = block.body[0] is tree.line_node(edit.first)
    start = tree.span(owner if whole else edit.first)[0]
    if not whole:
        start = _comment_lines(tree, edit.first).start
    end = tree.span(owner)[1] + len(block.footer)
    return range(start, end + 1)


def _comment_lines(tree: Tree, node: cst.CSTNode) -> range:
    """The lines directly above a statement, which may hold its comment."""
    above = len(getattr(tree.line_node(node), "leading_lines", ()))
    first, _ = tree.span(node)
    return range(first - above, first)
