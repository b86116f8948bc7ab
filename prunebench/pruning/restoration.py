"""Making up for units that leave, in the Linear that they wrote through: new weights, or a bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.structure import Structure

DAMPING = 0.01
"""Of the mean of the moment's diagonal, as usual since Optimal Brain Compression (2208.11580)."""


class Restored(NamedTuple):
    """Mean squared error of the consumer's output over that output's mean square."""

    before: float
    after: float


@torch.no_grad()
def restore(
    model: PreTrainedModel,
    structure: Structure,
    kept: Sequence[int],
    moment: Tensor,
    *,
    damping: float = DAMPING,
) -> Restored:
    """Change, in place, the consumer's kept columns so that its output is nearest to what it was.

    moment  [features, features], mean of x x^T of what enters it (`Signal.moment`)

    With P the features that leave and K those that stay, W_K += W_P M_PK (M_KK + d I)^-1: least
    squares, drawn to the present weights by d = damping times the diagonal's mean. So nothing
    changes where nothing leaves, and the error never rises. Columns that leave stay as they are.
    """
    weight = model.get_parameter(f"{structure.consumer}.weight")  # [out, features]
    features = weight.shape[1]
    if moment.shape != (features, features):
        raise Invalid(
            f"restore: {structure.name}: expected a moment {(features, features)}, "
            f"got {tuple(moment.shape)}"
        )
    stay, leave = _columns(structure, kept)
    stay, leave = stay.to(weight.device), leave.to(weight.device)
    moment, old = moment.to(weight.device, torch.float64), weight.double()
    cross = moment[leave][:, stay]  # [P, K]
    inner = moment[stay][:, stay]
    ridge = torch.full((len(stay),), damping * float(moment.diagonal().mean()) + 1e-30)
    inner = inner + ridge.to(inner).diag()
    factor, failed = torch.linalg.cholesky_ex(inner)
    if int(failed):
        raise Unsupported(f"restore: {structure.name}: its signals are dependent; raise damping")
    change = torch.cholesky_solve(cross.T @ old[:, leave].T, factor).T  # [out, K]
    weight[:, stay] = (old[:, stay] + change).to(weight.dtype)
    lost = -old.clone()
    lost[:, stay] = 0.0
    before = _energy(lost, moment)
    lost[:, stay] = weight.double()[:, stay] - old[:, stay]
    whole = max(_energy(old, moment), 1e-30)
    return Restored(before / whole, _energy(lost, moment) / whole)


@torch.no_grad()
def add_bias(model: PreTrainedModel, structure: Structure, values: Tensor) -> int:
    """Add `values` [out] to what the structure's consumer writes; returns parameters gained.

    The Linear gets a bias if it has none. Where the config of the model's class has no switch for
    it, the model is saved for this suite's loader.
    """
    module = model.get_submodule(structure.consumer)
    if not isinstance(module, nn.Linear):
        raise Unsupported(f"{structure.consumer} is {type(module).__name__} and takes no bias")
    weight = module.weight
    if values.shape != weight.shape[:1]:
        expected, got = tuple(weight.shape[:1]), tuple(values.shape)
        raise Invalid(f"add_bias: {structure.name}: expected values {expected}, got {got}")
    if module.bias is not None:
        module.bias.add_(values.to(weight))
        return 0
    module.bias = nn.Parameter(values.to(weight), requires_grad=weight.requires_grad)
    return values.numel()


def _columns(structure: Structure, kept: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The consumer's features that stay and those that leave."""
    here = set(kept)
    gone = [unit for unit in range(structure.units) if unit not in here]
    index = structure.consumer_index
    return index[list(kept)].flatten(), index[gone].flatten()


def _energy(weight: Tensor, moment: Tensor) -> float:
    """Mean square of W x, summed over outputs: tr(W M W^T)."""
    return float(((weight @ moment) * weight).sum())
