"""Loops around optimizer steps: which loop runs over batches, which over epochs, how often a step.

Starting from every call that steps one optimizer, the reading climbs outwards through the
functions that call each other until it meets the place where the optimizer was made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import libcst as cst

from quickwins_codemod.script.conditions import Conditions
from quickwins_codemod.script.facts import Boundary, Count, Frame, Loop, Problem, Stepping
from quickwins_codemod.script.names import Names
from quickwins_codemod.script.neighbours import LOADER, Neighbours
from quickwins_codemod.script.tree import LOOPS, Tree, statements_of, walk

_PROGRESS = re.compile(r"(^|\.)(tqdm|trange|track|tqdm_notebook|progress_bar|ProgressBar)$")


def is_progress_bar(dotted: str) -> bool:
    """Whether a function, by its full name, only shows how far a loop has come."""
    return _PROGRESS.search(dotted) is not None


def wrapped_source(
    tree: Tree, names: Names, node: cst.BaseExpression, loop: cst.CSTNode
) -> cst.Call | None:
    """What `bar = tqdm(loader)` or `with tqdm(loader) as bar` wraps, for a loop over bar."""
    variable = names.variable(node) if isinstance(node, cst.Name) else None
    found = names.assignments.get(variable, []) if variable is not None else []
    found = [a for a in found if tree.order[a.statement] <= tree.order[loop]]
    values = [a.value for a in found if isinstance(a.value, cst.Call) and a.index is None]
    if len(found) != 1 or not values:
        return None
    name = names.dotted(values[0].func) or ""
    return values[0] if name in ("enumerate", "range") or is_progress_bar(name) else None


class Unclear(Exception):
    """Raised inside this module where the loops cannot be followed; carries the Problem."""

    def __init__(self, kind: str, node: cst.CSTNode, detail: str = "") -> None:
        super().__init__(kind)
        self.problem = Problem(kind, node, detail)


#: A test, whether it must fail, and the function it stands in.
Condition = tuple[cst.BaseExpression, bool, Frame]


@dataclass(frozen=True)
class _Slot:
    """The one place in a block where a step happens, with the conditions around it."""

    anchors: tuple[cst.CSTNode, ...]
    leaves: tuple[cst.CSTNode, ...]
    conditions: tuple[Condition, ...] = ()
    deep: tuple[cst.CSTNode, ...] = ()


def _conjuncts(condition: Condition) -> list[Condition]:
    """`a and b` as two conditions; `not (a or b)` likewise."""
    test, negated, frame = condition
    if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        return _conjuncts((test.expression, not negated, frame))
    joins = cst.Or if negated else cst.And
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, joins):
        return [
            *_conjuncts((test.left, negated, frame)), *_conjuncts((test.right, negated, frame))
        ]
    return [condition]


class Loops:
    """Reads the stepping of one optimizer."""

    def __init__(
        self,
        tree: Tree,
        names: Names,
        creations: Iterable[cst.Call],
        sites: Iterable[cst.Call],
        neighbours: Neighbours | None = None,
    ) -> None:
        self.tree, self.names, self.neighbours = tree, names, neighbours
        self.sites = tuple(sites)
        self.conditions = Conditions(tree, names)
        self.creation_sites = self._creation_sites(creations)
        self.creations = frozenset(creations)
        self._holding: dict[cst.CSTNode, bool] = {}

    def read(self) -> Stepping | Problem:
        try:
            return self._read()
        except Unclear as unclear:
            return unclear.problem

    # -- the way outwards -----------------------------------------------------------------

    def _creation_sites(self, creations: Iterable[cst.Call]) -> set[cst.CSTNode]:
        """The creating calls, and the calls of functions that create: `Trainer(...)`."""
        found: set[cst.CSTNode] = set(creations)
        queue = list(found)
        while queue:
            function = self.tree.function(queue.pop())
            for call in self.names.callers.get(function, ()):
                if call not in found:
                    found.add(call)
                    queue.append(call)
        return found

    def _makes_optimizer(self, node: cst.CSTNode) -> bool:
        return any(self.tree.is_within(site, node) for site in self.creation_sites)

    def _makes_all_anew(self, loop: cst.CSTNode) -> bool:
        """Every pass of the loop makes the optimizer, whatever happens in it."""
        sites = [s for s in self.creation_sites if self.tree.is_within(s, loop)]
        direct = [c for c in self.creations if not any(self.tree.is_within(s, loop) for s in (c,))]
        outside = [c for c in direct if not self._reached_from(c, sites)]
        conditional = [
            s for s in sites
            if any(
                isinstance(a, cst.If) and self.tree.is_within(a, loop) and a is not loop
                for a in self.tree.ancestors(s)
            )
        ]
        return not outside and len(conditional) < len(sites)

    def _reached_from(self, creation: cst.Call, sites: list[cst.CSTNode]) -> bool:
        """Whether one of the calls runs the function that makes the optimizer."""
        function = self.tree.function(creation)
        return any(
            isinstance(s, cst.Call) and self.names.callee(s) is function for s in sites
        )

    def _outwards(self, site: cst.Call) -> tuple[list[Frame], list[tuple[cst.CSTNode, int]]]:
        """The functions around a step, inner first, and the loops with the frame of each."""
        frames: list[Frame] = []
        loops: list[tuple[cst.CSTNode, int]] = []
        node: cst.CSTNode = site
        while True:
            depth = len(frames)
            for ancestor in self.tree.ancestors(node):
                if isinstance(ancestor, cst.BaseComp):
                    raise Unclear("comprehension", ancestor)
                if isinstance(ancestor, LOOPS):
                    if not self._makes_optimizer(ancestor):
                        loops.append((ancestor, depth))
                    elif not self._makes_all_anew(ancestor):
                        raise Unclear("made-again", ancestor)
                if isinstance(ancestor, (cst.FunctionDef, cst.Lambda, cst.Module)):
                    function = ancestor
                    break
            if any(frame.function is function for frame in frames):
                raise Unclear("recursion", function)
            call = None if self._holds_creation(function) else self._one_caller(function, site)
            frames.append(Frame(function, call))
            if call is None:
                return frames, loops
            node = call

    def _holds_creation(self, function: cst.CSTNode) -> bool:
        return isinstance(function, cst.Module) or any(
            self.tree.function(site) is function for site in self.creation_sites
        )

    def _one_caller(self, function: cst.CSTNode, site: cst.Call) -> cst.Call | None:
        callers = [
            c
            for c in self.names.callers.get(function, ())
            if self.conditions.can_reach(site, Frame(function, c), self.creations)
        ]
        if len(callers) > 1:
            inner = [c for c in callers if not self.tree.is_within(c, function)]
            raise Unclear("several-callers", inner[-1] if inner else callers[-1])
        return callers[0] if callers else None

    # -- reading --------------------------------------------------------------------------

    def _read(self) -> Stepping:
        found = [self._outwards(site) for site in self.sites]
        chains = [loops for _, loops in found]
        if any(not loops for loops in chains):
            site = next(s for s, (_, loops) in zip(self.sites, found) if not loops)
            raise Unclear("no-loop", site)
        inner = {loops[0][0] for loops in chains}
        if len(inner) > 1:
            raise Unclear("several-loops", sorted(inner, key=self.tree.order.__getitem__)[1])
        frames, loops = found[0]
        start = loops[0][1]
        frames = frames[start:]
        loops = [(node, depth - start) for node, depth in loops]
        batch_node = loops[0][0]
        if isinstance(batch_node, cst.While):
            raise Unclear("while", batch_node)
        slot = self._slot(statements_of(batch_node.body), frames[0], batch_node)
        if slot is None:
            raise Unclear("no-loop", self.sites[0])
        outer = self._without_phases(loops[1:], slot, batch_node, frames)
        if len(outer) > 1:
            raise Unclear("nested-loops", outer[1][0])
        batches = self._loop(batch_node, 0)
        epochs = self._epochs(*outer[0]) if outer else None
        if epochs is None and not self._runs_once(frames, batches):
            raise Unclear("no-epochs", batch_node)
        if epochs is not None:
            self._check_every_epoch(batch_node, epochs.node, frames)
        boundary, guards = self._boundary(slot, batches, epochs)
        batches, limit, stops = self._limited(batches, slot, epochs, boundary)
        if epochs is not None:
            early = self._leaves(epochs.node, frames)
        else:  # one loop over everything: leaving it after a step ends the run
            last = self.tree.order[slot.leaves[-1]]
            early = [s for s in stops if self.tree.order[s] > last]
            stops = [s for s in stops if s not in early]
        return Stepping(
            frames=tuple(frames),
            sites=self.sites,
            anchors=slot.anchors,
            deep=slot.deep,
            leaves=slot.leaves,
            batches=batches,
            epochs=epochs,
            boundary=boundary,
            limit=limit,
            early_stops=tuple(e for e in early if limit is None),
            skips=(*guards, *stops),
        )

    def _runs_once(self, frames: list[Frame], batches: Loop) -> bool:
        """A single loop is the whole training where it counts steps or stands in the main flow."""
        outermost = frames[-1].function
        by_number = str(batches.count.parts[0]) != "len("
        return by_number or isinstance(outermost, cst.Module) or self._holds_creation(outermost)

    def _without_phases(
        self,
        loops: list[tuple[cst.CSTNode, int]],
        slot: _Slot,
        batch_node: cst.For,
        frames: list[Frame],
    ) -> list[tuple[cst.CSTNode, int]]:
        """Drop `for phase in ["train", "val"]` loops: one pass of them trains."""
        kept = []
        for node, depth in loops:
            if isinstance(node, cst.For) and self.conditions.literals(node.iter) is not None:
                around = self._conditions_between(batch_node, node, frames)
                if not self._fixes_phase(node, [*slot.conditions, *around]):
                    raise Unclear("nested-loops", node)
                continue
            kept.append((node, depth))
        return kept

    def _fixes_phase(self, loop: cst.For, conditions: list[Condition]) -> bool:
        values = self.conditions.literals(loop.iter) or []
        name = self.tree.code(loop.target)
        alive = [
            value
            for value in values
            if all(
                self.conditions.truth(test, {name: value}) is not negated
                for test, negated, _ in conditions
            )
        ]
        self.conditions.phase = (name, alive[0]) if len(alive) == 1 else None
        return len(alive) == 1

    def _conditions_between(
        self, inner: cst.CSTNode, outer: cst.CSTNode, frames: list[Frame]
    ) -> list[Condition]:
        """The conditions under which the inner loop runs in a pass of the outer one."""
        found: list[Condition] = []
        node = inner
        for frame in frames:
            below = node
            for ancestor in self.tree.ancestors(node):
                if ancestor is outer:
                    return found
                if isinstance(ancestor, cst.If) and below is not ancestor.test:
                    known = self.conditions.truth(ancestor.test, {}, frame)
                    if known is None:
                        found.append((ancestor.test, below is not ancestor.body, frame))
                if ancestor is frame.function:
                    break
                below = ancestor
            if frame.call is None:
                return found
            node = frame.call
        return found

    def _check_every_epoch(
        self, inner: cst.CSTNode, outer: cst.CSTNode, frames: list[Frame]
    ) -> None:
        """Every pass of the loop over epochs must train: no condition that changes with it."""
        for test, _, _ in self._conditions_between(inner, outer, frames):
            if self._is_phase(test):
                continue
            if self.conditions.changes_within(test, outer):
                raise Unclear("condition", test, self.tree.code(test))
        top = self._statement_within(inner, outer, frames)
        for jump in self.tree.all(cst.Continue):
            loop = next(a for a in self.tree.ancestors(jump) if isinstance(a, LOOPS))
            if loop is outer and self.tree.order[jump] < self.tree.order[top]:
                tested = next((a.test for a in self.tree.ancestors(jump) if isinstance(a, cst.If)), jump)
                raise Unclear("condition", jump, self.tree.code(tested))

    def _statement_within(
        self, inner: cst.CSTNode, outer: cst.CSTNode, frames: list[Frame]
    ) -> cst.CSTNode:
        """The inner loop, or the call that leads to it, where it stands in the outer loop."""
        node = inner
        for frame in frames:
            if self.tree.is_within(node, outer) or frame.call is None:
                return node
            node = frame.call
        return node

    def _is_phase(self, test: cst.BaseExpression) -> bool:
        if self.conditions.phase is None:
            return False
        name, value = self.conditions.phase
        return self.conditions.truth(test, {name: value}) is not None

    # -- the place of the step in the loop's body -------------------------------------------

    def _contains_step(self, node: cst.CSTNode) -> bool:
        if node not in self._holding:
            self._holding[node] = False
            self._holding[node] = any(
                n in self.sites or self._calls_step(n)
                for n in walk(node)
                if isinstance(n, cst.Call)
            )
        return self._holding[node]

    def _calls_step(self, call: cst.Call) -> bool:
        function = self.names.callee(call)
        if function is None or not self._contains_step(function.body):
            return False
        frame = Frame(function, call)
        return any(
            self.conditions.can_reach(site, frame, self.creations)
            for site in self.sites
            if self.tree.is_within(site, function) or self._contains_step(function.body)
        )

    def _slot(
        self, statements: Iterable[cst.CSTNode], frame: Frame, loop: cst.For | None = None
    ) -> _Slot | None:
        """loop: the batch loop, where the statements are its own body or a block in it."""
        found: list[_Slot] = []
        jumps: list[Condition] = []
        for statement in statements:
            if self._contains_step(statement):
                slot = self._slot_of(statement, frame, loop)
                if slot is not None:
                    found.append(slot)
            elif not found:
                jumps += self._jumps(statement, frame, loop)
        if len(found) > 1:
            raise Unclear("steps-twice", found[1].leaves[0])
        return replace(found[0], conditions=(*jumps, *found[0].conditions)) if found else None

    def _jumps(
        self, statement: cst.CSTNode, frame: Frame, loop: cst.For | None
    ) -> list[Condition]:
        """`if test: continue` before the step: the step happens where the test fails."""
        jumps = [n for n in walk(statement) if self._leaves_batch(n, frame, loop)]
        if not jumps:
            return []
        if isinstance(statement, cst.If) and len(jumps) == 1:
            for body, negated in ((statement.body, True), (self._else_body(statement), False)):
                last = list(statements_of(body))[-1] if body is not None else None
                if last is jumps[0]:
                    return [(statement.test, negated, frame)]
        test = next(
            (a.test for a in self.tree.ancestors(jumps[0]) if isinstance(a, cst.If)), jumps[0]
        )
        raise Unclear("condition", test, self.tree.code(test))

    def _else_body(self, statement: cst.If) -> cst.CSTNode | None:
        return statement.orelse.body if isinstance(statement.orelse, cst.Else) else None

    def _leaves_batch(self, node: cst.CSTNode, frame: Frame, loop: cst.For | None) -> bool:
        if isinstance(node, cst.Continue):
            inner = next(a for a in self.tree.ancestors(node) if isinstance(a, LOOPS))
            return inner is loop
        return loop is None and isinstance(node, cst.Return) and (
            self.tree.function(node) is frame.function
        )

    def _slot_of(
        self, statement: cst.CSTNode, frame: Frame, loop: cst.For | None
    ) -> _Slot | None:
        if isinstance(statement, cst.BaseSmallStatement):
            return self._leaf(statement, frame)
        if isinstance(statement, cst.If):
            return self._branches(statement, frame, loop)
        if isinstance(statement, cst.With):
            return self._slot(statements_of(statement.body), frame, loop)
        if isinstance(statement, cst.Try):
            return self._attempt(statement, frame, loop)
        if isinstance(statement, LOOPS):
            raise Unclear("several-loops", statement)
        if isinstance(statement, cst.FunctionDef):
            return None  # a closure: its call is what counts
        raise Unclear("condition", statement, self.tree.code(statement).split("\n", 1)[0])

    def _leaf(self, statement: cst.CSTNode, frame: Frame) -> _Slot:
        calls = [n for n in walk(statement) if isinstance(n, cst.Call)]
        direct = [c for c in calls if c in self.sites]
        hidden = [c for c in calls if c not in self.sites and self._calls_step(c)]
        if len(direct) + len(hidden) > 1:
            raise Unclear("steps-twice", statement)
        for call in (*direct, *hidden):
            for ancestor in self.tree.ancestors(call):
                if ancestor is statement:
                    break
                if isinstance(ancestor, (cst.IfExp, cst.BooleanOperation, cst.Lambda, cst.CompFor)):
                    raise Unclear("condition", statement, self.tree.code(statement))
        if direct:
            return _Slot((statement,), (statement,), deep=(statement,))
        function = self.names.callee(hidden[0])
        inner = self._slot(statements_of(function.body), Frame(function, hidden[0]))
        if inner is None:
            raise Unclear("condition", statement, self.tree.code(statement))
        return replace(inner, anchors=(statement,))

    def _branches(
        self, statement: cst.If, frame: Frame, loop: cst.For | None
    ) -> _Slot | None:
        left = self._side(statement.body, frame, loop)
        right = None
        if statement.orelse is not None:
            below = statement.orelse
            right = (
                self._branches(below, frame, loop)
                if isinstance(below, cst.If)
                else self._side(below.body, frame, loop)
            )
        known = self.conditions.truth(statement.test, {}, frame)
        if known is not None:
            return left if known else right
        if left is not None and right is not None:
            if self._same(left, right):
                anchors = (statement,) if not left.conditions else (*left.anchors, *right.anchors)
                leaves = (*left.leaves, *right.leaves)
                deep = (statement,) if not left.conditions else (*left.deep, *right.deep)
                same = {self.tree.function(x) for x in (*left.deep, *right.deep)}
                if same != {self.tree.function(statement)}:
                    deep = (*left.deep, *right.deep)
                return _Slot(anchors, leaves, left.conditions, deep)
            raise Unclear("uneven-branches", statement)
        one = left or right
        if one is None:
            return None
        condition = (statement.test, one is right, frame)
        return replace(one, conditions=(condition, *one.conditions))

    def _side(self, body: cst.CSTNode, frame: Frame, loop: cst.For | None) -> _Slot | None:
        return self._slot(statements_of(body), frame, loop) if self._contains_step(body) else None

    def _same(self, left: _Slot, right: _Slot) -> bool:
        def text(slot: _Slot) -> list[tuple[str, bool]]:
            return [(self.tree.plain(test), negated) for test, negated, _ in slot.conditions]

        return text(left) == text(right)

    def _attempt(
        self, statement: cst.Try, frame: Frame, loop: cst.For | None
    ) -> _Slot | None:
        sides = [statement.body, *(h.body for h in statement.handlers)]
        slots = [s for s in (self._side(side, frame, loop) for side in sides) if s is not None]
        if len(slots) > 1 and any(not self._same(slots[0], other) for other in slots[1:]):
            raise Unclear("uneven-branches", statement)
        rest = [
            self._slot(statements_of(part.body), frame, loop)
            for part in (statement.orelse, statement.finalbody)
            if part is not None and self._contains_step(part.body)
        ]
        slots += [s for s in rest if s is not None]
        if not slots:
            return None
        if len(slots) == 1:
            return slots[0]
        return _Slot(
            tuple(a for s in slots for a in s.anchors),
            tuple(x for s in slots for x in s.leaves),
            slots[0].conditions,
            tuple(d for s in slots for d in s.deep),
        )

    # -- how often --------------------------------------------------------------------------

    def _boundary(
        self, slot: _Slot, batches: Loop, epochs: Loop | None
    ) -> tuple[Boundary, list[cst.CSTNode]]:
        boundary, guards = Boundary(), []
        over = batches.count.parts[1] if batches.count.parts[0] == "len(" else None
        for condition in (c for found in slot.conditions for c in _conjuncts(found)):
            test, negated, frame = condition
            if self._is_phase(test):
                continue
            found = self.conditions.accumulation(
                test, negated, batches.node, epochs.node if epochs else None, frame, over
            )
            if found is not None and boundary.kind == "every":
                boundary = found
            elif found is None and self.conditions.is_guard(test, batches.node):
                guards.append(test)
            else:
                raise Unclear("condition", test, self.tree.code(test))
        return boundary, guards

    def _limited(
        self, loop: Loop, slot: _Slot, epochs: Loop | None, boundary: Boundary
    ) -> tuple[Loop, Count | None, list[cst.CSTNode]]:
        """Take `if i >= 100: break` into the count; other breaks only end an epoch early.

        Returns the loop, a limit on all steps of the run, and the breaks that are neither.
        """
        stops, total = [], None
        for found in self._breaks(loop.node):
            outer = epochs.node if epochs is not None else None
            if self._by_option(found):
                continue
            limit = self.conditions.break_limit(found, loop.node, outer, slot.leaves[0])
            if limit is None:
                stops.append(found)
                continue
            bound, extra, over_epochs = limit
            text = f" {'+' if extra > 0 else '-'} {abs(extra)}" if extra else ""
            if boundary.kind != "every" or loop.count.parts[0] == "min(" or total is not None:
                raise Unclear("condition", bound, "break at " + self.tree.code(bound))
            if not over_epochs:
                parts = ("min(", *loop.count.parts, ", ", bound, text, ")")
                loop = replace(loop, count=Count(parts, loop.count.frame))
            elif epochs is not None and self._breaks_too(found, epochs.node):
                total = Count((bound, text), 0)
            else:
                raise Unclear("condition", bound, "break at " + self.tree.code(bound))
        return loop, total, stops

    def _by_option(self, stop: cst.CSTNode) -> bool:
        """`if args.dry_run: break`: a run of its own kind, asked for by hand."""
        tested = next((a.test for a in self.tree.ancestors(stop) if isinstance(a, cst.If)), None)
        return isinstance(tested, cst.Attribute) and not self.conditions.changes_within(
            tested, next(a for a in self.tree.ancestors(stop) if isinstance(a, LOOPS))
        )

    def _breaks_too(self, inner: cst.Break, loop: cst.CSTNode) -> bool:
        """The loop over epochs ends by the same test as the loop over batches."""
        tested = next(a for a in self.tree.ancestors(inner) if isinstance(a, cst.If))
        wanted = self.tree.plain(tested.test)
        return any(
            self.tree.plain(a.test) == wanted
            for found in self._breaks(loop)
            for a in self.tree.ancestors(found)
            if isinstance(a, cst.If)
        )

    def _breaks(self, loop: cst.CSTNode) -> list[cst.CSTNode]:
        return [
            b
            for b in self.tree.all(cst.Break)
            if self.tree.is_within(b, loop.body)
            and next(a for a in self.tree.ancestors(b) if isinstance(a, LOOPS)) is loop
        ]

    def _leaves(self, loop: cst.CSTNode, frames: list[Frame]) -> list[cst.CSTNode]:
        """Breaks and returns that may end the loop over epochs before its last pass."""
        function = self.tree.function(loop)
        returns = [
            r
            for r in self.tree.all(cst.Return)
            if self.tree.is_within(r, loop.body) and self.tree.function(r) is function
        ]
        found = [s for s in (*self._breaks(loop), *returns) if not self._by_option(s)]
        return sorted(found, key=self.tree.order.__getitem__)

    # -- numbers of iterations ----------------------------------------------------------------

    def _epochs(self, node: cst.CSTNode, depth: int) -> Loop:
        if isinstance(node, cst.While):
            raise Unclear("while", node)
        iterated = self._unwrapped(node.iter, node)
        if not self._is_range(iterated):
            raise Unclear("epochs", node, self.tree.code(node.iter))
        starts = [a.value for a in iterated.args][:-1]
        resumes = bool(starts) and not isinstance(starts[0], cst.Integer)
        resumes = resumes and not self._reads_same(starts[0], iterated.args[1].value)
        first = self._initial(starts[0]) if resumes else None
        start = Count((starts[0], f" - {first}" if first else ""), depth) if resumes else None
        return Loop(node, depth, self._range(iterated, depth, whole=True), start)

    def _loop(self, node: cst.For, depth: int) -> Loop:
        return Loop(node, depth, self._count(node.iter, depth, node))

    def _count(self, iterated: cst.BaseExpression, depth: int, loop: cst.CSTNode) -> Count:
        iterated = self._unwrapped(iterated, loop)
        if self._is_range(iterated):
            return self._range(iterated, depth, whole=False)
        if isinstance(iterated, cst.Call):
            name = self.names.dotted(iterated.func) or ""
            if name == "zip" and iterated.args:
                return self._zip(iterated, depth, loop)
            if name in ("itertools.islice", "islice") and len(iterated.args) == 2:
                inner = self._count(iterated.args[0].value, depth, loop)
                limit = iterated.args[1].value
                return Count(("min(", *inner.parts, ", ", limit, ")"), depth)
            raise Unclear("unknown-length", iterated, self.tree.code(iterated))
        self._require_length(iterated, loop)
        return Count(("len(", iterated, ")"), depth, self._phase_as_code())

    def _phase_as_code(self) -> tuple[tuple[str, str], ...]:
        if self.conditions.phase is None:
            return ()
        name, value = self.conditions.phase
        return ((name, f'"{value}"' if isinstance(value, str) else repr(value)),)

    def _zip(self, call: cst.Call, depth: int, loop: cst.CSTNode) -> Count:
        counts = []
        for argument in call.args:
            if argument.keyword is not None or argument.star:
                raise Unclear("unknown-length", call, self.tree.code(call))
            value = argument.value
            if isinstance(value, cst.Call) and self.names.dotted(value.func) in (
                "itertools.cycle", "cycle", "itertools.count", "itertools.repeat",
            ):
                continue
            counts.append(self._count(value, depth, loop))
        if not counts:
            raise Unclear("unknown-length", call, self.tree.code(call))
        if len(counts) == 1:
            return counts[0]
        parts: list[str | cst.CSTNode] = ["min("]
        for index, count in enumerate(counts):
            parts += [", "] if index else []
            parts += count.parts
        return Count((*parts, ")"), depth)

    def _unwrapped(self, node: cst.BaseExpression, loop: cst.CSTNode) -> cst.BaseExpression:
        """Look through enumerate, progress bars, list() and names given to those."""
        for _ in range(8):
            if isinstance(node, cst.IfExp):
                arms = [self._unwrapped(arm, loop) for arm in (node.body, node.orelse)]
                if self.tree.plain(arms[0]) != self.tree.plain(arms[1]):
                    raise Unclear("unknown-length", node, self.tree.code(node))
                return arms[0]
            if isinstance(node, cst.Call) and node.args and not self._is_range(node):
                name = self.names.dotted(node.func) or self.tree.code(node.func)
                if name in ("enumerate", "list", "tuple", "reversed", "sorted", "iter") or (
                    _PROGRESS.search(name)
                ):
                    node = next(
                        (a.value for a in node.args if a.keyword and a.keyword.value == "iterable"),
                        node.args[0].value,
                    )
                    continue
            source = wrapped_source(self.tree, self.names, node, loop)
            if source is None:
                return node
            node = source
        return node

    def _is_range(self, node: cst.CSTNode) -> bool:
        if not isinstance(node, cst.Call):
            return False
        name = self.names.dotted(node.func) or ""
        return name == "range" or name.endswith("trange")

    def _range(self, call: cst.Call, depth: int, whole: bool) -> Count:
        """The length of a range; of the whole training where a variable start means a resume."""
        values = [a.value for a in call.args if a.keyword is None and not a.star]
        if len(values) == 1:
            return Count((values[0],), depth)
        if not 2 <= len(values) <= 3:
            raise Unclear("unknown-length", call, self.tree.code(call))
        if len(values) == 3:
            return Count(("len(", call, ")"), depth)
        start, stop = values
        if isinstance(start, cst.Integer):
            return self._difference(start.evaluated_value, stop, depth)
        if not whole:
            return Count(("len(", call, ")"), depth)
        if self._reads_same(start, stop):
            return self._from_there(call, start, stop, depth)
        first = self._initial(start)
        if first is not None:
            return self._difference(first, stop, depth)
        if isinstance(stop, cst.BinaryOperation):  # epochs, or one less? the start would tell
            raise Unclear("epochs", call, self.tree.code(call))
        return Count((stop,), depth)

    def _from_there(
        self, call: cst.Call, start: cst.BaseExpression, stop: cst.BaseExpression, depth: int
    ) -> Count:
        """`range(start, start + n)` as n."""
        if isinstance(stop, cst.BinaryOperation) and isinstance(stop.operator, cst.Add):
            for one, other in ((stop.left, stop.right), (stop.right, stop.left)):
                if self.tree.plain(one) == self.tree.plain(start):
                    return Count((other,), depth)
        return Count(("len(", call, ")"), depth)

    def _initial(self, start: cst.BaseExpression) -> int | None:
        """The number that a start variable has where nothing is resumed."""
        variable = self.names.variable(start)
        found = self.names.assignments.get(variable, ()) if variable is not None else ()
        literals = {a.value.evaluated_value for a in found if isinstance(a.value, cst.Integer)}
        return literals.pop() if len(literals) == 1 else None

    def _difference(self, first: int, stop: cst.BaseExpression, depth: int) -> Count:
        if first == 0:
            return Count((stop,), depth)
        if isinstance(stop, cst.Integer):
            return Count((str(stop.evaluated_value - first),), depth)
        if (
            isinstance(stop, cst.BinaryOperation)
            and isinstance(stop.operator, cst.Add)
            and isinstance(stop.right, cst.Integer)
            and stop.right.evaluated_value == first
        ):
            return Count((stop.left,), depth)
        return Count((stop, f" - {first}"), depth)

    def _reads_same(self, start: cst.CSTNode, stop: cst.CSTNode) -> bool:
        """`range(start, start + n)`: the loop runs n times from wherever it begins."""
        code = self.tree.plain(start)
        return any(self.tree.plain(n) == code for n in walk(stop) if type(n) is type(start))

    # -- does it have a length -----------------------------------------------------------------

    def _require_length(self, node: cst.BaseExpression, loop: cst.CSTNode) -> None:
        if isinstance(node, (cst.List, cst.Tuple)):
            return
        kind = self.length_kind(node)
        if kind == "iterable":
            raise Unclear("iterable-dataset", loop, self.tree.code(node))
        if kind is None:
            raise Unclear("unknown-length", loop, self.tree.code(node))

    def length_kind(self, node: cst.BaseExpression) -> str | None:
        """"sized" where len() is known to work, "iterable" where it is known to raise."""
        made = (*self.names.creations(node), *self._in_dict(node))
        kinds = {self._made_kind(call) for call in made}
        if "iterable" in kinds:
            return "iterable"
        if "sized" in kinds:
            return "sized"
        if self._annotated_loader(node) or self._measured(node) or self._is_list(node):
            return "sized"
        return self._neighbour_kind(node)

    def _made_kind(self, call: cst.Call) -> str | None:
        """What `length_kind` says of what one call makes."""
        owner = self.names.local_class(call.func)
        if owner is not None and self.names.method(owner, "__len__") is not None:
            return "sized"
        if not LOADER.search(self._constructor(call)):
            return None
        data = call.args[0].value if call.args else None
        made = self.names.creations(data) if data is not None else ()
        return "iterable" if any(map(self._is_iterable_dataset, made)) else "sized"

    def _in_dict(self, node: cst.BaseExpression) -> list[cst.Call]:
        """The calls that made the values of `loaders` in `loaders[phase]`, a dict in this file."""
        if not isinstance(node, cst.Subscript):
            return []
        variable = self.names.variable(node.value)
        found: list[cst.Call] = []
        for assignment in self.names.assignments.get(variable, ()) if variable else ():
            value = assignment.value
            if isinstance(value, cst.DictComp):
                found += self.names.creations(value.value)
            elif isinstance(value, cst.Dict):
                for element in value.elements:
                    found += self.names.creations(element.value)
            else:
                return []
        return found

    def _is_list(self, node: cst.BaseExpression) -> bool:
        """A variable that is only ever bound to a list."""
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        makers = ("list", "sorted", "tuple", "torch.split", "torch.chunk")
        return bool(found) and all(
            isinstance(a.value, (cst.List, cst.Tuple, cst.ListComp))
            or isinstance(a.value, cst.Call) and self.names.dotted(a.value.func) in makers
            for a in found
            if a.index is None
        ) and all(a.index is None and a.kind == "assign" for a in found)

    def _neighbour_kind(self, node: cst.BaseExpression) -> str | None:
        """What other files of the repository say of a loader that they make."""
        if self.neighbours is None:
            return None
        questions = [(call, index, None) for call, index in self.names.foreign_calls(node)]
        if isinstance(node, cst.Attribute):
            questions += [
                (call, None, node.attr.value)
                for call, index in self.names.foreign_calls(node.value)
                if index is None
            ]
        kinds = set()
        for call, index, attribute in questions:
            dotted = self.names.dotted(call.func)
            if dotted is None and isinstance(call.func, cst.Attribute):  # data.train_loader()
                owners = self.names.foreign_calls(call.func.value)
                dotted = self.names.dotted(owners[0][0].func) if len(owners) == 1 else None
                attribute = f"{call.func.attr.value}()"
            kinds.add(self.neighbours.loader(dotted, index, attribute) if dotted else None)
        return kinds.pop() if len(kinds) == 1 else None

    def _constructor(self, call: cst.Call) -> str:
        owner = self.names.local_class(call.func)
        if owner is not None:
            bases = [self.names.dotted(b.value) or "" for c in self.names.hierarchy(owner) for b in c.bases]
            return next((b for b in bases if LOADER.search(b)), "")
        return self.names.dotted(call.func) or ""

    def _is_iterable_dataset(self, call: cst.Call) -> bool:
        owner = self.names.local_class(call.func)
        if owner is None or self.names.method(owner, "__len__") is not None:
            return False
        return any(
            (self.names.dotted(base.value) or "").endswith("IterableDataset")
            for item in self.names.hierarchy(owner)
            for base in item.bases
        )

    def _annotated_loader(self, node: cst.CSTNode) -> bool:
        variable = self.names.variable(node)
        for wanted in {variable} | self._passed_as(variable):
            if wanted is None or not isinstance(wanted.scope, cst.FunctionDef):
                continue
            parameters = (*wanted.scope.params.params, *wanted.scope.params.kwonly_params)
            for p in parameters:
                if p.name.value == wanted.name and p.annotation is not None:
                    if re.search(r"\bDataLoader\b", self.tree.code(p.annotation.annotation)):
                        return True
        return False

    def _measured(self, node: cst.CSTNode) -> bool:
        """The script itself takes len() of the same variable somewhere."""
        variable = self.names.variable(node)
        wanted = {variable} | self._passed_as(variable)
        for call in self.tree.all(cst.Call):
            if (
                isinstance(call.func, cst.Name)
                and call.func.value == "len"
                and len(call.args) == 1
            ):
                measured = self.names.variable(call.args[0].value)
                if measured is not None and measured in wanted:
                    return True
        return False

    def _passed_as(self, variable: object) -> set:
        """Variables of callers that are passed for this parameter."""
        scope = getattr(variable, "scope", None)
        if not isinstance(scope, cst.FunctionDef):
            return set()
        values = self.names.parameter_values(scope, variable.name)
        return {v for v in map(self.names.variable, values) if v is not None}
