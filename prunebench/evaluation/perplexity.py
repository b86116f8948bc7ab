"""Perplexity under named protocols. (Zero-shot accuracy is in zeroshot, through lm-eval.)"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.protocols import Protocol

TOKENS_PER_BATCH = 4096
NO_TARGET = -100
CHUNK = 2**20
"""Logits that are normalised at once: a few MiB stay in the processor's cache."""


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[str],
    protocol: Protocol,
    *,
    batch_size: int | None = None,
) -> dict[str, Any]:
    """Perplexity, mean negative log-likelihood (nats per token) and its standard error.

    The standard error is that of the mean over windows or documents, weighted by their predictions,
    since tokens within a window are not independent. Raises Invalid when the text is shorter than
    one window, Failure when the loss is not finite.
    """
    pieces = list(_pieces(tokenizer, rows, protocol))
    if protocol.limit is not None:
        pieces = pieces[: protocol.limit]
    if not pieces:
        raise Invalid(
            f"{protocol.key}: the text has fewer than {protocol.length} tokens, not one window"
        )
    _check_positions(model, protocol)
    sums, counts = losses(model, pieces, batch_size or max(1, TOKENS_PER_BATCH // protocol.length))
    total, predictions = sum(sums), sum(counts)
    nll = total / predictions
    if not math.isfinite(nll):
        raise Failure(f"{protocol.key}: the mean loss is {nll}")
    return {
        "status": "ok",
        "reason": None,
        "value": math.exp(nll) if nll < 700 else None,
        "nll": nll,
        "nll_stderr": _standard_error(sums, counts, nll),
        "tokens": predictions,
        "items": len(pieces),
        "corpus": protocol.corpus,
        "split": protocol.split,
        "length": protocol.length,
        "mode": protocol.mode,
        "limit": protocol.limit,
    }


def windows(tokenizer: Any, rows: Sequence[str], length: int) -> Tensor:
    """Token ids [windows, length]: rows joined by two newlines, one tokenisation, tail dropped."""
    stream = torch.tensor(tokenizer("\n\n".join(rows), verbose=False).input_ids)
    count = len(stream) // length
    return stream[: count * length].view(count, length)


def _pieces(tokenizer: Any, rows: Sequence[str], protocol: Protocol) -> Iterator[Tensor]:
    if protocol.mode == "windows":
        yield from windows(tokenizer, rows, protocol.length)
        return
    for row in rows[: protocol.limit]:
        ids = tokenizer(row, truncation=True, max_length=protocol.length).input_ids
        if len(ids) > 1:
            yield torch.tensor(ids)


def _check_positions(model: PreTrainedModel, protocol: Protocol) -> None:
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and protocol.length > most:
        raise Invalid(
            f"{protocol.key}: windows of {protocol.length} tokens, but the model has only {most} "
            "positions; choose a shorter length"
        )


@torch.inference_mode()
def losses(
    model: PreTrainedModel, pieces: Sequence[Tensor], batch_size: int
) -> tuple[list[float], list[int]]:
    """Sum of losses (nats) and number of predictions of every piece, in the order of `pieces`."""
    device = next(model.parameters()).device
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    sums, counts = [0.0] * len(pieces), [0] * len(pieces)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        lengths = torch.tensor([len(pieces[i]) for i in chosen])
        ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)  # [batch, longest]
        for row, i in enumerate(chosen):
            ids[row, : len(pieces[i])] = pieces[i]
        # Padding stands on the right, where a causal model's real tokens never see it.
        losses = _token_losses(model, ids.to(device)).cpu()  # [batch, longest - 1]
        real = torch.arange(1, ids.shape[1])[None] < lengths[:, None]
        per_piece = losses.masked_fill(~real, 0.0).sum(dim=1, dtype=torch.float64)
        for i, value, length in zip(chosen, per_piece.tolist(), lengths.tolist(), strict=True):
            sums[i], counts[i] = value, length - 1
    return sums, counts


def _token_losses(model: PreTrainedModel, ids: Tensor) -> Tensor:
    logits = model(ids, use_cache=False).logits  # [batch, length, vocabulary]
    # Logits are large: they are neither copied (the last position of a row has no target) nor
    # turned to fp32 and normalised all at once.
    targets = functional.pad(ids[:, 1:], (0, 1), value=NO_TARGET).reshape(-1)
    rows = logits.view(-1, logits.shape[-1])
    step = max(1, CHUNK // rows.shape[-1])
    chunks = [
        functional.cross_entropy(part.float(), target, ignore_index=NO_TARGET, reduction="none")
        for part, target in zip(rows.split(step), targets.split(step), strict=True)
    ]
    return torch.cat(chunks).view(ids.shape)[:, :-1]  # [batch, length - 1]


def _standard_error(sums: Sequence[float], counts: Sequence[int], mean: float) -> float | None:
    """Standard error of a ratio of sums over independent pieces; None for a single piece."""
    n = len(sums)
    if n < 2:
        return None
    residuals = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return math.sqrt(residuals * n / (n - 1)) / sum(counts)
