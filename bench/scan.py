"""A run over a tree against `grep -rl` over the same tree, both on warm file caches.

usage: scan.py FOLDER     (a folder of Python files; the standard library is a good one)
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from sidebyside import measure, report

from quickwins_codemod import discovery, transform
from quickwins_codemod.source import read_bytes


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    transforms = transform.all_transforms()
    needles = sorted({n.decode() for t in transforms for n in t.needles})

    def scan() -> int:
        found = discovery.find_python_files([root], root, [])
        return sum(any(t.is_candidate(read_bytes(f)) for t in transforms) for f in found.files)

    def grep() -> None:
        patterns = [part for needle in needles for part in ("-e", needle)]
        subprocess.run(
            ["grep", "-rlF", *patterns, "--include=*.py", str(root)], stdout=subprocess.DEVNULL
        )

    start = time.perf_counter()
    candidates = scan()
    files = len(discovery.find_python_files([root], root, []).files)
    print(f"{files} files, {candidates} candidates, first scan {time.perf_counter() - start:.2f} s")
    report(measure({"grep -rl": grep, "discovery and prefilter": scan}, rounds=7), "grep -rl")


if __name__ == "__main__":
    main()
