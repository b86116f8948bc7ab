"""Is the output head the input embedding? Identity of the tensors decides, never the config.

A config can say "tied" of a file that holds a head of other values; transformers then loads it
untied and leaves the flag as it is.
"""

from __future__ import annotations

from transformers import PreTrainedModel


def head_is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head and the input embedding are one and the same tensor."""
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def tie(model: PreTrainedModel) -> None:
    """Let the output head be the input embedding."""
    model.get_output_embeddings().weight = model.get_input_embeddings().weight


def head_name(model: PreTrainedModel) -> str:
    """Name of the output head's weight, as files have it."""
    head = model.get_output_embeddings()
    return next(f"{name}.weight" for name, module in model.named_modules() if module is head)
