"""The record of a run: what is measured, what is written, and what a training never notices."""

import copy
import importlib.util
import json
import math
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import (  # noqa: E402
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Subset,
    TensorDataset,
)

from quickwins_codemod.runtime import Tracker, tracking  # noqa: E402

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
MIB = 2**20


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    """A training script in a folder of its own, with no variable set and no wandb imported."""
    for name in ("QUICKWINS_TAG", "QUICKWINS_RUNS", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", "--epochs", "4"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Clock:
    """What time.perf_counter reads; seconds pass only by `wait`."""

    def __init__(self, events):
        self.now, self.events = 100.0, events

    def perf_counter(self):
        self.events.append("read")
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock([])
    monkeypatch.setattr(tracking, "time", clock)
    return clock


@pytest.fixture
def cards(monkeypatch):
    """Two cards: a list of the MiB that tensors took on each, and what was asked of them."""
    peaks, events = [0, 0], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"A card, {device}")
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda card: peaks[card] * MIB)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda card: events.append(f"wait {card}"))
    for name in ("reset_peak_memory_stats", "reset_max_memory_allocated", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *args, name=name: events.append(name))
    return types.SimpleNamespace(peaks=peaks, events=events)


def fake_wandb(monkeypatch, **attributes):
    run = types.SimpleNamespace(id="ab12", project="movies", entity="", tags=None, name=None)
    run.__dict__.update(attributes)
    module = types.ModuleType("wandb")
    module.run = run
    monkeypatch.setitem(sys.modules, "wandb", module)
    return run


def record(folder=".quickwins/runs"):
    """All lines of the only run there."""
    (path,) = Path(folder).glob("*.jsonl")
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def rows(count=10):
    return TensorDataset(torch.arange(float(count)))


def sgd(*rates):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


def train(tracker, clock, seconds, loader=None):
    tracker.start_training()
    clock.wait(seconds)
    tracker.end_training(loader)


def speed(loader, clock):
    """Rows in a training of one second."""
    tracker = Tracker()
    train(tracker, clock, 1.0, loader)
    return tracker.log({}).get("samples_per_second")


# The record


def test_a_run_is_a_header_and_a_line_for_each_epoch(clock):
    optimizer = sgd(0.1, torch.tensor(0.01))
    tracker = Tracker(optimizer, tag="baseline")
    loader = DataLoader(rows(), batch_size=4)
    for epoch in range(2):
        train(tracker, clock, 2.0, loader)
        clock.wait(1.0)  # validation
        returned = tracker.log({"ndcg@10": 0.25, "val_rmse": 1})
        optimizer.param_groups[0]["lr"] /= 2
        assert returned == {
            "ndcg@10": 0.25,
            "val_rmse": 1,
            "epoch_seconds": 2.0,
            "samples_per_second": 5.0,
            "peak_memory_mb": returned["peak_memory_mb"],
        }
    header, first, second = record()
    started = header.pop("started")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", started)
    assert header.pop("id").startswith(re.sub("[-:]", "", started) + "-train-")
    assert header == {
        "type": "run",
        "version": 1,
        "tag": "baseline",
        "script": "train.py",
        "arguments": ["--epochs", "4"],
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "device": "cpu",
        "wandb": None,
    }
    assert (first["type"], first["epoch"], first["elapsed_seconds"]) == ("epoch", 1, 3.0)
    assert (second["type"], second["epoch"], second["elapsed_seconds"]) == ("epoch", 2, 6.0)
    assert first["learning_rate"] == pytest.approx([0.1, 0.01])
    assert second["learning_rate"] == pytest.approx([0.05, 0.01])
    assert second["metrics"] == returned


def test_the_file_is_named_after_the_run_and_git_does_not_see_it(script):
    Tracker()
    (path,) = Path(".quickwins/runs").iterdir()
    assert path.name == record()[0]["id"] + ".jsonl"
    assert Path(".quickwins/.gitignore").read_text() == "*\n"
    subprocess.run(["git", "init", "-q", script], check=True)
    status = ["git", "-C", script, "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, check=True, capture_output=True).stdout == b""


def test_a_gitignore_that_is_there_stays():
    Path(".quickwins").mkdir()
    Path(".quickwins/.gitignore").write_text("cache\n")
    Tracker()
    assert Path(".quickwins/.gitignore").read_text() == "cache\n"


@pytest.mark.parametrize(
    "argv, stem",
    [
        (["/home/me/my project/trän (2).py"], "tr_n_2_"),
        (["-c"], "-c"),
        ([""], "run"),
        ([Path("train.py"), 4], "train"),
        ([], "run"),
        (["x" * 300 + ".py"], "x" * 64),
    ],
)
def test_any_script_has_a_name_for_its_file(argv, stem, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    Tracker().log({})
    identity = record()[0]["id"]
    assert re.fullmatch(rf"\d{{8}}T\d{{6}}Z-{stem}-[0-9a-f]{{8}}", identity)


def test_runs_that_start_in_the_same_second_have_a_file_each():
    for tracker in [Tracker(tag=str(number)) for number in range(20)]:
        tracker.log({"loss": 1.0})
    runs = [path.read_text().splitlines() for path in Path(".quickwins/runs").iterdir()]
    assert sorted(json.loads(run[0])["tag"] for run in runs) == sorted(map(str, range(20)))
    assert [len(run) for run in runs] == [2] * 20


def test_the_folder_is_the_argument_or_the_variable_or_the_current_one(script, monkeypatch):
    monkeypatch.setenv("QUICKWINS_RUNS", "elsewhere/deep")
    Tracker(tag="variable")
    Tracker(tag="argument", folder=script / "given")
    monkeypatch.setenv("QUICKWINS_RUNS", "")
    Tracker(tag="neither")
    assert record("elsewhere/deep")[0]["tag"] == "variable"
    assert record("given")[0]["tag"] == "argument"
    assert record()[0]["tag"] == "neither"
    assert not list(script.glob("elsewhere/**/.gitignore"))


def test_a_script_that_changes_its_folder_keeps_its_record(script, monkeypatch):
    tracker = Tracker()
    (script / "output").mkdir()
    monkeypatch.chdir(script / "output")
    tracker.log({"loss": 1.0})
    assert len(record(script / ".quickwins/runs")) == 2
    assert not any((script / "output").iterdir())


@pytest.mark.parametrize("argument", [None, ""])
def test_the_tag_is_the_argument_or_the_variable(argument, monkeypatch):
    assert Tracker(tag=argument).tag is None
    monkeypatch.setenv("QUICKWINS_TAG", "optimized")
    assert Tracker(tag=argument).tag == "optimized"
    assert Tracker(tag="baseline").tag == "baseline"
    monkeypatch.setenv("QUICKWINS_TAG", "")
    assert Tracker(tag=argument).tag is None


def test_lines_outlive_a_process_that_is_killed(script):
    code = (
        "import sys; from quickwins_codemod.runtime import Tracker\n"
        "tracker = Tracker(tag='killed')\n"
        "for epoch in range(3): tracker.log({'loss': 1 / (epoch + 1)})\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    # The stdin that it waits for stays open.
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=script,
    )
    try:
        assert child.stdout.readline().strip() == b"ready"
    finally:
        child.kill()
        child.communicate()
    header, *epochs = record()
    assert header["tag"] == "killed"
    assert [epoch["metrics"]["loss"] for epoch in epochs] == [1.0, 1 / 2, 1 / 3]


# Metrics


def test_numbers_of_any_kind_are_recorded_and_returned_as_they_are(recwarn):
    numpy = pytest.importorskip("numpy")
    metrics = {
        "tensor": torch.tensor(0.5, requires_grad=True),
        "one": torch.tensor([[2]]),
        "half": torch.tensor(0.25, dtype=torch.bfloat16),
        "numpy": numpy.float32(0.125),
        "array": numpy.array([3.0]),
        "users": 7,
        "nan": math.nan,
        "infinite": torch.tensor(-math.inf),
        "numpy nan": numpy.float64("nan"),
    }
    returned = Tracker().log(metrics)
    assert all(returned[name] is value for name, value in metrics.items())
    written = record()[1]["metrics"]
    del written["peak_memory_mb"]
    assert written == {
        "tensor": 0.5,
        "one": 2.0,
        "half": 0.25,
        "numpy": 0.125,
        "array": 3.0,
        "users": 7.0,
        "nan": None,
        "infinite": None,
        "numpy nan": None,
    }
    assert not recwarn.list


def test_what_is_no_number_is_returned_but_not_recorded():
    metrics = {"name": "12", "table": [1, 2], "many": torch.ones(2), "none": None, "huge": 10**400}
    returned = Tracker().log({**metrics, "loss": 1.0})
    assert {name: returned[name] for name in metrics} == metrics
    assert set(record()[1]["metrics"]) == {"loss", "peak_memory_mb"}


def test_the_prefix_is_before_every_name_and_not_in_the_record(clock):
    tracker = Tracker()
    train(tracker, clock, 2.0, DataLoader(rows()))
    metrics = {"ndcg@10": 0.5}
    returned = tracker.log(metrics, prefix="val_")
    names = {"ndcg@10", "epoch_seconds", "samples_per_second", "peak_memory_mb"}
    assert set(returned) == {f"val_{name}" for name in names}
    assert set(record()[1]["metrics"]) == names
    assert metrics == {"ndcg@10": 0.5}


def test_a_metric_that_is_given_wins_over_the_measured_one(clock):
    tracker = Tracker()
    train(tracker, clock, 2.0)
    returned = tracker.log({"epoch_seconds": 9.0}, prefix="val_")
    assert returned["val_epoch_seconds"] == record()[1]["metrics"]["epoch_seconds"] == 9.0


def test_learning_rates_that_are_no_numbers_are_null_and_none_are_needed():
    optimizer = sgd(0.5, 0.5)
    tracker = Tracker(optimizer, folder="with")
    optimizer.param_groups[0]["lr"] = math.nan
    del optimizer.param_groups[1]["lr"]
    tracker.log({})
    Tracker(folder="without").log({})
    assert record("with")[1]["learning_rate"] == [None, None]
    assert record("without")[1]["learning_rate"] == []


def test_what_is_no_optimizer_is_refused():
    with pytest.raises(TypeError, match="optimizer must be.*not an object of type Linear: leave"):
        Tracker(torch.nn.Linear(1, 1))


# Time and rows


def test_several_trainings_of_an_epoch_add_up_and_the_next_begins_anew(clock):
    tracker = Tracker()
    loader = DataLoader(rows(30))
    train(tracker, clock, 1.0, loader)
    clock.wait(50.0)
    train(tracker, clock, 4.0, loader)
    found = tracker.log({})
    assert (found["epoch_seconds"], found["samples_per_second"]) == (5.0, 12.0)
    train(tracker, clock, 2.0, loader)
    found = tracker.log({})
    assert (found["epoch_seconds"], found["samples_per_second"]) == (2.0, 15.0)


def test_one_loop_of_unknown_length_leaves_the_speed_out_of_its_epoch(clock):
    tracker = Tracker()
    train(tracker, clock, 1.0, DataLoader(rows()))
    train(tracker, clock, 1.0)
    found = tracker.log({})
    assert found["epoch_seconds"] == 2.0 and "samples_per_second" not in found
    train(tracker, clock, 1.0, DataLoader(rows()))
    assert tracker.log({})["samples_per_second"] == 10.0


def test_without_a_training_there_is_no_time_of_it(clock):
    tracker = Tracker()
    assert set(tracker.log({})) == {"peak_memory_mb"}
    tracker.end_training(DataLoader(rows()))  # its beginning is missing
    assert set(tracker.log({})) == {"peak_memory_mb"}
    train(tracker, clock, 1.0, DataLoader(rows()))
    clock.wait(1.0)
    tracker.end_training(DataLoader(rows()))  # for the second time
    found = tracker.log({})
    assert (found["epoch_seconds"], found["samples_per_second"]) == (1.0, 10.0)


def test_a_training_that_broke_off_does_not_count(clock):
    tracker = Tracker()
    tracker.start_training()
    clock.wait(10.0)
    train(tracker, clock, 1.0)
    assert tracker.log({})["epoch_seconds"] == 1.0


def test_a_training_too_short_for_the_clock_has_no_speed(clock):
    assert speed(DataLoader(rows()), clock) == 10.0
    tracker = Tracker()
    train(tracker, clock, 0.0, DataLoader(rows()))
    found = tracker.log({})
    assert found["epoch_seconds"] == 0.0 and "samples_per_second" not in found


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("the loader was iterated over")


class Sized(Stream):
    def __len__(self):
        return 10


class Batches:
    """A loader of the script's own."""

    def __init__(self, batch_size, length=3):
        self.batch_size, self.length = batch_size, length

    def __len__(self):
        if self.length is None:
            raise RuntimeError("nobody knows")
        return self.length


class Buckets(torch.utils.data.Sampler):
    """Batches of its own, one of them short."""

    def __init__(self, batch_size=None):
        if batch_size:
            self.batch_size = batch_size

    def __iter__(self):
        return iter([[0, 1, 2, 3], [4, 5, 6]])

    def __len__(self):
        return 2


class Endless(torch.utils.data.Sampler):
    def __init__(self):
        pass

    def __iter__(self):
        raise AssertionError("the sampler was iterated over")


LOADERS = {
    "plain": (lambda: DataLoader(rows(), batch_size=4), 10),
    "drop_last": (lambda: DataLoader(rows(), batch_size=4, drop_last=True), 8),
    "too few": (lambda: DataLoader(rows(3), batch_size=4, drop_last=True), 0),
    "part": (lambda: DataLoader(Subset(rows(), range(7)), batch_size=4, shuffle=True), 7),
    "sampler": (lambda: DataLoader(rows(), 4, sampler=RandomSampler(rows(), True, 25)), 25),
    "batches of torch": (
        lambda: DataLoader(rows(), batch_sampler=BatchSampler(range(10), 4, False)),
        10,
    ),
    "batches of the script": (lambda: DataLoader(rows(), batch_sampler=Buckets(4)), 8),
    "batches of unknown size": (lambda: DataLoader(rows(), batch_sampler=Buckets()), None),
    "no batches": (lambda: DataLoader(rows(), batch_size=None), None),
    "endless sampler": (lambda: DataLoader(rows(), batch_size=4, sampler=Endless()), None),
    "stream": (lambda: DataLoader(Stream(), batch_size=4), None),
    "sized stream": (lambda: DataLoader(Sized(), batch_size=4), 10),
    "sized stream, drop_last": (lambda: DataLoader(Sized(), batch_size=4, drop_last=True), 8),
    "sized stream of batches": (lambda: DataLoader(Sized(), batch_size=None), None),
    "loader of the script": (lambda: Batches(32), 96),
    "loader without a size": (lambda: Batches(None), None),
    "loader that fails": (lambda: Batches(32, length=None), None),
    "list": (lambda: [torch.ones(4)] * 3, None),
    "generator": (lambda: (torch.ones(4) for _ in range(3)), None),
    "none": (lambda: None, None),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_rows_are_those_that_the_loader_says(kind, clock):
    make, expected = LOADERS[kind]
    assert speed(make(), clock) == expected


@pytest.mark.parametrize("batch_size, drop_last", [(4, False), (4, True), (10, True), (3, False)])
def test_rows_are_those_of_an_iteration(batch_size, drop_last, clock):
    loader = DataLoader(rows(), batch_size=batch_size, drop_last=drop_last)
    assert speed(loader, clock) == sum(len(batch) for (batch,) in loader)


def test_a_stream_is_not_watched_for_having_been_asked(clock, recwarn):
    class Longer(Sized):
        def __iter__(self):
            return iter(range(25))

    loader = DataLoader(Longer(), batch_size=1)
    speed(loader, clock)
    assert sum(1 for _ in loader) == 25  # list() would ask for the length itself
    assert not recwarn.list


def test_a_generator_is_not_used_up(clock):
    loader = iter(range(3))
    speed(loader, clock)
    assert list(loader) == [0, 1, 2]


# Memory


@pytest.fixture
def no_proc(monkeypatch):
    """A system that does not show its processes as files."""

    def opened(path, *args, **named):
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return open(path, *args, **named)

    monkeypatch.setattr(tracking, "open", opened, raising=False)


def check_memory():
    psutil = pytest.importorskip("psutil")
    if tracking.resource is None:
        pytest.skip("a system without getrusage")
    now = psutil.Process().memory_info().rss / MIB
    assert 0.9 * now < Tracker().log({})["peak_memory_mb"] < 100 * now


def test_memory_of_the_process_is_in_mib():
    check_memory()


def test_memory_is_in_mib_from_getrusage_too(no_proc):
    check_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")
def test_memory_of_the_process_that_started_this_one_does_not_count(script):
    held = bytearray(b"x") * (800 * MIB)
    code = "from quickwins_codemod.runtime import Tracker; print(Tracker().log({}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=script, capture_output=True, check=True)
    assert float(re.search(rb"peak_memory_mb\D+([\d.]+)", done.stdout)[1]) < len(held) / MIB


def test_a_system_that_does_not_say_leaves_memory_out(no_proc, monkeypatch, clock):
    monkeypatch.setattr(tracking, "resource", None)
    tracker = Tracker()
    train(tracker, clock, 1.0)
    assert set(tracker.log({})) == {"epoch_seconds"}


def test_memory_of_the_fullest_card_is_read_before_validation(cards, clock):
    tracker = Tracker()
    cards.peaks[:] = 100, 300
    train(tracker, clock, 1.0)
    cards.peaks[:] = 100, 900  # by validation
    assert tracker.log({}) == {"epoch_seconds": 1.0, "peak_gpu_memory_mb": 300.0}
    assert tracker.log({}) == {"peak_gpu_memory_mb": 900.0}
    cards.peaks[:] = 0, 0
    assert tracker.log({}) == {"peak_gpu_memory_mb": 0.0}


def test_what_only_validation_took_is_no_peak_of_later_training(cards, clock):
    tracker, peaks = Tracker(), []
    # The card's peak after training and after validation; it stays where nothing takes more, and
    # falls where the script resets it.
    for training, validation in ((300, 900), (900, 920), (950, 960), (960, 960), (200, 400)):
        tracker.start_training()
        cards.peaks[0] = training
        tracker.end_training()
        cards.peaks[0] = validation
        peaks.append(tracker.log({})["peak_gpu_memory_mb"])
    assert peaks == [300.0, 300.0, 950.0, 950.0, 200.0]


def test_peaks_are_never_reset(cards, clock):
    tracker = Tracker(sgd(0.1))
    for _ in range(3):
        cards.peaks[0] += 1
        train(tracker, clock, 1.0, DataLoader(rows()))
        tracker.log({})
    assert set(cards.events) == {"wait 0"}


def test_the_clock_is_read_when_the_used_cards_have_finished(cards, clock):
    tracker = Tracker()
    cards.peaks[1] = 1  # and none on card 0, which waiting for would take memory on
    clock.events = cards.events
    for call in (tracker.start_training, tracker.end_training):
        cards.events.clear()
        call()
        assert cards.events == ["wait 1", "read"]


def test_cuda_that_no_one_uses_is_left_alone(monkeypatch, clock):
    def fail(*args):
        raise AssertionError("CUDA was asked")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    for name in ("device_count", "max_memory_allocated", "synchronize", "get_device_name"):
        monkeypatch.setattr(torch.cuda, name, fail)
    tracker = Tracker(sgd(0.1))
    train(tracker, clock, 1.0)
    assert "peak_gpu_memory_mb" not in tracker.log({})


def test_the_device_is_that_of_the_parameters(cards):
    Tracker(sgd(0.1), folder="cpu")
    Tracker(folder="card")
    Tracker(torch.optim.SGD([torch.ones(1, device="meta")], lr=0.1), folder="other")
    assert [record(name)[0]["device"] for name in ("cpu", "card", "other")] == [
        "cpu",
        "A card, cuda",
        "meta",
    ]


# What a training never notices


def test_random_streams_are_untouched(clock, monkeypatch):
    numpy = pytest.importorskip("numpy")
    fake_wandb(monkeypatch)

    def states():
        name, keys, *rest = numpy.random.get_state()
        return random.getstate(), name, keys.tolist(), rest, torch.get_rng_state().tolist()

    random.seed(1)
    numpy.random.seed(2)
    torch.manual_seed(3)
    before = states()
    tracker = Tracker(sgd(0.1), tag="baseline")
    loader = DataLoader(rows(), batch_size=4, shuffle=True)
    for _ in range(2):
        train(tracker, clock, 1.0, loader)
        tracker.log({"loss": torch.tensor(1.0)})
    assert states() == before


def test_a_seeded_script_has_another_file_each_time():
    for _ in range(2):
        random.seed(1)
        torch.manual_seed(1)
        Tracker()
    assert len(list(Path(".quickwins/runs").iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_one_line_and_training_goes_on(script, capsys, clock):
    (script / "file").write_text("no folder")
    tracker = Tracker(folder=script / "file" / "runs")
    for _ in range(3):
        train(tracker, clock, 2.0, DataLoader(rows()))
        assert tracker.log({"loss": 1.0})["samples_per_second"] == 5.0
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("quickwins: the run is not recorded") and "file" in line


def test_a_folder_that_goes_is_one_line_and_training_goes_on(capsys):
    tracker = Tracker()
    tracker.log({"loss": 1.0})
    shutil.rmtree(".quickwins")
    for epoch in range(2):
        assert tracker.log({"loss": epoch})["loss"] == epoch
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path(".quickwins").exists()


def test_a_full_disk_is_one_line_and_no_line_follows_the_broken_one(capsys, monkeypatch):
    tracker = Tracker()

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def write(self, text):
            raise OSError(28, "No space left on device")

    def opened(path, *args, **named):
        return Full() if str(path).endswith(".jsonl") else open(path, *args, **named)

    monkeypatch.setattr(tracking, "open", opened, raising=False)
    tracker.log({})
    monkeypatch.delattr(tracking, "open")
    tracker.log({})
    assert "No space left" in capsys.readouterr().err
    assert len(record()) == 1


def test_a_trainer_that_holds_a_tracker_can_be_copied_and_pickled():
    tracker = Tracker(sgd(0.1))
    tracker.log({})
    for twin in (copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        twin.log({})
    assert [line.get("epoch") for line in record()] == [None, 1, 2, 2]


# Ranks


def test_only_the_first_rank_of_a_launcher_writes_and_touches_wandb(monkeypatch, clock):
    run = fake_wandb(monkeypatch, tags=("own",), name="ncf")
    monkeypatch.setenv("RANK", "1")
    other = Tracker(tag="baseline")
    train(other, clock, 2.0, DataLoader(rows()))
    found = other.log({"loss": 1.0})
    assert (run.tags, run.name) == (("own",), "ncf")
    assert not Path(".quickwins").exists()
    monkeypatch.setenv("RANK", "0")
    first = Tracker(tag="baseline")
    train(first, clock, 2.0, DataLoader(rows()))
    assert set(first.log({"loss": 1.0})) == set(found)
    assert found["samples_per_second"] == 5.0  # this process is on its own until a group begins
    assert run.tags == ("own", "baseline") and len(record()) == 2


@pytest.mark.parametrize("value", ["", "0", "first", "²"])
def test_any_other_value_of_rank_is_a_process_on_its_own(value, monkeypatch):
    monkeypatch.setenv("RANK", value)
    Tracker()
    assert len(record()) == 1


RANKS = """
import json, os, sys, types
import torch, torch.distributed as dist
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from quickwins_codemod.runtime import Tracker, tracking

rank, meeting_point = sys.argv[1:]
dist.init_process_group("gloo", meeting_point, world_size=2, rank=int(rank))
now = [0.0]
tracking.time = types.SimpleNamespace(perf_counter=lambda: now[0])
wandb = sys.modules["wandb"] = types.ModuleType("wandb")
wandb.run = types.SimpleNamespace(tags=(), name="ncf")
data = TensorDataset(torch.ones(40))
loader = DataLoader(data, batch_size=4, sampler=DistributedSampler(data))
tracker = Tracker(tag="baseline")
tracker.start_training()
now[0] += 2.0
tracker.end_training(loader)
found = tracker.log({"ndcg@10": 0.5}, prefix="val_")
dist.barrier()
dist.destroy_process_group()
print(json.dumps({"found": found, "tags": wandb.run.tags}), flush=True)
os._exit(0)  # torch's own threads have been seen to abort the interpreter while it ends
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_of_two_ranks_one_writes_and_the_rows_of_both_count(script):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), (script / "meeting").as_uri()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=script,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    first, second = (json.loads(printed) for printed, _ in outputs)
    assert (first["tags"], second["tags"]) == (["baseline"], [])
    for found in (first["found"], second["found"]):
        assert found["val_samples_per_second"] == 20.0
        assert set(found) - {"val_peak_memory_mb"} == {
            "val_ndcg@10",
            "val_epoch_seconds",
            "val_samples_per_second",
        }
    assert set(first["found"]) == set(second["found"])
    header, epoch = record()
    assert header["tag"] == "baseline" and epoch["metrics"]["samples_per_second"] == 20.0


# wandb


@pytest.mark.parametrize(
    "tags, name, expected",
    [
        (None, None, (("base",), "base")),
        ((), "", (("base",), "base")),
        (["own"], "ncf", (("own", "base"), "ncf-base")),
        (("base", "own"), "ncf", (("base", "own"), "ncf-base")),
        (("own",), "ncf-base", (("own", "base"), "ncf-base")),
        ((), "database", (("base",), "database-base")),
        ((), "base", (("base",), "base")),
    ],
)
def test_the_tag_is_put_on_the_run_once(tags, name, expected, monkeypatch):
    run = fake_wandb(monkeypatch, tags=tags, name=name)
    for _ in range(2):
        Tracker(tag="base").log({})
        assert (tuple(run.tags), run.name) == expected


def test_without_a_tag_the_run_is_recorded_and_left_as_it_is(monkeypatch):
    run = fake_wandb(monkeypatch, name="ncf")
    before = dict(vars(run))
    Tracker().log({})
    assert vars(run) == before
    assert record()[0]["wandb"] == {
        "id": "ab12",
        "name": "ncf",
        "project": "movies",
        "entity": None,
    }


def test_a_run_that_begins_later_is_tagged_and_recorded_at_the_first_epoch(monkeypatch):
    tracker = Tracker(tag="baseline")
    assert record()[0]["wandb"] is None
    run = fake_wandb(monkeypatch, name="ncf")
    tracker.log({"loss": 1.0})
    assert (run.tags, run.name) == (("baseline",), "ncf-baseline")
    header, epoch = record()
    assert header["wandb"]["name"] == "ncf-baseline" and epoch["metrics"]["loss"] == 1.0
    later = fake_wandb(monkeypatch, id="other")  # the run of another part of the script
    tracker.log({"loss": 2.0})
    assert later.tags is None
    assert [line.get("epoch") for line in record()] == [None, 1, 2]


class Failing:
    """A run that can neither be read nor changed."""

    def __getattr__(self, name):
        raise ConnectionError("wandb\nis away")

    def __setattr__(self, name, value):
        raise ConnectionError("wandb is away")


def test_errors_of_wandb_end_no_training(monkeypatch, capsys):
    fake_wandb(monkeypatch)
    sys.modules["wandb"].run = Failing()
    tracker = Tracker(tag="baseline")
    for epoch in range(3):
        assert tracker.log({"loss": epoch})["loss"] == epoch
    assert len(record()) == 4 and record()[0]["wandb"] is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("quickwins: ") and line.endswith("wandb is away")


def test_the_tag_is_put_where_the_disk_fails(script, monkeypatch):
    run = fake_wandb(monkeypatch)
    (script / "file").write_text("no folder")
    Tracker(tag="baseline", folder=script / "file" / "runs").log({})
    assert run.tags == ("baseline",)


def test_a_wandb_that_is_hidden_or_has_no_run_is_none(monkeypatch):
    for module in (None, types.ModuleType("wandb")):
        monkeypatch.setitem(sys.modules, "wandb", module)
        Tracker(tag="baseline", folder=str(module)).log({})
        assert record(str(module))[0]["wandb"] is None


REAL = """
import json
import wandb
from quickwins_codemod.runtime import Tracker

assert wandb.run is None
early = Tracker(tag="early", folder="early")
run = wandb.init(project="movies", name="ncf", tags=["own"])
found = [early.log({"loss": 1.0})]
tracker = Tracker(tag="baseline", folder="live")
again = Tracker(tag="baseline", folder="again")
for epoch in range(2):
    found.append(tracker.log({"loss": 1.0}, prefix="val_"))
    wandb.log(found[-1])
tags, name, identity = wandb.run.tags, wandb.run.name, wandb.run.id
wandb.finish()
assert wandb.run is None
tracker.log({"loss": 1.0})
print("RESULT", json.dumps({"tags": tags, "name": name, "id": identity, "found": found}))
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="no wandb")
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_real_runs_of_wandb(mode, script):
    done = subprocess.run(
        [sys.executable, "-c", REAL],
        cwd=script,
        env={**os.environ, "WANDB_MODE": mode, "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "quickwins:" not in done.stderr
    result = json.loads(done.stdout.split("RESULT")[1])
    assert all("loss" in found or "val_loss" in found for found in result["found"])
    early, live = record("early"), record("live")
    assert (len(early), len(live)) == (2, 4)
    assert sorted(result["tags"]) == ["baseline", "early", "own"]
    if mode == "disabled":
        assert early[0]["wandb"] is live[0]["wandb"] is None
        return
    assert result["name"] == "ncf-early-baseline"
    assert early[0]["wandb"]["name"] == "ncf-early"
    assert live[0]["wandb"] == {
        "id": result["id"],
        "name": "ncf-early-baseline",
        "project": "movies",
        "entity": None,
    }
    (stored,) = script.glob("wandb/offline-run-*/*.wandb")
    assert b"ncf-early-baseline" in stored.read_bytes()  # what `wandb sync` will send


# The copy in a user's repository


def test_works_as_a_package_of_another_name_and_imports_no_wandb(script):
    shutil.copytree(
        RUNTIME, script / "quickwins_runtime", ignore=shutil.ignore_patterns("__pycache__")
    )
    (script / "train.py").write_text(
        "import sys, torch\n"
        "from torch.utils.data import DataLoader\n"
        "from quickwins_runtime import Tracker\n"
        "weight = torch.nn.Parameter(torch.ones(2))\n"
        "tracker = Tracker(torch.optim.SGD([weight], lr=0.5))\n"
        "loader = DataLoader(torch.ones(6, 2), batch_size=4)\n"
        "for epoch in range(2):\n"
        "    tracker.start_training()\n"
        "    for batch in loader:\n"
        "        pass\n"
        "    tracker.end_training(loader)\n"
        "    print(sorted(tracker.log({'loss': 1.0})), 'wandb' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "train.py", "--tag", "x"],
        cwd=script,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    memory = [] if tracking.resource is None else ["peak_memory_mb"]
    names = ["epoch_seconds", "loss", *memory, "samples_per_second"]
    assert done.stdout.splitlines() == [f"{names} False"] * 2
    header, *epochs = record()
    assert (header["script"], header["arguments"]) == ("train.py", ["--tag", "x"])
    assert [epoch["learning_rate"] for epoch in epochs] == [[0.5], [0.5]]


# With a card


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_card_its_memory_and_name_are_read(script):
    weight = torch.nn.Parameter(torch.ones(MIB, device="cuda"))  # 4 MiB
    tracker = Tracker(torch.optim.SGD([weight], lr=0.1))
    tracker.start_training()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    (weight.detach() + 1).sum()
    tracker.end_training()
    found = tracker.log({})
    assert held / MIB + 4 <= found["peak_gpu_memory_mb"] <= held / MIB + 8
    assert torch.cuda.max_memory_allocated() / MIB == found["peak_gpu_memory_mb"]
    assert record()[0]["device"] == torch.cuda.get_device_name()
