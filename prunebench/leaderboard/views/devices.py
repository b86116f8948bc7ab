"""Tables have one device each: which quantities and lines belong to one."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.tables import Line


def by_device(
    known: Quantities, body: Sequence[Line], kinds: Sequence[str]
) -> list[tuple[dict[int, Quantity], list[Line]]]:
    """The quantities of these kinds and the lines that belong to them, per device."""
    wanted = of_kinds(known, *kinds)
    split = []
    for device in sorted({quantity.device for quantity in wanted.values()}):
        here = {i: quantity for i, quantity in wanted.items() if quantity.device == device}
        split.append((here, _belonging(here, wanted, body)))
    return split


def _belonging(here: Quantities, anywhere: Quantities, body: Sequence[Line]) -> list[Line]:
    """Lines with a value here, and those without one anywhere (failed cells among them)."""
    return [
        line
        for line in body
        if any(i in here for i in line.summary) or not any(i in anywhere for i in line.summary)
    ]


def on_device(quantities: Quantities) -> str:
    """The device of quantities that share one, for the end of a caption."""
    device = next((quantity.device for quantity in quantities.values()), "")
    return f"; on {device}" if device else ""
