"""A measured step: planted memory, sleep and work are seen; known MACs of a training step."""

from __future__ import annotations

import time

import pytest
import torch

from prunebench.profiling.steps import measure_step

MB = 1_000_000


class Toy:
    """One Linear forward and backward; holds its weight, keeps its gradient."""

    tokens = 8

    def __init__(self, *, sleep_s: float = 0.0, block: int = 0, bias: bool = False) -> None:
        self.linear = torch.nn.Linear(64, 32, bias=bias)
        self.sleep_s, self.block = sleep_s, block
        self.kept_bytes = 4 * 64 * 32

    def run(self) -> None:
        time.sleep(self.sleep_s)
        torch.empty(self.block, dtype=torch.uint8)
        self.linear(torch.ones(8, 64)).sum().backward()
        self.linear.zero_grad()

    def held_bytes(self) -> int:
        return 4 * self.linear.weight.numel()


def test_figures_of_a_known_step():
    found = measure_step(Toy(), "cpu", rounds=6)
    assert found["macs"] == 2 * 8 * 64 * 32  # forward, and the weight's gradient
    assert found["held_mib"] * 2**20 == 4 * 64 * 32
    assert found["floor_mib"] == 2 * found["held_mib"]
    assert found["step_ms"]["n"] == 6
    rate = 1e3 * 8 / found["step_ms"]["median"]
    assert found["tokens_per_s"] == pytest.approx(rate)
    assert found["peak_reserved_mib"] is None and found["device"].startswith("cpu: ")


def test_planted_allocation_and_sleep_are_seen():
    plain = measure_step(Toy(), "cpu", rounds=3)
    planted = measure_step(Toy(sleep_s=0.05, block=100 * MB), "cpu", rounds=3)
    assert planted["peak_allocated_mib"] - plain["peak_allocated_mib"] > 95
    assert planted["step_ms"]["median"] >= 50 > plain["step_ms"]["median"]


def test_a_step_that_fails_says_so():
    class Broken(Toy):
        def run(self) -> None:
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        measure_step(Broken(), "cpu", rounds=1)
