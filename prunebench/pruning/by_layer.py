"""A model layer by layer: each is measured, decided on, and then feeds the next as it was cut."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.errors import Invalid
from prunebench.pruning.architectures import blocks_of
from prunebench.pruning.signals import Signal, listening
from prunebench.pruning.structure import Structure
from prunebench.pruning.surgery import gated
from prunebench.untyped import Json, Passed


class _Call(NamedTuple):
    """What a layer is called with beside the stream: masks, positions."""

    others: tuple[Passed, ...]
    options: Json


class _Reached(Exception):
    """The place behind which a pass of the model is not needed."""


class Layer:
    """One decoder layer between what enters it and what leaves it.

    index       of the layer
    structures  its heads and neurons, and experts where it has some, under their names
    inputs      the stream that enters: a Tensor [batch, length, hidden] for each batch
    """

    def __init__(
        self,
        model: PreTrainedModel,
        module: nn.Module,
        index: int,
        structures: Mapping[str, Structure],
        inputs: Sequence[Tensor],
        calls: Sequence[_Call],
    ) -> None:
        self.index, self.structures, self.inputs = index, structures, inputs
        self._model, self._module, self._calls = model, module, calls
        self._kept: dict[str, Tensor] = {}

    def signals(self, *, moments: bool = False) -> dict[str, Signal]:
        """What enters the consumers of this layer's heads and neurons, as it is by now.

        Raises Unsupported for the neurons of experts, which no single module consumes.
        """
        kinds = ("heads", "neurons")
        consumed = {n: s for n, s in self.structures.items() if s.kind in kinds}
        with listening(self._model, consumed, moments=moments) as found:
            self.outputs()
        return found

    @torch.no_grad()
    def outputs(self, without: Collection[str] = ()) -> list[Tensor]:
        """The stream that leaves, one Tensor [batch, length, hidden] for each batch.

        without  structures that are shut off whole for this once
        """
        units = {name: structure.units for name, structure in self.structures.items()}
        shut = {name: torch.zeros(units[name]) for name in without}
        left = []
        with gated(self._model, {**self._kept, **shut}, structures=self.structures):
            for entering, call in zip(self.inputs, self._calls, strict=True):
                output = self._module(entering, *call.others, **call.options)
                left.append(output[0] if isinstance(output, tuple) else output)
        return left

    def keep(self, kept: Mapping[str, Sequence[int]]) -> None:
        """From here on the layer works with these units alone, for all that follow it, too."""
        for name, units in kept.items():
            if name not in self.structures:
                raise Invalid(f"layer {self.index}: {name!r} is none of {list(self.structures)}")
            factor = torch.zeros(self.structures[name].units)
            factor[list(units)] = 1.0
            self._kept[name] = factor


def by_layer(
    model: PreTrainedModel,
    structures: Mapping[str, Structure],
    tokens: Tensor,
    *,
    batch: int = 8,
) -> Iterator[Layer]:
    """Go through the decoder layers with the stream of `tokens` [samples, length].

    What a step keeps (`Layer.keep`), and weights that it changes, decide what enters the next
    layer; a step that does neither leaves the dense path. Memory: the stream of all samples, on
    the model's device. Hooks are there only while a layer runs.
    """
    modules = [model.get_submodule(path) for path in blocks_of(model)]
    inputs, calls = _entering(model, modules, tokens, batch)
    for index, module in enumerate(modules):
        own = {name: s for name, s in structures.items() if s.layer == index}
        layer = Layer(model, module, index, own, inputs, [call[index] for call in calls])
        yield layer
        inputs = layer.outputs()


@torch.no_grad()
def _entering(
    model: PreTrainedModel, modules: Sequence[nn.Module], tokens: Tensor, batch: int
) -> tuple[list[Tensor], list[list[_Call]]]:
    """For each batch, the stream that enters the first layer, and how every layer is called.

    Batches of one size are called alike: the first is followed to the last layer, others only to
    the first one.
    """
    device = next(model.parameters()).device
    known: dict[int, list[_Call]] = {}
    inputs, calls = [], []
    for part in tokens.split(batch):
        followed = modules if len(part) not in known else modules[:1]
        found: list[tuple[Tensor, _Call]] = []
        handles = [module.register_forward_pre_hook(_note(found, len(followed)), with_kwargs=True)
                   for module in followed]  # fmt: skip
        try:
            model.base_model(input_ids=part.to(device), use_cache=False)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        known.setdefault(len(part), [call for _, call in found])
        inputs.append(found[0][0])
        calls.append(known[len(part)])
    return inputs, calls


def _note(found: list[tuple[Tensor, _Call]], last: int) -> Passed:
    def note(_: nn.Module, args: tuple[Passed, ...], kwargs: Json) -> None:
        options = dict(kwargs)
        stream, others = (args[0], args[1:]) if args else (options.pop("hidden_states"), ())
        found.append((stream.detach(), _Call(others, options)))
        if len(found) == last:
            raise _Reached

    return note
