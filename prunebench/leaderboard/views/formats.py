"""Numbers as a person reads them: rounded for tables only; records and CSV keep every digit."""

from __future__ import annotations

import math
from collections.abc import Callable

MISSING = "–"
SCALE = {"fraction": 100.0}  # accuracies are shown in percent


def spread(mean: float, sd: float, unit: str, *, error: float = math.nan) -> str:
    """mean ± sample standard deviation (standard error within a run), all with the same decimals.

    A dash stands for the deviation of one value; no error, no parentheses.
    """
    scale = SCALE.get(unit, 1.0)
    show = _style(mean * scale, unit)
    text = f"{show(mean * scale)} ± {MISSING if math.isnan(sd) else show(sd * scale)}"
    return text if math.isnan(error) else f"{text} ({show(error * scale)})"


def plain(value: float, unit: str) -> str:
    """One number."""
    if unit == "count":
        return count(value)
    scale = SCALE.get(unit, 1.0)
    return _style(value * scale, unit)(value * scale)


def interval(centre: float, low: float, high: float, unit: str, *, sign: bool) -> str:
    """centre (low to high); with `sign`, a difference: each number shows its sign."""
    if math.isnan(centre):
        return ""
    scale = SCALE.get(unit, 1.0)
    show = _style(max(abs(x) for x in (centre, low, high) if not math.isnan(x)) * scale, unit)
    texts = [_signed(show, x * scale) if sign else show(x * scale) for x in (centre, low, high)]
    return texts[0] if math.isnan(low) else f"{texts[0]} ({texts[1]} to {texts[2]})"


def percent(fraction: float | None) -> str:
    """A share in percent with at most one decimal: 0.5 -> 50 %, 0.4981 -> 49.8 %."""
    if fraction is None or math.isnan(fraction):
        return MISSING
    return f"{fraction * 100:.1f}".removesuffix(".0") + " %"


def count(value: float) -> str:
    """A count with three digits and a suffix: 6738415616 -> 6.74 G."""
    if math.isnan(value):
        return MISSING
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999,600 would round to 1000 k: the next suffix takes it
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = max(0, 2 - int(math.log10(max(abs(scaled), 1))))
            return f"{scaled:.{digits}f} {suffix}"
    return f"{value:.0f}"


def ranks(value: float) -> str:
    """A rank; an average of ranks has one decimal; nothing for none."""
    return "" if math.isnan(value) else f"{value:.1f}".removesuffix(".0")


def seeds(numbers: list[int]) -> str:
    """Seeds in words: seed 3; seeds 0, 1, 2; seeds 0 to 9 (10)."""
    numbers = sorted(numbers)
    if len(numbers) == 1:
        return f"seed {numbers[0]}"
    if len(numbers) <= 4:
        return "seeds " + ", ".join(map(str, numbers))
    return f"{len(numbers)} seeds from {numbers[0]} to {numbers[-1]}"


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = one_line(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def one_line(text: str) -> str:
    """Text without line breaks, control characters and direction overrides, spaces collapsed."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())


def _signed(show: Callable[[float], str], value: float) -> str:
    text = show(value)
    if not any(digit in text for digit in "123456789"):
        return "±" + text.lstrip("-")
    return text.replace("-", "−", 1) if value < 0 else "+" + text


def _style(size: float, unit: str) -> Callable[[float], str]:
    """How numbers of a size are written, so that the two halves of a pair share their decimals."""
    size = abs(size)
    if size >= 1e6:
        return "{:.2e}".format
    if size >= 1000:
        return "{:,.0f}".format
    decimals = {"perplexity": 2, "fraction": 1, "ratio": 2, "points": 2}.get(unit)
    if decimals is None:
        decimals = 2 if size < 10 else 1 if size < 100 else 0
    return f"{{:.{decimals}f}}".format
