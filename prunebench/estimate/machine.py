"""What the jobs of a plan run on: a GPU of assumed speed, or the processor at hand, timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from prunebench.errors import Invalid
from prunebench.units import MIB

GPU_TFLOPS = 150.0
PRODUCT_ROWS = 256
"""Tokens of the timed product: about what a micro-batch of tuning has."""
ROUNDS = 12
TUNING_SHARE = 0.57
"""Of the speed of bare matrix products, what LoRA tuning reaches on a processor: its products are
small. Passes without LoRA reach all of it. Both as measured on SmolLM2-135M with one thread."""


@dataclass(frozen=True)
class Machine:
    """Speed and fixed costs of what a job runs on.

    device            "cuda", or "cpu": its memory is the host's then, and weights are float32
    tflops            arithmetic that it sustains, 10^12 operations per second; positive
    process_bytes     memory of a process before it holds a model
    start_s           from the start of a job to its first pass
    disk_bytes_per_s  reading and writing of weights
    decode_step_s     one token through a decoder, where launches are what takes time
    tuning_share      of that arithmetic, what LoRA tuning reaches
    """

    device: str
    tflops: float
    process_bytes: float
    start_s: float
    disk_bytes_per_s: float
    decode_step_s: float
    tuning_share: float = 1.0

    def __post_init__(self) -> None:
        """Raise Invalid for a speed in which nothing would ever end."""
        if not 0 < self.tflops < math.inf:
            raise Invalid(f"tflops: expected a positive number, got {self.tflops:g}")

    @property
    def is_cpu(self) -> bool:
        """Whether jobs compute on the processor."""
        return self.device == "cpu"


def gpu(tflops: float | None = None) -> Machine:
    """A graphics card, whose speed is assumed, not measured."""
    return Machine("cuda", GPU_TFLOPS if tflops is None else tflops, 0.0, 30.0, 1e9, 0.03)


def cpu(threads: int, tflops: float | None = None) -> Machine:
    """The processor at hand with so many threads a job; without `tflops` its speed is timed."""
    sustained = measured_tflops(threads) if tflops is None else tflops
    return Machine("cpu", sustained, 640 * MIB, 5.0, 0.5e9, 0.0, TUNING_SHARE)


def measured_tflops(threads: int) -> float:
    """Speed of float32 matrix products on so many threads, 10^12 operations per second.

    By processor time, and the fastest of some rounds: whatever else runs on the machine counts as
    little as can be.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        rows, weight = torch.ones(PRODUCT_ROWS, 2048), torch.ones(2048, 2048)
        fastest_s = min(_processor_s(lambda: rows @ weight) for _ in range(ROUNDS)) / threads
    finally:
        torch.set_num_threads(before)
    return 2.0 * rows.shape[0] * weight.numel() / fastest_s / 1e12


def _processor_s(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
