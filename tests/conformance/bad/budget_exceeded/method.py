"""Bad: tunes on more tokens than the campaign has."""

import torch


def prune(model, ctx):
    tokens = ctx.calibration().repeat(8, 1)
    for _ in range(6):
        model(tokens, labels=tokens).loss.backward()
        ctx.cost.forward(tokens.numel())
        ctx.cost.backward(tokens.numel())
    model.zero_grad()
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
