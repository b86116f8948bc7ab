"""Static plots take seconds: only tests that ask for `static_plots` draw them."""

from __future__ import annotations

import pytest

from prunebench.leaderboard.views import plots


@pytest.fixture
def static_plots() -> None:
    """The report draws its static plots, as it does outside the tests."""


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "static_plots" not in request.fixturenames:
        monkeypatch.setattr(plots, "plot_files", lambda fronts: iter(()))
