"""Bad: draws by the clock."""

import time

import torch


def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    draw = torch.Generator().manual_seed(time.time_ns())
    return ctx.select({n: torch.rand(ctx.structures[n].units, generator=draw) for n in names})
