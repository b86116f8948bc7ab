"""Means, errors, differences from dense and ranks of the rows, from the frames of `collect`.

Two errors are kept apart: `sd`, the sample standard deviation over seeds, and `error`, the standard
error within a run (over test items, or over repeats of a timing). A 95 % interval comes from the
seeds (Student's t) where at least two differ, otherwise from within the run, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.differences import PREFIXES, add_differences, student
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY, Z95

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


def average_ranks(collected: Collected, summary: pd.DataFrame) -> pd.DataFrame:
    """Average rank of each row name over the campaign's quality columns.

    A comparison is one column of one model at one sparsity in which at least two rows are ranked.
    Columns: name, average, perplexity, zeroshot (averages of the kinds), ranked, comparisons,
    failed (cells that failed or were skipped). What has no value has no rank; `ranked` of
    `comparisons` tells. Sorted: complete ones first, then by average.
    """
    import pandas as pd

    kinds = [quantity.kind for quantity in collected.quantities]
    wanted = summary.assign(kind=summary["quantity"].map(dict(enumerate(kinds))))
    wanted = wanted[wanted["kind"].isin(QUALITY) & wanted["rank"].notna()]
    wanted = wanted.join(collected.rows[["campaign", "model", "sparsity", "name"]], on="row")
    blocks = wanted.groupby(["campaign", "model", "sparsity", "quantity"])
    wanted = wanted[blocks["rank"].transform("size") > 1]
    comparisons = wanted[["campaign", "model", "sparsity", "quantity"]].drop_duplicates()
    pruned = collected.rows[collected.rows["sparsity"] > 0]
    lost = (pruned["failed"] + pruned["skipped"]).groupby(pruned["name"]).sum()
    lines = []
    for name, ranks in wanted.groupby("name", sort=True):
        line = {"name": name, "average": ranks["rank"].mean(), "ranked": len(ranks)}
        for kind in QUALITY:
            line[kind] = ranks.loc[ranks["kind"] == kind, "rank"].mean()
        lines.append(line | {"comparisons": len(comparisons), "failed": int(lost[name])})
    columns = ["name", "average", *QUALITY, "ranked", "comparisons", "failed"]
    table = pd.DataFrame(lines, columns=columns)
    return table.sort_values(
        ["ranked", "average", "name"], ascending=[False, True, True], ignore_index=True
    )


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
    import numpy as np

    summary["rank"], summary["best"] = np.nan, False
    kinds = [KINDS[quantity.kind] for quantity in collected.quantities]
    ranked = summary["quantity"].map(lambda quantity: kinds[quantity].ranked).astype(bool)
    ranked &= summary["ranked"].astype(bool)
    # what has no interval is taken as exact
    ends = [summary[end].fillna(summary["mean"]).to_numpy() for end in ("low", "high")]
    means = summary["mean"].to_numpy()
    blocks = summary[ranked].groupby(["campaign", "model", "sparsity", "quantity"], sort=True)
    index, ranks, best = [], [], []
    for key, members in blocks.indices.items():
        block = summary.index[ranked][members]
        found = leader_ranks(
            means[block], *(end[block] for end in ends), better=kinds[key[-1]].better
        )
        index.extend(block)
        ranks.extend(found)
        best.extend(rank == 1 and len(found) > 1 for rank in found)
    summary.loc[index, "rank"] = ranks
    summary.loc[index, "best"] = best
