"""Fine and coarse scores of every matrix of a group, and the closed forms that blend them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench import Failure, Structure
from prunebench.pruning.saliency import Side, weight_couplings

FINE, COARSE = "param_first", "vectorize"
"""LLM-Pruner's measures behind the granularities: sum of |w g|, and |sum of w g|."""


@dataclass(frozen=True)
class Grains:
    """Two assessments of one matrix's channels, [channels] each: 0 <= coarse <= fine."""

    fine: Tensor
    coarse: Tensor


Groups = Mapping[str, Mapping[Side, Grains]]
"""Structure name -> matrix side -> its grains."""

Attentions = Mapping[str, Mapping[Side, Tensor]]
"""Structure name -> matrix side -> (w, 1 - w) of its channels [channels, 2]; w weighs fine."""


def grains_of(
    saliency: Mapping[str, Mapping[Side, Tensor]],
    structures: Mapping[str, Structure],
    device: torch.device | str = "cpu",
) -> dict[str, dict[Side, Grains]]:
    """The grains of every matrix of every structure, from the channel sums of both measures."""
    groups: dict[str, dict[Side, Grains]] = {}
    for name, structure in structures.items():
        sides = dict.fromkeys(Side(c.parameter, c.dim) for c in weight_couplings(structure))
        groups[name] = {
            side: Grains(saliency[FINE][side].to(device), saliency[COARSE][side].to(device))
            for side in sides
        }
    return groups


def check_signal(channels: Mapping[Side, Tensor]) -> None:
    """Raise Failure for a matrix whose scores are all zero: nothing can rank its channels."""
    dead = [side.parameter for side, values in channels.items() if not bool(values.any())]
    if dead:
        more = f" (and in {len(dead) - 1} more)" if len(dead) > 1 else ""
        raise Failure(
            f"hywia: weight times gradient is zero everywhere in {dead[0]}{more}: its "
            "layer is dead or takes no part in the loss, so no granularity can rank its channels; "
            "protect it (protect_first, protect_last) or use other calibration text"
        )


def mean(grains: Grains) -> Tensor:
    """Attention [channels, 2] of one half each (reading R1; R2 gives the same)."""
    return torch.full((len(grains.fine), 2), 0.5, device=grains.fine.device)


def softmax(grains: Grains) -> Tensor:
    """Attention [channels, 2]: softmax of each channel's scores over their matrix means (R3).

    The means only put both granularities on one scale inside the softmax, at temperature 1.
    """
    floor = torch.finfo(grains.fine.dtype).tiny
    scores = [s / s.mean().clamp_min(floor) for s in (grains.fine, grains.coarse)]
    return torch.stack(scores, dim=1).softmax(dim=1)


CLOSED_FORMS: Mapping[str, Callable[[Grains], Tensor]] = {"mean": mean, "softmax": softmax}
"""Fusions without parameters: grains -> attention [channels, 2]."""


class Fusion:
    """Blends all matrices of all structures and adds them up to units.

    Everything lies in one vector over channels, so that a blend is a handful of operations for any
    number of matrices: training computes it at every step.
    """

    def __init__(self, groups: Groups, structures: Mapping[str, Structure]) -> None:
        grains = [one for group in groups.values() for one in group.values()]
        self.fine = torch.cat([one.fine for one in grains])  # [all channels]
        self.coarse = torch.cat([one.coarse for one in grains])
        self.names = list(groups)
        self.sizes = [structures[name].units for name in groups]
        spare = sum(self.sizes)  # takes the channels of a matrix that no unit owns
        units, first = [], 0
        for name, size in zip(self.names, self.sizes, strict=True):
            for side, one in groups[name].items():
                owner = torch.full((len(one.fine),), spare)
                for coupling in structures[name].couplings:
                    if Side(coupling.parameter, coupling.dim) == side:
                        owner[coupling.index] = first + torch.arange(size)[:, None]
                units.append(owner)
            first += size
        self.units = torch.cat(units).to(self.fine.device)

    def scores(self, attentions: Attentions) -> dict[str, Tensor]:
        """Scores [units] of every structure: z = w f + (1 - w) c of its channels, nothing rescaled.

        Matrices count equally, a unit's channels are summed (released code).
        """
        w = torch.cat([a for group in attentions.values() for a in group.values()])  # [all, 2]
        z = w[:, 0] * self.fine + w[:, 1] * self.coarse
        totals = z.new_zeros(sum(self.sizes) + 1).index_add(0, self.units, z)
        return dict(zip(self.names, totals[:-1].split(self.sizes), strict=True))


def repeat_weights(samples: int, ratio: float) -> list[float]:
    """Weights of the samples' squared gradients in the older fixed-ratio fusion (reading R1').

    A = (r / N) g_1^2 + (r (1 - r) / N) sum of g_k^2 over the other samples.
    """
    return [ratio / samples] + [ratio * (1.0 - ratio) / samples] * (samples - 1)
