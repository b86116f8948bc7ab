"""Saliency: what a channel, and a unit, is worth, from weights and streamed gradients.

In the order of use: `sides_of` lists the weights' sides that belong to structures,
`channel_saliency` gives one number per channel of each side, `unit_scores` adds them up to units.
"""

from __future__ import annotations

from prunebench.pruning.saliency.calibration import CalibrationLoss, Meter, only_these_learn
from prunebench.pruning.saliency.gradients import channel_saliency
from prunebench.pruning.saliency.measures import MEASURES, Measure, channel_sums
from prunebench.pruning.saliency.units import (
    REDUCTIONS,
    Side,
    sides_of,
    unit_scores,
    weight_couplings,
)

__all__ = [
    "MEASURES",
    "Meter",
    "REDUCTIONS",
    "CalibrationLoss",
    "Measure",
    "Side",
    "channel_saliency",
    "channel_sums",
    "only_these_learn",
    "sides_of",
    "unit_scores",
    "weight_couplings",
]
