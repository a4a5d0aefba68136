"""Notes what a training script does with torch, wandb and our runtime, and changes nothing of it.

No random number is drawn, nothing is kept alive, no attribute is put on an object of the script's,
and what it calls is called once with what it gave. The names of the fields are those of
`quickwins_codemod/trials.py`.
"""

from __future__ import annotations

import functools
import math
import os
import re
import sys
import weakref
from typing import Any, Callable, Optional

_MOST_RATES = 400
_MOST_KEYS = 2000
#: A key that was logged more often was not logged once an epoch.
_MOST_VALUES = 1000
_MIB = 2**20


class Watch:
    """What was seen so far. guard: told of files that torch opens without Python's knowledge."""

    def __init__(self, guard: Any) -> None:
        self.guard = guard
        self.counts = dict.fromkeys(
            (
                "forwards", "forwards_autocast", "eval_forwards", "eval_forwards_autocast",
                "backwards", "backwards_autocast", "clips", "clips_scaled", "norms", "norms_scaled",
            ),
            0,
        )  # fmt: skip
        self.optimizers: list[dict[str, Any]] = []
        self.schedules: list[dict[str, Any]] = []
        self.scalers: list[dict[str, Any]] = []
        self.mining: list[_Mining] = []
        self.types: set[str] = set()
        self.device = ""
        self.logged: dict[str, bool] = {}
        self.values: dict[str, list[Optional[float]]] = {}
        #: What the mining of a ranking term listens for in the model's calls.
        self.catch: Optional[Callable[[tuple[Any, ...]], None]] = None
        self.torch: Any = None
        self._inside = {"call": False, "backward": False}
        self._entries: Any = weakref.WeakKeyDictionary()
        self._by_optimizer: Any = weakref.WeakKeyDictionary()
        self._devices: Any = weakref.WeakKeyDictionary()

    def start(self, imports: Any) -> None:
        """Listen from when the script imports these."""
        imports.after("torch", self._torch)
        imports.after("wandb", self._wandb)
        for name in ("quickwins_runtime.negatives", "quickwins_codemod.runtime.negatives"):
            imports.after(name, self._negatives)

    def found(self) -> dict[str, Any]:
        """Return the observation, as far as this room knows it."""
        for entry in self.optimizers:
            entry["rates"] = [list(pair) for pair in entry["_rates"].pairs()]
        for entry in self.scalers:
            entry["scale"] = _number(entry["_scale"])
        return {
            **self.counts,
            "optimizers": _without_private(self.optimizers),
            "schedules": _without_private(self.schedules),
            "scalers": _without_private(self.scalers),
            "mining": [entry.found() for entry in self.mining],
            "autocast_types": sorted(self.types),
            "device": self.device,
            "logged": sorted(self.logged),
            "values": {
                key: values
                for key, values in self.values.items()
                if len(values) <= _MOST_VALUES and any(value is not None for value in values)
            },
            "not_finite": sorted(key for key, finite in self.logged.items() if not finite),
            **peaks(self.torch),
        }

    # Optimizers, schedules, scalers

    def _torch(self, torch: Any) -> None:
        self.torch = torch
        from torch.optim import lr_scheduler, optimizer

        optimizer.register_optimizer_step_pre_hook(self._before_step)
        optimizer.register_optimizer_step_post_hook(self._after_step)
        for kind in {lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau}:
            replace(kind, "__init__", self._schedule_made)
        for name in ("scale", "unscale_", "step", "update"):
            replace(torch.amp.GradScaler, name, getattr(self, f"_scaler_{name.strip('_')}"))
        replace(torch.autograd, "backward", self._backward)
        self._listen_to_modules(torch.nn.Module)
        utils = torch.nn.utils
        for name, index in (("clip_grad_norm_", 1), ("clip_grad_value_", None)):
            replace(utils.clip_grad, name, functools.partial(self._clip, index))
            setattr(utils, name, getattr(utils.clip_grad, name))
        for owner, index in ((torch, 1), (torch.jit, 1)):
            replace(owner, "save", functools.partial(self._save, index))

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        entry = self._optimizer(optimizer)
        entry["_depth"] += 1

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        entry = self._optimizer(optimizer)
        entry["_depth"] -= 1
        if entry["_depth"] > 0:  # of a subclass that calls its parent's
            return
        entry["_depth"] = 0
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            if float(getattr(optimizer, "found_inf", None) or 0.0) != 0.0:
                return  # a fused one, which skips by itself
        entry["steps"] += 1
        rate = float(optimizer.param_groups[0]["lr"])
        entry["first"] = rate if entry["first"] is None else entry["first"]
        entry["last"] = rate
        if entry["peak"] is None or rate > entry["peak"]:
            entry["peak"], entry["peak_step"] = rate, entry["steps"]
        entry["_rates"].add(entry["steps"], rate)

    def _optimizer(self, optimizer: Any) -> dict[str, Any]:
        entry: Optional[dict[str, Any]] = self._by_optimizer.get(optimizer)
        if entry is None:
            entry = dict(
                kind=type(optimizer).__name__, steps=0, first=None, peak=None, peak_step=0,
                last=None, _rates=_Thinned(), _depth=0,
            )  # fmt: skip
            self._by_optimizer[optimizer] = entry
            self.optimizers.append(entry)
        return entry

    def _schedule_made(self, made: Callable[..., Any], schedule: Any, *given: Any, **named: Any):
        made(schedule, *given, **named)
        if schedule in self._entries:
            return
        bases = [kind for kind in type(schedule).__mro__ if kind is not object]
        for kind in bases:
            if "step" in vars(kind) and not hasattr(vars(kind)["step"], "_quickwins"):
                replace(kind, "step", self._schedule_stepped)
        optimizer = self._optimizer(schedule.optimizer)
        group = schedule.optimizer.param_groups[0]
        cycle = hasattr(schedule, "total_steps")
        entry = dict(
            kind=type(schedule).__name__,
            bases=[kind.__name__ for kind in bases],
            optimizer=next(i for i, e in enumerate(self.optimizers) if e is optimizer),
            total_steps=_whole(getattr(schedule, "total_steps", None)),
            calls=0,
            position=_whole(getattr(schedule, "last_epoch", None)),
            steps_before=optimizer["steps"],
            peak=_number(group.get("max_lr")) if cycle else None,
            end=_number(group.get("min_lr")) if cycle else None,
            pct_start=_number(getattr(schedule, "_pct_start", None)),
            _inside=False,
        )
        self._entries[schedule] = entry
        self.schedules.append(entry)

    def _schedule_stepped(self, step: Callable[..., Any], schedule: Any, *given: Any, **named: Any):
        entry = self._entries.get(schedule)
        if entry is None or entry["_inside"]:  # its constructor's, or its parent's
            return step(schedule, *given, **named)
        entry["_inside"] = True
        try:
            result = step(schedule, *given, **named)
        finally:
            entry["_inside"] = False
        entry["calls"] += 1
        entry["position"] = _whole(getattr(schedule, "last_epoch", None))
        return result

    def _scaler(self, scaler: Any) -> dict[str, Any]:
        entry: Optional[dict[str, Any]] = self._entries.get(scaler)
        if entry is None:
            entry = dict(
                kind=type(scaler).__name__, enabled=bool(scaler.is_enabled()), scaled=0, unscaled=0,
                steps=0, skipped=0, updates=0, scale=None,
                _scale=None, _pending=False, _unscaled=set(),
            )  # fmt: skip
            self._entries[scaler] = entry
            self.scalers.append(entry)
        return entry

    def _scaler_scale(self, scale: Callable[..., Any], scaler: Any, *given: Any, **named: Any):
        entry = self._scaler(scaler)
        entry["scaled"] += 1
        # A loss that is scaled after unscale_ would be another defect, and torch raises there.
        entry["_pending"] = entry["enabled"]
        return scale(scaler, *given, **named)

    def _scaler_unscale(
        self, unscale: Callable[..., Any], scaler: Any, optimizer: Any, *given: Any
    ):
        entry = self._scaler(scaler)
        result = unscale(scaler, optimizer, *given)
        entry["unscaled"] += 1
        entry["_unscaled"].add(id(optimizer))
        return result

    def _scaler_step(
        self, step: Callable[..., Any], scaler: Any, optimizer: Any, *given: Any, **named: Any
    ):
        entry, stepped = self._scaler(scaler), self._optimizer(optimizer)
        before = stepped["steps"]
        result = step(scaler, optimizer, *given, **named)
        entry["steps"] += 1
        entry["skipped"] += stepped["steps"] == before
        return result

    def _scaler_update(self, update: Callable[..., Any], scaler: Any, *given: Any, **named: Any):
        entry = self._scaler(scaler)
        result = update(scaler, *given, **named)
        entry["updates"] += 1
        entry["_pending"] = False
        entry["_unscaled"].clear()
        entry["_scale"] = getattr(scaler, "_scale", None)  # get_scale() would wait for the device
        return result

    # Forward and backward

    def _listen_to_modules(self, kind: Any) -> None:
        # Only calls that no other module makes count; so all others cost one comparison.
        call, inside = kind.__call__, self._inside

        @functools.wraps(call)
        def called(module: Any, *given: Any, **named: Any) -> Any:
            if inside["call"]:
                return call(module, *given, **named)
            inside["call"] = True
            try:
                result = call(module, *given, **named)
            finally:
                inside["call"] = False
            self._called(module, given, result)
            return result

        kind.__call__ = called

    def _called(self, module: Any, given: tuple[Any, ...], result: Any) -> None:
        device = self._device(module)
        if device is None:
            return
        training = module.training and self.torch.is_grad_enabled()
        kind = "forwards" if training else "eval_forwards"
        self.counts[kind] += 1
        if _is_autocast(self.torch):
            self.counts[f"{kind}_autocast"] += 1
            dtype = _dtype(self.torch, result)
            if training and dtype is not None:
                self.types.add(dtype)
        if training:
            self.device = device
            if self.catch is not None:
                self.catch(given)

    def _device(self, module: Any) -> Optional[str]:
        """Return where a module's parameters are, None where it has none (a loss)."""
        if module not in self._devices:
            parameter = next(module.parameters(), None)
            self._devices[module] = None if parameter is None else parameter.device.type
        device: Optional[str] = self._devices[module]
        return device

    def _backward(self, backward: Callable[..., Any], *given: Any, **named: Any):
        if self._inside["backward"]:  # of a checkpointed part
            return backward(*given, **named)
        self.counts["backwards"] += 1
        self.counts["backwards_autocast"] += _is_autocast(self.torch)
        self._inside["backward"] = True
        try:
            return backward(*given, **named)
        finally:
            self._inside["backward"] = False

    def _clip(
        self, bound: Optional[int], clip: Callable[..., Any], parameters: Any, *given: Any, **named
    ):
        if not isinstance(parameters, self.torch.Tensor):
            parameters = list(parameters)
        most = given[bound - 1] if bound and len(given) >= bound else named.get("max_norm", 0.0)
        kind = "norms" if bound and math.isinf(float(most)) else "clips"
        self.counts[kind] += 1
        self.counts[f"{kind}_scaled"] += self._is_scaled(parameters)
        return clip(parameters, *given, **named)

    def _is_scaled(self, parameters: Any) -> bool:
        """Whether the gradients of some of these are multiplied by a scale at this moment."""
        pending = [entry for entry in self.scalers if entry["_pending"]]
        if not pending:
            return False
        ids = {id(p) for p in ([parameters] if hasattr(parameters, "grad") else parameters)}
        unscaled = set().union(*(entry["_unscaled"] for entry in pending))
        mine = [
            optimizer
            for optimizer in list(self._by_optimizer)
            if any(id(p) in ids for group in optimizer.param_groups for p in group["params"])
        ]
        if not mine:  # none has stepped so far
            return not unscaled
        return any(id(optimizer) not in unscaled for optimizer in mine)

    def _save(self, index: int, save: Callable[..., Any], *given: Any, **named: Any):
        target = given[index] if len(given) > index else named.get("f")
        if isinstance(target, (str, os.PathLike)):
            self.guard.before_write(target, os.O_WRONLY | os.O_TRUNC)
        return save(*given, **named)

    # Logging

    def _wandb(self, wandb: Any) -> None:
        if callable(getattr(wandb, "init", None)):
            replace(wandb, "init", _offline)
        run = getattr(sys.modules.get("wandb.sdk.wandb_run"), "Run", None)
        if isinstance(run, type) and callable(getattr(run, "log", None)):
            replace(run, "log", self._log)

    def _log(self, log: Callable[..., Any], run: Any, data: Any = None, *given: Any, **named: Any):
        if isinstance(data, dict):
            for key, value in data.items():
                if len(self.logged) < _MOST_KEYS or key in self.logged:
                    name = str(key)
                    self.logged[name] = self.logged.get(name, True) and _is_finite(value)
                    values = self.values.setdefault(name, [])
                    if len(values) <= _MOST_VALUES:
                        values.append(_logged_number(value))
        return log(run, *(() if data is None else (data,)), *given, **named)

    # Mining

    def _negatives(self, module: Any) -> None:
        kind = module.HardNegatives
        replace(kind, "mine", self._mine)
        replace(kind, "ranking_loss", self._ranking_loss)
        replace(kind, "mask_in_batch", self._mask)
        replace(kind, "statistics", self._statistics)

    def _miner(self, negatives: Any) -> _Mining:
        entry: Optional[_Mining] = self._entries.get(negatives)
        if entry is None:
            entry = _Mining(int(negatives.warmup_steps), float(negatives.warmup_auc))
            self._entries[negatives] = entry
            self.mining.append(entry)
        return entry

    def _mine(
        self, mine: Callable[..., Any], negatives: Any, model: Any, users: Any, drawn: Any,
        *given: Any, **named: Any,
    ):  # fmt: skip
        result = mine(negatives, model, users, drawn, *given, **named)
        entry = self._miner(negatives)
        entry.counts["mine_calls"] += 1
        if _is_due(entry.counts["mine_calls"]):
            with self.torch.no_grad():
                entry.look_at_mined(
                    self.torch, negatives, users, drawn, result, named.get("labels")
                )
        return result

    def _ranking_loss(
        self, loss: Callable[..., Any], negatives: Any, model: Any, users: Any, items: Any,
        *given: Any, **named: Any,
    ):  # fmt: skip
        entry = self._miner(negatives)
        entry.counts["ranking_calls"] += 1
        if not _is_due(entry.counts["ranking_calls"]):
            return loss(negatives, model, users, items, *given, **named)
        caught: list[Any] = []
        rows = items.numel()

        def catch(arguments: tuple[Any, ...]) -> None:
            # The batch's own items, and below them the mined ones, in one call with gradient.
            for ids in arguments[-2:][::-1]:
                if self.torch.is_tensor(ids) and ids.dim() == 1 and len(ids) == 2 * rows:
                    if self.torch.is_grad_enabled() and not ids.is_floating_point():
                        caught.append(ids[rows:].detach())
                        return

        if named.get("score") is not None:
            named["score"] = _heard(named["score"], catch)
        elif named.get("encode") is not None and not callable(model):
            encode = named["encode"]
            named["encode"] = (encode[0], _heard(encode[1], catch))
        else:
            self.catch = catch
        try:
            result = loss(negatives, model, users, items, *given, **named)
        finally:
            self.catch = None
        if result.requires_grad:  # called when the term is differentiated, and so trained
            result.register_hook(entry.note_gradient)
        if caught and entry.counts["ranking_calls"] > entry.warmup["warmup_steps"]:
            with self.torch.no_grad():
                entry.look_at_ranked(self.torch, negatives, users.reshape(-1), caught[0])
        return result

    def _mask(self, mask: Callable[..., Any], negatives: Any, *given: Any, **named: Any):
        self._miner(negatives).counts["mask_calls"] += 1
        return mask(negatives, *given, **named)

    def _statistics(self, statistics: Callable[..., Any], negatives: Any):
        result = statistics(negatives)
        known = {name.rpartition("/")[2]: value for name, value in result.items()}
        self._miner(negatives).statistics.update(known)
        return result


class _Thinned:
    """Pairs of step and rate: all of them at first, then every second, every fourth …"""

    def __init__(self) -> None:
        self._pairs: list[tuple[int, float]] = []
        self._last: Optional[tuple[int, float]] = None
        self._every = 1

    def add(self, step: int, rate: float) -> None:
        self._last = (step, rate)
        if (step - 1) % self._every:
            return
        self._pairs.append((step, rate))
        if len(self._pairs) > _MOST_RATES:
            self._every *= 2
            self._pairs = self._pairs[::2]

    def pairs(self) -> list[tuple[int, float]]:
        extra = [self._last] if self._last and self._last not in self._pairs[-1:] else []
        return self._pairs + extra


class _Mining:
    """What one HardNegatives mined, as far as it was looked at. Sums stay on the device."""

    def __init__(self, warmup_steps: int, warmup_auc: float) -> None:
        self.warmup = {"warmup_steps": warmup_steps, "warmup_auc": warmup_auc}
        names = ("mine_calls", "ranking_calls", "ranking_gradients", "mask_calls", "checked")
        self.counts = dict.fromkeys(names, 0)
        self.statistics: dict[str, Any] = {}
        self.sums: dict[str, Any] = {"replaced": 0, "seen": 0, "expected_seen": 0.0}

    def found(self) -> dict[str, Any]:
        return {
            **self.counts,
            **self.warmup,
            "replaced": int(self.sums["replaced"]),
            "seen": int(self.sums["seen"]),
            "expected_seen": float(self.sums["expected_seen"]),
            "statistics": {
                name: number
                for name, number in ((n, _number(v)) for n, v in self.statistics.items())
                if number is not None
            },
        }

    def note_gradient(self, gradient: Any) -> None:
        self.counts["ranking_gradients"] += 1

    def look_at_mined(
        self, torch: Any, negatives: Any, users: Any, drawn: Any, mined: Any, labels: Any
    ) -> None:
        """Count what was replaced, and what of that the user has seen."""
        own, mined = drawn.to(users.device), mined.to(users.device)
        rows = len(own)
        history = users.dim() == 2 and users.shape != own.shape and users.shape[1] > 1
        if not own.numel() or (users.shape[0] != rows and users.numel() != own.numel()):
            return
        own, mined = own.reshape(rows, -1), mined.reshape(rows, -1)
        new = ~(mined.unsqueeze(2) == own.unsqueeze(1)).any(2)
        if history:
            seen = (mined.unsqueeze(2) == users.unsqueeze(1)).any(2)
        else:
            pairs = users.reshape(rows, -1).expand_as(mined)
            seen = negatives.seen.contain(pairs, mined)
        counted = new if labels is None else new & (labels.to(users.device).reshape_as(new) == 0)
        self.counts["checked"] += mined.numel()
        self.sums["replaced"] = self.sums["replaced"] + counted.sum()
        self.sums["seen"] = self.sums["seen"] + (seen & counted).sum()

    def look_at_ranked(self, torch: Any, negatives: Any, users: Any, mined: Any) -> None:
        """Count what the user has seen, and estimate for how many rows there was nothing else."""
        self.counts["checked"] += len(mined)
        self.sums["seen"] = self.sums["seen"] + negatives.seen.contain(users, mined).sum()
        candidates = negatives.candidates
        few = candidates[:: max(1, len(candidates) // 4096)]
        items = torch.arange(few.start, few.stop, few.step, device=users.device)
        some = users[:64]
        share = negatives.seen.contain_all(some, items).double().mean(1)
        expected = (share ** (negatives.pool_size or 8)).sum() * (len(users) / max(1, len(some)))
        self.sums["expected_seen"] = self.sums["expected_seen"] + expected


def _without_private(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what was only needed to fill an entry."""
    return [{k: v for k, v in entry.items() if not k.startswith("_")} for entry in entries]


def replace(owner: Any, name: str, watching: Callable[..., Any]) -> None:
    """Let a function of a module or class be called by one that watches it."""
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def watched(*given: Any, **named: Any) -> Any:
        return watching(plain, *given, **named)

    watched._quickwins = True  # type: ignore[attr-defined]
    setattr(owner, name, watched)


def _offline(init: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if named.get("mode") != "disabled":
        named["mode"] = "offline"
    return init(*given, **named)


def _heard(function: Callable[..., Any], catch: Callable[[tuple[Any, ...]], None]) -> Any:
    @functools.wraps(function)
    def heard(*given: Any, **named: Any) -> Any:
        catch(given)
        return function(*given, **named)

    return heard


def _is_due(call: int) -> bool:
    return call <= 8 or call % 16 == 0


def _is_autocast(torch: Any) -> bool:
    return any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


def _dtype(torch: Any, result: Any) -> Optional[str]:
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        result = next((part for part in result if torch.is_tensor(part)), None)
    return str(result.dtype).replace("torch.", "") if torch.is_tensor(result) else None


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) or type(value).__module__ == "numpy"
    number = _number(value, finite=False) if is_number else None
    return number is None or math.isfinite(number)


def _logged_number(value: Any) -> Optional[float]:
    is_number = isinstance(value, (int, float)) or type(value).__module__ == "numpy"
    return _number(value) if is_number and not isinstance(value, bool) else None


def _number(value: Any, finite: bool = True) -> Optional[float]:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) or not finite else None


def _whole(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def peaks(torch: Any) -> dict[str, Optional[float]]:
    gpu = None
    if torch is not None and torch.cuda.is_initialized():
        peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
        gpu = max(peaks, default=0) / _MIB
    return {"peak_memory_mb": _peak_of_process(), "peak_gpu_memory_mb": gpu}


def _peak_of_process() -> Optional[float]:
    try:
        with open("/proc/self/status", "rb") as status:
            own = re.search(rb"VmHWM:\s*(\d+) kB", status.read())
    except OSError:
        own = None
    if own is not None:
        return int(own[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (_MIB if sys.platform == "darwin" else 1024)
