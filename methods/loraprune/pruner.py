"""The Trainer callback that scores units at every step and masks them on schedule."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from prunebench import Failure
from prunebench.pruning.structure import Structure
from prunebench.pruning.surgery import gated
from prunebench.untyped import Passed

from .importance import unit_scores
from .options import LoRAPruneOptions
from .shrink import shrink

logger = logging.getLogger(__name__)

PRUNED = -1.0  # below every live score, zero included: what is gone stays gone


class Pruner(TrainerCallback):
    """Moving averages of unit scores, the masks that follow from them, and the gates.

    scored    structure name -> Structure, as `model` was when training began
    events    optimizer step -> units removed of each structure from then on
    fixed     scores [units] that are taken as they are, instead of averages over the training
    averages  structure name -> Tensor [units], all units that there were at first
    masks     structure name -> Tensor [units] of 0 and 1

    Use it as a context manager around the training: inside, masked units are gated off.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        scored: Mapping[str, Structure],
        events: Mapping[int, Mapping[str, int]],
        options: LoRAPruneOptions,
        fixed: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.events, self.options = model, events, options
        device = next(model.parameters()).device
        self.averages = {n: torch.zeros(s.units, device=device) for n, s in scored.items()}
        self.learns = fixed is None
        for name, scores in (fixed or {}).items():
            self.averages[name].copy_(scores)
        self.masks = {n: torch.ones(s.units, device=device) for n, s in scored.items()}
        self.updates = torch.zeros((), dtype=torch.long)  # of the averages so far
        self.dropped = torch.zeros((), dtype=torch.long)  # steps without finite scores
        # What is still there: with `shrink` fewer units than at first.
        self.present = dict(scored)
        self.ids = {n: torch.arange(s.units, device=device) for n, s in scored.items()}
        self.factors = {name: mask.clone() for name, mask in self.masks.items()}
        self._gates = ExitStack()

    def __enter__(self) -> Pruner:
        self._gates.enter_context(gated(self.model, self.factors, structures=self.present))
        return self

    def __exit__(self, *_: object) -> None:
        self._gates.close()

    def on_pre_optimizer_step(
        self, args: Passed, state: Passed, control: Passed, **kwargs: Passed
    ) -> None:
        """After clipping, before the optimizer: `state.global_step` counts the steps done."""
        self.observe()
        if state.global_step in self.events:
            self.rebuild(state.global_step)
            if self._cuts_now(state.global_step):
                self.cut(kwargs["optimizer"])

    @torch.no_grad()
    def observe(self) -> None:
        """Take the scores of this step into the averages; drop them all if one is not finite."""
        if not self.learns:
            return
        scores = {}
        for name, structure in self.present.items():
            found = unit_scores(self.model, structure, self.factors[name], self.options.formula)
            if found is None or not bool(found.isfinite().all()):
                self.dropped += 1
                return
            scores[name] = torch.zeros_like(self.masks[name])
            scores[name][self.ids[name]] = found
        for name, score in scores.items():
            self.averages[name].lerp_(score, 1.0 - self.options.ema)
        self.updates += 1

    @torch.no_grad()
    def rebuild(self, step: int) -> None:
        """Mask the units with the lowest averages, so many of each structure as the event says."""
        if self.learns and not self.updates:
            raise Failure(
                f"loraprune: no finite score in the {int(self.dropped)} steps before the first "
                "pruning event; lower recovery.learning_rate, or set recovery.precision: fp32 or "
                "flavour: code"
            )
        for name, count in self.events[step].items():
            lowest = self.ranking()[name].cpu().argsort(stable=True)[:count]
            self.masks[name][lowest.to(self.masks[name].device)] = 0.0
            self.factors[name].copy_(self.masks[name][self.ids[name]])
        logger.info("step %d: %s", step, self._summary())

    def ranking(self) -> dict[str, Tensor]:
        """Scores [units] by which units leave: pruned ones first, then by moving average."""
        return {
            name: torch.where(self.masks[name] > 0, average, PRUNED)
            for name, average in self.averages.items()
        }

    def cut(self, optimizer: torch.optim.Optimizer) -> None:
        """Cut masked units off the model in training, and open the gates of what is left."""
        self._gates.close()
        keep = {name: factor.nonzero().flatten() for name, factor in self.factors.items()}
        self.present = shrink(self.model, self.present, keep, optimizer)
        self.ids = {name: ids[keep[name]] for name, ids in self.ids.items()}
        self.factors = {name: torch.ones_like(self.factors[name][keep[name]]) for name in keep}
        self.__enter__()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint needs: averages, masks, counters."""
        tensors = {"updates": self.updates, "dropped": self.dropped}
        tensors |= {f"average/{name}": tensor for name, tensor in self.averages.items()}
        return tensors | {f"mask/{name}": tensor for name, tensor in self.masks.items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up where a checkpoint left off (not with `shrink`, which writes none)."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(tensors[name])
        for name, factor in self.factors.items():
            factor.copy_(self.masks[name])

    def _cuts_now(self, step: int) -> bool:
        steps = sorted(self.events)
        number = steps.index(step) + 1
        return self.options.shrink and (
            number % self.options.shrink_every == 0 or number == len(steps)
        )

    def _summary(self) -> str:
        return ", ".join(
            f"{_removed(self.masks, kind)} {kind} masked" for kind in ("heads", "neurons")
        )


def _removed(masks: Mapping[str, Tensor], kind: str) -> int:
    members: Iterable[Tensor] = (m for name, m in masks.items() if name.endswith(kind))
    return sum(int((mask == 0).sum()) for mask in members)
