"""The rows of a campaign's table: its methods with parameters, with and without recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunebench.errors import Invalid
from prunebench.plugins.discovery import Plugin


@dataclass(frozen=True)
class Row:
    """One row of the table: a method with its parameters, with or without recovery.

    `pruned_as` names the folder of the pruning job; rows that differ only in recovery share it.
    `sparsities` and `seeds` are the row's own; None: the campaign's.
    `matched` is the `pruned_as` of another row, whose numbers of kept units this one takes.
    """

    label: str
    pruned_as: str
    method: str
    params: Mapping[str, Any]
    recovery: bool
    multiple_of: Mapping[str, int]
    sparsities: tuple[float, ...] | None = None
    seeds: tuple[int, ...] | None = None
    matched: str | None = None


def build_rows(
    raw: Mapping[str, Any], plugins: Mapping[str, Plugin], *, recovery: bool, file: str
) -> dict[str, Row]:
    """Rows by label, from a campaign's `methods`; the unpruned one is added if it is not there.

    recovery  whether the campaign has recovery settings
    Raises Invalid naming `file` and key.
    """
    references = sorted(name for name, plugin in plugins.items() if plugin.reference)
    entries = [{"name": m} if isinstance(m, str) else m for m in raw["methods"]]
    places = [(f"{file}: methods[{i}]", entry) for i, entry in enumerate(entries)]
    if not any(e["name"] in references and e.get("recovery") != "after" for e in entries):
        places.insert(0, (file, {"name": references[0], "recovery": "none"}))
    rows: dict[str, Row] = {}
    for where, entry in places:
        for row in _variants(entry, plugins, recovery, raw, where):
            if row.label in rows:
                raise Invalid(f"{where}: label {row.label!r} is already taken: give another")
            rows[row.label] = row
    for where, entry in places:
        _check_matched(entry, rows, references, where)
    return rows


def _check_matched(
    entry: Mapping[str, Any], rows: Mapping[str, Row], references: list[str], where: str
) -> None:
    """A row can be matched to one that decides by itself, and prunes."""
    if (target := entry.get("matched")) is None:
        return
    known = [r.pruned_as for r in rows.values() if r.method not in references and not r.matched]
    if target not in known:
        names = ", ".join(dict.fromkeys(known))
        raise Invalid(f"{where}.matched: no row {target!r} to be matched to; known: {names}")


def _variants(
    entry: Mapping[str, Any],
    plugins: Mapping[str, Plugin],
    recovery: bool,
    raw: Mapping[str, Any],
    where: str,
) -> list[Row]:
    name = entry["name"]
    if name not in plugins:
        raise Invalid(f"{where}.name: unknown method {name!r}; known: {', '.join(sorted(plugins))}")
    plugin = plugins[name]
    wish = entry.get("recovery")
    if wish in ("after", "both") and not recovery:
        raise Invalid(f"{where}.recovery: {wish!r} needs the campaign's `recovery` settings")
    if wish in ("after", "both") and plugin.tunes_itself:
        raise Invalid(f"{where}.recovery: {name} tunes by itself, recovery after it is not offered")
    if entry.get("matched") is not None and (plugin.tunes_itself or plugin.reference):
        raise Invalid(f"{where}.matched: {name} does not choose units by scores alone")
    if plugin.tunes_itself and not recovery:
        raise Invalid(f"{where}: {name} tunes by itself; the campaign needs `recovery` settings")
    default = "none" if plugin.tunes_itself or plugin.reference or not recovery else "after"
    wish = wish or default
    matched = entry.get("matched")
    label = entry.get("label", name if matched is None else f"{name}_matched-{matched}")
    params = plugin.params(entry.get("params", {}), where=f"{where}.params")
    multiple_of = entry.get("multiple_of", raw.get("multiple_of", {}))
    sparsities = tuple(sorted(entry["sparsities"])) if "sparsities" in entry else None
    if sparsities and plugin.reference:
        raise Invalid(f"{where}.sparsities: {name} prunes nothing, it has none")
    seeds = tuple(entry["seeds"]) if "seeds" in entry else None
    stages = {"none": [False], "after": [True], "both": [False, True]}[wish]
    return [
        Row(
            label=f"{label}+lora" if tuned else label,
            pruned_as=label,
            method=name,
            params=params,
            recovery=tuned,
            multiple_of=multiple_of,
            sparsities=sparsities,
            seeds=seeds,
            matched=matched,
        )
        for tuned in stages
    ]
