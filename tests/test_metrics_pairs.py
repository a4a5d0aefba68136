"""Ranking metrics, before and after, and what is left alone: each a file in fixtures/, by glob.

A new pair is `fixtures/pairs/metrics/NAME.in.py` and `NAME.out.py`; a new refusal is
`fixtures/refused/metrics/CODE_reason.py`, where `# <- CODE` ends each line that is named
(`untouched_...` where none is, since the script is none of PyTorch's).
"""

import functools
import os
import re
import socket
import subprocess
import sys

import black
import launching
import metrics_helpers as metrics
import pytest
from helpers import place_runtime
from renamer import renamed

from quickwins_codemod import pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms

torch = pytest.importorskip("torch")

INPUTS = sorted(metrics.PAIRS.glob("*.in.py"))
REFUSED = sorted(metrics.REFUSED.glob("*.py"))
MARK = re.compile(r"# <- (QW\d{3})$")
OPTIONS = {"options": {"k": 5, "max_users": 0, "gini": True, "serendipity": True}}
#: What the keys of the ranking metrics begin with in wandb; None where they are not there.
PREFIXES = {
    "bpr": "val/",
    "dict_at_module_level": "",
    "first_rank_logs": "val/",
    "keys_not_seen": "",
    "keys_taken": "val_quickwins_",
    "logged_call": "",
    "logged_variable": "",
    "logger_method": "val/",
    "no_wandb": None,
    "nothing_logged_each_epoch": "",
    "other_ranks_go_on": "val/",
    "own_steps": None,
    "pointwise_labels": "val/",
    "prefix_slash": "val/",
    "run_log": "val/",
    "sequence": "val/",
    "sequence_shifted": "val/",
    "val_metrics_variable": "val/",
    "wandb_perhaps_missing": "",
}
#: Other codes than that of a log that has grown.
CODES = {
    "data_parallel": ["QW401", "QW451"],
    "first_rank_logs": ["QW401", "QW451"],
    "no_wandb": ["QW403", "QW452"],
    "nothing_logged_each_epoch": ["QW402"],
    "other_ranks_go_on": ["QW401", "QW451"],
    "own_steps": ["QW403", "QW452"],
    "wandb_perhaps_missing": ["QW402"],
}
#: Pairs in which the name of a method of the script says that it logs.
NAMED_LOGGERS = {"logger_method", "val_metrics_variable"}


def name(path):
    return re.sub(r"\.(in|out)\.py$|\.py$", "", path.name)


def output(path):
    return path.with_name(name(path) + ".out.py")


def look_at(path, source, folder):
    return metrics.look_at(source, folder, **OPTIONS.get(name(path), {}))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return place_runtime(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def watched(runtime, tmp_path_factory):
    """From a pair to what its rewritten script did, run once with no arguments."""

    @functools.cache
    def train(pair):
        path = metrics.PAIRS / f"{pair}.out.py"
        return metrics.train(path, tmp_path_factory.mktemp("record"), runtime)

    return train


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_becomes_what_an_engineer_would_write(path, tmp_path):
    outcome = look_at(path, path.read_bytes(), tmp_path)

    assert outcome.after is not None, metrics.said(outcome)
    assert outcome.after.decode() == output(path).read_bytes().decode()
    assert sorted(metrics.codes(outcome)) == CODES.get(name(path), ["QW401"])


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_nothing_is_left_to_do(path, tmp_path):
    again = look_at(path, output(path).read_bytes(), tmp_path)

    assert again.after is None, again.diff()
    assert metrics.codes(again) == ["QW400"], metrics.said(again)


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_watching_changes_nothing_that_is_trained_or_logged(path, watched, tmp_path):
    before, after = metrics.train(path, tmp_path), watched(name(path))

    assert after.steps == before.steps > 0
    trained, same = (list(run.parameters.values()) for run in (before, after))
    assert len(trained) == len(same) > 0
    for old, new in zip(trained, same):
        assert all(map(torch.equal, old, new))
    assert after.streams == before.streams
    _assert_logged_as_before(before.logged, after.logged)


def _assert_logged_as_before(before, after):
    """Every call in its order, with the same step, keys and values, among more of them perhaps."""
    rest = [(dict(data), step) for data, step in after]
    for data, step in before:
        while rest:
            found, at = rest.pop(0)
            if at == step and {key: found.get(key) for key in data} == data:
                break
            assert all("ndcg" not in key for key in data) and "ndcg@10" in found
        else:
            raise AssertionError(f"{data} is no longer logged")
    assert all("ndcg@10" in data for data, _ in rest)


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_an_epoch_is_one_line_of_the_record_and_one_log(path, watched):
    run = watched(name(path))
    k = OPTIONS.get(name(path), {}).get("k", 10)
    prefix = PREFIXES.get(name(path), "val_")

    assert [line["type"] for line in run.record] == ["run", "epoch", "epoch", "epoch"]
    assert [line["epoch"] for line in run.epochs] == [1, 2, 3]
    for line in run.epochs:
        expected = {f"ndcg@{k}", f"recall@{k}", f"hit_rate@{k}", f"novelty@{k}", "coverage"}
        expected |= {"users_evaluated", "users_without_relevant", "epoch_seconds"}
        if "QW451" not in CODES.get(name(path), []):
            own = name(path) == "content_features"
            expected.add(f"diversity@{k}" if own else f"embedding_diversity@{k}")
        if name(path) != "loop_with_break":
            expected.add("samples_per_second")
        if name(path) in OPTIONS:
            expected |= {"gini", f"serendipity@{k}"}
        memory = {key for key in line["metrics"] if key.startswith("peak_")}
        assert len(memory) == 1
        assert set(line["metrics"]) - memory == expected
        assert len(line["learning_rate"]) == 1
    logged = run.logged_with(f"ndcg@{k}")
    if prefix is None:
        assert logged == []
        return
    assert len(logged) == 3
    for data, line in zip(logged, run.epochs):
        found = {
            key: data.get(f"{prefix}{key}") for key, value in line["metrics"].items()
        }
        assert found == pytest.approx(line["metrics"], abs=0.0)


# -- the values -----------------------------------------------------------------------------------


def _columns(loader, users=0, items=1):
    rows = [loader.dataset[index] for index in range(len(loader.dataset))]
    return [(int(row[users]), int(row[items])) for row in rows]


def _clicked(loader):
    rows = [loader.dataset[index] for index in range(len(loader.dataset))]
    return [(int(user), int(item)) for user, item, label in rows if label > 0]


def _dot_products(users, items):
    """Scores of all items for a user in plain Python."""
    users, items = users.tolist(), items.tolist()
    return lambda user: [sum(a * b for a, b in zip(users[user], item)) for item in items]


def _factors(names, columns=_columns, **where):
    model = names["model"]
    score = _dot_products(model.user_embedding.weight, model.item_embedding.weight)
    train, held_out = (columns(names[key], **where) for key in ("train_loader", "val_loader"))
    return score, model.item_embedding.num_embeddings, train, held_out


def _towers(users, items, names):
    with torch.no_grad():
        user_vectors, item_vectors = users(torch.arange(20)), items(torch.arange(50))
    train, held_out = (_columns(names[key]) for key in ("train_loader", "val_loader"))
    return _dot_products(user_vectors, item_vectors), 50, train, held_out


def _histories(names, shift):
    """Each row of the validation data is a user of its own."""
    model = names["model"].eval()
    history, target = names["val_loader"].dataset.tensors
    with torch.no_grad():
        scores = model(history).tolist()
    seen = [(row, item - shift) for row, items in enumerate(history.tolist()) for item in items]
    return scores.__getitem__, model.output.out_features, seen, list(enumerate(target.tolist()))


VALUES = {
    "bpr": _factors,
    "collate_function": _factors,
    "dict_batches": lambda names: _factors(names, users="user", items="item"),
    "encoders_of_a_model": lambda names: _towers(
        names["model"].encode_users, names["model"].encode_items, names
    ),
    "items_first": lambda names: _factors(names, users=1, items=0),
    "padding": lambda names: (*_factors(names), 10, (0,)),
    "pointwise_labels": lambda names: _factors(names, _clicked),
    "prefix_slash": _factors,
    "score_method": _factors,
    "sequence": lambda names: (*_histories(names, 0), 10, (0,)),
    "sequence_shifted": lambda names: _histories(names, 1),
    "trainer": _factors,
    "two_encoders": lambda names: _towers(names["user_tower"], names["item_tower"], names),
    "validation_in_a_function": _factors,
    "options": lambda names: (*_factors(names), 5),
}


@pytest.mark.parametrize("pair", VALUES)
def test_the_ranking_is_that_of_the_model(pair, watched):
    run = watched(pair)
    arguments = VALUES[pair](run.names)
    k = arguments[4] if len(arguments) > 4 else 10
    expected = metrics.ranking_at_k(*arguments)

    last = run.epochs[-1]["metrics"]
    assert 0.0 < expected[f"ndcg@{k}"] < 1.0
    assert {key: last[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert len({line["metrics"][f"ndcg@{k}"] for line in run.epochs}) == 3  # of each epoch's model


# -- command lines and ranks -----------------------------------------------------------------------


def test_the_record_is_written_without_wandb_too(runtime, tmp_path):
    path = metrics.PAIRS / "guarded_by_argument.out.py"
    run = metrics.train(path, tmp_path, runtime, ("--no-wandb", "--epochs", "2"))

    assert run.logged == []
    assert len(run.epochs) == 2 and all("ndcg@10" in line["metrics"] for line in run.epochs)


def test_the_tag_is_the_run_s(runtime, tmp_path):
    path = metrics.PAIRS / "guarded_by_argument.out.py"
    run = metrics.train(path, tmp_path, runtime, ("--tag", "baseline"))

    live = run.names["wandb"].run
    assert run.record[0]["tag"] == "baseline"
    assert live.tags == ("baseline",) and live.name.endswith("-baseline")


WANDB = """
import types
run = None
def init(**_):
    global run
    run = types.SimpleNamespace(id="r", name="n", project="p", entity=None, tags=(), disabled=False)
def log(data, step=None):
    assert run is not None
"""


#: Runs a script, and ends without torch's own threads, which have been seen to abort the interpreter.
RANK = """
import os, runpy, sys
script = sys.argv[1]
sys.path[0] = os.path.dirname(script)
runpy.run_path(script, run_name="__main__")
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed")
def test_no_process_waits_for_one_that_does_not_validate(tmp_path):
    place_runtime(tmp_path)
    (tmp_path / "wandb.py").write_text(WANDB)
    script = tmp_path / "train.py"
    script.write_bytes((metrics.PAIRS / "other_ranks_go_on.out.py").read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "QUICKWINS_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(script)],
            cwd=tmp_path, env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()

    assert [process.returncode for process in processes] == [0, 0], said
    (record,) = (tmp_path / "runs").glob("*.jsonl")
    assert record.read_text().count('"ndcg@10"') == 3


# -- what is a sign, and what is left alone --------------------------------------------------------


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_no_name_is_a_sign(path, tmp_path):
    """The same script with all of its own identifiers renamed gets the same verdicts."""
    source = path.read_bytes().decode().replace("\r\n", "\n")
    plain = metrics.look_at(source, tmp_path)
    other = metrics.look_at(renamed(source), tmp_path)

    expected = ["QW402"] if name(path) in NAMED_LOGGERS else metrics.codes(plain)
    assert metrics.codes(other) == expected


@pytest.mark.parametrize("path", INPUTS, ids=name)
def test_no_layout_is_a_sign(path, tmp_path):
    """The same script with its lines broken wherever they can be gets the same verdicts."""
    source = path.read_bytes().decode().replace("\r\n", "\n")
    plain = metrics.look_at(source, tmp_path)
    other = metrics.look_at(black.format_str(source, mode=black.Mode(line_length=30)), tmp_path)

    assert sorted(metrics.codes(other)) == sorted(metrics.codes(plain))


@pytest.mark.parametrize("path", REFUSED, ids=name)
def test_must_not_touch(path, tmp_path):
    source = path.read_text()
    outcome = metrics.look_at(source, tmp_path)

    marked = [
        (number, match[1])
        for number, line in enumerate(source.splitlines(), start=1)
        if (match := MARK.search(line))
    ]
    assert outcome.after is None, outcome.diff()
    assert sorted((v.line, v.code) for v in outcome.verdicts) == marked, metrics.said(outcome)
    for verdict in outcome.verdicts:
        assert verdict.status == "refused" and verdict.hint
        assert "\n" not in verdict.message and verdict.message[-1] != "."


def test_every_code_that_refuses_has_a_file_that_shows_it():
    from quickwins_codemod.transform import all_transforms

    known = {c.code for t in all_transforms() if t.rule == metrics.RULE for c in t.codes}
    shown = {path.name.partition("_")[0] for path in REFUSED}

    assert {code for code in known if "QW410" <= code <= "QW449"} <= shown


def test_every_input_has_an_output():
    assert [name(p) for p in sorted(metrics.PAIRS.glob("*.out.py"))] == [name(p) for p in INPUTS]


def test_what_validation_draws_stays_apart_from_what_training_mines(tmp_path):
    """Both loops use the same names, and `negative = negatives.mine(...)` reads what it sets."""
    total = "total += -nn.functional.logsigmoid(model(user, positive)).mean().item()"
    assert launching.SCRIPT.count(total) == 1
    drawn = (
        "negative = torch.randint(0, ITEMS, (len(user),), device=device)\n"
        "                difference = model(user, positive) - model(user, negative)\n"
        "                total += -nn.functional.logsigmoid(difference).mean().item()"
    )
    path = tmp_path / "train.py"
    path.write_text(launching.SCRIPT.replace(total, drawn))
    settings = Settings(
        rules={t.rule: t.options_type() for t in all_transforms()},
        select=("metrics", "hard-negatives"),
    )
    outcome = pipeline.process(path, pipeline.Context(tmp_path, tmp_path, settings))

    applied = {v.code for v in outcome.verdicts if v.status == "applied"}
    assert applied == {"QW201", "QW403"}, [(v.code, v.message) for v in outcome.verdicts]


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_what_is_ranked_is_seen_after_the_other_rules_too(path, tmp_path):
    """All rules at once: the self-check reads the result again, and finds what each has done."""
    copy = tmp_path / "train.py"
    copy.write_bytes(path.read_bytes())
    settings = Settings(rules={t.rule: t.options_type() for t in all_transforms()})
    outcome = pipeline.process(copy, pipeline.Context(tmp_path, tmp_path, settings))

    assert outcome.status == "changed", [(v.code, v.message) for v in outcome.verdicts]
