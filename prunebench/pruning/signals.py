"""Statistics of what enters the Linears that heads and neurons write through, over calibration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.structure import Structure
from prunebench.untyped import Passed

ROWS = 2048
"""Tokens that are taken up at a time, so that fp64 copies stay small."""


@dataclass(frozen=True)
class Signal:
    """What entered a structure's consumer, feature by feature, in fp64 on the model's device.

    tokens    how many there were
    mean      [features]
    variance  [features], of all tokens (divided by their number)
    moment    [features, features], mean of x x^T; None unless it was asked for

    `structure.per_unit(values)` lays values [features] out by unit, as [units, width].
    """

    tokens: int
    mean: Tensor
    variance: Tensor
    moment: Tensor | None = None

    @property
    def norm(self) -> Tensor:
        """Root of the sum of x^2 over the tokens: [features]."""
        return ((self.variance + self.mean.square()) * self.tokens).sqrt()


class _Running:
    """Mean and summed squares around it of all rows so far (Chan, Golub and LeVeque 1983)."""

    def __init__(self) -> None:
        self.tokens = 0
        self.mean = self.squares = torch.zeros(())
        self.products: Tensor | None = None

    def add(self, entered: Tensor, *, moments: bool) -> None:
        for part in entered.flatten(0, -2).split(ROWS):  # [tokens, features]
            rows = part.double()
            count, mean = len(rows), rows.mean(dim=0)
            squares = (rows - mean).square().sum(dim=0)
            if not self.tokens:
                self.mean, self.squares = torch.zeros_like(mean), torch.zeros_like(mean)
            apart, total = mean - self.mean, self.tokens + count
            self.mean = self.mean + apart * (count / total)
            self.squares = self.squares + squares + apart.square() * (self.tokens * count / total)
            self.tokens = total
            if moments:
                products = rows.T @ rows
                self.products = products if self.products is None else self.products.add_(products)

    def signal(self, name: str) -> Signal:
        if not self.tokens:
            raise Unsupported(f"{name}: nothing entered its consumer: it is not used")
        moment = None if self.products is None else self.products / self.tokens
        return Signal(self.tokens, self.mean, self.squares / self.tokens, moment)


@contextmanager
def listening(
    model: PreTrainedModel, structures: Mapping[str, Structure], *, moments: bool = False
) -> Iterator[dict[str, Signal]]:
    """Collect, inside the block, what enters each structure's consumer; filled at its end.

    Only sums are kept, so memory does not grow with the calibration text.
    """
    running = {name: _Running() for name in structures}
    found: dict[str, Signal] = {}
    handles = []

    def listener(name: str) -> Passed:
        return lambda _, args: running[name].add(args[0].detach(), moments=moments)

    try:
        for name, structure in structures.items():
            module = model.get_submodule(structure.consumer)
            handles.append(module.register_forward_pre_hook(listener(name)))
        yield found
        found.update({name: kept.signal(name) for name, kept in running.items()})
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def signals(
    model: PreTrainedModel,
    structures: Mapping[str, Structure],
    tokens: Tensor,
    *,
    moments: bool = False,
    batch: int = 8,
) -> dict[str, Signal]:
    """The signals of these heads and neurons, from one pass of `tokens` [samples, length].

    moments keeps [features, features] in fp64 for each structure: for many wide layers,
    `by_layer` keeps one layer's at a time. The output head is not run.

    Raises Invalid for tokens of another shape, and Unsupported for the neurons of experts, which no
    single module consumes.
    """
    if tokens.dim() != 2 or not len(tokens):
        raise Invalid(f"signals: expected tokens [samples, length], got {tuple(tokens.shape)}")
    device = next(model.parameters()).device
    with listening(model, structures, moments=moments) as found:
        for part in tokens.split(batch):
            model.base_model(input_ids=part.to(device), use_cache=False)
    return found
