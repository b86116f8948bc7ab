"""Answers that a model writes, greedily, with lm-eval's rules of where they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from prunebench.evaluation.written import Written
from prunebench.evaluation.zeroshot.outcomes import request_key
from prunebench.untyped import Foreign, Json

Arguments = tuple[str, Json]
"""A prompt, and lm-eval's settings of the generation."""


def generate(
    harness: Foreign,
    requests: Sequence[Arguments],
    rows: int,
    progress: Callable[[int], object],
) -> tuple[list[Written], int]:
    """Written requests, `rows` at once, halved where memory does not suffice.

    `harness` is lm-eval's Hugging Face model. Requests with the same settings and nearly the same
    length run together. Returns the answers in the order of the requests, and the rows in the end.
    """
    answers: dict[int, Written] = {}
    lengths = [len(harness.tok_encode(context)) for context, _ in requests]
    groups: dict[str, list[int]] = {}
    for i, (_, settings) in enumerate(requests):
        groups.setdefault(request_key([settings]), []).append(i)
    for group in groups.values():
        # The longest first: what memory does not allow shows at once.
        order = sorted(group, key=lambda i: -lengths[i])
        while order:
            some = order[:rows]
            try:
                found = _batch(harness, [requests[i] for i in some])
            except (RuntimeError, MemoryError) as error:
                if rows == 1 or not should_reduce_batch_size(error):
                    raise
                rows //= 2
                clear_device_cache(garbage_collection=True)
                continue
            answers |= dict(zip(some, found, strict=True))
            order = order[len(some) :]
            progress(len(some))
    return [answers[i] for i in range(len(requests))], rows


@torch.inference_mode()
def _batch(harness: Foreign, requests: Sequence[Arguments]) -> list[Written]:
    """Answers to requests of the same settings, generated at once."""
    settings = normalize_gen_kwargs(requests[0][1], harness.max_gen_toks)
    eos = harness.tok_decode(harness.eot_token_id, skip_special_tokens=False)
    stop = handle_stop_sequences(settings.pop("until", None), eos=eos)
    limit = settings.pop("max_gen_toks")
    settings.pop("max_length", None)
    room = harness.max_length - limit
    contexts = [context for context, _ in requests]
    ids, mask = harness.tok_batch_encode(contexts, left_truncate_len=room)
    for request in requests:
        if len(harness.tok_encode(request[0])) > room:
            harness.cut.add(request_key(request))
    written = harness._model_generate(
        context=ids.to(harness.device),
        attention_mask=mask.to(harness.device),
        stop=stop,
        max_length=ids.shape[1] + limit,
        **settings,
    )[:, ids.shape[1] :]
    return [_answer(harness, row, stop) for row in written.tolist()]


def _answer(harness: Foreign, row: Sequence[int], stop: Sequence[str]) -> Written:
    """A row of new tokens up to its end; a batch runs on until its last row has ended."""
    ended = harness.eot_token_id in row
    if ended:
        row = row[: row.index(harness.eot_token_id)]
    whole = harness.tok_decode(row)
    text = postprocess_generated_text(generation=whole, stop=list(stop), think_end_token=None)
    ended = ended or any(mark in whole for mark in stop if mark)
    tokens = harness.tokenizer(text, add_special_tokens=False).input_ids
    return Written(text, tokens, ended)
