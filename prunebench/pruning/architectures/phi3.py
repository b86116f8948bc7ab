"""Phi-3: LLaMA-shaped, with q, k, v fused into one Linear, and gate and up into another."""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.errors import Unsupported
from prunebench.pruning.architectures import glm, llama, parts
from prunebench.pruning.structure import Structure
from prunebench.untyped import Foreign

STACK = llama.STACK


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """As in LLaMA, but for the fused projections. Raises Unsupported for long-context variants."""
    if model.config.rope_parameters.get("rope_type", "default") == "longrope":
        raise Unsupported(
            "Phi-3 with longrope cannot be pruned: its config ties the length of the rope factors "
            "to hidden_size / num_attention_heads; use a variant of 4k context"
        )
    return llama.assemble(model, heads, glm.neurons)


def heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: one KV head with the query heads that read it; first all queries, then all keys."""
    attention = model.model.layers[i].self_attn
    query, key = llama.head_indices(attention)
    reads = {"qkv_proj": parts.stacked(query, key, key)}
    prefix = f"{STACK}.{i}.self_attn"
    return parts.block(model, "heads", i, prefix, reads=reads, writes="o_proj", index=query)


def refresh(model: PreTrainedModel) -> bool:
    """As in LLaMA; attention reads its number of query heads off a config, so it gets its own."""
    uniform = llama.refresh(model)
    for layer in model.model.layers:
        attention = layer.self_attn
        q, attention.num_key_value_heads = llama.head_counts(attention)
        own = q == model.config.num_attention_heads
        attention.config = model.config if own else LayerConfig(model.config, q)
    return uniform


class LayerConfig:
    """The model's config, live, but for the number of query heads of one layer."""

    def __init__(self, config: Foreign, heads: int) -> None:
        self.shared, self.num_attention_heads = config, heads

    def __getattr__(self, name: str) -> Foreign:
        if name == "shared":  # not there yet, while a copy is being made
            raise AttributeError(name)
        return getattr(self.shared, name)
