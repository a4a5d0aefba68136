"""Seeds the random streams, and makes the seeds of a script differ from one repetition to another.

Repetition 0 leaves what the script seeds as it is. In the others, each number that the script gives
to `torch.manual_seed`, `numpy.random.seed` or `random.seed` is shifted, by the same amount in every
variant. Generators of their own, and `random_state=`, stay: they mostly make the split of the data.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Callable

_STEP = 1_000_003
_RANGE = 2**32  # numpy takes no more


def seed(imports: Any, number: int) -> None:
    """Seed by a repetition's number, each library when the script imports it."""
    random.seed(number)
    imports.after("numpy.random", lambda module: _numpy(module, number))
    imports.after("torch", lambda module: _torch(module, number))
    if number:
        random.seed = _shifting(random.seed, number)


def _numpy(module: Any, number: int) -> None:
    module.seed(number)
    if number:
        module.seed = _shifting(module.seed, number)


def _torch(module: Any, number: int) -> None:
    module.manual_seed(number)
    if not number:
        return
    # One knows of the other: torch's own seeds every card by the ones of torch.cuda.
    inside: list[bool] = []
    shifted = _shifting(module.manual_seed, number, inside)
    module.manual_seed = module.random.manual_seed = shifted
    for name in ("manual_seed", "manual_seed_all"):
        setattr(module.cuda, name, _shifting(getattr(module.cuda, name), number, inside))


def _shifting(plain: Callable[..., Any], number: int, inside: Any = None) -> Callable[..., Any]:
    inside = [] if inside is None else inside

    @functools.wraps(plain)
    def shifted(*given: Any, **named: Any) -> Any:
        first = given[0] if given else None
        if inside or not isinstance(first, int) or isinstance(first, bool):
            return plain(*given, **named)
        inside.append(True)
        try:
            return plain((first + number * _STEP) % _RANGE, *given[1:], **named)
        finally:
            inside.pop()

    return shifted
