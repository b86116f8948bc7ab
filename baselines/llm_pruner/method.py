"""llm_pruner: Taylor importance of heads, neurons or channels (Ma et al., arXiv 2305.11627)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Invalid, Structure
from prunebench.pruning.saliency import MEASURES, channel_saliency, sides_of, unit_scores
from prunebench.pruning.selection import channel_counts
from prunebench.untyped import Json

from .native import native_ratio

KINDS = {"block": ("heads", "neurons"), "channel": ("hidden",), "layer": ("layers",)}


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score the units that may leave and remove the lowest."""
    params = ctx.params
    chosen = ctx.prunable(KINDS[params["mode"]])
    scores = _scores(model, chosen, ctx)
    if not params["native"]:
        return ctx.select(scores, scope=params["scope"])
    if params["scope"] != "layer":
        raise Invalid(
            "llm_pruner: native counts are per layer: expected scope 'layer', got 'global'"
        )
    ratio = native_ratio(params, ctx.sparsity)
    return ctx.lowest(scores, channel_counts(chosen, ratio), ratio=ratio)


def _scores(
    model: PreTrainedModel, chosen: Mapping[str, Structure], ctx: Context
) -> dict[str, Tensor]:
    """Structure name -> scores [units]."""
    importance, reduction = ctx.params["importance"], ctx.params["reduction"]
    if "layers" in chosen:  # the paper keeps the first layers, whatever they are worth
        return {"layers": -torch.arange(chosen["layers"].units, dtype=torch.float32)}
    if importance == "random":
        generator = torch.Generator().manual_seed(ctx.seed)
        return {n: torch.rand(s.units, generator=generator) for n, s in chosen.items()}
    channels = channel_saliency(
        model,
        sides_of(chosen.values()),
        [importance],
        tokens=_calibration(ctx) if MEASURES[importance].uses_data else None,
        streamed=ctx.params["streamed"],
        micro_batch=ctx.params["micro_batch"],
        cost=ctx.cost,
    )[importance]
    return {n: unit_scores(channels, s, reduction=reduction) for n, s in chosen.items()}


def _calibration(ctx: Context) -> Tensor:
    """Token ids [samples, length]; the record learns what was used."""
    tokens = ctx.calibration(ctx.params["samples"], ctx.params["length"])
    note: Json = {"samples": tokens.shape[0], "length": tokens.shape[1]}
    if ctx.params["importance"] == "param_mix":
        note["memory"] = "squared gradients of all scored weights are kept in fp32"
    elif not ctx.params["streamed"] or ctx.params["micro_batch"]:
        note["memory"] = "gradients of all scored weights are kept"
    ctx.note("calibration", note)
    return tokens
