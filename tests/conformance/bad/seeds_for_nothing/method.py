"""Bad: decides the same for every seed and does not say so."""

import torch


def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select({n: torch.arange(ctx.structures[n].units).float() for n in names})
