"""Profile a model: all its pruned versions and the dense one, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from prunebench.campaign.config import Model
from prunebench.campaign.specs import ProfileSpec
from prunebench.jobs import work
from prunebench.jobs.work import JobIO
from prunebench.models.shipped import locate
from prunebench.profiling import Point, measure
from prunebench.record.provenance import provenance
from prunebench.untyped import Json

DENSE = "dense"
"""Name of the unpruned model within the series; the other names are those of cells."""


def profile(spec: ProfileSpec, io: JobIO) -> Json:
    """Run a profiling job: `io.inputs` are the descriptions of the models to compare with dense."""
    original, missing = {}, {}
    for path in io.inputs:
        try:
            original[path] = work.is_original(path)
        except work.Unavailable as error:
            missing[_name(path)] = {"status": error.status, "reason": str(error)}
    changed = [path for path, unchanged in original.items() if not unchanged]
    for path in changed:
        work.restored(path, spec.model, io.device)
    sources: dict[str, Callable[[], PreTrainedModel]] = {
        DENSE: lambda: work.load_original(spec.model, io.device)[0]
    }
    for path in changed:
        sources[_name(path)] = partial(_load, path, spec.model, io.device)
    start_s = time.perf_counter()
    measured = measure(
        sources,
        [Point.of(**point.model_dump()) for point in spec.profile.points],
        device=io.device,
        paths=_folders(spec.model, changed),
        baseline=DENSE,
        repeats=spec.profile.repeats,
        warmup=spec.profile.warmup,
        macs_length=spec.profile.macs_length,
        compile=spec.profile.compile,
        cuda_graphs=spec.profile.cuda_graphs,
        resident=spec.profile.together,
    )
    made = provenance()
    for found in measured.values():  # of one job and one group: timed in turns with each other
        found["series"] = f"{made['created']}/{found['series']}"
    dense = measured.pop(DENSE)
    unchanged = {_name(path): dense for path, same in original.items() if same}
    return {
        "models": {**measured, **unchanged, **missing},
        "timing": {"model_s": time.perf_counter() - start_s},
        "provenance": made,
    }


def _name(path: Path) -> str:
    """A pruned model by its cell, wherever the campaign's folder lies."""
    return "/".join(path.parts[-5:-1])


def _load(path: Path, model: Model, device: str) -> PreTrainedModel:
    return work.load_stage(path, model, device)[0]


def _folders(model: Model, changed: Sequence[Path]) -> dict[str, Path]:
    """Where models lie on disk; what has no folder (random weights, the hub) is left out."""
    saved = {_name(path): work.stage_folder(path) for path in changed}
    if model.kind in ("local", "demo"):
        saved[DENSE] = locate(model.kind, model.source)
    return {name: folder for name, folder in saved.items() if folder is not None}


def main() -> None:
    """Run the job of the command line."""
    work.main(profile, ProfileSpec, inputs="+")


if __name__ == "__main__":
    main()
