"""What mining hard negatives costs beside the training step that it serves, and in memory.

    python bench/negatives.py [--batch 1024] [--rounds 20] [--catalogues 10000 1000000]

One negative per positive and BPR, as in a training loop with random negatives: `step` is that
loop's step, `mine` what HardNegatives adds to it. Two models: NeuMF, which scores pairs
(`model(u, i)`), and two towers of two layers each, scored by pairs and by `encode=`. The embeddings
are sparse: with dense ones Adam's step over a catalogue of a million takes so long that any mining
looks cheap.

Beside it the usual recipe, score the whole catalogue for each user of the batch and take the best.
For NeuMF it runs for a few users only, and its time is scaled up to the batch.

Times are CPU times of one thread, medians over rounds in turns, so that other work on the machine
disturbs little. Peak memory is that of the tensors that a call makes and that are alive at one
time; what HardNegatives keeps is printed on its own line.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from quickwins_codemod.runtime import HardNegatives

USERS, INTERACTIONS, WIDTH, POOLS = 20_000, 1_000_000, 64, (8, 32, 128)


class NeuMF(nn.Module):
    """A product of embeddings beside a network on others (He et al., WWW 2017)."""

    def __init__(self, users: int, items: int, width: int = WIDTH // 2) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(
            nn.Embedding(count, width, sparse=True) for count in (users, items, users, items)
        )
        self.layers = nn.Sequential(
            nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()
        )
        self.output = nn.Linear(32 + width, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        user, item, deep_user, deep_item = (
            embedding(ids) for embedding, ids in zip(self.embeddings, (users, items) * 2)
        )
        deep = self.layers(torch.cat([deep_user, deep_item], 1))
        return self.output(torch.cat([user * item, deep], 1)).squeeze(1)


class TwoTower(nn.Module):
    """An embedding and two layers for each side, and their dot product."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.user_tower, self.item_tower = (
            nn.Sequential(
                nn.Embedding(count, WIDTH, sparse=True),
                nn.Linear(WIDTH, 2 * WIDTH),
                nn.ReLU(),
                nn.Linear(2 * WIDTH, WIDTH),
            )
            for count in (users, items)
        )

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.user_tower(users) * self.item_tower(items)).sum(1)


class PeakMemory(TorchDispatchMode):
    """Notes how many bytes of new tensors are alive at most."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {storage._cdata for storage in storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in storages(result):
            if storage._cdata not in given:
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {key: kept for key, kept in self._alive.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return result


def measure(parts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """As sidebyside.measure, in CPU time."""
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, run in parts.items():
            start = time.process_time()
            run()
            if turn:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def storages(values: object) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            dense = (leaf._indices(), leaf._values()) if leaf.is_sparse else (leaf,)
            yield from (part.untyped_storage() for part in dense)


def peak_megabytes(run: Callable[[], object]) -> float:
    with PeakMemory() as memory:
        run()
    return memory.peak / 2**20


def best_of_catalogue(model: nn.Module, users: Tensor, items: int) -> Tensor:
    """The usual recipe for a model that scores pairs."""
    catalogue = torch.arange(items)
    found = []
    with torch.no_grad():
        for user in users:
            found.append(model(user.expand(items), catalogue).topk(1).indices)
    return torch.cat(found)


def best_of_product(model: TwoTower, users: Tensor, items: int) -> Tensor:
    """The usual recipe for two towers."""
    with torch.no_grad():
        scores = model.user_tower(users) @ model.item_tower(torch.arange(items)).T
        return scores.topk(1, dim=1).indices.squeeze(1)


def training_step(model: nn.Module, users: Tensor, items: Tensor, drawn: Tensor) -> Callable:
    sparse = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    dense = [w for m in model.modules() if isinstance(m, nn.Linear) for w in m.parameters()]
    optimizers = [torch.optim.SparseAdam(sparse), torch.optim.Adam(dense)]

    def step() -> None:
        for optimizer in optimizers:
            optimizer.zero_grad()
        functional.softplus(model(users, drawn) - model(users, items)).mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def row(name: str, seconds: float, step: float, megabytes: float) -> None:
    print(
        f"    {name:<30} {seconds * 1000:11.2f} ms {seconds / step:9.2f} x {megabytes:9.1f} MB",
        flush=True,
    )


def compare(kind: type[nn.Module], items: int, batch: int, rounds: int) -> None:
    torch.manual_seed(0)
    model = kind(USERS, items)
    data = torch.randint(USERS, (INTERACTIONS,)), torch.randint(items, (INTERACTIONS,))
    users, positives, drawn = data[0][:batch], data[1][:batch], torch.randint(items, (batch,))
    is_towers = isinstance(model, TwoTower)
    ways = {"pairs": None}
    if is_towers:
        ways["encode"] = (model.user_tower, model.item_tower)
    parts: dict[str, Callable[[], object]] = {}
    parts["step"] = training_step(model, users, positives, drawn)
    for way, encode in ways.items():
        for size in POOLS:
            negatives = HardNegatives(data, low=0, high=items, pool_size=size)
            parts[f"mine, {way}, pool {size}"] = lambda negatives=negatives, encode=encode: (
                negatives.mine(model, users, drawn, positives, encode=encode)
            )
    medians = measure(parts, rounds)
    print(f"  {kind.__name__}, {items:,} items, batch {batch:,}")
    for name, run in parts.items():
        row(name, medians[name], medians["step"], peak_megabytes(run))
    if is_towers:
        asked, recipe = batch, best_of_product
    else:
        asked, recipe = min(batch, max(2, 400_000 // items)), best_of_catalogue
    usual: Callable[[], object] = lambda: recipe(model, users[:asked], items)
    seconds = measure({"": usual}, 1)[""] * batch / asked
    name = "whole catalogue" if asked == batch else f"whole catalogue (from {asked} users)"
    row(name, seconds, medians["step"], peak_megabytes(usual))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--catalogues", type=int, nargs="+", default=[10_000, 1_000_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    negatives = HardNegatives((torch.arange(INTERACTIONS) % USERS, torch.arange(INTERACTIONS)))
    kept = sum(storage.nbytes() for storage in storages(vars(negatives.seen))) / 2**20
    print(f"torch {torch.__version__}, one thread; ratios are to the step of the same model")
    print(f"kept for {INTERACTIONS:,} interactions: {kept:.1f} MB")
    for items in options.catalogues:
        for kind in (NeuMF, TwoTower):
            compare(kind, items, options.batch, options.rounds)


if __name__ == "__main__":
    main()
