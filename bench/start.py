"""The start of the command line against the start of Python itself.

The command is the one beside this Python, so run it with that of the install to be measured:
pip's own wrapper imports `re` in versions before 25, and an editable install hooks the import.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from sidebyside import measure, report

MANY = 200


def main() -> None:
    command = str(Path(sysconfig.get_path("scripts"), "quickwins"))
    with tempfile.TemporaryDirectory() as folder:
        names = [f"plain{number}.py" for number in range(MANY)]
        for name in names:
            Path(folder, name).write_text("print('no training here')\n" * 200)

        def run(*words: str) -> None:
            subprocess.run(
                words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
            )

        def python(*words: str) -> None:
            run(sys.executable, *words)

        medians = measure(
            {
                "python -c pass": lambda: python("-c", "pass"),
                "python -I -S -c pass": lambda: python("-I", "-S", "-c", "pass"),
                "quickwins check, one file, no candidate": lambda: run(command, "check", names[0]),
                "quickwins apply, one file, no candidate": lambda: run(command, "apply", names[0]),
                f"quickwins check, {MANY} files": lambda: run(command, "check", *names),
                # A flag is enough to take the long way.
                "the long way, one file": lambda: run(command, "check", names[0], "--workers", "0"),
                f"the long way, {MANY} files": lambda: run(
                    command, "check", *names, "--workers", "0"
                ),
                "quickwins --help": lambda: run(command, "--help"),
                "python -c 'import click'": lambda: python("-c", "import click"),
                "python -c 'import libcst'": lambda: python("-c", "import libcst"),
            },
            rounds=25,
        )
    report(medians, "python -c pass")


if __name__ == "__main__":
    main()
