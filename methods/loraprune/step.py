"""One pruning step by itself, to be measured: LoRA-guided scores against the vanilla criterion.

Both train the same LoRA at batch 1, and score all heads and neurons of the layers that are not
protected at the end of the step. `lora` looks at A, B and their gradients. `vanilla` (first-order
Taylor, equation 3) needs the gradients of all target weights, which are unfrozen and kept over the
micro-batches of the step, as the paper's baseline does; `vanilla-fp32` sums them in fp32, as many
micro-batches of 16-bit gradients need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench import Invalid, Structure
from prunebench.pruning.architectures import structures_of
from prunebench.recovery import RecoverySettings, attach
from prunebench.recovery.lora import target_names
from prunebench.untyped import Module

from . import importance
from .options import Formula
from .precision import check_bits, quantise

CRITERIA = ("lora", "vanilla", "vanilla-fp32")
FORMULA = Formula.of("code")


def make_step(
    model: PreTrainedModel,
    *,
    micro_batches: int,
    length: int,
    seed: int,
    criterion: str = "lora",
    bits: int = 16,
) -> LoraStep:
    """A step on random tokens. Raises Unsupported where weights cannot be held in `bits`."""
    if criterion not in CRITERIA:
        raise Invalid(f"criterion: expected one of {', '.join(CRITERIA)}, got {criterion!r}")
    if bits != 16 and criterion != "lora":
        raise Invalid(f"criterion {criterion!r} needs gradients of the weights, so bits: 16")
    check_bits(bits, model.device)
    return LoraStep(model, criterion, bits, micro_batches, length, seed)


class LoraStep:
    """Micro-batches forward and backward, scores of every structure, the optimizer (LoRA alone).

    tokens      number that a run takes through the model
    kept_bytes  of gradients or their sums that the criterion keeps to the end of a step
    """

    def __init__(
        self,
        model: PreTrainedModel,
        criterion: str,
        bits: int,
        micro_batches: int,
        length: int,
        seed: int,
    ) -> None:
        self.model, self.criterion = model, criterion
        self.micro_batches, self.length = micro_batches, length
        self.tokens, self.kept_bytes = micro_batches * length, 0
        self.scored = _scored(model)
        settings = RecoverySettings.from_config({"rank": 8, "alpha": 16, "dropout": 0.05})
        quantise(model, target_names(model, settings), bits)
        self.wrapped = attach(model, settings, seed=seed).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)
        self.sums: dict[nn.Parameter, Tensor] = {}
        if criterion != "lora":
            self._unfreeze()

    def run(self) -> None:
        """Do the step once."""
        for _ in range(self.micro_batches):
            vocabulary = self.model.config.vocab_size
            ids = torch.randint(vocabulary, (1, self.length), device=self.model.device)
            loss = self.wrapped(input_ids=ids, labels=ids, use_cache=False).loss
            (loss / self.micro_batches).backward()
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        with torch.no_grad():
            for structure in self.scored.values():
                self._scores(structure)
        self.optimizer.step()
        self.wrapped.zero_grad(set_to_none=True)
        self.sums.clear()

    def held_bytes(self) -> int:
        """Bytes of weights, adapters and optimizer state between two steps."""
        tensors: list[Tensor] = [*self.model.parameters(), *self.model.buffers()]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if torch.is_tensor(value)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _scores(self, structure: Structure) -> Tensor | None:
        kept = torch.ones(structure.units, device=self.model.device)
        if self.criterion == "lora":
            return importance.unit_scores(self.model, structure, kept, FORMULA)
        total = torch.zeros_like(kept)
        for coupling in importance.weight_couplings(structure):
            layer = importance.lora_layer(self.model, coupling.parameter)
            channels = self._vanilla_channels(layer, coupling.dim)
            index = coupling.index.to(channels.device)
            total += importance.module_scores(channels, index, kept, FORMULA)
        return total

    def _vanilla_channels(self, layer: Module, dim: int) -> Tensor:
        """The same walk in blocks of rows as for LoRA, with the gradient that was kept."""
        weight = layer.base_layer.weight
        gradient = self.sums.get(weight, weight.grad)
        a, b, scale = importance.adapter(layer)
        parts = []
        for start in range(0, weight.shape[0], importance.BLOCK_ROWS):
            rows = slice(start, start + importance.BLOCK_ROWS)
            merged = torch.addmm(weight[rows].to(a.dtype), b[rows], a, alpha=scale)
            scores = importance.first_order(gradient[rows].to(a.dtype), merged, FORMULA)
            parts.append(scores.sum(dim=1 - dim))
        return torch.cat(parts) if dim == 0 else torch.stack(parts).sum(dim=0)

    def _unfreeze(self) -> None:
        for name, parameter in self.model.named_parameters():
            if not name.endswith("base_layer.weight"):
                continue
            parameter.requires_grad_()
            size = 4 if self.criterion == "vanilla-fp32" else parameter.element_size()
            self.kept_bytes += size * parameter.numel()
            if self.criterion == "vanilla-fp32":
                parameter.register_post_accumulate_grad_hook(self._sum)

    def _sum(self, parameter: nn.Parameter) -> None:
        assert parameter.grad is not None  # a hook that runs when it is there
        if parameter in self.sums:
            self.sums[parameter] += parameter.grad
        else:
            self.sums[parameter] = parameter.grad.float()
        parameter.grad = None


def _scored(model: PreTrainedModel) -> dict[str, Structure]:
    """Heads and neurons of the layers that the released code prunes, at least of one layer."""
    layers = model.config.num_hidden_layers
    prunable = range(int(0.1 * layers), max(1, layers - 1))
    return {
        name: structure
        for name, structure in structures_of(model).items()
        if structure.kind in ("heads", "neurons") and structure.layer in prunable
    }
