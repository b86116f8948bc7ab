"""Which weights a method changed beside deciding, and what they are after the cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor, nn

Place = tuple[nn.Module, str]
"""A module and the name of one of its parameters: it outlives a cut, which renames layers."""


@dataclass(frozen=True)
class Weights:
    """Digests of a model's parameters, by place."""

    digests: dict[Place, str]

    @classmethod
    def of(cls, model: nn.Module) -> Weights:
        """Those of `model` now. Every value is read once, at the speed of memory."""
        return cls({place: digest(value) for place, value in _parameters(model)})

    def changed(self, model: nn.Module) -> set[Place]:
        """Places whose parameter is another one by now, or was not there."""
        now = _parameters(model)
        return {place for place, value in now if self.digests.get(place) != digest(value)}


def named(model: nn.Module, places: set[Place]) -> dict[str, Tensor]:
    """The parameters at these places that the model still has, under the names of now."""
    found = {}
    for name, parameter in model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        if (model.get_submodule(owner), leaf) in places:
            found[name] = parameter.detach()
    return found


def digests_of(model: nn.Module) -> dict[str, str]:
    """Digest of every parameter, by name."""
    return {name: digest(parameter) for name, parameter in model.named_parameters()}


def size(tensors: dict[str, Tensor]) -> int:
    """Bytes of their values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def digest(value: Tensor) -> str:
    """XXH3 of a tensor's bytes, with its shape and type."""
    plain = value.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
    content = xxhash.xxh3_128(plain.numpy()).hexdigest()  # type: ignore[arg-type]  # numpy says no Buffer
    return f"{tuple(value.shape)} {value.dtype} {content}"


def _parameters(model: nn.Module) -> Iterator[tuple[Place, Tensor]]:
    for module in model.modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            yield (module, leaf), parameter
