"""Claims of papers, judged on whatever models a campaign has: direction and size.

A claim compares two rows (A is 8.0 below B on WikiText2 at 50 %). Its direction holds where the
difference has the claim's sign and its 95 % interval excludes zero; the size is the measured effect
as a multiple of the claimed one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.differences import Gap, gap
from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.numbers.rows import StatsOf, TableRow, stats_of
from prunebench.leaderboard.papers.verdicts import NOT_COMPARABLE, UNCONFIRMED

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.papers.published import Claim, ClaimSide, Paper, Rule

HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "undecided"
POINTS = 100.0  # claims about accuracies are in points


@dataclass(frozen=True)
class Judged:
    """One claim on one pair of rows and one quantity; without `rule` or rows it has a reason only.

    value, low, high  row - against with its 95 % interval, in the claim's unit
    ratio             row / against
    share             measured effect over claimed effect
    """

    arxiv: str
    claim: Claim
    verdict: str
    reason: str = ""
    rule: Rule | None = None
    campaign: str = ""
    model: str = ""
    row: str = ""
    against: str = ""
    quantity: Quantity | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    share: float | None = None


def judge_claims(
    collected: Collected, summary: pd.DataFrame, papers: Iterable[Paper]
) -> tuple[Judged, ...]:
    """Each claim on each pair of rows that it speaks of; at least one line for each claim."""
    by_row = stats_of(summary)
    found: list[Judged] = []
    for paper in papers:
        for claim in paper.claims:
            if not claim.rules:
                reason = "stated in words only: no rule to judge it by"
                found.append(Judged(paper.arxiv, claim, NOT_COMPARABLE, reason))
            for rule in claim.rules:
                found += _on_all(paper.arxiv, claim, rule, collected, by_row)
    return tuple(found)


def _on_all(
    arxiv: str,
    claim: Claim,
    rule: Rule,
    collected: Collected,
    by_row: StatsOf,
) -> list[Judged]:
    mine = [row for row in collected.table if _fits(row, rule.row)]
    others = [row for row in collected.table if _fits(row, rule.against)]
    found = [
        _judged(arxiv, claim, rule, row, other, collected, quantity, by_row)
        for row in mine
        for other in others
        if (row.campaign, row.model) == (other.campaign, other.model)
        for quantity in by_row.get(row.index, {})
        if quantity in by_row.get(other.index, {})
        and collected.quantities[quantity].kind == rule.kind
        and rule.name in (None, collected.quantities[quantity].name)
    ]
    if found:
        return found
    absent = [side for side, those in ((rule.row, mine), (rule.against, others)) if not those]
    reason = f"{rule.kind} {rule.name or ''} was not measured on both rows"
    if absent:
        reason = f"no row of {_words(absent[0])}"
    return [Judged(arxiv, claim, _plain(claim, NOT_COMPARABLE), reason, rule)]


def _fits(row: TableRow, side: ClaimSide) -> bool:
    params = json.loads(row.params)
    return (
        row.ok > 0
        and not row.matched
        and row.method == side.method
        and abs(row.sparsity - side.sparsity) < 1e-9
        and side.recovery in (None, bool(row.recovery))
        and all(params.get(key) == value for key, value in side.params.items())
        and (row.ranked or row.sparsity == 0)
    )


def _judged(
    arxiv: str,
    claim: Claim,
    rule: Rule,
    row: TableRow,
    other: TableRow,
    collected: Collected,
    quantity: int,
    by_row: StatsOf,
) -> Judged:
    mine, its = by_row[row.index][quantity], by_row[other.index][quantity]
    found = gap(mine, its)
    scale = POINTS if KINDS[rule.kind].unit == "fraction" else 1.0
    ratio = mine.mean / its.mean if its.mean else None
    claimed = rule.value
    measured: float | None = found.value * scale
    if rule.form == "ratio":
        claimed, measured = rule.value - 1.0, None if ratio is None else ratio - 1.0
    verdict, reason = _direction(claimed, found)
    return Judged(
        arxiv,
        claim,
        _plain(claim, verdict),
        reason,
        rule,
        campaign=row.campaign,
        model=row.model,
        row=row.name,
        against=other.name,
        quantity=collected.quantities[quantity],
        value=found.value * scale,
        low=found.low * scale,
        high=found.high * scale,
        ratio=ratio,
        share=None if measured is None else measured / claimed,
    )


def _direction(claimed: float, found: Gap) -> tuple[str, str]:
    if not found.interval:
        return UNDECIDED, "no error of either row is known"
    if found.low <= 0 <= found.high:
        return UNDECIDED, "the 95 % interval includes no difference"
    return (HOLDS if (found.value > 0) == (claimed > 0) else REVERSED), ""


def _plain(claim: Claim, verdict: str) -> str:
    """A claim that nobody read again gets no verdict."""
    return UNCONFIRMED if claim.evidence == "recalled" else verdict


def _words(side: ClaimSide) -> str:
    tuned = {None: "", True: " with recovery", False: " without recovery"}[side.recovery]
    params = "".join(f", {key}={value}" for key, value in sorted(side.params.items()))
    return f"{side.method}{tuned}{params} at {side.sparsity:.0%}"
