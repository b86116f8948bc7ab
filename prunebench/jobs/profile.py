"""Profile one row of a model: its sparsities and the dense model, measured in turns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.campaign.config import locate
from prunebench.jobs import work
from prunebench.profiling import Point, measure
from prunebench.record.provenance import provenance

DENSE = "dense"
"""Name of the unpruned model within the series; the other names are paths of input files."""


def profile(spec: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a profiling job: `inputs` are the descriptions of the models to compare with dense."""
    entry, settings = spec["model"], spec["profile"]
    stages = {str(path): path for path in arguments.inputs}
    original, missing = {}, {}
    for name, path in stages.items():
        try:
            original[name] = work.is_original(path)
        except work.Unavailable as error:
            missing[name] = {"status": error.status, "reason": str(error)}
    sources: dict[str, Any] = {DENSE: lambda: work.load_original(entry, arguments.device)[0]}
    for name in (name for name, unchanged in original.items() if not unchanged):
        sources[name] = lambda path=stages[name]: work.load_stage(path, entry, arguments.device)[0]
    start_s = time.perf_counter()
    measured = measure(
        sources,
        [Point.of(**point) for point in settings["points"]],
        device=arguments.device,
        paths=_folders(entry, {name: stages[name] for name in sources if name != DENSE}),
        baseline=DENSE,
        repeats=settings.get("repeats", 20),
        warmup=settings.get("warmup", 3),
        macs_length=settings.get("macs_length", 64),
        compile=settings.get("compile", False),
        cuda_graphs=settings.get("cuda_graphs", False),
    )
    dense = measured.pop(DENSE)
    unchanged = {name: dense for name, same in original.items() if same}
    return {
        "models": {**measured, **unchanged, **missing},
        "timing": {"model_s": time.perf_counter() - start_s},
        "provenance": provenance(),
    }


def _folders(entry: Mapping[str, Any], stages: Mapping[str, Path]) -> dict[str, Path]:
    """Where models lie on disk; what has no folder (random weights, the hub) is left out."""
    saved = {name: work.stage_folder(path) for name, path in stages.items()}
    if entry["kind"] in ("local", "demo"):
        saved[DENSE] = locate(entry["kind"], entry["source"])
    return {name: folder for name, folder in saved.items() if folder is not None}


if __name__ == "__main__":
    work.main(profile, inputs="+")
