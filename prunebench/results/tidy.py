"""Saved models that a campaign does not keep: each goes when the last job that reads it has ended.

`keep_models` says what stays: all; the last model of each cell (what was tuned afterwards goes);
or none. Decisions stay in any case: a job that is to be run later makes the model again from its
decision, or, where that does not hold it, the pruning runs again. While a job that reads a model
has failed, the model stays, for `retry`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from prunebench.campaign import specs
from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.errors import Invalid, PrunebenchError
from prunebench.record import stages
from prunebench.results.tables import read_campaign
from prunebench.whole import remove_folder

logger = logging.getLogger(__name__)


def tidy_after(result: Path) -> None:
    """Remove what the job that wrote `result` was the last to need, where its campaign says so.

    No fault in doing so is the job's: it is logged, and the models stay.
    """
    result = result.absolute()
    depth = 1 if result.parent.name == "profiles" else 5
    if len(result.parents) <= depth:
        return
    root = result.parents[depth]
    file = CampaignFolder(root).campaign
    try:
        if file.is_file() and "keep_models" in file.read_text(encoding="utf-8"):
            tidy(read_campaign(root), after=result)
    except (PrunebenchError, OSError) as error:
        logger.warning("models were not removed: %s", error)


def tidy(campaign: Campaign, after: Path | None = None) -> list[Path]:
    """Remove the models that nobody needs any more; returns their folders.

    after  the result of a job: only what it read is looked at; None: everything
    """
    if campaign.keep_models == "all":
        return []
    readers = _readers(campaign)
    removed = []
    for stage in _kept_for_now(campaign, readers):
        model = CellPaths(stage.parent).model
        needed = readers[stage]
        if after is not None and after not in needed:
            continue
        if model.is_dir() and all(_ended_well(path) for path in needed):
            remove_folder(model)
            removed.append(model)
    return removed


def _kept_for_now(campaign: Campaign, readers: Iterable[Path]) -> Iterator[Path]:
    """Results whose models do not stay in the end."""
    last = {_last(campaign, cell) for cell in campaign.cells}
    for stage in readers:
        if campaign.keep_models == "none" or stage not in last:
            yield stage


def _last(campaign: Campaign, cell: Cell) -> Path:
    """The result whose model is the cell's own."""
    if campaign.rows[cell.label].recovery:
        return campaign.out.cell(cell).recover
    return campaign.out.cell(campaign.pruned(cell)).prune


def _readers(campaign: Campaign) -> dict[Path, set[Path]]:
    """For each result that leaves a model: results of the jobs that read it."""
    found: dict[Path, set[Path]] = {}
    for cell in campaign.cells:
        own, last = campaign.out.cell(cell), _last(campaign, cell)
        found.setdefault(last, set()).add(own.evaluate)
        if campaign.rows[cell.label].recovery:
            pruned = campaign.out.cell(campaign.pruned(cell)).prune
            found.setdefault(pruned, set()).add(own.recover)
    for model in campaign.models if campaign.profile else ():
        for cell in specs.profiled_cells(campaign, model):
            found.setdefault(campaign.out.cell(cell).prune, set()).add(campaign.out.profile(model))
    return found


def _ended_well(result: Path) -> bool:
    try:
        return bool(stages.read(result)["status"] != "failed")
    except Invalid:
        return False
