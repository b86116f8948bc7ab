"""loraprune: tune with LoRA, score units by the adapters alone, and mask them step by step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Unsupported
from prunebench.pruning.structure import Decision, Structure
from prunebench.recovery import (
    RecoveryData,
    RecoverySettings,
    attach,
    encode,
    fit,
    merge,
    trainer,
)
from prunebench.recovery.lora import target_names
from prunebench.untyped import Json, Module

from .importance import check_linears, check_targets
from .options import LoRAPruneOptions
from .precision import check_bits, merge_quantised, quantise
from .pruner import Pruner
from .schedule import (
    SparsitySchedule,
    default_cooldown,
    default_interval,
    exact_counts,
    native_counts,
)
from .shrink import numbers_of, restore
from .taylor import taylor_ranking


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Tune `model` while units are masked on schedule; it ends merged, the decision names them.

    Raises Unsupported for a mixture of experts, and when the target cannot be met in the layers
    that are not protected, or the device cannot hold the weights in `bits`; Invalid for a training
    too short for its schedule or without LoRA on all projections; Failure when no step had finite
    scores.
    """
    options = LoRAPruneOptions.from_params(ctx.params)
    check_bits(options.bits, ctx.device)
    scored = options.scored(ctx.structures)
    check_linears(scored)
    records, settings = ctx.recovery()
    data = encode(records, ctx.tokenizer, settings, seed=ctx.seed)
    schedule, events = plan(ctx, scored, options, steps=data.steps)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training, dtype, adapted = model.training, model.dtype, target_names(model, settings)
    numbers = numbers_of(model, scored)
    fixed = taylor_ranking(model, scored, ctx) if options.ranking == "taylor" else None
    if options.cut == "at_once":
        fixed = _decided(model, data, settings, Pruner(model, scored, events, options, fixed), ctx)
        events = {0: events[max(events)]} if events else {}
    quantise(model, adapted, options.bits)
    wrapped = attach(model, settings, seed=ctx.seed)
    check_targets(model, scored)
    pruner = Pruner(model, scored, events, options, fixed)
    if options.cut == "at_once" and events:
        pruner.rebuild(0)
    report = _train(wrapped, data, settings, pruner, ctx)
    if options.bits != 16:
        merge_quantised(model, adapted, dtype)
    _, difference = merge(wrapped, data.first(2, ctx.device), adapter=ctx.adapter.update)
    restore(model, scored, pruner.ids, numbers)
    _leave_plain(model, flags, training)
    _note(ctx, pruner, schedule, {**report, **difference, "data": data.summary()})
    return _decide(ctx, pruner)


def plan(
    ctx: Context, scored: Mapping[str, Structure], options: LoRAPruneOptions, *, steps: int
) -> tuple[SparsitySchedule, dict[int, dict[str, int]]]:
    """The schedule, and how many units of each structure are gone after each pruning event."""
    native = (options.ratio or ctx.sparsity) if options.native else None
    schedule = SparsitySchedule(
        steps=steps,
        final=ctx.sparsity if native is None else native,
        warmup=options.warmup,
        cooldown=default_cooldown(steps) if options.cooldown is None else options.cooldown,
        every=options.prune_every or default_interval(steps),
    )
    units = {name: structure.units for name, structure in scored.items()}
    if native is not None:
        return schedule, native_counts(schedule, units)
    # With one share for every structure, how many units leave does not depend on the scores.
    try:
        kept = ctx.select({name: torch.zeros(count) for name, count in units.items()}).keep
    except Unsupported as error:
        raise Unsupported(
            f"{error}; protect_first and protect_last say how many layers are left out"
        ) from None
    final = {name: count - len(kept.get(name, range(count))) for name, count in units.items()}
    return schedule, exact_counts(schedule, final, rounding=options.rounding)


def _decided(
    model: PreTrainedModel,
    data: RecoveryData,
    settings: RecoverySettings,
    pruner: Pruner,
    ctx: Context,
) -> dict[str, Tensor]:
    """The ranking [units] at the end of a whole run, whose adapters are then thrown away."""
    wrapped = attach(model, settings, seed=ctx.seed)
    check_targets(model, pruner.present)
    report = _train(wrapped, data, settings, pruner, ctx, part="decision")
    wrapped.unload()
    ctx.note("deciding", {"tuning_tokens": report["tuning_tokens"], "steps": report["steps"]})
    return pruner.ranking()


def _train(
    wrapped: Module,
    data: RecoveryData,
    settings: RecoverySettings,
    pruner: Pruner,
    ctx: Context,
    part: str = "tuning",
) -> Json:
    """Tune with the gates in place, on the campaign's whole budget."""
    # Weights whose shapes change cannot be read back into a model of the first shapes.
    overrides: Json = {"save_strategy": "no"} if pruner.options.shrink else {}
    tuner = trainer(
        wrapped,
        data,
        settings,
        workdir=ctx.checkpoints / part,
        seed=ctx.seed,
        device=ctx.device,
        callbacks=[pruner],
        nonfinite="skip",
        **overrides,
    )
    with pruner:
        report = fit(tuner)
    ctx.cost.forward(report["tuning_tokens"])
    ctx.cost.backward(report["tuning_tokens"])
    return report


def _decide(ctx: Context, pruner: Pruner) -> Decision:
    """What the last event masked: no score has changed the masks since."""
    ranking, options = pruner.ranking(), pruner.options
    if not options.native:
        return ctx.select(ranking)
    last = pruner.events[max(pruner.events)]
    return ctx.lowest(ranking, last, ratio=options.ratio or ctx.sparsity)


def _leave_plain(model: PreTrainedModel, flags: Mapping[str, bool], training: bool) -> None:
    """Undo what peft and training changed beside the weights."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    model.train(training)
    if hasattr(model, "peft_config"):
        del model.peft_config


def _note(ctx: Context, pruner: Pruner, schedule: SparsitySchedule, report: Json) -> None:
    ctx.note(
        "training_curve",
        {
            "plot": "line",
            "title": "Loss while tuning and pruning",
            "x_label": "optimizer step",
            "y_label": "mean loss",
            "series": {"loss": report.pop("loss")},
        },
    )
    ctx.note("tuning", report)
    ctx.note("options", pruner.options.to_dict())
    ctx.note("score_updates", {"taken": int(pruner.updates), "dropped": int(pruner.dropped)})
    history = [
        {
            "step": step,
            "schedule": schedule.at(step),
            "sparsity": 1.0 - ctx.budget.left(removed) / ctx.budget.total,
            **{kind: _of_kind(ctx.structures, removed, kind) for kind in ("heads", "neurons")},
        }
        for step, removed in sorted(pruner.events.items())
    ]
    ctx.note("mask_history", history)


def _of_kind(structures: Mapping[str, Structure], removed: Mapping[str, int], kind: str) -> int:
    return sum(count for name, count in removed.items() if structures[name].kind == kind)
