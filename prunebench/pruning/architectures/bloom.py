"""BLOOM: q, k, v interleaved per head in one Linear, ALiBi, biases, LayerNorm, GELU.

There is no `hidden` structure: LayerNorm subtracts a mean over all channels, dead ones included,
and no gain makes up for that. A head's ALiBi slope belongs to its original number, which is
remembered.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.bloom.modeling_bloom import BloomAttention

from prunebench.errors import Unsupported
from prunebench.modules import stack_at
from prunebench.pruning.architectures import parts
from prunebench.pruning.structure import Structure
from prunebench.untyped import Foreign, Module, Passed

STACK = "transformer.h"


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons` and `layers`.

    Raises Unsupported for variants that no released model is.
    """
    for switch in ("apply_residual_connection_post_layernorm", "slow_but_exact"):
        if getattr(model.config, switch):
            raise Unsupported(f"BLOOM with {switch} cannot be pruned; no released model has it")
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (_heads, _neurons)]
    return parts.by_name([*blocks, parts.layers(model, blocks, STACK)])


def refresh(model: PreTrainedModel) -> bool:
    """Head counts and slopes of each layer. True if no width changed: the config has none."""
    config, blocks = model.config, stack_at(model, STACK)
    for i, block in enumerate(blocks):
        attention = block.self_attention
        attention.layer_idx = i
        attention.num_heads = block.num_heads = _head_count(attention)
        numbered = hasattr(attention, "head_numbers")
        attention.__class__ = PrunedAttention if numbered else BloomAttention
    config.num_hidden_layers = len(blocks)
    return all(
        block.num_heads == config.n_head
        and block.mlp.dense_h_to_4h.weight.shape[0] == 4 * config.hidden_size
        for block in blocks
    )


class PrunedAttention(BloomAttention):
    """Attention of fewer heads than the model has slopes for; each takes its own."""

    def forward(  # type: ignore[override]  # the same, but the names of its unused options
        self,
        hidden_states: Tensor,
        residual: Tensor,
        alibi: Tensor,
        attention_mask: Tensor,
        **kwargs: Passed,
    ) -> Foreign:
        """`alibi` is that of all original heads: [batch * original heads, 1, keys]."""
        by_head = alibi.unflatten(0, (hidden_states.shape[0], -1))  # [batch, heads, 1, keys]
        own = by_head[:, self.head_numbers].flatten(0, 1)
        return super().forward(hidden_states, residual, own, attention_mask, **kwargs)


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: a head. Its query, key and value rows lie together."""
    attention = stack_at(model, STACK)[i].self_attention
    count = _head_count(attention)
    features = attention.query_key_value.weight.shape[0]
    return parts.block(
        model,
        "heads",
        i,
        f"{STACK}.{i}.self_attention",
        reads={"query_key_value": parts.consecutive(features, count)},  # [heads, 3 * head_dim]
        writes="dense",
        index=parts.consecutive(features // 3, count),  # [heads, head_dim]
        numbers="head_numbers",
    )


def _neurons(model: PreTrainedModel, i: int) -> Structure:
    prefix = f"{STACK}.{i}.mlp"
    return parts.neurons(model, i, prefix, reads=("dense_h_to_4h",), writes="dense_4h_to_h")


def _head_count(attention: Module) -> int:
    return int(attention.dense.weight.shape[1] // attention.head_dim)
