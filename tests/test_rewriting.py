"""Single edits, applied to pieces of code whose layout is the hard part."""

from __future__ import annotations

import libcst as cst
import pytest

from quickwins_codemod.edits import AddDictEntry
from quickwins_codemod.rewriting import apply_edits
from quickwins_codemod.script.tree import Tree

# A dict and the same with one more entry at its end: each comment stays with its own entry.
GROWN = {
    "comma and comment": (
        'log({\n    "a": x,  # first\n    "b": y,  # last\n})\n',
        'log({\n    "a": x,  # first\n    "b": y,  # last\n    **more(),\n})\n',
    ),
    "comment without comma": (
        'log({\n    "a": x,  # first\n    "b": y  # last\n})\n',
        'log({\n    "a": x,  # first\n    "b": y,  # last\n    **more()\n})\n',
    ),
    "one entry": (
        'log({\n    "a": x  # only\n})\n',
        'log({\n    "a": x,  # only\n    **more()\n})\n',
    ),
    "a comment on a line of its own": (
        'log({\n    "a": x,\n    # the end\n})\n',
        'log({\n    "a": x,\n    **more(),\n    # the end\n})\n',
    ),
    "carriage returns": (
        'log({\r\n    "a": x,\r\n    "b": y,  # last\r\n})\r\n',
        'log({\r\n    "a": x,\r\n    "b": y,  # last\r\n    **more(),\r\n})\r\n',
    ),
    "on the line of the brace": (
        'log({"a": x  # only\n     })\n',
        'log({"a": x,  # only\n     **more()\n     })\n',
    ),
    "one line": ('log({"a": x})  # all\n', 'log({"a": x, **more()})  # all\n'),
}


@pytest.mark.parametrize("case", GROWN)
def test_one_more_entry_leaves_comments_where_they_are(case: str) -> None:
    before, after = GROWN[case]
    tree = Tree(cst.parse_module(before))
    (mapping,) = tree.all(cst.Dict)

    assert apply_edits(tree, [AddDictEntry(mapping, None, "**more()")]).code == after
