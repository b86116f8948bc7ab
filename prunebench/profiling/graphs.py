"""Decode without Python between kernels: a cache of fixed size, and one step as a CUDA graph.

Launched kernel by kernel, one step of a 7B model takes a fast GPU longer to launch than to compute,
and then no pruned model is faster than the dense one. A captured step is launched as a whole.
Every step reads the cache at its full size. On a CPU the same step runs without being captured.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import StaticCache
from transformers.cache_utils import StaticLayer

from prunebench.errors import Unsupported
from prunebench.profiling.latency import prefill
from prunebench.untyped import Call, Foreign

WARMUP_STEPS = 2  # libraries allocate their workspaces before the capture


class FixedDecoder:
    """A model that has read a prompt, and reads on token by token, from there as often as asked.

    Args:
        model: or the compiled form of it.
        config: its configuration.
        prompt: token ids [batch, prompt].
        new: tokens for which the cache has room behind the prompt.

    Must be made and run under inference mode. Raises Unsupported where a layer keeps no full cache.
    """

    def __init__(self, model: Call, config: Foreign, prompt: Tensor, new: int) -> None:
        self._model, self._start = model, prompt.shape[1]
        self.cache = StaticCache(config=config, max_cache_len=self._start + new)
        if any(type(layer) is not StaticLayer for layer in self.cache.layers):
            raise Unsupported("a decode graph needs a full key-value cache in every layer")
        prefill(model, prompt, past_key_values=self.cache)
        self._token = prompt[:, -1:].clone()  # [batch, 1], the graph's input
        self.logits: Tensor | None = None  # [batch, 1, vocabulary] of the last step
        self._step = self._captured() if prompt.device.type == "cuda" else self._forward

    def rewind(self) -> None:
        """Forget all tokens behind the prompt."""
        layers: list[Foreign] = self.cache.layers  # static ones, which count their tokens
        for layer in layers:
            layer.cumulative_length.fill_(self._start)

    def run(self, tokens: Tensor) -> None:
        """Feed `tokens` [batch, new] one by one."""
        for step in range(tokens.shape[1]):
            self._token.copy_(tokens[:, step : step + 1])
            self._step()

    def _forward(self) -> None:
        output = self._model(input_ids=self._token, past_key_values=self.cache, use_cache=True)
        self.logits = output.logits

    def _captured(self) -> Callable[[], None]:
        """The step as a graph; capturing runs nothing, so the cache is as before."""
        device = self._token.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                self._forward()
                self.rewind()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._forward()
        return graph.replay
