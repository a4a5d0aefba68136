"""Time, memory and loss of the sample scripts on a GPU, before and after the rule `amp`.

usage: python bench/gpu_amp.py [--epochs N] [--rounds N] [--curves FILE]

Each script that `quickwins apply --select amp` changes is run in child processes, before and after
in turns, with one seed. Printed are the median time between two backward calls, the peak memory of
CUDA's allocator, and the mean loss of the first and the last tenth of the steps; `--curves`
writes every step's loss as JSON. Needs torch, pandas and scikit-learn, and a CUDA device; without
one it says so and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "fixtures" / "recsys"
SIZES = {
    "cuda": {"data": ["--users", "4000", "--items", "2000", "--per-user", "60"],
             "script": ["--batch-size", "2048", "--embedding-dim", "256"]},
    "cpu": {"data": ["--users", "60", "--items", "50"], "script": []},
}  # fmt: skip
WARM_UP = 10  # steps that are not timed, where a run has more than twice as many


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--curves", type=Path)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args()

    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured")
        return
    card = "CPU, a dry run (its figures say nothing of a GPU)"
    if options.device == "cuda":
        card = torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}, {options.epochs} epochs, {options.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        before, after = prepare(Path(folder), SIZES[options.device]["data"])
        found = {
            name: measured(name, before, after, options)
            for name in scripts(before)
            if (before / name).read_bytes() != (after / name).read_bytes()
        }
    print("\n".join(table(found)))
    if options.curves is not None:
        curves = {
            name: {side: runs[0]["losses"] for side, runs in sides.items()}
            for name, sides in found.items()
        }
        options.curves.write_text(json.dumps(curves), encoding="utf-8")


def prepare(folder: Path, data: list[str]) -> tuple[Path, Path]:
    """Two copies of the sample repository with the same data; the second one is rewritten."""
    before, after = folder / "before", folder / "after"
    unwanted = shutil.ignore_patterns("__pycache__", "wandb", "models", "data")
    shutil.copytree(SAMPLE, before, ignore=unwanted)
    made = [sys.executable, "make_data.py", "data", *data]
    subprocess.run(made, cwd=before, check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(before, after)
    apply(after)
    return before, after


def apply(tree: Path, accepted: tuple[int, ...] = (0,)) -> None:
    command = [sys.executable, "-m", "quickwins_codemod", "apply", "--select", "amp", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    if done.returncode not in accepted:
        raise SystemExit(f"quickwins apply ended with {done.returncode}:\n{done.stderr}")


def scripts(tree: Path) -> list[str]:
    return sorted(p.relative_to(tree).as_posix() for p in tree.rglob("train_with_wandb.py"))


def measured(
    name: str, before: Path, after: Path, options: argparse.Namespace
) -> dict[str, list[dict[str, object]]]:
    """The records of all rounds, before and after in turns."""
    found: dict[str, list[dict[str, object]]] = {"before": [], "after": []}
    for _ in range(options.rounds):
        for side, tree in (("before", before), ("after", after)):
            found[side].append(run(tree, name, options))
    return found


def run(tree: Path, name: str, options: argparse.Namespace) -> dict[str, object]:
    """Train one script in a child process and return its record."""
    record = tree / "record.json"
    arguments = ["--ratings-path", str(tree / "data" / "ratings.csv")]
    arguments += ["--movies-path", str(tree / "data" / "movies.csv"), "--wandb-offline"]
    arguments += ["--epochs", str(options.epochs), "--early-stopping-patience", "1000"]
    arguments += ["--device", options.device, "--seed", "0", *SIZES[options.device]["script"]]
    done = subprocess.run(
        [sys.executable, __file__, "--child", str(record), options.device, name, *arguments],
        cwd=tree, env={**os.environ, "WANDB_MODE": "disabled"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(record.read_text(encoding="utf-8"))


def child(record: Path, device: str, command: list[str]) -> None:
    """Run a script, and note when each backward pass starts and of which loss."""
    import torch

    torch.manual_seed(0)
    times: list[float] = []
    losses: list[torch.Tensor] = []
    unscaled: list[torch.Tensor] = []
    scaled = 0
    scale, backward = torch.amp.GradScaler.scale, torch.Tensor.backward

    def noting_scale(self, outputs):  # type: ignore[no-untyped-def]
        nonlocal scaled
        scaled += self.is_enabled()
        unscaled.append(outputs.detach())
        return scale(self, outputs)

    def noting_backward(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        losses.append(unscaled.pop() if unscaled else self.detach())
        return backward(self, *args, **kwargs)

    torch.amp.GradScaler.scale, torch.Tensor.backward = noting_scale, noting_backward
    sys.argv = command
    sys.path[0] = str(Path(command[0]).resolve().parent)
    runpy.run_path(command[0], run_name="__main__")
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
    found = {"times": times, "losses": [float(x) for x in losses], "scaled": scaled, "peak": peak}
    record.write_text(json.dumps(found), encoding="utf-8")


def table(found: dict[str, dict[str, list[dict]]]) -> list[str]:
    """One row for each script and side, as markdown."""
    heads = ["script", "", "ms per step", "peak MiB", "mean loss, first tenth", "last tenth"]
    lines = [f"| {' | '.join(heads)} | steps, scaled |", "|---|---|---|---|---|---|---|"]
    for name, sides in found.items():
        for side, runs in sides.items():
            milliseconds = statistics.median(step_time(r["times"]) for r in runs) * 1000
            peaks = [r["peak"] for r in runs if r["peak"] is not None]
            losses, scaled = runs[0]["losses"], runs[0]["scaled"]
            tenth = max(len(losses) // 10, 1)
            peak = f"{max(peaks):.0f}" if peaks else "-"
            cells = [name.rpartition("/")[0], side, f"{milliseconds:.2f}", peak]
            cells += [f"{statistics.mean(part):.4f}" for part in (losses[:tenth], losses[-tenth:])]
            lines.append(f"| {' | '.join(cells)} | {len(losses)}, {scaled} |")
    return lines


def step_time(times: list[float]) -> float:
    """The median time from one backward pass to the next, so that validation does not count."""
    gaps = [b - a for a, b in zip(times, times[1:])]
    return statistics.median(gaps[WARM_UP:] if len(gaps) > 2 * WARM_UP else gaps)


if __name__ == "__main__":
    main()
