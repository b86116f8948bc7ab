"""Layers that stay whole: the first and the last hurt most when they are pruned."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prunebench.errors import Unsupported
from prunebench.pruning.structure import Structure

PAPER_LAYERS, PAPER_FIRST, PAPER_LAST = 32, 4, 2
"""LLM-Pruner prunes layers 4..29 of LLaMA-7B's 32, in its random and magnitude rows too."""


REASONS = {
    "hidden": "channels of a LayerNorm cannot leave exactly",
    "layers": "where the sum is normalised, as in OPT-350m, no layer passes its input on unchanged",
    "experts": "only a mixture of experts has them",
}
"""Why a model has no structure of a kind."""


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
    layers = open_layers(depth(structures), protect_first, protect_last)
    return {
        name: structure
        for name, structure in structures.items()
        if structure.kind in kinds and (structure.layer is None or structure.layer in layers)
    }


def depth(structures: Mapping[str, Structure]) -> int:
    """Number of decoder layers, also of models that cannot lose any."""
    return 1 + max(s.layer for s in structures.values() if s.layer is not None)


def require(structures: Mapping[str, Structure], kinds: Collection[str]) -> None:
    """Raise Unsupported, with the reason, unless the model has structures of all these kinds."""
    known = dict.fromkeys(structure.kind for structure in structures.values())
    absent = [kind for kind in kinds if kind not in known]
    if absent:
        why = "; ".join(REASONS.get(kind, f"no model has {kind}") for kind in absent)
        raise Unsupported(
            f"this model's {', '.join(absent)} cannot be pruned, only its {', '.join(known)}: "
            f"{why} (docs/adding-a-model.md)"
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
