"""What can be removed from a model (Structure, Coupling, Gate) and what is kept (Decision)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid, Unsupported
from prunebench.untyped import JsonMap, Plain

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Coupling:
    """One side of one parameter that shrinks together with a structure.

    `index` [units, width] holds, for each unit, its positions along dimension `dim` of the
    parameter. Every position belongs to exactly one unit.
    """

    parameter: str
    dim: int
    index: Tensor

    @property
    def width(self) -> int:
        """Number of positions that one unit owns."""
        return self.index.shape[1]


@dataclass(frozen=True)
class Gate:
    """A place where one factor per unit can be put on what the model computes.

    `unit_of` [features] is the unit that each feature belongs to. Setting a unit's factor to 0 at
    all gates of its structure has the same effect on the model's function as removing the unit;
    factors of 1 have none. `side` says what the factors do (`prunebench.pruning.gates`):

    input, output  multiply the activations that enter or leave the named module
    statistics     weigh the features over which the named RMSNorm takes its mean square
    routing        are added, as logarithms, to the logits of the named router of experts: an expert
                   of factor 0 has the logit -inf, and no token goes there
    columns        multiply the last dimension of the named parameter, of a module that computes
                   with several matrices at once
    """

    module: str
    side: str
    unit_of: Tensor


@dataclass(frozen=True)
class Norm:
    """A normalisation over the hidden width, whose statistics change when channels leave.

    offset  what the module adds to its weight before multiplying (0, or 1 in Gemma)
    power   how often the correction multiplies the gain: once, or twice where the output head is
            the embedding and that is scaled too (see `Structure.writers`)
    """

    module: str
    offset: float = 0.0
    power: int = 1


@dataclass(frozen=True)
class Members:
    """A list of equal modules, one or more for each unit, such as the norms of single heads.

    `index` [units, width] holds each unit's places in the ModuleList at `path`.
    """

    path: str
    index: Tensor


@dataclass(frozen=True)
class Structure:
    """A prunable dimension of a model, such as `layers.3.heads`, and its units.

    kind     heads | neurons | experts | hidden | layers
    layer    index of the decoder layer, None for `hidden` and `layers`
    units    how many members there are now
    least    how many must stay: as many experts as each token is sent to, one of all else
    modules  only for `layers`: the module that goes with each unit
    norms    only for `hidden`: normalisations to be corrected when channels leave
    writers  only for `hidden`: parameters that write into it, where they are to be scaled because
             eps must stay as it is (the config has one, and it belongs to other norms, too)
    readers  only where writers are scaled: weights that read it with no norm in between, and are
             scaled the other way
    members  lists of modules of which some leave with a unit
    numbers  only where a unit's function depends on its place among all original units (ALiBi's
             slopes): the buffer that remembers which ones are left; none means all of them
    """

    name: str
    kind: str
    layer: int | None
    units: int
    couplings: tuple[Coupling, ...] = ()
    gates: tuple[Gate, ...] = ()
    modules: tuple[str, ...] = ()
    norms: tuple[Norm, ...] = ()
    writers: tuple[str, ...] = ()
    numbers: str | None = None
    readers: tuple[str, ...] = ()
    members: tuple[Members, ...] = ()
    least: int = 1

    @property
    def consumer(self) -> str:
        """The module that the units of heads or neurons write into the stream through.

        Raises Unsupported for the neurons of experts, whose output matrices are many, and Invalid
        for structures of other kinds, which have no such one.
        """
        for gate in self.gates:
            if gate.side == "input":
                return gate.module
        if self.kind == "neurons":
            raise Unsupported(
                f"{self.name}: each of these neurons writes through a matrix of every expert, of "
                "which a token enters few: no single module consumes them, so what enters it "
                "cannot be measured"
            )
        raise Invalid(f"{self.name}: only heads and neurons are consumed by one module")

    @property
    def consumer_index(self) -> Tensor:
        """Which input features of the consumer each unit owns: [units, width]."""
        name = f"{self.consumer}.weight"
        return next(c.index for c in self.couplings if c.parameter == name and c.dim == 1)

    def per_unit(self, values: Tensor) -> Tensor:
        """Values [features] of the consumer's inputs, by unit: [units, width]."""
        return values[self.consumer_index.to(values.device)]


@dataclass(frozen=True)
class Decision:
    """Which units of which structures are kept. Structures that are not named stay whole.

    keep  structure name -> ascending indices of the kept units
    how   how the decision was reached (ranking scope, ratios, notes): information only
    """

    keep: Mapping[str, tuple[int, ...]]
    how: JsonMap = field(default_factory=dict)

    def to_json(self) -> str:
        """The decision as JSON text, the same bytes for the same decision."""
        keep = {name: list(units) for name, units in sorted(self.keep.items())}
        return json.dumps({"keep": keep, "how": dict(self.how)}, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str | Path = "decision") -> Decision:
        """Read a decision. Raises Invalid when the text is not one."""
        try:
            raw = json.loads(text)
            keep = {str(k): tuple(int(u) for u in v) for k, v in raw["keep"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Invalid(
                f"{where}: expected a decision {{keep: {{name: [units]}}}}: {error}"
            ) from None
        return cls(keep=keep, how=raw.get("how", {}))

    def check(self, structures: Mapping[str, Structure]) -> None:
        """Raise Invalid unless all names exist and units are ascending, in range, not empty."""
        for name, kept in self.keep.items():
            if name not in structures:
                raise Invalid(f"decision: unknown structure {name!r}; known: {_some(structures)}")
            units, least = structures[name].units, structures[name].least
            if not kept:
                raise Invalid(f"decision: {name}: the last unit of a structure must stay")
            if len(kept) < least:
                raise Invalid(
                    f"decision: {name}: every token goes to {least} experts, so at least {least} "
                    f"must stay, got {len(kept)}"
                )
            if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= units:
                raise Invalid(
                    f"decision: {name}: expected ascending distinct units in 0..{units - 1}, "
                    f"got {_some(kept)}"
                )


def _some(items: Plain, most: int = 6) -> str:
    listed = [str(item) for item in items]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
