"""Records into frames: one row per cell, one per number, and one per row of the tables.

Everything is sorted by content first, so that the order in which records arrive means nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.garbage import no_collection
from prunebench.leaderboard.numbers.losses import truncated
from prunebench.leaderboard.numbers.measurements import evaluation_device, measurements
from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.numbers.rows import TableRow, rows_of
from prunebench.record import store
from prunebench.record.form import Record
from prunebench.record.parts import there

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
    rows: the groups of cells that differ only in their seed. majorities: what always giving the
    most frequent right answer gets, by quantity, where a record says so.
    """

    records: tuple[Record, ...]
    cells: pd.DataFrame
    values: pd.DataFrame
    rows: pd.DataFrame
    quantities: tuple[Quantity, ...]
    problems: tuple[Problem, ...]
    majorities: Mapping[int, float]

    @cached_property
    def table(self) -> tuple[TableRow, ...]:
        """`rows` as typed values, in their order."""
        return tuple(rows_of(self.rows))


def read_records(
    paths: Iterable[Path], *, root: Path | None = None
) -> tuple[list[Record], list[Problem]]:
    """Read records; a file that is not one becomes a Problem (named relative to `root`)."""
    records, problems = [], []
    with no_collection():  # a quarter of the time, and records have no cycles
        for path in sorted(Path(path) for path in paths):
            where = str(path.relative_to(root) if root and path.is_relative_to(root) else path)
            try:
                records.append(store.read(path))
            except Invalid as error:
                problems.append(Problem(where, str(error).removeprefix(f"{path}: ")))
    return records, problems


def collect(records: Iterable[Record], problems: Iterable[Problem] = ()) -> Collected:
    """Sort records, drop second records of the same cell (they become problems), build frames."""
    import pandas as pd

    kept, repeated = _one_per_cell(records)
    kept, foreign = of_one_original(kept)
    cells = pd.DataFrame([_cell(record) for record in kept], columns=CELL_COLUMNS)
    cells["row"] = cells.groupby(ROW_KEY, sort=True).ngroup()
    found = [
        (i, measurement)
        for i, record in enumerate(kept)
        if record.status == "ok"
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
        majorities={position[m.quantity]: m.majority for _, m in found if m.majority is not None},
    )


def of_one_original(
    records: list[Record],
) -> tuple[list[Record], list[Problem]]:
    """Leave out records whose model was made from other weights than the dense row's.

    One table holds one model. A folder whose weights were replaced keeps its name, and records that
    say nothing of their original (older ones) are taken as they are.
    """
    dense: dict[tuple[str, str], str] = {}
    for record in records:
        cell, digest = record.cell, _original(record)
        if digest and cell.sparsity == 0 and not cell.recovery:
            dense[cell.campaign, cell.model] = digest
    kept, problems = [], []
    for record in records:
        digest = _original(record)
        wanted = dense.get((record.cell.campaign, record.cell.model))
        if digest and wanted and digest != wanted:
            reason = (
                f"made from other weights ({digest[:12]}) than the dense row of that name "
                f"({wanted[:12]}): run the campaign again"
            )
            problems.append(Problem(cell_name(record), reason))
        else:
            kept.append(record)
    return kept, problems


def _original(record: Record) -> str | None:
    return record.model.original_weights_sha256 if record.model else None


def cell_name(record: Record) -> str:
    """A cell in words, for people: model / label / sparsity / seed."""
    cell = record.cell
    return f"{cell.model} / {cell.label} / {cell.sparsity:g} / seed {cell.seed}"


def _column_order(quantity: Quantity) -> tuple[str, int, int, Quantity]:
    """Short windows before long ones, then the corpus with the most predictions."""
    length, tokens = (int(quantity.detail(key) or 0) for key in ("length", "tokens"))
    return quantity.kind, length, -tokens, quantity


CELL_COLUMNS = [
    *ROW_KEY,
    *("matched", "step", "seed", "status", "reason", "device", "series"),
    *("sparsity_of", "achieved", "decoder_achieved", "logit_difference", "loadable_by"),
    *MARKS,
]


def _cell(record: Record) -> dict[str, object]:
    cell, sparsity = record.cell, record.sparsity
    profile, verify, export = there(record.profile), there(record.verify), there(record.export)
    leak = there(record.leak)
    return {
        **{key: getattr(cell, key) for key in ROW_KEY if key != "params"},
        "params": json.dumps(cell.params, sort_keys=True),
        "matched": cell.matched or "",
        "step": cell.step,
        "seed": cell.seed,
        "status": record.status,
        "reason": record.reason or "",
        "device": evaluation_device(record),
        "series": (profile.series if profile else None) or "",
        "sparsity_of": cell.sparsity_of,
        "achieved": sparsity.achieved if sparsity else None,
        "decoder_achieved": sparsity.decoder_achieved if sparsity else None,
        "logit_difference": verify.max_abs_logit_difference if verify else None,
        "loadable_by": export.loadable_by if export else None,
        "leak": any(
            entry.same_corpus or (entry.share or 0) >= LEAK_SHARE
            for entry in (leak.sets if leak else {}).values()
        ),
        "native": bool(sparsity and sparsity.native),
        "off_target": sparsity is not None and sparsity.within_tolerance is False,
        "unverified": verify is not None and not verify.passed,
        "shared_device": profile is not None
        and (profile.shared_device is True or SHARED in profile.device),
        "truncated": bool(truncated(record)),
    }


def _one_per_cell(records: Iterable[Record]) -> tuple[list[Record], list[Problem]]:
    """One record per cell: ok before others, then the newest, then by digest."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        cell = record.cell
        own = (getattr(cell, name) for name in ROW_KEY if name != "params")
        key = (*own, json.dumps(cell.params, sort_keys=True), cell.seed)
        groups.setdefault(key, []).append(record)
    problems = []
    for key, members in groups.items():
        if len(members) > 1:
            groups[key] = members = _by_preference(members)
            reason = "another record of the same cell; the newest one that is ok is shown"
            problems += [Problem(cell_name(record), reason) for record in members[1:]]
    return [groups[key][0] for key in sorted(groups)], problems


def _by_preference(records: Iterable[Record]) -> list[Record]:
    """Records of one cell that differ, the one to be shown first."""
    digests = {store.checksum(record): record for record in records}

    def order(digest: str) -> tuple[bool, tuple[int, ...], str]:
        record = digests[digest]
        return record.status != "ok", _reversed(record.provenance.created), digest

    return [digests[digest] for digest in sorted(digests, key=order)]


def _reversed(text: str) -> tuple[int, ...]:
    """A sort key that puts the last text first."""
    return tuple(-ord(character) for character in text)


def _rows(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per group of seeds: its key, its name, counts, marks, and whether it is ranked."""
    groups = cells.groupby("row", sort=True)
    rows = groups[[*ROW_KEY, "matched", "step", "sparsity_of"]].first()
    for status in ("ok", "failed", "skipped"):
        rows[status] = (cells["status"] == status).groupby(cells["row"]).sum()
    measured = cells[cells["status"] == "ok"]
    for share in ("achieved", "decoder_achieved"):
        rows[share] = measured[share].astype(float).groupby(measured["row"]).mean()
    worst = measured["logit_difference"].astype(float).groupby(measured["row"]).max()
    rows["logit_difference"] = worst
    loaders = measured["loadable_by"].dropna().groupby(measured["row"])
    joined = loaders.agg(lambda names: " or ".join(sorted(set(names), reverse=True)))
    rows["loadable_by"] = joined.reindex(rows.index).fillna("")
    rows["series"] = cells["series"].groupby(cells["row"]).max()  # "" of seeds without a profile
    for mark in MARKS:
        rows[mark] = cells[mark].astype(bool).groupby(cells["row"]).any()
    rows["ranked"] = (rows["sparsity"] > 0) & ~rows["off_target"] & ~rows["unverified"]
    rows["name"] = _names(rows)
    return rows


def _names(rows: pd.DataFrame) -> list[str]:
    """The label, and what tells its rows apart where one label has several at one sparsity."""
    places = list(zip(rows.campaign, rows.model, rows.label, rows.sparsity, strict=True))
    shared = Counter(places)
    told_apart = zip(rows.label, rows.method, rows.recovery, rows.params, strict=True)
    return [
        f"{label} ({method}{', recovery' if recovery else ''}, {params})"
        if shared[place] > 1
        else str(label)
        for place, (label, method, recovery, params) in zip(places, told_apart, strict=True)
    ]
