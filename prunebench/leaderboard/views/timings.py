"""Tables of speed and of single steps: one per device and named point."""

from __future__ import annotations

from collections.abc import Sequence

from prunebench.leaderboard.numbers.quantities import KINDS, Quantity
from prunebench.leaderboard.views import columns
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.devices import by_device, on_device
from prunebench.leaderboard.views.tables import Line, Table, draw

SPEEDS = (
    *("prefill_ms", "prefill_speedup", "prefill_limit", "prefill_share"),
    *("decode_ms_per_token", "decode_speedup", "decode_limit", "decode_share"),
    "peak_allocated_mib",
)
Place = tuple[tuple[tuple[str, str], ...], str]  # details and name of a point


def speed_tables(known: Quantities, body: Sequence[Line]) -> list[Table]:
    """One table per device and named point."""
    tables = []
    for here, lines in by_device(known, body, SPEEDS):
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
                    _point(key, _series(point, lines)) + on_device(point),
                    shown,
                    lines,
                )
            )
    return tables


def step_tables(known: Quantities, body: Sequence[Line]) -> list[Table]:
    """Single steps of methods: one table per device and size of the step."""
    kinds = tuple(kind for kind in KINDS if kind.startswith("step_"))
    tables = []
    for here, lines in by_device(known, body, kinds):
        sizes = dict.fromkeys(quantity.name for quantity in here.values())
        for size in sizes:
            group = {i: quantity for i, quantity in here.items() if quantity.name == size}
            own = [line for line in lines if line.row is None or set(group) & set(line.summary)]
            shown = columns.number_columns(group, columns.step, bold=False)
            caption = f"one step of a method alone, {size} tokens; floor: the least it must keep"
            tables.append(draw(f"Single steps of {size}", caption + on_device(group), shown, own))
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
