"""A cell's record, from the results of its jobs and from nothing else. Imports no torch.

Each result repeats the spec that its job was given, so that what the cell is, what it was tuned on
and whether its method tunes by itself are taken from there: an edit of a plugin or of the campaign
file changes no record of jobs that ran before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.campaign.settings import Recovery
from prunebench.campaign.specs import CellFacts
from prunebench.errors import Invalid
from prunebench.record.provenance import provenance
from prunebench.record.stages import product
from prunebench.record.store import write
from prunebench.results.gather import (
    CellResults,
    broken_items,
    read_result,
    read_shared,
)
from prunebench.untyped import Json, JsonMap

Result = JsonMap


def write_record(found: CellResults, partners: Mapping[str, CellPaths]) -> Path:
    """Put a cell's results together as its record; returns the record's path.

    partners  cells that it is compared with item by item, under the record's keys

    Results that do not make a valid record (a plugin's odd numbers, say) make a failed one.
    """
    return _written(found.own.record, record_from(found, partners))


def _written(path: Path, record: Json) -> Path:
    try:
        write(path, record)
    except Invalid as error:
        kept = {key: record[key] for key in ("cell", "chain", "provenance")}
        write(path, {"status": "failed", "reason": f"not a valid record: {error}", **kept})
    return path


def record_from(found: CellResults, partners: Mapping[str, CellPaths]) -> Json:
    """The record of a cell; arguments as of `write_record`."""
    cell, own = found.cell, found.own
    pruned, final, evaluated = found.pruned, found.final, found.evaluated
    leak = _leak(found.leak, pruned, final)
    status, reason = _outcome(found, leak)
    missing = {"status": "failed" if status == "ok" else status, "reason": reason or "not measured"}
    zeroshot = evaluated.get("zeroshot", missing)
    generation = evaluated.get("generation")
    unpaired: list[str] = []
    for key, other in partners.items():
        zeroshot = _paired(own, other, "items", zeroshot, key, unpaired)
        if generation is not None:
            generation = _paired(own, other, "generation_items", generation, key, unpaired)
    cost = {"prune": pruned.get("cost"), "recover": final.get("cost") if cell.recovery else None}
    return {
        "status": status,
        "reason": reason,
        "log": _log(found) if status == "failed" else None,
        "cell": cell.model_dump(),
        "model": final.get("model"),
        "sparsity": pruned.get("sparsity"),
        "decision": pruned.get("decision"),
        "decision_file": final.get("decision_file"),
        "verify": _verify(pruned, missing),
        "export": final.get("export", missing),
        "perplexity": evaluated.get("perplexity", missing),
        "zeroshot": zeroshot,
        "generation": generation,
        "texts": evaluated.get("texts"),
        "profile": found.profile,
        "cost": {"status": "ok", **cost} if cost["prune"] else missing,
        "leak": leak,
        "tuning": _tuning(pruned, final),
        "calibration": pruned.get("calibration") or None,
        "notes": [*_notes(pruned, final, evaluated), *unpaired],
        "method_notes": pruned.get("method_notes"),
        "chain": found.chain,
        "provenance": _provenance(pruned, final, evaluated),
    }


def write_step_record(out: CampaignFolder, facts: CellFacts) -> Path:
    """Put the record of a single step together; its other parts were not asked for."""
    own = out.cell(facts.cell)
    job = read_result(own.step)
    left_out = {"status": "skipped", "reason": "a single step was measured"}
    kept = facts.sparsity
    record = {
        "status": job["status"],
        "reason": job["reason"],
        "log": _step_log(out, own) if job["status"] == "failed" else None,
        "cell": (job.get("spec") or {}).get("cell") or facts.model_dump(),
        "chain": {"step": product(job)},
        "provenance": job.get("provenance") or provenance(),
    }
    if job["status"] == "ok":
        parts = ("verify", "export", "perplexity", "zeroshot", "profile", "cost")
        record |= {"model": job["model"], "sparsity": {"target": kept, "achieved": kept}}
        record |= {"step": job["step"], **dict.fromkeys(parts, left_out)}
    return _written(own.record, record)


def _step_log(out: CampaignFolder, own: CellPaths) -> str | None:
    path = own.log("step")
    return str(path.relative_to(out.root)) if path.is_file() else None


def _outcome(found: CellResults, leak: Json | None) -> tuple[str, str | None]:
    """The cell's status: the first job, then the first measurement, that did not end well."""
    for result in (found.pruned, found.final, found.evaluated):
        if result["status"] != "ok":
            return result["status"], result["reason"]
    for name, part in [*_parts(found.evaluated, found.profile), ("leak", leak or {})]:
        if part.get("status") == "failed":
            return "failed", f"{name}: {part['reason']}"
    return "ok", None


def _log(found: CellResults) -> str | None:
    """Log of the job that failed, as the record names it; None where it left no log."""
    results = (found.pruned, found.final, found.evaluated, found.profile)
    failed = (
        log for log, result in zip(found.logs, results, strict=True) if result["status"] == "failed"
    )
    path = next(failed, found.own.log("evaluate"))  # else a part of the evaluation did
    return str(path.relative_to(found.root)) if path.is_file() else None


def _parts(evaluated: Result, profiled: Result) -> Iterator[tuple[str, Result]]:
    yield from evaluated["perplexity"].items()
    yield "zero-shot", evaluated["zeroshot"]
    yield from evaluated["zeroshot"].get("tasks", {}).items()
    if (generation := evaluated.get("generation")) is not None:
        yield "generation", generation
        yield from generation.get("tasks", {}).items()
    yield "texts", evaluated.get("texts") or {}
    yield "profile", profiled


def _paired(
    own: CellPaths, other: CellPaths, items: str, suite: Json, key: str, unpaired: list[str]
) -> Json:
    """Add the item-by-item comparison with another cell to the figures of a suite.

    items     which of a cell's files has the outcomes
    unpaired  where the items are not there any more, a sentence that says so is added
    """
    first, second = getattr(other, items), getattr(own, items)
    if suite.get("status") != "ok" or first == second or not _measured(other, items):
        return suite
    for cell, file in ((other, first), (own, second)):
        if why := broken_items(cell, file):
            unpaired.append(f"no {key.replace('_', ' ')}: {why}")
            return {**suite, key: {"status": "failed", "reason": why}}
    from prunebench.evaluation.zeroshot import paired

    try:
        versus = paired(first, second)
    except Invalid as error:  # of another harness, or of other documents
        return {**suite, key: {"status": "skipped", "reason": str(error)}}
    tasks = {
        name: {**task, key: versus["tasks"].get(name)} for name, task in suite["tasks"].items()
    }
    mean = versus["mean"] if suite["mean"] is not None else None
    return {**suite, "tasks": tasks, key: mean}


def _measured(cell: CellPaths, items: str) -> bool:
    """Whether a cell's evaluation left items, or was to leave some."""
    name = getattr(cell, items).name
    return getattr(cell, items).is_file() or name in read_shared(cell.evaluate).get("written", {})


def _tuned_on(pruned: Result, final: Result) -> Recovery | None:
    """The recovery that the cell's model went through, by the suite or by its method."""
    for result in (final, pruned):
        if (given := (result.get("spec") or {}).get("recovery")) is not None:
            return Recovery(given)
    return None


def _leak(checked: Result | None, pruned: Result, final: Result) -> Json | None:
    """Contamination by the text that this cell's method was given; the worse of both kinds.

    Another split of the corpus that is evaluated on shares no text with it, but its style and
    subjects; several papers calibrate on WikiText2 and then report WikiText2. So that is said too.
    """
    used: dict[str, set[str]] = {}
    if checked is None:
        return None
    if checked["status"] != "ok":
        return {"status": checked["status"], "reason": checked["reason"]}
    if drawn := pruned.get("calibration"):
        used["calibration"] = {name for sample in drawn for name in sample["corpus"]}
    if recovery := _tuned_on(pruned, final):
        used["tuning"] = set(recovery.text)
    sets: Json = {}
    for kind in (kind for kind in used if kind in checked):
        for name, found in checked[kind]["sets"].items():
            if name not in sets or (found["share"] or 0) > (sets[name]["share"] or 0):
                same = name.rpartition("-")[0] in used[kind]
                sets[name] = {**found, "text": kind, "same_corpus": same}
    return {"status": "ok", "sets": sets} if sets else None


def _verify(pruned: Result, missing: Json) -> Json:
    if "verify" not in pruned:
        return missing
    keys = ("max_abs_logit_difference", "tolerance", "passed")
    verify = pruned["verify"]
    found = {key: verify[key] for key in keys}
    found |= {key: verify.get(key) for key in ("arithmetic", "read_back")}
    return {"status": "ok", "reason": None, **found}


def _tuning(pruned: Result, final: Result) -> Json | None:
    """What the model was tuned on, and the trainer's report where the suite did it."""
    recovery = _tuned_on(pruned, final)
    if recovery is None or final["status"] != "ok":
        return None
    data = {"instructions": recovery.data}
    if final is not pruned:
        return {**data, "by": "suite", **final.get("tuning", {})}
    noted = (final.get("method_notes") or {}).get("tuning")
    noted = noted if isinstance(noted, Mapping) else {}
    return {**data, "by": "method", **{k: noted.get(k) for k in ("tuning_tokens", "steps")}}


def _notes(pruned: Result, final: Result, evaluated: Result) -> list[str]:
    """What a reader should know: of the sparsity, of calibration, of the evaluation, of repeats."""
    warned = [
        f"calibration: {c['warning']}" for c in pruned.get("calibration") or () if c["warning"]
    ]
    notes = [(pruned.get("sparsity") or {}).get("note"), *dict.fromkeys(warned)]
    results = (pruned, final, evaluated)
    loose = dict.fromkeys(r["nondeterministic"] for r in results if r.get("nondeterministic"))
    unrepeated = [f"a rerun may differ: {name} has no deterministic kernel" for name in loose]
    return [note for note in [*notes, *evaluated.get("notes", ()), *unrepeated] if note]


def _provenance(*results: Result) -> Json:
    """Of the last job that ran, with the digests of the method and of all data."""
    ran = [result["provenance"] for result in results if "provenance" in result]
    latest = dict(ran[-1] if ran else provenance())
    latest["plugin_sha256"] = next((p["plugin_sha256"] for p in ran if p["plugin_sha256"]), None)
    data: Json = {}
    for result in results:
        data |= ((result.get("spec") or {}).get("data") or {}).get("inputs", {})
        for key, part in result.get("perplexity", {}).items():
            data[key] = part.get("data_sha256")
    return {**latest, "data_sha256": data}
