"""Model families: each module lists the structures of the models that it knows.

A family module has two functions and a constant:
    structures(model) -> dict[str, Structure]    in layer order; sizes are read off the modules
    refresh(model) -> bool                       after surgery: make attributes and config agree
                                                 with the tensors; True if the stock class can build
                                                 the model from its config
    STACK                                        path of the list of decoder blocks
parts.py has what they share. docs/adding-a-model.md says how to add one.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from prunebench.errors import Invalid, Unsupported
from prunebench.modules import stack_at
from prunebench.pruning.architectures.folder import Family, read_family

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from prunebench.pruning.structure import Structure

FAMILIES = {
    "bloom": "bloom",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "glm": "glm",
    "glm4": "glm",
    "gpt_neox": "gpt_neox",
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "mixture",
    "olmo2": "olmo2",
    "opt": "opt",
    "phi3": "phi3",
    "qwen2": "llama",
    "qwen3": "llama",
    "qwen3_moe": "mixture",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
}
"""`model_type` in transformers -> the family file that knows it."""

OUTSIDE: dict[str, Family] = {}
"""`model_type` -> a family that lies in a folder outside the package; `use` puts it here."""

RELY_ON_BOS = frozenset({"gemma", "gemma2", "gemma3_text"})
"""Families that were trained with BOS in front of everything: their windows begin with it unless a
campaign says otherwise. Users report a WikiText2 perplexity of gemma-2b of 649.7 without it and of
21.1 with it. LLaMA and the others are measured as in the papers, without it in each window."""


def structures_of(model: PreTrainedModel) -> dict[str, Structure]:
    """Everything that can be removed from `model`: heads and neurons per layer, hidden, layers.

    LayerNorm families have no `hidden`; mixtures of experts have experts per layer, too. Raises
    Unsupported when the model's family is not listed.
    """
    found: dict[str, Structure] = family_of(model.config.model_type).structures(model)
    return found


def refresh(model: PreTrainedModel) -> bool:
    """Bring attributes and config in line with the tensors; True if stock classes can build it."""
    return bool(family_of(model.config.model_type).refresh(model))


def blocks_of(model: nn.Module) -> list[str]:
    """Paths of the decoder blocks, in their order."""
    stack = family_of(cast("PreTrainedModel", model).config.model_type).STACK
    return [f"{stack}.{i}" for i in range(len(stack_at(model, stack)))]


def use(folder: Path) -> Family:
    """From now on, models of the types that a family folder is written for are its models.

    Raises Invalid, naming file and key, for a folder that is none, or types that are known here.
    """
    family = read_family(folder)
    if taken := [name for name in family.model_types if name in FAMILIES]:
        raise Invalid(
            f"{folder}: model_types: {taken[0]!r} is a family of the project ({FAMILIES[taken[0]]}"
            ".py); change that, or give your model another type"
        )
    OUTSIDE.update(dict.fromkeys(family.model_types, family))
    return family


def is_known(model_type: str) -> bool:
    """Whether there is a family for this `model_type`."""
    return model_type in FAMILIES or model_type in OUTSIDE


def relies_on_bos(model_type: str) -> bool:
    """Whether a family's models need BOS in front of every input. False for unknown families."""
    outside = OUTSIDE.get(model_type)
    return model_type in RELY_ON_BOS or (outside is not None and outside.relies_on_bos)


def family_of(model_type: str) -> ModuleType:
    """The family module for a `model_type` of transformers."""
    if model_type in OUTSIDE:
        return OUTSIDE[model_type].load()
    if model_type not in FAMILIES:
        known = ", ".join(sorted({*FAMILIES, *OUTSIDE}))
        raise Unsupported(
            f"model type {model_type!r} is not supported; known: {known} "
            "(docs/adding-a-model.md says how to add one)"
        )
    return import_module(f"{__name__}.{FAMILIES[model_type]}")
