"""Runtime support for training scripts rewritten by quickwins-codemod."""

from .negatives import HardNegatives
from .precision import GradScaler, autocast
from .sampling import first_rows, unseen_items, unseen_pairs
from .schedule import OneCycle

__all__ = [
    "GradScaler",
    "HardNegatives",
    "OneCycle",
    "autocast",
    "first_rows",
    "unseen_items",
    "unseen_pairs",
]
