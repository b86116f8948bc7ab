"""Mixtures of experts of LLaMA's shape: Mixtral and Qwen3-MoE.

A router sends each token to its `top_k` experts. All experts of a layer lie in two tensors,
gate_up_proj [experts, 2 * neurons, hidden] and down_proj [experts, hidden, neurons]. So an expert
leaves with its row of the router, and a neuron leaves all experts of its layer at once: which of an
expert's neurons has which number is by chance, but the tensors know one width only. Masked is
sliced for an expert if its router logit is -inf: the others' shares then add up to 1 as they do
without it. Qwen3-MoE may have layers without experts, which are as in LLaMA.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from prunebench.modules import module_at, stack_at
from prunebench.pruning.architectures import llama, parts
from prunebench.pruning.structure import Coupling, Gate, Structure
from prunebench.untyped import Module

STACK = llama.STACK
ALIGNED = 8
"""16 bytes of bfloat16, and 32 of float32."""


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """List heads, neurons and, where there are some, experts of each layer; `hidden`, `layers`."""
    blocks, linear = [], []
    for i, layer in enumerate(stack_at(model, STACK)):
        attention = llama.heads(model, i)
        sparse = _is_sparse(layer)
        dense = [attention] if sparse else [attention, llama.neurons(model, i)]
        blocks += [*dense, *([_neurons(model, i), _experts(model, i)] if sparse else [])]
        linear += dense
    stream = llama.exact(model, _with_experts(model, llama.stream(model, linear)))
    layers = parts.layers(model, linear, STACK)
    for i, mlp in _mixtures(model):
        width = model.get_parameter(f"{mlp}.experts.down_proj").shape[1]
        gate = Gate(f"{mlp}.experts", "output", torch.full((width,), i))
        layers = replace(layers, gates=(*layers.gates, gate))
    return parts.by_name([*blocks, stream, layers])


def refresh(model: PreTrainedModel) -> bool:
    """As in LLaMA, and the experts' sizes; the config says which layers have no experts.

    torch's grouped product wants rows of whole 16 bytes. What it cannot compute is computed expert
    by expert, which a stock class has to be told when it loads: so such a result is not for it.
    """
    uniform, config, shapes = llama.refresh(model), model.config, set()
    for _, path in _mixtures(model):
        mlp = module_at(model, path)
        experts, router = mlp.experts, mlp.gate
        count, width, neurons = experts.down_proj.shape
        experts.num_experts = router.num_experts = count
        experts.hidden_dim = router.hidden_dim = width
        experts.intermediate_dim = neurons
        shapes.add((count, neurons))
    aligned = all(size % ALIGNED == 0 for size in (config.hidden_size, *(n for _, n in shapes)))
    if not aligned:
        model.set_experts_implementation("eager")
    if hasattr(config, "mlp_only_layers"):
        layers = stack_at(model, STACK)
        config.mlp_only_layers = [i for i, layer in enumerate(layers) if not _is_sparse(layer)]
        config.decoder_sparse_step = 1
    if len(shapes) == 1:
        ((config.num_local_experts, neurons),) = shapes
        own = hasattr(config, "moe_intermediate_size")
        setattr(config, "moe_intermediate_size" if own else "intermediate_size", neurons)
    return uniform and aligned and len(shapes) <= 1


def _experts(model: PreTrainedModel, i: int) -> Structure:
    """Unit: an expert, with its row of the router."""
    mlp = f"{STACK}.{i}.mlp"
    router = module_at(model, f"{mlp}.gate")
    count = router.weight.shape[0]
    index = parts.consecutive(count, count)  # [experts, 1]
    names = (f"{mlp}.gate.weight", f"{mlp}.experts.gate_up_proj", f"{mlp}.experts.down_proj")
    return Structure(
        name=f"layers.{i}.experts",
        kind="experts",
        layer=i,
        units=count,
        couplings=tuple(Coupling(name, 0, index) for name in names),
        gates=(Gate(f"{mlp}.gate", "routing", parts.unit_of(index)),),
        least=router.top_k,
    )


def _neurons(model: PreTrainedModel, i: int) -> Structure:
    """Unit: a neuron of every expert: its rows of gate and up (all gates first), and a column."""
    experts = f"{STACK}.{i}.mlp.experts"
    units = model.get_parameter(f"{experts}.down_proj").shape[2]
    index = parts.consecutive(units, units)  # [neurons, 1]
    return Structure(
        name=f"layers.{i}.neurons",
        kind="neurons",
        layer=i,
        units=units,
        couplings=(
            Coupling(f"{experts}.gate_up_proj", 1, parts.stacked(index, index)),
            Coupling(f"{experts}.down_proj", 2, index),
        ),
        gates=(Gate(f"{experts}.down_proj", "columns", parts.unit_of(index)),),
    )


def _with_experts(model: PreTrainedModel, stream: Structure) -> Structure:
    """The residual stream with what routers and experts read of it, and experts write into it."""
    index = torch.arange(stream.units).view(-1, 1)  # [width, 1]
    for _, mlp in _mixtures(model):
        written = f"{mlp}.experts.down_proj"
        couplings = (
            Coupling(written, 1, index),
            Coupling(f"{mlp}.gate.weight", 1, index),
            Coupling(f"{mlp}.experts.gate_up_proj", 2, index),
        )
        stream = replace(
            stream,
            couplings=(*stream.couplings, *couplings),
            gates=(*stream.gates, Gate(f"{mlp}.experts", "output", parts.unit_of(index))),
            writers=(*stream.writers, written),
        )
    return stream


def _mixtures(model: PreTrainedModel) -> list[tuple[int, str]]:
    """Number of each layer with experts, and the path of its router and experts."""
    layers = enumerate(stack_at(model, STACK))
    return [(i, f"{STACK}.{i}.mlp") for i, layer in layers if _is_sparse(layer)]


def _is_sparse(layer: Module) -> bool:
    return hasattr(layer.mlp, "experts")
