"""A record of a training run: metrics, speed and memory of each epoch, as JSON lines.

`quickwins compare` reads it. One file for each run, `.quickwins/runs/<id>.jsonl` in the current
folder, or in the folder that the environment variable QUICKWINS_RUNS names:

    {"type": "run", "version": 1, "id": …, "tag": …, "script": …, "arguments": […], "started": …,
     "python": …, "torch": …, "device": …, "wandb": {"id": …, "name": …, "project": …, "entity": …}}
    {"type": "epoch", "epoch": 1, "elapsed_seconds": …, "learning_rate": […], "metrics": {…}}

"tag" and "wandb" may be null, and so may every number that was not finite. There is no line at the
end: a run that was cut off is one with fewer epochs.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping

import torch
import torch.distributed as dist
from torch.optim import Optimizer
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Tracker"]

_MIB = 2**20
# What getrusage counts in: bytes on macOS, KiB elsewhere.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Tracker:
    """Measures the training of each epoch and writes the record of the run.

        tracker = Tracker(optimizer)
        for epoch in range(epochs):
            tracker.start_training()
            for batch in train_loader: ...
            tracker.end_training(train_loader)
            metrics = tracker.log({"val_loss": validate(model)})

    It changes nothing that it watches: no random number is drawn and no peak of memory reset. A
    disk that cannot be written to and a wandb that fails are one line each on stderr, and training
    goes on. Under torch.distributed, or where the environment has RANK, only rank 0 writes.

    wandb is not needed. The tag is put on the run that is live when the Tracker is made, or else at
    the first `log`: among the run's tags, and at the end of its name.

    Args:
        optimizer: Whose learning rates are recorded, one for each parameter group.
        tag: A name for what is compared, as "baseline"; the environment variable QUICKWINS_TAG
            where there is none.
        folder: Where the file of the run goes, instead of the two folders above.

    Raises:
        TypeError: `optimizer` has no parameter groups.
    """

    def __init__(
        self,
        optimizer: Optimizer | None = None,
        *,
        tag: str | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        if optimizer is not None and not hasattr(optimizer, "param_groups"):
            raise TypeError(
                "optimizer must be a torch.optim.Optimizer, and not an object of type "
                f"{type(optimizer).__name__}: leave it out to record no learning rate"
            )
        self._optimizer = optimizer
        self.tag = tag or os.environ.get("QUICKWINS_TAG") or None
        self._made = time.perf_counter()
        self._epoch = 0
        self._training_since: float | None = None
        self._peak_before_training: dict[str, float] = {}
        self._peak_of_training: dict[str, float] = {}
        self._forget_epoch()

        now = datetime.now(timezone.utc)
        # There is none where Python is embedded; and a script may put anything into its own.
        script, *arguments = map(str, getattr(sys, "argv", None) or [""])
        self._header: dict[str, Any] = {
            "type": "run",
            "version": 1,
            "id": _new_id(now, script),
            "tag": self.tag,
            "script": script,
            "arguments": arguments,
            "started": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": _device_of(optimizer),
            "wandb": None,
        }
        self._is_first_rank = _rank() == 0
        self._can_write = True
        self._path = _folder(folder) / f"{self._header['id']}.jsonl"
        if self._is_first_rank:
            self._has_joined_wandb = self._join_wandb()
            self._write(self._header, "w")

    def start_training(self) -> None:
        """Call directly above a training loop. An epoch may have several: their times add up."""
        _finish_cuda_work()
        self._peak_before_training = _peak_memory()
        self._training_since = time.perf_counter()

    def end_training(self, loader: Any = None) -> None:
        """Call directly below the loop, before validation, whose memory is not of interest.

        Args:
            loader: What the loop went through to its end. Without one, or where its length cannot
                be known without iterating over it, the epoch has no `samples_per_second`.
        """
        # CUDA works behind Python's back: without waiting, the time of the last batches would
        # count as validation.
        _finish_cuda_work()
        if self._training_since is None:
            return
        seconds = time.perf_counter() - self._training_since
        self._training_since = None
        self._seconds = (self._seconds or 0.0) + seconds
        self._row_counts.append(_rows(loader))
        peak = _peak_memory()
        # One as high as before is that of a validation in between, below which training stayed.
        if peak != self._peak_before_training or not self._peak_of_training:
            self._peak_of_training = peak
        self._memory = self._peak_of_training

    def log(self, metrics: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """End an epoch: add what was measured to its metrics, and write both to the record.

        Added are, each unless `metrics` has it already:

        - `epoch_seconds`, of training alone, from `start_training` to `end_training`;
        - `samples_per_second`, rows of the loaders by these seconds. Under torch.distributed these
          are rows of all ranks, taking the number of this one's times the number of ranks, since
          a DistributedSampler has the length of its own share;
        - `peak_gpu_memory_mb`, the most that tensors took on one card since the start of the
          process, or since the script has reset it; on machines without CUDA, `peak_memory_mb`, the
          most that the process took since its start, its workers not included (not on Windows).
          Both in MiB, 2**20 bytes, and read at the end of training. What was taken between the
          training of two epochs, as by validation, is left out while training stays below it.

        Args:
            metrics: Names without prefix, and numbers: also tensors or numpy's with one element.
                What is no number is returned, but is not in the record.
            prefix: Put before every name that is returned. The record goes without.

        Returns:
            For every rank, all of `metrics`, as they were given, and what was added.
        """
        self._epoch += 1
        measured = {**self._speed(), **(self._memory or _peak_memory())}
        self._forget_epoch()
        everything = {**metrics, **{k: v for k, v in measured.items() if k not in metrics}}
        if self._is_first_rank:
            if self._epoch == 1 and not self._has_joined_wandb and self._join_wandb():
                self._write(self._header, "w")  # anew: no epoch was written so far
            numbers = {str(name): _number(value) for name, value in everything.items()}
            self._write(
                {
                    "type": "epoch",
                    "epoch": self._epoch,
                    "elapsed_seconds": time.perf_counter() - self._made,
                    "learning_rate": self._learning_rates(),
                    "metrics": {k: _finite(v) for k, v in numbers.items() if v is not None},
                }
            )
        return {f"{prefix}{name}": value for name, value in everything.items()}

    def _forget_epoch(self) -> None:
        self._seconds: float | None = None
        self._row_counts: list[int | None] = []
        self._memory: dict[str, float] = {}

    def _speed(self) -> dict[str, float]:
        if self._seconds is None:
            return {}
        speed = {"epoch_seconds": self._seconds}
        known = [rows for rows in self._row_counts if rows is not None]
        if self._seconds > 0.0 and len(known) == len(self._row_counts):
            speed["samples_per_second"] = sum(known) * _world_size() / self._seconds
        return speed

    def _learning_rates(self) -> list[float | None]:
        groups = self._optimizer.param_groups if self._optimizer is not None else []
        return [_finite(_number(group.get("lr"))) for group in groups]

    def _join_wandb(self) -> bool:
        """Tag the live run of wandb, and put it into the header. False if there is none."""
        # Not imported, as most scripts have none, and as it would take a second.
        run = getattr(sys.modules.get("wandb"), "run", None)
        if run is None:
            return False
        try:
            if self.tag is not None:
                _put_tag(run, self.tag)
            if not getattr(run, "disabled", False):
                names = ("id", "name", "project", "entity")
                found = {name: getattr(run, name, None) for name in names}
                self._header["wandb"] = {k: str(v) if v else None for k, v in found.items()}
        except Exception as error:  # of a service that training does not need
            _say(f"the run of wandb could not be read or tagged: {error}")
        return True

    def _write(self, line: dict[str, Any], mode: str = "a") -> None:
        """Add a line to the file, or with mode "w" begin the file with it.

        Opened each time, so that a line is out of Python's hands when this returns, and so that
        the Tracker of a trainer that is pickled holds no file.
        """
        if not self._can_write:
            return
        try:
            if mode == "w":
                _make_folder(self._path.parent)
            with open(self._path, mode, encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            self._can_write = False
            _say(f"the run is not recorded any further, its file cannot be written: {error}")


def _say(text: str) -> None:
    print("quickwins:", *text.split(), file=sys.stderr)  # on one line


# The file


def _new_id(now: datetime, script: str) -> str:
    """A name that sorts by time, and that no other run has: also not one of the same second."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(script).stem)[:64] or "run"
    return f"{now:%Y%m%dT%H%M%SZ}-{stem}-{os.urandom(4).hex()}"  # random's state is the script's


def _folder(given: str | os.PathLike[str] | None) -> Path:
    """Absolute, as the script may change its current folder while it runs."""
    return Path(given or os.environ.get("QUICKWINS_RUNS") or Path(".quickwins", "runs")).absolute()


def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ignored = folder.parent / ".gitignore"
    if folder.parts[-2:] == (".quickwins", "runs") and not ignored.exists():
        ignored.write_text("*\n", encoding="utf-8")


def _number(value: Any) -> float | None:
    """A metric as a float, or None for what is no number."""
    if isinstance(value, (str, bytes)):
        return None
    try:
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _finite(value: float | None) -> float | None:
    """None, which JSON has, in the place of NaN and infinities, which it has not."""
    return value if value is not None and math.isfinite(value) else None


# Speed and memory


def _rows(loader: Any) -> int | None:
    """How many rows an iteration over the loader has, on this rank. None if it does not say."""
    try:
        if not isinstance(loader, DataLoader):
            return len(loader) * _size(loader)
        batches = loader.batch_sampler
        if isinstance(loader.dataset, IterableDataset):
            # Its own length, as to ask for the loader's makes torch watch it, and warn.
            rows, size = len(loader.dataset), _size(loader)  # type: ignore[arg-type]
            return rows - rows % size if loader.drop_last else rows
        if type(batches) is BatchSampler and not batches.drop_last:
            return len(batches.sampler)  # type: ignore[arg-type]
        return len(batches) * _size(batches)  # type: ignore[arg-type]
    except Exception:  # whatever the len() of a script's own class raises
        return None


def _size(batches: Any) -> int:
    size = batches.batch_size
    if not isinstance(size, int):
        raise TypeError("the size of a batch is not known")
    return size


def _peaks_of_cards() -> dict[int, int]:
    """The most bytes that tensors took, for each card that this process has tensors on."""
    if not torch.cuda.is_initialized():
        return {}
    peaks = {i: torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())}
    return {card: peak for card, peak in peaks.items() if peak}


def _finish_cuda_work() -> None:
    # Not of the other cards: to wait for one takes half a gigabyte of its memory.
    for card in _peaks_of_cards():
        torch.cuda.synchronize(card)


def _peak_memory() -> dict[str, float]:
    if torch.cuda.is_initialized():
        return {"peak_gpu_memory_mb": max(_peaks_of_cards().values(), default=0) / _MIB}
    peak = _peak_of_process()
    return {} if peak is None else {"peak_memory_mb": peak / _MIB}


def _peak_of_process() -> int | None:
    """The most bytes that this process has taken, or None where the system does not say."""
    # On Linux, getrusage starts from what the parent took, and that may be a notebook.
    try:
        with open("/proc/self/status", "rb") as status:
            own = re.search(rb"VmHWM:\s*(\d+) kB", status.read())
    except OSError:
        own = None
    if own is not None:
        return int(own[1]) * 1024
    if resource is None:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _device_of(optimizer: Optimizer | None) -> str:
    """The name of the card, or the type of another device, that the parameters are on."""
    groups = optimizer.param_groups if optimizer is not None else []
    device = next((weight.device for group in groups for weight in group["params"]), None)
    if device is None and torch.cuda.is_initialized():
        device = torch.device("cuda")
    if device is None or device.type != "cuda":
        return "cpu" if device is None else device.type
    return torch.cuda.get_device_name(device)


# Ranks, and wandb


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _world_size() -> int:
    return dist.get_world_size() if _is_distributed() else 1


def _rank() -> int:
    if _is_distributed():
        return dist.get_rank()
    rank = os.environ.get("RANK", "")  # of torchrun, before the script begins the group
    return int(rank) if rank.isdecimal() else 0


def _put_tag(run: Any, tag: str) -> None:
    tags, name = tuple(run.tags or ()), run.name or ""  # an offline run may have no name
    if tag not in tags:
        run.tags = (*tags, tag)
    if name != tag and not name.endswith(f"-{tag}"):
        run.name = f"{name}-{tag}" if name else tag
