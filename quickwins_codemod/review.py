"""Which sites of a run are taken, settled by somebody who is asked about one after another.

Nothing is read, written or shown here. Each text comes out of the pipeline, for the sites taken so
far, with its self-check; what does not pass it is not on offer. So what was taken is always a
consistent file, and a site that needs another one is asked about together with it.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from quickwins_codemod import pipeline
from quickwins_codemod.bundle import PACKAGE
from quickwins_codemod.report.prompting import Answer, EditError, Mending, Question
from quickwins_codemod.report.text import Site
from quickwins_codemod.source import SourceError
from quickwins_codemod.transform import Finding
from quickwins_codemod.verdict import FileOutcome, RunResult, file_status

#: What looks at a file again; see pipeline.planned.
Plan = Callable[[str], "pipeline.Planned | FileOutcome | None"]
_NONE: frozenset[int] = frozenset()


class Person(Protocol):
    """Who answers; report.prompting.Terminal is one, and says what each of these is for."""

    def open(self, path: str, number: int, files: int, sites: int) -> None: ...
    def ask(self, question: Question) -> Answer: ...
    def took(self, question: Question) -> None: ...
    def cannot(self, site: Site, missing: list[Site]) -> None: ...
    def at_start(self, path: str) -> None: ...
    def skipped(self, path: str, dropped: int) -> None: ...
    def not_asked(self, path: str, why: str) -> None: ...
    def edits_later(self) -> None: ...
    def edit(self, path: str, data: bytes, line: int) -> bytes | None: ...
    def mend(self, path: str, why: str) -> Mending: ...


def review(result: RunResult, plan: Plan, person: Person) -> RunResult:
    """Ask about each site of a run, and return the run with those alone that were taken."""
    return _Review(result, plan, person).result()


def refuse(run: RunResult, refused: Iterable[FileOutcome], person: Person) -> RunResult:
    """Return a run with outcomes in the place of others, of files that will not be asked about."""
    known = {outcome.path: outcome for outcome in refused}
    for path, outcome in known.items():
        person.not_asked(path, outcome.verdicts[0].message)
    outcomes = tuple(known.get(outcome.path, outcome) for outcome in run.outcomes)
    return _with_needed_runtime(dataclasses.replace(run, outcomes=outcomes))


class _Review:
    """All files of a run, and the answers that hold for more than one of them."""

    def __init__(self, run: RunResult, plan: Plan, person: Person) -> None:
        self.run, self.plan, self.person = run, plan, person
        self.files = [o for o in run.outcomes if o.status == "changed" and o.has_change]
        self.passed, self.declined = 0, 0
        self.wanted: frozenset[str] = frozenset()  # rules of which all that is left is taken
        self.ended = False

    def result(self) -> RunResult:
        settled = {}
        for number, outcome in enumerate(self.files, 1):
            settled[outcome.path] = self._settled(outcome, number)
            self.passed += _sites(outcome)
        outcomes = tuple(settled.get(o.path, o) for o in self.run.outcomes)
        run = dataclasses.replace(self.run, outcomes=outcomes, declined=self.declined)
        return _with_needed_runtime(run)

    def _settled(self, outcome: FileOutcome, number: int) -> FileOutcome:
        if self.ended:
            self.declined += _sites(outcome)
            return _untouched(outcome)
        planned = self.plan(outcome.path)
        if planned is None or isinstance(planned, FileOutcome):  # it has changed since
            return planned or FileOutcome(outcome.path, "unchanged")
        file = _File(planned, self)
        self.person.open(outcome.path, number, len(self.files), len(file.sites))
        return file.settled()

    @property
    def total(self) -> int:
        return sum(map(_sites, self.files))


class _File:
    """One file: what was taken of it so far, and what else could be."""

    def __init__(self, planned: pipeline.Planned, review: _Review) -> None:
        self.planned, self.review, self.person = planned, review, review.person
        self.sites = sorted((f for f in planned.findings if f.edits), key=_place)
        self.taken = _NONE
        self.edited: list[int] = []  # the lines of the sites that are to be edited
        self._known: dict[frozenset[int], FileOutcome | None] = {}

    def settled(self) -> FileOutcome:
        skipped = not self._asked()
        if self.edited and not skipped:
            edited = self._edited()
            if edited is not None:
                self.review.declined += len(self.sites) - len(self.taken)
                return edited
            skipped = True
        if skipped:
            self.person.skipped(self.planned.path, len(self.taken))
            self.taken = _NONE
        self.review.declined += len(self.sites) - len(self.taken)
        return self._with(self.taken)

    def _asked(self) -> bool:
        """Ask about every site; False where the file is to be left as it is."""
        at, answered = 0, []
        while at < len(self.sites):
            group = _NONE if at in self.taken else self._group(at)
            if not group:  # it has gone along with another, or cannot
                at += 1
                continue
            question = self._question(at, group)
            before = (at, self.taken, self.edited, self.review.wanted)
            if {sites[0].verdict.rule for sites in question.sites} <= self.review.wanted:
                self.person.took(question)
                answer: Answer = "yes"
            else:
                answer = self.person.ask(question)
                if answer == "back":
                    if answered:
                        at, self.taken, self.edited, self.review.wanted = answered.pop()
                    else:
                        self.person.at_start(self.planned.path)
                    continue
                answered.append(before)
            if answer == "skip":
                return False
            if answer == "quit":
                self.review.ended = True
                return True
            if answer == "all":
                self.review.wanted |= {question.head.verdict.rule}
            if answer != "no":
                self.taken |= group
            if answer == "edit":
                self.edited = [*self.edited, question.head.verdict.line]
                if any(i not in self.taken for i in range(at + 1, len(self.sites))):
                    self.person.edits_later()
            at += 1
        return True

    def _group(self, at: int) -> frozenset[int]:
        """A site and those after it that it does not hold without; none where it cannot hold."""
        later = [i for i in range(at + 1, len(self.sites)) if i not in self.taken]
        alone = frozenset({at})
        for group in (alone, *(alone | {i} for i in later)):
            if self._holds(self.taken | group):
                return group
        group = alone | set(later)
        if not self._holds(self.taken | group):
            self.person.cannot(self._said(at)[0], self._missing(at, later))
            return _NONE
        for other in later:
            if self._holds(self.taken | group - {other}):
                group -= {other}
        return group

    def _missing(self, at: int, later: list[int]) -> list[Site]:
        """The declined sites that one does not hold without: any of them that helps, else all."""
        declined = [i for i in range(at) if i not in self.taken]
        rest = self.taken | {at}
        helping = [i for i in declined if self._holds(rest | {i}) or self._holds(rest | {i, *later})]
        return [self._said(i)[0] for i in helping or declined]

    def _question(self, at: int, group: frozenset[int]) -> Question:
        return Question(
            sites=tuple(self._said(i) for i in sorted(group)),
            number=self.review.passed + at + 1,
            total=self.review.total,
            before=self._bytes(self.taken),
            after=self._bytes(self.taken | group),
        )

    def _said(self, at: int) -> tuple[Site, ...]:
        """What is said of a site, what is applied first."""
        said = sorted(self.sites[at].verdicts, key=lambda v: (v.status != "applied", v.line))
        return tuple(Site(self.planned.path, verdict) for verdict in said)

    def _holds(self, taken: frozenset[int]) -> bool:
        if taken not in self._known:
            left = [site for i, site in enumerate(self.sites) if i not in taken]
            kept = sum(bool(finding.edits) for finding in self.planned.kept(left))
            self._known[taken] = None
            if kept == len(taken):
                with suppress(pipeline.SelfCheckError):
                    self._known[taken] = self.planned.outcome(left)
        return self._known[taken] is not None

    def _with(self, taken: frozenset[int]) -> FileOutcome:
        outcome = self._known[taken] if self._holds(taken) else None
        assert outcome is not None, "only what holds is ever taken"
        return outcome

    def _bytes(self, taken: frozenset[int]) -> bytes:
        outcome = self._with(taken)
        return self.planned.source.data if outcome.after is None else outcome.after

    def _edited(self) -> FileOutcome | None:
        """The file as the person edits it, None where it is to be left as it is."""
        outcome = self._with(self.taken)
        old, data = self.planned.source.data, self._bytes(self.taken)
        draft, line = data, line_after(old, data, min(self.edited))
        while True:
            try:
                draft = self.person.edit(self.planned.path, draft, line) or draft
                pipeline.check_text(self.planned.source.path, draft)
                return None if draft == old else dataclasses.replace(outcome, after=draft)
            except (EditError, SourceError) as error:
                place = f"line {error.line} " if isinstance(error, SourceError) else ""
                answer = self.person.mend(self.planned.path, f"{place}{error}")
            if answer == "drop":
                return outcome
            if answer == "skip":
                return None


def line_after(before: bytes, after: bytes, line: int) -> int:
    """Return where a line of the old text, or what replaces it, stands in the new one."""
    old, new = before.split(b"\n"), after.split(b"\n")
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, start, end, new_start, _ in matcher.get_opcodes():
        if start < line <= end:
            return new_start + 1 + (line - 1 - start if tag == "equal" else 0)
    return 1


def _with_needed_runtime(run: RunResult) -> RunResult:
    """The run without the runtime's files where no script that is written imports them."""
    scripts = [o for o in run.changes if o.status == "changed"]
    if any(PACKAGE.encode() in (o.after or b"") for o in scripts):
        return run
    outcomes = tuple(o for o in run.outcomes if o.status != "added")
    return dataclasses.replace(run, outcomes=outcomes)


def _untouched(outcome: FileOutcome) -> FileOutcome:
    """A changed file without its changes, and without the warnings that may be about them."""
    kept = tuple(v for v in outcome.verdicts if v.status in ("already", "refused"))
    return FileOutcome(outcome.path, file_status(kept), kept, outcome.before)


def _sites(outcome: FileOutcome) -> int:
    return sum(not touched.imports for touched in outcome.touched)


def _place(finding: Finding) -> tuple[int, int, str]:
    return min((v.line, v.column, v.code) for v in finding.applied)
