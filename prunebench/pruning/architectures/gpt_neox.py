"""GPT-NeoX and Pythia: q, k, v interleaved per head in one Linear, biases, LayerNorm, GELU.

Attention and MLP are parallel or not; part of each head is rotated. There is no `hidden` structure,
for the reason that bloom.py gives.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.modules import stack_at
from prunebench.pruning.architectures import parts
from prunebench.pruning.structure import Structure

STACK = "gpt_neox.layers"


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons` and `layers`."""
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (_heads, _neurons)]
    return parts.by_name([*blocks, parts.layers(model, blocks, STACK)])


def refresh(model: PreTrainedModel) -> bool:
    """Layer indices and sizes. True if a config can say it: heads fill hidden_size there."""
    config, layers = model.config, stack_at(model, STACK)
    for i, layer in enumerate(layers):
        layer.attention.layer_idx = i
    config.num_hidden_layers = len(layers)
    neurons = {layer.mlp.dense_4h_to_h.weight.shape[1] for layer in layers}
    widths = {layer.attention.dense.weight.shape[1] for layer in layers}
    if len(neurons) == 1:
        (config.intermediate_size,) = neurons
    return len(neurons) == 1 and widths == {config.hidden_size}


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: a head. Its query, key and value rows lie together."""
    attention = stack_at(model, STACK)[i].attention
    features = attention.dense.weight.shape[1]
    count = features // attention.head_size
    return parts.block(
        model,
        "heads",
        i,
        f"{STACK}.{i}.attention",
        reads={"query_key_value": parts.consecutive(3 * features, count)},  # [heads, 3 * head_dim]
        writes="dense",
        index=parts.consecutive(features, count),  # [heads, head_dim]
    )


def _neurons(model: PreTrainedModel, i: int) -> Structure:
    prefix = f"{STACK}.{i}.mlp"
    return parts.neurons(model, i, prefix, reads=("dense_h_to_4h",), writes="dense_4h_to_h")
