"""Tiny random models for the tests of measuring, and faults to plant in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

PLANTED_BYTES = 100_000_000


def build(**shape: Any) -> LlamaForCausalLM:
    """A random GQA model: 2 layers, 4 query heads of width 8 on 2 KV heads, 61 tokens."""
    torch.manual_seed(0)
    defaults = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }
    return LlamaForCausalLM(LlamaConfig(**(defaults | shape))).eval()


def prune_first_layer(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Leave the first layer one KV group (two query heads) and 20 neurons: mixed shapes."""
    layer = model.model.layers[0]
    attention, mlp = layer.self_attn, layer.mlp
    width = attention.head_dim
    attention.q_proj = _rows(attention.q_proj, 2 * width)
    attention.k_proj = _rows(attention.k_proj, width)
    attention.v_proj = _rows(attention.v_proj, width)
    attention.o_proj = _columns(attention.o_proj, 2 * width)
    mlp.gate_proj, mlp.up_proj = _rows(mlp.gate_proj, 20), _rows(mlp.up_proj, 20)
    mlp.down_proj = _columns(mlp.down_proj, 20)
    return model


def _rows(linear: nn.Linear, count: int) -> nn.Linear:
    smaller = nn.Linear(linear.in_features, count, bias=False)
    smaller.weight = nn.Parameter(linear.weight[:count].detach().clone())
    return smaller


def _columns(linear: nn.Linear, count: int) -> nn.Linear:
    smaller = nn.Linear(count, linear.out_features, bias=False)
    smaller.weight = nn.Parameter(linear.weight[:, :count].detach().clone())
    return smaller


def plant(model: nn.Module, fault: Callable[[torch.Tensor], None]) -> nn.Module:
    """Run `fault` with the token ids before every forward pass of the model."""
    model.register_forward_pre_hook(
        lambda _, args, kwargs: fault(kwargs["input_ids"]), with_kwargs=True
    )
    return model


def sleep(_: torch.Tensor) -> None:
    time.sleep(0.04)


def allocate(_: torch.Tensor) -> None:
    torch.empty(PLANTED_BYTES, dtype=torch.uint8)


def exhaust(ids: torch.Tensor) -> None:
    """Run out of memory above a batch of 2, after 100 MB."""
    if ids.shape[0] > 2:
        block = torch.empty(PLANTED_BYTES, dtype=torch.uint8)
        raise torch.OutOfMemoryError(f"CUDA out of memory after {block.numel()} bytes")


@pytest.fixture
def tiny() -> Callable[..., LlamaForCausalLM]:
    return build


@pytest.fixture
def faults() -> dict[str, Callable[[nn.Module], nn.Module]]:
    """Name of a fault -> function that plants it in a model and returns the model."""
    kinds = {"sleep": sleep, "allocate": allocate, "exhaust": exhaust}
    return {name: lambda model, kind=kind: plant(model, kind) for name, kind in kinds.items()}


@pytest.fixture
def mixed() -> LlamaForCausalLM:
    return prune_first_layer(build())


@pytest.fixture(scope="session")
def llama_7b() -> LlamaForCausalLM:
    """LLaMA-7B's shape in float16 on the meta device: no memory, no values."""
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).to(torch.float16).eval()
