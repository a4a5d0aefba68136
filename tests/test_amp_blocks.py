"""Statements that leave a block: comments and blank lines go with them, no other line differs."""

import libcst as cst
import pytest

from quickwins_codemod.edits import EndBlockBefore, InsertAfter, Replace, Wrap
from quickwins_codemod.rewriting import apply_edits
from quickwins_codemod.script.reading import read
from quickwins_codemod.selfcheck import stray_line

SOURCE = """\
for x in y:
    with a:  # half
        # first
        p = f(x,
              y)

        # then back
        g(p); k()
        if p:  # q
            # in
            s(
                1
            )
        # end
    # outer end
    z()
"""


@pytest.fixture
def script():
    return read(cst.parse_module(SOURCE))


@pytest.fixture
def body(script):
    (block,) = script.tree.all(cst.With)
    return list(block.body.body)


def test_the_tail_stands_below_the_statement(script, body):
    edits = [EndBlockBefore(body[1].body[0])]
    new = apply_edits(script.tree, edits).code

    assert new == """\
for x in y:
    with a:  # half
        # first
        p = f(x,
              y)

    # then back
    g(p); k()
    if p:  # q
        # in
        s(
            1
        )
    # end
    # outer end
    z()
"""
    assert stray_line(SOURCE, new, script, edits) is None


def test_a_block_that_empties_goes_and_its_first_statements_may_be_wrapped_anew(script, body):
    first = body[0].body[0]
    (number,) = [n for n in script.tree.all(cst.Integer)]
    edits = [
        EndBlockBefore(first), Wrap(first, first, "with a:"), InsertAfter(body[2], "new()\n"),
        Replace(number, "2"),
    ]
    new = apply_edits(script.tree, edits).code

    assert new == """\
for x in y:
    # half
    # first
    with a:
        p = f(x,
              y)

    # then back
    g(p); k()
    if p:  # q
        # in
        s(
            2
        )
    new()
    # end
    # outer end
    z()
"""
    assert stray_line(SOURCE, new, script, edits) is None


@pytest.mark.parametrize("line", ["    z()", "    with a:  # half", "        # first"])
def test_a_line_that_does_not_move_may_not_differ(line, script, body):
    edits = [EndBlockBefore(body[1].body[0])]
    new = apply_edits(script.tree, edits).code.replace(line, line + " # touched", 1)

    assert stray_line(SOURCE, new, script, edits) is not None
