"""The command line with one small made-up rule and a pipeline that works on lines.

It lets the tests of the outer rooms say what happens to a file with a word in that file, and runs
as a script, so that streams and exit codes are those of a real process.
"""

from __future__ import annotations

import os
import sys
import time
import types
from dataclasses import dataclass, field
from pathlib import Path

from quickwins_codemod import source, transform
from quickwins_codemod.settings import Settings
from quickwins_codemod.verdict import FileOutcome, Verdict, file_status


@dataclass(frozen=True)
class Options:
    factor: float = field(default=3.0, metadata={"help": "how much", "above": 0})
    peak: float | None = field(default=None, metadata={"help": "the top"})
    logged: bool = field(default=True, metadata={"help": "log it"})


@dataclass(frozen=True)
class OtherOptions:
    logged: bool = field(default=False, metadata={"help": "log it"})
    curve: str = field(default="cos", metadata={"help": "shape", "choices": ("cos", "linear")})


PAGE, CODES = transform.codes_of(
    """A made-up rule

QW901 old became new
    What it does: writes `new`.

QW910 cannot be done
    Why: it says so.
""",
    "made-up",
)
_, OTHER = transform.codes_of("Another\n\nQW951 nothing\n    Why: nothing.\n", "other-rule")

RULES = (
    transform.Transform("made-up", "A made-up rule", (b"old", b"new", b"cannot"), Options, PAGE,
                        CODES, lambda script, options: transform.Plan()),
    transform.Transform("other-rule", "Another", (b"other needle",), OtherOptions, "Another",
                        OTHER, lambda script, options: transform.Plan()),
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    root: Path
    runtime_home: Path
    settings: Settings


WORDS = (
    (b"old", "applied", "QW901", "old became new", None),
    (b"new", "already", "QW901", "new it is", None),
    (b"cannot", "refused", "QW910", "it cannot be done", "do it by hand"),
    (b"careful", "warning", "QW910", "be careful", None),
)


def process(path: Path, context: Context) -> FileOutcome | None:
    """Rewrite `old` as `new`; other words stand for other ends."""
    relative = path.relative_to(context.root).as_posix()
    data = source.read_bytes(path)
    if b"die" in data:
        os._exit(9)
    if b"boom" in data:
        raise KeyError("boom")
    if b"interrupt" in data:
        raise KeyboardInterrupt
    if b"deep" in data:
        raise RecursionError
    if b"slow" in data:
        path.with_suffix(".started").touch()
        time.sleep(60)
    if b"broken" in data:
        verdict = Verdict("file", "refused", "QW001", 1, 3, "cannot be parsed", None)
        return FileOutcome(relative, "error", (verdict,), data)
    if b"rule needle" in data:
        return None
    verdicts = []
    for number, line in enumerate(data.split(b"\n"), 1):
        for word, status, code, message, hint in WORDS:
            if word in line and context.settings.wants("made-up", code):
                column = line.index(word) + 1
                verdicts.append(
                    Verdict("made-up", status, code, number, column, message, hint)  # type: ignore
                )
    status = file_status(verdicts)
    after = data.replace(b"old", b"new") if status == "changed" else None
    return FileOutcome(relative, status, tuple(verdicts), data, after)


def install() -> None:
    """Put the made-up rule and pipeline in the place of the real ones."""
    pipeline = types.ModuleType("quickwins_codemod.pipeline")
    pipeline.Context, pipeline.process = Context, process  # type: ignore[attr-defined]
    sys.modules["quickwins_codemod.pipeline"] = pipeline
    transform.all_transforms = lambda: RULES  # type: ignore[assignment]
    from quickwins_codemod import cli

    cli.all_transforms = lambda: RULES  # type: ignore[assignment]


if __name__ == "__main__":
    install()
    from quickwins_codemod.cli import main

    main()
