"""Fold the HSMs of a trained model into the weights that write into the residual stream."""

from __future__ import annotations

import torch
from torch import nn

from prunebench import Failure, Unsupported
from prunebench.pruning.structure import Decision, Structure
from prunebench.pruning.surgery import in_double, logits, masked
from prunebench.untyped import Module

from .sparsifier import HSM, Sparsifier

TOLERANCE = 1e-4  # fp32, per unit of the largest logit (at least 1), as for merging LoRA


def check_writers(model: nn.Module, structure: Structure) -> None:
    """Raise Unsupported unless everything that writes into the stream can have an HSM folded in."""
    for gate in structure.gates:
        if not isinstance(model.get_submodule(gate.module), (nn.Linear, nn.Embedding)):
            raise Unsupported(
                f"pat: {gate.module} writes into the residual stream and is no Linear, so that an "
                "HSM cannot be folded into it: mixtures of experts are not supported"
            )


@torch.no_grad()
def fold(model: nn.Module, sparsifier: Sparsifier) -> None:
    """W <- T W and b <- T b in every writer, E <- E T^T in the embedding, at full width.

    The product is in fp64, the cast comes last. Gates are not folded: what they close, the suite
    cuts off, and it corrects the norms then. LoRA must be merged before.
    """
    for name, hsm in zip(sparsifier.writers, sparsifier.hsms, strict=True):
        if hsm is not None:
            _fold_one(model.get_submodule(name), hsm)


def _fold_one(writer: Module, hsm: HSM) -> None:
    matrix = hsm.matrix()
    for name in ("weight", "bias"):
        old = getattr(writer, name, None)
        if old is None:
            continue
        transposed = isinstance(writer, nn.Embedding)  # its rows are outputs, not columns
        wide = old.double()
        old.copy_(wide @ matrix.T if transposed else matrix @ wide)


def check(
    model: Module,
    structure: Structure,
    decision: Decision,
    tokens: torch.Tensor,
    live: torch.Tensor,
) -> dict[str, float | None]:
    """Compare the folded, masked model with the logits `live` [batch, length, vocabulary].

    `live` are those of the trained model on `tokens`, LoRA and HSMs apart and gates hard. Both are
    in float64 where the suite can (`in_double`), for a deep model that training has unsettled
    amplifies float32's rounding. Returns the largest difference and its tolerance (None unless the
    weights are fp32). Raises Failure.
    """
    gates = masked(model, decision, structures={structure.name: structure})
    with gates, in_double(model):
        folded = logits(model, tokens)
    difference = (folded - live).abs().max().item()
    is_fp32 = next(model.parameters()).dtype == torch.float32
    tolerance = TOLERANCE * max(1.0, live.abs().max().item()) if is_fp32 else None
    if tolerance is not None and not difference <= tolerance:
        raise Failure(
            f"pat: folding moved logits by {difference:.3g}, expected at most {tolerance:.3g} in "
            "fp32; the folded weights are not those that were tuned"
        )
    return {"fold_max_abs_logit_difference": difference, "fold_tolerance": tolerance}
