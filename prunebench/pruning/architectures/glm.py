"""GLM-4: LLaMA-shaped, with gate and up fused into one Linear and half of each head rotated.

Covers `glm` (GLM-4 of 2024) and `glm4` (of 2025, which normalises what attention and MLP write).
"""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.pruning.architectures import llama, parts
from prunebench.pruning.structure import Structure

STACK = llama.STACK
refresh = llama.refresh


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """As in LLaMA, but for the fused gate and up."""
    return llama.assemble(model, llama.heads, neurons)


def neurons(model: PreTrainedModel, i: int) -> Structure:
    """Unit: its row of gate, its row of up (all gates come first) and its column of down."""
    units = model.model.layers[i].mlp.down_proj.weight.shape[1]
    index = parts.consecutive(units, units)
    reads = {"gate_up_proj": parts.stacked(index, index)}
    prefix = f"{llama.STACK}.{i}.mlp"
    return parts.block(model, "neurons", i, prefix, reads=reads, writes="down_proj", index=index)
