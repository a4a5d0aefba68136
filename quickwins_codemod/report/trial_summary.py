"""How the runs of a trial went: what failed and on whose account, which wins were not active.

What the numbers say is the matter of `trial_text.py`.
"""

from __future__ import annotations

from quickwins_codemod import compare
from quickwins_codemod.trials import BASELINE, Attempt, Failure, Trial


def render(trial: Trial) -> str:
    """Return the lines, each with its end; empty where all went well."""
    return "".join(f"{line}\n" for line in _lines(trial))


def _lines(trial: Trial) -> list[str]:
    lines: list[str] = []
    base = next((a for a in trial.of(BASELINE) if a.status == "failed"), None)
    if base is not None and trial.original is not None:
        lines += _before_and_after(trial, base, trial.original)
    else:
        for attempt in trial.attempts:
            if attempt.status == "failed":
                lines.append(f"{_name(attempt)} failed: {_what(attempt)}")
                lines += [f"    {line}" for line in attempt.stderr[-5:]]
            elif attempt.status == "timed-out":
                lines.append(f"{_name(attempt)} was ended at the time limit")
    seen: set[tuple[str, str]] = set()
    for attempt in trial.attempts:
        for defect in attempt.defects:
            if (attempt.variant, defect.check) not in seen:
                seen.add((attempt.variant, defect.check))
                lines.append(
                    f"defect, please report it: {defect.rule} was not active as it should be in"
                    f" {_name(attempt)}: {defect.message} ({defect.check})"
                )
    for note in dict.fromkeys([*trial.notes, *(n for a in trial.attempts for n in a.notes)]):
        lines.append(f"note: {note}")
    if trial.changed:
        names = ", ".join(map(compare.plain, trial.changed[:10]))
        lines.append(f"the original tree changed while the trial ran (by the script, or by you): {names}")
    return lines


def _before_and_after(trial: Trial, base: Attempt, original: Attempt) -> list[str]:
    where = trial.script
    if original.status == "failed":
        lines = [f"{where} fails before the rewrite too, by an error of its own: {_what(original)}"]
        if _same(base.failure, original.failure):
            lines.append("the rewritten script ends with the same error")
        else:
            lines.append(f"the rewritten script ends with: {_what(base)}")
        lines.append("nothing was measured; mend that first, or choose other arguments")
    elif original.status == "done":
        lines = [
            f"{where} fails only after the rewrite, please report it: {_what(base)}",
            "the script as it stands ran to its end with the same arguments",
        ]
    else:
        lines = [f"the baseline failed: {_what(base)}"]
    return [*lines, *(f"    {line}" for line in base.stderr[-5:])]


def _same(one: Failure | None, other: Failure | None) -> bool:
    return None not in (one, other) and (one.type, one.message) == (other.type, other.message)


def _what(attempt: Attempt) -> str:
    failure = attempt.failure
    if failure is None:
        return attempt.status
    place = f" ({compare.plain(failure.path)}:{failure.line})" if failure.path else ""
    return f"{compare.plain(failure.type)}: {compare.plain(failure.message)}{place}"


def _name(attempt: Attempt) -> str:
    return f"{attempt.variant}, seed {attempt.seed + 1}"
