"""The page of `quickwins diff --html`: it holds the diff and each reason, safely, and reads well in
a browser: light and dark, on a phone, in print."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import STICKS_OUT, Checker, browse, browser, count, found_in_frame, pixels, probed
from helpers import SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st

from quickwins_codemod import repository
from quickwins_codemod.report import markup, reasons, review_page, review_style, syntax
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.verdict import FileOutcome, RunResult, Status, Touched, Verdict

EVIL = "</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)></del></td>"
ROOT = Path(__file__).resolve().parents[1]


def verdict(
    status: Status, code: str, line: int, message: str = "said", hint: str | None = None
) -> Verdict:
    return Verdict("onecycle", status, code, line, 1, message, hint)


def changed(
    before: bytes, after: bytes, *verdicts: Verdict, path: str = "a.py", touched: Sequence[Touched] = ()
) -> FileOutcome:
    return FileOutcome(path, "changed", verdicts, before, after, tuple(touched))


def result(*outcomes: FileOutcome) -> RunResult:
    return RunResult(os.path.abspath("proj"), 9, len(outcomes), outcomes)


def again(verb: str) -> str:
    return f"quickwins {verb} --select amp 'my scripts'"


def render(*outcomes: FileOutcome) -> str:
    return review_page.render(result(*outcomes), all_transforms(), again)


class Page(HTMLParser):
    """What a reader finds: text by section, links, and the lines of each table of two columns."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.tables: list[list[list[str | None]]] = []
        self.cells: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.open.append(tag)
        if tag in ("br", "meta", "link"):
            self.open.pop()
        self.ids += [about["id"] or ""] if "id" in about else []
        self.links += [about["href"] or ""] if "href" in about else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((tag, ""))
        if tag == "table":
            self.tables.append([])
        if tag == "tr" and self.tables:
            self.tables[-1].append([])
        if tag == "td":
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self.open:  # a part of a page may close what it did not open
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.headings and any(re.fullmatch("h[1-6]", tag) for tag in self.open):
            tag, text = self.headings[-1]
            self.headings[-1] = tag, text + data
        if "td" in self.open and not {"b", "i"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def sample() -> RunResult:
    rules = {t.rule: t.options_type() for t in all_transforms()}
    return repository.run([SAMPLE], SAMPLE, Settings(rules=rules))


@pytest.fixture(scope="module")
def usual(sample: RunResult) -> str:
    """The page of the sample repository."""
    return review_page.render(sample, all_transforms(), lambda verb: f"quickwins {verb} .")


# The file


def test_the_page_is_whole_and_loads_nothing(usual: str) -> None:
    checker = Checker(usual)
    tags = {tag for tag, _ in checker.seen}
    assert {"main", "nav", "details", "table", "del", "ins", "mark"} <= tags
    assert not tags & {"script", "img", "iframe", "object", "embed", "form"}
    for _, attributes in checker.seen:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "data:").startswith(("data:", "#"))
    assert "url(" not in usual and "@import" not in usual and "default-src 'none'" in usual
    assert '<html lang="en">' in usual


def test_every_link_leads_somewhere_and_every_name_is_one_elements(usual: str) -> None:
    page = Page(usual)
    assert [name for name, n in Counter(page.ids).items() if n > 1] == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.links) > 100


def test_headings_are_in_order_and_begin_with_one_title(usual: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(usual).headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(levels, levels[1:]))


def test_an_indentation_is_apart_so_that_a_phone_can_show_less_of_it() -> None:
    page = render(changed(b"if a:\n    x = 1\n", b"if a:\n    if b:\n        x = 1\n"))
    assert '<ins><span class="w">    </span><span class="k">if' in page
    assert '<ins><span class="w">    </span><mark><span class="w">    </span></mark>x' in page


def test_it_is_the_same_each_time(sample: RunResult, usual: str) -> None:
    assert review_page.render(sample, all_transforms(), lambda v: f"quickwins {v} .") == usual


def test_the_file_is_written_in_one_go(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("older")
    one = result(changed(b"a\n", b"b\n", path="\udce9.py"))
    review_page.write(page, one, all_transforms(), again)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(OSError):
        review_page.write(tmp_path, one, all_transforms(), again)


# The diff is on it


def both_sides(page: str) -> tuple[list[str], list[str]]:
    """The lines of the hunks before and after."""
    rows = [row for table in Page(page).tables for row in table if len(row) == 2]
    sides = [[row[side] for row in rows] for side in (0, 1)]
    return tuple([line for line in lines if line is not None] for lines in sides)  # type: ignore


def without_gaps(page: str) -> str:
    return page.replace("<td></td>", "<td>\0</td>")


def sides_of(page: str) -> list[list[str]]:
    old, new = both_sides(without_gaps(page))
    return [[line for line in side if line != "\0"] for side in (old, new)]


def sides_of_diff(diff: str) -> list[list[str]]:
    sides: list[list[str]] = [[], []]
    for line in re.sub(r"(?m)^(diff --git|---|\+\+\+|@@|\\).*\n", "", diff).split("\n")[:-1]:
        for side, signs in zip(sides, (" -", " +")):
            if line[0] in signs:
                side.append(line[1:])
    return sides


def test_both_sides_of_the_samples_diff_are_on_its_page(sample: RunResult, usual: str) -> None:
    files = [o for o in sample.outcomes if o.status == "changed"]
    assert sides_of(usual) == sides_of_diff("".join(o.diff() for o in files))


LINES = st.sampled_from(["a = 1", "if a:", "    a = 1", "'''", "x = '<b>&amp;'", "# c", "a = f(b)"])


@settings(max_examples=100, deadline=None)
@given(st.lists(LINES, max_size=20), st.lists(LINES, max_size=20))
def test_both_sides_of_any_diff_are_on_its_page(old: list[str], new: list[str]) -> None:
    texts = ["".join(f"{line}\n" for line in side).encode() for side in (old, new)]
    outcome = changed(*texts)
    assert sides_of(render(outcome)) == sides_of_diff(outcome.diff())


def test_removed_and_added_lines_are_told_apart_without_colours() -> None:
    page = render(changed(b"a = 1\n", b"a = 2\n", verdict("applied", "QW101", 1)))
    assert '<i>-<span class="v"> removed: </span></i><del>a' in page
    assert '<i>+<span class="v"> added: </span></i><ins>a' in page
    assert '<mark><span class="n">1</span></mark>' in page


def test_files_of_the_runtime_are_whole_closed_and_at_the_end(
    sample: RunResult, usual: str
) -> None:
    added = [o for o in sample.outcomes if o.status == "added"]
    assert added
    for outcome in added:
        (closed,) = re.findall(rf'<details class="file" id="{outcome.path}">.*?</details>', usual, re.S)
        lines = [row[0] for table in Page(closed).tables for row in table]
        assert lines == (outcome.after or b"").decode().split("\n")[:-1]
        assert usual.index('id="two_tower_model/train_with_wandb.py"') < usual.index(closed)


def test_a_runtime_that_is_upgraded_shows_what_changes() -> None:
    page = render(FileOutcome("quickwins_runtime/a.py", "added", (), b"a\nb\n", b"a\nc\n"))
    assert sides_of(page) == [["a", "b"], ["a", "c"]]


# The reasons


def told(page: str, path: str = "a.py") -> dict[str, str]:
    """The text above each hunk of a file, by the hunk's name."""
    return {
        name: " ".join(Page(text).text.split())
        for name, text in re.findall(
            rf'<section class="hunk" id="{path}:([^"]*)"><div class="why">(.*?)</div>', page, re.S
        )
    }


BEFORE = b"".join(b"line %d\n" % number for number in range(1, 61))


def edited(*numbers: int) -> bytes:
    """BEFORE, with these lines changed."""
    lines = BEFORE.splitlines(keepends=True)
    return b"".join(b"new " + b if n in numbers else b for n, b in enumerate(lines, 1))


def test_each_hunk_says_what_it_is_for() -> None:
    one = verdict("applied", "QW101", 21, "one is replaced", "see to it")
    two = verdict("applied", "QW301", 40, "two is wrapped")
    far = verdict("warning", "QW150", 30, "stops early", "do not")
    near = verdict("refused", "QW110", 42, "no step", "move it")
    touched = [
        Touched(frozenset({20, 58}), (one,)),
        Touched(frozenset({40, 58}), (two,)),
        Touched(frozenset({2}), (one, two), imports=True),
    ]
    page = render(changed(BEFORE, edited(2, 20, 40, 58), one, two, far, near, touched=touched))
    assert told(page) == {
        "import": "Line 2 Needed by QW101 one is replaced (line 21); QW301 two is wrapped (line 40)",
        "QW101": "Line 20: QW101 Change QW101 onecycle, line 21: one is replaced. see to it",
        "QW301": "Line 40: QW301 Change QW301 onecycle, line 40: two is wrapped. Left alone QW110 "
        "onecycle, line 42: no step. move it",
        "part-of-QW101": "Line 58 Part of QW101 one is replaced (line 21); QW301 two is wrapped "
        "(line 40)",
    }
    (head,) = re.findall(r'<div class="about">(.*?)</div>', page, re.S)
    assert " ".join(Page(head).text.split()) == (
        "Look at QW150 onecycle, line 30: stops early. do not"
    )


def test_a_change_without_a_known_edit_is_needed_by_all_that_was_applied() -> None:
    one, two = verdict("applied", "QW101", 20, "one"), verdict("applied", "QW301", 40, "two")
    page = render(changed(BEFORE, edited(2, 20), one, two))
    assert told(page)["import"] == "Line 2 Needed by QW101 one (line 20); QW301 two (line 40)"


def test_an_insertion_below_an_empty_line_belongs_to_the_edit_above_it() -> None:
    before, after = b"import a\n\nx\n", b"import a\n\nimport b\n\nx\n"
    one = verdict("applied", "QW101", 9, "one")
    overview = reasons.Overview(
        result(changed(before, after, one, touched=[Touched(frozenset({1}), (one,), True)]))
    )
    (hunk,) = overview.changed[0].hunks
    assert hunk.needed_by == (one,)


def test_sites_of_one_finding_do_not_refer_to_each_other() -> None:
    sites = [verdict("applied", "QW302", line, "spelled anew") for line in (2, 30)]
    page = render(changed(
        BEFORE, edited(2, 30), *sites, touched=[Touched(frozenset({2, 30}), tuple(sites))]
    ))  # fmt: skip
    assert list(told(page)) == ["QW302", "QW302-2"]
    assert not any("Part of" in text for text in told(page).values())


def test_names_of_hunks_outlive_a_change_of_lines() -> None:
    one, later = verdict("applied", "QW101", 20), verdict("applied", "QW101", 22)
    names = [
        list(told(render(changed(before, after, v))))
        for before, after, v in (
            (BEFORE, edited(20), one),
            (b"\n\n" + BEFORE, b"\n\n" + edited(20), later),
        )
    ]
    assert names[0] == names[1] == ["QW101"]


def test_the_lines_of_a_file_with_lone_carriage_returns_are_gits() -> None:
    page = render(changed(b"a\rb\nold\n", b"a\rb\nnew\n", verdict("applied", "QW101", 3)))
    assert told(page)["QW101"].startswith("Line 2: QW101 Change QW101 onecycle, line 2")
    assert ">^M<" in page, "and is shown within its line"


def test_every_verdict_of_the_sample_is_told_once(sample: RunResult, usual: str) -> None:
    overview = reasons.Overview(sample)
    assert overview.changed
    for file in overview.changed:
        expected = [v for v in file.outcome.verdicts if v.status != "already"]
        found = [v for hunk in file.hunks for v in hunk.told] + list(file.said)
        assert Counter(found) == Counter(expected)
        for hunk in file.hunks:
            assert hunk.told or hunk.part_of or hunk.needed_by
        assert all(told(usual, file.path).values())


# What is left for a person


def test_sites_left_alone_are_listed_with_their_lines_and_what_to_do() -> None:
    page = render(
        FileOutcome("b.py", "refused", (
            verdict("refused", "QW110", 2, "no call steps it", "move both"),
            verdict("refused", "QW110", 5, "no call steps it", "move both"),
        ), b"a = 1\nb = 2\nc = 3\nd = 4\ne = 5\n"),
        FileOutcome("c.py", "refused", (verdict("refused", "QW111", 1, "no loop"),), b"x = 1\n"),
    )  # fmt: skip
    (left,) = re.findall(r'<h2 id="left-alone">.*?(?=<h2)', page, re.S)
    text = " ".join(Page(left).text.split())
    assert text.count("no call steps it.") == 1 and "By hand: move both." in text
    assert "b.py:2" in text and "b.py:5" in text and "no loop." in text
    tables = Page(left).tables
    assert tables[0] == [["a = 1"], ["b = 2"], ["c = 3"]]
    assert tables[1] == [["d = 4"], ["e = 5"]] and tables[2] == [["x = 1"]]
    assert left.count('<td class="at">') == 3
    assert "Nothing to change" in page and "To write it" not in page
    assert {"QW110:b.py", "QW110:b.py-2", "QW111:c.py"} <= set(Page(page).ids)


def test_messages_that_differ_are_told_at_each_site() -> None:
    page = render(FileOutcome("b.py", "refused", (
        verdict("refused", "QW119", 1, "`a` is not known", "set a"),
        verdict("refused", "QW119", 2, "`b` is not known", "set b"),
    ), b"a\nb\n"))  # fmt: skip
    (left,) = re.findall(r'<h2 id="left-alone">.*?(?=<h2)', page, re.S)
    for word in ("a", "b"):
        assert f"<code>{word}</code> is not known." in left and f"set {word}" in left


def test_files_that_could_not_be_processed_are_listed() -> None:
    broken = Verdict("file", "refused", "QW001", 2, 3, "cannot be parsed: bad")
    unread = Verdict("file", "refused", "QW003", 1, 1, "cannot be read")
    page = render(
        FileOutcome("e.py", "error", (broken,), b"a = 1\nb c\n"),
        FileOutcome("f.py", "error", (unread,)),
    )
    (failed,) = re.findall(r'<h2 id="not-processed">.*?(?=<h2)', page, re.S)
    assert "e.py:2" in failed and "f.py:1" in failed and '<td class="at"><b>2</b>b c' in failed
    assert 'id="left-alone"' not in page, "they are listed there alone"


def test_pages_of_all_codes_are_on_it_and_lead_back(usual: str) -> None:
    page = Page(usual)
    used = {link[1:] for link in page.links if re.fullmatch(r"#QW\d{3}", link)}
    assert {"QW101", "QW202", "QW301", "QW401", "QW150", "QW215"} <= used
    for code in used:
        assert f"#index-{code}" in page.links
    text = " ".join(page.text.split())
    assert "Why: two schedules on one optimizer overwrite each other's rates" in text
    assert "scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)" in text
    for known in all_transforms():
        for code in known.codes:
            if code.code in used:
                words = re.sub(r"[`\s]", "", code.page)
                assert words in re.sub(r"[`\s]", "", page.text), code.code


def test_the_index_has_every_place_by_rule(sample: RunResult, usual: str) -> None:
    (index,) = re.findall(r'<h2 id="rules">.*?</nav>', usual, re.S)
    for outcome in sample.outcomes:
        for v in outcome.verdicts:
            place = f">{outcome.path}:{v.line}</a>"
            assert place in index or v.status == "already"
    names = [name for tag, name in Page(index).headings if tag == "h3"]
    assert names == ["onecycle", "hard-negatives", "amp", "metrics"]


def test_the_commands_to_go_on_with() -> None:
    page = render(changed(b"a\n", b"b\n", verdict("applied", "QW101", 1)))
    commands = [Page(text).text for text in re.findall(r'<pre class="command">(.*?)</pre>', page)]
    assert commands[0] == again("apply")
    assert shlex.split(commands[1].replace("git apply", " git apply")) == [
        "quickwins", "diff", "--patch", "changes.patch", "--select", "amp", "my scripts",
        "git", "apply", "changes.patch",
    ]  # fmt: skip


def test_nothing_to_change() -> None:
    page = render()
    text = " ".join(Page(page).text.split())
    assert "9 Python files, 0 candidates: nothing to change." in text
    assert "<h1>Nothing to change</h1>" in page and 'class="command"' not in page
    assert Page(page).links == ["data:,", "#changes"]


# Any text


def test_foreign_text_is_text() -> None:
    said = verdict("applied", "QW101", 1, EVIL, EVIL)
    left = verdict("refused", "QW110", 2, EVIL, EVIL)
    odd = changed(f"a = '''{EVIL}'''\nb\n".encode(), b"c\n", said, left, path=f"{EVIL}\n.py")
    other = FileOutcome(f"x{EVIL}.py", "refused", (left,), f"b\n# {EVIL}\n".encode())
    page = review_page.render(result(odd, other), all_transforms(), lambda v: f"{v} {EVIL}")
    checker = Checker(page)
    assert not {tag for tag, _ in checker.seen} & {"script", "img"}
    assert checker.text.count(EVIL) > 12, "and it is there, as text"
    ids = [attributes["id"] for _, attributes in checker.seen if "id" in attributes]
    assert all(re.fullmatch(r"[\w./:-]+", name or "") for name in ids)


def test_two_names_that_look_alike_as_anchors_are_two() -> None:
    page = Page(render(*(changed(b"a\n", b"b\n", path=path) for path in ("a b.py", "a?b.py"))))
    assert {"a_b.py", "a_b.py-2"} <= set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("\u202e", "U+202E"),  # right-to-left override, of "Trojan Source"
        ("\u2066", "U+2066"),
        ("\u200b", "U+200B"),
        ("\u00a0", "U+00A0"),
        ("\u3164", "U+3164"),
        ("\x0c", "^L"),
        ("\x1b", "^["),
        ("\x7f", "^?"),
        ("\u2028", "U+2028"),
    ],
)
def test_a_character_that_does_not_show_is_spelled(text: str, spelled: str) -> None:
    line = f"access = 'user{text} x'  # {text}\n".encode()
    page = render(changed(b"a\n", line, verdict("applied", "QW101", 1), path=f"a{text}.py"))
    body = page[page.index("<body>") :]
    assert text not in body and body.count(f">{spelled}</span>") > 3


def test_letters_that_show_stay_as_they_are() -> None:
    page = render(changed(b"a\n", "x = 'h\u00e9\u4e16\u05d0\t\U0001f600'\n".encode()))
    assert "h\u00e9\u4e16\u05d0\t\U0001f600" in page


def test_bytes_that_are_no_text_are_spelled() -> None:
    page = render(changed(b"a\n", b"x = '\xe9'\n"))
    assert ">\\xe9</span>" in page


def test_an_encoding_is_read_and_named() -> None:
    page = render(changed(*(b"# coding: latin-1\nx = '\xe9'" + end for end in (b"\n", b"2\n"))))
    assert sides_of(page)[1] == ["# coding: latin-1", "x = '\u00e9'2"]
    assert "Encoded as iso-8859-1, which stays." in page


@pytest.mark.parametrize(
    ("old", "new", "note", "marks"),
    [
        (b"a\r\nb\r\n", b"a\r\nc\r\n", "Lines end in CRLF, which stays.", 0),
        (b"a\nb\r\n", b"a\nc\r\n", "Line endings are mixed", 3),
        (b"a\r\nb\r\n", b"a\nb\n", "Line endings are mixed", 3),
        (b"a\nb\n", b"a\nc\n", None, 0),
    ],
)
def test_line_endings_show_where_they_differ(
    old: bytes, new: bytes, note: str | None, marks: int
) -> None:
    page = render(changed(old, new))
    assert page.count(">^M</span>") == marks, "one of them in the note that explains it"
    assert note is None or note in page
    assert "\r" not in page


def test_a_newline_that_is_missing_is_said() -> None:
    page = render(changed(b"a", b"a\n"))
    assert page.count("no newline at the end") == 1


def test_a_line_of_a_megabyte_is_taken() -> None:
    long = "x = [" + "1, " * 350_000 + "]\n"
    page = render(changed(long.encode(), ("y" + long[1:]).encode()))
    assert len(sides_of(page)[0][0]) == len(long) - 1


# Syntax


def test_a_line_is_coloured_alone_as_it_is_in_the_whole_file() -> None:
    files = [*sorted((ROOT / "quickwins_codemod").rglob("*.py"))[:12], *SAMPLE.rglob("*.py")]
    for path in files:
        lines = path.read_text(encoding="utf-8").split("\n")
        whole = syntax.pieces(lines, [range(1, len(lines) + 1)])
        assert ["".join(text for _, text in whole[n + 1]) for n in range(len(lines))] == lines
        for first in range(1, len(lines), 31):
            shown = range(first, min(first + 8, len(lines) + 1))
            part = syntax.pieces(lines, [shown])
            assert {n: part[n] for n in shown} == {n: whole[n] for n in shown}, path


def test_a_line_that_is_data_stays_plain() -> None:
    lines = ["a = 1", "x = [" + "1, " * 2000 + "]", "b = 2"]
    found = syntax.pieces(lines, [range(1, 4)])
    assert found[2] == [(None, lines[1])] and ("number", "2") in found[3]


def test_a_string_over_many_lines_is_one() -> None:
    lines = ['x = """', "for a in b:", "  # no comment", '"""', "y = 'a\\", "if b'", "if y: pass"]
    found = syntax.pieces(lines, [range(2, 4), range(6, 8)])
    assert found[2] == [("string", "for a in b:")] and found[3] == [("string", "  # no comment")]
    assert found[6] == [("string", "if b'")] and found[7][0] == ("keyword", "if")


def test_kinds_of_syntax() -> None:
    line = "@wraps\ndef f(a): return len('b') + 1.5 and a  # c".split("\n")
    found = syntax.pieces(line, [range(1, 3)])
    assert found[1] == [("decorator", "@wraps")]
    kinds = {text.strip(): kind for kind, text in found[2]}
    assert kinds["def"] == kinds["return"] == kinds["and"] == "keyword"
    assert kinds["f"] == "definition" and kinds["len"] == "builtin" and kinds["1.5"] == "number"
    assert kinds["'b'"] == "string" and kinds["# c"] == "comment"


# Colours


def colours(style: str, scheme: str) -> dict[str, str]:
    """The colours of a scheme, by name; print has those that it sets on paper."""
    opening = {
        "light": r":root \{", "dark": r"@media \(prefers-color-scheme: dark\) \{ :root \{",
        "print": r"@media print \{ :root \{",
    }[scheme]  # fmt: skip
    found: dict[str, str] = {}
    for block in re.findall(rf"(?:^|\n){opening}(.*?)\}}", style, re.S):
        found.update(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    return found


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


STYLE = markup._STYLE + review_style.STYLE


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_all_text_has_contrast_on_all_it_stands_on(scheme: str) -> None:
    found = {**colours(STYLE, "light"), **colours(STYLE, scheme)}
    code = ("keyword", "string", "comment", "figure", "definition", "ink")
    paper = ("page", "panel", "gap", "pointed", "removed", "removed-word", "added", "added-word")
    pairs = [(text, back) for text in code for back in paper]
    pairs += [("number", back) for back in paper] + [("minus", "removed"), ("plus", "added")]
    pairs += [
        (text, back)
        for text in ("link", "faint", "look", "left", "plus", "minus")
        for back in ("page", "panel")
    ]
    pairs.append(("page", "minus"))  # a character that is spelled out
    for text, back in pairs:
        assert contrast(found[text], found[back]) >= 4.5, (text, back)


def test_contrast_is_computed_as_the_standard_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


# In a browser

STYLES = """
const look = (selector) => {
  const style = getComputedStyle(document.querySelector(selector));
  return [style.color, style.backgroundColor].join("|");
};
document.body.dataset.found = ["body", "td.d", "td.a", "td.a .k", "ins mark"].map(look).join(";");
"""
#: Whether a closed file is hidden, where the two cells of a row stand, and what is shown twice.
LAYOUT = """
const box = (element) => element.getBoundingClientRect();
const pairs = [...document.querySelectorAll(".changed tr")].filter(
  row => row.querySelector(".d") && row.querySelector(".a")).map(row => row.children);
const block = [...document.querySelectorAll(".changed")].find(
  body => body.querySelectorAll(".d").length > 1 && body.querySelectorAll(".a").length > 1);
document.body.dataset.found = JSON.stringify({
  closed: !document.querySelector("details.file:not([open]) table").checkVisibility(),
  beside: pairs.every(([old, now]) => box(old).top === box(now).top && box(old).left < box(now).left),
  below: Math.max(...[...block.querySelectorAll(".d")].map(cell => box(cell).bottom))
    <= Math.min(...[...block.querySelectorAll(".a")].map(cell => box(cell).top)) + 1,
  twice: [...document.querySelectorAll(".two tbody:not(.changed) td:first-child")].some(
    cell => box(cell).height > 0),
});
"""


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_in_both_schemes(usual: str, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    choice = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    done = browse(tmp_path, probed(usual, STYLES), "--dump-dom", choice)
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    body, removed, added, keyword, word = (look.split("|") for look in found.split(";"))
    wanted = colours(STYLE, scheme)
    assert body == [rgb(wanted["ink"]), rgb(wanted["page"])]
    assert removed[1] == rgb(wanted["removed"]) and added[1] == rgb(wanted["added"])
    assert keyword[0] == rgb(wanted["keyword"]) and word[1] == rgb(wanted["added-word"])
    page = render(changed(BEFORE, edited(2), verdict("applied", "QW101", 2)))
    page = re.sub("<header>.*</nav>", "", page, flags=re.S)  # what stands above the changes
    browse(tmp_path, page, f"--screenshot={shot}", "--window-size=800,300", choice)
    picture = pixels(shot)
    for name in ("added", "removed", "panel"):
        colour = tuple(int(wanted[name][at : at + 2], 16) for at in (1, 3, 5))
        assert count(picture, colour) > 2000, name


@browser
@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_nothing_sticks_out_of_the_page(usual: str, tmp_path: Path, width: int) -> None:
    assert found_in_frame(tmp_path, usual, width, STICKS_OUT) == "0"


@browser
def test_a_long_word_does_not_stick_out_of_a_phone(tmp_path: Path) -> None:
    name, word = "directory/" * 12 + "x" * 90, "y" * 400
    said = verdict("applied", "QW101", 1, word, word)
    page = render(
        changed(f"{word} = '{word}'\n".encode(), f"{word} = 1\n".encode(), said, path=f"{name}.py"),
        FileOutcome("r.py", "refused", (verdict("refused", "QW110", 1, word, word),), b"z" * 500),
    )
    assert found_in_frame(tmp_path, page, 390, STICKS_OUT) == "0"


@browser
def test_side_by_side_where_there_is_room_and_one_below_the_other_on_a_phone(
    usual: str, tmp_path: Path
) -> None:
    wide = json.loads(found_in_frame(tmp_path, usual, 1280, LAYOUT))
    assert wide["beside"] and wide["twice"] and not wide["below"] and wide["closed"]
    phone = json.loads(found_in_frame(tmp_path, usual, 390, LAYOUT))
    assert phone["below"] and not phone["beside"]
    assert not phone["twice"], "what stays the same stands there once"


@browser
def test_a_print_has_what_is_closed_on_the_screen(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf")
    paper = tmp_path / "paper.pdf"
    page = render(
        changed(BEFORE, edited(2), verdict("applied", "QW101", 2), path="scripts/train.py"),
        FileOutcome("quickwins_runtime/a.py", "added", (), None, b"class OneCycle:\n    pass\n"),
    )
    browse(tmp_path, page, f"--print-to-pdf={paper}", "--blink-settings=preferredColorScheme=0")
    pages = pypdf.PdfReader(paper).pages
    text = "".join(page.extract_text() for page in pages)
    assert "class OneCycle" in text, "the runtime's files"
    assert "scripts/train.py:2" in text, "the places in the index"
    assert "What the codes mean" in text
    printed = {name: colours(STYLE, "print")[name] for name in ("added", "removed", "ink")}
    assert printed == {name: {**colours(STYLE, "light"), "ink": "#000000"}[name] for name in printed}


@browser
def test_hostile_text_does_nothing_in_the_browser(tmp_path: Path) -> None:
    said = verdict("applied", "QW101", 1, EVIL, EVIL)
    done = browse(
        tmp_path, render(changed(EVIL.encode(), b"a\n", said, path=f"{EVIL}.py")), "--dump-dom"
    )
    assert "&lt;script&gt;alert(1)" in done.stdout and "<script" not in done.stdout
    assert "<img" not in done.stdout
