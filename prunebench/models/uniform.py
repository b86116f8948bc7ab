"""Saved pruned models whose layers differ in shape, given uniform layers so that stock
classes can load them.

pad  zero units join every layer until it has as many as the largest one. A unit of zeros adds
     nothing, so the function stays what was measured; parameters and time grow.
cut  units leave every layer until it has as few as the smallest one: those with the smallest sum
     of squared weights, as they are saved. That is another, unmeasured model, and marked so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.models import folders
from prunebench.models.checks import check_folder
from prunebench.pruning.architectures import refresh, structures_of
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores
from prunebench.pruning.structure import Decision, Structure
from prunebench.pruning.surgery import (
    count_parameters,
    logits,
    masked,
    slice_model,
    spread_members,
    sync_features,
    tolerance,
)
from prunebench.whole import whole_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

KINDS = ("heads", "neurons", "experts")
CRITERION = "l2"  # sum of squared weights
CHECK_TOKENS = (2, 32)


@dataclass(frozen=True)
class Export:
    """What was written. units: kind -> number that every layer has now."""

    how: str
    units: Mapping[str, int]
    parameters_before: int
    parameters: int
    max_abs_logit_difference: float

    def lines(self) -> list[str]:
        """The result in words."""
        units = ", ".join(f"{number} {kind}" for kind, number in self.units.items())
        change = (
            "the same function as the saved model"
            if self.how == "pad"
            else "NOT the model that was measured: further units left it; measure it anew"
        )
        return [
            f"{self.how}: every layer has {units}",
            f"{self.parameters_before:,} parameters before, {self.parameters:,} now",
            f"{change} (stock class against it: {self.max_abs_logit_difference:.1e})",
        ]


def export_uniform(folder: Path, out: Path, *, how: str) -> Export:
    """Write the pruned model in `folder` to `out` with equal layers; how: "pad" or "cut".

    The result is loaded with the stock class and compared on fixed random tokens with the saved
    model (pad) or with the saved model whose leaving units are masked (cut). Raises Invalid when
    `folder` needs no export or `out` exists, Unsupported when stock classes cannot have the
    shapes even so, Failure when the comparison fails.
    """
    if out.exists():
        raise Invalid(f"{out}: exists already; give a folder that does not")
    check_folder(folder)
    if folders.describe(folder).get("loadable_by") != "prunebench":
        raise Invalid(f"{folder}: stock classes load it as it is; there is nothing to export")
    dtype = _dtype(folder)
    model, tokenizer = folders.load(folder, dtype=dtype)
    before = count_parameters(model)
    tokens = _tokens(model.config.vocab_size)
    expected, stock = _pad(model, tokens) if how == "pad" else _cut(model, tokens)
    after = count_parameters(model)
    origin = {"export": f"uniform {how}", "same_function": how == "pad"}
    origin |= {"source_sha256": folders.weights_digest(folder), "source_parameters": before}
    with whole_folder(out) as draft:
        loader = folders.save(model, tokenizer, draft, uniform=stock, origin=origin)
        if loader != "transformers":
            raise Unsupported(
                f"{folder}: with equal layers, too, no stock class of {model.config.model_type} "
                "has these shapes"
            )
        difference = _compare(draft, dtype, tokens, expected)
    counts = {kind: _counts(structures_of(model), kind) for kind in KINDS}
    units = {kind: numbers[0] for kind, numbers in counts.items() if numbers}
    return Export(how, units, before, after, difference)


@torch.no_grad()
def _pad(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, bool]:
    """Grow `model` in place; logits before that, and whether the stock class can build it."""
    expected = logits(model, tokens)
    structures = structures_of(model)
    for kind in KINDS:
        alike = [s for s in structures.values() if s.kind == kind]
        widest = max(alike, key=lambda s: s.units, default=None)
        for structure in alike:
            if widest is not None and structure.units < widest.units:
                _check_zeros(structure)
                _grow(model, structure, widest)
    for module in model.modules():
        sync_features(module)
    return expected, refresh(model)


def _check_zeros(structure: Structure) -> None:
    """Raise Unsupported where a unit of zeros does change what the others compute."""
    why = {
        "routing": "a router would send tokens to an added expert",
        "statistics": "the norm over all heads would count the added ones",
    }
    for gate in structure.gates:
        if gate.side in why:
            raise Unsupported(
                f"{structure.name}: cannot be padded with zeros: {why[gate.side]}; "
                "`--uniform cut` makes layers equal by taking further units out"
            )


def _grow(model: PreTrainedModel, structure: Structure, widest: Structure) -> None:
    """Give `structure` the shapes of `widest`, which says where each unit has its place.

    A fused matrix has its parts in sequence, so that places depend on how many units there are.
    """
    order = _places(model, structure, widest)
    for mine, its in zip(structure.couplings, widest.couplings, strict=True):
        old = model.get_parameter(mine.parameter)
        shape = list(old.shape)
        shape[mine.dim] = model.get_parameter(its.parameter).shape[its.dim]
        new = old.new_zeros(shape)
        places = its.index[order].reshape(-1).to(old.device)
        values = old.detach().index_select(mine.dim, mine.index.reshape(-1).to(old.device))
        new.index_copy_(mine.dim, places, values)
        path, _, leaf = mine.parameter.rpartition(".")
        setattr(model.get_submodule(path), leaf, torch.nn.Parameter(new))
    for own, full in zip(structure.members, widest.members, strict=True):
        taken = full.index[order].flatten().tolist()
        spread_members(model, own.path, taken, full.index.numel())


def _places(model: PreTrainedModel, structure: Structure, widest: Structure) -> Tensor:
    """Which units of the grown structure [units] its present ones become: the first ones.

    Where a unit's function depends on its original number (ALiBi), it goes back to that place.
    """
    numbers = getattr(structure, "numbers", None)
    path, _, leaf = (numbers or "").rpartition(".")
    if numbers is None or not hasattr(model.get_submodule(path), leaf):
        return torch.arange(structure.units)
    order = getattr(model.get_submodule(path), leaf).cpu()
    if int(order.max()) >= widest.units:
        raise Unsupported(
            f"{structure.name}: the {structure.kind} have slopes by their original numbers, and "
            "no layer has all of them, as the stock class wants"
        )
    delattr(model.get_submodule(path), leaf)
    return cast("Tensor", order)


def _cut(model: PreTrainedModel, tokens: Tensor) -> tuple[Tensor, bool]:
    """Cut `model` in place; logits with the leaving units masked, and whether it is stock now."""
    structures = structures_of(model)
    keep = {}
    for kind in KINDS:
        most = min(_counts(structures, kind), default=0)
        larger = [s for s in structures.values() if s.kind == kind and s.units > most]
        channels = channel_saliency(model, sides_of(larger), [CRITERION])[CRITERION]
        for structure in larger:
            best = unit_scores(channels, structure).argsort(descending=True, stable=True)[:most]
            keep[structure.name] = tuple(sorted(best.tolist()))
    decision = Decision(keep)
    with masked(model, decision):
        expected = logits(model, tokens)
    return expected, slice_model(model, decision)


def _counts(structures: Mapping[str, Structure], kind: str) -> list[int]:
    return [s.units for s in structures.values() if s.kind == kind]


def _compare(folder: Path, dtype: str, tokens: Tensor, expected: Tensor) -> float:
    """Largest logit difference of the folder's model, loaded by its stock class."""
    stock, _ = folders.load(folder, dtype=dtype)
    difference = (logits(stock, tokens) - expected).abs().max().item()
    most = tolerance(stock, expected)
    if not difference <= most:
        raise Failure(
            f"the exported model differs from the saved one by {difference:.2e} in its logits "
            f"(tolerance {most:.0e}); nothing was written"
        )
    return difference


def _tokens(vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, CHECK_TOKENS, generator=generator)


def _dtype(folder: Path) -> str:
    """The type that the folder's weights have."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return raw.get("dtype") or raw.get("torch_dtype") or "float32"
