"""Bad: leaves a weight that is not finite."""

import torch


def prune(model, ctx):
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.up_proj.weight")[0, 0] = torch.inf
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
