"""What the tests of the rewrites share: run one file, compare before and after, record training."""

from __future__ import annotations

import ast
import difflib
import re
import runpy
import sys
from pathlib import Path

import pytest
import recorder

from quickwins_codemod import bundle, pipeline
from quickwins_codemod.settings import Settings
from quickwins_codemod.transform import all_transforms
from quickwins_codemod.verdict import FileOutcome

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
PAIRS = FIXTURES / "pairs" / "onecycle"
REFUSED = FIXTURES / "refused" / "onecycle"
SAMPLE = FIXTURES / "recsys"

_SCHEDULE_WORDS = re.compile(r"sched|lr\b|_lr|LR|rate|warm|anneal|cosine|plateau|decay|OneCycle", re.I)


def look_at(source: str | bytes, folder: Path, name: str = "train.py", **options) -> FileOutcome:
    """What the tool says of one file that stands alone in a folder; options are OneCycle's."""
    path = folder / name
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    rules = {
        t.rule: t.options_type(**(options if t.rule == "onecycle" else {}))
        for t in all_transforms()
    }
    settings = Settings(rules=rules, select=("onecycle",))
    context = pipeline.Context(folder.resolve(), folder.resolve(), settings)
    outcome = pipeline.process(path.resolve(), context)
    if outcome is None:
        return FileOutcome(name, "unchanged", before=path.read_bytes())
    return outcome


def codes(outcome: FileOutcome, *statuses: str) -> list[str]:
    """The codes of the verdicts with one of these statuses (any, where none is given)."""
    return [v.code for v in outcome.verdicts if not statuses or v.status in statuses]


def new_text(outcome: FileOutcome) -> str:
    assert outcome.after is not None, [f"{v.line}: {v.code} {v.message}" for v in outcome.verdicts]
    return outcome.after.decode()


def assert_complete(source: str | bytes, folder: Path, **options) -> FileOutcome:
    """A file is rewritten, the new text compiles, and there is nothing left to do.

    A second run changes nothing, and says `already` of every schedule that the first one applied.
    """
    outcome = look_at(source, folder, **options)
    said = [f"{v.line}: {v.code} {v.message}" for v in outcome.verdicts]
    assert outcome.status == "changed", said
    compile(outcome.after, "train.py", "exec", dont_inherit=True)

    again = look_at(outcome.after, folder, **options)
    assert again.after is None, again.diff()
    assert len(codes(again, "already")) >= len(codes(outcome, "applied")), again.verdicts
    return outcome


def assert_rewritten(source: str | bytes, folder: Path, **options) -> FileOutcome:
    """A file is rewritten completely, and nothing of it changes that is not about the schedule.

    Every line that is gone spoke of the schedule, or is back with more on it.
    """
    outcome = assert_complete(source, folder, **options)
    stray = _strays(outcome.before, outcome.after)
    assert not stray, stray
    return outcome


def _strays(before: bytes, after: bytes) -> list[str]:
    """Lines that are gone although they did not speak of a schedule."""
    old, new = (re.split("\r\n|\r|\n", text.decode("latin-1")) for text in (before, after))
    statements = [n for n in ast.walk(ast.parse(before)) if isinstance(n, ast.stmt)]
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    found = []
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        for number in range(start + 1, end + 1) if tag in ("replace", "delete") else ():
            text = old[number - 1].strip()
            added = new[new_start:new_end]
            if "(" in text or "{" in text:  # what grew too long for one line is back on several
                added = [*added, "".join(line.strip() for line in added)]
            back = all(
                any(_is_contained(part.replace(" ", ""), line) for line in added)
                for part in text.split("; ")
                if not _SCHEDULE_WORDS.search(part)
            )
            if text and not back and not _is_about_schedule(number, statements, old):
                found.append(f"line {number}: {text}")
    return found


def _is_about_schedule(number: int, statements: list[ast.stmt], lines: list[str]) -> bool:
    """Whether the smallest statement on a line is; an `if` is where all that stands in it is."""
    around = [s for s in statements if s.lineno <= number <= (s.end_lineno or 0)]
    if not around or lines[number - 1].lstrip().startswith("#"):
        return bool(_SCHEDULE_WORDS.search(lines[number - 1]))
    smallest = min(around, key=lambda s: (s.end_lineno or 0) - s.lineno)
    inner = [s for s in ast.walk(smallest) if isinstance(s, ast.stmt) and s is not smallest]
    return all(
        _SCHEDULE_WORDS.search("\n".join(lines[s.lineno - 1 : s.end_lineno]))
        for s in inner or [smallest]
    )


def _is_contained(text: str, line: str) -> bool:
    """Whether a line has all the characters of a text, in its order."""
    rest = iter(line)
    return all(character in rest for character in text)


# -- training ----------------------------------------------------------------------------------


def place_runtime(folder: Path) -> Path:
    """Put the bundled runtime into a folder, as `quickwins apply` would."""
    for outcome in bundle.plan(folder.resolve(), folder.resolve()):
        target = folder / outcome.path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(outcome.after or b"")
    return folder


def train(path: Path, runtime: Path | None = None) -> recorder.Record:
    """Run a script in this process and return what its optimizers did."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    saved_path, saved_argv, saved_modules = sys.path[:], sys.argv, dict(sys.modules)
    sys.argv = [str(path)]
    if runtime is not None:
        sys.path.insert(0, str(runtime))
    try:
        with recorder.recording() as record:
            runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.path[:], sys.argv = saved_path, saved_argv
        for name in set(sys.modules) - set(saved_modules):
            if name.partition(".")[0] == bundle.PACKAGE:
                del sys.modules[name]
    return record


def factor(outcome: FileOutcome) -> float:
    """The peak as a multiple of the optimizer's rate: 3, or 1 where the old schedule climbed to it."""
    return 1.0 if "QW158" in codes(outcome) else 3.0


def assert_one_cycle(
    run: recorder.Run,
    peaks: list[float] | None = None,
    complete: bool = True,
    times: float = 3.0,
) -> None:
    """One optimizer's run was exactly one cycle: one schedule, stepped as often as the optimizer.

    peaks: of each group; so many times its own rate, where not given. complete: every planned step
    happened.
    """
    assert [s["class"] for s in run.schedules] == ["OneCycle"]
    total = run.schedules[0]["total_steps"]
    if complete:
        assert len(run.rates) == total
        assert run.schedules[0]["last_step"] == total - 1
    else:
        assert len(run.rates) <= total
    assert_follows_cycle(run.rates, total, peaks or [times * rate for rate in run.made_with])


def assert_follows_cycle(rates: list[list[float]], total: int, peaks: list[float]) -> None:
    """The rates of each step are those of one cycle, from its first step on."""
    for group, peak in enumerate(peaks):
        curve = [step[group] for step in rates]
        expected = [recorder.one_cycle_rate(step, total, peak) for step in range(len(curve))]
        assert curve == pytest.approx(expected, rel=1e-6, abs=1e-12)
        if len(curve) == total and total >= 10:
            assert curve[0] < 0.05 * peak
            assert curve[-1] < 0.001 * peak
            assert 0.05 * total <= curve.index(max(curve)) + 1 <= 0.3 * total
