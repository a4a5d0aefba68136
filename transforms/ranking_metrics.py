"""Rank the catalogue after each epoch, and record speed and memory.

What it does: after the validation of each epoch, the model ranks all items for a sample of users,
without those that they have in training. NDCG, recall, hit rate, diversity, novelty and coverage
are logged in what the script logs already, under its own prefix, beside samples per second,
seconds and peak memory; else by a call of their own. Each run also writes a record, which
`quickwins compare` reads. `--tag NAME` of the script, or QUICKWINS_TAG, names a run there and in
wandb.

Why: accuracy and RMSE say little about the list that a user sees, and two runs can be compared only
when both were measured in the same way. Watching changes nothing: random numbers, training flags,
weights and the counts of peak memory stay as they were.

Example:

     import torch
     import wandb
     from torch import nn, optim
     from torch.utils.data import DataLoader
    +from quickwins_runtime import RankingMetrics, Tracker


     class Factors(nn.Module):
         def __init__(self, num_users, num_items):
             super().__init__()
             self.users = nn.Embedding(num_users, 32)
             self.items = nn.Embedding(num_items, 32)

         def forward(self, users, items):
             return (self.users(users) * self.items(items)).sum(-1)


     def train(training, held_out, num_users, num_items):
         loader = DataLoader(training, batch_size=256, shuffle=True)
         val_loader = DataLoader(held_out, batch_size=256)
         model = Factors(num_users, num_items)
         criterion = nn.MSELoss()
         optimizer = optim.Adam(model.parameters(), lr=1e-3)
    +    tracker = Tracker(optimizer)
    +    ranking_metrics = RankingMetrics(
    +        loader, val_loader, model.items.num_embeddings, item_embeddings=model.items
    +    )
         for epoch in range(10):
    +        tracker.start_training()
             for user, item, rating in loader:
                 loss = criterion(model(user, item), rating)
                 optimizer.zero_grad()
                 loss.backward()
                 optimizer.step()
    +        tracker.end_training(loader)
             with torch.no_grad():
                 for user, item, rating in val_loader:
                     val_loss = criterion(model(user, item), rating)
             metrics = {
                 "epoch": epoch,
                 "val_loss": val_loss.item(),
    +            **tracker.log(ranking_metrics.evaluate(model), prefix="val_"),
             }
             wandb.log(metrics)

Which rows are relevant: all rows of the validation data, whatever their rating; where training has
labels 0 and 1, those with a label above 0. Items of padding are left out. Diversity is that of a
buffer of the model with the features of each item, where it has one (`diversity@10`), else of its
embedding of items, which changes as it is trained (`embedding_diversity@10`). A model that answers
with a score for every item, as of sequences, is ranked by the scores that the validation computes.

When it refuses: where items cannot be ranked, or nothing says when an epoch ends.

    no model of users and items         QW410
    no validation in each epoch         QW411
    a score that may be a distance      QW412
    a model of more than ids            QW413
    data or model not seen              QW414
    no loop over epochs                 QW415
    scores in another function          QW416
    a test, not a training run          QW417
    a framework owns the loop           QW004

Options: as flags, or with the same names under `[tool.quickwins.metrics]`.

    --k 10              length of the ranked lists
    --max-users 2000    users that are evaluated each epoch, always the same ones; 0: all
    --gini false        log the Gini index of how often items are recommended
    --serendipity false log serendipity: relevant items that popularity would not give

By hand: where `quickwins apply` has placed the runtime, import it from `quickwins_runtime`.

    from quickwins_codemod.runtime import RankingMetrics

    ranking_metrics = RankingMetrics(train_loader, val_loader)  # rows of (user, item, ...)
    # ... and after each epoch:
    print(ranking_metrics.evaluate(model))

Sources:

    Krichene and Rendle, On Sampled Metrics for Item Recommendation, KDD 2020,
        https://doi.org/10.1145/3394486.3403226 (why all items are ranked)
    Castells, Hurley and Vargas, Novelty and Diversity in Recommender Systems, 2015,
        https://doi.org/10.1007/978-1-4899-7637-6_26
    The docstrings of `runtime/metrics.py` have the definition and source of each metric.

QW400 ranking metrics are in place
    What it does: nothing for this loop.

    Why: it builds the `RankingMetrics` of the runtime. A second run must find nothing to do.

    Example:

        tracker = Tracker(optimizer)
        ranking_metrics = RankingMetrics(
            loader, val_loader, recommender.items.num_embeddings, item_embeddings=recommender.items
        )
        for epoch in range(epochs):
            tracker.start_training()
            for user, item, stars in loader:
                loss = criterion(recommender(user, item), stars)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
            tracker.end_training(loader)
            for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
            wandb.log({"val_loss": value,
                       **tracker.log(ranking_metrics.evaluate(recommender), prefix="val_")})

    What to do: nothing.


QW401 ranking metrics are logged each epoch
    What it does: adds them, speed and memory to what the script logs once an epoch after
    validation.

    Why: one call keeps the steps of wandb as they are, and each key keeps its meaning.

    Example:

        +tracker = Tracker(optimizer)
        +ranking_metrics = RankingMetrics(
        +    loader, val_loader, recommender.items.num_embeddings, item_embeddings=recommender.items
        +)
        +
         for epoch in range(epochs):
        +    tracker.start_training()
             for user, item, stars in loader:
                 loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
        +    tracker.end_training(loader)
             for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
        -    wandb.log({"val_loss": value})
        +    wandb.log({"val_loss": value,
        +               **tracker.log(ranking_metrics.evaluate(recommender), prefix="val_")})

    What to do: read the diff. The time of ranking is no part of `epoch_seconds`.


QW402 ranking metrics are logged by a call of their own
    What it does: calls `wandb.log` below the validation, where a run is on.

    Why: nothing that the script logs once an epoch could take them.

    Example:

        +tracker = Tracker(optimizer)
        +ranking_metrics = RankingMetrics(
        +    loader, val_loader, recommender.items.num_embeddings, item_embeddings=recommender.items
        +)
        +
         for epoch in range(epochs):
        +    tracker.start_training()
             for user, item, stars in loader:
                 loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
        +    tracker.end_training(loader)
             for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
        +    ranking_log = tracker.log(ranking_metrics.evaluate(recommender))
        +    if wandb.run is not None:
        +        wandb.log(ranking_log)
             wandb.watch(recommender)

    What to do: read the diff.


QW403 ranking metrics are recorded each epoch
    What it does: writes the record that `quickwins compare` reads, and logs nothing.

    Why: the script has no log that could take them (QW452 says why).

    Example:

        +tracker = Tracker(optimizer)
        +ranking_metrics = RankingMetrics(
        +    loader, val_loader, recommender.items.num_embeddings, item_embeddings=recommender.items
        +)
        +
         for epoch in range(epochs):
        +    tracker.start_training()
             for user, item, stars in loader:
                 loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
        +    tracker.end_training(loader)
             for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
        +    tracker.log(ranking_metrics.evaluate(recommender))

    What to do: read the diff; log what `tracker.log(...)` returns, if you like.


QW410 the model does not score items for users
    What it does: this loop stays as it is.

    Why: metrics of ranking need a model that looks up embeddings of users and of items, or one that
    answers with a score for each item from a history of items.

    Example:

        for epoch in range(epochs):
            for features, labels in loader:
                loss = criterion(model(features), labels)
                optimizer.zero_grad(); loss.backward(); optimizer.step()

    What to do: nothing, if this is no recommender.


QW411 no validation in each epoch
    What it does: this loop stays as it is.

    Why: what users like of what they have not been trained on must be known: a loop over other data
    that scores the same model, after training, in the same loop over epochs. Lists of sampled
    candidates are no such data, nor is data whose labels are not looked at.

    Example:

         for epoch in range(epochs):
             for user, item, stars in loader:
                 loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
        +    for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
             wandb.log({"loss": loss.item()})

    What to do: hold data out, and score it in each epoch.


QW412 a score whose direction is not shown
    What it does: this loop stays as it is.

    Why: the best item may have the lowest score, as with a distance, and the list would be upside
    down. Losses of torch on the scores show which it is.

    Example:

         for epoch in range(epochs):
             for user, item, stars in loader:
        -        loss = (recommender(user, item) - stars).abs().max()
        +        loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
             for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: use such a loss, or call `RankingMetrics.evaluate(model, score=...)` by hand.


QW413 the model is given more than ids
    What it does: this loop stays as it is.

    Why: to rank all items, the features of each would have to be known, and not only those of the
    items in a batch.

    Example:

         for epoch in range(epochs):
             for user, item, genre, stars in loader:
        -        loss = criterion(hybrid(user, item, genre), stars)
        +        loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
             for user, item, genre, stars in val_loader:
        -        value = criterion(hybrid(user, item, genre), stars)
        +        value = criterion(recommender(user, item), stars)

    What to do: look features up by item id inside the model, from a buffer.


QW414 data or model not seen above the loop over epochs
    What it does: this loop stays as it is.

    Why: the metrics are built once, above that loop, from loaders whose rows can be looked up (no
    lists of batches, no IterableDataset) and the model; and the ids must come with the batch.

    Example:

        +batches = DataLoader(dataset, batch_size=64)
         for epoch in range(epochs):
        -    batches = DataLoader(dataset, batch_size=64)
             for user, item, stars in batches:
                 loss = criterion(recommender(user, item), stars)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
             for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: make loaders and model above the loop over epochs, in variables of their own.


QW415 no loop over epochs
    What it does: this loop stays as it is.

    Why: metrics are computed once an epoch, and no one loop around the training loop says when that
    is: there is none in this file, or several run it.

    Example:

        +for epoch in range(epochs):
        -for user, item, stars in loader:
        +    for user, item, stars in loader:
        -    loss = criterion(recommender(user, item), stars)
        +        loss = criterion(recommender(user, item), stars)
        -    optimizer.zero_grad(); loss.backward(); optimizer.step()
        +        optimizer.zero_grad(); loss.backward(); optimizer.step()
        -for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)
        +    for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: train in a loop over epochs, in the file that trains.


QW416 scores of all items in another function
    What it does: this loop stays as it is.

    Why: a model of sequences is ranked by the scores that the validation has computed already; they
    must be in a variable beside the loss, in the function of the loop over epochs.

    Example:

         for epoch in range(epochs):
             for history, target in loader:
                 loss = softmax(ranker(history), target)
                 optimizer.zero_grad(); loss.backward(); optimizer.step()
        -    for history, target in val_loader: softmax(ranker(history), target)
        +    for history, target in val_loader:
        +        logits = ranker(history)
        +        softmax(logits, target)

    What to do: keep the scores in a variable.


QW417 this is a test
    What it does: this loop stays as it is.

    Why: it stands in a test: a function `test_...`, a TestCase, or a file `test_*.py`, `*_test.py`
    or `conftest.py`.

    Example:

        def test_training():
            for epoch in range(epochs):
                for user, item, stars in loader:
                    loss = criterion(recommender(user, item), stars)
                    optimizer.zero_grad(); loss.backward(); optimizer.step()
                for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: nothing. If it is a training run all the same, rename it.


QW450 the script's options do not take a tag
    What it does: the script is rewritten all the same.

    Why: it reads options, and `--tag` cannot be added, or not handed to where the tracker is made.
    The message says why.

    Example:

        parser = argparse.ArgumentParser()
        parser.add_argument("--tag", action="store_true")
        args = parser.parse_args()
        for epoch in range(epochs):
            for user, item, stars in loader:
                loss = criterion(recommender(user, item), stars)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
            for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: set QUICKWINS_TAG for a run, or pass `tag=` to `Tracker` by hand.


QW451 diversity is not measured
    What it does: the script is rewritten all the same.

    Why: how alike two items are is read from the model's features or embedding of items. They are
    not seen here, or the model is inside DataParallel.

    Example:

        parallel = nn.DataParallel(recommender)
        for epoch in range(epochs):
            for user, item, stars in loader:
                loss = criterion(parallel(user, item), stars)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
            for user, item, stars in val_loader: value = criterion(parallel(user, item), stars)

    What to do: pass `features=` or `item_embeddings=` to `RankingMetrics` by hand.


QW452 ranking metrics are not logged
    What it does: the script is rewritten all the same (QW403).

    Why: it does not import wandb for certain, or gives `wandb.log` a step of its own, which one
    more call would disturb. The record has the metrics all the same.

    Example:

        for epoch in range(epochs):
            for user, item, stars in loader:
                loss = criterion(recommender(user, item), stars)
                optimizer.zero_grad(); loss.backward(); optimizer.step()
            for user, item, stars in val_loader: value = criterion(recommender(user, item), stars)

    What to do: log what `tracker.log(...)` returns where the script logs.

"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, NoReturn

from quickwins_codemod.edits import AddDictEntry, Edit, InsertAfter, InsertBefore, Replace
from quickwins_codemod.script.facts import Frame, Script
from quickwins_codemod.transform import Finding, Plan, Refusal, verdict_at
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.batches import Column
    from quickwins_codemod.script.facts import BatchLog
    from quickwins_codemod.script.forwards import TrainingStep
    from quickwins_codemod.script.negatives import RankingLoop
    from quickwins_codemod.script.rankings import (
        Catalogue,
        HeldOut,
        NotRanked,
        Ranking,
        Rankings,
        Table,
    )
    from quickwins_codemod.script.records import Records

RULE = "metrics"
NEEDLES = (b".backward(",)
_METRICS, _TRACKER, _INTERACTIONS = "RankingMetrics", "Tracker", "Interactions"
_VALIDATION = re.compile(r"^(.*?(?:validation|valid|val|dev|eval|test)[_/.\- ])", re.IGNORECASE)
_HELD_OUT_NAME = re.compile(r"val|dev|test", re.IGNORECASE)
_DURATION = re.compile(r"time|seconds|duration", re.IGNORECASE)
_TRAINING = re.compile(r"train", re.IGNORECASE)
_OPTIONS = re.compile(r"\bArgumentParser\b|\bclick\.(option|command)\b")
_LOGGED = ("ranking_log", "epoch_ranking", "quickwins_log")
_RANK = re.compile(r"DistributedDataParallel|init_process_group")


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.metrics]` or as flags."""

    k: int = field(default=10, metadata={"help": "length of the ranked lists", "min": 1})
    max_users: int = field(
        default=2000, metadata={"help": "users evaluated each epoch; 0: all", "min": 0}
    )
    gini: bool = field(default=False, metadata={"help": "log the Gini index of what is recommended"})
    serendipity: bool = field(default=False, metadata={"help": "log serendipity"})

    def arguments(self) -> list[str]:
        """What differs from the runtime's own defaults, as arguments of RankingMetrics."""
        found = [f"k={self.k}"] if self.k != 10 else []
        if self.max_users != 2000:
            found.append(f"max_users={self.max_users or None}")
        extras = [name for name in ("gini", "serendipity") if getattr(self, name)]
        if extras:
            found.append("extras=[" + ", ".join(f'"{name}"' for name in extras) + "]")
        return found


def plan(script: Script, options: Options) -> Plan:
    """Plan ranking metrics and tracking for the training loops of a script."""
    from quickwins_codemod.script.rankings import Rankings

    steps = script.forwards().steps()
    if not any(name.partition(".")[0] == "torch" for name in script.names.imports.values()):
        return Plan()  # gradients of another library
    if script.manager is not None and steps:
        manager = script.manager
        refusal = Refusal(
            "QW004", manager.node, f"the training loop is managed by {manager.detail}",
            "call RankingMetrics in its validation step by hand",
        )
        return Plan((refusal.finding(RULE, script),))
    reader = Rankings(script, steps)
    findings: list[Finding] = []
    watched: list[cst.CSTNode] = []
    for step in steps:
        found = reader.loop(step)
        if found is None:
            continue
        try:
            watching = _Watching(script, options, reader, step, found)
            watching.check()
            if any(watching.epochs is loop for loop in watched):
                continue  # another optimizer of the same epochs
            watched.append(watching.epochs)
            finding = watching.finding()
        except Refusal as refusal:
            finding = refusal.finding(RULE, script)
        findings.append(finding)
    return Plan(tuple(findings))


#: What is said where items cannot be ranked, by the kind of NotRanked: code, message, hint.
_NOT_RANKED = {
    "direction": (
        "QW412", "that a higher score means a better match cannot be shown",
        "use a loss of torch on the scores, or call RankingMetrics.evaluate(model, score=...) by hand",
    ),
    "features": (
        "QW413", "the model is given more than ids, which every item of the catalogue would need",
        "look the features up by item id inside the model",
    ),
    "candidates": (
        "QW411", "which rows of the validation data are positives is not seen",
        "validate with the loss of training, or call RankingMetrics by hand",
    ),
    "columns": (
        "QW414", "which values of the batch are users and items is not seen",
        "give the model ids that come with the batch",
    ),
}


class _Watching:
    """The plan for one loop over epochs."""

    def __init__(
        self,
        script: Script,
        options: Options,
        reader: Rankings,
        step: TrainingStep,
        found: RankingLoop,
    ) -> None:
        self.script, self.options, self.reader = script, options, reader
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.step, self.found, self.loop = step, found, found.batch.loop
        self._say = partial(verdict_at, RULE, script)
        self.edits: list[Edit] = []
        self.notes: list[Verdict] = []
        self.needed = {_METRICS, _TRACKER}
        self.frames = self.placing.frames(step.function)
        self.evaluated: cst.CSTNode = self.loop  # where users are ranked, once that is decided

    @property
    def epochs(self) -> cst.CSTNode:
        return self._loops[0]

    @property
    def training(self) -> cst.CSTNode:
        return self._loops[1]

    @cached_property
    def _loops(self) -> tuple[cst.CSTNode, cst.CSTNode]:
        """The loop around the training loop, and the statement in its function that trains."""
        import libcst

        node: cst.CSTNode = self.loop
        frames = self.frames
        if self.tree.function(node) is not self.step.function:
            frames = self.placing.frames(self.tree.function(node))
        for frame in frames:
            for ancestor in self.tree.ancestors(node):
                if ancestor is frame.function:
                    break
                if isinstance(ancestor, (libcst.For, libcst.While)):
                    return ancestor, self.tree.statement(node) if node is not self.loop else node
            if frame.call is None:
                if len(self.names.callers.get(frame.function, ())) > 1:
                    raise Refusal(
                        "QW415", self.loop, "this loop is run from several places of this file",
                        "train by a function of its own, which one loop over epochs calls",
                    )
                break
            node = frame.call
        raise Refusal(
            "QW415", self.loop, "no loop over epochs is seen around this training loop",
            "call this function in a loop over epochs of this file",
        )

    @property
    def home(self) -> cst.CSTNode:
        return self.tree.function(self.epochs)

    def check(self) -> None:
        """Refuse a loop whose model does not rank items."""
        from quickwins_codemod.script.rankings import NotRanked

        self._check_place()
        try:
            self.catalogue = self.reader.catalogue(self.found)
            self.ranking = None if self.catalogue is not None else self.reader.ranking(self.found)
        except NotRanked as reason:
            self._refuse(reason)
        if self.catalogue is None and self.ranking is None:
            raise Refusal(
                "QW410", self.loop, "this loop trains no model that scores items for users",
                "nothing to do",
            )

    def _refuse(self, reason: NotRanked) -> NoReturn:
        code, message, hint = _NOT_RANKED[reason.kind]
        raise Refusal(code, reason.node, message, hint) from None

    def finding(self) -> Finding:
        built = self._already()
        if built is not None:
            return Finding((self._say("already", "QW400", built, "ranking metrics are in place"),))
        held = self._held_out()
        if self.catalogue is not None:
            arguments, value = self._catalogue(self.catalogue, held)
        else:
            arguments, value = self._ranking(self.ranking, held)
        applied = self._log(held, value)
        self._track()
        self._build(arguments)
        return Finding((applied, *self.notes), tuple(self.edits), frozenset(self.needed))

    def _already(self) -> cst.Call | None:
        """A call of the runtime's RankingMetrics in the function of the epochs."""
        for call in self.tree.calls_within(self.tree.module):
            named = (self.names.dotted(call.func) or "").rpartition(".")[2]
            if named == _METRICS and self.tree.function(call) is self.home:
                return call
        return None

    def _check_place(self) -> None:
        first = self.step.backwards[0]
        if self.script.is_test or self.placing.is_test(first):
            raise Refusal("QW417", first, "this is a test, not a training run", "nothing to do")

    def _held_out(self) -> HeldOut:
        for held in self.reader.held_out(self.found, self.epochs):
            after = self.tree.order[held.statement] > self.tree.order[self.training]
            if after:
                return held
        raise Refusal(
            "QW411", self.loop, "no validation of this model is seen in the loop over epochs",
            "score a validation loader after training in each epoch, in a loop of this file",
        )

    # -- what is ranked -------------------------------------------------------------------------

    def _ranking(self, ranking: Ranking, held: HeldOut) -> tuple[list[str], str]:
        from quickwins_codemod.script.rankings import NotRanked

        columns = (ranking.users, ranking.items, ranking.labels)
        train = self._data(self.found.batch.source, self.frames, columns)
        try:
            columns = self.reader.columns(held, ranking)
        except NotRanked as reason:
            self._refuse(reason)
        held_out = self._data(held.batch.source, held.frames, columns)
        if None in (train, held_out):
            node = self.loop if train is None else held.loop
            raise Refusal(
                "QW414", node, "the data of this loop are not known above the loop over epochs",
                "make the loader above that loop, in a variable of its own",
            )
        models = [self._at_epochs(node) for node in ranking.model]
        if None in models:
            raise Refusal(
                "QW414", ranking.model[0], "the model is not known above the loop over epochs",
                "build it above that loop, in a variable of its own",
            )
        arguments = [
            train, held_out,
            *self._table(ranking.table, models[-1], ranking.wrapped, ranking.features),
        ]
        call = [models[0] if len(models) == 1 else f"({', '.join(models)})"]
        if ranking.score is not None:
            call.append(f"score={self._rebased(ranking.score, ranking.model[0], models[0])}")
        if ranking.encoders is not None:
            texts = [self._at_epochs(e) for e in ranking.encoders]
            if None in texts:
                texts = [
                    self._rebased(e, m, t)
                    for e, m, t in zip(ranking.encoders, ranking.model * 2, models * 2)
                ]
            call.append(f"encode=({', '.join(texts)})")
        return arguments, f"{self.ranking_name}.evaluate({', '.join(call)})"

    def _rebased(self, node: cst.BaseExpression, owner: cst.BaseExpression, text: str) -> str:
        """`model.score` where the model goes by another name at the epochs."""
        code = self.tree.module.code_for_node(node)
        old = self.tree.code(owner)
        return text + code[len(old):] if code.startswith(old) else code

    def _table(
        self, table: Table | None, model: str, wrapped: bool, features: str | None = None
    ) -> list[str]:
        """How many items there are, and by what they are alike."""
        if features is not None and not wrapped:
            rows = f"len({model}{features})" if table is None else f"{model}{table.path}.num_embeddings"
            padding = table.padding if table is not None else None
            return [
                rows, f"features={model}{features}",
                *([f"excluded=[{padding}]"] if padding is not None else []),
            ]
        if table is None or wrapped:
            why = "the model is wrapped" if wrapped else "the embedding of the items is not seen"
            self.notes.append(self._say(
                "warning", "QW451", self.loop, f"diversity is not measured: {why}",
                "give RankingMetrics features= or item_embeddings= by hand",
            ))
            return []
        path = f"{model}{table.path}"
        padding = [f"excluded=[{table.padding}]"] if table.padding is not None else []
        return [f"{path}.num_embeddings", f"item_embeddings={path}", *padding]

    def _catalogue(self, catalogue: Catalogue, held: HeldOut) -> tuple[list[str], str]:
        """Scores of all items that the validation has computed already."""
        columns = (catalogue.users, catalogue.items, None)
        train = self._data(self.found.batch.source, self.frames, columns)
        model = self._at_epochs(catalogue.model)
        if train is None or model is None:
            raise Refusal(
                "QW414", self.loop, "the data or the model are not known above the loop over epochs",
                "make both above that loop, in variables of their own",
            )
        if self.tree.function(held.loop) is not self.home:
            raise Refusal(
                "QW416", held.loop, "the scores of all items are computed in another function",
                "validate in the function of the loop over epochs",
            )
        scores, target, history, anchor = self._scores(held)
        arguments = [train, f"n_items={model}{catalogue.size}"]
        table, shift = catalogue.table, catalogue.shift
        if table is not None and shift is not None and not catalogue.wrapped:
            rows = f"{model}{table.path}"
            arguments.append(
                f"item_embeddings=lambda: {rows}.weight[{shift}:]" if shift
                else f"item_embeddings={rows}"
            )
        else:
            self._table(None, model, catalogue.wrapped)
        if catalogue.padding is not None:
            arguments.append(f"excluded=[{catalogue.padding}]")
        seen = "" if shift is None else f", seen={history}" + (f" - {shift}" if shift else "")
        name = self.ranking_name
        self.edits += [
            InsertBefore(self._outside(held.loop), f"{name}.reset()\n"),
            InsertAfter(anchor, f"{name}.update({scores}, relevant={target}{seen})\n"),
        ]
        return arguments, f"{name}.compute()"

    def _outside(self, loop: cst.CSTNode) -> cst.CSTNode:
        """The loop, or the `with torch.no_grad():` around it."""
        import libcst

        node = loop
        for ancestor in self.tree.ancestors(loop):
            if isinstance(ancestor, libcst.With) and ancestor is not self.epochs:
                node = ancestor
            elif isinstance(ancestor, (libcst.For, libcst.While, libcst.If, libcst.Try, libcst.FunctionDef)):
                break
        return node

    def _scores(self, held: HeldOut) -> tuple[str, str, str, cst.CSTNode]:
        """The scores, targets and histories in the validation loop, and the statement below which
        all of them are known."""
        import libcst

        call = held.call
        statement = self.tree.statement(call)
        target = statement.targets[0].target if (
            isinstance(statement, libcst.Assign) and statement.value is call
            and len(statement.targets) == 1
        ) else None
        history = self.tree.code(call.args[0].value)
        for loss in self.tree.calls_within(held.loop):
            given = [a.value for a in loss.args if a.keyword is None]
            if target is None or len(given) < 2 or self.tree.plain(given[0]) != self.tree.plain(target):
                continue
            if held.batch.column(given[1]) is None or loss is call:
                continue
            below = self.tree.statement(loss)
            if self.tree.block(below) is self.tree.block(statement):
                return self.tree.code(target), self.tree.code(given[1]), history, below
        raise Refusal(
            "QW416", call, "which values of the validation are scores and targets is not seen",
            "compute `loss = criterion(model(history), target)` there, with the scores in a variable",
        )

    def _data(
        self,
        source: cst.BaseExpression,
        frames: Sequence[Frame],
        columns: tuple[Column, Column, Column | None],
    ) -> str | None:
        if not self.reader.has_rows(source):
            raise Refusal(
                "QW414", source, "the rows behind the batches of this loop cannot be looked up",
                "iterate over a DataLoader of a map-style data set, in a variable of its own",
            )
        text = self._at_epochs(source, frames)
        users, items, labels = columns
        if text is None or (users.key, items.key) == (0, 1) and labels is None:
            return text
        self.needed.add(_INTERACTIONS)
        arguments = [text]
        if (users.key, items.key) != (0, 1):
            arguments += [f"users={users.code}", f"items={items.code}"]
        if labels is not None:
            arguments.append(f"labels={labels.code}")
        return f"{self.script.runtime_name(_INTERACTIONS)}({', '.join(arguments)})"

    def _at_epochs(
        self, node: cst.BaseExpression, frames: Sequence[Frame] | None = None
    ) -> str | None:
        """How what a function names is called above the loop over epochs; frames: from there outwards."""
        return self.placing.expression_at(
            node, 0, frames or self.frames, self.placing.before(self.epochs), self.epochs
        )

    # -- where it is logged ------------------------------------------------------------------------

    @cached_property
    def records(self) -> Records:
        from quickwins_codemod.script.records import Records

        return Records(self.tree, self.names, frozenset())

    def _log(self, held: HeldOut, value: str) -> Verdict:
        log = self._best_log(held)
        if log is not None:
            prefix = self._prefix(log)
            taken = {key for key in log.keys if key.startswith(prefix)}
            if any(re.search(r"@\d|samples_per_second|epoch_seconds|peak_", key) for key in taken):
                prefix += "quickwins_"
            given = [f"prefix={log.quote}{prefix}{log.quote}"] if prefix else []
            return self._add(self._handed_on(log), [value, *given], held)
        logged = self._logged_expression(held)
        return self._add(logged, [value], held) if logged is not None else self._own(held, value)

    def _handed_on(self, log: BatchLog) -> cst.BaseExpression:
        """The dict literal, or where the script goes through what is in it, what the log is given."""
        import libcst

        receiver = self.records.receiver(log.mapping, self.epochs)
        for argument in self._arguments_with(log.mapping, receiver):
            variable = self.names.variable(argument)
            uses = [n for n in self.tree.all(libcst.Name) if self.names.variable(n) == variable]
            if isinstance(argument, libcst.Name) and not all(map(self._is_log_or_key, uses)):
                return argument
        return log.mapping

    def _is_log_or_key(self, use: cst.Name) -> bool:
        """A use of a dict to which further entries are nothing."""
        import libcst

        parent = self.tree.parents[use]
        if isinstance(parent, libcst.Arg):
            return self.records.is_log(self.tree.parents[parent])
        is_item = isinstance(parent, libcst.Subscript) and parent.value is use
        return is_item or isinstance(parent, libcst.AssignTarget)

    def _add(self, logged: cst.BaseExpression, arguments: list[str], held: HeldOut) -> Verdict:
        """More entries for what the script logs, a dict literal or something else that is a dict."""
        import libcst

        self.evaluated = logged
        call = f"{self.tracker_name}.log({', '.join(arguments)})"
        entry = f"**{call}"
        above = self._switch(logged, held)
        if above is None and not self._has_room(logged, entry):
            above = self.tree.statement(logged)
        if above is not None:
            name = self._free(_LOGGED)
            column = self.tree.position(above).column
            line = self._assign(name, f"{self.tracker_name}.log", arguments, column)
            self.edits.append(InsertBefore(above, line))
            self.evaluated, entry = above, f"**{name}"
        if isinstance(logged, libcst.Dict):
            hang = self.placing.hang(logged, entry, self.placing.line_length)
            self.edits.append(AddDictEntry(logged, None, entry, hang))
        else:
            self.edits.append(Replace(logged, f"{{**{self.tree.code(logged)}, {entry}}}"))
        return self._say(
            "applied", "QW401", logged, "ranking metrics, speed and memory are logged each epoch"
        )

    def _switch(self, logged: cst.BaseExpression, held: HeldOut) -> cst.If | None:
        """The `if args.wandb:` around a log. Above it, the record is also written without wandb.

        None of a script that is run by several processes, since it may be for the first of them.
        """
        import libcst

        found = None
        for ancestor in self.tree.ancestors(logged):
            if ancestor is self.epochs or self.tree.is_within(held.statement, ancestor):
                break
            if isinstance(ancestor, libcst.If):
                found = ancestor
        return None if _RANK.search(self.tree.text) else found

    def _has_room(self, logged: cst.BaseExpression, entry: str) -> bool:
        """Whether a line of its own is long enough for an entry of a dict."""
        import libcst

        elements = logged.elements if isinstance(logged, libcst.Dict) else ()
        node = elements[0] if elements else logged
        column = self.tree.position(node).column - 1
        if not elements:
            column += len(self.tree.code(logged)) + len("{**, }")
        return column + len(entry) + len("})") <= self.placing.line_length

    def _own(self, held: HeldOut, value: str) -> Verdict:
        """A call of wandb.log where the script logs nothing once an epoch."""
        wandb = self._wandb()
        below = self._outside(held.statement)
        self.evaluated = held.statement
        line = f"{self.tracker_name}.log({value})\n"
        if wandb is None or self._gives_step():
            self.edits.append(InsertAfter(below, line))
            why = "wandb is not imported for certain" if wandb is None else (
                "wandb.log is called with step= here, and another call would disturb the steps"
            )
            self.notes.append(self._say(
                "warning", "QW452", held.statement, f"ranking metrics go to the record alone: {why}",
                f"log what {self.tracker_name}.log() returns where the script logs",
            ))
            return self._say(
                "applied", "QW403", held.statement, "ranking metrics, speed and memory are recorded each epoch"
            )
        name, indent = self._free(_LOGGED), self.tree.module.default_indent
        self.edits.append(InsertAfter(
            below,
            f"{name} = {line}if {wandb[1]}:\n{indent}{wandb[0]}.log({name})\n",
        ))
        return self._say(
            "applied", "QW402", held.statement,
            "ranking metrics, speed and memory are logged by a call of their own",
        )

    def _wandb(self) -> tuple[str, str] | None:
        """What the module wandb is called in the function of the epochs, and the condition under
        which it has a run."""
        import libcst

        for variable, dotted in self.names.imports.items():
            if dotted != "wandb" or variable.scope not in (self.tree.module, self.home):
                continue
            name = variable.name
            bound = self.names.assignments.get(variable, ())
            if any(a.kind != "import" for a in bound):  # `wandb = None` where it is not installed
                return name, f"{name} is not None and {name}.run is not None"
            imports = [
                node for node in self.tree.all(libcst.Import)
                if self.tree.function(node) is variable.scope
                and any(self.tree.code(alias.name) == "wandb" for alias in node.names)
            ]
            always = any(self._is_always_run(node) for node in imports)
            return (name, f"{name}.run is not None") if always else None
        return None

    def _is_always_run(self, statement: cst.CSTNode) -> bool:
        import libcst

        for ancestor in self.tree.ancestors(statement):
            if isinstance(ancestor, (libcst.If, libcst.Try, libcst.For, libcst.While)):
                return False
            if isinstance(ancestor, (libcst.FunctionDef, libcst.Module)):
                break
        return self.tree.order[statement] < self.tree.order[self.epochs]

    def _is_wandb_log(self, call: cst.Call) -> bool:
        func = call.func
        if getattr(getattr(func, "attr", None), "value", "") != "log" or not call.args:
            return False
        if self.names.dotted(func) == "wandb.log":
            return True
        return any(
            self.names.dotted(made.func) == "wandb.init" for made in self.names.creations(func.value)
        )

    def _gives_step(self) -> bool:
        return any(
            self._is_wandb_log(call)
            and (len(call.args) > 1 or any(a.keyword and a.keyword.value == "step" for a in call.args))
            for call in self.tree.calls_within(self.tree.module)
        )

    def _logged_expression(self, held: HeldOut) -> cst.BaseExpression | None:
        """What `wandb.log(metrics)` is given once an epoch, where its keys are not seen."""
        import libcst

        for call in self.tree.calls_within(self.epochs):
            value = call.args[0].value if call.args else None
            kinds = (libcst.Name, libcst.Call, libcst.Dict, libcst.DictComp)
            if not self._is_wandb_log(call) or not isinstance(value, kinds):
                continue
            if call.args[0].keyword is None and not call.args[0].star and self._is_after(call, held):
                return value
        return None

    def _best_log(self, held: HeldOut) -> BatchLog | None:
        logs = []
        for log in self.records.batch_logs(self.epochs):
            receiver = self.records.receiver(log.mapping, self.epochs)
            nodes = [log.mapping, *([receiver] if receiver is not None else [])]
            if not all(self._is_after(node, held) for node in nodes):
                continue
            named = self._keyword(log.mapping, receiver)
            is_val = bool(_HELD_OUT_NAME.search(named)) or any(map(_VALIDATION.match, log.keys))
            is_train = bool(_TRAINING.search(named)) or all(map(_TRAINING.search, log.keys))
            logs.append((2 * is_val - is_train, -self.tree.order[log.mapping], log))
        return max(logs, key=lambda found: found[:2])[2] if logs else None

    def _keyword(self, mapping: cst.Dict, receiver: cst.Call | None) -> str:
        """The names that a dict goes by on its way to the logger: `val_metrics`."""
        found = []
        for node in (mapping, *self._arguments_with(mapping, receiver)):
            parent = self.tree.parents[node]
            keyword = getattr(getattr(parent, "keyword", None), "value", "")
            found.append(keyword or "")
        statement = self.tree.statement(mapping)
        for target in getattr(statement, "targets", ()):
            found.append(self.tree.code(target.target))
        return " ".join(found)

    def _arguments_with(
        self, mapping: cst.Dict, receiver: cst.Call | None
    ) -> Iterator[cst.BaseExpression]:
        for argument in receiver.args if receiver is not None else ():
            if self.records.mapping(argument.value, self.epochs) is mapping:
                yield argument.value

    def _is_after(self, node: cst.CSTNode, held: HeldOut) -> bool:
        """It is reached in each epoch in which the validation is, and below that."""
        import libcst

        if self.tree.function(node) is not self.home or not self.tree.is_within(node, self.epochs):
            return False
        # `wandb.log({"val_loss": validate(model)})` has its further entries below the validation.
        small = isinstance(held.statement, (libcst.Expr, libcst.Assign))
        inside = self.tree.is_within(node, held.statement) and not small
        if inside or self.tree.order[node] < self.tree.order[held.statement]:
            return False
        for ancestor in self.tree.ancestors(node):
            if ancestor is self.epochs or self.tree.is_within(held.statement, ancestor):
                return True
            if isinstance(ancestor, (libcst.For, libcst.While, libcst.ExceptHandler, libcst.BaseComp)):
                return False
            if isinstance(ancestor, libcst.If) and not self._is_switch(ancestor):
                return False
        return False

    def _is_switch(self, branch: cst.If) -> bool:
        """A condition that is the same in every epoch: `if args.wandb:`, `if rank == 0:`."""
        from quickwins_codemod.script.names import names_in

        for name in names_in(branch.test):
            variable = self.names.variable(name)
            for assignment in self.names.assignments.get(variable, ()) if variable is not None else ():
                if self.tree.is_within(assignment.statement, self.epochs):
                    return False
        return True

    def _prefix(self, log: BatchLog) -> str:
        """What the keys of the validation begin with, if they do."""
        keys = [key for key in log.keys if not _DURATION.search(key)] or list(log.keys)
        found = [match[1] for match in map(_VALIDATION.match, keys) if match]
        receiver = self.records.receiver(log.mapping, self.epochs)
        if _HELD_OUT_NAME.search(self._keyword(log.mapping, receiver)) and len(found) < len(keys):
            return ""  # the logger, or whatever the dict goes through, adds one
        if found:
            return max(found, key=lambda each: ("test" not in each.lower(), found.count(each)))
        return "" if _TRAINING.search(log.prefix) else log.prefix

    # -- speed, memory and the objects ----------------------------------------------------------------

    def _track(self) -> None:
        import libcst

        name = self.tracker_name
        breaks = any(
            isinstance(node, libcst.Break) for node in self._own_nodes(self.loop)
        )
        loader = self.placing.expression_at(
            self.found.batch.source, 0, self.frames, self.placing.before(self.training), self.training
        )
        counted = "" if breaks or loader is None else loader
        self.edits += [
            InsertBefore(self.training, f"{name}.start_training()\n"),
            InsertAfter(self.training, f"{name}.end_training({counted})\n"),
        ]

    def _own_nodes(self, loop: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """What belongs to a loop itself: a break in a loop inside it ends only that."""
        from quickwins_codemod.script.tree import LOOPS

        queue = list(loop.body.children)
        while queue:
            node = queue.pop()
            yield node
            if not isinstance(node, LOOPS):
                queue += node.children

    def _build(self, arguments: list[str]) -> None:
        arguments = [*arguments, *self.options.arguments()]
        if self._one_rank_logs():
            arguments.append("sync=False")
        optimizer = self._optimizer()
        tag = self._tag()
        given = [*([optimizer] if optimizer else []), *([f"tag={tag}"] if tag else [])]
        tracker = self.script.runtime_name(_TRACKER)
        metrics = self.script.runtime_name(_METRICS)
        self.edits.append(InsertBefore(
            self.epochs,
            f"{self.tracker_name} = {tracker}({', '.join(given)})\n"
            + self._assign(
                self.ranking_name, metrics, arguments, self.tree.position(self.epochs).column
            ),
        ))

    def _tag(self) -> str | None:
        """What `--tag` gives, where the script reads options; the option is added if need be."""
        from quickwins_codemod.script.arguments import TagOption

        reader = TagOption(self.script)
        place = self.placing.before(self.epochs)
        found = reader.plan(self.placing.frames(self.home), place, self.epochs)
        if found is not None:
            self.edits += found.edits
            return found.expression
        if _OPTIONS.search(self.tree.text):
            self.notes.append(self._say(
                "warning", "QW450", self.epochs, f"no --tag option is added: {reader.why}",
                "set QUICKWINS_TAG for a run, or pass tag= to Tracker by hand",
            ))
        return None

    def _optimizer(self) -> str | None:
        for stepped in self.step.steps:
            return self._at_epochs(stepped.optimizer)
        return None

    def _one_rank_logs(self) -> bool:
        """Under torch.distributed, where perhaps not every process gets as far as the evaluation.

        One that waited for the others would wait for ever.
        """
        import libcst

        if not _RANK.search(self.tree.text):
            return False
        guarded = any(
            isinstance(a, libcst.If) and self.tree.is_within(a, self.epochs)
            for a in self.tree.ancestors(self.evaluated)
        )
        return guarded or any(
            isinstance(node, (libcst.Break, libcst.Continue))
            and self.tree.order[node] < self.tree.order[self.evaluated]
            for node in self._own_nodes(self.epochs)
        )

    def _assign(self, name: str, function: str, arguments: list[str], column: int) -> str:
        """`name = function(arguments)` in a column, broken where the line would be too long."""
        column -= 1
        line = f"{name} = {function}({', '.join(arguments)})"
        if column + len(line) <= self.placing.line_length:
            return f"{line}\n"
        indent = self.tree.module.default_indent
        together = ", ".join(arguments)
        if column + len(indent) + len(together) <= self.placing.line_length:
            return f"{name} = {function}(\n{indent}{together}\n)\n"
        return f"{name} = {function}(\n" + "".join(f"{indent}{a},\n" for a in arguments) + ")\n"

    @cached_property
    def tracker_name(self) -> str:
        return self._free(("tracker", "run_tracker", "quickwins_tracker"))

    @cached_property
    def ranking_name(self) -> str:
        return self._free(("ranking_metrics", "ranking", "quickwins_ranking"))

    def _free(self, candidates: tuple[str, ...]) -> str:
        for name in candidates:
            if self.placing.is_free(name, [self.home]):
                return name
        raise Refusal(
            "QW414", self.epochs, f"the name {candidates[0]} is taken here", f"rename {candidates[0]}"
        )
