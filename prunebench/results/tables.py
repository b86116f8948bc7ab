"""A campaign's folder: records and tables are made in it, read from it, compared. No torch.

The folder that is given is the one that is read and written, wherever it lies and whatever it is
called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.campaign.config import Campaign, Cell, build
from prunebench.campaign.paths import CampaignFolder
from prunebench.campaign.specs import cell_facts, leak_spec, step_facts
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.garbage import no_collection
from prunebench.leaderboard.papers.published import read_papers
from prunebench.record import stages, store
from prunebench.record.form import Record
from prunebench.results.assemble import write_record, write_step_record
from prunebench.results.gather import AGAIN, gather, read_result
from prunebench.results.partners import partners
from prunebench.results.written import chain_of, keep, read

if TYPE_CHECKING:
    from prunebench.leaderboard import Report
    from prunebench.leaderboard.numbers.collect import Problem


def make_tables(folder: Path) -> None:
    """Write every cell's record.json and the tables of a campaign, from the jobs' files.

    A record whose jobs' files are not there (of a run that was handed on without them) stays.
    """
    campaign = read_campaign(folder)
    make_records(campaign, missing=True)
    _build(campaign)


def make_records(campaign: Campaign, *, missing: bool = False) -> None:
    """Write the records of all cells whose jobs have run; `missing`: failed ones of the others.

    A record that rests on the results that lie there is left as it is.
    """
    for cell in campaign.cells:
        own = campaign.out.cell(cell)
        if own.evaluate.is_file() or (missing and not own.record.is_file()):
            record_cell(campaign, cell)
    for cell in campaign.step_cells:
        own = campaign.out.cell(cell)
        if own.step.is_file() or (missing and not own.record.is_file()):
            write_step_record(campaign.out, step_facts(campaign, cell))


def record_cell(campaign: Campaign, cell: Cell) -> Path:
    """Write the record of one cell, where it is not there already; returns its path."""
    facts, compared = cell_facts(campaign, cell), partners(campaign, cell)
    own = campaign.out.cell(cell)
    known = chain_of(own.record, cell, campaign.name, read(campaign.out))
    if known is not None and _outlived(campaign, cell, known):
        return own.record
    found = gather(campaign.out, facts, compared, profiled=campaign.profile is not None)
    return own.record if known == found.chain else write_record(found, compared)


def _outlived(campaign: Campaign, cell: Cell, chain: Mapping[str, str]) -> bool:
    """Whether a record is of the evaluation that is there, and a result before that is gone.

    Such a result need not come back, and must not take a finished cell with it.
    """
    own = campaign.out.cell(cell)
    before = [campaign.out.cell(campaign.pruned(cell)).prune]
    before += [own.recover] if campaign.rows[cell.label].recovery else []
    if all(path.exists() for path in before):
        return False
    return chain.get("evaluate") == stages.product(read_result(own.evaluate))


def write_leaks(folder: Path) -> None:
    """Write leak.json: which evaluation text is part of the calibration or tuning text."""
    from prunebench.results.leaks import check

    campaign = read_campaign(folder)
    spec = leak_spec(campaign).model_dump(mode="json")
    found = {"status": "ok", "reason": None, **check(campaign), "spec": spec}
    stages.write(campaign.out.leak, found)


def report_text(folder: Path) -> tuple[str, bool]:
    """The leaderboard for a terminal, and whether nothing failed; all files are written anew."""
    from prunebench import leaderboard

    report = _build(read_campaign(folder))
    return leaderboard.terminal(report), report.complete


def compare_text(first: Path, second: Path) -> str:
    """Two campaigns' numbers side by side for a terminal; neither folder is touched."""
    from prunebench import leaderboard

    reports = []
    for folder in (first, second):
        campaign = read_campaign(folder)
        reports.append(leaderboard.analyse(*read_cells(campaign), folder, title=campaign.name))
    return leaderboard.side_by_side(*reports, names=(str(first), str(second)))


def _build(campaign: Campaign) -> Report:
    from prunebench import leaderboard
    from prunebench.results.pairing import pairing

    records, problems = read_cells(campaign)
    papers = read_papers({name: campaign.plugins[name] for name in _judged(campaign)})
    report = leaderboard.build(
        records,
        problems,
        campaign.out.root,
        title=campaign.name,
        reference=campaign.reference,
        papers=papers,
        paired=pairing(campaign.out.root),
    )
    keep(campaign)
    return report


def _judged(campaign: Campaign) -> set[str]:
    """Plugins whose papers are judged: those of all rows, and what the campaign names."""
    rows = {row.method for row in campaign.rows.values()}
    steps = {row.method for row in campaign.steps.rows} if campaign.steps else set()
    return rows | steps | set(campaign.papers)


def failures(folder: Path) -> list[str]:
    """One line for each cell that failed or whose record cannot be read or used."""
    from prunebench.leaderboard.numbers.collect import of_one_original

    records, problems = read_cells(read_campaign(folder))
    problems += of_one_original(records)[1]
    lines = [
        f"{Cell(c.model, c.label, c.sparsity, c.seed).path}: {record.reason}"
        + (f"; log: {folder / record.log}" if record.log else "")
        for record in records
        if record.status == "failed"
        for c in [record.cell]
    ]
    return lines + [f"{problem.path}: {problem.reason}" for problem in problems]


def read_cells(campaign: Campaign) -> tuple[list[Record], list[Problem]]:
    """The records of a campaign's cells; one that is of another cell is a problem, no number."""
    from prunebench.leaderboard.numbers.collect import Problem

    out, records, problems = campaign.out, list[Record](), list[Problem]()
    with no_collection():  # a quarter of the time, and records have no cycles
        for cell in (*campaign.cells, *campaign.step_cells):
            path = out.cell(cell).record
            try:
                records.append(_read_own(path, campaign.name, cell))
            except Invalid as error:
                reason = str(error).removeprefix(f"{path}: ")
                problems.append(Problem(str(path.relative_to(out.root)), reason))
    return records, problems


def _read_own(path: Path, campaign: str, cell: Cell) -> Record:
    """The record of a cell. Raises Invalid where there is none, or that of another."""
    record = store.read(path)
    own = record.cell
    place = Cell(own.model, own.label, own.sparsity, own.seed)
    if (own.campaign, place) != (campaign, cell):
        raise Invalid(f"{path}: is the record of {own.campaign}: {place.path}; {AGAIN}")
    return record


def read_campaign(folder: Path) -> Campaign:
    """The campaign as it was run. Raises Invalid when the folder is not one of results."""
    file = CampaignFolder(folder).campaign
    if not file.is_file():
        raise Invalid(f"{folder}: expected results of a campaign, found no {file.name}")
    return replace(build(read_yaml(file), file=str(file), check_files=False), folder=folder)
