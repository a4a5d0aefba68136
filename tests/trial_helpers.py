"""A made trial, in memory and in a folder, for tests of what reads one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from quickwins_codemod import compare, trials
from quickwins_codemod.trials import (
    Attempt,
    Environment,
    Observation,
    OptimizerSeen,
    ScheduleSeen,
    Trial,
)

SCRIPT = "two_tower_model/train_with_wandb.py"
#: NDCG@10 at the best of three epochs, for each seed.
GAINS = {
    "baseline": (0.100, 0.110, 0.104),
    "onecycle": (0.101, 0.108, 0.106),
    "hard-negatives": (0.140, 0.152, 0.149),
    "all": (0.143, 0.150, 0.151),
}


def make_trial(gains=GAINS, arguments=("--epochs", "3"), **changes) -> Trial:
    """A finished trial whose attempts reach these values of ndcg@10, one for each seed."""
    seeds = tuple(range(len(gains["baseline"])))
    wins = tuple(name for name in gains if name not in ("baseline", "all"))
    selected = {"baseline": (), "all": wins}
    variants = tuple(
        trials.Variant(name, (*selected.get(name, (name,)), "metrics")) for name in gains
    )
    attempts = tuple(
        make_attempt(variant.name, seed, gains[variant.name][seed], arguments)
        for seed in seeds
        for variant in variants
    )
    trial = Trial(
        id="train_with_wandb-0123456789",
        script=SCRIPT,
        arguments=tuple(arguments),
        seeds=seeds,
        select=wins,
        variants=variants,
        environment=Environment("3.11.7", "2.13.0", "cpu", 2, "Linux-6.1-x86_64", "0.1.0"),
        started="2026-01-02T03:04:05Z",
        fingerprint="0" * 16,
        command=f"quickwins trial {SCRIPT} --seeds {len(seeds)} -- {' '.join(arguments)}",
        commands={
            v.name: f"quickwins run {SCRIPT} --select {','.join(v.select)} -- {' '.join(arguments)}"
            for v in variants
        },
        attempts=attempts,
    )
    return dataclasses.replace(trial, **changes)


def make_attempt(variant: str, seed: int, best: float, arguments=(), **changes) -> Attempt:
    """An attempt that is done: three epochs, the second of them the best."""
    speed = 4000.0 if variant in ("baseline", "onecycle") else 2000.0
    epochs = tuple(
        compare.Epoch(
            number,
            number * 8000 / speed,
            (0.001 * number,),
            {
                "ndcg@10": best * share,
                "recall@10": best * share * 1.5,
                "coverage": 0.5,
                "val_loss": 1.0 - share / 2,
                "samples_per_second": speed,
                "epoch_seconds": 8000 / speed,
                "peak_memory_mb": 300.0 + number,
            },
        )
        for number, share in ((1, 0.6), (2, 1.0), (3, 0.9))
    )
    header = compare.Header(
        id=f"{variant}-{seed}",
        tags=(variant,),
        names=(f"{variant}-{seed}", "record"),
        script=SCRIPT,
        arguments=tuple(arguments),
        started="2026-01-02T03:04:05Z",
        python="3.11.7",
        torch="2.13.0",
        device="cpu",
        source="record.jsonl",
    )
    onecycle = "onecycle" in variant or variant == "all"
    observation = Observation(
        optimizers=(
            OptimizerSeen(
                "Adam", 60, 0.0001, 0.003, 6, 1e-8, ((1, 0.0001), (6, 0.003), (60, 1e-8))
            ),
        ),
        schedules=(
            (
                ScheduleSeen(
                    "OneCycle", ("OneCycle", "OneCycleLR"), 0, 60, 60, 59, 0, 0.003, 1e-8, 0.1
                ),
            )
            if onecycle
            else ()
        ),
        forwards=60,
        eval_forwards=30,
        backwards=60,
        logged=("val/loss", "val/ndcg@10"),
        device="cpu",
        peak_memory_mb=303.0,
    )
    attempt = Attempt(
        variant,
        seed,
        "done",
        exit_code=0,
        seconds=24000 / speed + 4,
        command=("python", SCRIPT, *arguments),
        runs=(compare.Run(header, epochs),),
        observation=observation,
    )
    return dataclasses.replace(attempt, **changes)


def write_trial(folder: Path, trial: Trial) -> Path:
    """Write all files of a trial, as a run of it would have left them."""
    trials.write(folder, trial)
    for attempt in (*trial.attempts, *([trial.original] if trial.original else [])):
        if attempt.status == "pending":
            continue
        place = trials.attempt_folder(folder, attempt.variant, attempt.seed)
        place.mkdir(parents=True, exist_ok=True)
        for number, run in enumerate(attempt.runs, 1):
            (place / trials.record_name(number)).write_text(_record(run), encoding="utf-8")
        if attempt.observation is not None:
            seen = json.dumps(dataclasses.asdict(attempt.observation))
            (place / "observation.json").write_text(seen, encoding="utf-8")
        trials.write_attempt(folder, attempt)
    return folder


def _record(run: compare.Run) -> str:
    header = run.header
    lines = [{
        "type": "run", "version": 1, "id": header.id, "tag": header.tags[0],
        "script": header.script, "arguments": list(header.arguments), "started": header.started,
        "python": header.python, "torch": header.torch, "device": header.device, "wandb": None,
    }]  # fmt: skip
    lines += [
        {
            "type": "epoch",
            "epoch": epoch.number,
            "elapsed_seconds": epoch.seconds,
            "learning_rate": list(epoch.rates),
            "metrics": dict(epoch.metrics),
        }
        for epoch in run.epochs
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)
