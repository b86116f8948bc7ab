"""Bad: removes half of what was asked for."""

import torch

from prunebench import Decision


def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    keep = {}
    for n in names:
        units = ctx.structures[n].units
        order = torch.randperm(units, generator=torch.Generator().manual_seed(ctx.seed)).tolist()
        keep[n] = tuple(sorted(order[: int(units * (1 - ctx.sparsity / 2))]))
    return Decision(keep)
