"""Bad: its description says that it reads nothing."""

import torch


def prune(model, ctx):
    tokens = ctx.calibration()
    with torch.no_grad():
        model(tokens)
    ctx.cost.forward(tokens.numel())
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
