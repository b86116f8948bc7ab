"""The meter of pruning and recovery jobs sees what is planted, and says why it does not."""

from __future__ import annotations

import json
import time

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.profiling.cost import meter

MB = 1_000_000


@pytest.fixture
def model():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=61, num_attention_heads=4, num_key_value_heads=2, **shape)
    return LlamaForCausalLM(config)


def planted_rise_mib(size: int) -> float:
    """How far the meter's host peak lies above its start when `size` bytes come and go."""
    with meter("cpu") as cost:
        if size:
            block = torch.ones(size, dtype=torch.uint8)  # written, so that the pages are real
            time.sleep(0.1)
            del block
    report = cost.report()
    return report["peak_host_mib"] - report["start_host_mib"]


def test_planted_allocation_is_seen_and_nothing_else():
    assert planted_rise_mib(100 * MB) > 90, "100 MB are 95.4 MiB"
    assert planted_rise_mib(0) < 30


def test_smaller_peak_after_a_larger_one_is_seen_too():
    """The kernel's own peak no longer moves then: the samples must see it."""
    planted_rise_mib(300 * MB)
    with meter("cpu") as cost:
        block = torch.ones(100 * MB, dtype=torch.uint8)
        time.sleep(0.1)
        del block
    report = cost.report()
    assert report["peak_host_source"] == "sampled"
    assert report["peak_host_mib"] - report["start_host_mib"] > 90


def test_new_peak_of_the_process_comes_from_the_kernel():
    with meter("cpu") as first:
        pass
    rise = int(first.report()["peak_host_mib"] * 2**20) + 600 * MB
    block = None
    with meter("cpu") as cost:
        block = torch.ones(rise, dtype=torch.uint8)
    assert block.numel() == rise
    assert cost.report()["peak_host_source"] == "getrusage"


def test_planted_sleep_is_seen():
    with meter("cpu") as slow:
        time.sleep(0.2)
    with meter("cpu") as quick:
        pass
    assert slow.report()["wall_s"] >= 0.2
    assert quick.report()["wall_s"] < slow.report()["wall_s"]
    assert slow.report()["cpu_s"] < slow.report()["wall_s"]


def test_report_is_plain_and_each_none_has_a_reason():
    with meter("cpu") as cost:
        cost.forward(128)
        cost.forward(128)
        cost.backward(64)
    report = cost.report()
    json.dumps(report, allow_nan=False)
    assert (report["forward_tokens"], report["backward_tokens"]) == (256, 64)
    assert {key for key, value in report.items() if value is None} == set(report["missing"])
    assert {"peak_device_mib", "peak_device_reserved_mib", "energy_j"} <= set(report)


def test_report_holds_after_an_error():
    with pytest.raises(RuntimeError, match="planted"), meter("cpu") as cost:
        cost.forward(8)
        raise RuntimeError("planted")
    assert cost.report()["wall_s"] > 0
    assert cost.report()["forward_tokens"] == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_planted_device_allocation_is_seen():
    with meter("cuda") as cost:
        torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    report = cost.report()
    assert report["peak_device_mib"] - report["start_device_mib"] == 64
    assert report["peak_device_reserved_mib"] >= 64
    with meter("cuda") as quiet:
        pass
    report = quiet.report()
    assert report["peak_device_mib"] == report["start_device_mib"]
