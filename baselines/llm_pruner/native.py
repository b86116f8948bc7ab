"""LLM-Pruner's own ratios behind the sparsities of its tables."""

from __future__ import annotations

from prunebench import Unsupported
from prunebench.untyped import JsonMap

PAPER_RATIOS = {0.2: 0.25, 0.5: 0.60}
"""Sparsity in the paper's tables -> ratio in block mode (0.60 goes with layers 3..30)."""


def native_ratio(params: JsonMap, sparsity: float) -> float:
    """The ratio that is given, or else the one behind the paper's rows of this sparsity."""
    if params["ratio"] is not None:
        return float(params["ratio"])
    if params["mode"] != "block" or sparsity == 0.0:
        return sparsity
    if sparsity not in PAPER_RATIOS:
        known = ", ".join(map(str, PAPER_RATIOS))
        raise Unsupported(
            f"the paper has no block-wise setting for sparsity {sparsity} (it has {known}): "
            "give params.ratio"
        )
    return PAPER_RATIOS[sparsity]
