"""`quickwins trial` and `quickwins run`, from the command line to the runs of a small script."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launching import SCRIPT

from quickwins_codemod import attempting, cli, interpreters, trials, workspace
from quickwins_codemod.report import trial_progress
from quickwins_codemod.trials import Environment

HERE = Environment("3.11.0", "2.13.0", "cpu", 2, "Linux", "0.1.0")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository with the script, and the Python of this session to run it with."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text(SCRIPT)
    (root / "notes.txt").write_text("kept")
    (root / "model.pt").write_bytes(b"an older model")
    prepare(monkeypatch, root)
    return root


def prepare(patch, root):
    patch.chdir(root)
    for name in ("QUICKWINS_RUNS", "QUICKWINS_TAG", "QUICKWINS_AMP", "PYTHONPATH"):
        patch.delenv(name, raising=False)
    known = interpreters.Interpreter(sys.executable, HERE)
    patch.setattr(interpreters, "find", lambda asked, root: known)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A trial of one seed, and then the same with two: outputs, and the trial as it was read."""
    root = tmp_path_factory.mktemp("shared") / "project"
    root.mkdir()
    (root / "train.py").write_text(SCRIPT)
    (root / "model.pt").write_bytes(b"an older model")
    before = workspace.fingerprint(root)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, root)
        for seeds in ("1", "2"):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = invoke(
                    "trial", "train.py", "--select", "onecycle", "--seeds", seeds, "--format",
                    "json", "--", "--epochs", "2",
                )  # fmt: skip
            assert code == 0, err.getvalue()
            found.append((out.getvalue(), err.getvalue()))
    (folder,) = (root / ".quickwins" / "trials").iterdir()
    assert workspace.differences(before, workspace.fingerprint(root)) == []
    return found, trials.read(folder), folder


def invoke(*words):
    return cli.invoke(list(words))


def flat(text):
    return " ".join(text.split())


def only(root):
    (folder,) = (root / ".quickwins" / "trials").iterdir()
    return folder, trials.read(folder)


def files(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".quickwins" not in path.parts
    }


# A trial that runs


def test_every_variant_is_run_with_every_seed(shared):
    _, trial, _ = shared

    assert [(a.variant, a.seed, a.status) for a in trial.attempts] == [
        ("baseline", 0, "done"), ("onecycle", 0, "done"),
        ("baseline", 1, "done"), ("onecycle", 1, "done"),
    ]  # fmt: skip
    assert all(len(a.run.epochs) == 2 and not a.defects for a in trial.attempts)
    assert all("ndcg@10" in a.run.epochs[-1].metrics for a in trial.attempts)
    assert trial.changed == () and trial.notes == ()


def test_both_sides_are_measured_and_one_has_the_win(shared):
    _, trial, _ = shared
    before, after = (trial.of(name)[0].observation for name in ("baseline", "onecycle"))

    assert [s.kind for s in before.schedules] == []
    assert [(s.kind, s.calls, s.total_steps) for s in after.schedules] == [("OneCycle", 20, 20)]
    assert before.optimizers[0].steps == after.optimizers[0].steps == 20
    assert {a.run.header.tags for a in trial.of("onecycle")} == {("onecycle",)}


def test_seeds_differ_and_are_the_same_for_both_sides(shared):
    _, trial, _ = shared
    losses = {}
    for attempt in trial.attempts:
        place = trials.attempt_folder(shared[2], attempt.variant, attempt.seed)
        losses[attempt.variant, attempt.seed] = (place / "stdout.log").read_text()

    assert len(set(losses.values())) == 4


def test_what_was_done_is_not_run_again(shared):
    ((_, first), (_, second)), _, _ = shared

    assert first.count(": done after") == 2 and "were done before" not in first
    assert second.count(": done after") == 2
    assert "2 of 4 runs were done before, 2 are left" in second
    assert "baseline (1/2) seed 1/" not in second


def test_the_report_is_one_object_and_says_how_to_repeat_it(shared):
    ((_, _), (out, _)), trial, _ = shared
    report = json.loads(out)

    assert report["trial"]["script"] == "train.py"
    assert trial.command == "quickwins trial --select onecycle --seeds 2 train.py -- --epochs 2"
    assert trial.commands == {
        "baseline": "quickwins run train.py --select metrics -- --epochs 2",
        "onecycle": "quickwins run train.py --select onecycle,metrics -- --epochs 2",
    }


def test_a_copy_leaves_nothing_but_its_records(shared):
    _, _, folder = shared

    assert sorted(p.name for p in (folder / "onecycle" / "seed-1").iterdir()) == [
        "attempt.json", "observation.json", "record.jsonl", "stderr.log", "stdout.log",
    ]  # fmt: skip
    assert (folder.parent.parent / ".gitignore").read_text() == "*\n"


# Trials that fail


def test_a_script_that_fails_by_itself_is_not_blamed_on_the_rewrite(tree, capsys):
    before = files(tree)
    code = invoke("trial", "train.py", "--select", "onecycle", "--", "--fail")
    out, _ = capsys.readouterr()
    _, trial = only(tree)

    assert code == 3 and files(tree) == before
    assert "fails before the rewrite too, by an error of its own: RuntimeError: no data" in flat(
        out
    )
    assert [(a.variant, a.status) for a in trial.attempts if a.status != "pending"] == [
        ("baseline", "failed"),
    ]  # fmt: skip
    assert trial.original.failure == trials.Failure("RuntimeError", "no data there", "train.py", 8)
    assert any("no data there" in line for line in trial.original.stderr)


def test_a_script_that_fails_only_when_it_is_rewritten_is_our_defect(tree, capsys):
    code = invoke("trial", "train.py", "--select", "onecycle", "--", "--only-as-it-stands")
    out, _ = capsys.readouterr()
    _, trial = only(tree)

    assert code == 3 and "please report it: SystemExit: rewritten" in flat(out)
    assert trial.original.status == "done" and trial.original.exit_code == 0
    assert trial.of("baseline")[0].failure.message == "rewritten"


def test_a_failure_is_tried_again_and_a_mended_one_forgotten(tree, capsys):
    for _ in range(2):
        assert invoke("trial", "train.py", "--select", "onecycle", "--", "--fail") == 3
    assert capsys.readouterr().err.count("original (1/2) seed 1/3: failed") == 2


def test_a_run_that_takes_too_long_is_ended(tree, capsys):
    words = ("trial", "train.py", "--select", "onecycle", "--seeds", "1", "--time-limit")
    code = invoke(*words, "0.5", "--", "--hang")
    capsys.readouterr()
    folder, trial = only(tree)

    assert code == 3
    assert [a.status for a in trial.attempts] == ["timed-out", "timed-out"]
    assert all(a.observation is not None and a.seconds < 30 for a in trial.attempts)
    assert not list(folder.rglob("tree"))

    invoke(*words, "0.5", "--", "--hang")
    assert "2 of 2 runs were done before" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_trial_ends_its_child_and_can_go_on(tree, capsys, monkeypatch, number):
    children = []
    plain = attempting._start

    def start(*given, **named):
        children.append(plain(*given, **named))
        return children[-1]

    def interrupt(lines, moment):
        signal.raise_signal(number)

    monkeypatch.setattr(attempting, "_start", start)
    monkeypatch.setattr(trial_progress.Lines, "moment", interrupt)
    before = files(tree)
    code = invoke("trial", "train.py", "--select", "onecycle", "--", "--hang")
    folder, trial = only(tree)

    assert code == 130 and files(tree) == before
    assert [child.poll() is None for child in children] == [False]
    assert [a.status for a in trial.attempts[:2]] == ["interrupted", "pending"]
    assert not list(folder.rglob("tree"))
    assert "interrupted after 0 of 6 runs; the same command goes on" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems let it run on")
def test_a_killed_trial_leaves_no_script_running(tree):
    (tree / "train.py").write_text(f'import os\nprint(os.getpid(), file=open("started", "w"), flush=True)\n{SCRIPT}')
    words = ("trial", "train.py", "--select", "onecycle", "--python", sys.executable, "--", "--hang")
    trial = subprocess.Popen(
        [sys.executable, "-m", "quickwins_codemod", *words], cwd=tree,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def within_a_minute(ready):
        end = time.monotonic() + 60
        while not (found := ready()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def number():
        texts = [path.read_text() for path in (tree / ".quickwins").rglob("started")]
        return int(texts[0]) if texts and texts[0] else 0

    def is_gone():
        try:
            state = Path(f"/proc/{script}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "Z"  # ended, and not waited for where nobody adopts

    try:
        script = within_a_minute(number)
        assert script and not is_gone()
    finally:
        trial.kill()
        trial.wait()
    assert within_a_minute(is_gone)


@pytest.mark.skipif(os.name == "nt", reason="no lock there")
def test_a_trial_is_run_by_one_process_at_a_time(tree, capsys, monkeypatch):
    import fcntl

    words = ("trial", "train.py", "--select", "onecycle", "--", "--fail")
    invoke(*words)
    folder, _ = only(tree)
    capsys.readouterr()
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert invoke(*words) == 3
    out, err = capsys.readouterr()

    assert out == "" and err.endswith("this trial is being run by another process\n")


def test_a_trial_that_is_started_anew_forgets(tree, capsys):
    words = ("trial", "train.py", "--select", "onecycle", "--", "--fail")
    invoke(*words)
    folder, _ = only(tree)
    (folder / "onecycle").mkdir()
    invoke("trial", "--restart", *words[1:])

    assert not (folder / "onecycle").exists()


def test_another_source_is_another_trial(tree, capsys):
    for text in (SCRIPT, SCRIPT + "\n# more\n"):
        (tree / "train.py").write_text(text)
        invoke("trial", "train.py", "--select", "onecycle", "--", "--fail")
    assert len(list((tree / ".quickwins" / "trials").iterdir())) == 2


# Nothing to run


def test_a_win_that_changes_nothing_is_said_and_not_run(tree, capsys):
    invoke("apply", "--select", "amp", ".")
    code = invoke("trial", "train.py", "--select", "amp")
    _, err = capsys.readouterr()

    assert code == 0 and "amp is not tried: train.py:" in err and " QW300 " in err
    assert "no win applies, so there is nothing to try" in err
    assert not (tree / ".quickwins" / "trials").exists()


def test_a_script_that_trains_nothing_is_not_run(tree, capsys):
    (tree / "notes.py").write_text("open('trace', 'w')\n")
    code = invoke("trial", "notes.py")

    assert code == 0 and "so there is nothing to try" in capsys.readouterr().err
    assert not (tree / "trace").exists() and not (tree / ".quickwins" / "trials").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("trial", "tain.py"), 2, 'tain.py: no such file; did you mean "train.py"?'),
        (("run", "missing/train.py"), 2, "missing/train.py: no such file"),
        (("trial", "train.py", "--select", "metrics"), 2, "no win is selected"),
        (("trial", "train.py", "--seeds", "0"), 2, "--seeds"),
        (("trial", "train.py", "--time-limit", "0"), 2, "--time-limit"),
        (("trial", "train.py", "--epochs", "3"), 2, "epochs"),
        (("trial", "train.py", "--root", "sub"), 2, "train.py is not below it"),
        (("trial", "broken.py"), 3, "broken.py:2: QW001"),
    ],
)
def test_what_cannot_be_tried_is_one_line(tree, capsys, words, code, said):
    (tree / "sub").mkdir()
    (tree / "broken.py").write_text("import torch\nloss.backward( = optimizer.step(\n")
    found = invoke(*words)
    out, err = capsys.readouterr()

    assert (found, out) == (code, "")
    assert said in err and err.count("\n") == 1


def test_a_script_of_another_repository_is_run_from_there(tree, capsys, monkeypatch, tmp_path):
    (tree / ".git").mkdir()
    monkeypatch.chdir(tmp_path)

    assert invoke("trial", "project/train.py") == 2
    assert "go there first" in capsys.readouterr().err


# A script to which no metrics can be added

CLASSIFIER = '''\
import argparse

import torch
import wandb
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    run = wandb.init(project="digits", config=vars(args))
    torch.manual_seed(0)
    inputs = torch.randn(300, 6)
    labels = (inputs.sum(1) > 0).long()
    train_loader = DataLoader(TensorDataset(inputs[:200], labels[:200]), batch_size=20, shuffle=True)
    val_loader = DataLoader(TensorDataset(inputs[200:], labels[200:]), batch_size=20)
    model = nn.Linear(6, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        model.train()
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses = [criterion(model(x), y).item() for x, y in val_loader]
        wandb.log({"train/loss": loss.item(), "val/loss": sum(losses) / len(losses)})


main()
'''


@pytest.fixture
def classifier(tree, monkeypatch):
    (tree / "train.py").write_text(CLASSIFIER)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    return tree


def test_a_script_without_metrics_is_tried_by_what_it_logs(classifier, capsys):
    code = invoke(
        "trial", "train.py", "--select", "onecycle", "--seeds", "2", "--html", "page.html",
        "--", "--epochs", "3",
    )  # fmt: skip
    out, err = capsys.readouterr()
    _, trial = only(classifier)
    flat = " ".join(out.split())

    assert code == 0, err
    line = 1 + CLASSIFIER[: CLASSIFIER.index("        for x, y in")].count("\n")
    assert f"so that times are watched only (train.py:{line}: QW410" in err
    assert [v.select for v in trial.variants] == [(), ("onecycle",)]
    assert all(len(a.run.epochs) == 3 and not a.defects for a in trial.attempts)
    assert [s.kind for s in trial.of("onecycle")[0].observation.schedules] == ["OneCycle"]
    assert "Quality is val/loss at the epoch where it is best." in flat
    assert "baseline, the script as it stands" in flat and "without seed" not in flat
    assert re.search(r"onecycle: .+ quality", flat) and "onecycle: no verdict" not in flat
    assert "training seconds per epoch, mean:" in flat
    assert trial.commands["baseline"] == "python train.py --epochs 3"
    assert (classifier / "page.html").read_text().count("val/loss") > 3
    assert (classifier / "train.py").read_text() == CLASSIFIER


def test_a_script_that_logs_nothing_has_verdicts_on_time_and_memory_only(classifier, capsys):
    text = CLASSIFIER.replace("import wandb\n", "").replace("wandb.log(", "print(")
    (classifier / "train.py").write_text(
        text.replace('    run = wandb.init(project="digits", config=vars(args))\n', "")
    )
    code = invoke("trial", "train.py", "--select", "onecycle", "--seeds", "2")
    out, _ = capsys.readouterr()
    flat = " ".join(out.split())

    assert code == 0
    assert "Quality is not judged: no metrics could be added, and the script logs none" in flat
    assert "onecycle: no verdict on quality" in flat and "No recommendation" in flat
    assert "computed the very same" not in flat


# One run


def test_a_run_of_the_rewritten_script_has_its_exit_code_and_touches_nothing(tree, capfd):
    before = files(tree)
    assert invoke("run", "train.py", "--", "--only-as-it-stands") == 1
    out, err = capfd.readouterr()

    assert "rewritten\n" in err and out == ""
    assert "the original was not touched; the copy is removed" in err
    assert files(tree) == before and not list((tree / ".quickwins" / "copies").iterdir())


def test_a_copy_is_kept_where_that_is_asked_for(tree, capfd):
    assert invoke("run", "train.py", "--keep", "--select", "metrics", "--", "--fail") == 1
    _, err = capfd.readouterr()
    (copy,) = (tree / ".quickwins" / "copies").glob("*/tree/project")

    assert f"the copy is kept in {copy}" in err
    assert "RuntimeError: no data there" in err and "launcher" not in err
    assert "quickwins_runtime" in (copy / "train.py").read_text()


def test_a_script_in_a_folder_below_is_run_from_the_same_folder(tree, capfd, monkeypatch):
    (tree / ".git").mkdir()
    (tree / "sub").mkdir()
    (tree / "sub" / "where.py").write_text(
        "import os, sys\nprint(os.path.basename(os.getcwd()), sys.argv, os.listdir('..'))\n"
    )
    monkeypatch.chdir(tree / "sub")
    assert invoke("run", "where.py", "--", "../notes.txt", "x") == 0
    out, err = capfd.readouterr()

    assert out.startswith("sub ['where.py', '../notes.txt', 'x'] [") and "'notes.txt'" in out
    assert "no rule changes this script" in err


# Pythons


def fake(folder, name, text, code=0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
    path.chmod(0o755)
    return path


KNOWN = """echo '["3.10.1", "2.4.0", "A card", "Linux"]'"""


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_the_first_python_with_torch_is_taken(tmp_path, monkeypatch):
    fake(tmp_path / "a", "python", "echo 'No module named torch' >&2", 1)
    fake(tmp_path / "b", "python3", KNOWN)
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    found = interpreters.find(None, tmp_path)
    assert found.path == str(tmp_path / "b" / "python3")
    assert (found.environment.torch, found.environment.device) == ("2.4.0", "A card")

    fake(tmp_path / "env" / "bin", "python", KNOWN)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "env"))
    assert interpreters.find(None, tmp_path).path == str(tmp_path / "env" / "bin" / "python")


@pytest.mark.skipif(os.name == "nt", reason="shell scripts")
def test_without_a_python_with_torch_one_line_says_what_to_do(tmp_path, monkeypatch):
    none = fake(tmp_path, "python", "echo 'ModuleNotFoundError: no torch' >&2", 1)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(none))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    with pytest.raises(interpreters.InterpreterError, match="--python PATH"):
        interpreters.find(None, tmp_path)
    with pytest.raises(interpreters.InterpreterError, match="cannot import torch .*no torch"):
        interpreters.find(str(none), tmp_path)
    with pytest.raises(interpreters.InterpreterError, match="no such program"):
        interpreters.find(str(tmp_path / "gone"), tmp_path)
