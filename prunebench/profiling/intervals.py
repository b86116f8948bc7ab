"""The statistics of repeated timings: median, quartiles, and a ratio with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median, quantiles

from prunebench.untyped import Json


def summary(values: Sequence[float]) -> Json:
    """Median, lower and upper quartile, and n, in the unit of the values."""
    if len(values) > 1:
        q25, _, q75 = quantiles(values, n=4, method="inclusive")
    else:
        q25 = q75 = values[0]
    return {"median": median(values), "q25": q25, "q75": q75, "n": len(values)}


def speedup(
    baseline: Sequence[float],
    model: Sequence[float],
    *,
    limit: float | None = None,
    confidence: float = 0.95,
) -> Json:
    """How many times faster a model is than the baseline, from timings paired by round.

    `ratio` is the median over rounds of baseline / model. `low` and `high` are two of the ordered
    ratios between which the true median lies with at least `confidence`, whatever the distribution
    of the noise (an inverted sign test); None where the rounds are too few for that.
    `share_of_limit` is ratio / limit, as a fraction.
    """
    ratios = sorted(b / m for b, m in zip(baseline, model, strict=True))
    rank = interval_rank(len(ratios), confidence)
    ratio = median(ratios)
    return {
        "ratio": ratio,
        "low": None if rank is None else ratios[rank],
        "high": None if rank is None else ratios[-1 - rank],
        "n": len(ratios),
        "confidence": confidence,
        "limit": limit,
        "share_of_limit": None if limit is None else ratio / limit,
    }


def interval_rank(count: int, confidence: float) -> int | None:
    """Of `count` ordered values, how many lie outside the median's interval at either end.

    The largest rank r with 2 * P(Binomial(count, 1/2) <= r) <= 1 - confidence; None if even r = 0
    is too many.
    """
    tail, rank = 0.0, None
    for outside in range(count // 2):
        tail += comb(count, outside) / 2**count
        if 2 * tail > 1 - confidence:
            break
        rank = outside
    return rank
