"""MACs: against arithmetic by hand, on every kernel of attention, and against the literature."""

from __future__ import annotations

import pytest
import torch

from prunebench.profiling import macs
from prunebench.profiling.flops import count_macs


def by_hand(model, length: int) -> int:
    """Every linear layer at every position, and two products of length x length per query head."""
    total = length * model.lm_head.weight.numel()
    for layer in model.model.layers:
        linears = [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]
        total += length * sum(linear.weight.numel() for linear in linears)
        total += 2 * layer.self_attn.q_proj.out_features * length**2
    return total


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_macs_equal_arithmetic_by_hand(tiny, attention, kv_heads):
    model = tiny(num_key_value_heads=kv_heads)
    model.set_attn_implementation(attention)
    assert macs(model, 24) == by_hand(model, 24)


def test_macs_of_mixed_shapes(mixed):
    assert macs(mixed, 24) == by_hand(mixed, 24)


def test_meta_device_counts_the_same(tiny):
    model = tiny()
    assert macs(model.to("meta"), 24) == by_hand(model, 24)


def test_macs_are_linear_in_the_batch(tiny):
    model = tiny()
    three = count_macs(lambda: model(input_ids=torch.ones(3, 24, dtype=torch.long)))
    assert three == 3 * macs(model, 24)


def test_macs_see_a_smaller_model(tiny):
    assert macs(tiny(intermediate_size=24), 24) < macs(tiny(), 24)


def test_llama_7b_against_the_published_count(llama_7b):
    """LLM-Pruner states 424.02 G at 64 tokens; its hooks add what is no matrix product.

    Those terms: rotation 4 q H d and softmax H q^2 per layer, 2 per element of each RMSNorm, 1 per
    element of SiLU: 94.4 M together, 0.022 % of the whole.
    """
    q, heads, width, hidden, neurons, layers = 64, 32, 128, 4096, 11008, 32
    rotation = layers * 4 * q * heads * width
    softmax = layers * heads * q**2
    norms = (2 * layers + 1) * 2 * q * hidden
    silu = layers * q * neurons
    ours = macs(llama_7b, q)
    assert ours == by_hand(llama_7b, q) == 423_926_693_888
    assert rotation + softmax + norms + silu == 94_371_840
    assert round((ours + rotation + softmax + norms + silu) / 1e9, 2) == 424.02
    assert abs(ours / 424.02e9 - 1) < 0.005
