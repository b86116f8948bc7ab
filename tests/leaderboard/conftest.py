"""A browser for the page; static plots take seconds: only tests that ask for them draw them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from prunebench.leaderboard.views import plots


@pytest.fixture
def static_plots() -> None:
    """The report draws its static plots, as it does outside the tests."""


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "static_plots" not in request.fixturenames:
        monkeypatch.setattr(plots, "plot_files", lambda fronts: iter(()))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium and chromedriver are not here: `make browser` installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(driver))
    yield running
    running.quit()
