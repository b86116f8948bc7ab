"""The loss on calibration samples, and which of the model's parameters learn from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from prunebench.errors import Failure, Invalid, Unsupported

IGNORED = -100
"""Label of a token whose prediction does not count."""


class Meter(Protocol):
    """What is told of the tokens that a method spends; `profiling.cost.Cost` is one."""

    def forward(self, tokens: int) -> None:
        """Tokens that went forward through the model."""

    def backward(self, tokens: int) -> None:
        """Tokens through which gradients went back."""


class CalibrationLoss:
    """Calibration samples and the causal language model's loss on them.

    tokens, labels  [samples, length]; a label of -100 is a prediction that does not count
    cost            meter that is told the tokens of every loss, or None
    """

    def __init__(self, tokens: Tensor, labels: Tensor, cost: Meter | None) -> None:
        if labels.shape != tokens.shape or tokens.dim() != 2 or not len(tokens):
            raise Invalid(
                "saliency: expected tokens and labels [samples, length], "
                f"got {tuple(tokens.shape)} and {tuple(labels.shape)}"
            )
        self.tokens = tokens
        ends = torch.full_like(labels[:, :1], IGNORED)
        self.targets = torch.cat([labels[:, 1:], ends], dim=1)  # what each position predicts
        self.cost = cost

    def predictions(self, part: slice | Tensor) -> int:
        """How many predictions of these samples count."""
        return int((self.targets[part] != IGNORED).sum())

    def loss(self, model: PreTrainedModel, part: slice | Tensor, predictions: int) -> Tensor:
        """Sum of these samples' losses over `predictions`, fp32; without gradients in no_grad.

        Raises Unsupported when nothing that the loss depends on learns, Failure when it is not
        finite.
        """
        if not predictions:
            raise Invalid("saliency: no token of a calibration sample has a label to predict")
        device = next(model.parameters()).device
        tokens = self.tokens[part].to(device)
        logits = model(tokens, use_cache=False).logits  # [samples, length, vocabulary]
        targets = self.targets[part].to(logits.device)
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        loss = losses / predictions
        learns = torch.is_grad_enabled()
        if learns and not loss.requires_grad:
            raise Unsupported("the loss depends on none of the weights to be scored")
        if not bool(loss.isfinite()):
            raise Failure(f"the loss on the calibration samples is {loss.item()}")
        if self.cost is not None:
            self.cost.forward(tokens.numel())
            self.cost.backward(tokens.numel() if learns else 0)
        return loss


@contextmanager
def only_these_learn(model: nn.Module, chosen: dict[str, nn.Parameter]) -> Iterator[None]:
    """Only `chosen` require gradients inside; flags and gradients are restored afterwards."""
    before = [(p, p.requires_grad, p.grad) for p in model.parameters() if not p.is_inference()]
    for name, parameter in chosen.items():
        if parameter.is_inference():
            raise Unsupported(f"{name} cannot give a gradient: it was made in inference mode")
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(False).grad = None
        for name, parameter in chosen.items():
            try:
                parameter.requires_grad_(True)
            except RuntimeError as error:
                raise Unsupported(f"{name} cannot give a gradient: {error}") from None
        yield
    finally:
        for parameter, learns, gradient in before:
            parameter.grad = gradient
            if parameter.requires_grad != learns:
                parameter.requires_grad_(learns)
