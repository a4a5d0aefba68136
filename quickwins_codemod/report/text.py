"""What a person reads: the closing summary in ten seconds, and one line a finding for CI.

A summary opens with what changes, then what was left alone and why, then what failed, and ends
with the command to type next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from quickwins_codemod.report.terminal import Paint
from quickwins_codemod.settings import short
from quickwins_codemod.verdict import FileOutcome, RunResult, Verdict

if TYPE_CHECKING:
    from quickwins_codemod.writing import Recovered, Undone

Command = Literal["diff", "check", "apply"]
#: Longer lists of files are cut: what is read in ten seconds is one screen.
LIMIT = 15
#: So many places of one reason are named; `quickwins check` lists each.
PLACES = 3


@dataclass(frozen=True)
class Site:
    """One verdict and the file it is about."""

    path: str
    verdict: Verdict

    @property
    def place(self) -> str:
        return f"{self.path}:{self.verdict.line}:{self.verdict.column}"


def one_line(text: str) -> str:
    """Return a text on one line, whatever a file name or a message holds."""
    return " ".join(text.split())


def findings(result: RunResult) -> list[str]:
    """Return one `path:line:col: QW101 message` for each finding; what is done already is none."""
    sites = _sites(result.outcomes, "applied", "refused", "warning")
    return [one_line(f"{s.place}: {s.verdict.code} {s.verdict.message}") for s in sites]


def summary(
    result: RunResult,
    command: Command,
    steps: Iterable[str] = (),
    paint: Paint | None = None,
    page: str | None = None,
) -> str:
    """Return the closing summary.

    steps: what to do next, see `next_steps`. page: where the same can be read in a browser.
    """
    paint = paint or Paint()
    lines: list[str] = []
    if command != "check":
        lines += _changed(result, command, paint)
        lines += _declined(result, paint)
        lines += _left_alone(result, paint)
        lines += _failed(result, paint)
    lines.append(counts(result, command))
    if page is not None:
        lines.append(f"Page: {paint('place', one_line(page))}")
    lines += [
        f"{'Next: ' if number == 0 else '      '}{paint('head', command_line)}"
        for number, command_line in enumerate(steps)
    ]
    return "\n".join(lines) + "\n"


def next_steps(
    result: RunResult,
    command: Command,
    again: Callable[[str], str],
    stage: str | None = None,
    undo: str = "quickwins undo",
) -> list[str]:
    """Return the exact commands that come next, each with a word on why.

    again: gives this command line with another verb. stage: the `git add` that takes what `apply`
    wrote into the next commit, None outside a repository. undo: what takes that back.
    """
    steps = []
    if command == "apply":
        steps += [f"{stage}   # what was written, for your next commit"] if stage else []
        steps += [f"{undo}   # take it back"] if result.changes else []
    elif result.changes:
        steps += [f"{again('diff')}   # see it"] if command == "check" else []
        steps.append(f"{again('apply')}   # write it")
    processed = [outcome for outcome in result.outcomes if outcome.status != "error"]
    refused = _sites(processed, "refused") or _sites(result.errors, "refused")
    codes = Counter(site.verdict.code for site in refused)
    if codes:
        steps.append(f"quickwins explain {codes.most_common(1)[0][0]}   # why, and what to do")
    return steps


def recovered(run: Recovered) -> list[str]:
    """Say what became of a run that was killed while it wrote, one line for each thing to know."""
    done = _many(len(run.restored), "file was", "files were") + " restored"
    lines = [f"the `{run.what}` of {_time(run.time)} was interrupted while it wrote; {done}"]
    for path, old in run.edited:
        lines.append(
            f"{one_line(short(run.root / path))} was edited since and stays;"
            f" what it held before is in {one_line(short(old))}"
        )
    return lines


def undone(run: Undone) -> str:
    """Say which run was taken back, and name its files."""
    lines = [f"Taken back: {one_line(run.command or 'quickwins apply')} of {_time(run.time)}"]
    for done, paths in (("restored", run.restored), ("removed", run.removed)):
        shown = paths if len(paths) <= LIMIT + 2 else paths[:LIMIT]
        lines += [f"  {done}  {one_line(short(run.root / path))}" for path in shown]
        if len(shown) < len(paths):
            lines.append(f"  and {len(paths) - len(shown)} more {done}")
    return "\n".join(lines) + "\n"


def _time(stamp: str) -> str:
    return f"{stamp[:16].replace('T', ' ')} UTC"


def _changed(result: RunResult, command: Command, paint: Paint) -> list[str]:
    lines = []
    changed = result.with_status("changed")
    if changed:
        done = "Changed" if command == "apply" else "To change"
        lines.append(paint("head", f"{done}: {_many(len(changed), 'file')}"))
        shown = changed if len(changed) <= LIMIT + 2 else changed[:LIMIT]
        for outcome in shown:
            path, done = paint("good", one_line(outcome.path)), _done(outcome)
            lines.append(f"  {path}  {'; '.join(done)}")
        if len(shown) < len(changed):
            lines.append(f"  and {len(changed) - len(shown)} more; `quickwins check` lists each")
    added = [outcome.path for outcome in result.with_status("added")]
    if added:
        done = "Added" if command == "apply" else "To add"
        folder = added[0].rpartition("/")[0] + "/"
        where = folder if all(path.startswith(folder) for path in added) else ", ".join(added)
        lines.append(f"{paint('head', done)}: {where} ({_many(len(added), 'file')})")
    return lines


def _done(outcome: FileOutcome) -> list[str]:
    """Say each thing that was done to a file once, with all lines it was done at."""
    places: dict[tuple[str, str], list[int]] = {}
    for verdict in outcome.verdicts:
        if verdict.status == "applied":
            places.setdefault((verdict.code, one_line(verdict.message)), []).append(verdict.line)
    return [
        f"{code} {message} ({'line' if len(at) == 1 else 'lines'} "
        f"{', '.join(str(line) for line in sorted(at))})"
        for (code, message), at in places.items()
    ]


def _declined(result: RunResult, paint: Paint) -> list[str]:
    if not result.declined:
        return []
    return [
        f"{paint('head', 'Declined')}: {_many(result.declined, 'site')}; the next run finds them"
        " again",
        "      `# quickwins: skip` at the end of its line keeps one out of every run",
    ]


def _left_alone(result: RunResult, paint: Paint) -> list[str]:
    kept = [outcome for outcome in result.outcomes if outcome.status != "error"]
    refused = _sites(kept, "refused")
    lines = _listed("Left alone", "site", refused, paint)
    lines += _listed("Look at", "warning", _sites(result.outcomes, "warning"), paint)
    already = _sites(result.outcomes, "already")
    if already:
        files = len({site.path for site in already})
        lines.append(
            f"{paint('head', 'Done already')}: {_many(len(already), 'site')} in "
            f"{_many(files, 'file')}"
        )
    return lines


def _failed(result: RunResult, paint: Paint) -> list[str]:
    sites = [Site(outcome.path, v) for outcome in result.errors for v in outcome.verdicts]
    return _listed("Not processed", "file", sites, paint)


def _listed(title: str, noun: str, sites: Sequence[Site], paint: Paint) -> list[str]:
    """The sites by reason: each code once, with what it says, where, and what to do."""
    if not sites:
        return []
    lines = [f"{paint('head', title)}: {_many(len(sites), noun)}"]
    by_code: dict[str, list[Site]] = {}
    for site in sites:
        by_code.setdefault(site.verdict.code, []).append(site)
    for code, found in sorted(by_code.items(), key=lambda item: (-len(item[1]), item[0])):
        messages = dict.fromkeys(one_line(s.verdict.message) for s in found)
        said = next(iter(messages)) + (", and the like" if len(messages) > 1 else "")
        lines.append(f"  {paint('note', code)} {said}")
        places = [paint("place", one_line(s.place)) for s in found]
        rest = len(places) - PLACES if len(places) > PLACES + 1 else 0
        named = places[:PLACES] if rest else places
        lines.append(f"      {', '.join(named)}{f' and {rest} more' if rest else ''}")
        hints = dict.fromkeys(one_line(s.verdict.hint) for s in found if s.verdict.hint)
        if len(hints) == 1:
            lines.append(f"      {next(iter(hints))}")
    return lines


def counts(result: RunResult, command: Command) -> str:
    """Return how many files became what, in one sentence."""
    looked = f"{_many(result.files, 'Python file')}, {_many(result.candidates, 'candidate')}"
    numbers = [
        (len(result.with_status("changed")), "changed" if command == "apply" else "to change"),
        (len(result.with_status("added")), "added" if command == "apply" else "to add"),
        (len(result.with_status("refused")), "left alone"),
        (len(result.errors), "not processed"),
    ]
    said = [f"{number} {word}" for number, word in numbers if number]
    if not result.changes:
        said.insert(0, "nothing taken" if result.declined else "nothing to change")
    return f"{looked}: {', '.join(said)}."


def _sites(outcomes: Iterable[FileOutcome], *statuses: str) -> list[Site]:
    return [
        Site(outcome.path, verdict)
        for outcome in outcomes
        for verdict in sorted(outcome.verdicts, key=lambda v: (v.line, v.column, v.code))
        if verdict.status in statuses
    ]


def _many(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
