"""From a parsed module to the model of the training script. The only door into this folder."""

from __future__ import annotations

import re

import libcst as cst

from quickwins_codemod.script.facts import Optimizer, Problem, Script, Stepping, Training
from quickwins_codemod.script.loops import Loops
from quickwins_codemod.script.names import Names
from quickwins_codemod.script.neighbours import Neighbours
from quickwins_codemod.script.optimizers import Optimizers
from quickwins_codemod.script.placing import Placing
from quickwins_codemod.script.records import Records
from quickwins_codemod.script.tree import Tree

_MANAGERS = {
    "Lightning": re.compile(r"^(pytorch_lightning|lightning(\.pytorch)?|lightning_fabric)(\.|$)"),
    "Accelerate": re.compile(r"^accelerate\.Accelerator$"),
    "DeepSpeed": re.compile(r"^deepspeed\.(initialize|init_inference)$"),
    "FSDP": re.compile(r"FullyShardedDataParallel$|\.fully_shard$"),
    "apex": re.compile(r"^apex\.amp\.(initialize|scale_loss)$"),
    "Hugging Face Trainer": re.compile(r"^transformers\.(\w*Trainer)$"),
    "Colossal-AI": re.compile(r"^colossalai\."),
    "Horovod": re.compile(r"^horovod\.torch\.DistributedOptimizer$"),
}

_TEST_FILE = re.compile(r"^test_.*\.py$|_test\.py$|^conftest\.py$")


def read(module: cst.Module, neighbours: Neighbours | None = None) -> Script:
    """Build the model of one file; neighbours answer for what it imports from its repository."""
    tree = Tree(module)
    names = Names(tree)
    finder = Optimizers(tree, names)
    optimizers = finder.find()
    steps = [finder.steps(optimizer) for optimizer in optimizers]
    trainings = tuple(
        _training(tree, names, finder, optimizer, sites, neighbours)
        for optimizer, sites in zip(optimizers, steps)
    )
    foreign = finder.foreign_steps(frozenset(site for sites in steps for site in sites))
    return Script(
        tree,
        names,
        Placing(tree, names),
        trainings,
        _manager(tree, names),
        neighbours is not None and bool(_TEST_FILE.search(neighbours.script.name)),
        tuple((step, finder.sets_rate_itself(step)) for step in foreign),
        tuple(finder.unnamed()),
        neighbours,
    )


def _training(
    tree: Tree,
    names: Names,
    finder: Optimizers,
    optimizer: Optimizer,
    sites: list[cst.Call],
    neighbours: Neighbours | None,
) -> Training:
    schedulers = finder.schedulers(optimizer)
    stepping: Stepping | Problem
    if sites:
        stepping = Loops(tree, names, optimizer.creations, sites, neighbours).read()
    else:
        stepping = Problem("no-step", optimizer.creations[0])
    records = Records(tree, names, frozenset(optimizer.creations))
    made = frozenset(s.creation for s in schedulers)
    loop = stepping.batches.node if isinstance(stepping, Stepping) else None
    return Training(
        optimizer=optimizer,
        schedulers=tuple(schedulers),
        stepping=stepping,
        sites=tuple(sites),
        manual_rates=tuple(finder.manual_rates(optimizer, schedulers)),
        handed_on=finder.handed_on(optimizer, neighbours),
        checkpoints=tuple(records.checkpoints()),
        restores=tuple(records.restores()),
        scheduler_restored=bool(made) and records.restored(made),
        batch_logs=tuple(records.batch_logs(loop)) if loop is not None else (),
        logs_rate=loop is not None and records.logs_rate(loop),
        records=records,
    )


def _manager(tree: Tree, names: Names) -> Problem | None:
    """The framework that owns the loop, where the file uses one (importing it is not enough)."""
    for kind in (cst.Call, cst.ClassDef):
        for node in tree.all(kind):
            used = [node.func] if kind is cst.Call else [b.value for b in node.bases]
            for expression in used:
                dotted = names.dotted(expression) or ""
                for manager, pattern in _MANAGERS.items():
                    if dotted and pattern.search(dotted):
                        return Problem("manager", node, manager)
    return None
