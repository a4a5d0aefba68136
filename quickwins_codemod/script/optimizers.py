"""Optimizers and learning-rate schedules: where they are made, stepped, used and written to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Optimizer, Scheduler, Use
from quickwins_codemod.script.names import Assignment, Names, Variable
from quickwins_codemod.script.neighbours import Neighbours
from quickwins_codemod.script.tree import Tree, walk

_FACTORIES = re.compile(
    r"(^|\.)(Adam|AdamW|SGD|RMSprop|Adagrad|Adadelta|Adamax|NAdam|RAdam|SparseAdam|LBFGS|ASGD|Rprop"
    r"|Adafactor|Lion|Lamb|LAMB|LARS|Muon|FusedAdam|FusedLAMB|FusedSGD|AdamW8bit|Adam8bit|Ranger"
    r"|AdaBelief|Shampoo|SophiaG|create_optimizer|create_optimizer_v2)$"
)
_SCHEDULE_FACTORY = re.compile(
    r"(^|\.)(get_\w*schedule\w*|get_scheduler|create_scheduler(_v2)?|\w+LRScheduler|\w*LR"
    r"|ReduceLROnPlateau|OneCycle|CosineAnnealingWarmRestarts|ChainedScheduler|GradualWarmupScheduler)$"
)
_OPTIMIZER_BASES = ("torch.optim.Optimizer", "torch.optim.optimizer.Optimizer", "Optimizer")
#: Functions of other files that may be given an optimizer: they read it, or save and load it.
_HARMLESS = re.compile(
    r"(^|[._])(save|load|restore|resume|checkpoint|ckpt|log|logger|watch|print|summary|describe|count"
    r"|unscale_|zero_grad|broadcast_optimizer_state|clip\w*|len|getattr|setattr|state)",
    re.IGNORECASE,
)
_RATE_WORDS = re.compile(r"(^|_)(lr|learning|rate|warm\w*|adjust|sched\w*|decay|anneal\w*)", re.IGNORECASE)
_READS = {"print", "str", "repr", "type", "isinstance", "hasattr", "id", "bool", "callable"}


class Optimizers:
    """Finds optimizers and schedules in one module."""

    def __init__(self, tree: Tree, names: Names) -> None:
        self.tree, self.names = tree, names

    # -- optimizers --------------------------------------------------------------------------

    def find(self) -> list[Optimizer]:
        """Every optimizer of the module, one for each variable that is bound to one."""
        by_variable: dict[Variable, list[tuple[cst.Call, Assignment]]] = {}
        for call in self.tree.all(cst.Call):
            if self.is_optimizer(call):
                bound = self._bound_to(call)
                if bound is not None:
                    by_variable.setdefault(bound.variable, []).append((call, bound))
        found = []
        for variable, made in by_variable.items():
            calls = tuple(call for call, _ in made)
            kinds = {self.class_name(call) for call in calls}
            found.append(
                Optimizer(
                    creations=calls,
                    statement=made[0][1].statement,
                    variable=variable,
                    reference=self.tree.code(made[0][1].target),
                    class_name=kinds.pop() if len(kinds) == 1 else "",
                )
            )
        return found

    def _bound_to(self, call: cst.Call) -> Assignment | None:
        """The assignment that names what a call made: in its own statement, or in a caller's."""
        statement = self.tree.statement(call)
        found = [
            a
            for assignments in self.names.assignments.values()
            for a in assignments
            if a.value is not None and call in self.names.creations(a.value, a.index)
        ]
        here = [a for a in found if a.statement is statement]
        if here or not isinstance(statement, cst.Return):
            return here[0] if here else None
        return min(found, key=lambda a: self.tree.order[a.statement], default=None)

    def unnamed(self) -> list[cst.Call]:
        """Calls that make an optimizer which is bound to no name: its uses cannot be followed."""
        return [
            call
            for call in self.tree.all(cst.Call)
            if self.is_optimizer(call) and self._bound_to(call) is None
        ]

    def is_optimizer(self, call: cst.Call) -> bool:
        """Whether a call makes an optimizer: torch's, a known package's, or the file's own."""
        if self._is_schedule_call(call):
            return False
        name = self.names.dotted(call.func) or ""
        if re.match(r"torch\.optim\.[A-Z]\w*$", name) or re.match(r"torch\.optim\.\w+\.[A-Z]\w*$", name):
            return not name.endswith(("Optimizer", "LRScheduler")) and "swa_utils" not in name and (
                "lr_scheduler" not in name
            )
        owner = self.names.local_class(call.func)
        if owner is not None:
            return self._derives(owner, _OPTIMIZER_BASES, "torch.optim.")
        if isinstance(call.func, cst.Call) and self.tree.code(call.func.func) == "getattr":
            base = call.func.args[0].value if call.func.args else None
            return base is not None and self.names.dotted(base) == "torch.optim"
        takes_parameters = any(".parameters()" in self.tree.code(a.value) for a in call.args)
        return bool(_FACTORIES.search(name)) and (takes_parameters or "optim" in name.lower())

    def _derives(self, owner: cst.ClassDef, exact: tuple[str, ...], prefix: str) -> bool:
        for item in self.names.hierarchy(owner):
            for base in item.bases:
                name = self.names.dotted(base.value) or ""
                if name in exact or (name.startswith(prefix) and "lr_scheduler" not in name):
                    return True
        return False

    def class_name(self, call: cst.Call) -> str:
        name = self.names.dotted(call.func) or self.tree.code(call.func)
        return name.rsplit(".", 1)[-1]

    def steps(self, optimizer: Optimizer) -> list[cst.Call]:
        """Calls that step it: `optimizer.step()`, and a scaler's `step(optimizer)`."""
        made = frozenset(optimizer.creations)
        found = []
        for call in self.tree.all(cst.Call):
            if not isinstance(call.func, cst.Attribute):
                continue
            name = call.func.attr.value
            if name == "step" and self.names.creations(call.func.value) & made:
                found.append(call)
            elif name in ("step", "optimizer_step") and call.args:
                first = call.args[0]
                named = first.keyword is None or first.keyword.value == "optimizer"
                if named and self.names.creations(first.value) & made:
                    found.append(call)
        return found

    def foreign_steps(self, known: frozenset[cst.Call]) -> list[cst.Call]:
        """Steps of optimizers that this file does not make: one for each variable.

        `x.step()` alone may be anything (an environment, a profiler); an optimizer is also zeroed,
        or stepped by a scaler.
        """
        zeroed = {
            self.names.variable(call.func.value)
            for call in self.tree.all(cst.Call)
            if isinstance(call.func, cst.Attribute) and call.func.attr.value == "zero_grad"
        }
        scales = {
            self.tree.code(call.func.value)
            for call in self.tree.all(cst.Call)
            if isinstance(call.func, cst.Attribute) and call.func.attr.value == "scale"
        }
        found: dict[Variable, cst.Call] = {}
        for call in self.tree.all(cst.Call):
            func = call.func
            if call in known or not (isinstance(func, cst.Attribute) and func.attr.value == "step"):
                continue
            by_scaler = bool(call.args) and self.tree.code(func.value) in scales
            stepped = call.args[0].value if by_scaler else func.value
            variable = self.names.variable(stepped)
            if variable is None or not (by_scaler or variable in zeroed):
                continue
            owner = self.tree.enclosing_class(call)
            if owner is None or not self._derives(owner, _OPTIMIZER_BASES, "torch.optim."):
                found.setdefault(variable, call)
        return list(found.values())

    def sets_rate_itself(self, step: cst.CSTNode) -> bool:
        """Whether the function around a step also writes the rate: `step_and_update_lr`."""
        function = self.tree.function(step)
        return isinstance(function, cst.FunctionDef) and any(
            True for _ in self.rate_writes(function.body)
        )

    # -- schedules ---------------------------------------------------------------------------

    def schedulers(self, optimizer: Optimizer) -> list[Scheduler]:
        """The schedules made for an optimizer, those that are parts of others inside them."""
        made = frozenset(optimizer.creations)
        calls = [
            call
            for call in self.tree.all(cst.Call)
            if self._is_schedule_call(call) and self._drives(call, made)
        ]
        found = {call: self._scheduler(call) for call in calls}
        inner = {child.creation for s in found.values() for child in s.children}
        return [s for call, s in found.items() if call not in inner]

    def _is_schedule_call(self, call: cst.Call) -> bool:
        name = self.names.dotted(call.func) or ""
        if name.startswith("torch.optim.lr_scheduler.") or _SCHEDULE_FACTORY.search(name):
            return True
        owner = self.names.local_class(call.func)
        return owner is not None and self.is_schedule_class(owner)

    def is_schedule_class(self, owner: cst.ClassDef) -> bool:
        """A class of the file that sets an optimizer's rates: by its base, or by hand."""
        for item in self.names.hierarchy(owner):
            for base in item.bases:
                name = self.names.dotted(base.value) or self.tree.code(base.value)
                if name.endswith(("LRScheduler", "LambdaLR", "_LRScheduler")) or (
                    name.startswith("torch.optim.lr_scheduler.")
                ):
                    return True
        has_step = self.names.method(owner, "step") is not None
        return has_step and any(True for _ in self.rate_writes(owner))

    def _drives(self, call: cst.Call, made: frozenset[cst.Call]) -> bool:
        values = [a.value for a in call.args]
        if any(self.names.creations(value) & made for value in values):
            return True
        return any(self._drives(child, made) for child in self._child_calls(call))

    def _child_calls(self, call: cst.Call) -> list[cst.Call]:
        found = []
        for argument in call.args:
            lists = [argument.value]
            variable = self.names.variable(argument.value)
            lists += [a.value for a in self.names.assignments.get(variable, ())] if variable else []
            for value in lists:
                if isinstance(value, (cst.List, cst.Tuple)):
                    for element in value.elements:
                        found += [
                            c
                            for c in self.names.creations(element.value)
                            if c is not call and self._is_schedule_call(c)
                        ]
        return found

    def _scheduler(self, call: cst.Call) -> Scheduler:
        bound = self._bound_to(call)
        dotted = self.names.dotted(call.func) or ""
        return Scheduler(
            creation=call,
            statement=self.tree.statement(call),
            variable=bound.variable if bound else None,
            reference=self.tree.code(bound.target) if bound else "",
            class_name=self.class_name(call),
            dotted=dotted,
            custom=self.names.local_class(call.func),
            uses=tuple(self._uses(call)),
            children=tuple(self._scheduler(child) for child in self._child_calls(call)),
        )

    def _uses(self, creation: cst.Call) -> Iterator[Use]:
        for node in self.names.references(creation):
            kind = self._use(node)
            if kind is not None:
                yield Use(kind, node, self.tree.statement(node))

    def _use(self, node: cst.CSTNode) -> str | None:
        """In what way an expression that is a scheduler is used; None where nothing depends on it."""
        parent = self.tree.parents[node]
        if isinstance(parent, cst.Attribute):
            name = parent.attr.value
            grand = self.tree.parents[parent]
            called = isinstance(grand, cst.Call) and grand.func is parent
            if name == "step" and called:
                return "step" if isinstance(self.tree.parents[grand], cst.Expr) else "step-value"
            return name
        if isinstance(parent, cst.Arg):
            call = self.tree.parents[parent]
            if not isinstance(call, cst.Call):
                return "escapes"
            if isinstance(call.func, cst.Name) and call.func.value in _READS:
                return "read"
            if self.names.callee(call) is not None or self._is_schedule_call(call):
                return None
            return "escapes"
        if isinstance(parent, (cst.Assign, cst.AnnAssign, cst.NamedExpr, cst.Annotation)):
            return None
        if isinstance(parent, (cst.If, cst.IfExp, cst.BooleanOperation, cst.UnaryOperation)):
            return "test"
        if isinstance(parent, (cst.Comparison, cst.ComparisonTarget)):
            return "test"
        if isinstance(parent, cst.FormattedStringExpression):
            return "read"
        if isinstance(parent, (cst.Return, cst.Element)):
            return self._handed_on(node)
        return "escapes"

    def _handed_on(self, node: cst.CSTNode) -> str | None:
        """Returned, alone or in a tuple, to callers of this module; or put into a list."""
        for ancestor in self.tree.ancestors(node):
            if isinstance(ancestor, cst.Return):
                function = self.tree.function(ancestor)
                return None if self.names.callers.get(function) else "escapes"
            if isinstance(ancestor, (cst.Assign, cst.AnnAssign, cst.Call)):
                children = isinstance(ancestor, cst.Call) and self._is_schedule_call(ancestor)
                pair = isinstance(ancestor, cst.Assign) and isinstance(
                    ancestor.targets[0].target, cst.Tuple
                )
                lists = isinstance(ancestor, cst.Assign) and self._feeds_schedule(ancestor)
                return None if children or pair or lists else "escapes"
        return "escapes"

    def _feeds_schedule(self, statement: cst.Assign) -> bool:
        """`parts = [warm, cosine]`, where the list is only handed to another schedule."""
        variable = self.names.variable(statement.targets[0].target)
        for kind in (cst.Name, cst.Attribute):
            for node in self.tree.all(kind):
                if self.names.variable(node) != variable or not self.names._is_read(node):
                    continue
                parent = self.tree.parents[node]
                call = self.tree.parents.get(parent)
                if not (isinstance(parent, cst.Arg) and isinstance(call, cst.Call)):
                    return False
                if not self._is_schedule_call(call):
                    return False
        return variable is not None

    # -- rates written by hand -----------------------------------------------------------------

    def rate_writes(self, within: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Statements below a node that write `group["lr"]`, or a key that is not in sight."""
        for node in walk(within):
            if any(True for _ in self._written_groups(node)):
                yield node

    def _written_groups(self, node: cst.CSTNode) -> Iterator[cst.BaseExpression]:
        """The groups whose rate an assignment or an update() sets."""
        targets = []
        if isinstance(node, cst.Assign):
            targets = [t.target for t in node.targets]
        elif isinstance(node, (cst.AugAssign, cst.AnnAssign)):
            targets = [node.target]
        for target in targets:
            if isinstance(target, cst.Subscript) and len(target.slice) == 1:
                index = target.slice[0].slice
                key = index.value if isinstance(index, cst.Index) else None
                if literal_value(key) == "lr" or isinstance(key, (cst.Name, cst.Attribute)):
                    yield target.value
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            if node.func.attr.value == "update" and re.search(r"\blr\b", self.tree.code(node)):
                yield node.func.value

    def manual_rates(self, optimizer: Optimizer, schedulers: list[Scheduler]) -> list[cst.CSTNode]:
        """Writes to this optimizer's rates outside the schedules' own classes."""
        made = frozenset(optimizer.creations)
        own = [s.custom for s in schedulers if s.custom is not None]
        found = []
        for write in self.rate_writes(self.tree.module):
            if any(self.tree.is_within(write, owner) for owner in own):
                continue
            owner = self.tree.enclosing_class(write)
            if owner is not None and self.is_schedule_class(owner):
                continue
            if any(self._is_group_of(g, made) for g in self._written_groups(write)):
                found.append(write)
        return found

    def _is_group_of(self, node: cst.BaseExpression, made: frozenset[cst.Call], depth: int = 0) -> bool:
        """Whether an expression is an optimizer's param_groups, or one of them, by any name."""
        for inner in walk(node):
            if isinstance(inner, cst.Attribute) and inner.attr.value == "param_groups":
                return bool(self.names.creations(inner.value) & made)
        variable = self.names.variable(node.value if isinstance(node, cst.Subscript) else node)
        if variable is None or depth > 4:
            return False
        sources = [a.value for a in self.names.assignments.get(variable, ()) if a.value is not None]
        for assignment in self.names.assignments.get(variable, ()):
            if assignment.kind == "loop":
                sources.append(assignment.statement.iter)
        if isinstance(variable.scope, cst.FunctionDef):
            sources += self.names.parameter_values(variable.scope, variable.name)
        return any(self._is_group_of(s, made, depth + 1) for s in sources)

    def _is_own_base(self, call: cst.Call) -> bool:
        """`super().__init__(optimizer)` in a schedule, or an optimizer, of the file itself."""
        if not self.tree.code(call.func).startswith("super()."):
            return False
        owner = self.tree.enclosing_class(call)
        return owner is not None and (
            self.is_schedule_class(owner) or self._derives(owner, _OPTIMIZER_BASES, "torch.optim.")
        )

    def _reaches(self, node: cst.BaseExpression, made: frozenset[cst.Call]) -> bool:
        """The optimizer itself, its param_groups, or one of them; not a value read from one."""
        if self.names.creations(node) & made:
            return True
        if isinstance(node, cst.Subscript):
            index = node.slice[0].slice
            if isinstance(index, cst.Index) and isinstance(index.value, cst.SimpleString):
                return False
            node = node.value
        if isinstance(node, cst.Attribute) and node.attr.value == "param_groups":
            return bool(self.names.creations(node.value) & made)
        return False

    # -- optimizers that leave the file -----------------------------------------------------------

    def handed_on(
        self, optimizer: Optimizer, neighbours: Neighbours | None
    ) -> tuple[cst.Call, bool] | None:
        """A call that gives the optimizer to code outside the file that may step it or set its rate.

        The second value tells whether the callee's name speaks of the rate.
        """
        made = frozenset(optimizer.creations)
        for call in self.tree.all(cst.Call):
            given = [a for a in call.args if self._reaches(a.value, made)]
            if not given or self.names.callee(call) is not None or call in made:
                continue
            code = self.tree.code(call.func)
            name = code.rpartition(".")[2]
            speaks_of_steps = _RATE_WORDS.search(name) or re.search(r"step|train|fit|optimi", name)
            if name in (*_READS, "step", "optimizer_step") or (
                _HARMLESS.search(code) and not speaks_of_steps
            ):
                continue
            if self._is_own_base(call):
                continue
            if self._is_schedule_call(call) or self.names.local_class(call.func) is not None:
                continue
            dotted = self.names.dotted(call.func) or ""
            if dotted.startswith("torch.") or isinstance(call.func, cst.Call):
                continue
            if dotted.startswith(("quickwins_runtime.", "quickwins_codemod.runtime.")):
                continue  # its Tracker reads the rate
            if neighbours is not None and dotted and neighbours.is_harmless(dotted):
                continue
            return call, bool(_RATE_WORDS.search(name))
        return None
