"""Answers and texts in a real browser: rows and tasks to choose, nothing but text, any width."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from . import factory
from .factory_written import with_written
from .test_browser import NARROW, WIDE, choose, click, count, show
from .test_page import HOSTILE
from .test_written import campaign, hostile
from .typed import build

CARDS = ".answers .sample:first-child .card"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen rows, of which some are shown at first."""
    from prunebench.leaderboard.views import plots

    out = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_files", lambda fronts: iter(()))
        build(campaign(*factory.METHODS), [], out, title="demo")
    return out


def names(browser: Any, selector: str = CARDS) -> list[str]:
    """The rows of the cards, in order."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0] + ' .who')].map(e => e.textContent)",
        selector,
    )


def text(browser: Any, selector: str) -> str:
    return browser.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )


def test_answers_stand_side_by_side_dense_first(browser: Any, folder: Path) -> None:
    show(browser, folder, "#answers-0")
    assert names(browser)[:2] == ["dense0 %", "pat20 %"] and len(names(browser)) == 5
    assert count(browser, ".answers .sample") == 3 and count(browser, ".texts .sample") == 2
    assert text(browser, f"{CARDS} pre") == "Paris, says dense 0 seed 0"
    tops = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.offsetTop)", CARDS
    )
    assert tops[0] == tops[1] == tops[2]
    assert "ended by itself" in text(browser, ".texts .card")
    assert "repeats" in text(browser, ".texts .card:nth-child(2)")
    assert browser.get_log("browser") == []


def test_a_chip_shows_and_hides_its_row_everywhere(browser: Any, folder: Path) -> None:
    show(browser, folder)
    before = names(browser)
    click(browser, ".texts [data-row]", 1)
    assert names(browser) == [before[0], *before[2:]]
    assert names(browser, ".texts .sample:last-child .card") == names(browser)
    pressed = "return document.querySelector('.answers [data-row=\"1\"]').ariaPressed"
    assert browser.execute_script(pressed) == "false"
    click(browser, ".answers .group", 1)
    assert len(names(browser)) == 1 + 7 + 2
    click(browser, ".answers .group", 1)
    assert len(names(browser)) == 1 + 2
    for sparsity in (0, 2, 2):
        click(browser, ".answers .group", sparsity)
    assert names(browser) == [] and "No row is chosen" in text(browser, ".answers .cards")


def test_a_task_is_chosen(browser: Any, folder: Path) -> None:
    show(browser, folder)
    assert "5-shot" in text(browser, ".answers .how")
    choose(browser, ".answers .task", "1")
    assert "0-shot" in text(browser, ".answers .how") and len(names(browser)) == 5


@pytest.mark.parametrize("size", [NARROW, (768, 900), WIDE])
def test_no_width_scrolls_sideways(browser: Any, folder: Path, size: tuple[int, int]) -> None:
    show(browser, folder, "#answers-0", size=size)
    widths = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] <= widths[1] == size[0]


def test_what_a_model_writes_is_shown_as_it_is(browser: Any, tmp_path: Path) -> None:
    build(hostile(), [], tmp_path, title="demo")
    show(browser, tmp_path)
    assert text(browser, f"{CARDS} pre") == HOSTILE
    assert text(browser, ".texts .card pre") == HOSTILE
    assert count(browser, "main img, main script, .written b") == 0
    assert browser.get_log("browser") == []


def test_an_empty_answer_is_said_to_be_one(browser: Any, tmp_path: Path) -> None:
    records = [factory.record(label="dense", sparsity=0.0), factory.record()]
    records = [with_written(record) for record in records]
    for record in records:
        for sample in record["generation"]["tasks"]["gsm8k"]["generated"]["samples"]:
            sample["answer"] = " \n"
    records[1]["generation"]["tasks"]["gsm8k"] = {"status": "failed", "reason": "out of memory"}
    build(records, [], tmp_path, title="demo")
    show(browser, tmp_path)
    assert "an empty answer" in text(browser, CARDS)
    assert "not measured" in text(browser, f"{CARDS}:nth-child(2)")
