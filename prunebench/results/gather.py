"""The results that a record is made of: read, checked against each other, and what they come to.

Jobs say what they read and wrote. Where that is not what lies there now, the later result counts as
failed, with the reason: it is of something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.campaign.specs import CellFacts, EvaluateSpec
from prunebench.errors import Invalid
from prunebench.record import digests, stage_forms, stages
from prunebench.untyped import Json, JsonMap

SEED_NOTE = "measured on the first seed: time and memory depend on shapes alone"
NO_PROFILE = {"status": "skipped", "reason": "the campaign asks for no profile"}
AGAIN = "run the same call again"


@dataclass(frozen=True)
class CellResults:
    """What the jobs of a cell left: each part is a result, or failed with its reason.

    pruned, final  of the pruning job; and of the last job that changed the model, maybe the same
    profile        the model's entry in the profile
    chain          products of these results, and digests of the items that are compared
    root           the campaign's folder
    logs           of the jobs of the four results
    """

    cell: CellFacts
    own: CellPaths
    pruned: Json
    final: Json
    evaluated: Json
    profile: Json
    leak: Json | None
    chain: dict[str, str]
    root: Path
    logs: tuple[Path, Path, Path, Path]


def gather(
    out: CampaignFolder,
    facts: CellFacts,
    partners: Mapping[str, CellPaths],
    *,
    profiled: bool = True,
) -> CellResults:
    """Read the results of a cell.

    facts     of the cell, for one whose evaluation left no result that says it
    partners  cells that it is compared with item by item, under the record's keys
    profiled  whether a profile was asked for
    """
    own = out.cell(facts.cell)
    evaluated = read_result(own.evaluate)
    cell, label = facts, facts.label.removesuffix("+lora")
    if spec := evaluated.get("spec"):
        try:
            given = EvaluateSpec.model_validate(spec)
            cell, label = given.cell, given.pruned_as
        except ValueError:
            evaluated = _lost(f"{own.evaluate}: spec: not that of an evaluation; {stages.ADVICE}")
    if (cell.campaign, cell.cell) != (facts.campaign, facts.cell):
        evaluated = _lost(f"{own.evaluate}: is of {cell.campaign}: {cell.cell.path}, another cell")
        cell, label = facts, facts.label.removesuffix("+lora")
    twin = out.cell(facts.cell.under(label))
    pruned = read_result(twin.prune)
    final, last = pruned, twin.prune
    if cell.recovery:
        final, last = linked(own.recover, read_result(own.recover), twin.prune, pruned), own.recover
    evaluated = linked(own.evaluate, evaluated, last, final)
    profile = _profile(out, cell, twin.prune, pruned) if profiled else NO_PROFILE
    leak = read_shared(out.leak) if out.leak.exists() else None
    chain = {
        "prune": stages.product(pruned),
        **({"recover": stages.product(final)} if cell.recovery else {}),
        "evaluate": stages.product(evaluated),
        "profile": part_digest(profile),
        **({"leak": part_digest(leak)} if leak else {}),
        **{key: items_digest(other) for key, other in partners.items() if other != own},
    }
    timed = out.profile(facts.cell.model).with_suffix(".log")
    logs = (twin.log("prune"), own.log("recover"), own.log("evaluate"), timed)
    results = (pruned, final, evaluated, profile)
    return CellResults(cell, own, *results, leak, chain, out.root, logs)


def read_result(path: Path) -> Json:
    """A job's result; a failed one with its reason where there is no such file, or a broken one."""
    try:
        return stage_forms.read(path)
    except Invalid as error:
        return _lost(str(error))


def read_shared(path: Path) -> Json:
    """The same of a result that many cells share: read once as long as it is the same file."""
    try:
        stat = path.stat()
    except OSError:
        return read_result(path)
    return _read_once(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


def linked(path: Path, result: Json, before: Path, earlier: JsonMap) -> Json:
    """A result, or a failed one where it rests on another result than the one that lies there."""
    read = result.get("read", {})
    if result["status"] != "ok" or stages.place(before) not in read:
        return result  # failed already, or of a version that did not say what it read
    if earlier["status"] != "ok":
        return _lost(str(earlier["reason"]))
    if read[stages.place(before)] == stages.product(earlier):
        return result
    return _lost(f"{path}: rests on another {before.name} than the one of now; {AGAIN}")


def items_digest(cell: CellPaths, items: str = "items.json.gz") -> str:
    """What a cell's evaluation says of its items; empty where it says nothing."""
    evaluated = read_shared(cell.evaluate)
    return str(evaluated.get("written", {}).get(items, ""))


def broken_items(cell: CellPaths, items: Path) -> str | None:
    """Why the items of a cell's evaluation cannot be used; None where they can."""
    evaluated = read_shared(cell.evaluate)
    if items.name not in evaluated.get("written", {}):
        return None if items.is_file() else f"{items} is missing"
    try:
        digests.check(
            cell.folder, {items.name: evaluated["written"][items.name]}, by="the evaluation"
        )
    except Invalid as error:
        return str(error)
    return None


def _profile(out: CampaignFolder, cell: CellFacts, before: Path, pruned: JsonMap) -> Json:
    path = out.profile(cell.model)
    job = read_shared(path)
    if job["status"] != "ok":
        return {"status": job["status"], "reason": job["reason"]}
    name = "/".join(before.parts[-5:-1])
    if name not in job["models"]:
        return {"status": "skipped", "reason": SEED_NOTE}
    linked_job = linked(path, job, before, pruned)
    found: Json = job["models"][name] if linked_job is job else linked_job
    return found


def _lost(reason: str) -> Json:
    return {"status": "failed", "reason": reason}


def part_digest(part: JsonMap) -> str:
    """Digest of a part of a result as a record takes it over."""
    text = json.dumps(part, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=64)
def _read_once(path: Path, _mtime: int, _size: int, _inode: int) -> Json:
    return read_result(path)
