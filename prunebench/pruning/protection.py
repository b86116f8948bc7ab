"""Layers that stay whole: the first and the last hurt most when they are pruned."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prunebench.errors import Unsupported
from prunebench.pruning.structure import Structure

PAPER_LAYERS, PAPER_FIRST, PAPER_LAST = 32, 4, 2
"""LLM-Pruner prunes layers 4..29 of LLaMA-7B's 32, in its random and magnitude rows too."""


def unprotected(
    structures: Mapping[str, Structure],
    kinds: Collection[str],
    *,
    protect_first: int | str = "auto",
    protect_last: int | str = "auto",
) -> dict[str, Structure]:
    """Structures of these kinds that may lose units; those that span all layers always may.

    protect_first, protect_last  number of layers that stay whole; "auto": 4 and 2 of 32, in
    proportion and rounded (so that models of few layers keep the spirit). Raises Unsupported when
    no layer is left, or the model has nothing of a kind.
    """
    require(structures, kinds)
    layers = open_layers(structures["layers"].units, protect_first, protect_last)
    return {
        name: structure
        for name, structure in structures.items()
        if structure.kind in kinds and (structure.layer is None or structure.layer in layers)
    }


def require(structures: Mapping[str, Structure], kinds: Collection[str]) -> None:
    """Raise Unsupported, with the reason, unless the model has structures of all these kinds."""
    known = dict.fromkeys(structure.kind for structure in structures.values())
    absent = [kind for kind in kinds if kind not in known]
    if absent:
        raise Unsupported(
            f"this model's {', '.join(absent)} cannot be pruned, only its {', '.join(known)}: "
            "channels of a LayerNorm cannot leave exactly (docs/adding-a-model.md)"
        )


def open_layers(total: int, first: int | str, last: int | str) -> range:
    """Layers between the protected ones. Raises Unsupported when none is left."""
    start = _count(first, PAPER_FIRST, total)
    end = total - _count(last, PAPER_LAST, total)
    if start >= end:
        raise Unsupported(
            f"protect_first {start} and protect_last {total - end} leave none of {total} layers"
        )
    return range(start, end)


def _count(given: int | str, paper: int, total: int) -> int:
    """A number of layers; `auto` is the paper's share of them, rounded (halves to even)."""
    return round(total * paper / PAPER_LAYERS) if given == "auto" else int(given)
