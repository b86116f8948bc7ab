"""OPT: separate q, k, v and out projections, biases, learned positions, LayerNorm, ReLU.

There is no `hidden` structure, for the reason that bloom.py gives. OPT-350m normalises after each
sum: there a layer that writes nothing still normalises, so that no layer can leave exactly.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.modules import stack_at
from prunebench.pruning.architectures import parts
from prunebench.pruning.structure import Structure

STACK = "model.decoder.layers"


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons` and, but for OPT-350m, `layers`."""
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (_heads, _neurons)]
    whole = [parts.layers(model, blocks, STACK)] if model.config.do_layer_norm_before else []
    return parts.by_name([*blocks, *whole])


def refresh(model: PreTrainedModel) -> bool:
    """Head counts of each layer. True if a config can say it: heads fill hidden_size there."""
    config, layers = model.config, stack_at(model, STACK)
    for i, layer in enumerate(layers):
        attention = layer.self_attn
        attention.layer_idx = i
        attention.num_heads = attention.out_proj.weight.shape[1] // attention.head_dim
    config.num_hidden_layers = len(layers)
    neurons = {layer.fc2.weight.shape[1] for layer in layers}
    widths = {layer.self_attn.out_proj.weight.shape[1] for layer in layers}
    if len(neurons) == 1:
        (config.ffn_dim,) = neurons
    return len(neurons) == 1 and widths == {config.hidden_size}


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: a head."""
    attention = stack_at(model, STACK)[i].self_attn
    features = attention.out_proj.weight.shape[1]
    index = parts.consecutive(features, features // attention.head_dim)  # [heads, head_dim]
    reads = dict.fromkeys(("q_proj", "k_proj", "v_proj"), index)
    prefix = f"{STACK}.{i}.self_attn"
    return parts.block(model, "heads", i, prefix, reads=reads, writes="out_proj", index=index)


def _neurons(model: PreTrainedModel, i: int) -> Structure:
    return parts.neurons(model, i, f"{STACK}.{i}", reads=("fc1",), writes="fc2")
