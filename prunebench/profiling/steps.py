"""What one step of a method takes, again and again while it prunes: peak memory and throughput.

A step is what a plugin's `step.py` makes: an object with `run()`, `tokens` (through the model in a
run), `held_bytes()` (weights and states between two runs) and `kept_bytes` (what the method must
keep beside them, gradients for example). Batch 1, so that memory shows the method, not the batch.
"""

from __future__ import annotations

from typing import Protocol

import torch

from prunebench.garbage import no_collection
from prunebench.profiling.device import describe, is_shared
from prunebench.profiling.flops import counted
from prunebench.profiling.intervals import summary
from prunebench.profiling.latency import timed
from prunebench.profiling.memory import Watch, watch
from prunebench.units import MIB
from prunebench.untyped import Json


class Step(Protocol):
    """See the module's docstring."""

    tokens: int
    kept_bytes: int

    def run(self) -> None: ...

    def held_bytes(self) -> int: ...


def measure_step(step: Step, device: torch.device | str, *, rounds: int) -> Json:
    """Peaks in MiB (weights included), milliseconds per step, tokens per second, MACs of a step.

    `floor_mib` is what must lie in memory whatever the implementation does. `macs` leave out what
    PyTorch's counter does not know (8-bit products). Figures of a step that has run before, so that
    an optimizer's states are there. Raises what the step raises.
    """
    device = torch.device(device)
    shared = is_shared(device)
    step.run()
    held = step.held_bytes()
    with watch(device) as memory, memory.part("step"):
        step.run()
    macs = counted(step.run)
    with no_collection():
        taken = [timed(step.run, device)[1] for _ in range(rounds)]
    step_ms = summary(taken)
    return {
        "tokens": step.tokens,
        "step_ms": step_ms,
        "tokens_per_s": 1e3 * step.tokens / step_ms["median"],
        "macs": macs,
        "held_mib": held / MIB,
        "floor_mib": (held + step.kept_bytes) / MIB,
        **_peaks(memory, held),
        "device": describe(device) + ", shared device" * bool(shared or is_shared(device)),
    }


def _peaks(memory: Watch, held: int) -> dict[str, float | None]:
    """Absolute peaks: above what lay on the GPU, or on a CPU above what the step itself holds."""
    peak = memory.parts["step"]
    level = memory.allocated_bytes if memory.device.type == "cuda" else held
    reserved = peak.reserved_bytes
    return {
        "peak_allocated_mib": (level + (peak.allocated_bytes or 0)) / MIB,
        "peak_reserved_mib": None if reserved is None else (memory.reserved_bytes + reserved) / MIB,
    }
