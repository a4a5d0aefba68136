"""Replace the learning-rate schedule by OneCycle, stepped once per optimizer step.

What it does: every optimizer whose steps can be counted from the source gets one schedule, built
with the exact number of its steps and stepped after each of them. A schedule that is there is
replaced whole (constructor, steps, parts of a SequentialLR, imports) or not at all. The rate climbs
for a tenth of the run to its peak and falls along a cosine to almost nothing at the last step.
`OneCycle` is a subclass of `torch.optim.lr_scheduler.OneCycleLR`, so it works where that does; it
leaves momentum and betas as they are, stands still where GradScaler skipped a step, and stays at
its last rate after the end. Checkpoints that save the optimizer save the schedule too, and a run
that goes on at a later epoch goes on there in the cycle. Where the script logs a dict for each
batch, the rate joins it.

Why: the peak is 3 times the optimizer's own rate, since a peak of 1 time trained worse than no
schedule. NDCG@10 on MovieLens-100k, 20 epochs, against the same loop with a constant rate:

    NeuMF, BCE, 4 random negatives      peak 1 x lr    -14 %
                                        peak 3 x lr     +4 % [2, 7], 3 seeds
                                        peak 10 x lr    -2 %
                                        constant 3 x lr +1 % [-1, 3], 3 seeds
    two-tower, BPR, 1 random negative   peak 1 x lr     -9 %, 3 seeds

These are two models on one small data set, some of them with one seed. In another set-up there
(ratings with a ranking term, 15 epochs, 2 seeds) 3 x lr did not help: NeuMF went from 0.250 to
0.234, two-tower from 0.224 to 0.228. Nothing is claimed for yours: train with and without, and
compare. The best epoch may come well before the last one, so keep the best checkpoint.

Example:

     import torch
     from torch import nn
     from torch.utils.data import DataLoader, TensorDataset
    +from quickwins_runtime import OneCycle

     data = TensorDataset(torch.randn(256, 8), torch.randn(256, 1))
     loader = DataLoader(data, batch_size=32, shuffle=True)
     model = nn.Linear(8, 1)
     optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    -scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    +scheduler = OneCycle(
    +    optimizer, epochs=10, steps_per_epoch=len(loader), max_lr_factor=3.0
    +)

     for epoch in range(10):
         for x, y in loader:
             loss = nn.functional.mse_loss(model(x), y)
             optimizer.zero_grad()
             loss.backward()
             optimizer.step()
    -    scheduler.step()
    +        scheduler.step()

When it refuses: where the number of steps, the place or the old schedule's meaning cannot be shown
from the source. That optimizer then stays as it is; others in the file are still rewritten.

    the steps cannot be counted      QW110 to QW118, QW128, QW129
    no place where all is known      QW119
    the rate is also set by hand     QW120
    the old schedule does more       QW121, QW122, QW124, QW127
    its peak cannot be read          QW123
    a schedule has no use            QW125
    a test, not a training run       QW130
    a partner in the loop is refused QW131
    a framework owns the loop        QW004

Options: as flags, or with the same names under `[tool.quickwins.onecycle]`.

    --max-lr-factor 3.0   peak = this times each parameter group's own rate
    --max-lr              the peak itself, one for all groups, instead of the factor
    --pct-start 0.1       share of the run that climbs to the peak
    --div-factor 25       first rate = peak / this

Where the old schedule sets rates of its own (a warm-up class of the script, CyclicLR), its peak is
taken over as `max_lr=...`, unless `--max-lr` is given.

By hand: in a loop that this rule refuses, build the schedule yourself. `total_steps` counts
optimizer steps, not batches. Where `quickwins apply` has placed the runtime, import it from
`quickwins_runtime`.

    from quickwins_codemod.runtime import OneCycle

    scheduler = OneCycle(optimizer, total_steps=1000, max_lr_factor=3.0)
    # ... and after every optimizer.step():
    scheduler.step()

Sources:

    https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.OneCycleLR.html
    Smith and Topin, Super-Convergence, https://arxiv.org/abs/1708.07120
    https://github.com/pytorch/pytorch/issues/65417 (stepped by epoch, the curve is lost)
    https://github.com/pytorch/pytorch/pull/92040 (the step after the last one)
    https://github.com/pytorch/pytorch/issues/20124 (order of optimizer.step and scheduler.step)

QW100 the schedule is one cycle already
    What it does: nothing. The optimizer has a OneCycle or OneCycleLR, so the site counts as done.

    Why: a second run must find nothing to do. Whether torch's OneCycleLR was given the right
    number of steps is not checked; that it is stepped by epoch is (QW155).

    Example:

        scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=1000)
        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
                scheduler.step()

    What to do: nothing. To have OneCycleLR replaced by OneCycle, remove its lines and run again.

QW101 a schedule was replaced by OneCycle
    What it does: the old constructor gives way to OneCycle, its steps go, and one step follows
    each optimizer step. Imports and locals that only the old schedule needed go too.

    Why: two schedules on one optimizer overwrite each other's rates, so the old one is replaced
    whole or not at all.

    Example:

        -scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=5)
        +scheduler = OneCycle(
        +    optimizer, epochs=epochs, steps_per_epoch=len(loader), max_lr_factor=3.0
        +)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        +        scheduler.step()
             val_loss = validate(model)
        -    scheduler.step(val_loss)

    What to do: read the diff. Is the peak right (3 x lr, or the old schedule's own)? Start new
    runs with it; checkpoints of old runs hold the old schedule's state.

QW102 OneCycle was added
    What it does: an optimizer without a schedule gets OneCycle, and one step after each optimizer
    step. A function between the two gets the schedule as a parameter.

    Why: `quickwins explain onecycle` shows what was measured, and for what.

    Example:

         optimizer = optim.Adam(model.parameters(), lr=1e-3)
        +scheduler = OneCycle(
        +    optimizer, epochs=epochs, steps_per_epoch=len(loader), max_lr_factor=3.0
        +)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        +        scheduler.step()

    What to do: read the diff. The rate that you chose is now a third of the peak. If it was
    already as high as training bears, set a lower `lr` or `--max-lr`, and compare.

QW110 no optimizer step in this file
    What it does: this optimizer stays without a new schedule.

    Why: the file makes the optimizer but never steps it. A loop in another file is not followed,
    so the steps cannot be counted.

    Example:

        from trainer import fit

        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        fit(model, loader, optimizer, epochs)

    What to do: make the optimizer in the file that holds the loop, or move the loop here, and run
    again. Or build the schedule by hand (`quickwins explain onecycle`) and hand it on with the
    optimizer. If a wrapper's own method steps the optimizer, the wrapper is the place for it.

QW111 the step stands in no loop
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the step is in a function that no loop of this file calls, so how often it runs is not
    known here.

    Example:

        class Learner:
            def __init__(self, model):
                self.optimizer = optim.Adam(model.parameters(), lr=1e-3)

            def learn(self, batch):
                ...
                self.optimizer.step()

    What to do: put the loops over epochs and batches into this file (a method `fit` that calls
    `learn`) and run again. Or build the schedule by hand where the loops are.

QW112 the epochs are counted elsewhere
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the loop over batches is here, the loop over epochs is not. A cycle must know the whole
    run; one for each epoch would restart the rate every time.

    Example:

         class Trainer:
             def __init__(self, model):
                 self.optimizer = optim.Adam(model.parameters(), lr=1e-3)

             def train_epoch(self, loader: DataLoader):
                 for batch in loader:
                     ...
                     self.optimizer.step()
        +
        +    def fit(self, loader: DataLoader, epochs):
        +        for epoch in range(epochs):
        +            self.train_epoch(loader)

    What to do: put the loop over epochs into this file, as above, and call that from outside. Or
    build the schedule by hand where the epochs are counted.

QW113 a while loop
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: a `while` around the step may run any number of times, so there is no length to plan a
    cycle for.

    Example:

        -epoch = 0
        -while epoch < epochs:
        +for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        -    epoch += 1

    What to do: count with `for epoch in range(epochs)`. A loop that ends by a condition can be
    that too, with a `break`; it then gets the warning QW150.

QW114 the number of batches is not known
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the loop runs over something that is not known to have a `len()`: a generator, a loader
    over an IterableDataset (len() raises TypeError), or a parameter that only other files fill.

    Example:

        -def train(model, loader):
        +def train(model, loader: DataLoader):
             optimizer = optim.Adam(model.parameters(), lr=1e-3)
             for epoch in range(epochs):
                 for batch in loader:
                     ...
                     optimizer.step()

    What to do: if it has a length, say so: annotate the parameter with `DataLoader`, or take
    `len(loader)` anywhere in the file. A stream has none: loop over `range(n)` and take
    `batch = next(stream)` inside, or build the schedule by hand from the number of batches you
    train on.

QW115 the condition of the step is not known
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the step stands under a condition that cannot be counted, its branches step differently
    often, or a comprehension runs it. Known are: every batch; `(i + 1) % k == 0`, also with
    `or i + 1 == len(loader)`; `i % k == 0`; a counter of all batches; a check that keeps a broken
    batch out (nan, inf, None).

    Example:

         for epoch in range(epochs):
             for i, batch in enumerate(loader):
                 ...
        -        if should_step(batch):
        +        if (i + 1) % 4 == 0:
                     optimizer.step()

    What to do: step on every batch, or write the condition as one of the known ones, with `i` from
    `enumerate(loader)`. Write a comprehension as a `for` loop. Else build the schedule by hand.

QW116 several places step the optimizer
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: two loops, two steps for one batch, or two callers of the function that steps; or the
    optimizer is made again in some passes of a loop. One cycle would have to span all of them, and
    which run how often is not followed.

    Example:

         optimizer = optim.Adam(model.parameters(), lr=1e-3)
         for epoch in range(5):
             for batch in loader:
                 ...
                 optimizer.step()
        +tuner = optim.Adam(model.parameters(), lr=1e-4)
         for epoch in range(20):
             for batch in loader:
                 ...
        -        optimizer.step()
        +        tuner.step()

    What to do: give each loop an optimizer of its own, with a name of its own. Make it before the
    loop, or in every pass. Or build the schedule by hand, with the sum of all steps.

QW117 other loops around the step
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: around the step there is more than a loop over batches in one over epochs: folds, seeds,
    tasks, recursion. It is not known whether each pass trains anew or goes on. An optimizer that
    lives for one short inner loop (meta-learning) is refused too.

    Example:

        -optimizer = optim.Adam(model.parameters(), lr=1e-3)
         for fold in range(5):
        +    optimizer = optim.Adam(model.parameters(), lr=1e-3)
             for epoch in range(epochs):
                 for batch in loader:
                     ...
                     optimizer.step()

    What to do: if every pass trains anew, make the optimizer inside the outermost loop, as above.
    If they are one long run, build the schedule by hand with all steps. An inner loop of
    meta-learning needs no cycle.

QW118 the epochs are not a range
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the outer loop runs over something else than a range (`range`, also inside `tqdm`, or
    `trange`), so it may not count epochs at all.

    Example:

         stages = read_stages()
        -for stage in stages:
        +for stage in range(len(stages)):
             for batch in loader:
                 ...
                 optimizer.step()

    What to do: loop over `range(...)`, as above if each pass goes once over the batches.

QW119 no place to build the schedule
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: no line has the optimizer, the number of epochs and the loader together; or the name of
    the schedule is taken in the function that would receive it; or the step is in a base class
    that other classes may share.

    Example:

        -def run(model, optimizer):
        +def run(model, optimizer, loader):
        -    loader = DataLoader(dataset, batch_size=64)
             for epoch in range(epochs):
                 for batch in loader:
                     ...
                     optimizer.step()

         def main():
        +    loader = DataLoader(dataset, batch_size=64)
             optimizer = optim.Adam(model.parameters(), lr=1e-3)
        -    run(model, optimizer)
        +    run(model, optimizer, loader)

    What to do: make the loader before the optimizer and pass it, or make the optimizer where the
    loader is, in the class that has the loop. If a name is taken, rename it.

QW120 the rate is set by hand
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the named line writes `param_groups[...]["lr"]`, or hands the optimizer to a function whose
    name says so (`adjust_learning_rate`). That would overwrite the schedule's rate, or be
    overwritten by it.

    Example:

         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        -    for group in optimizer.param_groups:
        -        group["lr"] *= 0.95

    What to do: remove the statement, and the function that exists for it, and run again. If the
    rate by hand is what you want, keep it; `--ignore QW120` takes it out of the report.

QW121 several schedules
    What it does: the schedules stay as they are.

    Why: one of several is chosen at run time, one is only built under a condition, or another one
    stands beside OneCycle. Replacing it would leave the script with a choice without effect. SWALR
    is kept too: it holds the rate for weight averaging, which a falling rate would undo.

    Example:

        -if args.cosine:
        -    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        -else:
        -    scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
        +scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
             scheduler.step()

    What to do: keep one of them, built always, and run again. If OneCycle is there already, remove
    the other.

QW122 a use of the schedule has no counterpart
    What it does: the schedule stays as it is.

    Why: the script reads something that OneCycle has not, or that means something else there
    (`last_epoch` counts steps, not epochs; `T_max`, `best`, `num_bad_epochs`), ends the run when
    the rate is low (one cycle starts low), or hands the schedule to code outside this file. Kept
    are: `get_last_lr()`, `state_dict()`, `load_state_dict()`, `.optimizer`, printing and testing.

    Example:

         scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
             scheduler.step()
        -    print(scheduler.last_epoch)
        +    print(epoch)

    What to do: remove the use, or write it without the schedule, as above. A schedule that is
    handed on: keep it in this file, or replace it by hand on both sides.

QW123 the schedule's own peak is not known
    What it does: the schedule stays as it is.

    Why: it sets rates of its own, and the highest of them cannot be worked out: a class of the
    script that does more than arithmetic, or a lambda over `lr=1.0`. Three times the optimizer's
    `lr` would then be a wild guess.

    Example:

        optimizer = optim.Adam(model.parameters(), lr=1.0)
        scheduler = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1e-3 * rate_at(step))
        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
                scheduler.step()

    What to do: name the peak: `quickwins apply --max-lr 1e-3 train.py`, or `max-lr = 1e-3` under
    `[tool.quickwins.onecycle]`. It then holds for every optimizer that is rewritten.

QW124 the schedule's step does more than set the rate
    What it does: the schedule stays as it is.

    Why: the result of `scheduler.step()` is used, and `OneCycle.step()` returns nothing, as torch's
    schedules do. Or one class sets the rate and steps the optimizer (`step_and_update_lr`), so
    that removing the one would remove the other.

    Example:

         scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        -    lr = scheduler.step()
        +    scheduler.step()
        +    lr = scheduler.get_last_lr()[0]

    What to do: read the rate by `get_last_lr()`, as above, and run again. Of a class that does
    both, use the plain optimizer and its `step()` instead.

QW125 LBFGS
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: LBFGS searches for the length of each step itself, and `step(closure)` evaluates the loss
    many times. A cycle on top was not measured and is not offered.

    Example:

        optimizer = optim.LBFGS(model.parameters(), lr=1.0)
        for epoch in range(epochs):
            for batch in loader:
                optimizer.step(closure)

    What to do: nothing.

QW127 the schedule has no name of its own
    What it does: the schedule stays as it is.

    Why: it is made inside a list, a call or another expression, so where it is stepped and used
    cannot be followed.

    Example:

        -schedulers = [optim.lr_scheduler.StepLR(optimizer, 10)]
        +scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        -    for scheduler in schedulers:
        -        scheduler.step()
        +    scheduler.step()

    What to do: assign it to a variable of its own, as above, and run again.

QW128 the optimizer is made elsewhere
    What it does: the loop in this file stays as it is.

    Why: where the optimizer that steps here is made cannot be followed: it comes from another
    file, or through a container. Its rate, its schedule and the length of the run are not seen.

    Example:

        +def train(model, loader: DataLoader, epochs):
        +    optimizer = optim.Adam(model.parameters(), lr=1e-3)
        +    for epoch in range(epochs):
        +        train_epoch(model, loader, optimizer)

         def train_epoch(model, loader: DataLoader, optimizer):
             for batch in loader:
                 optimizer.zero_grad()
                 ...
                 optimizer.step()

    What to do: make the optimizer in this file, as above; one in a dict or list gets a variable of
    its own. Or build the schedule by hand where the optimizer is made, hand it on with the
    optimizer, and step it after `optimizer.step()`.

QW129 the optimizer is handed to another file
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: the named call gives the optimizer to code outside this file, and that code is not known
    to leave it alone. It may step it once more or set its rate, and the cycle would be wrong.

    Example:

        -from helpers import add_head
        +def add_head(optimizer, head):
        +    optimizer.add_param_group({"params": head.parameters()})

         optimizer = optim.Adam(model.parameters(), lr=1e-3)
         add_head(optimizer, nn.Linear(8, 1))
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()

    What to do: move the function into this file and run again. If it steps the optimizer or sets
    its rate, take that out of it, or build the schedule by hand.

QW130 this is a test
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: it is made in a test: a function `test_...`, a TestCase, or a file `test_*.py`, `*_test.py`
    or `conftest.py`. A test of a schedule must keep it, and the others train too short for one.

    Example:

        def test_training():
            optimizer = optim.Adam(model.parameters(), lr=1e-3)
            for epoch in range(2):
                for batch in loader:
                    ...
                    optimizer.step()

    What to do: nothing. If it is a training run all the same, rename it.

QW131 a partner in the loop cannot get a cycle
    What it does: this optimizer keeps its schedule, or stays without one.

    Why: two optimizers step in one loop, as in a GAN, and the other one was refused, or left out
    by a comment or by `ignore`. One with a cycle beside one without would change the balance
    between the two.

    Example:

         opt_d = optim.Adam(critic.parameters(), lr=2e-4)
         opt_g = optim.Adam(generator.parameters(), lr=2e-4)
         for epoch in range(epochs):
             for i, batch in enumerate(loader):
                 ...
                 opt_d.step()
        -        if should_step(i):
        +        if (i + 1) % 5 == 0:
                     opt_g.step()

    What to do: see what is said of the other one and mend that; then both get theirs. Where it was
    left out, leave this one out too, or neither.

QW150 early stopping cuts the cycle
    What it does: the script is rewritten; the `break` stays.

    Why: the rate falls over the whole run. Half way it is still at 59 % of the peak, and a run
    that stops there never sees the low rates. A high rate can also make validation look worse for
    some epochs, so that patience runs out early.

    Example:

        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
            if validate(model) > best:
                break

    What to do: train a fixed number of epochs and keep the best checkpoint. Or start counting
    patience after about 70 % of the epochs, where the rate is down to 25 % of the peak.

QW151 some batches may not step
    What it does: the script is rewritten; the skip stays.

    Why: a `continue`, a `return`, a `break` or a check for nan may pass a batch over, so the run
    makes fewer steps than were planned. OneCycle does not move on without an optimizer step, so
    the run then ends before the last, lowest rates.

    Example:

        for epoch in range(epochs):
            for batch in loader:
                if batch is None:
                    continue
                ...
                optimizer.step()

    What to do: nothing, if it is rare. If many batches are passed over every epoch, filter them in
    the dataset, or write the real number of steps into `steps_per_epoch`.

QW152 a checkpoint lacks the schedule
    What it does: the script is rewritten; this checkpoint is saved or loaded as before.

    Why: the optimizer's state is saved where the schedule cannot be reached, or a run that starts
    at a later epoch cannot be told where in the cycle that is. Resumed, it starts its cycle anew:
    the rate jumps, and does not get down to the end.

    Example:

        def save(model, optimizer):
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "a.pt")

        def main():
            optimizer = optim.Adam(model.parameters(), lr=1e-3)
            for epoch in range(epochs):
                for batch in loader:
                    ...
                    optimizer.step()
                save(model, optimizer)

    What to do: nothing, if you never resume. Else pass the schedule to that function, save
    `scheduler.state_dict()` beside the optimizer's, and load it after the optimizer's. Or call
    `scheduler.resume_at(optimizer steps done)` before the loop over epochs.

QW153 an option shapes the schedule no longer
    What it does: the script is rewritten; the option stays, so that old command lines still run.

    Why: the option fed the old schedule and has no effect now, or only sets the peak. Somebody who
    passes it would believe otherwise.

    Example:

        scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=args.patience)
        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
            scheduler.step(validate(model))

    What to do: remove the option, or say in its help what it still does. The share of the run that
    climbs is `pct_start` of OneCycle.

QW154 older checkpoints hold another schedule
    What it does: the script is rewritten; its line that loads the schedule's state stays.

    Why: checkpoints of older runs hold the state of the old schedule. OneCycle refuses it with a
    ValueError; torch's OneCycleLR would take it silently and count on from the wrong step.

    Example:

        scheduler = optim.lr_scheduler.StepLR(optimizer, 10)
        checkpoint = torch.load("last.pt")
        scheduler.load_state_dict(checkpoint["scheduler"])
        for epoch in range(checkpoint["epoch"], epochs):
            for batch in loader:
                ...
                optimizer.step()
            scheduler.step()

    What to do: finish older runs with the old version of the script. Or, for one such run, leave
    the load out and call `scheduler.resume_at(optimizer steps done)`.

QW155 OneCycleLR is stepped by epoch
    What it does: nothing; the script's own OneCycleLR stays (QW100).

    Why: OneCycleLR was planned in optimizer steps, but its `step()` stands outside the loop over
    batches. If `total_steps` counts batches, the run ends near the first, low rate.

    Example:

        -scheduler = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=1000)
         for epoch in range(epochs):
             for batch in loader:
                 ...
                 optimizer.step()
        -    scheduler.step()

    What to do: move `scheduler.step()` to directly after `optimizer.step()`. Or remove OneCycleLR
    and its steps, as above, and run again. If `total_steps` is the number of epochs on purpose,
    it is a cycle by epoch: keep it.

QW156 a pairwise loss
    What it does: the script is rewritten, and the report asks for a comparison.

    Why: on MovieLens-100k, 20 epochs, a two-tower model trained by BPR lost 9 % NDCG@10 with a
    peak of 1 x the old rate. Beside a pairwise ranking term, 3 x gave 0.228 against 0.224 with a
    two-tower model and 0.234 against 0.250 with NeuMF (2 seeds): no gain on short runs.

    Example:

        for epoch in range(epochs):
            for users, liked, other in loader:
                optimizer.zero_grad()
                gap = model(users, liked) - model(users, other)
                loss = -nn.functional.logsigmoid(gap).mean()
                loss.backward()
                optimizer.step()

    What to do: train once with the rewrite and once without, and compare the ranking metric. Keep
    the old schedule where it wins: exclude the file, or `--ignore onecycle` for it.

QW157 the script's own schedule class is left unused
    What it does: the script is rewritten; the class stays in the file.

    Why: nothing in this file makes one any more, but another file may import it.

    Example:

        class Warmup:
            def __init__(self, optimizer, peak):
                self.optimizer = optimizer
                self.peak = peak
                self.count = 0

            def step(self):
                self.count += 1
                for group in self.optimizer.param_groups:
                    group["lr"] = self.peak * min(1.0, self.count / 20)

        scheduler = Warmup(optimizer, 1e-3)
        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
                scheduler.step()

    What to do: remove the class if nothing imports it.

QW158 the old schedule had a warm-up
    What it does: the script is rewritten with a peak of 1 x the optimizer's own rate, not 3 x.

    Why: who writes a warm-up chooses the optimizer's rate as the highest one of the run. The factor
    of 3 was measured where a rate was constant or fell from the start.

    Example:

        scheduler = optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
        for epoch in range(epochs):
            for batch in loader:
                ...
                optimizer.step()
            scheduler.step()

    What to do: nothing, or try a higher peak by `--max-lr-factor` and compare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from quickwins_codemod.companion import Companion, Site, Unreachable
from quickwins_codemod.edits import (
    AddDictEntry,
    Edit,
    InsertAfter,
    InsertBefore,
    Remove,
    RemoveImport,
    Replace,
)
from quickwins_codemod.script.facts import (
    Problem,
    Restore,
    Scheduler,
    Script,
    Stepping,
    Training,
    Use,
)
from quickwins_codemod.transform import Finding, Plan, Refusal, verdict_at
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.placing import Place

RULE = "onecycle"
NEEDLES = (b".step(", b"lr_scheduler")

_RUNTIME = "OneCycle"
#: What a comment speaks of that has no sense without the old schedule.
_STALE = (
    r"plateau|cosine|anneal|restart|decay|reduc|every \d|step.?lr|warm.?up|linear|exponential"
    r"|polynomial|gamma|patience|halve|drop"
)
_TOPIC = rf"schedul|learning.?rate|\brate\b|\blr\b|{_STALE}"
_KEPT_USES = {"get_last_lr", "state_dict", "load_state_dict", "optimizer", "__class__", "read", "test"}


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.onecycle]` or as flags."""

    max_lr_factor: float = field(
        default=3.0,
        metadata={"help": "Peak as a multiple of each group's own learning rate.", "above": 0.0},
    )
    max_lr: float | None = field(
        default=None, metadata={"help": "Peak itself, instead of a multiple.", "above": 0.0}
    )
    pct_start: float = field(
        default=0.1,
        metadata={"help": "Share of the run that climbs to the peak.", "min": 0.0, "max": 1.0},
    )
    div_factor: float = field(
        default=25.0, metadata={"help": "First rate = peak / this.", "min": 1.0}
    )


def plan(script: Script, options: Options) -> Plan:
    """Plan one schedule for every optimizer whose steps can be counted from the source."""
    if script.manager is not None and (script.trainings or script.foreign_steps):
        manager = script.manager
        refusal = Refusal(
            "QW004", manager.node, f"the training loop is managed by {manager.detail}",
            f"set the schedule in {manager.detail}'s own configuration",
        )
        return Plan((refusal.finding(RULE, script),))
    found: list[Finding] = []
    refused: list[Training] = []
    for training in script.trainings:
        try:
            found.append(_Rewrite(script, training, options).finding())
        except Refusal as refusal:
            refused.append(training)
            found.append(refusal.finding(RULE, script))
    found = _without_lone_partners(script, found, refused)
    for step, sets_rate in script.foreign_steps:
        if sets_rate:
            refusal = Refusal(
                "QW124", step,
                "this class sets the rate and steps the optimizer in one",
                "let it set the rate only, or replace it by the plain optimizer",
            )
        else:
            refusal = Refusal(
                "QW128", step,
                "where the optimizer that steps here is made cannot be followed from this file",
                "build the schedule where the optimizer is made, and step it after this line",
            )
        found.append(refusal.finding(RULE, script))
    if not script.foreign_steps:
        for call in script.unnamed:
            refusal = Refusal(
                "QW127", call, "the optimizer made here has no name of its own, so its steps are not known",
                "assign it to a variable and run again",
            )
            found.append(refusal.finding(RULE, script))
    return Plan(tuple(found))


def _without_lone_partners(
    script: Script, found: list[Finding], refused: Sequence[Training]
) -> list[Finding]:
    """Optimizers that step in one loop get a cycle together or not at all, as in a GAN."""
    kept = []
    for finding, training in zip(found, script.trainings):
        if finding.edits:
            beside = _partners(script, training)
            lone = next((o for o in beside if o in refused), None)
            if lone is not None:
                finding = Finding((_lone(
                    script, training, lone, "cannot get a cycle",
                    "mend what is said of that one, and both get theirs",
                ),))
            else:
                finding = replace(finding, partners=tuple(
                    (verdict, _lone(
                        script, training, other, "gets no cycle, since that is left out",
                        "leave out both, or neither",
                    ))
                    for other, theirs in zip(script.trainings, found) if other in beside
                    for verdict in theirs.applied
                ))
        kept.append(finding)
    return kept


def _partners(script: Script, training: Training) -> list[Training]:
    """The other optimizers that step in the loop of this one."""
    if not isinstance(training.stepping, Stepping):
        return []
    loop = training.stepping.batches.node
    return [
        other for other in script.trainings
        if other is not training and any(script.tree.is_within(s, loop) for s in other.sites)
    ]


def _lone(script: Script, training: Training, partner: Training, why: str, hint: str) -> Verdict:
    name = partner.optimizer.reference
    return verdict_at(
        RULE, script, "refused", "QW131", training.optimizer.creations[0],
        f"`{name}`, which steps in the same loop, {why}", hint,
    )


class _Rewrite:
    """The plan for one optimizer."""

    def __init__(self, script: Script, training: Training, options: Options) -> None:
        self.script, self.training, self.options = script, training, options
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self._say = partial(verdict_at, RULE, script)
        self.optimizer = training.optimizer
        self.companion = Companion(script, training, "scheduler")
        self.missing = ""
        self.edits: list[Edit] = []
        self.notes: list[Verdict] = []

    def finding(self) -> Finding:
        schedulers = self.training.schedulers
        if schedulers and all(s.is_one_cycle for s in schedulers):
            return self._already(schedulers[0])
        stepping = self._stepping()
        self._check_optimizer()
        self._check_stops(stepping)
        old = self._replaceable(schedulers)
        peak = self._peak(old)
        site = self._site(old, stepping, peak)
        self._build(old, site)
        self._steps(old, stepping, site)
        self._drop_unused_imports(old)
        self._saved(old, stepping, site)
        self._logged(stepping, site)
        self._remarks(old, stepping, site)
        return Finding(
            (self._applied(old, stepping), *self.notes),
            tuple(self.edits),
            frozenset([_RUNTIME]),
        )

    # -- what is there ---------------------------------------------------------------------

    def _already(self, scheduler: Scheduler) -> Finding:
        verdicts = [
            self._say("already", "QW100", scheduler.creation, f"{scheduler.class_name} is in place")
        ]
        stepping = self.training.stepping
        if isinstance(stepping, Stepping) and scheduler.class_name == "OneCycleLR":
            loop = stepping.batches.node
            late = [u for u in scheduler.steps if not self.tree.is_within(u.node, loop)]
            for use in late:
                if self.tree.function(use.node) in {f.function for f in stepping.frames}:
                    verdicts.append(self._say(
                        "warning", "QW155", use.node,
                        "OneCycleLR is stepped once an epoch, not once per optimizer step",
                        "move the step after optimizer.step(), or remove OneCycleLR and run again",
                    ))
        return Finding(tuple(verdicts))

    def _stepping(self) -> Stepping:
        stepping = self.training.stepping
        if isinstance(stepping, Problem):
            raise self._problem(stepping)
        outer = stepping.epochs.node if stepping.epochs else stepping.batches.node
        if stepping.epochs is None and self._is_inner_loop(outer):
            raise Refusal(
                "QW117", self.optimizer.creations[0],
                "the optimizer lives for one inner loop only, as in meta-learning",
                "nothing to do; a cycle over so few steps has no use",
            )
        return stepping

    def _is_inner_loop(self, loop: cst.CSTNode) -> bool:
        """The optimizer is made anew inside another loop, for one loop over a few steps."""
        made = self.optimizer.statement
        return any(
            type(a).__name__ in ("For", "While")
            for a in self.tree.ancestors(made)
            if self.tree.is_within(loop, a)
        )

    def _problem(self, problem: Problem) -> Refusal:
        code, message, hint = _PROBLEMS[problem.kind]
        if problem.kind == "unknown-length" and "(" in problem.detail:
            hint = "iterate over something that has a len(), such as a DataLoader over a list"
        return Refusal(code, problem.node, message.format(detail=problem.detail), hint)

    def _check_optimizer(self) -> None:
        if self.script.is_test or self.placing.is_test(self.optimizer.statement):
            raise Refusal(
                "QW130", self.optimizer.creations[0], "this is a test, not a training run", "nothing to do"
            )
        if self.optimizer.class_name == "LBFGS":
            raise Refusal(
                "QW125", self.optimizer.creations[0],
                "LBFGS searches its own step length, so a schedule on top has no use",
                "nothing to do",
            )
        for write in self.training.manual_rates:
            raise Refusal(
                "QW120", write, "the learning rate is also set by hand here, against any schedule",
                "remove this statement (and the function it is in) and run again",
            )
        if self.training.handed_on is not None:
            call, about_rate = self.training.handed_on
            name = self.tree.code(call.func)
            if about_rate:
                raise Refusal(
                    "QW120", call, f"`{name}` is given the optimizer, and seems to set its rate",
                    "remove this call, if it does, and run again",
                )
            raise Refusal(
                "QW129", call,
                f"`{name}` is given the optimizer; whether it steps it or sets its rate is not known",
                "keep that code in this file, or replace the schedule by hand",
            )

    def _replaceable(self, schedulers: Sequence[Scheduler]) -> tuple[Scheduler, ...]:
        """The schedules in the way, each with no use that OneCycle cannot serve."""
        bound = {s.variable for s in schedulers}
        if len(schedulers) > 1 and len(bound) < len(schedulers):
            raise Refusal(
                "QW121", schedulers[1].creation,
                "the schedule is chosen at run time, so one of several would be replaced",
                "keep one schedule (or none) in the script and run again",
            )
        for scheduler in schedulers:
            if scheduler.class_name == "SWALR":
                raise Refusal(
                    "QW121", scheduler.creation,
                    "SWALR holds the rate for weight averaging, which one cycle would undo",
                    "keep it, or remove the averaging and run again",
                )
            if scheduler.variable is None or not self.placing.is_plain_assignment(
                scheduler.statement, scheduler.creation
            ):
                raise Refusal(
                    "QW127", scheduler.creation,
                    f"{scheduler.class_name} is not simply assigned to a name, so its uses are not known",
                    "assign it to a variable of its own and run again",
                )
            if scheduler.is_one_cycle:
                raise Refusal(
                    "QW121", scheduler.creation, "another schedule stands beside OneCycle",
                    "remove one of the two",
                )
            for part in (scheduler, *scheduler.children):
                self._check_uses(part, is_part=part is not schedulers[-1])
        return tuple(schedulers)

    def _check_uses(self, scheduler: Scheduler, is_part: bool) -> None:
        for use in scheduler.uses:
            if use.kind == "step":
                continue
            if use.kind == "step-value":
                raise Refusal(
                    "QW124", use.node, "the result of scheduler.step() is used",
                    "read the rate by scheduler.get_last_lr() instead",
                )
            if use.kind == "escapes":
                raise Refusal(
                    "QW122", use.node, f"{scheduler.class_name} is handed on to where it cannot be followed",
                    "keep the scheduler in this file, or replace it by hand",
                )
            if use.kind == "last_epoch" and not is_part:
                raise Refusal(
                    "QW122", use.node, "`.last_epoch` would count steps, not epochs",
                    "use the loop's own epoch instead",
                )
            if use.kind not in _KEPT_USES or is_part:
                raise Refusal(
                    "QW122", use.node,
                    f"`.{use.kind}` of {scheduler.class_name} has no counterpart in OneCycle",
                    "remove this use and run again",
                )

    def _peak(self, old: Sequence[Scheduler]) -> str:
        """The argument that sets the peak."""
        if self.options.max_lr is not None:
            return f"max_lr={self.options.max_lr!r}"
        for scheduler in old:
            peak = self.script.peak(scheduler, self.optimizer)
            if peak is None:
                raise Refusal(
                    "QW123", scheduler.creation,
                    f"the highest rate that {scheduler.class_name} reaches cannot be read from the source",
                    "set max_lr in [tool.quickwins.onecycle] or by --max-lr",
                )
            if peak == "own" and self.options.max_lr_factor == Options().max_lr_factor:
                self.notes.append(self._say(
                    "warning", "QW158", scheduler.creation,
                    f"{scheduler.class_name} climbed to the optimizer's own rate, so the peak stays 1 x that",
                    "give --max-lr-factor to choose another",
                ))
                return "max_lr_factor=1.0"
            if peak and peak != "own":
                return f"max_lr={peak}"
        return f"max_lr_factor={self.options.max_lr_factor!r}"

    # -- where it goes -----------------------------------------------------------------------

    def _site(self, old: Sequence[Scheduler], stepping: Stepping, peak: str) -> Site:
        outer = stepping.epochs.node if stepping.epochs else stepping.batches.node
        for candidate in self._candidates(old, stepping, outer):
            arguments = self._arguments(stepping, candidate.place, outer, peak)
            if arguments is not None:
                candidate.arguments = arguments
                return candidate
        raise Refusal(
            "QW119", old[0].creation if old else self.optimizer.creations[0],
            f"`{self.missing}` is not known where a schedule could be built, or changes during the run"
            if self.missing
            else "there is no place that every run passes between the optimizer and the loop",
            "set it once, above the optimizer (or the schedule), and run again"
            if self.missing
            else "make the optimizer in the function that holds the loop, or just above its call",
        )

    def _candidates(
        self, old: Sequence[Scheduler], stepping: Stepping, outer: cst.CSTNode
    ) -> Iterator[Site]:
        outer_function = self.tree.function(outer)
        if old:
            main = old[-1]
            function = self.tree.function(main.statement)
            if not self.placing.always_runs(main.statement, outer, stepping.frames):
                raise Refusal(
                    "QW121", main.creation, "the schedule is only built under a condition",
                    "build it always (or never) and run again",
                )
            yield Site("replace", main.statement, self.placing.before(main.statement), main.reference,
                        self._optimizer_argument(main))
            if function is outer_function:
                early = [u for s in old for u in s.uses
                         if self.tree.order[u.node] < self.tree.order[outer]]
                if not early:
                    yield Site("before", outer, self.placing.before(outer), main.reference,
                                self._optimizer_argument(main))
            elif self._only_used_in(old, stepping) and "." in main.reference:
                yield Site("late", outer, self.placing.before(outer), main.reference,
                            self._optimizer_argument(main), declared=main.statement)
            return
        made = self.placing.binding_statement(self.optimizer.statement, self.optimizer.variable)
        function = self.tree.function(made)
        functions = [function, *(f.function for f in stepping.frames)]
        reference = self.companion.fresh_reference(functions)
        if reference is None:
            return
        if self.placing.always_runs(made, outer, stepping.frames):
            yield Site(
                "after", made, self.placing.after(made), reference, self.optimizer.reference
            )
        if function is outer_function:
            yield Site("before", outer, self.placing.before(outer), reference, self.optimizer.reference)
        elif "." in self.optimizer.reference and self.names.method_class(outer_function) is not None:
            yield Site("late", outer, self.placing.before(outer), reference,
                        self.optimizer.reference, declared=made)

    def _optimizer_argument(self, scheduler: Scheduler) -> str:
        """The optimizer as the old schedule was given it."""
        made = frozenset(self.optimizer.creations)
        for argument in scheduler.creation.args:
            if self.names.creations(argument.value) & made:
                return self.tree.code(argument.value)
        return self.optimizer.reference

    def _only_used_in(self, old: Sequence[Scheduler], stepping: Stepping) -> bool:
        inside = {frame.function for frame in stepping.frames}
        return all(self.tree.function(u.node) in inside for s in old for u in s.uses)

    def _arguments(
        self, stepping: Stepping, place: Place, outer: cst.CSTNode, peak: str
    ) -> list[str] | None:
        frames = stepping.frames
        batches = self.placing.count_at(stepping.batches.count, frames, place, outer)
        limit = (
            self.placing.count_at(stepping.limit, frames, place, outer) if stepping.limit else ""
        )
        epochs = (
            self.placing.count_at(stepping.epochs.count, frames, place, outer)
            if stepping.epochs
            else "1"
        )
        for known, count in (
            (batches, stepping.batches.count), (epochs, stepping.epochs and stepping.epochs.count),
            (limit, stepping.limit),
        ):
            if known is None:
                self.missing = self.placing.count_code(count)
                return None
        boundary = stepping.boundary
        divisor = ""
        if boundary.divisor is not None:
            text = self.placing.expression_at(boundary.divisor, boundary.frame, frames, place, outer)
            if text is None:
                self.missing = self.tree.code(boundary.divisor)
                return None
            divisor = self.placing.operand(text)
        one, whole = self.placing.operand(batches), batches
        if stepping.epochs:
            whole = f"{one} * {self.placing.operand(epochs)}"
        per_epoch = {
            "every": batches,
            "floor": f"{one} // {divisor}",
            "ceil": f"({one} + {divisor} - 1) // {divisor}",
            "start": f"({one} + {divisor} - 1) // {divisor}",
            "counter": f"{one} * {self.placing.operand(epochs)} // {divisor}",
        }[boundary.kind]
        if limit:
            counts = [f"total_steps=min({whole}, {limit})"]
        elif stepping.epochs is None or boundary.kind == "counter":
            counts = [f"total_steps={per_epoch}"]
        else:
            counts = [f"epochs={epochs}", f"steps_per_epoch={per_epoch}"]
        extra = []
        if self.options.pct_start != 0.1:
            extra.append(f"pct_start={self.options.pct_start!r}")
        if self.options.div_factor != 25.0:
            extra.append(f"div_factor={self.options.div_factor!r}")
        return [*counts, peak, *extra]

    # -- the edits -----------------------------------------------------------------------------

    def _build(self, old: Sequence[Scheduler], site: Site) -> None:
        name = self.script.runtime_name(_RUNTIME)
        code = _call(
            f"{site.reference} = {name}", [site.optimizer, *site.arguments],
            self.tree.position(site.statement).column - 1,
            self.companion.line_length,
            self.tree.module.default_indent,
        )
        gone: list[cst.CSTNode] = []
        for scheduler in old:
            for part in (scheduler, *scheduler.children):
                if part.statement not in gone:
                    gone.append(part.statement)
        for statement in gone:
            if statement is site.statement and site.kind == "replace":
                self.edits.append(Replace(statement, code, _STALE))
            elif statement is site.declared:
                self.edits.append(Replace(statement, f"{site.reference} = None\n", _STALE))
            else:
                self.edits.append(Remove(statement, _TOPIC))
        if site.kind == "after":
            self.edits.append(InsertAfter(site.statement, code))
        elif site.kind in ("before", "late"):
            self.edits.append(InsertBefore(site.statement, code))
        if site.declared is not None and not old:
            self.edits.append(InsertAfter(site.declared, f"{site.reference} = None\n"))
        self._drop_dead_locals(gone, code)

    def _drop_unused_imports(self, old: Sequence[Scheduler]) -> None:
        """Names that only the old schedule needed: `from torch... import StepLR`."""
        gone = [e.node for e in self.edits if isinstance(e, (Remove, Replace))]
        gone += self.placing.emptied([e.node for e in self.edits if isinstance(e, Remove)])
        for scheduler in old:
            for part in (scheduler, *scheduler.children):
                found = self.placing.import_needed_only_by(part.creation.func, gone)
                if found is not None:
                    edit = RemoveImport(*found)
                    if edit not in self.edits:
                        self.edits.append(edit)

    def _drop_dead_locals(self, gone: list[cst.CSTNode], code: str) -> None:
        """Locals that only fed a removed schedule go with it: `total_steps = ...`."""
        seen = list(gone)
        for statement in seen:
            for variable in sorted(self.placing.locals_read(statement), key=lambda v: v.name):
                if variable.name in code:
                    continue
                dead = self.placing.is_dead_without(variable, seen)
                if dead is not None and dead not in seen:
                    seen.append(dead)
                    self.edits.append(Remove(dead))

    def _steps(self, old: Sequence[Scheduler], stepping: Stepping, site: Site) -> None:
        anchors = self._anchors(stepping, site)
        kept = self._kept_steps(old, anchors, stepping)
        for scheduler in old:
            for use in scheduler.steps:
                if use not in kept:
                    self._check_switch(use, scheduler, stepping)
                    self._drop_step(use, stepping, site)
        if kept:
            return
        reference, guarded = self._reach(old, stepping, site)
        code = f"{reference}.step()\n"
        if guarded:
            code = f"if {reference} is not None:\n    {reference}.step()\n"
        for anchor in anchors:
            self.edits.append(InsertAfter(self.placing.after_update(anchor), code))

    def _anchors(self, stepping: Stepping, site: Site) -> tuple[cst.CSTNode, ...]:
        """Where the steps go: beside the optimizer's, also in a function that the loop calls, where
        the schedule is seen there without being passed on."""
        home = self.tree.function(site.statement)
        for anchor in stepping.deep:
            function = self.tree.function(anchor)
            if "." in site.reference:
                owner = self.names.method_class(function)
                if owner is None or owner is not self.names.method_class(home):
                    return stepping.anchors
            elif function is not home and (
                not self.companion.sees(function, home, site.reference)
                or self.placing.is_parameter(self._stepped_node(stepping), function)
            ):
                return stepping.anchors
        return stepping.deep

    def _check_switch(self, use: Use, scheduler: Scheduler, stepping: Stepping) -> None:
        outer = stepping.epochs.node if stepping.epochs else stepping.batches.node
        switch = self.placing.switch_around(use.node, outer, stepping.sites, [scheduler.creation])
        if switch is not None:
            raise Refusal(
                "QW121", switch, f"`{self.tree.code(switch)}` switches the schedule on and off",
                "build the schedule always (or never) and run again",
            )

    def _kept_steps(
        self, old: Sequence[Scheduler], anchors: Sequence[cst.CSTNode], stepping: Stepping
    ) -> list[Use]:
        """Steps that already stand where OneCycle's belong: after each optimizer step."""
        if len(old) != 1:
            return []
        uses = [u for u in old[0].steps if not self._step_call(u).args]
        found: list[Use] = []
        for anchor in anchors:
            after = [
                u for u in uses
                if any(u.statement is s for s in self.tree.siblings(anchor))
                and self.tree.order[u.statement] > self.tree.order[anchor]
            ]
            found += [u for u in after if u not in found]
            if not after:
                break
        else:
            if len(found) == len(anchors):
                return found
        return []

    def _step_call(self, use: Use) -> cst.Call:
        return self.tree.parents[self.tree.parents[use.node]]

    def _drop_step(self, use: Use, stepping: Stepping, site: Site) -> None:
        if use.statement in [e.node for e in self.edits if isinstance(e, Remove)]:
            return
        effects = self.placing.effects_of_arguments(self._step_call(use))
        if effects is not None:
            self.edits.append(Replace(use.statement, f"{effects}\n"))
        else:
            self.edits.append(Remove(use.statement, _TOPIC))
        epochs = stepping.epochs
        if epochs is None or not self.tree.is_within(use.node, epochs.node):
            return
        comparison = self.training.records.comparison(use, epochs.node)
        if comparison is not None:
            rate = self.tree.code(comparison.after.value)
            self.edits.append(Remove(comparison.before, _TOPIC))
            self.edits.append(InsertBefore(
                self.placing.first_statement(epochs.node), f"{comparison.name} = {rate}\n"
            ))

    def _reach(
        self, old: Sequence[Scheduler], stepping: Stepping, site: Site
    ) -> tuple[str, bool]:
        """How the schedule is named where the optimizer steps, and whether it may be None there."""
        loop_function = stepping.frames[0].function
        given = self._given(old, loop_function)
        if given is not None and self.tree.function(site.statement) is not loop_function:
            return given
        try:
            reference, guarded, edits = self.companion.reach(
                site, stepping.frames, self._stepped_node(stepping)
            )
        except Unreachable as unreachable:
            message, hint = _OUT_OF_REACH[unreachable.why]
            raise Refusal(
                "QW119", unreachable.node, message.format(name=unreachable.name), hint
            ) from None
        self.edits += edits
        return reference, guarded

    def _given(
        self, old: Sequence[Scheduler], function: cst.CSTNode
    ) -> tuple[str, bool] | None:
        """The parameter by which the function already receives the old schedule."""
        made = {s.creation for s in old}
        for name, optional in self.placing.parameters(function):
            values = self.names.parameter_values(function, name)
            if any(self.names.creations(v) & made for v in values):
                return name, optional
        return None

    # -- what is saved and logged ----------------------------------------------------------------

    def _saved(self, old: Sequence[Scheduler], stepping: Stepping, site: Site) -> None:
        records, made = self.training.records, frozenset(s.creation for s in old)
        keys = {}
        for checkpoint in self.training.checkpoints:
            if made and records.saves(checkpoint.mapping, made):
                continue
            statement = self.tree.statement(checkpoint.mapping)
            key = self.companion.key(checkpoint.key)
            value = self.companion.state(checkpoint.element.value, statement, site)
            if value is None:
                self.notes.append(self._say(
                    "warning", "QW152", checkpoint.element,
                    "this checkpoint saves the optimizer but cannot reach the schedule",
                    "save scheduler.state_dict() beside it, or a resumed run starts its cycle anew",
                ))
                continue
            quote = checkpoint.quote
            keys[checkpoint.key] = key
            code = f"{quote}{key}{quote}: {value}"
            hang = self.placing.hang(checkpoint.mapping, code, self.companion.line_length)
            self.edits.append(AddDictEntry(checkpoint.mapping, checkpoint.element, code, hang))
        if old and self.training.scheduler_restored:
            self.notes.append(self._say(
                "warning", "QW154", old[-1].creation,
                "checkpoints saved so far hold another schedule's state, which OneCycle refuses to load",
                "resume older runs with the old version of the script",
            ))
            return
        loaded = [self._restored(r, keys, stepping, site) for r in self.training.restores]
        if not any(loaded) and stepping.epochs is not None and stepping.epochs.done is not None:
            self._resumed(stepping, site)

    def _restored(
        self, restore: Restore, keys: dict[str, str], stepping: Stepping, site: Site
    ) -> bool:
        """Load the schedule's state beside the optimizer's, where a run goes on at its old epoch.

        Where the epochs count from the start again, a loaded cycle would be at its end already.
        """
        if stepping.epochs is None or stepping.epochs.done is None:
            return False
        reference = self.companion.visible(restore.statement, site)
        key = keys.get(restore.key)
        if reference is None or key is None or site.declared is not None:
            return False
        entry = f"{restore.source}[{restore.quote}{key}{restore.quote}]"
        self.edits.append(InsertAfter(
            restore.statement,
            f"if {restore.quote}{key}{restore.quote} in {restore.source}:\n"
            f"    {reference}.load_state_dict({entry})\n"
            f"{self._fast_forward(restore, reference, stepping, site)}",
        ))
        return True

    def _fast_forward(
        self, restore: Restore, reference: str, stepping: Stepping, site: Site
    ) -> str:
        """For a checkpoint from before the rewrite: as many steps as its epochs made."""
        start = stepping.epochs.done.parts[0]
        variable = self.names.variable(start)
        done = variable and self.placing.start_in(variable, restore.source, restore.statement)
        per_epoch = self._steps_per_epoch(site)
        if not done or per_epoch is None:
            self.notes.append(self._say(
                "warning", "QW152", restore.statement,
                "a checkpoint from before holds no state of OneCycle, so its run starts the cycle anew",
                "call scheduler.resume_at(optimizer steps done) for it",
            ))
            return ""
        less = "".join(p for p in stepping.epochs.done.parts[1:] if isinstance(p, str))
        operand = self.placing.operand
        return (
            "else:  # saved before OneCycle was there\n"
            f"    {reference}.resume_at({operand(done + less)} * {operand(per_epoch)})\n"
        )

    def _steps_per_epoch(self, site: Site) -> str | None:
        return next(
            (a.partition("=")[2] for a in site.arguments if a.startswith("steps_per_epoch=")), None
        )

    def _resumed(self, stepping: Stepping, site: Site) -> None:
        """A run that starts at a later epoch, without the schedule's state, starts later in it."""
        epochs = stepping.epochs
        outer = epochs.node
        place = self.placing.before(outer)
        done = self.placing.count_at(epochs.done, stepping.frames, place, outer)
        per_epoch = self._steps_per_epoch(site)
        same = self.tree.function(outer) is self.tree.function(site.statement)
        if done is None or per_epoch is None or not same:
            self.notes.append(self._say(
                "warning", "QW152", outer,
                "a run that starts at a later epoch starts its cycle anew",
                "call scheduler.resume_at(optimizer steps done) before this loop",
            ))
            return
        steps = f"{self.placing.operand(done)} * {self.placing.operand(per_epoch)}"
        self.edits.append(InsertBefore(outer, f"{site.reference}.resume_at({steps})\n"))

    def _logged(self, stepping: Stepping, site: Site) -> None:
        """Log the rate per batch where the script logs per batch and does not log it yet."""
        if self.training.logs_rate or not self.training.batch_logs:
            return
        log = self.training.batch_logs[0]
        if self.tree.function(log.mapping) is not stepping.frames[0].function:
            return
        optimizer = self.tree.code(self._stepped_node(stepping))
        key = f"{log.quote}{log.prefix}learning_rate{log.quote}"
        inner = log.quote if log.quote in ("'", '"') else '"'
        code = f"{key}: {optimizer}.param_groups[0][{inner}lr{inner}]"
        hang = self.placing.hang(log.mapping, code, self.companion.line_length)
        self.edits.append(AddDictEntry(log.mapping, None, code, hang))

    def _stepped_node(self, stepping: Stepping) -> cst.BaseExpression:
        """The expression that is the optimizer where it steps."""
        call = stepping.sites[0]
        receiver = call.func.value
        made = frozenset(self.optimizer.creations)
        return receiver if self.names.creations(receiver) & made else call.args[0].value

    # -- what is said ------------------------------------------------------------------------------

    def _applied(self, old: Sequence[Scheduler], stepping: Stepping) -> Verdict:
        if old:
            names = " and ".join(dict.fromkeys(s.class_name for s in old))
            return self._say(
                "applied", "QW101", old[-1].creation,
                f"{names} replaced by OneCycle",
            )
        return self._say(
            "applied", "QW102", self.optimizer.creations[0],
            f"OneCycle added for {self.optimizer.class_name or 'the optimizer'}",
        )

    def _check_stops(self, stepping: Stepping) -> None:
        """A stop that waits for a low rate would come at once: one cycle starts low."""
        for stop in (*stepping.early_stops, *stepping.skips):
            if self.training.records.depends_on_rate(stop):
                raise Refusal(
                    "QW122", stop, "the run ends here by its learning rate, which starts low in one cycle",
                    "end it by epochs or by a metric and run again",
                )

    def _remarks(self, old: Sequence[Scheduler], stepping: Stepping, site: Site) -> None:
        for stop in stepping.early_stops[:1]:
            self.notes.append(self._say(
                "warning", "QW150", stop,
                "early stopping may end the run while the rate is still high",
                "train a fixed number of epochs, or count patience only after 70 % of them",
            ))
        pairwise = self.training.records.pairwise_loss(stepping.batches.node)
        if pairwise is not None:
            self.notes.append(self._say(
                "warning", "QW156", pairwise,
                "with pairwise losses one cycle gave no gain on the short runs where it was measured",
                "compare a run with and one without before you keep it",
            ))
        for skip in stepping.skips[:1]:
            self.notes.append(self._say(
                "warning", "QW151", skip,
                "some batches may not step, so the cycle may end before its last rate",
                "nothing, if that is rare",
            ))
        for scheduler in old:
            if scheduler.custom is not None:
                self.notes.append(self._say(
                    "warning", "QW157", scheduler.custom,
                    f"class {scheduler.class_name} is not used by this script any more; it stays, "
                    "since other files may import it",
                    "remove it if nothing does",
                ))
            for option in self._dead_options(scheduler):
                self.notes.append(self._option_note(option, scheduler, site))

    def _option_note(self, option: str, scheduler: Scheduler, site: Site) -> Verdict:
        if option in " ".join(site.arguments):
            return self._say(
                "warning", "QW153", scheduler.creation,
                f"`{option}` still sets the peak, but no longer how the schedule runs",
                "say so in the option's help; the climb takes pct_start of the run",
            )
        return self._say(
            "warning", "QW153", scheduler.creation, f"`{option}` no longer has an effect here",
            "remove the option, or keep it for older command lines",
        )

    def _dead_options(self, scheduler: Scheduler) -> list[str]:
        """Command-line options that only shaped the old schedule: `args.warmup_steps`."""
        found = []
        for argument in scheduler.creation.args:
            for text in self.placing.attributes_read(argument.value):
                if self._is_schedule_option(text) and text not in found:
                    found.append(text)
        return found

    def _is_schedule_option(self, text: str) -> bool:
        name = text.rpartition(".")[2].lower()
        words = (
            "warm", "patience", "gamma", "step_size", "factor", "t_max", "eta", "milestone", "decay",
            "t_0", "t_mult", "min_lr", "cycle",
        )
        return any(word in name for word in words)


def _call(head: str, arguments: Sequence[str], indent: int, length: int, unit: str) -> str:
    inner = ", ".join(arguments)
    line = f"{head}({inner})"
    if indent + len(line) <= length:
        return line + "\n"
    if indent + 4 + len(inner) <= length:
        return f"{head}(\n{unit}{inner}\n)\n"
    return f"{head}(\n" + "".join(f"{unit}{a},\n" for a in arguments) + ")\n"


_OUT_OF_REACH = {
    "base-class": (
        "the optimizer steps in a base class, which classes without a schedule may share",
        "make the optimizer in the class that holds the loop, or replace by hand",
    ),
    "out-of-reach": (
        "the schedule cannot be reached from the function that steps the optimizer",
        "pass the optimizer as an argument, or keep both in one class",
    ),
    "name-taken": (
        "the name `{name}` already means something in the function that steps the optimizer",
        "rename it and run again",
    ),
}
_PROBLEMS = {
    "no-step": (
        "QW110", "no call in this file steps this optimizer",
        "make the optimizer in the file that holds the loop, or move both together",
    ),
    "no-loop": (
        "QW111", "no loop of this file is seen to run this step, so the number of steps is not known",
        "build the schedule where the loop is, with its number of epochs and batches",
    ),
    "no-epochs": (
        "QW112", "the loop over epochs is not in this file, so the number of steps is not known",
        "build the schedule where the epochs are counted",
    ),
    "while": (
        "QW113", "a while loop has no number of iterations to plan a cycle for",
        "make it a for loop over a range",
    ),
    "unknown-length": (
        "QW114", "the number of batches in `{detail}` cannot be known before the loop",
        "annotate it as a torch DataLoader, or take its len() in the script, if it has one",
    ),
    "iterable-dataset": (
        "QW114", "`{detail}` loads an IterableDataset, so len() of it raises TypeError",
        "use a map-style dataset, or give the dataset a __len__ and the loop a fixed number of batches",
    ),
    "condition": (
        "QW115", "how often the condition `{detail}` lets a step happen is not known",
        "step on every batch, or every k batches by `(i + 1) % k == 0`",
    ),
    "uneven-branches": (
        "QW115", "the branches around the step do not step equally often",
        "let every branch step on the same batches",
    ),
    "comprehension": (
        "QW115", "a comprehension runs the step, which leaves no place for one more statement",
        "write it as a for loop",
    ),
    "made-again": (
        "QW116", "the optimizer is made again in this loop, in some passes only",
        "make it once before the loop, or in every pass",
    ),
    "several-loops": (
        "QW116", "a second loop steps the same optimizer, so one cycle cannot span both",
        "give each loop an optimizer of its own name, or replace the schedule by hand",
    ),
    "several-callers": (
        "QW116", "the function that steps the optimizer is called from several places",
        "call it from one loop, or replace the schedule by hand",
    ),
    "steps-twice": (
        "QW116", "the optimizer steps more than once for one batch here",
        "replace the schedule by hand, with twice the steps",
    ),
    "nested-loops": (
        "QW117", "there are more loops around the step than one over batches and one over epochs",
        "make the optimizer inside the outermost loop, if every pass of it trains anew",
    ),
    "recursion": (
        "QW117", "the function that steps the optimizer calls itself",
        "replace the schedule by hand",
    ),
    "epochs": (
        "QW118", "the epochs are not counted by a range but by `{detail}`",
        "loop over range(epochs)",
    ),
}


def __getattr__(name: str) -> object:
    """Build OneCycleCommand on demand: it imports libcst, which our own start does not."""
    if name != "OneCycleCommand":
        raise AttributeError(name)
    from quickwins_codemod.codemod_command import command

    globals()[name] = command(__name__, name)
    return globals()[name]
