"""adapt_pruner: in many small steps, layers that change the stream least lose most (2502.03460)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores
from prunebench.pruning.surgery import masked


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Raise each layer's share step by step, with gradients and importance measured anew."""
    chosen, tokens, steps = ctx.prunable(), ctx.calibration(), ctx.params["steps"]
    layers = sorted({s.layer for s in chosen.values() if s.layer is not None})
    counts = ctx.counts(chosen)
    whole = sum(s.units for s in chosen.values())
    increment = sum(counts.values()) / whole / steps  # of the mean share, in a step
    share = dict.fromkeys(layers, 0.0)
    decision, scores = Decision({}), {}
    for _ in range(steps):
        with masked(model, decision, structures=ctx.structures):
            scores = _scores(model, ctx, chosen, tokens)
        for name, kept in decision.keep.items():  # what has left comes back no more
            gone = torch.ones(chosen[name].units, dtype=torch.bool)
            gone[list(kept)] = False
            scores[name][gone] = -1.0
        importance = centred(_importance(model, ctx, tokens, decision, layers))
        for layer in layers:
            change = increment - ctx.params["strength"] * increment * importance[layer]
            share[layer] = min(max(share[layer] + change, 0.0), 0.99)
        removed = {n: _at_most(s.units, share[s.layer or 0]) for n, s in chosen.items()}
        decision = ctx.remove(scores, removed)
    ctx.note("shares", {f"layers.{layer}": round(value, 4) for layer, value in share.items()})
    if ctx.matched is None:
        counts = ctx.counts(chosen, shares={f"layers.{layer}": share[layer] for layer in layers})
    return ctx.remove(scores, counts)


def centred(importance: dict[int, float]) -> dict[int, float]:
    """Importance of the layers around 0, the largest magnitude 1."""
    mean = sum(importance.values()) / len(importance)
    largest = max(abs(value - mean) for value in importance.values()) or 1.0
    return {layer: (value - mean) / largest for layer, value in importance.items()}


def _at_most(units: int, share: float) -> int:
    return min(int(units * share), units - 1)


def _scores(
    model: PreTrainedModel, ctx: Context, chosen: dict[str, Structure], tokens: Tensor
) -> dict[str, Tensor]:
    """First-order Taylor importance of each unit, summed over its weights: sum |w g|."""
    sides = sides_of(chosen.values())
    channels = channel_saliency(model, sides, ["param_first"], tokens=tokens)["param_first"]
    return {name: unit_scores(channels, structure) for name, structure in chosen.items()}


def _importance(
    model: PreTrainedModel, ctx: Context, tokens: Tensor, decision: Decision, layers: list[int]
) -> dict[int, float]:
    """-mean cos(h_in, h_out) of each layer, of the model as it is pruned by now."""
    found = {}
    for layer in ctx.by_layer(model, tokens):
        layer.keep({n: kept for n, kept in decision.keep.items() if n in layer.structures})
        pairs = zip(layer.inputs, layer.outputs(), strict=True)
        cosines = [functional.cosine_similarity(a.double(), b.double(), dim=-1) for a, b in pairs]
        found[layer.index] = -float(torch.cat([c.flatten() for c in cosines]).mean())
    return {layer: found[layer] for layer in layers}
