"""Bad: refuses a model in one word."""

import torch

from prunebench import Unsupported


def prune(model, ctx):
    if "hidden" not in ctx.structures:
        raise Unsupported("no")
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select(
        {n: torch.rand(ctx.structures[n].units, generator=seeded(ctx)) for n in names}
    )


def seeded(ctx):
    return torch.Generator().manual_seed(ctx.seed)
