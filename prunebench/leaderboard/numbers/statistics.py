"""Means, errors, differences from dense and ranks of the rows, from the frames of `collect`.

Two errors are kept apart: `sd`, the sample standard deviation over seeds, and `error`, the standard
error within a run (over test items, or over repeats of a timing). A 95 % interval comes from the
seeds (Student's t) where at least two differ, otherwise from within the run, and says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.differences import PREFIXES, add_differences, student
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY
from prunebench.leaderboard.numbers.rows import stats_of
from prunebench.units import Z95

if TYPE_CHECKING:
    import pandas as pd

HELPERS = ["own", "own_low", "own_high"]
PAIRED = {
    "paired_low": ("low", "mean"),
    "paired_high": ("high", "mean"),
    "paired": ("low", "count"),
}
HELPERS += [f"{start}_{name}" for start in PREFIXES for name in PAIRED]
ROUNDING = 1e-12  # a relative spread below this is floating-point noise of equal values


def summarise(collected: Collected, *, reference: str | None = None) -> pd.DataFrame:
    """One line per row and quantity that has at least one value.

    reference  label of the row that differences are also taken from, at the same sparsity

    Columns: row, quantity, n, mean, sd (NaN when n = 1), error, low, high, interval; difference,
    difference_low, difference_high, difference_interval (from dense; NaN without), the same with
    `reference_` in front; rank (1 is best, ties share it; NaN where nothing is ranked), best (rank
    1 among at least two).
    """
    summary = _moments(collected.values)
    summary = summary.join(collected.rows[["campaign", "model", "sparsity", "ranked"]], on="row")
    _add_intervals(summary)
    add_differences(summary, collected.rows, reference=reference)
    _add_ranks(summary, collected)
    return summary.drop(columns=["campaign", "model", "sparsity", "ranked", *HELPERS])


def leader_ranks(
    means: Sequence[float], lows: Sequence[float], highs: Sequence[float], *, better: str
) -> list[int]:
    """Competition ranks with ties by overlap.

    The best mean leads (of equal ones, the most certain); every entry whose interval overlaps the
    leader's shares its rank. The best of the rest leads the next group, and its rank counts all
    that came before. `better` is "lower" or "higher".
    """
    sign = -1 if better == "higher" else 1
    order = sorted(range(len(means)), key=lambda i: (sign * means[i], highs[i] - lows[i]))
    ranks, taken = [0] * len(means), 0
    while taken < len(order):
        leader, rank = order[taken], taken + 1
        rest = order[taken:]
        tied = [i for i in rest if lows[i] <= highs[leader] and lows[leader] <= highs[i]]
        for i in tied:
            ranks[i] = rank
        order[taken:] = tied + [i for i in rest if i not in tied]
        taken += len(tied)
    return ranks


@dataclass(frozen=True)
class Average:
    """A row name's average rank: over all quality columns, and over those of each kind.

    ranked of comparisons  where it is ranked; failed: cells that failed or were skipped
    """

    name: str
    average: float
    perplexity: float
    zeroshot: float
    generation: float
    ranked: int
    comparisons: int
    failed: int


def average_ranks(collected: Collected, summary: pd.DataFrame) -> list[Average]:
    """Average rank of each row name over the campaign's quality columns.

    A comparison is one column of one model at one sparsity in which at least two rows are ranked.
    What has no value has no rank. Sorted: complete ones first, then by average.
    """
    by_row = stats_of(summary)
    blocks: dict[tuple[str, str, float, int], list[tuple[str, float]]] = {}
    for row in collected.table:
        for i, stats in by_row.get(row.index, {}).items():
            if collected.quantities[i].kind in QUALITY and not math.isnan(stats.rank):
                block = (row.campaign, row.model, row.sparsity, i)
                blocks.setdefault(block, []).append((row.name, stats.rank))
    blocks = {block: ranks for block, ranks in blocks.items() if len(ranks) > 1}
    found: dict[str, list[tuple[str, float]]] = {}
    for (*_, i), ranks in blocks.items():
        for name, rank in ranks:
            found.setdefault(name, []).append((collected.quantities[i].kind, rank))
    lost: Counter[str] = Counter()
    for row in collected.table:
        lost[row.name] += row.failed + row.skipped if row.sparsity > 0 else 0
    averages = [
        Average(
            name=name,
            average=_mean([rank for _, rank in ranks]),
            **{each: _mean([rank for kind, rank in ranks if kind == each]) for each in QUALITY},
            ranked=len(ranks),
            comparisons=len(blocks),
            failed=lost[name],
        )
        for name, ranks in found.items()
    ]
    return sorted(averages, key=lambda line: (-line.ranked, line.average, line.name))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _moments(values: pd.DataFrame) -> pd.DataFrame:
    """n, mean, sd over seeds; the within-run error is the root mean square of the runs' errors.

    It does not shrink with the number of seeds: all of them answer the same items.
    """
    squares = values.assign(error=values["error"] ** 2)
    groups = squares.groupby(["row", "quantity"], sort=True)
    summary = groups.agg(
        n=("value", "count"),
        mean=("value", "mean"),
        sd=("value", "std"),
        error=("error", "mean"),
        own_low=("low", "mean"),
        own_high=("high", "mean"),
        own=("low", "count"),
        **{
            f"{start}_{name}": (f"{start}_{end}", how)
            for start in PREFIXES
            for name, (end, how) in PAIRED.items()
        },
    ).reset_index()
    summary["error"] **= 0.5
    noise = summary["sd"] <= ROUNDING * summary["mean"].abs()
    summary.loc[noise, "sd"] = 0.0
    return summary


def _add_intervals(summary: pd.DataFrame) -> None:
    """low, high, and where they come from: seeds, run (within each) or nothing ("")."""
    import numpy as np

    n, sd, error = (summary[name].to_numpy(float) for name in ("n", "sd", "error"))
    seeds = (n > 1) & (sd > 0)
    own = ~seeds & (summary["own"].to_numpy() == n)
    run = ~seeds & ~own & ~np.isnan(error)
    half = np.select(
        [seeds, run, n > 1],
        [student(np.maximum(n - 1, 1)) * sd / np.sqrt(n), Z95 * error, 0.0],
        np.nan,
    )
    for end, sign in (("low", -1), ("high", 1)):
        summary[end] = np.where(own, summary[f"own_{end}"], summary["mean"] + sign * half)
    summary["interval"] = np.select([seeds, own | run, n > 1], ["seeds", "run", "seeds"], "")


def _add_ranks(summary: pd.DataFrame, collected: Collected) -> None:
    kinds = [KINDS[quantity.kind] for quantity in collected.quantities]
    ranked = summary["quantity"].map(lambda quantity: kinds[quantity].ranked).astype(bool)
    ranked &= summary["ranked"].astype(bool)
    # what has no interval is taken as exact
    lows, highs = (summary[end].fillna(summary["mean"]).tolist() for end in ("low", "high"))
    means: list[float] = summary["mean"].tolist()
    names = ("campaign", "model", "sparsity", "quantity")
    blocks: dict[tuple[str, str, float, int], list[int]] = {}
    lines = zip(ranked.tolist(), *(summary[name].tolist() for name in names), strict=True)
    for place, (competes, campaign, model, sparsity, quantity) in enumerate(lines):
        if competes:
            blocks.setdefault((campaign, model, sparsity, quantity), []).append(place)
    ranks, best = [math.nan] * len(means), [False] * len(means)
    for key, places in blocks.items():
        numbers = ([values[i] for i in places] for values in (means, lows, highs))
        found = leader_ranks(*numbers, better=kinds[key[-1]].better)
        for place, rank in zip(places, found, strict=True):
            ranks[place], best[place] = rank, rank == 1 < max(found)
    summary["rank"], summary["best"] = ranks, best
