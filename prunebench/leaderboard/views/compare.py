"""Two campaigns, or two versions of one, side by side: which numbers differ beyond their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.differences import Gap, gap
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY, Quantity
from prunebench.leaderboard.numbers.rows import Stats, stats_of
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import titles
from prunebench.leaderboard.views.tables import Table, TableCell

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.report import Report

SPEED = ("prefill_speedup", "decode_speedup", "prefill_ms", "decode_ms_per_token")
COMPARED = (*QUALITY, "parameters", *SPEED, "prune_wall_s")
TIMES = ("ms", "s")  # units
MARK = "*"
LEGEND = (
    f"{MARK} differs beyond error: the 95 % interval of B - A excludes zero",
    "n.i. no interval: a count has no error, of other numbers it is not known",
    "times have none: runs differ by more than repeats in one do; speed-ups are timed beside dense",
)

Key = tuple[str, str, float, Quantity]  # model, row, sparsity, quantity


def compare(first: Report, second: Report) -> tuple[Table, list[str]]:
    """A table of B - A for every row and quantity that both have, and what only one has.

    Numbers are compared only under the same protocol and data; quality across devices too, times
    on the same device only.
    """
    sides = [_numbers(report.collected, report.summary) for report in (first, second)]
    both = [key for key in sides[0] if key in sides[1]]
    rows = tuple(_row(key, sides[0][key], sides[1][key]) for key in sorted(both, key=_order))
    header = ("Model", "Sparsity", "Row", "Quantity", "A", "B", "B - A (95 % interval)", "")
    align = ("left", "right", "left", "left", "right", "right", "right", "left")
    marked = sum(row[-1].text == MARK for row in rows)
    caption = f"{len(rows)} numbers in both, {marked} of them beyond error"
    alone = [
        line
        for name, mine, other in (("A", sides[0], sides[1]), ("B", sides[1], sides[0]))
        for line in _alone(name, mine, other)
    ]
    return Table("", caption, header, align, rows, LEGEND), alone


def _numbers(collected: Collected, summary: pd.DataFrame) -> dict[Key, Stats]:
    found: dict[Key, Stats] = {}
    stats_by_row = stats_of(summary)
    for row in collected.table:
        for i, stats in stats_by_row.get(row.index, {}).items():
            quantity = collected.quantities[i]
            if quantity.kind not in COMPARED:
                continue
            shared = replace(quantity, device="") if quantity.kind in QUALITY else quantity
            found[row.model, row.name, row.sparsity, shared] = stats
    return found


def _row(key: Key, a: Stats, b: Stats) -> tuple[TableCell, ...]:
    model, name, sparsity, quantity = key
    unit = KINDS[quantity.kind].unit
    found = _difference(a, b, unit)
    text = formats.interval(found.value, found.low, found.high, unit, sign=True)
    texts = [
        model,
        formats.percent(sparsity),
        name,
        titles([quantity])[0] + (f" ({quantity.name})" if quantity.kind in SPEED else ""),
        formats.spread(a.mean, a.sd, unit) if unit != "count" else formats.plain(a.mean, unit),
        formats.spread(b.mean, b.sd, unit) if unit != "count" else formats.plain(b.mean, unit),
        text if found.interval else f"{text} n.i.",
        MARK if _differs(found, quantity.kind) else "",
    ]
    return tuple(TableCell(formats.one_line(text)) for text in texts)


def _difference(a: Stats, b: Stats, unit: str) -> Gap:
    """B - A as `between` gives it; of speed-ups from their own intervals, of times with none."""
    found = gap(b, a)
    if unit in TIMES:
        return Gap(found.value, math.nan, math.nan, "")
    if unit == "ratio" and not found.interval and a.interval and b.interval:
        half = math.hypot(a.high - a.low, b.high - b.low) / 2
        return Gap(found.value, found.value - half, found.value + half, "run")
    return found


def _differs(found: Gap, kind: str) -> bool:
    if not found.interval:
        return KINDS[kind].unit == "count" and found.value != 0
    return not found.low <= 0 <= found.high


def _order(key: Key) -> tuple[str, float, str, int, Quantity]:
    model, name, sparsity, quantity = key
    return model, sparsity, name, COMPARED.index(quantity.kind), quantity


def _alone(side: str, mine: Mapping[Key, Stats], other: Mapping[Key, Stats]) -> list[str]:
    """Rows of one side alone; and quantities that the other measured differently, or not."""
    rows = {key[:3] for key in other}
    absent = {key[:3] for key in mine} - rows
    lines = [f"only in {side}: {m}, {n} at {formats.percent(s)}" for m, n, s in sorted(absent)]
    differing = {key[3] for key in mine if key not in other and key[:3] in rows}
    for title, quantity in zip(titles(sorted(differing)), sorted(differing), strict=True):
        details = "; ".join(f"{key} {value}" for key, value in quantity.details)
        device = f"; on {quantity.device}" if quantity.device else ""
        lines.append(f"only in {side}: {title.rstrip(' ↓↑')} ({details}{device})")
    return lines
