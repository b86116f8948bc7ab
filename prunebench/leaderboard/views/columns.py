"""Columns of the tables: their titles, and how each kind of number is written."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.numbers.rows import Stats, TableRow
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.tables import (
    Column,
    Line,
    TableCell,
    average_rank,
    cells_ok,
    number_column,
    row_column,
)

ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}
TITLES = {
    "zeroshot": "Zero-shot",
    "generation": "Generated",
    "answer_tokens": "Answer tokens",
    "answer_empty": "Empty answers",
    "answer_repeating": "Repeating answers",
    "answer_at_limit": "Cut answers",
    "parameters": "Parameters",
    "macs": "MACs",
    "aligned_to": "Multiple of",
    "weights_mib": "Weights MiB",
    "prefill_ms": "Prefill ms",
    "prefill_speedup": "Prefill speed-up",
    "prefill_limit": "Prefill limit",
    "prefill_share": "% of prefill limit",
    "decode_ms_per_token": "Decode ms/token",
    "decode_speedup": "Decode speed-up",
    "decode_limit": "Decode limit",
    "decode_share": "% of decode limit",
    "peak_allocated_mib": "Peak MiB",
    "prune_wall_s": "Prune s",
    "prune_forward_tokens": "Forward tokens",
    "prune_backward_tokens": "Backward tokens",
    "prune_peak_device_mib": "Peak device MiB",
    "prune_peak_device_reserved_mib": "Reserved MiB",
    "prune_peak_host_mib": "Peak host MiB",
    "prune_energy_j": "Energy J",
    "recover_wall_s": "Recover s",
    "recover_forward_tokens": "Recover tokens",
    "recover_peak_device_mib": "Recover peak device MiB",
    "recover_energy_j": "Recover energy J",
    "step_tokens_per_s": "Tokens/s",
    "step_peak_mib": "Peak MiB",
    "step_floor_mib": "Floor MiB",
    "step_macs_per_token": "MACs/token",
}
# What may tell two columns of the same short title apart, most telling first.
TELLING = (
    *("split", "mode", "bos", "limit", "suite", "metric", "tasks", "items", "tokens", "chance"),
    *("filter", "shots", "chat", "examples", "max_new_tokens", "stop"),
    *("version", "harness", "prompts", "data", "protocol"),
)

Quantities = Mapping[int, Quantity]
NO_FLOORS: Mapping[int, float] = {}


def of_kinds(quantities: Quantities, *kinds: str) -> dict[int, Quantity]:
    """The quantities of these kinds, in the order of the kinds."""
    return {i: q for kind in kinds for i, q in quantities.items() if q.kind == kind}


def titles(quantities: Iterable[Quantity]) -> list[str]:
    """Short titles that differ: a detail is added only where titles would be equal without it."""
    quantities = list(quantities)
    found = [_short_title(quantity) for quantity in quantities]
    for key in TELLING:
        values = defaultdict(set)
        for title, quantity in zip(found, quantities, strict=True):
            values[title].add(quantity.detail(key))
        found = [
            _told_apart(title, key, quantity) if len(values[title]) > 1 else title
            for title, quantity in zip(found, quantities, strict=True)
        ]
    arrows = (ARROWS[KINDS[quantity.kind].better] for quantity in quantities)
    return [title + arrow for title, arrow in zip(found, arrows, strict=True)]


def shots(quantities: Iterable[Quantity]) -> str:
    """How many examples stand before each question: 0-shot, 5-shot, 0- to 5-shot."""
    numbers = _numbers(quantities, "shots") or [0]
    ends = sorted({min(numbers), max(numbers)})
    return f"{'- to '.join(map(str, ends))}-shot"


def greedily(quantities: Iterable[Quantity]) -> str:
    """How answers are generated, with the most tokens that one may have."""
    most = max(_numbers(quantities, "max_new_tokens"))
    return f"answers generated greedily, at most {most} new tokens"


def number_columns(
    quantities: Quantities,
    show: Callable[[str], Callable[[Stats], str]],
    *,
    bold: bool = True,
    expected: Callable[[Line], int | None] = cells_ok,
    floors: Mapping[int, float] = NO_FLOORS,
) -> list[Column]:
    """A column per quantity; `show` takes its unit and gives what writes a summary.

    floors  what marks the values below it, by quantity
    """
    return [
        number_column(
            title,
            i,
            show(KINDS[quantity.kind].unit),
            bold=bold,
            marks=("limited",) if quantity.detail("limit") else (),
            expected=expected,
            floor=floors.get(i),
        )
        for (i, quantity), title in zip(
            quantities.items(), titles(quantities.values()), strict=True
        )
    ]


def achieved_column(priority: int = 0) -> Column:
    """The share that is gone of what the sparsity is a share of; if that is not all, of all too."""

    def show(row: TableRow) -> str:
        whole = formats.percent(row.achieved)
        if row.sparsity_of == "model" or row.sparsity == 0:
            return whole
        return f"{formats.percent(row.decoder_achieved)} ({whole} of all)"

    return row_column("Achieved", show, priority=priority)


def seeds_column(priority: int = 0) -> Column:
    """Cells with results, of how many where some are missing, and what became of the others."""

    def show(line: Line) -> TableCell:
        if line.row is None:
            return TableCell(line.status)
        total = line.row.ok + line.row.failed + line.row.skipped
        return TableCell(str(line.row.ok) if line.row.ok == total else f"{line.row.ok} of {total}")

    return Column("n", show, priority=priority)


def most_values(quantities: Quantities) -> Callable[[Line], int | None]:
    """The largest number of values that a line has among these quantities."""
    return lambda line: max((line.summary[i].n for i in quantities if i in line.summary), default=0)


def values_column(quantities: Quantities) -> Column:
    """Cells that have values here: some figures are taken on one seed only."""

    def show(line: Line) -> TableCell:
        return TableCell(line.status if line.row is None else str(most_values(quantities)(line)))

    return Column("n", show)


def verify_column() -> Column:
    """Whether the cut model computes what the masked one does, with the largest difference."""

    def show(row: TableRow) -> str:
        if math.isnan(row.logit_difference):
            return formats.MISSING
        size = f"{row.logit_difference:.0e}" if row.logit_difference else "0"
        return f"{'✗' if row.unverified else '✓'} {size}"

    return row_column("Verified", show)


def loader_column() -> Column:
    """What loads the saved model."""

    def show(row: TableRow) -> str:
        return row.loadable_by or formats.MISSING

    return row_column("Loads with", show)


def rank_column(quantities: Sequence[int], *, priority: int = 0) -> Column:
    """Average rank over the quantities; empty for what has no rank."""
    return Column(
        "Rank ↓",
        lambda line: TableCell(formats.ranks(average_rank(line, quantities))),
        priority=priority,
    )


def spread_and_error(unit: str) -> Callable[[Stats], str]:
    """mean ± sd over seeds (standard error over items)."""

    return lambda stats: formats.spread(stats.mean, stats.sd, unit, error=stats.error)


def spread(unit: str) -> Callable[[Stats], str]:
    """mean ± sd over seeds."""
    return lambda stats: formats.spread(stats.mean, stats.sd, unit)


def plain(unit: str) -> Callable[[Stats], str]:
    """The mean alone, where seeds hardly matter."""
    return lambda stats: formats.plain(stats.mean, unit)


def speed(unit: str) -> Callable[[Stats], str]:
    """Times with both errors, speed-ups with their 95 % interval, memory alone."""
    if unit == "ratio":
        return lambda stats: formats.interval(stats.mean, stats.low, stats.high, unit, sign=False)
    return spread_and_error(unit) if unit == "ms" else plain(unit)


def step(unit: str) -> Callable[[Stats], str]:
    """Throughput with its error within the run; what was counted alone."""
    return spread_and_error(unit) if unit == "tokens/s" else plain(unit)


def difference(unit: str) -> Callable[[Stats], str]:
    """Difference from dense (95 % interval)."""
    return _difference("difference", unit)


def reference_difference(unit: str) -> Callable[[Stats], str]:
    """Difference from the campaign's reference row (95 % interval)."""
    return _difference("reference_difference", unit)


def _difference(name: str, unit: str) -> Callable[[Stats], str]:
    def show(stats: Stats) -> str:
        value, low, high = (getattr(stats, name + end) for end in ("", "_low", "_high"))
        return formats.interval(value, low, high, unit, sign=True) or formats.MISSING

    return show


def _short_title(quantity: Quantity) -> str:
    if quantity.kind == "perplexity":
        return f"{quantity.name}/{quantity.detail('length')}"
    if quantity.kind == "zeroshot" and quantity.detail("shots"):
        return shots([quantity])
    return TITLES.get(quantity.kind, quantity.name)


def _numbers(quantities: Iterable[Quantity], key: str) -> list[int]:
    """All that a detail names, in one quantity or several; 0 where it says nothing."""
    return [int(number) for q in quantities for number in (q.detail(key) or "0").split(", ")]


def _told_apart(title: str, key: str, quantity: Quantity) -> str:
    value = quantity.detail(key)
    if key == "limit":
        value = f"first {value}" if value else "all"
    if key == "shots":
        value = shots([quantity])
    if key == "max_new_tokens":
        value = greedily([quantity])
    if key in ("items", "tokens", "chance"):
        value = f"{value} {key}"
    return f"{title} {value}".rstrip()
