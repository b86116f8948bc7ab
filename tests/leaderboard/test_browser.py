"""The page in a real browser: no network, no errors, tables and plots that answer, any width.

Needs chromium and chromedriver (`make browser`); without them the tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunebench.leaderboard import Problem

from . import factory
from .test_page import HOSTILE, rich
from .typed import build

WIDE, NARROW = (1280, 900), (360, 740)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that the page can show."""
    from prunebench.leaderboard.views import plots

    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_files", lambda fronts: iter(()))
        problems = [Problem("cells/x/record.json", "truncated or not JSON")]
        build(rich("m1", "m2"), problems, out, title="demo", reference="random")
    return out


def resize(browser: Any, width: int, height: int) -> None:
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def show(browser: Any, folder: Path, fragment: str = "", *, size: tuple[int, int] = WIDE) -> None:
    """Open the page anew, and forget what was logged before."""
    resize(browser, *size)
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get((folder / "index.html").as_uri() + fragment)


def requests(browser: Any) -> list[str]:
    """What the page asked for since it was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def texts(browser: Any, table: str, column: int) -> list[str]:
    """What one column of a table shows, in order, hidden rows left out."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`${arguments[0]} tbody tr`)].filter(r => !r.hidden)"
        ".map(r => r.cells[arguments[1]].textContent)",
        table,
        column,
    )


def click(browser: Any, selector: str, at: int = 0) -> None:
    browser.execute_script(
        "document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, at
    )


def choose(browser: Any, selector: str, value: str, event: str = "change") -> None:
    browser.execute_script(
        "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2], {bubbles: true}))",
        selector,
        value,
        event,
    )


def count(browser: Any, selector: str) -> int:
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def test_it_opens_from_disk_without_network_or_errors(browser: Any, folder: Path) -> None:
    show(browser, folder, "#cell-3")
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert asked == [(folder / "index.html").as_uri()]
    assert browser.get_log("browser") == []
    assert browser.title == "demo: structured pruning, measured"


def test_the_checks_of_errors_and_network_can_fail(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        "<script>lost()</script><img src='http://127.0.0.1:9/x.png'>", encoding="utf-8"
    )
    show(browser, tmp_path)
    assert any("127.0.0.1" in url for url in requests(browser))
    assert any("lost is not defined" in entry["message"] for entry in browser.get_log("browser"))


def test_a_click_on_a_title_sorts_by_numbers(browser: Any, folder: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    show(browser, folder)
    table = "#model-0 .scroll:nth-of-type(1) table"
    before = texts(browser, table, 4)
    assert len(before) == 7 + 1 and "hywia" in texts(browser, table, 1)

    def values() -> list[float]:
        shown = [text.split(" ")[0].replace(",", "") for text in texts(browser, table, 4)]
        return [float(text) for text in shown if text and text != "–"]

    for turn, reverse in enumerate((False, True)):
        click(browser, f"{table} thead th:nth-child(5) button")
        direction = "descending" if reverse else "ascending"
        WebDriverWait(browser, 10).until(
            lambda _, r=reverse: values() == sorted(values(), reverse=r), f"turn {turn}"
        )
        assert count(browser, f"{table} th[aria-sort]") == 1, direction
    assert sorted(texts(browser, table, 4)) == sorted(before)


def test_filters_leave_the_rows_that_fit(browser: Any, folder: Path) -> None:
    show(browser, folder)
    choose(browser, "#filter", "pat", "input")
    assert set(texts(browser, "#model-0 .scroll:nth-of-type(1) table", 1)) == {"pat"}
    choose(browser, "#sparsity", "0.5")
    assert texts(browser, "#model-0 .scroll:nth-of-type(1) table", 0) == ["50 %"]
    assert set(texts(browser, "#cell-table", 0)) == {"50 %"}
    choose(browser, "#filter", "", "input")
    choose(browser, "#sparsity", "")
    assert len(texts(browser, "#model-0 .scroll:nth-of-type(1) table", 1)) == 7 + 1  # chance


def test_the_trade_off_plot_follows_its_choices(browser: Any, folder: Path) -> None:
    show(browser, folder)
    plot = "#pareto-plot svg"
    assert count(browser, plot) == 1 and count(browser, f"{plot} [aria-label=line] path") == 2
    assert count(browser, f"{plot} [aria-label=area] path") == 2
    assert count(browser, f"{plot} [aria-label=dot]") == 2
    page = browser.execute_script("return document.querySelector(arguments[0]).outerHTML", plot)
    choose(browser, "#pareto-cost", "1")
    other = browser.execute_script("return document.querySelector(arguments[0]).outerHTML", plot)
    assert other != page
    click(browser, "#pareto-legend button")
    assert count(browser, f"{plot} [aria-label=line] path") == 1
    lost = browser.execute_script("return document.getElementById('pareto-lost').textContent")
    choose(browser, "#pareto-front", "1")
    assert count(browser, plot) == 1 and browser.get_log("browser") == []
    assert lost == "" or "failed" in lost


def test_a_cell_opens_with_its_plots(browser: Any, folder: Path) -> None:
    show(browser, folder)
    links = browser.execute_script(
        "return [...document.querySelectorAll('#cell-table a')].map(a => a.textContent)"
    )
    click(browser, "#cell-table a", links.index("pat"))
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda _: count(browser, "#cell svg") >= 4)
    text = browser.execute_script("return document.getElementById('cell').textContent")
    for word in ("Decision: share of units", "Loss while tuning", "Blend of saliencies", "0.1.0"):
        assert word in text
    assert count(browser, "#cell [aria-label=cell] rect") == 16 + 17  # a null has no colour
    click(browser, "#cell-table a", links.index("hywia"))
    WebDriverWait(browser, 10).until(lambda _: count(browser, "#cell svg") == 0)
    text = browser.execute_script("return document.getElementById('cell').textContent")
    assert "out of memory" in text and browser.get_log("browser") == []


@pytest.mark.parametrize("size", [NARROW, (768, 900), WIDE])
def test_no_width_scrolls_sideways(browser: Any, folder: Path, size: tuple[int, int]) -> None:
    show(browser, folder, "#cell-3", size=size)
    widths = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] <= widths[1] == size[0]
    assert count(browser, "#pareto-plot svg") == 1


def test_light_and_dark_are_both_readable(browser: Any, folder: Path) -> None:
    def lightness(selector: str, key: str) -> float:
        rgb = browser.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
            selector,
            key,
        )
        return sum(int(part) for part in rgb[rgb.index("(") + 1 : -1].split(",")[:3]) / 765

    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        show(browser, folder)
        paper, ink = lightness("body", "backgroundColor"), lightness("body", "color")
        assert (paper > 0.9 and ink < 0.2) if scheme == "light" else (paper < 0.15 and ink > 0.8)
    click(browser, "#theme")
    assert lightness("body", "backgroundColor") > 0.9
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_hostile_name_is_shown_as_it_is(browser: Any, tmp_path: Path) -> None:
    records = rich()
    for record in records:
        record["cell"]["label"] += HOSTILE
        record["cell"]["model"] = HOSTILE
    build(records, [Problem(HOSTILE, HOSTILE)], tmp_path, title=HOSTILE)
    show(browser, tmp_path, "#cell-3")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelector('h1').textContent") == HOSTILE
    assert count(browser, "main img, main script, h1 *") == 0
    asked = [url for url in requests(browser) if not url.startswith("data:")]
    assert len(asked) == 1


def test_a_page_without_numbers_says_so(browser: Any, tmp_path: Path) -> None:
    build([factory.lost(reason="no such model")], [], tmp_path, title="nothing")
    show(browser, tmp_path)
    text = browser.execute_script("return document.getElementById('pareto').textContent")
    assert "Nothing that could be drawn was measured" in text
    assert browser.get_log("browser") == []
