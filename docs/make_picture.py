"""Draw what `quickwins diff` prints for one script of the sample repository, as docs/diff.svg.

usage: python docs/make_picture.py

The tool runs in a copy of the sample that holds the runtime already, so that the whole output is
one script's diff and the closing summary. It writes to a pseudo-terminal (there is none on
Windows), and the picture has the colours that it chose for one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "fixtures" / "recsys"
SCRIPT = "two_tower_model/train_with_wandb.py"
PROMPT = f"$ quickwins diff {SCRIPT}"
PICTURE = Path(__file__).with_name("diff.svg")

WIDTH, MARGIN, LINE, SIZE = 900, 18, 17, 12.5
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PLAIN, PAPER, EDGE = "#d4d8dd", "#161b22", "#3d444d"
#: What a terminal's codes look like here; bold is a weight, the others are colours.
COLOURS = {"31": "#ff8e86", "32": "#69d67b", "33": "#e3b341", "36": "#76c7d8"}
#: Behind a whole line that a diff removes or adds.
SHADES = {"31": "#41201f", "32": "#12331d"}


def main() -> None:
    PICTURE.write_text(draw(printed()), encoding="utf-8")
    print(f"{PICTURE} written")


def prepare(folder: Path) -> Path:
    """Copy the sample into a folder, with the runtime as `quickwins apply` places it."""
    sample = folder / "recsys"
    shutil.copytree(SAMPLE, sample, ignore=shutil.ignore_patterns("__pycache__", "wandb", "models"))
    before = (sample / SCRIPT).read_bytes()
    subprocess.run(_tool("apply"), cwd=sample, check=True, stdout=subprocess.DEVNULL)
    (sample / SCRIPT).write_bytes(before)
    return sample


def printed() -> str:
    """Return what the tool prints on a terminal, with the codes for colours in it."""
    import pty

    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PRE_COMMIT")}
    environment["TERM"] = "xterm"
    chunks = []
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            _tool("diff"), cwd=prepare(Path(folder)), stdout=theirs, env=environment
        ) as process:
            os.close(theirs)
            try:
                while chunk := os.read(ours, 65536):
                    chunks.append(chunk)
            except OSError:  # the end, on Linux
                pass
        os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode().replace("\r\n", "\n")


def draw(text: str) -> str:
    """Return an SVG of a terminal's text below the command that printed it."""
    lines = [f"\x1b[1m{PROMPT}\x1b[0m", *text.rstrip("\n").split("\n")]
    height = 2 * MARGIN + LINE * len(lines)
    body = []
    for number, line in enumerate(lines):
        top = MARGIN + LINE * number
        shade = SHADES.get(line[2:4]) if line.endswith("\x1b[0m") and line[:1] == "\x1b" else None
        if shade:
            body.append(
                f'<rect x="1" y="{top}" width="{WIDTH - 2}" height="{LINE}" fill="{shade}"/>'
            )
        spans = "".join(_span(style, escape(part)) for style, part in _parts(line))
        body.append(f'<text x="{MARGIN}" y="{top + 12.5}">{spans}</text>')
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(PROMPT)}</title>",
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" '
        f'fill="{PAPER}" stroke="{EDGE}"/>',
        f'<g font-family="{FONT}" font-size="{SIZE}" fill="{PLAIN}" xml:space="preserve">',
        *body,
        "</g>",
        "</svg>",
        "",
    ])


def _parts(line: str) -> Iterator[tuple[str, str]]:
    """The pieces of a line, each with the code that is on; the tool sets one at a time."""
    style = "0"
    for position, piece in enumerate(re.split(r"\x1b\[(\d+)m", line)):
        if position % 2:
            style = piece
        elif piece:
            yield style, piece


def _span(style: str, text: str) -> str:
    if style == "0":
        return text
    look = 'font-weight="bold"' if style == "1" else f'fill="{COLOURS[style]}"'
    return f"<tspan {look}>{text}</tspan>"


def _tool(command: str) -> list[str]:
    return [sys.executable, "-m", "quickwins_codemod", command, SCRIPT]


if __name__ == "__main__":
    main()
