"""What is said of a site, of a file and of a run. The words every report is made of.

The codes below are about whole files, whichever rule looked at them. Only QW004 and QW010 can be
ignored (`--ignore QW004`): the others say that a file could not be processed, so leave such a file
out in the open, by `--exclude` or by `exclude` under `[tool.quickwins]`.

QW001 the file cannot be parsed
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: Python itself rejects the text, so nothing in it can be understood safely. Rarely, Python
    takes it and libcst, which keeps the formatting, does not know that syntax yet.

    Example: Python 2, a merge conflict, a template that is no Python yet.

        train.py:3:1: QW001 cannot be parsed: Missing parentheses in call to 'print'. ...

    What to do: mend the syntax at the position that is named, or exclude the file. A newer libcst
    (`pip install -U libcst`), or a newer Python to run quickwins with, may know newer syntax.

QW002 the file cannot be decoded
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: the bytes are not valid in the encoding that the file declares (PEP 263; UTF-8 where it
    declares none), or they contain NUL, which Python does not accept in source.

    Example: a comment typed in Latin-1, in a file that declares no encoding.

        train.py:12:1: QW002 is not valid utf-8: byte 310

    What to do: save the file as UTF-8, or name its encoding in the first line
    (`# -*- coding: latin-1 -*-`), or exclude it.

QW003 the file cannot be read
    What it does: the file is left alone, and the run ends with exit code 3. Of a folder that
    cannot be listed, nothing below it is seen.

    Why: the operating system refused: a missing permission, a broken link, a device. A link that
    you name is refused too if it leads out of the project, where nothing is ever written.

    Example:

        train.py:1:1: QW003 cannot be read: Permission denied

    What to do: mend the permission or the link, or exclude the file. For a linked file, run
    quickwins in the project that it belongs to.

QW004 the training loop is managed by a framework
    What it does: the file is left alone.

    Why: Lightning, Accelerate, the Hugging Face Trainer, DeepSpeed, FSDP, apex, Colossal-AI or
    Horovod own the loop, the schedule or the precision; a second hand in it would fight theirs.
    Importing one is not enough for this code: the file calls it, or a class derives from it.

    Example:

        accelerator = Accelerator()
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    What to do: set the schedule and the precision in that framework's own configuration. Where
    only a part of the file uses it, move your own loop to a file of its own and run again.

QW005 the rewritten text failed the self-check
    What it does: the file is left alone. Where the tool crashed on it, exit code 3 says so.

    Why: every rewrite is compiled, compared with its plan, and analysed again before anyone sees
    it. One of the three failed here, or the analysis stopped with an error. Either is a defect of
    this tool and not of your file.

    Example:

        train.py:1:1: QW005 the rewrite failed its self-check: a second run would change it again

    What to do: please report it with the file, or the smallest part that shows it. After a crash,
    `QUICKWINS_DEBUG=1 quickwins check --workers 1 train.py` shows where it happened. Until it is
    mended, exclude the file.

QW006 the file is nested too deeply
    What it does: the file is left alone, and the run ends with exit code 3.

    Why: an expression or block is nested deeper than Python's parser, or the analysis, can follow.
    Parentheses alone, some 200 deep, are QW001: so Python says it.

    Example: a sum or a string of a thousand parts joined by `+`, written by a generator.

        tables.py:1:1: QW006 is nested deeper than can be followed

    What to do: nothing, if it is generated code; exclude it. Else split the expression: a list and
    `sum(...)` or `"".join(...)` instead of a long chain of `+`.

QW007 the file has unstaged changes
    What it does: `apply` leaves the file alone, and the run ends with exit code 3. The other files
    are written.

    Why: the work tree differs from the git index, so a rewrite would mix with an edit that is not
    saved anywhere else.

    Example:

        train.py:1:1: QW007 has changes that are not staged

    What to do: `git add train.py`, or commit, and run again. `--allow-dirty` writes all the same.

QW008 the bundled runtime was modified
    What it does: the copy in `quickwins_runtime/` stays as it is, and rewritten scripts go on
    importing it. Something else of that name, which quickwins did not write, is kept too; then
    nothing is rewritten, since the new import would find the wrong package.

    Why: each file there names the hash of its own text. Where the two differ somebody has edited
    the copy, and where the version is newer than the tool a newer quickwins wrote it; an upgrade
    would lose that.

    Example:

        quickwins_runtime/schedule.py:1:1: QW008 the bundled runtime was modified; it is kept ...

    What to do: keep the edit, or delete the file and run `quickwins apply` again. Rename a package
    of your own, or set `runtime = "installed"` under `[tool.quickwins]`.

QW009 the file changed while it was being rewritten
    What it does: `apply` leaves the file alone, and the run ends with exit code 3. The other files
    are written.

    Why: between reading and writing another program changed the file, so the rewrite belongs to a
    text that is no longer there.

    Example: an editor saved it, or a formatter ran at the same time.

        train.py:1:1: QW009 changed while it was being rewritten

    What to do: run `quickwins apply` again.

QW010 an opt-out comment silences nothing
    What it does: nothing; the file is treated as if the comment were not there.

    Why: an opt-out that has outlived its reason would hide the next finding on its line, and one
    with a misspelt rule hides none. Comments in a file where a rule did not run are not judged.

    Example: `ampp` is no rule.

        loss.backward()  # quickwins: skip[ampp]

    What to do: delete the comment, mend the name, or move it: to the end of the line that
    `quickwins check` names for the finding (any line of the statement) or of a line that would
    change or go, to the line of the `def` or `class` around it, or above all code for the whole
    file. Code set below a line leaves that line as it is. `skip[amp, QW101]` takes rules and
    codes, `skip` alone means all. Edits that belong together are left out together.

QW011 the file has another name
    What it does: `apply` leaves the file alone, and the run ends with exit code 3. The other files
    are written.

    Why: a hard link gives the file a second name that is not part of the run: in a backup, in a
    cache, or in another repository. Files are written by putting a new one in their place, which
    would part the two names; writing into the file would change what lies outside.

    Example:

        train.py:1:1: QW011 has another name (a hard link)

    What to do: `ls -li train.py` shows how many names it has. `cp -p train.py copy` and
    `mv copy train.py` make it a file of its own. Where both names lie in the run, they stay one
    file.
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
class Touched:
    """The lines of the old text that edits change or stand next to, and what they are for.

    imports: the edit is the import that these verdicts need, and not at their own site.
    """

    lines: frozenset[int]
    verdicts: tuple[Verdict, ...]
    imports: bool = False


@dataclass(frozen=True)
class FileOutcome:
    """Everything a run knows about one file.

    path: relative to the root of the run, with forward slashes.
    before, after: the bytes on disk and the bytes proposed; after is None where nothing is to be
        written, before is None for a file of the runtime that does not exist yet.
    touched: which lines of a changed file were edited for which verdicts.
    """

    path: str
    status: FileStatus
    verdicts: tuple[Verdict, ...] = ()
    before: bytes | None = None
    after: bytes | None = None
    touched: tuple[Touched, ...] = ()

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
    outcomes: one for each candidate, each file of the runtime, and each file that failed;
    declined: how many sites a person did not want, who was asked about each.
    """

    root: str
    files: int
    candidates: int
    outcomes: tuple[FileOutcome, ...] = field(default=())
    declined: int = 0

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
