"""Named shapes of well-known models: their configurations, and models with random weights.

Memory and time do not depend on the values of weights, so whatever costs can be measured at the
shape of a published model without its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.untyped import JsonMap

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Shape:
    """The sizes of a published model.

    hub         id of a checkpoint of this shape
    parameters  number that the checkpoint holds, a tied weight counted once
    config      keys of the transformers configuration, `model_type` among them
    """

    name: str
    hub: str
    parameters: int
    config: JsonMap


@cache
def shapes() -> Mapping[str, Shape]:
    """All named shapes."""
    entries = read_yaml(FILE)
    return {name: Shape(name, **entry) for name, entry in entries.items()}


def find_shape(name: str) -> Shape:
    """The shape of this name. Raises Invalid when there is none."""
    if name not in shapes():
        raise Invalid(f"unknown shape {name!r}; known: {', '.join(shapes())}")
    return shapes()[name]


def make_config(name: str, overrides: JsonMap | None = None) -> PretrainedConfig:
    """The transformers configuration of a named shape.

    overrides  keys of the configuration with other values, such as fewer layers

    Raises Invalid when the shape or an override's key is unknown, or the sizes do not fit.
    """
    from transformers import AutoConfig

    given = find_shape(name).config
    settings = {**given, **(overrides or {})}
    try:
        config = AutoConfig.for_model(**settings)
    except Exception as error:  # each configuration checks its sizes in its own way
        first = next(iter(str(error).splitlines()), repr(error))
        raise Invalid(f"shape {name} with {dict(overrides or {})}: {first}") from None
    known = type(config)(**{}).to_dict().keys() | type(config).attribute_map.keys() | given.keys()
    unknown = sorted(set(overrides or {}) - known)
    if unknown:
        raise Invalid(f"shape {name}: overrides: {config.model_type} has no key {unknown[0]!r}")
    return config


def count(config: PretrainedConfig) -> int:
    """Parameters of a model of this configuration, counted without making a weight."""
    from prunebench.pruning.surgery import count_parameters

    return count_parameters(empty_model(config))


def empty_model(config: PretrainedConfig, *, dtype: str = "float32") -> PreTrainedModel:
    """A model on the meta device: shapes without values."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype)
        )
    model.tie_weights()
    return model


def random_model(
    config: PretrainedConfig, *, dtype: str, device: str | torch.device, seed: int = 0
) -> PreTrainedModel:
    """A model in evaluation mode with the family's random initial weights, made on the device.

    The seed decides the weights; the caller's random state is left as it was.
    """
    import torch
    from transformers import AutoModelForCausalLM

    device = torch.device(device)
    cuda = [device.index or torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), device:
        torch.manual_seed(seed)
        # A model owns its configuration, which changes when the model is cut.
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            deepcopy(config), dtype=getattr(torch, dtype)
        )
    model.eval()
    return model


def byte_tokenizer(config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """A tokenizer for a model without one: a token per byte, so that any text can be read.

    Raises Invalid when the model's vocabulary is too small for it.
    """
    from prunebench.models.word_tokenizer import make_tokenizer

    tokenizer = make_tokenizer([], max_length=getattr(config, "max_position_embeddings", 2048))
    if config.vocab_size < len(tokenizer):
        raise Invalid(
            f"a random model needs vocab_size >= {len(tokenizer)} for bytes, "
            f"got {config.vocab_size}"
        )
    return tokenizer
