"""Runtime support for training scripts rewritten by quickwins-codemod."""

from .interactions import Interactions
from .metrics import (
    RankingMetrics,
    catalog_coverage,
    diversity_at_k,
    gini,
    hit_rate_at_k,
    ndcg_at_k,
    novelty_at_k,
    recall_at_k,
    serendipity,
)
from .negatives import HardNegatives
from .precision import GradScaler, autocast
from .sampling import first_rows, unseen_items, unseen_pairs
from .schedule import OneCycle
from .tracking import Tracker

__all__ = [
    "GradScaler",
    "HardNegatives",
    "Interactions",
    "OneCycle",
    "RankingMetrics",
    "Tracker",
    "autocast",
    "catalog_coverage",
    "diversity_at_k",
    "first_rows",
    "gini",
    "hit_rate_at_k",
    "ndcg_at_k",
    "novelty_at_k",
    "recall_at_k",
    "serendipity",
    "unseen_items",
    "unseen_pairs",
]
