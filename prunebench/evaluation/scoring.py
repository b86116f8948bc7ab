"""Log-probabilities of given tokens, with logits only where they are scored.

A vocabulary of 256,000 makes the logits of one window of 2,048 tokens 2 GiB in float32. So the
decoder runs first, without the head; the head then takes the hidden states that matter, a few MiB
of logits at a time. What the head does besides its matrix (soft-capping, scaling) is the model's
own code, whatever the family.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from prunebench.untyped import Foreign, Passed

LOGITS_AT_ONCE = 2**24
"""Logits that the head makes in one go: 64 MiB in float32."""
GPU_TIMES = 8
"""So many times more on a GPU, which small calls keep waiting."""
NORMALISED_AT_ONCE = 2**20
"""Logits that are normalised at once: a few MiB stay in the processor's cache."""


class Scores(NamedTuple):
    """Of each target: its log-probability in nats, float32 [n], and whether it is the likeliest
    token, bool [n]."""

    log_probs: Tensor
    greedy: Tensor


def has_own_decoder(model: PreTrainedModel) -> bool:
    """Whether decoder and head can run apart (all families that the suite prunes)."""
    return model.base_model is not model and model.get_output_embeddings() is not None


def hidden_states(model: PreTrainedModel, ids: Tensor, **options: Passed) -> Foreign:
    """Run the decoder without the head on ids [batch, length].

    Returns what transformers returns: `last_hidden_state` [batch, length, hidden], and
    `past_key_values` where the options ask for a cache.
    """
    return model.base_model(ids, return_dict=True, **options)


def target_scores(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Scores:
    """Score targets [n], each predicted from its row of hidden [n, hidden_size]."""
    log_probs, greedy = [], []
    for logits, wanted in _in_parts(model, hidden, targets):
        log_probs.append(-functional.cross_entropy(logits, wanted, reduction="none"))
        greedy.append(logits.argmax(dim=1) == wanted)
    return Scores(torch.cat(log_probs), torch.cat(greedy))


def target_losses(model: PreTrainedModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Negative log-probabilities in nats, float32 [n], of targets [n] given hidden [n, size]."""
    return torch.cat(
        [
            functional.cross_entropy(logits, wanted, reduction="none")
            for logits, wanted in _in_parts(model, hidden, targets)
        ]
    )


def _in_parts(
    model: PreTrainedModel, hidden: Tensor, targets: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits in float32 of a few rows at a time, with the targets of these rows."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    on_cpu = hidden.device.type == "cpu"
    rows = max(1, LOGITS_AT_ONCE * (1 if on_cpu else GPU_TIMES) // vocabulary)
    few = max(1, NORMALISED_AT_ONCE // vocabulary) if on_cpu else rows
    for some, wanted in zip(hidden.split(rows), targets.split(rows), strict=True):
        parts = _logits(model, some).split(few)
        for logits, target in zip(parts, wanted.split(few), strict=True):
            yield logits.float(), target


def _logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [n, vocabulary] of hidden states [n, hidden_size]: the model's own forward function,
    for which the decoder hands back these states instead of running. (The base model of OPT wraps
    its decoder, and OPT's head reads that; mixtures of experts ask for router logits, too.)"""
    decoder = model.get_decoder()
    output = MoeModelOutputWithPast(last_hidden_state=hidden[None])
    before = decoder.__dict__.get("forward")
    decoder.forward = lambda *args, **kwargs: output
    try:
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        logits: Tensor = model(ids, use_cache=False).logits[0]
    finally:
        if before is None:
            del decoder.forward
        else:
            decoder.forward = before
    return logits
