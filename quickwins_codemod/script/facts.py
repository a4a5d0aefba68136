"""The model of a training script: frozen facts, each with the syntax node it was read from.

Transforms are written against these. A `Problem` stands where something could not be followed to
one answer; its `kind` is what a transform maps to a code of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.forwards import Forwards
    from quickwins_codemod.script.names import Names, Variable
    from quickwins_codemod.script.neighbours import Neighbours
    from quickwins_codemod.script.placing import Placing
    from quickwins_codemod.script.records import Records
    from quickwins_codemod.script.tree import Tree


@dataclass(frozen=True)
class Problem:
    """Something the analysis could not follow to one answer."""

    kind: str
    node: cst.CSTNode
    detail: str = ""


@dataclass(frozen=True)
class Optimizer:
    """An optimizer: the calls that create it (several where an `if` chooses) and what holds it.

    reference is the text that names it where it is created: `optimizer`, `self.optimizer`,
    `opts["g"]`. class_name is the constructor's, "" where the source does not show it.
    """

    creations: tuple[cst.Call, ...]
    statement: cst.CSTNode
    variable: Variable
    reference: str
    class_name: str


@dataclass(frozen=True)
class Use:
    """One place where a scheduler is used. kind is the attribute or the way it leaves sight."""

    kind: str
    node: cst.CSTNode
    statement: cst.CSTNode


@dataclass(frozen=True)
class Scheduler:
    """A learning-rate schedule that the script has.

    class_name: the constructor's last name; dotted: its full name where it is imported.
    custom: the class of the script itself that implements it.
    children: schedules that only exist as parts of this one (SequentialLR, ChainedScheduler).
    """

    creation: cst.Call
    statement: cst.CSTNode
    variable: Variable | None
    reference: str
    class_name: str
    dotted: str
    custom: cst.ClassDef | None
    uses: tuple[Use, ...]
    children: tuple[Scheduler, ...] = ()

    @property
    def steps(self) -> tuple[Use, ...]:
        return tuple(u for u in self.uses if u.kind == "step")

    @property
    def is_one_cycle(self) -> bool:
        return self.class_name in ("OneCycle", "OneCycleLR")


@dataclass(frozen=True)
class Frame:
    """A function on the way from a step outwards, and the call that leads to it from outside."""

    function: cst.CSTNode
    call: cst.Call | None


@dataclass(frozen=True)
class Count:
    """A number as a template: literal text with nodes in between, each read in one frame.

    fixed: names that have one value wherever the number is meant (`phase` is "train"), as code.
    """

    parts: tuple[str | cst.CSTNode, ...]
    frame: int
    fixed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Boundary:
    """When, within the batches of an epoch, the optimizer steps.

    kind: `every` batch; `floor` ((i + 1) % k == 0); `ceil` (that, or the last batch);
    `start` (i % k == 0); `counter` (a step counter that runs over epochs).
    divisor: the node of k, read in frame.
    """

    kind: Literal["every", "floor", "ceil", "start", "counter"] = "every"
    divisor: cst.CSTNode | None = None
    frame: int = 0


@dataclass(frozen=True)
class Loop:
    """A `for` loop with the number of its iterations.

    done: the iterations that lie behind it where it starts at a variable, so that a run may take
    up where another ended.
    """

    node: cst.CSTNode
    frame: int
    count: Count
    done: Count | None = None


@dataclass(frozen=True)
class Stepping:
    """Where and how often one optimizer steps.

    anchors: the statements after which one more thing can be done once per step, in loop_frame's
    function. deep: the same, but inside the functions that the loop calls. frames: from the function of the batch loop outwards.
    limit: a number of steps after which the whole run ends, where the script counts them.
    early_stops: where the loop over epochs may be left; skips: tests by which a batch, or the rest
    of an epoch, may go without a step.
    """

    frames: tuple[Frame, ...]
    sites: tuple[cst.Call, ...]
    anchors: tuple[cst.CSTNode, ...]
    deep: tuple[cst.CSTNode, ...]
    leaves: tuple[cst.CSTNode, ...]
    batches: Loop
    epochs: Loop | None
    boundary: Boundary
    limit: Count | None = None
    early_stops: tuple[cst.CSTNode, ...] = ()
    skips: tuple[cst.CSTNode, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A dict literal that saves an optimizer's state, at the element that does."""

    mapping: cst.Dict
    element: cst.DictElement
    key: str
    quote: str


@dataclass(frozen=True)
class Restore:
    """A statement that loads an optimizer's state from `source[key]`."""

    statement: cst.CSTNode
    source: str
    key: str
    quote: str


@dataclass(frozen=True)
class BatchLog:
    """A dict literal that reaches a logging call inside a batch loop."""

    mapping: cst.Dict
    keys: tuple[str, ...]
    quote: str

    @property
    def prefix(self) -> str:
        """What all of its keys begin with: `train/`, or nothing."""
        found = {key.rpartition("/")[0] for key in self.keys}
        return f"{found.pop()}/".lstrip("/") if len(found) == 1 else ""


@dataclass(frozen=True)
class RateComparison:
    """`old = rate; scheduler.step(); new = rate`: statements around a per-epoch step."""

    name: str
    before: cst.CSTNode
    after: cst.CSTNode


@dataclass(frozen=True)
class Training:
    """Everything about one optimizer: its steps, schedules, checkpoints, logs."""

    optimizer: Optimizer
    schedulers: tuple[Scheduler, ...]
    stepping: Stepping | Problem
    manual_rates: tuple[cst.CSTNode, ...] = ()
    handed_on: tuple[cst.Call, bool] | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    restores: tuple[Restore, ...] = ()
    scheduler_restored: bool = False
    sites: tuple[cst.Call, ...] = ()
    batch_logs: tuple[BatchLog, ...] = ()
    logs_rate: bool = False
    records: Records | None = None


@dataclass(frozen=True)
class Script:
    """The model of one file.

    is_test: the file's name says that it holds tests.
    foreign_steps: calls that step an optimizer which this file does not make, or does not name;
    and whether the class around the call also sets the rate.
    unnamed: calls that make an optimizer and bind it to no name.
    """

    tree: Tree
    names: Names
    placing: Placing
    trainings: tuple[Training, ...]
    manager: Problem | None = None
    is_test: bool = False
    foreign_steps: tuple[tuple[cst.Call, bool], ...] = ()
    unnamed: tuple[cst.Call, ...] = ()
    neighbours: Neighbours | None = None

    def runtime_name(self, name: str) -> str:
        """What a name of the bundled runtime is called in this script."""
        from quickwins_codemod.script.imports import runtime_name

        return runtime_name(self, name)

    def forwards(self) -> Forwards:
        """The reading for mixed precision, made on demand."""
        from quickwins_codemod.script.forwards import Forwards

        return Forwards(self)

    def peak(self, scheduler: Scheduler, optimizer: Optimizer) -> str | None:
        """The highest rate of a schedule as code, "" or "own"; see peaks.peak_of."""
        from quickwins_codemod.script.peaks import peak_of

        return peak_of(self, scheduler, optimizer)
