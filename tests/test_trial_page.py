"""The page of a trial: its text is safe, its drawings are where the numbers are, and a browser shows
it in both colour schemes and on a phone without a word of complaint."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import STICKS_OUT, Checker, browse, browser, count, found_in_frame, pixels, probed
from test_comparison_page import EVIL, LIGHT, LOOK, charts, path
from test_judging import BASE, SAME, UP, ablated, with_attempts
from test_trial_report import OWN_BUG, failing
from trial_helpers import make_trial

from quickwins_codemod import configedit
from quickwins_codemod.judging import judge
from quickwins_codemod.report import trial_page, trial_text
from quickwins_codemod.trials import Attempt, Defect, Inapplicable, Trial

pytest.importorskip("scipy")


def page(trial: Trial) -> str:
    found = judge(trial)
    return trial_page.render(found, configedit.lines(found.recommendation.select, {}))


@pytest.fixture(scope="module")
def usual() -> str:
    return page(make_trial())


def text(page: str) -> str:
    return " ".join(Checker(page).text.split())


def test_the_page_is_whole_and_loads_nothing(usual: str) -> None:
    checker = Checker(usual)
    tags = {tag for tag, _ in checker.seen}
    assert {"svg", "table", "figure", "title", "pre", "details"} <= tags
    assert not tags & {"script", "img", "iframe", "object", "embed", "form"}
    for _, attributes in checker.seen:
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "data:").startswith("data:")
    assert "http:" not in usual and "https:" not in usual and "url(" not in usual
    assert "default-src 'none'" in usual


def test_foreign_text_is_text(tmp_path: Path) -> None:
    def change(attempt: Attempt) -> Attempt:
        header = dataclasses.replace(attempt.runs[0].header, id=EVIL, script=EVIL)
        runs = (dataclasses.replace(attempt.runs[0], header=header),)
        bad = attempt.variant == "onecycle"
        return dataclasses.replace(
            attempt,
            runs=runs,
            command=(EVIL,),
            notes=(EVIL,),
            status="failed" if bad else "done",
            failure=dataclasses.replace(OWN_BUG, message=EVIL) if bad else None,
            defects=(Defect("hard-negatives", EVIL, EVIL),),
        )

    trial = with_attempts(make_trial(), change)
    trial = dataclasses.replace(
        trial, script=EVIL, arguments=(EVIL,), changed=(EVIL,), notes=(EVIL,), command=EVIL,
        commands={"baseline": EVIL}, inapplicable=(Inapplicable("amp", "QW310", EVIL),),
        environment=dataclasses.replace(trial.environment, device=EVIL, platform=EVIL),
    )  # fmt: skip
    found = judge(trial)
    written = trial_page.render(found, f"# {EVIL}\n")
    checker = Checker(written)
    assert not {tag for tag, _ in checker.seen} & {"script", "img"}
    assert checker.text.count(EVIL) > 15, "and it is there, as text"
    trial_page.write(tmp_path / "page.html", found, f"# {EVIL}\n")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == written


def test_the_page_says_what_the_terminal_says(usual: str) -> None:
    found = judge(make_trial())
    said = text(usual).replace("\N{NO-BREAK SPACE}", " ")
    for case in found.cases:
        for _, words in trial_text.heads(case):
            assert words in said
        for _, words in trial_text.details(case):
            assert words in said
    for sentence in (*trial_text.advised(found), *trial_text.ran(found), *found.notes):
        assert " ".join(sentence.split()) in said
    assert '[tool.quickwins] select = ["hard-negatives", "metrics"]' in said
    assert "+0.0423 [+0.0361, +0.0486]" in said


def test_the_commands_and_the_environment_are_there(usual: str) -> None:
    said = text(usual)
    trial = make_trial()
    for word in (trial.command, *trial.commands.values(), "torch 2.13.0", "Linux-6.1-x86_64"):
        assert word in said
    assert "python two_tower_model/train_with_wandb.py --epochs 3" in said


def test_defects_and_failures_stand_above_the_verdicts() -> None:
    defect = Defect("hard-negatives", "never-mined", "no negative was mined in 60 steps")

    def change(attempt: Attempt) -> Attempt:
        bad = attempt.variant == "hard-negatives"
        return dataclasses.replace(attempt, defects=(defect,)) if bad else attempt

    original = Attempt("original", 0, "failed", exit_code=1, failure=OWN_BUG)
    trial = with_attempts(with_attempts(make_trial(), change), failing("onecycle"))
    said = text(page(dataclasses.replace(trial, original=original)))
    verdicts = said.index("Verdicts")
    for words in (
        "NOT ACTIVE: hard-negatives: no negative was mined in 60 steps",
        "fails before the rewrite too, by an error of its own: UnboundLocalError",
        "onecycle with seeds 1, 2, 3 failed: UnboundLocalError",
    ):
        assert said.index(words) < verdicts
    assert "original" in said[verdicts:], "its run is among the runs"


def test_a_trial_without_a_finished_run_has_a_page() -> None:
    said = text(page(with_attempts(make_trial(), lambda a: Attempt(a.variant, a.seed))))
    assert "No run without the wins ended with a metric" in said and "pending" in said
    assert "Learning curves" not in said


# Drawings


def test_what_is_drawn(usual: str) -> None:
    names = re.findall(r"<svg [^>]*><title>(.*?)</title>", usual)
    quality = "ndcg@10 at the best epoch, change in percent; higher is better"
    assert names[0] == quality and len(names) == len(set(names))
    for variant in ("onecycle", "hard-negatives", "all"):
        for title in (
            "ndcg@10 by epoch", "ndcg@10 by wall time, s", "ndcg@10 by optimizer step",
            "learning rate by optimizer step", "recall@10 by epoch", "samples per second by epoch",
        ):  # fmt: skip
            assert f"{title}: baseline and {variant}" in names


def drawings(page: str, title: str) -> ElementTree.Element:
    (found,) = [
        drawing
        for drawing in map(ElementTree.fromstring, re.findall(r"<svg .*?</svg>", page))
        if drawing.findtext("title") == title
    ]
    return found


def test_the_intervals_are_where_their_numbers_are(usual: str) -> None:
    drawing = drawings(usual, "ndcg@10 at the best epoch, change in percent; higher is better")
    zero = float(drawing.find("line[@class='zero']").attrib["x1"])
    groups = drawing.findall("g")
    assert [group.attrib["class"] for group in groups] == ["open", "helps", "helps"]
    ticks = {float(t.attrib["x"]): float(t.text.split()[0]) for t in drawing.findall("text")
             if t.text.endswith(" %")}  # fmt: skip
    (first, low), *_, (last, high) = sorted(ticks.items())
    scale = (last - first) / (high - low)
    found = judge(make_trial())
    for group, case in zip(groups, found.cases):
        difference = case.quality.difference
        line, dot = group.find("line"), group.find("circle")
        for place, number in (
            (line.attrib["x1"], difference.low), (dot.attrib["cx"], difference.mean),
            (line.attrib["x2"], difference.high),
        ):  # fmt: skip
            assert float(place) - zero == pytest.approx(difference.percent(number) * scale, abs=0.2)


def test_curves_by_steps_and_the_rate_at_each_step(usual: str) -> None:
    by_step = drawings(usual, "ndcg@10 by optimizer step: baseline and onecycle")
    (mean,) = path(by_step, "baseline", "mean")
    assert len(mean) == 3 and len(path(by_step, "baseline", "run")) == 3
    rate = drawings(usual, "learning rate by optimizer step: baseline and onecycle")
    (line,) = path(rate, "optimized", "mean")
    assert len(line) == 3 and line[1][1] < line[0][1] < line[2][1], "it climbs and falls"
    told = {title.text for title in rate.iter("title")}
    assert "onecycle, seed 1, step 6: 0.003000" in told
    assert {t.partition(" by")[0] for t in charts(usual)} >= {"learning rate", "coverage"}


def test_curves_are_drawn_of_wins_and_not_of_all_but_each() -> None:
    drawn = page(ablated(baseline=BASE, all_but_onecycle=SAME, hard_negatives=UP))
    assert "baseline and amp</title>" in drawn and "baseline and all</title>" in drawn
    assert "baseline and all-but" not in drawn
    assert "onecycle beside the others" in drawn


# In a browser


@browser
def test_the_browser_lays_the_drawings_out(usual: str, tmp_path: Path) -> None:
    opened = probed(usual.replace("<details>", "<details open>"), LOOK)
    done = browse(tmp_path, opened, "--dump-dom", "--window-size=1200,900")
    (found,) = re.findall(r'data-found="([^"]*)"', done.stdout)
    lines = [line.split("|") for line in found.split(";")]
    for side, colour in LIGHT.items():
        own = [line for line in lines if line[0] == side and line[1] == "mean"]
        assert {line[2] for line in own} == {f"rgb({', '.join(map(str, colour))})"}
        assert len(own) > 20 and all(int(line[3]) > 100 for line in own)


@browser
@pytest.mark.parametrize("width", [1200, 360])
def test_nothing_sticks_out_of_the_page(tmp_path: Path, width: int) -> None:
    long = make_trial(script="a_very_long_folder_of_models/" * 4 + "train.py")
    long = dataclasses.replace(long, command="x" * 300, notes=("y" * 300,), changed=("z" * 300,))
    assert found_in_frame(tmp_path, page(long), width, STICKS_OUT) == "0"


#: The colours of an interval that helps and of one that hurts, by colour scheme.
BETTER = {"light": (0x17, 0x6C, 0x37), "dark": (0x6F, 0xCF, 0x97)}
WORSE = {"light": (0xB3, 0x26, 0x1E), "dark": (0xFF, 0x8A, 0x80)}


@browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_verdicts_are_seen_in_both_schemes(usual: str, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    browse(
        tmp_path, usual, f"--screenshot={shot}", "--window-size=900,1100",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
    )  # fmt: skip
    picture = pixels(shot)
    assert tuple(picture[2, 2]) == ((0x14, 0x18, 0x1F) if scheme == "dark" else (255, 255, 255))
    other = "light" if scheme == "dark" else "dark"
    for colours in (BETTER, WORSE):
        assert count(picture, colours[scheme]) > 100
        assert count(picture, colours[other]) < 50


@browser
def test_hostile_text_does_nothing_in_the_browser(tmp_path: Path) -> None:
    hostile = dataclasses.replace(make_trial(), script=EVIL, notes=(EVIL,), command=EVIL)
    done = browse(tmp_path, page(hostile), "--dump-dom")
    assert "&lt;script&gt;alert(1)" in done.stdout and "<script" not in done.stdout
