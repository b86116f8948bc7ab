"""Builds and runs the one Trainer that every method tunes with."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.units import MIB
from prunebench.untyped import Foreign, Json, JsonMap, Module, Passed

from ..errors import Failure, Invalid, Unsupported
from ..text.fits import check_ids, check_length
from . import checkpoints
from .instructions import RecoveryData
from .settings import RecoverySettings

if TYPE_CHECKING:
    import torch

    from .loop import Tuner

logger = logging.getLogger(__name__)

# What resuming and reporting stand on, so no override may change it.
_RECORDS = {
    # Every step: the Trainer forgets what it has not logged when it resumes, and the curve of a
    # resumed run would differ. `fit` averages over `log_every` steps.
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
    "remove_unused_columns": False,
    # Two: while one checkpoint is being written, the one before is still there.
    "save_total_limit": 2,
}


def trainer(
    model: Module,
    data: RecoveryData,
    settings: RecoverySettings,
    *,
    workdir: Path,
    seed: int,
    device: torch.device | str,
    callbacks: Sequence[Foreign] = (),
    penalty: Callable[[Foreign, Foreign], torch.Tensor | None] | None = None,
    rates: Mapping[str, float] | None = None,
    nonfinite: str = "stop",
    **overrides: Passed,
) -> Tuner:
    """A `transformers.Trainer` over the trainable parameters of `model`; run it with `fit`.

    `callbacks`: TrainerCallbacks of the method. `on_pre_optimizer_step` runs once per optimizer
    step, after clipping and before the optimizer: `p.grad` is then the clipped gradient of the
    whole batch, or None where a step is skipped. A callback with `state_dict()` and
    `load_state_dict()` (tensors by name, on the CPU) is saved with every checkpoint and restored
    before `on_train_begin` of a resumed run.
    `penalty(model, trainer_state)`: a scalar added to the loss, once per optimizer step.
    `rates`: learning-rate multipliers of parameters whose name contains the key, e.g.
    `{"mask": 100.0}`; the first key that fits counts.
    `nonfinite`: "stop" raises `Failure` at the first loss or gradient norm that is not finite;
    "skip" leaves such steps out and counts them.
    `overrides`: fields of `TrainingArguments`, for what the settings do not name.

    Raises `Invalid` (nothing to train, fp16 weights) and `Unsupported` (no bf16 on this GPU).
    """
    import torch

    from .loop import Tuner

    device = torch.device(device)
    if nonfinite not in ("stop", "skip"):
        raise Invalid(f"nonfinite: expected 'stop' or 'skip', got {nonfinite!r}")
    _check_weights(model)
    check_length(model, max(len(e.ids) for e in data.dataset.examples), "tuning: sequences")
    check_ids(model, max(max(e.ids) for e in data.dataset.examples), "tuning")
    precision = _precision(settings, device)
    # The Trainer's own filter would hide from the log what the guard is to see.
    filtered = {"logging_nan_inf_filter": nonfinite == "skip", **overrides}
    arguments = _arguments(data, settings, workdir, seed, device, precision, filtered)
    parts = (settings.digest(), data.ids_sha256, str(seed), precision, nonfinite)
    extras = (str(sorted(overrides.items())), str(sorted((rates or {}).items())))
    return Tuner(
        model=model,
        args=arguments,
        settings=settings,
        data=data,
        identity=checkpoints.identity(model, *parts, *extras),
        penalty=penalty,
        rates=rates or {},
        nonfinite=nonfinite,
        callbacks=list(callbacks),
    )


def fit(tuner: Tuner) -> Json:
    """Train to the end, from the last complete checkpoint of the same tuning where there is one.

    Checkpoints are deleted on success. Returns, as plain JSON data: `tuning_tokens`, `steps`,
    `warmup_steps`, `wall_s` (over all runs), `loss` [[step, mean loss since the point before]],
    `trainable_parameters`, `resumed_from_step` (or None), `skipped_steps`, `precision`,
    `peak_host_mib` and `peak_device_mib` (None without GPU), both of the process so far.
    Raises `Failure` when the loss is not finite or the device runs out of memory.
    """
    import torch
    from transformers import set_seed

    root = Path(str(tuner.args.output_dir))
    found = checkpoints.latest(root, tuner.identity)
    if found:
        tuner.spent_s, tuner.guard.skipped_steps = found[1].wall_s, found[1].skipped_steps
        logger.info("resuming from step %d of %d", found[1].step, tuner.data.steps)
    set_seed(tuner.args.seed)
    tuner.started = time.monotonic()
    try:
        with _deterministic(tuner.args.device):
            tuner.train(resume_from_checkpoint=str(found[0]) if found else None)
    except torch.OutOfMemoryError as error:
        raise Failure(
            f"tuning ran out of device memory at micro_batch {tuner.settings.micro_batch} x "
            f"length {tuner.settings.length}; lower recovery.micro_batch"
        ) from error
    finally:
        _unwrap(tuner)
    report = _report(tuner, found[1].step if found else None)
    shutil.rmtree(root, ignore_errors=True)
    return report


def _arguments(
    data: RecoveryData,
    settings: RecoverySettings,
    workdir: Path,
    seed: int,
    device: torch.device,
    precision: str,
    overrides: JsonMap,
) -> Foreign:
    from transformers import TrainingArguments

    machine = {
        "output_dir": str(Path(workdir) / "tuning"),
        "bf16": precision == "bf16",
        "use_cpu": device.type == "cpu",
        "dataloader_pin_memory": device.type != "cpu",
        "seed": seed,
    }
    for key in _RECORDS.keys() & overrides.keys():
        raise Invalid(f"trainer: {key} cannot be overridden; resuming and reporting need it")
    chosen = machine | _recipe(settings, data.steps) | dict(overrides)
    fields: Json = {**chosen, **_RECORDS}
    arguments = TrainingArguments(**fields)
    if arguments.device.type != device.type or device.index not in (None, arguments.device.index):
        raise Unsupported(
            f"tuning on {device}: transformers trains on {arguments.device}; choose the device "
            "with CUDA_VISIBLE_DEVICES"
        )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device: no DataParallel
    return arguments


def _recipe(settings: RecoverySettings, steps: int) -> Json:
    """The settings in the Trainer's words."""
    warmup_steps = settings.warmup_steps(steps)
    constant = "constant_with_warmup" if warmup_steps else "constant"
    return {
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch // settings.micro_batch,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": constant if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.clip,
        "optim": "adamw_torch",
        "save_strategy": "steps" if settings.checkpoint_every else "no",
        "save_steps": settings.checkpoint_every or 1,
    }


def _check_weights(model: Module) -> None:
    import torch

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise Invalid("tuning: the model has no trainable parameter; attach LoRA first")
    half = next((n for n, p in model.named_parameters() if p.dtype == torch.float16), None)
    if half:
        raise Invalid(
            f"tuning: weight {half} is float16, which overflows in training; load the model in "
            "bfloat16 or float32"
        )


def _precision(settings: RecoverySettings, device: torch.device) -> str:
    import torch

    if device.type == "cpu":
        return "fp32" if settings.precision == "auto" else settings.precision
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if settings.precision == "bf16" and not has_bf16:
        raise Unsupported(f"recovery.precision: bf16, which {device} does not have; set fp32")
    if settings.precision == "auto":
        return "bf16" if has_bf16 else "fp32"
    return settings.precision


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """CUDA kernels that repeat bit for bit, where there are any; the CPU's do anyway."""
    import torch

    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    lenient = before and warned  # a job that has met an operation without such a kernel
    memory: Foreign = torch.utils.deterministic  # its module sets the attribute by hand
    fills = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=lenient)
    memory.fill_uninitialized_memory = False  # costs time, decides nothing
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        memory.fill_uninitialized_memory = fills


def _unwrap(tuner: Tuner) -> None:
    """Undo what the Trainer did to the model: autocast around forward, gradients, no cache."""
    model = tuner.accelerator.unwrap_model(tuner.model, keep_fp32_wrapper=False)
    model.zero_grad(set_to_none=True)
    if getattr(model, "config", None) is not None:
        model.config.use_cache = tuner.used_cache
    tuner.optimizer = tuner.lr_scheduler = None
    tuner.accelerator.free_memory()


def _report(tuner: Tuner, resumed_from_step: int | None) -> Json:
    import torch

    state, settings = tuner.state, tuner.settings
    is_cuda = tuner.args.device.type == "cuda"
    trainable = [p.numel() for n, p in tuner.tuned.named_parameters() if n in tuner.trained_names]
    return {
        "tuning_tokens": tuner.data.tokens_after(state.global_step),
        "steps": state.global_step,
        "warmup_steps": settings.warmup_steps(tuner.data.steps),
        "wall_s": tuner.spent_s + time.monotonic() - tuner.started,
        "loss": _curve(state.log_history, settings.log_every),
        "trainable_parameters": sum(trainable),
        "resumed_from_step": resumed_from_step,
        "skipped_steps": tuner.guard.skipped_steps,
        "precision": "bf16" if tuner.args.bf16 else "fp32",
        "peak_host_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_device_mib": torch.cuda.max_memory_allocated() / MIB if is_cuda else None,
    }


def _curve(history: Sequence[JsonMap], every: int) -> list[list[float]]:
    """[[step, mean loss of the up to `every` steps that end there]] from one entry per step."""
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    windows = [losses[start : start + every] for start in range(0, len(losses), every)]
    return [[part[-1][0], sum(loss for _, loss in part) / len(part)] for part in windows]
