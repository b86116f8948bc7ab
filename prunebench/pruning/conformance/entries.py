"""Can an entry of a structure be left out, or turned round, without anybody noticing?"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.errors import Failure
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.conformance.case import FamilyCase, some_tokens
from prunebench.pruning.structure import Decision, Structure
from prunebench.pruning.surgery import logits, masked, slice_model
from prunebench.untyped import Json, Plain

NOTICED = 1e-4
"""Logits that differ by more than this show that something is wrong."""
PARTS = ("couplings", "gates", "norms", "writers", "readers", "members")


def check_entries(case: FamilyCase, kind: str) -> None:
    """Raise Failure if a structure of this kind does as well without one of its entries.

    Each is left out in turn, and each index of a coupling is turned round; then surgery must fail,
    or the masked or the sliced model give other logits. What is let pass is the order of a
    parameter that the case calls inert, once it is seen that its values change nothing.
    """
    model = case.model(num_hidden_layers=2)
    tokens, structures = some_tokens(model), structures_of(model)
    right = next(s for s in structures.values() if s.kind == kind)
    decisions = list(_telling(right))
    expected = [_masked(model, structures, decision, tokens) for decision in decisions]
    for what, parameter, wrong in damaged(right):
        if parameter is not None and _is_inert(case, model, parameter, tokens, right):
            continue
        known = {**structures, right.name: wrong}
        pairs = zip(decisions, expected, strict=True)
        if not any(_differs(model, known, d, tokens, target) for d, target in pairs):
            raise Failure(
                f"{case.name}: {right.name}: surgery comes out the same with {what}; if it is "
                "not needed, leave it out of the structure"
            )


def damaged(structure: Structure) -> Iterator[tuple[str, str | None, Structure]]:
    """What was done, the parameter whose order it changed if any, and the damaged structure.

    (Gates of `hidden` behind one another do not replace each other: each is at another writer.)
    """
    for part in PARTS:
        entries = getattr(structure, part)
        for i, entry in enumerate(entries):
            rest = (*entries[:i], *entries[i + 1 :])
            yield f"{part} without {entry_name(entry)}", None, _with(structure, part, rest)
    for part in ("couplings", "members"):
        entries = getattr(structure, part)
        for i, entry in enumerate(entries):
            turned = replace(entry, index=entry.index.flip(0))
            others = (*entries[:i], turned, *entries[i + 1 :])
            parameter = getattr(entry, "parameter", None)
            what = f"the index of {entry_name(entry)} turned round"
            yield what, parameter, _with(structure, part, others)
    if structure.numbers:
        yield f"numbers {structure.numbers} forgotten", None, replace(structure, numbers=None)


def entry_name(entry: object) -> str:
    """What an entry is about: a parameter and its side, or a module."""
    if isinstance(entry, str):
        return entry
    place = getattr(entry, "parameter", getattr(entry, "module", getattr(entry, "path", "")))
    side = getattr(entry, "side", getattr(entry, "dim", None))
    return f"{place} ({side})" if side is not None else str(place)


def _with(structure: Structure, part: str, entries: tuple[Plain, ...]) -> Structure:
    """The structure with other entries in one of its fields."""
    changes: Json = {part: entries}
    return replace(structure, **changes)


def _telling(structure: Structure) -> Iterator[Decision]:
    """Decisions that show every entry of a structure at work."""
    units = structure.units
    if units <= structure.least:
        raise Failure(f"{structure.name}: its {units} units all stay; give the case more of them")
    kept: list[tuple[int, ...]]
    if structure.kind == "layers":  # together they drop every layer
        kept = [(0,), (1,)]
    else:
        gone = max(1, min(units // 8, units - structure.least))
        kept = [tuple(range(gone, units))]
    return (Decision({structure.name: units}) for units in kept)


def _is_inert(
    case: FamilyCase,
    model: PreTrainedModel,
    parameter: str,
    tokens: Tensor,
    structure: Structure,
) -> bool:
    """Whether the case calls this parameter inert. Raises Failure if it wrongly does, or forgot."""
    told = parameter.endswith(case.inert) if case.inert else False
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_parameter(parameter).add_(torch.randn_like(model.get_parameter(parameter)))
    moves = (logits(changed, tokens) - logits(model, tokens)).abs().max().item() > NOTICED
    if told and moves:
        raise Failure(f"{case.name}: {parameter} is said to be inert, but its values matter")
    if not told and not moves:
        raise Failure(
            f"{case.name}: {structure.name}: the values of {parameter} change nothing, so that "
            "their order cannot be checked (a bias of keys without rotary positions?); name its "
            "end in the case's `inert`"
        )
    return told


def _masked(
    model: PreTrainedModel, known: Mapping[str, Structure], decision: Decision, tokens: Tensor
) -> Tensor:
    with masked(model, decision, structures=known):
        return logits(model, tokens)


def _differs(
    model: PreTrainedModel,
    known: Mapping[str, Structure],
    decision: Decision,
    tokens: Tensor,
    expected: Tensor,
) -> bool:
    """Whether surgery by these structures raises, or masks or slices to other logits."""
    model = copy.deepcopy(model)
    try:
        gated = _masked(model, known, decision, tokens)
        slice_model(model, decision, structures=known)
        both = torch.stack([gated, logits(model, tokens)])
    except (RuntimeError, ValueError, ArithmeticError):
        return True
    return not bool((both - expected).abs().max() <= NOTICED)
