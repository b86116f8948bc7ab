"""Static Pareto plots as SVG and PNG: the same bytes from the same records."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.fronts import Axis, Front, FrontPoint
from prunebench.untyped import Foreign, Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETTINGS: Json = {
    "svg.hashsalt": "prunebench",
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#9aa1ab",
    "xtick.color": "#5b626c",
    "ytick.color": "#5b626c",
    "axes.labelcolor": "#30353c",
    "savefig.dpi": 110,
}
COLOURS = (  # the first ten of Observable's palette; the page draws with the same
    *("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951"),
    *("#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"),
)
MARKERS = "os^Dv"  # told apart where colours repeat
PANELS = ("size", "latency", "memory", "pruning cost")
LOST_SHOWN = 4
LOST_STYLE: Json = {"fontsize": 7, "color": "#b3261e", "ha": "center"}
MANY_POWERS = 2000.0  # a range of more than this is wide
ROW = 0.24  # inches that a line of the legend takes


def plot_files(fronts: Sequence[Front]) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of one figure per model and quality column, as SVG and as PNG."""
    import matplotlib

    taken: dict[str, int] = {}
    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]  # its keys are literals there
        for front in fronts:
            for quality in front.qualities:
                name = _file_name(front, quality, taken)
                figure = _figure(front, quality)
                for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                    buffer = io.BytesIO()
                    figure.savefig(buffer, format=suffix, metadata=metadata)
                    yield f"{name}.{suffix}", buffer.getvalue()


def _file_name(front: Front, quality: Axis, taken: dict[str, int]) -> str:
    """Letters, digits, dots and dashes of model and column; a number where that is not unique."""
    parts = (front.model, quality.title)
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.")[:60] for part in parts)
    taken[name] = taken.get(name, 0) + 1
    return name if taken[name] == 1 else f"{name}-{taken[name]}"


def _figure(front: Front, quality: Axis) -> Figure:
    """One panel per group of costs that was measured, the first quantity of each."""
    from matplotlib.figure import Figure

    groups = {axis.group: axis for axis in reversed(front.costs)}
    costs = [groups[group] for group in PANELS if group in groups]
    wide, names = max(len(costs), 1), len(front.lines) + len(front.dense)
    columns = max(1, min(names, 2 * wide))
    legend = ROW * -(-names // columns) + ROW * bool(front.lost)
    figure = Figure(figsize=(width := 3.3 * wide + 0.7, height := 3.5 + legend))
    figure.suptitle(f"{front.model}: {quality.title}", fontsize=10, fontweight="bold")
    panels = figure.subplots(1, wide, sharey=True, squeeze=False)[0]
    # a layout engine would take longer than the drawing
    sides = {"left": 0.78 / width, "right": 1 - 0.15 / width, "wspace": 0.08}
    figure.subplots_adjust(**sides, top=1 - 0.35 / height, bottom=(0.7 + legend) / height)
    for panel, cost in zip(panels, costs, strict=False):
        _draw(panel, front, quality, cost)
    panels[0].set_ylabel(quality.title + (" (log)" if quality.log else ""))
    handles, labels = panels[0].get_legend_handles_labels()
    below = ROW * bool(front.lost) / height
    if handles:
        place = (0.5, below)
        figure.legend(
            handles, labels, ncols=columns, frameon=False, loc="lower center", bbox_to_anchor=place
        )
    if front.lost:
        more = len(front.lost) - LOST_SHOWN
        text = "not measured: " + "; ".join(front.lost[:LOST_SHOWN])
        text += f"; and {more} more" if more > 0 else ""
        figure.text(0.5, 0.08 / height, formats.shorten(text, 46 * wide), **LOST_STYLE)
    return figure


def _draw(panel: Axes, front: Front, quality: Axis, cost: Axis) -> None:
    panel.set_xlabel("\n".join(textwrap.wrap(cost.title, 38)[:2]))
    panel.set_yscale("log" if quality.log else "linear")
    panel.set_xscale("log" if cost.log else "linear")
    bands = []
    for i, (name, points) in enumerate(front.lines):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i // len(COLOURS) % 5]}
        bands += _line(panel, _positions(points, quality, cost), name, style)
    for i, (name, point) in enumerate(front.dense):
        style = {"color": "#30353c", "marker": "*" if i == 0 else "P", "markersize": "9"}
        bands += _line(panel, _positions([point], quality, cost), name, style)
    _draw_bands(panel, bands)
    if quality.log:
        _label_log(panel.yaxis)
    if cost.log:
        _label_log(panel.xaxis)
    else:
        panel.locator_params(axis="x", nbins=5)
        panel.xaxis.set_major_formatter(_short_number)


Placed = tuple[float, float, float | None, float | None]  # x, y, low, high
Band = tuple[str, list[tuple[float, float, float]]]  # colour, and (x, low, high) of each point


def _line(panel: Axes, positions: list[Placed], name: str, style: Json) -> list[Band]:
    """Draw one line; what is to be drawn of its intervals is returned."""
    if not positions:
        return []
    x, y, low, high = zip(*positions, strict=True)
    # labels that begin with an underscore would be left out of the legend
    label = f" {name}" if name.startswith("_") else name
    panel.plot(x, y, linewidth=1.3, label=formats.shorten(label, 40), **{"markersize": 4, **style})
    band = [(a, b, c) for a, b, c in zip(x, low, high, strict=True) if b is not None]
    return [(style["color"], band)] if band else []


def _draw_bands(panel: Axes, bands: Sequence[Band]) -> None:
    """Intervals as upright lines, joined to an area where a line does not turn back on itself.

    All lines of a panel are one collection and all areas another: with an artist for each, drawing
    them would take most of a report's time.
    """
    from matplotlib.collections import LineCollection, PolyCollection

    upright, line_colours, areas, area_colours = [], [], [], []
    for colour, band in bands:
        upright += [[(x, low), (x, high)] for x, low, high in band]
        line_colours += [colour] * len(band)
        places = [x for x, _, _ in band]
        if len(band) > 1 and sorted(places) in (places, places[::-1]):
            there = [(x, low) for x, low, _ in band]
            areas.append(there + [(x, high) for x, _, high in reversed(band)])
            area_colours.append(colour)
    lines = LineCollection(upright, colors=line_colours, linewidths=0.8, alpha=0.6)
    panel.add_collection(lines, autolim=False)
    filled = PolyCollection(areas, facecolors=area_colours, alpha=0.12, linewidths=0)
    panel.add_collection(filled, autolim=False)
    if upright:
        panel.update_datalim([point for line in upright for point in line])
        panel.autoscale_view()


def _positions(points: Sequence[FrontPoint], quality: Axis, cost: Axis) -> list[Placed]:
    """(x, y, low, high) of the points that have both, in the order of their sparsity."""
    found = []
    for point in sorted(points, key=lambda p: p.sparsity):
        if cost.quantity in point.values and quality.quantity in point.values:
            numbers = point.values[quality.quantity]
            y = numbers[0] * quality.scale
            low, high = (None if v is None else v * quality.scale for v in numbers[1:])
            if quality.log and low is not None:  # an interval may reach below what a log can show
                low = max(low, y / 10)
            x = point.values[cost.quantity][0] * cost.scale
            if cost.log and x <= 0:
                continue
            found.append((x, y, low, high))
    return found


def _label_log(axis: Foreign) -> None:
    """Ticks at 1, 2 and 5 of each power of ten, or at powers alone in a wide range."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    narrow = high < MANY_POWERS * low
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=12))
    axis.set_major_formatter(_short_number if high < 1e9 else _power)
    axis.set_minor_locator(NullLocator())


def _short_number(value: float, _: float | None = None) -> str:
    return formats.count(value) if abs(value) >= 1000 else f"{value:g}"


def _power(value: float, _: float | None = None) -> str:
    return f"{value:.0e}".replace("e+", "e")
