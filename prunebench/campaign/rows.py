"""The rows of a campaign's table: its methods with parameters, with and without recovery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from prunebench.campaign.parts import CampaignFile, MethodEntry
from prunebench.errors import Invalid
from prunebench.plugins.discovery import Plugin, Plugins


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
    params: Mapping[str, JsonValue]
    recovery: bool
    multiple_of: Mapping[str, int]
    sparsities: tuple[float, ...] | None = None
    seeds: tuple[int, ...] | None = None
    matched: str | None = None


def build_rows(given: CampaignFile, plugins: Plugins, *, file: str) -> dict[str, Row]:
    """Rows by label, from a campaign's `methods`; the unpruned one is added if it is not there.

    Raises Invalid naming `file` and key.
    """
    unpruned = sorted(name for name, plugin in plugins.items() if plugin.unpruned)
    places = [(f"{file}: methods[{i}]", entry) for i, entry in enumerate(given.methods)]
    if not any(e.name in unpruned and e.recovery != "after" for _, e in places):
        places.insert(0, (file, MethodEntry(name=unpruned[0], recovery="none")))
    rows: dict[str, Row] = {}
    for where, entry in places:
        for row in _variants(entry, plugins, given, where):
            if row.label in rows:
                raise Invalid(f"{where}: label {row.label!r} is already taken: give another")
            rows[row.label] = row
    for where, entry in places:
        _check_matched(entry, rows, unpruned, where)
    return rows


def _check_matched(
    entry: MethodEntry, rows: Mapping[str, Row], unpruned: list[str], where: str
) -> None:
    """A row can be matched to one that decides by itself, and prunes."""
    if (target := entry.matched) is None:
        return
    known = [r.pruned_as for r in rows.values() if r.method not in unpruned and not r.matched]
    if target not in known:
        names = ", ".join(dict.fromkeys(known))
        raise Invalid(f"{where}.matched: no row {target!r} to be matched to; known: {names}")


def _variants(entry: MethodEntry, plugins: Plugins, given: CampaignFile, where: str) -> list[Row]:
    """The row of an entry, or two where it is wanted with recovery and without."""
    name, matched = entry.name, entry.matched
    if name not in plugins:
        raise Invalid(f"{where}.name: {plugins.why_not(name)}")
    plugin = plugins[name]
    recovery = given.recovery is not None
    _check_recovery(entry, plugin, recovery, where)
    if matched is not None and (plugin.tunes_itself or plugin.unpruned):
        raise Invalid(f"{where}.matched: {name} does not choose units by scores alone")
    if entry.sparsities and plugin.unpruned:
        raise Invalid(f"{where}.sparsities: {name} prunes nothing, it has none")
    default = "none" if plugin.tunes_itself or plugin.unpruned or not recovery else "after"
    label = entry.label or (name if matched is None else f"{name}_matched-{matched}")
    stages = {"none": [False], "after": [True], "both": [False, True]}[entry.recovery or default]
    return [
        Row(
            label=f"{label}+lora" if tuned else label,
            pruned_as=label,
            method=name,
            params=plugin.params(entry.params, where=f"{where}.params"),
            recovery=tuned,
            multiple_of=(entry.multiple_of or given.multiple_of).given(),
            sparsities=tuple(sorted(entry.sparsities)) if entry.sparsities else None,
            seeds=entry.seeds,
            matched=matched,
        )
        for tuned in stages
    ]


def _check_recovery(entry: MethodEntry, plugin: Plugin, recovery: bool, where: str) -> None:
    if entry.recovery in ("after", "both"):
        if not recovery:
            need = "needs the campaign's `recovery` settings"
            raise Invalid(f"{where}.recovery: {entry.recovery!r} {need}")
        if plugin.tunes_itself:
            why = "tunes by itself, recovery after it is not offered"
            raise Invalid(f"{where}.recovery: {plugin.name} {why}")
    if plugin.tunes_itself and not recovery:
        why = "tunes by itself; the campaign needs `recovery` settings"
        raise Invalid(f"{where}: {plugin.name} {why}")
