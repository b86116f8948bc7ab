"""LLM-Pruner's ranking, for the control that parts LoRAPrune's criterion from its schedule."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Structure
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores

MEASURE = "param_first"


def taylor_ranking(
    model: PreTrainedModel, scored: Mapping[str, Structure], ctx: Context
) -> dict[str, Tensor]:
    """First-order importance |w dL/dw| of every unit on the calibration text: name -> [units]."""
    channels = channel_saliency(
        model, sides_of(scored.values()), [MEASURE], tokens=ctx.calibration(), cost=ctx.cost
    )[MEASURE]
    return {name: unit_scores(channels, structure) for name, structure in scored.items()}
