"""magnitude: structured L1 or L2 norm of all the weights that leave with a unit."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context
from prunebench.pruning.structure import Decision, Structure


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score units by the norm of their weights and remove the lowest."""
    norm, per_weight = ctx.params["norm"], ctx.params["per_weight"]
    scores = {
        name: unit_norms(model, structure, norm=norm, per_weight=per_weight)
        for name, structure in ctx.prunable(ctx.params["kinds"]).items()
    }
    return ctx.select(scores, scope=ctx.params["scope"])


@torch.no_grad()
def unit_norms(
    model: PreTrainedModel, structure: Structure, *, norm: str, per_weight: bool
) -> Tensor:
    """Norm [units] over the weights of each unit, biases and normalisation gains left out."""
    power = 1 if norm == "l1" else 2
    total = torch.zeros(structure.units, dtype=torch.float64)
    size = 0
    for coupling in structure.couplings:
        weight = model.get_parameter(coupling.parameter)
        if weight.dim() < 2:
            continue
        other = [dim for dim in range(weight.dim()) if dim != coupling.dim]
        channels = weight.float().abs().pow(power).sum(dim=other, dtype=torch.float64).cpu()
        total += channels[coupling.index].sum(dim=1)  # [units, width] -> [units]
        size += coupling.width * weight.numel() // weight.shape[coupling.dim]
    mean = total / size if per_weight else total
    return mean if norm == "l1" else mean.sqrt()
