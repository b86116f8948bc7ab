"""dense: keep everything."""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench import Context
from prunebench.pruning.structure import Decision


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Return the decision that removes nothing."""
    return Decision(keep={}, how={"achieved": 0.0})
