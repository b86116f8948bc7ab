"""Differences between rows, with 95 % intervals: from dense, from a reference row, of any two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from prunebench.leaderboard.numbers.rows import Stats
from prunebench.units import Z95
from prunebench.untyped import Foreign, JsonMap

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Array = np.ndarray[Foreign, Foreign]  # NumPy's types say nothing of shapes
    Arrays = dict[str, Array]

PREFIXES = ("difference", "reference")  # from dense, and from the campaign's reference row
PARTS = ("n", "mean", "sd", "error")


def add_differences(summary: pd.DataFrame, rows: pd.DataFrame, *, reference: str | None) -> None:
    """Add mean - dense mean and mean - reference mean with their intervals, in place.

    Columns: difference, difference_low, difference_high, difference_interval; and the same four
    with `reference_` in front. The reference is compared at the same sparsity, or, if it is never
    pruned (dense+lora), with all rows; NaN and "" where it has no row.
    """
    import numpy as np

    dense = _dense_rows(rows)
    keys = list(zip(summary["campaign"], summary["model"], summary["sparsity"], strict=True))
    chosen = _reference_rows(rows, reference)
    others = {
        "difference": np.array([dense.get(key[:2], -1) for key in keys], dtype=int),
        "reference": np.array(
            [chosen.get(key, chosen.get((*key[:2], None), -1)) for key in keys], dtype=int
        ),
    }
    lookup = summary.set_index(["row", "quantity"])[list(PARTS)]
    for prefix, other in others.items():
        partner = lookup.reindex(list(zip(other, summary["quantity"], strict=True)))
        found = between(summary, {name: partner[name].to_numpy(float) for name in PARTS})
        itself = summary["row"].to_numpy() == other
        _use_pairs(found, summary, prefix)
        first = "difference" if prefix == "difference" else "reference_difference"
        for name, values in found.items():
            blank = "" if name == "interval" else np.nan
            column = first if name == "value" else f"{first}_{name}"
            summary[column] = np.where(itself, blank, values)


@dataclass(frozen=True)
class Gap:
    """The difference of two numbers and its 95 % interval. interval: seeds, run, or "" for none."""

    value: float
    low: float
    high: float
    interval: str


def gap(mine: Stats, other: Stats) -> Gap:
    """mine - other, with the interval of `between`."""
    parts = ({name: getattr(stats, name) for name in PARTS} for stats in (mine, other))
    return Gap(**{name: values.item() for name, values in between(*parts).items()})


def between(mine: JsonMap | pd.DataFrame, other: JsonMap) -> Arrays:
    """mine - other: value, low, high and interval ("seeds", "run" or "").

    Both map n, mean, sd and error to numbers or arrays. Where at least one has a spread over seeds
    the interval is Welch's (Student's where the other has none); else it comes from the errors
    within the runs, as if they were independent; without these there is none.
    """
    import numpy as np

    n, mean, sd, error = (np.asarray(mine[name], dtype=float) for name in PARTS)
    its_n, its_mean, its_sd, its_error = (np.asarray(other[name], dtype=float) for name in PARTS)
    value = mean - its_mean
    known = ~np.isnan(value)
    seeds = known & (_spreads(n, sd) | _spreads(its_n, its_sd))
    run = known & ~seeds & ~np.isnan(error) & ~np.isnan(its_error)
    half = np.select(
        [seeds, run], [_seed_half(n, sd, its_n, its_sd), Z95 * np.hypot(error, its_error)], np.nan
    )
    origin = np.select([seeds, run], ["seeds", "run"], "")
    return {"value": value, "low": value - half, "high": value + half, "interval": origin}


def student(degrees: Array) -> Array:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    quantile: Array = stdtrit(degrees, 0.975)
    return quantile


def _use_pairs(found: Arrays, summary: pd.DataFrame, prefix: str) -> None:
    """The records' own intervals, paired item by item, where all have one and no seed counts."""
    import numpy as np

    complete = summary[f"{prefix}_paired"].to_numpy() == summary["n"].to_numpy()
    paired = complete & ~np.isnan(found["value"]) & (found["interval"] != "seeds")
    for end in ("low", "high"):
        found[end] = np.where(paired, summary[f"{prefix}_paired_{end}"], found[end])
    found["interval"] = np.where(paired, "paired items", found["interval"])


def _dense_rows(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    """The unpruned row of each model: nothing pruned, nothing tuned."""
    unpruned = rows[(rows["sparsity"] == 0) & (rows["ok"] > 0) & ~rows["step"]].reset_index()
    unpruned = unpruned.sort_values(["recovery", "row"])
    first = unpruned.groupby(["campaign", "model"], sort=True)["row"].first()
    return cast("dict[tuple[str, str], int]", first.to_dict())


def _reference_rows(
    rows: pd.DataFrame, reference: str | None
) -> dict[tuple[str, str, float | None], int]:
    """The row of the reference's label at each sparsity of each model; None: it is never pruned."""
    named = rows[rows["label"] == reference]
    chosen = named[named["ok"] > 0].reset_index()
    groups = chosen.groupby(["campaign", "model", "sparsity"], sort=True)["row"].first()
    first = cast("dict[tuple[str, str, float | None], int]", groups.to_dict())
    highest = named.groupby(["campaign", "model"], sort=True)["sparsity"].max()
    for model, sparsity in cast("dict[tuple[str, str], float]", highest.to_dict()).items():
        if sparsity == 0 and (*model, 0.0) in first:
            first[*model, None] = first[*model, 0.0]
    return first


def _spreads(n: Array, sd: Array) -> Array:
    found: Array = (n > 1) & (sd > 0)
    return found


def _seed_half(n: Array, sd: Array, its_n: Array, its_sd: Array) -> Array:
    """Half of the 95 % interval of a difference of means; a mean without spread is fixed."""
    import numpy as np

    with np.errstate(all="ignore"):
        own = np.where(_spreads(n, sd), sd**2 / n, 0.0)
        its = np.where(_spreads(its_n, its_sd), its_sd**2 / its_n, 0.0)
        rest = np.where(own > 0, own**2 / (n - 1), 0.0)
        rest += np.where(its > 0, its**2 / (its_n - 1), 0.0)
        degrees = (own + its) ** 2 / rest
        half: Array = student(degrees) * np.sqrt(own + its)
        return half
