"""Claims of papers, judged on whatever models a campaign has: direction and size.

A claim compares two rows (A is 8.0 below B on WikiText2 at 50 %). Its direction holds where the
difference has the claim's sign and its 95 % interval excludes zero; the size is the measured effect
as a multiple of the claimed one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.differences import Gap, gap
from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.numbers.rows import StatsOf, TableRow, stats_of
from prunebench.leaderboard.papers.verdicts import NOT_COMPARABLE, UNCONFIRMED

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.papers.published import Claim, ClaimSide, Paper, Rule
    from prunebench.record.form import Record

Pairing = Callable[["Record", "Record", Quantity], Gap | None]
"""First minus second record, compared item by item; None where that cannot be done."""
BY_ITEM = ("zeroshot", "task", "generation")
"""Kinds of quantities that can be compared item by item."""
SEEDS_FOR_A_SPREAD = 3
"""With fewer, the spread over seeds is hardly known: t of one degree of freedom is 12.7."""
HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "undecided"
POINTS = 100.0  # claims about accuracies are in points


@dataclass(frozen=True)
class Judged:
    """One claim on one pair of rows and one quantity; without `rule` or rows it has a reason only.

    value, low, high  row - against with its 95 % interval, in the claim's unit
    ratio             row / against
    share             measured effect over claimed effect
    limit             the best that a ratio could be here, where that is known
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
    limit: float | None = None


@dataclass(frozen=True)
class _Evidence:
    """All that claims are judged by."""

    collected: Collected
    by_row: StatsOf
    paired: Pairing

    def records(self, row: TableRow) -> list[Record]:
        """The records of a row that ended well."""
        cells = self.collected.cells
        own = cells.index[(cells["row"] == row.index) & (cells["status"] == "ok")]
        return [self.collected.records[place] for place in own]

    def tuned(self, row: TableRow) -> bool:
        """Whether the suite or the method itself tuned it."""
        return any(record.tuning is not None for record in self.records(row))

    def counterpart(self, quantity: int, row: TableRow, other: TableRow) -> int | None:
        """What a row's quantity is compared with in another: itself, or None where it has none.

        An accuracy whose items pair may be of another device: they are the same on any.
        """
        there = self.by_row.get(other.index, {})
        if quantity in there:
            return quantity
        here = self.collected.quantities[quantity]
        if here.kind not in BY_ITEM or self.by_items(row, other, quantity) is None:
            return None
        elsewhere = (replace(self.collected.quantities[i], device=here.device) for i in there)
        return next((i for i, same in zip(there, elsewhere, strict=True) if same == here), None)

    def gap(self, row: TableRow, other: TableRow, quantity: int, theirs: int) -> Gap:
        """row - other: item by item where items and seeds allow it, else as if independent."""
        found = self.by_items(row, other, quantity)
        if found is not None:
            return found
        return gap(self.by_row[row.index][quantity], self.by_row[other.index][theirs])

    def by_items(self, row: TableRow, other: TableRow, quantity: int) -> Gap | None:
        """The mean over the seeds of both rows of differences that are paired item by item.

        None where both have enough seeds for a spread, or no seed in common, or no items. Its
        interval is over items, for these seeds: the mean of theirs, which is wide enough however
        much the same items move together.
        """
        mine = {record.cell.seed: record for record in self.records(row)}
        its = {record.cell.seed: record for record in self.records(other)}
        common = sorted(mine.keys() & its.keys())
        if not common or min(len(mine), len(its)) >= SEEDS_FOR_A_SPREAD:
            return None
        here = self.collected.quantities[quantity]
        gaps = [self.paired(mine[seed], its[seed], here) for seed in common]
        known = [found for found in gaps if found is not None]
        if len(known) < len(common):
            return None
        value, low, high = (
            fmean(getattr(g, end) for g in known) for end in ("value", "low", "high")
        )
        return Gap(value, low, high, known[0].interval)


def judge_claims(
    collected: Collected, summary: pd.DataFrame, papers: Iterable[Paper], paired: Pairing
) -> tuple[Judged, ...]:
    """Each claim on each pair of rows that it speaks of; at least one line for each claim."""
    evidence = _Evidence(collected, stats_of(summary), paired)
    found: list[Judged] = []
    for paper in papers:
        for claim in paper.claims:
            if not claim.rules:
                reason = "stated in words only: no rule to judge it by"
                found.append(Judged(paper.arxiv, claim, NOT_COMPARABLE, reason))
            for rule in claim.rules:
                found += _on_all(paper.arxiv, claim, rule, evidence)
    return tuple(found)


def _on_all(arxiv: str, claim: Claim, rule: Rule, evidence: _Evidence) -> list[Judged]:
    collected, by_row = evidence.collected, evidence.by_row
    mine = [row for row in collected.table if _fits(row, rule.row, rule)]
    others = [row for row in collected.table if rule.against and _fits(row, rule.against, rule)]
    pairs = [
        (row, other)
        for row in mine
        for other in (others if rule.against else [None])
        if other is None
        or (row.campaign, row.model) == (other.campaign, other.model)
        and (_says_tuned(rule) or evidence.tuned(row) == evidence.tuned(other))
    ]
    found = [
        _judged(arxiv, claim, rule, row, other, quantity, evidence)
        for row, other in pairs
        for quantity in by_row.get(row.index, {})
        if other is None or evidence.counterpart(quantity, row, other) is not None
        if collected.quantities[quantity].kind == rule.kind
        and rule.name in (None, collected.quantities[quantity].name)
    ]
    if found:
        return found
    sides = [(rule.row, mine), *([(rule.against, others)] if rule.against else [])]
    absent = [side for side, those in sides if not those]
    wanted = f"{rule.kind} {rule.name or ''}".strip()
    reason = f"{wanted} was not measured" + " on both rows" * (rule.against is not None)
    if absent:
        reason = f"no row of {_words(absent[0])}"
    return [Judged(arxiv, claim, _plain(claim, NOT_COMPARABLE), reason, rule)]


def _fits(row: TableRow, side: ClaimSide, rule: Rule) -> bool:
    params = json.loads(row.params)
    return (
        row.ok > 0
        and row.step == rule.kind.startswith("step_")
        and not row.matched
        and row.method == side.method
        and abs(row.sparsity - side.sparsity) < 1e-9
        and side.recovery in (None, bool(row.recovery))
        and all(params.get(key) == value for key, value in side.params.items())
        and (row.ranked or row.sparsity == 0)
    )


def _says_tuned(rule: Rule) -> bool:
    """Whether a claim says which of its rows are tuned; else both are, or neither."""
    sides = [rule.row] if rule.against is None else [rule.row, rule.against]
    return any(side.recovery is not None for side in sides)


def _judged(
    arxiv: str,
    claim: Claim,
    rule: Rule,
    row: TableRow,
    other: TableRow | None,
    quantity: int,
    evidence: _Evidence,
) -> Judged:
    collected, by_row = evidence.collected, evidence.by_row
    mine = by_row[row.index][quantity]
    claimed = rule.value if rule.form == "difference" else rule.value - 1.0
    if other is None:  # a ratio already: no effect is 1
        found, ratio = Gap(mine.mean - 1, mine.low - 1, mine.high - 1, mine.interval), mine.mean
    else:
        theirs = evidence.counterpart(quantity, row, other)
        assert theirs is not None  # the caller compares nothing else
        its = by_row[other.index][theirs]
        found = evidence.gap(row, other, quantity, theirs)
        ratio = mine.mean / its.mean if its.mean else math.nan
    scale = POINTS if KINDS[rule.kind].unit == "fraction" else 1.0
    measured = found.value * scale if rule.form == "difference" else ratio - 1.0
    verdict, reason = _direction(claimed, found)
    apart = other is not None and quantity not in by_row[other.index]
    limit = _limit(rule, row, other, collected.quantities, quantity, by_row)
    return Judged(
        arxiv,
        claim,
        _plain(claim, verdict),
        "; ".join(
            filter(
                None,
                (reason, _beyond(rule, limit), OF_DECODER[row.sparsity_of], TWO_DEVICES * apart),
            )
        ),
        rule,
        campaign=row.campaign,
        model=row.model,
        row=row.name,
        against=other.name if other else "",
        quantity=collected.quantities[quantity],
        value=found.value * scale,
        low=found.low * scale,
        high=found.high * scale,
        ratio=None if math.isnan(ratio) else ratio,
        share=None if math.isnan(measured) else measured / claimed,
        limit=limit,
    )


TWO_DEVICES = "evaluated on two devices"
OF_DECODER = {"model": "", "decoder": "the sparsity here is of the decoder blocks"}
LIMITS = {  # the quantity that bounds another: of the row alone, or of the same two rows
    "prefill_speedup": "prefill_limit",
    "decode_speedup": "decode_limit",
    "step_peak_mib": "step_floor_mib",
    "step_tokens_per_s": "step_macs_per_token",
}


def _limit(
    rule: Rule,
    row: TableRow,
    other: TableRow | None,
    quantities: Sequence[Quantity],
    quantity: int,
    by_row: StatsOf,
) -> float | None:
    """The best that the ratio could be: of MACs or bytes read, of what must be kept."""
    here = quantities[quantity]
    wanted = replace(here, kind=LIMITS.get(rule.kind, ""))
    if wanted not in quantities:
        return None
    place = quantities.index(wanted)
    bounds = [by_row[r.index].get(place) for r in (row, other) if r is not None]
    values = [bound.mean for bound in bounds if bound is not None]
    if len(values) < len(bounds):
        return None
    if len(values) == 1:
        return values[0]
    inverse = rule.kind == "step_tokens_per_s"  # fewer MACs, more tokens
    return values[1] / values[0] if inverse else values[0] / values[1]


def _beyond(rule: Rule, limit: float | None) -> str:
    if limit is None:
        return ""
    better = KINDS[rule.kind].better
    beyond = rule.value < limit if better == "lower" else rule.value > limit
    text = f"no more than {limit:.3f} x is possible here"
    return f"{text}, less than claimed" if beyond else text


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
