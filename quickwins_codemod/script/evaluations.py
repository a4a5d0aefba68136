"""Forward passes of validation and test, of the models that a script trains."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.forwards import Forwards, TrainingStep
from quickwins_codemod.script.names import Variable, names_in
from quickwins_codemod.script.tree import LOOPS, statements_of, walk

_NO_GRADIENT = re.compile(r"\b(no_grad|inference_mode|set_grad_enabled\(\s*(mode\s*=\s*)?False)")
#: Methods of a model that run it, beside forward().
_RUNS = re.compile(r"predict|score|logits|encode|decode|loss|forward", re.IGNORECASE)
#: Calls that keep what they are given, beyond the region.
_KEEPERS = {"append", "extend", "add", "update", "put", "save", "insert", "dump"}


@dataclass(frozen=True)
class Evaluation:
    """A run of statements with a forward pass that is no training, and its losses.

    halves: values that leave it in half precision. device: as code, where it is known there.
    why: what rules the region out.
    """

    statements: tuple[cst.CSTNode, ...]
    halves: tuple[cst.BaseExpression, ...]
    device: str
    why: str | None = None


class Evaluations:
    """Finds the evaluation of models that some training steps train."""

    def __init__(self, script: Script, forwards: Forwards, steps: Iterable[TrainingStep]) -> None:
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.forwards, self.order = forwards, script.tree.order
        self.steps = tuple(steps)
        self.trained = {
            root
            for step in self.steps
            for stepped in step.steps
            for node in forwards.optimized_models(stepped.training.optimizer)
            for root in self._roots(node)
        }

    def find(self) -> list[Evaluation]:
        """Every region, in source order; the outer one where one lies in another."""
        blocks: dict[cst.CSTNode, list[cst.Call]] = {}
        for call in self.tree.all(cst.Call):
            if self._runs(call) and self._is_evaluation(call):
                if self._models_of(call) & self.trained and not self._evaluates_itself(call):
                    block = self.tree.block(self.forwards.whole(call))
                    blocks.setdefault(block, []).append(call)
        found = [(self._region(block, calls), calls) for block, calls in blocks.items()]
        outer = [
            (e, calls) for e, calls in found
            if not any(
                other is not e
                and any(self.tree.is_within(e.statements[0], s) for s in other.statements)
                for other, _ in found
            )
        ]
        wrapped = {s for e, _ in outer if e.why is None for s in e.statements}
        return [self._complete(e, calls, wrapped) for e, calls in outer]

    def _complete(
        self, evaluation: Evaluation, calls: Sequence[cst.Call], wrapped: set[cst.CSTNode]
    ) -> Evaluation:
        """The region with the values that leave it, as far as it is known what they are."""
        if evaluation.why is not None:
            return evaluation
        halves = tuple(self._halves(evaluation.statements, calls, wrapped))
        for call in calls:
            if not self._is_direct(call) and self._holds_loop(call):
                why = "the function that is called there holds a loop of its own"
                return replace(evaluation, why=why)
        if any(self._is_unknown(value, calls, evaluation.statements) for value in halves):
            return replace(evaluation, why="the kind of a value that leaves it is not known")
        return replace(evaluation, halves=halves)

    def _runs(self, call: cst.Call) -> bool:
        if not self.forwards.is_forward(call):
            return False
        if self._is_direct(call) or self.names.callee(call) is not None:
            return True
        return isinstance(call.func, cst.Attribute) and bool(_RUNS.search(call.func.attr.value))

    def _is_direct(self, call: cst.Call) -> bool:
        """`model(x)` or `model.forward(x)`, which gives a tensor, or several."""
        func = call.func
        if isinstance(func, cst.Attribute) and func.attr.value == "forward":
            func = func.value
        return self.forwards.is_model(func) and self.names.callee(call) is None and not (
            isinstance(func, cst.Attribute) and self._model(func) is None and bool(
                _RUNS.search(func.attr.value)
            )
        )

    def _holds_loop(self, call: cst.Call) -> bool:
        helper = self.names.callee(call)
        return helper is not None and any(isinstance(n, LOOPS) for n in walk(helper.body))

    def _is_unknown(
        self,
        value: cst.BaseExpression,
        calls: Sequence[cst.Call],
        statements: Sequence[cst.CSTNode],
    ) -> bool:
        """A value that may be no tensor of numbers: of a helper, or one of several."""
        if isinstance(value, cst.Call):
            return not self._is_direct(value)
        names = {n.value for n in names_in(value)}
        for node in (n for s in statements for n in walk(s)):
            if isinstance(node, cst.Assign) and any(self.tree.is_within(c, node) for c in calls):
                bound = {n.value for t in node.targets for n in names_in(t.target)}
                several = any(isinstance(t.target, (cst.Tuple, cst.List)) for t in node.targets)
                direct = all(self._is_direct(c) for c in calls if self.tree.is_within(c, node))
                if bound & names and (several or not direct):
                    return True
        return False

    # -- which models ----------------------------------------------------------------------------

    def _roots(self, node: cst.BaseExpression, depth: int = 0) -> set[Variable]:
        """The variables that a model goes by, through parameters and other names."""
        while self._model(node) is None:
            if not isinstance(node, (cst.Attribute, cst.Subscript)):
                return set()
            node = node.value
        variable = self._model(node)
        found = {variable}
        values = [a.value for a in self.names.assignments.get(variable, ()) if a.index is None]
        if isinstance(variable.scope, cst.FunctionDef):
            values += self.names.parameter_values(variable.scope, variable.name)
        for value in values:
            if isinstance(value, cst.Call):
                value = self._wrapped(value)
            if value is not None and depth < 6:
                found |= self._roots(value, depth + 1)
        return found

    def _model(self, node: cst.BaseExpression) -> Variable | None:
        variable = self.names.variable(node)
        return variable if variable is not None and self.forwards.names_model(variable) else None

    def _wrapped(self, call: cst.Call) -> cst.BaseExpression | None:
        """The model in `model.to(device)` and `DistributedDataParallel(model)`."""
        if isinstance(call.func, cst.Attribute) and call.func.attr.value in ("to", "cuda", "train"):
            return call.func.value
        name = self.tree.code(call.func).rpartition(".")[2]
        wraps = name in ("DistributedDataParallel", "DDP", "compile") and bool(call.args)
        return call.args[0].value if wraps else None

    def _models_of(self, call: cst.Call, depth: int = 0) -> set[Variable]:
        """The models that a forward pass runs, also those of a helper."""
        found = self._roots(call.func)
        for argument in call.args:
            found |= self._roots(argument.value)
        helper = self.names.callee(call)
        if helper is not None and depth < 4:
            for node in walk(helper.body):
                if isinstance(node, cst.Call) and not self.forwards.is_plain_method(node):
                    found |= self._models_of(node, depth + 1)
        return found

    # -- which calls -----------------------------------------------------------------------------

    def _evaluates_itself(self, call: cst.Call) -> bool:
        """A helper that turns gradients off itself has regions of its own."""
        helper = self.names.callee(call)
        if helper is None:
            return False
        code = self.tree.code(helper)
        return bool(_NO_GRADIENT.search(code)) or ".eval()" in code

    def _is_evaluation(self, call: cst.Call) -> bool:
        function, quiet = self.tree.function(call), False
        for ancestor in self.tree.ancestors(call):
            if isinstance(ancestor, cst.With):
                items = [i.item for i in ancestor.items]
                if any(isinstance(i, cst.Call) and self.forwards.is_autocast(i) for i in items):
                    return False
                quiet = quiet or any(_NO_GRADIENT.search(self.tree.code(i)) for i in items)
            if ancestor is function:
                break
        for decorator in getattr(function, "decorators", ()):
            node = decorator.decorator
            if isinstance(node, cst.Call) and self.forwards.is_autocast(node):
                return False
            quiet = quiet or bool(_NO_GRADIENT.search(self.tree.code(node)))
        level = self._level(call)
        trains = any(self._level(b) is level for step in self.steps for b in step.ends)
        if self._follows_eval(call):
            return quiet or not any(
                self.tree.is_within(b, level) for step in self.steps for b in step.ends
            )
        return quiet and not trains

    def _level(self, node: cst.CSTNode) -> cst.CSTNode:
        """The innermost loop or function around a node."""
        kinds = (*LOOPS, cst.FunctionDef, cst.Lambda, cst.Module)
        return next(a for a in self.tree.ancestors(node) if isinstance(a, kinds))

    def _follows_eval(self, call: cst.Call) -> bool:
        """The last `train()` or `eval()` above a call, in its block or one around, is `eval()`."""
        statement = self.forwards.whole(call)
        while True:
            siblings = self.tree.siblings(statement)
            index = next(i for i, s in enumerate(siblings) if s is statement)
            for above in reversed(siblings[:index]):
                mode = self._mode(above)
                if mode is not None:
                    return mode == "eval"
            owner = self.tree.parents.get(self.tree.block(statement))
            if owner is None or isinstance(owner, (cst.FunctionDef, cst.ClassDef)):
                return False
            statement = self.forwards.whole(owner)

    def _mode(self, statement: cst.CSTNode) -> str | None:
        call = statement.value if isinstance(statement, cst.Expr) else None
        if not isinstance(call, cst.Call) or not isinstance(call.func, cst.Attribute):
            return None
        name = call.func.attr.value
        if name not in ("train", "eval") or not self._roots(call.func.value) & self.trained:
            return None
        off = name == "train" and call.args and self.tree.code(call.args[0].value) == "False"
        return "eval" if off else name

    # -- the region --------------------------------------------------------------------------

    def _region(self, block: cst.CSTNode, calls: Sequence[cst.Call]) -> Evaluation:
        siblings = list(statements_of(block))
        places = sorted({
            next(i for i, s in enumerate(siblings) if self.tree.is_within(c, s)) for c in calls
        })
        first, last = places[0], places[-1]
        bound = {n for i in places for n in self.forwards.bound(siblings[i])}
        for index in range(last + 1, len(siblings)):
            statement = siblings[index]
            if not self._has_loss(statement) or not bound & {n.value for n in names_in(statement)}:
                continue
            if self.forwards.unsafe_loss(statement) is not None:
                break
            last = index
        statements = tuple(siblings[first : last + 1])
        device = self._device(calls[0])
        why = None
        if any(self.forwards.unsafe_loss(s) is not None for s in statements):
            why = "BCELoss raises under CUDA's autocast, and stands with the forward pass"
        elif device is None:
            why = "the device is not known there"
        elif not all(self.placing.has_own_line(s) for s in (statements[0], statements[-1])):
            why = "it shares its line with other statements"
        elif any(
            isinstance(n, (cst.Call)) and self.forwards.is_backward(n)
            for s in statements for n in walk(s)
        ):
            why = "a backward pass stands between"
        if why is not None:
            return Evaluation(statements, (), "", why)
        return Evaluation(statements, (), device or "")

    def _has_loss(self, statement: cst.CSTNode) -> bool:
        return any(
            isinstance(n, cst.Call) and self.forwards.is_loss_call(n) for n in walk(statement)
        )

    def _device(self, call: cst.Call) -> str | None:
        """The device of the function that evaluates, or of training where that sees the same."""
        function = self.tree.function(call)
        device = self.forwards.device(function)
        if device is not None:
            return device if isinstance(device, str) else self.tree.code(device)
        for step in self.steps:
            trunk = self.forwards.trunk(step)
            device = self.forwards.device(trunk)
            if isinstance(device, str):
                return device
            if device is None:
                continue
            if trunk is function:
                return self.tree.code(device)
            variable = self.names.variable(device)
            owners = [self.names.method_class(f) for f in (function, trunk)]
            if variable is None:
                continue
            if isinstance(variable.scope, cst.ClassDef) and owners[0] is not None is not owners[1]:
                if self.names.root_class(owners[0]) is self.names.root_class(owners[1]):
                    return self.tree.code(device)
            if isinstance(variable.scope, cst.Module) and self.placing.scope_of(
                function, self.tree.code(device)
            ) is self.tree.module:
                return self.tree.code(device)
        return None

    # -- what leaves it ----------------------------------------------------------------------------

    def _halves(
        self,
        statements: Sequence[cst.CSTNode],
        calls: Sequence[cst.Call],
        wrapped: set[cst.CSTNode],
    ) -> Iterator[cst.BaseExpression]:
        """Values in half precision where others get them; each once."""
        half: set[str] = set()
        for statement in statements:
            for node in walk(statement):
                if not isinstance(node, cst.Assign) or self._is_loss(node.value):
                    continue
                made = any(
                    self.tree.is_within(c, node.value) and not self._is_kept(c) for c in calls
                )
                if made and not self.forwards.is_converted(node.value) or (
                    self.forwards.stays_half(node, half)
                ):
                    half |= {n.value for t in node.targets for n in names_in(t.target)}
        seen: list[cst.BaseExpression] = []
        for value in self._reads(statements, calls, half, wrapped):
            if not any(self.tree.is_within(value, s) or self.tree.is_within(s, value) for s in seen):
                seen.append(value)
                yield value

    def _is_loss(self, value: cst.BaseExpression) -> bool:
        return isinstance(value, cst.Call) and self.forwards.is_loss_call(value)

    def _reads(
        self,
        statements: Sequence[cst.CSTNode],
        calls: Sequence[cst.Call],
        half: set[str],
        wrapped: set[cst.CSTNode],
    ) -> Iterator[cst.BaseExpression]:
        end = max(self.order[n] for n in walk(statements[-1]))
        for call in calls:
            if self._is_kept(call):
                yield call
        for name in self.tree.all(cst.Name):
            if name.value not in half:
                continue
            if self.tree.function(name) is not self.tree.function(calls[0]):
                continue
            if not self.names._is_read(name) or self.order[name] < self.order[statements[0]]:
                continue
            value = self.forwards.value_of(name)
            if self.order[name] <= end:
                if self._is_kept(value):
                    yield value
            elif not self.forwards.is_bound_anew(name, end) and self.forwards.needs_precision(value):
                # In another region half precision is welcome.
                if not any(s in wrapped for s in self._around(name)) or self._is_kept(value):
                    yield value

    def _around(self, node: cst.CSTNode) -> list[cst.CSTNode]:
        return [node, *self.tree.ancestors(node)]

    def _is_kept(self, value: cst.BaseExpression) -> bool:
        """Whether a value inside the region goes where it outlives it, or to numpy."""
        node: cst.CSTNode = value
        for ancestor in self.tree.ancestors(value):
            if isinstance(ancestor, cst.Call) and ancestor is not value:
                name = self.tree.code(ancestor.func).rpartition(".")[2]
                if self.forwards.goes_to_numpy(ancestor):
                    return True
                if node is not ancestor.func:
                    return name in _KEEPERS or self.forwards.gives_values(ancestor)
                if self.forwards.is_safe_read(name):
                    return False
                if self.forwards.gives_values(ancestor):
                    return True
            if isinstance(ancestor, cst.BaseComp):
                return True
            if isinstance(ancestor, (cst.Element, cst.DictElement)):
                return True
            if isinstance(ancestor, (cst.Return, cst.Yield)):
                return True
            if isinstance(ancestor, cst.Comparison):
                return False
            if isinstance(ancestor, cst.Assign):
                return any(isinstance(t.target, cst.Subscript) for t in ancestor.targets)
            if isinstance(ancestor, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                return False
            node = ancestor
        return False
