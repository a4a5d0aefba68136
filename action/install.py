"""The step that installs quickwins into an environment of its own.

`-I` keeps the current folder off the import path: it is the repository under review, and what is
in it must not run.
"""

import os
import subprocess
import sys
from pathlib import Path

import runner


def main() -> None:
    what = os.environ["QUICKWINS_VERSION"].strip() or str(Path(__file__).resolve().parents[1])
    if what.startswith("-"):
        runner.fail("the input `version` is what pip installs, not a flag of pip")
    steps = [
        [sys.executable, "-I", "-m", "venv", "--clear", str(runner.work() / "venv")],
        [str(runner.environment_python()), "-I", "-m", "pip", "install", "--quiet",
         "--disable-pip-version-check", what],
    ]  # fmt: skip
    for step in steps:
        if subprocess.run(step, cwd=runner.work()).returncode:
            runner.fail(f"quickwins could not be installed from {what}")


if __name__ == "__main__":
    main()
