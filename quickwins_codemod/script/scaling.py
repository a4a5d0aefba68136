"""Mixed precision that a script has: rounds of scale, unscale_, step and update, and their defects.

Each defect says whether the source shows a repair to be safe; where it does not, `why` has the
reason in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Problem, Script
from quickwins_codemod.script.forwards import Forwards, Region, Stepped, TrainingStep
from quickwins_codemod.script.tree import LOOPS, statements_of, walk


@dataclass(frozen=True)
class ScaledReading:
    """Gradients are read while they are scaled. anchor: where unscale_ belongs, above it.

    guard: the test under which the script has a scaler, where the reading is under none.
    """

    anchor: cst.CSTNode
    optimizer: str
    scaler: str
    guard: str | None
    why: str | None


@dataclass(frozen=True)
class MissedUpdate:
    """A way out of the round without update(), although unscale_ ran.

    node: the update() under a condition, or the `continue` above it. below: the condition that the
    update() is to follow; None for a `continue`.
    """

    node: cst.CSTNode
    scaler: str
    below: cst.CSTNode | None
    why: str | None


@dataclass(frozen=True)
class Unscaled:
    """A backward() beside scaled ones that is not scaled itself."""

    backward: cst.Call
    scaler: str
    why: str | None


@dataclass(frozen=True)
class Around:
    """Autocast around backward(). tail: the first statement that does not belong under it.

    regions: instead, what belongs under it, where that has to be wrapped anew. leaving: values in
    half precision that other calls get once they stand outside.
    """

    block: cst.CSTNode
    tail: cst.CSTNode | None
    regions: tuple[Region, ...]
    leaving: tuple[cst.BaseExpression, ...]
    why: str | None


class Scaling:
    """Reads one training step that has mixed precision."""

    def __init__(self, script: Script, forwards: Forwards, step: TrainingStep) -> None:
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.script, self.forwards, self.step = script, forwards, step
        self.order = script.tree.order
        calls = [n for n in walk(step.function) if isinstance(n, cst.Call)]
        self.calls = [c for c in calls if self.tree.function(c) is step.function]
        self.scaled = {b: s for b in step.backwards if (s := forwards.scaler(b)) is not None}

    # -- gradients that are read while they are scaled --------------------------------------

    def scaled_readings(self) -> list[ScaledReading]:
        """For each step of a scaler: where its gradients are first read without unscale_."""
        found = []
        for stepped in self.step.steps:
            scaler = self._scaler_of(stepped)
            start = self._scaled_before(stepped.call, scaler) if scaler is not None else None
            if scaler is None or start is None:
                continue
            readers = [
                r for r in self.step.readers
                if self._between(start, r, stepped.call) and not self._unscales(r, scaler)
            ]
            unscaled = [
                c for c in self._calls(scaler, "unscale_") if self._between(start, c, stepped.call)
            ]
            helped = [
                r for r in self.step.readers
                if self._between(start, r, stepped.call) and self._unscales(r, scaler)
            ]
            if readers and not unscaled and not helped:
                found.append(self._reading(readers, start, stepped, scaler))
        return found

    def _scaler_of(self, stepped: Stepped) -> str | None:
        """The scaler that takes a step; None for optimizer.step() in a branch without one."""
        base = self.tree.code(stepped.call.func.value)
        return base if base != self.tree.code(stepped.optimizer) else None

    def _scaled_before(self, call: cst.CSTNode, scaler: str) -> cst.Call | None:
        above = [
            b for b, name in self.scaled.items()
            if name == scaler and self._precedes(b, call)
        ]
        return max(above, key=self.order.__getitem__, default=None)

    def _precedes(self, first: cst.CSTNode, second: cst.CSTNode) -> bool:
        return self.order[first] < self.order[second] and self.placing.may_follow(first, second)

    def _between(self, start: cst.CSTNode, node: cst.CSTNode, end: cst.CSTNode) -> bool:
        return self._precedes(start, node) and self._precedes(node, end)

    def _calls(self, scaler: str, method: str) -> list[cst.Call]:
        name = f"{scaler}.{method}"
        return [c for c in self.calls if self.tree.code(c.func) == name]

    def _unscales(self, reader: cst.CSTNode, scaler: str) -> bool:
        """A helper that reads gradients may unscale them itself."""
        for node in walk(reader):
            if isinstance(node, cst.Call):
                if any(self.tree.code(a.value) == scaler for a in node.args):
                    return True
                helper = self.names.callee(node)
                if helper is not None and ".unscale_(" in self.tree.code(helper):
                    return True
        return False

    def _reading(
        self, readers: Sequence[cst.CSTNode], start: cst.Call, stepped: Stepped, scaler: str
    ) -> ScaledReading:
        optimizer = self.tree.code(stepped.optimizer)
        block = self._common_block([*readers, stepped.call])
        single = len(readers) == 1 and not self.placing.in_inner_loop(readers[0], block)
        anchor = readers[0] if single else self.placing.ancestor_in(readers[0], block) or readers[0]
        guards = self._guards(stepped.call, block)
        if not guards:
            return ScaledReading(anchor, optimizer, scaler, None, None)
        top = guards[-1]
        around = self._guards(start, self.tree.block(top))
        if self.placing.is_accumulation(top, stepped.training):
            why = "they are read on every batch, but stepped only on some"
            return ScaledReading(anchor, optimizer, scaler, None, why)
        if not around:
            safe = self._clears_outside(top, start)
            safe = safe and self.tree.is_within(start, self._loop_of(top))
            why = None if safe else "it is not seen whether each batch clears the gradients"
            return ScaledReading(anchor, optimizer, scaler, None, why)
        test = self.tree.code(top.test)
        same = (
            len(guards) == len(around) == 1
            and self.tree.plain(around[0].test) == self.tree.plain(top.test)
            and self.tree.is_within(start, around[0].body)
            and self.tree.is_within(stepped.call, top.body)
            and not any(isinstance(n, (cst.Call, cst.NamedExpr)) for n in walk(top.test))
            and not self.forwards.conditions.changes_within(top.test, self._loop_of(top))
        )
        why = None if same else "backward and step stand under different conditions"
        return ScaledReading(anchor, optimizer, scaler, test if same else None, why)

    def _common_block(self, nodes: Sequence[cst.CSTNode]) -> cst.CSTNode:
        last = max(nodes, key=self.order.__getitem__)
        for ancestor in self.tree.ancestors(last):
            if isinstance(ancestor, (cst.BaseSuite, cst.Module)):
                if all(self.tree.is_within(n, ancestor) for n in nodes):
                    return ancestor
        return self.tree.module

    def _guards(self, node: cst.CSTNode, block: cst.CSTNode) -> list[cst.If]:
        """The `if` statements between a node and a block around it, inner first."""
        found = []
        for ancestor in self.tree.ancestors(node):
            if ancestor is block:
                break
            if isinstance(ancestor, cst.If):
                found.append(ancestor)
        return found

    def _loop_of(self, node: cst.CSTNode) -> cst.CSTNode:
        """The innermost loop around a node in the step's function, or the function."""
        for ancestor in self.tree.ancestors(node):
            if ancestor is self.step.function or isinstance(ancestor, LOOPS):
                return ancestor
        return self.step.function

    def _clears_outside(self, guard: cst.CSTNode, start: cst.CSTNode) -> bool:
        """Each pass clears the gradients, whatever a condition says: there is no accumulation."""
        loop = self._loop_of(guard)
        return any(
            isinstance(c.func, cst.Attribute)
            and c.func.attr.value == "zero_grad"
            and self._loop_of(c) is loop
            and not self._guards(c, loop)
            for c in self.calls
        )

    # -- rounds that stay open -----------------------------------------------------------------

    def missed_updates(self, added: Iterable[ScaledReading]) -> Iterator[MissedUpdate]:
        """Ways on which update() is left out after unscale_. added: unscale_ that will be there."""
        placed = [r for r in added if r.why is None and r.guard is None]
        for scaler in dict.fromkeys(self.scaled.values()):
            updates = self._calls(scaler, "update")
            for call in updates:
                start = self._scaled_before(call, scaler)
                guard = self.forwards.boundary(call, start) if start is not None else None
                unscaled = [
                    n
                    for n in (
                        *self._calls(scaler, "unscale_"),
                        *(r.anchor for r in placed if r.scaler == scaler),
                    )
                    if start is not None and self._between(start, n, call)
                ]
                if guard is not None:
                    outside = [n for n in unscaled if not self.tree.is_within(n, guard)]
                    yield from self._under_condition(call, guard, outside, scaler, start)
                elif unscaled:
                    yield from self._jumped_over(call, unscaled, scaler)

    def _under_condition(
        self,
        call: cst.Call,
        guard: cst.CSTNode,
        unscaled: Sequence[cst.CSTNode],
        scaler: str,
        start: cst.Call | None,
    ) -> Iterator[MissedUpdate]:
        if not unscaled or not self._varies(guard) or self._on_every_branch(guard, scaler):
            return
        if any(self._same_condition(n, guard) for n in unscaled):
            return
        statement = self.tree.statement(call)
        others = [c for c in self._calls(scaler, "update") if c is not call]
        later = [
            n for n in walk(guard)
            if isinstance(n, cst.Attribute) and self.tree.code(n.value) == scaler
            and self.order[n] > self.order[call.func] and n is not call.func
        ]
        stepped = next(
            (s for s in self.step.steps
             if self._scaler_of(s) == scaler and self.tree.is_within(s.call, guard)), None
        )
        why = None
        if stepped is None or self.placing.is_accumulation(guard, stepped.training):
            why = "the condition looks like gradient accumulation"
        elif not any(
            self.tree.is_within(guard, self.tree.block(self.tree.statement(n))) for n in unscaled
        ):
            why = "unscale_() stands under a condition too"
        elif not self._clears_outside(guard, start):
            why = "it is not seen whether each batch clears the gradients"
        elif others or later:
            why = "the scaler is used again after it"
        elif not self._is_own_line(statement) or self._loop_of(guard) is not self._loop_of(call):
            why = "it shares its line, or stands in a loop of its own"
        yield MissedUpdate(statement if why is None else call, scaler, guard, why)

    def _varies(self, guard: cst.If) -> bool:
        """The test may come out otherwise in the next batch: no option, no `scaler is not None`."""
        return self.forwards.conditions.changes_within(guard.test, self._loop_of(guard))

    def _on_every_branch(self, guard: cst.If, scaler: str) -> bool:
        node: cst.CSTNode | None = guard
        while isinstance(node, cst.If):
            if f"{scaler}.update(" not in self.tree.code(node.body):
                return False
            node = node.orelse
        return node is not None and f"{scaler}.update(" in self.tree.code(node)

    def _same_condition(self, node: cst.CSTNode, guard: cst.If) -> bool:
        around = self._guards(node, self.tree.block(guard))
        return any(self.tree.plain(a.test) == self.tree.plain(guard.test) for a in around)

    def _is_own_line(self, statement: cst.CSTNode) -> bool:
        return isinstance(statement, cst.Expr) and self.placing.has_own_line(statement)

    def _jumped_over(
        self, call: cst.Call, unscaled: Sequence[cst.CSTNode], scaler: str
    ) -> Iterator[MissedUpdate]:
        """`continue` between unscale_ and update()."""
        for jump in self.tree.all(cst.Continue):
            if self.tree.function(jump) is not self.step.function:
                continue
            before = [n for n in unscaled if self.order[n] < self.order[jump] < self.order[call]]
            loop = self._loop_of(jump)
            if not before or loop is not self._loop_of(call) or not any(
                self.placing.may_follow(n, jump) for n in before
            ):
                continue
            branch = self.tree.siblings(jump)
            if f"{scaler}." in "".join(self.tree.code(s) for s in branch):
                continue
            why = None
            if not any(
                self.tree.is_within(jump, self.tree.block(self.tree.statement(n))) for n in before
            ):
                why = "unscale_() stands under a condition too"
            elif not self._clears_first(loop, before[0]) and not any(
                ".zero_grad(" in self.tree.code(s) for s in branch
            ):
                why = "it is not seen whether each batch clears the gradients"
            yield MissedUpdate(jump, scaler, None, why)

    def _clears_first(self, loop: cst.CSTNode, before: cst.CSTNode) -> bool:
        return any(
            isinstance(c.func, cst.Attribute)
            and c.func.attr.value == "zero_grad"
            and self._loop_of(c) is loop
            and not self._guards(c, loop)
            and self.order[c] < self.order[before]
            for c in self.calls
        )

    # -- backward calls that are not scaled -----------------------------------------------------

    def unscaled(self) -> Iterator[Unscaled]:
        """Backward calls that feed the same step as a scaled one, and are not scaled."""
        for backward in self.step.backwards:
            if backward in self.scaled:
                continue
            for other, scaler in self.scaled.items():
                first, second = sorted((backward, other), key=self.order.__getitem__)
                if self._loop_of(backward) is not self._loop_of(other) and not (
                    self.tree.is_within(backward, self._loop_of(other))
                ):
                    continue
                if not self.placing.may_follow(first, second) or not self._feed_one_step(
                    first, second, scaler
                ):
                    continue
                yield Unscaled(backward, scaler, self._why_not_scaled(backward, other))
                break

    def _feed_one_step(self, first: cst.Call, second: cst.Call, scaler: str) -> bool:
        """No step, clearing or unscaling between two backward calls, and the scaler steps after."""
        start, end = self.order[first], self.order[second]
        for call in self.calls:
            if start < self.order[call] < end and isinstance(call.func, cst.Attribute):
                if call.func.attr.value in ("step", "zero_grad", "unscale_", "update"):
                    return False
        following = [s for s in self.step.steps if self._precedes(second, s.call)]
        return bool(following) and all(self._scaler_of(s) == scaler for s in following)

    def _why_not_scaled(self, backward: cst.Call, other: cst.Call) -> str | None:
        statement = self.tree.statement(backward)
        if not (isinstance(statement, cst.Expr) and statement.value is backward):
            return "it stands in an expression"
        if not self.tree.is_within(backward, self.tree.block(self.tree.statement(other))):
            return "the scaled one stands under a condition that this one does not have"
        elsewhere = [
            t for t in self.script.trainings
            if any(self.tree.function(s) is not self.step.function for s in t.sites) or not t.sites
        ]
        if elsewhere or self.script.foreign_steps or self.script.unnamed:
            return "it may feed an optimizer that steps elsewhere"
        return None

    # -- autocast around backward -----------------------------------------------------------------

    def around(self) -> Iterator[Around]:
        """Each block of autocast that holds a backward()."""
        seen: set[cst.CSTNode] = set()
        for backward in self.step.backwards:
            for ancestor in self.tree.ancestors(backward):
                if ancestor is self.step.function:
                    break
                on = isinstance(ancestor, cst.With) and any(
                    self._is_on(i.item) for i in ancestor.items
                )
                if on:
                    if ancestor not in seen:
                        seen.add(ancestor)
                        yield self._around(ancestor)
                    break
        if isinstance(self.step.function, cst.FunctionDef):
            for decorator in self.step.function.decorators:
                if self._is_on(decorator.decorator):
                    why = "it decorates the whole function"
                    yield Around(self.step.function, None, (), (), why)

    def _is_on(self, node: cst.BaseExpression) -> bool:
        """A call of autocast that does not switch it off."""
        if not isinstance(node, cst.Call) or not self.forwards.is_autocast(node):
            return False
        return not any(
            a.keyword is not None and a.keyword.value == "enabled" and literal_value(a.value) is False
            for a in node.args
        )

    def _around(self, block: cst.With) -> Around:
        inside = [b for b in self.step.backwards if self.tree.is_within(b, block)]
        why = self._why_whole(block)
        if why is not None:
            return Around(block, None, (), (), why)
        statements = list(statements_of(block.body))
        tops = [next(s for s in statements if self.tree.is_within(b, s)) for b in inside]
        first = min(statements.index(t) for t in tops)
        head, tail = statements[:first], statements[first:]
        if any(self.forwards.has_forward(s) for s in head) and not any(
            self._needs_autocast(s) for s in tail
        ):
            if not all(self.placing.has_own_line(s) for s in (*head[-1:], tail[0])):
                return Around(block, None, (), (), "statements share a line")
            region = Region(inside[0], inside[0].func.value, tuple(head))
            return Around(block, tail[0], (), self._leaving(region, block, tail[0]), None)
        return self._rewrapped(block, inside, statements)

    def _why_whole(self, block: cst.With) -> str | None:
        if len(block.items) > 1 or block.items[0].asname is not None or block.asynchronous:
            return "the `with` holds more than autocast"
        if not isinstance(block.body, cst.IndentedBlock):
            return "statements share a line"
        return None

    def _needs_autocast(self, statement: cst.CSTNode) -> bool:
        """A forward pass or a loss, or a call that is given a model and may hold one."""
        return any(isinstance(n, cst.Call) and self._call_needs(n) for n in walk(statement))

    def _call_needs(self, call: cst.Call) -> bool:
        if self.forwards.is_plain_method(call):
            return False
        if self.forwards.is_forward(call) or self.forwards.is_loss_call(call):
            return True
        given = any(self.forwards.is_model(a.value) for a in call.args)
        return given and self.names.callee(call) is None

    def _rewrapped(
        self, block: cst.With, inside: Sequence[cst.Call], statements: Sequence[cst.CSTNode]
    ) -> Around:
        """Autocast around a loop, or around several rounds: moved inside, around each loss."""
        regions: list[Region] = []
        for backward in inside:
            region = self.forwards.region(backward)
            if isinstance(region, Problem) or not region.statements:
                return Around(block, None, (), (), "the forward pass is not seen above backward()")
            regions.append(region)
        held = [s for r in regions for s in r.statements]
        for node in walk(block.body):
            if not isinstance(node, cst.Call):
                continue
            outside = not any(self.tree.is_within(node, s) for s in held)
            if outside and self._call_needs(node):
                return Around(block, None, (), (), "more than the loss needs autocast there")
            if not outside and node in inside:
                why = "backward() stands between forward pass and loss"
                return Around(block, None, (), (), why)
        if len(held) != len(set(held)):
            return Around(block, None, (), (), "two losses share a forward pass")
        ends = [s for r in regions for s in (r.statements[0], r.statements[-1])]
        if not all(self.placing.has_own_line(s) for s in (*ends, statements[0])):
            return Around(block, None, (), (), "statements share a line")
        bound = {a.target for found in self.names.assignments.values() for a in found
                 if self.tree.is_within(a.statement, block)}
        names = {
            self.tree.code(n)
            for n in walk(block.items[0].item)
            if isinstance(n, (cst.Name, cst.Attribute))
        }
        if names & {self.tree.code(t) for t in bound}:
            return Around(block, None, (), (), "its arguments change inside")
        leaving: list[cst.BaseExpression] = []
        for region in regions:
            leaving += [v for v in self._leaving(region, block, None) if v not in leaving]
        return Around(block, statements[0], tuple(regions), tuple(leaving), None)

    def _leaving(
        self, region: Region, block: cst.With, tail: cst.CSTNode | None
    ) -> tuple[cst.BaseExpression, ...]:
        """Half-precision values that calls below the region are given, inside the old block."""
        last = self.order[tail] if tail is not None else self.order[region.statements[0]]
        return tuple(
            v for v in self.forwards.leaving(region)
            if self.tree.is_within(v, block) and self.order[v] >= last
            and not (tail is None and any(self.tree.is_within(v, s) for s in region.statements))
        )
