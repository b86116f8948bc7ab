"""The gate of one matrix: attention over its channels' two granularities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from prunebench.pruning.saliency import Side

from .fusion import Grains, Groups

HIDDEN = 64
FLOOR = 1e-4  # of a matrix's mean score: smaller ones look alike to the logarithm


class FusionGate(nn.Module):
    """2-64-1 networks, one for each of `matrices`: inputs -> attention over fine and coarse.

    The single output is the logit of the fine score against a coarse logit of 0, so that the
    two-way softmax of (logit, 0) is the released sigmoid. The parameters of a matrix are drawn from
    its own generator as in the released code (uniform, +-1/sqrt of the inputs, fp32); `balanced`
    sets the last layer to zero instead, so that an untrained gate is exactly the mean.
    """

    def __init__(self, generators: Sequence[torch.Generator], *, balanced: bool) -> None:
        super().__init__()
        self.inner = _drawn(generators, HIDDEN, 2, inputs=2)
        self.inner_bias = _drawn(generators, HIDDEN, 1, inputs=2)
        self.outer = _drawn(generators, 1, HIDDEN, inputs=HIDDEN)
        self.outer_bias = _drawn(generators, 1, 1, inputs=HIDDEN)
        if balanced:
            nn.init.zeros_(self.outer)
            nn.init.zeros_(self.outer_bias)

    def forward(self, inputs: Tensor, matrices: Tensor) -> Tensor:
        """Attention (w, 1 - w) [matrices, channels, 2] of inputs [matrices, 2, channels].

        `matrices` are the positions of their gates; w weighs the fine score.
        """
        hidden = torch.baddbmm(self.inner_bias[matrices], self.inner[matrices], inputs).relu()
        logit = torch.baddbmm(self.outer_bias[matrices], self.outer[matrices], hidden)
        return torch.cat([logit, torch.zeros_like(logit)], dim=1).softmax(dim=1).mT


def _drawn(
    generators: Sequence[torch.Generator], rows: int, columns: int, *, inputs: int
) -> nn.Parameter:
    """Uniform in +-1/sqrt(inputs): [matrices, rows, columns]."""
    drawn = [2 * torch.rand(rows, columns, generator=generator) - 1 for generator in generators]
    return nn.Parameter(torch.stack(drawn) * inputs**-0.5)


def raw(grains: Grains) -> Tensor:
    """The released gate's inputs [2, channels]: the scores as they are."""
    return torch.stack([grains.fine, grains.coarse])


def conditioned(grains: Grains) -> Tensor:
    """The trained gate's inputs [2, channels]: logarithms, centred and scaled to variance 1.

    Raw scores lie between 1e-6 and 1e-1, where a gate of this form is constant over channels and
    has next to no gradient. Only the inputs are changed; what is blended stays as it is.
    """
    rows = []
    for scores in (grains.fine, grains.coarse):
        floor = max(FLOOR * float(scores.mean()), torch.finfo(scores.dtype).tiny)
        logs = scores.clamp_min(floor).log()
        rows.append((logs - logs.mean()) / logs.std(correction=0).clamp_min(FLOOR))
    return torch.stack(rows)


class Gates:
    """The gates of all matrices of all structures, with their inputs."""

    def __init__(self, groups: Groups, *, seed: int, trained: bool) -> None:
        self.places = [(name, side) for name, group in groups.items() for side in group]
        grains = [groups[name][side] for name, side in self.places]
        device = grains[0].fine.device
        generators = [generator_of(seed, name, side) for name, side in self.places]
        self.gate = FusionGate(generators, balanced=trained).to(device)
        # Matrices with equally many channels go through their gates together.
        widths = {len(g.fine): None for g in grains}
        self.batches: list[tuple[Tensor, Tensor]] = []
        for width in widths:
            alike = [i for i, g in enumerate(grains) if len(g.fine) == width]
            rows = [conditioned(grains[i]) if trained else raw(grains[i]) for i in alike]
            self.batches.append((torch.tensor(alike, device=device), torch.stack(rows)))

    def parameters(self) -> list[nn.Parameter]:
        """Everything that can learn."""
        return list(self.gate.parameters())

    def size(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def attentions(self) -> dict[str, dict[Side, Tensor]]:
        """Attention [channels, 2] of every matrix: structure name -> side -> attention."""
        flat: dict[int, Tensor] = {}  # position of the matrix -> attention
        for matrices, inputs in self.batches:
            flat |= dict(zip(matrices.tolist(), self.gate(inputs, matrices), strict=True))
        found: dict[str, dict[Side, Tensor]] = {name: {} for name, _ in self.places}
        for i, (name, side) in enumerate(self.places):
            found[name][side] = flat[i]
        return found


def generator_of(seed: int, structure: str, side: Side) -> torch.Generator:
    """A generator of its own for each structure and matrix: more layers shift no other's draw."""
    text = f"{seed}/{structure}/{side.parameter}/{side.dim}"
    digest = hashlib.sha256(text.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
