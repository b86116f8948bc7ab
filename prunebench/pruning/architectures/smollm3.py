"""SmolLM3: LLaMA-shaped; every fourth layer, or those that its config lists, is not rotated.

(SmolLM and SmolLM2 are LLaMA models.)
"""

from __future__ import annotations

from transformers import PreTrainedModel

from prunebench.pruning.architectures import llama

STACK = llama.STACK
structures = llama.structures


def refresh(model: PreTrainedModel) -> bool:
    """As in LLaMA; the config says which of the layers that are left are rotated."""
    uniform = llama.refresh(model)
    rotated = [layer.self_attn.use_rope for layer in model.model.layers]
    model.config.no_rope_layers = [int(rotates) for rotates in rotated]
    return uniform
