"""Rewrite PyTorch training scripts: OneCycle, hard negatives, mixed precision, ranking metrics."""

__version__ = "0.1.0"
