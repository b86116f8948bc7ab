"""All models at one point: each is looked at once untimed, then they take turns, round by round."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from prunebench.errors import Unsupported, describe_error
from prunebench.garbage import no_collection
from prunebench.modules import module_of
from prunebench.profiling.graphs import FixedDecoder
from prunebench.profiling.latency import rounds, time_round
from prunebench.profiling.points import Point
from prunebench.profiling.probe import Probe, new_probe, probe
from prunebench.text.fits import positions
from prunebench.untyped import Call, Foreign

logger = logging.getLogger(__name__)

RECOMPILED = 8  # times that one model's code may be compiled at one point: torch's own limit
MOST_ROUNDS = 10  # times `repeats`: where a time budget stops being spent


@dataclass(frozen=True)
class TurnOptions:
    """How a series is measured; see `series.measure`."""

    device: torch.device
    baseline: str
    repeats: int
    warmup: int
    budget_s: float | None  # for one point
    seed: int
    confidence: float
    backend: str | None  # of torch.compile
    cuda_graphs: bool = False


@dataclass
class ModelRun:
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
    models: Mapping[str, nn.Module], point: Point, options: TurnOptions
) -> dict[str, ModelRun]:
    """What each model shows at one point; those that cannot run it say why."""
    if not models:
        return {}
    runs = {name: ModelRun(new_probe(model)) for name, model in models.items()}
    prompt, tokens = _tokens(models, point, options)  # [batch, prompt], [batch, new]
    for name, model in models.items():
        most = positions(model.config)
        if most is not None and point.length > most:
            runs[name].end("skipped", f"needs {point.length} positions, the model has {most}")
            continue
        with _ending(runs[name], name, point):
            whole = options.cuda_graphs  # a cache of fixed size is always read whole
            probe(model, prompt, tokens, runs[name].probe, whole_cache=whole)
    compiled = {name: _compiled(model, options) for name, model in models.items()}
    with _compiling(len(models), options), torch.inference_mode(), no_collection():
        decoders = _decoders(models, compiled, runs, prompt, point, options)
        rounds_of = {
            name: partial(time_round, compiled[name], prompt, tokens, decoders.get(name))
            for name in models
        }
        _take_turns(rounds_of, runs, point, options)
    return runs


def _decoders(
    models: Mapping[str, nn.Module],
    compiled: Mapping[str, Call],
    runs: Mapping[str, ModelRun],
    prompt: Tensor,
    point: Point,
    options: TurnOptions,
) -> dict[str, FixedDecoder]:
    """What decodes instead of the usual loop, for each model that is still in; mostly nothing."""
    found: dict[str, FixedDecoder] = {}
    if not options.cuda_graphs or not point.new:
        return found
    for name in (name for name, run in runs.items() if run.status == "ok"):
        with _ending(runs[name], name, point):
            config = module_of(models[name]).config.get_text_config()
            found[name] = FixedDecoder(compiled[name], config, prompt, point.new)
    return found


def _take_turns(
    rounds_of: Mapping[str, Callable[[], tuple[float, float | None]]],
    runs: Mapping[str, ModelRun],
    point: Point,
    options: TurnOptions,
) -> None:
    """Time the models that are still in, round by round, into their runs."""
    alive = [name for name, run in runs.items() if run.status == "ok"]
    for name in alive:
        with _ending(runs[name], name, point):
            for _ in range(options.warmup):
                rounds_of[name]()
    start_s = time.monotonic()
    for done, order in enumerate(rounds(alive, options.seed)):
        if _is_enough(done, time.monotonic() - start_s, options):
            return
        for name in order:
            if runs[name].status != "ok":
                continue
            with _ending(runs[name], name, point):
                prefill_ms, decode_ms = rounds_of[name]()
                runs[name].prefill_ms.append(prefill_ms)
                if decode_ms is not None:
                    runs[name].decode_ms.append(decode_ms)


def _is_enough(done: int, spent_s: float, options: TurnOptions) -> bool:
    if done < options.repeats:
        return False
    if options.budget_s is None or done >= MOST_ROUNDS * options.repeats:
        return True
    return spent_s * (done + 1) / done > options.budget_s  # one more round would pass it


@contextmanager
def _ending(run: ModelRun, name: str, point: Point) -> Iterator[None]:
    """Let an error inside the block end this model's run and no other's."""
    try:
        yield
    except Exception as error:
        logger.warning("%s fails at %s: %s", name, point.name, describe_error(error))
        run.end("skipped" if isinstance(error, Unsupported) else "failed", describe_error(error))
    if run.status != "ok":
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _tokens(
    models: Mapping[str, nn.Module], point: Point, options: TurnOptions
) -> tuple[Tensor, Tensor]:
    """Token ids that all models know, the same for all: [batch, prompt] and [batch, new]."""
    known = min(module_of(model).get_input_embeddings().num_embeddings for model in models.values())
    draw = torch.Generator().manual_seed(options.seed)
    ids = torch.randint(known, (point.batch, point.length), generator=draw).to(options.device)
    return ids[:, : point.prompt].contiguous(), ids[:, point.prompt :].contiguous()


@contextmanager
def _compiling(models: int, options: TurnOptions) -> Iterator[None]:
    """Room for every model of the point, and an error where even that is used up.

    All models share the code that is compiled, and its limit of recompilations. Beyond it torch
    goes on uncompiled without a word, and the times would be said to be those of the compiler.
    """
    if options.backend is None:
        yield
        return
    import torch._dynamo as dynamo

    dynamo.reset()  # what earlier points compiled counts, too
    limits = {"recompile_limit": RECOMPILED * models, "fail_on_recompile_limit_hit": True}
    settings: Foreign = dynamo.config
    with settings.patch(accumulated_recompile_limit=256 * models, **limits):
        yield


def _compiled(model: nn.Module, options: TurnOptions) -> Call:
    if options.backend is None:
        return model
    return torch.compile(model, backend=options.backend)
