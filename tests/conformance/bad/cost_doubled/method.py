"""Bad: reports ten times the tokens that it spends."""

import torch


def prune(model, ctx):
    tokens = ctx.calibration()
    with torch.no_grad():
        model(tokens)
    ctx.cost.forward(10 * tokens.numel())
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
