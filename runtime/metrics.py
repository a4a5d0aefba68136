"""Ranking metrics over the full catalogue, and their evaluation beside a training run.

The functions take lists of item ids, best first, and answer in float64 on the CPU with one value
per list, NaN where a metric is undefined for a list; `catalog_coverage` and `gini` answer with one
value for all lists. `RankingMetrics` ranks the catalogue for a sample of users, and has the
interface known from torchmetrics.

Lists are an integer tensor [U, L] padded with -1, or a sequence of sequences of ids or of (id,
score) pairs; a single list, [L], gives a tensor without dimensions. Only the first k distinct ids
of a list count: of an item that comes twice, the second place is removed and the list moves up.
What is relevant comes in the same forms, or as sets, in any order.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import numbers
import time
from typing import Any, Callable, Collection, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from .interactions import Interactions, _undisturbed
from .negatives import _evaluating, _unwrapped
from .precision import autocast

__all__ = [
    "RankingMetrics",
    "catalog_coverage",
    "diversity_at_k",
    "gini",
    "hit_rate_at_k",
    "ndcg_at_k",
    "novelty_at_k",
    "recall_at_k",
    "serendipity",
]

# A row in a model's forward pass is reckoned as the memory of so many scores.
_SCORES_PER_ROW = 256
_LISTS_AT_ONCE = 2**14
_EXTRAS = ("gini", "serendipity")


def ndcg_at_k(recommended: Any, relevant: Any, k: int) -> Tensor:
    """Normalised discounted cumulative gain, with an item either relevant or not.

    The sum of 1 / log2(rank + 1) over the relevant items at ranks 1 to k, divided by that of the
    best list possible, which has relevant items at its first min(k, |relevant|) ranks. For binary
    relevance the linear and the exponential gain are the same. NaN without relevant items.

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002,
    https://doi.org/10.1145/582415.582418. Equals scikit-learn's `ndcg_score`, torchmetrics'
    `retrieval_normalized_dcg`, and RecTools' NDCG with `divide_by_achievable=True`.

    Args:
        recommended: Lists of item ids, best first, [U, L].
        relevant: The relevant items of each list, [U, R], or one of each, [U].
        k: Length of the lists that are looked at.

    Returns:
        [U], each from 0 to 1.

    Raises:
        TypeError, ValueError: `k` is not a positive integer, an id is no integer, or the two have
            different numbers of lists. This holds for all functions of this module.
    """
    lists, hits, counts, shape = _compare(recommended, relevant, k)
    return _ndcg(hits, counts, k).reshape(shape)


def recall_at_k(recommended: Any, relevant: Any, k: int) -> Tensor:
    """Share of the relevant items that are among the first k. NaN without relevant items.

    Divided by all relevant items, also where there are more than k. Equals RecTools' Recall.

    Args, Returns, Raises: As `ndcg_at_k`.
    """
    lists, hits, counts, shape = _compare(recommended, relevant, k)
    return _recall(hits, counts).reshape(shape)


def hit_rate_at_k(recommended: Any, relevant: Any, k: int) -> Tensor:
    """1 where a relevant item is among the first k, else 0. NaN without relevant items.

    Args, Returns, Raises: As `ndcg_at_k`.
    """
    lists, hits, counts, shape = _compare(recommended, relevant, k)
    return _hit_rate(hits, counts).reshape(shape)


def diversity_at_k(recommended: Any, features: Tensor, k: int) -> Tensor:
    """Mean cosine distance, 1 - cos, of all pairs among the first k items of a list.

    NaN for lists of fewer than two items. An item whose features are all zero has no direction: it
    counts as orthogonal to every other (distance 1). NaN too where features are not finite.

    Source: the complement of the intra-list similarity of Ziegler et al., "Improving recommendation
    lists through topic diversification", 2005, https://doi.org/10.1145/1060745.1060754.

    Args:
        recommended: Lists of item ids, best first, [U, L].
        features: [I, d], the row of an item being its id.
        k: Length of the lists that are looked at.

    Returns:
        [U], each from 0 (all alike) to 2 (only possible for two items, of opposite directions).

    Raises:
        ValueError: An id has no row in `features`.
    """
    lists, shape = _first_k(recommended, k)
    return _diversity(lists, _tensor(features)).reshape(shape)


def novelty_at_k(recommended: Any, popularity: Any, n_users: int, k: int) -> Tensor:
    """Mean self-information of the first k items, -log2 of the share of users who know the item.

    An item that nobody knows counts as known to one user. NaN for empty lists.

    Source: Zhou et al., "Solving the apparent diversity-accuracy dilemma of recommender systems",
    2010, https://doi.org/10.1073/pnas.1000488107. Equals RecTools' MeanInvUserFreq. Not the
    expected popularity complement of Vargas and Castells (2011), which is 1 - share.

    Args:
        recommended: Lists of item ids, best first, [U, L].
        popularity: [I], for each item the number of training users who have it, or their share:
            integers are numbers, and so are floats of which any is above 1; else they are shares.
        n_users: Number of training users.
        k: Length of the lists that are looked at.

    Returns:
        [U], in bits, each from 0 to log2(n_users).

    Raises:
        ValueError: `n_users` is less than 1, an item is negative or known to more than all users
            (as when interactions were counted in place of users), or an id has no popularity.
    """
    lists, shape = _first_k(recommended, k)
    information = _information(_tensor(popularity).cpu(), _positive("n_users", n_users))
    _check_ids(lists, len(information), "the number of popularities")
    return _novelty(lists, information).reshape(shape)


def serendipity(recommended: Any, relevant: Any, popularity: Any, k: int) -> Tensor:
    """Mean, over the first k items, of how much more a relevant one is recommended than by chance.

    An item at rank r counts max(0, p - q) if it is relevant, else 0, where p = (I + 1 - r) / I is
    for being recommended to this user and q = (I + 1 - popularity rank) / I to any; items of equal
    popularity share a rank and the next rank follows on; q = 0 for items that nobody has. NaN for
    empty lists.

    Source: Serendipity of RecTools, https://github.com/MobileTeleSystems/RecTools, which it equals.
    That it is what is both unexpected and useful is from Ge et al., "Beyond accuracy", 2010,
    https://doi.org/10.1145/1864708.1864761.

    Args:
        recommended: Lists of item ids, best first, [U, L].
        relevant: The relevant items of each list, [U, R], or one of each, [U].
        popularity: [I], for each item of the catalogue how many interactions or users it has.
        k: Length of the lists that are looked at.

    Returns:
        [U], each from 0 to 1.

    Raises:
        ValueError: An id has no popularity.
    """
    lists, hits, counts, shape = _compare(recommended, relevant, k)
    popularity = _tensor(popularity).cpu()
    _check_ids(lists, len(popularity), "the number of popularities")
    chance = _chance_by_popularity(popularity, len(popularity))
    return _serendipity(lists, hits, chance, len(popularity)).reshape(shape)


def catalog_coverage(recommended: Any, n_items: int, k: int) -> float:
    """Share of the catalogue that is in the first k of any list; NaN for an empty catalogue.

    It grows with the number of lists, so only values for as many can be compared.

    Source: Ge et al., "Beyond accuracy: evaluating recommender systems by coverage and
    serendipity", 2010, https://doi.org/10.1145/1864708.1864761.

    Args:
        recommended: Lists of item ids, best first, [U, L]: those of all users, since the mean of
            the coverage of batches is another number.
        n_items: Size of the catalogue, whose ids are 0 to n_items - 1.
        k: Length of the lists that are looked at.

    Raises:
        ValueError: An id is not of the catalogue.
    """
    return _coverage(_shown_in(n_items, recommended, k))


def gini(recommended: Any, n_items: int, k: int) -> float:
    """Gini index of how often each item of the catalogue is in the first k; NaN without any.

    0 when all items are recommended equally often, (n_items - 1) / n_items when always the same.
    With the counts x in ascending order: sum of (2 i - n - 1) x_i, over n times the sum of x.

    Source: Fleder and Hosanagar, "Blockbuster culture's next rise or fall", 2009,
    https://doi.org/10.1287/mnsc.1080.0974.

    Args, Raises: As `catalog_coverage`.
    """
    return _gini(_shown_in(n_items, recommended, k))


class RankingMetrics:
    """The metrics of this module over the full catalogue, for users with held-out items.

    `update` takes scores of all items, `update_from_model` makes them; `compute` says what all
    users since the last `reset` come to, as in torchmetrics. `evaluate` is these three in one.

    Items that a user has in training are not recommended to them; nor are they counted as relevant
    when they are held out too. Items that score -inf or NaN are not recommended either, so a list
    can be shorter than k. Items of equal score come in a random order that is always the same:
    torch.topk has an order of its own on every device, which may follow the ids.

    Training goes on as if nobody had watched: training flags, weights, the random streams of torch,
    numpy and `random`, and torch's counts of peak memory stay as they were. Scores are computed in
    full precision.

    Under torch.distributed each rank evaluates its part of the sample, and `compute` adds the ranks
    up: every rank has to call it.

    Args:
        train: The training interactions, an `Interactions` or what that reads (a loader, a data
            set, a tuple of users and items). Without, novelty and serendipity are left out, and
            nothing is kept from being recommended. Where histories stand for users there is nothing
            to look up by user, and each history counts as one user.
        held_out: What the lists should hold, in the same form. Not needed where `update` is told.
        n_items: Number of item ids, 0 to n_items - 1, all of which the model can score. By default
            the largest id in the data plus one.
        k: Length of the lists.
        features: [n_items, d], what is known of the items, for "diversity@k".
        item_embeddings: [n_items, d] in their place, for "embedding_diversity@k": another name,
            since it changes with the model. A tensor or nn.Embedding, read at each update, or a
            function that returns a tensor.
        excluded: Ids that are never recommended and no part of the catalogue, as that of padding.
        extras: Further metrics: "gini", "serendipity".
        max_users: Size of the sample of users that `update_from_model` evaluates; None for all.
        seconds: Time after which it stops with fewer; None for no limit.
        batch_size: Pairs of user and item in one call of the model. Of scores that need no such
            call, 256 times as many are held at once.
        seed: Of the sample, and of the order of items that score the same.
        sync: False where only one rank evaluates: it takes the whole sample, and `compute` does not
            wait for the others.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind, shape or range, or the data cannot
            be read.
    """

    def __init__(
        self,
        train: Any = None,
        held_out: Any = None,
        n_items: int | None = None,
        *,
        k: int = 10,
        features: Any = None,
        item_embeddings: Tensor | nn.Embedding | Callable[[], Tensor] | None = None,
        excluded: Collection[int] = (),
        extras: Collection[str] = (),
        max_users: int | None = 2000,
        seconds: float | None = 30.0,
        batch_size: int = 2**14,
        seed: int = 0,
        sync: bool = True,
    ) -> None:
        known, wanted = _interactions(train), _interactions(held_out)
        if wanted.by_history:
            raise ValueError(
                "held_out has histories in the place of users, so nothing can be looked up in it: "
                "leave it out, and give update() the relevant items of each row"
            )
        largest = max(known.high, wanted.high)
        self.n_items = _positive("n_items", max(largest, 1) if n_items is None else n_items)
        if largest > self.n_items:
            raise ValueError(
                f"item id {largest - 1} is in the data, but n_items is {self.n_items}: it must be "
                "above every id"
            )
        self.k = _positive("k", k)
        never = [item for item in excluded if not 0 <= item < self.n_items]
        if never:
            raise ValueError(f"excluded holds {never[0]}, which is no id below {self.n_items}")
        self._excluded = torch.as_tensor(sorted(excluded), dtype=torch.int64, device="cpu")
        self._in_catalogue = torch.ones(self.n_items, dtype=torch.bool, device="cpu")
        self._in_catalogue[self._excluded] = False
        self._catalogue_size = int(self._in_catalogue.sum())
        self._max_users = None if max_users is None else _positive("max_users", max_users)
        self._seconds = seconds
        self._batch_size = _positive("batch_size", batch_size)
        self._sync = sync

        generator = torch.Generator().manual_seed(seed)  # the global one is the script's
        shuffle = functools.partial(torch.randperm, generator=generator, device="cpu")
        self._priority = shuffle(self.n_items, dtype=torch.int32)
        self._train, self._held_out = known, wanted
        users, items = wanted._keys // wanted._width, wanted._keys % wanted._width
        new = self._in_catalogue[items]
        if not known.by_history:
            new &= ~known.contain(users, items)
        users = users[new].unique_consecutive()
        self._users = users[shuffle(len(users))]

        if features is not None and item_embeddings is not None:
            raise ValueError("give features or item_embeddings, not both")
        self._vectors = features if item_embeddings is None else item_embeddings
        if isinstance(self._vectors, nn.Embedding) or not callable(self._vectors):
            self._read_vectors()  # what is wrong with them should show now, not after an epoch
        counts, n_users = _popularity(known, self.n_items)
        counts *= self._in_catalogue
        self._information = _information(counts, n_users) if n_users else None
        self._chance = _chance_by_popularity(counts, self._catalogue_size) if n_users else None

        unknown = sorted(set(extras) - set(_EXTRAS))
        if unknown:
            raise ValueError(f"extras can be {' and '.join(_EXTRAS)}, not {', '.join(unknown)}")
        self._extras = frozenset(extras)
        names = ["ndcg", "recall", "hit_rate"]
        if self._vectors is not None:
            names.append("diversity" if item_embeddings is None else "embedding_diversity")
        if self._information is not None:
            names.append("novelty")
        if self._chance is not None and "serendipity" in extras:
            names.append("serendipity")
        self._names = [f"{name}@{self.k}" for name in names]
        self.reset()

    def reset(self) -> None:
        """Forget all users, as before the first update."""
        zeros = functools.partial(torch.zeros, dtype=torch.float64, device="cpu")
        self._sums = zeros(2, len(self._names))  # of values, and of users for whom there is one
        self._counts = zeros(2)  # users evaluated, users left out
        self._shown = zeros(self.n_items)  # in how many lists each item was

    def update(
        self, scores: Tensor, users: Any = None, *, relevant: Any = None, seen: Any = None
    ) -> None:
        """Rank all items by their scores, and add the lists.

        Rows without a relevant item that could be recommended are left out of every metric, and
        counted.

        Args:
            scores: [B, n_items], higher for better. Not changed.
            users: [B], whose scores they are. Relevant is then what they have in `held_out`, and
                seen what they have in `train`.
            relevant: The relevant items of each row, [B, R] padded with -1, or [B] for one each,
                or a sequence of sequences: instead.
            seen: The items of each row that are not recommended, in the same forms: instead.

        Raises:
            TypeError, ValueError: A shape does not fit, neither users nor relevant items are given,
                or an id is out of range.
        """
        scores = _tensor(scores)
        if scores.dim() != 2 or scores.shape[1] != self.n_items:
            raise ValueError(
                f"scores have shape {list(scores.shape)}, but must be [users, {self.n_items}]: one "
                "column for each item id. If the model scores more or fewer, say so by n_items."
            )
        if users is None and relevant is None:
            raise ValueError("update() needs the users, or the relevant items of each row")
        rows = {
            "users": None if users is None else _ids("users", users).reshape(-1),
            "relevant": None if relevant is None else _per_row("relevant", relevant),
            "seen": None if seen is None else _per_row("seen", seen),
        }
        for name, given in rows.items():
            if given is not None and len(given) != len(scores):
                raise ValueError(f"there are {len(scores)} rows of scores, but {len(given)} {name}")
            if given is not None and name != "users":
                _check_ids(given, self.n_items, "n_items")
        step = max(1, _SCORES_PER_ROW * self._batch_size // self.n_items)
        for start in range(0, len(scores), step):
            part = slice(start, start + step)
            self._add(
                scores[part], *(None if given is None else given[part] for given in rows.values())
            )

    @torch.no_grad()
    def update_from_model(
        self,
        model: Any,
        users: Any = None,
        *,
        score: Callable[[Tensor, Tensor], Any] | None = None,
        encode: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None = None,
    ) -> int:
        """Score the catalogue for users, and add their lists.

        Args:
            model: The recommender, or a tuple of its modules. It is called with user ids and item
                ids, int64 [N] each, on its own device, and returns N scores, higher for better. Of
                one inside DistributedDataParallel or torch.compile, the module itself is called.
            users: Ids of the users to evaluate, in place of the sample.
            score: Called with user ids and item ids in place of the model.
            encode: Two functions, from user ids [N] and from item ids [N] to vectors [N, d] whose
                dot product is the score. Much cheaper: each item is encoded once.

        Returns:
            How many users it evaluated in the time it had. They are the first of one random order,
            so what was done of the sample is a smaller random sample.

        Raises:
            TypeError, ValueError: There is not one score for each pair.
            IndexError: The model does not know an id.
        """
        if score is not None and encode is not None:
            raise ValueError("give score or encode, not both")
        parts = model if isinstance(model, (tuple, list)) else [model]
        modules = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))
        tensors = itertools.chain(modules.parameters(), modules.buffers())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        chosen = self._share_of_sample() if users is None else _ids("users", users).reshape(-1)
        call = _unwrapped(model) if score is None else score
        if encode is None and not callable(call):
            raise TypeError(f"a {type(call).__name__} cannot be called: pass score= or encode=")
        evaluated, start = 0, time.monotonic()
        with contextlib.ExitStack() as stack:
            stack.enter_context(_evaluating(device, model, score, encode))
            stack.enter_context(_undisturbed(*modules.modules()))  # by draws of numpy and random
            stack.enter_context(_same_embeddings(modules))
            stack.enter_context(autocast(device, enabled=False))
            items = torch.arange(self.n_items, device=device)
            if encode is not None:
                chunks = items.split(self._batch_size)
                vectors = torch.cat([_vectors(encode[1], chunk) for chunk in chunks]).T
            at_once = self._batch_size * (1 if encode is None else _SCORES_PER_ROW)
            step = max(1, at_once // self.n_items)
            while evaluated < len(chosen):
                part = chosen[evaluated : evaluated + step]
                if encode is None:
                    scores = self._score_pairs(call, part.to(device), items)
                else:
                    scores = _vectors(encode[0], part.to(device)) @ vectors
                self.update(scores, part)
                evaluated += len(part)
                if self._seconds is not None and time.monotonic() - start >= self._seconds:
                    break
        return evaluated

    def compute(self) -> dict[str, float]:
        """The metrics of all users since the last reset, over all ranks.

        Returns:
            "ndcg@k", "recall@k", "hit_rate@k", "diversity@k" or "embedding_diversity@k",
            "novelty@k", "serendipity@k" as means over the users for whom they are defined;
            "coverage" and "gini" of all lists together. A metric that is undefined for all is left
            out, so without users there are only "users_evaluated" and "users_without_relevant".
        """
        state = torch.cat([self._sums.flatten(), self._counts, self._shown])
        if self._sync:
            state = _sum_over_ranks(state)
        sums, counts, shown = state.split([self._sums.numel(), 2, self.n_items])
        shown = shown[self._in_catalogue]
        totals, defined = sums.view(2, -1)
        found = dict(zip(self._names, (totals / defined).tolist()))
        if counts[0]:
            found["coverage"] = _coverage(shown)
            if "gini" in self._extras:
                found["gini"] = _gini(shown)
        found = {name: value for name, value in found.items() if not math.isnan(value)}
        users = {"users_evaluated": int(counts[0]), "users_without_relevant": int(counts[1])}
        return {**found, **users}

    def evaluate(self, model: Any, users: Any = None, **how: Any) -> dict[str, float]:
        """`reset`, `update_from_model` with the same arguments, and `compute`."""
        self.reset()
        self.update_from_model(model, users, **how)
        return self.compute()

    def _add(
        self, scores: Tensor, users: Tensor | None, relevant: Tensor | None, seen: Tensor | None
    ) -> None:
        """Add the lists of so many rows as may be held at once."""
        if users is None:
            users = torch.full((len(scores),), -1, device="cpu")  # nobody, who has nothing
        wanted = _items_of(self._held_out, users) if relevant is None else _entries(relevant)
        known = _items_of(self._train, users) if seen is None else _entries(seen)
        # A copy to write -inf into, which integers do not have.
        kind = scores.dtype if scores.dtype is torch.float64 else torch.float32
        scores = scores.to(kind, copy=True).nan_to_num_(-torch.inf, torch.inf, -torch.inf)
        scores[known[0].to(scores.device), known[1].to(scores.device)] = -torch.inf
        scores[:, self._excluded.to(scores.device)] = -torch.inf
        lists = _top_k(scores, self.k, self._priority.to(scores.device)).cpu()

        keys = wanted[0] * self.n_items + wanted[1]
        known_keys = (known[0] * self.n_items + known[1]).sort().values
        new = ~_is_in(keys, known_keys) & self._in_catalogue[wanted[1]]
        hits, counts = _hits(lists, keys[new].unique(), self.n_items)
        kept = counts > 0
        lists, hits, counts = lists[kept], hits[kept], counts[kept]

        values = [_ndcg(hits, counts, self.k), _recall(hits, counts), _hit_rate(hits, counts)]
        vectors = self._read_vectors()
        if vectors is not None:
            values.append(_diversity(lists, vectors))
        if self._information is not None:
            values.append(_novelty(lists, self._information))
        if self._chance is not None and "serendipity" in self._extras:
            values.append(_serendipity(lists, hits, self._chance, self._catalogue_size))
        table = torch.stack(values)
        # Not in place: the state may have been made, or be added to, under inference_mode.
        self._sums = self._sums + torch.stack([table.nansum(1), (~table.isnan()).sum(1)])
        self._counts = self._counts + torch.stack([kept.sum(), (~kept).sum()])
        self._shown = self._shown + _shown(lists, self.n_items)

    def _score_pairs(self, score: Callable[..., Any], users: Tensor, items: Tensor) -> Tensor:
        """Scores of all items for each user, [U, I], in calls of so many pairs as are allowed."""
        pairs = zip(
            users.repeat_interleave(len(items)).split(self._batch_size),
            items.repeat(len(users)).split(self._batch_size),
        )
        scores = [_one_each(score, *pair) for pair in pairs]
        return torch.cat(scores).view(len(users), len(items))

    def _share_of_sample(self) -> Tensor:
        sample = self._users[: self._max_users]
        if self._sync and _is_distributed():
            return sample[dist.get_rank() :: dist.get_world_size()]
        return sample

    def _read_vectors(self) -> Tensor | None:
        """What tells items apart for diversity, as it is now."""
        vectors = self._vectors
        if vectors is None:
            return None
        if isinstance(vectors, nn.Embedding):
            vectors = vectors.weight
        elif callable(vectors):
            vectors = vectors()
        vectors = _tensor(vectors)
        if vectors.dim() != 2 or len(vectors) < self.n_items:
            raise ValueError(
                f"features or item_embeddings have shape {list(vectors.shape)}, but must be "
                f"[{self.n_items}, d]: one row for each item id"
            )
        return vectors


# Tensors and lists of ids


def _tensor(values: Any) -> Tensor:
    # as_tensor would move a tensor to where the script's torch.set_default_device says.
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")


def _ids(name: str, values: Any) -> Tensor:
    """Ids in a tensor, an array or a sequence of numbers, as int64 on the CPU."""
    try:
        ids = _tensor(values).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be integer ids: {error}") from None
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool):
        raise TypeError(f"{name} must be integer ids, but are {ids.dtype}")
    return ids.to(torch.int64)


def _id_lists(name: str, lists: Any) -> tuple[Tensor, bool]:
    """Lists as int64 [U, L] padded with -1, and whether it is a single one that was given bare."""
    if getattr(lists, "dtype", object) != object:  # a tensor or an array of numbers
        ids = _ids(name, lists)
        if ids.dim() not in (1, 2):
            raise ValueError(
                f"{name} has shape {list(ids.shape)}, but must be one list of ids, [L], or many, "
                "[U, L]"
            )
        return torch.atleast_2d(ids), ids.dim() == 1
    rows = list(lists)
    bare = all(map(_is_entry, rows))
    if bare:
        rows = [rows]
    elif any(map(_is_entry, rows)):
        raise TypeError(f"{name} must be one list of ids or a list of such lists, and not both")
    plain = [[entry[0] if _is_pair(entry) else entry for entry in row] for row in rows]
    longest = max(map(len, plain))
    padded = [row + [-1] * (longest - len(row)) for row in plain]
    return _ids(name, padded).reshape(len(plain), longest), bare


def _is_entry(value: Any) -> bool:
    """Whether it is an id, or an id with its score, in distinction from a list of them."""
    is_scalar = isinstance(value, (numbers.Number, Tensor)) and getattr(value, "ndim", 0) == 0
    return is_scalar or _is_pair(value)


def _is_pair(value: Any) -> bool:
    is_pair = isinstance(value, tuple) and len(value) == 2
    return is_pair and not isinstance(value[1], numbers.Integral)


def _per_row(name: str, lists: Any) -> Tensor:
    """Ids of each row, [B, R] padded with -1; a bare list has one for each row."""
    if isinstance(lists, Tensor):
        lists = torch.atleast_1d(lists)  # a loop may squeeze its last, short batch
    ids, bare = _id_lists(name, lists)
    return ids.T if bare else ids


def _first_k(recommended: Any, k: int) -> tuple[Tensor, tuple[int, ...]]:
    """The first k distinct ids of each list, [U, n <= k] padded with -1 at the end, and the shape
    in which to give one value for each list."""
    _positive("k", k)
    lists, bare = _id_lists("recommended", recommended)
    ordered, order = lists.sort(dim=1, stable=True)
    again = torch.zeros_like(lists, dtype=torch.bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    again = torch.empty_like(again).scatter(1, order, again)
    lists = lists.masked_fill(again | (lists < 0), -1)
    to_front = (lists < 0).to(torch.uint8).argsort(dim=1, stable=True)
    return lists.gather(1, to_front)[:, :k], () if bare else (len(lists),)


def _compare(
    recommended: Any, relevant: Any, k: int
) -> tuple[Tensor, Tensor, Tensor, tuple[int, ...]]:
    """The first k of each list, which of them are relevant, how many there are, and the shape."""
    lists, shape = _first_k(recommended, k)
    wanted = _per_row("relevant", relevant) if shape else _id_lists("relevant", relevant)[0]
    if len(wanted) != len(lists):
        raise ValueError(
            f"there are {len(lists)} lists of recommended items, but {len(wanted)} of relevant ones"
        )
    # Numbered anew, since a large id times the number of lists would overflow.
    numbered = torch.cat([lists, wanted], dim=1).unique(return_inverse=True)[1]
    rows, places = (wanted >= 0).nonzero(as_tuple=True)
    width = numbered.numel() + 1
    keys = rows * width + numbered[:, lists.shape[1] :][rows, places]
    renumbered = numbered[:, : lists.shape[1]].masked_fill(lists < 0, -1)
    return lists, *_hits(renumbered, keys.unique(), width), shape


def _hits(lists: Tensor, keys: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Which ids of the lists are relevant, [U, n], and how many relevant ones each list has, [U].

    `keys` are the relevant ones, row * width + id, in ascending order and each once.
    """
    rows = torch.arange(len(lists), device=lists.device).unsqueeze(1)
    hits = _is_in(rows * width + lists, keys) & (lists >= 0)
    return hits, torch.bincount(keys // width, minlength=len(lists))


def _is_in(values: Tensor, ascending: Tensor) -> Tensor:
    if not len(ascending):
        return torch.zeros_like(values, dtype=torch.bool)
    places = torch.searchsorted(ascending, values).clamp_(max=len(ascending) - 1)
    return ascending[places] == values


def _entries(lists: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and ids of all entries of padded lists."""
    rows, places = (lists >= 0).nonzero(as_tuple=True)
    return rows, lists[rows, places]


def _check_ids(ids: Tensor, limit: int, name: str) -> None:
    largest = int(ids.max()) if ids.numel() else -1
    if largest >= limit:
        raise ValueError(
            f"item id {largest} is out of range: {name} is {limit}, and ids start from 0"
        )


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value.__index__() < 1:
        raise ValueError(f"{name} must be 1 or more, but is {value!r}")
    return value.__index__()


# The metrics, of lists [U, n] padded with -1 and of which items in them are relevant


def _ndcg(hits: Tensor, counts: Tensor, k: int) -> Tensor:
    most = max(int(counts.max()) if len(counts) else 0, hits.shape[1])
    ranks = torch.arange(1, min(k, most) + 1, dtype=torch.float64, device=hits.device)
    gains = 1.0 / torch.log2(ranks + 1.0)
    best = torch.cat([gains.new_zeros(1), gains.cumsum(0)])[counts.clamp(max=len(gains))]
    return (hits * gains[: hits.shape[1]]).sum(dim=1) / best


def _recall(hits: Tensor, counts: Tensor) -> Tensor:
    return hits.sum(dim=1).double() / counts


def _hit_rate(hits: Tensor, counts: Tensor) -> Tensor:
    return hits.any(dim=1).double().masked_fill(counts == 0, torch.nan)


def _diversity(lists: Tensor, vectors: Tensor) -> Tensor:
    _check_ids(lists, len(vectors), "the number of rows")
    if lists.shape[1] < 2:
        return torch.full((len(lists),), torch.nan, dtype=torch.float64, device=lists.device)
    # Not all vectors: of a large catalogue, few are recommended.
    ids, places = lists.unique(return_inverse=True)
    units = vectors.index_select(0, ids.clamp(min=0).to(vectors.device)).cpu().double()
    units.masked_fill_((ids < 0).unsqueeze(1), 0.0)
    squares = units.square().sum(dim=1, keepdim=True)
    units /= squares.sqrt().masked_fill_(squares == 0.0, 1.0)
    sums = [F.embedding_bag(part, units, mode="sum") for part in places.split(_LISTS_AT_ONCE)]
    # The square of a sum of vectors is the cosines of all pairs, twice, and of each with itself.
    own = (squares != 0.0)[places].sum(dim=(1, 2))
    size = (lists >= 0).sum(dim=1)
    cosines = torch.cat([part.square().sum(dim=1) for part in sums]) - own
    distance = 1.0 - cosines / (size * (size - 1))
    return distance.clamp(0.0, 2.0).masked_fill(size < 2, torch.nan)


def _novelty(lists: Tensor, information: Tensor) -> Tensor:
    return _mean(information[lists.clamp(min=0)], lists)


def _information(popularity: Tensor, n_users: int) -> Tensor:
    """Self-information of each item in bits."""
    counts = popularity.double()
    if popularity.is_floating_point() and not bool((counts > 1.0).any()):
        counts = counts * n_users
    wrong = ~((counts >= 0.0) & (counts <= n_users))  # NaN is wrong too
    if bool(wrong.any()):
        item = int(wrong.nonzero()[0])
        raise ValueError(
            f"item {item} has a popularity of {popularity[item].item():g}, but must have between 0 "
            f"and n_users, which is {n_users}: count the users who have it, each of them once"
        )
    return torch.log2(n_users / counts.clamp(min=1.0))


def _serendipity(lists: Tensor, hits: Tensor, chance: Tensor, n_items: int) -> Tensor:
    ranks = torch.arange(1, lists.shape[1] + 1, dtype=torch.float64, device=lists.device)
    own = (n_items + 1.0 - ranks) / n_items
    return _mean((own - chance[lists.clamp(min=0)]).clamp(min=0.0) * hits, lists)


def _chance_by_popularity(popularity: Tensor, n_items: int) -> Tensor:
    """How much each item is recommended to anybody: 1 for the most popular, 0 for unknown."""
    levels, level = popularity.unique(return_inverse=True)  # in ascending order
    chance = (n_items + 1.0 - (len(levels) - level).double()) / n_items
    return chance.masked_fill(popularity == 0, 0.0)


def _mean(values: Tensor, lists: Tensor) -> Tensor:
    """Mean of each row over the items that are there."""
    there = lists >= 0
    return values.masked_fill(~there, 0.0).sum(dim=1) / there.sum(dim=1)


def _shown_in(n_items: int, recommended: Any, k: int) -> Tensor:
    lists, _ = _first_k(recommended, k)
    _check_ids(lists, n_items, "n_items")
    return _shown(lists, n_items)


def _shown(lists: Tensor, n_items: int) -> Tensor:
    """How many lists each item of the catalogue is in."""
    return torch.bincount(lists[lists >= 0], minlength=n_items)


def _coverage(shown: Tensor) -> float:
    return (shown > 0).double().mean().item()


def _gini(shown: Tensor) -> float:
    ascending, n = shown.double().sort().values, len(shown)
    weights = 2.0 * torch.arange(1, n + 1, dtype=torch.float64, device=shown.device) - n - 1.0
    return ((weights * ascending).sum() / (n * ascending.sum())).item()


# Ranking the catalogue


def _top_k(scores: Tensor, k: int, priority: Tensor) -> Tensor:
    """Ids of the k best of each row, best first, and -1 where no score above -inf is left.

    Items of equal score come in the order of their priority, the highest first.
    """
    k = min(k, scores.shape[1])
    best = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    values, ids = best.values[:, :k], best.indices[:, :k]
    if best.values.shape[1] > k:  # an item that just misses may tie with the last that do not
        last = values[:, -1:]
        tied = (best.values[:, k] == last[:, 0]) & (last[:, 0] > -torch.inf)
        if bool(tied.any()):
            some, last = scores[tied], last[tied]
            # The better ones first, whatever their order, and of those that tie the foremost.
            standing = torch.where(some == last, priority, len(priority))
            standing = standing.masked_fill(some < last, -1)
            ids[tied] = standing.topk(k, dim=1).indices
            values[tied] = some.gather(1, ids[tied])
    order = priority[ids].argsort(dim=1, descending=True)
    ids, values = ids.gather(1, order), values.gather(1, order)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return ids.gather(1, order).masked_fill(values == -torch.inf, -1)


def _one_each(score: Callable[..., Any], users: Tensor, items: Tensor) -> Tensor:
    try:
        scores = score(users, items)
    except IndexError as error:
        raise _unknown_ids(error, users, items) from error
    if not isinstance(scores, Tensor) or scores.numel() != len(items):
        raise ValueError(
            f"the model must return one score for each of {len(items)} pairs of user and item, but "
            f"returned {_described(scores)}: pass score=, a function of users and items that does"
        )
    return scores.reshape(-1)


def _vectors(encode: Callable[[Tensor], Any], ids: Tensor) -> Tensor:
    try:
        vectors = encode(ids)
    except IndexError as error:
        raise _unknown_ids(error, ids) from error
    if not isinstance(vectors, Tensor) or vectors.dim() != 2 or len(vectors) != len(ids):
        raise ValueError(
            f"encode must return one vector for each of {len(ids)} ids, [{len(ids)}, d], but "
            f"returned {_described(vectors)}"
        )
    return vectors.float()


def _described(result: Any) -> str:
    return f"{list(result.shape)}" if isinstance(result, Tensor) else f"a {type(result).__name__}"


def _unknown_ids(error: IndexError, *ids: Tensor) -> IndexError:
    ranges = " and ".join(f"{int(some.min())} to {int(some.max())}" for some in ids)
    return IndexError(
        f"the model cannot look up ids from {ranges} ({error}): n_items must be the number of item "
        "ids that it has, and users must be ids that it has"
    )


@contextlib.contextmanager
def _same_embeddings(model: nn.Module) -> Iterator[None]:
    """Put back embeddings with max_norm, which shorten what is looked up in their weights."""
    tables = [m for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    weights = [table.weight for table in tables if table.max_norm is not None]
    copies = [weight.detach().clone() for weight in weights]
    try:
        yield
    finally:
        for weight, copy in zip(weights, copies):
            weight.copy_(copy)


# Interactions, and ranks


def _interactions(data: Any) -> Interactions:
    if isinstance(data, Interactions):
        return data
    nothing = torch.empty(0, dtype=torch.int64, device="cpu")
    return Interactions((nothing, nothing) if data is None else data)


def _items_of(interactions: Interactions, users: Tensor) -> tuple[Tensor, Tensor]:
    """The items of these users: in which row the user stands, and the item."""
    if interactions.by_history:
        return users[:0], users[:0]
    keys, width = interactions._keys, interactions._width  # in ascending order
    first = interactions._first_keys(users)
    start = torch.searchsorted(keys, first)
    counts = torch.searchsorted(keys, first + width) - start
    rows = torch.arange(len(users), device=keys.device).repeat_interleave(counts)
    skipped = start - (counts.cumsum(0) - counts)
    return rows, keys[torch.arange(len(rows), device=keys.device) + skipped[rows]] % width


def _popularity(interactions: Interactions, n_items: int) -> tuple[Tensor, int]:
    """How many users have each item, and how many users there are."""
    keys, width = interactions._keys, interactions._width
    if interactions.by_history:
        n_users = len(keys)
    else:
        keys = keys.unique_consecutive()
        n_users = len((keys // width).unique_consecutive())
    return torch.bincount(keys % width, minlength=n_items), n_users


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _sum_over_ranks(state: Tensor) -> Tensor:
    if not _is_distributed():
        return state
    state = state.to("cuda" if dist.get_backend() == "nccl" else "cpu")  # NCCL wants a GPU
    dist.all_reduce(state)
    return state.cpu()
