"""policy_gradient: keep-probabilities of units, learned from losses alone (arXiv 2406.10576)."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.surgery import gated

EDGE = 1e-3
"""Probabilities are kept this far from 0 and 1 where their spread divides."""


@torch.no_grad()
def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Sample masks, follow the estimated gradient of their expected loss, keep the likeliest."""
    params, chosen = ctx.params, ctx.prunable()
    tokens = ctx.calibration()
    generator = torch.Generator().manual_seed(ctx.seed)
    rates = _keep_rates(ctx, chosen)
    s = _start(model, ctx, chosen, tokens, rates)
    window: deque[float] = deque(maxlen=params["window"])
    curve = []
    for step in range(params["steps"]):
        batch = tokens[torch.randperm(len(tokens), generator=generator)[: params["batch"]]]
        masks = [_draw(s, generator) for _ in range(params["masks"])]
        losses = [_loss(model, chosen, mask, batch.to(ctx.device)) for mask in masks]
        window.append(sum(losses) / len(losses))
        baseline = sum(window) / len(window)
        rate = params["rate"] * 0.5 * (1 + math.cos(math.pi * step / params["steps"]))
        for name, gradient in estimate(s, masks, losses, baseline).items():
            s[name] = s[name] - rate * gradient
        s = project(s, chosen, rates)
        curve.append([step, window[-1]])
    ctx.note("loss", {"plot": "line", "title": "Loss of the drawn masks", "x_label": "step",
                      "y_label": "loss", "series": {"loss": curve}})  # fmt: skip
    return ctx.select(s, scope="kind")


def estimate(
    s: dict[str, Tensor], masks: list[dict[str, Tensor]], losses: list[float], baseline: float
) -> dict[str, Tensor]:
    """1 / (K - 1) sum_k (L_k - baseline) (m_k - s) / sqrt(s (1 - s)), as the released code has it.

    Its expectation is the gradient times sqrt(s (1 - s)), and times K / (K - 1).
    """
    found = {}
    for name, p in s.items():
        spread = (p * (1 - p)).clamp_min(EDGE * (1 - EDGE)).sqrt()
        terms = [
            (loss - baseline) * (mask[name] - p) for mask, loss in zip(masks, losses, strict=True)
        ]
        found[name] = torch.stack(terms).sum(dim=0) / spread / max(1, len(masks) - 1)
    return found


def project(
    s: dict[str, Tensor], chosen: dict[str, Structure], rates: dict[str, float]
) -> dict[str, Tensor]:
    """clip(s - v, 0, 1), one v for a kind, so that its sum is the number of units to keep."""
    projected = dict(s)
    for kind, rate in rates.items():
        members = [name for name in s if chosen[name].kind == kind]
        flat = torch.cat([s[name] for name in members])
        low, high = float(flat.min()) - 1.0, float(flat.max())
        for _ in range(50):
            v = (low + high) / 2
            over = float((flat - v).clamp(0, 1).sum()) > rate * len(flat)
            low, high = (v, high) if over else (low, v)
        projected |= {name: (s[name] - (low + high) / 2).clamp(0, 1) for name in members}
    return projected


def _keep_rates(ctx: Context, chosen: dict[str, Structure]) -> dict[str, float]:
    """Kind -> share of its units that stay."""
    counts, kinds = ctx.counts(chosen), {s.kind for s in chosen.values()}
    units = {k: sum(s.units for s in chosen.values() if s.kind == k) for k in kinds}
    gone = {k: sum(c for n, c in counts.items() if chosen[n].kind == k) for k in kinds}
    return {kind: 1.0 - gone[kind] / units[kind] for kind in sorted(kinds)}


def _start(
    model: PreTrainedModel,
    ctx: Context,
    chosen: dict[str, Structure],
    tokens: Tensor,
    rates: dict[str, float],
) -> dict[str, Tensor]:
    """Probabilities from Wanda-sp's scores, standardised by structure, or all at the keep rate."""
    s = {name: torch.full((x.units,), rates[x.kind]).double() for name, x in chosen.items()}
    if ctx.params["start"] == "wanda":
        for name, signal in ctx.signals(model, tokens, chosen).items():
            weight = model.get_parameter(f"{chosen[name].consumer}.weight").double()
            columns = weight.abs().mean(dim=0) * signal.norm
            score = chosen[name].per_unit(columns).sum(dim=1).cpu()
            centre = math.log(rates[chosen[name].kind] / max(EDGE, 1 - rates[chosen[name].kind]))
            spread = score.std(correction=0).clamp_min(1e-12)
            s[name] = torch.sigmoid((score - score.mean()) / spread + centre)
    return project(s, chosen, rates)


def _draw(s: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.bernoulli(p, generator=generator) for name, p in s.items()}


def _loss(
    model: PreTrainedModel, chosen: dict[str, Structure], mask: dict[str, Tensor], batch: Tensor
) -> float:
    with gated(model, mask, structures=chosen):
        return float(model(input_ids=batch, labels=batch, use_cache=False).loss)
