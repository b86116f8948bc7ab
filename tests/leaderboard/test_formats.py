"""Numbers as a person reads them."""

from __future__ import annotations

import math

import pytest

from prunebench.leaderboard.views import formats

NAN = math.nan


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((12.345, 0.214, "perplexity"), "12.35 ± 0.21"),
        ((12.345, NAN, "perplexity"), "12.35 ± –"),
        ((5632.4, 23.73, "perplexity"), "5,632 ± 24"),
        ((1.5e7, 2e6, "perplexity"), "1.50e+07 ± 2.00e+06"),
        ((0.5432, 0.0123, "fraction"), "54.3 ± 1.2"),
        ((8.123, 0.05, "ms"), "8.12 ± 0.05"),
        ((81.23, 0.5, "ms"), "81.2 ± 0.5"),
        ((812.3, 5.4, "ms"), "812 ± 5"),
    ],
)
def test_both_halves_have_the_same_decimals(arguments: tuple, text: str) -> None:
    assert formats.spread(*arguments) == text


def test_the_error_within_a_run_stands_apart() -> None:
    assert formats.spread(12.3, 0.2, "perplexity", error=0.05) == "12.30 ± 0.20 (0.05)"
    assert formats.spread(12.3, 0.2, "perplexity", error=NAN) == "12.30 ± 0.20"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((3.0, 2.5, 3.5, "perplexity"), "+3.00 (+2.50 to +3.50)"),
        ((-0.036, -0.05, 0.001, "fraction"), "−3.6 (−5.0 to +0.1)"),
        ((-0.0001, -0.02, 0.02, "fraction"), "±0.0 (−2.0 to +2.0)"),
        ((3.0, NAN, NAN, "perplexity"), "+3.00"),
        ((NAN, NAN, NAN, "perplexity"), ""),
    ],
)
def test_differences_show_their_signs(arguments: tuple, text: str) -> None:
    assert formats.interval(*arguments, sign=True) == text


def test_ratios_show_none() -> None:
    assert formats.interval(1.5, 1.4, 1.62, "ratio", sign=False) == "1.50 (1.40 to 1.62)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (999_400, "999 k"),
        (999_600, "1.00 M"),
        (12_345_678, "12.3 M"),
        (6_738_415_616, "6.74 G"),
        (4.2402e14, "424 T"),
        (NAN, "–"),
    ],
)
def test_counts(value: float, text: str) -> None:
    assert formats.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "50 %"), (0.125, "12.5 %"), (0.0, "0 %"), (None, "–"), (NAN, "–")]
)
def test_shares(value: float | None, text: str) -> None:
    assert formats.percent(value) == text


def test_seeds_in_words() -> None:
    assert formats.seeds([3]) == "seed 3"
    assert formats.seeds([2, 0, 1]) == "seeds 0, 1, 2"
    assert formats.seeds(list(range(10))) == "10 seeds from 0 to 9"


def test_text_is_one_clean_line() -> None:
    assert formats.shorten("a\nb\t\x1b[31m c\u202e", 80) == "a b [31m c"
    assert formats.shorten("a long reason", 8) == "a long…"
