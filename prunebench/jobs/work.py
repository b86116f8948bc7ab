"""What all jobs share: arguments, how an error becomes a reason, models named in JSON files."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prunebench.campaign.config import Model
from prunebench.campaign.explain import checked
from prunebench.campaign.inputs import check_unchanged
from prunebench.campaign.parts import Part
from prunebench.campaign.paths import CellPaths
from prunebench.disk import why_full
from prunebench.errors import Invalid, PrunebenchError, Unsupported, describe_error
from prunebench.jobs import STARTED, determinism
from prunebench.jobs.limits import obey
from prunebench.models.shipped import locate
from prunebench.record import digests, stage_forms, stages
from prunebench.untyped import Json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Spec = TypeVar("Spec", bound=Part)


@dataclass(frozen=True)
class JobIO:
    """What a job is run with beside its spec: results of earlier jobs, its own file, the device."""

    out: Path
    device: str = "cpu"
    inputs: tuple[Path, ...] = ()

    @property
    def cell(self) -> CellPaths:
        """The folder that it writes into."""
        return CellPaths(self.out.parent)


Work = Callable[[Spec, JobIO], Json]


class Unavailable(Exception):
    """An earlier job of the cell ended without a model; its status and reason are passed on."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def main(work: Work[Spec], form: type[Spec], *, inputs: int | str) -> None:
    """Parse arguments, do the work, write its result or the reason why there is none."""
    begun = float(os.environ.get(STARTED) or time.monotonic())
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("inputs", nargs=inputs, type=Path)
    parser.add_argument("--spec", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--device", required=True)
    arguments = parser.parse_args()
    io = JobIO(arguments.out, arguments.device, tuple(arguments.inputs))
    obey(arguments.device)
    raw = json.loads(arguments.spec)
    try:
        spec = checked(form, raw, where="--spec")
    except Invalid as error:
        put(io.out, {"status": "failed", "reason": str(error), "spec": raw})
        return
    result = attempt(work, spec, io)
    timing = {"job_s": time.monotonic() - begun, **result.pop("timing", {})}
    put(io.out, {**result, "timing": timing})


def put(out: Path, result: Json) -> None:
    """Write a job's result; what JSON has no form for (a plugin's notes) makes it a failed one.

    A work folder in which nothing was left goes.
    """
    with suppress(OSError):
        CellPaths(out.parent).work(out.stem).rmdir()
    try:
        stages.write(out, result)
    except PrunebenchError as error:
        kept: Json = {key: result[key] for key in result if key in ("spec", "read", "timing")}
        stages.write(out, {"status": "failed", "reason": str(error), **kept})


def attempt(work: Work[Spec], spec: Spec, io: JobIO) -> Json:
    """The work's result with status ok, or failed or skipped with the reason.

    With its spec, with what it read, and, where it ended well, with digests of what it wrote.
    """
    for left in io.cell.made_by(io.out):  # by an earlier job, whose result is gone
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    echo: Json = {"spec": spec.model_dump(mode="json"), "read": stages.rests_on(io.inputs)}
    try:
        found = determinism.repeatably(partial(work, spec, io))
        result = {"status": "ok", "reason": None, **found, **echo}
        return {**result, "written": digests.of_files(io.cell.folder, io.cell.made_by(io.out))}
    except Unavailable as error:
        return {"status": error.status, "reason": str(error), **echo}
    except Unsupported as error:
        return {"status": "skipped", "reason": str(error), **echo}
    except PrunebenchError as error:
        return {"status": "failed", "reason": str(error), **echo}
    except Exception as error:  # whatever a plugin does must end as a row with its reason
        traceback.print_exc(file=sys.stderr)
        return {"status": "failed", "reason": why_full(error) or describe_error(error), **echo}


def read_stage(path: Path) -> Json:
    """The result of an earlier job. Raises Unavailable when it did not end well.

    Raises Invalid where it is no result, or was changed since it was written.
    """
    result = stage_forms.read(path)
    if result["status"] != "ok":
        raise Unavailable(result["status"], result["reason"])
    return result


def load_original(model: Model, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the unpruned model of a campaign's model entry, or make it if it is a random one."""
    from prunebench.models.folders import load

    _know_families(model)
    if model.kind == "random":
        return _make_random(model, device)
    folder = original_folder(model)
    check_unchanged(folder, model.identity)
    return load(
        folder,
        dtype=resolve_dtype(model.dtype, device),
        device=device,
        trust_remote_code=model.trust_remote_code,
    )


def _know_families(model: Model) -> None:
    from prunebench.pruning.architectures import use

    for folder in model.families:
        use(Path(folder))


def original_folder(model: Model) -> Path:
    """Folder of the unpruned model; of a hub id the snapshot, downloaded where it is not yet."""
    from prunebench.models.folders import folder_of

    if model.kind == "hub":
        return folder_of(model.source, model.revision)
    return locate(model.kind, model.source)


def _make_random(model: Model, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from prunebench.models.shapes import byte_tokenizer, make_config, random_model

    config = make_config(model.source, model.overrides)
    tokenizer = byte_tokenizer(config)
    dtype = resolve_dtype(model.dtype, device)
    return random_model(config, dtype=dtype, device=device), tokenizer


def load_stage(
    path: Path, model: Model, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that an earlier job describes: its saved folder, or the original.

    Random weights are never saved: they are made anew and cut as the earlier job decided. Raises
    Invalid, naming the file, where one is not as that job wrote it.
    """
    from prunebench.models.folders import load

    _know_families(model)
    result = restored(path, model, device)
    stages.check_written(path, result)
    export, folder = result["export"], stage_folder(path)
    if folder is not None:
        return load(folder, dtype=resolve_dtype(model.dtype, device), device=device)
    original, tokenizer = load_original(model, device)
    if export.get("decision"):
        from prunebench.pruning.structure import Decision
        from prunebench.pruning.surgery import slice_model

        file = path.parent / export["decision"]
        slice_model(original, Decision.from_json(file.read_text(encoding="utf-8"), where=file))
    return original, tokenizer


def restored(path: Path, model: Model, device: str) -> Json:
    """The result of an earlier job, whose saved model is there again where it was removed."""
    from prunebench.jobs.decided import bring_back

    result = read_stage(path)
    if result["export"]["path"] is not None and model.kind != "random":
        bring_back(path, result, model, original_folder(model), device)
    return result


def stage_folder(path: Path) -> Path | None:
    """Folder of the saved model of an earlier job; None if it saved none."""
    saved = read_stage(path)["export"]["path"]
    return None if saved is None else path.parent / saved


def is_original(path: Path) -> bool:
    """Whether an earlier job left the model as it was."""
    export = read_stage(path)["export"]
    return export["path"] is None and not export.get("decision")


def resolve_dtype(dtype: str, device: str) -> str:
    """`auto` is float32 on a CPU and bfloat16 on a GPU."""
    if dtype != "auto":
        return dtype
    return "float32" if device == "cpu" else "bfloat16"


def ran_as(model: PreTrainedModel) -> dict[str, str]:
    """How a model runs: its attention implementation and the type of its weights."""
    return {
        "attention": model.config._attn_implementation,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
