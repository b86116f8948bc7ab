"""Multiply-accumulates of a forward pass, by PyTorch's own operator counter.

Conventions, stated once:
- One MAC is one multiply and one add: half of the counted FLOPs.
- Counted: matrix products (the linear layers, the output projection, the two products of
  attention). Not counted: look-ups in the embedding, norms, rotations, softmax, activations.
- Attention is counted as the full square of length x length, also under a causal mask and also
  where a fused kernel skips the upper half. The papers' counters do the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from prunebench.untyped import Foreign, Passed


def macs(model: nn.Module, length: int) -> int:
    """MACs of one sequence of `length` tokens with logits at every position.

    Works wherever the model lies; on the meta device nothing is computed, so any shape can be
    counted.
    """
    device = next(model.parameters()).device
    tokens = torch.ones(1, length, dtype=torch.long, device=device)  # [1, length]
    return count_macs(lambda: model(input_ids=tokens))


def count_macs(run: Callable[[], Foreign]) -> int:
    """MACs of all that `run` computes, without gradients."""
    with torch.inference_mode():
        return counted(run)


def counted(run: Callable[[], Foreign]) -> int:
    """MACs of all that `run` computes, backward passes included."""
    counter = FlopCounterMode(display=False, custom_mapping=_fused_attention())
    with counter:
        run()
    return counter.get_total_flops() // 2


def _fused_attention() -> dict[Foreign, Callable[..., int]]:
    """Formulas of the fused attention kernels.

    PyTorch has none for the CPU kernel, and would count no attention there at all.
    """
    kernels = [*("flash_attention_for_cpu", "flash_attention"), "efficient_attention"]
    kernels += ["cudnn_attention"]
    names = (f"_scaled_dot_product_{kernel}" for kernel in kernels)
    return {getattr(torch.ops.aten, name): _attention_flops for name in names}


def _attention_flops(
    query: torch.Size, key: torch.Size, value: torch.Size, *_: Passed, **__: Passed
) -> int:
    """FLOPs of softmax(Q K^T) V; with grouped heads each query head makes its own products."""
    batch, heads, queries, width = query  # [batch, heads, queries, width]
    keys, value_width = key[2], value[3]  # [batch, kv_heads, keys, width]
    return 2 * batch * heads * queries * keys * (width + value_width)
