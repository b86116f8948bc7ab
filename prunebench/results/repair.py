"""Make failed and damaged results go away, so that the next call makes them again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prunebench import running
from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.errors import Invalid
from prunebench.record import digests, stage_forms, stages
from prunebench.untyped import Json
from prunebench.whole import left_behind


@dataclass(frozen=True)
class Cleared:
    """A file or folder that was removed, and why."""

    path: Path
    why: str


def repair(folder: Path, *, all_corrupt: bool = False, fresh: bool = False) -> list[Cleared]:
    """Remove results of jobs that failed, with whatever they read that is damaged.

    all_corrupt  look for damage in all results, not only in what failed jobs read: reads all models
    fresh        remove the unfinished work of failed jobs, too: they begin from nothing

    A record stays: the next call writes it anew where it no longer fits. Raises Invalid where the
    folder holds no results, or where a run is at work in it.
    """
    out = CampaignFolder(folder)
    if not (out.cells.is_dir() or out.campaign.is_file()):
        raise Invalid(f"{folder}: expected results of a campaign, found none")
    if running.is_running(folder):
        raise Invalid(f"{folder}: a run is at work there; wait for it, or end it")
    results = {path: _read(path) for path in results_in(out)}
    gone = dict(_failed(results))
    read = set(results) if all_corrupt else _read_by(gone, results)
    gone |= _damaged({path: result for path, result in results.items() if path in read})
    cleared = []
    for path, why in gone.items():
        path.unlink()
        cleared.append(Cleared(path, why))
        if fresh and (work := CellPaths(path.parent).work(path.stem)).is_dir():
            shutil.rmtree(work)
            cleared.append(Cleared(work, "unfinished work of that job"))
    for path in left_behind(out.root):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        cleared.append(Cleared(path, "left by a process that is gone"))
    return cleared


def results_in(out: CampaignFolder) -> list[Path]:
    """Every result of a job that is there."""
    return [*out.job_results(), *([out.leak] if out.leak.is_file() else [])]


def _read(path: Path) -> Json | str:
    """A result, or why it is none."""
    try:
        return stage_forms.read(path)
    except Invalid as error:
        return str(error).removeprefix(f"{path}: ").partition(f"; {stages.ADVICE}")[0]


def _failed(results: dict[Path, Json | str]) -> Iterator[tuple[Path, str]]:
    for path, result in results.items():
        if isinstance(result, str):
            yield path, result
        elif result["status"] == "failed":
            yield path, f"failed: {result['reason']}"


def _damaged(results: dict[Path, Json | str]) -> Iterator[tuple[Path, str]]:
    """Results that left files beside them which are not what they were.

    A model that is gone as a whole was removed: the next call makes it again where it is needed.
    """
    for path, result in results.items():
        if isinstance(result, str):
            continue
        written = result.get("written", {})
        if not (model := CellPaths(path.parent).model).exists():
            written = {n: d for n, d in written.items() if not n.startswith(f"{model.name}/")}
        if changed := digests.changed(path.parent, written):
            yield path, f"{path.parent / changed[0]} is not what was written"


def _read_by(failed: Iterable[Path], results: Mapping[Path, Json | str]) -> set[Path]:
    """Results that jobs of these results read; they say so, or lie in the same cell."""
    read = {
        place
        for path in failed
        if isinstance(result := results[path], dict)
        for place in result.get("read", {})
    }
    beside = {path.parent for path in failed}
    return {path for path in results if stages.place(path) in read or path.parent in beside}
