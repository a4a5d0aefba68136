"""Run forward pass and loss under autocast, and scale the backward pass.

What it does: in each training step, the statements from the first forward pass to the loss move
under `with autocast(device):`; every `backward()` is called on the scaled loss; `unscale_` stands
before the first statement that reads gradients (a clip, a norm, `.grad`), once for each optimizer;
`scaler.step(optimizer)` replaces `optimizer.step()`, and one `update()` follows, also where a
condition skips the step. With gradient accumulation, unscaling, step and update happen where the
optimizer steps, and nowhere else. Checkpoints that save the optimizer save the scaler too, and old
checkpoints still load. Mixed precision that is there stays, and is mended: a missing `unscale_`, an
`update()` that may be left out, a backward that is not scaled, autocast around backward (QW303 to
QW306; QW352 to QW355 where that is not shown to be safe); deprecated spellings become torch's
present ones. Values that leave for numpy get `.float()`. Validation stays in full precision, since
half precision makes ties in a ranking; `eval = true` puts it under autocast too (QW307).

`autocast` and `GradScaler` have torch's interfaces and one policy for every device, so that a
script has the same lines everywhere: float16 with a scaler on CUDA, full precision elsewhere. For
one run, the environment variable QUICKWINS_AMP overrides it: `off`, `fp16`, `bf16`, or `auto` for
what the code says. `QUICKWINS_AMP=fp16` or `bf16` takes the half-precision path on a CPU too, to
try it without a GPU.

Why: on a GPU with tensor cores, half precision can save time and memory in matrix products and
convolutions. This project has measured neither: it had no GPU. Embeddings and dot products gain
nothing (QW350). On a CPU without bfloat16 instructions, bf16 was 3 to 5 times slower. Time your
own script before and after.

Example:

     import torch
     from torch import nn
     from torch.utils.data import DataLoader, TensorDataset
    +from quickwins_runtime import GradScaler, autocast

     device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
     data = TensorDataset(torch.randn(256, 8), torch.randn(256, 1))
     loader = DataLoader(data, batch_size=32, shuffle=True)
     model = nn.Linear(8, 1).to(device)
     criterion = nn.MSELoss()
     optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    +scaler = GradScaler(device)

     for epoch in range(10):
         for x, y in loader:
             x, y = x.to(device), y.to(device)
             optimizer.zero_grad()
    -        loss = criterion(model(x), y)
    -        loss.backward()
    +        with autocast(device):
    +            loss = criterion(model(x), y)
    +        scaler.scale(loss).backward()
    +        scaler.unscale_(optimizer)
             nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    -        optimizer.step()
    +        scaler.step(optimizer)
    +        scaler.update()

When it refuses: where forward pass, backward and step cannot be seen together, or where float16
would fail or change what is computed. That training step then stays as it is.

    forward, backward, step apart    QW310, QW311, QW323
    the device is not known          QW312
    the scaler cannot be placed      QW324
    a closure steps                  QW313
    numbers out of float16's range   QW314, QW315
    operations that raise            QW316, QW318, QW321, QW327
    gradients of gradients           QW317
    half precision by hand           QW319
    threads                          QW320
    gradients are read too early     QW322
    the scaler's round stays open    QW325
    a check that a scaler upsets     QW328
    a test, not a training run       QW326
    a framework owns the loop        QW004

Options:

    --eval false  true puts validation and test forward passes under autocast as well

What the emitted lines do on a device is the runtime's policy, above. To leave files out, use
`per-file-ignores` under `[tool.quickwins]`, or `--ignore amp`.

By hand: in a loop that this rule refuses, this is the whole step. Where `quickwins apply` has
placed the runtime, import it from `quickwins_runtime`.

    from quickwins_codemod.runtime import GradScaler, autocast

    scaler = GradScaler(device)
    # ... and for each batch:
    with autocast(device):
        loss = criterion(model(x), y)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)  # only where gradients are clipped or read
    scaler.step(optimizer)
    scaler.update()

Sources:

    https://docs.pytorch.org/docs/stable/notes/amp_examples.html
    https://docs.pytorch.org/docs/stable/amp.html (what runs in which precision)
    Micikevicius et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740
    https://github.com/pytorch/pytorch/issues/61098 (BCELoss under autocast)

QW300 mixed precision is in place
    What it does: nothing for this training step, unless QW302 to QW306 are said of it too. QW352 to
    QW355 say what is wrong with it and is left to you.

    Why: the function that calls `backward()` uses autocast or a scaled loss, or the file calls
    torch's autocast or GradScaler. A second run must find nothing to do.

    Example:

        scaler = torch.amp.GradScaler("cuda")
        for x, y in loader:
            optimizer.zero_grad()
            with torch.autocast("cuda"):
                loss = criterion(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    What to do: nothing. QUICKWINS_AMP does not govern mixed precision that the script brought.

QW301 mixed precision was added
    What it does: forward pass and loss run under autocast, the backward pass is scaled, and the
    scaler steps the optimizer. A function between the scaler and the step gets it as a parameter.

    Why: the loss belongs under autocast, which computes torch's own losses in float32; backward
    and step do not. `quickwins explain amp` says what was and was not measured.

    Example:

         optimizer = optim.Adam(model.parameters(), lr=1e-3)
        +scaler = GradScaler(device)
         for x, y in loader:
             optimizer.zero_grad()
        -    loss = criterion(model(x.to(device)), y.to(device))
        -    loss.backward()
        -    optimizer.step()
        +    with autocast(device):
        +        loss = criterion(model(x.to(device)), y.to(device))
        +    scaler.scale(loss).backward()
        +    scaler.step(optimizer)
        +    scaler.update()

    What to do: read the diff, and compare the loss with a run under `QUICKWINS_AMP=off`, which is
    full precision. On CUDA the first steps may be skipped while the scale is found.

QW302 a deprecated spelling was modernised
    What it does: `torch.cuda.amp` and `torch.cpu.amp` become `torch.amp`, with the device as first
    argument; the other arguments stay.

    Why: torch warns of the old names. Their arguments are not the new ones: `GradScaler(512.0)`
    is a scale there, and would be a device here.

    Example:

        -from torch.cuda.amp import GradScaler, autocast
        +from torch.amp import GradScaler, autocast

        -scaler = GradScaler(512.0)
        +scaler = GradScaler("cuda", 512.0)
         for x, y in loader:
             optimizer.zero_grad()
        -    with autocast():
        +    with autocast("cuda"):
                 loss = criterion(model(x), y)
             scaler.scale(loss).backward()
             scaler.step(optimizer)
             scaler.update()

    What to do: read the diff. `torch.amp.GradScaler` needs torch 2.3; to run on an older one too,
    `--ignore QW302` keeps the old names.

QW303 unscale_ was added
    What it does: `scaler.unscale_(optimizer)` goes before the first statement that reads gradients
    between the scaled backward pass and the scaler's step.

    Why: until then gradients are multiplied by the scale, 65536 at first. A clip at 1.0 then
    leaves almost nothing of them, and a logged norm is the scale's and not the model's.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
             scaler.scale(loss).backward()
        +    scaler.unscale_(optimizer)
             nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             scaler.step(optimizer)
             scaler.update()

    What to do: read the diff. Steps are larger than before where the clip had cut them down, so a
    learning rate that was tuned around the defect may be too high now.

QW304 update() is not left out any more
    What it does: `scaler.update()` moves below the condition that it stood under, or is added before
    a `continue` that went past it.

    Why: `unscale_` has run by then. Where `update()` is left out, the round goes on, and the next
    `unscale_` raises "unscale_() has already been called on this optimizer since the last update()".

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
             scaler.scale(loss).backward()
             scaler.unscale_(optimizer)
             norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             if norm < 100:
                 scaler.step(optimizer)
        -        scaler.update()
        +    scaler.update()

    What to do: read the diff. The script raised before wherever the step was left out.

QW305 a backward call was scaled
    What it does: `scaler.scale()` is called on this loss too, as on the one beside it.

    Why: gradients add up, and the scaler divides all of them by the scale, 65536 at first: what was
    not multiplied by it counted for nothing. Both calls feed one step, and no other.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
                 penalty = model(x).square().mean()
             scaler.scale(loss).backward()
        -    penalty.backward()
        +    scaler.scale(penalty).backward()
             scaler.step(optimizer)
             scaler.update()

    What to do: read the diff. The weight of this loss in training is what the script says now, and
    was next to nothing before, so the weight may have to be tuned again.

QW306 autocast ends before backward
    What it does: the statements from `backward()` on leave the `with`. Where it stood around a whole
    loop, it goes around the forward pass and the loss of each batch.

    Why: torch advises against backward under autocast. A region that goes on over the optimizer's
    step keeps the weights that it has converted: the next forward pass in it runs on old ones.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
        -        scaler.scale(loss).backward()
        -        scaler.step(optimizer)
        -        scaler.update()
        +    scaler.scale(loss).backward()
        +    scaler.step(optimizer)
        +    scaler.update()

    What to do: read the diff. Values in half precision that other calls get there have `.float()`.

QW307 validation runs under autocast
    What it does: with `eval = true` (or `--eval`), forward passes under `no_grad`, `inference_mode` or
    after `eval()` go under autocast with their loss: those of models that this rule's steps train.

    Why: it saves time where training does. Half precision makes ties among close scores, so a ranking
    by them may differ; that is why it is off unless asked for.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
        -    loss = criterion(model(x.to(device)), y.to(device))
        -    loss.backward()
        -    optimizer.step()
        +    with autocast(device):
        +        loss = criterion(model(x.to(device)), y.to(device))
        +    scaler.scale(loss).backward()
        +    scaler.step(optimizer)
        +    scaler.update()
         with torch.no_grad():
        -    print(model(dataset.to(device)).cpu().numpy())
        +    with autocast(device):
        +        print(model(dataset.to(device)).float().cpu().numpy())

    What to do: compare your metrics with those of a run in full precision. BCELoss stays outside.

QW310 the optimizer does not step in this function
    What it does: this training step stays as it is.

    Why: the optimizer that this `backward()` feeds is stepped neither there, nor in a function that
    one statement below it calls and nothing else does. Or it steps in several functions, or is not
    known (kept in a container, made in another file). Or a call beside it runs another backward pass
    or step: one that is not scaled would weigh 1/65536 of the others, without an error.

    Example:

         def update(optimizer):
             optimizer.step()
             return optimizer.param_groups[0]["lr"]

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    print(update(optimizer))
        +    update(optimizer)

    What to do: step in the function that calls `backward()`, or in one that a statement of its own
    calls, as above, with the optimizer in a variable of its own, and run again.

QW311 the forward pass is not found
    What it does: this training step stays as it is.

    Why: no call of a model is seen above `backward()` in its block, on the way to the loss, nor above
    an `if` that asks whether the loss is finite, nor above the one call that gives `backward()` its
    loss. A model is known by its `parameters()`, `train()` or `eval()`. Or another `backward()` or a
    step stands between forward pass and loss, and those must not run under autocast; only what the
    other `backward()` needed itself may stand above it.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             x, y = x.to(device), y.to(device)
        -    for part in (x, x + 1):
        -        loss = criterion(model(part), y)
        -    if x.sum() > 0:
        -        loss.backward()
        +    loss = criterion(model(x), y)
        +    loss.backward()
             optimizer.step()

    What to do: compute prediction and loss in the block that calls `backward()`, all of it before
    the first `backward()`, and run again.

QW312 the device is not known
    What it does: this training step stays as it is.

    Why: autocast needs the type of the device. It is read from `.to(device)` or `.cuda()` in the
    function that trains; a move under a condition does not count. It must be known where the scaler
    is made too, beside the optimizer or before the loop, if need be through the one caller.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
        -    loss = criterion(model(x), y)
        +    loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             optimizer.step()

    What to do: choose the device above the optimizer, move the batch by `.to(device)`, and run
    again. A script that only ever runs on a CPU gains nothing.

QW313 a closure steps the optimizer
    What it does: this training step stays as it is.

    Why: such an optimizer (LBFGS) evaluates the loss inside `step(closure)`, where no scaler can
    look at the gradients first. `scaler.step(optimizer, closure)` passes in torch without an
    error, and trains on scaled gradients.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    optimizer.step(lambda: criterion(model(x.to(device)), y.to(device)))
        +    optimizer.step()

    What to do: use an optimizer that needs no closure. Or write `torch.autocast` with bfloat16
    around the forward pass inside the closure, without a scaler.

QW314 a constant is 0 in float16
    What it does: this training step stays as it is.

    Why: float16 has no positive number below 6e-8, so `log(p + 1e-8)` is `log(p)`, and minus
    infinity where p is 0. Such a constant in a logarithm anywhere in the file counts.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
        -    p = torch.sigmoid(model(x.to(device)))
        -    loss = -(y.to(device) * torch.log(p + 1e-8)).mean()
        +    logits = model(x.to(device))
        +    loss = -(y.to(device) * nn.functional.logsigmoid(logits)).mean()
             loss.backward()
             optimizer.step()

    What to do: use `logsigmoid` or `log_softmax`, as above, and run again; values differ by the
    constant. Or keep full precision.

QW315 a mask value is beyond float16
    What it does: this training step stays as it is.

    Why: float16 ends at 65504, so `masked_fill(mask, -1e9)` on scores in half precision raises
    "value cannot be converted to type at::Half without overflow". It counts anywhere in the file,
    unless no call of the class that holds it gives a mask.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             scores = model(x.to(device))
        -    scores = scores.masked_fill(scores > 9, -1e9)
        +    scores = scores.masked_fill(scores > 9, float("-inf"))
             loss = criterion(scores, y.to(device))
             loss.backward()
             optimizer.step()

    What to do: fill with `float("-inf")`, or with `torch.finfo(scores.dtype).min` where a whole row
    may be masked (a softmax of nothing but -inf is nan), and run again.

QW316 a loss that raises under autocast
    What it does: this training step stays as it is. A BCELoss that stands below the forward pass in
    a statement of its own is no obstacle: it is left outside of autocast, on `.float()` values.

    Why: BCELoss and `binary_cross_entropy` raise under CUDA's autocast (not under the CPU's), and
    here one cannot be taken out: it stands in one statement with the forward pass, or in a model.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
        -    loss = nn.functional.binary_cross_entropy(model(x.to(device)), y.to(device))
        +    p = model(x.to(device))
        +    loss = nn.functional.binary_cross_entropy(p, y.to(device))
             loss.backward()
             optimizer.step()

    What to do: give the loss a statement of its own, as above, and run again. Or return logits from
    the model and use BCEWithLogitsLoss; then mend all that reads its output as a probability.

QW317 gradients of gradients
    What it does: this training step stays as it is.

    Why: `autograd.grad` or `create_graph=True` is used in the file, as in a gradient penalty.
    Gradients taken of a scaled or half-precision output must be unscaled by hand before a loss is
    made of them; otherwise the penalty is off by the scale.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             x = x.to(device).requires_grad_()
             out = model(x)
        -    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        -    loss = criterion(out, y.to(device)) + slope.pow(2).mean()
        +    loss = criterion(out, y.to(device))
             loss.backward()
             optimizer.step()

    What to do: keep full precision, or write it by hand after the section on gradient penalty of
    torch's AMP examples (`quickwins explain amp` has the address).

QW318 an autograd.Function of the script's own
    What it does: the training steps of this file stay as they are.

    Why: autocast does not look inside a custom Function. Its inputs come in different types, and
    its operations then fail, or run in half precision where that was not meant.

    Example:

        -class Square(torch.autograd.Function):
        -    ...
        -
         for x, y in loader:
             optimizer.zero_grad()
        -    out = Square.apply(model(x.to(device)))
        +    out = model(x.to(device)).square()
             loss = criterion(out, y.to(device))
             loss.backward()
             optimizer.step()

    What to do: write it with torch's own operations, as above, and run again. Or decorate it by
    `torch.amp.custom_fwd(device_type="cuda", cast_inputs=torch.float32)` and `custom_bwd`, and
    write autocast by hand.

QW319 a model in half precision
    What it does: the training steps of this file stay as they are.

    Why: `model.half()` or `.bfloat16()` stores the weights themselves in half precision, so small
    updates are lost. A scaler refuses such weights: "Attempting to unscale FP16 gradients."

    Example:

        -model.half()
         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             optimizer.step()

    What to do: keep the weights in float32, as above, and run again. If only a copy for inference
    is made half, move that to a file of its own.

QW320 a model under DataParallel
    What it does: the training steps of this file stay as they are.

    Why: DataParallel runs the forward pass in threads of its own, and autocast holds for the thread
    that entered it. The backward pass would be scaled, the forward pass would not be in half.

    Example:

        -model = nn.DataParallel(network)
        +model = nn.parallel.DistributedDataParallel(network)
         optimizer = optim.Adam(model.parameters(), lr=1e-3)
         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             optimizer.step()

    What to do: use DistributedDataParallel, one process for each GPU, as torch itself advises.

QW321 sparse products
    What it does: the training steps of this file stay as they are.

    Why: `torch.sparse.mm` and `addmm` raise on half-precision values, as a graph network over an
    adjacency matrix would meet them in its first layer.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
        -    out = torch.sparse.mm(graph, model(x.to(device)))
        +    out = graph.to_dense() @ model(x.to(device))
             loss = criterion(out, y.to(device))
             loss.backward()
             optimizer.step()

    What to do: keep full precision. A dense matrix, as above, is an answer for small graphs only.

QW322 gradients are read before they are complete
    What it does: this training step stays as it is.

    Why: with gradient accumulation the optimizer steps on some batches, but gradients are clipped
    or read on each. Unscaled there, the gradients of the next batch would be added at another
    scale, and a second `unscale_` raises. The same holds where they are read between two backward
    calls. The gradient of what is no parameter (an input) is refused too: it would stay scaled.

    Example:

         for i, (x, y) in enumerate(loader):
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             if (i + 1) % 4 == 0:
        +        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                 optimizer.step()
                 optimizer.zero_grad()

    What to do: clip and read where the optimizer steps, as above, and run again. Clipping on each
    batch was clipping a part of the sum.

QW323 backward or step is part of an expression
    What it does: this training step stays as it is.

    Why: `scaler.step()` returns nothing where it skips a step, and lines must go before and after
    the two calls. So both have to be statements of their own, on lines of their own.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    done = optimizer.step()
        +    optimizer.step()

    What to do: make each a statement of its own, as above, and run again.

QW324 the scaler cannot be seen at the step
    What it does: this training step stays as it is.

    Why: one scaler must live as long as the optimizer, beside it, and reach the function that
    steps. Here there is no way for it: from where the optimizer is made, that function is called in
    a way that is not followed, or the scaler's name is taken there; or the optimizer's own name is
    nothing that a scaler can stand beside.

    Example:

         run = Run()
        -run.optimizer = optim.Adam(model.parameters(), lr=1e-3)
        +optimizer = optim.Adam(model.parameters(), lr=1e-3)
         for x, y in loader:
        -    run.optimizer.zero_grad()
        +    optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    run.optimizer.step()
        +    optimizer.step()

    What to do: keep the optimizer in a variable, or in an attribute of `self`, with the training
    step in the same function or class, and run again.

QW325 the scaler's round may stay open
    What it does: this training step stays as it is.

    Why: each round of a scaler is scale, unscale_, step, one `update()`. Here `continue`, `break`,
    `return` or `raise` may leave the batch after gradients were read and before the step; the next
    `unscale_` would raise. Or one optimizer steps several times for one step of the other, or two
    may share parameters, whose gradients would be unscaled twice.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        -    if norm > 100:
        -        continue
        -    optimizer.step()
        +    if norm <= 100:
        +        optimizer.step()

    What to do: put the step under the opposite condition, as above, and run again: `update()` then
    follows on every way. For a step in an inner loop, write scaling and `update()` there by hand.
    Give each parameter to one optimizer.

QW326 this is a test
    What it does: this training step stays as it is.

    Why: it stands in a test: a function `test_...`, a TestCase, or a file `test_*.py`, `*_test.py`
    or `conftest.py`. A test compares numbers, and those of half precision are others.

    Example:

        def test_training():
            optimizer = optim.Adam(model.parameters(), lr=1e-3)
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x.to(device)), y.to(device))
                loss.backward()
                optimizer.step()

    What to do: nothing. If it is a training run all the same, rename it.

QW327 an imported module breaks in half precision
    What it does: the training steps of this file stay as they are.

    Why: a module of this repository that the file imports, named in the message, has something that
    raises under autocast: a mask value beyond float16, BCELoss, `torch.sparse.mm`, or a custom
    `autograd.Function`. Its models may run in this file's forward pass. Models are never edited.

    Example: `layers.py`, beside the script, fills masked scores by `masked_fill(mask, -1e9)`.

        -from layers import Attention
        +from torch.nn import Linear as Attention

         model = Attention(8, 8)
         optimizer = optim.Adam(model.parameters(), lr=1e-3)
         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             optimizer.step()

    What to do: mend that module (`float("-inf")` for the mask, BCEWithLogitsLoss on logits for
    BCELoss), or do without it, as above, and run again.

QW328 a check of gradients that a scaler upsets
    What it does: the training steps of this file stay as they are.

    Why: a scaler finds its scale by gradients that overflow, and skips those steps;
    `detect_anomaly` and `error_if_nonfinite=True` raise on them. A hook would see scaled gradients.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
        -    nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        +    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             optimizer.step()

    What to do: take the check out, as above, and run again. What a hook does belongs between
    `backward()` and the step, where `unscale_` can go before it.

QW350 embeddings only
    What it does: the script is rewritten all the same.

    Why: the models of the file look up embeddings and multiply them, with no layer that is a matrix
    product. Autocast leaves such operations in float32, so nothing there runs faster.

    Example:

        class Dot(nn.Module):
            def __init__(self):
                super().__init__()
                self.users, self.items = nn.Embedding(100, 8), nn.Embedding(100, 8)

            def forward(self, user, item):
                return (self.users(user) * self.items(item)).sum(-1)

        model = Dot()
        optimizer = optim.Adam(model.parameters(), lr=1e-3)
        for user, item, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(user.to(device), item.to(device)), y.to(device))
            loss.backward()
            optimizer.step()

    What to do: keep full precision in this file: exclude it, or use `per-file-ignores`.

QW351 a checkpoint lacks the scaler
    What it does: the script is rewritten; this checkpoint is saved as before.

    Why: it saves the optimizer's state where the scaler cannot be reached. A run that is resumed
    looks for its scale anew, and skips its first steps once more.

    Example:

        def save(model, optimizer):
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "a.pt")

        def main(model):
            optimizer = optim.Adam(model.parameters(), lr=1e-3)
            for x, y in loader:
                optimizer.zero_grad()
                loss = criterion(model(x.to(device)), y.to(device))
                loss.backward()
                optimizer.step()
            save(model, optimizer)

    What to do: nothing, if you never resume. Else pass the scaler to that function, save
    `scaler.state_dict()` beside the optimizer's, and load it where the optimizer's is loaded.

QW352 update() may be left out
    What it does: nothing; the script's own mixed precision stays (QW300).

    Why: `unscale_` has run, and `update()` may not (QW304). Here it is not shown that moving it is
    right: the condition may count accumulated batches, or gradients are not cleared for each batch,
    or the scaler is used again below `update()`. The message says which.

    Example:

         for x, y in loader:
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
             scaler.scale(loss).backward()
             scaler.unscale_(optimizer)
             norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             if norm < 100:
                 scaler.step(optimizer)
        -        scaler.update()
        -        optimizer.zero_grad()
        +    scaler.update()
        +    optimizer.zero_grad()

    What to do: move `update()` below the condition, and clear the gradients for each batch.

QW353 a backward call is not scaled
    What it does: nothing; the script's own mixed precision stays (QW300).

    Why: another `backward()` for the same step is scaled, and this one counts for nothing beside it
    (QW305). Here the scaled one stands under a condition, so that the scale may not apply; or an
    optimizer of the file steps elsewhere, which this backward may be for.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
                 penalty = model(x).square().mean()
             if loss < 100:
                 scaler.scale(loss).backward()
        -    penalty.backward()
        +    scaler.scale(penalty).backward()
             scaler.step(optimizer)
             scaler.update()

    What to do: call `scaler.scale()` on it as well, as above. Its weight in training then is what
    the script says, which may be much more than it was.

QW354 autocast around backward
    What it does: nothing; the script's own mixed precision stays (QW300).

    Why: backward and step do not belong under autocast (QW306). Here the region cannot be cut after
    the loss, since more in it needs autocast, the `with` does more than that, or it is a decorator.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y)
        -        scaler.scale(loss).backward()
        -        scaler.step(optimizer)
        -        scaler.update()
        +    scaler.scale(loss).backward()
        +    scaler.step(optimizer)
        +    scaler.update()
        +    with torch.autocast("cuda"):
                 print(criterion(model(x), y))

    What to do: end the region after the loss, and open another where it is needed, as above.

QW355 scaled gradients are read
    What it does: nothing; the script's own mixed precision stays (QW300).

    Why: `unscale_` is missing (QW303), but cannot go there: gradients are read on each batch and
    stepped on some, or it is not seen that the scaler is in use there.

    Example:

         for i, (x, y) in enumerate(loader):
             with torch.autocast("cuda"):
                 loss = criterion(model(x), y) / 4
             scaler.scale(loss).backward()
        -    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
             if (i + 1) % 4 == 0:
        +        scaler.unscale_(optimizer)
        +        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                 scaler.step(optimizer)
                 scaler.update()
                 optimizer.zero_grad()

    What to do: unscale and read where the optimizer steps, as above.

QW356 validation stays in full precision
    What it does: nothing here, although `eval = true` asks for it (QW307). Training is rewritten.

    Why: BCELoss raises under CUDA's autocast and stands in one statement with the forward pass; or
    the device is not known where the model is evaluated; or a value goes on that may be no tensor of
    numbers, as one of several, or of a helper function. The message says which.

    Example:

         for x, y in loader:
             optimizer.zero_grad()
             loss = criterion(model(x.to(device)), y.to(device))
             loss.backward()
             optimizer.step()
         with torch.no_grad():
        -    print(nn.functional.binary_cross_entropy(model(dataset.to(device)), labels))
        +    p = model(dataset.to(device))
        +    print(nn.functional.binary_cross_entropy(p, labels))

    What to do: give the loss a statement of its own, as above, and run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from quickwins_codemod.companion import Companion, Site, Unreachable
from quickwins_codemod.edits import (
    AddDictEntry,
    AddParameter,
    Edit,
    Enclose,
    EndBlockBefore,
    InsertAfter,
    InsertBefore,
    Remove,
    Replace,
    Wrap,
)
from quickwins_codemod.script.facts import Problem, Script, Stepping, Training
from quickwins_codemod.transform import Finding, Plan, Refusal, verdict_at
from quickwins_codemod.verdict import Verdict

if TYPE_CHECKING:
    import libcst as cst

    from quickwins_codemod.script.evaluations import Evaluation
    from quickwins_codemod.script.forwards import Forwards, Region, Stepped, TrainingStep
    from quickwins_codemod.script.scaling import Around, MissedUpdate, ScaledReading

RULE = "amp"
NEEDLES = (b".backward(", b"cuda.amp")


@dataclass(frozen=True)
class Options:
    """Settings of the rule, in `[tool.quickwins.amp]` or as flags."""

    eval: bool = field(
        default=False, metadata={"help": "put validation and test under autocast too"}
    )


def plan(script: Script, options: Options) -> Plan:
    """Plan mixed precision for every function that calls backward()."""
    forwards = script.forwards()
    steps = [forwards.followed(step) for step in forwards.steps()]
    found = []
    if script.manager is not None:
        if steps:
            manager = script.manager
            refusal = Refusal(
                "QW004", manager.node, f"the training loop is managed by {manager.detail}",
                f"set the precision in {manager.detail}'s own configuration",
            )
            found.append(refusal.finding(RULE, script))
        return Plan(tuple(found))
    modern = _modernised(script, forwards)
    if modern is not None:
        found.append(modern)
    elif not steps and forwards.modern() is not None:
        found.append(Finding((verdict_at(
            RULE, script, "already", "QW300", forwards.modern(), "mixed precision is in place"
        ),)))
    trained = []
    for step in steps:
        try:
            found += _Rewrite(script, forwards, step).findings()
        except Refusal as refusal:
            found.append(refusal.finding(RULE, script))
            continue
        if forwards.uses_runtime(step) or not (step.under_autocast or step.scaler is not None):
            trained.append(step)
    if options.eval and trained:
        changed = {e.node for f in found for e in f.edits if isinstance(e, Replace)}
        for evaluation in forwards.evaluations(trained).find():
            found.append(_evaluated(script, evaluation, changed))
    return Plan(tuple(found))


def _evaluated(script: Script, evaluation: Evaluation, changed: set[cst.CSTNode]) -> Finding:
    """Validation under autocast, in a region of its own, with float32 values for what follows."""
    statements = evaluation.statements
    if evaluation.why is not None:
        return Finding((verdict_at(
            RULE, script, "warning", "QW356", statements[0],
            f"this evaluation stays in full precision, since {evaluation.why}",
            "write `with autocast(device):` around it by hand",
        ),))
    header = f"with {script.runtime_name('autocast')}({evaluation.device}):"
    edits: list[Edit] = [Wrap(statements[0], statements[-1], header)]
    for value in evaluation.halves:
        if value not in changed:
            edits.append(Replace(value, f"{_postfix(script.tree.code(value))}.float()"))
    applied = verdict_at(
        RULE, script, "applied", "QW307", statements[0], "validation or test under autocast"
    )
    return Finding((applied,), tuple(edits), frozenset({"autocast"}))


def _modernised(script: Script, forwards: Forwards) -> Finding | None:
    """Deprecated spellings of torch.amp, with their arguments kept right."""
    edits, verdicts = [], []
    for node, code in forwards.deprecated():
        edits.append(Replace(node, code))
        verdicts.append(verdict_at(
            RULE, script, "applied", "QW302", node,
            f"deprecated `{script.tree.code(node)}` is `{code}` now",
        ))
    return Finding(tuple(verdicts), tuple(edits)) if edits else None


@dataclass
class _Mending:
    """Repairs that hold together: unscale_ added, and update() then on every way."""

    verdicts: list[Verdict] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)

    def add(self, verdict: Verdict, *edits: Edit) -> None:
        self.verdicts.append(verdict)
        self.edits += edits

    def findings(self) -> list[Finding]:
        return [Finding(tuple(self.verdicts), tuple(self.edits))] if self.edits else []


class _Rewrite:
    """The plan for one function's training step."""

    def __init__(self, script: Script, forwards: Forwards, step: TrainingStep) -> None:
        self.script, self.forwards, self.step = script, forwards, step
        self.tree, self.names, self.placing = script.tree, script.names, script.placing
        self.trunk = forwards.trunk(step)
        inner = step.function if step.helper is None else self.names.callee(step.helper)
        self.frames = script.placing.frames(inner)
        self._say = partial(verdict_at, RULE, script)
        self.edits: list[Edit] = []
        self.notes: list[Verdict] = []

    def findings(self) -> list[Finding]:
        step = self.step
        if step.scaler is not None or step.under_autocast:
            return self._existing()
        self._check()
        self._check_apart()
        regions = [self._region(b) for b in step.backwards]
        training = step.steps[0].training
        companion = Companion(self.script, training, "scaler")
        site, device = self._site(companion, training)
        scaler, guarded = self._reach(companion, site)
        here = self._device_code()
        if guarded:
            self._build_where_missing(scaler, here)
        self._build(site, device)
        leaving: list[cst.CSTNode] = []
        for region in regions:
            self._forward(region, here, scaler)
            leaving += [n for n in self.forwards.leaving(region, regions) if n not in leaving]
        self.edits += [Replace(value, f"{self.tree.code(value)}.float()") for value in leaving]
        self._steps(scaler)
        self._saved(companion, training, site)
        if self.forwards.is_embedding_only():
            self.notes.append(self._say(
                "warning", "QW350", step.backwards[0],
                "the models of this file are embeddings only, which half precision makes no faster",
                "keep full precision unless memory is short",
            ))
        names = frozenset({"GradScaler", "autocast"})
        applied = self._say(
            "applied", "QW301", step.backwards[0], "forward and loss under autocast, backward scaled"
        )
        return [Finding((applied, *self.notes), tuple(self.edits), names)]

    # -- what is there already -------------------------------------------------------------------

    def _existing(self) -> list[Finding]:
        """Mixed precision that the script has: kept, and mended where it is shown to be safe."""
        first = self.step.backwards[0]
        said = [self._say("already", "QW300", first, "mixed precision is in place")]
        rounds, found = _Mending(), []
        scaling = self.forwards.scaling(self.step)
        readings = scaling.scaled_readings()
        updates = list(scaling.missed_updates(readings))
        left_open = {u.scaler for u in updates if u.why is not None}
        for reading in readings:
            why = reading.why
            if why is None and reading.guard is None and reading.scaler in left_open:
                why = "update() could be left out after it"
            if why is None:
                rounds.add(self._mended("read-scaled", reading.anchor), self._unscaling(reading))
            else:
                said.append(self._left("read-scaled", reading.anchor, why))
        for update in updates:
            if update.why is None:
                rounds.add(self._mended("update-in-branch", update.node), *self._always(update))
            else:
                said.append(self._left("update-in-branch", update.node, update.why))
        for unscaled in scaling.unscaled():
            backward = unscaled.backward
            if unscaled.why is None:
                scale = Enclose(backward.func.value, f"{unscaled.scaler}.scale(", ")")
                found.append(Finding((self._mended("unscaled", backward),), (scale,)))
            else:
                said.append(self._left("unscaled", backward, unscaled.why))
        for around in scaling.around():
            if around.why is None:
                mended = self._mended("around-backward", around.block)
                found.append(Finding((mended,), tuple(self._ended(around))))
            else:
                said.append(self._left("around-backward", around.block, around.why))
        return [Finding(tuple(said)), *rounds.findings(), *found]

    def _mended(self, kind: str, node: cst.CSTNode) -> Verdict:
        code, message, *_ = _DEFECTS[kind]
        return self._say("applied", code, node, message)

    def _left(self, kind: str, node: cst.CSTNode, why: str) -> Verdict:
        *_, code, message, hint = _DEFECTS[kind]
        return self._say("warning", code, node, f"{message}; not mended, since {why}", hint)

    def _unscaling(self, reading: ScaledReading) -> Edit:
        code = f"{reading.scaler}.unscale_({reading.optimizer})\n"
        if reading.guard is not None:
            code = f"if {reading.guard}:\n    {code}"
        return InsertBefore(reading.anchor, code, below_comment=True)

    def _always(self, update: MissedUpdate) -> list[Edit]:
        """update() before a `continue`, or taken from a condition to the line below it."""
        if update.below is None:
            return [InsertBefore(update.node, f"{update.scaler}.update()\n")]
        code = self.placing.with_comments(update.node)
        return [Remove(update.node, topic="."), InsertAfter(update.below, code, rank=-1)]

    def _ended(self, around: Around) -> Iterator[Edit]:
        yield EndBlockBefore(around.tail)
        for region in around.regions:
            header = f"with {self.tree.code(around.block.items[0].item)}:"
            yield Wrap(region.statements[0], region.statements[-1], header)
        for value in around.leaving:
            yield Replace(value, f"{self.tree.code(value)}.float()")

    # -- what rules it out ------------------------------------------------------------------------

    def _check(self) -> None:
        step = self.step
        first = step.backwards[0]
        if self.script.is_test or any(self.placing.is_test(n) for n in (first, *step.ends)):
            raise Refusal("QW326", first, "this is a test, not a training run", "nothing to do")
        for kind, node in self.forwards.hazards():
            code, message, hint = _HAZARDS[kind]
            raise Refusal(code, node, message, hint)
        imported = self.forwards.imported_hazard()
        if imported is not None:
            what, node = imported
            raise Refusal(
                "QW327", first, f"a module that this file imports breaks under half precision ({what})",
                "mend that module first: float('-inf') for a mask, BCEWithLogitsLoss for BCELoss",
            )
        hidden = self.forwards.unsafe_in_models()
        if hidden is not None:
            raise Refusal(
                "QW316", hidden, "a model computes BCELoss itself, which raises under CUDA's autocast",
                "use binary_cross_entropy_with_logits in the model, or compute the loss outside",
            )
        if any(self.forwards.is_closure(f) for f in (step.function, self.trunk)):
            raise Refusal(
                "QW313", first, "this is a closure that an optimizer runs, which no scaler allows",
                "use an optimizer without one",
            )
        other = self.forwards.backward_elsewhere(step)
        if other is not None:
            raise Refusal(
                "QW310", other, "this call runs a backward pass of its own, so not all could be scaled",
                "call every backward() of a step in one function",
            )
        if not step.steps:
            why = f" ({step.unfollowed})" if step.unfollowed else ""
            raise Refusal(
                "QW310", first,
                f"the optimizer that this backward call feeds does not step in this function{why}",
                "step it in the function that calls backward()",
            )
        beside = self.forwards.stepped_beside(step)
        if beside is not None:
            raise Refusal(
                "QW310", beside, "another optimizer of this loop steps here, in another function",
                "step all that this loss trains in the function that calls backward()",
            )
        for stepped in step.steps:
            if stepped.call.args and self.tree.code(stepped.call.args[0].value) != self.tree.code(
                stepped.optimizer
            ):
                raise Refusal(
                    "QW313", stepped.call, "the optimizer is stepped by a closure, which no scaler allows",
                    "use an optimizer without one",
                )
            if stepped.training.optimizer.class_name == "LBFGS":
                raise Refusal(
                    "QW313", stepped.call, "LBFGS needs a closure, which no scaler allows",
                    "use another optimizer",
                )
            if len({self.tree.function(s) for s in stepped.training.sites}) > 1:
                raise Refusal(
                    "QW310", stepped.call, "this optimizer steps in several functions",
                    "step it in one function",
                )
            if not self.placing.is_statement(stepped.call):
                raise Refusal(
                    "QW323", stepped.call, "the result of step() is used, or the call stands in an expression",
                    "make the step a statement of its own",
                )

    def _check_apart(self) -> None:
        """Two optimizers over the same parameters would unscale their gradients twice."""
        given: dict[str, str] = {}
        for stepped in self.step.steps:
            optimizer = stepped.training.optimizer
            for base in self.forwards.optimized(optimizer):
                for other, name in given.items():
                    parts, others = base.split("."), other.split(".")
                    short = min(len(parts), len(others))
                    if name != optimizer.reference and parts[:short] == others[:short]:
                        raise Refusal(
                            "QW325", stepped.call,
                            f"`{name}` and `{optimizer.reference}` may share parameters, which would be unscaled twice",
                            "give each parameter to one optimizer",
                        )
            given |= {base: optimizer.reference for base in self.forwards.optimized(optimizer)}

    def _region(self, backward: cst.Call) -> Region:
        found = self.forwards.region(backward)
        if isinstance(found, Problem):
            code, message, hint = _REGIONS[found.kind]
            why = f" ({found.detail})" if found.detail else ""
            raise Refusal(code, found.node, f"{message}{why}", hint)
        own = [self.tree.statement(backward), *found.statements[:1], *found.statements[-1:]]
        own.append(self.tree.statement(found.end))
        for statement in own:
            if not self.placing.has_own_line(statement):
                raise Refusal(
                    "QW323", statement, "this statement shares its line with others",
                    "put each on a line of its own",
                )
        inside = [*self.step.backwards, *(s.call for s in self.step.steps)]
        if any(self.tree.is_within(n, s) for n in inside for s in found.statements):
            code, message, hint = _REGIONS["between"]
            raise Refusal(code, backward, message, hint)
        return found

    # -- where the scaler is -----------------------------------------------------------------------

    def _site(self, companion: Companion, training: Training) -> tuple[Site, str]:
        device = self.forwards.device(self.trunk)
        if device is None:
            raise Refusal(
                "QW312", self.step.ends[0],
                "nothing in this function moves tensors to a device, so autocast has none to run on",
                "move the batch by `.to(device)` and run again",
            )
        made = self.placing.binding_statement(training.optimizer.statement, training.optimizer.variable)
        frames = self.frames
        level = next(i for i, f in enumerate(frames) if f.function is self.trunk)
        functions = [self.tree.function(made), *(f.function for f in frames)]
        reference = companion.fresh_reference(functions, shared=self._serves_several())
        if reference is None:
            raise Refusal(
                "QW324", training.optimizer.creations[0],
                f"`{training.optimizer.reference}` is no name that a scaler can stand beside",
                "assign the optimizer to a variable or to an attribute of self",
            )
        outer = self._outer_loop(training)
        places = [("after", made, self.placing.after(made))]
        if self.tree.function(outer) is self.tree.function(made):
            places.append(("before", outer, self.placing.before(outer)))
        for kind, statement, place in places:
            if kind == "after" and not self.placing.always_runs(made, outer, frames):
                continue
            text = device if isinstance(device, str) else self.placing.expression_at(
                device, level, frames, place, outer
            )
            if text is not None:
                return Site(kind, statement, place, reference, training.optimizer.reference), text
        raise Refusal(
            "QW312", training.optimizer.creations[0],
            f"`{self.tree.code(device)}` is not known where the scaler has to be made",
            "choose the device above the optimizer and run again",
        )

    def _outer_loop(self, training: Training) -> cst.CSTNode:
        stepping = training.stepping
        if isinstance(stepping, Stepping):
            return stepping.epochs.node if stepping.epochs else stepping.batches.node
        return self.placing.outermost_loop(self.step.ends[0], self.trunk)

    def _reach(self, companion: Companion, site: Site) -> tuple[str, bool]:
        try:
            reference, guarded, edits = companion.reach(
                site, self.frames, self.step.steps[0].optimizer
            )
        except Unreachable as unreachable:
            raise Refusal(
                "QW324", unreachable.node, "the scaler cannot be seen where the optimizer steps",
                "keep optimizer and training step in one function, or in one class",
            ) from None
        home, inner = self.tree.function(site.statement), self.frames[0].function
        if inner is self.trunk:
            self.edits += edits
            return reference, guarded
        if not edits and not self._is_seen(companion, site):
            raise Refusal(
                "QW324", site.statement, "the scaler cannot be seen where backward() is called",
                "keep optimizer and training step in one function, or in one class",
            )
        functions = [f.function for f in self.frames]
        below = functions[: functions.index(self.trunk)]
        self.edits += [
            self._required(e, reference)
            if isinstance(e, AddParameter) and e.function in below else e
            for e in edits
        ]
        return reference, guarded and home is not self.trunk

    def _is_seen(self, companion: Companion, site: Site) -> bool:
        """Whether the function that calls backward() sees a scaler that its helper sees."""
        home, function = self.tree.function(site.statement), self.step.function
        if "." in site.reference:
            return self.names.method_class(home) is self.names.method_class(function)
        return home is function or companion.sees(function, home, site.reference)

    def _required(self, edit: AddParameter, name: str) -> Edit:
        """A helper's one caller always gives it the scaler: no round can start without one there."""
        helper = edit.function
        if self.placing.has_optional(helper):
            raise Refusal(
                "QW324", helper,
                f"`{helper.name.value}` would get the scaler behind parameters that may be left out",
                "give the optimizer and the scaler to it by hand, or keep them in one class",
            )
        neighbours, called = self.script.neighbours, helper.name.value
        if neighbours is not None and neighbours.mention(neighbours.script.stem, called):
            raise Refusal(
                "QW324", helper, f"`{called}` would need the scaler, and another file may call it too",
                "give the scaler to it by hand, or keep optimizer and training step in one class",
            )
        return AddParameter(helper, name)

    def _device_code(self) -> str:
        device = self.forwards.device(self.trunk)
        return device if isinstance(device, str) else self.tree.code(device)

    def _build(self, site: Site, device: str) -> None:
        code = f"{site.reference} = {self.script.runtime_name('GradScaler')}({device})\n"
        edit = InsertAfter if site.kind == "after" else InsertBefore
        self.edits.append(edit(site.statement, code))

    def _build_where_missing(self, scaler: str, device: str) -> None:
        """A function that is given the scaler makes one where a caller gives none."""
        anchor = self.placing.outermost_loop(self.step.ends[0], self.trunk)
        name = self.script.runtime_name("GradScaler")
        self.edits.append(InsertBefore(
            anchor, f"if {scaler} is None:\n    {scaler} = {name}({device})\n"
        ))

    # -- the step ------------------------------------------------------------------------------------

    def _forward(self, region: Region, device: str, scaler: str) -> None:
        header = f"with {self.script.runtime_name('autocast')}({device}):"
        if not region.statements:
            self._split(region, header, scaler)
            return
        statements = list(region.statements)
        for index, statement in enumerate(statements):
            unsafe = self.forwards.unsafe_loss(statement)
            if unsafe is not None:
                statements = self._without_unsafe(statements, index, unsafe)
                break
        self.edits.append(Wrap(statements[0], statements[-1], header))
        self.edits.append(Enclose(region.loss, f"{scaler}.scale(", ")"))

    def _without_unsafe(
        self, statements: list[cst.CSTNode], index: int, unsafe: cst.Call
    ) -> list[cst.CSTNode]:
        """BCELoss stays in full precision: below the region, on inputs made float32."""
        from_here = statements[index:]
        if index == 0 or any(self.forwards.has_forward(s) for s in from_here) or len(unsafe.args) < 2:
            raise Refusal(
                "QW316", unsafe, "BCELoss raises under CUDA's autocast, and stands with the forward pass",
                "compute the loss in a statement of its own, below the forward pass",
            )
        for argument in unsafe.args[:1]:
            self.edits.append(Replace(argument.value, f"{_postfix(self.tree.code(argument.value))}.float()"))
        return statements[:index]

    def _split(self, region: Region, header: str, scaler: str) -> None:
        """`criterion(model(x), y).backward()`: the loss gets a name."""
        statement = self.tree.statement(region.end)
        name = next(
            n for n in ("loss", "batch_loss", "step_loss", "quickwins_loss")
            if self.placing.is_free(n, [self.trunk])
        )
        if self.forwards.unsafe_loss(statement) is not None:
            raise Refusal(
                "QW316", region.backward, "BCELoss raises under CUDA's autocast, and stands with the forward pass",
                "compute the loss in a statement of its own, below the forward pass",
            )
        loss = self.tree.code(region.result)
        self.edits.append(InsertBefore(statement, f"{header}\n    {name} = {loss}\n"))
        self.edits.append(Replace(region.result, name))
        self.edits.append(Enclose(region.loss, f"{scaler}.scale(", ")"))

    def _steps(self, scaler: str) -> None:
        steps = self.step.steps
        for stepped in steps:
            optimizer = self.tree.code(stepped.optimizer)
            self.edits.append(Replace(stepped.call, f"{scaler}.step({optimizer})"))
        self._unscale(scaler)
        if self._serves_several():
            last = self.placing.after_all([s.call for s in steps])
            block = self.tree.block(last)
            inner = next((s for s in steps if self.placing.in_inner_loop(s.call, block)), None)
            if inner is not None:
                raise Refusal(
                    "QW325", inner.call, "this optimizer steps several times for one step of the other",
                    "write its scaling by hand, with an update() in the inner loop",
                )
            self.edits.append(InsertAfter(last, f"{scaler}.update()\n", rank=-1))
            return
        for stepped in steps:
            self.edits.append(InsertAfter(
                self._update_anchor(stepped), f"{scaler}.update()\n", rank=-1
            ))

    def _serves_several(self) -> bool:
        return len({s.training.optimizer.variable for s in self.step.steps}) > 1

    def _update_anchor(self, stepped: Stepped) -> cst.CSTNode:
        """After the step; after a condition around it that is no accumulation, so that a step that is
        left out still ends the scaler's round."""
        statement = self.tree.statement(stepped.call)
        boundary = self.forwards.boundary(stepped.call, self.step.backwards[-1])
        if boundary is None or self._accumulates(boundary, stepped):
            return statement
        return boundary

    def _accumulates(self, boundary: cst.CSTNode, stepped: Stepped) -> bool:
        """Whether a condition around a step counts batches. Where no loop is in sight, all do that
        ask for nothing that comes of the gradients."""
        if self.placing.is_accumulation(boundary, stepped.training):
            return True
        function = self.tree.function(boundary)
        looped = bool(self.forwards.helpers.loops(boundary, function))
        return not looped and not self.forwards.asks_of_gradients(boundary)

    def _unscale(self, scaler: str) -> None:
        """unscale_ before the first statement that reads gradients, once per optimizer."""
        for stepped in self.step.steps:
            readers = self._readers_of(stepped)
            if not readers:
                continue
            self._check_readers(readers, stepped)
            optimizer = self._optimizer_at(readers[0], stepped)
            self.edits.append(InsertBefore(
                self._reader_anchor(readers, stepped),
                f"{scaler}.unscale_({optimizer})\n",
                below_comment=True,
            ))
        claimed = {r for s in self.step.steps for r in self._readers_of(s)}
        for reader in self.step.readers:
            if reader not in claimed:
                raise Refusal(
                    "QW322", reader, "gradients are read here before all of the backward pass is done",
                    "read them after the last backward(), before the step",
                )

    def _optimizer_at(self, reader: cst.CSTNode, stepped: Stepped) -> str:
        """The optimizer as the function of a reader names it."""
        here, function = self.tree.function(reader), self.tree.function(stepped.call)
        if here is function:
            return self.tree.code(stepped.optimizer)
        statement = self.tree.statement(self.step.helper)
        place = self.placing.before(statement)
        text = self.placing.expression_at(stepped.optimizer, 0, self.frames, place, statement)
        if text is None:
            raise Refusal(
                "QW324", stepped.call,
                "the optimizer has no name where gradients are read, above the call that steps",
                "read gradients in the function that steps",
            )
        return text

    def _check_readers(self, readers: Sequence[cst.CSTNode], stepped: Stepped) -> None:
        for reader in readers:
            call = self._run_from(reader, stepped)
            block = self.tree.block(self.tree.statement(call))
            boundary = self.forwards.boundary(call, self.step.backwards[-1])
            foreign = self.forwards.foreign_gradient(reader)
            if foreign is not None:
                raise Refusal(
                    "QW322", foreign, "a gradient of what is no parameter stays scaled",
                    "divide it by scaler.get_scale() by hand",
                )
            inside = self.tree.is_within(reader, block)
            if boundary is not None and not inside and (
                call is not stepped.call or self._accumulates(boundary, stepped)
            ):
                raise Refusal(
                    "QW322", reader,
                    "gradients are read on every batch but stepped only on some, so unscaling them is wrong",
                    "read them where the optimizer steps",
                )
        call = self._run_from(readers[0], stepped)
        jump = self.forwards.jump_between(readers[0], call)
        if jump is None and call is not stepped.call:
            jump = self.forwards.jump_between(self.frames[0].function.body.body[0], stepped.call)
        if jump is not None:
            raise Refusal(
                "QW325", jump, "the batch may be left between reading gradients and the step",
                "step or update the scaler on every way out, by hand",
            )

    def _readers_of(self, stepped: Stepped) -> list[cst.CSTNode]:
        """The readers between the last backward() above a step and the step."""
        at = partial(self.forwards.position, helper=self.step.helper)
        end = at(stepped.call)
        above = [at(b) for b in self.step.backwards if at(b) < end]
        above += [
            at(s.call) for s in self.step.steps
            if s.training is stepped.training and at(s.call) < end
        ]
        start = max(above, default=())
        return [
            r for r in self.step.readers
            if start < at(r) < end and self._same_path(r, self._run_from(r, stepped))
        ]

    def _run_from(self, node: cst.CSTNode, stepped: Stepped) -> cst.Call:
        """The call by which a node's function steps: the step itself, or that of a helper."""
        same = self.tree.function(node) is self.tree.function(stepped.call)
        return stepped.call if same else self.step.helper

    def _same_path(self, reader: cst.CSTNode, step: cst.CSTNode) -> bool:
        """The reader does not stand in another branch of an `if` than the step."""
        return self.placing.may_follow(reader, step)

    def _reader_anchor(self, readers: Sequence[cst.CSTNode], stepped: Stepped) -> cst.CSTNode:
        """The first reader; the condition around it where another reads after that."""
        call = self._run_from(readers[0], stepped)
        block = self.tree.block(self.placing.after_all([readers[0], call]))
        if len(readers) == 1 and not self.placing.in_inner_loop(readers[0], block):
            return readers[0]
        return self.placing.ancestor_in(readers[0], block) or readers[0]

    def _saved(self, companion: Companion, training: Training, site: Site) -> None:
        keys = {}
        for checkpoint in training.checkpoints:
            statement = self.tree.statement(checkpoint.mapping)
            value = companion.state(checkpoint.element.value, statement, site)
            if value is None:
                self.notes.append(self._say(
                    "warning", "QW351", checkpoint.element,
                    "this checkpoint saves the optimizer but cannot reach the scaler",
                    "save scaler.state_dict() beside it, or a resumed run looks for its scale anew",
                ))
                continue
            key, quote = companion.key(checkpoint.key), checkpoint.quote
            keys[checkpoint.key] = key
            code = f"{quote}{key}{quote}: {value}"
            hang = self.placing.hang(checkpoint.mapping, code, companion.line_length)
            self.edits.append(AddDictEntry(checkpoint.mapping, checkpoint.element, code, hang))
        for restore in training.restores:
            reference, key = companion.visible(restore.statement, site), keys.get(restore.key)
            if reference is not None and key is not None:
                name = f"{restore.quote}{key}{restore.quote}"
                self.edits.append(InsertAfter(
                    restore.statement,
                    f"if {name} in {restore.source}:\n"
                    f"    {reference}.load_state_dict({restore.source}[{name}])\n",
                ))


def _postfix(code: str) -> str:
    """The code with parentheses where a method call would bind to its last operand only."""
    return code if all(c.isalnum() or c in "_.[]()," for c in code.replace(" ", "")) and (
        " " not in code
    ) else f"({code})"


_REGIONS = {
    "between": (
        "QW311", "backward or a step stands between the forward pass and the loss",
        "compute the whole loss before the first backward()",
    ),
    "backward-form": (
        "QW323", "this backward call stands in an expression", "make it a statement of its own",
    ),
    "no-forward": (
        "QW311", "the forward pass that this loss comes from is not found above it in the same block",
        "compute prediction and loss in the block that calls backward()",
    ),
}
#: Of each defect: the code and words where it is mended; code, words and advice where it is not.
_DEFECTS = {
    "read-scaled": (
        "QW303", "gradients were read while they were scaled; unscale_ added before",
        "QW355", "gradients are read here while they are scaled",
        "call scaler.unscale_(optimizer) before, where the optimizer steps",
    ),
    "update-in-branch": (
        "QW304", "update() might have been left out after unscale_(); now it runs on every way",
        "QW352", "update() may be left out although unscale_() has run, and the next batch raises",
        "move update() below the condition",
    ),
    "unscaled": (
        "QW305", "this backward call beside a scaled one was not scaled; now it is",
        "QW353", "this backward call is not scaled, so its gradients weigh 1/65536 of the others",
        "call scaler.scale(...) on it as well",
    ),
    "around-backward": (
        "QW306", "autocast stood around backward; it ends after the loss now",
        "QW354", "autocast stands around backward; around a step it would also keep stale weights",
        "end the region after the loss",
    ),
}
_HAZARDS = {
    "data-parallel": (
        "QW320", "DataParallel runs the forward pass in threads, which autocast does not reach",
        "use DistributedDataParallel",
    ),
    "half-model": (
        "QW319", "the model is in half precision already, which a scaler cannot unscale",
        "keep its weights in float32 and run again",
    ),
    "double-backward": (
        "QW317", "gradients of gradients need scaling by hand",
        "write this loop's scaling by hand, or train it in bfloat16",
    ),
    "sparse": (
        "QW321", "sparse matrix products raise on half-precision values",
        "keep full precision in this file",
    ),
    "overflow": (
        "QW315", "a mask value beyond float16's range raises under autocast",
        "use float('-inf') or torch.finfo(scores.dtype).min",
    ),
    "tiny": (
        "QW314", "a constant this small is 0 in float16, so its logarithm may be of 0",
        "use logsigmoid or log_softmax, or compute it on .float() values in full precision",
    ),
    "gradient-hook": (
        "QW328", "a gradient hook would see scaled gradients",
        "move what it does between scaler.unscale_() and the step",
    ),
    "anomaly": (
        "QW328", "this raises on the infinite gradients by which a scaler finds its scale",
        "turn it off under mixed precision",
    ),
    "function": (
        "QW318", "a custom autograd.Function fails on mixed dtypes",
        "decorate it by torch.amp.custom_fwd and custom_bwd, and write autocast by hand",
    ),
}
