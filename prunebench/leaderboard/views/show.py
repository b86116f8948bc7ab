"""One record for a person: what the cell is, what was measured and what not, where it is from."""

from __future__ import annotations

from prunebench.leaderboard.numbers.collect import cell_name
from prunebench.leaderboard.numbers.losses import missing_parts
from prunebench.leaderboard.numbers.measurements import measurements
from prunebench.leaderboard.numbers.quantities import KINDS
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.described import cell_facts, described, kept_units, origin
from prunebench.record.form import Record
from prunebench.untyped import JsonMap, Plain


def record_text(record: Record) -> str:
    """The record as a few short tables."""
    reason = f": {record.reason}" if record.reason else ""
    log = f"; log: {record.log}" if record.log else ""
    blocks = [formats.one_line(f"{cell_name(record)}: {record.status}{reason}{log}")]
    blocks.append(_pairs(cell_facts(record)))
    if record.status == "ok":
        blocks.append(_numbers(record))
    if decision := kept_units(record.decision):
        blocks.append(_kept(decision))
    if missing := list(missing_parts(record)):
        blocks.append("Missing\n" + _grid(missing))
    blocks.append("Provenance\n" + _pairs(origin(record.provenance)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def _numbers(record: Record) -> str:
    lines = []
    for found in sorted(measurements(record), key=lambda m: m.quantity):
        unit = KINDS[found.quantity.kind].unit
        shown = described(found.quantity)
        error = "" if found.error is None else f"± {formats.plain(found.error, unit)}"
        value = f"{formats.plain(found.value, unit)} {shown['unit']}".strip()
        lines.append((shown["title"], value, error, formats.shorten(shown["protocol"], 80)))
    return "Numbers (± error within the run)\n" + _grid(lines)


def _kept(decision: JsonMap) -> str:
    lines = [
        (kind, "" if layer is None else f"layer {layer}", f"{kept} of {units}")
        for kind in decision["kinds"]
        for layer, kept, units in decision["kept"][kind]
    ]
    return "Kept units\n" + _grid(lines)


def _pairs(facts: Plain) -> str:
    return _grid([(name, formats.one_line(text)) for name, text in facts])


def _grid(lines: Plain) -> str:
    from tabulate import tabulate

    cleaned = [[formats.one_line(text) for text in line] for line in lines]
    return tabulate(cleaned, tablefmt="plain", disable_numparse=True)
