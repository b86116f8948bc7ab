"""A pruning job on a tiny model that also looks at what the method did beside deciding.

What `prunebench.testing` asks of a method it asks by these jobs, so that a method is tried by the
code that campaigns run.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from pydantic import JsonValue
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from prunebench.campaign.specs import PruneSpec
from prunebench.files import joined
from prunebench.jobs import prune, work
from prunebench.jobs.work import JobIO
from prunebench.models import folders
from prunebench.models.shapes import byte_tokenizer
from prunebench.plugins.ask import reasons
from prunebench.plugins.context import Context
from prunebench.plugins.description import Plugin
from prunebench.plugins.discovery import locate
from prunebench.plugins.watch import Watch, watching
from prunebench.profiling.passes import counted
from prunebench.pruning.architectures import blocks_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import logits, tolerance
from prunebench.untyped import Json, Passed


class TrialSpec(PruneSpec):
    """A pruning job and the configuration of its tiny model, which is made where it is not there.

    imports  look at what importing the method does, too
    """

    config: dict[str, JsonValue]
    imports: bool = False


def trial(spec: TrialSpec, io: JobIO) -> Json:
    """Prune, and describe beside the job's result what the method did to its surroundings."""
    folder = Path(spec.model.source)
    if not (folder / "config.json").is_file():
        make_model(spec.config, folder)
    seen: Json = {"at_import": _import(spec, io) if spec.imports else []}
    kept: list[tuple[PreTrainedModel, Decision]] = []

    def deciding(plugin: Plugin, model: PreTrainedModel, context: Context) -> Decision:
        before, files = _digests(model), _files()
        start = time.perf_counter()
        with _passes(model) as passed:
            decision = prune.decide(plugin, model, context)
        taken, after = time.perf_counter() - start, _digests(model)
        seen.update(
            seconds=taken,
            changed=[name for name, value in after.items() if before.get(name) != value],
            weights=joined(list(after.values())),
            files=sorted(_files() - files),
            keep={name: list(units) for name, units in decision.keep.items()},
            finest=_finest(context, decision),
            **passed,
        )
        kept.append((model, decision))
        return decision

    result = prune.prune(spec, io, deciding)
    if result["export"]["path"] is not None:
        seen["read_back"] = _read_back(kept[0][0], io.cell.model, spec.seed)
    return {**result, "trial": seen}


@torch.no_grad()
def make_model(settings: Json, folder: Path) -> None:
    """Save a tiny random model, norms and biases not 1 and 0, with a tokenizer of bytes."""
    config = AutoConfig.for_model(**dict(settings))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(0.3 * torch.randn_like(parameter))
        else:
            parameter.mul_(4.0)
    folders.save(model.eval(), byte_tokenizer(config), folder, uniform=True)


def _import(spec: TrialSpec, io: JobIO) -> list[str]:
    """What importing the method changed."""
    plugin = locate(spec.method, spec.plugins)
    before = _surroundings()
    watch = Watch(plugin.folder, io.cell.work("import"))
    with reasons(watch), watching(watch):
        plugin.load()
    now = _surroundings()
    return [name for name, value in before.items() if value != now[name]]


def _surroundings() -> Json:
    return {
        "os.environ": dict(os.environ),
        "sys.path": list(sys.path),
        "torch's default type": str(torch.get_default_dtype()),
        "torch's threads": torch.get_num_threads(),
        "torch's global generator": torch.get_rng_state().tolist(),
        "numpy's global generator": repr(numpy.random.get_state(legacy=False)),
        "the generator of the module random": random.getstate(),
        "the working folder's files": sorted(_files()),
    }


def _files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


def _digests(model: PreTrainedModel) -> dict[str, str]:
    """A digest of the content of each parameter and buffer."""
    state = model.state_dict()
    return {n: hashlib.sha256(value.numpy().tobytes()).hexdigest() for n, value in state.items()}


def _finest(context: Context, decision: Decision) -> float:
    """Share of the budget that the lightest unit of the pruned structures is worth."""
    budget = context.budget
    shares = []
    for name in decision.keep:
        gone = budget.left({}, (0,)) if name == "layers" else budget.left({name: 1})
        shares.append(1.0 - gone / budget.total)
    return min(shares, default=0.0)


@contextmanager
def _passes(model: PreTrainedModel) -> Iterator[Json]:
    """Tokens that enter the model inside the block, and those of them whose gradient is wanted.

    Of a method that runs the layers one by one, the tokens that enter them, each for its share.
    """
    passed, layers = {"entered": 0.0, "learnt": 0.0}, {"entered": 0.0}

    def enter(_: Passed, args: Passed, kwargs: Passed) -> None:
        tokens = args[0] if args else kwargs.get("input")
        passed["entered"] += tokens.numel()
        passed["learnt"] += tokens.numel() if torch.is_grad_enabled() else 0

    def pass_layer(forward: float = 0.0, backward: float = 0.0) -> None:
        layers["entered"] += forward

    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        with counted(model, blocks_of(model), pass_layer):
            yield passed
    finally:
        handle.remove()
        passed["entered"] = max(passed["entered"], layers["entered"])


def _read_back(model: PreTrainedModel, folder: Path, seed: int) -> Json | None:
    """Logits of the saved model beside those in memory; None where its weights were given back."""
    if not next(model.parameters()).numel():
        return None
    tokens = prune.verify_tokens(model, seed)
    expected = logits(model, tokens)
    found, _ = folders.load(folder)
    difference = (logits(found, tokens) - expected).abs().max().item()
    return {
        "difference": difference,
        "tolerance": tolerance(model, expected),
        "parameters": [sum(p.numel() for p in m.parameters()) for m in (model, found)],
        "types": [str(m.dtype) for m in (model, found)],
    }


def main() -> None:
    """Run the job of the command line."""
    work.main(trial, TrialSpec, inputs="*")


if __name__ == "__main__":
    main()
