"""The tables as data with every digit: rows x quantities, and cells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prunebench.leaderboard.numbers.collect import MARKS, ROW_KEY, Collected
from prunebench.leaderboard.numbers.quantities import KINDS
from prunebench.leaderboard.numbers.rows import TableRow
from prunebench.record.store import as_mapping
from prunebench.untyped import Plain

if TYPE_CHECKING:
    import pandas as pd

STATISTICS = (
    *("n", "mean", "sd", "error", "low", "high", "interval"),
    *("difference", "difference_low", "difference_high", "difference_interval"),
    *("reference_difference", "reference_difference_low", "reference_difference_high"),
    *("reference_difference_interval", "rank", "best"),
)
# Maps whose keys are not the schema's: one column each, as JSON.
OPEN_MAPS = ("cell.params",)
# What is no single number, or text of the model's: read it in the record.
LEFT_OUT = re.compile(
    r"decision|method_notes|tuning\.loss|texts\.texts"
    r"|(zeroshot|generation)\.tasks\..+\.(prompt|generated\.(samples|stop))"
)


def leaderboard_frame(collected: Collected, summary: pd.DataFrame) -> pd.DataFrame:
    """One line per row and quantity; a row without results has one line with empty numbers.

    `n` is the number of values, `cells_ok` of cells; `sd` is over seeds, `item_stderr` within a
    run; `low`..`high` is the mean's 95 % interval and `interval` its origin.
    """
    import pandas as pd

    rows = collected.rows.drop(columns=["ranked"])
    rows = rows.rename(columns={s: f"cells_{s}" for s in ("ok", "failed", "skipped")})
    rows["marks"] = [_marks(row) for row in collected.table]
    rows["reasons"] = _reasons(collected)
    quantities = pd.DataFrame(
        [
            {
                "kind": quantity.kind,
                "of": quantity.name,
                "unit": KINDS[quantity.kind].unit,
                "better": KINDS[quantity.kind].better,
                "device": quantity.device,
                "protocol": "; ".join(f"{key}={value}" for key, value in quantity.details),
            }
            for quantity in collected.quantities
        ],
        columns=["kind", "of", "unit", "better", "device", "protocol"],
    )
    joined = rows.reset_index().merge(summary, on="row", how="left")
    joined = joined.merge(quantities, left_on="quantity", right_index=True, how="left")
    first = [*ROW_KEY, "achieved", "cells_ok", "cells_failed", "cells_skipped", "reasons", "marks"]
    frame = joined[[*first, *quantities.columns, *STATISTICS]]
    whole = {"n": "Int64", "rank": "Int64"}
    return frame.astype(whole).rename(columns={"error": "item_stderr"})


def cells_frame(collected: Collected) -> pd.DataFrame:
    """One line per record: each number and text of it under its dotted key, `cell.*` first."""
    import pandas as pd

    flat = [dict(_leaves(as_mapping(record), "")) for record in collected.records]
    keys = {key for leaves in flat for key in leaves}
    return pd.DataFrame(flat, columns=sorted(keys, key=_column_order), dtype=object)


def csv_text(frame: pd.DataFrame) -> str:
    """CSV with full precision; missing is empty."""
    return frame.to_csv(index=False, lineterminator="\n")


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """The same table for programs, as a Parquet file."""
    import io

    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def _marks(row: TableRow) -> str:
    return " ".join(mark for mark in MARKS if getattr(row, mark))


def _reasons(collected: Collected) -> pd.Series:
    lost = collected.cells[collected.cells["status"] != "ok"]
    texts = lost["status"] + ": " + lost["reason"]
    groups = texts.groupby(lost["row"])
    joined = groups.agg(lambda found: " | ".join(sorted(set(found))))
    return joined.reindex(collected.rows.index).fillna("")


def _leaves(value: Plain, key: str) -> Iterator[tuple[str, Plain]]:
    if LEFT_OUT.fullmatch(key):
        return
    if key in OPEN_MAPS:
        yield key, json.dumps(value, sort_keys=True)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            name = item.get("name", position) if isinstance(item, Mapping) else position
            yield from _leaves(item, f"{key}.{name}")
    else:
        yield key, value


def _column_order(key: str) -> tuple[int, str]:
    first = ("cell.", "status", "reason", "sparsity.")
    return next((i for i, start in enumerate(first) if key.startswith(start)), len(first)), key
