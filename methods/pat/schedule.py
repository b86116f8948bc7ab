"""When the mask is trained, how sharp its gates are, and how fast it may move."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.recovery import RecoverySettings

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prunebench import Invalid

DENOMINATOR_FLOOR = 1e-6  # released code
LEAST_MASK_STEPS = 20
RELEASED_TRAVEL, RELEASED_FREEZE = 0.4, 8000  # sum of learning rates up to that step, rounded up
DECAY = 2.77  # released code: a frozen mask's gates are exp(-2.77) = 1/16 at the milestone


@dataclass(frozen=True)
class GateSchedule:
    """Temperature and offset of the gates over `steps` optimizer steps.

    milestone  the step s0 at which the paper's gates are hard (released: 10,000 of 30,500)
    freeze     the step from which the mask stays as it is (released: 0.8 s0)
    """

    steps: int
    milestone: int
    freeze: int

    @classmethod
    def over(cls, steps: int, *, milestone: float, freeze: float) -> GateSchedule:
        """A schedule whose milestone is a share of `steps`, and `freeze` a share of that.

        Raises Invalid when so few steps are left for the mask that it cannot separate.
        """
        at = max(2, round(milestone * steps))
        schedule = cls(steps, at, round(freeze * at))
        if schedule.freeze < LEAST_MASK_STEPS or schedule.freeze >= steps:
            raise Invalid(
                f"pat: the training has {steps} optimizer steps, the mask would be trained in the "
                f"first {schedule.freeze} of them; expected at least {LEAST_MASK_STEPS} and some "
                "after it: raise recovery.tokens or lower recovery.batch (or change milestone)"
            )
        return schedule

    def temperature(self, step: int) -> float:
        """tau(s) = 1 / (1 - ln s / ln s0), with the released guards; constant after the freeze."""
        at = min(max(1, step), self.freeze, self.milestone)
        return 1.0 / (1.0 - math.log(at) / math.log(self.milestone) + DENOMINATOR_FLOOR)

    def offset(self, step: int) -> float:
        """beta(s) = max(1/2 - s / s0, 0), so that all gates are open at first."""
        return max(0.5 - min(step, self.freeze) / self.milestone, 0.0)

    def decay(self, step: int, kind: str) -> float:
        """Gate of the channels that leave under a mask that is not trained.

        exponential (released): exp(-2.77 s / s0), twice as fast after s0; linear (paper): 1 - s/s0.
        """
        share = step / self.milestone
        if kind == "linear":
            return max(0.0, 1.0 - share)
        return math.exp(-DECAY * (share + max(0.0, share - 1.0)))


def soft_gate(
    mask: Tensor, *, temperature: float, offset: float, exponent_limit: float = 0.0
) -> Tensor:
    """M = sigmoid(tau w) + beta [width].

    With an `exponent_limit` above 0, a dead gate is never below 1 / (1 + exp(limit)).
    """
    exponent = temperature * mask
    if exponent_limit:
        exponent = exponent.clamp(min=-exponent_limit)
    return torch.sigmoid(exponent) + offset


def mask_rate(settings: RecoverySettings, schedule: GateSchedule, travel: float | None) -> float:
    """Multiplier of the learning rate for the mask, at least 1.

    Adam moves a weight by about the learning rate per step, so that the rates up to the freeze,
    summed up, bound how far the mask can get: 0.376 in the released run, far less in a short one.
    With the multiplier they sum up to `travel` at least; None is 0.4 at the released length, and
    grows as runs get shorter, with the fourth root of that: short runs lose more of it to and fro.
    """
    if travel is None:
        travel = RELEASED_TRAVEL * max(1.0, (RELEASED_FREEZE / schedule.freeze) ** 0.25)
    reachable = settings.learning_rate * sum(
        _factors(settings, schedule.steps, until=schedule.freeze)
    )
    return float(max(1.0, travel / reachable))


def module_rate(schedule: GateSchedule, chosen: float | str) -> float:
    """Multiplier of the learning rate for the modules; "auto": at least 1, more in short runs."""
    if isinstance(chosen, str):
        return max(1.0, math.sqrt(RELEASED_FREEZE / schedule.freeze))
    return chosen


def _factors(settings: RecoverySettings, steps: int, *, until: int) -> list[float]:
    """The Trainer's learning rate, as a share of its peak, in each of the first steps."""
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup = settings.warmup_steps(steps)
    name = settings.schedule
    if name == "constant" and warmup:
        name = "constant_with_warmup"
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    return [scheduler.lr_lambdas[0](step) for step in range(until)]
