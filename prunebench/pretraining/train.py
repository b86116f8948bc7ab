"""Train a recipe's model within its wall-clock budget; a killed run goes on from its checkpoint."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.pretraining.loop import cosine, fit, make_optimizer
from prunebench.pretraining.recipe import Recipe, Training
from prunebench.pretraining.text import Prepared, prepare
from prunebench.profiling.device import describe
from prunebench.untyped import Json
from prunebench.whole import whole_file, whole_folder

logger = logging.getLogger(__name__)

LOG = "training.json"
SHARD = "15MB"  # below 15 MiB, so that a shard can be kept with code
LOG_EVERY = 20  # steps; also what the device may lag behind


def pretrain(recipe: Recipe, out: Path, *, device: str, seed: int = 0) -> Json:
    """Train the model and save it, whole or not at all, at `out`; returns the log.

    `out` becomes a stock Hugging Face folder: bfloat16 safetensors in shards of less than 15 MiB,
    the tokenizer, and the log `training.json`. Prepared text and checkpoints lie beside it in
    `<out>.work`, which goes when the model is there. Arithmetic is bfloat16 on a GPU, over weights
    in float32. The rate follows the clock, so the model depends on the machine's speed.
    Raises Invalid where text is missing or `out` holds other files.
    """
    work = out.with_name(out.name + ".work")
    with whole_folder(out, owned_by=LOG) as draft:
        prepared = prepare(recipe, work / "text")
        run = TrainingRun(recipe, prepared, work / "state.safetensors", torch.device(device), seed)
        run.train()
        run.model.bfloat16().save_pretrained(draft, max_shard_size=SHARD)
        prepared.tokenizer.save_pretrained(draft)
        report = run.report()
        (draft / LOG).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    return report


class TrainingRun:
    """A model in training, and what a checkpoint must hold of it.

    steps, spent_s   done so far, in all runs together
    resumed          how often a checkpoint was taken up
    """

    def __init__(
        self, recipe: Recipe, prepared: Prepared, state: Path, device: torch.device, seed: int
    ) -> None:
        self.recipe, self.prepared, self.state = recipe, prepared, state
        self.device, self.seed = device, seed
        self.steps, self.spent_s, self.resumed = 0, 0.0, 0
        self.curve: list[list[float]] = []  # step, seconds, loss
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = make_model(recipe, prepared)
            self.model.to(device)  # type: ignore[arg-type]  # transformers loses its signature
        training = recipe.training
        self.optimizer = make_optimizer(
            self.model, weight_decay=training.weight_decay, epsilon=training.epsilon
        )
        if state.is_file():
            self._resume()

    def train(self) -> None:
        """Train to the end of the budget."""
        training = self.recipe.training
        clock = Clock(training, self.spent_s)
        saved_s = self.spent_s

        def after_step(step: int, loss: Tensor) -> None:
            nonlocal saved_s
            self.steps = step + 1
            if self.steps % LOG_EVERY and self.steps != 1:
                return
            value = loss.item()  # waits for the device, so that the clock tells its time
            self.spent_s = clock.spent_s()
            self.curve.append([self.steps, round(self.spent_s, 1), round(value, 4)])
            logger.info("step %d, %.0f s: loss %.3f", self.steps, self.spent_s, value)
            if self.spent_s - saved_s >= training.checkpoint_s:
                self.save()
                saved_s = self.spent_s

        fit(
            self.model,
            self.optimizer,
            windows(self.prepared, self.recipe, self.device, self.seed, first=self.steps),
            clock.rate,
            clip_norm=training.clip_norm,
            dtype=torch.bfloat16 if self.device.type == "cuda" else None,
            first=self.steps,
            after_step=after_step,
        )
        self.spent_s = clock.spent_s()

    def save(self) -> None:
        """Write the state as one file, whole or not at all."""
        tensors = {f"model/{name}": p.detach() for name, p in self.model.named_parameters()}
        for i, parameter in enumerate(self._trained()):
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer/{i}/{key}"] = value
        keys = ("steps", "spent_s", "resumed", "curve")
        facts = {key: json.dumps(getattr(self, key)) for key in keys}
        with whole_file(self.state) as draft:
            save_file({n: t.contiguous() for n, t in tensors.items()}, draft, metadata=facts)

    def report(self) -> Json:
        """The training log."""
        training = self.recipe.training
        tokens = self.steps * training.batch * training.length
        return {
            "name": self.recipe.name,
            "steps": self.steps,
            "tokens": tokens,
            "seconds": round(self.spent_s, 1),
            "tokens_per_s": round(tokens / self.spent_s, 1),
            "resumed": self.resumed,
            "seed": self.seed,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "device": describe(self.device),
            "torch": torch.__version__,
            "recipe": asdict(self.recipe),
            "text_tokens": [len(stream) for stream in self.prepared.streams],
            "text_sha256": list(self.prepared.sha256),
            "loss_curve": self.curve,
        }

    def _resume(self) -> None:
        with safe_open(self.state, framework="pt", device=str(self.device)) as file:
            for name, parameter in self.model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"model/{name}"))
            trained = self._trained()
            for name in file.keys():  # noqa: SIM118 - not a mapping
                kind, _, rest = name.partition("/")
                if kind == "optimizer":
                    i, key = rest.split("/")
                    self.optimizer.state[trained[int(i)]][key] = file.get_tensor(name)
            for key, value in file.metadata().items():
                setattr(self, key, json.loads(value))
        self.resumed += 1
        logger.info("goes on from step %d, %.0f s", self.steps, self.spent_s)

    def _trained(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


class Clock:
    """Seconds spent on training, and the learning rate that goes with them."""

    def __init__(self, training: Training, before_s: float) -> None:
        self._training, self._start_s = training, time.monotonic() - before_s

    def spent_s(self) -> float:
        """Seconds, those of earlier runs included."""
        return time.monotonic() - self._start_s

    def rate(self, step: int) -> float | None:
        """Linear warm-up, then half a cosine; None when the budget is spent (never at step 0)."""
        training = self._training
        done = self.spent_s() / (60 * training.minutes)
        if done >= 1:
            return None if step else training.final_rate
        if done < training.warmup:
            return training.peak_rate * done / training.warmup
        done = (done - training.warmup) / (1 - training.warmup)
        return cosine(done, peak=training.peak_rate, final=training.final_rate)


def make_model(recipe: Recipe, prepared: Prepared) -> LlamaForCausalLM:
    """A LLaMA of the recipe's sizes with random weights."""
    tokenizer = prepared.tokenizer
    settings = {
        "max_position_embeddings": recipe.training.length,
        "tie_word_embeddings": True,
        **recipe.model,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return LlamaForCausalLM(LlamaConfig(**settings))


def windows(
    prepared: Prepared, recipe: Recipe, device: torch.device, seed: int, *, first: int = 0
) -> Iterator[Tensor]:
    """Batches [batch, length + 1] from step `first` on; a step's windows depend on nothing else."""
    training = recipe.training
    streams = [stream.to(device) for stream in prepared.streams]
    shares = torch.tensor([float(entry["share"]) for entry in recipe.text])
    starts_at = torch.tensor([len(stream) - training.length for stream in streams])
    offsets = torch.tensor([0, *[len(stream) for stream in streams]]).cumsum(0)[:-1]
    joined = torch.cat(streams)  # all texts one behind the other
    draw, step = torch.Generator(), first
    while True:
        draw.manual_seed(hash((seed, step)) % 2**63)
        text = torch.multinomial(shares, training.batch, replacement=True, generator=draw)
        start = torch.rand(training.batch, generator=draw, dtype=torch.float64) * starts_at[text]
        index = (offsets[text] + start.long())[:, None] + torch.arange(training.length + 1)
        batch = joined[index.to(device)].long()  # [batch, length + 1]
        with_bos = torch.rand(training.batch, generator=draw) < training.bos_share
        batch[with_bos.to(device), 0] = prepared.tokenizer.bos_token_id
        yield batch
        step += 1
