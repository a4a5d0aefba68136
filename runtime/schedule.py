"""A one-cycle learning rate that is stepped after every optimizer step.

The curve is the one of torch.optim.lr_scheduler.OneCycleLR (two phases, cosine): from peak / 25 up
to the peak, then down to almost nothing at the last step. It was proposed by Smith and Topin,
"Super-Convergence", https://arxiv.org/abs/1708.07120. What is added here is what a training script
meets around it: skipped optimizer steps, checkpoints, several runs over one optimizer, short runs.
"""

from __future__ import annotations

import math
import operator
import warnings
import weakref
from typing import Any, Mapping, Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

__all__ = ["OneCycle"]

_FORMAT = "quickwins OneCycle 1"
# Calls of step() in a row without an optimizer step, before that is worth a warning: GradScaler
# skips a dozen at most while it looks for its scale.
_IDLE_CALLS = 100


class OneCycle(OneCycleLR):
    """One cycle of the learning rate over a whole training run; momentum and betas stay as set.

    Call `step()` without an argument after every `optimizer.step()`. Calls that follow no optimizer
    step, because GradScaler or the script skipped it, leave the rate where it is, and so do calls
    after the end of the cycle.

    Args:
        optimizer: Any torch optimizer. Each parameter group keeps its own cycle.
        epochs, steps_per_epoch: Epochs of the run, and optimizer steps in one of them.
        total_steps: Optimizer steps of the whole run, instead of these two. A run of none at all
            (no epochs, an empty loader) is accepted.
        max_lr_factor: Peak of each group as a multiple of its own rate, the one the script set.
        max_lr: The peak itself instead, for all groups or as a list of one each. A group that is
            added to such a list later goes by max_lr_factor.
        pct_start: Share of the run that climbs to the peak, 0 to 1; one step at least climbs and
            one descends. A run of two steps is peak and end; a single step is no cycle and has the
            group's own rate.
        div_factor: First rate = peak / div_factor.
        final_div_factor: Last rate = first rate / final_div_factor.

    Raises:
        TypeError: A count of steps is not an integer.
        ValueError: A number is out of range, or the length of the run is missing or given twice.

    A group's own rate is remembered in the group as "onecycle_base_lr", so that a second cycle over
    the same optimizer peaks as high as the first. It is forgotten when somebody sets group["lr"]
    between the two. Of a group that another scheduler has driven, it is "initial_lr"; of one that
    torch's OneCycleLR has driven, whose own rate is lost, the peak is kept instead.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
        max_lr_factor: float = 3.0,
        max_lr: float | Sequence[float] | None = None,
        pct_start: float = 0.1,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch Optimizer, not {type(optimizer).__name__}")
        total = _run_length(epochs, steps_per_epoch, total_steps)
        self._max_lr_factor = _number("max_lr_factor", max_lr_factor, low=1e-9)
        self._pct_start = _number("pct_start", pct_start, high=1.0)
        # Below 1 the ends of the cycle would lie above its peak.
        self._div_factor = _number("div_factor", div_factor, low=1.0)
        self._final_div_factor = _number("final_div_factor", final_div_factor, low=1.0)
        groups = optimizer.param_groups
        self._max_lr: float | list[float] | None = None
        if isinstance(max_lr, (list, tuple)):
            if len(max_lr) != len(groups):
                raise ValueError(f"max_lr has {len(max_lr)} values for {len(groups)} groups")
            self._max_lr = [_number("max_lr", value) for value in max_lr]
        elif max_lr is not None:
            self._max_lr = _number("max_lr", max_lr)

        # Kept here too, as optimizer.load_state_dict() replaces the groups and what they remember.
        self._base_rates = [_own_rate(group, self._max_lr_factor) for group in groups]
        super().__init__(
            optimizer,
            max_lr=[self._peak(index) for index in range(len(self._base_rates))],
            total_steps=total,
            pct_start=self._pct_start,
            anneal_strategy="cos",
            cycle_momentum=False,
            div_factor=self._div_factor,
            final_div_factor=self._final_div_factor,
        )
        self._watch_optimizer()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(step {self.last_epoch} of {self.total_steps})"

    def step(self, *unexpected: Any, **named: Any) -> None:
        """Move on by one step, if the optimizer has made one (or more) since the last call.

        Raises:
            TypeError: An argument is given, as the loss for ReduceLROnPlateau or an epoch.
        """
        if unexpected or named:
            raise TypeError(
                "OneCycle.step() takes no argument: it is called once after every "
                "optimizer.step(). Remove calls left from stepping by epoch or by loss."
            )
        if self.last_epoch < 0:  # the call that LRScheduler's constructor makes
            self._move_to(0)
        elif self._optimizer_has_stepped():
            self._idle_calls = 0
            if self.last_epoch < self.total_steps - 1:
                super().step()  # its bookkeeping, and what tools hook into
                self._move_to(self.last_epoch)
        else:
            self._idle_calls += 1
            if self._idle_calls == _IDLE_CALLS:
                warnings.warn(
                    f"the optimizer of OneCycle has made no step() in {_IDLE_CALLS} calls, so the "
                    "learning rate stays where it is",
                    stacklevel=2,
                )

    def resume_at(self, steps_done: int) -> None:
        """Go to where a run stands after `steps_done` optimizer steps, and set the rates there.

        Meant for a checkpoint that holds no state of this class. Places after the end are the end.
        """
        self._move_to(min(_count("steps_done", steps_done), self.total_steps - 1))
        self._optimizer_has_stepped()  # what it did before now does not count

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each parameter group at the present step. Logs want `get_last_lr()`."""
        for group in self.optimizer.param_groups[len(self._base_rates) :]:  # added since
            self._base_rates.append(_own_rate(group, self._max_lr_factor))
        return [self._rate(index) for index in range(len(self._base_rates))]

    def state_dict(self) -> dict[str, Any]:
        """Numbers and strings only, so that `torch.load(weights_only=True)` reads it."""
        return {
            "format": _FORMAT,
            "total_steps": self.total_steps,
            "last_epoch": self.last_epoch,
            "base_rates": list(self._base_rates),
            "_last_lr": [float(rate) for rate in self._last_lr],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue a saved run, and set the optimizer's rates at once.

        The state says how far the run is and what each group's own rate was; the curve is that of
        this object's arguments. So a run resumed with more epochs gets the longer curve, from the
        saved step on, with a warning.

        Raises:
            ValueError: The state is not of this class, or has another number of parameter groups.
        """
        if not isinstance(state_dict, Mapping) or state_dict.get("format") != _FORMAT:
            raise ValueError(
                f"OneCycle cannot continue from {_describe(state_dict)}. Resume from a checkpoint "
                "that was saved with OneCycle, or leave this load out and call "
                "scheduler.resume_at(number of optimizer steps done)."
            )
        self.get_lr()  # take note of groups added since
        base_rates, saved_total = state_dict["base_rates"], state_dict["total_steps"]
        if len(base_rates) != len(self._base_rates):
            raise ValueError(
                f"the saved OneCycle had {len(base_rates)} parameter groups, the optimizer has "
                f"{len(self._base_rates)}"
            )
        self._base_rates = list(base_rates)
        self.resume_at(state_dict["last_epoch"])
        if saved_total != self.total_steps:
            warnings.warn(
                f"the saved run was to have {saved_total} steps and this one has "
                f"{self.total_steps}: OneCycle goes on at step {self.last_epoch} of the new curve",
                stacklevel=2,
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._watch_optimizer()  # a copied or unpickled optimizer has lost its hooks

    def _peak(self, index: int) -> float:
        if isinstance(self._max_lr, float):
            return self._max_lr
        if self._max_lr is not None and index < len(self._max_lr):
            return self._max_lr[index]
        return self._max_lr_factor * self._base_rates[index]

    def _rate(self, index: int) -> float:
        peak, last = self._peak(index), self.total_steps - 1
        if last == 0:
            return min(self._base_rates[index], peak)
        first = peak / self._div_factor
        # OneCycleLR divides by zero where this is 0, and misses the peak where it is less than 1.
        top = min(max(self._pct_start * self.total_steps - 1, 1.0), last - 1.0)
        if self.last_epoch <= top:
            return _cosine(first, peak, self.last_epoch / top if top else 1.0)
        end = first / self._final_div_factor
        return _cosine(peak, end, (self.last_epoch - top) / (last - top))

    def _move_to(self, step: int) -> None:
        self.last_epoch = step
        self._step_count = step + 1
        for index, (group, rate) in enumerate(zip(self.optimizer.param_groups, self.get_lr())):
            group["onecycle_base_lr"] = self._base_rates[index]
            if isinstance(group["lr"], Tensor):  # in place: a captured graph reads this very tensor
                group["lr"].fill_(rate)
            else:
                group["lr"] = group["onecycle_lr"] = rate
        self._last_lr = [
            group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
            for group in self.optimizer.param_groups
        ]

    def _watch_optimizer(self) -> None:
        # The count lives on the optimizer: no reference leads from there to a scheduler, and a
        # second scheduler finds the first one's hook.
        optimizer: Any = self.optimizer
        if not hasattr(optimizer, "_quickwins_steps"):
            try:
                optimizer.register_step_post_hook(_note_step)
                optimizer._quickwins_steps = 0
            except AttributeError:
                pass  # a subclass that never calls Optimizer.__init__ has no hooks
        scheduler = weakref.ref(self)  # the optimizer must not keep a finished schedule alive

        def set_rates_again(_: Any) -> None:
            found = scheduler()
            if found is not None:
                found._move_to(found.last_epoch)

        if hasattr(optimizer, "_quickwins_steps"):  # it has hooks
            # A loaded state brings the rates of its own last step, which is not where this run is.
            optimizer.register_load_state_dict_post_hook(set_rates_again)
        self._idle_calls = 0
        self._steps_noted: int | None = None
        self._optimizer_has_stepped()  # what it did before now does not count

    def _optimizer_has_stepped(self) -> bool:
        """Whether the optimizer changed its parameters since this was last asked.

        Not how often: the hook fires twice for one step of a subclass that calls its parent's
        step(). Of an optimizer without hooks, every call is taken to follow a step.
        """
        steps = getattr(self.optimizer, "_quickwins_steps", None)
        stepped = steps is None or steps != self._steps_noted
        self._steps_noted = steps
        return stepped


def _note_step(optimizer: Any, args: Any, kwargs: Any) -> None:
    """Step hook: count the step, unless it was one that a fused optimizer skipped by itself.

    GradScaler calls such optimizers in any case and lends them `found_inf` for the call (see
    torch/amp/grad_scaler.py, GradScaler.step); all others it does not call after an overflow.
    """
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if not fused or float(getattr(optimizer, "found_inf", 0.0)) == 0.0:
        optimizer._quickwins_steps += 1


def _own_rate(group: dict[str, Any], max_lr_factor: float) -> float:
    """The rate of a parameter group as the script set it, before any scheduler changed it."""
    rate = float(group["lr"])
    if "onecycle_base_lr" in group:
        untouched = math.isclose(rate, group.get("onecycle_lr", rate), rel_tol=1e-6)
        return float(group["onecycle_base_lr"]) if untouched else rate
    if "max_lr" in group:  # torch's OneCycleLR: only its peak is left of what the script chose
        return float(group["max_lr"]) / max_lr_factor
    return float(group.get("initial_lr", rate))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1.0)


def _run_length(epochs: Any, steps_per_epoch: Any, total_steps: Any) -> int:
    if total_steps is not None:
        if epochs is not None or steps_per_epoch is not None:
            raise ValueError("give total_steps, or epochs and steps_per_epoch, not both")
        total = _count("total_steps", total_steps)
    elif epochs is None or steps_per_epoch is None:
        missing = "steps_per_epoch" if epochs is not None else "epochs"
        raise ValueError(f"{missing} is missing: give epochs and steps_per_epoch, or total_steps")
    else:
        total = _count("epochs", epochs) * _count("steps_per_epoch", steps_per_epoch)
    return max(total, 1)  # an empty run must not fail where it did nothing before


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{name} must not be negative, but is {number}")
    return number


def _number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> float:
    number = float(value)
    if not low <= number <= high or math.isinf(number):
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, but is {value!r}")
    return number


def _describe(state: Any) -> str:
    if not isinstance(state, Mapping):
        return f"an object of type {type(state).__name__}"
    if not state:
        return "an empty state"
    for entry, name in (
        ("_schedule_phases", "torch's own OneCycleLR"),
        ("T_max", "CosineAnnealingLR"),
        ("num_bad_epochs", "ReduceLROnPlateau"),
    ):
        if entry in state:
            return f"the state of a {name}"
    return f"a state with the entries {', '.join(sorted(map(str, state)))}"
