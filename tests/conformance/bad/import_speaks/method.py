"""Bad: sets a variable of the environment when it is imported."""

import os

import torch

os.environ["MINE"] = "1"


def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
