"""Where a trial is, on standard error: one line that is kept up to date, or a line an attempt.

On a terminal the line shows variant, seed, epoch, the first metric and the time that is left; into
a file or pipe goes only what has ended.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from quickwins_codemod import compare
from quickwins_codemod.report import terminal

if TYPE_CHECKING:
    from quickwins_codemod.trial import Moment, Plan
    from quickwins_codemod.trials import Attempt, Trial


class Lines:
    """Tells of a trial while it runs."""

    def __init__(self) -> None:
        self.live = terminal.is_terminal(sys.stderr)

    def begin(self, plan: Plan) -> None:
        """Say what is going to run."""
        trial, due = plan.trial, len(plan.trial.attempts) - plan.done
        for entry in trial.inapplicable:
            place = f"{entry.path}:{entry.line}: " if entry.path else ""
            code = f"{entry.code} " if entry.code else ""
            self.say(f"{entry.rule} is not tried: {place}{code}{entry.message}")
        if not trial.variants:
            self.say("no win applies, so there is nothing to try")
            return
        names = ", ".join(variant.name for variant in trial.variants)
        self.say(
            f"{trial.script} runs in copies of the repository; variants: {names}; seeds:"
            f" {len(trial.seeds)}; torch {trial.environment.torch} on {trial.environment.device}"
        )
        if trial.unmeasured:
            self.say(
                f"no metrics can be added, so that times are watched only ({trial.unmeasured})"
            )
        if plan.done:
            rest = f"{due} are left" if due else "none is left to run; --restart starts anew"
            self.say(f"{plan.done} of {len(trial.attempts)} runs were done before, {rest}")

    def interrupted(self, trial: Trial) -> None:
        """Say how to go on."""
        done = sum(attempt.status == "done" for attempt in trial.attempts)
        self.say(
            f"interrupted after {done} of {len(trial.attempts)} runs; the same command goes on from"
            " there"
        )

    def moment(self, moment: Moment) -> None:
        """Show where the trial is, on a terminal."""
        if not self.live:
            return
        parts = [_where(moment), _epoch(moment)]
        if moment.metric is not None:
            parts.append(f"{compare.plain(moment.metric[0])} {moment.metric[1]:.4g}")
        if moment.left is not None:
            parts.append(f"about {duration(moment.left)} left")
        width = shutil.get_terminal_size().columns - 1
        terminal.err(f"\r\x1b[K{', '.join(parts)[:width]}")

    def ended(self, moment: Moment, attempt: Attempt) -> None:
        """Write how an attempt ended."""
        text = f"{_where(moment)}: {attempt.status}"
        if attempt.seconds is not None:
            text += f" after {duration(attempt.seconds)}"
        run = attempt.run
        if attempt.status == "done" and run is not None:
            names = sorted(run.epochs[-1].metrics, key=compare.order)
            known = [(n, run.epochs[-1].metrics[n]) for n in names]
            text += "".join(
                [f", {compare.plain(n)} {v:.4g}" for n, v in known if v is not None][:1]
            )
        if attempt.failure is not None:
            text += (
                f", {compare.plain(attempt.failure.type)}: {compare.plain(attempt.failure.message)}"
            )
        if attempt.defects:
            text += f", {len(attempt.defects)} defect{'' if len(attempt.defects) == 1 else 's'}"
        if moment.left and not self.live:
            text += f" (about {duration(moment.left)} left)"
        terminal.err(f"{self._start()}{text}\n")

    def say(self, text: str) -> None:
        """Write a line."""
        terminal.err(f"{self._start()}quickwins: {text}\n")

    def _start(self) -> str:
        return "\r\x1b[K" if self.live else ""


def duration(seconds: float) -> str:
    """Return seconds as people say them: 8 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _where(moment: Moment) -> str:
    seed = f"seed {moment.seed + 1}/{moment.seeds}"
    return f"{moment.variant} ({moment.number}/{moment.variants}) {seed}"


def _epoch(moment: Moment) -> str:
    if not moment.epoch:
        return f"started {duration(moment.seconds)} ago"
    return f"epoch {moment.epoch}/{moment.epochs or '?'}"
