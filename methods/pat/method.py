"""pat: tune with LoRA and HSMs until one mask over the hidden width has settled, then fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PreTrainedModel

from prunebench import Context, Decision
from prunebench.pruning.protection import require
from prunebench.pruning.selection import lowest
from prunebench.pruning.surgery import in_double, logits
from prunebench.pruning.tying import head_is_tied
from prunebench.recovery import RecoveryData, RecoverySettings, attach, encode, fit, merge, trainer
from prunebench.untyped import Json, Module

from .fold import check, check_writers, fold
from .options import PATOptions
from .schedule import GateSchedule, mask_rate, module_rate
from .sparsifier import Sparsifier
from .steering import Steering
from .taylor import taylor_scores
from .width import Width, choose_width


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Tune `model` while the channels that leave are shut; it ends merged and folded.

    Raises Invalid for a training too short for the schedule or a width that the architecture cannot
    take, Unsupported for a family whose width cannot be pruned, Failure for a mask that does not
    separate or a fold that is not exact.
    """
    require(ctx.structures, ("hidden",))
    check_writers(model, ctx.structures["hidden"])
    options = PATOptions.from_params(ctx.params)
    width = choose_width(
        ctx.budget,
        model.config,
        ctx.sparsity,
        width=options.width,
        multiple_of=options.multiple_of or ctx.multiple_of.get("hidden"),
    )
    records, settings = ctx.recovery()
    settings = options.adapted(settings)
    data = encode(records, ctx.tokenizer, settings, seed=ctx.seed)
    schedule = GateSchedule.over(data.steps, milestone=options.milestone, freeze=options.freeze)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    training = model.training
    sparsifier = Sparsifier(
        ctx.structures["hidden"],
        kept=width.kept,
        options=options,
        schedule=schedule,
        tied=head_is_tied(model),
        seed=ctx.seed,
    )
    if options.mask_start == "taylor":
        sparsifier.start_from(taylor_scores(model, data, ctx))
    wrapped = attach(model, settings, seed=ctx.seed)
    sparsifier.attach(model)
    steering = Steering(sparsifier)
    report = _train(wrapped, data, settings, steering, ctx)
    decision = _decide(ctx, sparsifier, width)
    report |= _leave_plain(model, wrapped, sparsifier, decision, data, ctx)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(flags[name])
    model.train(training)
    _note(ctx, steering, width, {**report, "data": data.summary()})
    return decision


def _train(
    wrapped: Module,
    data: RecoveryData,
    settings: RecoverySettings,
    steering: Steering,
    ctx: Context,
) -> Json:
    """Tune with the HSMs in place, on the campaign's whole budget."""
    sparsifier = steering.sparsifier
    options, schedule = sparsifier.options, sparsifier.schedule
    rate = mask_rate(settings, schedule, options.mask_travel) if options.trainable_mask else 1.0
    modules = module_rate(schedule, options.module_rate)
    tuner = trainer(
        wrapped,
        data,
        settings,
        workdir=ctx.checkpoints,
        seed=ctx.seed,
        device=ctx.device,
        callbacks=[steering],
        penalty=lambda *_: sparsifier.penalty(),
        rates={f"{Sparsifier.NAME}.mask": rate, f"{Sparsifier.NAME}.": modules},
    )
    report = fit(tuner)
    ctx.cost.forward(report["tuning_tokens"])
    ctx.cost.backward(report["tuning_tokens"])
    return {**report, "mask_rate": rate, "module_rate": modules}


def _decide(ctx: Context, sparsifier: Sparsifier, width: Width) -> Decision:
    """Keep what the mask keeps, exactly the chosen number of channels."""
    if not sparsifier.settled:  # a mask that is not trained
        sparsifier.settle()
    sparsifier.hard = True
    removed = sparsifier.keep.numel() - width.kept
    how = {"scope": "hidden", "multiple_of": {"hidden": width.multiple}}
    return lowest(ctx.budget, {"hidden": sparsifier.keep}, {"hidden": removed}, how=how)


def _leave_plain(
    model: PreTrainedModel,
    wrapped: Module,
    sparsifier: Sparsifier,
    decision: Decision,
    data: RecoveryData,
    ctx: Context,
) -> Json:
    """Merge LoRA, fold the HSMs, and check that the logits under hard gates stay what they were."""
    batch = data.first(2, ctx.device)
    with in_double(model):
        live = logits(model, batch["input_ids"])
    sparsifier.detach(model)
    _, report = merge(wrapped, batch)
    fold(model, sparsifier)
    if hasattr(model, "peft_config"):
        del model.peft_config
    hidden = ctx.structures["hidden"]
    return {**report, **check(model, hidden, decision, batch["input_ids"], live)}


def _note(ctx: Context, steering: Steering, width: Width, report: Json) -> None:
    sparsifier = steering.sparsifier
    hsms = sum(p.numel() for p in sparsifier.parameters())
    loss = {"loss": report.pop("loss")}
    ctx.note("training_curve", _lines("Loss of pruning-aware tuning", "loss", loss))
    ctx.note("tuning", {**report, "hsm_parameters": hsms})
    ctx.note("options", sparsifier.options.to_dict())
    ctx.note("hidden_size", {"kept": width.kept, "multiple_of": width.multiple,
                             "achieved": width.achieved})  # fmt: skip
    ctx.note("schedule", {
        "milestone": sparsifier.schedule.milestone, "freeze": sparsifier.schedule.freeze,
    })  # fmt: skip
    if steering.history:
        counts = {
            "weights above 0": [[step, count] for step, count, _ in steering.history],
            "wanted": [[step, sparsifier.kept] for step, _, _ in steering.history],
        }
        apart = {"separation": [[step, apart] for step, _, apart in steering.history]}
        ctx.note("mask_count", _lines("Channels that the mask keeps", "channels", counts))
        early = {"overlap": steering.settled_early(), "chance": _chance(steering)}
        title = "Share of the channels that leave which the mask would have removed then already"
        ctx.note("mask_overlap", _lines(title, "share", early))
        title = "Mean gate of the channels that stay, less that of those that leave"
        ctx.note("mask_separation", _lines(title, "difference", apart))


def _chance(steering: Steering) -> list[tuple[int, float]]:
    """The overlap of two sets of channels that know nothing of each other, at every point."""
    keep = steering.sparsifier.keep
    return [(step, 1.0 - keep.mean().item()) for step, *_ in steering.history]


def _lines(title: str, y_label: str, series: Mapping[str, Sequence[Sequence[float]]]) -> Json:
    """A note that is drawn as lines over optimizer steps."""
    return {
        "plot": "line",
        "title": title,
        "x_label": "optimizer step",
        "y_label": y_label,
        "series": dict(series),
    }
