"""How the model of a training loop ranks items, and on which data it is validated each epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from quickwins_codemod.script.batches import Batch, Column
from quickwins_codemod.script.conditions import literal_value
from quickwins_codemod.script.facts import Frame, Script
from quickwins_codemod.script.forwards import TrainingStep
from quickwins_codemod.script.negatives import RankingLoop, RankingLoops, base
from quickwins_codemod.script.names import Names
from quickwins_codemod.script.recommenders import Encoding, Lookups
from quickwins_codemod.script.tree import LOOPS, walk

_HELD_OUT = re.compile(r"val|dev|eval|test|held", re.IGNORECASE)
_VALIDATION = re.compile(r"val|dev|held", re.IGNORECASE)
_TABLE = re.compile(r"(^|\.)Embedding$")
_ITERATORS = {
    "list", "tuple", "iter", "zip", "map", "cycle", "chain", "islice", "array_split", "split",
}
_RANKS = {"topk", "argsort", "sort", "sorted", "argpartition"}
_IDS = re.compile(r"user|item", re.IGNORECASE)
_PARALLEL = re.compile(r"DataParallel$")


class NotRanked(Exception):
    """Why items cannot be ranked with this loop's model; `kind` is a key of the transform's words."""

    def __init__(self, kind: str, node: cst.CSTNode) -> None:
        super().__init__(kind)
        self.kind, self.node = kind, node


@dataclass(frozen=True)
class Table:
    """An embedding of all items: its path below the model, and the id of padding where it has one."""

    path: str
    padding: int | None


@dataclass(frozen=True)
class Ranking:
    """What scores items, and which columns of a batch are what.

    model: the expression that holds the weights. score: what is called in its place with users and
    items; encoders: what makes vectors of users and of items, whose dot product is the score.
    users, items: the training loop's columns. labels: of rows that are interactions where above 0.
    features: the path below the model of a matrix of what is known of each item.
    """

    model: tuple[cst.BaseExpression, ...]
    users: Column
    items: Column
    labels: Column | None = None
    score: cst.BaseExpression | None = None
    encoders: tuple[cst.BaseExpression, cst.BaseExpression] | None = None
    table: Table | None = None
    features: str | None = None
    wrapped: bool = False


@dataclass(frozen=True)
class Catalogue:
    """A model that answers with one score for every item.

    size: the path below the model of how many there are. shift: what the ids of its histories are
    ahead of the places of its scores. padding: the item that stands for none.
    """

    model: cst.BaseExpression
    users: Column
    items: Column
    size: str
    shift: int | None
    table: Table | None
    padding: int | None
    wrapped: bool = False


@dataclass(frozen=True)
class HeldOut:
    """A loop over data that is not trained on, run once an epoch.

    statement: it, or the call that leads to it, in the function of the epochs. frames: from its
    function outwards, as far as that one.
    """

    loop: cst.For
    batch: Batch
    statement: cst.CSTNode
    frames: tuple[Frame, ...]
    call: cst.Call


class Rankings:
    """Reads what a training step's model ranks with."""

    def __init__(self, script: Script, steps: Iterable[TrainingStep]) -> None:
        self.script, self.tree, self.names = script, script.tree, script.names
        self.backwards = [call for step in steps for call in step.backwards]
        self.loops = RankingLoops(script)
        self.models = self.loops.models

    def loop(self, step: TrainingStep) -> RankingLoop | None:
        return self.loops.read(step)

    # -- what scores ----------------------------------------------------------------------------

    def ranking(self, found: RankingLoop) -> Ranking | None:
        """The scoring of one item for one user that the loop trains; None without any."""
        if found.in_batch:
            return self._in_batch(found)
        known = [*found.sampled, *found.pointwise, *found.rated]
        for sampled in found.sampled:
            if sampled.rising != 1:
                raise NotRanked("direction", sampled.items)
        for one in known:
            ranking = self._of(found, one)
            if ranking is not None:
                return ranking
        if found.triples:
            raise NotRanked("direction", found.triples[0])
        for scoring in found.scorings:
            if scoring.others:
                raise NotRanked("features", scoring.others[0])
            if found.batch.column(base(scoring.items)) is not None:
                raise NotRanked("direction", scoring.call)
            if _IDS.search(f"{self.tree.code(scoring.users)} {self.tree.code(scoring.items)}"):
                raise NotRanked("columns", scoring.call)
        return None  # two kinds of ids are looked up in translation, too

    def _of(self, found: RankingLoop, one: object) -> Ranking | None:
        column = found.batch.column
        encodings = getattr(one, "encodings", None)
        triple = getattr(one, "triple", None)
        if triple is not None:
            scorer = one.scorer
            if not scorer:
                raise NotRanked("direction", triple)
            users, items = column(base(one.users)), column(base(one.positives))
            if users is None or items is None:
                raise NotRanked("columns", triple)
            score = cst.Attribute(triple.func, cst.Name(scorer))
            return self._complete(Ranking((triple.func,), users, items, score=score), triple, 1)
        if encodings is not None:
            items = column(base(one.positives)) if one.positives is not None else None
            return self._encoded(found, *encodings, items)
        scoring = getattr(one, "scoring", None) or getattr(one, "score", None)
        if scoring is None:
            return None
        if scoring.others:
            raise NotRanked("features", scoring.others[0])
        users = column(base(scoring.users))
        items = column(base(scoring.items))
        if hasattr(one, "positives"):
            users = column(base(one.users))
            items = column(base(one.positives)) if one.positives is not None else None
        if users is None or items is None:
            raise NotRanked("columns", scoring.call)
        labels = column(base(one.labels)) if hasattr(one, "labels") else None
        plain = self.tree.code(scoring.model) == self.tree.code(scoring.owner)
        ranking = Ranking(
            (scoring.owner,), users, items, labels, None if plain else scoring.model
        )
        return self._complete(ranking, scoring.call, 1)

    def _in_batch(self, found: RankingLoop) -> Ranking | None:
        softmax = found.in_batch[0]
        if softmax.items is None or softmax.users is None:
            raise NotRanked("columns", softmax.loss)
        encodings = self._encodings(found)
        by_ids = {id(e.ids): e for e in encodings}
        pair = by_ids.get(id(softmax.users)), by_ids.get(id(softmax.items))
        if None in pair:
            raise NotRanked("columns", softmax.loss)
        return self._encoded(found, *pair, found.batch.column(base(softmax.items)))

    def _encodings(self, found: RankingLoop) -> list[Encoding]:
        calls = self.tree.calls_within(found.batch.body)
        return [e for e in map(self.models.encoding, calls) if e is not None]

    def _encoded(
        self, found: RankingLoop, users: Encoding, items: Encoding, column: Column | None
    ) -> Ranking:
        of_users = found.batch.column(base(users.ids))
        if of_users is None or column is None:
            raise NotRanked("columns", items.call)
        owners = {self.tree.code(e.owner): e.owner for e in (users, items)}
        ranking = Ranking(
            tuple(owners.values()), of_users, column, encoders=(users.encoder, items.encoder)
        )
        return self._complete(ranking, items.call, 0)

    def _complete(self, ranking: Ranking, call: cst.Call, index: int) -> Ranking:
        """The same with the embedding that is looked up by the items, the id at a place."""
        owner = ranking.model[-1]
        wrapped = self._is_wrapped(owner)
        table, features = None, None
        made = {self.tree.code(c.func) for c in self.names.creations(call.func)}
        if any(_TABLE.search(m) for m in made):
            padding = next(iter(self._paddings(self.names.creations(call.func))), None)
            table = Table("", padding)
        else:
            found = self.models.function(call.func)
            ids = found[0].ids(found[1]) if found is not None else []
            if found is not None and index < len(ids):
                ids = self._ordered(call, *found, ids)
                table = item_table(found[0], found[1], ids[index])
                if self._is_below(owner, call.func):
                    features = _item_features(found[0], found[1], ids[index])
                else:
                    table = None
        return replace(ranking, table=table, features=features, wrapped=wrapped)

    def _is_wrapped(self, model: cst.BaseExpression) -> bool:
        """It may be inside DataParallel or DistributedDataParallel, whose attributes are others."""
        return any(_PARALLEL.search(self.tree.code(c.func)) for c in self.names.creations(model))

    def _ordered(
        self, call: cst.Call, lookups: Lookups, function: cst.FunctionDef, ids: list[str]
    ) -> list[str]:
        """Users first, as `scoring` has decided it."""
        scoring = self.models.scoring(call)
        given = lookups.names.arguments(call, function) or {}
        if scoring is not None and len(ids) >= 2 and given.get(ids[0]) is scoring.items:
            return [ids[1], ids[0], *ids[2:]]
        return ids

    def _is_below(self, owner: cst.BaseExpression, func: cst.BaseExpression) -> bool:
        """What is looked into is what holds the weights, or a method of it."""
        outer, inner = self.tree.code(owner), self.tree.code(func)
        return outer == inner or isinstance(func, cst.Attribute) and self.tree.code(func.value) == outer

    def _paddings(self, creations: frozenset[cst.Call]) -> Iterator[int]:
        for call in sorted(creations, key=self.tree.order.__getitem__):
            padding = _padding(call, self.names)
            if padding is not None:
                yield padding

    # -- the whole catalogue ----------------------------------------------------------------------

    def catalogue(self, found: RankingLoop) -> Catalogue | None:
        if found.catalogue is None:
            return None
        call = self._answer(found.catalogue, found)
        if call is None or not call.args:
            raise NotRanked("columns", found.catalogue)
        users = found.batch.column(base(call.args[0].value))
        target = self._target(found.catalogue)
        items = found.batch.column(base(target)) if target is not None else None
        made = self.models.function(call.func)
        if users is None or items is None or made is None:
            raise NotRanked("columns", found.catalogue)
        lookups, function = made
        ids = lookups.ids(function)
        table = item_table(lookups, function, ids[0]) if ids else None
        last = _last_layer(lookups, function)
        if table is None or last is None:
            raise NotRanked("columns", found.catalogue)
        path, shift = last
        wrapped = self._is_wrapped(call.func)
        if table.padding != 0:
            shift = shift if shift == 0 else None
        padding = table.padding if shift == 0 else None
        return Catalogue(
            call.func, users, items, f"{path}.out_features", shift, table, padding, wrapped
        )

    def _answer(self, loss: cst.Call, found: RankingLoop) -> cst.Call | None:
        node = base(loss.args[0].value) if loss.args else None
        if isinstance(node, cst.Call):
            return node
        variable = self.names.variable(node) if node is not None else None
        for assignment in self.names.assignments.get(variable, ()) if variable is not None else ():
            inside = self.tree.is_within(assignment.statement, found.batch.body)
            if inside and isinstance(assignment.value, cst.Call):
                return assignment.value
        return None

    def _target(self, loss: cst.Call) -> cst.BaseExpression | None:
        plain = [a.value for a in loss.args if a.keyword is None]
        return plain[1] if len(plain) > 1 else None

    # -- what can be read ---------------------------------------------------------------------------

    def has_rows(self, source: cst.BaseExpression) -> bool:
        """Whether what a loop iterates over may be read for its rows, apart from the loop.

        Not where it is used up by that, where it holds batches in the place of rows, or where a
        function makes it, which may draw at random. What another file makes is taken for a loader.
        """
        if isinstance(source, cst.Call) and not self._is_loader(source):
            return False
        variable = self.names.variable(source)
        values = [a.value for a in self.names.assignments.get(variable, ())] if variable else []
        if any(isinstance(v, (cst.List, cst.ListComp, cst.GeneratorExp)) for v in values):
            return False
        return not any(map(self._hides_rows, self.names.creations(source)))

    def _is_loader(self, call: cst.Call) -> bool:
        return (self.names.dotted(call.func) or "").rpartition(".")[2] == "DataLoader"

    def _hides_rows(self, made: cst.Call) -> bool:
        if not self._is_loader(made):
            return self.tree.code(made.func).rpartition(".")[2] in _ITERATORS
        named = {a.keyword.value: a.value for a in made.args if a.keyword is not None}
        size, data = named.get("batch_size"), named.get("dataset")
        if data is None and made.args and made.args[0].keyword is None:
            data = made.args[0].value
        if "batch_sampler" not in named and size is not None and self.tree.code(size) == "None":
            return True
        owner = self.names.class_of(data) if data is not None else None
        return owner is not None and any(
            self.tree.code(base.value).rpartition(".")[2] == "IterableDataset"
            for item in self.names.hierarchy(owner)
            for base in item.bases
        )

    # -- what it is validated on ---------------------------------------------------------------------

    def held_out(self, found: RankingLoop, epochs: cst.CSTNode) -> list[HeldOut]:
        """Loops over other data in each epoch that call the same model; validation data first."""
        trained = self._model_roots(found)
        training = found.batch.loop
        home = self.script.placing.frames(self.tree.function(training))
        source = self._text_at_home(found.batch, home)
        result = []
        for loop in self.tree.all(cst.For):
            if any(self.tree.is_within(b, loop) for b in self.backwards) or self._in_other_loop(loop, epochs):
                continue
            call = next(
                (c for c in self.tree.calls_within(loop) if self._calls(c, trained)), None
            )
            if call is None:
                continue
            batch = Batch(self.tree, self.names, loop)
            for statement, frames in self._reached(loop, epochs, training):
                if self._text_at_home(batch, frames) != source:
                    result.append(HeldOut(loop, batch, statement, frames, call))
        return sorted(result, key=lambda h: (self._rank(h), self.tree.order[h.statement]))

    def columns(self, held: HeldOut, ranking: Ranking) -> tuple[Column, Column, Column | None]:
        """Users, items and labels in the rows of the validation data, whose rows are positives."""
        batch, loop = held.batch, held.loop
        calls = self.tree.calls_within(loop)
        if any(self.tree.code(c.func).rpartition(".")[2] in _RANKS for c in calls):
            raise NotRanked("candidates", loop)  # lists of candidates, which are mostly negatives
        pairs = []
        for scoring in filter(None, map(self.models.scoring, calls)):
            pairs.append((batch.column(base(scoring.users)), batch.column(base(scoring.items))))
        encodings = [e for e in map(self.models.encoding, calls) if e is not None]
        if ranking.encoders is not None:
            by_name = {self.tree.plain(e.encoder): batch.column(base(e.ids)) for e in reversed(encodings)}
            pairs.append(tuple(by_name.get(self.tree.plain(e)) for e in ranking.encoders))
        for call in calls:
            triple = self.models.triple(call)
            if triple is not None:
                pairs.append((batch.column(base(triple[0])), batch.column(base(triple[1]))))
        pairs = [pair for pair in pairs if None not in pair]
        if not pairs:
            raise NotRanked("columns", held.call)
        same = (ranking.users, ranking.items)
        users, items = same if same in pairs else pairs[0]
        if ranking.labels is None:
            return users, items, None
        for call in calls:
            for argument in call.args:
                if batch.column(base(argument.value)) == ranking.labels:
                    return users, items, ranking.labels
        raise NotRanked("candidates", loop)

    def _in_other_loop(self, loop: cst.For, epochs: cst.CSTNode) -> bool:
        """A loop stands around it that is not the one over epochs."""
        for ancestor in self.tree.ancestors(loop):
            if ancestor is epochs or isinstance(ancestor, (cst.FunctionDef, cst.Module)):
                return False
            if isinstance(ancestor, LOOPS):
                return True
        return False

    def _rank(self, held: HeldOut) -> int:
        text = self._text_at_home(held.batch, held.frames) + self.tree.code(held.batch.source)
        if _VALIDATION.search(text):
            return 0
        return 1 if _HELD_OUT.search(text) else 2

    def _text_at_home(self, batch: Batch, frames: Sequence[Frame]) -> str:
        node: cst.BaseExpression = batch.source
        for frame in frames:
            if frame.call is None:
                break
            given = self.names.arguments(frame.call, frame.function) or {}
            if not (isinstance(node, cst.Name) and node.value in given):
                break
            node = given[node.value]
        return self.tree.code(node)

    def _model_roots(self, found: RankingLoop) -> set[frozenset[cst.Call]]:
        """How what the training loop calls was made, of each attribute's owner too."""
        made = set()
        for call in self.tree.calls_within(found.batch.body):
            node: cst.BaseExpression = call.func
            while self._answers(call):
                made.add(self.names.creations(node))
                if not isinstance(node, cst.Attribute):
                    break
                node = node.value
        return made - {frozenset()}

    def _answers(self, call: cst.Call) -> bool:
        """A call of a model with ids."""
        models = self.models
        return bool(call.args) and (
            models.scoring(call) is not None
            or bool(models.ids(call.func))
            or models.encoding(call) is not None
        )

    def _calls(self, call: cst.Call, trained: set[frozenset[cst.Call]]) -> bool:
        """A call of the trained model, or of one of its methods, with ids."""
        node: cst.BaseExpression = call.func
        while self._answers(call):
            if self.names.creations(node) in trained:
                return True
            if not isinstance(node, cst.Attribute):
                break
            node = node.value
        return False

    def _reached(
        self, loop: cst.For, epochs: cst.CSTNode, training: cst.CSTNode
    ) -> Iterator[tuple[cst.CSTNode, tuple[Frame, ...]]]:
        """The statements of the epochs' body that lead to a loop, each with its chain of calls."""
        if self.tree.is_within(loop, training) or self.tree.is_within(training, loop):
            return
        home = self.tree.function(epochs)
        chains: list[tuple[cst.CSTNode, tuple[Frame, ...]]] = [(loop, ())]
        while chains:
            node, frames = chains.pop(0)
            function = self.tree.function(node)
            if function is not home:
                calls = self.names.callers.get(function, ()) if len(frames) < 3 else ()
                chains += [(call, (*frames, Frame(function, call))) for call in calls]
            elif self.tree.is_within(node, epochs) and not self.tree.is_within(node, training):
                statement = node if node is loop else self.tree.statement(node)
                yield statement, (*frames, Frame(function, None))


def item_table(
    lookups: Lookups, function: cst.FunctionDef, parameter: str, depth: int = 0
) -> Table | None:
    """The embedding that a function of a model looks up by one of its parameters."""
    for node in walk(function.body):
        if not isinstance(node, cst.Call) or not node.args:
            continue
        path = _own_path(lookups, node.func)
        made = sorted(lookups.names.creations(node.func), key=lookups.tree.order.__getitem__)
        if any(_TABLE.search(lookups.tree.code(c.func)) for c in made):
            if path is not None and parameter in lookups.parameter(node.args[0].value):
                padding = next((p for c in made if (p := _padding(c, lookups.names)) is not None), None)
                return Table(f".{path}", padding)
            continue
        inner = lookups.run_by(node)
        if inner is None or depth > 3:
            continue
        given = lookups.names.arguments(node, inner) or {}
        for name, value in given.items():
            if parameter in lookups.parameter(value) and name in lookups.ids(inner):
                found = item_table(lookups, inner, name, depth + 1)
                if found is None:
                    continue
                if lookups.names.callee(node) is not None and inner.name.value != "forward":
                    return found  # a method of the same object
                if path is not None:
                    return Table(f".{path}{found.path}", found.padding)
    return None


def _item_features(
    lookups: Lookups, function: cst.FunctionDef, parameter: str
) -> str | None:
    """The buffer of a model whose rows for the items go into a linear layer: `self.genres[items]`."""
    owner = lookups.names.method_class(function)
    buffers = {
        literal_value(c.args[0].value)
        for c in (lookups.tree.calls_within(owner) if owner is not None else ())
        if lookups.tree.code(c.func) == "self.register_buffer" and len(c.args) > 1
    }
    for call in lookups.tree.calls_within(function.body):
        made = [lookups.tree.code(c.func) for c in lookups.names.creations(call.func)]
        if not call.args or not made or not all(m.rpartition(".")[2] == "Linear" for m in made):
            continue
        rows = call.args[0].value
        index = rows.slice[0].slice if isinstance(rows, cst.Subscript) and len(rows.slice) == 1 else None
        path = _own_path(lookups, rows.value) if isinstance(index, cst.Index) else None
        if path in buffers and parameter in lookups.parameter(index.value):
            return f".{path}"
    return None


def _own_path(lookups: Lookups, node: cst.BaseExpression) -> str | None:
    """`item_tower.embedding` of `self.item_tower.embedding`."""
    text = lookups.tree.code(node)
    plain = re.fullmatch(r"self((\.[A-Za-z_]\w*)+)", text)
    return plain[1][1:] if plain else None


def _padding(call: cst.Call, names: Names) -> int | None:
    """The id of padding that an embedding is made with: a number, or a constant of the module."""
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == "padding_idx":
            node: cst.BaseExpression | None = argument.value
            if isinstance(node, cst.Name):
                variable = names.variable(node)
                set_to = names.assignments.get(variable, []) if variable is not None else []
                node = set_to[0].value if len(set_to) == 1 else None
            value = literal_value(node) if node is not None else None
            return value if isinstance(value, int) and value >= 0 else None
    return None


def _last_layer(lookups: Lookups, function: cst.FunctionDef) -> tuple[str, int | None] | None:
    """The layer that answers for each item, below the model, and how many rows more the embedding
    has than it has outputs (None where that is not seen)."""
    owner = lookups.names.method_class(function)
    if owner is None:
        return None
    rows = [
        node.args[0].value for node in walk(owner)
        if isinstance(node, cst.Call) and node.args and _TABLE.search(lookups.tree.code(node.func))
    ]
    sizes = {n.value for r in rows for n in walk(r) if isinstance(n, cst.Name)}
    found = None
    for node in walk(owner):
        if not isinstance(node, cst.Assign) or not isinstance(node.value, cst.Call):
            continue
        call = node.value
        if lookups.tree.code(call.func).rpartition(".")[2] != "Linear" or len(call.args) < 2:
            continue
        outputs = call.args[1].value
        shared = {n.value for n in walk(outputs) if isinstance(n, cst.Name)} & sizes
        path = _own_path(lookups, node.targets[0].target)
        if not shared or path is None:
            continue
        same = [r for r in rows if {n.value for n in walk(r) if isinstance(n, cst.Name)} & shared]
        texts = {lookups.tree.plain(r) for r in same}
        plain = lookups.tree.plain(outputs)
        shift = 0 if texts == {plain} else 1 if texts in ({f"{plain}+1"}, {f"1+{plain}"}) else None
        found = (f".{path}", shift)
    return found
