"""Watching changes nothing: the sample repository trains the same with its ranking metrics, which
are what plain numpy computes from the trained models and the scripts' own data."""

import contextlib
import json
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import helpers
import pytest
import recorder

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

SCRIPTS = {
    "ncf": "neural_collaborative_filtering",
    "sequential": "sequential_models",
    "two_tower": "two_tower_model",
    "hybrid_movie": "hybrid_recommendation_movie/hybrid_recommendation",
    "hybrid_tv": "hybrid_recommendation_tv/hybrid_recommendation",
    "implicit_neumf": "implicit_feedback/neumf",
    "implicit_two_tower": "implicit_feedback/two_tower",
}
ITEM_TABLES = {
    "ncf": "mf_item",
    "sequential": "item_embedding",
    "two_tower": "item_vectors",
    "hybrid_movie": "movie_vectors",
    "hybrid_tv": "show_embedding",
    "implicit_neumf": "mf_item",
    "implicit_two_tower": "item_tower.embedding",
}
EPOCHS = 3
#: Rates at which the models leave what is only popular within three epochs.
ARGUMENTS = {
    "sequential": ["--embedding-dim", "16", "--warmup-steps", "25"],
    "hybrid_movie": ["--learning-rate", "0.02", "--gradient-clipping"],
    "hybrid_tv": ["--learning-rate", "0.02"],
    "two_tower": ["--learning-rate", "0.01"],
    "ncf": ["--learning-rate", "0.02"],
    "implicit_neumf": ["--learning-rate", "0.02", "--batch-size", "128"],
    "implicit_two_tower": ["--learning-rate", "0.02", "--batch-size", "128"],
}
PREFIX = "val/"  # of the sample's TrainingLogger
RANKING = [
    "ndcg@10", "recall@10", "hit_rate@10", "embedding_diversity@10", "novelty@10", "coverage",
]
USERS = ["users_evaluated", "users_without_relevant"]
MEASURED = ["samples_per_second", "epoch_seconds", "peak_memory_mb"]
_TIMES = re.compile(r"seconds|_ms$|time")
_RESETS = (
    "reset_peak_memory_stats", "reset_max_memory_allocated", "reset_max_memory_cached",
    "reset_accumulated_memory_stats", "reset_peak_host_memory_stats", "empty_cache",
)


def quickwins(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "quickwins_codemod", *arguments],
        cwd=cwd, capture_output=True, text=True,
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A copy of the sample repository with data, before anything is rewritten."""
    pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    root = tmp_path_factory.mktemp("original") / "recsys"
    shutil.copytree(
        helpers.SAMPLE, root, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models")
    )
    subprocess.run(
        [sys.executable, "make_data.py", "data", "--users", "60", "--items", "50"],
        cwd=root, check=True, capture_output=True,
    )
    return root


@pytest.fixture(scope="module")
def rewritten(original, tmp_path_factory):
    root = tmp_path_factory.mktemp("rewritten") / "recsys"
    shutil.copytree(original, root)
    done = quickwins("apply", "--select", "metrics", ".", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


# -- running a script ------------------------------------------------------------------------------


@dataclass
class Watched:
    """What a run left behind: the model after its last epoch, and everything else but times."""

    model: object
    checkpoint: dict
    logged: list  # rows of wandb, in their order
    flags: list  # after each step of the optimizer and at each row
    streams: dict
    resets: list
    loaders: tuple  # for training and validation, made once more by the script
    record: list  # the files of the record, each as its lines


def streams():
    return {
        "random": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
    }


def flags_of(model):
    """Everything about a model and about torch that an evaluation is likely to leave changed."""
    return (
        [module.training for module in model.modules()],
        [weight.requires_grad for weight in model.parameters()],
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


@contextlib.contextmanager
def as_a_process(root, arguments, folder):
    """A working folder, arguments, modules and random streams as of a process of its own."""
    modules, path, argv, cwd, before = (
        set(sys.modules), sys.path[:], sys.argv, os.getcwd(), streams(),
    )
    sys.argv = [str(part) for part in arguments]
    sys.path.insert(0, str(Path(arguments[0]).parent))
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(cwd)
        sys.path[:], sys.argv = path, argv
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(root):
                del sys.modules[name]
        random.setstate(before["random"])
        torch.set_rng_state(torch.tensor(before["torch"], dtype=torch.uint8))
        np.random.set_state(before["numpy"])


def watch(root, name, folder):
    """Run one script in this process, as its users do, and look at it without taking part."""
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook

    script = root / SCRIPTS[name] / "train_with_wandb.py"
    arguments = [script, "--ratings-path", root / "data/ratings.csv"]
    arguments += ["--movies-path", root / "data/movies.csv", "--epochs", EPOCHS, "--device", "cpu"]
    arguments += ["--early-stopping-patience", "99", "--output-dir", folder / "models"]
    arguments += ARGUMENTS[name]
    called, flags, resets = [], [], []

    class Rows(list):
        def append(self, row):
            super().append(row)
            if called:  # the first rows come before the model does anything
                flags.append(flags_of(called[0]))

    logged = Rows()
    torch.set_num_threads(1)
    hooks = [
        register_module_forward_pre_hook(
            # Of all modules, the model is called first. What a hook returns is taken as arguments.
            lambda module, _: None if called else called.append(module)
        ),
        register_optimizer_step_post_hook(lambda *_: flags.append(flags_of(called[0]))),
    ]
    with pytest.MonkeyPatch.context() as patch, as_a_process(root, arguments, folder):
        patch.setitem(sys.modules, "wandb", recorder._wandb(logged))
        patch.setattr(torch.cuda, "is_initialized", lambda: False)  # by another test
        patch.delenv("QUICKWINS_RUNS", raising=False)
        patch.delenv("QUICKWINS_TAG", raising=False)
        for owner in (torch.cuda, torch.cuda.memory):
            for reset in _RESETS:
                if hasattr(owner, reset):
                    patch.setattr(owner, reset, lambda *_, reset=reset: resets.append(reset))
        try:
            space = runpy.run_path(str(script), run_name="__main__")
        finally:
            for hook in hooks:
                hook.remove()
        ends = streams()
        made = space["prepare_data"](space["parse_args"]())
    (saved,) = (folder / "models").glob("*.pt")
    files = sorted(folder.rglob(".quickwins/runs/*"))
    return Watched(
        called[0], torch.load(saved, weights_only=False), logged, flags, ends, resets, made[:2],
        [[json.loads(line) for line in file.read_text().splitlines()] for file in files],
    )


@pytest.fixture(scope="module")
def pairs(original, rewritten, tmp_path_factory):
    """The runs of a script before and after, made when first asked for."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            done[name] = (
                watch(original, name, folder / "before"), watch(rewritten, name, folder / "after")
            )
        return done[name]

    return get


# -- what plain numpy computes ---------------------------------------------------------------------


def rows_of(loader):
    return [[column.tolist() for column in loader.dataset[i]] for i in range(len(loader.dataset))]


def lists_of_users(run, n_items):
    """(scores [I], relevant, seen) of each user, and for each item the share of users with it."""
    seen, held_out = {}, {}
    for into, loader in zip((seen, held_out), run.loaders):
        for user, item, *_ in rows_of(loader):
            into.setdefault(user, set()).add(item)
    every = torch.arange(n_items)
    scores = {user: run.model(torch.full_like(every, user), every).numpy() for user in held_out}
    shares = [sum(item in items for items in seen.values()) / len(seen) for item in range(n_items)]
    found = [(scores[u], held_out[u], seen.get(u, set())) for u in held_out]
    return found, shares, len(seen)


def lists_of_histories(run, n_items):
    """The same of rows of histories; an item's share is that of the rows it is the answer to."""
    training, validation = map(rows_of, run.loaders)
    found = [
        (run.model(torch.tensor([history]))[0].numpy(), {answer}, set(history))
        for history, (answer,) in validation
    ]
    answers = [answer for _, (answer,) in training]
    shares = [answers.count(item) / len(answers) for item in range(n_items)]
    return found, shares, len(answers)


def expected(run, name, k=10):
    """The metrics, written down from their definitions, one user and one item after the other."""
    table = run.model.get_submodule(ITEM_TABLES[name]).weight.detach().double().numpy()
    padding = {0} if name == "sequential" else set()
    n_items = len(table)
    with torch.no_grad():
        run.model.eval()
        lists = lists_of_histories if name == "sequential" else lists_of_users
        users, shares, n_users = lists(run, n_items)
    values = {key: [] for key in RANKING[:-1]}
    shown, left_out = set(), 0
    for scores, relevant, seen in users:
        relevant = relevant - seen
        if not relevant:
            left_out += 1
            continue
        allowed = [item for item in range(n_items) if item not in seen | padding]
        top = sorted(allowed, key=lambda item: -scores[item])[:k]
        hits = [item in relevant for item in top]
        gain = sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits))
        best = sum(1 / np.log2(rank + 2) for rank in range(min(k, len(relevant))))
        units = [table[item] / np.linalg.norm(table[item]) for item in top]
        distances = [1 - a @ b for i, a in enumerate(units) for b in units[:i]]
        values["ndcg@10"].append(gain / best)
        values["recall@10"].append(sum(hits) / len(relevant))
        values["hit_rate@10"].append(float(any(hits)))
        values["embedding_diversity@10"].append(np.mean(distances))
        values["novelty@10"].append(np.mean([-np.log2(max(shares[i], 1 / n_users)) for i in top]))
        shown.update(top)
    return {
        **{key: np.mean(found) for key, found in values.items()},
        "coverage": len(shown) / (n_items - len(padding)),
        "users_evaluated": len(users) - left_out,
        "users_without_relevant": left_out,
    }


def epoch_rows(run):
    return [row for row in run.logged if PREFIX + "loss" in row]


# -- watching changes nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_trained_parameters_are_the_same_bit_by_bit(name, pairs):
    before, after = pairs(name)
    old, new = before.model.state_dict(), after.model.state_dict()

    assert old.keys() == new.keys() and len(old) > 5
    assert [key for key in old if not torch.equal(old[key], new[key])] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_checkpoint_is_the_same_bit_by_bit(name, pairs):
    saved = [
        {key: value for key, value in run.checkpoint.items() if key != "config"}
        for run in pairs(name)
    ]

    assert {"epoch", "model_state_dict", "optimizer_state_dict", "val_loss"} <= saved[0].keys()
    torch.testing.assert_close(*saved, rtol=0, atol=0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_global_random_streams_end_where_they_did(name, pairs):
    before, after = pairs(name)

    assert [key for key in before.streams if before.streams[key] != after.streams[key]] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_flags_are_the_same_at_every_step_and_every_row(name, pairs):
    before, after = pairs(name)

    assert len(before.flags) > 10 * EPOCHS
    assert before.flags == after.flags


@pytest.mark.parametrize("name", SCRIPTS)
def test_cuda_is_not_touched(name, pairs):
    _, after = pairs(name)

    assert after.resets == []


# -- what is logged --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_epoch_logs_the_metrics_under_the_prefix_of_the_script(name, pairs):
    _, after = pairs(name)
    rows = epoch_rows(after)

    assert len(rows) == EPOCHS
    for row in rows:
        assert {PREFIX + key for key in [*RANKING, *USERS, *MEASURED]} <= row.keys()
        assert all(row[PREFIX + key] > 0 for key in MEASURED)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_was_logged_before_is_logged_as_before(name, pairs):
    before, after = pairs(name)
    added = {PREFIX + key for key in [*RANKING, *USERS, *MEASURED]}

    assert len(before.logged) == len(after.logged)
    for old, new in zip(before.logged, after.logged):
        assert new.keys() - old.keys() == (added if PREFIX + "loss" in old else set())
        assert list(old) == [key for key in new if key in old]
        same = [key for key in old if not _TIMES.search(key)]
        assert {key: new[key] for key in same} == {key: old[key] for key in same}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_record_is_one_file_with_a_line_for_each_epoch(name, pairs):
    before, after = pairs(name)
    (lines,) = after.record

    assert before.record == []
    assert [line["type"] for line in lines] == ["run", *["epoch"] * EPOCHS]
    assert lines[0]["script"].endswith(f"{SCRIPTS[name]}/train_with_wandb.py")
    for number, (line, row) in enumerate(zip(lines[1:], epoch_rows(after)), 1):
        assert line["epoch"] == number
        assert line["metrics"] == {key: row[PREFIX + key] for key in [*RANKING, *USERS, *MEASURED]}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_last_epoch_has_the_values_of_plain_numpy(name, pairs):
    _, after = pairs(name)
    last = {key: epoch_rows(after)[-1][PREFIX + key] for key in [*RANKING, *USERS]}
    values = expected(after, name)

    assert last == pytest.approx(values, abs=1e-6)
    assert 0 < values["ndcg@10"] < 1 and 0 < values["coverage"] <= 1
    assert values["users_evaluated"] > 30


def test_the_metrics_move_with_training(pairs):
    for name in SCRIPTS:
        _, after = pairs(name)
        values = {row[PREFIX + "embedding_diversity@10"] for row in epoch_rows(after)}
        assert len(values) == EPOCHS, name


def test_a_second_check_finds_nothing_to_do(rewritten):
    done = quickwins("check", "--select", "metrics", ".", cwd=rewritten)

    assert done.returncode == 0, done.stdout
