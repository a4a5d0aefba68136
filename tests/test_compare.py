"""`quickwins compare` on records as the Tracker writes them: what is found, averaged and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from quickwins_codemod import cli, compare, runs
from quickwins_codemod.report import comparison

NDCG = [0.1, 0.3, 0.2]


def lines(
    tag: str | None = "baseline",
    ndcg: Sequence[float | None] = NDCG,
    *,
    id: str = "",
    script: str = "train.py",
    device: str = "cpu",
    torch: str = "2.13.0",
    wandb: dict[str, Any] | None = None,
    version: int = 1,
    name: str = "ndcg@10",
    **more: Any,
) -> list[str]:
    """The lines of a record; more: a number for each epoch, or one for all."""
    header = {
        "type": "run", "version": version, "id": id or f"run-{tag}", "tag": tag, "script": script,
        "arguments": ["--epochs", "3"], "started": "2026-11-25T09:15:00Z", "python": "3.11.2",
        "torch": torch, "device": device, "wandb": wandb,
    }  # fmt: skip
    written = [header]
    for epoch, value in enumerate(ndcg, 1):
        metrics = {name: value}
        for key, given in more.items():
            metrics[key] = given[epoch - 1] if isinstance(given, list) else given
        written.append(
            {"type": "epoch", "epoch": epoch, "elapsed_seconds": 10.0 * epoch,
             "learning_rate": [0.001], "metrics": metrics}
        )  # fmt: skip
    return [json.dumps(line) for line in written]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(runs.VARIABLE, raising=False)
    return tmp_path


def record(folder: Path, *arguments: Any, **given: Any) -> Path:
    """Write a record where the runtime puts it below a folder."""
    written = lines(*arguments, **given)
    path = folder / ".quickwins" / "runs" / f"{json.loads(written[0])['id']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(written) + "\n")
    return path


def both(folder: Path, baseline: dict[str, Any], optimized: dict[str, Any]) -> None:
    record(folder, "baseline", **baseline)
    record(folder, "optimized", **optimized)


def say(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, standard output, and what was said on standard error."""
    code = cli.invoke(["compare", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err and "a defect" not in err
    return code, out, err


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = say(capsys, *arguments, "--format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def figures(found: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    return {
        (row["name"], row["at"]): (
            row["baseline"]["mean"], row["optimized"]["mean"], row["change_percent"]
        )
        for row in found["metrics"]
    }  # fmt: skip


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = cli.USAGE) -> str:
    """Return the one line on standard error of a command that must end so."""
    got, out, err = say(capsys, *arguments)
    assert (got, out) == (code, "") and err.count("\n") == 1, err
    assert err.startswith("quickwins: compare: ")
    return err.removeprefix("quickwins: compare: ").rstrip("\n")


# The figures


def test_values_at_the_best_and_the_last_epoch(here: Path, capsys: Any) -> None:
    both(
        here,
        {"recall@10": [1.0, 2.0, 4.0]},
        {"ndcg": [0.6, 0.3, 0.3], "recall@10": [3.0, 1.0, 2.0]},
    )
    found = report(capsys, "baseline", "optimized")
    assert found["best_by"] == "ndcg@10"
    shown = figures(found)
    assert shown["epoch", "best"] == (2.0, 1.0, -50.0)
    assert "-50.0 %" not in say(capsys, "baseline", "optimized")[1].partition("ndcg@10  ")[0]
    assert shown["ndcg@10", "best"] == pytest.approx((0.3, 0.6, 100.0))
    assert shown["ndcg@10", "last"] == pytest.approx((0.2, 0.3, 50.0))
    assert shown["recall@10", "best"] == pytest.approx((2.0, 3.0, 50.0))
    assert shown["recall@10", "last"] == pytest.approx((4.0, 2.0, -50.0))


def test_speed_time_and_memory_of_the_whole_run(here: Path, capsys: Any) -> None:
    both(
        here,
        {"samples_per_second": [100, 200, 300], "epoch_seconds": 2, "peak_memory_mb": [5, 9, 7]},
        {"samples_per_second": [100, 100, 100], "epoch_seconds": 4, "peak_memory_mb": [6, 6, 6],
         "ndcg": [0.1, 0.2, 0.3, 0.4][:3]},
    )  # fmt: skip
    found = report(capsys, "baseline", "optimized")
    shown = figures(found)
    assert shown["samples_per_second", "run"] == (200.0, 100.0, -50.0)
    assert shown["epoch_seconds", "run"] == (2.0, 4.0, 100.0)
    assert shown["peak_memory_mb", "run"] == pytest.approx((9.0, 6.0, -100 / 3))
    assert shown["elapsed_seconds", "run"] == (30.0, 30.0, 0.0)
    verdicts = {row.name: row.verdict for row in _compared("baseline", "optimized").rows}
    assert verdicts["samples_per_second"] == "worse" and verdicts["epoch_seconds"] == "worse"
    assert verdicts["peak_memory_mb"] == "better" and verdicts["elapsed_seconds"] == "same"


def _compared(*words: str) -> compare.Comparison:
    return runs.compared((words[0], words[1]), Path("."))


def test_several_runs_with_one_tag_are_averaged_with_their_spread(here: Path, capsys: Any) -> None:
    for number, last in enumerate((0.2, 0.3, 0.4)):
        record(here, "baseline", [0.1, last], id=f"b{number}")
        record(here, "optimized", [0.1, 2 * last], id=f"o{number}")
    found = report(capsys, "baseline", "optimized")
    (row,) = (r for r in found["metrics"] if (r["name"], r["at"]) == ("ndcg@10", "last"))
    assert row["baseline"]["n"] == row["optimized"]["n"] == 3
    assert row["baseline"]["mean"] == pytest.approx(0.3)
    assert row["baseline"]["spread"] == pytest.approx(0.1), "of a sample: divided by n - 1"
    assert row["optimized"]["spread"] == pytest.approx(0.2)
    assert not found["notes"]
    assert (
        "0.3000 ± 0.1000   0.6000 ± 0.2000   +100.0 %   better"
        in say(capsys, "baseline", "optimized")[1]
    )


@pytest.mark.parametrize(
    ("baseline", "optimized", "note"),
    [
        (1, 1, "one run each: no spread is known"),
        (2, 1, 'one run of "optimized": no spread is known of it'),
        (1, 2, 'one run of "baseline": no spread is known of it'),
    ],
)
def test_single_runs_are_labelled(
    here: Path, capsys: Any, baseline: int, optimized: int, note: str
) -> None:
    for number in range(baseline):
        record(here, "baseline", id=f"b{number}")
    for number in range(optimized):
        record(here, "optimized", id=f"o{number}")
    assert f"note: {note}\n" in say(capsys, "baseline", "optimized")[1]


def test_ndcg_at_10_comes_first_and_then_what_else_ranks(here: Path, capsys: Any) -> None:
    names = ["zeta", "loss", "coverage", "ndcg@5", "recall@10", "novelty@10", "ndcg@10"]
    given = {name: 0.5 for name in names if name != "ndcg@10"}
    both(here, given, given)
    found = report(capsys, "baseline", "optimized")
    last = [row["name"] for row in found["metrics"] if row["at"] == "last"]
    assert last == ["ndcg@10", "ndcg@5", "recall@10", "novelty@10", "coverage", "loss", "zeta"]


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("ndcg@10", "higher"), ("hit_rate@20", "higher"), ("val_accuracy", "higher"),
        ("samples_per_second", "higher"), ("rmse", "lower"), ("train/loss", "lower"),
        ("ranking_loss", "lower"), ("epoch_seconds", "lower"), ("peak_gpu_memory_mb", "lower"),
        ("diversity@10", None), ("embedding_diversity@10", None), ("novelty@10", None),
        ("coverage", None), ("gini", None), ("serendipity@10", None), ("temperature", None),
    ],
)  # fmt: skip
def test_which_direction_is_better(name: str, direction: str | None) -> None:
    assert compare.better(name) == direction


def test_a_change_from_zero_and_of_a_negative_number() -> None:
    def row(before: float, after: float) -> compare.Row:
        return compare.Row("mrr", "last", "higher", compare.value([before]), compare.value([after]))

    assert row(0.0, 1.0).change is None and row(0.0, 1.0).verdict == "better"
    assert row(5e-324, 1.0).change is None
    assert row(-2.0, -1.0).change == 50.0 and row(-2.0, -1.0).verdict == "better"


def test_a_change_no_larger_than_runs_of_one_side_differ_is_none_to_speak_of() -> None:
    def verdict(before: list[float], after: list[float]) -> str:
        sides = (compare.value(before), compare.value(after))
        return compare.Row("mrr", "last", "higher", *sides).verdict

    assert verdict([0.1, 0.3], [0.2, 0.4]) == "within spread"  # 0.1 more, 0.14 apart
    assert verdict([0.1, 0.3], [0.3, 0.5]) == "better"
    assert verdict([0.3, 0.5], [0.1, 0.3]) == "worse"
    assert verdict([0.2], [0.3]) == "better", "no spread is known of one run"


def test_without_ndcg_there_is_only_the_last_epoch(here: Path, capsys: Any) -> None:
    both(here, {"name": "recall@10"}, {"name": "recall@10"})
    found = report(capsys, "baseline", "optimized")
    assert found["best_by"] is None
    assert {row["at"] for row in found["metrics"]} == {"last", "run"}


# Names of metrics


@pytest.mark.parametrize("prefix", ["val_", "val/", "validation/", "eval_", "test_", "valid_"])
def test_prefixes_are_dropped(here: Path, capsys: Any, prefix: str) -> None:
    both(here, {"name": f"{prefix}ndcg@10"}, {})
    found = report(capsys, "baseline", "optimized")
    assert figures(found)["ndcg@10", "best"] == (0.3, 0.3, 0.0)
    assert found["only"] == {"baseline": [], "optimized": []}


def test_a_prefix_that_tells_two_metrics_apart_stays(here: Path, capsys: Any) -> None:
    both(here, {"loss": 1.0, "val_loss": 2.0}, {"val_loss": 3.0})
    found = report(capsys, "baseline", "optimized")
    shown = figures(found)
    assert shown["val_loss", "last"] == (2.0, 3.0, 50.0), "and not the loss of training"
    assert found["only"]["baseline"] == ["loss"]


def test_metrics_of_one_side_are_named(here: Path, capsys: Any) -> None:
    both(here, {"mrr": 1.0, "auc": 1.0}, {"peak_gpu_memory_mb": 3})
    out = say(capsys, "baseline", "optimized")[1]
    assert 'note: only "baseline" has mrr, auc\n' in out
    assert 'note: only "optimized" has peak_gpu_memory_mb\n' in out


def test_no_metric_in_common_is_one_line(here: Path, capsys: Any) -> None:
    both(here, {}, {"name": "val_rmse"})
    assert refused(capsys, "baseline", "optimized") == (
        'the runs have no metric in common; "baseline" has ndcg@10, "optimized" has rmse'
    )


# What is no fair comparison


@pytest.mark.parametrize(
    ("given", "note"),
    [
        ({"ndcg": NDCG[:2]}, "different numbers of epochs, so this is no fair comparison: 3 ag"),
        ({"device": "H100"}, "different devices, so this is no fair comparison: cpu against H100"),
        ({"torch": "2.4.0"}, "different versions of torch, so this is no fair comparison: 2.13"),
        ({"script": "other.py"}, "different scripts, so this is no fair comparison: train.py"),
        ({"users_evaluated": 1500}, "different numbers of evaluated users, so this is no fair "
                                    "comparison: 2,000 against 1,500"),
    ],
)  # fmt: skip
def test_what_differs_is_said_in_one_note(
    here: Path, capsys: Any, given: dict[str, Any], note: str
) -> None:
    both(here, {"users_evaluated": 2000}, {"users_evaluated": 2000, **given})
    notes = report(capsys, "baseline", "optimized")["notes"]
    assert len([found for found in notes if found.startswith(note)]) == 1
    assert len(notes) == 2, "the other says that there is one run each"


def test_the_same_script_from_another_folder_is_no_difference(here: Path, capsys: Any) -> None:
    both(here, {"script": "model/train.py"}, {"script": "train.py"})
    assert report(capsys, "baseline", "optimized")["notes"] == ["one run each: no spread is known"]


def test_seeds_that_differ_in_the_same_way_on_both_sides_are_fair(here: Path, capsys: Any) -> None:
    for tag in ("baseline", "optimized"):
        for number, users in enumerate((145, 149)):
            record(here, tag, id=f"{tag}-{number}", users_evaluated=users)
    assert not report(capsys, "baseline", "optimized")["notes"]
    record(here, "optimized", id="optimized-2", users_evaluated=149)
    (note,) = report(capsys, "baseline", "optimized")["notes"]
    assert note.endswith("145 and 149 against 145 and 149")


def test_counts_of_users_are_no_metric(here: Path, capsys: Any) -> None:
    given = {"users_evaluated": 2000, "users_without_relevant": 3}
    both(here, given, given)
    assert not {n for n, _ in figures(report(capsys, "baseline", "optimized")) if "users" in n}


# Finding


def test_records_are_found_in_every_folder_below(here: Path, capsys: Any) -> None:
    record(here / "a" / "b", "baseline")
    record(here / "c", "optimized")
    report(capsys, "baseline", "optimized")
    report(capsys, "baseline", "optimized", "--root", str(here))
    said = refused(capsys, "baseline", "optimized", "--root", "c")
    assert "in the .quickwins/runs folders of c; tags there: optimized" in said


@pytest.mark.parametrize("name", [".hidden", "node_modules", "wandb", "__pycache__", "env"])
def test_some_folders_are_not_looked_into(here: Path, capsys: Any, name: str) -> None:
    both(here, {}, {})
    record(here / name, "baseline", id="other")
    if name == "env":
        (here / name / "pyvenv.cfg").write_text("")
    found = report(capsys, "baseline", "optimized")
    assert [run["id"] for run in found["baseline"]["runs"]] == ["run-baseline"]


def test_the_folder_of_the_environment_is_looked_into_too(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(here / "here", "baseline")
    elsewhere = record(here / "elsewhere", "optimized").parent
    monkeypatch.chdir(here / "here")
    assert "optimized" in refused(capsys, "baseline", "optimized")
    monkeypatch.setenv(runs.VARIABLE, str(elsewhere))
    report(capsys, "baseline", "optimized")
    monkeypatch.setenv(runs.VARIABLE, str(here / "here" / ".quickwins" / "runs"))
    assert "or in QUICKWINS_RUNS (.quickwins/runs); tags there: baseline" in refused(
        capsys, "baseline", "optimised"
    )


def test_a_run_goes_by_tag_id_wandb_name_and_path(here: Path, capsys: Any) -> None:
    path = record(here, "baseline", wandb={"id": "x1y2", "name": "sunny-lake-3"})
    record(here / "other", "optimized")
    names = ["baseline", "run-baseline", "x1y2", "sunny-lake-3"]
    paths = [
        str(path),
        str(path.relative_to(here)),
        ".quickwins/runs",
        "./other/../.quickwins/runs",
    ]
    for word in names + paths:
        found = report(capsys, word, "./other")
        assert [run["id"] for run in found["baseline"]["runs"]] == ["run-baseline"], word


def test_a_copy_of_a_record_counts_once(here: Path, capsys: Any) -> None:
    both(here, {}, {})
    record(here / "backup", "baseline", NDCG[:1])
    found = report(capsys, "baseline", "optimized")
    assert [run["epochs"] for run in found["baseline"]["runs"]] == [3], "the longer one"


def test_the_order_does_not_depend_on_the_folders(here: Path, capsys: Any) -> None:
    for name in ("b", "a", "c"):
        record(here / (name * 2), "baseline", id=name)
    record(here, "optimized")
    found = report(capsys, "baseline", "optimized")
    assert [run["id"] for run in found["baseline"]["runs"]] == ["a", "b", "c"], "all start at once"


def test_scripts_are_not_averaged(here: Path, capsys: Any) -> None:
    for tag in ("baseline", "optimized"):
        for script in ("ncf/train.py", "towers/train.py"):
            record(here, tag, script=script, id=f"{tag}-{script[:3]}")
    assert refused(capsys, "baseline", "optimized") == (
        'the runs of "baseline" are of several scripts (ncf/train.py, towers/train.py); choose one'
        " by --script ncf/train.py"
    )
    found = report(capsys, "baseline", "optimized", "--script", "towers/train.py")
    assert [run["id"] for run in found["optimized"]["runs"]] == ["optimized-tow"]
    assert "several scripts" in refused(capsys, "baseline", "optimized", "--script", "train.py")
    said = refused(capsys, "baseline", "optimized", "--script", "tower/train.py")
    assert said.startswith('no run of "baseline" is of the script tower/train.py; there are')
    assert said.endswith('did you mean "towers/train.py"?')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "basline optimized",
            'no run with the tag, name or id "basline" in the .quickwins/runs folders of the'
            ' current folder; tags there: baseline, optimized; did you mean "baseline"?',
        ),
        ("baseline nowhere.jsonl", "nowhere.jsonl: no such file or folder"),
        ("baseline /dev/null", "/dev/null: is neither a file nor a folder"),
        ("baseline ./empty", "./empty: holds no record of a run (a file .jsonl) with an epoch"),
        ("baseline .", ". holds runs of several tags (baseline, optimized); name one of the tags"),
        ("baseline baseline", '"baseline" and "baseline" both name the run run-baseline; name two'),
        ("baseline run-baseline", '"baseline" and "run-baseline" both name the run run-baseline'),
        ("baseline optimized --root no", "--root no: no such folder"),
        ("baseline optimized --wandb project", "--wandb project: must be ENTITY/PROJECT"),
    ],
)
def test_runs_that_cannot_be_meant_are_one_line(
    here: Path, capsys: Any, words: str, message: str
) -> None:
    both(here, {}, {})
    (here / "empty").mkdir()
    assert refused(capsys, *words.split()).startswith(message)


def test_where_nothing_was_recorded(here: Path, capsys: Any) -> None:
    assert refused(capsys, "a", "b").endswith("current folder; no run was recorded there")
    record(here, None)
    assert refused(capsys, "a", "b").endswith("no run there has a tag; names there: run-None")


def test_a_name_of_several_runs_is_ambiguous(here: Path, capsys: Any) -> None:
    for number in (1, 2):
        record(here, None, id=f"r{number}", wandb={"id": f"w{number}", "name": "twice"})
    record(here, "optimized")
    assert refused(capsys, "twice", "optimized") == (
        '"twice" is ambiguous in the .quickwins/runs folders of the current folder: r1, r2 bear'
        " that name; name one by its id, or give them one tag"
    )
    record(here, "twice", id="r3")
    assert "it is the tag of r3 and a name of r1, r2;" in refused(capsys, "twice", "optimized")


# Records that are not whole


def test_a_half_written_last_line_is_left_out(here: Path, capsys: Any) -> None:
    both(here, {}, {})
    path = here / ".quickwins" / "runs" / "run-baseline.jsonl"
    path.write_text(path.read_text()[:-20])
    found = report(capsys, "baseline", "optimized")
    assert found["baseline"]["runs"][0]["epochs"] == 2
    assert (
        ".quickwins/runs/run-baseline.jsonl: its last line is half-written and was left out"
        in found["notes"]
    )


@pytest.mark.parametrize("line", ["{", "[1]", '{"type": "epoch", "metrics": 3}', "\x00\xff"])
def test_a_broken_line_in_the_middle_ends_in_3(here: Path, capsys: Any, line: str) -> None:
    both(here, {}, {})
    broken = lines("baseline", id="second")
    broken[2] = line
    path = here / ".quickwins" / "runs" / "second.jsonl"
    path.write_bytes("\n".join(broken).encode("latin-1"))
    code, out, err = say(capsys, "baseline", "optimized")
    assert (code, err) == (
        3, "quickwins: .quickwins/runs/second.jsonl:3: is not a line of a record\n"
    )  # fmt: skip
    assert "baseline: 1 run (" in out and "ndcg@10" in out, "what is whole is compared all the same"
    only = refused(capsys, "second", "optimized", code=cli.FAILED)
    assert only == ".quickwins/runs/second.jsonl:3: is not a line of a record"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("{", "is not the first line of a record"),
        ('{"type": "epoch"}', "is not the first line of a record"),
        (lines(version=2)[0], "is a record of version 2, and this is quickwins for version 1;"),
    ],
)
def test_a_first_line_that_is_none_ends_in_3(
    here: Path, capsys: Any, first: str, message: str
) -> None:
    both(here, {}, {})
    (here / ".quickwins" / "runs" / "odd.jsonl").write_text(f"{first}\n{lines()[1]}\n")
    code, out, err = say(capsys, "baseline", "optimized")
    assert code == 3 and "ndcg@10" in out
    assert err.startswith(f"quickwins: .quickwins/runs/odd.jsonl:1: {message}")
    assert err.count("\n") == 1
    assert message in refused(capsys, "odd", "optimized", code=cli.FAILED)


def test_a_record_that_is_reached_twice_is_reported_once(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(here, {}, {})
    folder = here / ".quickwins" / "runs"
    (folder / "odd.jsonl").write_text("odd\n")
    monkeypatch.setenv(runs.VARIABLE, str(folder))
    said = refused(capsys, "odd", "optimized", code=cli.FAILED)
    assert said == ".quickwins/runs/odd.jsonl:1: is not the first line of a record"


def test_a_run_that_has_just_begun_is_none_yet(here: Path, capsys: Any) -> None:
    both(here, {}, {})
    folder = here / ".quickwins" / "runs"
    (folder / "empty.jsonl").write_text("")
    (folder / "half.jsonl").write_text(lines()[0][:30])
    report(capsys, "baseline", "optimized")
    record(here, "young", [])
    assert refused(capsys, "young", "optimized") == (
        '"young" has no finished epoch yet: .quickwins/runs/run-young.jsonl'
    )


def test_values_that_are_no_numbers(here: Path, capsys: Any) -> None:
    both(
        here,
        {"ndcg": [0.1, 0.2, None], "mrr": float("nan"), "auc": 10**400, "name_of": "x", "b": True},
        {"ndcg": [0.1, float("inf"), 0.4], "mrr": 1.0, "auc": 1.0, "name_of": "y", "b": False},
    )
    found = report(capsys, "baseline", "optimized")
    shown = figures(found)
    assert shown["ndcg@10", "best"] == pytest.approx((0.2, 0.4, 100.0))
    assert shown["ndcg@10", "last"] == (None, 0.4, None)
    assert shown["auc", "last"] == (None, 1.0, None)
    assert 'ndcg@10 is not known at the last epoch of "baseline"' in found["notes"]
    assert not {"name_of", "b"} & {name for name, _ in shown}
    out = say(capsys, "baseline", "optimized")[1]
    assert "n/a" in out


def test_foreign_text_does_not_drive_the_terminal(here: Path, capsys: Any) -> None:
    evil = "a\x1b[31m\nb\u202e[bold]"
    record(here, "baseline", device=evil, **{evil: 1.0})
    record(here, evil, id="other", device=evil, **{evil: 1.0})
    code, out, err = say(capsys, "baseline", evil)
    assert code == 0 and "\x1b" not in out + err and "\u202e" not in out
    assert "[bold]" in out, "and is no markup either"
    assert "\x1b" not in refused(capsys, evil + "?", "baseline")


def test_a_narrow_terminal_loses_nothing(here: Path) -> None:
    both(here, {"samples_per_second": 1}, {"samples_per_second": 1})
    for width in (80, 50):
        shown = comparison.text(_compared("baseline", "optimized"), width=width)
        table = shown.split("\n\n", 1)[1].split("note:")[0]
        assert max(map(len, table.splitlines())) <= width
        assert "…" not in table and "over" in table and "same" in table


# A process of its own


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")
def test_a_folder_that_is_gone_is_one_line(here: Path) -> None:
    (here / "gone").mkdir()
    command = f"rmdir ../gone; exec {sys.executable} -m quickwins_codemod compare a b --root .."
    done = subprocess.run(
        ["bash", "-c", command], cwd=here / "gone", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "quickwins: the current directory is no longer there\n"


def test_it_loads_no_heavy_library(here: Path) -> None:
    both(here, {}, {})
    program = (
        "import sys\n"
        "from quickwins_codemod.cli import invoke\n"
        "code = invoke(['compare', 'baseline', 'optimized', '--html', 'page.html'])\n"
        "print('heavy:', code, *sorted({'libcst', 'torch', 'numpy', 'wandb'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "heavy: 0", done.stderr
    assert done.stderr == "" and (here / "page.html").exists()


SCRIPT = """
import argparse, random
import torch
from quickwins_codemod.runtime.tracking import Tracker

arguments = argparse.ArgumentParser()
arguments.add_argument("--tag")
arguments.add_argument("--rate", type=float)
args = arguments.parse_args()
torch.set_num_threads(1)
torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(64, 4), torch.randn(64, 1))
loader = torch.utils.data.DataLoader(data, batch_size=16)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=args.rate)
tracker = Tracker(optimizer, tag=args.tag)
for epoch in range(3):
    tracker.start_training()
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    tracker.end_training(loader)
    tracker.log({"ndcg@10": args.rate * (epoch + 1), "val_rmse": loss.item() ** 0.5}, prefix="val_")
"""


def test_records_of_the_real_tracker(here: Path, capsys: Any) -> None:
    pytest.importorskip("torch")
    (here / "train.py").write_text(SCRIPT)
    hidden = ("RANK", "QUICKWINS_TAG", runs.VARIABLE)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    for tag, rate in (("baseline", "0.1"), ("optimized", "0.2")):
        command = [sys.executable, "train.py", "--tag", tag, "--rate", rate]
        subprocess.run(command, cwd=here, env=environment, check=True, timeout=60)
    found = report(capsys, "baseline", "optimized", "--html", "page.html")
    shown = figures(found)
    assert shown["ndcg@10", "best"] == pytest.approx((0.3, 0.6, 100.0))
    memory = {name for name, _ in shown if name.startswith("peak_")}
    assert {"rmse", "samples_per_second", "epoch_seconds", "elapsed_seconds"} < {
        n for n, _ in shown
    }
    assert all(shown[name, "run"][0] > 0 for name in {"samples_per_second", *memory})
    assert found["notes"] == ["one run each: no spread is known"] and not found["problems"]
    (run,) = found["optimized"]["runs"]
    assert run["script"] == "train.py" and run["epochs"] == 3 and run["torch"]
    assert run["arguments"] == ["--tag", "optimized", "--rate", "0.2"]
    rates = {e.rates for e in _compared("baseline", "optimized").optimized.runs[0].epochs}
    assert rates == {(0.2,)}
    assert "learning rate by epoch" in (here / "page.html").read_text(encoding="utf-8")


def test_the_page_cannot_be_written(here: Path, capsys: Any) -> None:
    both(here, {}, {})
    code, out, err = say(capsys, "baseline", "optimized", "--html", "no/page.html")
    assert (code, out) == (2, "")
    assert err == "quickwins: --html no/page.html: cannot be written: No such file or directory\n"


def test_the_report_for_programs_has_all_that_the_table_has(here: Path, capsys: Any) -> None:
    both(here, {"mrr": 1.0}, {})
    found = report(capsys, "baseline", "optimized")
    assert list(found) == [
        "version", "baseline", "optimized", "best_by", "metrics", "only", "notes", "problems",
    ]  # fmt: skip
    assert found["version"] == comparison.VERSION
    assert found["baseline"] == {
        "name": "baseline",
        "runs": [
            {
                "id": "run-baseline", "tags": ["baseline"], "script": "train.py",
                "arguments": ["--epochs", "3"], "started": "2026-11-25T09:15:00Z",
                "python": "3.11.2", "torch": "2.13.0", "device": "cpu",
                "source": os.path.join(".quickwins", "runs", "run-baseline.jsonl"), "epochs": 3,
            }
        ],
    }  # fmt: skip


# The server


class ServerRun:
    """A run as wandb.Api gives it."""

    def __init__(self, id: str, tags: list[str], rows: list[dict[str, Any]]) -> None:
        self.id, self.name, self.tags, self.rows = id, f"name-{id}", tags, rows
        self.created_at, self.url = "2026-11-25T09:15:00Z", f"https://example.org/{id}"
        self.metadata = {"program": "train.py", "args": ["--epochs", "2"], "python": "3.11.2"}

    def scan_history(self) -> list[dict[str, Any]]:
        return self.rows


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a made-up wandb in place, with these runs, or with an error that its API raises."""

    def install(*given: ServerRun, error: Exception | None = None) -> None:
        class Api:
            def __init__(self) -> None:
                if error is not None:
                    raise error

            def runs(self, path: str, filters: Any = None) -> list[ServerRun]:
                assert path == "team/movies"
                if filters is None:
                    return list(given)
                wanted = [next(iter(part.items())) for part in filters["$or"]]
                assert {key for key, _ in wanted} == {"tags", "displayName", "name"}
                kinds = {"tags": lambda r: r.tags, "displayName": lambda r: [r.name],
                         "name": lambda r: [r.id]}  # fmt: skip
                return [run for run in given if any(word in kinds[k](run) for k, word in wanted)]

        module = types.ModuleType("wandb")
        module.Api = Api  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "wandb", module)

    return install


def history(prefix: str, *ndcg: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch, value in enumerate(ndcg):
        rows += [{"_step": 9, "_runtime": 1.0, "batch_loss": 3.0, "learning_rate": 0.1 + epoch}] * 4
        rows.append(
            {"_step": 10, "_runtime": 5.0 * (epoch + 1), "epoch": epoch,
             f"{prefix}ndcg@10": value, f"{prefix}samples_per_second": 50, "best": "x"}
        )  # fmt: skip
    return rows


WANDB = ("baseline", "optimized", "--wandb", "team/movies")


def test_runs_of_the_server(here: Path, capsys: Any, server: Callable[..., None]) -> None:
    server(
        ServerRun("a", ["baseline", "ncf"], history("val/", 0.1, 0.3)),
        ServerRun("b", ["optimized"], history("eval_", 0.1, 0.6)),
        ServerRun("c", ["other"], history("", 0.9)),
    )
    found = report(capsys, *WANDB)
    assert figures(found) == {
        ("epoch", "best"): (2.0, 2.0, 0.0),
        ("ndcg@10", "best"): pytest.approx((0.3, 0.6, 100.0)),
        ("ndcg@10", "last"): pytest.approx((0.3, 0.6, 100.0)),
        ("samples_per_second", "run"): (50.0, 50.0, 0.0),
        ("elapsed_seconds", "run"): (10.0, 10.0, 0.0),
    }
    (run,) = found["baseline"]["runs"]
    assert (run["script"], run["epochs"], run["source"]) == (
        "train.py", 2, "https://example.org/a"
    )  # fmt: skip
    report(capsys, "name-a", "b", "--wandb", "team/movies")
    result = runs.compared(("baseline", "optimized"), Path("."), "team/movies")
    assert [epoch.rates for epoch in result.baseline.runs[0].epochs] == [(0.1,), (1.1,)]


def test_a_run_of_the_server_without_what_we_measure(
    here: Path, capsys: Any, server: Callable[..., None]
) -> None:
    rows = [{"loss": 3.0}, {"val_loss": 2.0, "loss": 2.5}, {"loss": 2.0}, {"val_loss": 1.0}]
    server(ServerRun("a", ["baseline"], rows), ServerRun("b", ["optimized"], rows))
    found = report(capsys, *WANDB)
    assert [run["epochs"] for run in found["baseline"]["runs"]] == [2], "the rows of a validation"
    assert figures(found)["val_loss", "last"] == (1.0, 1.0, 0.0)


def test_a_word_that_the_server_does_not_know(
    here: Path, capsys: Any, server: Callable[..., None]
) -> None:
    server(ServerRun("a", ["baseline"], []), ServerRun("b", ["optimised"], []))
    assert refused(capsys, *WANDB) == (
        'no run with the tag, name or id "optimized" in the wandb project team/movies; tags there:'
        ' baseline, optimised; did you mean "optimised"?'
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (type("UsageError", (Exception,), {})("No API key configured."), 2, "not logged in; run"),
        (ValueError("Could not find project team/movies"), 2, "no such project, or not yours to"),
        (OSError("timed out\nafter 9 s"), 3, "the server cannot be read: timed out after 9 s"),
    ],
)
def test_errors_of_the_server_are_one_line(
    here: Path,
    capsys: Any,
    server: Callable[..., None],
    error: Exception,
    code: int,
    message: str,
) -> None:
    server(error=error)
    said = refused(capsys, *WANDB, code=code)
    assert said.startswith(f"--wandb team/movies: {message}")


def test_wandb_is_not_installed(here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert refused(capsys, *WANDB) == (
        "--wandb team/movies: needs the package wandb, which is not installed here"
    )
