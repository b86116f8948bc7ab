"""The page's data as plain JSON: Pareto fronts, what models write, and each cell's section."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from prunebench.leaderboard.numbers.collect import cell_name
from prunebench.leaderboard.numbers.losses import missing_parts
from prunebench.leaderboard.numbers.quantities import KINDS
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.described import cell_facts, described, kept_units, origin
from prunebench.leaderboard.views.fronts import Axis, Front
from prunebench.leaderboard.views.page.answers import written
from prunebench.record.form import Provenance, Record
from prunebench.untyped import Foreign, Json, Plain

MOST_POINTS = 400  # of a curve: more than a screen can show
MOST_VALUES = 20_000  # of a method's plot; a larger one stays in the record


def page_data(report: Foreign, fronts: Sequence[Front]) -> Json:
    """Everything that the page's script draws."""
    collected = report.collected
    records = collected.records
    provenances = sorted({_origin_text(record) for record in records})
    places = {text: i for i, text in enumerate(provenances)}
    values: dict[int, list[list[Foreign]]] = {}
    for entry in collected.values.itertuples():
        unit = KINDS[collected.quantities[entry.quantity].kind].unit
        error = "" if entry.error != entry.error else formats.plain(entry.error, unit)
        line = [entry.quantity, formats.plain(entry.value, unit), error]
        values.setdefault(entry.cell, []).append(line)
    return {
        "fronts": [_front(front) for front in fronts],
        "written": written(collected, report.summary),
        "quantities": [described(quantity) for quantity in collected.quantities],
        "provenances": [origin(Provenance.model_validate_json(text)) for text in provenances],
        "cells": [
            _cell(record, sorted(values.get(i, [])), places[_origin_text(record)])
            for i, record in enumerate(records)
        ],
    }


def drawable(note: Plain) -> str:
    """The kind of plot that a method's note asks for, if it has the form of one; else ""."""
    if not isinstance(note, Mapping) or not isinstance(note.get("title"), str):
        return ""
    if note.get("plot") == "heatmap" and all(
        isinstance(note.get(key), list) for key in ("rows", "columns", "values")
    ):
        width, rows = len(note["columns"]), note["values"]
        fits = len(rows) == len(note["rows"]) and all(
            isinstance(row, list) and len(row) == width for row in rows
        )
        numbers = fits and all(v is None or _is_number(v) for row in rows for v in row)
        return "heatmap" if numbers and width * len(rows) <= MOST_VALUES else ""
    series = note.get("series")
    if note.get("plot") == "line" and isinstance(series, Mapping):
        points = [p for s in series.values() for p in (s if isinstance(s, list) else [None])]
        return "line" if points and all(_is_point(p) for p in points) else ""
    return ""


def thinned(points: Sequence[Foreign], most: int = MOST_POINTS) -> list[Foreign]:
    """At most `most` points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def _front(front: Front) -> Json:
    def axis(given: Axis) -> Json:
        return {
            "key": str(given.quantity),
            "title": given.title,
            "better": given.better,
            "scale": given.scale,
            "log": given.log,
        }

    def line(name: str, points: Plain) -> Json:
        return {
            "name": name,
            "points": [
                {"sparsity": p.sparsity, "values": {str(k): v for k, v in p.values.items()}}
                for p in points
            ],
        }

    return {
        "campaign": front.campaign,
        "model": front.model,
        "qualities": [axis(given) for given in front.qualities],
        "costs": [axis(given) for given in front.costs],
        "dense": [line(name, [point]) for name, point in front.dense],
        "lines": [line(name, points) for name, points in front.lines],
        "lost": list(front.lost),
    }


def _cell(record: Record, values: list[list[Foreign]], provenance: int) -> Json:
    notes = record.method_notes or {}
    kinds = {key: drawable(note) for key, note in sorted(notes.items())}
    return {
        "name": cell_name(record),
        "status": record.status,
        "reason": "; log: ".join(text for text in (record.reason, record.log) if text),
        "facts": cell_facts(record),
        "values": values,
        "missing": [list(part) for part in missing_parts(record)],
        "provenance": provenance,
        "decision": kept_units(record.decision),
        "curve": thinned((record.tuning.loss if record.tuning else None) or []),
        "plots": [{**_plot(notes[key], kind), "key": key} for key, kind in kinds.items() if kind],
        "notes": [[key, _text(notes[key])[:2000]] for key, kind in kinds.items() if not kind],
    }


def _plot(note: Plain, kind: str) -> Json:
    """A note that `drawable` has looked at."""
    if kind == "heatmap":
        keys = ("plot", "title", "rows", "columns", "values")
        return {**{key: note[key] for key in keys}, "rows": [str(row) for row in note["rows"]]}
    return {
        "plot": "line",
        "title": note["title"],
        "x_label": str(note.get("x_label", "")),
        "y_label": str(note.get("y_label", "")),
        "series": {name: thinned(points) for name, points in note["series"].items()},
    }


def _origin_text(record: Record) -> str:
    return _text(record.provenance.model_dump(exclude_unset=True))


def _text(value: Plain) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _is_number(value: Plain) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_point(point: Plain) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_number(v) for v in point)
