"""Hybrid Sparsification Modules on the writers of the residual stream, and the mask they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from prunebench import Structure
from prunebench.untyped import Foreign, Module, Passed

from .losses import POLE, bimodal_loss, count_loss, identity_loss
from .options import PATOptions
from .schedule import GateSchedule, soft_gate


class HSM(nn.Module):
    """out = gate * s * (z + L1 diag(v) L0 z) for a writer's output z [..., width].

    down is L0 [rank, width], up is L1 [width, rank]. Of s [width] (scale "channel", released code)
    and v [rank] (scale "rank", paper) at most one exists. Changes nothing at first.
    """

    def __init__(self, width: int, rank: int, scale: str, generator: torch.Generator) -> None:
        super().__init__()
        down, up = torch.empty(rank, width), torch.zeros(width, rank)
        if scale == "rank":  # v = 0 is the identity, so L0 and L1 can be orthonormal from the start
            nn.init.orthogonal_(down, generator=generator)
            nn.init.orthogonal_(up, generator=generator)
        else:
            nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)
        self.v = nn.Parameter(torch.zeros(rank)) if scale == "rank" else None
        self.s = nn.Parameter(torch.ones(width)) if scale == "channel" else None

    def forward(self, z: Tensor, gate: Tensor) -> Tensor:
        """z [..., width] and gate [width] -> [..., width], in the dtype of z."""
        low = functional.linear(z.to(self.down.dtype), self.down)  # [..., rank]
        if self.v is not None:
            low = low * self.v
        factor = gate if self.s is None else gate * self.s
        # The factor goes into L1, so that the sum before it need not be kept for the backward pass.
        return (z * factor + functional.linear(low, factor[:, None] * self.up)).to(z.dtype)

    def matrix(self) -> Tensor:
        """T = diag(s) (I + L1 diag(v) L0) [width, width] in fp64, the gate left out."""
        down, up = self.down.double(), self.up.double()
        if self.v is not None:
            down = self.v.double()[:, None] * down
        product = torch.addmm(torch.eye(len(up), dtype=up.dtype, device=up.device), up, down)
        return product if self.s is None else self.s.double()[:, None] * product


_ModuleList: Foreign = nn.ModuleList  # PyTorch lets None stand in it, its types do not


class Sparsifier(nn.Module):
    """The shared mask w [width], one HSM per writer (None: the mask alone), and their schedule.

    writers  names of the modules that write into the residual stream, in the structure's order
    kept     how many channels stay
    step     the optimizer step, set from outside before every forward pass
    keep     Tensor [width] of 0 and 1: what stays, decided by `settle`
    """

    keep: Tensor
    NAME = "sparsifier"

    def __init__(
        self,
        structure: Structure,
        *,
        kept: int,
        options: PATOptions,
        schedule: GateSchedule,
        tied: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.writers = [gate.module for gate in structure.gates]
        self.kept, self.options, self.schedule = kept, options, schedule
        self.step, self.settled, self.hard = 0, False, False
        self.mask = nn.Parameter(torch.zeros(structure.units), options.trainable_mask)
        rank = options.hsm_rank(structure.units)
        self.register_buffer("keep", torch.zeros(structure.units), persistent=False)
        generator = torch.Generator().manual_seed(seed)
        # A tied output head reads the embedding's weights, which an operator would change.
        plain = {self.writers[0]} if tied else set()
        self.hsms: Sequence[HSM | None] = _ModuleList(
            None if name in plain else HSM(structure.units, rank, options.scale, generator)
            for name in self.writers
        )
        self.gate: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def attach(self, model: Module) -> None:
        """Put the modules behind the outputs of their writers, and the parameters on the model."""
        model.add_module(self.NAME, self.to(next(model.parameters()).device))
        self._handles.append(model.base_model.register_forward_pre_hook(self._begin))
        for name, hsm in zip(self.writers, self.hsms, strict=True):
            module = model.get_submodule(name)
            self._handles.append(module.register_forward_hook(self._hook(hsm)))

    def detach(self, model: Module) -> None:
        """Take everything off the model again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.gate = None
        with suppress(AttributeError):
            delattr(model, self.NAME)

    def current_gate(self) -> Tensor:
        """The gate [width] at this step."""
        if self.hard:
            return self.keep
        if not self.options.trainable_mask:
            closing = self.schedule.decay(self.step, self.options.decay)
            return self.ranked() + closing * (1.0 - self.ranked())
        return soft_gate(
            self.mask.detach() if self.settled else self.mask,
            temperature=self.schedule.temperature(self.step),
            offset=self.schedule.offset(self.step),
            exponent_limit=self.options.exponent_limit,
        )

    @torch.no_grad()
    def ranked(self) -> Tensor:
        """1 for the `kept` channels with the largest w (ties: first), else 0: [width]."""
        order = self.mask.detach().argsort(descending=True, stable=True)
        chosen = torch.zeros_like(self.mask)
        chosen[order[: self.kept]] = 1.0
        return chosen

    @torch.no_grad()
    def separation(self) -> float:
        """Mean gate of the channels that would stay, less that of those that would leave."""
        gate, stays = self.current_gate(), self.ranked().bool()
        return (gate[stays].mean() - gate[~stays].mean()).item()

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Set the weights in the order of scores [width]: the `kept` largest above 0, none far off.

        Evenly spaced from the poles of the bimodal loss, 1/2 and -1/2, to 0: what is near the
        border can still change sides.
        """
        order = scores.to(self.mask.device).argsort(descending=True, stable=True)
        leaving = self.mask.numel() - self.kept
        above = torch.linspace(POLE, POLE / self.kept, self.kept)
        below = torch.linspace(-POLE / leaving, -POLE, leaving)
        self.mask[order] = torch.cat([above, below]).to(self.mask)

    def settle(self) -> None:
        """Decide which channels stay; from now on the mask itself does not change."""
        self.keep.copy_(self.ranked())
        self.mask.requires_grad_(False)
        self.settled = True
        self.hard = self.hard or self.options.after_freeze == "hard"

    def penalty(self) -> Tensor:
        """What is added to the cross-entropy at this step."""
        options = self.options
        total = self.mask.new_zeros(())
        if options.trainable_mask and not self.settled:
            relative = options.count_loss == "relative"
            total = total + count_loss(self.mask, self.kept, relative=relative)
            if options.bimodal_loss:
                total = total + bimodal_loss(self.mask)
        if options.identity_loss != "none":
            for hsm in self._near_identity():
                total = total + identity_loss(hsm.down, hsm.up, kind=options.identity_loss)
        return total

    def _near_identity(self) -> list[HSM]:
        """The modules that the identity loss is meant for."""
        modules = list(self.hsms)
        if self.options.identity_on == "last-layer":  # released: the loop overwrites its sum
            modules = [modules[0], *modules[-2:]]
        return [hsm for hsm in modules if hsm is not None]

    def _begin(self, *_: Passed) -> None:
        self.gate = self.current_gate()  # once per forward pass, for all modules

    def _hook(self, hsm: HSM | None) -> Callable[[nn.Module, Passed, Tensor], Tensor]:
        def apply(_: nn.Module, __: Passed, z: Tensor) -> Tensor:
            assert self.gate is not None  # `_begin` ran at the start of the forward pass
            gated: Tensor = z * self.gate.to(z.dtype) if hsm is None else hsm(z, self.gate)
            return gated

        return apply
