"""Latency of prefill and decode: what is run, how it is timed, in which order.

Prefill reads the prompt, fills the key-value cache and yields the logits of the last position:
the time to the first token. Decode feeds fixed tokens one by one through the model with that
cache; no sampling, so that only the model is timed.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from prunebench.untyped import Call, Foreign, Passed

if TYPE_CHECKING:
    from prunebench.profiling.graphs import FixedDecoder
    from prunebench.untyped import Module

T = TypeVar("T")


def prefill(model: Call, prompt: Tensor, **cache: Passed) -> Foreign:
    """Read `prompt` [batch, length]; the output holds last-position logits and the cache.

    A cache to be filled may be given as `past_key_values`.
    """
    return model(input_ids=prompt, use_cache=True, **cache, **_last_logits_only(model))


def decode(model: Call, cache: Passed, tokens: Tensor) -> Foreign:
    """Feed `tokens` [batch, new] one by one, each with the cache so far; returns the last output.

    The cache grows in place.
    """
    output = None
    for step in range(tokens.shape[1]):
        token = tokens[:, step : step + 1]  # [batch, 1]
        output = model(input_ids=token, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
    return output


def timed(run: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """The result of `run` and its time in ms: CUDA events on a GPU, the wall clock on the CPU."""
    if device.type != "cuda":
        start_s = time.perf_counter()
        result = run()
        return result, 1e3 * (time.perf_counter() - start_s)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)  # nothing queued before may count
    start.record(torch.cuda.current_stream(device))
    result = run()
    end.record(torch.cuda.current_stream(device))
    torch.cuda.synchronize(device)
    return result, start.elapsed_time(end)


def time_round(
    model: Call,
    prompt: Tensor,
    tokens: Tensor,
    decoder: FixedDecoder | None = None,
) -> tuple[float, float | None]:
    """One round of one model: prefill in ms, decode in ms per token (None without new tokens).

    decoder  decodes with its own cache of the same prompt; None: `decode` with the one just filled
    """
    output, prefill_ms = timed(lambda: prefill(model, prompt), prompt.device)
    if tokens.shape[1] == 0:
        return prefill_ms, None
    cache = output.past_key_values
    del output  # its logits are none of decode's business
    if decoder is None:
        _, decode_ms = timed(lambda: decode(model, cache, tokens), prompt.device)
    else:
        decoder.rewind()
        _, decode_ms = timed(lambda: decoder.run(tokens), prompt.device)
    return prefill_ms, decode_ms / tokens.shape[1]


def rounds(names: Sequence[str], seed: int) -> Iterator[list[str]]:
    """Orders in which all models take their turn, round after round, without end.

    Every second round is the one before it in reverse, so that of any two models each goes first
    equally often; who follows whom is drawn anew for each pair of rounds.
    """
    draw = random.Random(seed)
    while True:
        order = list(names)
        draw.shuffle(order)
        yield order
        yield order[::-1]


def _last_logits_only(model: Call) -> dict[str, int]:
    """Ask for the last position's logits where the model can, as text generation does."""
    plain: Module = getattr(model, "_orig_mod", model)  # the module inside a compiled one
    known = inspect.signature(plain.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}
