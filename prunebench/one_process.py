"""Run a campaign in one process, part by part; what is done is not done again.

The parts are those of the workflow: single steps, prune, evaluate, profile. They share a process,
because importing and starting a GPU would take longer than many of them; and they need no
scheduler, no data sets and no evaluation harness. Each part is written as soon as it is there, a
failed one with its reason, and the next runs. The records and tables are those of every campaign.
"""

from __future__ import annotations

import gc
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
from prunebench.campaign.paths import CampaignFolder
from prunebench.campaign.reading import portable
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.jobs import evaluate, profile, prune, step, work
from prunebench.jobs.work import JobIO, Spec
from prunebench.results.gather import read_result
from prunebench.results.tables import make_records, make_tables
from prunebench.results.tidy import tidy
from prunebench.untyped import Json, Plain
from prunebench.whole import write_text

logger = logging.getLogger(__name__)

Task = tuple[Path, Callable[[], Json]]


def run(file: Path, out: Path, *, device: str) -> str:
    """Measure whatever `file` asks for, into `out`; returns papers against measured, to be read.

    Parts that an earlier run has finished are kept; failed ones are tried again. Raises Invalid
    when the file is wrong or `out` belongs to another one. A machine that has not what tables are
    made with leaves the records, and is told what to type elsewhere.
    """
    raw = read_yaml(file)
    campaign = replace(build(raw, file=str(file)), folder=out)
    _own(out, portable(raw, file.parent))
    for path, make in parts(campaign, device):
        if path.is_file() and read_result(path)["status"] != "failed":
            logger.info("%s: kept", path.relative_to(out))
            continue
        start_s = time.perf_counter()
        result = make()
        timing = {**result.pop("timing", {}), "job_s": time.perf_counter() - start_s}
        work.put(path, {**result, "timing": timing})
        _clean_up(device)
        outcome = result["reason"] or result["status"]
        logger.info("%s: %s, %.1f s", path.relative_to(out), outcome, timing["job_s"])
        make_records(campaign)
        tidy(campaign, after=path)
    try:
        make_tables(out)
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        return (
            f"{out}: all records are written. Tables need the package {package}: "
            f"`prunebench leaderboard {out}` on a machine that has it"
        )
    return campaign.out.view("paper_vs_measured.md").read_text(encoding="utf-8")


def parts(campaign: Campaign, device: str) -> Iterator[Task]:
    """Every file to be written and what makes it, what others need first."""
    for cell in campaign.step_cells:
        path = campaign.out.cell(cell).step
        yield (
            path,
            partial(_attempt, step.step, specs.step_spec(campaign, cell), JobIO(path, device)),
        )
    for cell in campaign.cells:
        own = campaign.out.cell(cell)
        spec = specs.prune_spec(campaign, cell)
        yield own.prune, partial(_attempt, prune.prune, spec, JobIO(own.prune, device))
        measured = specs.evaluate_spec(campaign, cell)
        io = JobIO(own.evaluate, device, (own.prune,))
        yield own.evaluate, partial(_attempt, evaluate.evaluate, measured, io)
    for model in campaign.models if campaign.profile else ():
        cells = specs.profiled_cells(campaign, model)
        inputs = tuple(campaign.out.cell(cell).prune for cell in cells)
        path, timed = campaign.out.profile(model), specs.profile_spec(campaign, model)
        yield path, partial(_attempt, profile.profile, timed, JobIO(path, device, inputs))


def _attempt(job: work.Work[Spec], spec: Spec, io: JobIO) -> Json:
    """A job's result, or why there is none."""
    # Pruning asks for deterministic kernels, which would slow down whatever is timed after it.
    torch.use_deterministic_algorithms(False)
    return work.attempt(job, spec, io)


def _own(out: Path, raw: Plain) -> None:
    """Keep the campaign beside its results. Raises Invalid if others' results are there."""
    kept, text = CampaignFolder(out).campaign, yaml.safe_dump(raw, sort_keys=True)
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise Invalid(f"{out}: holds results of another campaign file; give another --out")
    write_text(kept, text)


def _clean_up(device: str) -> None:
    """Give the memory of the last part back."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
