"""How a person is asked about one site after another: what is shown, and which key means what.

What follows from an answer is decided in review.py.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import click

from quickwins_codemod.report import pages, terminal
from quickwins_codemod.report.text import Site, one_line
from quickwins_codemod.transform import Transform
from quickwins_codemod.verdict import FileOutcome

Answer = Literal["yes", "no", "all", "skip", "edit", "back", "quit"]
Mending = Literal["edit", "drop", "skip"]

_ANSWERS: dict[str, Answer] = {
    "y": "yes", "n": "no", "a": "all", "s": "skip", "e": "edit", "k": "back", "q": "quit",
}  # fmt: skip
_MENDINGS: dict[str, Mending] = {"e": "edit", "d": "drop", "s": "skip"}
_HELP = """\
y  take this site
n  leave it as it is
a  take it, and all that is left of {rule}, in this file and the others
s  skip this file: it stays as it is, and what was taken in it is dropped
e  take it, and edit the file as it would be written: in $VISUAL or $EDITOR, once its last
   site is answered, so that no later site meets text that it does not know
k  go back to the last answer in this file
q  quit: no to all that is left, here and in the other files; what was taken is written
?  show this
Ctrl-D is q. Ctrl-C leaves at once, and nothing is written.
An answer is one key and Enter. What you decline is asked again in the next run; to keep it out of
every run, put  # quickwins: skip[{rule}]  at the end of line {line}.
`quickwins explain {code}` says more."""
_MENDING_HELP = """\
e  edit it again
d  drop the edit: the file is written without it
s  skip this file: it stays as it is"""
#: Editors that open a file at a line when told so by `+LINE`.
_JUMPING = frozenset(
    "vi vim nvim gvim nano pico emacs emacsclient joe jed ne mg micro kak mcedit gedit".split()
)
_WIDEST = 100


class EditError(Exception):
    """An editor that could not be used; its text is one line for the user."""


@dataclass(frozen=True)
class Question:
    """What is asked about at once: one site, and those that do not hold without each other.

    sites: the one that it is about first, with all that is said of each.
    number, total: which of all sites of the run it is.
    before, after: the file with what was taken so far, and with this, too.
    """

    sites: tuple[tuple[Site, ...], ...]
    number: int
    total: int
    before: bytes
    after: bytes

    @property
    def head(self) -> Site:
        return self.sites[0][0]


class Terminal:
    """A person at standard input and output.

    shown: how the path of a file is written for somebody who stands in the current folder.
    """

    def __init__(self, rules: Sequence[Transform], shown: Mapping[str, str]) -> None:
        self._rules, self._shown = rules, shown
        self._paint = terminal.Paint.of(sys.stdout)

    def open(self, path: str, number: int, files: int, sites: int) -> None:
        """Say which file comes now."""
        name = self._paint("head", self._path(path))
        terminal.out(f"\n{name}  (file {number} of {files}, {_sites(sites)})\n")

    def ask(self, question: Question) -> Answer:
        """Show a site and return what is to become of it; the end of the input is `quit`."""
        self._show(question)
        head = question.head.verdict
        text = _HELP.format(rule=head.rule, code=head.code, line=head.line)
        label = f"({question.number}/{question.total}) {head.rule} {head.code}: take this"
        return self._key(label, _ANSWERS, "quit", text)

    def took(self, question: Question) -> None:
        """Say of a site that an earlier `all` has taken it."""
        for site in question.sites:
            self._say(f"{self._line(site[0])} (taken with its rule)")

    def cannot(self, site: Site, missing: Sequence[Site]) -> None:
        """Say of a site that it does not hold without some that were declined."""
        needed = ", ".join(f"{s.verdict.code} in line {s.verdict.line}" for s in missing)
        self._say(f"{self._line(site)} (left out)")
        self._say(f"it does not hold without what you declined: {needed}", "  ")

    def at_start(self, path: str) -> None:
        """Say that there is no answer to go back to."""
        self._say(f"{self._path(path)}: no site before this one was asked about")

    def skipped(self, path: str, dropped: int) -> None:
        """Say that a file stays as it is."""
        lost = f"; {_sites(dropped)} that you had taken there dropped" if dropped else ""
        self._say(f"{self._path(path)} stays as it is{lost}")

    def not_asked(self, path: str, why: str) -> None:
        """Say why there are no questions about a file."""
        self._say(f"{self._path(path)}: {why}; not asked about")

    def edits_later(self) -> None:
        """Say when the editor comes."""
        self._say("taken; the editor opens when the last site of this file is answered")

    def edit(self, path: str, data: bytes, line: int) -> bytes | None:
        """Let the person edit a text; None where it was not saved. Raises EditError."""
        try:
            return click.edit(
                data, editor=_editor(line), extension=os.path.splitext(path)[1] or ".txt"
            )
        except (click.ClickException, OSError, ValueError) as error:
            said = error.format_message() if isinstance(error, click.ClickException) else error
            raise EditError(one_line(str(said))) from None

    def mend(self, path: str, why: str) -> Mending:
        """Ask what is to become of an edit that cannot be used; the end of the input is `drop`."""
        self._say(f"{self._path(path)}: the edit cannot be used: {why}")
        return self._key("Edit again, drop the edit, skip the file", _MENDINGS, "drop",
                         _MENDING_HELP)  # fmt: skip

    def _key(self, label: str, keys: Mapping[str, str], end: str, text: str) -> str:
        prompt = self._paint("head", f"{label} [{','.join(keys)},?]?") + " "
        while True:
            terminal.out(prompt)
            typed = _read_line()
            if typed is None:
                terminal.out("\n")
                return end
            word = typed.strip().lower()
            if word in keys:
                return keys[word]
            if word in keys.values():
                return word
            if word in ("?", "h", "help"):
                self._say(text)
            else:
                said = f'"{word}" is no answer' if word else "an answer is needed"
                self._say(f"{said}: type one of {', '.join(keys)}, or ? for help")

    def _show(self, question: Question) -> None:
        for number, (site, *also) in enumerate(question.sites):
            terminal.out("\n")
            if number:
                self._say("Together with it, since the one does not hold without the other:")
            verdict = site.verdict
            self._say(self._line(site), place=self._place(site), note=verdict.code)
            for other in (said.verdict for said in also):
                where = "" if other.line == verdict.line else f"line {other.line}: "
                hint = f" ({one_line(other.hint)})" if other.hint else ""
                text = f"{where}{other.code} {one_line(other.message)}{hint}"
                self._say(text, "  ", note=other.code)
            why = pages.why(verdict.code, self._rules)
            if why:
                self._say(f"Why: {why}", "  ")
        path = question.head.path
        diff = FileOutcome(path, "changed", (), question.before, question.after).diff()
        terminal.out(self._paint.diff(diff[diff.find("\n@@ ") + 1 :]))

    def _line(self, site: Site) -> str:
        verdict = site.verdict
        message = one_line(verdict.message)
        return f"{self._place(site)}  {verdict.rule}  {verdict.code}  {message}"

    def _place(self, site: Site) -> str:
        return f"{self._path(site.path)}:{site.verdict.line}:{site.verdict.column}"

    def _path(self, path: str) -> str:
        return terminal.visible(one_line(self._shown.get(path, path)))

    def _say(self, text: str, indent: str = "", **styles: str) -> None:
        """Write a text on lines that fit; styles: a word of it to be coloured in each."""
        width = min(shutil.get_terminal_size().columns, _WIDEST) - 1
        lines = [_wrapped(line, width, indent) for line in terminal.visible(text).split("\n")]
        said = "\n".join(lines) + "\n"
        for style, word in styles.items():  # now, since colours take no room on a line
            said = said.replace(word, self._paint(style, word), 1)
        terminal.out(said)


def _sites(number: int) -> str:
    return f"{number} site{'' if number == 1 else 's'}"


def _wrapped(line: str, width: int, indent: str) -> str:
    """A line cut between words; what goes on stands deeper, below the words of a list of keys."""
    hang = "   " if line[1:3] == "  " else "  "
    return textwrap.fill(
        line, max(width, 20), initial_indent=indent, subsequent_indent=indent + hang,
        break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
    )  # fmt: skip


def _editor(line: int) -> str | None:
    """The user's editor, told the line where it takes one; None leaves the choice to click."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not named:
        return None
    words = shlex.split(named)
    name = os.path.basename(words[0]).removesuffix(".exe") if words else ""
    return f"{named} +{line}" if name in _JUMPING else named


def _read_line() -> str | None:
    """One line of standard input, None at its end; bytes that are no text are an answer too."""
    data = sys.stdin.buffer.readline()
    return data.decode(sys.stdin.encoding or "utf-8", "replace") if data else None
