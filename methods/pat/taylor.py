"""LLM-Pruner's scores of the hidden width, as an order in which the mask can start."""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context
from prunebench.pruning.saliency import channel_saliency, sides_of, unit_scores
from prunebench.recovery import RecoveryData

MEASURE = "param_first"
EXAMPLES = 16


def taylor_scores(model: PreTrainedModel, data: RecoveryData, ctx: Context) -> Tensor:
    """First-order importance |w dL/dw| of every channel on the first tuning examples: [width]."""
    hidden = ctx.structures["hidden"]
    batch = data.first(EXAMPLES, ctx.device)
    channels = channel_saliency(
        model,
        sides_of([hidden]),
        [MEASURE],
        tokens=batch["input_ids"],
        labels=batch["labels"],
        cost=ctx.cost,
    )[MEASURE]
    return unit_scores(channels, hidden)
