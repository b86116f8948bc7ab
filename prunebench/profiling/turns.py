"""All models at one point: each is looked at once untimed, then they take turns, round by round."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.errors import PrunebenchError
from prunebench.profiling.latency import no_collection, rounds, time_round
from prunebench.profiling.points import Point
from prunebench.profiling.probe import Probe, new_probe, probe
from prunebench.profiling.sizes import positions

logger = logging.getLogger(__name__)

MOST_ROUNDS = 10  # times `repeats`: where a time budget stops being spent
OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Options:
    """How a series is measured; see `series.measure`."""

    device: torch.device
    baseline: str
    repeats: int
    warmup: int
    budget_s: float | None  # for one point
    seed: int
    confidence: float
    backend: str | None  # of torch.compile


@dataclass
class Run:
    """What one model has shown at one point so far."""

    probe: Probe
    status: str = "ok"
    reason: str | None = None
    prefill_ms: list[float] = field(default_factory=list)
    decode_ms: list[float] = field(default_factory=list)  # per token

    def end(self, status: str, reason: str) -> None:
        """Take this model out of this point."""
        self.status, self.reason = status, reason


def measure_point(
    models: Mapping[str, nn.Module], point: Point, options: Options
) -> dict[str, Run]:
    """What each model shows at one point; those that cannot run it say why."""
    if not models:
        return {}
    runs = {name: Run(new_probe(model)) for name, model in models.items()}
    prompt, tokens = _tokens(models, point, options)  # [batch, prompt], [batch, new]
    for name, model in models.items():
        most = positions(model)
        if most is not None and point.length > most:
            runs[name].end("skipped", f"needs {point.length} positions, the model has {most}")
            continue
        with _ending(runs[name], name, point):
            probe(model, prompt, tokens, runs[name].probe)
    compiled = {name: _compiled(model, options) for name, model in models.items()}
    _take_turns(compiled, runs, prompt, tokens, point, options)
    return runs


def _take_turns(
    models: Mapping[str, Callable[..., Any]],
    runs: Mapping[str, Run],
    prompt: Tensor,
    tokens: Tensor,
    point: Point,
    options: Options,
) -> None:
    """Time the models that are still in, round by round, into their runs."""
    alive = [name for name, run in runs.items() if run.status == "ok"]
    with torch.inference_mode(), no_collection():
        for name in alive:
            with _ending(runs[name], name, point):
                for _ in range(options.warmup):
                    time_round(models[name], prompt, tokens)
        start_s = time.monotonic()
        for done, order in enumerate(rounds(alive, options.seed)):
            if _is_enough(done, time.monotonic() - start_s, options):
                return
            for name in order:
                if runs[name].status != "ok":
                    continue
                with _ending(runs[name], name, point):
                    prefill_ms, decode_ms = time_round(models[name], prompt, tokens)
                    runs[name].prefill_ms.append(prefill_ms)
                    if decode_ms is not None:
                        runs[name].decode_ms.append(decode_ms)


def _is_enough(done: int, spent_s: float, options: Options) -> bool:
    if done < options.repeats:
        return False
    if options.budget_s is None or done >= MOST_ROUNDS * options.repeats:
        return True
    return spent_s * (done + 1) / done > options.budget_s  # one more round would pass it


@contextmanager
def _ending(run: Run, name: str, point: Point) -> Iterator[None]:
    """Let an error inside the block end this model's run and no other's."""
    try:
        yield
    except Exception as error:
        logger.warning("%s fails at %s: %s", name, point.name, reason(error))
        run.end("failed", reason(error))
    if run.status == "failed":
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def reason(error: BaseException) -> str:
    """One line that says why a measurement failed."""
    text = str(error).strip().splitlines() or [""]
    full = ("can't allocate memory", "not enough memory", "out of memory")
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and any(words in text[0] for words in full):
        return OUT_OF_MEMORY
    return text[0] if isinstance(error, PrunebenchError) else f"{type(error).__name__}: {text[0]}"


def _tokens(
    models: Mapping[str, nn.Module], point: Point, options: Options
) -> tuple[Tensor, Tensor]:
    """Token ids that all models know, the same for all: [batch, prompt] and [batch, new]."""
    known = min(model.get_input_embeddings().num_embeddings for model in models.values())
    draw = torch.Generator().manual_seed(options.seed)
    ids = torch.randint(known, (point.batch, point.length), generator=draw).to(options.device)
    return ids[:, : point.prompt].contiguous(), ids[:, point.prompt :].contiguous()


def _compiled(model: nn.Module, options: Options) -> Callable[..., Any]:
    if options.backend is None:
        return model
    return torch.compile(model, backend=options.backend)
