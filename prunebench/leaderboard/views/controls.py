"""Matched controls: how much of a method is its layer profile, and how much its choice of units."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.leaderboard.numbers.differences import gap
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import Quantities, of_kinds, titles
from prunebench.leaderboard.views.tables import Line, Table, TableCell, target_sparsity

TUNED = "+lora"
CAPTION = (
    "a control keeps as many units of each structure as the method, but chooses them in its own "
    "way. Choice of units: method - control. Layer profile: control - the same control with a "
    "profile of its own. Differences with 95 % interval; accuracies in points"
)


def control_tables(known: Quantities, body: Sequence[Line]) -> list[Table]:
    """One table of all matched controls of a model; none where it has none."""
    lines = [line for line in body if line.row is not None]
    pairs = [(line, found) for line in lines if (found := _target(line, lines)) is not None]
    quality = of_kinds(known, *QUALITY)
    if not pairs or not quality:
        return []
    names = titles(quality.values())
    header = ["Sparsity", "Method", "Control"]
    for part in ("choice of units", "layer profile"):
        header += [f"{name.rstrip(' ↓↑')}: {part}" for name in names]
    rows = [_row(control, target, _twin(control, lines), quality) for control, target in pairs]
    align = ["right", "left", "left", *["right"] * (len(header) - 3)]
    return [
        Table(
            "Layer profile and choice of units",
            CAPTION,
            tuple(header),
            tuple(align),
            tuple(rows),
            blocks=tuple(control.sparsity for control, _ in pairs),
        )
    ]


def _target(control: Line, lines: Sequence[Line]) -> Line | None:
    """The row that a control is matched to: tuned as it is, or tuning by itself."""
    if control.row is None or not control.row.matched:
        return None
    same = [line for line in lines if line.sparsity == control.sparsity]
    by_label = {line.row.label: line for line in same if line.row is not None}
    plain = by_label.get(control.row.matched)
    tuned = by_label.get(control.row.matched + TUNED)
    return (tuned or plain) if control.row.recovery else plain


def _twin(control: Line, lines: Sequence[Line]) -> Line | None:
    """The control's method at the same sparsity with a layer profile of its own."""
    keys = ("method", "params", "recovery", "sparsity")
    return next(
        (
            line
            for line in lines
            if line.row is not None
            and not line.row.matched
            and all(getattr(line.row, key) == getattr(control.row, key) for key in keys)
        ),
        None,
    )


def _row(
    control: Line, target: Line, twin: Line | None, quality: Quantities
) -> tuple[TableCell, ...]:
    cells = [
        TableCell(target_sparsity(control)),
        TableCell(target.name),
        TableCell(control.name),
    ]
    for mine, its in ((target, control), (control, twin)):
        cells += [_difference(mine, its, i, KINDS[q.kind].unit) for i, q in quality.items()]
    return tuple(TableCell(formats.one_line(cell.text)) for cell in cells)


def _difference(mine: Line, its: Line | None, quantity: int, unit: str) -> TableCell:
    if its is None or quantity not in mine.summary or quantity not in its.summary:
        return TableCell(formats.MISSING)
    found = gap(mine.summary[quantity], its.summary[quantity])
    return TableCell(formats.interval(found.value, found.low, found.high, unit, sign=True))
