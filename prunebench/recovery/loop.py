"""The Trainer of every tuning: fixed data order, finite guard, sealed checkpoints, quiet.

Imports transformers: only `training.py` imports this module, when a tuning starts.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback

from prunebench.untyped import Foreign, Module, Passed, Plain

from ..errors import Failure
from .checkpoints import Seal, seal
from .instructions import Collator, RecoveryData
from .settings import RecoverySettings

logger = logging.getLogger(__name__)

TRAINABLE = "trainable.safetensors"
SKIPS_IN_A_ROW = 20  # with nonfinite="skip": more than this is no accident but divergence


class Tuner(Trainer):
    """`transformers.Trainer` for one tuning; `training.trainer` builds it.

    Attributes for methods: `settings`, `data`, `guard.skipped_steps`, `spent_s` (seconds of
    earlier runs of the same tuning).
    """

    def __init__(
        self,
        *,
        settings: RecoverySettings,
        data: RecoveryData,
        identity: str,
        penalty: Callable[[Foreign, Foreign], torch.Tensor | None] | None,
        rates: Mapping[str, float],
        nonfinite: str,
        callbacks: list[Foreign],
        **kwargs: Passed,
    ) -> None:
        self.settings, self.data, self.identity = settings, data, identity
        self.penalty, self.rates = penalty, dict(rates)
        self.guard = Guard(nonfinite)
        self.stateful = [callback for callback in callbacks if hasattr(callback, "state_dict")]
        self.spent_s, self.started = 0.0, time.monotonic()
        # A method may freeze parts on the way; a checkpoint holds all that was trainable at first.
        self.trained_names = {
            name
            for name, parameter in kwargs["model"].named_parameters()
            if parameter.requires_grad
        }
        self.used_cache = getattr(getattr(kwargs["model"], "config", None), "use_cache", None)
        # The guard comes first, so that methods see no gradient that it takes away; the seal
        # comes last, when everything of a checkpoint is written.
        super().__init__(
            train_dataset=data.dataset,
            data_collator=Collator(),
            callbacks=[self.guard, *callbacks, Progress(settings.log_every), Sealer(self)],
            **kwargs,
        )
        self.remove_callback(PrinterCallback)

    @property
    def tuned(self) -> torch.nn.Module:
        """The model; the Trainer's own attribute may be None before it is built."""
        assert self.model is not None
        return self.model

    def get_train_dataloader(self) -> DataLoader[Foreign]:
        """Batches in the order of the data set: `encode` has shuffled it already."""
        loader: DataLoader[Foreign] = DataLoader(
            cast("Dataset[Foreign]", self.data.dataset),
            batch_size=self.args.per_device_train_batch_size,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Foreign] = self.accelerator.prepare(loader)
        return prepared

    def compute_loss(
        self, model: Module, inputs: Passed, *args: Passed, **kwargs: Passed
    ) -> Foreign:
        """The model's own loss plus the penalty; a non-finite one stops or marks the step."""
        result = super().compute_loss(model, inputs, *args, **kwargs)
        loss = result[0] if isinstance(result, tuple) else result
        extra = self.penalty(self.model, self.state) if self.penalty else None
        if extra is not None:
            # A loss normalised over the whole batch is summed over the micro-batches, a plain
            # mean is averaged by the Trainer; the penalty counts once per step either way.
            parts = self.current_gradient_accumulation_steps if self._sums_micro_batches else 1
            loss = loss + extra.to(loss) / parts
        self.guard.look_at_loss(loss.detach(), self.state.global_step + 1, self.model)
        return (loss, *result[1:]) if isinstance(result, tuple) else loss

    @property
    def _sums_micro_batches(self) -> bool:
        return bool(self.model_accepts_loss_kwargs)

    def create_optimizer(self, *args: Passed, **kwargs: Passed) -> torch.optim.Optimizer:
        """AdamW as the Trainer makes it; with `rates`, one group per multiplier."""
        if self.optimizer is None and self.rates:
            groups: dict[float, list[torch.nn.Parameter]] = {}
            for name, parameter in self.tuned.named_parameters():
                if parameter.requires_grad:
                    factor = next((f for key, f in self.rates.items() if key in name), 1.0)
                    groups.setdefault(factor, []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": group, "lr": factor * self.args.learning_rate}
                    for factor, group in groups.items()
                ],
                lr=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
            )
        return super().create_optimizer(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """All trainable parameters, whatever wraps them, as safetensors."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_plain(self._trainable()), folder / TRAINABLE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Module = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved = load_file(folder / TRAINABLE)
        with torch.no_grad():
            for name, parameter in self._trainable().items():
                parameter.copy_(saved[name])
        for path, callback in self._stateful_files(folder):
            callback.load_state_dict(load_file(path))

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        return {n: p for n, p in self.tuned.named_parameters() if n in self.trained_names}

    def _stateful_files(self, folder: Path) -> list[tuple[Path, Foreign]]:
        return [
            (folder / f"callback-{at}.safetensors", callback)
            for at, callback in enumerate(self.stateful)
        ]

    def floating_point_ops(self, inputs: Passed) -> int:
        """0: the Trainer's estimate walks all parameters at every micro-batch; nobody reads it."""
        return 0


class Guard(TrainerCallback):
    """Stops at the first loss or gradient that is not finite, or skips and counts the step."""

    def __init__(self, nonfinite: str) -> None:
        self.stops = nonfinite == "stop"
        self.skipped_steps = 0
        self.in_a_row = 0
        self.loss_is_finite = True

    def look_at_loss(self, loss: torch.Tensor, step: int, model: Module) -> None:
        value = loss.item()
        if not math.isfinite(value):
            self.loss_is_finite = False
            if self.stops:
                raise Failure(_message("loss", value, step, model))

    def on_pre_optimizer_step(
        self, args: Passed, state: Passed, control: Passed, **kwargs: Passed
    ) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0
        if math.isfinite(norm) and self.loss_is_finite:
            self.in_a_row = 0
            return
        step = state.global_step + 1
        if self.stops:
            raise Failure(_message("gradient norm", norm, step, kwargs["model"]))
        # Without gradients AdamW changes neither weights nor moments.
        kwargs["optimizer"].zero_grad(set_to_none=True)
        self.loss_is_finite = True
        self.skipped_steps += 1
        self.in_a_row += 1
        logger.warning("step %d: loss or gradient is not finite, step skipped", step)
        if self.in_a_row > SKIPS_IN_A_ROW:
            raise Failure(
                f"{self.in_a_row} optimizer steps in a row were skipped up to step {step}: loss or "
                "gradient not finite; lower recovery.learning_rate"
            )


class Progress(TrainerCallback):
    """One log line per `every` steps; the Trainer's own callbacks print to the output."""

    def __init__(self, every: int) -> None:
        self.every = every

    def on_log(
        self, args: Passed, state: Passed, control: Passed, logs: Plain = None, **kwargs: Passed
    ) -> None:
        if "loss" in logs and state.global_step % self.every == 0:
            logger.info("step %d/%d loss %.4f", state.global_step, state.max_steps, logs["loss"])


class Sealer(TrainerCallback):
    """Adds the methods' own state to a checkpoint and declares it complete."""

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner

    def on_save(self, args: Passed, state: Passed, control: Passed, **kwargs: Passed) -> None:
        tuner = self.tuner
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for path, callback in tuner._stateful_files(folder):
            save_file(_plain(callback.state_dict()), path)
        spent_s = tuner.spent_s + time.monotonic() - tuner.started
        seal(folder, Seal(tuner.identity, state.global_step, spent_s, tuner.guard.skipped_steps))


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous copies that own their storage, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _message(what: str, value: float, step: int, model: Module) -> str:
    kind = "nan" if math.isnan(value) else "inf"
    bad = [n for n, p in model.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        cause = f"{len(bad)} weights hold values that are not finite, first {bad[0]}"
    else:
        cause = (
            "all weights are finite; lower recovery.learning_rate or set recovery.precision: fp32"
        )
    return f"{what} became {kind} at step {step}; {cause}"
