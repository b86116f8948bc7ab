"""The price of sizes that hardware likes: rows of one method, with multiples and without."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.differences import gap
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY
from prunebench.leaderboard.views import columns, formats
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.tables import Line, Table, TableCell, target_sparsity

if TYPE_CHECKING:
    from prunebench.record.form import Record

CAPTION = (
    "a row whose sizes are multiples beside the row of the same method and settings without them: "
    "what left, and the difference in points; what it costs: rounded - free, with 95 % interval; "
    "accuracies in points"
)
Multiples = Mapping[tuple[str, float], Mapping[str, int]]


def rounding_tables(
    known: Quantities, body: Sequence[Line], records: Sequence[Record]
) -> list[Table]:
    """One table of all rows of a model that were rounded and have one beside them that was not."""
    multiples = {
        (record.cell.label, record.cell.sparsity): record.sparsity.multiple_of
        for record in records
        if record.sparsity is not None and record.sparsity.multiple_of
    }
    lines = [line for line in body if line.row is not None and line.row.ok]
    pairs = [
        (line, twin)
        for line in lines
        if _key(line) in multiples and (twin := _twin(line, lines, multiples)) is not None
    ]
    quality = of_kinds(known, *QUALITY)
    if not pairs or not quality:
        return []
    header = ["Sparsity", "Rounded", "Multiple of", "Free"]
    header += ["Achieved, rounded", "Achieved, free", "Difference"]
    header += [f"{name.rstrip(' ↓↑')}: price" for name in columns.titles(quality.values())]
    align = ["right", "left", "left", "left", *["right"] * (len(header) - 4)]
    rows = [_row(mine, free, multiples[_key(mine)], quality) for mine, free in pairs]
    return [
        Table(
            "Price of rounding",
            CAPTION,
            tuple(header),
            tuple(align),
            tuple(rows),
            blocks=tuple(line.sparsity for line, _ in pairs),
        )
    ]


def _key(line: Line) -> tuple[str, float]:
    assert line.row is not None
    return line.row.label, line.row.sparsity


def _twin(line: Line, lines: Sequence[Line], multiples: Multiples) -> Line | None:
    """The row of the same method, parameters, recovery and sparsity that was not rounded."""
    keys = ("method", "params", "recovery", "sparsity", "matched")
    return next(
        (
            other
            for other in lines
            if _key(other) not in multiples
            and all(getattr(other.row, key) == getattr(line.row, key) for key in keys)
        ),
        None,
    )


def _row(
    mine: Line, free: Line, multiples: Mapping[str, int], quality: Quantities
) -> tuple[TableCell, ...]:
    shares = [_achieved(mine), _achieved(free)]
    texts = [
        target_sparsity(mine),
        mine.name,
        ", ".join(f"{kind} {number}" for kind, number in sorted(multiples.items())),
        free.name,
        *(formats.percent(share) for share in shares),
        formats.interval(shares[0] - shares[1], float("nan"), 0.0, "fraction", sign=True),
    ]
    for i, quantity in quality.items():
        if i not in mine.summary or i not in free.summary:
            texts.append(formats.MISSING)
            continue
        found = gap(mine.summary[i], free.summary[i])
        unit = KINDS[quantity.kind].unit
        texts.append(formats.interval(found.value, found.low, found.high, unit, sign=True))
    return tuple(TableCell(formats.one_line(text)) for text in texts)


def _achieved(line: Line) -> float:
    """The share that is gone of what the sparsity is a share of."""
    assert line.row is not None
    of_blocks = line.row.sparsity_of == "decoder"
    return line.row.decoder_achieved if of_blocks else line.row.achieved
