"""Decisions about any model: uneven ones, so that layers differ, and even ones."""

from __future__ import annotations

from collections.abc import Mapping

from prunebench.pruning.structure import Structure

Keep = dict[str, tuple[int, ...]]


def unevenly(structures: Mapping[str, Structure], kinds: tuple[str, ...]) -> Keep:
    """Units of these kinds leave, other ones and other numbers in each layer, some from the middle.

    A structure that can lose nothing is left out, as is every third layer.
    """
    keep: Keep = {}
    for name, structure in structures.items():
        units, least = structure.units, structure.least
        if structure.kind not in kinds or units <= least or (structure.layer or 0) % 3 == 2:
            continue
        if structure.kind == "layers":
            keep[name] = tuple(i for i in range(units) if i != 1)
        elif structure.layer == 1:  # the first ones, and one more from the middle
            keep[name] = tuple(i for i in range(max(1, units // 8), units) if i != units // 2)
            keep[name] = keep[name] if len(keep[name]) >= least else tuple(range(units - least))
        else:
            keep[name] = tuple(range(max(1, min(units // 8, units - least)), units))
    return keep


def evenly(structures: Mapping[str, Structure]) -> dict[str, Keep]:
    """Kind -> a decision by which every structure of the kind loses its first unit."""
    by_kind: dict[str, Keep] = {}
    for name, structure in structures.items():
        if structure.units > structure.least:
            by_kind.setdefault(structure.kind, {})[name] = tuple(range(1, structure.units))
    return by_kind
