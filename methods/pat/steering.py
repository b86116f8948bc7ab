"""The Trainer callback that moves the mask's schedule on and settles it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import TrainerCallback

from prunebench import Failure
from prunebench.untyped import Passed

from .sparsifier import Sparsifier

POINTS = 50  # of the recorded history
LEAST_SEPARATION = {"hard": 0.5, "soft": 0.9}
"""At the freeze. Gates that stay soft become 0 and 1 with no tuning left to mend that."""


class Steering(TrainerCallback):
    """Sets the sparsifier's step before every optimizer step, and settles the mask at the freeze.

    history  rows of (step, number of weights above 0, separation of the gates), up to the freeze
    chosen   beside each row: Tensor [width], 1 for the channels that would stay
    """

    def __init__(self, sparsifier: Sparsifier) -> None:
        self.sparsifier = sparsifier
        self.every = max(1, sparsifier.schedule.freeze // POINTS)
        self.history: list[tuple[int, int, float]] = []
        self.chosen: list[Tensor] = []

    def on_step_begin(self, args: Passed, state: Passed, control: Passed, **kwargs: Passed) -> None:
        """`state.global_step` counts the optimizer steps done."""
        sparsifier, step = self.sparsifier, state.global_step
        sparsifier.step = step
        if sparsifier.settled or not sparsifier.options.trainable_mask:
            return
        freeze = sparsifier.schedule.freeze
        if step >= freeze:
            if not self.history or self.history[-1][0] < freeze:  # not yet before a kill
                self._observe(step)
                self._check_separation()
            sparsifier.settle()
        elif step % self.every == 0:
            self._observe(step)

    def settled_early(self) -> list[tuple[int, float]]:
        """(step, share of the channels that leave in the end which were to leave then already)."""
        gone: Tensor = self.sparsifier.keep == 0
        shares = [((kept == 0) & gone).sum().item() / gone.sum().item() for kept in self.chosen]
        return [(row[0], share) for row, share in zip(self.history, shares, strict=True)]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the weights: the mask settles again from its own."""
        width = self.sparsifier.mask.numel()
        chosen = [kept.to("cpu", torch.uint8) for kept in self.chosen]
        return {
            "history": torch.tensor(self.history, dtype=torch.float64).reshape(-1, 3),
            "chosen": torch.stack(chosen) if chosen else torch.zeros(0, width, dtype=torch.uint8),
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up where a checkpoint left off."""
        rows = tensors["history"].tolist()
        self.history = [(int(step), int(count), separation) for step, count, separation in rows]
        device = self.sparsifier.mask.device
        self.chosen = [kept.to(device) for kept in tensors["chosen"]]

    def _observe(self, step: int) -> None:
        positive = int((self.sparsifier.mask > 0).sum())
        self.history.append((step, positive, self.sparsifier.separation()))
        self.chosen.append(self.sparsifier.ranked())

    def _check_separation(self) -> None:
        step, positive, separation = self.history[-1]
        least = LEAST_SEPARATION[self.sparsifier.options.after_freeze]
        if separation >= least:
            return
        raise Failure(
            f"pat: the mask did not separate: at step {step} {positive} of "
            f"{len(self.sparsifier.mask)} weights are above 0 (wanted {self.sparsifier.kept}) and "
            f"gates of channels that stay are on average {separation:.2f} above those of channels "
            f"that leave (at least {least}); raise mask_travel, recovery.tokens or "
            "recovery.learning_rate"
        )
