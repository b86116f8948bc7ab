"""Fine and coarse scores of every matrix of a group, and the closed forms that blend them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench.errors import Failure
from prunebench.saliency import Side, unit_scores, weight_couplings
from prunebench.structure import Structure

FINE, COARSE = "param_first", "vectorize"
"""LLM-Pruner's measures behind the granularities: sum of |w g|, and |sum of w g|."""


@dataclass(frozen=True)
class Grains:
    """Two assessments of one matrix's channels, [channels] each: 0 <= coarse <= fine."""

    fine: Tensor
    coarse: Tensor

    def blend(self, attention: Tensor) -> Tensor:
        """z = w f + (1 - w) c, nothing rescaled; attention [channels, 2] is (w, 1 - w)."""
        return attention[:, 0] * self.fine + attention[:, 1] * self.coarse


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


def fused_scores(
    groups: Groups,
    attentions: Attentions,
    structures: Mapping[str, Structure],
) -> dict[str, Tensor]:
    """Scores [units] of every structure: blended matrix by matrix, then summed over the group."""
    scores = {}
    for name, group in groups.items():
        blended = {side: grains.blend(attentions[name][side]) for side, grains in group.items()}
        scores[name] = unit_scores(blended, structures[name])
    return scores


def repeat_weights(samples: int, ratio: float) -> list[float]:
    """Weights of the samples' squared gradients in the older fixed-ratio fusion (reading R1').

    A = (r / N) g_1^2 + (r (1 - r) / N) sum of g_k^2 over the other samples.
    """
    return [ratio / samples] + [ratio * (1.0 - ratio) / samples] * (samples - 1)
