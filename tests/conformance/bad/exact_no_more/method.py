"""Bad: leaves a forward that depends on the width, so that masked and sliced differ."""

import torch


def prune(model, ctx):
    mlp = model.get_submodule("model.layers.0.mlp")
    before = mlp.forward
    mlp.forward = lambda x: before(x) * mlp.down_proj.weight.shape[1] / 100
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
