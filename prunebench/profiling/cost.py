"""What a pruning or a recovery job costs: wall time, tokens, memory of device and host, energy."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from prunebench.profiling.device import energy_j
from prunebench.units import MIB
from prunebench.untyped import Json

NO_DEVICE_MEMORY = "the CPU has no memory of its own: see peak_host_mib"
SAMPLE_INTERVAL_S = 0.01
KERNEL_SLACK_BYTES = MIB  # Linux updates its counters of resident pages in batches


@contextmanager
def meter(device: torch.device | str) -> Iterator[Cost]:
    """Meter the work inside the block.

    The device's peak counters start anew at entry, so blocks must not be nested. The report also
    holds after an error: an out of memory leaves the peak that was reached.

    Example::

        with meter(device) as cost:
            decision = prune(model, context)
        record["cost"]["prune"] = cost.report()
    """
    cost = Cost(torch.device(device))
    cost.start()
    try:
        yield cost
    finally:
        cost.stop()


class Cost:
    """The counters of one job. `meter` starts and stops it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._figures: Json = {}
        self._missing: dict[str, str] = {}
        self._start_s = self._start_cpu_s = 0.0
        self._start_j: float | None = None
        self._host: _HostPeak | None = None
        self._forward_tokens = self._backward_tokens = 0
        self._seen_forward = self._seen_backward = 0.0

    def forward(self, tokens: int) -> None:
        """Count tokens that went forward through the model."""
        self._forward_tokens += tokens

    def backward(self, tokens: int) -> None:
        """Count tokens through which gradients went back."""
        self._backward_tokens += tokens

    def see(self, forward: float = 0.0, backward: float = 0.0) -> None:
        """Count tokens that the suite saw pass itself (`profiling.passes`)."""
        self._seen_forward += forward
        self._seen_backward += backward

    def start(self) -> None:
        """Reset the device's peaks and start the clock."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._figures["start_device_mib"] = torch.cuda.memory_allocated(self._device) / MIB
        self._start_j, reason = energy_j(self._device)
        if reason:
            self._missing["energy_j"] = reason
        self._host = _HostPeak()
        self._start_s, self._start_cpu_s = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop the clock and read the peaks."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._figures["wall_s"] = time.perf_counter() - self._start_s
        self._figures["cpu_s"] = time.process_time() - self._start_cpu_s
        assert self._host is not None  # start() was called
        self._figures |= self._host.stop() | self._device_peaks() | self._energy()

    def report(self) -> Json:
        """The figures as a part of a record; every None has its reason under `missing`.

        `peak_device_mib` and `peak_device_reserved_mib` are the peaks of PyTorch's allocator, all
        that lay there at the start included (`start_device_mib`), the CUDA context not.
        `peak_host_mib` is resident memory of this process: `peak_host_source` says `getrusage`
        where the kernel's own peak was reached inside the block (exact), else `sampled`
        (every 10 ms, so a shorter peak can be missed). `energy_j` counts the whole device.
        `cpu_s` is processor time of all threads: on a CPU that others use too, `wall_s` is longer.
        Tokens that were both seen and told of count once: the larger of the two numbers holds.
        """
        tokens = {
            "forward_tokens": max(self._forward_tokens, round(self._seen_forward)),
            "backward_tokens": max(self._backward_tokens, round(self._seen_backward)),
        }
        return {**self._figures, **tokens, "missing": dict(self._missing)}

    def _device_peaks(self) -> dict[str, float | None]:
        if self._device.type != "cuda":
            keys = ("start_device_mib", "peak_device_mib", "peak_device_reserved_mib")
            self._missing |= dict.fromkeys(keys, NO_DEVICE_MEMORY)
            return dict.fromkeys(keys)
        return {
            "peak_device_mib": torch.cuda.max_memory_allocated(self._device) / MIB,
            "peak_device_reserved_mib": torch.cuda.max_memory_reserved(self._device) / MIB,
        }

    def _energy(self) -> dict[str, float | None]:
        if self._start_j is None:
            return {"energy_j": None}
        now_j, reason = energy_j(self._device)
        if now_j is None:
            self._missing["energy_j"] = reason or "the driver stopped giving it"
            return {"energy_j": None}
        return {"energy_j": now_j - self._start_j}


class _HostPeak:
    """Peak resident memory of this process between its making and `stop`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._kernel_start = _kernel_peak_bytes()
        self._start = self._highest = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="host-memory", daemon=True)
        self._thread.start()

    def stop(self) -> Json:
        self._done.set()
        self._thread.join()
        self._look()
        kernel = _kernel_peak_bytes()
        # The kernel's peak is the process's from its birth: it is the block's only if it moved.
        moved = kernel > self._kernel_start + KERNEL_SLACK_BYTES
        return {
            "start_host_mib": self._start / MIB,
            "peak_host_mib": max(self._highest, kernel if moved else 0) / MIB,
            "peak_host_source": "getrusage" if moved else "sampled",
        }

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)


def _kernel_peak_bytes() -> int:
    """Highest resident memory of this process since it began, as the kernel keeps it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB
