"""A cell's record, from the results of its jobs and from nothing else. Imports no torch.

Each result repeats the spec that its job was given, so that what the cell is, what it was tuned on
and whether its method tunes by itself are taken from there: an edit of a plugin or of the campaign
file changes no record of jobs that ran before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.campaign.settings import Recovery
from prunebench.campaign.specs import CellFacts, EvaluateSpec
from prunebench.errors import Invalid
from prunebench.record.provenance import provenance
from prunebench.record.store import write
from prunebench.untyped import Json, JsonMap

SEED_NOTE = "measured on the first seed: time and memory depend on shapes alone"
NO_PROFILE = {"status": "skipped", "reason": "the campaign asks for no profile"}
Result = JsonMap


def write_record(
    out: CampaignFolder,
    facts: CellFacts,
    partners: Mapping[str, CellPaths],
    *,
    profiled: bool = True,
) -> Path:
    """Put a cell's results together as its record; returns the record's path.

    facts     of the cell, for one whose evaluation left no result that says it
    partners  cells that it is compared with item by item, under the record's keys
    profiled  whether a profile was asked for

    Results that do not make a valid record (a plugin's odd numbers, say) make a failed one.
    """
    record = assemble(out, facts, partners, profiled=profiled)
    return _written(out.cell(facts.cell).record, record)


def _written(path: Path, record: Json) -> Path:
    try:
        write(path, record)
    except Invalid as error:
        kept = {key: record[key] for key in ("cell", "provenance")}
        write(path, {"status": "failed", "reason": f"not a valid record: {error}", **kept})
    return path


def assemble(
    out: CampaignFolder,
    facts: CellFacts,
    partners: Mapping[str, CellPaths],
    *,
    profiled: bool = True,
) -> Json:
    """The record of a cell, from the files of its jobs; arguments as of `write_record`."""
    own = out.cell(facts.cell)
    evaluated = read_result(own.evaluate)
    spec = evaluated.get("spec")
    cell = EvaluateSpec.model_validate(spec).cell if spec else facts
    label = spec["pruned_as"] if spec else cell.label.removesuffix("+lora")
    twin = cell.cell.under(label)
    pruned = read_result(out.cell(twin).prune)
    final = read_result(own.recover) if cell.recovery else pruned
    profile = NO_PROFILE
    if profiled:
        profile = _profile(out.profile(cell.model), twin.path)
    status, reason = _outcome(pruned, final, evaluated, profile)
    missing = {"status": "failed" if status == "ok" else status, "reason": reason or "not measured"}
    zeroshot = evaluated.get("zeroshot", missing)
    generation = evaluated.get("generation")
    for key, other in partners.items():
        zeroshot = _paired(own.items, zeroshot, key, other.items)
        if generation is not None:
            generation = _paired(own.generation_items, generation, key, other.generation_items)
    cost = {"prune": pruned.get("cost"), "recover": final.get("cost") if cell.recovery else None}
    return {
        "status": status,
        "reason": reason,
        "cell": cell.model_dump(),
        "model": final.get("model"),
        "sparsity": pruned.get("sparsity"),
        "decision": pruned.get("decision"),
        "verify": _verify(pruned, missing),
        "export": final.get("export", missing),
        "perplexity": evaluated.get("perplexity", missing),
        "zeroshot": zeroshot,
        "generation": generation,
        "texts": evaluated.get("texts"),
        "profile": profile,
        "cost": {"status": "ok", **cost} if cost["prune"] else missing,
        "leak": _leak(read_result(out.leak), pruned, final),
        "tuning": _tuning(pruned, final),
        "calibration": pruned.get("calibration") or None,
        "notes": _notes(pruned, final, evaluated),
        "method_notes": pruned.get("method_notes"),
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
        "cell": (job.get("spec") or {}).get("cell") or facts.model_dump(),
        "provenance": job.get("provenance") or provenance(),
    }
    if job["status"] == "ok":
        parts = ("verify", "export", "perplexity", "zeroshot", "profile", "cost")
        record |= {"model": job["model"], "sparsity": {"target": kept, "achieved": kept}}
        record |= {"step": job["step"], **dict.fromkeys(parts, left_out)}
    return _written(own.record, record)


def read_result(path: Path) -> Json:
    """A job's result; a failed one with its reason where there is no such file, or a broken one."""
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError:
        return {"status": "failed", "reason": f"no result: {path} is missing"}
    except ValueError as error:
        return {"status": "failed", "reason": f"{path}: not valid JSON: {error}"}


def _outcome(*results: Result) -> tuple[str, str | None]:
    """The cell's status: the first job, then the first measurement, that did not end well."""
    for result in results[:3]:
        if result["status"] != "ok":
            return result["status"], result["reason"]
    evaluated, profiled = results[2], results[3]
    for name, part in _parts(evaluated, profiled):
        if part.get("status") == "failed":
            return "failed", f"{name}: {part['reason']}"
    return "ok", None


def _parts(evaluated: Result, profiled: Result) -> Iterator[tuple[str, Result]]:
    yield from evaluated["perplexity"].items()
    yield "zero-shot", evaluated["zeroshot"]
    yield from evaluated["zeroshot"].get("tasks", {}).items()
    if (generation := evaluated.get("generation")) is not None:
        yield "generation", generation
        yield from generation.get("tasks", {}).items()
    yield "texts", evaluated.get("texts") or {}
    yield "profile", profiled


def _profile(path: Path, name: str) -> Json:
    job = read_result(path)
    if job["status"] != "ok":
        return {"status": job["status"], "reason": job["reason"]}
    found: Json = job["models"].get(name, {"status": "skipped", "reason": SEED_NOTE})
    return found


def _paired(own: Path, zeroshot: Json, key: str, other: Path) -> Json:
    """Add the item-by-item comparison with another cell to the figures of a suite."""
    if zeroshot.get("status") != "ok" or other == own or not other.is_file():
        return zeroshot
    from prunebench.evaluation.zeroshot import paired

    try:
        versus = paired(other, own)
    except Invalid as error:  # of another harness, or of other documents
        return {**zeroshot, key: {"status": "skipped", "reason": str(error)}}
    tasks = {
        name: {**task, key: versus["tasks"].get(name)} for name, task in zeroshot["tasks"].items()
    }
    mean = versus["mean"] if zeroshot["mean"] is not None else None
    return {**zeroshot, "tasks": tasks, key: mean}


def _tuned_on(pruned: Result, final: Result) -> Recovery | None:
    """The recovery that the cell's model went through, by the suite or by its method."""
    for result in (final, pruned):
        if (given := (result.get("spec") or {}).get("recovery")) is not None:
            return Recovery(given)
    return None


def _leak(checked: Result, pruned: Result, final: Result) -> Json | None:
    """Contamination by the text that this cell's method was given; the worse of both kinds.

    Another split of the corpus that is evaluated on shares no text with it, but its style and
    subjects; several papers calibrate on WikiText2 and then report WikiText2. So that is said too.
    """
    used: dict[str, set[str]] = {}
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
    found = {**{key: verify[key] for key in keys}, "arithmetic": verify.get("arithmetic")}
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
