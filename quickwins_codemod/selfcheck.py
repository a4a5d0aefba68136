"""Only planned lines differ: the new text against the old, and against the edits' own places."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from quickwins_codemod.edits import Edit, InsertAfter, InsertBefore, Replace, target
from quickwins_codemod.script.facts import Script

if TYPE_CHECKING:
    import libcst as cst


def stray_line(old: str, new: str, script: Script, edits: Sequence[Edit]) -> int | None:
    """The first line of the old text that was changed or removed without an edit on it.

    Lines that are only added are not looked at: where an edit's text lands is fixed by its anchor,
    and code that was not asked for cannot come out of text that was not touched.
    """
    planned = _planned_lines(script, edits)
    matcher = difflib.SequenceMatcher(None, old.split("\n"), new.split("\n"), autojunk=False)
    for tag, start, end, *_ in matcher.get_opcodes():
        if tag in ("replace", "delete"):
            for line in range(start + 1, end + 1):
                if line not in planned and old.split("\n")[line - 1].strip():
                    return line
    return None


def _planned_lines(script: Script, edits: Sequence[Edit]) -> set[int]:
    from quickwins_codemod.rewriting import removed_nodes

    planned: set[int] = set()
    for edit in edits:
        node = target(edit)
        first, last = script.tree.span(node)
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


def _comment_lines(script: Script, node: cst.CSTNode) -> range:
    """The lines directly above a statement, which may hold its comment."""
    above = len(getattr(script.tree.line_node(node), "leading_lines", ()))
    first, _ = script.tree.span(node)
    return range(first - above, first)
