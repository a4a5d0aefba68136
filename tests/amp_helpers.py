"""Runs training scripts under each precision and records what belongs to mixed precision.

For a script in a process of its own, `python amp_helpers.py OUT.json SCRIPT [ARGS...]`.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quickwins_codemod import bundle, pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.verdict import FileOutcome

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
PAIRS = FIXTURES / "pairs" / "amp"
REFUSED = FIXTURES / "refused" / "amp"
MARK = re.compile(r"# <- (QW\d{3})$")

INPUTS = sorted(PAIRS.glob("*.in.py"))


def name(path: Path) -> str:
    return path.name.removesuffix(".in.py").removesuffix(".out.py").removesuffix(".py")


def output(path: Path) -> Path:
    return path.with_name(name(path) + ".out.py")


def look_at(
    source: str | bytes,
    folder: Path,
    select: tuple[str, ...] = ("amp",),
    file: str = "train.py",
    ignore: tuple[str, ...] = (),
    rule: str = "amp",
    **options: object,
) -> FileOutcome:
    """What the tool says of one file that stands alone in a folder. options: of a rule."""
    path = folder / file
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    rules = {
        t.rule: t.options_type(**(options if t.rule == rule else {})) for t in all_transforms()
    }
    settings = Settings(rules=rules, select=select, ignore=ignore)
    context = pipeline.Context(folder.resolve(), folder.resolve(), settings)
    outcome = pipeline.process(path.resolve(), context)
    if outcome is None:
        return FileOutcome(file, "unchanged", before=path.read_bytes())
    return outcome


def said(outcome: FileOutcome) -> list[str]:
    return [f"{v.line}: {v.status} {v.code} {v.message}" for v in outcome.verdicts]


def codes(outcome: FileOutcome, *statuses: str) -> list[str]:
    return [v.code for v in outcome.verdicts if not statuses or v.status in statuses]


def place_runtime(folder: Path) -> Path:
    """Put the bundled runtime into a folder, as `quickwins apply` would."""
    for outcome in bundle.plan(folder.resolve(), folder.resolve()):
        target = folder / outcome.path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(outcome.after or b"")
    return folder


@dataclass
class Record:
    """What one run did.

    forwards, losses: for each outermost call of a model in training, and of a loss in training,
    whether autocast was on. evaluations: the same for models that were called without gradient or
    in eval mode. wrong: what must not happen at all, in words.
    """

    forwards: list[bool] = field(default_factory=list)
    losses: list[bool] = field(default_factory=list)
    evaluations: list[bool] = field(default_factory=list)
    backwards: int = 0
    scaled: int = 0
    clips: int = 0
    unscaled: int = 0
    steps: int = 0
    updates: int = 0
    skipped: int = 0
    scales: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    optimizers: list = field(default_factory=list)
    schedules: list = field(default_factory=list)

    def parameters(self) -> list:
        """The parameters of every optimizer, as they are in the end."""
        return [
            p.detach().clone()
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for p in group["params"]
        ]


def _is_on() -> bool:
    import torch

    return any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda"))


@contextmanager
def recording(
    monkeypatch, infinite: frozenset[int] = frozenset(), scale_at: float | None = None
):
    """Watch models, losses, backward calls, clips, scalers and optimizers until the block ends.

    infinite: numbers of backward calls, from 0, after which one gradient is made infinite; only
    where a scaler scaled the loss. scale_at: the scale that every scaler starts with.
    """
    import torch
    from torch import nn
    from torch.optim.optimizer import register_optimizer_step_post_hook

    record, depth, scaled_losses, scalers = Record(), [0], [], []
    dirty: set[int] = set()  # ids of parameters whose gradients are scaled
    mixed: set[int] = set()  # and of those whose are scaled ones added to unscaled ones
    pending: dict[int, int] = {}  # optimizer -> steps since the scaler's last update()

    def enter(module, inputs):
        if depth[0] == 0:
            is_loss = type(module).__name__.endswith("Loss")
            training = torch.is_grad_enabled()
            if is_loss:
                first = inputs[0] if inputs else None
                learns = training and torch.is_tensor(first) and first.requires_grad
                if type(module).__name__ == "BCELoss":
                    if _is_on() or any(t.dtype != torch.float32 for t in inputs):
                        record.wrong.append("BCELoss in half precision")
                elif learns:
                    record.losses.append(_is_on())
            elif training and module.training:
                record.forwards.append(_is_on())
            else:
                record.evaluations.append(_is_on())
        depth[0] += 1

    def leave(module, inputs, result):
        depth[0] = max(0, depth[0] - 1)

    plain_backward = torch.Tensor.backward

    def params():
        return [
            p for optimizer in record.optimizers for g in optimizer.param_groups for p in g["params"]
        ]

    def backward(self, *args, **kwargs):
        number = record.backwards
        record.backwards += 1
        if _is_on():
            record.wrong.append("backward under autocast")
        was_scaled = any(self is tensor for tensor in scaled_losses)
        record.scaled += was_scaled
        before = {id(p): None if p.grad is None else p.grad._version for p in params()}
        old = {id(p): p.grad for p in params()}
        was_there = {key: bool((g != 0).any()) for key, g in old.items() if g is not None}
        plain_backward(self, *args, **kwargs)
        enabled = was_scaled and any(s.is_enabled() for s in scalers)
        touched = []
        for p in params():
            changed = p.grad is not None and (
                p.grad is not old.get(id(p)) or p.grad._version != before.get(id(p))
            )
            if changed:
                touched.append(p)
                held = was_there.get(id(p), False)
                if not held:
                    mixed.discard(id(p))
                elif enabled != (id(p) in dirty):
                    mixed.add(id(p))
                if enabled:
                    dirty.add(id(p))
                elif not held:
                    dirty.discard(id(p))
        if enabled and number in infinite and touched:
            grad = touched[0].grad
            (grad._values() if grad.is_sparse else grad).view(-1)[0] = float("inf")

    unscaled_now: set[int] = set()

    def of(optimizer):
        return {id(p) for group in optimizer.param_groups for p in group["params"]}

    def watch_clip(module, attribute):
        plain = getattr(module, attribute)

        def clip(parameters, *args, **kwargs):
            given = [parameters] if torch.is_tensor(parameters) else list(parameters)
            record.clips += 1
            if any(id(p) in dirty for p in given):
                record.wrong.append(f"{attribute} on scaled gradients")
            norm = plain(given, *args, **kwargs)
            if norm is not None:
                record.norms.append(float(norm))
            return norm

        monkeypatch.setattr(module, attribute, clip)

    for attribute in ("clip_grad_norm_", "clip_grad_value_"):
        watch_clip(nn.utils, attribute)
        monkeypatch.setattr(nn.utils.clip_grad, attribute, getattr(nn.utils, attribute))

    scaler_class = torch.amp.GradScaler
    plain = {n: getattr(scaler_class, n) for n in ("__init__", "scale", "unscale_", "step")}

    def init(self, *args, **kwargs):
        plain["__init__"](self, *args, **kwargs)
        scalers.append(self)
        if scale_at is not None:
            self._init_scale = scale_at
        plain_update = self.update  # the runtime's own, which calls torch's only where it has to
        self.update = lambda *args, **kwargs: update(self, plain_update, *args, **kwargs)

    def scale(self, outputs):
        result = plain["scale"](self, outputs)
        scaled_losses.append(result)
        del scaled_losses[:-8]
        return result

    def unscale(self, optimizer):
        plain["unscale_"](self, optimizer)
        if self.is_enabled():
            record.unscaled += 1
            dirty.difference_update(of(optimizer))
            unscaled_now.update(of(optimizer))

    def step(self, optimizer, *args, **kwargs):
        pending[id(optimizer)] = pending.get(id(optimizer), 0) + 1
        if pending[id(optimizer)] > 1:
            record.wrong.append("two steps of one optimizer without update()")
        steps = record.steps
        result = plain["step"](self, optimizer, *args, **kwargs)
        record.skipped += record.steps == steps
        dirty.difference_update(of(optimizer))
        unscaled_now.update(of(optimizer))
        return result

    def update(self, plain_update, *args, **kwargs):
        record.updates += 1
        plain_update(*args, **kwargs)
        record.scales.append(self.get_scale())
        pending.clear()
        unscaled_now.clear()

    for attribute, function in (
        ("__init__", init), ("scale", scale), ("unscale_", unscale), ("step", step),
    ):
        monkeypatch.setattr(scaler_class, attribute, function)
    monkeypatch.setattr(torch.Tensor, "backward", backward)

    plain_optimizer = torch.optim.Optimizer.__init__

    def note_optimizer(self, *args, **kwargs):
        plain_optimizer(self, *args, **kwargs)
        record.optimizers.append(self)

    monkeypatch.setattr(torch.optim.Optimizer, "__init__", note_optimizer)

    def note_step(optimizer, args, kwargs):
        record.steps += 1
        if of(optimizer) & dirty:
            record.wrong.append("step on scaled gradients")
        if of(optimizer) & mixed:
            record.wrong.append("scaled gradients added to unscaled ones")
        record.rates.append(float(optimizer.param_groups[0]["lr"]))

    schedule_class = torch.optim.lr_scheduler.LRScheduler
    plain_schedule = schedule_class.__init__

    def note_schedule(self, *args, **kwargs):
        record.schedules.append(self)
        plain_schedule(self, *args, **kwargs)

    monkeypatch.setattr(schedule_class, "__init__", note_schedule)
    handles = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
        register_optimizer_step_post_hook(note_step),
    ]
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield record
    finally:
        for handle in handles:
            handle.remove()
        monkeypatch.undo()
    record.warnings += [str(w.message) for w in caught]
    if pending:
        record.wrong.append("no update() after the last step")


def train(
    path: Path, monkeypatch, amp: str | None = None, runtime: Path | None = None,
    infinite: frozenset[int] = frozenset(), scale_at: float | None = None,
    arguments: tuple[str, ...] = (),
) -> Record:
    """Run a script in this process, with QUICKWINS_AMP set to `amp`."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    saved_path, saved_argv, saved_modules = sys.path[:], sys.argv, dict(sys.modules)
    saved_amp = os.environ.pop("QUICKWINS_AMP", None)
    if amp is not None:
        os.environ["QUICKWINS_AMP"] = amp
    sys.argv = [str(path), *arguments]
    if runtime is not None:
        sys.path.insert(0, str(runtime))
    try:
        with recording(monkeypatch, infinite, scale_at) as record:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.path[:], sys.argv = saved_path, saved_argv
        os.environ.pop("QUICKWINS_AMP", None)
        if saved_amp is not None:
            os.environ["QUICKWINS_AMP"] = saved_amp
        for module in set(sys.modules) - set(saved_modules):
            if module.partition(".")[0] == bundle.PACKAGE:
                del sys.modules[module]
    return record


if __name__ == "__main__":
    import pytest

    target, script = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    # run as `python SCRIPT` would: the script's folder is first on the path
    result = train(
        script, pytest.MonkeyPatch(), os.environ.get("QUICKWINS_AMP"), script.parent,
        arguments=tuple(sys.argv[3:]),
    )
    kept = {k: v for k, v in vars(result).items() if k not in ("optimizers", "schedules")}
    target.write_text(json.dumps(kept))
