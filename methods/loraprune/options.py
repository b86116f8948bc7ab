"""LoRAPrune's parameters: what a flavour stands for, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from prunebench import Invalid
from prunebench.pruning.protection import depth
from prunebench.pruning.structure import Structure
from prunebench.untyped import Json, JsonMap, Passed

FLAVOURS: dict[str, Json] = {
    "code": {
        "power": "abs",
        "normalisation": "l2",
        "eta": 1.0,
        "scale_in_estimate": False,
        "scale_in_weight": True,
    },
    "paper": {
        "power": "square",
        "normalisation": "none",
        "eta": 1.0,
        "scale_in_estimate": False,
        "scale_in_weight": False,
    },
}

FEW_LAYERS = 10  # from here on, 10 % of the layers are at least one


@dataclass(frozen=True)
class Formula:
    """How a weight's importance follows from its LoRA pair (README.md has the equations)."""

    power: str  # abs | square
    normalisation: str  # l2 | none
    eta: float
    scale_in_estimate: bool
    scale_in_weight: bool

    @classmethod
    def of(cls, flavour: str = "code", **chosen: Passed) -> Formula:
        """The flavour's formula, with the keys of `chosen` that are not None in their place."""
        given = {key: value for key, value in chosen.items() if value is not None}
        return cls(**{**FLAVOURS[flavour], **given})


@dataclass(frozen=True)
class LoRAPruneOptions:
    """The parameters of one run; method.yaml describes each."""

    formula: Formula
    ema: float
    warmup: float
    cooldown: float | None
    prune_every: int | None
    rounding: str
    cut: str
    ranking: str
    protect_first: float
    protect_last: int | None
    native: bool
    ratio: float | None
    shrink: bool
    shrink_every: int
    bits: int

    @classmethod
    def from_params(cls, params: JsonMap) -> LoRAPruneOptions:
        """Resolve the flavour. Raises Invalid for parameters that contradict each other."""
        rest = dict(params)
        chosen = {key: rest.pop(key) for key in FLAVOURS["code"]}
        options = cls(formula=Formula.of(rest.pop("flavour"), **chosen), **rest)
        options._check()
        return options

    def _check(self) -> None:
        least = 0.5 if self.cooldown is None else self.cooldown
        if self.warmup + least >= 1:
            raise Invalid(
                f"loraprune: warmup + cooldown: expected less than 1, got {self.warmup:g} + "
                f"{least:g}; no step would be left to prune in"
            )
        if self.ratio is not None and not self.native:
            raise Invalid("loraprune: ratio needs native: true; without it the sparsity decides")
        if self.cut == "at_once" and (self.shrink or self.bits != 16):
            raise Invalid("loraprune: cut: at_once is for whole models: no shrink, and bits: 16")
        if self.shrink and self.bits != 16:
            raise Invalid(
                f"loraprune: shrink needs bits: 16, got {self.bits}; quantised weights are stored "
                "in blocks that cannot be cut"
            )

    def scored(self, structures: Mapping[str, Structure]) -> dict[str, Structure]:
        """The heads and neurons of all layers that are not protected. Raises Invalid for none."""
        layers = depth(structures)
        first, last = self.protected(layers)
        prunable = range(first, layers - last)
        chosen = {
            name: structure
            for name, structure in structures.items()
            if structure.kind in ("heads", "neurons") and structure.layer in prunable
        }
        if not chosen:
            raise Invalid(
                f"loraprune: all {layers} layers are protected; lower protect_first "
                f"({self.protect_first:g}) or protect_last ({last})"
            )
        return chosen

    def protected(self, layers: int) -> tuple[int, int]:
        """How many leading and trailing layers are left out of so many."""
        first = int(self.protect_first * (layers if self.protect_first < 1 else 1))
        if self.protect_last is not None:
            return first, self.protect_last
        return first, int(layers >= FEW_LAYERS)

    def to_dict(self) -> Json:
        """Plain data for the record."""
        return asdict(self)
