"""What a model can take: how many tokens, and which ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.modules import input_weight
from prunebench.untyped import Foreign

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def positions(config: Foreign) -> int | None:
    """The longest input of a model; None where nothing limits it (ALiBi)."""
    if getattr(config, "alibi", False):
        return None
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def check_length(model: PreTrainedModel, length: int, what: str) -> None:
    """Raise Invalid where inputs of `length` tokens are longer than the model's positions."""
    most = positions(model.config)
    if most is not None and length > most:
        raise Invalid(
            f"{what} of {length} tokens, but the model has only {most} positions; choose a "
            "shorter length"
        )


def check_ids(model: PreTrainedModel, largest: int, what: str) -> None:
    """Raise Invalid where the largest id of a text has no row in the model's embedding.

    Tokenizers can know tokens that were added after the embedding was made.
    """
    rows = input_weight(model).shape[0]
    if largest >= rows:
        raise Invalid(
            f"{what}: the text holds a token with id {largest}, but the model's embedding has only "
            f"{rows} rows: the tokenizer knows tokens that the model does not"
        )
