"""The tables of each model: quality, difference from dense, tasks, size and speed, cost.

A quality table has one device and a speed table one device and point, so that no column mixes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.quantities import KINDS, QUALITY, Quantity
from prunebench.leaderboard.numbers.rows import Stats
from prunebench.leaderboard.views import columns, formats
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.compute import equal_compute_tables
from prunebench.leaderboard.views.controls import control_tables
from prunebench.leaderboard.views.described import imported_from
from prunebench.leaderboard.views.tables import Line, Section, Table, TableCell, draw, make_lines

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.numbers.statistics import Average
    from prunebench.record.form import Record

SIZES = ("parameters", "macs", "aligned_to", "weights_mib")
SPEEDS = (
    *("prefill_ms", "prefill_speedup", "prefill_limit", "prefill_share"),
    *("decode_ms_per_token", "decode_speedup", "decode_limit", "decode_share"),
    "peak_allocated_mib",
)
DIFFERENCES = {
    "difference": columns.difference,
    "reference_difference": columns.reference_difference,
}
Place = tuple[tuple[tuple[str, str], ...], str]  # details and name of a point
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
                tables=(*_tables(known, body, reference), *_steps(known, steps)),
                compact=_compact(known, body, columns.spread),
                brief=_compact(known, body, columns.plain),
            )
        )
    return tuple(made)


def rank_table(averages: Sequence[Average]) -> Table:
    """The average ranks over the campaign, drawn; a kind that nobody is ranked in has no column."""
    kinds = {"average": "Average rank ↓", "perplexity": "Perplexity", "zeroshot": "Zero-shot"}
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


def _tables(known: Quantities, body: Sequence[Line], reference: str | None) -> list[Table]:
    tables = []
    for here, lines in _by_device(known, body, (*QUALITY, "task")):
        tables += _quality(here, lines, reference) + _tasks(here, lines)
    tables += control_tables(known, body)
    tables.append(_size(known, body))
    tables += _speed(known, body)
    costs = tuple(kind for kind in columns.TITLES if kind.startswith(("prune", "recover")))
    for here, lines in _by_device(known, body, costs):
        tables.append(_cost(of_kinds(here, *costs), lines))
    for here, lines in _by_device(known, body, QUALITY):
        tables += equal_compute_tables(known, here, lines)
    return tables


def _by_device(
    known: Quantities, body: Sequence[Line], kinds: Sequence[str]
) -> list[tuple[dict[int, Quantity], list[Line]]]:
    """The quantities of these kinds and the lines that belong to them, per device."""
    wanted = of_kinds(known, *kinds)
    split = []
    for device in sorted({quantity.device for quantity in wanted.values()}):
        here = {i: quantity for i, quantity in wanted.items() if quantity.device == device}
        split.append((here, _belonging(here, wanted, body)))
    return split


def _belonging(here: Quantities, anywhere: Quantities, body: Sequence[Line]) -> list[Line]:
    """Lines with a value here, and those without one anywhere (failed cells among them)."""
    return [
        line
        for line in body
        if any(i in here for i in line.summary) or not any(i in anywhere for i in line.summary)
    ]


def _quality(here: Quantities, body: Sequence[Line], reference: str | None) -> list[Table]:
    """mean ± sd (error over items) and the differences, per group of protocols."""
    tables = []
    against = {"difference": "dense", "reference_difference": reference}
    for suffix, group in _protocol_groups(of_kinds(here, *QUALITY)).items():
        shown = [
            columns.achieved_column(),
            columns.seeds_column(),
            *columns.number_columns(group, columns.spread_and_error),
            columns.rank_column(list(group)),
        ]
        accuracy = bool(of_kinds(group, "zeroshot"))
        caption = "mean ± standard deviation over seeds (standard error over items)"
        caption += "; zero-shot accuracy in %" * accuracy + _on(group)
        tables.append(draw(f"Quality{suffix}", caption, shown, body))
        for name, title in against.items():
            compared = [line for line in body if line.row is None or _has(line, group, name)]
            if any(line.row is not None for line in compared):
                caption = "difference (95 % interval)" + "; zero-shot accuracy in points" * accuracy
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
        suffix = f" at window length {length}" if length else ", zero-shot"
        groups.setdefault(suffix, {})[i] = quantity
    return groups


def _has(line: Line, group: Quantities, name: str) -> bool:
    return any(not math.isnan(getattr(line.summary[i], name)) for i in group if i in line.summary)


def _tasks(here: Quantities, body: Sequence[Line]) -> list[Table]:
    """Accuracy per task; the last lines tell what guessing gives, and how sure the items are."""
    tasks = of_kinds(here, "task")
    if not tasks:
        return []
    errors = {i: [line.summary[i].error for line in body if i in line.summary] for i in tasks}
    worst = {i: max((e for e in found if e == e), default=None) for i, found in errors.items()}
    remarks = {
        "items": {i: quantity.detail("items") for i, quantity in tasks.items()},
        "chance": {i: _percent_points(q.detail("chance")) for i, q in tasks.items()},
        "largest error over items": {i: _percent_points(error) for i, error in worst.items()},
    }
    body = [*body, *(Line(name, remarks=texts) for name, texts in remarks.items())]
    caption = "accuracy in %, mean ± standard deviation over seeds"
    shown = columns.number_columns(tasks, columns.spread)
    return [draw("Zero-shot tasks", caption, shown, body)]


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


def _speed(known: Quantities, body: Sequence[Line]) -> list[Table]:
    """One table per device and named point."""
    tables = []
    for here, lines in _by_device(known, body, SPEEDS):
        points: dict[Place, dict[int, Quantity]] = {}
        for i, quantity in of_kinds(here, *SPEEDS).items():
            points.setdefault((quantity.details, quantity.name), {})[i] = quantity
        for key in sorted(points, key=_by_size):
            point = points[key]
            shown = [
                columns.values_column(point),
                *columns.number_columns(point, columns.speed, expected=columns.most_values(point)),
            ]
            tables.append(
                draw(
                    f"Speed at {key[1]}",
                    _point(key, _series(point, lines)) + _on(point),
                    shown,
                    lines,
                )
            )
    return tables


def _steps(known: Quantities, body: Sequence[Line]) -> list[Table]:
    """Single steps of methods: one table per device and size of the step."""
    kinds = tuple(kind for kind in KINDS if kind.startswith("step_"))
    tables = []
    for here, lines in _by_device(known, body, kinds):
        sizes = dict.fromkeys(quantity.name for quantity in here.values())
        for size in sizes:
            group = {i: quantity for i, quantity in here.items() if quantity.name == size}
            own = [line for line in lines if line.row is None or set(group) & set(line.summary)]
            shown = columns.number_columns(group, columns.step, bold=False)
            caption = f"one step of a method alone, {size} tokens; floor: the least it must keep"
            tables.append(draw(f"Single steps of {size}", caption + _on(group), shown, own))
    return tables


def _by_size(key: Place) -> tuple[list[int], str]:
    shape = dict(key[0])
    return [int(shape.get(name, 0)) for name in ("batch", "prompt", "new")], key[1]


def _series(point: Quantities, body: Sequence[Line]) -> set[str]:
    """The series that the lines with values here were timed in."""
    return {line.row.series for line in body if line.row and set(point) & set(line.summary)}


def _point(key: Place, series: set[str]) -> str:
    together = len(series) == 1 and "" not in series
    how = "All rows were timed in turns with each other and the dense model, in one job"
    alone = (
        "Each row was timed in turns with the dense model in a job of its own: compare speed-ups, "
        "not milliseconds"
    )
    shape = dict(key[0])
    new = f", {shape['new']} new tokens" if "new" in shape else ""
    return (
        f"batch {shape['batch']}, prompt of {shape['prompt']} tokens{new}; median latency, mean ± "
        f"standard deviation over seeds (standard error within a run). {how if together else alone}"
    )


def _cost(here: Quantities, body: Sequence[Line]) -> Table:
    seconds = [i for i, quantity in here.items() if KINDS[quantity.kind].unit == "s"]
    shown = [columns.seeds_column()]
    for i, quantity in here.items():
        show = columns.spread if i in seconds else columns.plain
        shown += columns.number_columns({i: quantity}, show, bold=False)
    caption = "wall time, tokens and peak memory of the pruning and recovery jobs"
    return draw("Cost of pruning", caption + _on(here), shown, body)


def _compact(
    known: Quantities, body: Sequence[Line], show: Callable[[str], Callable[[Stats], str]]
) -> Table:
    """The most telling columns, for a terminal; a narrow one drops high priorities first."""
    quality = of_kinds(known, *QUALITY)
    shown = [columns.achieved_column(7), columns.seeds_column(1)]
    shown += [replace(column, priority=2) for column in columns.number_columns(quality, show)]
    shown[2:3] = [replace(column, priority=0) for column in shown[2:3]]
    shown.append(columns.rank_column(list(quality), priority=4))
    for kind, priority in (("parameters", 6), ("decode_speedup", 5), ("prune_wall_s", 8)):
        first = dict(list(of_kinds(known, kind).items())[:1])
        extra = columns.number_columns(first, columns.plain, bold=False, expected=lambda line: None)
        shown += [replace(column, priority=priority) for column in extra]
    return draw("", "", shown, body)


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


def _on(quantities: Quantities) -> str:
    device = next((quantity.device for quantity in quantities.values()), "")
    return f"; on {device}" if device else ""


def _percent_points(value: str | float | None) -> str:
    return formats.plain(float(value), "fraction") if value not in (None, "") else ""


def _two(value: float) -> str:
    return formats.MISSING if math.isnan(value) else f"{value:.2f}"
