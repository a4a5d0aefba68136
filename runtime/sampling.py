"""Random negatives for a table or a list of training rows, drawn in one go.

A loop that draws an item, looks whether the user has it, and draws again, costs Python time for
each row. Here all rows are drawn together and only those that hit a positive are drawn again,
which gives the same distribution: a rejected draw says nothing of the next one.

Draws can be made harder. By popularity: an item that many users have is a better known and so a
harder negative (word2vec draws with the count to the power of 0.75, Mikolov et al.,
https://arxiv.org/abs/1310.4546). By score: of a small pool the items that a model ranks highest
are taken (Zhang et al., "Optimizing Top-N Collaborative Filtering via Dynamic Negative Item
Sampling", SIGIR 2013).

Ids may be integers, strings or anything else that is hashable, in tensors, arrays, columns of a
table or lists. Memory grows with the rows and the positives, never with users times items.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Callable, Iterable, Mapping, Optional, Union

import torch
from torch import Tensor

__all__ = ["first_rows", "unseen_items", "unseen_pairs"]

Ids = Union[Tensor, Iterable[Any], int]
Seen = Union[Callable[[Any, Any], bool], "tuple[Ids, Ids]"]
#: Joint draws before a user, or the whole table, is looked at item by item.
_ROUNDS = 32
#: Numbers held at once where rows are drawn side by side or scored.
_CHUNK = 1 << 20


def unseen_items(
    users: Ids,
    items: Ids,
    seen: Seen,
    count: int,
    *,
    replace: bool = True,
    short: bool = False,
    popularity: float = 0.0,
    score: Any = None,
    seed: Optional[int] = None,
) -> tuple[list[Any], list[Any]]:
    """Draw `count` items for each user that the user has not seen.

    Args:
        users: One user id for each group of draws; a user may come up again. [n]
        items: The ids to draw from; a number n means 0 to n - 1. [m]
        seen: What is never drawn: the users and items of the positives, as two columns of equal
            length, or a function of one user and one item that is true of a positive.
        count: Draws for each entry of `users`; none if it is not above 0.
        replace: Whether a user may get one item twice. If so, an id that stands twice in `items` is
            as likely again; if not, it counts once.
        short: Whether a user with fewer unseen items gets all of them; only without replacement.
        popularity: Draw an item with probability proportional to (1 + its positives in `seen`, of
            whichever user) to this power; 0 draws evenly. Needs `seen` as two columns.
        score: Harder draws: a function of a list of users and a list of items that returns one
            number for each pair, higher for what is more like a positive, or a table that is
            indexed by both, `score[users, items]`. One draw is the highest of 8 candidates;
            of several, half are the highest of 16 (or 4 times `count`), half are random.
        seed: Of the draws; None takes one from torch's global generator.

    Returns:
        The drawn users and items, as two lists of ids of the given types, with the draws of each
        user side by side, in the order of `users`: `count * n` of each, or fewer where `short`.

    Raises:
        ValueError: A user has not enough unseen items (the user is named), or an argument is out
            of range.
    """
    count = max(0, operator.index(count))
    draw = _Draw(users, items, seen, popularity, seed)
    rows = torch.arange(len(draw.users))
    if score is None:
        picked = draw.block(rows, count, replace)
    else:
        pool = 8 if count == 1 else max(16, 4 * count)
        picked = torch.full((len(rows), count), -1)
        for part in rows.split(max(1, _CHUNK // pool)):
            candidates = draw.block(part, pool, replace)
            picked[part] = _hardest(candidates, draw.scores(part, candidates, score), count)
    drawn = picked >= 0
    if not (short and not replace):
        missing = ~drawn.all(dim=1)
        if missing.any():
            user = draw.users[int(missing.nonzero()[0])]
            raise ValueError(
                f"user {user!r} has fewer than {count} of the {len(draw.items)} items unseen; "
                "draw fewer, or pass more items"
            )
    of_row = rows.repeat_interleave(drawn.sum(dim=1))
    return draw.user_ids(of_row), draw.item_ids(picked[drawn])


def unseen_pairs(
    users: Ids,
    items: Ids,
    seen: Seen,
    count: float,
    *,
    popularity: float = 0.0,
    score: Any = None,
    seed: Optional[int] = None,
) -> tuple[list[Any], list[Any]]:
    """Draw `count` pairs of a user and an item that are no positives; one may come twice.

    Args:
        users, items: The ids to draw from; a number n means 0 to n - 1.
        seen, popularity, score, seed: As for `unseen_items`. With `score`, each user gets the
            highest of 8 candidates in place of the item of the pair.
        count: Pairs in all; none if it is not above 0, and rounded up, like the rows of a loop
            that runs while there are fewer.

    Returns:
        The users and the items, as two lists of ids of the given types. [count] each

    Raises:
        ValueError: Every pair is a positive.
    """
    draw = _Draw(users, items, seen, popularity, seed)
    user, item = draw.pairs(max(0, math.ceil(count)))
    if score is not None:
        return unseen_items(
            draw.user_ids(user),
            draw.items,
            seen,
            1,
            popularity=popularity,
            score=score,
            seed=int(torch.randint(2**31 - 1, (), generator=draw.generator)),
        )
    return draw.user_ids(user), draw.item_ids(item)


def first_rows(table: Mapping[Any, Any], key: Any, ids: Ids) -> dict[Any, list[Any]]:
    """Look up, for each id, the first row of a table whose column `key` holds it.

    Args:
        table: Columns of equal length by name; a DataFrame is one.
        key: The name of the column that holds the ids.
        ids: What to look up. [n]

    Returns:
        A list of n values for each column. They are what a row by itself holds, as `.iloc[0]`
        reads it: in a table of numbers only, integers are floats where one column has floats.

    Raises:
        IndexError: An id is in no row (it is named).
    """
    ids = _sequence(ids)
    at = _positions(_column(ids), _column(_sequence(table[key])))
    if (at < 0).any():
        missing = list(ids)[int((at < 0).nonzero()[0])]
        raise IndexError(f"{missing!r} is in no row of column {key!r}; add its row to the table")
    rows = at.tolist()
    found = {}
    for name, values in _as_rows(table).items():
        found[name] = [values[row] for row in rows]
    return found


def _as_rows(table: Mapping[Any, Any]) -> dict[Any, list[Any]]:
    """The values of each column in the type that all columns of a row have in common."""
    columns = {name: table[name] for name in table.keys()}
    kinds = {getattr(getattr(c, "dtype", None), "kind", "O") for c in columns.values()}
    if not kinds <= set("iuf"):
        return {name: list(_sequence(column)) for name, column in columns.items()}
    import numpy  # all columns are its arrays, or columns over them

    dtypes = [column.dtype for column in columns.values()]
    if all(isinstance(dtype, numpy.dtype) for dtype in dtypes):
        common = numpy.result_type(*dtypes)
        return {name: list(numpy.asarray(c).astype(common)) for name, c in columns.items()}
    number = float if "f" in kinds else int  # columns that can hold missing integers
    return {
        name: [number(v) if isinstance(v, (int, float)) else v for v in column]
        for name, column in columns.items()
    }


class _Draw:
    """Users, items and positives as positions, and the draws among them."""

    def __init__(
        self, users: Ids, items: Ids, seen: Seen, popularity: float, seed: Optional[int]
    ) -> None:
        users, items = _sequence(users), _sequence(items)
        user_column, item_column = _column(users), _column(items)
        self.users, self.items = _members(users), _members(items)
        # Equal ids count as one, whichever of them was drawn.
        self.user_of = _positions(user_column, user_column)
        self.item_of = _positions(item_column, item_column)
        self.test = seen if callable(seen) else None
        self.keys = torch.empty(0, dtype=torch.int64)
        self.counts = torch.zeros(len(self.items))
        if not callable(seen):
            pairs = [_column(_sequence(ids)) for ids in seen]
            if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]):
                raise ValueError(
                    "seen must be two columns of equal length, the users and the items of the "
                    f"positives; got {[len(column) for column in pairs]} entries"
                )
            user, item = _positions(pairs[0], user_column), _positions(pairs[1], item_column)
            self.counts = torch.bincount(item[item >= 0], minlength=len(self.items))
            known = (user >= 0) & (item >= 0)
            self.keys = torch.unique(user[known] * len(self.items) + item[known])
        self.weights = self._weights(popularity) if popularity else None
        self.every = torch.arange(len(self.items))
        self.distinct = self.item_of.unique()
        self.generator = torch.Generator()
        self.generator.manual_seed(int(torch.randint(2**31 - 1, ())) if seed is None else int(seed))

    def _weights(self, popularity: float) -> Tensor:
        if self.test is not None:
            raise ValueError(
                "popularity needs the positives as two columns; got a function as `seen`"
            )
        return (1.0 + self.counts.double())[self.item_of] ** popularity

    def user_ids(self, at: Tensor) -> list[Any]:
        return [self.users[row] for row in at.tolist()]

    def item_ids(self, at: Tensor) -> list[Any]:
        return [self.items[row] for row in at.tolist()]

    def seen(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether each pair of positions is a positive; the shapes broadcast."""
        user, item = torch.broadcast_tensors(user, item)
        if self.test is not None:
            pairs = zip(self.user_ids(user.flatten()), self.item_ids(item.flatten()))
            return torch.tensor([bool(self.test(u, i)) for u, i in pairs]).reshape(user.shape)
        if not len(self.keys):
            return torch.zeros(user.shape, dtype=torch.bool)
        key = self.user_of[user] * len(self.items) + self.item_of[item]
        at = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return self.keys[at] == key

    def propose(self, among: Tensor, *shape: int) -> Tensor:
        """Some of the positions of items in `among`, positives among them."""
        if self.weights is None:
            return among[torch.randint(len(among), shape, generator=self.generator)]
        cumulative = self.weights[among].cumsum(0)
        mark = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        at = torch.searchsorted(cumulative, mark * cumulative[-1], right=True)
        return among[at.clamp(max=len(among) - 1)]

    def pairs(self, count: int) -> tuple[Tensor, Tensor]:
        user, item = torch.zeros(2, count, dtype=torch.int64)
        waiting = torch.arange(count)
        turn = 0
        while len(waiting):
            if turn % _ROUNDS == 0 and not self._any_unseen(turn):
                raise ValueError(
                    f"each pair of the {len(self.users)} users and {len(self.items)} items is a "
                    "positive; there is no negative to draw"
                )
            user[waiting] = torch.randint(
                len(self.users), (len(waiting),), generator=self.generator
            )
            item[waiting] = self.propose(self.every, len(waiting))
            waiting = waiting[self.seen(user[waiting], item[waiting])]
            turn += 1
        return user, item

    def _any_unseen(self, turn: int) -> bool:
        if not self.users or not self.items:
            return False
        if self.test is None:
            pairs = len(self.user_of.unique()) * len(self.distinct)
            return len(self.keys) < pairs
        # A function can only be asked pair by pair, so only once draws have failed for long.
        return turn == 0 or any(not self.test(u, i) for u in self.users for i in self.items)

    def block(self, rows: Tensor, width: int, replace: bool) -> Tensor:
        """Positions of unseen items for the users at `rows`, [rows, width]; -1 for none."""
        if not self.items:
            return torch.full((len(rows), width), -1)
        step = max(1, _CHUNK // max(1, width))
        one = self._with_replacement if replace else self._without_replacement
        parts = [one(part, width) for part in rows.split(step)]
        return torch.cat(parts) if parts else torch.empty(0, width, dtype=torch.int64)

    def _with_replacement(self, rows: Tensor, width: int) -> Tensor:
        picked = self.propose(self.every, len(rows), width)
        row, column = self.seen(rows[:, None], picked).nonzero(as_tuple=True)
        for _ in range(_ROUNDS):
            if not len(row):
                break
            picked[row, column] = self.propose(self.every, len(row))
            again = self.seen(rows[row], picked[row, column])
            row, column = row[again], column[again]
        for one in row.unique().tolist():  # users who have seen nearly everything
            places = column[row == one]
            unseen = self._unseen_of(rows[one], self.every)
            if not len(unseen):
                picked[one, places] = -1
                continue
            chosen = torch.multinomial(
                self._weight_of(unseen), len(places), replacement=True, generator=self.generator
            )
            picked[one, places] = unseen[chosen]
        return picked

    def _without_replacement(self, rows: Tensor, width: int) -> Tensor:
        picked = torch.full((len(rows), width), -1)
        waiting = torch.arange(len(rows) if width else 0)
        for _ in range(_ROUNDS):
            if not len(waiting):
                return picked
            # The first `width` different unseen items in an endless row of draws.
            drawn = self.propose(self.distinct, len(waiting), width)
            drawn[self.seen(rows[waiting][:, None], drawn)] = -1
            drawn = torch.cat([picked[waiting], drawn], dim=1)
            valid = (drawn >= 0) & _is_first(drawn)
            order = torch.sort((~valid).to(torch.int8), dim=1, stable=True).indices[:, :width]
            picked[waiting] = torch.where(valid, drawn, -1).gather(1, order)
            waiting = waiting[(picked[waiting] < 0).any(dim=1)]
        for one in waiting.tolist():  # users who have seen nearly everything, or all but a few
            has = picked[one][picked[one] >= 0]
            rest = self._unseen_of(rows[one], self.distinct)
            rest = rest[~torch.isin(rest, has)]
            # Exponential clocks: the order in which draws without replacement come up.
            clock = torch.rand(len(rest), generator=self.generator, dtype=torch.float64)
            first = torch.argsort(-torch.log(clock) / self._weight_of(rest))[: width - len(has)]
            picked[one, len(has) : len(has) + len(first)] = rest[first]
        return picked

    def _unseen_of(self, row: Tensor, items: Tensor) -> Tensor:
        return items[~self.seen(row, items)]

    def _weight_of(self, items: Tensor) -> Tensor:
        if self.weights is None:
            return torch.ones(len(items), dtype=torch.float64)
        return self.weights[items]

    def scores(self, rows: Tensor, picked: Tensor, score: Any) -> Tensor:
        """The score of each candidate, minus infinity where there is none or it is not finite."""
        valid = picked >= 0
        row, _ = valid.nonzero(as_tuple=True)
        users, items = self.user_ids(rows[row]), self.item_ids(picked[valid])
        given = score(users, items) if callable(score) else score[users, items]
        found = torch.as_tensor(given).detach().to("cpu", torch.float32).reshape(-1)
        if len(found) != len(users):
            raise ValueError(
                f"score gave {len(found)} numbers for {len(users)} pairs; return one for each"
            )
        out = torch.full(picked.shape, -math.inf)
        out[valid] = torch.where(found.isfinite(), found, -math.inf)
        return out


def _hardest(picked: Tensor, scores: Tensor, count: int) -> Tensor:
    """Of each row of candidates the highest scores, half of `count`, and others as they came."""
    hard = scores.topk(-(-count // 2), dim=1).indices
    rank = torch.where(picked < 0, 2, 1)
    rank.scatter_(1, hard, torch.where(scores.gather(1, hard) > -math.inf, 0, rank.gather(1, hard)))
    order = torch.sort(rank, dim=1, stable=True).indices[:, :count]
    return picked.gather(1, order)


def _is_first(ids: Tensor) -> Tensor:
    """Where a row of ids holds one that does not stand further left."""
    ordered, at = torch.sort(ids, dim=1, stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(first).scatter_(1, at, first)


def _sequence(ids: Ids) -> Any:
    """Ids as a tensor, an array of numpy, a range or a list."""
    if isinstance(ids, Tensor):
        return ids.detach().cpu().reshape(-1)
    if not hasattr(ids, "__len__") and hasattr(ids, "__index__"):
        return range(ids.__index__())  # an integer, numpy's too
    if hasattr(ids, "__array__") and getattr(getattr(ids, "dtype", None), "kind", "") in "iufbUS":
        import numpy  # the ids are its array, or a column over one

        array = numpy.asarray(ids)
        if array.dtype.kind != "O":
            return array
    return ids if isinstance(ids, range) else list(ids)


def _members(ids: Any) -> list[Any]:
    """The ids one by one, as a loop over them has them; those of a tensor as Python numbers."""
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


def _column(ids: Any) -> Union[Tensor, list[Any]]:
    """Ids as a tensor where they are numbers in an array, else as a list."""
    if isinstance(ids, range):
        return torch.arange(ids.start, ids.stop, ids.step) if len(ids) else torch.arange(0)
    kind = getattr(getattr(ids, "dtype", None), "kind", "")
    if kind and kind in "iub":
        return torch.from_numpy(ids.astype("int64"))
    if kind == "f":
        return torch.from_numpy(ids.astype("float64"))
    return ids if isinstance(ids, Tensor) else list(ids)


def _positions(
    wanted: Union[Tensor, list[Any]], known: Union[Tensor, list[Any]]
) -> Tensor:
    """Where each id first stands among the known ones; -1 where it does not."""
    if not len(known) or not len(wanted):
        return torch.full((len(wanted),), -1)
    if isinstance(wanted, Tensor) and isinstance(known, Tensor):
        kind = torch.promote_types(wanted.dtype, known.dtype)
        ordered, at = torch.sort(known.to(kind), stable=True)
        wanted = wanted.to(kind).contiguous()
        place = torch.searchsorted(ordered, wanted).clamp(max=len(ordered) - 1)
        return torch.where(ordered[place] == wanted, at[place], -1)
    first: dict[Any, int] = {}
    for position, value in enumerate(_members(known)):
        first.setdefault(value, position)
    return torch.tensor([first.get(value, -1) for value in _members(wanted)])
