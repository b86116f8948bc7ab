"""Does the class that a model's config names have the parameters that the model has?"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def unlike_stock(model: PreTrainedModel) -> set[str]:
    """Names of parameters that the model has, or a model built from its config, but not both.

    A method may give a Linear a bias that no switch of the config describes; a stock class would
    leave it out on loading. The class is built without memory for its weights.
    """
    with torch.device("meta"):
        stock = type(model)(deepcopy(model.config))
    return _names(stock) ^ _names(model)


def gained_biases(model: PreTrainedModel, names: Iterable[str]) -> set[str]:
    """Those of `names` that are biases of Linears which the model, a stock one, has without one."""
    gained = set()
    linears = {path for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name in names:
        owner, _, leaf = name.rpartition(".")
        if leaf == "bias" and owner in linears and model.get_submodule(owner).bias is None:
            gained.add(name)
    return gained


def _names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}
