"""A tiny model of a family, and what is true of the family that its tensors do not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.pruning.architectures import refresh
from prunebench.untyped import JsonMap, Plain

LLAMA_SIZES: Mapping[str, str] = {
    "heads": "num_attention_heads",
    "groups": "num_key_value_heads",
    "head_dim": "head_dim",
    "neurons": "intermediate_size",
}


@dataclass(frozen=True)
class FamilyCase:
    """One tiny random model, in which every part of the family is at work.

    name        of the family, then what is special about this one
    settings    keys of the transformers configuration, `model_type` among them
    kinds       kinds of structures that it has
    own_loader  kinds that no config of the family can say, though all layers have equally many
    inert       ends of names of parameters whose values change nothing: a bias of the keys adds the
                same to all logits of a query, unless keys are rotated or normalised
    attentions  implementations of attention that transformers has for it
    sizes       heads, groups (of KV heads), head_dim, neurons -> their key in the configuration;
                without head_dim, heads fill the width; without groups, their number is not free
    """

    name: str
    settings: JsonMap
    kinds: tuple[str, ...] = ("heads", "neurons", "hidden", "layers")
    own_loader: tuple[str, ...] = ()
    inert: tuple[str, ...] = ()
    attentions: tuple[str, ...] = ("eager", "sdpa")
    sizes: Mapping[str, str] = field(default_factory=lambda: LLAMA_SIZES)

    @property
    def family(self) -> str:
        """Its `model_type`."""
        return str(self.settings["model_type"])

    def model(self, *, seed: int = 0, **changes: Plain) -> PreTrainedModel:
        """A fresh model of the case, with some keys of its configuration changed."""
        model = tiny_model({**self.settings, **changes}, seed=seed)
        refresh(model)  # as after every load
        return model


@torch.no_grad()
def tiny_model(settings: JsonMap, *, seed: int = 0) -> PreTrainedModel:
    """A random model, in evaluation mode, with norms and biases that are not 1 and 0."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**settings)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if "norm" in name or ".ln_" in name or name.endswith("bias"):
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.mul_(4.0)
    model.eval()
    return model


def some_tokens(model: PreTrainedModel) -> Tensor:
    """Token ids [3, 21] that are no special ones, the same each time."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, model.config.vocab_size, (3, 21), generator=generator)
