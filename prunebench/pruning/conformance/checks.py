"""Are all structures listed, and is the sliced model the masked one?"""

from __future__ import annotations

from prunebench.errors import Failure
from prunebench.pruning.architectures import blocks_of, structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.conformance.case import FamilyCase, some_tokens
from prunebench.pruning.conformance.decisions import unevenly
from prunebench.pruning.protection import REASONS
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import count_parameters, cut, logits

TOLERANCE = 1e-5  # of the largest logit, or absolute where that is below 1
SPAN = ("hidden", "layers")
"""Kinds of which a model has one structure, named so; of the others each layer may have one."""


def check_kinds(case: FamilyCase) -> None:
    """Raise Failure unless the model has structures of the case's kinds, named as they should be.

    Every layer has heads and neurons where the case says so; experts may be in some layers only.
    """
    model = case.model()
    structures, layers = structures_of(model), range(len(blocks_of(model)))
    found = {structure.kind for structure in structures.values()}
    for kind in sorted(set(case.kinds) - found):
        raise Failure(
            f"{case.name}: no structure of kind {kind!r}; list them, or leave the kind out of the "
            f"case ({REASONS.get(kind, 'if no unit of it can leave exactly')})"
        )
    for kind in sorted(found - set(case.kinds)):
        raise Failure(f"{case.name}: lists {kind!r}, which the case says it has not")
    for name, structure in structures.items():
        kind, layer = structure.kind, structure.layer
        expected = kind if kind in SPAN else f"layers.{layer}.{kind}"
        if (name, structure.name, layer in layers) != (expected, expected, kind not in SPAN):
            raise Failure(
                f"{case.name}: {name} should be {expected!r}, of one of {len(layers)} layers"
            )
    for kind in {"heads", "neurons"} & found:
        for i in layers:
            if f"layers.{i}.{kind}" not in structures:
                raise Failure(f"{case.name}: layer {i} has no {kind}, other layers have")


def check_masked(case: FamilyCase, kinds: tuple[str, ...]) -> None:
    """Raise Failure unless slicing units of these kinds gives the masked model and its size."""
    model = case.model()
    structures = structures_of(model)
    budget, decision = Budget(model, structures), Decision(unevenly(structures, kinds))
    what = f"{case.name}, {' and '.join(kinds)}"
    if not decision.keep:
        raise Failure(f"{what}: no unit can leave; give the case more of them")
    tokens = some_tokens(model)
    most = TOLERANCE * max(1.0, logits(model, tokens).abs().max().item())
    verification, _ = cut(model, decision, tokens)
    if not verification.max_abs_logit_difference < most:
        raise Failure(
            f"{what}: the sliced model's logits differ from the masked one's by "
            f"{verification.max_abs_logit_difference:.1e} (at most {most:.0e}): a coupling, "
            "a gate or a norm is wrong (check_entries says whether one is missing)"
        )
    if not verification.masked_minus_dense > 0.1:
        raise Failure(f"{what}: masking changes no logit by more than 0.1, so nothing was tested")
    achieved = 1.0 - count_parameters(model) / budget.total
    if abs(budget.sparsity(decision) - achieved) > 1e-12:
        raise Failure(
            f"{what}: {budget.sparsity(decision):.6f} of the parameters should have left by the "
            f"couplings, {achieved:.6f} did"
        )
