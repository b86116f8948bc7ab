"""Training the gates end to end: the calibration loss of the model that their scores prune."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from transformers import PreTrainedModel

from prunebench import Failure, Structure
from prunebench.pruning.saliency import CalibrationLoss, Meter, only_these_learn
from prunebench.pruning.surgery import gated
from prunebench.untyped import Json, JsonMap

from .fusion import Fusion
from .gate import FusionGate, Gates

PASSES = 1.5
"""How often the default batch size sees the calibration samples: what the cost limit permits."""

DIVERGED = 1.1
"""A loss that ends above so many times its start is a failure, not a result."""

CHECKED = 0.25
"""Share of the samples on which the pruned model is measured before and after."""

BISECTIONS = 16
MARGIN = 20.0  # beyond the scores, in temperatures: no threshold lies outside
LEAST_SLOPE = 1e-3  # of all units together: keeps the Newton step finite where all are decided


@dataclass(frozen=True)
class GateTraining:
    """How the gates are trained; method.yaml describes each. `batch` None: by `PASSES`."""

    steps: int
    batch: int | None
    rate: float
    temperature: float
    seed: int

    @classmethod
    def from_params(cls, params: JsonMap, *, seed: int) -> GateTraining:
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
class TrainingReport:
    """What training did.

    losses         of each step's samples, under the soft unit gates of that step
    before, after  of the first `checked` samples, without the units that the gates rank lowest
    """

    losses: tuple[float, ...]
    before: float
    after: float
    checked: int

    def to_dict(self) -> Json:
        """Plain data for the record."""
        return {
            "samples_checked": self.checked,
            "loss_before": self.before,
            "loss_after": self.after,
            "improved": self.after < self.before,
        }


def train(
    model: PreTrainedModel,
    gates: Gates,
    blends: Fusion,
    structures: Mapping[str, Structure],
    kept: Mapping[str, int],
    tokens: Tensor,
    options: GateTraining,
    cost: Meter,
) -> TrainingReport:
    """Let the gates descend the loss of the model whose units they weigh.

    kept    structure name -> units that stay; structures that are not named lose none
    tokens  [samples, length] calibration samples

    Afterwards the gates have their parameters' means over the second half of the steps. The weights
    of `model` learn nothing and get no gradients. Raises Failure on divergence.
    """
    loss = CalibrationLoss(tokens, tokens, cost)
    optimizer = torch.optim.Adam(gates.parameters(), lr=options.rate)
    average = AveragedModel(gates.gate)

    def value(rows: Tensor, factors: Mapping[str, Tensor]) -> Tensor:
        with gated(model, factors, structures=structures):
            return loss.loss(model, rows, loss.predictions(rows))

    @torch.no_grad()
    def pruned(rows: Tensor) -> float:
        return value(rows, hard_gates(blends.scores(gates.attentions()), kept)).item()

    losses, checked = [], torch.arange(math.ceil(CHECKED * len(tokens)))
    with torch.enable_grad(), only_these_learn(model, {}):
        before = pruned(checked)
        for step, rows in enumerate(options.batches(len(tokens)), start=1):
            scores = blends.scores(gates.attentions())
            current = value(rows, soft_gates(scores, kept, options.temperature))
            optimizer.zero_grad()
            current.backward()
            _check_gradients(gates, step)
            optimizer.step()
            losses.append(current.item())
            if step > options.steps // 2:
                average.update_parameters(gates.gate)
        gates.gate = cast("FusionGate", average.module)
        after = pruned(checked)
    if not after <= DIVERGED * before:
        raise Failure(
            f"hywia: training of the gates diverged: the calibration loss rose from {before:.4g} "
            f"to {after:.4g} in {options.steps} steps; lower gate_lr ({options.rate:g})"
        )
    return TrainingReport(tuple(losses), before, after, len(checked))


def _check_gradients(gates: Gates, step: int) -> None:
    gradients = [p.grad for p in gates.parameters()]
    if not all(bool(g.isfinite().all()) for g in gradients if g is not None):
        raise Failure(
            f"hywia: training of the gates diverged: their gradient is not finite at step {step}; "
            "lower gate_lr, or load the model in float32"
        )


def hard_gates(scores: Mapping[str, Tensor], kept: Mapping[str, int]) -> dict[str, Tensor]:
    """Factors [units] of the `kept` structures: 1 for so many highest scores, 0 for the rest."""
    factors = {name: torch.ones_like(scores[name]) for name in kept}
    for name, factor in factors.items():
        factor[scores[name].argsort(stable=True)[: len(factor) - kept[name]]] = 0.0
    return factors


def soft_gates(
    scores: Mapping[str, Tensor], kept: Mapping[str, int], temperature: float
) -> dict[str, Tensor]:
    """Factors [units] between 0 and 1 that add up to the units `kept`, differentiable.

    `soft_top_k` of the scores' logarithms, in units of `temperature` standard deviations.
    """
    factors: dict[str, Tensor] = {}
    for units in {len(scores[name]): None for name in kept}:  # structures alike go together
        names = [name for name in kept if len(scores[name]) == units]
        stacked = torch.stack([scores[name] for name in names])  # [structures, units]
        counts = torch.tensor([[kept[name]] for name in names], device=stacked.device)
        logs = stacked.clamp_min(torch.finfo(stacked.dtype).tiny).log()
        width = temperature * logs.detach().std(dim=1, correction=0, keepdim=True).clamp_min(1e-6)
        factors |= dict(zip(names, soft_top_k(logs / width, counts), strict=True))
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
        slopes = (soft * (1 - soft)).sum(1, keepdim=True).clamp_min(LEAST_SLOPE)
    return torch.sigmoid(scores - (threshold + (soft.sum(1, keepdim=True) - kept) / slopes))
