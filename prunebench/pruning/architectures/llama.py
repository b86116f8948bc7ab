"""LLaMA-shaped models: separate q, k, v, o and gate, up, down projections, RMSNorm, MHA or GQA.

Covers Llama (Vicuna, Yi), Mistral, Qwen2 and Qwen3, with or without biases, tied or untied
embeddings. Families that differ in a detail build on the functions of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor
from transformers import PreTrainedModel

from prunebench.pruning.architectures import parts
from prunebench.pruning.structure import Norm, Structure
from prunebench.pruning.tying import head_is_tied
from prunebench.untyped import Module

STACK = "model.layers"
Block = Callable[[PreTrainedModel, int], Structure]
Correction = Callable[[PreTrainedModel, Structure], Structure]


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons`, `hidden` and `layers` of a LLaMA-shaped model."""
    return assemble(model, heads, neurons)


def assemble(
    model: PreTrainedModel, heads: Block, neurons: Block, correct: Correction | None = None
) -> dict[str, Structure]:
    """The structures of a model whose heads and neurons are listed by these two functions.

    `correct` states how RMSNorm is corrected when hidden channels leave, if not as in LLaMA.
    """
    count = len(model.model.layers)
    blocks = [block(model, i) for i in range(count) for block in (heads, neurons)]
    channels = (correct or exact)(model, stream(model, blocks))
    return parts.by_name([*blocks, channels, parts.layers(model, blocks, STACK)])


def heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: one KV head with the query heads that read it (repeat_kv pairs them in order)."""
    attention = model.model.layers[i].self_attn
    query, key = head_indices(attention)
    reads = {"q_proj": query, "k_proj": key, "v_proj": key}
    prefix = f"{STACK}.{i}.self_attn"
    return parts.block(model, "heads", i, prefix, reads=reads, writes="o_proj", index=query)


def neurons(model: PreTrainedModel, i: int) -> Structure:
    """Unit: one row of gate and up with its column of down."""
    prefix = f"{STACK}.{i}.mlp"
    return parts.neurons(model, i, prefix, reads=("gate_proj", "up_proj"), writes="down_proj")


def refresh(model: PreTrainedModel) -> bool:
    """Make feature counts, layer indices and the config agree with the tensors."""
    decoder, config = model.model, model.config
    heads, neurons = set(), set()
    for i, layer in enumerate(decoder.layers):
        attention = layer.self_attn
        attention.layer_idx = i
        q, kv = head_counts(attention)
        attention.num_key_value_groups = q // kv
        heads.add((q, kv))
        if hasattr(layer.mlp, "down_proj"):  # else it is a mixture of experts
            neurons.add(layer.mlp.down_proj.weight.shape[1])
    config.num_hidden_layers = len(decoder.layers)
    config.head_dim = decoder.layers[0].self_attn.head_dim
    config.hidden_size = decoder.embed_tokens.weight.shape[1]
    if hasattr(decoder.norm, "variance_epsilon"):  # where it may have been corrected
        config.rms_norm_eps = decoder.norm.variance_epsilon
    model.vocab_size = config.vocab_size
    uniform = len(heads) == 1 and len(neurons) <= 1
    if uniform:
        config.num_attention_heads, config.num_key_value_heads = heads.pop()
        config.intermediate_size = neurons.pop() if neurons else config.intermediate_size
    return uniform


def head_counts(attention: Module) -> tuple[int, int]:
    """Query and KV heads as the tensors say (the config is wrong after pruning)."""
    queries: int = attention.o_proj.weight.shape[1]
    if hasattr(attention, "qkv_proj"):  # what is fused beyond the queries is keys and values
        keys = (attention.qkv_proj.weight.shape[0] - queries) // 2
    else:
        keys = attention.k_proj.weight.shape[0]
    return queries // attention.head_dim, keys // attention.head_dim


def head_indices(attention: Module) -> tuple[Tensor, Tensor]:
    """The query features [kv, group * head_dim] and key features [kv, head_dim] of each unit."""
    q, kv = head_counts(attention)
    width = attention.head_dim
    return parts.consecutive(q * width, kv), parts.consecutive(kv * width, kv)


def stream(model: PreTrainedModel, blocks: list[Structure]) -> Structure:
    """The residual stream; all norms but those of single heads are over its width."""
    stack = model.model.layers
    names = [name for name, module in stack[0].named_children() if hasattr(module, "weight")]
    norms = [f"{STACK}.{i}.{name}" for i in range(len(stack)) for name in names]
    norms.append("model.norm")
    return parts.hidden(model, blocks, embedding="model.embed_tokens", norms=norms)


def exact(model: PreTrainedModel, channels: Structure) -> Structure:
    """Correct eps; but where q_norm and k_norm share the config's one eps, scale the writers."""
    if not hasattr(model.model.layers[0].self_attn, "q_norm"):
        return replace(channels, writers=())
    if not head_is_tied(model):
        return channels
    last = Norm("model.norm", power=2)  # the head is the embedding and so is scaled, too
    return replace(channels, norms=(*channels.norms[:-1], last))
