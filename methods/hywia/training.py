"""Training the gates end to end: the calibration loss of the model that their scores prune."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.errors import Failure
from prunebench.saliency import CalibrationLoss, only_these_learn
from prunebench.structure import Structure
from prunebench.surgery import gated

from .fusion import Fusion
from .gate import Gates

PASSES = 1.5
"""How often the default batch size sees the calibration samples: what the cost limit permits."""

DIVERGED = 1.1
"""A loss that ends above so many times its start is a failure, not a result."""

EVALUATED = 8  # samples at a time
BISECTIONS = 16
MARGIN = 20.0


@dataclass(frozen=True)
class Training:
    """How the gates are trained; method.yaml describes each. `batch` None: by `PASSES`."""

    steps: int
    batch: int | None
    rate: float
    temperature: float
    seed: int

    @classmethod
    def from_params(cls, params: Mapping[str, Any], *, seed: int) -> Training:
        """The method's parameters; `seed` holds where they give no gate seed."""
        return cls(
            steps=params["gate_steps"],
            batch=params["gate_batch"],
            rate=params["gate_lr"],
            temperature=params["gate_temperature"],
            seed=seed if params["gate_seed"] is None else params["gate_seed"],
        )

    def batches(self, samples: int) -> Iterator[Tensor]:
        """Positions of each step's samples: shuffled passes, one after another."""
        batch = min(samples, self.batch or max(1, round(PASSES * samples / self.steps)))
        generator = torch.Generator().manual_seed(self.seed)
        passes = math.ceil(self.steps * batch / samples)
        order = torch.cat([torch.randperm(samples, generator=generator) for _ in range(passes)])
        yield from order[: self.steps * batch].split(batch)


@dataclass(frozen=True)
class Report:
    """losses: of each step's samples; before, after: of all samples, with the units then kept."""

    losses: tuple[float, ...]
    before: float
    after: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the record."""
        improved = self.after < self.before
        return {"loss_before": self.before, "loss_after": self.after, "improved": improved}


def train(
    model: PreTrainedModel,
    gates: Gates,
    blends: Fusion,
    structures: Mapping[str, Structure],
    kept: Mapping[str, int],
    tokens: Tensor,
    options: Training,
    cost: Any,
) -> Report:
    """Let the gates descend the loss of the model without the units that they rank lowest.

    kept    structure name -> units that stay; structures that are not named lose none
    tokens  [samples, length] calibration samples

    The weights of `model` learn nothing and get no gradients. Raises Failure on divergence.
    """
    loss = CalibrationLoss(tokens, tokens, cost)
    optimizer = torch.optim.Adam(gates.parameters(), lr=options.rate)

    def value(rows: Tensor) -> Tensor:
        scores = blends.scores(gates.attentions())
        factors = unit_gates(scores, kept, options.temperature)
        with gated(model, factors, structures=structures):
            return loss.loss(model, rows, loss.predictions(rows))

    losses = []
    with torch.enable_grad(), only_these_learn(model, {}):
        before = _mean(value, tokens)
        for step, rows in enumerate(options.batches(len(tokens)), start=1):
            optimizer.zero_grad()
            current = value(rows)
            current.backward()
            _check_gradients(gates, step)
            optimizer.step()
            losses.append(current.item())
        after = _mean(value, tokens)
    if not after <= DIVERGED * before:
        raise Failure(
            f"hywia: training of the gates diverged: the calibration loss rose from {before:.4g} "
            f"to {after:.4g} in {options.steps} steps; lower gate_lr ({options.rate:g})"
        )
    return Report(tuple(losses), before, after)


@torch.no_grad()
def _mean(value: Callable[[Tensor], Tensor], tokens: Tensor) -> float:
    """Loss over all samples, in parts as large as a training step's."""
    parts = torch.arange(len(tokens)).split(EVALUATED)
    return sum(value(rows).item() * len(rows) for rows in parts) / len(tokens)


def _check_gradients(gates: Gates, step: int) -> None:
    gradients = [p.grad for p in gates.parameters()]
    if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
        raise Failure(
            f"hywia: training of the gates diverged: their gradient is not finite at step {step}; "
            "lower gate_lr, or load the model in float32"
        )


def unit_gates(
    scores: Mapping[str, Tensor], kept: Mapping[str, int], temperature: float
) -> dict[str, Tensor]:
    """Factors [units] of every structure: 1 for its `kept` highest scores, 0 for the rest.

    Their gradient is that of `soft_top_k` of the scores' logarithms, in units of `temperature`
    standard deviations (straight-through).
    """
    factors = {}
    for units in {len(scores[name]): None for name in kept}:  # structures alike go together
        names = [name for name in kept if len(scores[name]) == units]
        stacked = torch.stack([scores[name] for name in names])  # [structures, units]
        counts = torch.tensor([[kept[name]] for name in names], device=stacked.device)
        hard = (stacked.argsort(dim=1, stable=True).argsort(dim=1) >= units - counts).to(stacked)
        logs = stacked.clamp_min(torch.finfo(stacked.dtype).tiny).log()
        width = temperature * logs.detach().std(dim=1, correction=0, keepdim=True).clamp_min(1e-6)
        soft = soft_top_k(logs / width, counts)
        factors |= dict(zip(names, hard + soft - soft.detach(), strict=True))
    return factors


def soft_top_k(scores: Tensor, kept: Tensor) -> Tensor:
    """sigmoid(scores - t) [structures, units], which adds up to `kept` [structures, 1].

    The threshold t is found by bisection. It moves with the scores, so that a unit can only gain
    what others lose: its gradient is that of the equation sum = kept.
    """
    with torch.no_grad():
        low, high = scores.amin(1, keepdim=True) - MARGIN, scores.amax(1, keepdim=True) + MARGIN
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            too_low = torch.sigmoid(scores - middle).sum(1, keepdim=True) > kept
            low, high = torch.where(too_low, middle, low), torch.where(too_low, high, middle)
        threshold = (low + high) / 2
    # One Newton step, which also carries the gradient: the threshold's own slopes are detached.
    soft = torch.sigmoid(scores - threshold)
    with torch.no_grad():
        slopes = (soft * (1 - soft)).sum(1, keepdim=True).clamp_min(1e-12)
    return torch.sigmoid(scores - (threshold + (soft.sum(1, keepdim=True) - kept) / slopes))
