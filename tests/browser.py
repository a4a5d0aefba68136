"""Pages in tests: read by a parser, and opened in a headless Chromium."""

from __future__ import annotations

import html
import re
import shutil
import struct
import subprocess
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome is installed")


class Checker(HTMLParser):
    """Sees that every element is closed in order, and notes elements and attributes."""

    VOID = {"meta", "link", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def browse(tmp_path: Path, page: str, *words: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr", *words, (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


def probed(page: str, script: str) -> str:
    """Return a copy of a page with a script in it, which the page's own policy would not run."""
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    copy, number = policy.subn("", page.replace("</body>", f"<script>{script}</script></body>"))
    assert number == 1
    return copy


def found_in_frame(tmp_path: Path, page: str, width: int, script: str) -> str:
    """Return what a script puts into data-found of the body, where the page has this width.

    A headless window has a least width of its own; a frame has none.
    """
    (tmp_path / "inside.html").write_text(probed(page, script), encoding="utf-8")
    frame = (
        f'<iframe src="inside.html" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>onload = () => document.body.setAttribute('data-found',"
        " document.querySelector('iframe').contentDocument.body.dataset.found)</script>"
    )
    done = browse(
        tmp_path, frame, "--dump-dom", "--window-size=1400,1000", "--allow-file-access-from-files"
    )
    (found,) = re.findall(r'<body data-found="([^"]*)"', done.stdout)
    return html.unescape(found)


#: How far a page sticks out of its window, for found_in_frame.
STICKS_OUT = """
const root = document.documentElement;
document.body.dataset.found = root.scrollWidth - root.clientWidth;
"""


def pixels(path: Path) -> np.ndarray:
    """Read a PNG of 8 bits a channel, [height, width, 3]."""
    data, place, packed = path.read_bytes(), 8, b""
    while place < len(data):
        (length,), name = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        if name == b"IHDR":
            width, height, depth, kind = struct.unpack(">IIBB", body[:10])
        packed += body if name == b"IDAT" else b""
        place += 12 + length
    assert depth == 8 and kind in (2, 6)
    channels = 3 if kind == 2 else 4
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1)
    above = np.zeros((width, channels), np.int64)
    rows = []
    for line in lines:
        row = line[1:].astype(np.int64).reshape(width, channels)
        if line[0] == 1:
            row = np.cumsum(row, axis=0) % 256
        elif line[0] == 2:
            row = (row + above) % 256
        elif line[0] in (3, 4):
            left, corner = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
            for x in range(width):
                up = above[x]
                if line[0] == 3:
                    guess = (left + up) // 2
                else:
                    far = [abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)]
                    nearer = np.where(far[1] <= far[2], up, corner)
                    guess = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, nearer)
                row[x] = left = (row[x] + guess) % 256
                corner = up
        rows.append(row[:, :3])
        above = row
    return np.stack(rows)


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((abs(picture - np.array(colour)).max(axis=2) <= 2).sum())
