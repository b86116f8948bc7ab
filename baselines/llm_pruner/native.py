"""LLM-Pruner's own bookkeeping: how many units its ratio removes from each structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunebench.errors import Unsupported
from prunebench.saliency import weight_couplings
from prunebench.structure import Structure

PAPER_RATIOS = {0.2: 0.25, 0.5: 0.60}
"""Sparsity in the paper's tables -> ratio in block mode (0.60 goes with layers 3..30)."""


def native_ratio(params: Mapping[str, Any], sparsity: float) -> float:
    """The ratio that is given, or else the one behind the paper's rows of this sparsity."""
    if params["ratio"] is not None:
        return params["ratio"]
    if params["mode"] != "block" or sparsity == 0.0:
        return sparsity
    if sparsity not in PAPER_RATIOS:
        known = ", ".join(map(str, PAPER_RATIOS))
        raise Unsupported(
            f"the paper has no block-wise setting for sparsity {sparsity} (it has {known}): "
            "give params.ratio"
        )
    return PAPER_RATIOS[sparsity]


def native_removed(structures: Mapping[str, Structure], ratio: float) -> dict[str, int]:
    """Units that leave each structure: C - int(C (1 - ratio)) of C channels, in whole heads.

    Heads are counted in channels of the key projection, so a unit under GQA is a KV head with its
    query heads; what is not a whole head stays.
    """
    removed = {}
    for name, structure in structures.items():
        width = min((c.width for c in weight_couplings(structure)), default=1)
        channels = structure.units * width
        removed[name] = (channels - int(channels * (1 - ratio))) // width
    return removed
