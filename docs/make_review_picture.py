"""Photograph the page of `quickwins diff --html` for one script of the sample, as docs/review.png.

usage: python docs/make_review_picture.py      (needs Chromium or Chrome)

The tool runs in the copy that make_picture.py describes. The page stands in a frame, moved up to the
changes that a reviewer looks at longest.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_picture import SCRIPT, prepare

PICTURE = Path(__file__).with_name("review.png")
WIDTH, HEIGHT = 1280, 860
#: What of the page is at the top of the picture.
FROM = f"{SCRIPT}:QW202"
_FRAME = """\
<body style="margin:0"><iframe src="page.html" style="border:0;width:100%;height:100vh"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentWindow;
  page.scrollTo(0, page.document.getElementById({name!r}).getBoundingClientRect().top - 48);
}}</script>"""


def main() -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        sys.exit("no chromium or google-chrome is installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "page.html"
        subprocess.run(
            [sys.executable, "-m", "quickwins_codemod", "diff", SCRIPT, "--html", str(page)],
            cwd=prepare(folder), check=True, capture_output=True,
        )  # fmt: skip
        (folder / "frame.html").write_text(_FRAME.format(name=FROM), encoding="utf-8")
        subprocess.run([
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--no-first-run", "--allow-file-access-from-files", f"--user-data-dir={folder / 'user'}",
            f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={PICTURE}",
            "--blink-settings=preferredColorScheme=1", (folder / "frame.html").as_uri(),
        ], check=True, capture_output=True)  # fmt: skip
    print(f"{PICTURE} written")


if __name__ == "__main__":
    main()
