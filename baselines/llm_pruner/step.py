"""One scoring pass by itself, to be measured: gradients reduced as they arrive, or all kept."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from prunebench.profiling.sizes import resident_bytes
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.saliency import channel_saliency, sides_of


def make_step(
    model: PreTrainedModel,
    *,
    micro_batches: int,
    length: int,
    seed: int,
    importance: str = "param_first",
    streamed: bool = True,
) -> TaylorStep:
    """A pass over `micro_batches` random samples of `length` tokens, all at once."""
    return TaylorStep(model, micro_batches, length, seed, importance, streamed)


class TaylorStep:
    """Scores of all heads and neurons.

    tokens      number that a run takes through the model
    kept_bytes  of gradients that lie there together at the end of the backward pass
    """

    def __init__(
        self,
        model: PreTrainedModel,
        samples: int,
        length: int,
        seed: int,
        importance: str,
        streamed: bool,
    ) -> None:
        self.model, self.importance, self.streamed = model, importance, streamed
        self.tokens = samples * length
        blocks = [s for s in structures_of(model).values() if s.kind in ("heads", "neurons")]
        self.sides = sides_of(blocks)
        draw = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(model.config.vocab_size, (samples, length), generator=draw)
        weights = {side.parameter: model.get_parameter(side.parameter) for side in self.sides}
        size = sum(weight.numel() * weight.element_size() for weight in weights.values())
        self.kept_bytes = 0 if streamed else size

    def run(self) -> None:
        """Do the pass once."""
        channel_saliency(
            self.model, self.sides, [self.importance], tokens=self.ids, streamed=self.streamed
        )

    def held_bytes(self) -> int:
        """Bytes of the weights."""
        return resident_bytes(self.model)
