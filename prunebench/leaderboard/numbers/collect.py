"""Records into frames: one row per cell, one per number, and one per row of the tables.

Everything is sorted by content first, so that the order in which records arrive means nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.errors import Invalid
from prunebench.garbage import no_collection
from prunebench.leaderboard.numbers.quantities import (
    Quantity,
    evaluation_device,
    is_missing,
    measurements,
)
from prunebench.record import store as records_module

if TYPE_CHECKING:
    import pandas as pd

# What may be said of a row, in the order in which marks are shown.
LEAK_SHARE = 0.01  # of an evaluation set's items: less cannot move an accuracy by a point
SHARED = "shared device"  # what a profile's device line says when another process was there
MARKS = ("leak", "native", "off_target", "unverified", "shared_device", "truncated")
NUMBERS = ["value", "error", "low", "high", "difference_low", "difference_high"]
NUMBERS += ["reference_low", "reference_high"]
ROW_KEY = ["campaign", "model", "label", "method", "params", "recovery", "sparsity"]


@dataclass(frozen=True)
class Problem:
    """A file that should have been a record and is not, or a record that had to be left out."""

    path: str
    reason: str


@dataclass(frozen=True)
class Collected:
    """Records as frames; `row` and `quantity` are positions in `rows` and `quantities`.

    cells: one row per record; values: cell, row, quantity and NUMBERS, of cells that are ok only;
    rows: the groups of cells that differ only in their seed.
    """

    records: tuple[Mapping[str, Any], ...]
    cells: pd.DataFrame
    values: pd.DataFrame
    rows: pd.DataFrame
    quantities: tuple[Quantity, ...]
    problems: tuple[Problem, ...]


def load(paths: Iterable[Path], *, root: Path | None = None) -> tuple[list[dict], list[Problem]]:
    """Read records; a file that is not one becomes a Problem (named relative to `root`)."""
    records, problems = [], []
    with no_collection():  # a quarter of the time, and records have no cycles
        for path in sorted(Path(path) for path in paths):
            where = str(path.relative_to(root) if root and path.is_relative_to(root) else path)
            try:
                records.append(records_module.read(path))
            except Invalid as error:
                problems.append(Problem(where, str(error).removeprefix(f"{path}: ")))
    return records, problems


def collect(records: Iterable[Mapping[str, Any]], problems: Iterable[Problem] = ()) -> Collected:
    """Sort records, drop second records of the same cell (they become problems), build frames."""
    import pandas as pd

    kept, repeated = _one_per_cell(records)
    kept, foreign = of_one_original(kept)
    cells = pd.DataFrame([_cell(record) for record in kept], columns=CELL_COLUMNS)
    cells["row"] = cells.groupby(ROW_KEY, sort=True).ngroup()
    found = [
        (i, measurement)
        for i, record in enumerate(kept)
        if record["status"] == "ok"
        for measurement in measurements(record)
    ]
    quantities = tuple(sorted({m.quantity for _, m in found}, key=_column_order))
    position = {quantity: i for i, quantity in enumerate(quantities)}
    values = pd.DataFrame(
        [(i, position[m.quantity], *(getattr(m, name) for name in NUMBERS)) for i, m in found],
        columns=["cell", "quantity", *NUMBERS],
    ).astype(dict.fromkeys(NUMBERS, float))
    values["row"] = cells["row"].reindex(values["cell"]).to_numpy()
    return Collected(
        records=tuple(kept),
        cells=cells,
        values=values,
        rows=_rows(cells),
        quantities=quantities,
        problems=tuple(sorted({*problems, *repeated, *foreign}, key=lambda p: (p.path, p.reason))),
    )


def of_one_original(
    records: list[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Problem]]:
    """Leave out records whose model was made from other weights than the dense row's.

    One table holds one model. A folder whose weights were replaced keeps its name, and records that
    say nothing of their original (older ones) are taken as they are.
    """
    dense: dict[tuple[str, str], str] = {}
    for record in records:
        digest = (record.get("model") or {}).get("original_weights_sha256")
        if digest and record["cell"]["sparsity"] == 0 and not record["cell"]["recovery"]:
            dense[record["cell"]["campaign"], record["cell"]["model"]] = digest
    kept, problems = [], []
    for record in records:
        digest = (record.get("model") or {}).get("original_weights_sha256")
        wanted = dense.get((record["cell"]["campaign"], record["cell"]["model"]))
        if digest and wanted and digest != wanted:
            reason = (
                f"made from other weights ({digest[:12]}) than the dense row of that name "
                f"({wanted[:12]}): run the campaign again"
            )
            problems.append(Problem(cell_name(record), reason))
        else:
            kept.append(record)
    return kept, problems


def cell_name(record: Mapping[str, Any]) -> str:
    """A cell in words, for people: model / label / sparsity / seed."""
    cell = record["cell"]
    return f"{cell['model']} / {cell['label']} / {cell['sparsity']:g} / seed {cell['seed']}"


def missing_parts(record: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    """(part, status, reason) of each part of a record that was tried or wanted and is not there."""
    for name in ("verify", "export", "perplexity", "zeroshot", "profile", "cost", "leak"):
        yield from _missing(record.get(name), name)


def _column_order(quantity: Quantity) -> tuple:
    """Short windows before long ones, then the corpus with the most predictions."""
    length, tokens = (int(quantity.detail(key) or 0) for key in ("length", "tokens"))
    return quantity.kind, length, -tokens, quantity


def _missing(part: Any, name: str) -> Iterable[tuple[str, str, str]]:
    if not isinstance(part, Mapping):
        return
    if part.get("status") in ("failed", "skipped"):
        yield name, part["status"], part.get("reason") or ""
        return
    if "nll" in part and part.get("value") is None:
        yield name, "failed", "the perplexity is too large for a floating-point number"
    inner = part.get("tasks") if isinstance(part.get("tasks"), Mapping) else part
    for key, value in inner.items():
        if isinstance(value, Mapping) and not key.startswith("versus_"):
            yield from _missing(value, f"{name} {key}")
    for point in part.get("points") or ():
        yield from _missing(point, f"{name} {point.get('name')}")


CELL_COLUMNS = [
    *ROW_KEY,
    *("matched", "seed", "status", "reason", "device"),
    *("achieved", "logit_difference", "loadable_by"),
    *MARKS,
]


def _cell(record: Mapping[str, Any]) -> dict[str, Any]:
    cell, sparsity = record["cell"], record.get("sparsity") or {}
    profile, verify = record.get("profile") or {}, record.get("verify") or {}
    leak_sets = ((record.get("leak") or {}).get("sets") or {}).values()
    return {
        **{key: cell[key] for key in ROW_KEY if key != "params"},
        "params": json.dumps(cell["params"], sort_keys=True),
        "matched": cell.get("matched") or "",
        "seed": cell["seed"],
        "status": record["status"],
        "reason": record.get("reason") or "",
        "device": evaluation_device(record),
        "achieved": sparsity.get("achieved"),
        "logit_difference": verify.get("max_abs_logit_difference"),
        "loadable_by": (record.get("export") or {}).get("loadable_by"),
        "leak": any(
            entry.get("same_corpus") or (entry.get("share") or 0) >= LEAK_SHARE
            for entry in leak_sets
        ),
        "native": bool(sparsity.get("native") or cell["params"].get("native") is True),
        "off_target": sparsity.get("within_tolerance") is False,
        "unverified": not is_missing(verify) and verify.get("passed") is False,
        "shared_device": profile.get("shared_device") is True
        or SHARED in (profile.get("device") or ""),
        "truncated": bool(truncated(record)),
    }


def truncated(record: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Evaluation set -> (inputs that did not fit and lost a part, all inputs)."""
    parts = dict(record.get("perplexity") or {}) | (
        (record.get("zeroshot") or {}).get("tasks") or {}
    )
    return {
        name: (part["truncated"], part["items"])
        for name, part in parts.items()
        if not is_missing(part) and part.get("truncated")
    }


def _one_per_cell(records: Iterable[Mapping[str, Any]]) -> tuple[list, list[Problem]]:
    """One record per cell: ok before others, then the newest, then by digest."""
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for record in records:
        cell = record["cell"]
        key = tuple(cell[name] for name in ROW_KEY if name != "params")
        key = (*key, json.dumps(cell["params"], sort_keys=True), cell["seed"])
        groups.setdefault(key, []).append(record)
    problems = []
    for key, members in groups.items():
        if len(members) > 1:
            groups[key] = members = _by_preference(members)
            reason = "another record of the same cell; the newest one that is ok is shown"
            problems += [Problem(cell_name(record), reason) for record in members[1:]]
    return [groups[key][0] for key in sorted(groups)], problems


def _by_preference(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records of one cell that differ, the one to be shown first."""
    digests = {records_module.checksum(record): record for record in records}

    def order(digest: str) -> tuple:
        record = digests[digest]
        return record["status"] != "ok", _reversed(record["provenance"]["created"]), digest

    return [digests[digest] for digest in sorted(digests, key=order)]


def _reversed(text: str) -> tuple[int, ...]:
    """A sort key that puts the last text first."""
    return tuple(-ord(character) for character in text)


def _rows(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per group of seeds: its key, its name, counts, marks, and whether it is ranked."""
    groups = cells.groupby("row", sort=True)
    rows = groups[[*ROW_KEY, "matched"]].first()
    for status in ("ok", "failed", "skipped"):
        rows[status] = (cells["status"] == status).groupby(cells["row"]).sum()
    measured = cells[cells["status"] == "ok"]
    rows["achieved"] = measured["achieved"].astype(float).groupby(measured["row"]).mean()
    worst = measured["logit_difference"].astype(float).groupby(measured["row"]).max()
    rows["logit_difference"] = worst
    loaders = measured["loadable_by"].dropna().groupby(measured["row"])
    rows["loadable_by"] = loaders.agg(lambda names: " or ".join(sorted(set(names), reverse=True)))
    for mark in MARKS:
        rows[mark] = cells[mark].astype(bool).groupby(cells["row"]).any()
    rows["ranked"] = (rows["sparsity"] > 0) & ~rows["off_target"] & ~rows["unverified"]
    rows["name"] = _names(rows)
    return rows


def _names(rows: pd.DataFrame) -> list[str]:
    """The label, and what tells its rows apart where one label has several at one sparsity."""
    shared = Counter(zip(rows.campaign, rows.model, rows.label, rows.sparsity, strict=True))
    names = []
    for row in rows.itertuples():
        name = row.label
        if shared[row.campaign, row.model, row.label, row.sparsity] > 1:
            name += f" ({row.method}{', recovery' if row.recovery else ''}, {row.params})"
        names.append(name)
    return names
