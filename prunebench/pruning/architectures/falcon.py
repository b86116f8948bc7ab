"""Falcon: q, k, v in one Linear, each KV head after its query heads; LayerNorm, rotary positions.

A unit of attention is a KV head with its query heads. The 40B and 180B models have several; the 7B
model's one KV head serves all queries, so its only unit stays. There is no `hidden` structure, for
the reason that bloom.py gives. The variants with ALiBi (falcon-rw) are refused.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.errors import Unsupported
from prunebench.modules import stack_at
from prunebench.pruning.architectures import parts
from prunebench.pruning.structure import Structure
from prunebench.untyped import Module

STACK = "transformer.h"


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons` and `layers`. Raises Unsupported for ALiBi."""
    if model.config.alibi:
        raise Unsupported(
            "Falcon with ALiBi (falcon-rw) cannot be pruned: its slopes are part of a mask that "
            "all layers share; known: the rotary models (7b, 11b, 40b, 180b)"
        )
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (_heads, _neurons)]
    return parts.by_name([*blocks, parts.layers(model, blocks, STACK)])


def refresh(model: PreTrainedModel) -> bool:
    """Head counts of each layer. True if a config can say it: heads fill hidden_size there."""
    config, blocks = model.config, stack_at(model, STACK)
    for i, block in enumerate(blocks):
        attention = block.self_attention
        attention.layer_idx = i
        attention.num_heads, attention.num_kv_heads = _head_counts(attention)
    config.num_hidden_layers = len(blocks)
    neurons = {block.mlp.dense_4h_to_h.weight.shape[1] for block in blocks}
    widths = {block.self_attention.dense.weight.shape[1] for block in blocks}
    if len(neurons) == 1:
        (config.ffn_hidden_size,) = neurons
    return len(neurons) == 1 and widths == {config.hidden_size}


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: the query heads of one KV head, then its key, then its value, all together."""
    attention = stack_at(model, STACK)[i].self_attention
    _, kv = _head_counts(attention)
    fused = attention.query_key_value.weight.shape[0]
    return parts.block(
        model,
        "heads",
        i,
        f"{STACK}.{i}.self_attention",
        reads={"query_key_value": parts.consecutive(fused, kv)},  # [kv, (group + 2) * head_dim]
        writes="dense",
        index=parts.consecutive(attention.dense.weight.shape[1], kv),  # [kv, group * head_dim]
    )


def _neurons(model: PreTrainedModel, i: int) -> Structure:
    prefix = f"{STACK}.{i}.mlp"
    return parts.neurons(model, i, prefix, reads=("dense_h_to_4h",), writes="dense_4h_to_h")


def _head_counts(attention: Module) -> tuple[int, int]:
    """Query and KV heads as the tensors say: beyond the queries there are keys and values."""
    queries = attention.dense.weight.shape[1]
    fused = attention.query_key_value.weight.shape[0]
    return queries // attention.head_dim, (fused - queries) // (2 * attention.head_dim)
