"""Run a claims campaign in one process, part by part; what is done is not done again.

The parts are those of the workflow (prune, evaluate, profile) and single pruning steps. They share
a process, because importing and starting a GPU would take longer than many of them; and they need
no scheduler, no data sets and no evaluation harness. Each part is written as soon as it is there, a
failed one with its reason, and the next runs.
"""

from __future__ import annotations

import gc
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import yaml

from prunebench.campaign import specs
from prunebench.campaign.config import Campaign, build
from prunebench.campaign.parts import Part, StepRow
from prunebench.campaign.paths import CampaignFolder
from prunebench.claims.table import check_claims, write_table
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.jobs import evaluate, profile, prune, work
from prunebench.jobs.work import JobIO, Spec
from prunebench.record.provenance import provenance
from prunebench.results.tables import record_cell
from prunebench.untyped import Json, Plain
from prunebench.whole import write_json, write_text

logger = logging.getLogger(__name__)

Task = tuple[Path, Callable[[], Json]]


def run(file: Path, out: Path, *, device: str) -> Path:
    """Measure whatever `file` asks for, into `out`; returns the path of the claims' table.

    Parts that an earlier run has finished are kept; failed ones are tried again. Raises Invalid
    when the file is wrong or `out` belongs to another one.
    """
    raw = read_yaml(file)
    campaign = replace(build(raw, file=str(file)), folder=out)
    check_claims(campaign)
    _own(out, raw)
    for path, make in parts(campaign, device):
        if _is_done(path):
            logger.info("%s: kept", path.relative_to(out))
            continue
        start_s = time.perf_counter()
        result = make()
        timing = {**result.pop("timing", {}), "job_s": time.perf_counter() - start_s}
        write_json(path, {**result, "timing": timing})
        _clean_up(device)
        outcome = result["reason"] or result["status"]
        logger.info("%s: %s, %.1f s", path.relative_to(out), outcome, timing["job_s"])
        report(campaign)
    return report(campaign)


def report(campaign: Campaign) -> Path:
    """Write the records of the cells that have run and the table of claims, as far as it goes."""
    for cell in campaign.cells:
        if campaign.out.cell(cell).evaluate.is_file():
            record_cell(campaign, cell)
    return write_table(campaign)


def parts(campaign: Campaign, device: str) -> Iterator[Task]:
    """Every file to be written and what makes it, what others need first."""
    for entry in campaign.steps.rows if campaign.steps else ():
        path = campaign.out.step(entry.label)
        yield path, partial(_attempt, _step(campaign, entry), _NoSpec(), JobIO(path, device))
    for cell in campaign.cells:
        own = campaign.out.cell(cell)
        spec = specs.prune_spec(campaign, cell)
        yield own.prune, partial(_attempt, prune.prune, spec, JobIO(own.prune, device))
        measured = specs.evaluate_spec(campaign, cell)
        io = JobIO(own.evaluate, device, (own.prune,))
        yield own.evaluate, partial(_attempt, evaluate.evaluate, measured, io)
    for model in campaign.models if campaign.profile else ():
        for label in dict.fromkeys(row.pruned_as for row in campaign.rows.values()):
            cells = specs.profiled_cells(campaign, model, label)
            inputs = tuple(campaign.out.cell(cell).prune for cell in cells)
            path = campaign.out.profile(model, label)
            timed = specs.profile_spec(campaign, model)
            yield path, partial(_attempt, profile.profile, timed, JobIO(path, device, inputs))


class _NoSpec(Part):
    """A step's settings stand in its result."""


def _attempt(job: work.Work[Spec], spec: Spec, io: JobIO) -> Json:
    """A job's result, or why there is none."""
    # Pruning asks for deterministic kernels, which would slow down whatever is timed after it.
    torch.use_deterministic_algorithms(False)
    return work.attempt(job, spec, io)


def _step(campaign: Campaign, entry: StepRow) -> work.Work[_NoSpec]:
    """The job that measures one step of a plugin on the campaign's model."""
    from prunebench.profiling.steps import measure_step

    settings = campaign.steps
    assert settings is not None  # the entry is one of its rows
    plugin = campaign.plugins[entry.method]
    (model,) = campaign.models.values()
    sizes = {
        "micro_batches": entry.micro_batches or settings.micro_batches,
        "length": entry.length or settings.length,
    }

    def measure(_: _NoSpec, io: JobIO) -> Json:
        make, options = plugin.load_step(), entry.params
        unknown = sorted(set(options) - set(inspect.signature(make).parameters))
        if unknown:
            raise Invalid(f"steps: {entry.label}: {plugin.name} has no option {unknown[0]!r}")
        original, _tokenizer = work.load_original(model, io.device)
        step = make(original, seed=campaign.seeds[0], **sizes, **options)
        figures = measure_step(step, io.device, rounds=settings.rounds)
        place = {"method": plugin.name, "params": options, **sizes, "model": model.model_dump()}
        return {**place, **figures, "provenance": provenance(plugin_sha256=plugin.digest())}

    return measure


def _own(out: Path, raw: Plain) -> None:
    """Keep the campaign beside its results. Raises Invalid if others' results are there."""
    kept, text = CampaignFolder(out).campaign, yaml.safe_dump(raw, sort_keys=True)
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise Invalid(f"{out}: holds results of another campaign file; give another --out")
    write_text(kept, text)


def _is_done(path: Path) -> bool:
    if not path.is_file():
        return False
    result = json.loads(path.read_text(encoding="utf-8"))
    parts_of_it = result.get("models", {}).values()  # a profile's models
    return all(part["status"] != "failed" for part in (result, *parts_of_it))


def _clean_up(device: str) -> None:
    """Give the memory of the last part back."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
