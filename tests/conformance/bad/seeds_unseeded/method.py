"""Bad: draws from a generator without a seed."""

import numpy
import torch


def prune(model, ctx):
    numpy.random.default_rng().random()
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
