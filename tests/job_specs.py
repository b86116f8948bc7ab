"""Specs of jobs for tests, and a job run in this process as the workflow would run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from prunebench.campaign.parts import Part
from prunebench.campaign.specs import CellFacts, DataSpec, EvaluateSpec, PruneSpec, RecoverSpec
from prunebench.jobs import work
from prunebench.jobs.work import JobIO
from prunebench.plugins.discovery import discover

Spec = TypeVar("Spec", bound=Part)


def pruning(model: Path, data: Path | None = None, **given: Any) -> PruneSpec:
    """A pruning job of the model in a folder: `random` at 20 %, or what is given."""
    method = given.get("method", "random")
    plain = {
        "model": {"name": "t", "kind": "local", "source": str(model)},
        "data": DataSpec(source="local", root=data and str(data)),
        "sparsity": 0.2,
        "seed": 0,
        "method": method,
        "params": {} if "plugins" in given else discover()[method].params({}, where="test"),
        "plugin_sha256": "0" * 64,
        **given,
    }
    return PruneSpec.model_validate(plain)


def changed(spec: Spec, **given: Any) -> Spec:
    """The spec with other values, checked as a new one is."""
    return type(spec).model_validate({**spec.model_dump(), **given})


def recovering(spec: PruneSpec, tuning: dict[str, Any]) -> RecoverSpec:
    """The recovery job after a pruning job."""
    return RecoverSpec.model_validate(
        {"model": spec.model, "data": spec.data, "seed": spec.seed, "recovery": tuning}
    )


def evaluating(
    spec: PruneSpec, *protocols: dict[str, Any], **parts: dict[str, Any]
) -> EvaluateSpec:
    """The evaluation job after a pruning job. `parts`: zeroshot, generation, texts."""
    facts = CellFacts(
        campaign="test",
        model=spec.model.name,
        label=spec.method,
        method=spec.method,
        params=spec.params,
        sparsity=spec.sparsity,
        seed=spec.seed,
        recovery=False,
    )
    return EvaluateSpec.model_validate(
        {
            "cell": facts,
            "pruned_as": spec.method,
            "model": spec.model,
            "data": spec.data,
            "perplexity": protocols,
            **parts,
        }
    )


def attempt(job: work.Work[Spec], spec: Spec, out: Path, *inputs: Path) -> dict[str, Any]:
    """What a job writes into `out`, which the next one reads."""
    out.parent.mkdir(parents=True, exist_ok=True)
    result = work.attempt(job, spec, JobIO(out, "cpu", inputs))
    out.write_text(json.dumps(result))
    return result
