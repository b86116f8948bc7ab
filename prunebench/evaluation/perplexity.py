"""Perplexity under named protocols. (Zero-shot accuracy is in zeroshot, through lm-eval.)"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.protocols import Protocol
from prunebench.evaluation.scoring import has_own_decoder, hidden_states, target_losses
from prunebench.pruning.architectures import relies_on_bos
from prunebench.text.fits import check_ids, check_length
from prunebench.untyped import Json

logger = logging.getLogger(__name__)

TOKENS_PER_BATCH = 4096


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[str],
    protocol: Protocol,
    *,
    batch_size: int | None = None,
) -> Json:
    """Perplexity, mean negative log-likelihood (nats per token) and its standard error.

    The standard error is that of the mean over windows or documents, weighted by their predictions,
    since tokens within a window are not independent. Raises Invalid when the text is shorter than
    one window, Failure when the loss is not finite.
    """
    protocol = protocol.for_family(relies_on_bos=relies_on_bos(model.config.model_type))
    check_length(model, protocol.length, f"{protocol.key}: windows")
    pieces, cut = _pieces(tokenizer, rows, protocol)
    if not pieces:
        raise Invalid(
            f"{protocol.key}: the text has fewer than {protocol.length} tokens, not one window"
        )
    check_ids(model, max(int(piece.max()) for piece in pieces), protocol.key)
    batch_size = batch_size or max(1, TOKENS_PER_BATCH // protocol.length)
    sums, counts, batch_size = _losses_that_fit(model, pieces, batch_size)
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
        "bos": protocol.bos,
        "truncated": cut,
        "batch_size": batch_size,
    }


def windows(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[str], length: int, *, bos: str = "text"
) -> Tensor:
    """Token ids [windows, length]: rows joined by two newlines, one tokenisation, tail dropped.

    With bos "window" a window is BOS and length - 1 tokens of text, all of which are predicted: as
    many as without it. Raises Invalid where the tokenizer has no BOS.
    """
    text = "\n\n".join(rows)
    front = _front(tokenizer, bos)
    stream = torch.tensor(
        tokenizer(text, add_special_tokens=bos == "text", verbose=False).input_ids
    )
    size = length - len(front)
    count = len(stream) // size
    body = stream[: count * size].view(count, size)
    return torch.cat([front.expand(count, -1), body], dim=1)


def _pieces(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[str], protocol: Protocol
) -> tuple[list[Tensor], int | None]:
    """Windows, or documents and how many of those are longer than the protocol's length."""
    if protocol.mode == "windows":
        found = windows(tokenizer, rows, protocol.length, bos=protocol.bos)
        return list(found[: protocol.limit]), None
    front = _front(tokenizer, protocol.bos).tolist()
    pieces, cut = [], 0
    for row in rows[: protocol.limit]:
        own = tokenizer(row, add_special_tokens=protocol.bos == "text", verbose=False).input_ids
        ids = [*front, *own]
        cut += len(ids) > protocol.length
        if len(ids) > 1:
            pieces.append(torch.tensor(ids[: protocol.length]))
    return pieces, cut


def _front(tokenizer: PreTrainedTokenizerBase, bos: str) -> Tensor:
    """What every window begins with: BOS [1], or nothing [0]."""
    if bos != "window":
        return torch.zeros(0, dtype=torch.long)
    if tokenizer.bos_token_id is None:
        raise Invalid("every window is to begin with BOS, and the tokenizer has none; bos: text")
    return torch.tensor([tokenizer.bos_token_id])


def _losses_that_fit(
    model: PreTrainedModel, pieces: Sequence[Tensor], batch_size: int
) -> tuple[list[float], list[int], int]:
    """`losses`, and the batch size that memory sufficed for: halved until it does."""
    while True:
        try:
            return (*losses(model, pieces, batch_size), batch_size)
        except (RuntimeError, MemoryError) as error:
            if batch_size == 1 or not should_reduce_batch_size(error):
                raise
            logger.warning("perplexity: out of memory at %d pieces a batch", batch_size)
        batch_size //= 2
        clear_device_cache(garbage_collection=True)


@torch.inference_mode()
def losses(
    model: PreTrainedModel, pieces: Sequence[Tensor], batch_size: int
) -> tuple[list[float], list[int]]:
    """Sum of losses (nats) and number of predictions of every piece, in the order of `pieces`."""
    device = next(model.parameters()).device
    order = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
    sums, counts = [0.0] * len(pieces), [0] * len(pieces)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc="perplexity", mininterval=1.0, leave=False):
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
    """Losses [batch, length - 1] of all tokens but the first of ids [batch, length]."""
    if not has_own_decoder(model):
        return _losses_of_logits(model(ids, use_cache=False).logits, ids)
    hidden = hidden_states(model, ids, use_cache=False).last_hidden_state[:, :-1]
    losses = target_losses(model, hidden.reshape(-1, hidden.shape[-1]), ids[:, 1:].reshape(-1))
    return losses.view(ids.shape[0], -1)


def _losses_of_logits(logits: Tensor, ids: Tensor) -> Tensor:
    """The same from logits [batch, length, vocabulary], for a model that runs only as a whole."""
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    losses = functional.cross_entropy(flat, ids[:, 1:].reshape(-1), reduction="none")
    return losses.view(ids.shape[0], -1)


def _standard_error(sums: Sequence[float], counts: Sequence[int], mean: float) -> float | None:
    """Standard error of a ratio of sums over independent pieces; None for a single piece."""
    n = len(sums)
    if n < 2:
        return None
    residuals = sum((s - mean * c) ** 2 for s, c in zip(sums, counts, strict=True))
    return math.sqrt(residuals * n / (n - 1)) / sum(counts)
