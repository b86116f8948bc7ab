"""Counting parameters: what is left of a model when units and layers leave."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from copy import copy
from math import prod
from typing import Literal

from torch import nn

from prunebench.errors import Invalid
from prunebench.pruning.architectures import blocks_of
from prunebench.pruning.structure import Decision, Structure


class Budget:
    """Counts the parameters that are left when units leave, for overlapping structures too.

    A parameter may shrink along both sides (heads and hidden, say), so what a unit is worth depends
    on the others; counting walks the couplings and is exact. `of` says what is counted: all
    parameters of the model, or those of its decoder blocks (no embedding, head or final norm).
    """

    def __init__(
        self,
        model: nn.Module,
        structures: Mapping[str, Structure],
        *,
        of: Literal["model", "decoder"] = "model",
    ) -> None:
        self.structures, self.of = structures, of
        self.dropped: tuple[int, ...] = ()
        self.gained = 0
        blocks = tuple(f"{name}." for name in blocks_of(model))
        self.shapes = {
            name: tuple(p.shape)
            for name, p in model.named_parameters()
            if of == "model" or name.startswith(blocks)
        }
        sides = [
            (c.parameter, c.dim, s.name, c.width) for s in structures.values() for c in s.couplings
        ]
        for structure in structures.values():
            for members in structure.members:  # count as one matrix with a row for each module
                inside = [n for n in self.shapes if n.startswith(f"{members.path}.")]
                size = sum(prod(self.shapes.pop(name)) for name in inside)
                count = members.index.numel()
                self.shapes[members.path] = (count, size // count)
                sides.append((members.path, 0, structure.name, members.index.shape[1]))
        self.sides: dict[str, dict[int, list[tuple[str, int]]]] = {name: {} for name in self.shapes}
        for name, dim, owner, width in sides:
            if name in self.shapes:
                self.sides[name].setdefault(dim, []).append((owner, width))
        self.total = sum(prod(shape) for shape in self.shapes.values())

    def after(self, *, dropped: Collection[int] = (), gained: int = 0) -> Budget:
        """The same budget where whole layers leave in any case, and parameters are added.

        dropped  indices of the layers that leave; their units count no more
        gained   parameters that the method adds to those that count (biases)
        """
        layers = tuple(sorted(set(dropped)))
        units = self.structures["layers"].units if layers else 0
        if layers and not (0 <= layers[0] and layers[-1] < units and len(layers) < units):
            raise Invalid(f"dropped: expected some of the layers 0..{units - 1}, got {dropped}")
        other = copy(self)
        other.dropped, other.gained = layers, gained
        return other

    def open(self, names: Iterable[str]) -> list[str]:
        """Those structures that do not leave with their whole layer."""
        return [n for n in names if self.structures[n].layer not in self.dropped]

    def left(self, removed: Mapping[str, int], dropped_layers: tuple[int, ...] = ()) -> int:
        """Parameters left, of those that count, after removing so many units of structures."""
        layers = {*self.dropped, *dropped_layers}
        gone = tuple(self.structures["layers"].modules[i] + "." for i in layers)
        count = self.gained
        for name, shape in self.shapes.items():
            if gone and name.startswith(gone):
                continue
            size = list(shape)
            for dim, owners in self.sides[name].items():
                size[dim] -= sum(removed.get(owner, 0) * width for owner, width in owners)
            count += prod(size)
        return count

    def sparsity(self, decision: Decision) -> float:
        """Fraction of the parameters that count that `decision` removes."""
        return 1.0 - self.left_by(decision) / self.total

    def left_by(self, decision: Decision) -> int:
        """Parameters left, of those that count, after `decision`."""
        kept = decision.keep
        removed = {n: self.structures[n].units - len(k) for n, k in kept.items() if n != "layers"}
        layers = range(self.structures["layers"].units) if "layers" in kept else ()
        dropped = tuple(i for i in layers if i not in kept["layers"])
        return self.left(removed, dropped)
