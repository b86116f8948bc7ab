"""wanda_sp: Wanda's score of the output matrices, summed to heads and neurons, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.signals import Signal


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score a layer on what the pruned layers before it let through, prune it, go on."""
    chosen = ctx.prunable()
    counts, scores = ctx.counts(chosen), {}
    for layer in ctx.by_layer(model, ctx.calibration()):
        for name, signal in layer.signals().items():
            if name in chosen:
                scores[name] = wanda(model, chosen[name], signal)
                layer.keep(ctx.remove(scores, {name: counts[name]}).keep)
    return ctx.remove(scores, counts)


@torch.no_grad()
def wanda(model: PreTrainedModel, structure: Structure, signal: Signal) -> Tensor:
    """Scores [units]: over a unit's columns j of the consumer, sum of mean_i |W_ij| ||x_j||."""
    weight = model.get_parameter(f"{structure.consumer}.weight")  # [out, features]
    columns = weight.abs().mean(dim=0, dtype=torch.float64) * signal.norm
    return structure.per_unit(columns).sum(dim=1)
