"""One file through the whole pipeline against parsing it and generating its code with libcst.

usage: rewrite.py FILE…     (the sample repository's scripts when none is given)
"""

from __future__ import annotations

import sys
from pathlib import Path

import libcst as cst
from sidebyside import measure, report

from quickwins_codemod.pipeline import Context, process
from quickwins_codemod.settings import Settings

SAMPLES = Path(__file__).parent.parent / "fixtures" / "recsys"


def main() -> None:
    files = [Path(f).resolve() for f in sys.argv[1:]] or sorted(SAMPLES.rglob("train_with_wandb.py"))
    for file in files:
        context = Context(file.parent, file.parent, Settings())
        text = file.read_text()
        outcome = process(file, context)
        print(f"{file.parent.name}/{file.name}: {len(text.splitlines())} lines, "
              f"{outcome.status if outcome else 'no candidate'}")
        report(
            measure(
                {
                    "libcst parse + code": lambda: cst.parse_module(text).code,
                    "whole pipeline": lambda: process(file, context),
                },
                rounds=7,
            ),
            "libcst parse + code",
        )


if __name__ == "__main__":
    main()
