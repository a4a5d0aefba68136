"""Forward passes and backward calls: what belongs under autocast, and what reads gradients."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import libcst as cst

from quickwins_codemod.script.conditions import Conditions, literal_value
from quickwins_codemod.script.facts import Optimizer, Problem, Script, Training
from quickwins_codemod.script.helpers import Helpers
from quickwins_codemod.script.names import Variable, names_in
from quickwins_codemod.script.tree import LOOPS, walk

if TYPE_CHECKING:
    from quickwins_codemod.script.evaluations import Evaluations
    from quickwins_codemod.script.scaling import Scaling

#: Methods of a model that are no forward pass.
_PLAIN_METHODS = {
    "train", "eval", "to", "cuda", "cpu", "parameters", "named_parameters", "zero_grad", "state_dict",
    "load_state_dict", "modules", "named_modules", "children", "requires_grad_", "apply", "half",
    "float", "double", "register_buffer", "buffers", "named_buffers", "share_memory", "compile",
}
#: What wraps a model for several processes.
_WRAPPERS = {"DistributedDataParallel", "DDP"}
#: What is read of a tensor, or done to it, without its precision mattering.
_TENSOR_FACTS = {"shape", "device", "dtype", "T", "mT", "grad", "ndim", "requires_grad", "is_cuda"}
_SAFE_READS = {
    *_TENSOR_FACTS - {"T", "mT", "grad"}, "item", "argmax", "argmin", "max", "min", "topk", "sort", "size", "dim", "numel",
    "len", "isinstance", "print", "float", "long", "int", "bool", "backward", "isnan", "isfinite",
    "type", "zeros_like", "ones_like", "empty_like", "rand_like", "randn_like", "register_hook",
}
#: Of these, what gives values beside their places.
_ORDERED = {"max", "min", "topk", "sort"}
_LOSS = re.compile(r"loss|criterion|entropy|kl_div", re.IGNORECASE)
_HALF = re.compile(r"\btorch\.(float16|half|bfloat16)\b")
_AUTOCAST = re.compile(r"^(torch|quickwins_runtime|quickwins_codemod|apex|contextlib)\b.*\bautocast$")
_CLIP = re.compile(r"clip_?grad|grad_?norm|gradient_?clip|clip_?gradient", re.IGNORECASE)


@dataclass(frozen=True)
class Region:
    """The statements of one block that compute a loss, up to its backward call.

    statements: from the first forward pass to the last statement of the loss; empty where the
    backward call computes the loss itself. loss: what backward() is called on.
    call, argument: where a helper calls backward(), the call that gives it the loss, and the loss
    there; the statements then stand above that call.
    """

    backward: cst.Call
    loss: cst.BaseExpression
    statements: tuple[cst.CSTNode, ...]
    call: cst.Call | None = None
    argument: cst.BaseExpression | None = None

    @property
    def end(self) -> cst.Call:
        """The call that takes the loss, in the function that computes it."""
        return self.backward if self.call is None else self.call

    @property
    def result(self) -> cst.BaseExpression:
        """The loss in the function that computes it."""
        return self.loss if self.argument is None else self.argument


@dataclass(frozen=True)
class Stepped:
    """One call that steps an optimizer, the optimizer as it is named there, and its training."""

    call: cst.Call
    optimizer: cst.BaseExpression
    training: Training


@dataclass(frozen=True)
class TrainingStep:
    """One function's (or the module's) backward calls and optimizer steps.

    readers: statements between backward and step that read gradients, in the order they run in.
    scaler: the scaler's name where backward is scaled already.
    outer: the call that gives this function the loss, where that is computed there.
    helper: the call of the function that steps, where that is another one. unfollowed: in words,
    why a function that steps is not followed.
    """

    function: cst.CSTNode
    backwards: tuple[cst.Call, ...]
    steps: tuple[Stepped, ...]
    readers: tuple[cst.CSTNode, ...]
    scaler: str | None
    under_autocast: bool
    outer: cst.Call | None = None
    helper: cst.Call | None = None
    unfollowed: str = ""

    @property
    def ends(self) -> tuple[cst.Call, ...]:
        """The calls that take the losses, in the function that runs the model."""
        return self.backwards if self.outer is None else (self.outer,)


class Forwards:
    """Reads the training steps of one script for mixed precision."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.tree, self.names = script.tree, script.names
        self.conditions = Conditions(script.tree, script.names)
        self.helpers = Helpers(script.tree, script.names)
        self.sites = frozenset(site for t in script.trainings for site in t.sites)
        self.backwards = frozenset(c for c in self.tree.all(cst.Call) if self.is_backward(c))
        self.models = self._models()

    # -- models -------------------------------------------------------------------------------

    def _models(self) -> set[Variable]:
        """Variables whose parameters() or train() are asked for, and other names for them."""
        found: set[Variable] = set()
        for call in self.tree.all(cst.Call):
            func = call.func
            if isinstance(func, cst.Attribute) and func.attr.value in (
                "parameters", "named_parameters", "train", "eval"
            ):
                variable = self.names.variable(func.value)
                if variable is not None:
                    found.add(variable)
        grew = True
        while grew:
            others = {
                a.variable
                for assignments in self.names.assignments.values()
                for a in assignments
                if a.value is not None and a.index is None and self._names_model(a.value, found)
            }
            grew = not others <= found
            found |= others
        return found

    def _names_model(self, value: cst.BaseExpression, models: set[Variable]) -> bool:
        """`self.net = net` for a model, or the model wrapped for distributed training."""
        if isinstance(value, cst.Call):
            return self.tree.code(value.func).rpartition(".")[2] in _WRAPPERS
        variable = self.names.variable(value)
        return variable is not None and variable in models

    def is_model(self, node: cst.BaseExpression) -> bool:
        """Whether an expression is a model, or a part of one (`model.encoder`, `model.module`)."""
        while True:
            variable = self.names.variable(node)
            if variable is not None and self.names_model(variable):
                return True
            if isinstance(node, cst.Attribute):
                node = node.value
            else:
                return False

    def names_model(self, variable: Variable) -> bool:
        """Whether a variable holds a model, or is a parameter that is given one."""
        return variable in self.models or self._same_as_model(variable)

    def _same_as_model(self, variable: Variable) -> bool:
        if not isinstance(variable.scope, cst.FunctionDef):
            return False
        values = self.names.parameter_values(variable.scope, variable.name)
        return any(self.names.variable(v) in self.models for v in values)

    def is_forward(self, call: cst.Call) -> bool:
        """A call of a model, of a method of it, or of a helper that is given the model."""
        func = call.func
        if isinstance(func, cst.Attribute):
            if func.attr.value in _PLAIN_METHODS:
                return False
            if self.is_model(func) or self.is_model(func.value):
                return not self._is_self(func.value) or self.is_model(func)
        elif self.is_model(func):
            return True
        helper = self.names.callee(call)
        given = any(self.is_model(a.value) for a in call.args)
        if given and helper is not None:
            return not any(
                isinstance(n, cst.Call) and (self.is_backward(n) or n in self.sites)
                for n in walk(helper)
            )
        return helper is not None and self._runs_model(helper, ())

    def _is_self(self, node: cst.BaseExpression) -> bool:
        return isinstance(node, cst.Name) and self.names.instance_class(node) is not None

    def _runs_model(self, function: cst.FunctionDef, way: tuple[cst.FunctionDef, ...]) -> bool:
        """A helper method whose body calls the model, also by another, and steps nothing itself."""
        calls = [n for n in walk(function.body) if isinstance(n, cst.Call)]
        if function in way or any(self.is_backward(c) for c in calls):
            return False
        for call in calls:
            if isinstance(call.func, (cst.Name, cst.Attribute, cst.Subscript)):
                if self.is_model(call.func) and not self.is_plain_method(call):
                    return True
            helper = self.names.callee(call) if len(way) < 4 else None
            if helper is not None and self._runs_model(helper, (*way, function)):
                return True
        return False

    def optimized(self, optimizer: Optimizer) -> list[str]:
        """What an optimizer is given the parameters of: `model`, `model[0]` as `model.0`."""
        plain = [self.tree.plain(node) for node in self.optimized_models(optimizer)]
        return [base.replace("[", ".").replace("]", "") for base in plain]

    def optimized_models(self, optimizer: Optimizer) -> list[cst.BaseExpression]:
        """The expressions whose parameters() an optimizer is given."""
        return [
            node.func.value
            for creation in optimizer.creations
            for node in walk(creation)
            if isinstance(node, cst.Call)
            and isinstance(node.func, cst.Attribute)
            and node.func.attr.value in ("parameters", "named_parameters")
        ]

    # -- training steps -------------------------------------------------------------------------

    def steps(self) -> list[TrainingStep]:
        """Every function that calls backward(), with what it steps."""
        by_function: dict[cst.CSTNode, list[cst.Call]] = {}
        for call in self.tree.all(cst.Call):
            if self.is_backward(call):
                by_function.setdefault(self.tree.function(call), []).append(call)
        return [self._step(function, calls) for function, calls in by_function.items()]

    def is_backward(self, call: cst.Call) -> bool:
        """A call of backward(), of whatever."""
        return isinstance(call.func, cst.Attribute) and call.func.attr.value == "backward"

    def _step(self, function: cst.CSTNode, backwards: list[cst.Call]) -> TrainingStep:
        scaler = next((s for b in backwards if (s := self.scaler(b)) is not None), None)
        region = self.region(backwards[0])
        outer = region.call if isinstance(region, Region) else None
        around = [function] if outer is None else [function, self.tree.function(outer)]
        under_autocast = any(self._has_autocast(f) for f in around)
        stepped = self._steps_in(function)
        return TrainingStep(
            function=function,
            backwards=tuple(backwards),
            steps=tuple(stepped),
            readers=tuple(self._readers(backwards, stepped)),
            scaler=scaler,
            under_autocast=under_autocast,
            outer=outer,
        )

    def followed(self, step: TrainingStep) -> TrainingStep:
        """A step with what a function does for it that is called below backward() and steps."""
        if step.steps or step.scaler is not None or step.under_autocast:
            return step
        helper = self._stepping_helper(step.function, step.backwards)
        if isinstance(helper, str):
            return replace(step, unfollowed=helper)
        stepped = self._steps_in(self.names.callee(helper))
        readers = tuple(self._readers(step.backwards, stepped, helper))
        return replace(step, steps=tuple(stepped), readers=readers, helper=helper)

    def _steps_in(self, function: cst.CSTNode | None) -> list[Stepped]:
        """The steps that stand in a function itself, in source order."""
        found = []
        for training in self.script.trainings:
            made = frozenset(training.optimizer.creations)
            for site in training.sites:
                if self.tree.function(site) is function:
                    direct = bool(self.names.creations(site.func.value) & made)
                    node = site.func.value if direct else site.args[0].value
                    found.append(Stepped(site, node, training))
        return sorted(found, key=lambda s: self.tree.order[s.call])

    def _stepping_helper(
        self, function: cst.CSTNode, backwards: Sequence[cst.Call]
    ) -> cst.Call | str:
        """The call, below the last backward(), of a function that steps; in words why it is none."""
        calls = [
            c for c in self.tree.all(cst.Call)
            if self.tree.function(c) is function
            and (h := self.names.callee(c)) is not None
            and self._steps_in(h)
        ]
        helpers = list(dict.fromkeys(self.names.callee(c) for c in calls))
        if len(helpers) != 1:
            named = " and ".join(f"`{h.name.value}`" for h in helpers)
            return f"it steps in {named}" if named else ""
        helper, call = helpers[0], calls[0]
        name = f"`{helper.name.value}`"
        only = self.helpers.only_call(helper)
        if isinstance(only, str):
            return only
        statement = self.tree.statement(call)
        if not (isinstance(statement, cst.Expr) and statement.value is call):
            return f"the value of {name} is used"
        if self.tree.order[call] < max(self.tree.order[b] for b in backwards):
            return f"{name} is called before backward()"
        for loop in self.helpers.loops(call, function):
            if not all(self.tree.is_within(b, loop) for b in backwards):
                return f"{name} is called in a loop of its own"
        if any(self.reads_gradients(n) for a in call.args for n in walk(a.value)):
            return f"{name} is given gradients"
        for stepped in self._steps_in(helper):
            if stepped.optimizer is not stepped.call.func.value:
                return f"{name} steps through another object"
            if self.helpers.loops(stepped.call, helper):
                return f"{name} steps in a loop"
            for condition in self.tree.ancestors(stepped.call):
                if condition is helper:
                    break
                if isinstance(condition, cst.If) and not self.asks_of_gradients(condition):
                    return f"{name} steps under a condition of its own"
                if isinstance(condition, cst.If) and any(
                    isinstance(n, (cst.Return, cst.Raise)) for n in walk(condition)
                ):
                    return f"{name} may end under the condition that it steps under"
        return call

    def position(self, node: cst.CSTNode, helper: cst.Call | None) -> tuple[int, ...]:
        """For comparing when nodes run: those in a called function where the call stands."""
        order = self.tree.order[node]
        inside = helper is not None and self.tree.function(node) is self.names.callee(helper)
        return (self.tree.order[helper], order) if inside else (order,)

    def trunk(self, step: TrainingStep) -> cst.CSTNode:
        """The function that runs the model: that of backward(), or the one that gives it the loss."""
        return step.function if step.outer is None else self.tree.function(step.outer)

    def scaler(self, backward: cst.Call) -> str | None:
        """The scaler whose scale() gives what backward() is called on."""
        scaled = backward.func.value
        if isinstance(scaled, cst.Call) and isinstance(scaled.func, cst.Attribute):
            if scaled.func.attr.value == "scale":
                return self.tree.code(scaled.func.value)
        return None

    def _has_autocast(self, function: cst.CSTNode) -> bool:
        return any(isinstance(n, cst.Call) and self.is_autocast(n) for n in walk(function))

    def is_autocast(self, call: cst.Call) -> bool:
        return bool(_AUTOCAST.match(self.names.dotted(call.func) or ""))

    def is_loss_call(self, call: cst.Call) -> bool:
        """A call of a loss, by its name or the class that made it."""
        return bool(_LOSS.search(self.tree.code(call.func).rpartition(".")[2])) or any(
            self.tree.code(c.func).endswith("Loss") for c in self.names.creations(call.func)
        )

    def is_safe_read(self, name: str) -> bool:
        """Whether what a method or function of this name gives is the same in half precision."""
        return name in _SAFE_READS - _ORDERED

    def gives_values(self, call: cst.Call) -> bool:
        """A call as of topk() whose values are used, and not only their places."""
        if self.tree.code(call.func).rpartition(".")[2] not in _ORDERED:
            return False
        parent = self.tree.parents[call]
        if isinstance(parent, cst.Subscript):
            return self.tree.plain(parent).rpartition("[")[2] != "1]"
        if isinstance(parent, cst.Attribute):
            return parent.attr.value not in ("indices", "item")
        if isinstance(parent, cst.Assign):
            first = next(_flat(parent.targets[0].target))
            return self.tree.code(first) != "_"
        return True

    def is_bound_anew(self, name: cst.Name, end: int) -> bool:
        """Whether a statement above a read, and below a region, gives the name another value."""
        return self._last_binding(name, end) is not None

    def needs_precision(self, value: cst.BaseExpression) -> bool:
        """Whether a read of predictions is more than a comparison, an index or an item of them."""
        node: cst.CSTNode = value
        for ancestor in self.tree.ancestors(value):
            if isinstance(ancestor, (cst.Comparison, cst.Del)):
                return False
            if isinstance(ancestor, cst.Attribute) and ancestor.attr.value in _SAFE_READS - _ORDERED:
                return False
            if isinstance(ancestor, cst.Call):
                if self.goes_to_numpy(ancestor):
                    return True
                name = self.tree.code(ancestor.func).rpartition(".")[2]
                if name in _ORDERED:
                    return self.gives_values(ancestor)
                if node is not ancestor.func:
                    return name not in _SAFE_READS
            if isinstance(ancestor, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                return True
            node = ancestor
        return True

    def is_plain_method(self, call: cst.Call) -> bool:
        """A method of a model that is no forward pass: `model.train()`."""
        return isinstance(call.func, cst.Attribute) and call.func.attr.value in _PLAIN_METHODS

    def _readers(
        self,
        backwards: Sequence[cst.Call],
        steps: Sequence[Stepped],
        helper: cst.Call | None = None,
    ) -> Iterator[cst.CSTNode]:
        """Small statements between the first backward and the last step that read gradients."""
        if not steps:
            return
        functions = [self.tree.function(backwards[0]), self.tree.function(steps[0].call)]
        first = min(self.position(b, helper) for b in backwards)
        last = max(self.position(s.call, helper) for s in steps)
        seen: set[cst.CSTNode] = set()
        for kind in (cst.Call, cst.Attribute):
            for node in self.tree.all(kind):
                if node is not helper and self.tree.function(node) in functions:
                    if first < self.position(node, helper) < last and self.reads_gradients(node):
                        seen.add(self.tree.statement(node))
        yield from sorted(seen, key=lambda node: self.position(node, helper))

    def reads_gradients(self, node: cst.CSTNode, depth: int = 0) -> bool:
        if isinstance(node, cst.Attribute):
            return node.attr.value == "grad" and self.tree.code(node.value) != "torch.autograd"
        if isinstance(node, cst.Call):
            names = (self.tree.code(node.func), self.names.dotted(node.func) or "")
            if any(_CLIP.search(n.rpartition(".")[2]) for n in names):
                return True
            helper = self.names.callee(node)
            return helper is not None and depth < 4 and any(
                self.reads_gradients(n, depth + 1)
                for n in walk(helper.body)
                if isinstance(n, (cst.Call, cst.Attribute))
            )
        return False

    def asks_of_gradients(self, condition: cst.If) -> bool:
        """Whether a test reads gradients, or what statements above it made of them: a norm."""
        if any(self.reads_gradients(n) for n in walk(condition.test)):
            return True
        function, made = self.tree.function(condition), set[str]()
        for node in walk(function):
            if isinstance(node, cst.Assign) and self.tree.order[node] < self.tree.order[condition]:
                names = {n.value for n in names_in(node.value)}
                if names & made or any(self.reads_gradients(n) for n in walk(node.value)):
                    made |= self.bound(node)
        return any(n.value in made for n in names_in(condition.test))

    def foreign_gradient(self, statement: cst.CSTNode) -> cst.Attribute | None:
        """`x.grad` of what is no parameter of a model, which unscale_ does not divide."""
        for node in walk(statement):
            if isinstance(node, cst.Attribute) and node.attr.value == "grad":
                base = node.value
                variable = self.names.variable(base) if isinstance(base, cst.Name) else None
                found = self.names.assignments.get(variable, ()) if variable is not None else ()
                by_loop = any(
                    "parameters()" in self.tree.code(getattr(a.statement, "iter", a.statement))
                    for a in found
                )
                if not by_loop and not self.is_model(base):
                    return node
        return None

    def backward_elsewhere(self, step: TrainingStep) -> cst.Call | None:
        """A call in a training step that runs another function's backward()."""
        for node in walk(step.function):
            if not isinstance(node, cst.Call) or node in step.backwards:
                continue
            if self.tree.code(node.func).endswith("autograd.backward"):
                return node
            helper = self.names.callee(node)
            if helper is not None and helper is not step.function and any(
                isinstance(n, cst.Call) and self.is_backward(n) for n in walk(helper.body)
            ):
                return node
        if step.outer is None:
            return None
        beside = self.helpers.beside(step.outer)
        return next((c for c in beside if self.helpers.runs(c, self.backwards)), None)

    def stepped_beside(self, step: TrainingStep) -> cst.Call | None:
        """A call, in the loop of a step, that steps an optimizer which is none of this step's."""
        others = self.sites - {s.call for s in step.steps}
        for call in (*step.backwards, step.outer, step.helper):
            for other in self.helpers.beside(call) if call is not None else ():
                if other not in (step.outer, step.helper) and self.helpers.runs(other, others):
                    return other
        return None

    def jump_between(self, first: cst.CSTNode, last: cst.CSTNode) -> cst.CSTNode | None:
        """A continue, break, return or raise between two nodes of one function."""
        start, end = self.tree.order[first], self.tree.order[last]
        for kind in (cst.Continue, cst.Break, cst.Return, cst.Raise):
            for node in self.tree.all(kind):
                if start < self.tree.order[node] < end:
                    if self.tree.function(node) is self.tree.function(first):
                        return node
        return None

    def is_closure(self, function: cst.CSTNode) -> bool:
        """Whether a function is handed to a step(): `optimizer.step(closure)`."""
        if not isinstance(function, cst.FunctionDef):
            return False
        return any(
            isinstance(c.func, cst.Attribute)
            and c.func.attr.value == "step"
            and any(self.tree.code(a.value) == function.name.value for a in c.args)
            for c in self.tree.all(cst.Call)
        )

    # -- the region under autocast ----------------------------------------------------------------

    def region(self, backward: cst.Call) -> Region | Problem:
        """What has to stand under autocast for one backward call."""
        statement = self.tree.statement(backward)
        if not (isinstance(statement, cst.Expr) and statement.value is backward):
            return Problem("backward-form", backward)
        loss = backward.func.value
        if self._runs_forward(loss):
            return Region(backward, loss, ())
        found = self._computed(backward, loss, statement)
        if isinstance(found, Problem) and found.kind == "no-forward":
            return self._given(backward, loss, statement) or found
        return found

    def _computed(
        self, backward: cst.Call, loss: cst.BaseExpression, statement: cst.CSTNode
    ) -> Region | Problem:
        """The region above a statement that takes the loss, or a test of the loss around it."""
        found = self._above(backward, loss, statement)
        guard = self._guard_of_loss(statement, loss)
        if isinstance(found, Problem) and guard is not None:
            found = self._above(backward, loss, guard)
        return found

    def _given(
        self, backward: cst.Call, loss: cst.BaseExpression, statement: cst.CSTNode
    ) -> Region | Problem | None:
        """The region above the one call that gives backward()'s function the loss."""
        function = self.tree.function(backward)
        name = self._parameter_of(loss, function)
        if name is None or sum(self.tree.function(b) is function for b in self.backwards) > 1:
            return None
        whole = self._guard_of_loss(statement, loss) or statement
        call = self.helpers.only_call(function)
        if isinstance(call, str):
            return Problem("no-forward", backward, call)
        caller = self.tree.statement(call)
        argument = (self.names.arguments(call, function) or {}).get(name)
        alone = isinstance(caller, (cst.Expr, cst.Assign, cst.AugAssign, cst.Return))
        if argument is None or not alone or caller.value is not call:
            why = f"`{function.name.value}` is not called in a statement of its own"
            return Problem("no-forward", backward, why)
        if self.tree.block(whole) is not function.body:
            return Problem("no-forward", backward, "backward() stands under a condition")
        others = [a.value for a in call.args if a.value is not argument]
        if any(self._runs_forward(value) for value in others):
            return Problem("no-forward", backward, "a model runs in another argument of the call")
        if self._runs_forward(argument):
            return Region(backward, loss, (), call, argument)
        found = self._computed(backward, argument, caller)
        if isinstance(found, Problem):
            return found
        return replace(found, loss=loss, call=call, argument=argument)

    def _runs_forward(self, node: cst.CSTNode) -> bool:
        return any(isinstance(n, cst.Call) and self.is_forward(n) for n in walk(node))

    def _parameter_of(self, loss: cst.BaseExpression, function: cst.CSTNode) -> str | None:
        """The parameter that a loss is, multiplied or divided at most: `(loss / 4)`, `loss /= 4`."""
        while isinstance(loss, cst.BinaryOperation) and isinstance(
            loss.operator, (cst.Divide, cst.Multiply)
        ):
            loss = loss.left
        variable = self.names.variable(loss) if isinstance(loss, cst.Name) else None
        if variable is None or variable.scope is not function or isinstance(function, cst.Module):
            return None
        bound = self.names.assignments.get(variable, [])
        if self.script.placing.is_parameter(loss, function):
            scaled = [self._scaled_again(a.statement, loss.value) for a in bound]
            return loss.value if all(scaled) else None
        if len(bound) != 1 or bound[0].value is None or bound[0].index is not None:
            return None
        above = self.tree.order[bound[0].statement] < self.tree.order[loss]
        return self._parameter_of(bound[0].value, function) if above else None

    def _scaled_again(self, statement: cst.CSTNode, name: str) -> bool:
        """`loss = loss / 4` or `loss /= 4`."""
        if isinstance(statement, cst.AugAssign):
            return isinstance(statement.operator, (cst.DivideAssign, cst.MultiplyAssign))
        value = getattr(statement, "value", None)
        scaled = isinstance(value, cst.BinaryOperation) and isinstance(
            value.operator, (cst.Divide, cst.Multiply)
        )
        return scaled and isinstance(value.left, cst.Name) and value.left.value == name

    def _above(
        self, backward: cst.Call, loss: cst.BaseExpression, statement: cst.CSTNode
    ) -> Region | Problem:
        """The region among the statements above one, in its block."""
        siblings = self.tree.siblings(statement)
        above = siblings[: next(i for i, s in enumerate(siblings) if s is statement)]
        needed = {n.value for n in names_in(loss)} | self._attributes(loss)
        chosen: list[int] = []
        for index in range(len(above) - 1, -1, -1):
            bound = self.bound(above[index])
            if bound & needed:
                chosen.append(index)
                needed -= self._surely_bound(above[index])
                needed |= self._read(above[index])
        forwards = [i for i in chosen if self.has_forward(above[i])]
        if not forwards:
            return Problem("no-forward", backward)
        last = max(chosen)
        ends = [i for i in range(last) if self._ends_region(above[i])]
        cut = max((i for i in ends if i > min(forwards)), default=None)
        if cut is None:
            return Region(backward, loss, tuple(above[min(forwards) : last + 1]))
        # Forward passes above another backward or step run in the region of that backward.
        elsewhere = {
            s
            for call in self.tree.all(cst.Call)
            if self.is_backward(call)
            and any(self.tree.statement(call) is s for s in above[: cut + 1])
            and isinstance(region := self.region(call), Region)
            for s in region.statements
        }
        if cut in chosen or any(i < cut and above[i] not in elsewhere for i in forwards):
            return Problem("between", backward)
        half: set[str] = set()
        own: list[int] = []
        for index in sorted(i for i in chosen if i >= min(forwards)):
            if index in forwards or half & self._read(above[index]):
                half |= self.bound(above[index])
                own += [index] if index > cut else []
        if not own:
            return Problem("no-forward", backward)
        return Region(backward, loss, tuple(above[own[0] : last + 1]))

    def _ends_region(self, statement: cst.CSTNode) -> bool:
        """It runs a backward pass or steps an optimizer, which must not happen under autocast."""
        ends = self.sites | self.backwards
        return any(isinstance(n, cst.Call) and self.helpers.runs(n, ends) for n in walk(statement))

    def _guard_of_loss(self, statement: cst.CSTNode, loss: cst.BaseExpression) -> cst.If | None:
        """The `if` around a statement that asks whether the loss is finite, and no more."""
        guard = self.tree.parents.get(self.tree.block(statement))
        if not isinstance(guard, cst.If) or guard.orelse is not None:
            return None
        if isinstance(self.tree.parents[guard], cst.If):  # an elif
            return None
        calls = [n for n in walk(guard.test) if isinstance(n, cst.Call)]
        asks = bool(calls) and all(
            self.tree.code(c.func).rpartition(".")[2] in ("isfinite", "isnan", "isinf", "item")
            for c in calls
        )
        of_loss = {n.value for n in names_in(loss)}
        names = {n.value for c in calls for n in names_in(c)} - {"torch", "math", "np", "numpy"}
        joined = any(isinstance(n, cst.BooleanOperation) for n in walk(guard.test))
        return guard if asks and names and names <= of_loss and not joined else None

    def _surely_bound(self, statement: cst.CSTNode) -> set[str]:
        """What a plain assignment binds anew, so that nothing above it matters for that name."""
        if not isinstance(statement, cst.Assign):
            return set()
        targets = [t for item in statement.targets for t in _flat(item.target)]
        whole = not any(isinstance(n, cst.Subscript) for i in statement.targets for n in walk(i.target))
        return {self.tree.code(t) for t in targets} if whole else set()

    def has_forward(self, statement: cst.CSTNode) -> bool:
        """Whether a statement runs a model for training, that is with gradients."""
        if isinstance(statement, cst.With) and any(
            re.search(r"\b(no_grad|inference_mode)\b", self.tree.code(i.item)) for i in statement.items
        ):
            return False
        return any(isinstance(n, cst.Call) and self.is_forward(n) for n in walk(statement))

    def bound(self, statement: cst.CSTNode) -> set[str]:
        """The names that a statement, or one in it, gives a value or adds to."""
        found = set()
        for node in walk(statement):
            targets = []
            if isinstance(node, cst.Assign):
                targets = [t.target for t in node.targets]
            elif isinstance(node, (cst.AugAssign, cst.AnnAssign, cst.For, cst.NamedExpr)):
                targets = [node.target]
            for target in targets:
                found |= {self.tree.code(t) for t in _flat(target)}
            if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
                if node.func.attr.value in ("append", "extend", "update"):
                    found.add(self.tree.code(node.func.value))
        return found

    def _read(self, statement: cst.CSTNode) -> set[str]:
        node = statement.value if isinstance(statement, cst.Assign) else statement
        return {n.value for n in walk(node) if isinstance(n, cst.Name)} | self._attributes(node)

    def _attributes(self, node: cst.CSTNode) -> set[str]:
        return {self.tree.code(n) for n in walk(node) if isinstance(n, cst.Attribute)}

    def leaving(
        self, region: Region, others: Sequence[Region] = ()
    ) -> list[cst.BaseExpression]:
        """Reads of half-precision values where full precision is expected: numpy, other calls.

        others: the regions of other losses, in which half precision is welcome.
        """
        function = self.tree.function(region.end)
        half = {
            self.tree.code(t)
            for statement in region.statements
            if self.has_forward(statement) and isinstance(statement, cst.Assign)
            for item in statement.targets
            for t in _flat(item.target)
        }
        for node in walk(function):
            if isinstance(node, cst.Assign) and self.stays_half(node, half):
                half |= {self.tree.code(t) for i in node.targets for t in _flat(i.target)}
        end = self.tree.order[region.end]
        start = self.tree.order[region.statements[0]] if region.statements else end
        found: list[cst.BaseExpression] = []
        # A loop elsewhere in the function (validation) binds these names anew.
        loop = next((a for a in self.tree.ancestors(region.end) if isinstance(a, LOOPS)), None)
        inside = loop is not None and self.tree.is_within(loop, function)
        for name in walk(loop.body if inside else function):
            if not (isinstance(name, cst.Name) and name.value in half and self.names._is_read(name)):
                continue
            order = self.tree.order[name]
            if order < start or any(self._is_loss(name, r) for r in (region, *others)):
                continue
            if order > end and not self.is_half(name, half, end):
                continue
            value = self.value_of(name)
            below = order > end and not any(
                self.tree.is_within(name, s) for r in others for s in r.statements
            )
            if self._meets_full_precision(value, below) and value not in found:
                found.append(value)
        return found

    def is_half(self, name: cst.Name, half: set[str], end: int) -> bool:
        """Whether a read below a region still means what that bound, or something made of it."""
        bound = self._last_binding(name, end)
        if bound is None:
            return True
        return isinstance(bound, cst.Assign) and self.stays_half(bound, half) and any(
            n.value in half and self.is_half(n, half, end) for n in names_in(bound.value)
        )

    def _last_binding(self, name: cst.Name, end: int) -> cst.CSTNode | None:
        """The nearest statement above a read, below a region, that surely binds the name anew."""
        statement = self.whole(name)
        while self.tree.order[statement] > end:
            siblings = self.tree.siblings(statement)
            index = next(i for i, s in enumerate(siblings) if s is statement)
            for above in reversed(siblings[:index]):
                if self.tree.order[above] > end and name.value in self._surely_bound(above):
                    return above
            owner = self.tree.parents.get(self.tree.block(statement))
            if owner is None or isinstance(owner, (cst.FunctionDef, cst.ClassDef)):
                return None
            if isinstance(owner, cst.For) and self.tree.order[owner] > end and name.value in {
                self.tree.code(t) for t in _flat(owner.target)
            }:
                return owner
            statement = self.whole(owner)
        return None

    def whole(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that a node belongs to, of an `elif` the `if` that it is part of."""
        statement = self.tree.statement(node)
        while isinstance(self.tree.parents.get(statement), (cst.If, cst.Else)):
            statement = self.tree.statement(self.tree.parents[statement])
        return statement

    def _is_loss(self, name: cst.Name, region: Region) -> bool:
        return any(n.value == name.value for n in names_in(region.result))

    def value_of(self, name: cst.Name) -> cst.BaseExpression:
        """The tensor that a read is about: `outputs`, `outputs.logits`, `outputs["scores"]`."""
        node: cst.BaseExpression = name
        while True:
            parent = self.tree.parents[node]
            above = self.tree.parents.get(parent)
            if isinstance(parent, cst.Subscript) and parent.value is node:
                node = parent
            elif isinstance(parent, cst.Attribute) and parent.value is node and not (
                isinstance(above, cst.Call) and above.func is parent
            ) and parent.attr.value not in _TENSOR_FACTS:
                node = parent
            else:
                return node

    def _meets_full_precision(self, value: cst.BaseExpression, below: bool) -> bool:
        """Whether a read hands the values on as they are; not a comparison, an index or an item.

        Inside the region only what goes to numpy counts: the rest is autocast's own business.
        """
        node: cst.CSTNode = value
        for ancestor in self.tree.ancestors(value):
            if isinstance(ancestor, cst.Comparison):
                return False
            if isinstance(ancestor, cst.Attribute) and ancestor.attr.value in _SAFE_READS:
                return False
            if isinstance(ancestor, cst.Call):
                name = self.tree.code(ancestor.func).rpartition(".")[2]
                if name in _SAFE_READS:
                    return False
                if self.goes_to_numpy(ancestor):
                    return True
                if below and node is not ancestor.func:
                    return True
            if isinstance(ancestor, cst.BinaryOperation):
                if below and isinstance(ancestor.operator, cst.MatrixMultiply):
                    return True
            if isinstance(ancestor, cst.Assign) and node is ancestor.value:
                return any(isinstance(t.target, cst.Subscript) for t in ancestor.targets)
            if isinstance(ancestor, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
                return False
            node = ancestor
        return False

    def stays_half(self, statement: cst.Assign, half: set[str]) -> bool:
        """Whether what is assigned is made of values in half precision, and is such a value too."""
        if self.is_converted(statement.value):
            return False
        return any(n.value in half for n in names_in(statement.value))

    def is_converted(self, value: cst.BaseExpression) -> bool:
        """Whether an expression turns tensors into something else than values of their precision."""
        kinds = r"argmax|\bmax\(|topk|item\(|float\(|long\(|int\(|bool\(|[<>]|==|numpy"
        return bool(re.search(kinds, self.tree.code(value)))

    def goes_to_numpy(self, call: cst.Call) -> bool:
        """A call that turns its tensor into an array."""
        if isinstance(call.func, cst.Attribute) and call.func.attr.value == "numpy":
            return True
        name = self.names.dotted(call.func) or ""
        return name in ("numpy.asarray", "numpy.array") and not any(
            isinstance(n, cst.Call) and n is not call and self.goes_to_numpy(n) for n in walk(call)
        )

    # -- where it runs ------------------------------------------------------------------------------

    def device(self, function: cst.CSTNode) -> cst.BaseExpression | str | None:
        """What tensors are moved to in a function: the expression in `.to(device)`, or "cuda".

        A move under a condition (`if use_cuda: x = x.cuda()`) tells nothing of the other case.
        """
        for call in self.tree.all(cst.Call):
            if self.tree.function(call) is not function or not isinstance(call.func, cst.Attribute):
                continue
            value = self._moved_to(call)
            if value is None:
                continue
            if not self._is_conditional(call) or self._is_certain(value):
                return value
        return None

    def _moved_to(self, call: cst.Call) -> cst.BaseExpression | str | None:
        if call.func.attr.value == "cuda" and not call.args:
            return '"cuda"'
        if call.func.attr.value != "to" or not call.args:
            return None
        named = {a.keyword.value: a.value for a in call.args if a.keyword is not None}
        first = call.args[0].value if call.args[0].keyword is None else None
        value = named.get("device") or first
        return value if value is not None and self._is_device(value) else None

    def _is_conditional(self, call: cst.Call) -> bool:
        below: cst.CSTNode = call
        for ancestor in self.tree.ancestors(call):
            if isinstance(ancestor, (cst.FunctionDef, cst.Module)):
                return False
            if isinstance(ancestor, (cst.If, cst.IfExp)) and below is not ancestor.test:
                if not self._asks_for_cuda(ancestor.test):
                    return True
            below = ancestor
        return False

    def _asks_for_cuda(self, test: cst.BaseExpression) -> bool:
        """`torch.cuda.is_available()`, or a name for its answer: without CUDA autocast is off."""
        variable = self.names.variable(test)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        value = found[0].value if len(found) == 1 else test
        return value is not None and self.tree.plain(value) == "torch.cuda.is_available()"

    def _is_certain(self, device: cst.BaseExpression | str) -> bool:
        """The same device is moved to without a condition elsewhere, or is a torch.device."""
        if isinstance(device, str):
            return False
        if any(self.names.dotted(c.func) == "torch.device" for c in self.names.creations(device)):
            return True
        code = self.tree.plain(device)
        for call in self.tree.all(cst.Call):
            if isinstance(call.func, cst.Attribute) and not self._is_conditional(call):
                value = self._moved_to(call)
                if value is not None and not isinstance(value, str):
                    if self.tree.plain(value).rpartition(".")[2] == code.rpartition(".")[2]:
                        return True
        return False

    def _is_device(self, node: cst.BaseExpression) -> bool:
        code = self.tree.code(node)
        if code.startswith("torch.") and not code.startswith("torch.device"):
            return False  # a dtype
        if isinstance(literal_value(node), str):
            return True
        return isinstance(node, (cst.Name, cst.Attribute)) and not self.is_model(node)

    # -- what half precision breaks -------------------------------------------------------------------

    def hazards(self) -> Iterator[tuple[str, cst.CSTNode]]:
        """Constructs of the file that rule mixed precision out, by kind."""
        for call in self.tree.all(cst.Call):
            code = self.tree.code(call.func)
            name = code.rpartition(".")[2]
            if name == "DataParallel":
                yield "data-parallel", call
            elif name in ("half", "bfloat16") and isinstance(call.func, cst.Attribute):
                if self._is_part(call.func.value) or self.is_model_maker(call):
                    yield "half-model", call
            elif name == "set_default_dtype" and _HALF.search(self.tree.code(call)):
                yield "half-model", call
            elif _HALF.search(" ".join(self.tree.code(a) for a in call.args)) and (
                self.is_model_maker(call)
                or isinstance(call.func, cst.Attribute) and self.is_model(call.func.value)
            ):
                if not self.is_forward(call) and "autocast" not in name:
                    yield "half-model", call
            elif code.endswith(("autograd.grad", "sparse.mm", "sparse.addmm")):
                yield ("double-backward" if code.endswith("grad") else "sparse"), call
            elif name in ("masked_fill", "masked_fill_") and self._overflows(call):
                if not self._never_masked(call):
                    yield "overflow", call
            elif name in ("log", "log2", "log10", "log_") and self._tiny(call):
                yield "tiny", call
            elif name in ("register_hook", "register_post_accumulate_grad_hook"):
                yield "gradient-hook", call
            elif name in ("detect_anomaly", "set_detect_anomaly"):
                if not call.args or literal_value(call.args[0].value) is not False:
                    yield "anomaly", call
            for argument in call.args:
                keyword = argument.keyword.value if argument.keyword is not None else ""
                if keyword == "error_if_nonfinite" and literal_value(argument.value) is not False:
                    yield "anomaly", call
            if any(a.keyword is not None and a.keyword.value == "create_graph" for a in call.args):
                yield "double-backward", call
        for owner in self.tree.all(cst.ClassDef):
            for base in owner.bases:
                if (self.names.dotted(base.value) or "").endswith("autograd.Function"):
                    yield "function", owner

    def _is_part(self, node: cst.BaseExpression) -> bool:
        """A model, a layer or a parameter of it: `model[0]`, or what a loop over its layers gives."""
        while not self.is_model(node):
            variable = self.names.variable(node)
            for found in self.names.assignments.get(variable, ()) if variable is not None else ():
                over = self.tree.code(getattr(found.statement, "iter", node))
                if found.kind == "loop" and re.search(r"\b(modules|children|parameters)\(\)", over):
                    return True
            if not isinstance(node, (cst.Attribute, cst.Subscript)):
                return False
            node = node.value
        return True

    def imported_hazard(self) -> tuple[str, cst.CSTNode] | None:
        """A module of the repository that this file imports from, and that half precision breaks."""
        if self.script.neighbours is None:
            return None
        dotted = {d: v for v, d in self.names.imports.items()}
        for name, text in self.script.neighbours.sources(dotted):
            found = _hazard_in(text)
            if found is not None:
                return f"{name}: {found}", self.tree.module.body[0]
        return None

    # -- deprecated spellings ---------------------------------------------------------------------

    def deprecated(self) -> Iterator[tuple[cst.CSTNode, str]]:
        """Calls of torch.cuda.amp and torch.cpu.amp with their modern code, and their imports.

        A spelling in an `except` stays: it is there for an older torch.
        """
        renamed: dict[Variable, str] = {}
        for node in self.tree.all(cst.ImportFrom):
            module = self.tree.code(node.module) if node.module is not None else ""
            if module not in ("torch.cuda.amp", "torch.cpu.amp") or self._is_fallback(node):
                continue
            if isinstance(node.names, cst.ImportStar):
                continue
            if not all(a.name.value in ("autocast", "GradScaler") for a in node.names):
                continue
            code = self.tree.code(node).replace(module, "torch.amp", 1)
            yield node, code
            for variable, statement in self._bound_by(node):
                renamed[variable] = module.split(".")[1]
        for call in self.tree.all(cst.Call):
            device = self._old_device(call, renamed)
            if device is not None and not self._is_fallback(call):
                func = self.tree.code(call.func)
                arguments = [f'"{device}"', *self._modern_arguments(call)]
                func = re.sub(r"^torch\.(cuda|cpu)\.amp\.", "torch.amp.", func)
                yield call, f"{func}({', '.join(arguments)})"

    def _modern_arguments(self, call: cst.Call) -> Iterator[str]:
        """The arguments behind the device; the old autocast took enabled first, the new one dtype."""
        dotted = self.names.dotted(call.func) or self.tree.code(call.func)
        names = ("enabled", "dtype", "cache_enabled") if dotted.endswith("autocast") else ()
        for index, argument in enumerate(call.args):
            code = self.tree.code(argument).rstrip(" ,")
            positional = argument.keyword is None and not argument.star
            yield f"{names[index]}={code}" if positional and index < len(names) else code

    def evaluations(self, steps: Iterable[TrainingStep]) -> Evaluations:
        """The reading of validation and tests of what some steps train, made on demand."""
        from quickwins_codemod.script.evaluations import Evaluations

        return Evaluations(self.script, self, steps)

    def uses_runtime(self, step: TrainingStep) -> bool:
        """Whether a step runs under the bundled runtime's autocast."""
        return any(
            isinstance(n, cst.Call)
            and self.is_autocast(n)
            and (self.names.dotted(n.func) or "").startswith("quickwins_")
            for n in walk(self.trunk(step))
        )

    def scaling(self, step: TrainingStep) -> Scaling:
        """The reading of mixed precision that a step has, made on demand."""
        from quickwins_codemod.script.scaling import Scaling

        return Scaling(self.script, self, step)

    def modern(self) -> cst.Call | None:
        """The first call of torch.amp's autocast or GradScaler, or of the bundled runtime's."""
        wanted = re.compile(r"^(torch\.amp|torch|quickwins_runtime|quickwins_codemod\.runtime)\.")
        for call in self.tree.all(cst.Call):
            name = self.names.dotted(call.func) or ""
            if wanted.match(name) and name.rpartition(".")[2] in ("autocast", "GradScaler"):
                return call
        return None

    def _bound_by(self, node: cst.ImportFrom) -> Iterator[tuple[Variable, cst.CSTNode]]:
        for variable, assignments in self.names.assignments.items():
            if len(assignments) == 1 and assignments[0].statement is node:
                yield variable, node

    def _old_device(self, call: cst.Call, renamed: dict[Variable, str]) -> str | None:
        code = self.tree.code(call.func)
        for device in ("cuda", "cpu"):
            if code in (f"torch.{device}.amp.autocast", f"torch.{device}.amp.GradScaler"):
                return device
        variable = self.names.variable(call.func) if isinstance(call.func, cst.Name) else None
        return renamed.get(variable) if variable is not None else None

    def _is_fallback(self, node: cst.CSTNode) -> bool:
        return any(isinstance(a, (cst.ExceptHandler, cst.Try)) for a in self.tree.ancestors(node))

    def _overflows(self, call: cst.Call) -> bool:
        values = [literal_value(a.value) for a in call.args]
        return any(isinstance(v, (int, float)) and 65504 < abs(v) < float("inf") for v in values)

    def _tiny(self, call: cst.Call) -> bool:
        """`log(p + 1e-8)`: the constant is 0 in float16; `log(1 - p)`: p may be 1 there."""
        if self.tree.code(call.func).startswith(("math.", "np.", "numpy.")):
            return False
        looked_at = [a.value for a in call.args]
        if isinstance(call.func, cst.Attribute):
            looked_at.append(call.func.value)
        for node in (n for value in looked_at for n in walk(value)):
            if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract):
                if literal_value(node.left) == 1:
                    return True
            value = literal_value(node) if isinstance(node, (cst.Float, cst.Integer)) else None
            if isinstance(node, cst.Name):
                variable = self.names.variable(node)
                found = self.names.assignments.get(variable, ()) if variable is not None else ()
                value = literal_value(found[0].value) if len(found) == 1 else None
            if isinstance(value, float) and 0 < value < 6e-8:
                return True
        return False

    def _never_masked(self, call: cst.Call) -> bool:
        """The fill stands under `if mask is not None`, and no call of the class gives a mask."""
        function = self.tree.function(call)
        owner = self.names.method_class(function)
        guard = next((a for a in self.tree.ancestors(call) if isinstance(a, cst.If)), None)
        if owner is None or guard is None or not isinstance(guard.test, cst.Comparison):
            return False
        name = self.tree.code(guard.test.left)
        parameters = [*function.params.params]
        index = next((i for i, p in enumerate(parameters) if p.name.value == name), None)
        if index is None or literal_value(parameters[index].default) is not None:
            return False
        if self.tree.code(guard.test) != f"{name} is not None":
            return False
        return self._instances_called_with_fewer(owner, index, name)

    def _instances_called_with_fewer(self, owner: cst.ClassDef, index: int, name: str) -> bool:
        """No expression that may be an instance of the class is called with that argument."""
        makers = [c for c in self.tree.all(cst.Call) if self.names.local_class(c.func) is owner]
        holders: set[str] = set()
        for maker in makers:
            statement = self.tree.statement(maker)
            if not isinstance(statement, cst.Assign):
                return False
            holders |= {self.tree.code(t.target) for t in statement.targets}
        for loop in self.tree.all(cst.For):
            if self.tree.code(loop.iter) in holders:
                holders.add(self.tree.code(loop.target))
        for call in self.tree.all(cst.Call):
            if self.tree.code(call.func) in holders:
                given = any(a.keyword is not None and a.keyword.value == name for a in call.args)
                if given or len(call.args) >= index or any(a.star for a in call.args):
                    return False
        return bool(makers)

    def unsafe_loss(self, statement: cst.CSTNode) -> cst.Call | None:
        """A call of BCELoss or binary_cross_entropy, which raises under CUDA's autocast."""
        for node in walk(statement):
            if isinstance(node, cst.Call):
                named = [self.tree.code(node.func)]
                named += [self.tree.code(c.func) for c in self.names.creations(node.func)]
                if any(n.rpartition(".")[2] in ("BCELoss", "binary_cross_entropy") for n in named):
                    return node
        return None

    def unsafe_in_models(self) -> cst.Call | None:
        """The same, inside a class of the file: hidden in a forward pass."""
        for call in self.tree.all(cst.Call):
            name = self.tree.code(call.func).rpartition(".")[2]
            if name in ("BCELoss", "binary_cross_entropy"):
                owner = self.tree.enclosing_class(call)
                if owner is not None and self.names.method(owner, "forward") is not None:
                    return call
        return None

    def is_embedding_only(self) -> bool:
        """The file's models hold embeddings and no layer that half precision makes faster."""
        calls = {self.tree.code(c.func).rpartition(".")[2] for c in self.tree.all(cst.Call)}
        heavy = re.compile(
            r"^(Linear|Bilinear|Conv\w*|LSTM\w*|GRU\w*|RNN\w*|Transformer\w*|MultiheadAttention"
            r"|matmul|mm|bmm|einsum|linear|\w*Conv)$"
        )
        imported = any(
            self.names.dotted(c.func) is not None and self.names.local_class(c.func) is None
            and self.is_model_maker(c)
            for c in self.tree.all(cst.Call)
        )
        products = any(isinstance(b.operator, cst.MatrixMultiply) for b in self.tree.all(cst.BinaryOperation))
        return "Embedding" in calls and not imported and not products and not any(
            heavy.match(c) for c in calls
        )

    def is_model_maker(self, call: cst.Call) -> bool:
        statement = self.tree.statement(call)
        return isinstance(statement, cst.Assign) and any(
            self.names.variable(t.target) in self.models for t in statement.targets
        )

    # -- conditions ----------------------------------------------------------------------------------

    def boundary(self, step: cst.Call, backward: cst.Call) -> cst.CSTNode | None:
        """The outermost `if` around a step that does not hold the backward call as well."""
        found = None
        for ancestor in self.tree.ancestors(step):
            if isinstance(ancestor, cst.FunctionDef) or self.tree.is_within(backward, ancestor):
                return found
            if isinstance(ancestor, cst.If):
                found = ancestor
            if isinstance(ancestor, LOOPS):
                return found
        return found


def _flat(target: cst.BaseExpression) -> Iterator[cst.BaseExpression]:
    """The single targets of an assignment; of `x[i] = ...` the x."""
    if isinstance(target, (cst.Tuple, cst.List)):
        for element in target.elements:
            yield from _flat(element.value)
    elif isinstance(target, cst.Subscript):
        yield from _flat(target.value)
    else:
        yield target


def _hazard_in(text: str) -> str | None:
    """What in the text of another module raises or overflows under half precision."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("BCELoss", "binary_cross_entropy"):
                return name
            if name in ("masked_fill", "masked_fill_") and any(_too_large(a) for a in node.args):
                return ast.unparse(node)[:60]
        if isinstance(node, ast.ClassDef):
            if any(ast.unparse(base).endswith("autograd.Function") for base in node.bases):
                return f"class {node.name}"
    return None


def _too_large(node: ast.expr) -> bool:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return False
    return isinstance(value, (int, float)) and 65504 < abs(value) < float("inf")
