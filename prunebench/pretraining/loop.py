"""The training loop of all models that the suite makes itself: AdamW, one pass per batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import count

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from prunebench.untyped import Module

BETAS = (0.9, 0.95)


def make_optimizer(model: Module, *, weight_decay: float, epsilon: float) -> torch.optim.AdamW:
    """AdamW whose decay leaves out norms' gains."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=epsilon, fused=True)


def fit(
    model: Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterator[Tensor],
    rate_at: Callable[[int], float | None],
    *,
    clip_norm: float,
    dtype: torch.dtype | None = None,
    first: int = 0,
    after_step: Callable[[int, Tensor], None] | None = None,
) -> int:
    """Train until `rate_at(step)`, the learning rate, is None; returns the number of that step.

    batches     yield windows [batch, length + 1], of which all but the last token are read
    dtype       of the arithmetic, by autocast; None: that of the weights
    first       number of the first step
    after_step  is told each step's number and loss (nats per token, on the device)
    """
    model.train()
    for step in count(first):
        rate = rate_at(step)
        if rate is None:
            return step
        for group in optimizer.param_groups:
            group["lr"] = rate
        windows = next(batches)  # [batch, length + 1]
        mixed = torch.autocast(windows.device.type, dtype) if dtype else nullcontext()
        with mixed:
            logits = model(input_ids=windows[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if after_step is not None:
            after_step(step, loss.detach())
    raise AssertionError("unreachable: steps have no end")


def cosine(done: float, *, peak: float, final: float) -> float:
    """Half a cosine from `peak` at done = 0 down to `final` at done = 1."""
    return final + 0.5 * (1 + math.cos(math.pi * done)) * (peak - final)
