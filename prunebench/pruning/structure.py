"""What can be removed from a model (Structure, Coupling, Gate) and what is kept (Decision)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
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
    """A place where activations can be multiplied by one factor per unit.

    `side` is "input" or "output" of the named module; `unit_of` [features] is the unit that each
    feature belongs to. Setting a unit's factor to 0 at all gates of its structure has the same
    effect on the model's function as removing the unit.
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
class Structure:
    """A prunable dimension of a model, such as `layers.3.heads`, and its units.

    kind     heads | neurons | hidden | layers
    layer    index of the decoder layer, None for `hidden` and `layers`
    units    how many members there are now
    modules  only for `layers`: the module that goes with each unit
    norms    only for `hidden`: normalisations to be corrected when channels leave
    writers  only for `hidden`: parameters that write into it, where they are to be scaled because
             eps must stay as it is (the config has one, and it belongs to other norms, too)
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
            units = structures[name].units
            if not kept:
                raise Invalid(f"decision: {name}: the last unit of a structure must stay")
            if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= units:
                raise Invalid(
                    f"decision: {name}: expected ascending distinct units in 0..{units - 1}, "
                    f"got {_some(kept)}"
                )


def _some(items: Plain, most: int = 6) -> str:
    listed = [str(item) for item in items]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
