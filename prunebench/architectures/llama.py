"""LLaMA-shaped models: separate q, k, v, o and gate, up, down projections, RMSNorm, MHA or GQA.

Covers Llama, Mistral, Qwen2, Qwen3 and Gemma, with or without biases, tied or untied embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.structure import Coupling, Gate, Norm, Structure

READERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
)
WRITERS = ("self_attn.o_proj", "mlp.down_proj")


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List `layers.i.heads`, `layers.i.neurons`, `hidden` and `layers` of a LLaMA-shaped model."""
    found: list[Structure] = []
    for i, layer in enumerate(model.model.layers):
        found.append(_heads(layer.self_attn, i))
        found.append(_neurons(layer.mlp, i))
    found.append(_hidden(model))
    found.append(_layers(model))
    return {structure.name: structure for structure in found}


def refresh(model: PreTrainedModel) -> bool:
    """Make feature counts, layer indices and the config agree with the tensors."""
    layers = model.model.layers
    heads, neurons = set(), set()
    for i, layer in enumerate(layers):
        attention = layer.self_attn
        attention.layer_idx = i
        q, kv = _head_counts(attention)
        attention.num_key_value_groups = q // kv
        heads.add((q, kv))
        neurons.add(layer.mlp.down_proj.weight.shape[1])
    config = model.config
    config.num_hidden_layers = len(layers)
    config.head_dim = layers[0].self_attn.head_dim
    hidden = model.model.embed_tokens.weight.shape[1]
    config.hidden_size = hidden
    norm = model.model.norm
    config.rms_norm_eps = norm.eps if _is_gemma(model) else norm.variance_epsilon
    if _is_gemma(model):
        embedding = model.model.embed_tokens  # multiplies by the root of the hidden width
        embedding.scalar_embed_scale = hidden**0.5
        embedding.embed_scale.fill_(hidden**0.5)
    model.vocab_size = config.vocab_size
    uniform = len(heads) == 1 and len(neurons) == 1
    if uniform:
        config.num_attention_heads, config.num_key_value_heads = next(iter(heads))
        config.intermediate_size = next(iter(neurons))
    return uniform


def _heads(attention: nn.Module, i: int) -> Structure:
    """Unit: one KV head with the query heads that read it (repeat_kv pairs them in order)."""
    q, kv = _head_counts(attention)
    query = torch.arange(q * attention.head_dim).view(kv, -1)  # [kv, group * head_dim]
    key = torch.arange(kv * attention.head_dim).view(kv, -1)  # [kv, head_dim]
    prefix = f"model.layers.{i}.self_attn"
    couplings = [
        *_rows(attention.q_proj, f"{prefix}.q_proj", query),
        *_rows(attention.k_proj, f"{prefix}.k_proj", key),
        *_rows(attention.v_proj, f"{prefix}.v_proj", key),
        Coupling(f"{prefix}.o_proj.weight", 1, query),
    ]
    gate = Gate(f"{prefix}.o_proj", "input", _unit_of(query))
    return Structure(f"layers.{i}.heads", "heads", i, kv, tuple(couplings), (gate,))


def _neurons(mlp: nn.Module, i: int) -> Structure:
    units = mlp.down_proj.weight.shape[1]
    index = torch.arange(units).view(-1, 1)
    prefix = f"model.layers.{i}.mlp"
    couplings = [
        *_rows(mlp.gate_proj, f"{prefix}.gate_proj", index),
        *_rows(mlp.up_proj, f"{prefix}.up_proj", index),
        Coupling(f"{prefix}.down_proj.weight", 1, index),
    ]
    gate = Gate(f"{prefix}.down_proj", "input", _unit_of(index))
    return Structure(f"layers.{i}.neurons", "neurons", i, units, tuple(couplings), (gate,))


def _hidden(model: PreTrainedModel) -> Structure:
    """The residual stream: its writers are gated, its readers only lose input columns."""
    width = model.model.embed_tokens.weight.shape[1]
    index = torch.arange(width).view(-1, 1)
    writers, readers, norms = [Coupling("model.embed_tokens.weight", 1, index)], [], []
    gates = [Gate("model.embed_tokens", "output", _unit_of(index))]
    for i, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{i}"
        for name in READERS:
            readers.append(Coupling(f"{prefix}.{name}.weight", 1, index))
        for name in WRITERS:
            writers += _rows(layer.get_submodule(name), f"{prefix}.{name}", index)
            gates.append(Gate(f"{prefix}.{name}", "output", _unit_of(index)))
        norms += [f"{prefix}.input_layernorm", f"{prefix}.post_attention_layernorm"]
    norms.append("model.norm")
    gains = [Coupling(f"{name}.weight", 0, index) for name in norms]
    tied = model.config.tie_word_embeddings
    if not tied:
        readers.append(Coupling("lm_head.weight", 1, index))
    gemma = _is_gemma(model)
    shared_eps = hasattr(model.model.layers[0].self_attn, "q_norm")
    corrected = [Norm(name, offset=1.0 if gemma else 0.0) for name in norms]
    if shared_eps and tied:
        corrected[-1] = Norm("model.norm", power=2)
    scaled = writers if shared_eps else ()
    if gemma:  # the embedding's factor scales it with the width, so the others have to follow
        scaled = writers[1:]
    return Structure(
        name="hidden",
        kind="hidden",
        layer=None,
        units=width,
        couplings=(*writers, *readers, *gains),
        gates=tuple(gates),
        norms=tuple(corrected),
        writers=tuple(c.parameter for c in scaled),
    )


def _is_gemma(model: PreTrainedModel) -> bool:
    """Gains are 1 + weight there, and embeddings are multiplied by the root of the width."""
    return model.config.model_type == "gemma"


def _layers(model: PreTrainedModel) -> Structure:
    """Whole decoder layers: a layer whose two writers are gated off passes its input on."""
    gates, modules = [], []
    for i, layer in enumerate(model.model.layers):
        for name in WRITERS:
            features = layer.get_submodule(name).weight.shape[0]
            unit_of = torch.full((features,), i)
            gates.append(Gate(f"model.layers.{i}.{name}", "output", unit_of))
        modules.append(f"model.layers.{i}")
    return Structure("layers", "layers", None, len(modules), (), tuple(gates), tuple(modules))


def _head_counts(attention: nn.Module) -> tuple[int, int]:
    """Query and KV heads as the tensors say (the config is wrong after pruning)."""
    q = attention.q_proj.weight.shape[0] // attention.head_dim
    kv = attention.k_proj.weight.shape[0] // attention.head_dim
    return q, kv


def _rows(linear: nn.Linear, name: str, index: Tensor) -> list[Coupling]:
    """Output features of a Linear: rows of its weight, and its bias if it has one."""
    couplings = [Coupling(f"{name}.weight", 0, index)]
    if linear.bias is not None:
        couplings.append(Coupling(f"{name}.bias", 0, index))
    return couplings


def _unit_of(index: Tensor) -> Tensor:
    """Invert an index [units, width] that covers 0..features-1: the unit of each feature."""
    units, width = index.shape
    unit_of = torch.empty(units * width, dtype=torch.long)
    unit_of[index.reshape(-1)] = torch.arange(units).repeat_interleave(width)
    return unit_of
