"""Importance of weights and units from a LoRA pair, its gradients and the frozen weight alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunebench import Invalid, Unsupported
from prunebench.pruning.structure import Coupling, Structure
from prunebench.untyped import Module

from .options import Formula

BLOCK_ROWS = 1024  # rows of a module that are looked at together
NORM_FLOOR = 1e-8  # released code


@dataclass(frozen=True)
class Pair:
    """One adapted Linear in the middle of a step: W [out, in], A [rank, in], B [out, rank]."""

    weight: Tensor
    a: Tensor
    b: Tensor
    grad_a: Tensor
    grad_b: Tensor
    scale: float

    def rows(self, start: int, stop: int) -> Pair:
        """The same for some output features; A and its gradient belong to all of them."""
        part = slice(start, stop)
        weight, b, grad_b = self.weight[part], self.b[part], self.grad_b[part]
        return Pair(weight, self.a, b, self.grad_a, grad_b, self.scale)


def estimate(pair: Pair, formula: Formula) -> Tensor:
    """Gradient of the merged weight as A and B see it [out, in] (paper, equations 7 to 10).

    (BA - (B - eta gB)(A - eta gA)) / eta = gB A + B gA - eta gB gA, with one product saved.
    """
    g = torch.addmm(pair.b @ pair.grad_a, pair.grad_b, pair.a - formula.eta * pair.grad_a)
    return g.mul_(pair.scale) if formula.scale_in_estimate else g


def weight_scores(pair: Pair, formula: Formula) -> Tensor:
    """|g W| or (g W)^2 of every weight [out, in], W with its adapter merged."""
    scale = pair.scale if formula.scale_in_weight else 1.0
    merged = torch.addmm(pair.weight.to(pair.b.dtype), pair.b, pair.a, alpha=scale)
    return first_order(estimate(pair, formula), merged, formula)


def first_order(gradient: Tensor, weight: Tensor, formula: Formula) -> Tensor:
    """First-order Taylor importance; with the true gradient it is the vanilla criterion (eq. 3)."""
    product = gradient * weight
    return product.abs_() if formula.power == "abs" else product.square_()


def channel_scores(pair: Pair, dim: int, formula: Formula) -> Tensor:
    """Weight scores summed over all but `dim`: one number per output (0) or input (1) feature.

    Goes through the module in blocks of rows: no buffer of the size of a gradient is ever needed.
    """
    parts = []
    for start in range(0, pair.weight.shape[0], BLOCK_ROWS):
        block = weight_scores(pair.rows(start, start + BLOCK_ROWS), formula)  # [rows, in]
        parts.append(block.sum(dim=1 - dim))
    return torch.cat(parts) if dim == 0 else torch.stack(parts).sum(dim=0)


def module_scores(channels: Tensor, index: Tensor, kept: Tensor, formula: Formula) -> Tensor:
    """Channel scores [features] -> unit scores [units] of one module, 0 for units that are gone.

    What is gone must not count in the norm, or cutting it off would change the other scores.
    """
    units = channels[index].sum(dim=1) * kept  # [units, width] -> [units]
    return units / (units.norm() + NORM_FLOOR) if formula.normalisation == "l2" else units


@torch.no_grad()
def unit_scores(
    model: nn.Module, structure: Structure, kept: Tensor, formula: Formula
) -> Tensor | None:
    """Scores [units] of a structure: the sum over its modules, one module at a time.

    None when the step has no gradients (it is left out because they are not finite).
    """
    total = torch.zeros_like(kept)
    for coupling in weight_couplings(structure):
        pair = pair_of(model, coupling)
        if pair is None:
            return None
        channels = channel_scores(pair, coupling.dim, formula)
        index = coupling.index.to(channels.device)
        total += module_scores(channels, index, kept, formula)
    return total


def weight_couplings(structure: Structure) -> list[Coupling]:
    """The couplings of a structure with a Linear's weight: those that LoRA can speak for.

    Raises Unsupported where a unit lies in tensors that are no Linear's.
    """
    norms = {f"{gate.module}.weight" for gate in structure.gates if gate.side == "statistics"}
    of_linears = [c for c in structure.couplings if c.parameter.endswith(".weight")]
    if not of_linears:
        raise Unsupported(
            f"loraprune: {structure.name} is part of a mixture of experts, whose weights are no "
            "Linears: LoRA is not on them, so that they have no score"
        )
    return [c for c in of_linears if c.parameter not in norms]


def pair_of(model: nn.Module, coupling: Coupling) -> Pair | None:
    """The LoRA pair on a coupling's Linear, or None where it has no gradient now."""
    layer = lora_layer(model, coupling.parameter)
    a, b, scale = adapter(layer)
    if a.grad is None or b.grad is None:
        return None
    return Pair(plain_weight(layer), a, b, a.grad.to(a.dtype), b.grad.to(b.dtype), scale)


def adapter(layer: Module) -> tuple[nn.Parameter, nn.Parameter, float]:
    """A, B and scale of the one active adapter of a LoRA layer."""
    (name,) = layer.active_adapters
    return layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]


def plain_weight(layer: Module) -> Tensor:
    """The frozen weight [out, in] of a LoRA layer, de-quantised if need be."""
    from peft.utils.integrations import dequantize_module_weight

    base = layer.base_layer
    state = getattr(base, "state", None)  # only an 8-bit Linear of bitsandbytes has one
    if state is None:
        return dequantize_module_weight(base).detach()
    largest = base.weight.SCB if state.SCB is None else state.SCB  # [out], of each row
    plain: Tensor = base.weight.data * (largest / 127.0)[:, None]
    return plain


def lora_layer(model: nn.Module, parameter: str) -> Module:
    """The LoRA layer that now stands in the place of a parameter's Linear."""
    return model.get_submodule(parameter.rpartition(".")[0])


def check_linears(scored: Mapping[str, Structure]) -> None:
    """Raise Unsupported for a structure that LoRA cannot score."""
    for structure in scored.values():
        weight_couplings(structure)


def check_targets(model: nn.Module, scored: Mapping[str, Structure]) -> None:
    """Raise Invalid unless every weight that leaves with a unit has an adapter."""
    from peft.tuners.lora import LoraLayer

    missing = {
        coupling.parameter.split(".")[-2]
        for structure in scored.values()
        for coupling in weight_couplings(structure)
        if not isinstance(lora_layer(model, coupling.parameter), LoraLayer)
    }
    if missing:
        raise Invalid(
            "recovery.targets: LoRAPrune needs LoRA on every projection of heads and neurons, "
            f"missing {', '.join(sorted(missing))}: without it they have no score; add them or "
            "write 'auto'"
        )
