"""The step that runs quickwins, and leaves the reports, the patch and the comment's text.

Outputs: `changes`, `sarif` and `patch`; the job's summary says what the comment will say.
"""

import json
import os
import posixpath
import subprocess
from pathlib import Path
from typing import Any

import comment
import runner

NOTHING: dict[str, Any] = {
    "version": 1, "files": [],
    "summary": {"files": 0, "candidates": 0, "changed": 0, "added": 0, "refused": 0, "errors": 0},
}  # fmt: skip
#: So long a command line is within the limits of every system.
LONGEST = 25_000


def main() -> None:
    work = runner.work()
    for name in ("quickwins.sarif", "quickwins.patch", "comment.md"):
        (work / name).unlink(missing_ok=True)
    paths = _paths()
    report, patch = (_reports(paths, work)) if paths else (NOTHING, b"")
    body = comment.render(report, patch, runner.run_page())
    (work / "comment.md").write_text(body, encoding="utf-8", newline="\n")
    (work / "report.json").write_text(json.dumps(report), encoding="utf-8")
    runner.append("GITHUB_STEP_SUMMARY", body)
    runner.append("GITHUB_OUTPUT", f"changes={report['summary']['changed']}")
    for name, path in (("sarif", work / "quickwins.sarif"), ("patch", work / "quickwins.patch")):
        there = path.exists() and path.stat().st_size > 0
        runner.append("GITHUB_OUTPUT", f"{name}={path if there else ''}")


def _reports(paths: list[str], work: Path) -> tuple[dict[str, Any], bytes]:
    """Run once for the findings and the patch, once for the report that the comment is made of."""
    patch = work / "quickwins.patch"
    sarif = _quickwins(paths, "--format", "sarif", "--patch", str(patch))
    (work / "quickwins.sarif").write_bytes(sarif)
    report = json.loads(_quickwins(paths, "--format", "json"))
    if len(paths) == 1 and os.path.isdir(paths[0]):  # its paths count from that folder
        for file in report["files"]:
            file["path"] = posixpath.normpath(f"{paths[0].replace(os.sep, '/')}/{file['path']}")
    return report, patch.read_bytes()


def _quickwins(paths: list[str], *flags: str) -> bytes:
    given = [
        word
        for flag in ("select", "ignore", "config")
        for value in [os.environ[f"QUICKWINS_{flag.upper()}"].strip()] if value
        for word in (f"--{flag}", value)
    ]
    command = [str(runner.environment_python()), "-I", "-m", "quickwins_codemod", "diff"]
    done = subprocess.run([*command, *flags, *given, "--", *paths], capture_output=True)
    if done.stderr:
        runner.show(done.stderr.decode("utf-8", "replace"))
    if done.returncode not in (0, 3):  # 3: some file could not be processed; the report names it
        runner.fail("quickwins could not run; the log of this step says why")
    return done.stdout


def _paths() -> list[str]:
    """What to look at; nothing where a pull request changes no Python file."""
    paths = [line.strip() for line in os.environ["QUICKWINS_PATHS"].splitlines() if line.strip()]
    number = runner.pull_request()
    if os.environ["QUICKWINS_CHANGED_ONLY"] != "true" or number is None:
        return paths or ["."]
    try:
        files = runner.pages(f"pulls/{number}/files")
    except runner.ApiError as error:
        runner.say("warning", f"which files the pull request changes is not known: {error}")
        return paths or ["."]
    changed = [
        file["filename"]
        for file in files
        if file["filename"].endswith((".py", ".pyw"))
        and os.path.isfile(file["filename"])
        and any(_is_below(file["filename"], path) for path in paths or ["."])
    ]
    if sum(map(len, changed)) > LONGEST:
        runner.say("notice", "the pull request changes so many files that all are looked at")
        return paths or ["."]
    return changed


def _is_below(path: str, folder: str) -> bool:
    folder = os.path.normpath(folder).replace(os.sep, "/")
    return folder == "." or path == folder or path.startswith(f"{folder}/")


if __name__ == "__main__":
    main()
