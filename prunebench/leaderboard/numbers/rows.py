"""Lines of the frames as typed values: rows of the tables, statistics of their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

from prunebench.untyped import Foreign

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class TableRow:
    """Cells that differ in their seed alone. `index`: its position in `Collected.rows`.

    params            of the method, as JSON
    step              whether single steps are all that was measured
    ok, ...           number of cells that ended so
    sparsity_of       what the sparsity is a share of: "model" or "decoder"
    achieved          mean share of all parameters that is gone; NaN where no cell is ok
    decoder_achieved  the same of the decoder blocks' parameters
    logit_difference  largest over the cells; NaN where none was verified
    loadable_by       what loads the saved models; "" where none was saved
    series            what its times may be compared with; "" for those of a job of its own
    ranked            whether its numbers compete with those of other rows
    name              the label, and what tells rows of one label apart
    """

    index: int
    campaign: str
    model: str
    label: str
    method: str
    params: str
    recovery: bool
    sparsity: float
    matched: str
    step: bool
    ok: int
    failed: int
    skipped: int
    sparsity_of: str
    achieved: float
    decoder_achieved: float
    logit_difference: float
    loadable_by: str
    series: str
    leak: bool
    native: bool
    off_target: bool
    unverified: bool
    shared_device: bool
    truncated: bool
    ranked: bool
    name: str


@dataclass(frozen=True, slots=True)
class Stats:
    """A row's number for one quantity, as `summarise` describes it; NaN for what is not known."""

    row: int
    quantity: int
    n: int
    mean: float
    sd: float
    error: float
    low: float
    high: float
    interval: str
    difference: float
    difference_low: float
    difference_high: float
    difference_interval: str
    reference_difference: float
    reference_difference_low: float
    reference_difference_high: float
    reference_difference_interval: str
    rank: float
    best: bool


StatsOf = dict[int, dict[int, Stats]]
"""Row -> quantity -> its statistics."""
T = TypeVar("T", TableRow, Stats)


def rows_of(frame: pd.DataFrame) -> list[TableRow]:
    """The rows of `Collected.rows`, in their order."""
    return list(_lines(frame.assign(index=frame.index), TableRow))


def stats_of(summary: pd.DataFrame) -> StatsOf:
    """The statistics of every row; a row without any is not in it."""
    found: StatsOf = {}
    for stats in _lines(summary, Stats):
        found.setdefault(stats.row, {})[stats.quantity] = stats
    return found


def _lines(frame: pd.DataFrame, form: type[T]) -> Iterator[T]:
    columns: list[list[Foreign]] = [frame[field.name].tolist() for field in fields(form)]
    for values in zip(*columns, strict=True):
        yield form(*values)
