"""Is every factor of every gate felt, but for units that compute nothing at all?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.errors import Failure
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.conformance.case import FamilyCase, some_tokens
from prunebench.pruning.structure import Structure
from prunebench.pruning.surgery import gated, logits

TOLERANCE = 1e-5
MOST_DEAD = 0.5
"""Share of a structure's units that may be dead: a case in which more are says too little."""


def check_gates(case: FamilyCase) -> None:
    """Raise Failure unless factors of 1 change nothing and every unit's factor has a gradient.

    A unit without one is let pass if it is dead: neurons of a ReLU that no token excites. Then the
    logits do not move when it is masked, and that is seen by masking it.
    """
    model = case.model()
    tokens, structures = some_tokens(model), structures_of(model)
    dense = logits(model, tokens)
    factors = {n: torch.ones(s.units, requires_grad=True) for n, s in structures.items()}
    with gated(model, factors, structures=structures):
        output = model(tokens).logits
    output.square().mean().backward()
    if (moved := (output.detach() - dense).abs().max().item()) > TOLERANCE:
        raise Failure(
            f"{case.name}: with all factors at 1 logits move by {moved:.1e}: "
            f"{_at_fault(model, tokens, structures, dense)} changes what it should only scale"
        )
    for name, factor in factors.items():
        if factor.grad is None:
            raise Failure(f"{case.name}: {name}: no gradient reaches its factors: it has no gate")
        still = (factor.grad == 0).nonzero().flatten().tolist()
        if still:
            _check_dead(case, model, tokens, structures[name], still, dense)


def _check_dead(
    case: FamilyCase,
    model: PreTrainedModel,
    tokens: Tensor,
    structure: Structure,
    units: list[int],
    dense: Tensor,
) -> None:
    """Raise Failure unless masking these units, of which no gradient came, changes nothing."""
    where = f"{case.name}: {structure.name}: {len(units)} of {structure.units} factors"
    if len(units) > MOST_DEAD * structure.units:
        raise Failure(
            f"{where} have no gradient, more than half: either the gate is where nothing flows, or "
            "too many units are dead (a ReLU that no token excites); take a case of larger weights"
        )
    factor = torch.ones(structure.units)
    factor[units] = 0.0
    with gated(model, {structure.name: factor}, structures={structure.name: structure}):
        moved = (logits(model, tokens) - dense).abs().max().item()
    if moved > TOLERANCE:
        raise Failure(
            f"{where} have no gradient (the first is {units[0]}), but masking them moves logits by "
            f"{moved:.1e}: the gate lets no gradient through"
        )


def _at_fault(
    model: PreTrainedModel, tokens: Tensor, structures: Mapping[str, Structure], dense: Tensor
) -> str:
    """The first structure whose gates alone move the logits."""
    for name, structure in structures.items():
        with gated(model, {name: torch.ones(structure.units)}, structures=structures):
            if (logits(model, tokens) - dense).abs().max().item() > TOLERANCE:
                return f"a gate of {name}"
    return "no single gate, but all of them together,"
