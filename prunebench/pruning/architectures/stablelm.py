"""StableLM: LLaMA-shaped, with LayerNorm; part of each head is rotated.

Attention and MLP are parallel or not. StableLM-2-12B normalises queries and keys by a LayerNorm for
each single head, which leaves with its head. There is no `hidden` structure, for the reason that
bloom.py gives.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from prunebench.modules import stack_at
from prunebench.pruning.architectures import llama, parts
from prunebench.pruning.structure import Members, Structure

STACK = llama.STACK


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons` and `layers`."""
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (_heads, llama.neurons)]
    return parts.by_name([*blocks, parts.layers(model, blocks, STACK)])


def refresh(model: PreTrainedModel) -> bool:
    """Head counts of each layer. True if a config can say it: heads fill hidden_size there."""
    config, layers = model.config, stack_at(model, STACK)
    for i, layer in enumerate(layers):
        attention = layer.self_attn
        attention.layer_idx = i
        q, kv = llama.head_counts(attention)
        attention.num_heads, attention.num_key_value_heads = q, kv
        attention.num_key_value_groups = q // kv
    config.num_hidden_layers = len(layers)
    neurons = {layer.mlp.down_proj.weight.shape[1] for layer in layers}
    widths = {layer.self_attn.o_proj.weight.shape[1] for layer in layers}
    if len(neurons) == 1:
        (config.intermediate_size,) = neurons
    return len(neurons) == 1 and widths == {config.hidden_size}


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: as in LLaMA, with the norms of its queries and of its keys where there are some."""
    attention = stack_at(model, STACK)[i].self_attn
    structure = llama.heads(model, i)
    if not attention.qk_layernorm:
        return structure
    q, kv = llama.head_counts(attention)
    prefix = f"{STACK}.{i}.self_attn"
    members = (
        Members(f"{prefix}.q_layernorm.norms", parts.consecutive(q, kv)),  # [kv, group]
        Members(f"{prefix}.k_layernorm.norms", parts.consecutive(kv, kv)),  # [kv, 1]
    )
    return replace(structure, members=members)
