"""Peak memory of a piece of work, and the bytes of a key-value cache.

On a GPU the caching allocator keeps the peaks itself (the CUDA context, some hundred MiB, is
outside of them). On the CPU every allocation and release of a tensor is recorded by PyTorch's
profiler and summed up in order: a true peak of tensor memory, to the byte. What libraries take
beside PyTorch's allocator is not seen there, nor is the release of a tensor from before.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from prunebench.profiling.sizes import tensor_bytes
from prunebench.untyped import Json, Passed

PART = "prunebench memory: "  # marks a part in the profiler's trace


@dataclass(frozen=True)
class Peak:
    """Highest memory of a part above the level at the watch's start; None where nothing counts."""

    allocated_bytes: int | None = None
    reserved_bytes: int | None = None


@dataclass
class Watch:
    """Peaks of the named parts of watched work; complete when the watch has ended."""

    device: torch.device
    allocated_bytes: int = 0  # at the start
    reserved_bytes: int = 0
    parts: dict[str, Peak] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name a part of the work. After an error its peak is the one that was reached."""
        if self.device.type != "cuda":
            with record_function(PART + name):
                yield
            return
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            yield
            torch.cuda.synchronize(self.device)
        finally:
            allocated = torch.cuda.max_memory_allocated(self.device) - self.allocated_bytes
            reserved = torch.cuda.max_memory_reserved(self.device) - self.reserved_bytes
            # Blocks that were reserved before and stood empty may have served.
            self.parts[name] = Peak(allocated, max(allocated, reserved))


@contextmanager
def watch(device: torch.device | str) -> Iterator[Watch]:
    """Watch how far tensor memory on `device` rises in each named part of the block.

    `reserved_bytes` is None on the CPU, which has no caching allocator. Watches must not be
    nested: each starts the device's peak counters anew.

    Example::

        with watch(device) as memory, memory.part("step"):
            loss.backward()
        memory.parts["step"].allocated_bytes
    """
    memory = Watch(torch.device(device))
    with _cuda(memory) if memory.device.type == "cuda" else _cpu(memory):
        yield memory


def kv_cache_bytes(cache: Passed) -> int:
    """Bytes of the keys and values that a cache object of transformers holds right now."""
    total = 0
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):  # [batch, kv_heads, length, width]
            total += 0 if tensor is None else tensor_bytes(tensor)
    return total


@contextmanager
def _cuda(memory: Watch) -> Iterator[None]:
    gc.collect()  # garbage released inside would lower the peak
    torch.cuda.synchronize(memory.device)
    torch.cuda.empty_cache()
    memory.allocated_bytes = torch.cuda.memory_allocated(memory.device)
    memory.reserved_bytes = torch.cuda.memory_reserved(memory.device)
    yield


@contextmanager
def _cpu(memory: Watch) -> Iterator[None]:
    # Without this the profiler's own log writes two lines to stderr for every watch.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    try:
        with profiler:
            yield
    finally:
        events = _trace(profiler)
        for event in events:
            if event.get("ph") == "X" and event["name"].startswith(PART):
                name, end = event["name"].removeprefix(PART), event["ts"] + event["dur"]
                memory.parts[name] = Peak(_highest(events, event["ts"], end))


def _trace(profiler: profile) -> list[Json]:
    """All events that the profiler recorded, in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return sorted(events, key=lambda event: event.get("ts", 0))


def _highest(events: list[Json], start: float, end: float) -> int:
    """The highest sum of allocations and releases between two times, the level at start too."""
    level = highest = 0
    for event in events:
        if event["name"] != "[memory]":
            continue
        if event["ts"] > end:
            break
        level += event["args"]["Bytes"]
        highest = level if event["ts"] < start else max(highest, level)
    return highest
