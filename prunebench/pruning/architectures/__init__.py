"""Model families: each module lists the structures of the models that it knows.

A family module has two functions:
    structures(model) -> dict[str, Structure]    in layer order; sizes are read off the modules
    refresh(model) -> bool                       after surgery: make attributes and config agree
                                                 with the tensors; True if the stock class can build
                                                 the model from its config
parts.py has what they share. docs/adding-a-model.md says how to add one.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from prunebench.errors import Unsupported

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunebench.pruning.structure import Structure

FAMILIES = {
    "bloom": "bloom",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma",
    "glm": "glm",
    "glm4": "glm",
    "gpt_neox": "gpt_neox",
    "llama": "llama",
    "mistral": "llama",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "llama",
}
"""`model_type` in transformers -> the family file that knows it."""

RELY_ON_BOS = frozenset({"gemma", "gemma2"})
"""Families that were trained with BOS in front of everything: their windows begin with it unless a
campaign says otherwise. Users report a WikiText2 perplexity of gemma-2b of 649.7 without it and of
21.1 with it. LLaMA and the others are measured as in the papers, without it in each window."""


def structures_of(model: PreTrainedModel) -> dict[str, Structure]:
    """Everything that can be removed from `model`: heads and neurons per layer, hidden, layers.

    LayerNorm families have no `hidden`. Raises Unsupported when the model's family is not listed.
    """
    found: dict[str, Structure] = family_of(model.config.model_type).structures(model)
    return found


def refresh(model: PreTrainedModel) -> bool:
    """Bring attributes and config in line with the tensors; True if stock classes can build it."""
    return bool(family_of(model.config.model_type).refresh(model))


def relies_on_bos(model_type: str) -> bool:
    """Whether a family's models need BOS in front of every input. False for unknown families."""
    return model_type in RELY_ON_BOS


def family_of(model_type: str) -> ModuleType:
    """The family module for a `model_type` of transformers."""
    if model_type not in FAMILIES:
        raise Unsupported(
            f"model type {model_type!r} is not supported; known: {', '.join(sorted(FAMILIES))} "
            "(docs/adding-a-model.md says how to add one)"
        )
    return import_module(f"{__name__}.{FAMILIES[model_type]}")
