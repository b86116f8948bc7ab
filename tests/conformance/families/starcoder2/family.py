"""StarCoder2: LLaMA's names in attention, two Linears in the MLP, LayerNorm."""

from prunebench.modules import stack_at
from prunebench.pruning.architectures import llama, parts

STACK = "model.layers"


def structures(model):
    """List `layers.i.heads`, `layers.i.neurons` and `layers`."""
    count = len(stack_at(model, STACK))
    blocks = [block(model, i) for i in range(count) for block in (llama.heads, neurons)]
    return parts.by_name([*blocks, parts.layers(model, blocks, STACK)])


def neurons(model, i):
    """Unit: a row of c_fc with its column of c_proj."""
    return parts.neurons(model, i, f"{STACK}.{i}.mlp", reads=("c_fc",), writes="c_proj")


def refresh(model):
    """Head counts and layer numbers; True if a config can say it: heads fill hidden_size there."""
    config, layers = model.config, stack_at(model, STACK)
    shapes = set()
    for i, layer in enumerate(layers):
        attention = layer.self_attn
        attention.layer_idx = i
        q, kv = llama.head_counts(attention)
        attention.num_key_value_groups = q // kv
        shapes.add((q, kv, layer.mlp.c_proj.weight.shape[1]))
    config.num_hidden_layers = len(layers)
    uniform = len(shapes) == 1
    if uniform:
        q, kv, config.intermediate_size = shapes.pop()
        uniform = (q, kv) == (config.num_attention_heads, config.num_key_value_heads)
    return uniform
