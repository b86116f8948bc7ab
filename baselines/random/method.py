"""random: every unit gets a uniform random score."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prunebench import Context
from prunebench.pruning.structure import Decision


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score each unit with a number drawn from the cell's seed and remove the lowest."""
    generator = torch.Generator().manual_seed(ctx.seed)
    scores = {
        name: torch.rand(structure.units, generator=generator)
        for name, structure in ctx.prunable(ctx.params["kinds"]).items()
    }
    return ctx.select(scores, scope=ctx.params["scope"])
