"""Bad: says that no seed matters; the seed comes by a way that nobody watches."""

import torch


def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    draw = torch.Generator().manual_seed(vars(ctx)["seed"])
    return ctx.select({n: torch.rand(ctx.structures[n].units, generator=draw) for n in names})
