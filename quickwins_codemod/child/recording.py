"""Writes a record of a script that has no Tracker: when its epochs ended, and what they took.

An epoch is a pass over a DataLoader during which an optimizer steps. Where there is none, because
the script makes its batches itself, the whole training is one. The lines are those of
`runtime/tracking.py`; the metrics that the script logs are in the observation (`watching.py`).
"""

from __future__ import annotations

import collections.abc
import contextlib
import json
import os
import platform
import sys
import time
import weakref
from typing import Any, Callable, Optional


class Recorder:
    """Writes to `path` while the script runs. replace, peaks: of `watching.py`."""

    def __init__(
        self, path: str, replace: Callable[..., None], peaks: Callable[[Any], dict[str, Any]]
    ) -> None:
        self._path, self._replace, self._peaks = path, replace, peaks
        self._torch: Any = None
        self._process = os.getpid()
        self._passes: Any = weakref.WeakKeyDictionary()
        #: The pass that the last batch came from; the one that the last step was made in.
        self._current: Optional[_Pass] = None
        self._training: Optional[_Pass] = None
        #: All of the training: from the pass of its first step, or that step, to its last step.
        self._whole: Optional[_Pass] = None
        self._epochs = 0
        self._optimizer: Any = None

    def start(self, imports: Any) -> None:
        """Listen from when the script imports torch."""
        imports.after("torch", self._listen)

    def close(self) -> None:
        """Write the last epoch."""
        self._write_epoch(self._training)
        self._training = None
        if not self._epochs:
            self._write_epoch(self._whole)

    def _listen(self, torch: Any) -> None:
        from torch.optim import optimizer
        from torch.utils.data import dataloader

        self._torch = torch
        optimizer.register_optimizer_step_post_hook(self._stepped)
        self._replace(dataloader.DataLoader, "__iter__", self._iterated)
        self._replace(dataloader._BaseDataLoaderIter, "__next__", self._next)

    def _iterated(self, iterate: Callable[[Any], Any], loader: Any) -> Any:
        self._wait()
        began = time.perf_counter()  # starting workers is part of an epoch
        batches = iterate(loader)
        self._passes[batches] = _Pass(began)
        return batches

    def _next(self, following: Callable[[Any], Any], batches: Any) -> Any:
        entry = self._passes.get(batches)
        try:
            batch = following(batches)
        except StopIteration:
            if entry is not None and entry.steps:
                self._wait()
                self._end(entry)
            raise
        if entry is not None:
            self._current = entry
            entry.batches += 1
            entry.count(_rows(self._torch, batch))
        return batch

    def _stepped(self, optimizer: Any, *_: Any) -> None:
        now = time.perf_counter()
        self._optimizer = weakref.ref(optimizer)
        entry, training = self._current, self._training
        if entry is not None and training is not None and training.ended is None:
            if entry.began < training.last:  # batches of two loaders by turns: one epoch
                entry = training
        if entry is not None and entry.ended is None:
            if entry is not training:
                self._write_epoch(training)
                self._training = entry
            entry.steps, entry.last = entry.steps + 1, now
        if self._whole is None:
            self._whole = _Pass(self._training.began if self._training is not None else now)
        self._whole.steps, self._whole.last = self._whole.steps + 1, now

    def _wait(self) -> None:
        # CUDA works behind Python's back: its last batches belong to the time of their epoch.
        cuda = self._torch.cuda
        if cuda.is_initialized():
            for card in range(cuda.device_count()):
                if cuda.max_memory_allocated(card):  # to wait for an idle one takes memory there
                    cuda.synchronize(card)

    def _end(self, entry: _Pass) -> None:
        entry.ended = time.perf_counter()
        entry.rates = self._rates()
        entry.peaks = self._peaks(self._torch)

    def _rates(self) -> list[float]:
        optimizer = self._optimizer() if self._optimizer is not None else None
        groups = optimizer.param_groups if optimizer is not None else []
        return [float(group["lr"]) for group in groups]

    def _write_epoch(self, entry: Optional[_Pass]) -> None:
        if entry is None or self._whole is None or not entry.steps:
            return
        if os.getpid() != self._process:  # a fork of the script's
            return
        if entry.ended is None:  # left by a break
            self._end(entry)
            entry.ended = entry.last
        seconds = entry.ended - entry.began
        metrics = {"epoch_seconds": seconds}
        if entry.rows is not None and entry.batches and seconds > 0:
            metrics["samples_per_second"] = entry.rows / seconds
        metrics.update({name: peak for name, peak in entry.peaks.items() if peak is not None})
        self._epochs += 1
        if self._epochs == 1:
            self._write(self._header(), "w")
        line = {
            "type": "epoch",
            "epoch": self._epochs,
            "elapsed_seconds": entry.ended - self._whole.began,
            "learning_rate": entry.rates,
            "metrics": metrics,
        }
        self._write(line, "a")

    def _header(self) -> dict[str, Any]:
        script, *arguments = map(str, sys.argv or [""])
        return {
            "type": "run",
            "version": 1,
            "id": os.path.splitext(os.path.basename(self._path))[0],
            "tag": os.environ.get("QUICKWINS_TAG"),
            "script": script,
            "arguments": arguments,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "torch": self._torch.__version__,
            "device": self._device(),
            "wandb": None,
        }

    def _device(self) -> str:
        optimizer = self._optimizer() if self._optimizer is not None else None
        groups = optimizer.param_groups if optimizer is not None else []
        device = next((weight.device for group in groups for weight in group["params"]), None)
        if device is None or device.type != "cuda":
            return "cpu" if device is None else str(device.type)
        return str(self._torch.cuda.get_device_name(device))

    def _write(self, line: dict[str, Any], mode: str) -> None:
        with contextlib.suppress(OSError):  # the script goes on, on a full disk too
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            with open(self._path, mode, encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(line) + "\n")


class _Pass:
    """One pass over a loader. rows: of the batches, None where they do not say."""

    def __init__(self, began: float) -> None:
        self.began = self.last = began
        self.ended: Optional[float] = None
        self.steps = self.batches = 0
        self.rows: Optional[int] = 0
        self.rates: list[float] = []
        self.peaks: dict[str, Any] = {}

    def count(self, rows: Optional[int]) -> None:
        """Add a batch."""
        self.rows = None if rows is None or self.rows is None else self.rows + rows


def _rows(torch: Any, batch: Any) -> Optional[int]:
    """How many rows the first tensor of a batch has."""
    while not torch.is_tensor(batch):
        if isinstance(batch, collections.abc.Mapping):
            batch = tuple(batch.values())
        if not isinstance(batch, (list, tuple)) or not batch:
            return None
        batch = batch[0]
    return len(batch) if batch.dim() else None
