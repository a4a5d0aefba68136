"""Only planned lines differ: the new text against the old, and against the edits' own places."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from quickwins_codemod.edits import Edit, InsertAfter, InsertBefore, target
from quickwins_codemod.script.facts import Script


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
    planned: set[int] = set()
    for edit in edits:
        node = target(edit)
        first, last = script.tree.span(node)
        if isinstance(edit, (InsertBefore, InsertAfter)):
            if first == last:
                planned.add(first)  # `if ready: step()` takes the insertion on its own line
            continue
        above = len(getattr(script.tree.line_node(node), "leading_lines", ())) if (
            node in script.tree.parents and hasattr(edit, "topic")
        ) else 0
        planned.update(range(first - above, last + 1))
    return planned
