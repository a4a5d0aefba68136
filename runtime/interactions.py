"""Which items each user has interacted with, read from a loader, a data set, tensors or a table.

The pairs are kept as one sorted int64 key each, user * width + item, and looked up by
torch.searchsorted: 8 bytes an interaction, and no matrix of users by items.

Reading leaves the random streams of torch, numpy and `random` where they were (data sets that draw
negatives in `__getitem__` exist), starts no workers and does not iterate over the loader.
"""

from __future__ import annotations

import contextlib
import math
import random
import sys
from typing import Any, Callable, Iterator, Mapping, Sequence, Union

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import default_collate, default_convert

__all__ = ["Interactions"]

Place = Union[int, str]

_CHUNK = 2**16  # rows that are held as Python numbers at a time
_PROBES = 64  # rows by which a column kept in an attribute is recognised
_LARGEST = 2**63 - 1


class Interactions:
    """The pairs of user and item in some data, to look up whether a user has seen an item.

    Args:
        data: A DataLoader (with a SubsetRandomSampler, its rows only); a map-style data set or a
            list of rows; a tuple of columns (tensors, arrays or lists); a table whose columns are
            read by name (a mapping, a data frame).
        users, items, labels: Where in a row, or in the table, they stand: position, key or
            attribute name. An item entry with several ids (a history) is several interactions. A
            user entry with several ids is a history that stands for a user without an id: then
            there is nothing to look up, and only the items' range and frequencies are known.
            With `labels`, only rows whose label is above 0 are interactions.
        high: Ids from which on there is certainly no item; sets the keys apart.

    Attributes:
        low, high: The smallest item id in the data, and the largest plus one; 0 and 0 without any.
        by_history: Whether users are histories.

    Raises:
        TypeError: The data cannot be read by position in a known order, as an IterableDataset.
        ValueError: Users or items are not where they were said to be, are no ids (negative,
            fractional), or are so large that the keys overflow.
    """

    def __init__(
        self,
        data: Any,
        users: Place = 0,
        items: Place = 1,
        labels: Place | None = None,
        *,
        high: int = 0,
    ) -> None:
        user_ids, item_ids, self.by_history = _read(data, users, items, labels)
        _check_ids("user", user_ids)
        _check_ids("item", item_ids)
        empty = len(item_ids) == 0
        self.low = 0 if empty else int(item_ids.min())
        self.high = 0 if empty else int(item_ids.max()) + 1
        self._width = max(self.high, high, 1)
        self._max_user = -1 if empty else int(user_ids.max())
        if (self._max_user + 2) * self._width > _LARGEST:
            raise ValueError(
                f"user id {self._max_user} and item ids below {self._width} are too large to be "
                "held as 64-bit keys: number users and items from 0"
            )
        self._keys = (user_ids * self._width).add_(item_ids).sort().values
        self._moved: dict[torch.device, Tensor] = {}
        self._log_shares: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_moved": {}, "_log_shares": {}}

    def contain(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each user has seen each item: bool, of the broadcast shape of both.

        Users and items that the data do not hold are unseen.
        """
        keys = self._keys_on(items.device)
        wanted = self._first_keys(users) + items
        if not len(keys):
            return torch.zeros_like(wanted, dtype=torch.bool)
        found = keys[torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)] == wanted
        # Other items would have the keys of other users.
        return found & (items >= 0) & (items < self._width)

    def contain_all(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each of the users [R] has seen each of the items [C]: bool [R, C]."""
        items = items.to(torch.int64)
        keys = self._keys_on(items.device)
        first = self._first_keys(users)
        start, end = torch.searchsorted(keys, torch.stack([first, first + self._width]))
        lengths = end - start
        # What the users have seen is mostly less than all pairs. Its size is known only to the
        # device, and a GPU is quick at looking up all pairs.
        if items.device.type != "cpu" or int(lengths.sum()) > len(users) * len(items):
            return self.contain(users.unsqueeze(1), items.unsqueeze(0))
        rows = torch.arange(len(users), device="cpu").repeat_interleave(lengths)
        offsets = start - lengths.cumsum(0) + lengths
        seen = keys[torch.arange(len(rows), device="cpu") + offsets[rows]] - first[rows]
        ids, columns = torch.unique(items, return_inverse=True)
        places = torch.searchsorted(ids, seen).clamp_(max=max(len(ids) - 1, 0))
        hits = ids[places] == seen
        table = torch.zeros(len(users), len(ids), dtype=torch.bool, device="cpu")
        table[rows[hits], places[hits]] = True
        return table[:, columns]

    def log_share(self, items: Tensor) -> Tensor:
        """Logarithm of each item's share of all interactions, float32; unseen ones count as one."""
        items = items.to(torch.int64)
        if items.device not in self._log_shares:
            ids, counts = torch.unique(self._keys % self._width, return_counts=True)
            shares = counts.double().div(max(len(self), 1)).log().float()
            self._log_shares[items.device] = (ids.to(items.device), shares.to(items.device))
        ids, shares = self._log_shares[items.device]
        rarest = -math.log(max(len(self), 1))
        if not len(ids):
            return torch.full(items.shape, rarest, device=items.device)
        place = torch.searchsorted(ids, items).clamp_(max=len(ids) - 1)
        return torch.where(ids[place] == items, shares[place], rarest)

    def _first_keys(self, users: Tensor) -> Tensor:
        """Key of each user's item 0. Users beyond the data count as the next one, who has none."""
        if self.by_history:
            raise ValueError(
                "the data hold histories in place of user ids, so that users cannot be looked up: "
                "pass the histories of the batch as its users"
            )
        return users.to(torch.int64).clamp(-1, self._max_user + 1) * self._width

    def _keys_on(self, device: torch.device) -> Tensor:
        if device not in self._moved:
            self._moved[device] = self._keys.to(device)
        return self._moved[device]


def _check_ids(name: str, ids: Tensor) -> None:
    if len(ids) and int(ids.min()) < 0:
        raise ValueError(
            f"{name} id {int(ids.min())} in the data is negative: {name} ids must be integers "
            "from 0, as an embedding takes them"
        )


# Reading


def _read(
    data: Any, users: Place, items: Place, labels: Place | None
) -> tuple[Tensor, Tensor, bool]:
    """User and item ids of all interactions, int64 [n] each, and whether users are histories."""
    places = [("users", users), ("items", items)]
    if labels is not None:
        places.append(("labels", labels))
    with _undisturbed(data):
        parts = list(_parts(data, places))
    if not parts:
        empty = torch.empty(0, dtype=torch.int64, device="cpu")
        return empty, empty, False
    by_history = any(history for _, _, history in parts)
    return torch.cat([u for u, _, _ in parts]), torch.cat([i for _, i, _ in parts]), by_history


def _parts(data: Any, places: Sequence[tuple[str, Place]]) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """The interactions of the data at once, or a chunk of rows after the other."""
    collate: Callable[..., Any] | None = None
    chunk, batched, indices = _CHUNK, False, None
    is_loader = isinstance(data, DataLoader)
    if is_loader:
        if data.collate_fn not in (default_collate, default_convert):
            collate, batched = data.collate_fn, data.batch_sampler is not None
            chunk = data.batch_size or 1024 if batched else _CHUNK
        # Training and validation may share a data set, and differ by a SubsetRandomSampler.
        sampler = getattr(data.batch_sampler, "sampler", None) or data.sampler
        indices = getattr(sampler, "indices", None)
        data = data.dataset
    if isinstance(data, IterableDataset):
        raise TypeError(
            f"{type(data).__name__} is an IterableDataset, which cannot be read without using it "
            "up. Pass the training interactions as data=(user ids, item ids) instead."
        )
    if indices is not None:
        data = Subset(data, indices)
    table = None if is_loader else _table_columns(data, places)  # a loader takes all as rows
    if table is not None:
        yield _interactions(table)
        return
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or isinstance(data, str):
        raise TypeError(
            f"cannot read interactions from {_described(data)}: pass a DataLoader, a map-style "
            "data set, a data frame, or data=(user ids, item ids)"
        )
    columns = _dataset_columns(data, places) if collate is None else None
    if columns is not None:
        yield _interactions(columns)
        return
    for start in range(0, len(data), chunk):
        rows = _rows(data, range(start, min(start + chunk, len(data))))
        if collate is not None and batched:
            batch = collate(rows)
            picked = [_to_tensor(_pick(batch, name, place), name) for name, place in places]
            yield _interactions(picked)
        else:
            yield _interactions_of_rows([collate(r) for r in rows] if collate else rows, places)


def _table_columns(data: Any, places: Sequence[tuple[str, Place]]) -> list[Tensor] | None:
    """Columns of a tuple of columns, a mapping, a data frame or a matrix, or None."""
    is_matrix = _is_array(data) and len(data.shape) == 2
    if is_matrix:
        data = tuple(data[:, column] for column in range(data.shape[1]))
    of_arrays = isinstance(data, (tuple, list)) and len(data) > 0 and all(map(_is_array, data))
    if not (of_arrays or isinstance(data, (tuple, Mapping)) or _is_frame(data)):
        return None
    columns = [_to_tensor(_pick(data, name, place), name) for name, place in places]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        named = ", ".join(f"{length} {name}" for (name, _), length in zip(places, lengths))
        raise ValueError(f"the columns of the data must be of one length, but there are {named}")
    return columns


def _dataset_columns(dataset: Any, places: Sequence[tuple[str, Place]]) -> list[Tensor] | None:
    """Columns of a data set that keeps them whole, or None where it must be read row by row."""
    method = getattr(type(dataset), "__getitem__", None)
    if len(dataset) == 0:
        return None
    if method is TensorDataset.__getitem__:
        return [_to_tensor(_pick(dataset.tensors, name, place), name) for name, place in places]
    if method is Subset.__getitem__:
        whole = _dataset_columns(dataset.dataset, places)
        if whole is None:
            return None
        indices = _to_tensor(list(map(int, dataset.indices)), "indices").to(torch.int64)
        return [column[indices] for column in whole]
    if method is ConcatDataset.__getitem__:
        parts = [_dataset_columns(part, places) for part in dataset.datasets if len(part)]
        if any(part is None or any(c.dim() != 1 for c in part) for part in parts):
            return None
        return [torch.cat(column) for column in zip(*parts)]  # type: ignore[arg-type]
    return _attribute_columns(dataset, places)


def _attribute_columns(dataset: Any, places: Sequence[tuple[str, Place]]) -> list[Tensor] | None:
    """Columns that are attributes of the data set, as far as rows spread over it agree with them.

    None unless each place is matched, and all columns that match one place are equal.
    """
    length = len(dataset)
    if length <= 4 * _PROBES:  # as quick row by row
        return None
    probes = sorted({index * (length - 1) // (_PROBES - 1) for index in range(_PROBES)})
    rows = _rows(dataset, probes)
    candidates = list(_kept_columns(dataset, length))
    found: list[Tensor] = []
    for name, place in places:
        values = [_plain(_pick(row, name, place)) for row in rows]
        if any(isinstance(value, list) for value in values):
            return None
        wanted = _to_tensor(values, name)
        if name == "labels":  # only their sign counts, and float32 rows may differ in the last bit
            wanted = wanted > 0
        matches = []
        for column in candidates:
            column = column > 0 if name == "labels" else column
            if bool((column[probes] == wanted).all()):
                matches.append(column)
        if not matches or any(bool((matches[0] != other).any()) for other in matches[1:]):
            return None
        found.append(matches[0])
    return found


def _kept_columns(dataset: Any, length: int) -> Iterator[Tensor]:
    """Numeric columns of the right length among the attributes of a data set."""
    for kept in vars(dataset).values() if hasattr(dataset, "__dict__") else ():
        if isinstance(kept, Mapping):
            parts = list(kept.values())
        elif _is_frame(kept):
            parts = [kept[name] for name in kept.columns]
        elif _is_array(kept) and len(kept.shape) == 2 and kept.shape[1] <= 32:
            parts = [kept[:, index] for index in range(kept.shape[1])]
        else:
            parts = [kept]
        for part in parts:
            is_list = isinstance(part, (list, tuple)) and len(part) == length
            if is_list and not isinstance(part[0], (int, float)):  # do not convert rows
                continue
            if not is_list and not (_is_array(part) and part.shape == (length,)):
                continue
            with contextlib.suppress(ValueError):
                yield _to_tensor(part, "column")


def _rows(dataset: Any, indices: Sequence[int]) -> list[Any]:
    """Rows as a DataLoader fetches them."""
    if getattr(dataset, "__getitems__", None):
        return list(dataset.__getitems__(list(indices)))
    return [dataset[index] for index in indices]


def _interactions_of_rows(
    rows: Sequence[Any], places: Sequence[tuple[str, Place]]
) -> tuple[Tensor, Tensor, bool]:
    """The same as `_interactions`, of rows of which each may hold another number of items."""
    users: list[Any] = []
    items: list[Any] = []
    labels: list[Any] = []
    by_history = False
    for row in rows:
        user, item, *label = (_plain(_pick(row, name, place)) for name, place in places)
        if isinstance(user, list):
            if isinstance(item, list) and len(user) == len(item) and len(set(map(str, user))) == 1:
                user = user[0]
            else:
                user, by_history = 0, True
        ids = item if isinstance(item, list) else [item]
        users.extend([user] * len(ids))
        items.extend(ids)
        if label:
            several = isinstance(label[0], list)
            labels.extend(label[0] if several else label * len(ids))
    columns = [_to_tensor(users, "users"), _to_tensor(items, "items")]
    if len(places) > 2:
        columns.append(_to_tensor(labels, "labels"))
    return (*_interactions(columns)[:2], by_history)


def _interactions(columns: Sequence[Tensor]) -> tuple[Tensor, Tensor, bool]:
    """Pairs of user and item of columns that may be [n] or [n, m], int64 [pairs] each.

    The third value says that what stands for users are histories; their ids are 0 then.
    """
    users, items, *labels = columns
    by_history = False
    if users.dim() == 2 and users.shape[1] == 1:
        users = users[:, 0]
    if users.dim() == 2 and not (
        users.shape == items.shape and bool((users == users[:, :1]).all())
    ):
        users, by_history = users.new_zeros(len(users)), True
    if items.dim() == 2 and users.dim() == 1:
        users = users.unsqueeze(1).expand_as(items)
    if users.shape != items.shape or items.dim() > 2:
        raise ValueError(
            f"users of shape {tuple(users.shape)} and items of shape {tuple(items.shape)} in the "
            "data cannot be paired: expected one user and one or several items in each row"
        )
    if labels:
        label = labels[0]
        if label.dim() == 2 and label.shape[1] == 1:
            label = label[:, 0]
        if label.dim() < items.dim():
            label = label.unsqueeze(1)
        liked = (label > 0).expand_as(items)
        users, items = users[liked], items[liked]
    return _whole("user", users.reshape(-1)), _whole("item", items.reshape(-1)), by_history


def _pick(row: Any, name: str, place: Place) -> Any:
    """What stands in a row, or a table of columns, at a position, key or attribute name."""
    try:
        return row[place]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        pass
    if isinstance(place, str) and not isinstance(row, Mapping) and hasattr(row, place):
        return getattr(row, place)
    raise ValueError(
        f"the {name} are to be found by {place!r} in what the data yield, but that is "
        f"{_described(row)}. Say where they are by {name}=..., or pass the training interactions "
        "as data=(user ids, item ids)."
    )


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(repr, value))}"
    if _is_frame(value):
        return f"a {type(value).__name__} with the columns {', '.join(map(repr, value.columns))}"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"a {type(value).__name__} with the fields {', '.join(value._fields)}"
    if isinstance(value, (tuple, list)):
        kinds = ", ".join(type(entry).__name__ for entry in value[:8])
        return f"a {type(value).__name__} of {len(value)} ({kinds})"
    if _is_array(value):
        return f"a {type(value).__name__} of shape {tuple(value.shape)}"
    return f"an object of type {type(value).__name__}"


def _plain(value: Any) -> Any:
    """A Python number, or a list of them, of what a row holds."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return list(value) if isinstance(value, (tuple, set)) else value


def _to_tensor(column: Any, name: str) -> Tensor:
    """A column of numbers as a tensor on the CPU."""
    if hasattr(column, "to_numpy"):  # a column of a data frame
        column = column.to_numpy()
    flags = getattr(column, "flags", None)  # of numpy: torch takes no reversed arrays, and warns of
    if flags is not None and not (flags.writeable and flags.c_contiguous):  # those not writable
        column = column.copy()
    try:
        return torch.as_tensor(column, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        first = next(iter(column), None) if hasattr(column, "__iter__") else column
        raise ValueError(
            f"the {name} in the data are not numbers, but {_described(column)} beginning with "
            f"{first!r}: pass the encoded ids that the model takes"
        ) from None


def _whole(name: str, ids: Tensor) -> Tensor:
    """Ids as int64; floats are taken where they are whole numbers."""
    if ids.is_floating_point():
        wrong = ids != ids.round()  # NaN is unequal to itself
        if bool(wrong.any()):
            raise ValueError(
                f"{name} id {float(ids[wrong][0])} in the data is no integer: pass the ids that "
                "the model takes"
            )
    return ids.to(torch.int64)


def _is_frame(value: Any) -> bool:
    return hasattr(value, "columns") and hasattr(value, "dtypes")


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


@contextlib.contextmanager
def _undisturbed(*parts: Any) -> Iterator[None]:
    """Put the global random streams, and the generators that the parts keep, back at the end.

    Parts are loaders and data sets, or modules.
    """
    restore: list[Callable[[], object]] = []

    def keep(get: Callable[[], Any], put: Callable[[Any], object]) -> None:
        state = get()
        restore.append(lambda: put(state))

    keep(random.getstate, random.setstate)
    keep(torch.get_rng_state, torch.set_rng_state)
    if torch.cuda.is_initialized():
        keep(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    if "numpy" in sys.modules:
        numpy_random = sys.modules["numpy"].random
        keep(numpy_random.get_state, numpy_random.set_state)
    owners = [getattr(part, "collate_fn", None) for part in parts]
    for part in parts:
        owners.append(part)
        while hasattr(owners[-1], "dataset"):  # of a loader, and of subsets of subsets
            owners.append(owners[-1].dataset)
    for owner in owners:
        for kept in list(getattr(owner, "__dict__", {}).values()):
            if isinstance(kept, random.Random):
                keep(kept.getstate, kept.setstate)
            elif isinstance(kept, torch.Generator):
                keep(kept.get_state, kept.set_state)
            elif type(kept).__module__.startswith("numpy.random"):
                if hasattr(kept, "bit_generator"):
                    bits = kept.bit_generator
                    keep(lambda b=bits: b.state, lambda state, b=bits: setattr(b, "state", state))
                elif hasattr(kept, "set_state"):
                    keep(kept.get_state, kept.set_state)
    try:
        yield
    finally:
        for put_back in restore:
            put_back()
