"""From channels to units: which sides of which weights a structure owns, and how they add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.structure import Coupling, Structure


class Side(NamedTuple):
    """One dimension of one parameter, whose channels lie along it: rows (dim 0) or columns (1)."""

    parameter: str
    dim: int


REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda stacked: stacked.sum(dim=0),
    "mean": lambda stacked: stacked.mean(dim=0),
    "max": lambda stacked: stacked.amax(dim=0),
    "prod": lambda stacked: stacked.double().prod(dim=0),
}
"""How the matrices of a group are put together: [matrices, ...] -> [...]."""


def weight_couplings(structure: Structure) -> tuple[Coupling, ...]:
    """The couplings that are scored: weights and normalisation gains; biases are left out."""
    return tuple(c for c in structure.couplings if not c.parameter.endswith("bias"))


def sides_of(structures: Iterable[Structure]) -> tuple[Side, ...]:
    """The distinct sides of all weights of these structures, in their order."""
    sides = (Side(c.parameter, c.dim) for s in structures for c in weight_couplings(s))
    return tuple(dict.fromkeys(sides))


def unit_scores(
    channels: Mapping[Side, Tensor], structure: Structure, *, reduction: str = "sum"
) -> Tensor:
    """Scores [units], fp32 (fp64 for prod), from one number per channel of each side.

    Where every matrix gives a unit the same number of channels (neurons, hidden, MHA), matrices are
    reduced channel by channel and a unit's channels are then summed, as LLM-Pruner does. Under GQA
    a unit has more query than key channels, and no channel of one belongs to a channel of the
    other: each matrix is first summed over its unit, then matrices are reduced. With `sum` both
    orders are the same. Raises Unsupported when a product underflows.
    """
    if reduction not in REDUCTIONS:
        raise Invalid(f"unknown reduction {reduction!r}; known: {', '.join(REDUCTIONS)}")
    parts = []  # one [units, width] for each matrix
    for coupling in weight_couplings(structure):
        values = channels[Side(coupling.parameter, coupling.dim)]
        parts.append(values[coupling.index.to(values.device)])
    paired = len({part.shape for part in parts}) == 1
    stacked = torch.stack(parts if paired else [part.sum(dim=1) for part in parts])
    reduced = REDUCTIONS[reduction](stacked)  # [units, width] or [units]
    if reduction == "prod" and bool(((reduced == 0) & (stacked != 0).all(dim=0)).any()):
        raise Unsupported(
            f"{structure.name}: the product over {len(parts)} matrices underflows in fp64; "
            "use reduction sum, mean or max"
        )
    return reduced.sum(dim=1) if paired else reduced
