"""Recovery: a pruned model is tuned with LoRA on the budget and comes back as a plain model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Foreign, Json, Module

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .instructions import encode
from .lora import attach, merge
from .settings import RecoverySettings
from .training import fit, trainer

if TYPE_CHECKING:
    import torch


def recover(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Mapping[str, str]],
    settings: RecoverySettings,
    *,
    workdir: Path,
    seed: int,
    device: torch.device | str,
    callbacks: Sequence[Foreign] = (),
    adapter: Callable[[dict[str, Foreign]], None] = lambda matrices: None,
) -> tuple[Foreign, Json]:
    """Tune `model` (layers may differ in shape) and return it merged, with a report.

    The model keeps its class, names, shapes and `requires_grad` flags; no peft wrapper is left.
    A killed run resumes from its last complete checkpoint in `workdir` when called again with the
    same model, data, settings and seed, and ends at the same weights.
    The report (plain JSON data) is that of `fit`, the merge's logit difference, `settings`,
    `seed` and the `data` summary. The model is changed in place; after an error it is not usable.
    """
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training = model.training
    data = encode(examples, tokenizer, settings, seed=seed)
    wrapped = attach(model.to(device), settings, seed=seed)
    tuner = trainer(
        wrapped, data, settings, workdir=workdir, seed=seed, device=device, callbacks=callbacks
    )
    report = fit(tuner)
    merged, difference = merge(wrapped, data.first(2, device), adapter=adapter)
    merged.train(training)
    for name, parameter in merged.named_parameters():
        parameter.requires_grad_(flags[name])
    return merged, {
        **report,
        **difference,
        "seed": seed,
        "settings": settings.as_dict(),
        "data": data.summary(),
    }
