"""Train recommenders on hard negatives instead of random ones.

What it does: where a training loop, a Dataset or a function draws random items as negatives, a
small pool is drawn instead; the model scores it without gradient, items that the user has seen are
left out, and the hardest are trained on. The script's own draw stays one of the pool. Until the
model ranks positives above three of four random items, negatives stay random. An in-batch
softmax is masked where another row's item is one that the user has seen, and corrected for
popularity. Where ratings are regressed there are no negatives, and an unrated item is not a low
rating: the regression stays as it is, and a ranking term on mined negatives is trained beside it
(QW250 says what that gives and costs). Functions that draw negatives row by row draw all at once.
What was mined is logged once an epoch, where the script logs: the gap between the scores of
positives and mined items, the model's AUC, the share of random draws, and how many mined items
turn out to be positives of the validation data.

Why: measured on MovieLens-100k, three to five seeds, ranking all items, NDCG@10 against the same
loop with random negatives: two towers under a dot product +13 %, under a cosine +12 %, NeuMF with
four negatives +3 %. Trained on hard ones from the first step, towers under a dot product lost 7 %.
It need not help everywhere: compare with `--pool-size 1`, which is the script's own draw. Larger
pools did worse (the hardest of 32 lost 12 %, of the whole catalogue over 70 %): what scores highest
there are items that the user would like. An epoch took 1.7 to 1.8 times as long. `bench/README.md`
has the table.

Example:

     import torch
     import wandb
     from torch import nn, optim
     from torch.utils.data import DataLoader, TensorDataset
    +from quickwins_runtime import HardNegatives


     class Factors(nn.Module):
         def __init__(self, num_users, num_items):
             super().__init__()
             self.users = nn.Embedding(num_users, 32)
             self.items = nn.Embedding(num_items, 32)

         def forward(self, users, items):
             return (self.users(users) * self.items(items)).sum(-1)


     def train(users, items, num_users, num_items):
         loader = DataLoader(TensorDataset(users, items), batch_size=256, shuffle=True)
         model = Factors(num_users, num_items)
         optimizer = optim.Adam(model.parameters(), lr=1e-3)
    +    negatives = HardNegatives(loader, low=0, high=num_items)
         for epoch in range(10):
             for user, positive in loader:
                 negative = torch.randint(0, num_items, (len(user),))
    +            negative = negatives.mine(model, user, negative, positives=positive)
                 loss = nn.functional.softplus(model(user, negative) - model(user, positive)).mean()
                 optimizer.zero_grad()
                 loss.backward()
                 optimizer.step()
    -        wandb.log({"epoch": epoch, "loss": loss.item()})
    +        wandb.log({"epoch": epoch, "loss": loss.item(), **negatives.statistics()})

When it refuses: where hard items would be the wrong ones, or cannot be scored.

    negatives nobody drew               QW210
    a score that may be a distance      QW211
    a model of more than ids            QW212
    negatives that come with the batch  QW213
    no score of one item                QW214
    nothing to mine                     QW215
    positives or users not seen         QW216
    data not known above the loop       QW217
    a softmax without ids               QW218
    a loss that is not followed         QW219
    rows of a table                     QW220 to QW225
    a test, not a training run          QW226
    a framework owns the loop           QW004

Options: as flags, or with the same names under `[tool.quickwins.hard_negatives]`.

    --pool-size           candidates of a row; unset: 8 for one negative, 16 for several
    --top-share 0.0       pick at random among this share of the pool's hardest; 0: the hardest
    --random-share        share of negatives left random; unset: 0 for one, 0.5 for several
    --warmup-steps 0      so many steps at first with the script's own draw
    --warmup-auc 0.75     negatives stay random below this AUC of the model; 0: hard ones at once
    --ranking-weight 0.3  weight of the ranking term beside a rating loss
    --ranking-scale 20.0  what that term multiplies differences of scores with
    --positives all       its positives: all rows, or `liked` ones, which costs less RMSE

By hand: where `quickwins apply` has placed the runtime, import it from `quickwins_runtime`.

    from quickwins_codemod.runtime import HardNegatives

    negatives = HardNegatives(train_loader)  # rows of (user, item, ...)
    # ... and for each batch:
    negative = negatives.mine(model, user, negative, positives=positive)

Sources:

    Zhang et al., Optimizing Top-N Collaborative Filtering via Dynamic Negative Item Sampling,
        SIGIR 2013, https://doi.org/10.1145/2484028.2484126
    Shi et al., On the Theories Behind Hard Negative Sampling for Recommendation, WWW 2023,
        https://arxiv.org/abs/2302.03472
    Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations,
        RecSys 2019, https://doi.org/10.1145/3298689.3346996

QW200 hard negatives are in place
    What it does: nothing for this loop or function.

    Why: it calls the runtime that this rule brings. A second run must find nothing to do.

    Example:

        negatives = HardNegatives(loader)
        for user, positive in loader:
            negative = torch.randint(0, 50, (len(user),))
            negative = negatives.mine(recommender, user, negative, positives=positive)
            loss = (recommender(user, negative) - recommender(user, positive)).sigmoid().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    What to do: nothing.

QW201 random negatives were replaced by mined ones
    What it does: one line above the first use of the negatives puts hard ones in their place, in
    their shape and range. They are scored again with gradient by the lines that were there.

    Why: a random item is mostly one that the model ranks low already, and teaches it little.

    Example:

         recommender.train()
        +negatives = HardNegatives(loader, low=0, high=50)
         for user, positive in loader:
             optimizer.zero_grad()
             negative = torch.randint(0, 50, (len(user),))
        +    negative = negatives.mine(recommender, user, negative, positives=positive)
             worse, better = recommender(user, negative), recommender(user, positive)
             loss = nn.functional.softplus(worse - better).mean()
             loss.backward()
             optimizer.step()

    What to do: read the diff, and compare NDCG with a run with `--pool-size 1`.

QW202 a ranking term was added beside a rating loss
    What it does: `ranking_loss` is computed from the batch and mined items, and added with a weight
    where `backward()` is called. `loss` keeps its name and meaning, also where it is logged as RMSE.

    Why: a model of ratings alone ranks below popularity. QW250, said with it, has the measurements.

    Example:

         recommender.train()
        +negatives = HardNegatives(loader, positives="all", scale=20.0)
         for user, item, rating in loader:
             optimizer.zero_grad()
             loss = criterion(recommender(user, item), rating)
        -    loss.backward()
        +    ranking_loss = negatives.ranking_loss(recommender, user, item, rating)
        +    (loss + 0.3 * ranking_loss).backward()
             optimizer.step()

    What to do: read the diff, and compare both NDCG and RMSE with a run before it.

QW203 negatives are drawn for all rows at once
    What it does: a loop that draws an item, looks it up among the positives and draws again becomes
    one draw for all rows. Rows, columns, counts and types are as before. A function gains `score`,
    for harder draws by a model; rows for training only are drawn by popularity without one.

    Why: on 100,000 ratings, two such functions of the sample repository were 75 and 220 times as
    fast afterwards (bench/negative_tables.py; the second one looks up features for each row).

    Example:

         rows = []
        -while len(rows) < 99:
        -    user, item = torch.randint(5, (1,)).item(), torch.randint(9, (1,)).item()
        -    if (user, item) not in known:
        -        rows.append((user, item))
        +drawn = unseen_pairs(
        +    range(5), range(9), lambda user, item: (user, item) in known, 99,
        +    seed=torch.randint(2**31 - 1, (1,)).item(),
        +)
        +for user, item in zip(*drawn):
        +    rows.append((user, item))

    What to do: read the diff. The seed comes from the stream that was drawn from before, so a
    script that seeds it still repeats its rows; they are other rows than before.

QW204 an in-batch softmax was masked and corrected
    What it does: logits of other rows' items that the user has seen, or that are the row's own item
    once more, get the lowest value; and each logit is lowered by its item's log popularity.

    Why: in a batch popular items are negatives more often than others. Measured with the two-tower
    model on MovieLens-100k: +39 % NDCG@10 with the correction, +1 % without.

    Example:

         users_tower, items_tower = nn.Embedding(20, 8), nn.Embedding(50, 8)
        +negatives = HardNegatives(loader)
         for user, item in loader:
             optimizer.zero_grad()
             logits = users_tower(user) @ items_tower(item).t()
        -    loss = nn.functional.cross_entropy(logits, torch.arange(len(user)))
        +    masked_logits = negatives.mask_in_batch(logits, item, user)
        +    loss = nn.functional.cross_entropy(masked_logits, torch.arange(len(user)))
             loss.backward()
             optimizer.step()

    What to do: read the diff. The correction is for training only: rank by the plain scores.

QW210 nobody draws these negatives
    What it does: this loop stays as it is.

    Why: its rows have labels of 0 and 1, and nothing shows that those with 0 were drawn at random.
    What a user was shown and did not take is evidence; a mined item in its place would be none.

    Example:

        for user, item, clicked in loader:
            optimizer.zero_grad()
            score = recommender(user, item)
            loss = nn.functional.binary_cross_entropy_with_logits(score, clicked)
            loss.backward()
            optimizer.step()

    What to do: nothing, if they are impressions. If they are drawn, draw them in the loop, or in a
    Dataset or function that this file holds or imports from its repository, and run again.

QW211 a higher score may not mean a better match
    What it does: this loop stays as it is.

    Why: the hardest negatives are those with the highest score. The loss has to rise with the score
    of a negative; here it falls, as with a distance, or the loss is not one that can be followed.

    Example:

         for user, positive in loader:
             optimizer.zero_grad()
             negative = torch.randint(0, 50, (len(user),))
             near, far = recommender(user, positive), recommender(user, negative)
        -    loss = torch.relu(near - far + 1.0).mean()
        +    loss = torch.relu(far - near + 1.0).mean()
             loss.backward()
             optimizer.step()

    What to do: return the negative distance as the score, turn the loss round, as above, and run
    again. Or write the loss with torch's own functions: logsigmoid, softplus, BCE with labels.

QW212 the model takes more than ids
    What it does: this loop stays as it is.

    Why: a mined item needs its own features, and those of the batch are another item's.

    Example:

         class Ratings(nn.Module):
             def __init__(self):
                 super().__init__()
                 self.users, self.items = nn.Embedding(20, 8), nn.Embedding(50, 8)
        -    def forward(self, user, item, year):
        -        return (self.users(user) * self.items(item)).sum(-1) + year
        +    def forward(self, user, item):
        +        return (self.users(user) * self.items(item)).sum(-1) + years[item]

         model = Ratings()
         for user, item, year, rating in loader:
             optimizer.zero_grad()
        -    loss = criterion(model(user, item, year), rating)
        +    loss = criterion(model(user, item), rating)
             loss.backward()
             optimizer.step()

    What to do: look features up by the item's id inside the model, as above, and run again.

QW213 the negatives come with the batch
    What it does: this loop stays as it is.

    Why: users and two kinds of items are scored, and where the second kind comes from is not seen.
    They may be what a user was shown, and then they are not to be replaced.

    Example:

         for user, positive, negative in loader:
             optimizer.zero_grad()
        +    negative = torch.randint(0, 50, (len(user),))
             worse, better = recommender(user, negative), recommender(user, positive)
             loss = nn.functional.softplus(worse - better).mean()
             loss.backward()
             optimizer.step()

    What to do: if they are drawn at random, draw them in the loop, as above, or in a Dataset that
    this file holds or imports from its repository, and run again.

QW214 no score of one item is seen
    What it does: this loop stays as it is.

    Why: candidates need one score each, from the user and the item alone; this model gives none.

    Example:

         class BPR(nn.Module):
             def __init__(self):
                 super().__init__()
                 self.users, self.items = nn.Embedding(20, 8), nn.Embedding(50, 8)
             def forward(self, user, i, j):
                 u, i, j = self.users(user), self.items(i), self.items(j)
        -        return nn.functional.softplus((u * j).sum(-1) - (u * i).sum(-1)).mean()
        +        return (u * i).sum(-1), (u * j).sum(-1)
         model = BPR()
         for user, i in loader:
             j = torch.randint(0, 50, (len(user),))
        -    loss = model(user, i, j)
        +    better, worse = model(user, i, j)
        +    loss = nn.functional.softplus(worse - better).mean()
             loss.backward()
             optimizer.step()

    What to do: return the two scores and compute the loss outside, as above, and run again.

QW215 every item is a negative already
    What it does: this loop stays as it is.

    Why: it trains a softmax over one logit for each item of the catalogue.

    Example:

        class NextItem(nn.Module):
            def __init__(self, num_items):
                super().__init__()
                self.items = nn.Embedding(num_items, 8)
                self.output = nn.Linear(8, num_items)
            def forward(self, history):
                return self.output(self.items(history).mean(1))
        model = NextItem(50)
        for history, target in loader:
            loss = nn.functional.cross_entropy(model(history), target)
            loss.backward()
            optimizer.step()

    What to do: nothing. With millions of items, a sampled softmax is cheaper; that is another model.

QW216 positives or users of the negatives are not seen
    What it does: this loop stays as it is.

    Why: negatives are mined for a user, and never are the item that the row is about. So both must
    be known above the line where the negatives are first used.

    Example:

         for user, positive in loader:
             optimizer.zero_grad()
             negative = torch.randint(0, 50, (len(user),))
        -    better = (recommender.users.weight[user] * recommender.items.weight[positive]).sum(-1)
        +    better = recommender(user, positive)
             loss = nn.functional.softplus(recommender(user, negative) - better).mean()
             loss.backward()
             optimizer.step()

    What to do: score positives and negatives in the same way, as above, and run again.

QW217 the training data is not known above the loop
    What it does: this loop stays as it is.

    Why: what users have seen is read once, from the loader or from the arrays that the loop takes
    its batches from, above the loop over epochs. There it is not known here, or the object cannot
    be handed to the function that trains, or the optimizer is not stepped in that function.

    Example:

        -for epoch in range(epochs):
        -    loader = DataLoader(rows_of(epoch), batch_size=64)
        +loader = DataLoader(rows_of(0), batch_size=64)
        +for epoch in range(epochs):
             for user, item, rating in loader:
                 optimizer.zero_grad()
                 loss = criterion(recommender(user, item), rating)
                 loss.backward()
                 optimizer.step()

    What to do: make the loader above the loop over epochs, as above, and run again.

QW218 an in-batch softmax without ids
    What it does: this loop stays as it is.

    Why: the same item may stand in several rows of a batch, and is no negative then. Without item
    ids (and user ids, for what else the user has seen) such rows cannot be found.

    Example:

         users_tower, items_tower = nn.Embedding(20, 8), nn.Embedding(50, 8)
         features_tower = nn.Linear(5, 8)
        -for user, features in loader:
        +for user, item in loader:
        -    logits = users_tower(user) @ features_tower(features).t()
        +    logits = users_tower(user) @ items_tower(item).t()
             loss = nn.functional.cross_entropy(logits, torch.arange(len(user)))
             loss.backward()
             optimizer.step()

    What to do: let the batch hold the ids, and encode them, or set them to the lowest value by hand.

QW219 the loss is not followed
    What it does: this loop stays as it is.

    Why: users and items are scored, but the loss is none that is known; or a rating loss is computed
    and a `backward()` is called on something that is not traced to it, where the term has to be added.

    Example:

         for user, item, rating in loader:
             optimizer.zero_grad()
             score = recommender(user, item)
             loss = criterion(score, rating)
        -    objective = 1 - nn.functional.cosine_similarity(score, rating, dim=0)
        -    objective.backward()
        +    loss.backward()
             optimizer.step()

    What to do: call `backward()` on the rating loss, or a sum with it, and run again.

QW220 a draw that is not understood
    What it does: the loop stays as it is.

    Why: one draw for all rows is the same only where all that a row's draw depends on is seen: what
    is drawn, the one test that rejects it, and nothing between the two.

    Example:

         for user in owned:
             other = torch.randint(9, (1,)).item()
        -    while other in owned[user] or other == 3:
        +    while other in owned[user]:
                 other = torch.randint(9, (1,)).item()
             rows.append((user, other))

    What to do: draw, test by `in`, and draw again in one place, as above; or call `unseen_items`
    of the runtime yourself.

QW221 positives that change while negatives are drawn
    What it does: the loop stays as it is.

    Why: where a drawn item counts as taken from then on, or positives are added in the loop, what a
    row may draw depends on the rows before it.

    Example:

         for user in users:
             other = torch.randint(9, (1,)).item()
             while other in owned[user]:
                 other = torch.randint(9, (1,)).item()
        -    owned[user].add(other)
             rows.append((user, other))

    What to do: leave the positives as they are. For items that differ within a user, call
    `unseen_items(users, items, seen, count, replace=False)` of the runtime.

QW222 rows that are not known before the loop
    What it does: the loop stays as it is.

    Why: to draw for all rows at once, their number and their users must be known above the loop.
    They are not where the number differs from user to user, or a condition passes a row over.

    Example:

         for user in owned:
        -    for _ in range(len(owned[user])):
        +    for _ in range(4):
                 other = torch.randint(9, (1,)).item()
                 while other in owned[user]:
                     other = torch.randint(9, (1,)).item()
                 rows.append((user, other))

    What to do: leave rows out before the loop, and draw the same number for each. Or draw more
    than are needed, by `unseen_items` of the runtime, and use as many as a user needs.

QW223 items that are not drawn evenly
    What it does: the loop stays as it is.

    Why: the script has odds of its own (`p=`, `weights=`), which may be what makes its draws hard.

    Example:

         import random
         for user in owned:
        -    other = random.choices(items, weights=odds)[0]
        +    other = random.choice(items)
             while other in owned[user]:
        -        other = random.choices(items, weights=odds)[0]
        +        other = random.choice(items)
             rows.append((user, other))

    What to do: if the odds are those of popularity, call `unseen_items` of the runtime with
    `popularity=`. Otherwise leave it.

QW224 a row that is computed for each pair
    What it does: the loop stays as it is.

    Why: features of the drawn pair are looked up for all pairs at once where they are the first row
    that has the id. Here something is computed of several rows, or row by row.

    Example:

         import pandas as pd
         rows = []
         while len(rows) < 99:
             user, item = torch.randint(5, (1,)).item(), torch.randint(9, (1,)).item()
             if (user, item) not in known:
        -        age = people[people["user"] == user]["age"].mean()
        -        rows.append({"user": user, "item": item, "age": age})
        +        person = people[people["user"] == user].iloc[0]
        +        rows.append({"user": user, "item": item, "age": person["age"]})
         frame = pd.DataFrame(rows)

    What to do: compute such features once for each user or item, in a table with one row for each.

QW225 a name of the loop that is used below it
    What it does: the loop stays as it is.

    Why: the user or item that was drawn last is read after the loop; without the loop it is another
    one, or none.

    Example:

         import random
         for user in owned:
             others = list(set(items) - owned[user])
             for item in random.sample(others, 4):
                 rows.append((user, item))
        -print(item)

    What to do: read what you need from the rows instead.

QW226 this is a test
    What it does: this loop stays as it is.

    Why: it stands in a test: a function `test_...`, a TestCase, or a file `test_*.py`, `*_test.py`
    or `conftest.py`.

    Example:

        def test_training():
            for user, item, rating in loader:
                optimizer.zero_grad()
                loss = criterion(recommender(user, item), rating)
                loss.backward()
                optimizer.step()

    What to do: nothing. If it is a training run all the same, rename it.

QW250 the objective gains a term
    What it does: the script is rewritten all the same (QW202).

    Why: measured on MovieLens-100k, five seeds, ranking all items: NDCG@10 is 0.03 to 0.07 with
    regression alone, 0.128 by popularity, and 0.20 to 0.22 with this term. RMSE grows by 0.09 to 0.11
    stars, with `--positives liked` by 0.03 for an NDCG@10 of 0.17. A step takes 4 to 5 times as long.

    Example:

        for user, item, rating in loader:
            optimizer.zero_grad()
            loss = criterion(recommender(user, item), rating)
            loss.backward()
            optimizer.step()

    What to do: measure both on your data. `--ranking-weight` weighs the term; where only ratings
    are predicted and nothing is ranked, drop it: `--ignore QW202`.

QW251 scores are used as probabilities
    What it does: the script is rewritten all the same.

    Why: trained against hard negatives, a model gives lower scores to all items. AUC, log loss and
    accuracy on random negatives may get worse where ranking gets better.

    Example:

        from sklearn.metrics import roc_auc_score
        bce = nn.BCEWithLogitsLoss()
        for user, positive in loader:
            optimizer.zero_grad()
            negative = torch.randint(0, 50, (len(user),))
            scores = recommender(torch.cat([user, user]), torch.cat([positive, negative]))
            labels = torch.cat([torch.ones(len(user)), torch.zeros(len(user))])
            bce(scores, labels).backward()
            optimizer.step()
            print(roc_auc_score(labels, scores.detach()))

    What to do: compare runs by a ranking metric over the whole catalogue (NDCG, recall).

QW252 the statistics are not logged
    What it does: the script is rewritten all the same.

    Why: no dict is logged once an epoch, under no condition, so there is no place for them.

    Example:

        for user, item, rating in loader:
            optimizer.zero_grad()
            loss = criterion(recommender(user, item), rating)
            loss.backward()
            optimizer.step()

    What to do: at the end of each epoch, log what `negatives.statistics()` returns.

QW253 nobody calls the function that draws
    What it does: says so; the function is rewritten all the same.

    Why: no other place in the repository has its name, so nothing trains on these negatives.

    Example:

        def negatives_of(owned):
            rows = []
            for user in owned:
                other = torch.randint(9, (1,)).item()
                while other in owned[user]:
                    other = torch.randint(9, (1,)).item()
                rows.append((user, other))
            return rows

    What to do: call it on the training rows, not on all rows, since it draws by popularity where it
    can; or delete it.

QW254 negatives that are drawn before a split
    What it does: says that they are drawn evenly, by all means, and that `score` is not offered.

    Why: the rows are split into training and evaluation afterwards. Harder negatives would then
    stand among the evaluation rows too, and make its numbers incomparable.

    Example:

        from sklearn.model_selection import train_test_split
        for user in owned:
            other = torch.randint(9, (1,)).item()
            while other in owned[user]:
                other = torch.randint(9, (1,)).item()
            rows.append((user, other))
        train, test = train_test_split(rows)

    What to do: split first, and draw for the training rows alone. A test on rows with drawn
    negatives measures less than a ranking of all items in any case.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from quickwins_codemod.companion import Companion, Site, Unreachable
from quickwins_codemod.edits import (
    AddDictEntry,
    AddParameter,
    AddTerm,
    Edit,
    InsertAfter,
    InsertBefore,
    Remove,
    Replace,
)
from quickwins_codemod.script.facts import Frame, Problem, Script, Training
from quickwins_codemod.transform import Finding, Plan, Refusal, verdict_at
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.batches import Column
    from quickwins_codemod.script.negatives import (
        InBatch,
        Pointwise,
        RankingLoop,
        RankingLoops,
        Rated,
        Sampled,
    )
    from quickwins_codemod.script.placing import Place
    from quickwins_codemod.script.rowdraws import PairDraws, RowDraw, RowDraws, UserDraws

RULE = "hard-negatives"
NEEDLES = (b".backward(", b"random.", b"random import", b"torch.randint")
_RUNTIME = "HardNegatives"


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.hard_negatives]` or as flags."""

    pool_size: int | None = field(
        default=None,
        metadata={"help": "candidates of a row; unset: 8 for one negative, 16 for several", "min": 1},
    )
    top_share: float = field(
        default=0.0,
        metadata={"help": "pick at random among this share of the hardest", "min": 0.0, "max": 1.0},
    )
    random_share: float | None = field(
        default=None,
        metadata={
            "help": "share of negatives left random; unset: 0 for one, 0.5 for several",
            "min": 0.0,
            "max": 1.0,
        },
    )
    warmup_steps: int = field(
        default=0, metadata={"help": "steps with the script's own draw first", "min": 0}
    )
    warmup_auc: float = field(
        default=0.75,
        metadata={
            "help": "AUC of the model below which negatives stay random",
            "min": 0.0,
            "max": 1.0,
        },
    )
    ranking_weight: float = field(
        default=0.3, metadata={"help": "weight of the ranking term beside a regression", "above": 0.0}
    )
    ranking_scale: float = field(
        default=20.0, metadata={"help": "factor on score differences in that term", "above": 0.0}
    )
    positives: str = field(
        default="all",
        metadata={"help": "rows that count as positives in that term", "choices": ("all", "liked")},
    )

    def arguments(self) -> list[str]:
        """What differs from the runtime's own defaults, as arguments of HardNegatives."""
        values = {
            "pool_size": self.pool_size,
            "top_share": self.top_share or None,
            "random_share": self.random_share,
            "warmup_steps": self.warmup_steps or None,
            "warmup_auc": None if self.warmup_auc == Options.warmup_auc else self.warmup_auc,
        }
        return [f"{name}={value}" for name, value in values.items() if value is not None]


def plan(script: Script, options: Options) -> Plan:
    """Plan mined negatives for the loops, the draws and the tables of a script."""
    return Plan((*_loops(script, options), *_tables(script)))


def _loops(script: Script, options: Options) -> Iterator[Finding]:
    from quickwins_codemod.script.negatives import RankingLoops

    reader = RankingLoops(script)
    for step in script.forwards().steps():
        found = reader.read(step)
        if found is None:
            continue
        try:
            finding = _Mining(script, options, reader, found).finding()
        except Refusal as refusal:
            finding = refusal.finding(RULE, script)
        if finding is not None:
            yield finding


def _tables(script: Script) -> list[Finding]:
    """Functions that draw negatives row by row into a table or a list."""
    from quickwins_codemod.script.rowdraws import RowDraws

    reader = RowDraws(script)
    found = [
        Finding((verdict_at(
            RULE, script, "already", "QW200", call, "negatives are drawn for all rows at once"
        ),))
        for call in reader.calls()
    ]
    for site in reader.sites() if not script.is_test else ():
        if isinstance(site, Problem):
            code, hint = _UNCLEAR_TABLES[site.kind]
            message = f"these negatives are drawn one by one: {site.detail}"
            found.append(Refusal(code, site.node, message, hint).finding(RULE, script))
        else:
            found.append(_Table(script, reader).finding(site))
    return found


#: What a draw for all rows at once would have to know, by the kind of problem: code and hint.
_UNCLEAR_TABLES = {
    "shape": ("QW220", "draw, test the pair, and append, in one loop and in this order"),
    "changing": ("QW221", "draw without replacement for each user, or draw before rows are added"),
    "rows": ("QW222", "compute how many rows there are, and for which users, above the loop"),
    "odds": ("QW223", "draw evenly, or call unseen_items with popularity or score by hand"),
    "lookup": ("QW224", "look features up by the first row of an id, and make one dict a row"),
    "after": ("QW225", "do not use the loop's names below it"),
}


class _Mining:
    """The plan for one training loop."""

    def __init__(
        self, script: Script, options: Options, reader: RankingLoops, found: RankingLoop
    ) -> None:
        self.script, self.options, self.reader, self.found = script, options, reader, found
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.step, self.batch, self.loop = found.step, found.batch, found.batch.loop
        self._say = partial(verdict_at, RULE, script)
        self.edits: list[Edit] = []
        self.notes: list[Verdict] = []
        self.missing: tuple[str, cst.CSTNode] | None = None

    def finding(self) -> Finding | None:
        mined = self._mined()
        if mined is not None:
            return Finding((self._say("already", "QW200", mined, "hard negatives are in place"),))
        for found, planned in (
            (self.found.sampled, self._sampled),
            (self.found.in_batch, self._in_batch),
            (self.found.pointwise, self._pointwise),
            (self.found.rated, self._rated),
        ):
            if found:
                self._check()
                return planned(found)
        if self.found.catalogue is not None:
            raise Refusal(
                "QW215", self.found.catalogue,
                "a softmax over the whole catalogue has every item as a negative already",
                "nothing to do",
            )
        self._check_unclear()
        return None

    def _mined(self) -> cst.Call | None:
        """A call of the runtime's object in this loop."""
        for call in self.tree.calls_within(self.batch.body):
            func = call.func
            if getattr(getattr(func, "attr", None), "value", "") in _METHODS and any(
                (self.names.dotted(made.func) or "").rpartition(".")[2] == _RUNTIME
                for made in self.names.creations(func.value)
            ):
                return call
        return None

    # -- what rules it out -----------------------------------------------------------------------

    def _check(self) -> None:
        first = self.step.backwards[0]
        if self.script.manager is not None:
            manager = self.script.manager
            raise Refusal(
                "QW004", manager.node, f"the training loop is managed by {manager.detail}",
                "mine in its training step by hand",
            )
        if self.script.is_test or self.placing.is_test(first):
            raise Refusal("QW226", first, "this is a test, not a training run", "nothing to do")

    def _check_unclear(self) -> None:
        """Users and items are scored, and no negatives of them are understood."""
        for scoring in self.found.scorings:
            if scoring.others:
                self._refuse_features(scoring.others[0])
        brought = list(self.found.triples)
        if len(self.found.scorings) > 1:
            brought += [s.call for s in self.found.scorings if self.batch.column(s.items) is not None]
        if brought:
            raise Refusal(
                "QW213", brought[0],
                "the negatives come with the batch, and where they are drawn is not seen",
                "draw them in the training loop, or in a Dataset of this repository",
            )
        for scoring in self.found.scorings:
            if self.batch.column(scoring.items) is not None:
                raise Refusal(
                    "QW219", scoring.call, "users and items are scored, but the loss is none that is known",
                    "use torch's MSELoss on ratings, or draw negatives for a loss of the two scores",
                )

    def _refuse_features(self, node: cst.CSTNode) -> None:
        raise Refusal(
            "QW212", node, "the model is given more than ids, which a mined item would need as well",
            "look the features up by item id inside the model",
        )

    # -- negatives that are drawn ----------------------------------------------------------------

    def _sampled(self, found: tuple[Sampled, ...]) -> Finding:
        for sampled in found:
            self._check_sampled(sampled)
        first = found[0]
        site, reference, data = self._built(
            first.users, first.positives, first, labels=None, ranking=False
        )
        for sampled in found:
            self._mine(sampled, reference)
        self._log(site, reference)
        self._build(site, data)
        if any(s.part is not None for s in found):
            self._warn_of_probabilities()
        applied = self._say(
            "applied", "QW201", first.draw or first.items, "random negatives replaced by mined ones"
        )
        return self._done(applied)

    def _check_sampled(self, sampled: Sampled) -> None:
        at = sampled.draw or sampled.items
        if sampled.score is not None and sampled.score.others:
            self._refuse_features(sampled.score.others[0])
        if sampled.positives is None:
            raise Refusal(
                "QW216", at, "the items that these negatives are drawn for are not seen",
                "score positives and negatives in the same loop, from the same batch",
            )
        if sampled.triple is not None and sampled.rising is None:
            raise Refusal(
                "QW214", sampled.triple,
                "the model answers for positives and negatives at once, and no score of one item is seen",
                "return the two scores, each computed from the user and its own item",
            )
        if sampled.rising is None:
            raise Refusal(
                "QW211", at, "that a higher score means a better match cannot be shown",
                "use a loss of torch on the scores (logsigmoid of their difference, BCE with labels)",
            )
        if sampled.rising != 1:
            raise Refusal(
                "QW211", at,
                "the loss falls with the score of a negative, as with a distance: the hardest would be the easiest",
                "return the negative distance as the score, and turn the loss round",
            )

    def _mine(self, sampled: Sampled, reference: str) -> None:
        from quickwins_codemod.script.negatives import base

        name = self.tree.code(base(sampled.items))
        anchor = self._anchor(base(sampled.items), sampled)
        users, fits = self._at(sampled.users, anchor), sampled.beside
        if users is None:  # repeated by something that is not known yet: take them as they were
            users, fits = self._at(base(sampled.users), anchor), fits or sampled.part is not None
        if users is None:
            raise Refusal(
                "QW216", sampled.items, "the users of these negatives are not known where they are drawn",
                "set the users above the first use of the negatives",
            )
        arguments = [*self._scorer(sampled)]
        positives = self._at(sampled.positives, anchor) if fits else None
        model, *extra = arguments
        call = [model, users, name, *([f"positives={positives}"] if positives else []), *extra]
        self.edits.append(InsertBefore(
            anchor, self._assign(name, f"{reference}.mine", call, anchor), below_comment=True
        ))

    def _scorer(self, sampled: Sampled) -> list[str]:
        """The model, and how it scores one item where that is not the model's own call."""
        code = self.tree.code
        if sampled.triple is not None and sampled.scorer:
            model = code(sampled.triple.func)
            return [model, f"score={model}.{sampled.scorer}"]
        if sampled.triple is not None:
            return [
                code(sampled.triple.func),
                f"score=lambda users, items: {code(sampled.triple.func)}(users, items, items)[0]",
            ]
        if sampled.encodings is not None:
            users, items = sampled.encodings
            owners = list(dict.fromkeys((code(users.owner), code(items.owner))))
            model = owners[0] if len(owners) == 1 else f"({', '.join(owners)})"
            return [model, f"encode=({code(users.encoder)}, {code(items.encoder)})"]
        owner, model = code(sampled.score.owner), code(sampled.score.model)
        return [owner] if owner == model else [owner, f"score={model}"]

    def _anchor(self, items: cst.BaseExpression, sampled: Sampled) -> cst.CSTNode:
        """The statement, in the block that has the ids, from which on they are used."""
        variable = self.names.variable(items)
        moves = [
            a.statement for a in self.names.assignments.get(variable, ())
            if self.tree.is_within(a.statement, self.batch.body)
        ]
        block = self.tree.block(moves[-1]) if moves else self.batch.body
        last = max((self.tree.order[m] for m in moves), default=-1)
        for node in self.names.reads_within(items, self.batch.body):
            inside = any(self.tree.is_within(node, m) for m in moves)
            if self.tree.order[node] > last and not inside and not self._is_fact(node):
                anchor = self.placing.ancestor_in(node, block)
                if anchor is not None:
                    return anchor
        raise Refusal("QW216", items, "where these negatives are used is not followed", "")

    def _is_fact(self, node: cst.CSTNode) -> bool:
        """`negatives.shape`: not a use of the ids."""
        parent = self.tree.parents[node]
        attribute = getattr(getattr(parent, "attr", None), "value", "")
        return attribute in ("shape", "size", "device", "dtype", "numel", "dim")

    def _at(self, node: cst.BaseExpression, anchor: cst.CSTNode) -> str | None:
        """The text of an expression where it has its value at a statement already."""
        return self.tree.code(node) if self.placing.is_known(node, anchor) else None

    def _assign(self, name: str, function: str, arguments: list[str], anchor: cst.CSTNode) -> str:
        """`name = function(arguments)`, broken where the line would be too long."""
        indent = self.tree.position(anchor).column - 1
        return f"{name} = {self._call(function, arguments, indent + len(name) + 3)}\n"

    def _call(self, function: str, arguments: list[str], column: int) -> str:
        line = f"{function}({', '.join(arguments)})"
        limit = self.line_length
        if column + len(line) <= limit:
            return line
        indent = self.tree.module.default_indent
        inner = "".join(f"{indent}{a},\n" for a in arguments)
        together = ", ".join(arguments)
        if len(together) + column <= limit:
            inner = f"{indent}{together}\n"
        return f"{function}(\n{inner})"

    @property
    def line_length(self) -> int:
        return self.companion.line_length

    # -- rows of both labels -----------------------------------------------------------------------

    def _pointwise(self, found: tuple[Pointwise, ...]) -> Finding:
        from quickwins_codemod.script.negatives import base

        first = found[0]
        scoring = first.scoring
        if scoring.others:
            self._refuse_features(scoring.others[0])
        if not first.sampled:
            raise Refusal(
                "QW210", first.loss,
                "where the rows with label 0 come from is not seen; they may be what users were shown",
                "draw negatives in a Dataset or function of this file, or in the loop",
            )
        labels = self.batch.column(base(first.labels))
        site, reference, data = self._built(scoring.users, scoring.items, None, labels=labels, ranking=False)
        name = self.tree.code(scoring.items)
        anchor = self._anchor(scoring.items, None)
        parts = [self._at(n, anchor) for n in (scoring.users, scoring.items, base(first.labels))]
        if None in parts:
            raise Refusal(
                "QW216", first.loss, "users, items and labels are not all known above the forward pass",
                "take the batch apart above the model's call",
            )
        owner, model = self.tree.code(scoring.owner), self.tree.code(scoring.model)
        call = [owner, parts[0], parts[1], f"labels={parts[2]}"]
        call += [f"score={model}"] if owner != model else []
        self.edits.append(InsertBefore(
            anchor, self._assign(name, f"{reference}.mine", call, anchor), below_comment=True
        ))
        self._log(site, reference)
        self._build(site, data)
        self._warn_of_probabilities()
        return self._done(self._say(
            "applied", "QW201", first.loss, "random items of the rows with label 0 replaced by mined ones"
        ))

    def _warn_of_probabilities(self) -> None:
        """Scores of a model trained on hard negatives are too low to be probabilities."""
        found = next(
            (
                c for c in self.tree.calls_within(self.tree.module)
                if (self.names.dotted(c.func) or "").rpartition(".")[2]
                in ("roc_auc_score", "log_loss", "accuracy_score", "brier_score_loss")
            ),
            None,
        )
        if found is not None:
            self.notes.append(self._say(
                "warning", "QW251", found,
                "hard negatives push scores down, so what is computed from them as probabilities here changes",
                "compare by a ranking metric (NDCG, recall)",
            ))

    # -- products within a batch ---------------------------------------------------------------------

    def _in_batch(self, found: tuple[InBatch, ...]) -> Finding:
        for softmax in found:
            if softmax.items is None:
                raise Refusal(
                    "QW218", softmax.loss,
                    "the items of this in-batch softmax have no ids here, so repeated ones cannot be masked",
                    "let the batch hold the item ids",
                )
        first = found[0]
        if first.users is None:
            raise Refusal(
                "QW218", first.loss, "the users of this in-batch softmax have no ids here",
                "let the batch hold the user ids",
            )
        site, reference, data = self._built(first.users, first.items, None, labels=None, ranking=False)
        name = self._free_name(_LOGIT_NAMES, first.loss)
        for softmax in found:
            statement = self.tree.statement(softmax.loss)
            arguments = [self.tree.code(n) for n in (softmax.logits, softmax.items, softmax.users)]
            self.edits += [
                InsertBefore(
                    statement,
                    self._assign(name, f"{reference}.mask_in_batch", arguments, statement),
                    below_comment=True,
                ),
                Replace(softmax.logits, name),
            ]
        self._log(site, reference)
        self._build(site, data)
        return self._done(self._say(
            "applied", "QW204", first.loss,
            "in-batch softmax masked where a negative is known to be liked, and corrected for popularity",
        ))

    # -- ratings -----------------------------------------------------------------------------------------

    def _rated(self, found: tuple[Rated, ...]) -> Finding:
        first = found[0]
        for rated in found:
            if rated.scoring.others:
                self._refuse_features(rated.scoring.others[0])
        targets = [self._summand(backward, found) for backward in self.step.backwards]
        site, reference, data = self._built(
            first.scoring.users, first.scoring.items, None, labels=None, ranking=True
        )
        name = self._free_name(_TERM_NAMES, first.loss)
        statements: list[cst.CSTNode] = []
        for rated in found:
            statement = self.tree.statement(rated.loss)
            if not any(self.placing.dominates(s, statement) for s in statements):
                statements.append(statement)
                self._rank(rated, statement, name, reference)
        for target, divisor in targets:
            weight = f"{self.options.ranking_weight} * {name}"
            self.edits.append(AddTerm(target, weight + divisor))
        self._log_term(name)
        self._log(site, reference)
        self._build(site, data)
        self.notes.append(self._say(
            "warning", "QW250", first.loss,
            f"the objective gains a term: {self.options.ranking_weight} * {name} on mined negatives, beside the "
            "rating loss; measured: NDCG@10 1.5 to 1.7 times popularity's, for 0.1 stars of RMSE and 4 "
            "to 5 times the time of a step",
            "measure it on your data; lower ranking-weight, or drop the rule with --ignore QW202",
        ))
        return self._done(self._say(
            "applied", "QW202", first.loss, "ranking term on mined negatives added beside the rating loss"
        ))

    def _rank(self, rated: Rated, statement: cst.CSTNode, name: str, reference: str) -> None:
        scoring = rated.scoring
        code = self.tree.code
        owner, model = code(scoring.owner), code(scoring.model)
        arguments = [owner, code(scoring.users), code(scoring.items), code(rated.ratings)]
        arguments += [f"score={model}"] if owner != model else []
        text = self._assign(name, f"{reference}.ranking_loss", arguments, statement)
        inline = any(self.tree.is_within(b, statement) for b in self.step.backwards)
        self.edits.append(
            InsertBefore(statement, text) if inline else InsertAfter(statement, text, joined=True)
        )

    def _summand(
        self, backward: cst.Call, found: tuple[Rated, ...]
    ) -> tuple[cst.BaseExpression, str]:
        """What the term is added to in one backward call, and how the term is divided with it."""
        import libcst

        from quickwins_codemod.script.negatives import unscaled

        losses = [r.loss for r in found]
        loss = unscaled(backward.func.value)
        inner = loss
        while isinstance(inner, libcst.BinaryOperation) and isinstance(inner.operator, libcst.Divide):
            inner = inner.left
        if any(self.tree.is_within(node, inner) for node in losses):
            return inner, ""
        variable = self.names.variable(inner)
        divisor, rated = "", False
        for assignment in self.names.assignments.get(variable, ()) if variable is not None else ():
            statement = assignment.statement
            if not self.tree.is_within(statement, self.batch.body):
                continue
            if any(self.tree.is_within(node, statement) for node in losses):
                rated = True
            elif isinstance(statement, libcst.AugAssign) and isinstance(
                statement.operator, libcst.DivideAssign
            ):
                divisor = f" / {self.placing.operand(self.tree.code(statement.value))}"
            elif assignment.value is not None and self._divided(assignment.value, variable):
                divisor = f" / {self.placing.operand(self.tree.code(assignment.value.right))}"
            elif assignment.value is not None and self._made_of(assignment.value, losses):
                rated = True
            elif not self._adds_to(assignment, variable):
                rated = False
                break
        if not rated:
            raise Refusal(
                "QW219", backward, "this backward call is not traced to the rating loss",
                "compute the rating loss in the loop that calls backward()",
            )
        return inner, divisor

    def _made_of(self, value: cst.BaseExpression, losses: list[cst.Call]) -> bool:
        """`loss = rating_loss + penalty`, where a name in it is a rating loss."""
        from quickwins_codemod.script.names import names_in

        for name in names_in(value):
            variable = self.names.variable(name)
            for assignment in self.names.assignments.get(variable, ()) if variable is not None else ():
                value = assignment.value
                if value is not None and any(self.tree.is_within(node, value) for node in losses):
                    return True
        return False

    def _divided(self, value: cst.BaseExpression, variable: object) -> bool:
        import libcst

        return (
            isinstance(value, libcst.BinaryOperation)
            and isinstance(value.operator, libcst.Divide)
            and self.names.variable(value.left) == variable
        )

    def _adds_to(self, assignment: object, variable: object) -> bool:
        """`loss = loss + penalty`, `loss += penalty`."""
        from quickwins_codemod.script.names import names_in

        value = assignment.value
        if value is None:
            return assignment.kind == "augment"
        return any(self.names.variable(n) == variable for n in names_in(value))

    def _log_term(self, name: str) -> None:
        """`ranking_loss` beside the loss, where the script logs per batch."""
        records = self.step.steps[0].training.records
        for log in records.batch_logs(self.loop):
            after = self.tree.order[log.mapping] > max(self.tree.order[b] for b in self.step.backwards)
            if self.tree.function(log.mapping) is not self.step.function or not after:
                continue
            code = f"{log.quote}{log.prefix}{name}{log.quote}: {name}.item()"
            beside = next(
                (e for e in log.mapping.elements if "loss" in self.tree.code(e).partition(":")[0]), None
            )
            hang = self.placing.hang(log.mapping, code, self.line_length)
            self.edits.append(AddDictEntry(log.mapping, beside, code, hang))
            return

    def _free_name(self, candidates: tuple[str, ...], node: cst.CSTNode) -> str:
        for name in candidates:
            if self.placing.is_free(name, [self.step.function]):
                return name
        raise Refusal("QW217", node, f"the name {candidates[0]} is taken here", f"rename {candidates[0]}")

    # -- the object that mines -----------------------------------------------------------------------------

    @cached_property
    def companion(self) -> Companion:
        return Companion(self.script, self._training(), "negatives")

    def _training(self) -> Training:
        if not self.step.steps:
            raise Refusal(
                "QW217", self.step.backwards[0], "the optimizer of this loop is not stepped in this function",
                "step it in the function that calls backward()",
            )
        return self.step.steps[0].training

    def _built(
        self,
        users: cst.BaseExpression,
        items: cst.BaseExpression,
        sampled: Sampled | None,
        labels: Column | None,
        ranking: bool,
    ) -> tuple[Site, str, list[str]]:
        """Where the object is made, its name in the loop, and the arguments that make it."""
        frames = self._frames()
        for site in self._sites(frames):
            place, outer = site.place, site.statement
            data = self._data(users, items, frames, place, outer)
            if data is None:
                continue
            data = [*data, *self._bounds(sampled, frames, place, outer)]
            if labels is not None:
                data.append(f"labels={labels.code}")
            data += self.options.arguments()
            if ranking:
                data += [f'positives="{self.options.positives}"', f"scale={self.options.ranking_scale}"]
            validation = self._validation(frames, place, outer)
            if validation is not None:
                data.append(f"validation={validation}")
            return site, self._reach(site, frames, data), data
        raise Refusal(
            "QW217", self.loop, "the training data is not known above the loop, so what users have seen is not either",
            "make the loader above the loop over epochs, in a variable of its own",
        )

    def _frames(self) -> list[Frame]:
        return self.placing.frames(self.step.function)

    def _sites(self, frames: list[Frame]) -> Iterator[Site]:
        """Above the outermost loop, in the outermost function on the way to it that has one."""
        companion = self.companion
        node: cst.CSTNode = self.step.backwards[0]
        found = []
        for frame in frames:
            outer = self.placing.outermost_loop(node, frame.function)
            if outer is not self.tree.statement(node):
                found.append(outer)
            if frame.call is None:
                break
            node = frame.call
        for outer in reversed(found):
            home = self.tree.function(outer)
            functions = [home, *(f.function for f in frames)]
            reference = companion.fresh_reference(functions)
            if reference is None:
                continue
            optimizer = self._training().optimizer.reference
            yield Site("before", outer, self.placing.before(outer), reference, optimizer)

    def _data(
        self, users: cst.BaseExpression, items: cst.BaseExpression, frames: list[Frame], place: Place,
        outer: cst.CSTNode,
    ) -> list[str] | None:
        """The loader with the columns of users and items, or the two arrays that a loop indexes."""
        from quickwins_codemod.script.negatives import base

        columns = [self.batch.column(base(n)) for n in (users, items)]
        if None not in columns:
            loader = self.placing.expression_at(self.batch.source, 0, frames, place, outer)
            if loader is None:
                return None
            plain = [c.key for c in columns] == [0, 1]
            return [loader] if plain else [
                loader, f"users={columns[0].code}", f"items={columns[1].code}"
            ]
        arrays = [self._indexed(n, frames, place, outer) for n in (users, items)]
        return [f"({arrays[0]}, {arrays[1]})"] if None not in arrays else None

    def _indexed(
        self, node: cst.BaseExpression, frames: list[Frame], place: Place, outer: cst.CSTNode
    ) -> str | None:
        """The array of `users = train_users[index]`."""
        import libcst

        from quickwins_codemod.script.negatives import base

        value: cst.BaseExpression | None = base(node)
        for _ in range(4):
            if isinstance(value, libcst.Subscript):
                return self.placing.expression_at(value.value, 0, frames, place, outer)
            variable = self.names.variable(value)
            found = [
                a.value for a in (self.names.assignments.get(variable, ()) if variable is not None else ())
                if self.tree.is_within(a.statement, self.batch.body) and a.value is not None
            ]
            if len(found) != 1:
                return None
            value = base(found[0])
        return None

    def _bounds(
        self, sampled: Sampled | None, frames: list[Frame], place: Place, outer: cst.CSTNode
    ) -> list[str]:
        """The range of the script's own draw, where it is known there."""
        if sampled is None or sampled.range is None:
            return []
        texts = []
        for name, node in (("low", sampled.range.low), ("high", sampled.range.high)):
            if node is None:
                texts.append("low=0")
                continue
            text = self.placing.expression_at(node, 0, frames, place, outer)
            if text is None:
                return []
            closed = " + 1" if name == "high" and sampled.range.closed else ""
            texts.append(f"{name}={text}{closed}")
        return texts

    def _validation(
        self, frames: list[Frame], place: Place, outer: cst.CSTNode
    ) -> str | None:
        """The loader of a loop that scores the same columns without training on them."""
        import libcst

        from quickwins_codemod.script.batches import Batch

        wanted = {self.tree.plain(s.model) for s in self.found.scorings}
        for loop in self.tree.all(libcst.For):
            inside = self.tree.function(loop) is self.step.function and self.tree.is_within(loop, outer)
            trains = self.tree.is_within(loop, self.loop) or self.tree.is_within(self.loop, loop)
            if not inside or trains:
                continue
            batch = Batch(self.tree, self.names, loop)
            if any(
                self.tree.plain(c.func) in wanted and c.args and batch.column(c.args[0].value)
                for c in self.tree.calls_within(loop)
            ):
                text = self.placing.expression_at(batch.source, 0, frames, place, outer)
                if text is not None and text != self.tree.code(self.batch.source):
                    return text
        return None

    def _reach(self, site: Site, frames: list[Frame], data: list[str]) -> str:
        try:
            reference, guarded, edits = self.companion.reach(
                site, frames, self.step.steps[0].optimizer
            )
        except Unreachable as unreachable:
            raise Refusal(
                "QW217", unreachable.node, "what mines cannot be handed to the function that trains",
                "keep the loop over epochs and the training step in one function, or in one class",
            ) from None
        self.edits += edits
        if guarded:
            self._build_where_missing(reference)
        return reference

    def _build_where_missing(self, reference: str) -> None:
        """A function that is given the object makes one where a caller gives none."""
        anchor = self.placing.outermost_loop(self.step.backwards[0], self.step.function)
        self.missing = (reference, anchor)

    def _build(self, site: Site, data: list[str]) -> None:
        name = self.script.runtime_name(_RUNTIME)
        self.edits.append(InsertBefore(
            site.statement, self._assign(site.reference, name, data, site.statement)
        ))
        if self.missing is None:
            return
        reference, anchor = self.missing
        text = self.placing.expression_at(
            self.batch.source, 0, [Frame(self.step.function, None)], self.placing.before(anchor), anchor
        )
        if text is None:
            raise Refusal(
                "QW217", anchor, "the loader is not known above the loop over its batches",
                "make the loader a parameter of this function",
            )
        inner = [text, *data[1:]]
        code = self._assign(reference, name, [a for a in inner if "validation=" not in a], anchor)
        self.edits.append(InsertBefore(
            anchor, f"if {reference} is None:\n" + "".join(f"    {line}\n" for line in code.splitlines())
        ))

    def _log(self, site: Site, reference: str) -> None:
        """Statistics of the mining, once an epoch, in what the script logs already."""
        records = self.step.steps[0].training.records
        home = self.tree.function(site.statement)
        logs = [
            log for log in records.epoch_logs(site.statement)
            if self.tree.function(log.mapping) is home
            and self.tree.order[log.mapping] > self.tree.order[self._last_in(home)]
        ]
        if not logs:
            self.notes.append(self._say(
                "warning", "QW252", self.loop,
                "nothing is logged once an epoch here, so the statistics of the mining are not either",
                f"log {site.reference}.statistics() at the end of each epoch",
            ))
            return
        log = logs[0]
        code = f"**{site.reference}.statistics()"
        hang = self.placing.hang(log.mapping, code, self.line_length)
        self.edits.append(AddDictEntry(log.mapping, None, code, hang))

    def _last_in(self, home: cst.CSTNode) -> cst.CSTNode:
        """The training loop, or the call that leads to it, in the function of the epochs."""
        node: cst.CSTNode = self.loop
        for frame in self._frames():
            if self.tree.function(node) is home or frame.call is None:
                return node
            node = frame.call
        return node

    def _done(self, applied: Verdict) -> Finding:
        return Finding((applied, *self.notes), tuple(self.edits), frozenset([_RUNTIME]))


_METHODS = {"mine", "ranking_loss", "mask_in_batch"}
_LOGIT_NAMES = ("masked_logits", "hard_logits", "quickwins_logits")
_TERM_NAMES = ("ranking_loss", "ranking_term", "quickwins_ranking_loss")


class _Table:
    """The plan for one loop that draws negatives row by row into a table or a list."""

    def __init__(self, script: Script, reader: RowDraws) -> None:
        from quickwins_codemod.script.fates import Fates

        self.script, self.reader, self.tree = script, reader, script.tree
        self.fates = Fates(script)
        self._say = partial(verdict_at, RULE, script)
        self.edits: list[Edit] = []
        self.runtime: set[str] = set()

    def finding(self, site: UserDraws | PairDraws | RowDraw) -> Finding:
        from quickwins_codemod.script.rowdraws import PairDraws, RowDraw, UserDraws

        self.site, self.fate = site, self.fates.of(site.function, site.loop)
        self.columns = site.seen.is_columns
        by_popularity = self.columns and self.fate.kind in ("unused", "training")
        odds = ["popularity=0.75"] if by_popularity else []
        odds += [f"score={name}" for name in self._score()]
        seed = [f"seed={site.seed}"] if site.seed != "None" else []
        head = [site.users, site.items, site.seen.code, site.count]
        if isinstance(site, UserDraws):
            kind = ["replace=False"] if not site.replace else []
            kind += ["short=True"] if site.short else []
            self._rows("unseen_items", [*head, *kind, *odds, *seed])
        elif isinstance(site, PairDraws) and site.table is not None:
            self._columns("unseen_pairs", [*head, *odds, *seed])
        elif isinstance(site, PairDraws):
            self._rows("unseen_pairs", [*head, *odds, *seed])
        elif isinstance(site, RowDraw):
            self._one_by_one([*head, *odds, *seed])
        self._drop_dead_sets()
        how = "by popularity" if by_popularity else "evenly"
        applied = self._say(
            "applied", "QW203", site.loop,
            f"negatives are drawn for all rows at once, {how}, and never a positive",
            "the draws depend on the same seed as before, and differ from the old ones",
        )
        return Finding((applied, *self._notes()), tuple(self.edits), frozenset(self.runtime))

    def _notes(self) -> Iterator[Verdict]:
        name = getattr(getattr(self.site.function, "name", None), "value", "")
        if self.fate.kind == "unused" or (self.script.neighbours is None and self._is_uncalled()):
            yield self._say(
                "warning", "QW253", self.site.function, f"nobody calls {name}",
                "call it on training rows only, or delete it",
            )
        if self.fate.kind == "split":
            yield self._say(
                "warning", "QW254", self.site.loop,
                "the rows are split into training and evaluation below, so they are drawn evenly",
                "split first, and draw harder negatives for the training rows only",
            )

    def _is_uncalled(self) -> bool:
        import libcst as cst

        function = self.site.function
        return isinstance(function, cst.FunctionDef) and not self.fates.is_named(function)

    def _score(self) -> list[str]:
        """The parameter for harder draws, where they are allowed and the function can have one."""
        import libcst as cst

        function = self.site.function
        if self.fate.kind == "split" or not isinstance(function, cst.FunctionDef):
            return []
        params = function.params
        if isinstance(params.star_arg, cst.Param) or params.star_kwarg is not None:
            return []
        words = self.reader.words(function)
        name = next((n for n in ("score", "negative_score") if n not in words), None)
        if name is None:
            return []
        self.edits.append(AddParameter(function, f"{name}=None"))
        return [name]

    # -- the new code ----------------------------------------------------------------------------

    def _rows(self, function: str, arguments: list[str]) -> None:
        """Draw first, then run the loop's body once for each drawn pair."""
        site = self.site
        name = self._fresh("drawn")
        lines = [self._assign(name, function, arguments)]
        lines.append(f"for {site.user}, {site.item} in zip(*{name}):\n")
        indent = self.tree.module.default_indent
        lines += [textwrap.indent(self._code(s), indent) for s in site.body]
        self._replace_loop("".join(lines))

    def _columns(self, function: str, arguments: list[str]) -> None:
        """Draw first, then make whole columns where the loop made one row."""
        site, table = self.site, self.site.table
        lines = [self._assign(f"{site.user}, {site.item}", function, arguments)]
        lookups = {lookup[0]: lookup for lookup in table.lookups}
        for statement in site.body:
            text = self._code(statement)
            above = self._above(self.tree.line_node(statement))
            if statement in lookups:
                _, name, frame, key, wanted = lookups[statement]
                call = self._runtime("first_rows")
                text = f"{above}{name} = {call}({frame}, {key}, {wanted})\n"
            elif statement is table.append:
                text = above
                text += f"{table.rows} = {table.row} if {site.user} else []  # no row, no column\n"
            lines.append(text)
        self._replace_loop("".join(lines))
        self.edits.append(Remove(table.start))

    def _one_by_one(self, arguments: list[str]) -> None:
        """Draw above the loop, and take one of the drawn items where the loop drew."""
        from quickwins_codemod.script.rowdraws import ROWS

        site = self.site
        name = self._fresh("drawn")
        text = ""
        if site.rows is not None:
            rows = self._fresh("rows")
            arguments = [arguments[0].replace(ROWS, rows), *arguments[1:]]
            text = f"{rows} = list({self.tree.code(site.rows)})\n"
            self.edits.append(Replace(site.rows, rows))
        call = self._call(self._runtime("unseen_items"), arguments, len(f"{name} = iter([1])"))
        text += f"{name} = iter({call}[1])\n"
        self.edits.append(InsertBefore(site.loop, text))
        taken = f"{site.item} = next({name})\n"
        if site.first is None:
            self.edits += [InsertBefore(site.retry, taken, below_comment=True), Remove(site.retry)]
        else:
            self.edits += [Replace(site.first, taken), Remove(site.retry)]
        for statement in self.reader.unread_locals(site):
            self._remove(statement)

    def _replace_loop(self, text: str) -> None:
        self.edits += [InsertBefore(self.site.loop, text), Remove(self.site.loop)]

    def _drop_dead_sets(self) -> None:
        """Take out sets of pairs that were only made to exclude the positives."""
        import libcst as cst

        function = self.site.function
        if not isinstance(function, cst.FunctionDef) or not self.columns:
            return
        gone = getattr(self.site, "retry", self.site.loop)
        for statement in self.reader.unread_pairs(function, gone):
            self._remove(statement)

    def _remove(self, statement: cst.CSTNode) -> None:
        """Take a statement out, with the comment above it where that is about nothing else."""
        siblings = self.tree.siblings(statement)
        following = siblings[siblings.index(statement) + 1 :]
        own = not following or bool(getattr(
            self.tree.line_node(following[0]), "leading_lines", ()
        )) or hasattr(following[0], "body")
        self.edits.append(Remove(statement, topic="." if own else None))

    # -- its text --------------------------------------------------------------------------------

    def _runtime(self, name: str) -> str:
        self.runtime.add(name)
        return self.script.runtime_name(name)

    def _fresh(self, name: str) -> str:
        """A name that nothing in the function has."""
        words = self.reader.words(self.site.function)
        return next(n for n in (name, f"{name}_once", f"quickwins_{name}") if n not in words)

    def _assign(self, target: str, function: str, arguments: list[str]) -> str:
        call = self._call(self._runtime(function), arguments, len(f"{target} = "))
        return f"{target} = {call}\n"

    def _call(self, function: str, arguments: list[str], before: int) -> str:
        """A call that stands at the loop's place, broken where the line would be too long."""
        limit = 100 - (self.tree.position(self.site.loop).column - 1)
        line = f"{function}({', '.join(arguments)})"
        if before + len(line) <= limit:
            return line
        indent = self.tree.module.default_indent
        lines = [""]
        for argument in arguments:
            longer = f"{lines[-1]} {argument}," if lines[-1] else f"{indent}{argument},"
            if lines[-1] and len(longer) > limit:
                lines.append(f"{indent}{argument},")
            else:
                lines[-1] = longer
        return f"{function}(\n" + "\n".join(lines) + "\n)"

    def _code(self, statement: cst.CSTNode) -> str:
        """A statement of the loop with the comment above it, taken to the margin."""
        import libcst as cst

        line = self.tree.line_node(statement)
        if line is not statement:  # it may share its line
            statement = statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
            trailing = line.trailing_whitespace if len(line.body) == 1 else cst.TrailingWhitespace()
            statement = cst.SimpleStatementLine([statement], trailing_whitespace=trailing)
        elif hasattr(statement, "leading_lines"):
            statement = statement.with_changes(leading_lines=())
        elif hasattr(statement, "semicolon"):
            statement = statement.with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        return self._above(line) + self.tree.module.code_for_node(statement).rstrip() + "\n"

    def _above(self, line: cst.CSTNode) -> str:
        """The lines above a line of the loop; blank ones only where they would look the same.

        A blank line at the margin of inserted code gets the block's indentation.
        """
        above = getattr(line, "leading_lines", ())
        return "".join(
            self.tree.module.code_for_node(empty) for empty in above
            if empty.comment is not None or empty.indent
        )
