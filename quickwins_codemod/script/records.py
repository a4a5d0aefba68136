"""What a script writes down: checkpoints it saves and loads, and values it logs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import BatchLog, Checkpoint, RateComparison, Restore, Use
from quickwins_codemod.script.names import Names
from quickwins_codemod.script.tree import Tree, walk

_LOG_METHOD = re.compile(r"^(log|log_\w+)$")
_PAIRWISE = re.compile(
    r"(^|[._])(logsigmoid|LogSigmoid|margin_ranking_loss|MarginRankingLoss|triplet_margin_loss"
    r"|TripletMarginLoss|bpr|BPR)\w*$|bpr_?loss",
    re.IGNORECASE,
)
_RATE_KEY = re.compile(r"(^|[/_.\-])(lr|learning[_\- ]?rate)s?($|[/_.\-])", re.IGNORECASE)


class Records:
    """Finds saved states and logged values of one optimizer."""

    def __init__(self, tree: Tree, names: Names, made: frozenset[cst.Call]) -> None:
        self.tree, self.names, self.made = tree, names, made

    # -- checkpoints -------------------------------------------------------------------------

    def checkpoints(self) -> list[Checkpoint]:
        """Dict literals with an entry that is this optimizer's state."""
        found = []
        for mapping in self.tree.all(cst.Dict):
            for element in mapping.elements:
                if not isinstance(element, cst.DictElement):
                    continue
                key = literal_value(element.key)
                if isinstance(key, str) and self._is_state_of(element.value, self.made):
                    found.append(Checkpoint(mapping, element, key, _quote(element.key)))
        return found

    def _is_state_of(self, value: cst.CSTNode, made: frozenset[cst.Call]) -> bool:
        if isinstance(value, cst.IfExp):
            value = value.body
        return (
            isinstance(value, cst.Call)
            and isinstance(value.func, cst.Attribute)
            and value.func.attr.value == "state_dict"
            and bool(self.names.creations(value.func.value) & made)
        )

    def saves(self, mapping: cst.Dict, made: frozenset[cst.Call]) -> bool:
        """Whether a dict literal already holds the state of something else, e.g. a scheduler."""
        return any(
            isinstance(e, cst.DictElement) and self._is_state_of(e.value, made)
            for e in mapping.elements
        )

    def restores(self) -> list[Restore]:
        """`optimizer.load_state_dict(checkpoint["optimizer"])`, taken apart."""
        found = []
        for call in self._loads(self.made):
            statement = self.tree.statement(call)
            read = call.args[0].value if call.args else None
            if isinstance(read, cst.Subscript) and len(read.slice) == 1:
                index = read.slice[0].slice
                key = literal_value(index.value) if isinstance(index, cst.Index) else None
                if isinstance(key, str):
                    source = self.tree.code(read.value)
                    found.append(Restore(statement, source, key, _quote(index.value)))
                    continue
            found.append(Restore(statement, "", "", '"'))
        return found

    def restored(self, made: frozenset[cst.Call]) -> bool:
        return any(True for _ in self._loads(made))

    def _loads(self, made: frozenset[cst.Call]) -> Iterator[cst.Call]:
        for call in self.tree.all(cst.Call):
            func = call.func
            if isinstance(func, cst.Attribute) and func.attr.value == "load_state_dict":
                if self.names.creations(func.value) & made:
                    yield call

    # -- logs ----------------------------------------------------------------------------------

    def batch_logs(self, loop: cst.CSTNode) -> list[BatchLog]:
        """Dict literals in a loop's body that a logging call receives, itself or by a name."""
        found = []
        for call in self.tree.all(cst.Call):
            if not (self.tree.is_within(call, loop) and self.is_log(call)):
                continue
            for argument in call.args:
                mapping = self.mapping(argument.value, loop)
                if mapping is None or any(b.mapping is mapping for b in found):
                    continue
                keys = [e for e in mapping.elements if isinstance(e, cst.DictElement)]
                texts = [literal_value(e.key) for e in keys]
                names = tuple(k for k in texts if isinstance(k, str))
                if names:
                    quote = next(_quote(e.key) for e in keys if isinstance(literal_value(e.key), str))
                    found.append(BatchLog(mapping, names, quote))
        return found

    def epoch_logs(self, loop: cst.CSTNode) -> list[BatchLog]:
        """The same once for each turn of a loop: under no condition, and in no loop inside it."""
        found = []
        for log in self.batch_logs(loop):
            calls = [self.receiver(log.mapping, loop), log.mapping]
            if all(node is None or self._every_turn(node, loop) for node in calls):
                found.append(log)
        return found

    def receiver(self, mapping: cst.Dict, loop: cst.CSTNode) -> cst.Call | None:
        """The logging call that gets a dict literal by a name."""
        for call in self.tree.all(cst.Call):
            if self.tree.is_within(call, loop) and self.is_log(call):
                if any(self.mapping(a.value, loop) is mapping for a in call.args):
                    return call
        return None

    def _every_turn(self, node: cst.CSTNode, loop: cst.CSTNode) -> bool:
        for ancestor in self.tree.ancestors(node):
            if ancestor is loop:
                return True
            if isinstance(ancestor, (cst.If, cst.For, cst.While, cst.ExceptHandler, cst.FunctionDef)):
                return False
        return False

    def is_log(self, call: cst.Call) -> bool:
        """A call of a method named `log` or `log_...`, that is no logarithm."""
        func = call.func
        name = func.attr.value if isinstance(func, cst.Attribute) else ""
        if not _LOG_METHOD.match(name):
            return False
        return not re.match(r"(torch|np|numpy|math|F)\.", self.tree.code(func) + ".")

    def mapping(self, node: cst.BaseExpression, loop: cst.CSTNode) -> cst.Dict | None:
        """The dict literal that an expression is, itself or by a name that is set in a loop."""
        if isinstance(node, cst.Dict):
            return node
        variable = self.names.variable(node)
        found = self.names.assignments.get(variable, []) if variable is not None else []
        if len(found) == 1 and isinstance(found[0].value, cst.Dict):
            return found[0].value if self.tree.is_within(found[0].value, loop) else None
        return None

    def logs_rate(self, loop: cst.CSTNode) -> bool:
        """Whether something in the loop's body is written down under a learning rate's name."""
        for mapping in self.tree.all(cst.Dict):
            if self.tree.is_within(mapping, loop):
                for element in mapping.elements:
                    key = literal_value(element.key) if isinstance(element, cst.DictElement) else None
                    if isinstance(key, str) and _RATE_KEY.search(key):
                        return True
        for kind in (cst.Call, cst.Subscript):
            for node in self.tree.all(kind):
                if self.tree.is_within(node, loop) and self._names_rate(node):
                    return True
        return False

    def _names_rate(self, node: cst.CSTNode) -> bool:
        """`add_scalar("lr", ...)`, `log(lr=...)`, `metrics["lr"] = ...`."""
        if isinstance(node, cst.Subscript):
            parent = self.tree.parents[node]
            key = node.slice[0].slice
            value = literal_value(key.value) if isinstance(key, cst.Index) else None
            written = isinstance(parent, cst.AssignTarget) and "param_groups" not in self.tree.code(node)
            return written and isinstance(value, str) and bool(_RATE_KEY.search(value))
        if not self.is_log(node) and not self.tree.code(node.func).endswith("add_scalar"):
            return False
        for argument in node.args:
            named = argument.keyword.value if argument.keyword else literal_value(argument.value)
            if isinstance(named, str) and _RATE_KEY.search(named):
                return True
        return False

    def pairwise_loss(self, loop: cst.CSTNode) -> cst.Call | None:
        """A call in a loop that is a pairwise ranking loss: BPR, hinge or triplet."""
        for call in self.tree.all(cst.Call):
            if not self.tree.is_within(call, loop):
                continue
            named = [self.tree.code(call.func)]
            named += [self.tree.code(made.func) for made in self.names.creations(call.func)]
            if any(_PAIRWISE.search(name) for name in named) or self._compares(call):
                return call
            function = self.names.callee(call)
            if function is not None and any(
                self._compares(inner) for inner in self.tree.calls_within(function.body)
            ):
                return call
        return None

    def _compares(self, call: cst.Call) -> bool:
        """`logsigmoid(better - worse)` or `softplus(worse - better)`: BPR written out."""
        name = self.tree.code(call.func).rpartition(".")[2]
        value = call.args[0].value if call.args else None
        is_difference = isinstance(value, cst.BinaryOperation) and isinstance(
            value.operator, cst.Subtract
        )
        return is_difference and name in ("logsigmoid", "softplus")

    # -- comparisons of the rate around a step ---------------------------------------------------

    def comparison(self, step: Use, loop: cst.CSTNode) -> RateComparison | None:
        """`old = rate` above and `new = rate` below a per-epoch step, where old is used after."""
        siblings = self.tree.siblings(step.statement)
        index = next(i for i, s in enumerate(siblings) if s is step.statement)
        if not 0 < index < len(siblings) - 1:
            return None
        before, after = siblings[index - 1], siblings[index + 1]
        name = self._single_target(before)
        if name is None or self._single_target(after) is None:
            return None
        if not (self.reads_rate(before.value) and self.reads_rate(after.value)):
            return None
        variable = self.names.variable(before.targets[0].target)
        if len(self.names.assignments.get(variable, ())) != 1:
            return None
        return RateComparison(name, before, after)

    def _single_target(self, statement: cst.CSTNode) -> str | None:
        if isinstance(statement, cst.Assign) and len(statement.targets) == 1:
            target = statement.targets[0].target
            return target.value if isinstance(target, cst.Name) else None
        return None

    def depends_on_rate(self, stop: cst.CSTNode) -> bool:
        """Whether the test around a break compares a learning rate."""
        tested = stop if isinstance(stop, cst.BaseExpression) else next(
            (a.test for a in self.tree.ancestors(stop) if isinstance(a, cst.If)), None
        )
        kinds = (cst.Name, cst.Subscript)
        return tested is not None and any(
            isinstance(n, kinds) and self.reads_rate(n) for n in walk(tested)
        )

    def reads_rate(self, node: cst.BaseExpression, depth: int = 0) -> bool:
        """Whether an expression is a learning rate: read from a group, or a name for one."""
        if isinstance(node, cst.Subscript) and len(node.slice) == 1:
            index = node.slice[0].slice
            if isinstance(index, cst.Index) and literal_value(index.value) == "lr":
                return True
            if self.tree.plain(node).endswith(".get_last_lr()[0]"):
                return True
        variable = self.names.variable(node) if isinstance(node, cst.Name) else None
        found = self.names.assignments.get(variable, []) if variable is not None else []
        return depth < 3 and bool(found) and all(
            a.value is not None and self.reads_rate(a.value, depth + 1) for a in found
        )


def _quote(node: cst.BaseExpression) -> str:
    if isinstance(node, cst.SimpleString):
        return node.quote
    return '"'
