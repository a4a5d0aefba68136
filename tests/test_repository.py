"""Many files: which are looked at, in what order, and that one bad file costs only itself."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from quickwins_codemod import repository, transform
from quickwins_codemod.settings import Settings
from quickwins_codemod.verdict import FileOutcome, RunResult

forked = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork",
    reason="the made-up pipeline lives in this process",
)


def load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "fake_quickwins", Path(__file__).with_name("fake_quickwins.py")
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_quickwins"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake = load_fake()
    pipeline = ModuleType("quickwins_codemod.pipeline")
    pipeline.Context, pipeline.process = fake.Context, fake.process  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "quickwins_codemod.pipeline", pipeline)
    monkeypatch.setattr(transform, "all_transforms", lambda: fake.RULES)
    monkeypatch.delenv("QUICKWINS_DEBUG", raising=False)
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def look(root: Path, settings: Settings | None = None, workers: int = 1) -> RunResult:
    return repository.run([root], root, settings or Settings(), workers=workers)


def statuses(result: RunResult) -> dict[str, str]:
    return {outcome.path: outcome.status for outcome in result.outcomes}


def only(result: RunResult, path: str) -> FileOutcome:
    return next(outcome for outcome in result.outcomes if outcome.path == path)


def test_one_outcome_for_each_candidate_in_order(root: Path) -> None:
    write(root, {"b.py": "cannot", "a/z.py": "new", "a/b.py": "x", "c.py": "old", "n.txt": "old"})
    result = look(root, Settings(runtime="installed"))
    assert [(o.path, o.status) for o in result.outcomes] == [
        ("a/z.py", "unchanged"), ("b.py", "refused"), ("c.py", "changed"),
    ]  # fmt: skip
    assert (result.files, result.candidates) == (4, 3)


def test_nothing_is_written(root: Path) -> None:
    write(root, {"a.py": "old"})
    look(root)
    assert [(p.name, p.read_text()) for p in root.iterdir()] == [("a.py", "old")]


def test_a_rewritten_script_brings_the_runtime(root: Path) -> None:
    write(root, {"a.py": "old", "b.py": "cannot"})
    added = [o.path for o in look(root).outcomes if o.status == "added"]
    assert "quickwins_runtime/__init__.py" in added
    assert not look(root, Settings(runtime="installed")).with_status("added")
    write(root, {"a.py": "cannot"})
    assert not look(root).with_status("added"), "nothing imports it"


def test_a_runtime_that_cannot_be_placed_takes_the_rewrites_with_it(root: Path) -> None:
    write(root, {"a.py": "old", "b.py": "cannot", "quickwins_runtime/__init__.py": "theirs"})
    result = look(root)
    assert not result.changes
    verdict = only(result, "a.py").verdicts[0]
    assert (only(result, "a.py").status, verdict.status) == ("refused", "refused")
    assert verdict.message.startswith("needs the runtime, which cannot be placed: ")
    assert only(result, "b.py").verdicts[0].code == "QW910", "what was refused keeps its reason"


def test_a_file_that_the_pipeline_finds_no_candidate_is_not_counted(root: Path) -> None:
    write(root, {"a.py": "other rule needle, of other needle", "b.py": "new"})
    result = look(root)
    assert list(statuses(result)) == ["b.py"]
    assert result.candidates == 1


def test_selection_decides_what_is_a_candidate(root: Path) -> None:
    write(root, {"a.py": "old", "b.py": "cannot"})
    assert look(root, Settings(ignore=("made-up",))).candidates == 0
    assert look(root, Settings(select=("other-rule",))).candidates == 0
    assert look(root, Settings(select=("QW901",))).candidates == 2


def test_ignored_codes_are_not_reported(root: Path) -> None:
    write(root, {"a.py": "old\ncannot", "b.py": "cannot"})
    result = look(root, Settings(ignore=("QW910",), runtime="installed"))
    assert statuses(result) == {"a.py": "changed", "b.py": "unchanged"}
    assert [v.code for v in only(result, "a.py").verdicts] == ["QW901"]


def test_per_file_ignores(root: Path) -> None:
    write(root, {"old/a.py": "old", "new/a.py": "old", "new/b.py": "cannot"})
    settings = Settings(
        runtime="installed",
        per_file_ignores={"/old/": ("made-up",), "b.py": ("QW910",), "new/a.py": ("QW901",)},
    )
    result = look(root, settings)
    assert statuses(result) == {"new/a.py": "unchanged", "new/b.py": "unchanged"}
    assert result.candidates == 2


def test_exclude(root: Path) -> None:
    write(root, {"a.py": "cannot", "vendor/b.py": "cannot"})
    assert list(statuses(look(root, Settings(exclude=("vendor/",))))) == ["a.py"]


def test_what_cannot_be_read_is_an_error_and_the_rest_goes_on(root: Path) -> None:
    write(root, {"a.py": "new"})
    (root / "b.py").symlink_to("nowhere.py")
    result = repository.run([root / "a.py", root / "b.py"], root, Settings(), workers=1)
    assert statuses(result) == {"a.py": "unchanged", "b.py": "error"}
    assert only(result, "b.py").verdicts[0].code == "QW003"
    assert result.files == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_file_without_permission(root: Path) -> None:
    write(root, {"a.py": "new", "b.py": "old"})
    (root / "b.py").chmod(0)
    assert statuses(look(root)) == {"a.py": "unchanged", "b.py": "error"}


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("old boom", "QW005", "a defect of quickwins: KeyError: 'boom'"),
        ("old deep", "QW006", "is nested deeper than can be followed"),
        ("old broken", "QW001", "cannot be parsed"),
    ],
)
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=forked)])
def test_a_bad_file_costs_only_itself(
    root: Path, text: str, code: str, message: str, workers: int
) -> None:
    write(root, {"a.py": "new", "b.py": text, "c.py": "new"})
    result = look(root, workers=workers)
    assert statuses(result) == {"a.py": "unchanged", "b.py": "error", "c.py": "unchanged"}
    verdict = only(result, "b.py").verdicts[0]
    assert (verdict.code, verdict.message) == (code, message)


def test_debugging_shows_where_a_defect_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUICKWINS_DEBUG", "1")
    write(root, {"b.py": "old boom"})
    with pytest.raises(KeyError):
        look(root)


@forked
def test_processes_say_what_one_process_says(root: Path) -> None:
    words = ["old", "new", "cannot", "old\ncannot", "broken old", "nothing"]
    write(root, {f"d{i % 3}/{i}.py": words[i % len(words)] for i in range(40)})
    alone = look(root)
    assert look(root, workers=3) == alone
    assert look(root, workers=0) == alone


@forked
def test_a_file_that_kills_its_process_is_found_and_named(root: Path) -> None:
    write(root, {f"{i:02}.py": "old die" if i in (3, 11) else "cannot" for i in range(20)})
    result = look(root, workers=2)
    failed = [outcome.path for outcome in result.errors]
    assert failed == ["03.py", "11.py"]
    assert "the process that worked on this file died" in result.errors[0].verdicts[0].message
    assert len(result.with_status("refused")) == 18


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=forked)])
def test_progress_counts_candidates(root: Path, workers: int) -> None:
    write(root, {"a.py": "new", "b.py": "new", "c.py": "x"})
    seen: list[tuple[int, int]] = []
    repository.run(
        [root], root, Settings(), workers=workers, progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(1, 2), (2, 2)]


def test_few_candidates_need_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert repository._worth(repository.MANY) == 1
    assert repository._worth(24) == 3
    assert repository._worth(10_000) == 8


def test_wins_applied_one_after_the_other_share_one_import(tmp_path: Path) -> None:
    sample = Path(__file__).resolve().parent.parent / "fixtures" / "recsys"
    found = []
    for runs in ((), ("amp", "metrics", "hard-negatives", "onecycle")):
        root = tmp_path / "-".join(["root", *runs])
        shutil.copytree(sample, root, ignore=shutil.ignore_patterns("__pycache__"))
        for select in ((),) if not runs else tuple((rule,) for rule in runs):
            repository.write(look(root, Settings(select=select)))
        texts = {p.relative_to(root): p.read_text() for p in root.glob("**/*.py")}
        found.append({
            path: [line for line in text.split("\n") if line.startswith("from quickwins_runtime")]
            for path, text in texts.items()
            if "quickwins_runtime" not in path.parts
        })
    assert found[0] == found[1]
    assert sum(map(len, found[0].values())) == 9
