"""What hard negatives give on MovieLens-100k: ranking, RMSE and time, without them and with them.

usage: python bench/movielens_negatives.py [--work FOLDER] [--seeds N] [--loops NAME …]
                                           [--arms NAME …] [--scale S] [--pool P]
                                           [--time]

Trains small models on one thread, every run of one seed on the same split, first weights and batch
order, and prints Markdown tables with mean and standard deviation over the seeds. FOLDER keeps the
downloaded wheel of recbole (its `dataset_example` holds the data) and one line of JSON per finished
run, so that an interrupted bench goes on where it stopped; empty it after a change of the runtime.

    random    loops with sampled negatives: uniform draws that are never a train item of the user;
              regression: the ranking term with a pool of one
    mined     the same with the defaults of HardNegatives, but for scale and pool where given
    without   regression alone
    liked     as mined, with the rows of liked items only as positives of the ranking term

NDCG@10 ranks all items but the user's train items, on test, at the epoch with the best NDCG@10 on
validation; RMSE is in stars, on test, at the same epoch. Beside them stand the two at the epoch
with the best RMSE on validation, which scripts of this form keep. A run ends early when the
validation has not improved for some epochs. `--time` trains nothing to its end: it measures epochs
of all arms of a loop in turns, and prints the ratio of their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from movielens_data import STARS, Ratings, Split, load, ndcg, split
from sidebyside import measure
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    linear,
    mse_loss,
    normalize,
    softplus,
)

from quickwins_codemod.runtime import HardNegatives

WIDTH = 32  # of the embeddings
BATCH = 1024  # positives or ratings
PATIENCE = 0.2  # share of the epochs without a better validation, after which a run ends
TEMPERATURE = 0.1  # of the cosine
WEIGHT = 0.3  # of the ranking term
ROUNDS = 5  # epochs per arm that --time measures
POPULARITY = "popularity"


def mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in zip(widths, widths[1:]):
        layers += [nn.Linear(width, following), nn.ReLU(inplace=True), nn.Dropout(0.2)]
    return nn.Sequential(*layers)


class PairMLP(nn.Module):
    """An MLP over the concatenated vectors of user and item.

    Each half of its first layer is applied to its own side before the two are broadcast: the same
    sums, and much less work where many users are scored with all items.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.first, *rest = mlp(2 * WIDTH, *widths)
        self.rest = nn.Sequential(*rest)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        of_users, of_items = self.first.weight.split(WIDTH, 1)
        return self.rest(linear(users, of_users) + linear(items, of_items, self.first.bias))


class NeuMF(nn.Module):
    """Product of embeddings beside an MLP of others: He et al., https://arxiv.org/abs/1708.05031."""

    def __init__(self, n_users: int, n_items: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(n_users, WIDTH), nn.Embedding(n_items, WIDTH)
        self.mlp_users, self.mlp_items = nn.Embedding(n_users, WIDTH), nn.Embedding(n_items, WIDTH)
        self.mlp = PairMLP(2 * WIDTH, WIDTH)
        self.head = nn.Linear(2 * WIDTH, 1)
        self.activation = activation
        initialise(self)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        product = self.users(users) * self.items(items)
        hidden = self.mlp(self.mlp_users(users), self.mlp_items(items))
        return self.activation(self.head(torch.cat([product, hidden], -1)).squeeze(-1))


class TwoTower(nn.Module):
    """One MLP per side over an embedding, and the dot product of the two."""

    def __init__(self, n_users: int, n_items: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.users, self.items = (
            nn.Sequential(
                nn.Embedding(n, WIDTH), *mlp(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
            )
            for n in (n_users, n_items)
        )
        self.activation = activation
        initialise(self)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return self.activation((self.users(users) * self.items(items)).sum(-1))


class CosineTwoTower(TwoTower):
    """The same with vectors of length 1 and a fixed temperature, as retrieval models often have."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        user_vectors, item_vectors = self.users(users), self.items(items)
        product = normalize(user_vectors, dim=-1) * normalize(item_vectors, dim=-1)
        return self.activation(product.sum(-1) / TEMPERATURE)


class Hybrid(nn.Module):
    """Biases of user, item and the whole beside an MLP over both embeddings; unbounded."""

    def __init__(self, n_users: int, n_items: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(n_users, WIDTH), nn.Embedding(n_items, WIDTH)
        self.user_bias, self.item_bias = nn.Embedding(n_users, 1), nn.Embedding(n_items, 1)
        self.bias = nn.Parameter(torch.zeros(1))
        self.mlp = PairMLP(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 1)
        self.activation = activation
        initialise(self)
        for side in (self.user_bias, self.item_bias):
            nn.init.zeros_(side.weight)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        hidden = self.mlp(self.users(users), self.items(items))
        biases = self.bias + self.user_bias(users) + self.item_bias(items)
        return self.activation((biases + self.head(hidden)).squeeze(-1))


def initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.Linear)):
            nn.init.xavier_normal_(module.weight)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def plain(x: Tensor) -> Tensor:
    return x


def five_sigmoid(x: Tensor) -> Tensor:
    return 5 * torch.sigmoid(x)


@dataclass(frozen=True)
class Loop:
    """A kind of training: a model, what its output is, and how it learns.

    Attributes:
        negatives: Sampled negatives per positive; 0 is regression on the ratings.
        normalised: The regression's targets are 0 to 1 instead of 1 to 5 stars.
        liked: Liked rows only as positives are tried too.
        epochs: At most. Cosines need more: for some epochs they rank hardly better than popularity.
    """

    model: Callable[..., nn.Module]
    activation: Callable[[Tensor], Tensor]
    lr: float
    negatives: int = 0
    normalised: bool = False
    liked: bool = False
    epochs: int = 25

    @property
    def arms(self) -> tuple[str, ...]:
        """The first is what the others' time is compared with."""
        if self.negatives:
            return ("random", "mined")
        return ("without", "random", "mined", *(["liked"] if self.liked else []))

    def targets(self, stars: Tensor) -> Tensor:
        low, high = STARS
        return (stars - low) / (high - low) if self.normalised else stars

    def to_stars(self, outputs: Tensor) -> Tensor:
        low, high = STARS
        return low + (high - low) * outputs if self.normalised else outputs


LOOPS = {
    "NeuMF, BCE, 4 negatives": Loop(NeuMF, plain, 1e-3, negatives=4),
    "two-tower, dot product, BPR, 1 negative": Loop(TwoTower, plain, 3e-3, negatives=1),
    "two-tower, cosine, BPR, 1 negative": Loop(CosineTwoTower, plain, 3e-3, negatives=1, epochs=40),
    "NeuMF, MSE, 5 * sigmoid": Loop(NeuMF, five_sigmoid, 1e-3, liked=True),
    "two-tower, MSE, sigmoid": Loop(TwoTower, torch.sigmoid, 3e-3, normalised=True),
    "hybrid, MSE, unbounded": Loop(Hybrid, plain, 3e-3),
}


@dataclass(frozen=True)
class Epoch:
    """Measured after one epoch: (validation, test) of NDCG@10 and, of a regression, RMSE in stars."""

    ndcg: tuple[float, float]
    rmse: tuple[float, float] | None
    mining: dict[str, float] | None


class Training:
    """One arm of one loop under one seed, trained epoch by epoch."""

    def __init__(
        self, loop: Loop, arm: str, data: Split, seed: int, scale: float, pool: int | None
    ) -> None:
        torch.manual_seed(seed)
        self.loop, self.data = loop, data
        self.model = loop.model(data.n_users, data.n_items, loop.activation)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=loop.lr, fused=True)
        self.order = torch.Generator().manual_seed(seed)
        self.draws = torch.Generator().manual_seed(seed)
        self.mining: HardNegatives | None = None
        if arm in ("mined", "liked") or (arm == "random" and not loop.negatives):
            train, validation = data.train, data.validation
            self.mining = HardNegatives(
                (train.users, train.items),
                low=0,
                high=data.n_items,
                pool_size=1 if arm == "random" else pool,
                positives="liked" if arm == "liked" else "all",
                scale=scale,
                validation=(validation.users, validation.items),
                seed=seed,
            )

    def epoch(self) -> None:
        self.model.train()
        loss_of = self.sampled_loss if self.loop.negatives else self.regression_loss
        for rows in torch.randperm(len(self.data.train), generator=self.order).split(BATCH):
            self.optimizer.zero_grad()
            loss_of(self.data.train[rows]).backward()
            self.optimizer.step()

    def sampled_loss(self, batch: Ratings) -> Tensor:
        """BCE over a positive and its negatives; with one negative, BPR."""
        users, positives = batch.users, batch.items
        negatives = self.draw(users)
        if self.mining is not None:
            negatives = self.mining.mine(self.model, users, negatives, positives)
        items = torch.cat([positives.unsqueeze(1), negatives], 1)
        logits = self.model(users.repeat_interleave(items.shape[1]), items.flatten())
        logits = logits.view(items.shape)
        if self.loop.negatives == 1:
            return softplus(logits[:, 1] - logits[:, 0]).mean()
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        return binary_cross_entropy_with_logits(logits, labels)

    def draw(self, users: Tensor) -> Tensor:
        """Uniform draws [B, k] from the items that are not in the user's train part."""
        high = self.data.n_items
        items = torch.randint(high, (len(users), self.loop.negatives), generator=self.draws)
        while (seen := self.data.seen[users.unsqueeze(1), items]).any():
            items[seen] = torch.randint(high, (int(seen.sum()),), generator=self.draws)
        return items

    def regression_loss(self, batch: Ratings) -> Tensor:
        targets = self.loop.targets(batch.stars)
        loss = mse_loss(self.model(batch.users, batch.items), targets)
        if self.mining is None:
            return loss
        return loss + WEIGHT * self.mining.ranking_loss(
            self.model, batch.users, batch.items, targets
        )

    @torch.no_grad()
    def evaluate(self) -> Epoch:
        self.model.eval()
        items = torch.arange(self.data.n_items)
        found = ndcg(lambda users: self.model(users.unsqueeze(1), items), self.data)
        rmse = None
        if not self.loop.negatives:
            parts = (self.data.validation, self.data.test)
            rmse = (self.rmse(parts[0]), self.rmse(parts[1]))
        mining = None if self.mining is None else self.mining.statistics()
        return Epoch(found, rmse, mining)

    def rmse(self, part: Ratings) -> float:
        outputs = self.loop.to_stars(self.model(part.users, part.items))
        return float(mse_loss(outputs, part.stars).sqrt())


def run(
    loop: Loop, arm: str, data: Split, seed: int, scale: float, pool: int | None
) -> list[Epoch]:
    """Train to the end, or until neither NDCG nor RMSE has improved on validation for long."""
    training = Training(loop, arm, data, seed, scale, pool)
    epochs: list[Epoch] = []
    while len(epochs) < loop.epochs:
        training.epoch()
        epochs.append(training.evaluate())
        improved = best_ndcg(epochs)
        if not loop.negatives:
            improved = max(improved, best_rmse(epochs))
        if len(epochs) - 1 - improved >= PATIENCE * loop.epochs:
            break
    return epochs


def best_ndcg(epochs: list[Epoch]) -> int:
    return max(range(len(epochs)), key=lambda i: epochs[i].ndcg[0])


def best_rmse(epochs: list[Epoch]) -> int:
    return min(range(len(epochs)), key=lambda i: epochs[i].rmse[0])


def popularity(data: Split) -> Epoch:
    counts = torch.bincount(data.train.items, minlength=data.n_items)
    return Epoch(ndcg(lambda users: counts.expand(len(users), -1), data), None, None)


def key(record: dict[str, Any]) -> tuple[object, ...]:
    return tuple(record[name] for name in ("loop", "arm", "scale", "pool", "seed"))


def finished(path: Path) -> dict[tuple[object, ...], list[Epoch]]:
    """The runs that the file holds already."""
    if not path.exists():
        return {}
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {key(record): [Epoch(**epoch) for epoch in record["epochs"]] for record in records}


def table(
    runs: dict[tuple[object, ...], list[Epoch]],
    loops: Iterable[str],
    scale: float,
    pool: int | None,
    seeds: int,
) -> list[str]:
    """Markdown: a row for each arm of which all seeds are there; differences are seed by seed."""
    lines = [
        "| loop | arm | NDCG@10 | minus random's | RMSE | at the best RMSE: NDCG@10 | RMSE | epochs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [POPULARITY, *loops]:
        arms = ("",) if name == POPULARITY else LOOPS[name].arms
        found = {
            arm: [runs[name, arm, scale, pool, seed] for seed in range(seeds)]
            for arm in arms
            if all((name, arm, scale, pool, seed) in runs for seed in range(seeds))
        }
        for arm, trained in found.items():
            at = [epochs[best_ndcg(epochs)] for epochs in trained]
            cells = [spread([epoch.ndcg[1] for epoch in at], ".3f"), "", "", "", "", ""]
            if arm != "random" and "random" in found:
                plain = [epochs[best_ndcg(epochs)] for epochs in found["random"]]
                lifts = [epoch.ndcg[1] - other.ndcg[1] for epoch, other in zip(at, plain)]
                cells[1] = spread(lifts, "+.3f")
            if at[0].rmse is not None:
                cells[2] = spread([epoch.rmse[1] for epoch in at], ".3f")
                at = [epochs[best_rmse(epochs)] for epochs in trained]
                cells[3] = spread([epoch.ndcg[1] for epoch in at], ".3f")
                cells[4] = spread([epoch.rmse[1] for epoch in at], ".3f")
            if arm:
                cells[5] = f"{statistics.mean(best_ndcg(epochs) + 1 for epochs in trained):.0f}"
            lines.append(f"| {name} | {arm} | {' | '.join(cells)} |")
    return lines


def spread(values: list[float], form: str) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):{form}} ± {deviation:.3f}"


def times(data: Split, loops: Iterable[str], scale: float, pool: int | None) -> list[str]:
    """Markdown: the median time of an epoch of each arm as a ratio to the loop's first arm."""
    lines = ["| loop | arm | time of an epoch |", "|---|---|---|"]
    for name in loops:
        arms = LOOPS[name].arms
        parts = {arm: Training(LOOPS[name], arm, data, 0, scale, pool).epoch for arm in arms}
        medians = measure(parts, ROUNDS)
        for arm in arms:
            lines.append(f"| {name} | {arm} | {medians[arm] / medians[arms[0]]:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--loops", nargs="+", metavar="NAME", choices=list(LOOPS), default=list(LOOPS)
    )
    parser.add_argument(
        "--arms", nargs="+", metavar="NAME", choices=["without", "random", "mined", "liked"]
    )
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--pool", type=int)
    parser.add_argument("--time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        bench(options, work)


def bench(options: argparse.Namespace, work: Path) -> None:
    ratings = load(work)
    if options.time:
        print("\n".join(times(split(ratings, 0), options.loops, options.scale, options.pool)))
        return
    path = work / "runs.jsonl"
    runs = finished(path)
    for seed in range(options.seeds):
        data = split(ratings, seed)
        runs[POPULARITY, "", options.scale, options.pool, seed] = [popularity(data)]
        for name in options.loops:
            for arm in LOOPS[name].arms:
                record = {"loop": name, "arm": arm, "scale": options.scale}
                record |= {"pool": options.pool, "seed": seed}
                if key(record) in runs or (options.arms and arm not in options.arms):
                    continue
                start = time.perf_counter()
                epochs = run(LOOPS[name], arm, data, seed, options.scale, options.pool)
                runs[key(record)] = epochs
                print(
                    f"{name}, {arm}, seed {seed}: {len(epochs)} epochs,"
                    f" {time.perf_counter() - start:.0f} s,"
                    f" NDCG@10 {epochs[best_ndcg(epochs)].ndcg[1]:.3f}",
                    flush=True,
                )
                with path.open("a", encoding="utf-8") as file:
                    record["epochs"] = [asdict(epoch) for epoch in epochs]
                    file.write(json.dumps(record) + "\n")
    print("\n".join(["", *table(runs, options.loops, options.scale, options.pool, options.seeds)]))


if __name__ == "__main__":
    main()
