"""Peak memory and cache bytes: exact on planted allocations."""

from __future__ import annotations

import pytest
import torch

from prunebench.profiling import kv_cache_bytes, watch
from prunebench.profiling.latency import decode, prefill

MB = 1_000_000


def test_peak_of_each_part_is_exact_and_includes_what_lay_there():
    with watch("cpu") as memory:
        with memory.part("first"):
            kept = torch.empty(40 * MB, dtype=torch.uint8)
            torch.empty(20 * MB, dtype=torch.uint8)
        with memory.part("second"):
            del kept
            torch.empty(50 * MB, dtype=torch.uint8)
    assert memory.parts["first"].allocated_bytes == 60 * MB
    assert memory.parts["second"].allocated_bytes == 50 * MB
    assert memory.parts["first"].reserved_bytes is None


def test_a_part_that_allocates_nothing_keeps_the_level():
    with watch("cpu") as memory:
        with memory.part("first"):
            kept = torch.empty(40 * MB, dtype=torch.uint8)
        with memory.part("second"):
            pass
    assert kept.numel() == memory.parts["second"].allocated_bytes == 40 * MB


def test_after_an_error_the_peak_is_the_one_reached():
    with pytest.raises(RuntimeError, match="planted"):
        with watch("cpu") as memory, memory.part("work"):
            block = torch.empty(40 * MB, dtype=torch.uint8)
            raise RuntimeError(f"planted after {block.numel()}")
    assert memory.parts["work"].allocated_bytes == 40 * MB


def test_planted_allocation_is_seen(tiny, faults):
    prompt = torch.ones(1, 8, dtype=torch.long)

    def rise(model) -> int:
        with torch.inference_mode(), watch("cpu") as memory, memory.part("forward"):
            model(input_ids=prompt)
        return memory.parts["forward"].allocated_bytes

    assert rise(faults["allocate"](tiny())) >= 100 * MB
    assert 0 < rise(tiny()) < 1 * MB


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_cache_bytes_equal_the_formula(tiny, kv_heads):
    model = tiny(num_key_value_heads=kv_heads)
    batch, prompt, new = 3, 10, 4
    ids = torch.ones(batch, prompt + new, dtype=torch.long)
    with torch.inference_mode():
        cache = prefill(model, ids[:, :prompt]).past_key_values
        decode(model, cache, ids[:, prompt:])
    # keys and values x layers x batch x KV heads x length x head width x 4 bytes
    assert kv_cache_bytes(cache) == 2 * 2 * batch * kv_heads * (prompt + new) * 8 * 4


def test_cache_bytes_of_mixed_shapes(mixed):
    with torch.inference_mode():
        cache = prefill(mixed, torch.ones(3, 10, dtype=torch.long)).past_key_values
    assert kv_cache_bytes(cache) == 2 * 3 * (1 + 2) * 10 * 8 * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_peaks_are_the_allocator_s():
    before = torch.empty(10 * MB, dtype=torch.uint8, device="cuda")
    with watch("cuda") as memory:
        with memory.part("first"):
            kept = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
        with memory.part("second"):
            del kept
            torch.empty(32 * 2**20, dtype=torch.uint8, device="cuda")
    assert before.numel() == 10 * MB
    assert memory.parts["first"].allocated_bytes == 64 * 2**20
    assert memory.parts["first"].reserved_bytes >= 64 * 2**20
    assert memory.parts["second"].allocated_bytes == 64 * 2**20  # the level at the part's start
