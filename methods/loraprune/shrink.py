"""Cut units off a model in the middle of its training, optimizer state included; and undo it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench import Structure
from prunebench.pruning.architectures import refresh, structures_of
from prunebench.pruning.structure import Coupling
from prunebench.pruning.surgery import keep_members, remember_numbers, spread_members, sync_features

from .importance import lora_layer


@torch.no_grad()
def shrink(
    model: PreTrainedModel,
    structures: Mapping[str, Structure],
    keep: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> dict[str, Structure]:
    """Keep only the units `keep` [kept] of each structure; returns the structures that are left.

    Frozen weights, adapters, gradients and the optimizer's moments lose the same rows and columns,
    so that training goes on as with masks: gates had kept these entries' gradients at zero.
    """
    for name, structure in structures.items():
        if len(keep[name]) == structure.units:
            continue
        for coupling in structure.couplings:
            positions = _positions(coupling, keep[name])
            for owner, leaf in _tensors(model, coupling):
                _replace(owner, leaf, coupling.dim, positions, optimizer)
        keep_members(model, structure, keep[name].tolist())
        remember_numbers(model, structure, keep[name].tolist())
    _sync(model)
    left = structures_of(model)
    return {name: left[name] for name in structures}


@torch.no_grad()
def restore(
    model: PreTrainedModel,
    structures: Mapping[str, Structure],
    kept: Mapping[str, Tensor],
    numbers: Mapping[str, Tensor],
) -> None:
    """Give a merged model its first shapes back, with zeros where units were cut off.

    numbers  what `numbers_of` said of the model before anything was cut off

    The suite slices every method's model itself, by a decision on the first shapes.
    """
    for name, structure in structures.items():
        if len(kept[name]) == structure.units:
            continue
        for coupling in structure.couplings:
            path, _, leaf = coupling.parameter.rpartition(".")
            owner = model.get_submodule(path)
            old = getattr(owner, leaf)
            shape = list(old.shape)
            shape[coupling.dim] = coupling.index.numel()
            positions = _positions(coupling, kept[name]).to(old.device)
            full = old.new_zeros(shape).index_copy_(coupling.dim, positions, old.detach())
            setattr(owner, leaf, nn.Parameter(full, requires_grad=old.requires_grad))
        for members in structure.members:
            places = members.index[kept[name].cpu()].flatten().tolist()
            spread_members(model, members.path, places, members.index.numel())
        if structure.numbers is not None:
            path, _, leaf = structure.numbers.rpartition(".")
            owner = model.get_submodule(path)
            delattr(owner, leaf)
            if name in numbers:
                owner.register_buffer(leaf, numbers[name])
    _sync(model)


def numbers_of(model: nn.Module, structures: Mapping[str, Structure]) -> dict[str, Tensor]:
    """The original numbers [units] of the units left, where a model remembers them.

    A model of which no unit was ever cut off remembers none (see `Structure.numbers`).
    """
    buffers = dict(model.named_buffers())
    named = {name: structure.numbers or "" for name, structure in structures.items()}
    return {name: buffers[path].clone() for name, path in named.items() if path in buffers}


def _positions(coupling: Coupling, kept: Tensor) -> Tensor:
    """Ascending positions [kept * width] of the kept units along the coupling's dimension."""
    return coupling.index[kept.cpu()].reshape(-1).sort().values


def _tensors(model: nn.Module, coupling: Coupling) -> list[tuple[nn.Module, str]]:
    """Where a coupling's side lies in an adapted Linear: in the frozen part, and in A or in B."""
    layer = lora_layer(model, coupling.parameter)
    leaf = coupling.parameter.rpartition(".")[2]
    if not hasattr(layer, "active_adapters"):  # a norm's gain
        return [(layer, leaf)]
    (name,) = layer.active_adapters
    places = [(layer.base_layer, leaf)]
    if leaf == "weight":
        places.append(((layer.lora_B if coupling.dim == 0 else layer.lora_A)[name], "weight"))
    return places


def _replace(
    owner: nn.Module, leaf: str, dim: int, positions: Tensor, optimizer: torch.optim.Optimizer
) -> None:
    old = getattr(owner, leaf)
    positions = positions.to(old.device)

    def cut(tensor: Tensor) -> Tensor:
        return tensor.index_select(dim, positions).contiguous()

    new = nn.Parameter(cut(old.detach()), requires_grad=old.requires_grad)
    new.grad = None if old.grad is None else cut(old.grad)
    setattr(owner, leaf, new)
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    state = optimizer.state.pop(old, None)
    if state:
        optimizer.state[new] = {
            key: cut(value) if getattr(value, "shape", None) == old.shape else value
            for key, value in state.items()
        }


def _sync(model: PreTrainedModel) -> None:
    for module in model.modules():
        sync_features(module)
        base = getattr(module, "base_layer", None)
        if base is not None:
            module.out_features, module.in_features = base.weight.shape
    refresh(model)
