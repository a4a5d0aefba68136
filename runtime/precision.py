"""Mixed precision whose lines are the same on every device and in full precision.

`autocast` and `GradScaler` have the interfaces of torch.autocast and torch.amp.GradScaler
(https://docs.pytorch.org/docs/stable/notes/amp_examples.html). What is added is a policy, which
both ask, so that they agree when they are given the same device and dtype:

    device            nothing asked          float16 asked         bfloat16 asked
    cuda              float16, scaled        float16, scaled       bfloat16, if the card has it
    cpu               full precision         float16, scaled       bfloat16
    any other         full precision         full precision        full precision

One asks by `dtype=`, or for one run by the environment variable QUICKWINS_AMP, which overrides
`dtype=`: `fp16`, `bf16`, `off` (full precision), `auto` (what the code says). It is read whenever
one of the two is made, so a script may set it before. A device that cannot do what was asked gets a
warning, except "cuda" on a machine without. bfloat16 that a card only emulates becomes full
precision and not float16: code that asks for bfloat16 may do what no scaler allows.

float16 on a CPU is there to try a script without a GPU. It is slow, and is not CUDA's: log, exp,
softmax, norms and sums stay in float16 (1e-8 is 0 there), `binary_cross_entropy` does not raise,
and LSTMs raise "could not create a primitive descriptor" on CPUs without float16 instructions (GRU,
RNN, convolutions and attention work). On every device `masked_fill(-1e9)`, `torch.sparse.mm` and
`index_add_` into a float32 tensor raise on half-precision values. Seen in torch 2.4.1 and 2.13.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from typing import Any, ContextManager, Mapping

import torch
from torch.optim import Optimizer

__all__ = ["GradScaler", "autocast"]

_VARIABLE = "QUICKWINS_AMP"
_CHOICES = {"auto": None, "off": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class _FullPrecision(contextlib.nullcontext, contextlib.ContextDecorator):
    """A null context that is a decorator too, so that what works on one device works on all."""


def autocast(
    device: torch.device | str | int, enabled: bool = True, dtype: torch.dtype | None = None
) -> ContextManager[Any]:
    """A region whose operations run in half precision where the policy above says so.

    Forward pass and loss belong in it, backward() and optimizer steps do not. Can be entered again
    and again, and is a decorator too. Where the policy says full precision, what surrounds the
    region goes on; `enabled=False` switches that off as well, as in torch.

    Args:
        device: Where the model is: a torch.device, its name, or the number of an accelerator.
        enabled: False for full precision within a surrounding region.
        dtype: torch.float16 or torch.bfloat16, to ask for it.

    Raises:
        TypeError: `device` is something else, as a model or a tensor.
        ValueError: `dtype` or QUICKWINS_AMP has another value.
    """
    kind = _kind_of(device)
    half = _half_precision(kind, dtype, enabled)
    if half is not None:
        return torch.autocast(kind, dtype=half)
    if not enabled and torch.amp.is_autocast_available(kind):
        return torch.autocast(kind, enabled=False)
    return _FullPrecision()


class GradScaler(torch.amp.GradScaler):
    """torch's GradScaler, which scales where the policy above says float16 and else does nothing.

    Per optimizer step: `scale(loss).backward()`, perhaps `unscale_(optimizer)` before gradients are
    clipped or read, `step(optimizer)`; then one `update()` for all optimizers.

    Other than in torch, an optimizer whose parameters have no gradients (all of them frozen) is
    stepped as it would be without a scaler, and update() with nothing to go by changes nothing.

    Args:
        device, dtype: The same as of the `autocast` whose losses are scaled.
        init_scale, growth_factor, backoff_factor, growth_interval, enabled: As in torch.

    Raises:
        TypeError, ValueError: As `autocast`.
    """

    def __init__(
        self,
        device: torch.device | str | int,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = _kind_of(device)
        scaled = _half_precision(kind, dtype, enabled) is torch.float16
        super().__init__(kind, init_scale, growth_factor, backoff_factor, growth_interval, scaled)
        # torch leaves these out when it is disabled, and then its getters raise.
        self.set_growth_factor(growth_factor)
        self.set_backoff_factor(backoff_factor)
        self.set_growth_interval(growth_interval)
        self._has_checked = False  # whether an optimizer's gradients were, since the last update()

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, in place.

        Raises:
            RuntimeError: Called twice for one step, or after it.
        """
        if self.is_enabled() and _has_gradients(optimizer):
            super().unscale_(optimizer)
            self._has_checked = True

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """Step the optimizer, unless a gradient is infinite or NaN. Returns what its step() does.

        Raises:
            RuntimeError: A closure is given to an enabled scaler, or this is the second step()
                since the last update().
        """
        if not self.is_enabled():
            return super().step(optimizer, *args, **kwargs)
        # torch refuses only a named one; a positional one makes it train on scaled gradients.
        closure = args[0] if args else kwargs.pop("closure", None)
        if closure is not None:
            raise RuntimeError(
                "an optimizer that calls a closure cannot be stepped by an enabled GradScaler: its "
                f"gradients would stay scaled. Train in bfloat16 or full precision ({_VARIABLE}="
                "bf16 or off), or without a closure."
            )
        if not _has_gradients(optimizer):
            return optimizer.step(*args, **kwargs)
        result = super().step(optimizer, *args, **kwargs)
        self._has_checked = True
        return result

    def update(self, new_scale: float | torch.Tensor | None = None) -> None:
        """Lower the scale if gradients were infinite or NaN, raise it after a long time without.

        To be called also when the script left out a step after unscale_().
        """
        if new_scale is not None or self._has_checked:
            super().update(new_scale)
        self._has_checked = False

    def load_state_dict(self, state_dict: Mapping[str, Any] | None) -> None:
        """Go on with a saved scale.

        Without one (None, or the empty one of a run in full precision) nothing changes; a disabled
        scaler takes any.
        """
        if state_dict:
            super().load_state_dict(dict(state_dict))


def _kind_of(device: Any) -> str:
    """The type of a device, "cuda" of "cuda:1": torch takes only that, or disables by mistake."""
    if isinstance(device, bool) or not isinstance(device, (torch.device, str, int)):
        raise TypeError(
            "device must be a torch.device or the name of one, as 'cuda' or 'cuda:0', and not an "
            f"object of type {type(device).__name__}"
        )
    return torch.device(device).type


def _half_precision(kind: str, dtype: torch.dtype | None, enabled: bool) -> torch.dtype | None:
    """The policy of this module: the type to compute in, or None for full precision."""
    if dtype not in (None, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be torch.float16 or torch.bfloat16, not {dtype!r}")
    choice = os.environ.get(_VARIABLE) or "auto"
    if choice not in _CHOICES:
        raise ValueError(f"{_VARIABLE} must be one of {', '.join(_CHOICES)}, not {choice!r}")
    if choice == "off" or not enabled:
        return None
    asked = _CHOICES[choice] or dtype
    if kind == "cpu":
        return asked
    if kind == "cuda":
        if not torch.cuda.is_available():
            return None  # without the warning that torch gives
        if asked is torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            warnings.warn("this GPU has no bfloat16: training in full precision", stacklevel=3)
            return None
        return asked or torch.float16
    if asked is not None:
        warnings.warn(
            f"mixed precision is for cuda and cpu: {kind} trains in full precision", stacklevel=3
        )
    return None


def _has_gradients(optimizer: Optimizer) -> bool:
    return any(w.grad is not None for group in optimizer.param_groups for w in group["params"])
