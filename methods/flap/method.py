"""flap: fluctuation of the inputs decides, one ranking over the model, biases make up (FLAP)."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.modules import module_at
from prunebench.pruning.restoration import add_bias
from prunebench.pruning.signals import Signal
from prunebench.untyped import JsonMap

FLOOR = 1e-12


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Rank all units of the dense model by how much their inputs vary; constant parts stay."""
    chosen = ctx.prunable()
    signals = ctx.signals(model, ctx.calibration(), chosen)
    scores = {n: _score(model, s, signals[n], ctx.params) for n, s in chosen.items()}
    gained = _biases(model, chosen) if ctx.params["compensate"] else 0
    scope = "global" if ctx.params["adaptive"] else "layer"
    decision = ctx.select(scores, scope=scope, gained=gained)
    if ctx.params["compensate"]:
        for name, structure in chosen.items():
            add_bias(model, structure, _lost(model, structure, signals[name], decision))
    return decision


@torch.no_grad()
def _score(model: PreTrainedModel, structure: Structure, signal: Signal, params: JsonMap) -> Tensor:
    """Scores [units]; with `adaptive` standardised within the structure, to be ranked together."""
    weight = model.get_parameter(f"{structure.consumer}.weight").double()  # [out, features]
    squares = weight.square().sum(dim=0)
    columns = {
        "WIFV": signal.variance * squares,
        "IFV": signal.variance,
        "WIFN": weight.abs().mean(dim=0) * signal.norm,
    }[params["metric"]]
    if params["adaptive"]:
        if structure.kind == "heads":
            columns = columns.square()
        columns = (columns - columns.mean()) / columns.std().clamp_min(FLOOR)
    return structure.per_unit(columns).mean(dim=1)


def _biases(model: PreTrainedModel, chosen: dict[str, Structure]) -> int:
    """Parameters that compensation adds: a bias for every consumer without one."""
    modules = [module_at(model, structure.consumer) for structure in chosen.values()]
    return sum(module.out_features for module in modules if module.bias is None)


@torch.no_grad()
def _lost(
    model: PreTrainedModel, structure: Structure, signal: Signal, decision: Decision
) -> Tensor:
    """What the units that leave write on average: W[:, gone] mean(x[gone]), [out]."""
    weight = model.get_parameter(f"{structure.consumer}.weight").double()
    kept = set(decision.keep.get(structure.name, range(structure.units)))
    gone = [unit for unit in range(structure.units) if unit not in kept]
    columns = structure.consumer_index[gone].flatten().to(weight.device)
    return weight[:, columns] @ signal.mean[columns]
