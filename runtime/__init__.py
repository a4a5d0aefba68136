"""Runtime support for training scripts rewritten by quickwins-codemod."""

from .schedule import OneCycle

__all__ = ["OneCycle"]
