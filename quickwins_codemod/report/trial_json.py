"""What a trial showed, for programs: one object, a stable contract."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from quickwins_codemod.judging import Case, Difference, Judgement, Ruling
from quickwins_codemod.report import terminal
from quickwins_codemod.trials import Attempt

#: The version of the report; it rises when that breaks.
VERSION = 1


def show(judgement: Judgement, config: str) -> None:
    """Write the report to standard output. config: the lines that are recommended."""
    terminal.out(render(judgement, config))


def render(judgement: Judgement, config: str) -> str:
    """Return the report as text, ASCII only."""
    return json.dumps(as_object(judgement, config), indent=2, allow_nan=False) + "\n"


def as_object(judgement: Judgement, config: str) -> dict[str, Any]:
    """Return the object that is written out.

    trial: what was asked for, and `command`, which repeats it. `unmeasured`: why the metrics could not
        be added, empty where every variant has them.
    headline: the metric that decides about quality, at the epoch where it is best; null without one.
    variants: each with its rules, the `command` that runs it once, its `values` (mean, `spread`, the
        sample standard deviation, and `n` runs) and its `attempts`. `at` is `best`, `last` or `run`
        as in the report of `quickwins compare`; `better` is `higher`, `lower` or null.
    comparisons: a variant against another. `verdicts` has `quality`, `time` and `memory`, each
        with one of the verdicts `helps`, `hurts`, `no measurable difference`, `no verdict` and
        `not active`, a `reason` where the interval does not say it, and the measure that decided.
        `win` is the one rule that they differ by, null where it is several. A difference has its
        `pairs`, their `mean`, `spread`, and its 95 % `interval`, null where none is known; `percent`
        and `percent_interval` are of the mean before, null where that is 0.
        `worse_besides` names what is measurably worse at the best epoch where quality is not.
    recommendation: `select` for the configuration, the `variant` that ran with just that, and the
        lines of `config`; null where nothing can be recommended. `untried`: rules that each earned
        their place and were never run together.
    advice: for each rule on trial whether to keep it, and why.
    original: the run of the script without any rewrite, null unless the baseline failed.
    changed: files of the original tree that are not as they were.
    """
    trial = judgement.trial
    about = (
        "id",
        "script",
        "folder",
        "arguments",
        "seeds",
        "started",
        "amp",
        "time_limit",
        "unmeasured",
        "command",
    )
    found = judgement.recommendation
    return {
        "version": VERSION,
        "trial": {name: _plain(getattr(trial, name)) for name in about},
        "environment": _plain(dataclasses.asdict(trial.environment)),
        "headline": judgement.headline,
        "variants": [
            {
                "name": variant.name,
                "select": list(variant.select),
                "command": trial.commands.get(variant.name),
                "values": [
                    {
                        "name": measure.name,
                        "at": measure.when,
                        "better": measure.better,
                        **dataclasses.asdict(judgement.value(variant.name, measure)),
                    }
                    for measure in judgement.measures
                ],
                "attempts": [_attempt(attempt) for attempt in trial.of(variant.name)],
            }
            for variant in trial.variants
        ],
        "comparisons": [_case(case) for case in judgement.cases],
        "recommendation": (
            {
                "select": list(found.select),
                "variant": found.variant,
                "config": config,
                "untried": list(found.untried),
                "notes": list(found.notes),
            }
            if found.select
            else None
        ),
        "advice": _plain([dataclasses.asdict(advice) for advice in found.advice]),
        "inapplicable": _plain([dataclasses.asdict(gone) for gone in trial.inapplicable]),
        "original": None if trial.original is None else _attempt(trial.original),
        "changed": list(trial.changed),
        "notes": list(judgement.notes),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "seed": attempt.seed,
        "status": attempt.status,
        "exit_code": attempt.exit_code,
        "seconds": attempt.seconds,
        "epochs": len(attempt.run.epochs) if attempt.run else 0,
        "failure": _plain(dataclasses.asdict(attempt.failure)) if attempt.failure else None,
        "defects": [_plain(dataclasses.asdict(defect)) for defect in attempt.defects],
        "notes": list(attempt.notes),
        "seen": _plain(dataclasses.asdict(attempt.observation)) if attempt.observation else None,
    }


def _case(case: Case) -> dict[str, Any]:
    return {
        "variant": case.variant,
        "against": case.against,
        "win": case.win or None,
        "verdicts": {ruling.aspect: _ruling(ruling) for ruling in case.rulings},
        "differences": [_difference(found) for found in case.differences],
        "time_to_quality": [_plain(dataclasses.asdict(one)) for one in case.reached],
        "worse_besides": [found.name for found in case.worse],
        "missing": list(case.missing),
        "failed_alone": case.broke,
        "defects": [_plain(dataclasses.asdict(defect)) for defect in case.defects],
    }


def _ruling(ruling: Ruling) -> dict[str, Any]:
    found = ruling.difference
    return {
        "verdict": ruling.outcome,
        "reason": ruling.reason or None,
        "measure": found.name if found else None,
        "at": found.when if found else None,
        "smallest_visible": found.smallest if found else None,
    }


def _difference(found: Difference) -> dict[str, Any]:
    known = found.low is not None
    return {
        "name": found.name,
        "at": found.when,
        "better": found.better,
        "pairs": [dataclasses.asdict(pair) for pair in found.pairs],
        "mean": found.mean,
        "spread": found.spread,
        "interval": [found.low, found.high] if known else None,
        "percent": found.percent(found.mean),
        "percent_interval": (
            [found.percent(found.low), found.percent(found.high)] if known else None
        ),
    }


def _plain(value: Any) -> Any:
    """Return tuples as lists, so that what is written equals what is read."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
