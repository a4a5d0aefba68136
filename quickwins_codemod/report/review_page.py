"""What `quickwins diff` proposes as one HTML file, for the colleague who reviews it.

Changes stand side by side, by file; an index leads to them by rule. Each hunk says what it is for,
and each code leads to its page, which is in the file too. There is no script in it.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from quickwins_codemod import __version__, writing
from quickwins_codemod.report import code_markup, markup, pages, text
from quickwins_codemod.report.code_markup import Code, visible
from quickwins_codemod.report.findings import utf8
from quickwins_codemod.report.prose import explanation, prose
from quickwins_codemod.report.reasons import Explained, File, Overview, Site
from quickwins_codemod.report.review_style import STYLE
from quickwins_codemod.report.text import one_line
from quickwins_codemod.transform import Transform
from quickwins_codemod.verdict import RunResult, Verdict

#: Gives the command line of this run with another verb.
Again = Callable[[str], str]

_STATES = {"applied": "Change", "warning": "Look at", "refused": "Left alone"}
#: So many lines above and below the one that a site is about.
_AROUND = 1


def write(path: Path, result: RunResult, rules: Sequence[Transform], again: Again) -> None:
    """Write the page atomically, over a file that is there. Raises OSError."""
    page = render(result, rules, again)
    writing.write_atomically(path, page.encode("utf-8"))


def render(result: RunResult, rules: Sequence[Transform], again: Again) -> str:
    """Return the page. rules: those whose pages explain the codes."""
    return "".join(_Writer(result, rules, again).page())


class _Writer:
    def __init__(self, result: RunResult, rules: Sequence[Transform], again: Again) -> None:
        self.run, self.rules, self.again = Overview(result), rules, again
        self.result = result
        self.known = pages.by_code(rules)
        self.groups = {
            "applied": self.run.applied(),
            "warning": self.run.warned(),
            "refused": self.run.refused(),
            "failed": self.run.failed(),
        }
        self.used = sorted({code for group in self.groups.values() for code in group})
        self.codes: dict[str, Code] = {}

    def page(self) -> Iterator[str]:
        changed = len(self.run.changed)
        title = f"{_many(changed, 'file')} to change" if changed else "Nothing to change"
        body = [
            '<a class="skip" href="#changes">Skip to the changes</a>',
            *self._header(title),
            *self._contents(),
            "<main>",
            *self._changes(),
            *self._runtime(),
            *self._listed("refused", "left-alone", "Left alone", "What the rules looked at and did "
                          "not touch, why, and what to do by hand."),
            *self._listed("warning", "look-at", "Look at", "Nothing is wrong here by itself; what "
                          "a change means for these lines is for you to judge."),
            *self._listed("failed", "not-processed", "Not processed", "These files could not be "
                          "read as Python or be rewritten; the others were."),
            *self._already(),
            *self._pages(),
            "</main>",
            f"<footer>Made by quickwins {__version__}. Nothing has been written.</footer>",
        ]
        yield markup.document(f"quickwins: {title}", STYLE, body)

    # The top

    def _header(self, title: str) -> Iterator[str]:
        yield f"<header><h1>{title}</h1>"
        name = visible(utf8(Path(self.result.root).name))
        where = f" in <b>{name}</b>" if name else ""
        yield f"<p>What <code>quickwins</code> proposes{where}. "
        yield f"{html.escape(text.counts(self.result, 'diff'))} Nothing has been written yet.</p>"
        yield '<ul class="totals">'
        yield from self._totals()
        yield "</ul>"
        if self.result.changes:
            patch = self.again("diff").replace(" diff", " diff --patch changes.patch", 1)
            yield "<h2>To write it</h2>"
            yield f'<pre class="command">{visible(self.again("apply"))}</pre>'
            yield "<p>Or as a patch, for somebody who has no quickwins:</p>"
            yield f'<pre class="command">{visible(patch)}<br>git apply changes.patch</pre>'
        yield "</header>"

    def _totals(self) -> Iterator[str]:
        files = self.run.changed
        totals = [
            (len(files), "file", "to change", "changes", self._size(files)),
            (len(self.run.added), "file", "of the runtime to add", "runtime", ""),
            (_count(self.groups["refused"]), "site", "left alone", "left-alone", ""),
            (_count(self.groups["warning"]), "warning", "to look at", "look-at", ""),
            (_count(self.run.done_already()), "site", "done already", "done-already", ""),
            (len(self.result.errors), "file", "not processed", "not-processed", ""),
        ]
        for number, noun, said, anchor, size in totals:
            if number:
                figure, noun = _many(number, noun).split()
                yield f'<li><a href="#{anchor}"><b>{figure}</b>{noun} {said}</a>{size}</li>'

    @staticmethod
    def _size(files: Iterable[File]) -> str:
        files = list(files)
        removed, added = (sum(file.count(sign) for file in files) for sign in "-+")
        return (
            f' <span class="figure"><span class="plus">+{added:,}</span> '
            f'<span class="minus">−{removed:,}</span><span class="v"> lines</span></span>'
        )

    def _contents(self) -> Iterator[str]:
        if not self.used:
            return
        yield '<nav class="contents" aria-label="Contents">'
        if self.run.changed:
            yield '<div><h2 id="files">By file</h2><ul class="files">'
            for file in self.run.changed:
                yield (
                    f'<li><a class="path" href="#{file.anchor}">{visible(file.path)}</a>'
                    f"{self._size([file])}</li>"
                )
            yield "</ul></div>"
        yield '<div><h2 id="rules">By rule</h2>'
        for rule, title in self._titles():
            codes = [code for code in self.used if self._rule(code) == rule]
            if codes:
                yield f'<h3>{rule}</h3><p class="faint">{prose(title)}</p><ul>'
                for code in codes:
                    yield from self._entry(code)
                yield "</ul>"
        yield "</div></nav>"

    def _titles(self) -> Iterator[tuple[str, str]]:
        named = {rule.rule: rule.title for rule in self.rules}
        yield from named.items()
        others = {self._rule(code) for code in self.used} - set(named)
        yield from ((rule, "what is said of a file, whatever the rule") for rule in sorted(others))

    def _rule(self, code: str) -> str:
        return self.known[code].rule if code in self.known else "other"

    def _entry(self, code: str) -> Iterator[str]:
        """Name a code in the index, with all places where it was said."""
        sites = [(group, site) for group, by in self.groups.items() for site in by.get(code, ())]
        title = self.known[code].title if code in self.known else ""
        yield (
            f'<li id="index-{code}"><details><summary><span class="chip">{code}</span> '
            f'{prose(title)} <span class="faint">({_many(len(sites), "place")})</span></summary>'
            '<ul class="places">'
        )
        numbers = Counter[str]()
        for group, site in sites:
            anchor = site.anchor if group == "applied" else _site_anchor(site, numbers)
            yield f'<li><a class="path" href="#{anchor}">{visible(site.place)}</a></li>'
        yield f'</ul><p><a href="#{code}">The page of {code}</a></p></details></li>'

    # The changes

    def _changes(self) -> Iterator[str]:
        yield '<h2 id="changes">Changes</h2>'
        if not self.run.changed:
            yield "<p>Nothing to change.</p>"
        for file in self.run.changed:
            yield from self._file(file)

    def _file(self, file: File, is_open: bool = True) -> Iterator[str]:
        opened = " open" if is_open else ""
        yield (
            f'<details class="file" id="{file.anchor}"{opened}><summary>'
            f"<h3>{visible(file.path)}</h3>{self._size([file])}</summary>"
        )
        notes = list(_notes(file))
        if file.said or notes:
            yield '<div class="about">'
            yield from (f'<p class="faint">{note}</p>' for note in notes)
            if file.said:
                yield '<ul class="reasons">'
                yield from (self._told(file, verdict) for verdict in file.said)
                yield "</ul>"
            yield "</div>"
        if file.outcome.before is None:
            code = Code(file.new, [range(1, len(file.new.lines) + 1)])
            yield from code_markup.one_sided(file.new.lines, code)
        elif file.hunks:
            shown = [explained.hunk.new for explained in file.hunks]
            new = Code(file.new, shown, file.has_mixed_endings)
            old = self._old_code(file)
            for explained in file.hunks:
                yield from self._hunk(file, explained, old, new)
        yield "</details>"

    def _old_code(self, file: File) -> Code:
        """Read the old text once, wherever a part of it is shown."""
        if file.anchor not in self.codes:
            sites = map(file.line, file.outcome.verdicts)
            shown = [explained.hunk.old for explained in file.hunks]
            shown += [range(max(1, line - _AROUND), line + _AROUND + 1) for line in sites]
            self.codes[file.anchor] = Code(file.old, shown, file.has_mixed_endings)
        return self.codes[file.anchor]

    def _hunk(self, file: File, explained: Explained, old: Code, new: Code) -> Iterator[str]:
        yield f'<section class="hunk" id="{explained.anchor}"><div class="why">'
        codes = dict.fromkeys(v.code for v in explained.told if v.status == "applied")
        named = f": {', '.join(codes)}" if codes else ""
        yield f'<h4><a href="#{explained.anchor}">{_range(explained)}</a>{named}</h4>'
        yield '<ul class="reasons">'
        yield from (self._told(file, verdict) for verdict in explained.told)
        if explained.part_of:
            yield f'<li class="rest">Part of {self._named(file, explained.part_of)}</li>'
        if explained.needed_by:
            yield f'<li class="rest">Needed by {self._named(file, explained.needed_by)}</li>'
        yield "</ul></div>"
        yield from code_markup.side_by_side(explained.hunk.blocks, old, new)
        yield "</section>"

    def _told(self, file: File, verdict: Verdict) -> str:
        hint = f' <span class="hint">{prose(verdict.hint)}</span>' if verdict.hint else ""
        return (
            f'<li class="{verdict.status}"><span class="state">{_STATES[verdict.status]}</span> '
            f"{self._chip(verdict.code)} "
            f'<span class="faint">{html.escape(verdict.rule)}, line {file.line(verdict)}:</span> '
            f"{prose(verdict.message)}.{hint}</li>"
        )

    def _chip(self, code: str) -> str:
        title = html.escape(self.known[code].title) if code in self.known else ""
        return f'<a class="chip" href="#{code}" title="{title}">{code}</a>'

    def _named(self, file: File, verdicts: Sequence[Verdict]) -> str:
        """Name verdicts that are told elsewhere, each code once."""
        lines: dict[tuple[str, str], list[Verdict]] = {}
        for verdict in verdicts:
            lines.setdefault((verdict.code, one_line(verdict.message)), []).append(verdict)
        return "; ".join(
            f"{self._chip(code)} {prose(message)} ("
            + ", ".join(
                f'<a href="#{file.anchor_of(verdict)}">line {file.line(verdict)}</a>'
                for verdict in found
            )
            + ")"
            for (code, message), found in lines.items()
        )

    def _runtime(self) -> Iterator[str]:
        if not self.run.added:
            return
        yield '<h2 id="runtime">Files of the runtime</h2>'
        yield (
            "<p>The rewritten scripts import these. They are the same in every repository, small, "
            "and need torch only.</p>"
        )
        for file in self.run.added:
            yield from self._file(file, is_open=False)

    # What is left for a person

    def _listed(self, group: str, anchor: str, title: str, about: str) -> Iterator[str]:
        by_code = self.groups[group]
        if not by_code:
            return
        yield f'<h2 id="{anchor}">{title}</h2><p>{about}</p>'
        numbers = Counter[str]()
        for code, sites in by_code.items():
            yield f'<section class="group"><h3>{self._chip(code)} {self._title(code)}</h3>'
            shared = _only(site.verdict.message for site in sites)
            hint = _only(site.verdict.hint or "" for site in sites)
            if shared:
                yield f"<p>{prose(shared)}.</p>"
            if hint:
                yield f'<p><span class="state">By hand</span>: {prose(hint)}.</p>'
            yield '<ul class="sites">'
            for site in sites:
                yield from self._site(site, _site_anchor(site, numbers), shared, hint)
            yield "</ul></section>"

    def _title(self, code: str) -> str:
        return prose(self.known[code].title) if code in self.known else ""

    def _site(self, site: Site, anchor: str, shared: str, hint: str) -> Iterator[str]:
        place = visible(site.place)
        if site.anchor:
            place = f'<a href="#{site.anchor}">{place}</a>'
        yield f'<li id="{anchor}"><span class="path">{place}</span>'
        if not shared:
            yield f" {prose(site.verdict.message)}."
        if not hint and site.verdict.hint:
            yield f' <span class="hint">{prose(site.verdict.hint)}</span>'
        line, lines = site.file.line(site.verdict), site.file.old.lines
        if 0 < line <= len(lines):
            near = lines[max(0, line - 1 - _AROUND) : line + _AROUND]
            shown = [it for it in near if it.number == line or it.text.strip()]
            yield from code_markup.one_sided(shown, self._old_code(site.file), line)
        yield "</li>"

    def _already(self) -> Iterator[str]:
        by_code = self.run.done_already()
        if not by_code:
            return
        yield '<h2 id="done-already">Done already</h2><p>Nothing is to be done at these.</p>'
        for code, sites in by_code.items():
            yield f'<h3><span class="chip">{code}</span> {self._title(code)}</h3>'
            yield '<ul class="places">'
            yield from (f'<li class="path">{visible(site.place)}</li>' for site in sites)
            yield "</ul>"

    def _pages(self) -> Iterator[str]:
        found = [self.known[code] for code in self.used if code in self.known]
        if not found:
            return
        yield '<h2 id="pages">What the codes mean</h2><div class="pages">'
        for page in found:
            yield f'<section class="page" id="{page.code}"><h3>'
            yield f'<span class="chip">{page.code}</span> {prose(page.title)} <span class="faint">({page.rule})</span></h3>'
            yield from explanation(page)
            yield f'<p><a href="#index-{page.code}">All places of {page.code}</a></p></section>'
        yield "</div>"


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _count(by_code: Mapping[str, Sequence[Site]]) -> int:
    return sum(len(sites) for sites in by_code.values())


def _site_anchor(site: Site, numbers: Counter[str]) -> str:
    """Name a site by its code and file, so that a link to it outlives a change of lines."""
    name = f"{site.verdict.code}:{site.file.anchor}"
    numbers[name] += 1
    return f"{name}-{numbers[name]}" if numbers[name] > 1 else name


def _only(texts: Iterable[str]) -> str:
    """Return the text that is always said, an empty one where there are several."""
    found = set(texts)
    return found.pop() if len(found) == 1 else ""


def _range(explained: Explained) -> str:
    """Name the lines that a hunk changes, by the old text."""
    changed = [block.old for block in explained.hunk.blocks if block.changed]
    first, last = changed[0].start, max(changed[0].start, changed[-1].stop - 1)
    return f"Line {first}" if first == last else f"Lines {first} to {last}"


def _notes(file: File) -> Iterator[str]:
    """Say of a file's bytes what the text does not show."""
    version = file.old if file.outcome.before is not None else file.new
    if version.encoding is None:
        yield "These bytes are no text that Python would take."
    elif version.encoding not in ("utf-8", "utf-8-sig"):
        yield f"Encoded as {html.escape(version.encoding)}, which stays."
    endings = file.old.endings | file.new.endings
    if endings == {"\r\n"}:
        yield "Lines end in CRLF, which stays."
    elif file.has_mixed_endings:
        yield f"Line endings are mixed; one that is CRLF shows as {code_markup.hidden(chr(13))}."
