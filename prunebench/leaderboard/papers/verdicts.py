"""Published numbers against measured ones, each with a computed verdict.

A number is compared only with rows of the same model, method, parameters, sparsity (as the paper
counts it), protocol and tuning; otherwise the verdict is "not comparable", with the reason. What is
`recalled` is shown as unconfirmed and not judged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.numbers.rows import Stats, StatsOf, TableRow, stats_of
from prunebench.untyped import Json, JsonMap

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.papers.published import Paper, Published
    from prunebench.record.form import ModelFacts, Record, TunedOn

REPRODUCED, CLOSE, NOT = "reproduced", "close", "not reproduced"
NOT_COMPARABLE, UNCONFIRMED = "not comparable", "unconfirmed"
CLOSE_FACTOR = 3  # tolerances within which a difference is still close
SPARSITY_TOLERANCE = 0.005  # as selection.TOLERANCE, which cannot be had without torch
BUDGET_TOLERANCE = 0.1  # of the number of training examples that the paper names
# Shares of the paper's number; points where it is an accuracy.
TOLERANCES: dict[str, tuple[str, Callable[[float], float]]] = {
    "perplexity": ("2 %", lambda value: 0.02 * value),
    "zeroshot": ("1 point", lambda value: 1.0),
    "generation": ("1 point", lambda value: 1.0),
    "task": ("2 points", lambda value: 2.0),
    "parameters": ("0.5 %", lambda value: 0.005 * value),
}
SCALES = {"k": 1e3, "m": 1e6}


@dataclass(frozen=True)
class Measured:
    """A row's number in the paper's unit; low and high are the mean's 95 % interval."""

    campaign: str
    row: str
    model: str
    n: int
    mean: float
    sd: float
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Verdict:
    """One published number and what became of it; `measured` is None where nothing matches."""

    published: Published
    verdict: str
    reason: str = ""
    measured: Measured | None = None
    tolerance: float | None = None
    tolerance_text: str = ""

    @property
    def difference(self) -> float | None:
        return None if self.measured is None else self.measured.mean - self.published.value


@dataclass(frozen=True)
class _Row:
    """A row of the report with what decides whether a published number is about the same thing."""

    key: TableRow
    names: frozenset[str]
    params: JsonMap
    native_ratio: float | None
    tunes: bool
    tuning: TunedOn | None


def judge(
    collected: Collected, summary: pd.DataFrame, papers: Iterable[Paper]
) -> tuple[Verdict, ...]:
    """A verdict for each published number and each row that it can be compared with."""
    rows = _rows(collected)
    stats = stats_of(summary)
    found: list[Verdict] = []
    for paper in papers:
        for number in paper.published:
            found += _verdicts(number, rows, stats, collected, _expected(number, paper))
    return tuple(found)


def verdict_of(number: Published, measured: Measured, tolerance: float) -> tuple[str, str]:
    """The verdict on one comparison, and why where it is not a plain one.

    reproduced within the tolerance, close within three, else not reproduced. A mean whose 95 %
    interval reaches beyond three tolerances on both sides could be anything: not comparable.
    """
    if number.evidence == "recalled":
        return UNCONFIRMED, "recalled: the source was not read again"
    reach = CLOSE_FACTOR * tolerance
    if measured.low < number.value - reach and measured.high > number.value + reach:
        return NOT_COMPARABLE, "measured too uncertainly: its 95 % interval spans every verdict"
    distance = abs(measured.mean - number.value)
    return (REPRODUCED if distance <= tolerance else CLOSE if distance <= reach else NOT), ""


def _verdicts(
    number: Published,
    rows: Sequence[_Row],
    stats: StatsOf,
    collected: Collected,
    wanted: JsonMap,
) -> list[Verdict]:
    left, reason = list(rows), "no cell has results"
    for keep, why in _conditions(number, wanted):
        kept = [row for row in left if keep(row)]
        if not kept and left:
            reason = why(left)
        left = kept
    found = []
    for row in left:
        measured, reason = _measured(number, row, stats.get(row.key.index, {}).values(), collected)
        if measured is not None:
            text, tolerance_of = TOLERANCES[_kind(number) or ""]
            tolerance = tolerance_of(number.value)
            verdict, because = verdict_of(number, measured, tolerance)
            found.append(Verdict(number, verdict, because, measured, tolerance, text))
    if found:
        return found
    if number.evidence == "recalled":
        return [Verdict(number, UNCONFIRMED, f"recalled; {reason}")]
    return [Verdict(number, NOT_COMPARABLE, reason)]


Condition = tuple[Callable[[_Row], bool], Callable[[list[_Row]], str]]


def _expected(number: Published, paper: Paper) -> Json:
    """Parameters that a row must have; those that set the sparsity are compared by what came."""
    ignored = paper.sets_sparsity.get(number.method, ())
    defaults = paper.defaults.get(number.method, {})
    return {**{k: v for k, v in defaults.items() if k not in ignored}, **number.params}


def _conditions(number: Published, wanted: JsonMap) -> Iterable[Condition]:
    """What must agree, in this order, and what to say of the rows left when it does not."""

    def same_params(row: _Row) -> bool:
        return all(row.params.get(key) == value for key, value in wanted.items())

    yield (
        lambda row: number.model in row.names,
        lambda rows: f"another model: {number.model} was not measured",
    )
    yield (
        lambda row: row.key.method == number.method and not row.key.matched,
        lambda rows: f"another method: no row of {number.method}",
    )
    yield same_params, lambda rows: f"other parameters: {_told_params(wanted, rows)}"
    yield lambda row: _same_sparsity(number, row), lambda rows: _told_sparsity(number, rows)
    yield (
        lambda row: _tuning_problem(number, row) is None,
        lambda rows: str(_tuning_problem(number, rows[0])),
    )


def _same_sparsity(number: Published, row: _Row) -> bool:
    if number.sparsity_definition == "none":
        return row.key.sparsity == 0
    if row.key.native:
        return number.native_ratio is not None and row.native_ratio == number.native_ratio
    counted = number.sparsity_definition == "parameters" and row.key.sparsity > 0
    return counted and abs(row.key.achieved - number.sparsity) <= SPARSITY_TOLERANCE


def _told_sparsity(number: Published, rows: list[_Row]) -> str:
    there = ", ".join(sorted({f"{row.key.achieved:.1%}" for row in rows}))
    if number.sparsity_definition == "units":
        return (
            f"another definition of sparsity: {number.sparsity:.0%} of the units in pruned layers "
            f"needs a row with native ratio {number.native_ratio:g}; measured: {there} of all "
            "parameters"
        )
    return f"another sparsity: {number.sparsity:.1%} of all parameters; measured: {there}"


def _told_params(wanted: JsonMap, rows: list[_Row]) -> str:
    differing = {
        key: row.params.get(key)
        for row in rows[:1]
        for key, value in wanted.items()
        if row.params.get(key) != value
    }
    texts = (f"{key} {wanted[key]!r} in the paper, {v!r} here" for key, v in differing.items())
    return ", ".join(texts)


def _tuning_problem(number: Published, row: _Row) -> str | None:
    """Why the tuning is another one; None where it is the same."""
    if number.recovery == "unknown":
        return "another budget: the paper does not say what it was tuned on"
    if number.recovery == "none":
        return "another budget: tuned here, not in the paper" if row.tunes else None
    if not row.tunes:
        return f"another budget: tuned on {number.recovery} in the paper, not tuned here"
    if row.tuning is None:
        return f"another budget: {number.recovery} in the paper, not recorded here"
    name, _, size = number.recovery.partition("-")
    examples = (row.tuning.data or {}).get("examples")
    here = f"{row.tuning.instructions}, {examples or 'an unknown number of'} examples"
    wanted = _count(size)
    if name == row.tuning.instructions and examples is not None and wanted is not None:
        if abs(examples - wanted) <= BUDGET_TOLERANCE * wanted:
            return None
    return f"another budget: tuned on {number.recovery} in the paper, on {here}"


def _count(text: str) -> float | None:
    """50k -> 50000, 2.6m -> 2600000; None for what is no count."""
    match = re.fullmatch(r"([0-9.]+)([km]?)", text)
    return float(match[1]) * SCALES.get(match[2], 1) if match else None


def _kind(number: Published) -> str | None:
    protocol, _, what = number.quantity.partition(":")
    if protocol.startswith("ppl/"):
        return "perplexity"
    for suites in ("zeroshot", "generation"):
        if protocol.startswith(f"{suites}/"):
            return suites if what == "mean" else "task"
    return "parameters" if what.startswith("parameters") else None


def _measured(
    number: Published, row: _Row, stats: Iterable[Stats], collected: Collected
) -> tuple[Measured | None, str]:
    """The row's number under the paper's protocol, or why there is none."""
    kind = _kind(number)
    if kind is None:
        return None, "another device or another way of measuring"
    of_kind = [(s, collected.quantities[s.quantity]) for s in stats]
    of_kind = [(s, q) for s, q in of_kind if q.kind == kind and _same_protocol(number, q)]
    whole = [(s, q) for s, q in of_kind if not q.detail("limit")]
    if not whole:
        limited = "a limited run" if of_kind else "another protocol"
        return None, f"{limited}: {number.quantity} was not measured{' in full' * bool(of_kind)}"
    entry, quantity = max(whole, key=lambda pair: pair[0].n)
    scale = {"zeroshot": 100.0, "generation": 100.0, "task": 100.0}.get(kind, 1.0)
    scale *= 1e-9 if number.quantity.endswith("_billions") else 1.0
    numbers = {name: getattr(entry, name) * scale for name in ("mean", "sd", "low", "high")}
    key = row.key
    unit = "" if kind == "parameters" else KINDS[quantity.kind].unit
    return Measured(key.campaign, key.name, key.model, entry.n, **numbers, unit=unit), ""


def _same_protocol(number: Published, quantity: Quantity) -> bool:
    protocol, _, what = number.quantity.partition(":")
    if quantity.kind == "perplexity":
        return quantity.detail("protocol") == number.quantity
    if quantity.kind == "parameters":
        return what in ("parameters", "parameters_billions")
    same = quantity.detail("suite") == protocol and what in ("mean", quantity.name)
    return same and not quantity.detail("chat")  # which no paper on file does


def _rows(collected: Collected) -> list[_Row]:
    """Rows with results and the facts of their first record."""
    cells = collected.cells[collected.cells["status"] == "ok"]
    first = cells.reset_index().groupby("row", sort=True)["index"].first().to_dict()
    return [
        _row(key, collected.records[first[key.index]])
        for key in collected.table
        if key.index in first and not key.step
    ]


def _row(key: TableRow, record: Record) -> _Row:
    tuning = record.tuning
    itself = tuning is not None and tuning.by == "method"
    return _Row(
        key=key,
        names=_names(key.model, record.model),
        params=json.loads(key.params),
        native_ratio=record.sparsity.native_ratio if record.sparsity else None,
        tunes=bool(key.recovery) or itself,
        tuning=tuning,
    )


def _names(name: str, model: ModelFacts | None) -> frozenset[str]:
    """What a paper may call the model; weights that the suite itself made are nobody's."""
    if model is None or model.kind not in ("hub", "local"):
        return frozenset()
    source = (model.source or "").rstrip("/").rpartition("/")[2]
    return frozenset({name.lower(), source.lower().removesuffix("-hf")})
