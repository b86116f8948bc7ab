"""How far a campaign is, from its folder alone: while it runs here or on a cluster, and after."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from prunebench import running
from prunebench.campaign.config import Campaign, Cell
from prunebench.display.lines import DOING, MARKS, duration, outcome, subject
from prunebench.display.pace import how_far
from prunebench.results.tables import read_campaign

FRESH_S = 600.0
"""A job whose log has been silent for longer is not shown as one that runs."""


def status_text(folder: Path) -> str:
    """Cells done, failed and to come; jobs that run, and how far they are; and who runs them.

    Raises Invalid where the folder holds no campaign.
    """
    campaign = read_campaign(folder)
    lines, counts = [], Counter[str]()
    for cell in campaign.cells:
        state, text = _state(campaign, cell)
        counts[state] += 1
        if text:
            lines.append(f"  {text}")
    lines += [f"  {text}" for text in _profiles(campaign)]
    runs = {True: "running", False: "not running", None: "not known whether it is running"}
    known = ", ".join(f"{counts[state]} {state}" for state in ("ok", "failed", "skipped", "open"))
    return "\n".join(
        [f"{campaign.name}: {sum(counts.values())} cells: {known}; "
         f"{runs[running.is_running(folder)]}", *lines]
    )  # fmt: skip


def _state(campaign: Campaign, cell: Cell) -> tuple[str, str | None]:
    """ok, failed, skipped or open; and a line where the cell is at work or has failed."""
    paths, row = campaign.out.cell(cell), campaign.rows[cell.label]
    name = subject({key: str(value) for key, value in asdict(cell).items()})
    if (found := outcome("evaluate", (paths.evaluate,))) is not None:
        status, text = found
        return status, None if status == "ok" else f"{MARKS[status][0]}{name}  {text}"
    results = {"evaluate": paths.evaluate, "recover": paths.recover}
    if row.label == row.pruned_as:  # else the twin without recovery is pruned for both
        results["prune"] = paths.prune
    for job, result in results.items():
        if result.exists():
            break
        if at_work := _at_work(paths.log(job)):
            return "open", f"{DOING[job]} {name}  {at_work}"
    return "open", None


def _profiles(campaign: Campaign) -> Iterator[str]:
    for model in campaign.models if campaign.profile else ():
        result = campaign.out.profile(model)
        at_work = None if result.exists() else _at_work(result.with_suffix(".log"))
        if at_work:
            yield f"{DOING['profile']} {model}  {at_work}"


def _at_work(log: Path) -> str | None:
    """How far a job is and when it was last heard of; None where it does not seem to run."""
    try:
        silent = max(0.0, time.time() - log.stat().st_mtime)
    except OSError:
        return None
    if silent > FRESH_S:
        return None
    share = how_far(log)
    done = "" if share is None else f"{100 * share:.0f} %, "
    return f"{done}last heard of {duration(silent)} ago"
