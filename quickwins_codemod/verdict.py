"""What is said of a site, of a file and of a run. The words every report is made of.

QW001 the file cannot be parsed
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: Python itself rejects the text, so nothing in it can be understood safely.

    What to do: mend the syntax at the position that is named, or exclude the file with
    `--exclude` (or `exclude` under `[tool.quickwins]`).

QW002 the file cannot be decoded
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: the bytes are not valid in the encoding that the file declares (PEP 263; UTF-8 where it
    declares none), or they contain NUL, which Python does not accept in source.

    What to do: save the file in the encoding its first lines name, or exclude it.

QW003 the file cannot be read
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: the operating system refused to open it: a missing permission, a broken link, a device.

    What to do: mend the permission, or exclude the file.

QW004 the training loop is managed by a framework
    What it does: the file is left alone.

    Why: Lightning, Accelerate, the Hugging Face Trainer, DeepSpeed or FSDP own the loop, the
    schedule or the precision; a second hand in it would fight theirs.

    What to do: set the schedule and the precision in that framework's own configuration.

QW005 the rewritten text failed the self-check
    What it does: the file is left alone.

    Why: every rewrite is compiled, compared with its plan, and analysed again before anyone sees
    it. One of the three failed here, which is a defect of this tool and not of your file.

    What to do: please report it with the file, or the smallest part that shows it.

QW006 the file is nested too deeply
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: an expression or block is nested deeper than Python's own parsers can follow.

    What to do: nothing, if it is generated code; exclude it.

QW007 the file has unstaged changes
    What it does: `apply` leaves the file alone, and the run ends with exit code 3.

    Why: the work tree differs from the git index, so a rewrite would mix with an edit that is not
    saved anywhere else.

    What to do: stage or commit the edit, or pass `--allow-dirty`.

QW008 the bundled runtime was modified
    What it does: the copy in `quickwins_runtime/` stays as it is, and rewritten scripts go on
    importing it. A package of that name that quickwins did not write is kept too.

    Why: each file there names the hash of its own text. Where the two differ somebody has edited
    the copy, and where the version is newer than the tool a newer quickwins wrote it; an upgrade
    would lose that.

    What to do: keep the edit, or delete the file and run `quickwins apply` again. Rename a package
    of your own, or set `runtime = "installed"`.

QW009 the file changed while it was being rewritten
    What it does: `apply` leaves the file alone, and the run ends with exit code 3.

    Why: between reading and writing another program changed the file, so the rewrite belongs to a
    text that is no longer there.

    What to do: run `quickwins apply` again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["applied", "already", "refused", "warning"]
FileStatus = Literal["changed", "added", "refused", "unchanged", "error"]


@dataclass(frozen=True)
class Verdict:
    """What one rule says of one site. Lines and columns count from 1."""

    rule: str
    status: Status
    code: str
    line: int
    column: int
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class FileOutcome:
    """Everything a run knows about one file.

    path: relative to the root of the run, with forward slashes.
    before, after: the bytes on disk and the bytes proposed; after is None where nothing is to be
        written, before is None for a file of the runtime that does not exist yet.
    """

    path: str
    status: FileStatus
    verdicts: tuple[Verdict, ...] = ()
    before: bytes | None = None
    after: bytes | None = None

    @property
    def has_change(self) -> bool:
        return self.after is not None and self.after != self.before

    def diff(self, context: int = 3) -> str:
        """Return the unified diff that `git apply` takes, or an empty string."""
        if not self.has_change:
            return ""
        old, new = (
            _lines((text or b"").decode("utf-8", "surrogateescape"))
            for text in (self.before, self.after)
        )
        header = [f"diff --git a/{self.path} b/{self.path}\n"]
        if self.before is None:
            header.append("new file mode 100644\n")
        source = "/dev/null" if self.before is None else f"a/{self.path}"
        body = list(difflib.unified_diff(old, new, source, f"b/{self.path}", n=context))
        if not body:
            return "".join(header)
        return "".join(header + [_close(line) for line in body])


@dataclass(frozen=True)
class RunResult:
    """The outcome of one run over a tree.

    files: the number of Python files found; candidates: how many got past the prefilter;
    outcomes: one for each candidate, each file of the runtime, and each file that failed.
    """

    root: str
    files: int
    candidates: int
    outcomes: tuple[FileOutcome, ...] = field(default=())

    def with_status(self, *statuses: FileStatus) -> list[FileOutcome]:
        return [o for o in self.outcomes if o.status in statuses]

    @property
    def errors(self) -> list[FileOutcome]:
        return self.with_status("error")

    @property
    def changes(self) -> list[FileOutcome]:
        return [o for o in self.outcomes if o.has_change]


def file_status(verdicts: Iterable[Verdict]) -> FileStatus:
    """Sum the verdicts of a file up in one word, as the report's contract defines it."""
    seen = {v.status for v in verdicts}
    if "applied" in seen:
        return "changed"
    return "refused" if "refused" in seen else "unchanged"


def _lines(text: str) -> list[str]:
    # Not str.splitlines: that also cuts at form feeds and other characters that git takes as text.
    parts = text.split("\n")
    lines = [part + "\n" for part in parts[:-1]]
    return lines + [parts[-1]] if parts[-1] else lines


def _close(line: str) -> str:
    return line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
