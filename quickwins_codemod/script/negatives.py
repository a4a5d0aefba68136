"""How a training loop ranks: which negatives it draws, what it scores them with, what it regresses.

One loop over a loader is read for four things: negatives that are drawn at random and scored
(`Sampled`), rows of both labels of which the zeros were drawn (`Pointwise`), products of all users
and items of a batch (`InBatch`), and ratings that are regressed (`Rated`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst

from quickwins_codemod.script.batches import Batch
from quickwins_codemod.script.draws import Draws, Range, RowDraws, row_draws
from quickwins_codemod.script.facts import Script
from quickwins_codemod.script.forwards import TrainingStep
from quickwins_codemod.script.names import Variable
from quickwins_codemod.script.recommenders import Encoding, Recommenders, Scoring, depends_on
from quickwins_codemod.script.signs import Signs
from quickwins_codemod.script.tree import walk

_REGRESSION = {
    "MSELoss", "mse_loss", "L1Loss", "l1_loss", "SmoothL1Loss", "smooth_l1_loss", "HuberLoss", "huber_loss",
}
_POINTWISE = {
    "BCEWithLogitsLoss", "BCELoss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
}
_SOFTMAX = {"CrossEntropyLoss", "cross_entropy"}
_JOINS = {"cat", "concat", "concatenate", "hstack"}
_NO_GRADIENT = re.compile(r"\b(no_grad|inference_mode)\b")
_RESHAPING = {
    "to", "cuda", "long", "view", "reshape", "squeeze", "unsqueeze", "flatten", "expand", "expand_as",
    "repeat", "repeat_interleave", "contiguous", "float", "int", "t", "clone", "detach",
}


@dataclass(frozen=True)
class Sampled:
    """Negatives that are drawn at random and scored.

    items: them, as the model is given them; users, positives: the users they are scored for and
    the items these have, where they are seen. beside: there is one positive for each of the users, and
    these are not repeated for several negatives. part: their place among what is joined with them.
    score: the one call of the model; encodings: or those of users and items, multiplied.
    triple: or `model(users, positives, negatives)`; scorer: the method of the model that scores one
    item in it, "" where the triple's first answer does.
    draw: the draw in the loop; None where the rows of the data set draw.
    rising: whether the loss rises with their score; None where that is not provable.
    """

    items: cst.BaseExpression
    users: cst.BaseExpression
    positives: cst.BaseExpression | None
    beside: bool
    part: int | None
    score: Scoring | None
    encodings: tuple[Encoding, Encoding] | None
    triple: cst.Call | None
    draw: cst.Call | None
    range: Range | None
    rising: int | None
    scorer: str = ""


@dataclass(frozen=True)
class Pointwise:
    """Users, items and labels of a batch that one call scores, and a loss of scores and labels."""

    scoring: Scoring
    labels: cst.BaseExpression
    loss: cst.Call
    sampled: bool | None


@dataclass(frozen=True)
class InBatch:
    """A softmax over the products of all users and items of one batch.

    logits: what the loss is given; items, users: their ids, where those are what is encoded.
    """

    loss: cst.Call
    logits: cst.BaseExpression
    items: cst.BaseExpression | None
    users: cst.BaseExpression | None


@dataclass(frozen=True)
class Rated:
    """A regression of ratings: the loss's call and the call that predicts."""

    loss: cst.Call
    scoring: Scoring
    ratings: cst.BaseExpression


@dataclass(frozen=True)
class RankingLoop:
    """What one training step's loop over its batches does with users and items."""

    step: TrainingStep
    batch: Batch
    scorings: tuple[Scoring, ...]
    sampled: tuple[Sampled, ...]
    pointwise: tuple[Pointwise, ...]
    in_batch: tuple[InBatch, ...]
    rated: tuple[Rated, ...]
    triples: tuple[cst.Call, ...]
    catalogue: cst.Call | None


def base(node: cst.BaseExpression) -> cst.BaseExpression:
    """An expression without what only changes its shape, type or device."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        if node.func.attr.value not in _RESHAPING:
            break
        node = node.func.value
    return node


def _has_rows_of(users: cst.BaseExpression) -> bool:
    """Whether users still are one for each row of the batch, not repeated for each negative."""
    names = set()
    while isinstance(users, cst.Call) and isinstance(users.func, cst.Attribute):
        names.add(users.func.attr.value)
        users = users.func.value
    repeats = names & {"repeat", "repeat_interleave"}
    flattened = names & {"expand", "expand_as"} and names & {"view", "reshape", "flatten"}
    return not repeats and not flattened


def unscaled(loss: cst.BaseExpression) -> cst.BaseExpression:
    """The loss in `scaler.scale(loss)`."""
    if isinstance(loss, cst.Call) and isinstance(loss.func, cst.Attribute):
        if loss.func.attr.value == "scale" and loss.args:
            return loss.args[0].value
    return loss


class RankingLoops:
    """Reads the training steps of one script for the negatives in them."""

    def __init__(self, script: Script) -> None:
        self.script, self.tree, self.names = script, script.tree, script.names
        self.models = Recommenders(script)
        self.draws = Draws(script.tree, script.names)

    def read(self, step: TrainingStep) -> RankingLoop | None:
        loop, batch = self._loop(step), None
        if loop is not None:
            batch = Batch(self.tree, self.names, loop)
        elif isinstance(step.function, cst.FunctionDef):
            batch = self._given(step)
        if batch is None:
            return None
        calls = [c for c in self.tree.all(cst.Call) if self._trains(c, batch.body)]
        scorings = tuple(s for s in map(self.models.scoring, calls) if s is not None)
        rows = row_draws(self.script, batch.source)
        reader = _Reader(self, step, batch, calls, scorings, rows)
        return RankingLoop(
            step, batch, scorings,
            tuple(reader.sampled()), tuple(reader.pointwise()), tuple(reader.in_batch()),
            tuple(reader.rated()), tuple(c for c in calls if self.models.triple(c) is not None),
            reader.catalogue(),
        )

    def _loop(self, step: TrainingStep) -> cst.For | None:
        """The innermost loop with data in it that holds all of a step's backward calls."""
        for ancestor in self.tree.ancestors(step.backwards[0]):
            if ancestor is step.function:
                return None
            if isinstance(ancestor, cst.For) and not self._counts(ancestor):
                return ancestor if all(self.tree.is_within(b, ancestor) for b in step.backwards) else None
        return None

    def _given(self, step: TrainingStep) -> Batch | None:
        """The batch that a function trains on which a loop over batches calls."""
        callers = self.names.callers.get(step.function, [])
        if len(callers) != 1:
            return None
        for ancestor in self.tree.ancestors(callers[0]):
            if isinstance(ancestor, (cst.FunctionDef, cst.Lambda)):
                return None
            if isinstance(ancestor, cst.For):
                return Batch(self.tree, self.names, ancestor, callers[0], step.function)
        return None

    def _counts(self, loop: cst.For) -> bool:
        """`for _ in range(k)`: no loop over data, unless it takes batches out by their number."""
        return isinstance(loop.iter, cst.Call) and self.tree.code(loop.iter.func) == "range" and any(
            isinstance(a, cst.For) and not self.tree.code(a.iter).startswith("range(")
            for a in self.tree.ancestors(loop)
        )

    def _trains(self, call: cst.Call, body: cst.CSTNode) -> bool:
        if not self.tree.is_within(call, body):
            return False
        for ancestor in self.tree.ancestors(call):
            if ancestor is body:
                return True
            if isinstance(ancestor, (cst.FunctionDef, cst.Lambda)):
                return False
            if isinstance(ancestor, cst.With) and any(
                _NO_GRADIENT.search(self.tree.code(i.item)) for i in ancestor.items
            ):
                return False
        return False


class _Reader:
    def __init__(
        self,
        home: RankingLoops,
        step: TrainingStep,
        batch: Batch,
        calls: list[cst.Call],
        scorings: tuple[Scoring, ...],
        rows: RowDraws | None,
    ) -> None:
        self.home, self.step, self.batch = home, step, batch
        self.tree, self.names, self.draws, self.models = home.tree, home.names, home.draws, home.models
        self.calls, self.scorings, self.rows = calls, scorings, rows

    # -- values in the loop ---------------------------------------------------------------------

    def parts(self, node: cst.BaseExpression, depth: int = 0) -> list[cst.BaseExpression]:
        """What a tensor is made of: itself, or the tensors that were joined, without reshaping."""
        if depth > 6:
            return [node]
        if isinstance(node, cst.Call):
            name = self.tree.code(node.func).rpartition(".")[2]
            joined = node.args[0].value if name in _JOINS and node.args else None
            if isinstance(joined, (cst.Tuple, cst.List)):
                return [p for e in joined.elements for p in self.parts(e.value, depth + 1)]
            if isinstance(node.func, cst.Attribute) and name in _RESHAPING:
                inner = self.parts(node.func.value, depth + 1)
                return inner if len(inner) > 1 or inner[0] is not node.func.value else [node]
            return [node]
        value = self._assigned_here(node)
        if value is not None and self.batch.column(node) is None and isinstance(value, cst.Call):
            inner = self.parts(value, depth + 1)
            if len(inner) > 1:
                return inner
        return [node]

    def _assigned_here(self, node: cst.BaseExpression) -> cst.BaseExpression | None:
        """The one value that a name is given in the loop's body."""
        variable = self.names.variable(node)
        found = [
            a for a in (self.names.assignments.get(variable, ()) if variable is not None else ())
            if self.tree.is_within(a.statement, self.batch.body) and a.index is None
        ]
        return found[0].value if len(found) == 1 else None

    def _draw(self, node: cst.BaseExpression) -> cst.Call | None:
        """The draw behind ids that are drawn in this loop."""
        return self.draws.drawn(base(node), within=self.batch.body)

    def _is_negative(self, node: cst.BaseExpression) -> bool:
        column = self.batch.column(base(node))
        if column is not None:
            return self.rows is not None and column.key in self.rows.columns
        return self._draw(node) is not None

    # -- negatives that are drawn and scored -------------------------------------------------------

    def sampled(self) -> Iterator[Sampled]:
        yield from self._scored()
        yield from self._encoded()
        yield from self._in_triples()

    def _scored(self) -> Iterator[Sampled]:
        seen: set[Variable | None] = set()
        for scoring in self.scorings:
            parts = self.parts(scoring.items)
            for index, part in enumerate(parts):
                variable = self.names.variable(base(part))
                if not self._is_negative(part) or variable is None or variable in seen:
                    continue
                seen.add(variable)
                joined = len(parts) > 1
                users = self.parts(scoring.users)
                mine = users[index] if joined and len(users) == len(parts) else scoring.users
                positives = self._positives(scoring, parts, mine)
                yield self._sample(
                    part, mine, positives, index if joined else None, scoring=scoring,
                    source=scoring.call,
                )

    def _positives(
        self, scoring: Scoring, parts: list[cst.BaseExpression], users: cst.BaseExpression
    ) -> tuple[cst.BaseExpression, bool] | None:
        """The items of the same batch that are no draw, joined with the negatives or scored apart,
        and whether there is one for each of these users."""
        for part in parts:
            if not self._is_negative(part):
                return base(part), _has_rows_of(users)
        for other in self.scorings:
            if other.call is not scoring.call and not self._is_negative(other.items):
                if self.tree.plain(other.model) == self.tree.plain(scoring.model):
                    same = self.tree.plain(base(other.users)) == self.tree.plain(base(users))
                    return base(other.items), same and _has_rows_of(users)
        return None

    def _encoded(self) -> Iterator[Sampled]:
        """`user_tower(u)` and `item_tower(negatives)`, multiplied."""
        encodings = [e for e in map(self.models.encoding, self.calls) if e is not None]
        scored = {id(s.call) for s in self.scorings}
        for encoding in encodings:
            if id(encoding.call) in scored or not self._is_negative(encoding.ids):
                continue
            variable = self.names.variable(base(encoding.ids))
            pair = self._multiplied(encoding, encodings)
            if variable is None or pair is None:
                continue
            users, product = pair
            same = self.tree.plain(encoding.encoder)
            positives = next(
                (
                    (base(e.ids), _has_rows_of(users.ids)) for e in encodings
                    if self.tree.plain(e.encoder) == same and not self._is_negative(e.ids)
                ),
                None,
            )
            yield self._sample(
                encoding.ids, users.ids, positives, None, encodings=(users, encoding), source=product
            )

    def _multiplied(
        self, items: Encoding, encodings: list[Encoding]
    ) -> tuple[Encoding, cst.CSTNode] | None:
        """The users' encoding that the items' is multiplied with, and the expression that does."""
        found: list[tuple[Encoding, cst.CSTNode]] = []
        for node in walk(self.batch.body):
            operands = self._product(node)
            if operands is None:
                continue
            made = [self._encoding_of(o, encodings) for o in operands]
            if items in made:
                other = made[1 - made.index(items)]
                if other is not None and other is not items:
                    found.append((other, node))
        return found[0] if found else None

    def _product(self, node: cst.CSTNode) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
        """The two factors of a dot product: `(a * b).sum(-1)`, `torch.sum(a * b, 1)`, `einsum`."""
        if not isinstance(node, cst.Call):
            return None
        name = self.tree.code(node.func).rpartition(".")[2]
        if name == "sum":
            is_method = isinstance(node.func, cst.Attribute) and self.tree.code(node.func) != "torch.sum"
            value = node.func.value if is_method else node.args[0].value if node.args else None
            value = self._assigned_here(value) if isinstance(value, cst.Name) else value
            if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Multiply):
                return value.left, value.right
            if isinstance(value, cst.Call) and self.tree.code(value.func) == "torch.mul" and len(value.args) == 2:
                return value.args[0].value, value.args[1].value
        if name in ("bmm", "matmul", "dot") and len(node.args) == 2 and self.tree.code(node.func).startswith("torch."):
            return node.args[0].value, node.args[1].value
        return None

    def _encoding_of(
        self, node: cst.BaseExpression, encodings: list[Encoding]
    ) -> Encoding | None:
        """The encoding that a factor is, itself or by a name, its shape changed perhaps."""
        node = self._unshaped(node)
        for encoding in encodings:
            if encoding.call is node:
                return encoding
        value = self._assigned_here(node)
        return self._encoding_of(value, encodings) if value is not None else None

    def _unshaped(self, node: cst.BaseExpression) -> cst.BaseExpression:
        while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
            if node.func.attr.value not in (
                "unsqueeze", "squeeze", "expand_as", "view", "reshape", "t", "transpose", "expand",
                "permute",
            ):
                break
            node = node.func.value
        return node

    def _in_triples(self) -> Iterator[Sampled]:
        """`pos_score, neg_score = model(users, positives, negatives)`."""
        for call in self.calls:
            ids = self.models.triple(call)
            statement = self.tree.statement(call)
            if ids is None or not self._is_negative(ids[2]) or self._is_negative(ids[1]):
                continue
            users, positives, negatives = ids
            answers = self._answers(call, statement)
            scorer, sign = "", None
            if answers is not None:
                sign = self._rising(variables=[answers[1]])
            else:
                scorer, inner = self._scorer_within(call)
                if inner is not None and self._rising(rising=[call]) is not None:
                    sign = inner * self._rising(rising=[call])
            yield Sampled(
                negatives, users, base(positives), True, None, None, None, call,
                *self._drawn_by(negatives), sign, scorer,
            )

    def _scorer_within(self, call: cst.Call) -> tuple[str, int | None]:
        """The method by which a forward scores positive and negative, and the sign of what it
        returns with respect to the negative's score."""
        found = self.models.function(call.func)
        if found is None:
            return "", None
        lookups, function = found
        ids = lookups.ids(function)
        scored: dict[str, dict[str, cst.Call]] = {}
        for inner in lookups.tree.calls_within(function.body):
            method = lookups.names.callee(inner)
            if method is None or len(lookups.ids(method)) != 2 or len(inner.args) != 2:
                continue
            plain = [lookups.tree.code(a.value) for a in inner.args]
            if plain[0] == ids[0] and isinstance(inner.func, cst.Attribute):
                scored.setdefault(inner.func.attr.value, {})[plain[1]] = inner
        for name, by_item in scored.items():
            returned = lookups.names.returns(function)
            if ids[1] in by_item and ids[2] in by_item and len(returned) == 1:
                signs = Signs(lookups.tree, lookups.names, [by_item[ids[2]]])
                return name, signs.of(returned[0])
        return "", None

    def _answers(self, call: cst.Call, statement: cst.CSTNode) -> tuple[Variable, Variable] | None:
        """The scores of positives and negatives, where the forward returns just these two."""
        found = self.models.function(call.func)
        if found is None or not isinstance(statement, cst.Assign) or statement.value is not call:
            return None
        lookups, function = found
        ids = lookups.ids(function)
        target = statement.targets[0].target
        if not isinstance(target, cst.Tuple) or len(target.elements) != 2 or len(ids) != 3:
            return None
        for returned in lookups.names.returns(function):
            if not isinstance(returned, cst.Tuple) or len(returned.elements) != 2:
                return None
            first, second = (depends_on(e.value, function, lookups.names) for e in returned.elements)
            if ids[2] in first or ids[1] in second or ids[1] not in first or ids[2] not in second:
                return None
        variables = [self.names.variable(e.value) for e in target.elements]
        return (variables[0], variables[1]) if None not in variables else None

    def _sample(
        self,
        items: cst.BaseExpression,
        users: cst.BaseExpression,
        positives: tuple[cst.BaseExpression, bool] | None,
        part: int | None,
        source: cst.CSTNode,
        scoring: Scoring | None = None,
        encodings: tuple[Encoding, Encoding] | None = None,
    ) -> Sampled:
        known, beside = positives if positives is not None else (None, False)
        return Sampled(
            items, users, known, beside, part, scoring, encodings, None,
            *self._drawn_by(items), self._rising(rising=[source], part=part),
        )

    def _drawn_by(self, items: cst.BaseExpression) -> tuple[cst.Call | None, Range | None]:
        draw = None if self.batch.column(base(items)) is not None else self._draw(items)
        return draw, self.draws.range_of(draw) if draw is not None else None

    def _rising(
        self,
        rising: list[cst.CSTNode] | None = None,
        variables: list[Variable] | None = None,
        part: int | None = None,
    ) -> int | None:
        """The sign of the loss with respect to a score, over all backward calls that depend on it."""
        signs = Signs(self.tree, self.names, rising or (), variables or (), part)
        found = {signs.of(unscaled(b.func.value)) for b in self.step.backwards}
        found.discard(0)
        return found.pop() if len(found) == 1 else None

    # -- rows of both labels -----------------------------------------------------------------------

    def pointwise(self) -> Iterator[Pointwise]:
        for call, predicted, target in self._losses(_POINTWISE):
            scoring = self._scoring_of(predicted)
            if scoring is None or self.batch.column(base(target)) is None:
                continue
            if self.batch.column(base(scoring.items)) is None:
                continue
            yield Pointwise(scoring, target, call, self.rows.whole if self.rows is not None else None)

    def _losses(
        self, wanted: set[str]
    ) -> Iterator[tuple[cst.Call, cst.BaseExpression, cst.BaseExpression]]:
        """Calls of losses with their first two arguments: what is predicted, and the target."""
        for call in self.calls:
            named = {(self.names.dotted(call.func) or self.tree.code(call.func)).rpartition(".")[2]}
            named |= {self.tree.code(c.func).rpartition(".")[2] for c in self.names.creations(call.func)}
            if not named & wanted:
                continue
            given = {a.keyword.value: a.value for a in call.args if a.keyword is not None}
            plain = [a.value for a in call.args if a.keyword is None and not a.star]
            predicted = given.get("input") or (plain[0] if plain else None)
            target = given.get("target") or (plain[1] if len(plain) > 1 else None)
            if predicted is not None and target is not None:
                yield call, predicted, target

    def _scoring_of(self, node: cst.BaseExpression) -> Scoring | None:
        """The scoring whose answer an expression is."""
        node = base(node)
        for scoring in self.scorings:
            if scoring.call is node:
                return scoring
        variable = self.names.variable(node)
        found = [
            a.value for a in (self.names.assignments.get(variable, ()) if variable is not None else ())
            if self.tree.is_within(a.statement, self.batch.body) and a.value is not None
            and a.index is None
        ]
        # Branches of one loop may each predict; `p = p.view(-1)` is no prediction of its own.
        for value in found:
            if self.names.variable(base(value)) == variable:
                continue
            scoring = self._scoring_of(value)
            if scoring is not None:
                return scoring
        return None

    # -- products within a batch ---------------------------------------------------------------------

    def in_batch(self) -> Iterator[InBatch]:
        encodings = [e for e in map(self.models.encoding, self.calls) if e is not None]
        for call, logits, target in self._losses(_SOFTMAX):
            if not self._is_arange(target):
                continue
            pair = self._matrix(logits)
            if pair is None:
                continue
            users, items = (self._encoding_of(n, encodings) for n in pair)
            if users is None and items is None:
                continue  # no ids anywhere, as with two views of an image
            yield InBatch(
                call, logits, items.ids if items is not None else None,
                users.ids if users is not None else None,
            )

    def _is_arange(self, node: cst.BaseExpression) -> bool:
        return any(
            any(isinstance(n, cst.Call) and self.tree.code(n.func).endswith("arange") for n in walk(made))
            for made in self.names.creations(node)
        )

    def _matrix(
        self, node: cst.BaseExpression, depth: int = 0
    ) -> tuple[cst.BaseExpression, cst.BaseExpression] | None:
        """The factors of `q @ v.t() / temperature`."""
        if depth > 6:
            return None
        if isinstance(node, cst.BinaryOperation):
            if isinstance(node.operator, cst.MatrixMultiply):
                return node.left, node.right
            if isinstance(node.operator, (cst.Divide, cst.Multiply)):
                return self._matrix(node.left, depth + 1) or self._matrix(node.right, depth + 1)
        if isinstance(node, cst.Call):
            name = self.tree.code(node.func)
            if name in ("torch.matmul", "torch.mm") and len(node.args) == 2:
                return node.args[0].value, node.args[1].value
            if name.endswith(".mask_in_batch") and node.args:  # the runtime's, of an earlier run
                return self._matrix(node.args[0].value, depth + 1)
        value = self._assigned_here(node)
        return self._matrix(value, depth + 1) if value is not None else None

    # -- ratings ---------------------------------------------------------------------------------------

    def rated(self) -> Iterator[Rated]:
        for call, predicted, target in self._losses(_REGRESSION):
            for one, other in ((predicted, target), (target, predicted)):
                scoring = self._scoring_of(one)
                if scoring is not None and self.batch.column(base(other)) is not None:
                    yield Rated(call, scoring, other)
                    break
        yield from self._by_hand()

    def _by_hand(self) -> Iterator[Rated]:
        """`((predictions - ratings) ** 2).mean()`."""
        for call in self.calls:
            if self.tree.code(call.func).rpartition(".")[2] not in ("mean", "sum"):
                continue
            value = call.func.value if isinstance(call.func, cst.Attribute) else None
            if isinstance(value, cst.Name) and value.value == "torch":
                value = call.args[0].value if call.args else None
            power = value
            if isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.Power):
                power = value.left
            elif isinstance(value, cst.Call) and self.tree.code(value.func).rpartition(".")[2] in (
                "pow", "square", "abs",
            ) and isinstance(value.func, cst.Attribute):
                power = value.func.value
            else:
                continue
            if not (isinstance(power, cst.BinaryOperation) and isinstance(power.operator, cst.Subtract)):
                continue
            for one, other in ((power.left, power.right), (power.right, power.left)):
                scoring = self._scoring_of(one)
                if scoring is not None and self.batch.column(base(other)) is not None:
                    yield Rated(call, scoring, other)
                    break

    # -- the whole catalogue ----------------------------------------------------------------------------

    def catalogue(self) -> cst.Call | None:
        """A softmax over one logit for each item of an embedding."""
        for call, logits, _ in self._losses(_SOFTMAX):
            node = base(logits)
            model = node if isinstance(node, cst.Call) else self._assigned_here(node)
            if not isinstance(model, cst.Call):
                continue
            ids = self.models.ids(model.func)
            if ids and self._answers_catalogue(model):
                return call
        return None

    def _answers_catalogue(self, call: cst.Call) -> bool:
        """The model's embedding and its last layer have a size in common: the number of items."""
        found = self.models.function(call.func)
        if found is None:
            return False
        lookups, function = found
        owner = lookups.names.method_class(function)
        if owner is None:
            return False
        sizes: dict[str, set[str]] = {"Embedding": set(), "Linear": set()}
        for node in walk(owner):
            if isinstance(node, cst.Call):
                name = lookups.tree.code(node.func).rpartition(".")[2]
                if name in sizes and len(node.args) >= 2:
                    argument = node.args[0 if name == "Embedding" else 1].value
                    sizes[name] |= {n.value for n in walk(argument) if isinstance(n, cst.Name)}
        return bool(sizes["Embedding"] & sizes["Linear"])
