"""Measure the ranking metrics: a full evaluation, and diversity against a double Python loop.

The evaluation ranks 50,000 items for each of 10,000 users, by user and item vectors whose dot
product is the score. It is measured against a plain loop over users, each in a process of its own,
which tells its peak memory beyond that of an idle process, and both must come to the same metrics.
A model that has to be called for each pair of user and item is measured on some of the users.

usage: python bench/metrics.py [--users N] [--items N] [--pairwise-users N] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import numpy as np
import torch
from sidebyside import measure, report
from torch import Tensor, nn

from quickwins_codemod.runtime import RankingMetrics, diversity_at_k

K, FACTORS, SEEN, HELD_OUT = 10, 64, 50, 5


class Factorisation(nn.Module):
    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, FACTORS), nn.Embedding(items, FACTORS)


class TwoLayers(Factorisation):
    """A small neural recommender, with nothing to be had of it but a score for each pair."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__(users, items)
        self.layers = nn.Sequential(nn.Linear(2 * FACTORS, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return self.layers(torch.cat([self.users(users), self.items(items)], dim=1)).squeeze(1)


def make_data(users: int, items: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Training and held-out interactions, popular items more often, no pair in both."""
    weights = 1.0 / torch.arange(1, items + 1) ** 0.8
    drawn = torch.multinomial(weights, users * (SEEN + HELD_OUT), replacement=True)
    chosen = drawn.view(users, SEEN + HELD_OUT)
    rows = torch.arange(users).unsqueeze(1)
    train, held_out = chosen[:, :SEEN], chosen[:, SEEN:]
    new = ~(held_out.unsqueeze(2) == train.unsqueeze(1)).any(dim=2)
    train_pairs = rows.expand_as(train).flatten(), train.flatten()
    return train_pairs, (rows.expand_as(held_out)[new], held_out[new])


def with_the_runtime(users: int, items: int, kind: str, some: int | None) -> dict[str, float]:
    model = (TwoLayers if kind == "pairwise" else Factorisation)(users, items)
    metrics = RankingMetrics(
        *make_data(users, items),
        items,
        k=K,
        item_embeddings=model.items,
        max_users=some,
        seconds=None,
    )
    return metrics.evaluate(
        model, encode=None if kind == "pairwise" else (model.users, model.items)
    )


@torch.no_grad()
def with_a_loop(users: int, items: int) -> dict[str, float]:
    """One user after the other, in plain Python but for the scores and their order."""
    model = Factorisation(users, items)
    train, held_out = make_data(users, items)
    seen: dict[int, set[int]] = {}
    relevant: dict[int, set[int]] = {}
    for table, (rows, columns) in ((seen, train), (relevant, held_out)):
        for user, item in zip(rows.tolist(), columns.tolist()):
            table.setdefault(user, set()).add(item)
    popularity = np.zeros(items)
    for ids in seen.values():
        popularity[list(ids)] += 1
    vectors = model.items.weight.numpy()
    found: dict[str, list[float]] = {"ndcg": [], "recall": [], "diversity": [], "novelty": []}
    recommended: set[int] = set()
    for user, wanted in relevant.items():
        scores = model.items.weight @ model.users.weight[user]
        scores[list(seen[user])] = -torch.inf
        ids = scores.topk(K).indices.tolist()
        hits = [item in wanted for item in ids]
        best = sum(1.0 / math.log2(rank + 2) for rank in range(min(K, len(wanted))))
        found["ndcg"].append(sum(h / math.log2(r + 2) for r, h in enumerate(hits)) / best)
        found["recall"].append(sum(hits) / len(wanted))
        found["diversity"].append(double_loop(ids, vectors))
        shares = np.maximum(popularity[ids], 1.0) / len(seen)
        found["novelty"].append(float(-np.log2(shares).mean()))
        recommended.update(ids)
    means = {f"{name}@{K}": float(np.mean(values)) for name, values in found.items()}
    means[f"embedding_diversity@{K}"] = means.pop(f"diversity@{K}")
    return {**means, "coverage": len(recommended) / items, "users_evaluated": len(relevant)}


def double_loop(ids: list[int], vectors: np.ndarray) -> float:
    """Diversity of a list as it is usually written."""
    distances = []
    for first in range(len(ids)):
        for second in range(first + 1, len(ids)):
            a, b = vectors[ids[first]], vectors[ids[second]]
            distances.append(1.0 - np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
    return float(np.mean(distances))


def one(way: str, users: int, items: int, some: int) -> None:
    """Evaluate in one way, and print what it came to and cost."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before, start = peak_memory(), time.process_time()
    if way == "loop":
        found = with_a_loop(users, items)
    else:
        found = with_the_runtime(users, items, way, some if way == "pairwise" else None)
    seconds = time.process_time() - start  # of one thread, whatever else the machine does
    print(json.dumps({"seconds": seconds, "mb": peak_memory() - before, "found": found}))


def peak_memory() -> float:
    """Peak of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def compare_evaluations(users: int, items: int, some: int) -> None:
    print(f"{users:,} users by {items:,} items, {FACTORS} factors, k = {K}, one thread")
    costs = {}
    for way in ("factorised", "loop", "pairwise"):
        command = [sys.executable, __file__, "--one", way]
        command += [f"--users={users}", f"--items={items}", f"--pairwise-users={some}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        costs[way] = json.loads(done.stdout)
    ours, theirs = costs["factorised"], costs["loop"]
    for name, value in theirs["found"].items():
        if not math.isclose(value, ours["found"][name], rel_tol=1e-5):
            raise SystemExit(f"{name} is {ours['found'][name]} and should be {value}")
    names = {"factorised": "RankingMetrics, encode=", "loop": "a loop over users"}
    names["pairwise"] = "RankingMetrics, two-layer model"
    for way, cost in costs.items():
        n = cost["found"]["users_evaluated"]
        print(
            f"{names[way]:<32} {n:6,} users {cost['seconds']:7.1f} s "
            f"{n / cost['seconds']:9.1f} users/s "
            f"{cost['mb']:6.0f} MB at the peak"
        )
    print(f"{theirs['seconds'] / ours['seconds']:.1f} times faster than the loop\n")


def compare_diversity(rounds: int) -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50_000, FACTORS, generator=generator)
    vectors = features.numpy()
    for lists, k in ((100, 100), (1000, 10)):
        scores = torch.rand(lists, len(features), generator=generator)
        recommended = scores.topk(k).indices
        rows = recommended.tolist()
        expected = [double_loop(row, vectors) for row in rows]
        if not np.allclose(diversity_at_k(recommended, features, k), expected, atol=1e-6):
            raise SystemExit("the two say different things of diversity")
        print(f"diversity@{k} of {lists} lists, {FACTORS} features")
        medians = measure(
            {
                "double loop": lambda: [double_loop(row, vectors) for row in rows],
                "diversity_at_k, a call each": lambda: [
                    diversity_at_k(one_list, features, k) for one_list in recommended
                ],
                "diversity_at_k, one call": lambda: diversity_at_k(recommended, features, k),
            },
            rounds,
        )
        report(medians, "diversity_at_k, one call")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--pairwise-users", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=["factorised", "loop", "pairwise"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.users, args.items, args.pairwise_users)
    else:
        compare_evaluations(args.users, args.items, args.pairwise_users)
        compare_diversity(args.rounds)


if __name__ == "__main__":
    main()
