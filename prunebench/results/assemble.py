"""A campaign's results: jobs' files become records, records become tables. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench.campaign.config import Campaign, Cell, build
from prunebench.campaign.rows import Row
from prunebench.campaign.settings import tuning_name
from prunebench.campaign.specs import dense_cell, stage
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.leaderboard.papers.published import read_papers
from prunebench.record.provenance import provenance
from prunebench.record.store import write
from prunebench.text.source import corpora_of
from prunebench.whole import write_json

if TYPE_CHECKING:
    from prunebench.leaderboard import Report

SEED_NOTE = "measured on the first seed: time and memory depend on shapes alone"


def make_tables(folder: Path) -> None:
    """Write every cell's record.json and the tables of a campaign, from the jobs' files.

    A record whose jobs' files are not there (of a run that was handed on without them) stays.
    """
    campaign = read_campaign(folder)
    for cell in campaign.cells:
        cells = campaign.out / "cells" / cell.path
        if (cells / "evaluate.json").is_file() or not (cells / "record.json").is_file():
            write_record(campaign, cell)
    _build(campaign, folder, record_paths(folder))


def write_leaks(folder: Path) -> None:
    """Write leak.json: which evaluation text is part of the calibration or tuning text."""
    from prunebench.results.leaks import check

    write_json(folder / "leak.json", {"status": "ok", **check(read_campaign(folder))})


def report_text(folder: Path) -> tuple[str, bool]:
    """The leaderboard for a terminal, and whether nothing failed; all files are written anew."""
    from prunebench import leaderboard

    report = _build(read_campaign(folder), folder, record_paths(folder))
    return leaderboard.terminal(report), report.complete


def compare_text(first: Path, second: Path) -> str:
    """Two campaigns' numbers side by side for a terminal; neither folder is touched."""
    from prunebench import leaderboard

    reports = []
    for folder in (first, second):
        name = read_campaign(folder).name
        loaded = leaderboard.load(record_paths(folder), root=folder)
        reports.append(leaderboard.analyse(*loaded, folder, title=name))
    return leaderboard.side_by_side(*reports, names=(str(first), str(second)))


def _build(campaign: Campaign, folder: Path, paths: list[Path]) -> Report:
    from prunebench import leaderboard

    return leaderboard.build(
        *leaderboard.load(paths, root=folder),
        folder,
        title=campaign.name,
        reference=campaign.reference,
        papers=read_papers(
            {row.method: campaign.plugins[row.method] for row in campaign.rows.values()}
        ),
    )


def failures(folder: Path) -> list[str]:
    """One line for each cell that failed or whose record cannot be read or used."""
    from prunebench import leaderboard
    from prunebench.leaderboard.numbers.collect import of_one_original

    records, problems = leaderboard.load(record_paths(folder))
    problems += of_one_original(records)[1]
    lines = [
        f"{Cell(c['model'], c['label'], c['sparsity'], c['seed']).path}: {record['reason']}"
        for record in records
        if record["status"] == "failed"
        for c in [record["cell"]]
    ]
    return lines + [f"{problem.path}: {problem.reason}" for problem in problems]


def clear_failed(folder: Path) -> list[Path]:
    """Delete the result files of jobs that failed; the next run does them again."""
    names = ("prune", "recover", "evaluate")
    results = [path for name in names for path in folder.glob(f"cells/*/*/*/*/{name}.json")]
    cleared = [p for p in sorted([*results, *folder.glob("profiles/*/*.json")]) if _failed(p)]
    for path in cleared:
        path.unlink()
    return cleared


def read_campaign(folder: Path) -> Campaign:
    """The campaign as it was run. Raises Invalid when the folder is not one of results."""
    file = folder / "campaign.yaml"
    if not file.is_file():
        raise Invalid(f"{folder}: expected results of a campaign, found no campaign.yaml")
    return replace(build(read_yaml(file), file=str(file), check_files=False), folder=folder)


def record_paths(folder: Path) -> list[Path]:
    """The records of the campaign's cells (not those of cells that it no longer has)."""
    campaign = read_campaign(folder)
    return [folder / "cells" / cell.path / "record.json" for cell in campaign.cells]


def write_record(campaign: Campaign, cell: Cell) -> Path:
    """Put a cell's results together as its record; returns the record's path.

    Results that do not make a valid record (a plugin's odd numbers, say) make a failed one.
    """
    path = campaign.out / "cells" / cell.path / "record.json"
    record = assemble(campaign, cell)
    try:
        write(path, record)
    except Invalid as error:
        kept = {key: record[key] for key in ("cell", "provenance")}
        write(path, {"status": "failed", "reason": f"not a valid record: {error}", **kept})
    return path


def assemble(campaign: Campaign, cell: Cell) -> dict[str, Any]:
    """The record of a cell, from the files of its jobs."""
    row = campaign.rows[cell.label]
    cells = campaign.out / "cells"
    pruned = _read(cells / Cell(cell.model, row.pruned_as, *_rest(cell)).path / "prune.json")
    final = _read(cells / stage(campaign, cell)) if row.recovery else pruned
    evaluated = _read(cells / cell.path / "evaluate.json")
    profiled = _profile(campaign, cell)
    status, reason = _outcome(pruned, final, evaluated, profiled)
    missing = {"status": "failed" if status == "ok" else status, "reason": reason or "not measured"}
    zeroshot = evaluated.get("zeroshot", missing)
    for key, other in _partners(campaign, cell).items():
        zeroshot = _paired(campaign, cell, zeroshot, key, other)
    cost = {"prune": pruned.get("cost"), "recover": final.get("cost") if row.recovery else None}
    return {
        "status": status,
        "reason": reason,
        "cell": {
            "campaign": campaign.name,
            "model": cell.model,
            "label": cell.label,
            "method": row.method,
            "params": dict(row.params),
            "sparsity": cell.sparsity,
            "seed": cell.seed,
            "recovery": row.recovery,
            "matched": row.matched,
        },
        "model": final.get("model"),
        "sparsity": pruned.get("sparsity"),
        "decision": pruned.get("decision"),
        "verify": _verify(pruned, missing),
        "export": final.get("export", missing),
        "perplexity": evaluated.get("perplexity", missing),
        "zeroshot": zeroshot,
        "profile": profiled,
        "cost": {"status": "ok", **cost} if cost["prune"] else missing,
        "leak": _leak(campaign, pruned, row.recovery or campaign.plugins[row.method].tunes_itself),
        "tuning": _tuning(campaign, row, final),
        "calibration": pruned.get("calibration") or None,
        "notes": _notes(pruned, evaluated),
        "method_notes": pruned.get("method_notes"),
        "provenance": _provenance(pruned, final, evaluated),
    }


def _rest(cell: Cell) -> tuple[float, int]:
    return cell.sparsity, cell.seed


def _outcome(*results: Mapping[str, Any]) -> tuple[str, str | None]:
    """The cell's status: the first job, then the first measurement, that did not end well."""
    for result in results[:3]:
        if result["status"] != "ok":
            return result["status"], result["reason"]
    evaluated, profiled = results[2], results[3]
    for name, part in _parts(evaluated, profiled):
        if part.get("status") == "failed":
            return "failed", f"{name}: {part['reason']}"
    return "ok", None


def _parts(
    evaluated: Mapping[str, Any], profiled: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from evaluated["perplexity"].items()
    yield "zero-shot", evaluated["zeroshot"]
    yield from evaluated["zeroshot"].get("tasks", {}).items()
    yield "profile", profiled


def _profile(campaign: Campaign, cell: Cell) -> dict[str, Any]:
    if campaign.profile is None:
        return {"status": "skipped", "reason": "the campaign asks for no profile"}
    row = campaign.rows[cell.label]
    twin = Cell(cell.model, row.pruned_as, *_rest(cell))
    job = _read(campaign.out / "profiles" / cell.model / f"{row.pruned_as}.json")
    if job["status"] != "ok":
        return {"status": job["status"], "reason": job["reason"]}
    # Jobs name models by the paths that they were given, which another working folder changes.
    of_cell = (m for path, m in job["models"].items() if path.endswith(f"{twin.path}/prune.json"))
    return next(of_cell, {"status": "skipped", "reason": SEED_NOTE})


def _partners(campaign: Campaign, cell: Cell) -> dict[str, Cell]:
    """Cells that this one is compared with item by item, under the record's keys."""
    partners = {"versus_dense": dense_cell(campaign, cell.model)}
    if campaign.reference is not None and cell.sparsity > 0:
        near = [
            Cell(cell.model, campaign.reference, sparsity, seed)
            for sparsity in (cell.sparsity, 0.0)  # 0: a reference that is never pruned
            for seed in (cell.seed, campaign.seeds[0])
        ]
        found = next((other for other in near if other in campaign.cells), near[0])
        partners["versus_reference"] = found
    return partners


def _paired(
    campaign: Campaign, cell: Cell, zeroshot: dict[str, Any], key: str, other: Cell
) -> dict[str, Any]:
    """Add the item-by-item comparison with another cell to the zero-shot part."""
    others = campaign.out / "cells" / other.path / "items.json.gz"
    items = campaign.out / "cells" / cell.path / "items.json.gz"
    if zeroshot.get("status") != "ok" or others == items or not others.is_file():
        return zeroshot
    from prunebench.evaluation.zeroshot import paired

    versus = paired(others, items)
    tasks = {
        name: {**task, key: versus["tasks"].get(name)} for name, task in zeroshot["tasks"].items()
    }
    mean = versus["mean"] if zeroshot["mean"] is not None else None
    return {**zeroshot, "tasks": tasks, key: mean}


def _leak(campaign: Campaign, pruned: Mapping[str, Any], tuned: bool) -> dict[str, Any] | None:
    """Contamination by the text that this cell's method was given; the worse of both kinds.

    Another split of the corpus that is evaluated on shares no text with it, but its style and
    subjects; several papers calibrate on WikiText2 and then report WikiText2. So that is said too.
    """
    corpora = {
        "calibration": corpora_of((campaign.calibration or {}).get("corpus", ())),
        "tuning": corpora_of((campaign.recovery or {}).get("text", ())),
    }
    used = {"calibration": bool(pruned.get("calibration")), "tuning": tuned}
    checked = _read(campaign.out / "leak.json")
    sets: dict[str, Any] = {}
    for kind in (kind for kind, yes in used.items() if yes and kind in checked):
        for name, found in checked[kind]["sets"].items():
            if name not in sets or (found["share"] or 0) > (sets[name]["share"] or 0):
                same = name.rpartition("-")[0] in corpora[kind]
                sets[name] = {**found, "text": kind, "same_corpus": same}
    return {"status": "ok", "sets": sets} if sets else None


def _verify(pruned: Mapping[str, Any], missing: dict[str, Any]) -> dict[str, Any]:
    if "verify" not in pruned:
        return missing
    keys = ("max_abs_logit_difference", "tolerance", "passed")
    return {"status": "ok", "reason": None, **{key: pruned["verify"][key] for key in keys}}


def _tuning(campaign: Campaign, row: Row, final: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the model was tuned on, and the trainer's report where the suite did it."""
    tuned = row.recovery or campaign.plugins[row.method].tunes_itself
    if campaign.recovery is None or not tuned or final["status"] != "ok":
        return None
    data = {"instructions": tuning_name(campaign.recovery)}
    if row.recovery:
        return {**data, "by": "suite", **final.get("tuning", {})}
    noted = final.get("method_notes", {}).get("tuning")
    noted = noted if isinstance(noted, Mapping) else {}
    return {**data, "by": "method", **{k: noted.get(k) for k in ("tuning_tokens", "steps")}}


def _notes(pruned: Mapping[str, Any], evaluated: Mapping[str, Any]) -> list[str]:
    """What a reader should know: of the sparsity, of calibration, of the evaluation."""
    warned = [
        f"calibration: {c['warning']}" for c in pruned.get("calibration") or () if c["warning"]
    ]
    notes = [(pruned.get("sparsity") or {}).get("note"), *dict.fromkeys(warned)]
    return [note for note in [*notes, *evaluated.get("notes", ())] if note]


def _provenance(*results: Mapping[str, Any]) -> dict[str, Any]:
    """Of the last job that ran, with the digests of the method and of all data."""
    ran = [result["provenance"] for result in results if "provenance" in result]
    latest = dict(ran[-1] if ran else provenance())
    latest["plugin_sha256"] = next((p["plugin_sha256"] for p in ran if p["plugin_sha256"]), None)
    data: dict[str, Any] = {}
    for result in results:
        data |= result.get("inputs", {})
        for key, part in result.get("perplexity", {}).items():
            data[key] = part.get("data_sha256")
    return {**latest, "data_sha256": data}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"status": "failed", "reason": f"no result: {path} is missing"}
    except ValueError as error:
        return {"status": "failed", "reason": f"{path}: not valid JSON: {error}"}


def _failed(path: Path) -> bool:
    return _read(path).get("status") == "failed"
