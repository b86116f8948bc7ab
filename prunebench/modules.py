"""Parts of a model by path, with the types that attribute access on a module loses."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from prunebench.untyped import Module

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def module_at(model: nn.Module, path: str) -> Module:
    """The module that lies at a dotted path."""
    return model.get_submodule(path)


def stack_at(model: nn.Module, path: str) -> list[Module]:
    """The modules of a list, such as the decoder blocks."""
    return list(cast("nn.ModuleList", model.get_submodule(path)))


def weight_at(model: nn.Module, path: str) -> Tensor:
    """The weight of the module at a path."""
    return model.get_parameter(f"{path}.weight")


def input_weight(model: PreTrainedModel) -> Tensor:
    """The weight of the input embedding: [rows, width]."""
    weight: Tensor = module_of(model.get_input_embeddings()).weight
    return weight


def module_of(module: nn.Module) -> Module:
    """A module whose attributes are about to be used."""
    return module
