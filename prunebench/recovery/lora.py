"""LoRA through peft: put adapters on a model, and fold them into its weights again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from prunebench.untyped import Foreign, Json, JsonMap, Module

from ..errors import Failure, Invalid
from .settings import RecoverySettings

logger = logging.getLogger(__name__)

MERGE_TOLERANCE = 1e-4  # fp32, per unit of the largest logit (at least 1)
KINDS = ("lora_A", "lora_B")


def attach(model: Module, settings: RecoverySettings, *, seed: int) -> Foreign:
    """`model` wrapped by peft, with LoRA on the target Linears; everything else is frozen.

    Works on layers of different shapes; a Linear that pruning has emptied gets none.
    The adapter is named by its full path, drawn from `seed`, and changes nothing at first (B = 0).
    Raises `Invalid` for a target that the decoder blocks do not have.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft multiplies; a fraction will do
        lora_dropout=settings.dropout,
        target_modules=target_names(model, settings),
        bias="none",
        task_type="CAUSAL_LM",
    )
    set_seed(seed)
    return get_peft_model(model, config)


def target_names(model: Module, settings: RecoverySettings) -> list[str]:
    """Full names of the Linears inside decoder blocks that `settings.targets` asks for."""
    import torch

    inside = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith(_blocks(model))
    }
    known = sorted({name.rpartition(".")[2] for name in inside})
    wanted = known if settings.targets == "auto" else settings.targets
    missing = [target for target in wanted if target not in known]
    if missing or not inside:
        raise Invalid(
            f"recovery.targets: {type(model).__name__} has no {', '.join(missing) or 'Linear'} in "
            f"its decoder blocks; it has {', '.join(known) or 'none'}; name those or write 'auto'"
        )
    return [
        name
        for name, module in inside.items()
        if name.rpartition(".")[2] in wanted and module.weight.numel()
    ]


def merge(
    wrapped: Module,
    batch: JsonMap,
    *,
    adapter: Callable[[dict[str, Foreign]], None] = lambda matrices: None,
) -> tuple[Foreign, Json]:
    """The plain model of the same class with its adapters folded in, and how far logits moved.

    `batch`: input_ids and attention_mask [batch, length] on the model's device. The report has
    `merge_max_abs_logit_difference` over the positions that are not padding, and `merge_tolerance`
    (None unless the weights are fp32: in bf16 the rounding of the weights decides).
    `adapter` is given the trained matrices (`adapter_of`) before they are merged.
    Raises `Failure` when fp32 logits move by more than the tolerance.
    """
    import torch

    from ..pruning.surgery import in_double

    plain = wrapped.get_base_model()
    training = plain.training
    plain.eval()
    is_fp32 = all(p.dtype == torch.float32 for p in plain.parameters())
    with in_double(plain):  # a deep, unsettled model amplifies float32's own rounding
        before = _logits(plain, batch)
    adapter(adapter_of(wrapped))
    plain = wrapped.merge_and_unload()
    with in_double(plain):
        after = _logits(plain, batch)
    plain.train(training)
    difference = (after - before).abs().max().item()
    tolerance = MERGE_TOLERANCE * max(1.0, before.abs().max().item()) if is_fp32 else None
    if tolerance is not None and not difference <= tolerance:
        raise Failure(
            f"merging LoRA moved logits by {difference:.3g}, expected at most {tolerance:.3g} "
            "in fp32; the merged weights are not those that were tuned"
        )
    return plain, {
        "merge_max_abs_logit_difference": difference,
        "merge_tolerance": tolerance,
    }


def adapter_of(wrapped: Module) -> dict[str, Foreign]:
    """The matrices of the adapter on a wrapped model, under their Linears' names: NAME.lora_A and
    NAME.lora_B, as they are trained.
    """
    found = {}
    for name, layer in _layers(wrapped.get_base_model()):
        for kind in KINDS:
            found[f"{name}.{kind}"] = getattr(layer, kind)["default"].weight.detach()
    return found


def remerge(model: Module, matrices: JsonMap, *, rank: int, alpha: float) -> Module:
    """Merge an adapter, as `adapter_of` gave it, into the plain model that it was trained on.

    The operations are those of `merge`, in its types and order, so that on the same kind of
    processor the weights are the same to the bit. The model is changed in place and returned.
    Raises `Invalid` where the matrices do not fit the model.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    names = sorted({key.rpartition(".")[0] for key in matrices})
    linears = dict(model.named_modules())
    for name in names:
        if not isinstance(linears.get(name), torch.nn.Linear):
            raise Invalid(f"adapter: {name} is no Linear of the model")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # as in `attach`
        target_modules=names,
        bias="none",
        task_type="CAUSAL_LM",
    )
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    wrapped = get_peft_model(model, config)
    for key, own in adapter_of(wrapped).items():
        if key not in matrices or matrices[key].shape != own.shape:
            raise Invalid(f"adapter: {key} does not fit the model")
        own.copy_(matrices[key])
    plain: Foreign = wrapped.merge_and_unload()
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(flags[name])
    return plain


def _layers(model: Module) -> Iterator[tuple[str, Foreign]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _blocks(model: Module) -> tuple[str, ...]:
    """Name prefixes of the outermost lists of modules: the decoder's stack of blocks."""
    import torch

    lists = [n for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList)]
    return tuple(
        f"{name}."
        for name in lists
        if not any(name.startswith(f"{outer}.") for outer in lists if outer != name)
    )


def _logits(model: Module, batch: JsonMap) -> Foreign:
    import torch

    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
        ).logits
    return logits[batch["attention_mask"].bool()].float()  # [tokens, vocabulary]
