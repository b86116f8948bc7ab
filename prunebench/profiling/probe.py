"""One untimed pass of a model over a point: memory, cache bytes, and what its speed-up is bound by.

A speed-up has a limit that no implementation can pass. Prefill is bound by arithmetic: its limit
is the ratio of MACs. Decode is bound by reading: its limit is the ratio of the bytes that a step
reads, weights and key-value cache. MACs and memory are of the model as it is, never compiled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunebench.profiling.flops import count_macs
from prunebench.profiling.latency import decode, prefill
from prunebench.profiling.memory import Watch, kv_cache_bytes, watch
from prunebench.profiling.sizes import decode_weight_bytes, resident_bytes
from prunebench.units import MIB


@dataclass
class Probe:
    """Untimed figures of one model at one point; None where a step was not reached.

    Peaks are the model's own: its weights and buffers, and what rose above them (cache and inputs
    of the step included). So they do not depend on which other models lie on the device.
    """

    held_bytes: int
    prefill_macs: int | None = None
    kv_cache_bytes: int | None = None  # with the prompt and all new tokens in it
    decode_bytes: float | None = None  # read by one step, mean over the new tokens
    memory: Watch | None = None

    def peak_mib(self, kind: str, *parts: str) -> float | None:
        """The peak of `prefill`, `decode` or both, of kind `allocated` or `reserved`."""
        seen = self.memory.parts if self.memory else {}
        rises = [getattr(seen[part], f"{kind}_bytes") for part in parts if part in seen]
        known = [rise for rise in rises if rise is not None]
        return (self.held_bytes + max(known)) / MIB if known else None


def new_probe(model: nn.Module) -> Probe:
    """An empty probe of a model, which holds its weights and buffers from the start."""
    return Probe(held_bytes=resident_bytes(model))


def probe(
    model: nn.Module, prompt: Tensor, tokens: Tensor, into: Probe, *, whole_cache: bool = False
) -> None:
    """Fill `into`; after an error it holds the peaks that were reached.

    Args:
        prompt: token ids [batch, prompt].
        tokens: token ids [batch, new], fed one by one after the prompt.
        whole_cache: every decoding step reads a cache of the full length, not one that grows.
    """
    new = tokens.shape[1]
    with torch.inference_mode():
        with watch(prompt.device) as into.memory:
            filled, full = _cache_bytes(model, prompt, tokens, into.memory)
        # MACs are linear in the batch: one sequence is enough to count.
        into.prefill_macs = prompt.shape[0] * count_macs(lambda: prefill(model, prompt[:1]))
    into.kv_cache_bytes = full
    if new:
        # The cache grows evenly from the first step to the last, which reads all of it.
        first = full if whole_cache else filled + (full - filled) / new
        into.decode_bytes = decode_weight_bytes(model) + (first + full) / 2


def _cache_bytes(
    model: nn.Module, prompt: Tensor, tokens: Tensor, memory: Watch
) -> tuple[int, int]:
    """Run the point under watch; bytes of the cache after the prompt and at the end."""
    with memory.part("prefill"):
        cache = prefill(model, prompt).past_key_values
    filled = kv_cache_bytes(cache)
    if tokens.shape[1]:
        with memory.part("decode"):
            decode(model, cache, tokens)
    return filled, kv_cache_bytes(cache)
