"""The start of the command line against the start of Python itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from sidebyside import measure, report


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "plain.py").write_text("print('no training here')\n")

        def run(*arguments: str) -> None:
            subprocess.run(
                [sys.executable, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=True
            )

        medians = measure(
            {
                "python -c pass": lambda: run("-c", "pass"),
                "python -c 'import click'": lambda: run("-c", "import click"),
                "quickwins --help": lambda: run("-m", "quickwins_codemod", "--help"),
                "quickwins check, no candidate": lambda: run("-m", "quickwins_codemod", "check", "plain.py"),
                "python -c 'import libcst'": lambda: run("-c", "import libcst"),
            },
            rounds=15,
        )
    report(medians, "python -c pass")


if __name__ == "__main__":
    main()
