"""The page of `quickwins compare`: its text is safe, its curves are where the numbers are, and a
browser shows them, in both colour schemes, without a word of complaint."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import (
    STICKS_OUT,
    Checker,
    browse,
    browser,
    count,
    found_in_frame,
    pixels,
    probed,
)

from quickwins_codemod import compare
from quickwins_codemod.compare import Epoch, Header, Run
from quickwins_codemod.report import comparison_page, curves

#: The colours of the two series, by colour scheme.
LIGHT = {"baseline": (0xB3, 0x51, 0x0C), "optimized": (0x0B, 0x63, 0xCE)}
DARK = {"baseline": (0xF2, 0x99, 0x4A), "optimized": (0x64, 0xA8, 0xFF)}
EVIL = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


def run(id: str, values: list[float | None], seconds: float = 10.0, **about: Any) -> Run:
    epochs = tuple(
        Epoch(
            number,
            seconds * number,
            (0.001 * number, 0.5),
            {"ndcg@10": value, "samples_per_second": 1000.0, "peak_memory_mb": 500.0},
        )
        for number, value in enumerate(values, 1)
    )
    return Run(Header(id, source=f"{id}.jsonl", **about), epochs)


def compared(baseline: list[Run], optimized: list[Run], **given: Any) -> compare.Comparison:
    return compare.compare(baseline, optimized, **given)


@pytest.fixture(scope="module")
def usual() -> str:
    """The page of three runs against three."""
    sides = [
        [run(f"{name}{n}", [lift * (1 + n / 50) * e for e in range(1, 9)]) for n in range(3)]
        for name, lift in (("b", 0.02), ("o", 0.03))
    ]
    return comparison_page.render(compared(*sides))


def charts(page: str) -> dict[str, ElementTree.Element]:
    """Return the drawings by what they show."""
    found = {}
    for text in re.findall(r"<svg .*?</svg>", page):
        drawing = ElementTree.fromstring(text)
        found[(drawing.findtext("title") or "").partition(":")[0]] = drawing
    return found


def path(drawing: ElementTree.Element, kind: str, which: str) -> list[list[tuple[float, float]]]:
    """Return the points of the lines of one side."""
    return [
        [tuple(map(float, place.split())) for place in line.attrib["d"].lstrip("M").split("L")]
        for line in drawing.findall(f"g[@class='{kind}']/path[@class='{which}']")
    ]


# The file


def test_the_page_is_whole_and_loads_nothing(usual: str) -> None:
    checker = Checker(usual)
    tags = {tag for tag, _ in checker.seen}
    assert {"svg", "table", "figure", "title"} <= tags
    assert not tags & {"script", "img", "iframe", "object", "embed", "form"}
    for _, attributes in checker.seen:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "data:").startswith("data:")
    assert "http:" not in usual and "https:" not in usual and "url(" not in usual
    assert "default-src 'none'" in usual


def test_foreign_text_is_text(tmp_path: Path) -> None:
    about = {name: EVIL for name in ("script", "started", "python", "torch", "device")}
    header = {"tags": (EVIL,), "arguments": (EVIL, "\ud800\x00")}
    odd = {**run(EVIL, [1.0]).epochs[0].metrics, EVIL: 3.0}
    sides = [
        [Run(run(f"{EVIL}{n}", [1.0], **about, **header).header, (Epoch(1, 1.0, (), odd),))]
        for n in (1, 2)
    ]
    result = compared(*sides, words=(EVIL, EVIL), problems=[EVIL])
    page = comparison_page.render(result)
    checker = Checker(page)
    assert not {tag for tag, _ in checker.seen} & {"script", "img"}
    assert checker.text.count(EVIL) > 15, "and it is there, as text"
    comparison_page.write(tmp_path / "page.html", result)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page


def test_the_table_says_what_the_terminal_says(usual: str) -> None:
    text = " ".join(Checker(usual).text.split())
    assert "At the best epoch by ndcg@10" in text and "+50.0 %" in text and "better" in text
    assert "mean ± sample standard deviation over runs" in text
    assert "samples per second, mean over epochs" in text and "peak process memory, MiB" in text


def test_notes_and_problems_are_on_the_page() -> None:
    result = compared([run("b", [1.0])], [run("o", [1.0, 2.0])], problems=["x.jsonl:3: broken"])
    text = Checker(comparison_page.render(result)).text
    assert "one run each: no spread is known" in text and "no fair comparison: 1 against 2" in text
    assert "not read: x.jsonl:3: broken" in text


def test_environment_and_arguments_of_each_run() -> None:
    about = {"arguments": ("--tag", "a b"), "device": "H100", "torch": "2.9.1", "python": "3.13.1"}
    page = comparison_page.render(compared([run("b", [1.0], **about)], [run("o", [1.0])]))
    text = Checker(page).text
    for word in ("--tag 'a b'", "H100", "2.9.1", "3.13.1", "b.jsonl", "o.jsonl"):
        assert word in text


def test_the_file_is_written_in_one_go(tmp_path: Path) -> None:
    result = compared([run("b", [1.0])], [run("o", [1.0])])
    page = tmp_path / "page.html"
    page.write_text("older")
    page.chmod(0o640)
    comparison_page.write(page, result)
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert os.name != "posix" or page.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError):
        comparison_page.write(tmp_path, result)


# The curves


def test_what_is_drawn(usual: str) -> None:
    assert list(charts(usual)) == [
        "ndcg@10 by epoch",
        "ndcg@10 by wall time, s",
        "learning rate, first of 2 groups by epoch",
        "samples per second by epoch",
        "peak process memory, MiB by epoch",
    ]
    for drawing in charts(usual).values():
        for kind in ("baseline", "optimized"):
            assert len(path(drawing, kind, "run")) == 3 and len(path(drawing, kind, "mean")) == 1


def test_lines_run_through_their_numbers() -> None:
    sides = [[run("b", [0.0, 1.0, 2.0])], [run("o", [4.0, 3.0, 2.0], seconds=20.0)]]
    drawn = charts(comparison_page.render(compared(*sides)))
    by_epoch, by_time = drawn["ndcg@10 by epoch"], drawn["ndcg@10 by wall time, s"]
    (baseline,), (optimized,) = (path(by_epoch, kind, "mean") for kind in ("baseline", "optimized"))
    assert [x for x, _ in baseline] == [x for x, _ in optimized]
    heights = [y for _, y in baseline]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.11)
    assert heights[0] - heights[1] > 20
    assert baseline[2] == optimized[2], "both are 2 at epoch 3"
    assert optimized[0][1] < optimized[1][1], "what is higher is further up"
    (baseline,), (optimized,) = (path(by_time, kind, "mean") for kind in ("baseline", "optimized"))
    assert baseline[1][0] == optimized[0][0], "20 s are 20 s"
    told = {title.text for title in by_epoch.iter("title")}
    assert "baseline, b, epoch 2: 1.000" in told and "optimized, o, epoch 1: 4.000" in told


def test_the_thick_line_is_the_mean_where_all_runs_are() -> None:
    three = [run("a", [1.0, 2.0, None, 4.0]), run("b", [3.0, 4.0, 5.0, 6.0, 7.0])]
    drawn = charts(comparison_page.render(compared(three, [run("o", [1.0, 2.0])])))
    drawing = drawn["ndcg@10 by epoch"]
    (mean,) = path(drawing, "baseline", "mean")
    one, other = path(drawing, "baseline", "run")
    assert len(one) == 3 and len(other) == 5 and len(mean) == 3
    for place, (first, second) in enumerate(zip(one, (other[0], other[1], other[3]))):
        assert mean[place][0] == first[0]
        assert mean[place][1] == pytest.approx((first[1] + second[1]) / 2, abs=0.11)
    assert not path(drawing, "optimized", "run"), "one run is its own mean"


def test_a_single_epoch_and_a_flat_line_are_drawn() -> None:
    page = comparison_page.render(compared([run("b", [0.0])], [run("o", [0.0])]))
    for drawing in charts(page).values():
        assert len(drawing.findall(".//circle")) == 2
        assert "nan" not in ElementTree.tostring(drawing, encoding="unicode")


def test_a_side_without_a_metric_leaves_the_other_one_drawn() -> None:
    plain, other = run("b", [0.1, 0.2]), run("o", [0.1, 0.2])
    more = [Epoch(e.number, None, (), {**e.metrics, "mrr": 0.5}) for e in other.epochs]
    page = comparison_page.render(compared([plain], [Run(other.header, tuple(more))]))
    drawn = charts(page)
    assert not path(drawn["mrr by epoch"], "baseline", "mean")
    assert path(drawn["mrr by epoch"], "optimized", "mean")
    assert "mrr by wall time, s" not in drawn, "no time is known of it"


def test_a_long_run_is_thinned_and_keeps_its_extremes() -> None:
    values: list[float | None] = [0.5] * 100_000
    values[54_321] = 1.0
    drawn = charts(comparison_page.render(compared([run("b", values)], [run("o", [0.5, 0.4])])))
    (line,) = path(drawn["ndcg@10 by epoch"], "baseline", "mean")
    assert 400 <= len(line) <= 802
    low, high = min(y for _, y in line), max(y for _, y in line)
    assert high - low > 100, "the one epoch that stands out is still there"


@pytest.mark.parametrize(
    ("numbers", "whole", "words"),
    [
        ([0.02, 0.19], False, ["0.00", "0.05", "0.10", "0.15", "0.20"]),
        ([1, 20], True, ["0", "5", "10", "15", "20"]),
        ([1, 2], True, ["1", "2"]),
        ([3], True, ["2", "3", "4"]),
        ([0], False, ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([8200, 9000], False, ["8,200", "8,400", "8,600", "8,800", "9,000"]),
        ([-0.5, 0.5], False, ["-0.5", "0.0", "0.5"]),
        ([1e-6, 3e-6], False, ["1e-06", "1.5e-06", "2e-06", "2.5e-06", "3e-06"]),
        ([0, 1.3e-3], False, ["0.0000", "0.0005", "0.0010", "0.0015"]),
    ],
)
def test_ticks_are_round(numbers: list[float], whole: bool, words: list[str]) -> None:
    axis = curves.Axis.over(numbers, whole)
    assert axis.words() == words
    assert axis.ticks[0] <= min(numbers) and axis.ticks[-1] >= max(numbers)


# In a browser

#: Put into a copy of the page, since the page itself has no script: where each line is, and how.
LOOK = """
const found = [...document.querySelectorAll("svg g path")].map(line => {
  const box = line.getBoundingClientRect(), style = getComputedStyle(line);
  return [line.parentNode.getAttribute("class"), line.getAttribute("class"), style.stroke,
          Math.round(box.width), Math.round(box.height)].join("|");
});
document.body.setAttribute("data-found", found.join(";"));
"""


@browser
def test_the_browser_lays_the_curves_out(usual: str, tmp_path: Path) -> None:
    done = browse(tmp_path, probed(usual, LOOK), "--dump-dom", "--window-size=1200,900")
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    lines = [line.split("|") for line in found.split(";")]
    assert len(lines) == 5 * 2 * 4, "charts, sides, and three runs with their mean"
    for side, colour in LIGHT.items():
        own = [line for line in lines if line[0] == side]
        assert {line[2] for line in own} == {f"rgb({', '.join(map(str, colour))})"}
        assert all(int(line[3]) > 100 for line in own)
        assert all(int(line[4]) > 50 for line in own[:4]), "the metric rises"


@browser
@pytest.mark.parametrize("width", [1200, 500, 360])
def test_nothing_sticks_out_of_the_page(usual: str, tmp_path: Path, width: int) -> None:
    assert found_in_frame(tmp_path, usual, width, STICKS_OUT) == "0"


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_series_are_seen_in_both_schemes(usual: str, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    dark = scheme == "dark"
    browse(
        tmp_path, usual, f"--screenshot={shot}", "--window-size=640,1100",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    )  # fmt: skip
    picture = pixels(shot)
    assert tuple(picture[2, 2]) == ((0x14, 0x18, 0x1F) if dark else (255, 255, 255))
    colours, others = (DARK, LIGHT) if dark else (LIGHT, DARK)
    for side in ("baseline", "optimized"):
        assert count(picture, colours[side]) > 500, f"the lines of {side}"
        assert count(picture, others[side]) < 100


@browser
def test_hostile_text_does_nothing_in_the_browser(tmp_path: Path) -> None:
    result = compared(
        [run(EVIL, [1.0, 2.0], device=EVIL)], [run("o", [1.0, 2.0])], words=(EVIL, "optimized")
    )
    done = browse(tmp_path, comparison_page.render(result), "--dump-dom")
    assert "&lt;script&gt;alert(1)" in done.stdout and "<script" not in done.stdout
