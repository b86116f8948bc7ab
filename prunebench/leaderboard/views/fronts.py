"""Quality against cost: for each model, what the Pareto plots of files and page draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY, Quantity
from prunebench.leaderboard.numbers.rows import Stats, StatsOf, TableRow, stats_of
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import titles

if TYPE_CHECKING:
    import pandas as pd

COSTS = {  # the cost axes offered to the reader
    "parameters": "size",
    "prefill_speedup": "speed",
    "decode_speedup": "speed",
    "peak_allocated_mib": "memory",
    "prune_wall_s": "pruning cost",
    "prune_peak_device_mib": "pruning cost",
    "prune_peak_host_mib": "pruning cost",
}
COST_TITLES = {
    "prune_wall_s": "Pruning and recovery, s",
    "prune_peak_device_mib": "Peak device memory of pruning, MiB",
    "prune_peak_host_mib": "Peak host memory of pruning, MiB",
}


@dataclass(frozen=True)
class Axis:
    """A quantity that can be an axis; `scale` turns its values into the unit of the title."""

    quantity: int
    group: str
    title: str
    better: str
    scale: float
    log: bool


@dataclass(frozen=True)
class FrontPoint:
    """A row at one sparsity: (mean, low, high) by quantity; an end is None where there is none."""

    sparsity: float
    values: dict[int, tuple[float, float | None, float | None]]


@dataclass(frozen=True)
class Front:
    """One model: the axes that it has numbers for, a line per row name, and what is missing."""

    campaign: str
    model: str
    qualities: tuple[Axis, ...]
    costs: tuple[Axis, ...]
    dense: tuple[tuple[str, FrontPoint], ...]
    lines: tuple[tuple[str, tuple[FrontPoint, ...]], ...]
    lost: tuple[str, ...]


def make_fronts(collected: Collected, summary: pd.DataFrame) -> tuple[Front, ...]:
    """One front per model (and campaign), in the order of their names.

    Rows whose cut model does not compute what the masked one does are not drawn, but named.
    """
    by_row = stats_of(summary)
    keys = dict.fromkeys((row.campaign, row.model) for row in collected.table)
    return tuple(_front(collected, by_row, campaign, model) for campaign, model in keys)


def _front(collected: Collected, by_row: StatsOf, campaign: str, model: str) -> Front:
    here = (campaign, model, False)
    rows = [row for row in collected.table if (row.campaign, row.model, row.step) == here]
    present = sorted({i for row in rows for i in by_row.get(row.index, {})})
    known = {i: collected.quantities[i] for i in present}
    axes = _axes({i: q for i, q in known.items() if q.kind in QUALITY or q.kind in COSTS})
    shown = [row for row in rows if row.ok and not row.unverified]
    drawn = {axis.quantity for axis in axes}
    points = {row.index: _point(row, by_row.get(row.index, {}), drawn, known) for row in shown}
    names = dict.fromkeys(row.name for row in sorted(shown, key=lambda r: r.name) if row.sparsity)
    return Front(
        campaign=campaign,
        model=model,
        qualities=tuple(axis for axis in axes if known[axis.quantity].kind in QUALITY),
        costs=tuple(axis for axis in axes if known[axis.quantity].kind in COSTS),
        dense=tuple((row.name, points[row.index]) for row in shown if not row.sparsity),
        lines=tuple(
            (name, tuple(points[row.index] for row in shown if row.sparsity and row.name == name))
            for name in names
        ),
        lost=tuple(_lost(rows)),
    )


def _axes(known: dict[int, Quantity]) -> list[Axis]:
    """Perplexities first, then accuracies, then costs in the order of COSTS; titles that differ."""
    order = [*QUALITY, *COSTS]
    ordered = sorted(known, key=lambda i: (order.index(known[i].kind), i))
    devices = {kind: {q.device for q in known.values() if q.kind == kind} for kind in COSTS}
    axes = []
    for i, title in zip(ordered, titles([known[i] for i in ordered]), strict=True):
        quantity, kind = known[i], KINDS[known[i].kind]
        title = COST_TITLES.get(quantity.kind, title.rstrip(" ↓↑"))
        if quantity.kind in ("prefill_speedup", "decode_speedup", "peak_allocated_mib"):
            title += f" at {quantity.name}"
        if len(devices.get(quantity.kind, ())) > 1:
            title += f" on {quantity.device}"
        percent = kind.unit == "fraction"
        axes.append(
            Axis(
                quantity=i,
                group=COSTS.get(quantity.kind, ""),
                title=f"{title} accuracy, %" if percent else _with_unit(title, quantity.kind),
                better=kind.better or "lower",
                scale=100.0 if percent else 1.0,
                log=quantity.kind in ("perplexity", "prune_wall_s"),
            )
        )
    return axes


def _with_unit(title: str, kind: str) -> str:
    return f"{title} perplexity" if kind == "perplexity" else title


def _point(
    row: TableRow, stats: dict[int, Stats], drawn: set[int], known: dict[int, Quantity]
) -> FrontPoint:
    values = {i: (s.mean, _known(s.low), _known(s.high)) for i, s in stats.items() if i in drawn}
    recovery = [s.mean for i, s in stats.items() if known[i].kind == "recover_wall_s"]
    for i in values:
        if known[i].kind == "prune_wall_s":  # what it takes to get the row's model, tuning included
            values[i] = (values[i][0] + sum(recovery), None, None)
    return FrontPoint(row.sparsity, values)


def _known(end: float) -> float | None:
    return None if math.isnan(end) else end


def _lost(rows: Sequence[TableRow]) -> list[str]:
    """What has no point, or one without some of its seeds."""
    found = []
    for row in rows:
        name = f"{row.name} at {formats.percent(row.sparsity)}"
        parts = [f"{n} {word}" for word in ("failed", "skipped") if (n := getattr(row, word))]
        parts += ["not verified"] * bool(row.unverified)
        if parts:
            found.append(f"{name}: {', '.join(parts)}")
    return found
