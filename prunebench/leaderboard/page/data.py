"""The page's data as plain JSON: Pareto fronts, and for each cell what its section shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prunebench.leaderboard import formats
from prunebench.leaderboard.collect import cell_name, missing_parts
from prunebench.leaderboard.columns import TITLES, titles
from prunebench.leaderboard.fronts import Axis, Front
from prunebench.leaderboard.quantities import KINDS, Quantity

UNITS = {"fraction": "%", "perplexity": "", "count": "", "ratio": "×"}
MOST_POINTS = 400  # of a curve: more than a screen can show
MOST_VALUES = 20_000  # of a method's plot; a larger one stays in the record


def page_data(report: Any, fronts: Sequence[Front]) -> dict[str, Any]:
    """Everything that the page's script draws."""
    collected = report.collected
    records = collected.records
    provenances = sorted({_text(record["provenance"]) for record in records})
    places = {text: i for i, text in enumerate(provenances)}
    values: dict[int, list[list[Any]]] = {}
    for entry in collected.values.itertuples():
        unit = KINDS[collected.quantities[entry.quantity].kind].unit
        error = "" if entry.error != entry.error else formats.plain(entry.error, unit)
        line = [entry.quantity, formats.plain(entry.value, unit), error]
        values.setdefault(entry.cell, []).append(line)
    return {
        "fronts": [_front(front) for front in fronts],
        "quantities": [_quantity(quantity) for quantity in collected.quantities],
        "provenances": [_provenance(json.loads(text)) for text in provenances],
        "cells": [
            _cell(record, sorted(values.get(i, [])), places[_text(record["provenance"])])
            for i, record in enumerate(records)
        ],
    }


def drawable(note: Any) -> str:
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


def thinned(points: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most `most` points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(i * step)] for i in range(most)]


def _front(front: Front) -> dict[str, Any]:
    def axis(given: Axis) -> dict[str, Any]:
        return {
            "key": str(given.quantity),
            "title": given.title,
            "better": given.better,
            "scale": given.scale,
            "log": given.log,
        }

    def line(name: str, points: Any) -> dict[str, Any]:
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


def _quantity(quantity: Quantity) -> dict[str, str]:
    unit = KINDS[quantity.kind].unit
    return {
        "title": _title(quantity),
        "unit": UNITS.get(unit, unit),
        "protocol": "; ".join(f"{key} {value}" for key, value in quantity.details),
        "device": quantity.device,
    }


def _title(quantity: Quantity) -> str:
    """The title that the tables give it, or its kind in words."""
    title = titles([quantity])[0].rstrip(" ↓↑")
    if quantity.kind not in (*TITLES, "perplexity", "task"):
        title = quantity.kind.replace("_", " ").capitalize()
    return title if quantity.name in title else f"{title} ({quantity.name})"


def _cell(record: Mapping[str, Any], values: list[list[Any]], provenance: int) -> dict[str, Any]:
    notes = record.get("method_notes") or {}
    kinds = {key: drawable(note) for key, note in sorted(notes.items())}
    return {
        "name": cell_name(record),
        "status": record["status"],
        "reason": record.get("reason") or "",
        "facts": _facts(record),
        "values": values,
        "missing": [list(part) for part in missing_parts(record)],
        "provenance": provenance,
        "decision": _decision(record.get("decision")),
        "curve": thinned((record.get("tuning") or {}).get("loss") or []),
        "plots": [{**_plot(notes[key], kind), "key": key} for key, kind in kinds.items() if kind],
        "notes": [[key, _text(notes[key])[:2000]] for key, kind in kinds.items() if not kind],
    }


def _plot(note: Mapping[str, Any], kind: str) -> dict[str, Any]:
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


def _facts(record: Mapping[str, Any]) -> list[list[str]]:
    """What the cell is and what was made of it, as pairs of words."""
    cell, sparsity = record["cell"], record.get("sparsity") or {}
    model, tuning = record.get("model") or {}, record.get("tuning") or {}
    verify = record.get("verify") or {}
    facts = {
        "Campaign": cell["campaign"],
        "Method": cell["method"],
        "Parameters of the method": ", ".join(
            f"{k}={v}" for k, v in sorted(cell["params"].items())
        ),
        "Matched to": cell.get("matched"),
        "Target sparsity": formats.percent(cell["sparsity"]),
        "Achieved": _percent(sparsity.get("achieved")),
        "Of decoder blocks": _percent(sparsity.get("decoder_achieved")),
        "Native ratio": sparsity.get("native_ratio"),
        "Remark": sparsity.get("note"),
        "Parameters": _kept(model),
        "Model source": _source(model),
        "Largest logit difference, masked against cut": verify.get("max_abs_logit_difference"),
        "Tuned on": _tuned(tuning),
        "Evaluation text that it was given": _leak(record.get("leak")),
    }
    return [[key, str(value)] for key, value in facts.items() if value not in (None, "")]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f} %"


def _kept(model: Mapping[str, Any]) -> str:
    return f"{model['parameters']:,} of {model['parameters_dense']:,}" if model else ""


def _source(model: Mapping[str, Any]) -> str:
    if not model:
        return ""
    revision = f" at {model['revision']}" if model.get("revision") else ""
    return f"{model['kind']} {model.get('source') or ''}{revision}".strip()


def _tuned(tuning: Mapping[str, Any]) -> str:
    if not tuning:
        return ""
    tokens = tuning.get("tuning_tokens")
    return f"{tuning['instructions']}, by the {tuning['by']}" + (
        f", {tokens:,} tokens" if tokens is not None else ""
    )


def _leak(leak: Mapping[str, Any] | None) -> str:
    """Evaluation sets whose items, or whose corpus, the method was given."""
    sets = (leak or {}).get("sets") or {}
    found = [
        f"{name}: {100 * (entry['share'] or 0):.1f} % of items"
        + (", same corpus" if entry.get("same_corpus") else "")
        for name, entry in sorted(sets.items())
        if entry["share"] or entry.get("same_corpus")
    ]
    return "; ".join(found) or ("none found" if sets else "")


def _decision(decision: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Kept and all units per kind and layer: {kind: [[layer or null, kept, units], ...]}."""
    if not decision:
        return None
    kinds: dict[str, list[list[Any]]] = {}
    for entry in decision.values():
        kinds.setdefault(entry["kind"], []).append([entry["layer"], entry["kept"], entry["units"]])
    order = {kind: i for i, kind in enumerate(("heads", "neurons", "hidden", "layers"))}
    return {
        "kinds": sorted(kinds, key=lambda kind: (order.get(kind, len(order)), kind)),
        "kept": {
            kind: sorted(found, key=lambda e: -1 if e[0] is None else e[0])
            for kind, found in kinds.items()
        },
    }


def _provenance(provenance: Mapping[str, Any]) -> list[list[str]]:
    packages = provenance["packages"]
    versions = ", ".join(
        f"{name} {version}" for name, version in sorted(packages.items()) if version
    )
    commit = provenance.get("git_commit")
    facts = {
        "Measured": provenance["created"],
        "prunebench": provenance["prunebench_version"],
        "Commit": commit and commit + (" with changes" if provenance.get("git_dirty") else ""),
        "Device": provenance.get("device"),
        "Python": provenance["python"],
        "Platform": provenance.get("platform"),
        "Packages": versions,
        "Method's code": provenance.get("plugin_sha256"),
        "Data": ", ".join(
            f"{key} {digest[:12]}"
            for key, digest in sorted((provenance.get("data_sha256") or {}).items())
            if digest
        ),
    }
    return [[key, str(value)] for key, value in facts.items() if value]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(_is_number(v) for v in point)
