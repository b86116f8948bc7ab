"""slimgpt: Optimal Brain Surgeon on heads and neurons, one layer after another (SlimGPT)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.protection import depth
from prunebench.pruning.restoration import restore


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Remove a layer's units greedily by the error they leave, and fit what stays to it."""
    chosen, params = ctx.prunable(), ctx.params
    layers = depth(ctx.structures)
    shares = {f"layers.{s.layer}": _share(s.layer or 0, layers, params["first"])
              for s in chosen.values()}  # fmt: skip
    counts, scores = ctx.counts(chosen, shares=shares), {}
    for layer in ctx.by_layer(model, ctx.calibration()):
        for name, signal in layer.signals(moments=True).items():
            if name not in chosen:
                continue
            assert signal.moment is not None  # it was asked for
            weight = model.get_parameter(f"{chosen[name].consumer}.weight").detach()
            order = leaving(
                weight, signal.moment, chosen[name], counts[name],
                damping=params["damping"], chunk=params["chunk"],
            )  # fmt: skip
            scores[name] = torch.full((chosen[name].units,), float(counts[name]))
            scores[name][order] = torch.arange(float(len(order)))  # the first to leave is lowest
            keep = ctx.remove(scores, {name: counts[name]}).keep
            if name in keep:
                damping = params["damping"]
                restore(model, chosen[name], keep[name], signal.moment, damping=damping)
            layer.keep(keep)
    return ctx.remove(scores, counts)


def _share(layer: int, layers: int, first: float) -> float:
    """Share of a layer beside the last one's: grows with the logarithm of its number."""
    return first + (1.0 - first) * math.log(layer + 1) / max(math.log(layers), 1e-9)


def leaving(
    weight: Tensor,
    moment: Tensor,
    structure: Structure,
    count: int,
    *,
    damping: float,
    chunk: float,
) -> list[int]:
    """The `count` units that leave, in their order.

    weight [out, features], moment [features, features]. A unit with columns S costs
    tr(W_S (H^-1_SS)^-1 W_S^T); after each removal W and H^-1 are those of the problem without it.
    chunk: share of those that remain to leave which leave at once (neurons; heads go one by one).
    """
    moment = moment.to(weight.device)
    ridge = damping * moment.diagonal().mean() + 1e-12
    inverse = torch.linalg.inv(moment + ridge * torch.eye(len(moment)).to(moment))
    weight = weight.double().clone()
    index = structure.consumer_index.to(weight.device)  # [units, width]
    here = list(range(structure.units))
    order: list[int] = []
    while len(order) < count:
        columns = index[here]  # [units left, width]
        blocks = inverse[columns.unsqueeze(2), columns.unsqueeze(1)]  # [units left, width, width]
        own = weight[:, columns].permute(1, 2, 0)  # [units left, width, out]
        costs = (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2))
        left = count - len(order)
        many = max(1, int(left * chunk)) if structure.kind == "neurons" else 1
        gone = [here[i] for i in costs.argsort(stable=True)[:many].tolist()]
        flat = index[gone].flatten()
        step = torch.linalg.solve(inverse[flat][:, flat], inverse[flat])  # [S, features]
        weight -= weight[:, flat] @ step
        inverse -= inverse[:, flat] @ step
        order += gone
        here = [unit for unit in here if unit not in set(gone)]
    return order
