"""Equal compute: what it took to make each row's model, and what is best for no more than that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY
from prunebench.leaderboard.numbers.rows import Stats
from prunebench.leaderboard.numbers.statistics import leader_ranks
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import Quantities, number_columns, of_kinds, spread
from prunebench.leaderboard.views.tables import Column, Line, Table, TableCell, draw

PASSES = {  # a backward pass costs about two forward passes
    "prune_forward_tokens": 1,
    "prune_backward_tokens": 2,
    "recover_forward_tokens": 1,
    "recover_backward_tokens": 2,
}
SECONDS = ("prune_wall_s", "recover_wall_s")
EQUAL = 1.05  # computes that differ by less are the same
CAPTION = (
    "by what pruning and recovery took together; token passes: tokens forward + 2 x tokens "
    "backward. Bold: best of all rows of its sparsity that took no more passes (5 % of slack), or "
    "within the 95 % interval of that"
)


def equal_compute_tables(
    known: Quantities, quality: Quantities, body: Sequence[Line]
) -> list[Table]:
    """The table of one device's `quality` columns; none unless rows differ in what they took."""
    lines = sorted(
        (line for line in body if line.row is not None),
        key=lambda line: (line.sparsity, _unknown_last(_total(known, line, PASSES))),
    )
    pruned = [line for line in lines if line.sparsity > 0]
    totals = {passes for line in pruned if (passes := _total(known, line, PASSES)) is not None}
    quality = of_kinds(quality, *QUALITY)
    if len(totals) < 2 or not quality:
        return []
    shown = [
        Column("Token passes", lambda line: _amount(_total(known, line, PASSES), "count")),
        Column(
            "Seconds", lambda line: _amount(_total(known, line, dict.fromkeys(SECONDS, 1)), "s")
        ),
    ]
    best = {i: _best(known, pruned, i, KINDS[q.kind].better) for i, q in quality.items()}
    columns = number_columns(quality, spread)
    shown += [_bold_where(*pair) for pair in zip(columns, best.values(), strict=True)]
    return [draw("Equal compute", CAPTION, shown, lines)]


def _total(known: Quantities, line: Line, weights: Mapping[str, int]) -> float | None:
    """Weighted sum of the row's mean costs; None where pruning has no figure."""
    parts = [
        weights[known[i].kind] * stats.mean
        for i, stats in line.summary.items()
        if known[i].kind in weights
    ]
    return sum(parts) if parts else None


def _best(
    known: Quantities, lines: Sequence[Line], quantity: int, better: str
) -> frozenset[tuple[float, int]]:
    """(sparsity, row) of those that lead among at least two rows that took no more."""
    found = set()
    for sparsity, group in groupby(lines, key=lambda line: line.sparsity):
        taken = [
            (passes, line, line.row.index)
            for line in group
            if line.row is not None
            and line.row.ranked
            and quantity in line.summary
            and (passes := _total(known, line, PASSES)) is not None
        ]
        for passes, line, index in taken:
            rivals = [other for its, other, _ in taken if its <= EQUAL * passes]
            means, lows, highs = zip(
                *(_ends(rival.summary[quantity]) for rival in rivals), strict=True
            )
            ranks = leader_ranks(means, lows, highs, better=better)
            if ranks[rivals.index(line)] == 1 < max(ranks):
                found.add((sparsity, index))
    return frozenset(found)


def _ends(stats: Stats) -> tuple[float, float, float]:
    """Mean and interval; what has no interval is taken as exact."""
    low, high = (stats.mean if math.isnan(end) else end for end in (stats.low, stats.high))
    return stats.mean, low, high


def _bold_where(column: Column, rows: frozenset[tuple[float, int]]) -> Column:
    def show(line: Line) -> TableCell:
        index = -1 if line.row is None else line.row.index
        return TableCell(column.show(line).text, bold=(line.sparsity, index) in rows)

    return Column(column.title, show, column.align, column.marks)


def _amount(value: float | None, unit: str) -> TableCell:
    return TableCell(formats.MISSING if value is None else formats.plain(value, unit))


def _unknown_last(value: float | None) -> float:
    return math.inf if value is None else value
