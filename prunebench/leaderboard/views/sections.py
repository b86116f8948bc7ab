"""The tables of each model: quality, difference from dense, tasks, size and speed, cost.

A quality table has one device and a speed table one device and point, so that no column mixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY, SUITES, Quantity
from prunebench.leaderboard.numbers.rows import Stats
from prunebench.leaderboard.views import columns, formats
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.compute import equal_compute_tables
from prunebench.leaderboard.views.controls import control_tables
from prunebench.leaderboard.views.described import imported_from
from prunebench.leaderboard.views.devices import by_device, on_device
from prunebench.leaderboard.views.rounding import rounding_tables
from prunebench.leaderboard.views.suites import (
    ANSWERS,
    Majorities,
    answer_tables,
    floor_lines,
    suite_title,
    task_tables,
)
from prunebench.leaderboard.views.tables import Line, Section, Table, TableCell, draw, make_lines
from prunebench.leaderboard.views.timings import speed_tables, step_tables

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.numbers.statistics import Average
    from prunebench.record.form import Record

SIZES = ("parameters", "macs", "aligned_to", "weights_mib")
DIFFERENCES = {
    "difference": columns.difference,
    "reference_difference": columns.reference_difference,
}
MANY = 4  # more perplexity columns than this are drawn as one table per window length


def make_sections(
    collected: Collected, summary: pd.DataFrame, *, reference: str | None = None
) -> tuple[Section, ...]:
    """One section per model (and campaign), in the order of their names.

    reference  label of the row that the summary has differences from
    """
    keys = dict.fromkeys((row.campaign, row.model) for row in collected.table)
    several = len({campaign for campaign, _ in keys}) > 1
    made = []
    for campaign, model in keys:
        body = make_lines(collected, summary, campaign=campaign, model=model)
        steps = make_lines(collected, summary, campaign=campaign, model=model, steps=True)
        measured = sorted({i for line in (*body, *steps) for i in line.summary})
        known = {i: collected.quantities[i] for i in measured}
        records = [r for r in collected.records if _is_of(r, campaign, model)]
        made.append(
            Section(
                heading=f"{model} ({campaign})" if several else model,
                lead=_lead(records),
                tables=(
                    *_tables(known, body, reference, collected.majorities, records),
                    *step_tables(known, steps),
                ),
                compact=_compact(known, body, columns.spread, collected.majorities),
                brief=_compact(known, body, columns.plain, collected.majorities),
            )
        )
    return tuple(made)


def rank_table(averages: Sequence[Average], quantities: Sequence[Quantity]) -> Table:
    """The average ranks over the campaign, drawn; a kind that nobody is ranked in has no column."""
    choices = suite_title(quantity for quantity in quantities if quantity.kind == "zeroshot")
    kinds = {
        "average": "Average rank ↓",
        "perplexity": "Perplexity",
        "zeroshot": choices,
        "generation": "Generated",
    }
    kinds = {
        kind: title
        for kind, title in kinds.items()
        if any(not math.isnan(getattr(line, kind)) for line in averages)
    }
    header = ("Method", *kinds.values(), "Ranked in", "Lost cells")
    rows = tuple(
        (
            TableCell(formats.one_line(line.name)),
            *(TableCell(_two(getattr(line, kind))) for kind in kinds),
            TableCell(f"{line.ranked} of {line.comparisons}"),
            TableCell(str(line.failed)),
        )
        for line in averages
    )
    return Table("Average ranks", "", header, ("left", *["right"] * (len(header) - 1)), rows)


def _tables(
    known: Quantities,
    body: Sequence[Line],
    reference: str | None,
    majorities: Majorities,
    records: Sequence[Record],
) -> list[Table]:
    tables = []
    for here, lines in by_device(known, body, (*QUALITY, "task", *ANSWERS)):
        tables += _quality(here, lines, reference, majorities)
        tables += task_tables(here, lines, majorities) + answer_tables(here, lines)
    tables += control_tables(known, body) + rounding_tables(known, body, records)
    tables.append(_size(known, body))
    tables += speed_tables(known, body)
    costs = tuple(kind for kind in columns.TITLES if kind.startswith(("prune", "recover")))
    for here, lines in by_device(known, body, costs):
        tables.append(_cost(of_kinds(here, *costs), lines))
    for here, lines in by_device(known, body, QUALITY):
        tables += equal_compute_tables(known, here, lines)
    return tables


def _quality(
    here: Quantities, body: Sequence[Line], reference: str | None, majorities: Majorities
) -> list[Table]:
    """mean ± sd (error over items) and the differences, per group of protocols."""
    tables = []
    against = {"difference": "dense", "reference_difference": reference}
    for suffix, group in _protocol_groups(of_kinds(here, *QUALITY)).items():
        shown = [
            columns.achieved_column(),
            columns.seeds_column(),
            *columns.number_columns(group, columns.spread_and_error, floors=majorities),
            columns.rank_column(list(group)),
        ]
        suites = _suites(group)
        caption = "mean ± standard deviation over seeds (standard error over items)"
        caption += f"; {suites} accuracy in %" * bool(suites) + on_device(group)
        floors = floor_lines(group, majorities)
        tables.append(draw(f"Quality{suffix}", caption, shown, [*body, *floors]))
        for name, title in against.items():
            compared = [line for line in body if line.row is None or _has(line, group, name)]
            if any(line.row is not None for line in compared):
                caption = "difference (95 % interval)"
                caption += f"; {suites} accuracy in points" * bool(suites)
                shown = columns.number_columns(group, DIFFERENCES[name])
                tables.append(draw(f"Difference from {title}{suffix}", caption, shown, compared))
    return tables


def _protocol_groups(quality: Quantities) -> dict[str, dict[int, Quantity]]:
    """All in one table while it stays narrow, otherwise by window length."""
    if len(of_kinds(quality, "perplexity")) <= MANY:
        return {"": dict(quality)} if quality else {}
    groups: dict[str, dict[int, Quantity]] = {}
    for i, quantity in quality.items():
        length = quantity.detail("length")
        suffix = f" at window length {length}" if length else f", {_suites(quality)}"
        groups.setdefault(suffix, {})[i] = quantity
    return groups


def _suites(quantities: Quantities) -> str:
    """The suites among them in words: zero-shot and generated; "" where there is none."""
    found = [of_kinds(quantities, kind) for kind in SUITES]
    return " and ".join(suite_title(group.values()).lower() for group in found if group)


def _has(line: Line, group: Quantities, name: str) -> bool:
    return any(not math.isnan(getattr(line.summary[i], name)) for i in group if i in line.summary)


def _size(known: Quantities, body: Sequence[Line]) -> Table:
    """What the model is, whether it was cut right, and what loads it."""
    sizes = of_kinds(known, *SIZES)
    lengths = sorted({quantity.detail("length") for quantity in of_kinds(sizes, "macs").values()})
    shown = [
        columns.achieved_column(),
        *columns.number_columns(sizes, columns.plain, bold=False, expected=lambda line: None),
        columns.verify_column(),
        columns.loader_column(),
    ]
    macs = f"MACs: of a forward pass over {' or '.join(lengths)} tokens; " if lengths else ""
    caption = f"{macs}verified: largest logit difference between masked and cut model"
    return draw("Size", caption, shown, body)


def _cost(here: Quantities, body: Sequence[Line]) -> Table:
    seconds = [i for i, quantity in here.items() if KINDS[quantity.kind].unit == "s"]
    shown = [columns.seeds_column()]
    for i, quantity in here.items():
        show = columns.spread if i in seconds else columns.plain
        shown += columns.number_columns({i: quantity}, show, bold=False)
    caption = "wall time, tokens and peak memory of the pruning and recovery jobs"
    return draw("Cost of pruning", caption + on_device(here), shown, body)


def _compact(
    known: Quantities,
    body: Sequence[Line],
    show: Callable[[str], Callable[[Stats], str]],
    majorities: Majorities,
) -> Table:
    """The most telling columns, for a terminal; a narrow one drops high priorities first."""
    quality = of_kinds(known, *QUALITY)
    shown = [columns.achieved_column(7), columns.seeds_column(1)]
    numbers = columns.number_columns(quality, show, floors=majorities)
    shown += [replace(column, priority=2) for column in numbers]
    shown[2:3] = [replace(column, priority=0) for column in shown[2:3]]
    shown.append(columns.rank_column(list(quality), priority=4))
    for kind, priority in (("parameters", 6), ("decode_speedup", 5), ("prune_wall_s", 8)):
        first = dict(list(of_kinds(known, kind).items())[:1])
        extra = columns.number_columns(first, columns.plain, bold=False, expected=lambda line: None)
        shown += [replace(column, priority=priority) for column in extra]
    return draw("", "", shown, [*body, *floor_lines(quality, majorities)])


def _is_of(record: Record, campaign: str, model: str) -> bool:
    return (record.cell.campaign, record.cell.model) == (campaign, model)


def _lead(records: Sequence[Record]) -> str:
    """The model in one line."""
    model = next((record.model for record in records if record.model), None)
    if model is None:
        return ""
    parts = [f"{model.parameters_dense:,} parameters"]
    parts += [f"family {model.family}"] if model.family else []
    if model.kind == "hub":
        parts += [f"hub {model.source} at {model.revision or 'an unpinned revision'}"]
    else:
        parts += [f"kind {model.kind}"]
    if imported := imported_from(model):
        parts.append(imported)
    return ", ".join(parts)


def _two(value: float) -> str:
    return formats.MISSING if math.isnan(value) else f"{value:.2f}"
