"""hywia: fine and coarse importance of weight groups, blended by a gate (arXiv 2403.10799)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores
from prunebench.pruning.selection import channel_counts
from prunebench.untyped import Json, JsonMap

from .fusion import (
    CLOSED_FORMS,
    COARSE,
    FINE,
    Fusion,
    check_signal,
    grains_of,
    repeat_weights,
)
from .gate import Gates
from .notes import blend_maps, score_scale, training_curve
from .training import GateTraining, train

ALONE = {"fine": FINE, "coarse": COARSE, "fixed": "param_second"}
"""Fusions that are one measure of the library: nothing is left to blend."""


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score heads and neurons at both granularities, blend, and remove the lowest of each layer.

    Raises Failure when gradients are all zero or the gates' training diverges.
    """
    chosen = ctx.prunable(("heads", "neurons"))
    fusion, tokens = ctx.params["fusion"], _calibration(ctx)
    if fusion in ALONE:
        measure = ALONE[fusion]
        channels = _saliency(model, chosen, (measure,), tokens, ctx)[measure]
        return _decide({n: unit_scores(channels, s) for n, s in chosen.items()}, chosen, ctx)
    saliency = _saliency(model, chosen, (FINE, COARSE), tokens, ctx)
    ctx.note("mean_fine_score", score_scale(saliency[FINE]))
    if fusion == "gate":
        gates, blends = _gate(model, chosen, saliency, tokens, ctx)
        with torch.no_grad():
            attentions = gates.attentions()
    else:
        groups, closed = grains_of(saliency, chosen), CLOSED_FORMS[fusion]
        blends = Fusion(groups, chosen)
        attentions = {n: {s: closed(g) for s, g in m.items()} for n, m in groups.items()}
    for key, plot in blend_maps(attentions, chosen).items():
        ctx.note(key, plot)
    return _decide(blends.scores(attentions), chosen, ctx)


def _saliency(
    model: PreTrainedModel,
    chosen: Mapping[str, Structure],
    measures: tuple[str, ...],
    tokens: Tensor,
    ctx: Context,
) -> Json:
    """Channel sums of both granularities from one pass, or of the one measure that is asked for."""
    fixed = ctx.params["fusion"] == "fixed"
    found = channel_saliency(
        model,
        sides_of(chosen.values()),
        measures,
        tokens=tokens,
        micro_batch=ctx.params["micro_batch"],
        sample_weights=repeat_weights(len(tokens), ctx.params["evratio"]) if fixed else None,
        cost=ctx.cost,
    )
    check_signal(found[measures[0]])
    return found


def _gate(
    model: PreTrainedModel,
    chosen: Mapping[str, Structure],
    saliency: JsonMap,
    tokens: Tensor,
    ctx: Context,
) -> tuple[Gates, Fusion]:
    """The gates, as drawn (no steps, the released behaviour) or trained, and what they blend."""
    options = GateTraining.from_params(ctx.params, seed=ctx.seed)
    trained = options.steps > 0
    # Drawn gates stay on the CPU, so that they are the same on every device.
    groups = grains_of(saliency, chosen, ctx.device if trained else "cpu")
    gates, blends = Gates(groups, seed=options.seed, trained=trained), Fusion(groups, chosen)
    note = {"seed": options.seed, "steps": options.steps, "parameters": gates.size()}
    kept = _kept(gates, blends, chosen, ctx) if trained else {}
    if kept:  # nothing can be learnt where nothing is removed
        report = train(model, gates, blends, chosen, kept, tokens, options, ctx.cost)
        ctx.note("gate_training", training_curve(report.losses))
        note |= report.to_dict()
    ctx.note("gate", note)
    return gates, blends


@torch.no_grad()
def _kept(
    gates: Gates, blends: Fusion, chosen: Mapping[str, Structure], ctx: Context
) -> dict[str, int]:
    """Units that stay in each structure that loses some: the same number whatever the scores."""
    scores = blends.scores(gates.attentions())
    return {name: len(units) for name, units in _decide(scores, chosen, ctx).keep.items()}


def _decide(
    scores: Mapping[str, Tensor], chosen: Mapping[str, Structure], ctx: Context
) -> Decision:
    """The lowest units of each layer leave: so many as the target or the native ratio says."""
    if not ctx.params["native"]:
        return ctx.select(scores)
    ratio = ctx.sparsity if ctx.params["ratio"] is None else ctx.params["ratio"]
    return ctx.lowest(scores, channel_counts(chosen, ratio), ratio=ratio)


def _calibration(ctx: Context) -> Tensor:
    """Token ids [samples, length]; the record learns what was used."""
    tokens = ctx.calibration(ctx.params["samples"], ctx.params["length"])
    ctx.note("calibration", {"samples": tokens.shape[0], "length": tokens.shape[1]})
    return tokens
