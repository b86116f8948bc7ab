"""A campaign's folder: records and tables are made in it, read from it, compared. No torch.

The folder that is given is the one that is read and written, wherever it lies and whatever it is
called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.campaign.config import Campaign, Cell, build
from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.campaign.specs import cell_facts, dense_cell, step_facts
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.leaderboard.papers.published import read_papers
from prunebench.results.assemble import read_result, write_record, write_step_record
from prunebench.whole import write_json

if TYPE_CHECKING:
    from prunebench.leaderboard import Report


def make_tables(folder: Path) -> None:
    """Write every cell's record.json and the tables of a campaign, from the jobs' files.

    A record whose jobs' files are not there (of a run that was handed on without them) stays.
    """
    campaign = read_campaign(folder)
    make_records(campaign, missing=True)
    _build(campaign, record_paths(folder))


def make_records(campaign: Campaign, *, missing: bool = False) -> None:
    """Write the records of all cells whose jobs have run; `missing`: failed ones of the others."""
    for cell in campaign.cells:
        own = campaign.out.cell(cell)
        if own.evaluate.is_file() or (missing and not own.record.is_file()):
            record_cell(campaign, cell)
    for cell in campaign.step_cells:
        own = campaign.out.cell(cell)
        if own.step.is_file() or (missing and not own.record.is_file()):
            write_step_record(campaign.out, step_facts(campaign, cell))


def record_cell(campaign: Campaign, cell: Cell) -> Path:
    """Write the record of one cell; returns its path."""
    return write_record(
        campaign.out,
        cell_facts(campaign, cell),
        partners(campaign, cell),
        profiled=campaign.profile is not None,
    )


def write_leaks(folder: Path) -> None:
    """Write leak.json: which evaluation text is part of the calibration or tuning text."""
    from prunebench.results.leaks import check

    campaign = read_campaign(folder)
    write_json(campaign.out.leak, {"status": "ok", **check(campaign)})


def report_text(folder: Path) -> tuple[str, bool]:
    """The leaderboard for a terminal, and whether nothing failed; all files are written anew."""
    from prunebench import leaderboard

    report = _build(read_campaign(folder), record_paths(folder))
    return leaderboard.terminal(report), report.complete


def compare_text(first: Path, second: Path) -> str:
    """Two campaigns' numbers side by side for a terminal; neither folder is touched."""
    from prunebench import leaderboard

    reports = []
    for folder in (first, second):
        name = read_campaign(folder).name
        loaded = leaderboard.read_records(record_paths(folder), root=folder)
        reports.append(leaderboard.analyse(*loaded, folder, title=name))
    return leaderboard.side_by_side(*reports, names=(str(first), str(second)))


def _build(campaign: Campaign, paths: list[Path]) -> Report:
    from prunebench import leaderboard
    from prunebench.results.pairing import pairing

    folder = campaign.out.root
    return leaderboard.build(
        *leaderboard.read_records(paths, root=folder),
        folder,
        title=campaign.name,
        reference=campaign.reference,
        papers=read_papers({name: campaign.plugins[name] for name in _judged(campaign)}),
        paired=pairing(folder),
    )


def _judged(campaign: Campaign) -> set[str]:
    """Plugins whose papers are judged: those of all rows, and what the campaign names."""
    rows = {row.method for row in campaign.rows.values()}
    steps = {row.method for row in campaign.steps.rows} if campaign.steps else set()
    return rows | steps | set(campaign.papers)


def failures(folder: Path) -> list[str]:
    """One line for each cell that failed or whose record cannot be read or used."""
    from prunebench import leaderboard
    from prunebench.leaderboard.numbers.collect import of_one_original

    records, problems = leaderboard.read_records(record_paths(folder))
    problems += of_one_original(records)[1]
    lines = [
        f"{Cell(c.model, c.label, c.sparsity, c.seed).path}: {record.reason}"
        for record in records
        if record.status == "failed"
        for c in [record.cell]
    ]
    return lines + [f"{problem.path}: {problem.reason}" for problem in problems]


def clear_failed(folder: Path) -> list[Path]:
    """Delete the result files of jobs that failed; the next run does them again."""
    results = CampaignFolder(folder).job_results()
    cleared = [path for path in results if read_result(path).get("status") == "failed"]
    for path in cleared:
        path.unlink()
    return cleared


def read_campaign(folder: Path) -> Campaign:
    """The campaign as it was run. Raises Invalid when the folder is not one of results."""
    file = CampaignFolder(folder).campaign
    if not file.is_file():
        raise Invalid(f"{folder}: expected results of a campaign, found no {file.name}")
    return replace(build(read_yaml(file), file=str(file), check_files=False), folder=folder)


def record_paths(folder: Path) -> list[Path]:
    """The records of the campaign's cells (not those of cells that it no longer has)."""
    campaign = read_campaign(folder)
    cells = [*campaign.cells, *campaign.step_cells]
    return [campaign.out.cell(cell).record for cell in cells]


def partners(campaign: Campaign, cell: Cell) -> dict[str, CellPaths]:
    """Cells that this one is compared with item by item, under the record's keys."""
    found = {"versus_dense": dense_cell(campaign, cell.model)}
    if campaign.reference is not None and cell.sparsity > 0:
        near = [
            Cell(cell.model, campaign.reference, sparsity, seed)
            for sparsity in (cell.sparsity, 0.0)  # 0: a reference that is never pruned
            for seed in (cell.seed, campaign.seeds[0])
        ]
        there = (other for other in near if other in campaign.cells)
        found["versus_reference"] = next(there, near[0])
    return {key: campaign.out.cell(other) for key, other in found.items()}
