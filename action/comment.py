"""The text of the comment: what is due, the diff, and what was left alone, within GitHub's limit.

What comes from the repository under review stands in fenced blocks, whose fences are longer than
any run of backticks in them: so no code can end its block, mention anybody or bring markup of its
own.
"""

import re
from typing import Any

#: Opens the comment; the comment of an earlier run is known by it.
MARKER = "<!-- quickwins-codemod -->"
#: GitHub takes 65,536 characters. Bytes are counted, which are never fewer.
LIMIT = 65_000
#: So many places of refusals and warnings are listed.
PLACES = 10
_RUNTIME = "quickwins_runtime/"


def render(report: dict[str, Any], patch: bytes, page: str) -> str:
    """Return the text. report: that of `--format json`; page: the address of the run."""
    changed = [file for file in report["files"] if file["status"] == "changed"]
    added = [file for file in report["files"] if file["status"] == "added"]
    failed = [file for file in report["files"] if file["status"] == "error"]
    lines = [MARKER, f"### quickwins: {_many(len(changed), 'file')} to change" if changed
             else "### quickwins: nothing to change"]  # fmt: skip
    if changed:
        lines += ["", _fenced("text", _findings(changed, ("applied",)))]
        if added:
            lines += ["", f"With it comes `quickwins_runtime/` ({_many(len(added), 'file')}), which"
                      " the changed files import; the diff below leaves it out."]  # fmt: skip
        lines += ["", "To take it: `quickwins apply`, or `git apply quickwins.patch` with the file"
                  f" from the artifact `quickwins-patch` of [this run]({page})."]  # fmt: skip
    if failed:
        lines += ["", f"{_many(len(failed), 'file')} could not be processed:", "",
                  _fenced("text", _cut(_findings(failed, ("refused",))))]  # fmt: skip
    look = _findings(
        [file for file in report["files"] if file not in failed], ("refused", "warning")
    )
    if look:
        lines += ["", f"Left alone, or to look at ({len(look)}):", "", _fenced("text", _cut(look))]
    text = "\n".join(lines) + "\n"
    if len(text.encode()) > LIMIT:  # file names alone; nobody reads so many
        said = f"There are too many to list; [this run]({page}) has all."
        text = "\n".join([*lines[:2], "", said]) + "\n"
    if not changed:
        return text
    return text + _folded(patch, LIMIT - len(text.encode()), page)


def _findings(files: list[dict[str, Any]], statuses: tuple[str, ...]) -> list[str]:
    return [
        " ".join(f"{file['path']}:{v['line']}:{v['column']}: {v['code']} {v['message']}".split())
        for file in files
        for v in file["verdicts"]
        if v["status"] in statuses
    ]


def _cut(lines: list[str]) -> list[str]:
    if len(lines) <= PLACES + 1:
        return lines
    return [*lines[:PLACES], f"and {len(lines) - PLACES} more"]


def _folded(patch: bytes, room: int, page: str) -> str:
    """The diff in a block that opens on a click, cut at the end of a line where it must be."""
    files = re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE)
    diff = b"".join(file for file in files if not _is_runtime(file)).decode("utf-8", "replace")
    shown = "\n".join(line.rstrip("\r") for line in diff.split("\n")).rstrip("\n")
    note = "\nThe diff is longer than a comment can be; the artifact of"
    note += f" [this run]({page}) is whole.\n"
    head, tail = "\n<details><summary>The diff</summary>\n\n", "\n\n</details>\n"
    around = len((head + tail + note).encode()) + 2 * len(_fence(shown)) + len("diff\n\n")
    data = shown.encode()
    if len(data) <= room - around:
        return head + _fenced("diff", [shown]) + tail
    data = data[: max(0, room - around)]
    kept = data[: data.rfind(b"\n")].decode("utf-8", "ignore") if b"\n" in data else ""
    return head + _fenced("diff", [kept]) + tail + note if kept else note


def _is_runtime(part: bytes) -> bool:
    first = part.split(b"\n", 1)[0]
    return b"\nnew file mode" in part and _RUNTIME.encode() in first


def _fenced(language: str, lines: list[str]) -> str:
    text = "\n".join(lines)
    fence = _fence(text)
    return f"{fence}{language}\n{text}\n{fence}"


def _fence(text: str) -> str:
    return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
