"""What a reviewer is told beside each hunk: a run's files, their hunks, and which verdict is whose.

A verdict is told once: at the hunk that holds its line, else at the head of its file. The other
hunks that its edits touch, and the import of what it needs, refer to it. It knows no HTML.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from quickwins_codemod.report.findings import utf8
from quickwins_codemod.report.sidebyside import Block, Hunk, Version, hunks
from quickwins_codemod.verdict import FileOutcome, RunResult, Touched, Verdict

_TOLD = ("applied", "warning", "refused")
_UNSAFE = re.compile(r"[^A-Za-z0-9_./-]")


@dataclass(frozen=True)
class Site:
    """One verdict, the file it is about, and where on a page it is told: an anchor."""

    file: File
    verdict: Verdict
    anchor: str

    @property
    def place(self) -> str:
        return f"{self.file.path}:{self.verdict.line}"


@dataclass(frozen=True)
class Explained:
    """A hunk and what it is for.

    told: the verdicts whose line it holds. part_of: those told elsewhere whose edits touch it.
    needed_by: those for which it imports something, or for which it cannot be told from others.
    """

    hunk: Hunk
    anchor: str
    told: tuple[Verdict, ...] = ()
    part_of: tuple[Verdict, ...] = ()
    needed_by: tuple[Verdict, ...] = ()


class File:
    """One file of a run, its two versions and their hunks; anchor names it on a page."""

    def __init__(self, outcome: FileOutcome, anchor: str) -> None:
        self.outcome, self.anchor = outcome, anchor
        self.path = utf8(outcome.path)
        self.old, self.new = Version(outcome.before or b""), Version(outcome.after or b"")

    @cached_property
    def hunks(self) -> list[Explained]:
        found = hunks(self.old, self.new) if self.outcome.has_change else []
        verdicts = self.verdicts(*_TOLD)
        explained: list[Explained] = []
        used: Counter[str] = Counter()
        for hunk in found:
            here = tuple(v for v in verdicts if self.line(v) in hunk.old)
            part_of, needed_by = self._reasons(hunk, here)
            name = _name(here, part_of)
            used[name] += 1
            number = f"-{used[name]}" if used[name] > 1 else ""
            anchor = f"{self.anchor}:{name}{number}"
            explained.append(Explained(hunk, anchor, here, part_of, needed_by))
        return explained

    @cached_property
    def said(self) -> tuple[Verdict, ...]:
        """The verdicts whose line is in no hunk."""
        told = {v for hunk in self.hunks for v in hunk.told}
        return tuple(v for v in self.verdicts(*_TOLD) if v not in told)

    @cached_property
    def has_mixed_endings(self) -> bool:
        return len(self.old.endings | self.new.endings) > 1

    def anchor_of(self, verdict: Verdict) -> str:
        """Return where a verdict is told: at its hunk, at the file, or in the list of its code."""
        for hunk in self.hunks:
            if verdict in hunk.told:
                return hunk.anchor
        return self.anchor if self.outcome.has_change else ""

    def line(self, verdict: Verdict) -> int:
        """Return the line of a verdict as git counts lines."""
        return self.old.line_of(verdict.line)

    def count(self, sign: str) -> int:
        """Count the lines that are removed (`-`) or added (`+`)."""
        return sum(
            len(block.old if sign == "-" else block.new)
            for reviewed in self.hunks for block in reviewed.hunk.blocks if block.changed
        )  # fmt: skip

    def verdicts(self, *statuses: str) -> list[Verdict]:
        """Return the verdicts with one of these statuses, in the order of the file."""
        wanted = [v for v in self.outcome.verdicts if v.status in statuses]
        return sorted(wanted, key=lambda v: (v.line, v.column, v.code))

    @cached_property
    def _touched(self) -> list[tuple[Touched, frozenset[int]]]:
        """The lines of each edit as git counts them."""
        return [(t, frozenset(map(self.old.line_of, t.lines))) for t in self.outcome.touched]

    def _reasons(
        self, hunk: Hunk, told: Sequence[Verdict]
    ) -> tuple[tuple[Verdict, ...], tuple[Verdict, ...]]:
        around = [self._around(block) for block in hunk.blocks if block.changed]
        at = [t for t, lines in self._touched if any(not lines.isdisjoint(a) for a in around)]
        elsewhere = [t for t in at if not t.imports and set(told).isdisjoint(t.verdicts)]
        part_of = {v: None for t in elsewhere for v in t.verdicts}
        needed_by = {v: None for t in at if t.imports for v in t.verdicts}
        if not (part_of or needed_by or any(v.status == "applied" for v in told)):
            needed_by = dict.fromkeys(self.verdicts("applied"))
        return tuple(part_of), tuple(v for v in needed_by if v not in part_of and v not in told)

    def _around(self, block: Block) -> range:
        """Return the lines that an edit touches if it is behind a change.

        An insertion stands between two lines, and a diff may show it below an empty line that the
        edit put it above.
        """
        if block.old:
            return block.old
        first = block.old.start - 1
        while self._is_empty(first):
            first -= 1
        return range(first, block.old.stop + 1)

    def _is_empty(self, number: int) -> bool:
        return 0 < number <= len(self.old.lines) and not self.old.lines[number - 1].text.strip()


class Overview:
    """A run as it is read: the changed files, those of the runtime, and sites by their code."""

    def __init__(self, result: RunResult) -> None:
        self.result = result
        used: Counter[str] = Counter()
        self.files = []
        for outcome in result.outcomes:
            anchor = _UNSAFE.sub("_", utf8(outcome.path))
            used[anchor] += 1
            number = f"-{used[anchor]}" if used[anchor] > 1 else ""
            self.files.append(File(outcome, anchor + number))

    @cached_property
    def changed(self) -> list[File]:
        return [f for f in self.files if f.outcome.has_change and f.outcome.status != "added"]

    @cached_property
    def added(self) -> list[File]:
        return [f for f in self.files if f.outcome.has_change and f.outcome.status == "added"]

    def refused(self) -> dict[str, list[Site]]:
        return self._sites(lambda f, v: v.status == "refused" and f.outcome.status != "error")

    def warned(self) -> dict[str, list[Site]]:
        return self._sites(lambda f, v: v.status == "warning")

    def failed(self) -> dict[str, list[Site]]:
        return self._sites(lambda f, v: f.outcome.status == "error" and v.status == "refused")

    def applied(self) -> dict[str, list[Site]]:
        return self._sites(lambda f, v: v.status == "applied")

    def done_already(self) -> dict[str, list[Site]]:
        return self._sites(lambda f, v: v.status == "already")

    def _sites(self, wanted: Callable[[File, Verdict], bool]) -> dict[str, list[Site]]:
        """Return the sites by code, those of most sites first."""
        by_code: dict[str, list[Site]] = {}
        for file in self.files:
            for verdict in file.verdicts("applied", "already", "refused", "warning"):
                if wanted(file, verdict):
                    by_code.setdefault(verdict.code, []).append(
                        Site(file, verdict, file.anchor_of(verdict))
                    )
        return dict(sorted(by_code.items(), key=lambda item: (-len(item[1]), item[0])))


def _name(told: Sequence[Verdict], part_of: Sequence[Verdict]) -> str:
    """Name a hunk by what it is for, so that a link to it outlives a change of lines."""
    for verdict in told:
        if verdict.status == "applied":
            return verdict.code
    return f"part-of-{part_of[0].code}" if part_of else "import"
