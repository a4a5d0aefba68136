"""Which lines of the old text are edited, and that no other line of it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from quickwins_codemod.edits import (
    Edit,
    EndBlockBefore,
    InsertAfter,
    InsertBefore,
    Replace,
    Wrap,
    target,
)
from quickwins_codemod.script.facts import Script

if TYPE_CHECKING:
    import libcst as cst


def stray_line(old: str, new: str, script: Script, edits: Sequence[Edit]) -> int | None:
    """The first line of the old text that was changed or removed without an edit on it.

    Lines that are only added are not looked at: where an edit's text lands is fixed by its anchor,
    and code that was not asked for cannot come out of text that was not touched.
    """
    planned = _planned_lines(script, edits)
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
    touched = _planned_lines(script, edits)
    for edit in edits:
        first, last = script.tree.span(target(edit))
        if isinstance(edit, InsertBefore):
            touched.update(_comment_lines(script, edit.anchor), (first,))
        elif isinstance(edit, InsertAfter):
            touched.add(last)
    return frozenset(touched)


def _planned_lines(script: Script, edits: Sequence[Edit]) -> set[int]:
    from quickwins_codemod.rewriting import removed_nodes

    planned: set[int] = set()
    for edit in edits:
        node = target(edit)
        first, last = script.tree.span(node)
        if isinstance(edit, Wrap):
            last = script.tree.span(edit.last)[1]
        if isinstance(edit, EndBlockBefore):
            planned.update(_moved_lines(script, edit))
        if not isinstance(edit, (InsertBefore, InsertAfter)):
            planned.update(range(first, last + 1))
        elif first == last:
            planned.add(first)  # `if ready: step()` takes the insertion on its own line
        if isinstance(edit, Replace):
            planned.update(_comment_lines(script, node))
    for node in removed_nodes(script.tree, edits):
        first, last = script.tree.span(node)
        planned.update(range(first, last + 1))
        planned.update(_comment_lines(script, node))
    return planned


def _moved_lines(script: Script, edit: EndBlockBefore) -> range:
    """The lines from a statement to the end of its block; the header's too where nothing stays."""
    block = script.tree.block(edit.first)
    owner = script.tree.parents[block]
    whole = block.body[0] is script.tree.line_node(edit.first)
    start = script.tree.span(owner if whole else edit.first)[0]
    if not whole:
        start = _comment_lines(script, edit.first).start
    end = script.tree.span(owner)[1] + len(block.footer)
    return range(start, end + 1)


def _comment_lines(script: Script, node: cst.CSTNode) -> range:
    """The lines directly above a statement, which may hold its comment."""
    above = len(getattr(script.tree.line_node(node), "leading_lines", ()))
    first, _ = script.tree.span(node)
    return range(first - above, first)
