"""shortgpt: layers, or attentions and MLPs, of the least Block Influence leave (2403.03853)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from prunebench import Context, Decision, Unsupported
from prunebench.pruning.protection import require
from prunebench.pruning.selection import TOLERANCE
from prunebench.untyped import Json

TARGETS = {"sublayers": ("heads", "neurons"), "attention": ("heads",), "mlp": ("neurons",)}


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Measure every influence in the dense model, then let the lowest leave at once.

    Raises Unsupported where no layer can leave, or none may because each is too large.
    """
    parts = ctx.params["parts"]
    if parts == "layers":
        require(ctx.structures, ("layers",))
    wanda: dict[str, Tensor] = {}
    influence: dict[str, Tensor] = {}
    for layer in ctx.by_layer(model, ctx.calibration()):
        whole = layer.outputs()
        influence[f"layers.{layer.index}"] = block_influence(layer.inputs, whole)
        if parts != "layers":
            for name, structure in layer.structures.items():
                if structure.kind in TARGETS[parts]:
                    influence[name] = block_influence(layer.outputs(without=[name]), whole)
        elif ctx.params["fill"]:
            wanda |= {n: s.norm for n, s in layer.signals().items() if n.endswith("neurons")}
    ctx.note("influence", {name: round(float(value), 6) for name, value in influence.items()})
    if parts != "layers":
        return _without_parts(model, ctx, influence)
    scores = torch.stack(list(influence.values()))
    if ctx.params["fill"]:
        return _filled(ctx, scores, wanda)
    decision = ctx.select({"layers": scores})
    if not decision.keep and ctx.sparsity > TOLERANCE and ctx.matched is None:
        least = 1.0 - ctx.budget.left({}, (int(scores.argmin()),)) / ctx.budget.total
        raise Unsupported(
            f"no layer leaves: the one of least influence has {least:.3f} of the "
            f"{ctx.budget.of}'s parameters, which is further from {ctx.sparsity:.3f} than nothing "
            "is; ask for more, or set parts: sublayers or fill: true"
        )
    return decision


def block_influence(entering: Sequence[Tensor], leaving: Sequence[Tensor]) -> Tensor:
    """1 - mean over tokens of cos(h_in, h_out); batches of [batch, length, hidden]."""
    pairs = zip(entering, leaving, strict=True)
    cosines = [functional.cosine_similarity(a.double(), b.double(), dim=-1) for a, b in pairs]
    return (1.0 - torch.cat([c.flatten() for c in cosines]).mean()).cpu()


def _filled(ctx: Context, scores: Tensor, neurons: dict[str, Tensor]) -> Decision:
    """As many layers as fit below the target, and neurons of small input for the rest of it."""
    goal = ctx.budget.total * (1.0 - ctx.sparsity)
    dropped: list[int] = []
    for layer in scores.argsort(stable=True).tolist():
        if ctx.budget.left({}, (*dropped, layer)) < goal:
            break
        dropped.append(layer)
    return ctx.select(neurons, dropped=dropped)


@torch.no_grad()
def _without_parts(model: PreTrainedModel, ctx: Context, influence: dict[str, Tensor]) -> Decision:
    """Sub-layers of the lowest influence leave but for one unit, which then writes nothing."""
    goal = ctx.budget.total * (1.0 - ctx.sparsity)
    removed: dict[str, int] = {}
    named = [name for name in influence if name in ctx.structures]
    for name in sorted(named, key=lambda n: float(influence[n])):
        more = {**removed, name: ctx.structures[name].units - 1}
        if abs(ctx.budget.left(more) - goal) >= abs(ctx.budget.left(removed) - goal):
            break
        removed = more
    scores = {name: torch.arange(float(ctx.structures[name].units)) for name in removed}
    for name in removed:
        model.get_parameter(f"{ctx.structures[name].consumer}.weight").zero_()
    how: Json = {"sublayers": sorted(removed)}
    decision = ctx.remove(scores, removed)
    return Decision(decision.keep, {**decision.how, **how})
