"""Measures of a weight's importance, summed over the channels of one parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench.errors import Invalid
from prunebench.untyped import Foreign

BLOCK_ELEMENTS = 2**22
"""Weights that are reduced at a time, so that fp32 temporaries stay at 16 MiB each."""


@dataclass(frozen=True)
class Measure:
    """How the importance of weights becomes the importance of a channel.

    salience       elementwise, fp32: (weight, gradient, squares) -> importance of each weight
    signed         True: | sum of salience | over the channel; False: sum of | salience |
    uses_gradient  needs the gradient of the mean loss of the whole batch
    uses_squares   needs the mean over samples of each sample's squared gradient
    additive       every term is >= 0 and linear in the squares, so samples can be added up as they
                   come: no accumulator of the weight's size is needed
    """

    salience: Callable[[Tensor, Foreign, Foreign], Tensor]  # None for what it does not use
    signed: bool = False
    uses_gradient: bool = False
    uses_squares: bool = False
    additive: bool = False

    @property
    def uses_data(self) -> bool:
        """Whether calibration tokens are needed at all."""
        return self.uses_gradient or self.uses_squares


MEASURES: Mapping[str, Measure] = {
    "vectorize": Measure(lambda w, g, a: w * g, signed=True, uses_gradient=True),
    "param_first": Measure(lambda w, g, a: w * g, uses_gradient=True),
    "param_second": Measure(lambda w, g, a: w * a * w, uses_squares=True, additive=True),
    "param_mix": Measure(
        lambda w, g, a: w * g - 0.5 * w * a * w, uses_gradient=True, uses_squares=True
    ),
    "l1": Measure(lambda w, g, a: w),
    "l2": Measure(lambda w, g, a: w * w),
}
"""LLM-Pruner's measures (arXiv 2305.11627, eq. 3 to 5; w: weight, g: gradient, a: squares)."""


def measure_of(name: str) -> Measure:
    """The measure of that name. Raises Invalid for an unknown one."""
    if name not in MEASURES:
        raise Invalid(f"saliency: unknown measure {name!r}; known: {', '.join(MEASURES)}")
    return MEASURES[name]


@torch.no_grad()
def channel_sums(
    measures: Sequence[str],
    dims: Sequence[int],
    weight: Tensor,
    gradient: Tensor | None = None,
    squares: Tensor | None = None,
) -> dict[tuple[str, int], Tensor]:
    """Each measure's sum over every channel of a weight [rows, columns] or gain [rows].

    Also of experts' weights [experts, rows, columns], whose channels lie along any of the three.
    Returns {(measure, dim): Tensor [weight.shape[dim]]} in fp32. `squares` is the mean over samples
    of squared gradients; left out, it is the square of `gradient` (one sample).
    """
    sums = {
        (name, dim): torch.zeros(weight.shape[dim], dtype=torch.float32, device=weight.device)
        for name in measures
        for dim in dims
    }
    columns = max(1, weight[0].numel())
    for rows in torch.arange(weight.shape[0]).split(max(1, BLOCK_ELEMENTS // columns)):
        block = slice(int(rows[0]), int(rows[-1]) + 1)
        w, g, a = (_fp32(tensor, block) for tensor in (weight, gradient, squares))
        assert w is not None  # there is a weight
        if a is None and g is not None:
            a = g.square() if any(measure_of(name).uses_squares for name in measures) else g
        for name in measures:
            measure = measure_of(name)
            salience = measure.salience(w, g, a)  # [block, ...]
            if not measure.signed:
                salience = salience.abs()
            for dim in dims:
                _add(sums[name, dim], salience, dim, block)
    signed = {key for key in sums if measure_of(key[0]).signed}
    return {key: total.abs() if key in signed else total for key, total in sums.items()}


def _fp32(tensor: Tensor | None, block: slice) -> Tensor | None:
    """Rows of a weight [block, ...], or of a gain as a matrix of one column."""
    if tensor is None:
        return None
    rows = tensor[block].float()
    return rows if rows.dim() > 1 else rows.unsqueeze(1)


def _add(total: Tensor, salience: Tensor, dim: int, block: slice) -> None:
    sums = salience.sum(dim=[i for i in range(salience.dim()) if i != dim])
    if dim == 0:
        total[block] = sums
    else:
        total += sums
