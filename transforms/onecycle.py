"""Replace the learning-rate schedule by OneCycle, stepped once per optimizer step.

QW100 the schedule is one cycle already
    the schedule is one cycle already.

QW101 a schedule was replaced by OneCycle
    a schedule was replaced by OneCycle.

QW102 OneCycle was added
    OneCycle was added.

QW110 no optimizer step in this file
    no optimizer step in this file.

QW111 the step stands in no loop
    the step stands in no loop.

QW112 the epochs are counted elsewhere
    the epochs are counted elsewhere.

QW113 a while loop
    a while loop.

QW114 the number of batches is not known
    the number of batches is not known.

QW115 the condition of the step is not known
    the condition of the step is not known.

QW116 several places step the optimizer
    several places step the optimizer.

QW117 other loops around the step
    other loops around the step.

QW118 the epochs are not a range
    the epochs are not a range.

QW119 no place to build the schedule
    no place to build the schedule.

QW120 the rate is set by hand
    the rate is set by hand.

QW121 several schedules
    several schedules.

QW122 a use of the schedule has no counterpart
    a use of the schedule has no counterpart.

QW123 the schedule's own peak is not known
    the schedule's own peak is not known.

QW124 the result of step() is used
    the result of step() is used.

QW125 LBFGS
    LBFGS.

QW126 state is loaded too early
    state is loaded too early.

QW127 the schedule has no name of its own
    the schedule has no name of its own.

QW128 the optimizer is made elsewhere
    the optimizer is made elsewhere.

QW150 early stopping cuts the cycle
    early stopping cuts the cycle.

QW151 some batches may not step
    some batches may not step.

QW152 a checkpoint lacks the schedule
    a checkpoint lacks the schedule.

QW153 an option shapes the schedule no longer
    an option shapes the schedule no longer.

QW154 older checkpoints hold another schedule
    older checkpoints hold another schedule.

QW155 OneCycleLR is stepped by epoch
    OneCycleLR is stepped by epoch.

QW157 the script's own schedule class is left unused
    the script's own schedule class is left unused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from quickwins_codemod.edits import (
    AddArgument,
    AddDictEntry,
    AddParameter,
    Edit,
    InsertAfter,
    InsertBefore,
    Remove,
    RemoveImport,
    Replace,
)
from quickwins_codemod.script.facts import Problem, Scheduler, Script, Stepping, Training, Use
from quickwins_codemod.transform import Finding, Plan
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.placing import Place

RULE = "onecycle"
NEEDLES = (b".step(", b"lr_scheduler")

_RUNTIME = "OneCycle"
#: What a comment speaks of that has no sense without the old schedule.
_STALE = (
    r"plateau|cosine|anneal|restart|decay|reduc|every \d|step.?lr|warm.?up|linear|exponential"
    r"|polynomial|gamma|patience|halve|drop"
)
_TOPIC = rf"schedul|learning.?rate|\brate\b|\blr\b|{_STALE}"
_KEPT_USES = {"get_last_lr", "state_dict", "load_state_dict", "optimizer", "__class__", "read", "test"}
_LINE = 88
_LONG_LINE = 100


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.onecycle]` or as flags."""

    max_lr_factor: float = field(
        default=3.0,
        metadata={"help": "Peak as a multiple of each group's own learning rate.", "above": 0.0},
    )
    max_lr: float | None = field(
        default=None, metadata={"help": "Peak itself, instead of a multiple.", "above": 0.0}
    )
    pct_start: float = field(
        default=0.1,
        metadata={"help": "Share of the run that climbs to the peak.", "min": 0.0, "max": 1.0},
    )
    div_factor: float = field(
        default=25.0, metadata={"help": "First rate = peak / this.", "min": 1.0}
    )


class _Refusal(Exception):
    def __init__(self, code: str, node: cst.CSTNode, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.node, self.message, self.hint = code, node, message, hint


def plan(script: Script, options: Options) -> Plan:
    """Plan one schedule for every optimizer whose steps can be counted from the source."""
    if script.manager is not None and (script.trainings or script.foreign_steps):
        manager = script.manager
        verdict = _verdict(
            script, "refused", "QW004", manager.node,
            f"the training loop is managed by {manager.detail}",
            f"set the schedule in {manager.detail}'s own configuration",
        )
        return Plan((Finding((verdict,)),))
    found = []
    for training in script.trainings:
        try:
            found.append(_Rewrite(script, training, options).finding())
        except _Refusal as refusal:
            verdict = _verdict(
                script, "refused", refusal.code, refusal.node, refusal.message, refusal.hint
            )
            found.append(Finding((verdict,)))
    for step in script.foreign_steps:
        verdict = _verdict(
            script, "refused", "QW128", step,
            "the optimizer that steps here is made in another file, or handed in by one",
            "build the schedule where the optimizer is made, and step it after this line",
        )
        found.append(Finding((verdict,)))
    return Plan(tuple(found))


def _verdict(
    script: Script, status: str, code: str, node: cst.CSTNode, message: str, hint: str | None = None
) -> Verdict:
    at = script.tree.position(node)
    return Verdict(RULE, status, code, at.line, at.column, message, hint)


class _Rewrite:
    """The plan for one optimizer."""

    def __init__(self, script: Script, training: Training, options: Options) -> None:
        self.script, self.training, self.options = script, training, options
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.optimizer = training.optimizer
        self.edits: list[Edit] = []
        self.notes: list[Verdict] = []

    def finding(self) -> Finding:
        schedulers = self.training.schedulers
        if schedulers and all(s.is_one_cycle for s in schedulers):
            return self._already(schedulers[0])
        stepping = self._stepping()
        self._check_optimizer()
        old = self._replaceable(schedulers)
        peak = self._peak(old)
        site = self._site(old, stepping, peak)
        self._build(old, site)
        self._steps(old, stepping, site)
        self._saved(old, stepping, site)
        self._logged(stepping, site)
        self._remarks(old, stepping, site)
        return Finding(
            (self._applied(old, stepping), *self.notes),
            tuple(self.edits),
            frozenset([_RUNTIME]),
        )

    # -- what is there ---------------------------------------------------------------------

    def _already(self, scheduler: Scheduler) -> Finding:
        verdicts = [
            self._say("already", "QW100", scheduler.creation, f"{scheduler.class_name} is in place")
        ]
        stepping = self.training.stepping
        if isinstance(stepping, Stepping) and scheduler.class_name == "OneCycleLR":
            loop = stepping.batches.node
            late = [u for u in scheduler.steps if not self.tree.is_within(u.node, loop)]
            for use in late:
                if self.tree.function(use.node) in {f.function for f in stepping.frames}:
                    verdicts.append(self._say(
                        "warning", "QW155", use.node,
                        "OneCycleLR is stepped once an epoch, not once per optimizer step",
                        "move the step after optimizer.step(), or remove OneCycleLR and run again",
                    ))
        return Finding(tuple(verdicts))

    def _stepping(self) -> Stepping:
        stepping = self.training.stepping
        if isinstance(stepping, Problem):
            raise self._problem(stepping)
        outer = stepping.epochs.node if stepping.epochs else stepping.batches.node
        if stepping.epochs is None and self._is_inner_loop(outer):
            raise _Refusal(
                "QW117", self.optimizer.creations[0],
                "the optimizer lives for one inner loop only, as in meta-learning",
                "nothing to do; a cycle over so few steps has no use",
            )
        return stepping

    def _is_inner_loop(self, loop: cst.CSTNode) -> bool:
        """The optimizer is made anew inside another loop, for one loop over a few steps."""
        made = self.optimizer.statement
        return any(
            type(a).__name__ in ("For", "While")
            for a in self.tree.ancestors(made)
            if self.tree.is_within(loop, a)
        )

    def _problem(self, problem: Problem) -> _Refusal:
        code, message, hint = _PROBLEMS[problem.kind]
        return _Refusal(code, problem.node, message.format(detail=problem.detail), hint)

    def _check_optimizer(self) -> None:
        if self.optimizer.class_name == "LBFGS":
            raise _Refusal(
                "QW125", self.optimizer.creations[0],
                "LBFGS searches its own step length, so a schedule on top has no use",
                "nothing to do",
            )
        for write in self.training.manual_rates:
            raise _Refusal(
                "QW120", write, "the learning rate is also set by hand here, against any schedule",
                "remove this statement (and the function it is in) and run again",
            )

    def _replaceable(self, schedulers: Sequence[Scheduler]) -> tuple[Scheduler, ...]:
        """The schedules in the way, each with no use that OneCycle cannot serve."""
        bound = {s.variable for s in schedulers}
        if len(schedulers) > 1 and len(bound) < len(schedulers):
            raise _Refusal(
                "QW121", schedulers[1].creation,
                "the schedule is chosen at run time, so one of several would be replaced",
                "keep one schedule (or none) in the script and run again",
            )
        for scheduler in schedulers:
            if scheduler.variable is None or not self.placing.is_plain_assignment(
                scheduler.statement, scheduler.creation
            ):
                raise _Refusal(
                    "QW127", scheduler.creation,
                    f"{scheduler.class_name} is not simply assigned to a name, so its uses are not known",
                    "assign it to a variable of its own and run again",
                )
            if scheduler.is_one_cycle:
                raise _Refusal(
                    "QW121", scheduler.creation, "another schedule stands beside OneCycle",
                    "remove one of the two",
                )
            for part in (scheduler, *scheduler.children):
                self._check_uses(part, is_part=part is not scheduler)
        return tuple(schedulers)

    def _check_uses(self, scheduler: Scheduler, is_part: bool) -> None:
        for use in scheduler.uses:
            if use.kind == "step":
                continue
            if use.kind == "step-value":
                raise _Refusal(
                    "QW124", use.node, "the result of scheduler.step() is used",
                    "read the rate by scheduler.get_last_lr() instead",
                )
            if use.kind == "escapes":
                raise _Refusal(
                    "QW122", use.node, f"{scheduler.class_name} is handed on to where it cannot be followed",
                    "keep the scheduler in this file, or replace it by hand",
                )
            if use.kind not in _KEPT_USES or is_part:
                raise _Refusal(
                    "QW122", use.node,
                    f"`.{use.kind}` of {scheduler.class_name} has no counterpart in OneCycle",
                    "remove this use and run again",
                )

    def _peak(self, old: Sequence[Scheduler]) -> str:
        """The argument that sets the peak."""
        if self.options.max_lr is not None:
            return f"max_lr={self.options.max_lr!r}"
        for scheduler in old:
            peak = self.script.peak(scheduler, self.optimizer)
            if peak is None:
                raise _Refusal(
                    "QW123", scheduler.creation,
                    f"the highest rate that {scheduler.class_name} reaches cannot be read from the source",
                    "set max_lr in [tool.quickwins.onecycle] or by --max-lr",
                )
            if peak:
                return f"max_lr={peak}"
        return f"max_lr_factor={self.options.max_lr_factor!r}"

    # -- where it goes -----------------------------------------------------------------------

    def _site(self, old: Sequence[Scheduler], stepping: Stepping, peak: str) -> _Site:
        outer = stepping.epochs.node if stepping.epochs else stepping.batches.node
        for candidate in self._candidates(old, stepping, outer):
            arguments = self._arguments(stepping, candidate.place, outer, peak)
            if arguments is not None:
                candidate.arguments = arguments
                return candidate
        raise _Refusal(
            "QW119", old[0].creation if old else self.optimizer.creations[0],
            "the number of epochs and the data loader are not both known where a schedule could be built",
            "build the optimizer (or the schedule) where both are at hand and run again",
        )

    def _candidates(
        self, old: Sequence[Scheduler], stepping: Stepping, outer: cst.CSTNode
    ) -> Iterator[_Site]:
        outer_function = self.tree.function(outer)
        if old:
            main = old[-1]
            function = self.tree.function(main.statement)
            yield _Site("replace", main.statement, self.placing.before(main.statement), main.reference,
                        self._optimizer_argument(main))
            if function is outer_function:
                early = [u for s in old for u in s.uses
                         if self.tree.order[u.node] < self.tree.order[outer]]
                if not early:
                    yield _Site("before", outer, self.placing.before(outer), main.reference,
                                self._optimizer_argument(main))
            elif self._only_used_in(old, stepping) and "." in main.reference:
                yield _Site("late", outer, self.placing.before(outer), main.reference,
                            self._optimizer_argument(main), declared=main.statement)
            return
        made = self.placing.binding_statement(self.optimizer.statement, self.optimizer.variable)
        function = self.tree.function(made)
        reference = self._fresh_reference(stepping, function)
        if reference is None:
            return
        yield _Site("after", made, self.placing.after(made), reference, self.optimizer.reference)
        if function is outer_function:
            yield _Site("before", outer, self.placing.before(outer), reference, self.optimizer.reference)
        elif "." in self.optimizer.reference and self.names.method_class(outer_function) is not None:
            yield _Site("late", outer, self.placing.before(outer), reference,
                        self.optimizer.reference, declared=made)

    def _optimizer_argument(self, scheduler: Scheduler) -> str:
        """The optimizer as the old schedule was given it."""
        made = frozenset(self.optimizer.creations)
        for argument in scheduler.creation.args:
            if self.names.creations(argument.value) & made:
                return self.tree.code(argument.value)
        return self.optimizer.reference

    def _only_used_in(self, old: Sequence[Scheduler], stepping: Stepping) -> bool:
        inside = {frame.function for frame in stepping.frames}
        return all(self.tree.function(u.node) in inside for s in old for u in s.uses)

    def _fresh_reference(self, stepping: Stepping, function: cst.CSTNode) -> str | None:
        """A name for the new schedule beside the optimizer's: `scheduler`, `scheduler_g`."""
        base, dot, name = self.optimizer.reference.rpartition(".")
        if not name.isidentifier() or (base and base != "self"):
            return None
        functions = [function, *(f.function for f in stepping.frames)]
        derived = name
        for word in ("optimizer", "optimiser", "optim", "opt"):
            if word in name.lower():
                start = name.lower().index(word)
                derived = name[:start] + "scheduler" + name[start + len(word):]
                break
        else:
            derived = f"{name}_scheduler"
        for candidate in (derived, f"lr_{derived}", f"onecycle_{derived}"):
            if dot:
                variable = type(self.optimizer.variable)(
                    self.optimizer.variable.scope, f"self.{candidate}"
                )
                if variable not in self.names.assignments:
                    return f"{base}.{candidate}"
            elif self.placing.is_free(candidate, functions):
                return candidate
        return None

    def _arguments(
        self, stepping: Stepping, place: Place, outer: cst.CSTNode, peak: str
    ) -> list[str] | None:
        frames = stepping.frames
        batches = self.placing.count_at(stepping.batches.count, frames, place, outer)
        epochs = (
            self.placing.count_at(stepping.epochs.count, frames, place, outer)
            if stepping.epochs
            else "1"
        )
        if batches is None or epochs is None:
            return None
        boundary = stepping.boundary
        divisor = ""
        if boundary.divisor is not None:
            text = self.placing.expression_at(boundary.divisor, boundary.frame, frames, place, outer)
            if text is None:
                return None
            divisor = _operand(text)
        per_epoch = {
            "every": batches,
            "floor": f"{_operand(batches)} // {divisor}",
            "ceil": f"({_operand(batches)} + {divisor} - 1) // {divisor}",
            "start": f"({_operand(batches)} + {divisor} - 1) // {divisor}",
            "counter": f"{_operand(batches)} * {_operand(epochs)} // {divisor}",
        }[boundary.kind]
        if stepping.epochs is None or boundary.kind == "counter":
            counts = [f"total_steps={per_epoch}"]
        else:
            counts = [f"epochs={epochs}", f"steps_per_epoch={per_epoch}"]
        extra = []
        if self.options.pct_start != 0.1:
            extra.append(f"pct_start={self.options.pct_start!r}")
        if self.options.div_factor != 25.0:
            extra.append(f"div_factor={self.options.div_factor!r}")
        return [*counts, peak, *extra]

    # -- the edits -----------------------------------------------------------------------------

    def _build(self, old: Sequence[Scheduler], site: _Site) -> None:
        name = self.script.runtime_name(_RUNTIME)
        code = _call(
            f"{site.reference} = {name}", [site.optimizer, *site.arguments],
            self.tree.position(site.statement).column - 1,
            self._line_length(),
        )
        gone: list[cst.CSTNode] = []
        for scheduler in old:
            for part in (scheduler, *scheduler.children):
                if part.statement not in gone:
                    gone.append(part.statement)
        for statement in gone:
            if statement is site.statement and site.kind == "replace":
                self.edits.append(Replace(statement, code, _STALE))
            elif statement is site.declared:
                self.edits.append(Replace(statement, f"{site.reference} = None\n", _STALE))
            else:
                self.edits.append(Remove(statement, _TOPIC))
        if site.kind == "after":
            self.edits.append(InsertAfter(site.statement, code))
        elif site.kind in ("before", "late"):
            self.edits.append(InsertBefore(site.statement, code))
        if site.declared is not None and not old:
            self.edits.append(InsertAfter(site.declared, f"{site.reference} = None\n"))
        self._drop_dead_locals(gone, code)
        self._drop_unused_imports(gone, old)

    def _line_length(self) -> int:
        """88 in a file that keeps to it, as black does; 100 in one that does not."""
        longest = max(map(len, self.tree.text.split("\n")))
        return _LINE if longest <= _LINE else _LONG_LINE

    def _drop_unused_imports(self, gone: Sequence[cst.CSTNode], old: Sequence[Scheduler]) -> None:
        """Names that only the old schedule needed: `from torch... import StepLR`."""
        for scheduler in old:
            for part in (scheduler, *scheduler.children):
                found = self.placing.import_needed_only_by(part.creation.func, gone)
                if found is not None:
                    edit = RemoveImport(*found)
                    if edit not in self.edits:
                        self.edits.append(edit)

    def _drop_dead_locals(self, gone: list[cst.CSTNode], code: str) -> None:
        """Locals that only fed a removed schedule go with it: `total_steps = ...`."""
        seen = list(gone)
        for statement in seen:
            for variable in sorted(self.placing.locals_read(statement), key=lambda v: v.name):
                if variable.name in code:
                    continue
                dead = self.placing.is_dead_without(variable, seen)
                if dead is not None and dead not in seen:
                    seen.append(dead)
                    self.edits.append(Remove(dead))

    def _steps(self, old: Sequence[Scheduler], stepping: Stepping, site: _Site) -> None:
        kept = self._kept_steps(old, stepping)
        for scheduler in old:
            for use in scheduler.steps:
                if use not in kept:
                    self._drop_step(use, stepping, site)
        if kept:
            return
        reference, guarded = self._reach(old, stepping, site)
        code = f"{reference}.step()\n"
        if guarded:
            code = f"if {reference} is not None:\n    {reference}.step()\n"
        for anchor in stepping.anchors:
            self.edits.append(InsertAfter(self.placing.after_update(anchor), code))

    def _kept_steps(self, old: Sequence[Scheduler], stepping: Stepping) -> list[Use]:
        """Steps that already stand where OneCycle's belong: after each optimizer step."""
        if len(old) != 1:
            return []
        loop = stepping.batches.node
        uses = [
            u for u in old[0].steps
            if self.tree.is_within(u.node, loop) and not self._step_call(u).args
        ]
        found: list[Use] = []
        for anchor in stepping.anchors:
            after = [
                u for u in uses
                if any(u.statement is s for s in self.tree.siblings(anchor))
                and self.tree.order[u.statement] > self.tree.order[anchor]
            ]
            found += [u for u in after if u not in found]
            if not after:
                break
        else:
            if len(found) == len(stepping.anchors):
                return found
        return []

    def _step_call(self, use: Use) -> cst.Call:
        return self.tree.parents[self.tree.parents[use.node]]

    def _drop_step(self, use: Use, stepping: Stepping, site: _Site) -> None:
        if use.statement in [e.node for e in self.edits if isinstance(e, Remove)]:
            return
        effects = self.placing.effects_of_arguments(self._step_call(use))
        if effects is not None:
            self.edits.append(Replace(use.statement, f"{effects}\n"))
            return
        self.edits.append(Remove(use.statement, _TOPIC))
        epochs = stepping.epochs
        if epochs is None or not self.tree.is_within(use.node, epochs.node):
            return
        comparison = self.training.records.comparison(use, epochs.node)
        if comparison is not None:
            rate = self.tree.code(comparison.after.value)
            self.edits.append(Remove(comparison.before, _TOPIC))
            self.edits.append(InsertBefore(
                self.placing.first_statement(epochs.node), f"{comparison.name} = {rate}\n"
            ))

    def _reach(
        self, old: Sequence[Scheduler], stepping: Stepping, site: _Site
    ) -> tuple[str, bool]:
        """How the schedule is named where the optimizer steps, and whether it may be None there."""
        loop_function = stepping.frames[0].function
        home = self.tree.function(site.statement)
        if "." in site.reference:
            return site.reference, site.declared is not None and home is not loop_function
        if home is loop_function or self._sees(loop_function, home, site.reference):
            return site.reference, False
        given = self._given(old, loop_function)
        if given is not None:
            return given
        return self._pass_on(stepping, site, home)

    def _sees(self, function: cst.CSTNode, home: cst.CSTNode, name: str) -> bool:
        """A nested function, or any function for a global, sees the name without being given it."""
        return self.tree.is_within(function, home) and self.placing.scope_of(function, name) in (
            None, home
        )

    def _given(
        self, old: Sequence[Scheduler], function: cst.CSTNode
    ) -> tuple[str, bool] | None:
        """The parameter by which the function already receives the old schedule."""
        made = {s.creation for s in old}
        for name, optional in self.placing.parameters(function):
            values = self.names.parameter_values(function, name)
            if any(self.names.creations(v) & made for v in values):
                return name, optional
        return None

    def _pass_on(
        self, stepping: Stepping, site: _Site, home: cst.CSTNode
    ) -> tuple[str, bool]:
        """Hand the schedule down through every function between its place and the step."""
        functions = [f.function for f in stepping.frames]
        if home not in functions:
            raise _Refusal(
                "QW119", site.statement,
                "the schedule cannot be reached from the function that steps the optimizer",
                "pass the optimizer as an argument, or keep both in one class",
            )
        name = site.reference
        below = stepping.frames[: functions.index(home)]
        for frame in reversed(below):
            if not self.placing.is_free(name, [frame.function]) or frame.call is None:
                raise _Refusal(
                    "QW119", frame.function,
                    f"the name `{name}` already means something in the function that steps the optimizer",
                    "rename it and run again",
                )
            self.edits.append(AddParameter(frame.function, f"{name}=None"))
            self.edits.append(AddArgument(frame.call, f"{name}={name}"))
        return name, True

    # -- what is saved and logged ----------------------------------------------------------------

    def _saved(self, old: Sequence[Scheduler], stepping: Stepping, site: _Site) -> None:
        records, made = self.training.records, frozenset(s.creation for s in old)
        keys = {}
        for checkpoint in self.training.checkpoints:
            if made and records.saves(checkpoint.mapping, made):
                continue
            statement = self.tree.statement(checkpoint.mapping)
            key = _scheduler_key(checkpoint.key)
            value = self._state(checkpoint.element.value, statement, site)
            if value is None:
                self.notes.append(self._say(
                    "warning", "QW152", checkpoint.element,
                    "this checkpoint saves the optimizer but cannot reach the schedule",
                    "save scheduler.state_dict() beside it, or a resumed run starts its cycle anew",
                ))
                continue
            quote = checkpoint.quote
            keys[checkpoint.key] = key
            self.edits.append(AddDictEntry(
                checkpoint.mapping, checkpoint.element, f"{quote}{key}{quote}: {value}"
            ))
        if old and self.training.scheduler_restored:
            self.notes.append(self._say(
                "warning", "QW154", old[-1].creation,
                "checkpoints saved so far hold another schedule's state, which OneCycle refuses to load",
                "resume older runs with the old version of the script",
            ))
            return
        for restore in self.training.restores:
            self._restored(restore, keys, stepping, site)

    def _state(self, value: cst.CSTNode, statement: cst.CSTNode, site: _Site) -> str | None:
        """The schedule's state as a checkpoint's value, mirrored from the optimizer's."""
        reference = self._visible(statement, site)
        guard = self.placing.existence_guard(value)
        if guard is not None and site.reference.isidentifier():
            same = self.tree.function(statement) is self.tree.function(site.statement)
            quoted = guard.replace(self.optimizer.reference, site.reference)
            return f"{site.reference}.state_dict() if {quoted} else None" if same else None
        if reference is None:
            return None
        if site.declared is not None:
            return f"{reference}.state_dict() if {reference} is not None else None"
        return f"{reference}.state_dict()"

    def _visible(self, statement: cst.CSTNode, site: _Site) -> str | None:
        """The schedule's name at a statement, where it surely exists by then."""
        home, function = self.tree.function(site.statement), self.tree.function(statement)
        if function is home:
            return site.reference if self.placing.dominates(site.statement, statement) else None
        if "." in site.reference:
            owner, here = self.names.method_class(home), self.names.method_class(function)
            same = owner and here and self.names.root_class(owner) is self.names.root_class(here)
            return site.reference if same else None
        seen = self._sees(function, home, site.reference)
        return site.reference if seen and self.tree.order[function] > 0 else None

    def _restored(self, restore, keys: dict[str, str], stepping: Stepping, site: _Site) -> None:
        resumes = stepping.epochs is not None and stepping.epochs.resumes
        reference = self._visible(restore.statement, site)
        key = keys.get(restore.key)
        if reference is None or key is None or site.declared is not None:
            home = self.tree.function(site.statement)
            if not resumes:
                return  # weights are taken up, but the epochs count from the start again
            if self.tree.function(restore.statement) is home and reference is None:
                raise _Refusal(
                    "QW126", restore.statement,
                    "the optimizer's state is loaded before the schedule can be built",
                    "build the data loader and the schedule above this line and run again",
                )
            self.notes.append(self._say(
                "warning", "QW152", restore.statement,
                "a resumed run cannot load the schedule's state here and starts its cycle anew",
                "load scheduler.load_state_dict(...) after the optimizer's state",
            ))
            return
        entry = f"{restore.source}[{restore.quote}{key}{restore.quote}]"
        self.edits.append(InsertAfter(
            restore.statement,
            f"if {restore.quote}{key}{restore.quote} in {restore.source}:\n"
            f"    {reference}.load_state_dict({entry})\n",
        ))

    def _logged(self, stepping: Stepping, site: _Site) -> None:
        """Log the rate per batch where the script logs per batch and does not log it yet."""
        if self.training.logs_rate or not self.training.batch_logs:
            return
        log = self.training.batch_logs[0]
        if self.tree.function(log.mapping) is not stepping.frames[0].function:
            return
        optimizer = self._stepped_name(stepping)
        prefixes = {key.rpartition("/")[0] for key in log.keys}
        prefix = prefixes.pop() + "/" if len(prefixes) == 1 and prefixes != {""} else ""
        key = f"{log.quote}{prefix.lstrip('/')}learning_rate{log.quote}"
        inner = log.quote if log.quote in ("'", '"') else '"'
        self.edits.append(AddDictEntry(
            log.mapping, None, f"{key}: {optimizer}.param_groups[0][{inner}lr{inner}]"
        ))

    def _stepped_name(self, stepping: Stepping) -> str:
        call = stepping.sites[0]
        receiver = call.func.value
        if self.names.creations(receiver) & frozenset(self.optimizer.creations):
            return self.tree.code(receiver)
        return self.tree.code(call.args[0].value)

    # -- what is said ------------------------------------------------------------------------------

    def _applied(self, old: Sequence[Scheduler], stepping: Stepping) -> Verdict:
        if old:
            names = " and ".join(dict.fromkeys(s.class_name for s in old))
            return self._say(
                "applied", "QW101", old[-1].creation,
                f"{names} replaced by OneCycle, stepped once per optimizer step",
            )
        return self._say(
            "applied", "QW102", self.optimizer.creations[0],
            f"OneCycle added for {self.optimizer.class_name or 'the optimizer'}, "
            "stepped once per optimizer step",
        )

    def _remarks(self, old: Sequence[Scheduler], stepping: Stepping, site: _Site) -> None:
        for stop in stepping.early_stops[:1]:
            self.notes.append(self._say(
                "warning", "QW150", stop,
                "early stopping may end the run while the rate is still high",
                "train a fixed number of epochs, or count patience only after 70 % of them",
            ))
        for skip in stepping.skips[:1]:
            self.notes.append(self._say(
                "warning", "QW151", skip,
                "some batches may not step, so the cycle may end before its last rate",
                "nothing, if that is rare",
            ))
        for scheduler in old:
            if scheduler.custom is not None:
                self.notes.append(self._say(
                    "warning", "QW157", scheduler.custom,
                    f"class {scheduler.class_name} is not used by this script any more; it stays, "
                    "since other files may import it",
                    "remove it if nothing does",
                ))
            for option in self._dead_options(scheduler):
                self.notes.append(self._option_note(option, scheduler, site))

    def _option_note(self, option: str, scheduler: Scheduler, site: _Site) -> Verdict:
        if option in " ".join(site.arguments):
            return self._say(
                "warning", "QW153", scheduler.creation,
                f"`{option}` still sets the peak, but no longer how the schedule runs",
                "say so in the option's help; the climb takes pct_start of the run",
            )
        return self._say(
            "warning", "QW153", scheduler.creation, f"`{option}` no longer has an effect here",
            "remove the option, or keep it for older command lines",
        )

    def _dead_options(self, scheduler: Scheduler) -> list[str]:
        """Command-line options that only shaped the old schedule: `args.warmup_steps`."""
        found = []
        for argument in scheduler.creation.args:
            for text in self.placing.attributes_read(argument.value):
                if self._is_schedule_option(text) and text not in found:
                    found.append(text)
        return found

    def _is_schedule_option(self, text: str) -> bool:
        name = text.rpartition(".")[2].lower()
        words = (
            "warm", "patience", "gamma", "step_size", "factor", "t_max", "eta", "milestone", "decay",
            "t_0", "t_mult", "min_lr", "cycle",
        )
        return any(word in name for word in words)

    def _say(
        self, status: str, code: str, node: cst.CSTNode, message: str, hint: str | None = None
    ) -> Verdict:
        return _verdict(self.script, status, code, node, message, hint)


@dataclass
class _Site:
    """Where the schedule is built. kind: in place of the old one, after the optimizer, before the
    outer loop, or `late`: before the loop in another method, declared as None in __init__."""

    kind: str
    statement: cst.CSTNode
    place: Place
    reference: str
    optimizer: str
    declared: cst.CSTNode | None = None
    arguments: list[str] = field(default_factory=list)


def _operand(text: str) -> str:
    """Parentheses around a text that has an operator outside brackets."""
    depth = 0
    for character in text:
        depth += character in "([{"
        depth -= character in ")]}"
        if depth == 0 and character == " ":
            return f"({text})"
    return text


def _call(head: str, arguments: Sequence[str], indent: int, length: int) -> str:
    inner = ", ".join(arguments)
    line = f"{head}({inner})"
    if indent + len(line) <= length:
        return line + "\n"
    if indent + 4 + len(inner) <= length:
        return f"{head}(\n    {inner}\n)\n"
    return f"{head}(\n" + "".join(f"    {a},\n" for a in arguments) + ")\n"


def _scheduler_key(key: str) -> str:
    for word, other in (
        ("optimizer", "scheduler"), ("optimiser", "scheduler"), ("optim", "sched"), ("opt", "sched"),
    ):
        if word in key:
            return key.replace(word, other)
    return f"{key}_scheduler"


_PROBLEMS = {
    "no-step": (
        "QW110", "no call in this file steps this optimizer",
        "run the tool over the file that holds the training loop's optimizer, or move both together",
    ),
    "no-loop": (
        "QW111", "this step stands in no loop of this file, so the number of steps is not known",
        "build the schedule where the loop is, with its number of epochs and batches",
    ),
    "no-epochs": (
        "QW112", "the loop over epochs is not in this file, so the number of steps is not known",
        "build the schedule where the epochs are counted",
    ),
    "while": (
        "QW113", "a while loop has no number of iterations to plan a cycle for",
        "make it a for loop over a range",
    ),
    "unknown-length": (
        "QW114", "the number of batches in `{detail}` cannot be known before the loop",
        "iterate over something that has a len(), such as a DataLoader over a map-style dataset",
    ),
    "iterable-dataset": (
        "QW114", "`{detail}` loads an IterableDataset, so len() of it raises TypeError",
        "use a map-style dataset, or give the dataset a __len__ and the loop a fixed number of batches",
    ),
    "condition": (
        "QW115", "how often the condition `{detail}` lets a step happen is not known",
        "step on every batch, or every k batches by `(i + 1) % k == 0`",
    ),
    "uneven-branches": (
        "QW115", "the branches around the step do not step equally often",
        "let every branch step on the same batches",
    ),
    "comprehension": (
        "QW115", "a comprehension runs the step, which leaves no place for one more statement",
        "write it as a for loop",
    ),
    "several-loops": (
        "QW116", "a second loop steps the same optimizer, so one cycle cannot span both",
        "give each loop an optimizer of its own, or replace the schedule by hand",
    ),
    "several-callers": (
        "QW116", "the function that steps the optimizer is called from several places",
        "call it from one loop, or replace the schedule by hand",
    ),
    "steps-twice": (
        "QW116", "the optimizer steps more than once for one batch here",
        "replace the schedule by hand, with twice the steps",
    ),
    "nested-loops": (
        "QW117", "there are more loops around the step than one over batches and one over epochs",
        "make the optimizer inside the outermost loop, if every pass of it trains anew",
    ),
    "recursion": (
        "QW117", "the function that steps the optimizer calls itself",
        "replace the schedule by hand",
    ),
    "epochs": (
        "QW118", "the epochs are not counted by a range but by `{detail}`",
        "loop over range(epochs)",
    ),
}


def __getattr__(name: str) -> object:
    """Build OneCycleCommand on demand: it imports libcst, which our own start does not."""
    if name != "OneCycleCommand":
        raise AttributeError(name)
    from quickwins_codemod.codemod_command import command

    globals()[name] = command(__name__, name)
    return globals()[name]
