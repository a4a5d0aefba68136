"""Runtime support for training scripts rewritten by quickwins-codemod."""

from .precision import GradScaler, autocast
from .schedule import OneCycle

__all__ = ["GradScaler", "OneCycle", "autocast"]
