"""Profile one row of a model: its sparsities and the dense model, measured in turns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunebench.config import locate
from prunebench.jobs import work
from prunebench.profiling import Point, measure
from prunebench.record import provenance

DENSE = "dense"
"""Name of the unpruned model within the series; the other names are paths of input files."""


def profile(spec: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run a profiling job: `inputs` are the descriptions of the models to compare with dense."""
    entry, settings = spec["model"], spec["profile"]
    stages = {str(path): path for path in arguments.inputs}
    available, missing = {}, {}
    for name, path in stages.items():
        try:
            available[name] = work.stage_folder(path)
        except work.Unavailable as error:
            missing[name] = {"status": error.status, "reason": str(error)}
    pruned = {name: folder for name, folder in available.items() if folder is not None}
    sources: dict[str, Any] = {DENSE: lambda: work.load_original(entry, arguments.device)[0]}
    for name in pruned:
        sources[name] = lambda path=stages[name]: work.load_stage(path, entry, arguments.device)[0]
    original = locate(entry["kind"], entry["source"])
    folders: dict[str, Path] = {**pruned, **({DENSE: original} if original.is_dir() else {})}
    start_s = time.perf_counter()
    measured = measure(
        sources,
        [Point.of(**point) for point in settings["points"]],
        device=arguments.device,
        paths=folders,
        baseline=DENSE,
        repeats=settings.get("repeats", 20),
        macs_length=settings.get("macs_length", 64),
    )
    dense = measured.pop(DENSE)
    unchanged = {name: dense for name, folder in available.items() if folder is None}
    return {
        "models": {**measured, **unchanged, **missing},
        "timing": {"model_s": time.perf_counter() - start_s},
        "provenance": provenance(),
    }


if __name__ == "__main__":
    work.main(profile, inputs="+")
