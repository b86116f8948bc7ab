"""LLM-Pruner's scores of the hidden width, as an order in which the mask can start."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from prunebench.plugins.context import Context
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores

MEASURE = "param_first"


def taylor_scores(model: PreTrainedModel, ctx: Context) -> Tensor:
    """First-order importance |w dL/dw| of every channel on the calibration text: [width]."""
    hidden = ctx.structures["hidden"]
    channels = channel_saliency(
        model, sides_of([hidden]), [MEASURE], tokens=ctx.calibration(), cost=ctx.cost
    )[MEASURE]
    return unit_scores(channels, hidden)
