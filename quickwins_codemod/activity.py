"""Whether each win of a variant was really active in an attempt: checks of what the launcher saw.

A win that was not active would show as "no gain", so it is a defect, with a name of its own. What
the machine does not exercise, and what is as it should be though it looks odd, are notes. Nothing
here runs a script; `trial.py` asks after each attempt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from quickwins_codemod import compare
from quickwins_codemod.trials import (
    BASELINE,
    MEASURING,
    Attempt,
    Defect,
    Observation,
    OptimizerSeen,
    ScheduleSeen,
    Variant,
)

#: Codes that say that a rule did something which can be seen in a run.
_CYCLE = {"QW101", "QW102"}
_MINED, _RANKED, _MASKED = {"QW201"}, {"QW202"}, {"QW204"}
_HALF, _MENDED = {"QW301"}, {"QW303", "QW304", "QW305", "QW306"}
_EARLY_STOP = "QW150"
#: What differs between two runs of one computation.
_MEASURED = {compare.SPEED, compare.EPOCH_SECONDS, compare.WALL, *compare.PEAKS}
#: Below so many steps a cycle has no shape to speak of.
_FEW_STEPS = 10

Found = Iterator["Defect | str"]


def check(variant: Variant, attempt: Attempt) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Return what is wrong with an attempt that ran to its end, and what there is to say of it."""
    seen = attempt.observation
    if seen is None:
        return (), ("the script ended without a word (os._exit?), so that nothing was checked",)
    found: list[Defect | str] = []
    if variant.files and seen.imported and not set(variant.files) & set(seen.imported):
        found.append(
            f"{variant.name} was not exercised: what it changes ({_some(variant.files)}) was not"
            " imported with these arguments"
        )
    elif not any(optimizer.steps for optimizer in seen.optimizers):
        found.append(
            "no optimizer step was seen in the script's own process, so that no win was checked"
        )
    else:
        codes = set(variant.codes)
        if "onecycle" in variant.select and codes & _CYCLE:
            found += _onecycle(seen, attempt.run, codes)
        if "hard-negatives" in variant.select:
            found += _negatives(seen, codes)
        if "amp" in variant.select and codes & _HALF:
            found += _amp(seen, codes)
        elif "amp" in variant.select and codes & _MENDED:
            found += _mended(seen)
    if variant.measures_itself:
        found += _metrics(seen, attempt)
    found += _surroundings(seen)
    defects = tuple(item for item in found if isinstance(item, Defect))
    return defects, tuple(dict.fromkeys(item for item in found if isinstance(item, str)))


def one_seed(attempts: Iterable[Attempt]) -> str | None:
    """Say that seeds made no difference, where runs of the baseline with several are the same."""
    done = [a for a in attempts if a.variant == BASELINE and a.status == "done" and a.run]
    computed = [[_computed(epoch) for epoch in a.run.epochs] for a in done if a.run]
    if len(computed) < 2 or any(epochs != computed[0] for epochs in computed[1:]):
        return None
    if not any(computed[0]):  # times alone, of a script without metrics
        return None
    return (
        f"all {len(computed)} runs of the baseline computed the very same: the script seeds its"
        " random streams in a way that the trial does not see (a generator of its own, a child"
        " process, a fixed cuDNN seed), so that its seeds are one"
    )


def _computed(epoch: compare.Epoch) -> dict[str, float | None]:
    return {n: v for n, v in epoch.metrics.items() if compare.bare(n) not in _MEASURED}


# OneCycle


def _onecycle(seen: Observation, run: compare.Run | None, codes: set[str]) -> Found:
    cycles = [s for s in seen.schedules if s.kind == "OneCycle"]
    if not cycles:
        steps = sum(optimizer.steps for optimizer in seen.optimizers)
        yield _cycle_defect("schedule-missing", f"no OneCycle was made for {_steps(steps)}")
    other = [s for s in seen.schedules if s not in cycles and s.calls]
    for place in {cycle.optimizer for cycle in cycles}:
        of_one = [cycle for cycle in cycles if cycle.optimizer == place]
        if place is None or len(of_one) > 1:
            yield "one optimizer had several OneCycles after one another, which were not checked"
            continue
        for rival in (s for s in other if s.optimizer == place):
            yield _cycle_defect("two-schedules", f"{rival.kind} drove the same optimizer, too")
        yield from _one_cycle(of_one[0], seen.optimizers[place], seen, run, codes)


def _one_cycle(
    cycle: ScheduleSeen,
    optimizer: OptimizerSeen,
    seen: Observation,
    run: compare.Run | None,
    codes: set[str],
) -> Found:
    skipped = sum(scaler.skipped for scaler in seen.scalers)
    steps = optimizer.steps - cycle.steps_before
    tried = steps + skipped
    if skipped:
        share = f"{skipped} of {tried}" if len(seen.scalers) == 1 else str(skipped)
        yield (
            f"the gradient scaler skipped {share} optimizer steps while it looked for its scale;"
            " the cycle waited for them"
        )
    total = cycle.total_steps or 0
    if steps and not cycle.calls:
        yield _cycle_defect(
            "schedule-not-stepped", f"scheduler.step() was never called in {_steps(steps)}"
        )
        return
    if cycle.calls not in (steps, tried):
        yield _cycle_defect(
            "schedule-steps", f"scheduler.step() was called {cycle.calls} times for {_steps(tried)}"
        )
    complete = total in (steps, tried)
    if total < steps:
        yield _cycle_defect(
            "schedule-length", f"the cycle has {total} steps, and the optimizer made {steps}"
        )
    elif not complete:
        planned = _planned_epochs(tried, total, run)
        if planned is not None and _EARLY_STOP in codes:
            yield f"the script stopped early, after {planned}, so that the cycle was cut"
        else:
            yield _cycle_defect(
                "schedule-length",
                f"the cycle has {total} steps, and the optimizer made only {tried}",
            )
    if total >= _FEW_STEPS and cycle.calls:
        yield from _shape(cycle, optimizer, total, skipped, complete)


def _planned_epochs(steps: int, total: int, run: compare.Run | None) -> str | None:
    """Say after how many epochs of how many, where the steps of whole epochs are missing."""
    epochs = len(run.epochs) if run else 0
    if not epochs or steps % epochs or total % (steps // epochs):
        return None
    return f"{epochs} of {total // (steps // epochs)} epochs"


def _shape(
    cycle: ScheduleSeen, optimizer: OptimizerSeen, total: int, skipped: int, complete: bool
) -> Found:
    """Check where the rate peaks and how it ends, by the cycle's own arguments."""
    if cycle.peak and cycle.pct_start is not None:
        top = cycle.steps_before + min(max(cycle.pct_start * total - 1, 1), total - 2) + 1
        reached = optimizer.steps > top + 1
        if reached and not _near(optimizer.peak, cycle.peak, 0.25 if total < 50 else 0.05):
            yield _cycle_defect(
                "peak-height",
                f"the rate peaked at {optimizer.peak:.3g}, and the cycle has {cycle.peak:.3g}",
            )
        elif reached and abs(optimizer.peak_step - top) > 1 + skipped:
            yield _cycle_defect(
                "peak-place",
                f"the rate peaked at step {optimizer.peak_step} of {total}, not at {top:.0f}",
            )
    if complete and not skipped and optimizer.last is not None and cycle.peak:
        if optimizer.last > 0.05 * cycle.peak:
            yield _cycle_defect(
                "end",
                f"the last rate was {optimizer.last:.3g}, far from the end of the cycle"
                f" ({cycle.end or 0.0:.3g})",
            )


def _near(value: float | None, wanted: float, share: float) -> bool:
    return value is not None and abs(value - wanted) <= share * abs(wanted)


def _cycle_defect(name: str, message: str) -> Defect:
    return Defect("onecycle", name, message)


# Hard negatives


def _negatives(seen: Observation, codes: set[str]) -> Found:
    rule = "hard-negatives"
    if not codes & (_MINED | _RANKED | _MASKED):
        return
    if not seen.mining:
        yield Defect(rule, "mining-missing", "no HardNegatives was used")
        return
    called = {
        "mine()": (sum(m.mine_calls for m in seen.mining), _MINED),
        "ranking_loss()": (sum(m.ranking_calls for m in seen.mining), _RANKED),
        "mask_in_batch()": (sum(m.mask_calls for m in seen.mining), _MASKED),
    }
    if not any(calls for calls, _ in called.values()):
        names = " and ".join(name for name, (_, said) in called.items() if codes & said)
        yield Defect(rule, "mining-not-called", f"{names} was never called")
    ranked = [m for m in seen.mining if m.ranking_calls]
    if ranked and not any(m.ranking_gradients for m in ranked):
        yield Defect(
            rule, "ranking-not-trained", "the ranking term never took part in a backward pass"
        )
    for mining in seen.mining:
        calls = mining.mine_calls + mining.ranking_calls
        if calls and calls <= mining.warmup_steps:
            yield (
                f"all {calls} calls fell into the warm-up of {mining.warmup_steps}, where negatives"
                " stay random: hard ones were not exercised"
            )
        elif calls and mining.stayed_random:
            yield (
                f"at the end the model's AUC was below {mining.warmup_auc:g} (warmup-auc), and"
                " negatives stay random there: hard ones were not exercised"
            )
        elif mining.mine_calls and mining.checked and not mining.replaced:
            yield Defect(
                rule,
                "mining-inactive",
                f"none of {mining.checked} negatives was replaced by a mined one",
            )
        # What is left where a pool holds nothing unseen is known for a part of the users only.
        allowed = 3 * mining.expected_seen + 5 if mining.ranking_calls else 0
        if mining.seen > allowed:
            yield Defect(
                rule,
                "mined-seen",
                f"{mining.seen} of {mining.checked} mined items are ones that their user has seen",
            )


# Mixed precision


def _amp(seen: Observation, codes: set[str]) -> Found:
    rule = "amp"
    if seen.amp == "off" or (seen.device == "cpu" and seen.amp not in ("fp16", "bf16")):
        how = "QUICKWINS_AMP is off" if seen.amp == "off" else "full precision is the rule on a CPU"
        yield (
            f"mixed precision was not exercised: {how}; --amp bf16 or --amp fp16 tries its path"
            " there (slowly)"
        )
        return
    if seen.device not in ("cpu", "cuda"):
        yield f"mixed precision was not exercised: there is none on {seen.device or 'this device'}"
        return
    partly = any("QW310" <= code < "QW350" for code in codes)
    if seen.forwards_autocast < seen.forwards:
        missing = seen.forwards - seen.forwards_autocast
        text = f"{missing} of {seen.forwards} training forward passes ran without autocast"
        if partly and seen.forwards_autocast:
            yield f"{text}; another loop was refused"
        else:
            yield Defect(rule, "autocast-missing", text)
    yield from _order(seen)
    if seen.amp != "bf16" and seen.forwards_autocast and "bfloat16" not in seen.autocast_types:
        yield from _scaling(seen, partly)


def _mended(seen: Observation) -> Found:
    """Check mixed precision that the script brought itself."""
    if not seen.forwards_autocast:
        yield (
            "the script's own mixed precision, which was mended, is not on with this device and"
            " these arguments, so that it was not exercised"
        )
    yield from _order(seen)


def _order(seen: Observation) -> Found:
    """Check what must stand outside of autocast, and after unscale_."""
    rule = "amp"
    if seen.backwards_autocast:
        yield Defect(
            rule,
            "backward-under-autocast",
            f"{seen.backwards_autocast} of {seen.backwards} backward passes ran under autocast",
        )
    for kind, count, all_of in (
        ("clip", seen.clips_scaled, seen.clips),
        ("norm", seen.norms_scaled, seen.norms),
    ):
        if count:
            verb = "clipped" if kind == "clip" else "measured"
            yield Defect(
                rule,
                f"scaled-{kind}",
                f"{count} of {all_of} times gradients were {verb} while they were still scaled",
            )


def _scaling(seen: Observation, partly: bool) -> Found:
    rule = "amp"
    scalers = [scaler for scaler in seen.scalers if scaler.enabled]
    scaled, steps = sum(s.scaled for s in scalers), sum(s.steps for s in scalers)
    skipped = sum(s.skipped for s in scalers)
    if not scalers:
        yield Defect(rule, "scaler-missing", "float16 was used without an enabled GradScaler")
        return
    if scaled < seen.backwards and not partly:
        missing = seen.backwards - scaled
        yield Defect(
            rule,
            "backward-unscaled",
            f"{missing} of {seen.backwards} backward passes were of a loss that was not scaled",
        )
    if not steps:
        yield Defect(rule, "scaler-not-stepped", "scaler.step() was never called")
    elif not any(s.updates for s in scalers):
        yield Defect(rule, "scaler-not-updated", "scaler.update() was never called")
    elif steps == skipped:
        yield Defect(
            rule,
            "all-skipped",
            f"the scaler skipped all {steps} optimizer steps: nothing was trained",
        )
    elif skipped:
        yield (
            f"the gradient scaler skipped {skipped} of {steps} optimizer steps while it looked for"
            " its scale, as it should"
        )


# Metrics, and where the script ran


def _metrics(seen: Observation, attempt: Attempt) -> Found:
    if not attempt.runs:
        yield Defect(MEASURING, "record-missing", "no record was written: no Tracker was made")
        return
    run = attempt.run
    if run is None:
        yield Defect(MEASURING, "not-logged", "the record has no epoch: Tracker.log was not called")
        return
    ranking = [name for name in run.names() if compare.bare(name).startswith("ndcg@")]
    if not ranking:
        yield Defect(MEASURING, "ndcg-missing", "the record has no ndcg@k")
    for name in ranking:
        lost = sum(value is None for value in run.values(name))
        if lost:
            yield Defect(MEASURING, "not-finite", f"{name} was no finite number in {_epochs(lost)}")
    bare = {compare.bare(name) for name in ranking}
    if seen.logged and bare and not any(name in key for key in seen.logged for name in bare):
        yield Defect(MEASURING, "not-in-wandb", "wandb was given keys, and ndcg@k is none of them")
    if seen.not_finite:
        yield f"wandb was given NaN or infinity for {_some(seen.not_finite)}"


def _surroundings(seen: Observation) -> Found:
    if seen.foreign:
        yield Defect(
            MEASURING,
            "foreign-module",
            f"{_some(seen.foreign)}: imported from the original tree, so without the rewrite",
        )
    if seen.wrote_outside:
        yield f"the script wrote outside of the copy: {_some(seen.wrote_outside)}"
    for problem in seen.problems:
        yield f"not watched: {problem}"


def _some(words: Sequence[str], most: int = 3) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(compare.plain, words[:most])) + more


def _steps(number: int) -> str:
    return f"{number} optimizer step{'' if number == 1 else 's'}"


def _epochs(number: int) -> str:
    return f"{number} epoch{'' if number == 1 else 's'}"
