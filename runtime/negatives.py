"""Hard negatives: items that a recommender ranks high for a user who has not interacted with them.

For each row of a batch a small pool of items is drawn at random, without those that the user has
seen, the model scores it, and the best scored ones are trained on as negatives. This is dynamic
negative sampling (Zhang et al., "Optimizing Top-N Collaborative Filtering via Dynamic Negative
Item Sampling", SIGIR 2013; Shi et al., "On the Theories Behind Hard Negative Sampling", WWW 2023).
The pool is small on purpose: the best of a large one are mostly items that the user would like.

Negatives stay random until the model ranks better than by chance. Trained on the hardest from the
start, many models learn to give all items one score (Schroff et al., "FaceNet", CVPR 2015, 3.2).
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from typing import Any, Callable, ContextManager, Iterator, Sequence, TypeVar, Union

import torch
from torch import Tensor, nn
from torch.nn import functional

from .interactions import Interactions

__all__ = ["HardNegatives"]

Place = Union[int, str]
Scorer = Callable[[Tensor, Tensor], Any]
Encoders = Sequence[Callable[[Tensor], Any]]
_Method = TypeVar("_Method", bound=Callable[..., Any])

_GAP_EVERY = 16  # calls of mine() between two that score the positives too, for the statistics
_AUC_EVERY = 16  # calls between two that look at the AUC, after the first ones
_AUC_FIRST = 64  # calls at first, each of which looks at it
_AUC_DECAY = 0.95  # per call, of its moving average
_STATISTICS = ("score_gap", "auc", "random_share", "validation_positives")


def _no_attribute_error(method: _Method) -> _Method:
    """Scripts that try two spellings of autocast would take an AttributeError for theirs."""

    @functools.wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except AttributeError as error:
            raise RuntimeError(f"AttributeError while mining negatives: {error}") from error

    return wrapped  # type: ignore[return-value]


class HardNegatives:
    """Turns random negatives into hard ones.

    The data are read once, at the first batch: until then a data set may have no rows.

    Args:
        data: The training interactions: a DataLoader, a map-style data set, a tuple of columns, or
            a table whose columns have names (see `Interactions`).
        users, items, labels: Position, key or attribute name of the user id, the item id and the
            label in a row of `data`. With `labels`, only rows with a label above 0 count as seen.
        low, high: Candidates are the item ids from `low` up to and without `high`, as in the
            script's own draw. Unset: from the smallest to the largest item id in `data`.
        pool_size: Candidates of a row, its own random negatives among them. Unset: 8 for one
            negative, and 16 for several (or twice their number, if that is more).
        top_share: Share of the pool, 0 to 1, from whose best the hard ones are drawn at random; 0
            takes the very best.
        random_share: Share of the negatives that stay random, 0 to 1. Unset: 0 for one negative,
            half for several. For one negative it is a probability.
        warmup_steps: So many calls at first leave the negatives random.
        warmup_auc: Negatives are random, too, while the model's AUC is below this, 0 to 1: the
            share of positives that it ranks above a random unseen item, a moving average over
            batches. 0 takes hard ones at once. Without positives there is nothing to go by, and
            hard ones are taken.
        positives: Rows whose item `ranking_loss` ranks above the mined one: "all", or "liked" for
            those that are rated at least as high as the batch is on average.
        scale: What `ranking_loss` multiplies score differences with; 20 was measured on bounded
            outputs (sigmoid, 5 * sigmoid), which hardly rank at 1.
        validation: Held-out interactions, found by the same places as in `data`. They are only
            counted in `statistics()`, and not excluded.
        max_rows: Most rows that the model scores at a time, which bounds the memory.
        seed: Of the candidates. Each process of a distributed run draws its own. The global random
            streams are left alone.

    Raises:
        TypeError, ValueError: The data cannot be read (see `Interactions`), or a number is out of
            its range.
    """

    def __init__(
        self,
        data: Any,
        *,
        users: Place = 0,
        items: Place = 1,
        labels: Place | None = None,
        low: int | None = None,
        high: int | None = None,
        pool_size: int | None = None,
        top_share: float = 0.0,
        random_share: float | None = None,
        warmup_steps: int = 0,
        warmup_auc: float = 0.75,
        positives: str = "all",
        scale: float = 20.0,
        validation: Any = None,
        max_rows: int = 2**18,
        seed: int = 0,
    ) -> None:
        if positives not in ("all", "liked"):
            raise ValueError(f'positives must be "all" or "liked", not {positives!r}')
        self.pool_size = None if pool_size is None else _count("pool_size", pool_size, 1)
        self.top_share = _share("top_share", top_share)
        self.random_share = None if random_share is None else _share("random_share", random_share)
        self.warmup_steps = _count("warmup_steps", warmup_steps, 0)
        self.warmup_auc = _share("warmup_auc", warmup_auc)
        self.positives = positives
        self.scale = float(scale)
        self.max_rows = _count("max_rows", max_rows, 1)
        self.seed = operator.index(seed)
        self._data = (data, validation)
        self._places = (users, items, labels)
        self._range = (low, high)
        self._calls = 0
        self._calls_noted = 0  # since the last statistics()
        self._checked = False
        self._by_history: bool | None = None
        self._generators: dict[torch.device, torch.Generator] = {}
        self._totals: Tensor | None = None
        self._auc: Tensor | None = None  # weighted sum and weight: float32 [2]
        self._calls_at_auc = 0

    @functools.cached_property
    def seen(self) -> Interactions:
        """What users have seen. Read at the first batch: a data set may have no rows before."""
        return Interactions(self._data[0], *self._places, high=int(self._range[1] or 0))

    @functools.cached_property
    def validation(self) -> Interactions | None:
        """The held-out interactions, read when they are first counted."""
        held_out = self._data[1]
        return None if held_out is None else Interactions(held_out, *self._places)

    @functools.cached_property
    def candidates(self) -> range:
        """The item ids that negatives are drawn from.

        Raises:
            ValueError: There are none, or negative ones.
        """
        low, high = self._range
        found = range(
            self.seen.low if low is None else int(low),
            self.seen.high if high is None else int(high),
        )
        if not found or found.start < 0:
            raise ValueError(
                f"negatives are to be drawn from the item ids {found.start} to {found.stop} "
                f"(without the last), which are none or negative: the data hold {len(self.seen)} "
                "interactions; pass low= and high="
            )
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pool_size={self.pool_size}, seed={self.seed})"

    def __getstate__(self) -> dict[str, Any]:
        # A copy keeps what was read and not the loaders. Not every torch can copy generators: a
        # copy starts again from the seed.
        self.candidates, self.validation  # noqa: B018
        return {**self.__dict__, "_generators": {}, "_data": (None, None)}

    @_no_attribute_error
    @torch.no_grad()
    def mine(
        self,
        model: Any,
        users: Tensor,
        drawn: Tensor,
        positives: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        score: Scorer | None = None,
        encode: Encoders | None = None,
    ) -> Tensor:
        """Replace random negatives by hard ones. Shape, dtype and device are those of `drawn`.

        The row's own random negatives are part of its pool, and stay where the pool has no other
        candidate that the user has not seen and the model gives a finite score.

        Args:
            model: The recommender, or a tuple of its modules; it scores in eval mode.
            users: User ids, [B] or like `drawn`; or [B, L] histories of item ids in their place.
                The ids in a row's history are then what the user has seen.
            drawn: The random negatives, int64 [B] or [B, k].
            positives: Items that the row is about, [B] or [B, m]: never its negatives.
            labels: Like `drawn`, where positive and negative rows come mixed: only the rows with
                label 0 are negatives, all others are returned as they are.
            score: Called with users and items of one length, gives one score each, higher for
                what fits better. Unset: `model`.
            encode: Two functions, from user ids [n] and from item ids [n] to vectors [n, d] whose
                dot product is the score. Much cheaper: the candidates of all rows then come from
                one random set of items as large as the batch, which is encoded once. For each row
                they are as uniform as before, but the rows share them.

        Raises:
            ValueError: Shapes do not fit, an id is out of range, or there is not one score for
                each pair.
            RuntimeError: In place of an AttributeError.
        """
        rows, own = self._rows(users, drawn)
        if labels is not None:
            _require_one_each("label", labels, drawn)
            rows, own = rows.repeat_interleave(own.shape[1], 0), own.reshape(-1, 1)
            negative = labels.to(rows.device).reshape(-1) == 0
            ranked = None
            if positives is None:
                ranked = (rows[~negative], own[~negative])
            else:
                _require_one_each("positive", positives, drawn)
                positives = positives.reshape(-1)[negative]
            result = own.clone()
            result[negative] = self._mine(
                model, rows[negative], own[negative], positives, score, encode, ranked
            )
        else:
            result = self._mine(model, rows, own, positives, score, encode)
        return result.reshape(drawn.shape).to(device=drawn.device, dtype=drawn.dtype)

    @_no_attribute_error
    def ranking_loss(
        self,
        model: Any,
        users: Tensor,
        items: Tensor,
        ratings: Tensor | None = None,
        *,
        score: Scorer | None = None,
        encode: Encoders | None = None,
    ) -> Tensor:
        """How badly the model ranks the batch's items above hard ones that the users have not seen.

        softplus(-scale * (s(user, item) - s(user, mined item))), the mean over the rows, float32,
        with gradient: to be added, with a weight, to a loss of rating prediction, which by itself
        hardly ranks. Both scores are computed in one call, in the mode the model is in, so that
        BatchNorm sees these rows too. That call passes by DistributedDataParallel, which averages
        the gradients all the same. A row all of whose candidates have been seen does not count.

        Args:
            model, score, encode: As in `mine`.
            users, items: Ids of the batch, [B] each.
            ratings: [B], for positives="liked", where rows that are rated below the mean of the
                batch do not count.

        Raises:
            ValueError: As in `mine`; or "liked" is to go by ratings that are missing.
            RuntimeError: In place of an AttributeError.
        """
        self._check(users, items)
        users, items = users.reshape(-1), items.reshape(-1)
        if users.shape != items.shape:
            raise ValueError(
                f"ranking_loss needs one user for each item, but got {len(users)} and {len(items)}"
            )
        if self.positives == "liked" and ratings is None:
            raise ValueError('positives="liked" goes by the ratings: pass them to ranking_loss')
        self._calls += 1
        if not len(users):
            return torch.zeros((), device=users.device, requires_grad=True)
        with torch.no_grad():
            is_liked = None
            if self.positives == "liked":
                is_liked = (ratings >= ratings.float().mean()).reshape(-1)
            mined, counts, is_random = self._unseen(model, users, items, is_liked, score, encode)
            if is_liked is not None:
                counts = counts & is_liked
        scorer = _Scorer(model, score, encode if score is None and not callable(model) else None)
        both = scorer.flat(torch.cat([users, users]), torch.cat([items, mined]))
        positive, negative = both.chunk(2)
        gap = torch.where(counts, positive - negative, 0.0)
        losses = functional.softplus(-self.scale * gap) * counts
        with torch.no_grad():
            self._note(users, mined.unsqueeze(1), is_random.unsqueeze(1), gap.detach(), counts)
        return losses.sum() / counts.sum().clamp(min=1)

    @_no_attribute_error
    def mask_in_batch(self, logits: Tensor, items: Tensor, users: Tensor | None = None) -> Tensor:
        """Correct the logits of an in-batch softmax, whose labels are arange(B).

        Other rows' items are random negatives by popularity. Those that are the row's own item, or
        that its user has seen, get the lowest finite value; and all logits are lowered by the
        logarithm of their item's share of the data (Yi et al., "Sampling-Bias-Corrected Neural
        Modeling for Large Corpus Item Recommendations", RecSys 2019), which takes out that
        popular items are negatives more often. For the loss only, not for recommending.

        Args:
            logits: Scores of row's user and column's item, [B, B].
            items: Item ids of the rows, [B].
            users: User ids [B] or histories [B, L]. Without them, seen items stay.

        Raises:
            ValueError: Shapes do not fit.
        """
        items = items.reshape(-1).to(logits.device)
        if logits.dim() != 2 or logits.shape != (len(items), len(items)):
            raise ValueError(
                f"mask_in_batch needs logits of shape ({len(items)}, {len(items)}) for "
                f"{len(items)} items, but got {tuple(logits.shape)}"
            )
        wrong = items.unsqueeze(0) == items.unsqueeze(1)
        if users is not None and len(users) != len(items):
            raise ValueError(f"there are {len(users)} users for {len(items)} items")
        if users is not None and users.dim() == 2 and users.shape[1] > 1:
            wrong |= _is_among(items.expand(wrong.shape), users.to(logits.device), self.max_rows)
        elif users is not None:
            wrong |= self.seen.contain_all(users.reshape(-1).to(logits.device), items)
        wrong.fill_diagonal_(False)
        corrected = logits - self.seen.log_share(items).to(logits.dtype)
        return corrected.masked_fill(wrong, torch.finfo(logits.dtype).min)

    def statistics(self) -> dict[str, float]:
        """What was mined since the last call, for the log; empty if nothing was.

        "negatives/score_gap": mean score of a positive minus that of its mined negative, where
        positives were given; `mine` looks at every 16th batch. "negatives/auc": share of positives
        that the model ranks above a random unseen item, in the batches that `warmup_auc` goes by.
        "negatives/random_share": share of the negatives that are the random draw or a random pick.
        "negatives/validation_positives": share of the mined items that are held-out interactions of
        their user.

        In a distributed run the numbers are of all processes, and all of them must call this: a
        call by one alone waits for the others.
        """
        totals = self._totals
        if totals is None:
            totals = torch.zeros(2, len(_STATISTICS), dtype=torch.float64, device="cpu")
        self._totals, self._calls_noted = None, 0
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            if distributed.get_backend() == "nccl":
                totals = totals.cuda()
            distributed.all_reduce(totals)
        sums, counts = totals.tolist()
        return {
            f"negatives/{name}": total / number
            for name, total, number in zip(_STATISTICS, sums, counts)
            if number
        }

    # Rows and candidates

    def _rows(self, users: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Users of the rows, [R] (or histories [R, L]), and their negatives, int64 [R, k]."""
        for name, ids in (("users", users), ("items", drawn)):
            if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dim() not in (1, 2):
                kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
                shape = f" of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else ""
                raise ValueError(
                    f"{name} must be an integer tensor of one or two dimensions, not {kind}{shape}"
                )
        own = drawn.detach().to(device=users.device, dtype=torch.int64)
        if self._by_history is None:
            self._by_history = self.seen.by_history
        if users.dim() == 2 and not self._by_history:
            repeated = users.numel() == own.numel() and bool((users == users[:, :1]).all())
            self._by_history = users.shape[1] > 1 and not repeated
        rows = users if self._by_history else users.reshape(-1)
        if len(rows) != len(own) and rows.numel() == own.numel():  # repeated for each negative
            per_row = rows.reshape(own.shape)
            is_repeated = bool((per_row == per_row[:, :1]).all())
            rows = per_row[:, 0] if is_repeated else rows
            own = own if is_repeated else own.reshape(-1)
        if len(rows) != len(own) or self._by_history and users.dim() == 1:
            raise ValueError(
                f"users of shape {tuple(users.shape)} do not fit negatives of shape "
                f"{tuple(drawn.shape)}: there must be one user{' history' * self._by_history} for "
                "each row"
            )
        return rows, own.reshape(len(own), -1 if own.numel() else own.shape[-1])

    def _check(self, users: Tensor, drawn: Tensor, low: int = 0, high: int | None = None) -> None:
        """Raise for ids out of range: always on a CPU, else once, as it waits for the device."""
        if not drawn.numel() or self._checked and users.device.type != "cpu":
            return
        self._checked = True
        if users.dim() == 1:  # histories may be padded with anything
            _require_between("user", users, 0, None)
        _require_between("item", drawn, low, high)

    def _mine(
        self,
        model: Any,
        rows: Tensor,
        own: Tensor,
        positives: Tensor | None,
        score: Scorer | None,
        encode: Encoders | None,
        ranked: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Negatives [R, k] in place of the random ones.

        `ranked` are rows and one positive item each, where `positives` does not say them.
        """
        low, high = self._range  # of the script's own draw, where it is known
        self._check(rows, own, int(low or 0), None if high is None else int(high))
        count = own.shape[1]
        size = self.pool_size or (8 if count == 1 else max(16, 2 * count))
        self._calls += 1
        if not own.numel():
            return own
        if size <= count or self._calls <= self.warmup_steps:
            self._note(rows, own, torch.ones_like(own, dtype=torch.bool))
            return own
        if positives is not None:
            if positives.numel() % len(rows):
                raise ValueError(
                    f"positives of shape {tuple(positives.shape)} do not fit {len(rows)} rows: "
                    "there must be the same number for each row"
                )
            positives = positives.to(rows.device).reshape(len(rows), -1)
            ranked = (rows, positives)
        with _evaluating(rows.device, model, score, encode):
            scorer = _Scorer(model, score, encode, self.max_rows)
            pool, scores = self._scored_pool(scorer, rows, own, size)
            is_ready = self._is_ready(scorer, rows.device, ranked)
            looks_at_gap = positives is not None and self._calls_noted % _GAP_EVERY == 0
            best = scorer(rows, positives).mean(1, keepdim=True) if looks_at_gap else None
        masked = self._masked(rows, pool, self._ordered(scores, is_ready), positives, count)
        chosen, is_random = self._choose(masked, count)
        is_random = is_random | ~is_ready
        usable = (masked > -math.inf).any(1, keepdim=True)
        mined = torch.where(usable, pool.gather(1, chosen), own)
        gap = None if best is None else best - scores.gather(1, chosen)
        self._note(rows, mined, is_random | ~usable, gap, usable.expand_as(own))
        return mined

    def _scored_pool(
        self, scorer: _Scorer, rows: Tensor, own: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Candidates of each row, its own negatives first, and their scores: [R, size] each."""
        more = (len(rows), size - own.shape[1])
        if scorer.encode is None:
            pool = torch.cat([own, self._random(rows.device, more, self.candidates)], 1)
            return pool, scorer(rows, pool)
        breadth = max(len(rows), 4 * size)
        if breadth < len(self.candidates):
            shared = self._random(rows.device, (breadth,), self.candidates)
        else:
            ends = self.candidates.start, self.candidates.stop
            shared = torch.arange(*ends, device=rows.device)
        places = self._random(rows.device, more, range(len(shared)))
        return torch.cat([own, shared[places]], 1), scorer.dot(rows, own, shared, places)

    def _masked(
        self, rows: Tensor, pool: Tensor, scores: Tensor, positives: Tensor | None, count: int
    ) -> Tensor:
        """The scores [R, P], -inf where a candidate cannot be one of `count` negatives.

        That is where the user has seen it, where it is what the row is about, or stands in the row
        already, and where the score is not finite.
        """
        excluded = ~scores.isfinite()
        if positives is not None:
            excluded |= _is_among(pool, positives, self.max_rows)
        if count > 1:
            excluded |= _repeated(pool)
        scores = scores.masked_fill(excluded, -math.inf)
        if (
            rows.dim() == 2
            or count > 1
            or self.top_share
            or self.random_share
            or rows.device.type != "cpu"
        ):
            seen = self._have_seen(rows, pool)
        else:
            # Only the best is wanted, which is one of the two best for nearly all rows: a CPU is
            # slow to look up all.
            best = scores.topk(min(2, pool.shape[1]), 1).indices
            best_seen = self.seen.contain(rows.unsqueeze(1), pool.gather(1, best))
            seen = torch.zeros_like(excluded).scatter_(1, best, best_seen)
            left = best_seen.all(1)
            seen[left] = self.seen.contain(rows[left].unsqueeze(1), pool[left])
        return scores.masked_fill(seen, -math.inf)

    def _have_seen(self, rows: Tensor, pool: Tensor) -> Tensor:
        """Whether the users of the rows have seen the candidates [R, P]."""
        if rows.dim() == 2:
            return _is_among(pool, rows, self.max_rows)
        return self.seen.contain(rows.unsqueeze(1), pool)

    def _is_ready(
        self,
        scorer: _Scorer,
        device: torch.device,
        ranked: tuple[Tensor, Tensor] | None,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Whether the model ranks well enough for hard negatives, bool []: see `warmup_auc`.

        Looks at it in some calls: by rows and their positives, [R] and [R] or [R, m], of which
        those count that `counts` [R] says.
        """
        is_due = self._calls <= _AUC_FIRST or self._calls % _AUC_EVERY == 0
        if ranked is not None and len(ranked[0]) and self.warmup_auc and is_due:
            rows, positives = ranked[0], ranked[1].reshape(len(ranked[0]), -1)
            others = self._random(device, (len(rows), 1), self.candidates)
            scores = scorer(rows, torch.cat([positives, others], 1))
            best, other = scores[:, :-1], scores[:, -1:]
            is_valid = ~self._have_seen(rows, others) & (positives != others)
            is_valid &= best.isfinite() & other.isfinite()
            if counts is not None:
                is_valid &= counts.unsqueeze(1)
            wins = (best > other) + 0.5 * (best == other)
            wins, number = (wins * is_valid).sum(), is_valid.sum()
            self._add("auc", wins, number)
            found = torch.stack([wins / number.clamp(min=1), number > 0])
            before = torch.zeros_like(found) if self._auc is None else self._auc.to(device)
            kept = _AUC_DECAY ** (self._calls - self._calls_at_auc)
            self._auc = kept * before + (1 - kept) * found
            self._calls_at_auc = self._calls
        if self._auc is None:
            return torch.ones((), dtype=torch.bool, device=device)
        total, weight = self._auc.to(device)
        return total >= self.warmup_auc * weight

    def _ordered(self, scores: Tensor, is_ready: Tensor) -> Tensor:
        """The scores [R, P]; while the model is not ready, random ones, whose best is any."""
        if is_ready.device.type == "cpu" and is_ready:  # which a GPU would have to be waited for
            return scores
        return torch.where(is_ready, scores, self._uniform(scores.shape, scores.device))

    def _choose(self, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Which `count` candidates of each row to take, and which of them are random picks.

        Of scores [R, P], -inf where a candidate is not valid. Rows with fewer valid candidates
        repeat them.
        """
        share = self.random_share
        share = (0.5 if count > 1 else 0.0) if share is None else share
        is_valid = scores > -math.inf
        # Candidates are in random order, the row's own draw first: so the first are a random pick.
        order = torch.arange(scores.shape[1], 0, -1, device=scores.device) * is_valid
        if count == 1:
            chosen = self._hard(scores, 1)
            is_random = torch.zeros_like(chosen, dtype=torch.bool)
            if share:
                is_random = self._uniform(chosen.shape, scores.device) < share
                chosen = torch.where(is_random, order.argmax(1, keepdim=True), chosen)
            return chosen, is_random
        hard = count - int(share * count + 1e-9)
        chosen = self._hard(scores, hard)
        others = order.scatter(1, chosen, 0).topk(count - hard, 1).indices
        slots = torch.arange(count, device=scores.device)
        # Valid ones come first: among the hard ones, and random ones only follow if all these are.
        slots = slots % is_valid.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([chosen, others], 1).gather(1, slots), slots >= hard

    def _hard(self, scores: Tensor, count: int) -> Tensor:
        """The `count` best, or as many at random from the top share; valid ones first."""
        breadth = max(count, math.ceil(self.top_share * scores.shape[1]))
        best, top = scores.topk(breadth, 1)
        if breadth == count:
            return top
        lots = self._uniform(best.shape, scores.device).masked_fill(best == -math.inf, -1.0)
        return top.gather(1, lots.topk(count, 1).indices)

    def _unseen(
        self,
        model: Any,
        users: Tensor,
        items: Tensor,
        counts: Tensor | None,
        score: Scorer | None,
        encode: Encoders | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A hard item for each row, whether it is valid, and whether it is a random pick: [R].

        Rows count that `counts` says, as in `_is_ready`.
        """
        own = items.new_empty(len(items), 0)
        with _evaluating(users.device, model, score, encode):
            scorer = _Scorer(model, score, encode, self.max_rows)
            pool, scores = self._scored_pool(scorer, users, own, self.pool_size or 8)
            is_ready = self._is_ready(scorer, users.device, (users, items), counts)
        is_ready = is_ready & (self._calls > self.warmup_steps)
        masked = self._masked(users, pool, self._ordered(scores, is_ready), items.unsqueeze(1), 1)
        chosen, is_random = self._choose(masked, 1)
        mined = pool.gather(1, chosen).squeeze(1)
        return mined, (masked > -math.inf).any(1), is_random.squeeze(1) | ~is_ready

    # Random numbers and statistics

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            distributed = torch.distributed
            ranked = distributed.is_available() and distributed.is_initialized()
            rank = distributed.get_rank() if ranked else 0
            # Another stream than that of a script which seeds torch by the same number. A CPU's
            # generator takes the last 32 bits only.
            seed = (self.seed + 0x9E3779B9 * (rank + 1)) % 2**32
            self._generators[device] = torch.Generator(device).manual_seed(seed)
        return self._generators[device]

    def _random(self, device: torch.device, shape: Sequence[int], among: range) -> Tensor:
        generator = self._generator(device)
        return torch.randint(among.start, among.stop, shape, generator=generator, device=device)

    def _uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        return torch.rand(shape, generator=self._generator(device), device=device)

    def _note(
        self,
        rows: Tensor,
        mined: Tensor,
        is_random: Tensor,
        gap: Tensor | None = None,
        has_gap: Tensor | None = None,
    ) -> None:
        """Add to the statistics, on the device, so that nothing waits for it."""
        self._calls_noted += 1
        self._add("random_share", is_random, torch.ones_like(is_random))
        if gap is not None and has_gap is not None:
            self._add("score_gap", torch.where(has_gap, gap, 0.0), has_gap)
        if self.validation is not None and rows.dim() == 1 and not self.validation.by_history:
            hits = self.validation.contain(rows.unsqueeze(1), mined)
            self._add("validation_positives", hits & ~is_random, ~is_random)

    def _add(self, name: str, values: Tensor, counted: Tensor) -> None:
        """Add to one of the statistics the sum of the values, and how many they are."""
        device = values.device
        if self._totals is None:
            exact = torch.float32 if device.type == "mps" else torch.float64
            self._totals = torch.zeros(2, len(_STATISTICS), dtype=exact, device=device)
        totals = self._totals = self._totals.to(device)
        totals[:, _STATISTICS.index(name)] += torch.stack(
            [values.sum(dtype=totals.dtype), counted.sum(dtype=totals.dtype)]
        )


class _Scorer:
    """Scores pairs by a model, a function of users and items, or two encoders.

    The default is the model without what wraps it: a forward of DistributedDataParallel waits for
    other processes, and a compiled model would be compiled again for the pool's shape.
    """

    def __init__(
        self,
        model: Any,
        score: Scorer | None,
        encode: Encoders | None,
        max_rows: int = 2**18,
    ) -> None:
        self.encode = encode
        self.max_rows = max_rows
        self._score = score if score is not None else _unwrapped(model)
        if encode is None and not callable(self._score):
            raise ValueError(
                f"cannot score by an object of type {type(model).__name__}: pass score=, a "
                "function of users and items that returns one score for each pair, or encode="
            )

    def __call__(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of users [R] (or histories [R, L]) and their items [R, P]: float32 [R, P]."""
        if self.encode is not None:
            return self.dot(users, items)
        users, items_of_rows = users.repeat_interleave(items.shape[1], 0), items.flatten()
        chunk = self._chunk(users)
        parts = zip(users.split(chunk), items_of_rows.split(chunk))
        return torch.cat([self.flat(*part) for part in parts]).reshape(items.shape)

    def flat(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of users [n] and items [n] in one call: float32 [n]."""
        if self.encode is not None:
            return (self._encoded(0, users) * self._encoded(1, items)).sum(-1)
        try:
            output = self._score(users, items)
        except IndexError as error:
            raise _not_in_model(error, users, items) from error
        if isinstance(output, (tuple, list)) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Tensor) or output.numel() != len(items):
            raise ValueError(
                f"expected one score for each of {len(items)} pairs of user and item, of shape "
                f"({len(items)},), but the model returned {_shape_of(output)}: pass score=, a "
                "function of users and items that returns it"
            )
        return output.reshape(-1).float()

    def dot(
        self,
        users: Tensor,
        own: Tensor,
        shared: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Scores of users [R], for their own items [R, k] and those at places [R, E] of shared [M].

        Each item is encoded once. Returns float32 [R, k + E].
        """
        users_of_rows = self._encoded(0, users)
        if shared is None or places is None:
            shared, places = own.new_empty(0), own.new_empty(len(own), 0)
        encoded = self._encoded(1, torch.cat([own.flatten(), shared]))
        own_vectors = encoded[: own.numel()].unflatten(0, own.shape)
        shared_vectors = encoded[own.numel() :]
        # A product of all with all costs less than gathering vectors for many candidates.
        multiplies = len(shared) <= 48 * places.shape[1]
        width = own.shape[1] + (len(shared) if multiplies else places.shape[1])
        chunk = max(1, self._chunk(users) // width)
        scores = []
        with _full_precision(users.device):
            for vectors, its_own, at in zip(
                users_of_rows.split(chunk), own_vectors.split(chunk), places.split(chunk)
            ):
                if multiplies:
                    others = (vectors @ shared_vectors.T).gather(1, at)
                else:
                    others = (shared_vectors[at] * vectors.unsqueeze(1)).sum(-1)
                scores.append(torch.cat([(its_own * vectors.unsqueeze(1)).sum(-1), others], 1))
        return torch.cat(scores)

    def _chunk(self, users: Tensor) -> int:
        """Rows at a time: on a CPU as many as its cache takes, which is quicker there."""
        return min(self.max_rows, 2**13) if users.device.type == "cpu" else self.max_rows

    def _encoded(self, which: int, ids: Tensor) -> Tensor:
        """Vectors of users (0) or items (1): float32 [n, d]."""
        assert self.encode is not None
        encoder, name = self.encode[which], ("users", "items")[which]
        vectors = []
        for part in ids.split(self._chunk(ids)):
            try:
                output = encoder(part)
            except IndexError as error:
                raise _not_in_model(error, **{name: part}) from error
            if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(part):
                raise ValueError(
                    f"expected one vector for each of {len(part)} {name}, of shape ({len(part)}, "
                    f"d), but the encoder returned {_shape_of(output)}"
                )
            vectors.append(output.float())
        return torch.cat(vectors)


def _unwrapped(model: Any) -> Any:
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif isinstance(model, nn.Module) and "_orig_mod" in model._modules:  # torch.compile
            model = model._orig_mod
        else:
            return model


@contextlib.contextmanager
def _evaluating(device: torch.device, model: Any, score: Any, encode: Any) -> Iterator[None]:
    """Eval mode, without a trace: flags, random streams and autocast's cache are as before."""
    parts = [*(model if isinstance(model, (tuple, list)) else [model]), score, *(encode or ())]
    owners = [getattr(part, "__self__", part) for part in parts]  # of bound methods
    training = {
        module
        for owner in owners
        if isinstance(owner, nn.Module)
        for module in owner.modules()
        if module.training
    }
    # Some models draw numbers in eval mode too, as by functional.dropout without its `training`.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            for module in training:  # not eval(), which a model may have made to do more
                module.training = False
            yield
        finally:
            for module in training:
                module.training = True
            # Weights that were cast under no_grad have no graph, and in some versions of torch
            # (2.4) the training forward of the same autocast region would take them from here.
            torch.clear_autocast_cache()


def _full_precision(device: torch.device) -> ContextManager[Any]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _is_among(pool: Tensor, others: Tensor, max_rows: int) -> Tensor:
    """Whether each candidate [R, P] is one of its row's others [R, m]."""
    if others.shape[1] == 1:
        return pool == others
    chunk = max(1, max_rows // pool.shape[1])
    parts = zip(pool.split(chunk), others.split(chunk))
    return torch.cat([(p.unsqueeze(2) == o.unsqueeze(1)).any(2) for p, o in parts])


def _repeated(pool: Tensor) -> Tensor:
    """Whether a candidate stands further left in its row already."""
    ordered, order = pool.sort(dim=1, stable=True)
    again = functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return torch.zeros_like(again).scatter_(1, order, again)


def _require_between(name: str, ids: Tensor, low: int, high: int | None) -> None:
    smallest, largest = (int(bound) for bound in ids.aminmax())
    if smallest < low or high is not None and largest >= high:
        wrong = smallest if smallest < low else largest
        allowed = f"{low} and above" if high is None else f"{low} to {high - 1}"
        raise ValueError(f"{name} id {wrong} is out of range: {name} ids are to be {allowed}")


def _require_one_each(name: str, values: Tensor, items: Tensor) -> None:
    if values.numel() != items.numel():
        raise ValueError(
            f"there must be one {name} for each item, but they are of shape "
            f"{tuple(values.shape)} for items of shape {tuple(items.shape)}"
        )


def _not_in_model(
    error: IndexError, users: Tensor | None = None, items: Tensor | None = None
) -> IndexError:
    ranges = [
        f"{name} ids {int(ids.min())} to {int(ids.max())}"
        for name, ids in (("user", users), ("item", items))
        if ids is not None
    ]
    return IndexError(
        f"the model cannot look up {' and '.join(ranges)} ({error}): candidates are drawn from "
        "low= up to high=, which must be ids that the model has"
    )


def _shape_of(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"shape {tuple(output.shape)}"
    if isinstance(output, (tuple, list)):
        return f"{len(output)} values ({', '.join(map(_shape_of, output))})"
    return f"an object of type {type(output).__name__}"


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, not {value!r}")
    return operator.index(value)


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}")
    return float(value)
