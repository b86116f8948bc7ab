"""What a reader sees, as plain data: sections of tables of text cells, with their legends.

Markdown, terminal and later views only draw these; none of them computes anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import MARKS, Collected
from prunebench.leaderboard.numbers.quantities import QUALITY
from prunebench.leaderboard.numbers.rows import Stats, TableRow, stats_of
from prunebench.leaderboard.views import formats

if TYPE_CHECKING:
    import pandas as pd

SYMBOLS = {
    "leak": (
        "†",
        "calibration or tuning text is of the same corpus as an evaluation set, or contains 1 % or "
        "more of its items",
    ),
    "limited": ("‡", "limited run: only the first part of the text or of the items was used"),
    "native": ("◊", "run at the method's own published setting instead of the target sparsity"),
    "off_target": ("§", "achieved sparsity misses the target by more than the tolerance: no rank"),
    "unverified": ("✗", "the cut model does not compute what the masked model does: no rank"),
    "truncated": (
        "✂",
        "some inputs were longer than the model or the protocol takes, and a part of them was left "
        "out; each cell's section says how many",
    ),
    "shared_device": ("¶", "another process used the device while latencies were measured"),
    "below": (
        "↧",
        "below the most frequent answer: what always giving the most frequent right answer gets",
    ),
}
MOST_FREQUENT = "most frequent answer"  # the line of what the mark is about
BELOW = f" {SYMBOLS['below'][0]}"  # ends the text of such a cell
LEVEL = 1e-9  # a mean this near to a floor is on it
REASON_WIDTH = 60


@dataclass(frozen=True)
class TableCell:
    """One cell's text, unescaped."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a table before it is drawn.

    A row with results has `row` and its summary by quantity; cells that were lost have `status` and
    `reason`; a remark on the columns (chance level) has `remarks` by quantity. `of` is what the
    sparsity is a share of.
    """

    name: str
    sparsity: float = math.nan
    row: TableRow | None = None
    summary: Mapping[int, Stats] = field(default_factory=dict)
    status: str = ""
    reason: str = ""
    remarks: Mapping[int, str] = field(default_factory=dict)
    of: str = "model"


@dataclass(frozen=True)
class Column:
    """How one column is drawn; a narrow view drops the highest `priority` first."""

    title: str
    show: Callable[[Line], TableCell]
    align: str = "right"
    marks: tuple[str, ...] = ()
    priority: int = 0


@dataclass(frozen=True)
class Table:
    """A drawn table; `legend` explains the marks it uses.

    `blocks`: the sparsity of each row, None of those that belong to none (chance level).
    """

    title: str
    caption: str
    header: tuple[str, ...]
    align: tuple[str, ...]
    rows: tuple[tuple[TableCell, ...], ...]
    legend: tuple[str, ...] = ()
    blocks: tuple[float | None, ...] = ()
    priorities: tuple[int, ...] = ()


@dataclass(frozen=True)
class Section:
    """One model of one campaign: its tables, and two for narrow views (`brief` without errors)."""

    heading: str
    lead: str
    tables: tuple[Table, ...]
    compact: Table
    brief: Table


def make_lines(
    collected: Collected, summary: pd.DataFrame, *, campaign: str, model: str, steps: bool = False
) -> list[Line]:
    """A section's lines: by sparsity, then quality; failed cells last within their sparsity.

    steps  those of single steps, which have no quality, instead of the others

    Quality is the average rank over the quality columns, then the mean of the first of them;
    rows that are not ranked stand below those that are.
    """
    here = (campaign, model, steps)
    rows = [row for row in collected.table if (row.campaign, row.model, row.step) == here]
    by_row = stats_of(summary)
    kinds = [quantity.kind for quantity in collected.quantities]
    quality = [i for kind in QUALITY for i, own in enumerate(kinds) if own == kind]
    ordered = [
        (_order(line, row, quality), line)
        for row in rows
        if row.ok
        for line in [
            Line(row.name, row.sparsity, row, by_row.get(row.index, {}), of=row.sparsity_of)
        ]
    ]
    ordered += _lost_lines(collected.cells, rows)
    return [line for _, line in sorted(ordered, key=lambda item: item[0])]


def average_rank(line: Line, quantities: Sequence[int]) -> float:
    """Mean of the line's ranks over those of the quantities that rank it; NaN without any."""
    ranks = [line.summary[i].rank for i in quantities if i in line.summary]
    ranks = [rank for rank in ranks if not math.isnan(rank)]
    return sum(ranks) / len(ranks) if ranks else math.nan


def draw(title: str, caption: str, columns: Sequence[Column], body: Sequence[Line]) -> Table:
    """Draw lines under sparsity, method and `columns`; Notes tell what failed, where it did."""
    columns = [
        Column("Sparsity", lambda line: TableCell("" if line.remarks else target_sparsity(line))),
        Column("Method", _method, "left"),
        *columns,
    ]
    if any(line.status for line in body):
        columns.append(Column("Notes", lambda line: TableCell(line.reason), "left", priority=3))
    drawn = tuple(tuple(_one_line(column.show(line)) for column in columns) for line in body)
    return Table(
        title=title,
        caption=caption,
        header=tuple(formats.one_line(column.title) for column in columns),
        align=tuple(column.align for column in columns),
        rows=drawn,
        legend=_legend(columns, body, drawn),
        blocks=tuple(None if line.remarks else line.sparsity for line in body),
        priorities=tuple(column.priority for column in columns),
    )


def cells_ok(line: Line) -> int | None:
    """How many cells of the row have results."""
    return None if line.row is None else line.row.ok


def number_column(
    title: str,
    quantity: int,
    show: Callable[[Stats], str],
    *,
    bold: bool = True,
    marks: tuple[str, ...] = (),
    expected: Callable[[Line], int | None] = cells_ok,
    floor: float | None = None,
) -> Column:
    """A quantity: `show` writes its summary; a number of values other than `expected` is told.

    A mean below `floor` is marked.
    """

    def cell(line: Line) -> TableCell:
        if line.row is None:
            return TableCell(line.remarks.get(quantity, ""))
        if (stats := line.summary.get(quantity)) is None:
            return TableCell(formats.MISSING)
        text = show(stats)
        if text and expected(line) not in (None, stats.n):
            text += f" (n = {stats.n})"
        if floor is not None and stats.mean < floor - LEVEL:
            text += BELOW
        return TableCell(text, bold=bold and bool(stats.best))

    title = " ".join([title, *(SYMBOLS[mark][0] for mark in marks)])
    return Column(title, cell, "right", marks)


def row_column(title: str, show: Callable[[TableRow], str], *, priority: int = 0) -> Column:
    """A column of what a row is, not of what was measured."""
    return Column(
        title, lambda line: TableCell("" if line.row is None else show(line.row)), priority=priority
    )


Order = tuple[float, int, float, float, str, str]


def _lost_lines(cells: pd.DataFrame, rows: Sequence[TableRow]) -> list[tuple[Order, Line]]:
    """Cells without results, one line per row and reason, with their sort keys."""
    by_index = {row.index: row for row in rows}
    seeds: dict[tuple[int, str, str], list[int]] = {}
    columns = (cells[name].tolist() for name in ("row", "status", "reason", "seed"))
    for index, status, reason, seed in zip(*columns, strict=True):
        if index in by_index and status != "ok":
            seeds.setdefault((index, status, reason), []).append(seed)
    found = []
    for (index, status, reason), own in sorted(seeds.items()):
        row = by_index[index]
        text = f"{status}: {formats.shorten(reason, REASON_WIDTH)} ({formats.seeds(own)})"
        key = (row.sparsity, 3, 0.0, 0.0, row.name, text)
        line = Line(row.name, row.sparsity, status=status, reason=text, of=row.sparsity_of)
        found.append((key, line))
    return found


def _order(line: Line, row: TableRow, quality: Sequence[int]) -> Order:
    """Dense first; then ranked rows by quality; then those that are not ranked."""
    average = average_rank(line, quality)
    first = next((line.summary[i].mean for i in quality if i in line.summary), math.inf)
    tier = int(row.recovery) if line.sparsity == 0 else 1 if row.ranked else 2
    average = math.inf if math.isnan(average) else average
    return line.sparsity, tier, average, first, line.name, f"{row.index:09}"


def target_sparsity(line: Line) -> str:
    """A line's target, and of what it is a share where that is not the whole model."""
    share = " of decoder" if line.of == "decoder" and line.sparsity > 0 else ""
    return formats.percent(line.sparsity) + share


def _marks(line: Line) -> list[str]:
    return [mark for mark in MARKS if line.row is not None and getattr(line.row, mark)]


def _method(line: Line) -> TableCell:
    symbols = "".join(SYMBOLS[mark][0] for mark in _marks(line))
    return TableCell(f"{line.name} {symbols}")


def _one_line(cell: TableCell) -> TableCell:
    return replace(cell, text=formats.one_line(cell.text))


def _legend(
    columns: Sequence[Column], body: Sequence[Line], drawn: Sequence[Sequence[TableCell]]
) -> tuple[str, ...]:
    """Only what this table uses."""
    used = {mark for column in columns for mark in column.marks}
    used.update(mark for line in body for mark in _marks(line))
    texts = {cell.text for row in drawn for cell in row}
    if any(text.endswith(BELOW) for text in texts):
        used.add("below")
    legend = [f"{symbol} {text}" for mark, (symbol, text) in SYMBOLS.items() if mark in used]
    if any(f"± {formats.MISSING}" in text for text in texts):
        legend.append(f"± {formats.MISSING} one seed, so no deviation")
    if formats.MISSING in texts:
        legend.append(f"{formats.MISSING} not measured (reasons in failures.md)")
    return tuple(legend)
