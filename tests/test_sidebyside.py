"""Two versions side by side: every line of the diff once, like lines in one row, words marked."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quickwins_codemod.report import sidebyside
from quickwins_codemod.report.sidebyside import Hunk, Line, Version
from quickwins_codemod.verdict import FileOutcome

LINES = st.sampled_from(
    ["a = 1", "    a = 1", "a = f(b)", "b", "", "   ", "a = f(b, c)", "x\f", "\u00e9 = '\u2028'", "# a"]
)
TEXTS = st.tuples(
    st.lists(st.tuples(LINES, st.sampled_from(["\n", "\n", "\r\n"])), max_size=25),
    st.sampled_from(["", "last"]),
).map(lambda found: ("".join(line + end for line, end in found[0]) + found[1]).encode())


def compared(old: str | bytes, new: str | bytes, context: int = 3) -> list[Hunk]:
    versions = [v if isinstance(v, bytes) else v.encode() for v in (old, new)]
    return sidebyside.hunks(*map(Version, versions), context)


def side(hunk: Hunk, name: str) -> list[Line]:
    rows = [row for block in hunk.blocks for row in block.rows]
    return [line for row in rows for line in [getattr(row, name)] if line is not None]


def shown(hunks: list[Hunk]) -> list[list[tuple[str, str]]]:
    """The rows of the changed blocks, with what differs in brackets."""
    rows = [row for h in hunks for block in h.blocks if block.changed for row in block.rows]
    return [[marked(row.old), marked(row.new)] for row in rows]


def marked(line: Line | None) -> str | None:
    if line is None:
        return None
    text = line.text
    for start, end in reversed(line.differs):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


# Against the diff


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_the_rows_are_the_lines_of_the_diff(old: bytes, new: bytes) -> None:
    diff = FileOutcome("a.py", "changed", (), old, new).diff()
    said = re.split(r"^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@\n", diff, flags=re.M)[1:]
    hunks = compared(old, new)
    assert len(hunks) == len(said) // 3
    for number, hunk in enumerate(hunks):
        said_lines = diff_lines(said[3 * number + 2])
        for name, sign, position in (("old", "-", 0), ("new", "+", 1)):
            found = side(hunk, name)
            assert [line.number for line in found] == list(getattr(hunk, name))
            assert not found or found[0].number == int(said[3 * number + position])
            lines = [line for which, line in said_lines if which in (" ", sign)]
            assert [line.text + line.ending for line in found] == lines


def diff_lines(body: str) -> list[tuple[str, str]]:
    """The lines of a hunk of a diff, each with its sign."""
    lines: list[tuple[str, str]] = []
    for line in body.split("\n")[:-1]:
        if line.startswith("\\"):
            lines[-1] = (lines[-1][0], lines[-1][1].removesuffix("\n"))
        else:
            lines.append((line[0], line[1:] + "\n"))
    return lines


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_every_changed_line_is_there_once_and_in_order(old: bytes, new: bytes) -> None:
    for name, data in (("old", old), ("new", new)):
        lines = Version(data).lines
        assert "".join(line.text + line.ending for line in lines) == data.decode()
        seen = [line.number for hunk in compared(old, new) for line in side(hunk, name)]
        assert seen == sorted(set(seen))
        changed = {
            line.number
            for hunk in compared(old, new) for block in hunk.blocks if block.changed
            for line in side(Hunk((block,)), name)
        }  # fmt: skip
        rest = [line.text + line.ending for line in lines if line.number not in changed]
        other = old if name == "new" else new
        assert all(line.encode() in other for line in rest)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_the_words_that_are_not_marked_are_the_same(old: bytes, new: bytes) -> None:
    for hunk in compared(old, new):
        for block in hunk.blocks:
            for row in block.rows:
                assert row.old is not None or row.new is not None
                if not block.changed:
                    assert row.old.text == row.new.text and not row.old.differs
                elif row.old and row.new and (row.old.differs or row.new.differs):
                    left = [re.sub(r"\[.*?\]|\s", "", marked(it)) for it in (row.old, row.new)]
                    assert left[0] == left[1]


# What shares a row


def test_lines_that_are_alike_share_a_row() -> None:
    old = "out = model(x)\nloss = criterion(out, y)\nloss.backward()\n"
    new = (
        "with autocast(device):\n    out = model(x)\n    loss = criterion(out, y)\n"
        "scaler.scale(loss).backward()\n"
    )
    assert shown(compared(old, new)) == [
        [None, "with autocast(device):"],
        ["out = model(x)", "[    ]out = model(x)"],
        ["loss = criterion(out, y)", "[    ]loss = criterion(out, y)"],
        ["loss.backward()", "[scaler.scale(]loss[)].backward()"],
    ]


def test_lines_that_are_not_alike_share_a_row_without_marks() -> None:
    assert shown(compared("alpha(1)\nbeta(2)\n", "one, two\n")) == [
        ["alpha(1)", "one, two"],
        ["beta(2)", None],
    ]


def test_of_a_deeper_indentation_the_inner_part_is_marked() -> None:
    assert shown(compared("    f(x)\n", "        f(y)\n")) == [
        ["    f([x])", "    [    ]f([y])"]
    ]
    assert shown(compared("\tf(x)\n", "    f(x)\n")) == [["[\t]f(x)", "[    ]f(x)"]]


def test_an_insertion_stands_alone() -> None:
    assert shown(compared("a\nb\n", "a\nnew\nb\n")) == [[None, "new"]]
    assert shown(compared("a\nold\nb\n", "a\nb\n")) == [["old", None]]


def test_marks_with_nothing_but_a_space_between_are_one() -> None:
    assert shown(compared("f(x, alpha beta)\n", "f(x, gamma delta)\n")) == [
        ["f(x, [alpha beta])", "f(x, [gamma delta])"]
    ]


def test_blocks_too_large_to_compare_are_paired_from_the_top() -> None:
    old = "".join(f"a{n} = {n}\n" for n in range(200))
    new = "first\n" + "".join(f"b{n} = {n}\n" for n in range(200))
    rows = shown(compared(old, new))
    assert rows[0] == ["a0 = 0", "first"] and rows[-1] == [None, "b199 = 199"]
    assert len(rows) == 201


def test_a_line_too_long_to_compare_is_not_marked() -> None:
    old, new = (f"x = [{', '.join(map(str, range(n, n + 900)))}]\n" for n in (0, 1))
    ((one, other),) = shown(compared(old, new))
    assert "[" not in one[5:] and "[" not in other[5:]


def test_changes_that_are_far_apart_are_two_hunks() -> None:
    old = [f"line {n}\n" for n in range(20)]
    new = ["first\n", *old[1:19], "last\n"]
    hunks = compared("".join(old), "".join(new))
    assert [list(hunk.old) for hunk in hunks] == [[1, 2, 3, 4], [17, 18, 19, 20]]
    assert [list(hunk.new) for hunk in hunks] == [[1, 2, 3, 4], [17, 18, 19, 20]]


def test_nothing_changed_and_nothing_there() -> None:
    assert compared("a\n", "a\n") == [] == compared(b"", b"")
    assert shown(compared("", "a\n")) == [[None, "a"]]


# What a line is


@pytest.mark.parametrize(
    ("data", "texts", "encoding"),
    [
        (b"# coding: latin-1\nx = '\xe9'\n", ["# coding: latin-1", "x = '\u00e9'"], "iso-8859-1"),
        ("\ufeffx = '\u00e9'\n".encode(), ["x = '\u00e9'"], "utf-8-sig"),
        ("# coding: cp932\n\u8868 = 1\n".encode("cp932"), ["# coding: cp932", "\u8868 = 1"], "cp932"),
        (b"x = '\xe9'\n", ["x = '\udce9'"], None),
        (b"# coding: nonsense\nx\n", ["# coding: nonsense", "x"], None),
        # the newline that this encoding spells in letters is none to git
        (b"# coding: utf-7\nx+AAo-y\n", ["# coding: utf-7", "x+AAo-y"], "utf-7"),
        (b"a\x0cb\x1cc\nd", ["a\x0cb\x1cc", "d"], "utf-8"),
    ],
)  # fmt: skip
def test_lines_are_read_as_python_does_and_cut_as_git_does(
    data: bytes, texts: list[str], encoding: str | None
) -> None:
    version = Version(data)
    assert [line.text for line in version.lines] == texts
    assert version.encoding == encoding


def test_line_endings_are_no_part_of_the_text() -> None:
    version = Version(b"a\r\nb\nc")
    assert [(line.text, line.ending) for line in version.lines] == [
        ("a", "\r\n"), ("b", "\n"), ("c", ""),
    ]  # fmt: skip
    assert version.endings == {"\n", "\r\n"}


def test_a_line_of_pythons_is_found_where_git_counts_fewer() -> None:
    version = Version(b"a\rb\r\nc\nd\re")
    assert [version.line_of(number) for number in range(1, 6)] == [1, 1, 2, 3, 3]
    assert Version(b"a\nb\r\n").line_of(2) == 2
