"""Which jobs of a campaign are still to be run. What decides is content; times of files never do.

A job is done when its result is whole, is of the spec that is planned now, and rests on the results
that lie there. What a job left beside its result (a model, items) must be there only where another
job, or a record that is to be made, still needs it: so a folder that was copied without its models
goes on, and repeats no finished cell. A model that its decision holds is made again by that job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from prunebench.campaign import specs
from prunebench.campaign.config import DEMO_ROOT, Campaign, Cell
from prunebench.campaign.parts import Part
from prunebench.errors import Invalid
from prunebench.files import sha256
from prunebench.record import digests, stages
from prunebench.results import written
from prunebench.results.gather import part_digest
from prunebench.results.partners import partners
from prunebench.untyped import Json, JsonMap

Forced = Callable[[str, Path], bool]
NOT_RUN = "has not run"
MODEL = "model/"


@dataclass(frozen=True)
class Job:
    """A job of the plan: its rule, what it writes and reads, and its spec."""

    rule: str
    out: Path
    inputs: tuple[Path, ...]
    spec: Part


@dataclass(frozen=True)
class Left:
    """What is kept in mind of a result: a campaign may have ten thousand of them."""

    done: bool
    fault: str | None = None
    spec: Json | None = None
    read: Json | None = None
    written: Json = field(default_factory=dict)
    product: str = ""
    models: dict[str, str] | None = None
    can_come_back: bool = False


@dataclass
class Plan:
    """The jobs that are to be run: what each writes, and why."""

    reasons: dict[Path, str] = field(default_factory=dict)

    def __contains__(self, path: object) -> bool:
        return path in self.reasons


def jobs_of(campaign: Campaign) -> dict[Path, Job]:
    """Every job by its result, those first that others read."""
    out, found = campaign.out, dict[Path, Job]()

    def add(rule: str, path: Path, inputs: tuple[Path, ...], spec: Part) -> None:
        found.setdefault(path, Job(rule, path, inputs, spec))

    for cell in campaign.step_cells:
        add("step", out.cell(cell).step, (), specs.step_spec(campaign, cell))
    pruned = list(dict.fromkeys(campaign.pruned(cell) for cell in campaign.cells))
    pruned.sort(key=lambda cell: specs.matched_cell(campaign, cell) is not None)
    for cell in pruned:
        other = specs.matched_cell(campaign, cell)
        inputs = () if other is None else (out.cell(other).prune,)
        add("prune", out.cell(cell).prune, inputs, specs.prune_spec(campaign, cell))
    for cell in campaign.cells:
        last, own = out.cell(campaign.pruned(cell)).prune, out.cell(cell)
        if campaign.rows[cell.label].recovery:
            add("recover", own.recover, (last,), specs.recover_spec(campaign, cell))
            last = own.recover
        add("evaluate", own.evaluate, (last,), specs.evaluate_spec(campaign, cell))
    for model in campaign.models if campaign.profile else ():
        timed = tuple(out.cell(c).prune for c in specs.profiled_cells(campaign, model))
        add("profile", out.profile(model), timed, specs.profile_spec(campaign, model))
    add("leak", out.leak, (), specs.leak_spec(campaign))
    return found


def plan(campaign: Campaign, kept: JsonMap, *, forced: Forced = lambda rule, path: False) -> Plan:
    """What is to be run. `kept`: the campaign as its results keep it.

    forced  whether the user asked for a rule's output to be made in any case
    """
    jobs = jobs_of(campaign)
    left = {path: _read(path, job) for path, job in jobs.items()}
    found = Plan()
    for path, job in jobs.items():  # what others read comes first
        why = "was asked for" if forced(job.rule, path) else _why(job, left, found)
        if why:
            found.reasons[path] = why
    open_cells = _open_cells(campaign, left, found)
    _drop_unneeded(campaign, jobs, open_cells, found)
    _need_items(campaign, left, open_cells, found)
    _need_models(jobs, left, found)
    _plan_world(campaign, jobs, found)
    _plan_tables(campaign, kept, bool(open_cells), found, forced)
    return found


def _why(job: Job, left: dict[Path, Left], found: Plan) -> str | None:
    """Why a job is to be run for its own sake; None where it is done."""
    own = left[job.out]
    if not own.done:
        return own.fault
    if not _same_spec(job, own.spec):
        return "its settings, its data, its model or its method changed"
    if job.rule == "profile" and own.models is not None:
        if set(own.models) != {"/".join(path.parts[-5:-1]) for path in job.inputs}:
            return "other rows are timed now"
    for path in job.inputs:
        if found.reasons.get(path, NOT_RUN) != NOT_RUN:
            return f"{path}: {found.reasons[path]}"
        if own.read is None or not left[path].done:
            continue
        if own.read.get(stages.place(path)) != left[path].product:
            return f"rests on another {path} than the one of now"
    return None


def _open_cells(campaign: Campaign, left: dict[Path, Left], found: Plan) -> set[Cell]:
    """Cells whose record is still to be made."""
    known = written.read(campaign.out)
    still = set()
    for cell in campaign.cells:
        own = campaign.out.cell(cell)
        twin = campaign.out.cell(campaign.pruned(cell))
        chain = written.chain_of(own.record, cell, campaign.name, known)
        if chain is None or own.evaluate in found or not left[own.evaluate].done:
            still.add(cell)
            continue
        now = {"evaluate": left[own.evaluate].product}
        for name, path in (("prune", twin.prune), ("recover", own.recover)):
            if name in chain and path in left and left[path].done:
                now[name] = left[path].product
        if campaign.out.leak not in found:
            now["leak"] = left[campaign.out.leak].product
        profile = left.get(campaign.out.profile(cell.model))
        if profile is not None and profile.models is not None:
            now["profile"] = profile.models.get("/".join(twin.prune.parts[-5:-1]), chain["profile"])
        upstream = {twin.prune, own.recover, campaign.out.profile(cell.model)} & set(left)
        changed = any(found.reasons.get(path, NOT_RUN) != NOT_RUN for path in upstream)
        if changed or any(chain.get(name) != product for name, product in now.items()):
            still.add(cell)
    return still


def _drop_unneeded(
    campaign: Campaign, jobs: dict[Path, Job], open_cells: set[Cell], found: Plan
) -> None:
    """A result that only finished cells rested on need not come back."""
    needed = {path for path in found.reasons if found.reasons[path] != NOT_RUN}
    for cell in open_cells:
        own, twin = campaign.out.cell(cell), campaign.out.cell(campaign.pruned(cell))
        needed |= {own.evaluate, own.recover, twin.prune}
    for path in reversed(jobs):
        job = jobs[path]
        if path in found and (
            path in needed or job.rule in ("evaluate", "profile", "step", "leak")
        ):
            needed.update(job.inputs)
        elif path in found and path not in needed:
            del found.reasons[path]
    for cell in open_cells:  # what comes after a job that runs again, runs again
        steps = (campaign.out.cell(campaign.pruned(cell)).prune, *_own_jobs(campaign, cell))
        for before, path in pairwise(steps):
            if before in found:
                found.reasons.setdefault(path, f"{before}: {found.reasons[before]}")


def _own_jobs(campaign: Campaign, cell: Cell) -> Iterator[Path]:
    own = campaign.out.cell(cell)
    if campaign.rows[cell.label].recovery:
        yield own.recover
    yield own.evaluate


def _need_items(
    campaign: Campaign, left: dict[Path, Left], open_cells: set[Cell], found: Plan
) -> None:
    """Evaluations run again whose items a record still to be made would compare."""
    for cell in open_cells:
        for own in (campaign.out.cell(cell), *partners(campaign, cell).values()):
            result = left.get(own.evaluate)
            if result is None or not result.done or own.evaluate in found:
                continue
            if gone := digests.changed(own.folder, result.written):
                found.reasons[own.evaluate] = f"{own.folder / gone[0]} is not what it wrote"


def _need_models(jobs: dict[Path, Job], left: dict[Path, Left], found: Plan) -> None:
    """Jobs run again whose models are gone and are needed by a job that is to be run."""
    for path in reversed(jobs):
        if path not in found:
            continue
        for before in jobs[path].inputs if jobs[path].rule != "prune" else ():
            if before in found or not left[before].done:
                continue
            if _comes_back(before, left[before]):
                continue
            if gone := digests.missing(before.parent, left[before].written):
                found.reasons[before] = f"{before.parent / gone[0]} is needed and not there"


def _comes_back(result: Path, left: Left) -> bool:
    """Whether a model that was removed is made again, from its decision, by the job that reads it.

    One of which a part is left was damaged, not removed: it is pruned again.
    """
    beside = {name: d for name, d in left.written.items() if not name.startswith(MODEL)}
    removed = not (result.parent / MODEL).exists()
    return removed and left.can_come_back and not digests.missing(result.parent, beside)


def _plan_world(campaign: Campaign, jobs: dict[Path, Job], found: Plan) -> None:
    """The demo's world is made again where a job needs it and its files are not what they were."""
    path = DEMO_ROOT.with_suffix(".json")
    if campaign.source != "demo" or not any(job in found for job in jobs):
        return
    try:
        files = stages.parse(path).get("sha256", {})
        if all(sha256(DEMO_ROOT / name) == digest for name, digest in files.items()):
            return
    except (Invalid, OSError, AttributeError, TypeError):
        pass
    found.reasons[path] = "the demo's world is not whole"


def _plan_tables(
    campaign: Campaign, kept: JsonMap, records: bool, found: Plan, forced: Forced
) -> None:
    """Tables follow whatever runs; and whatever of them, or of the campaign's copy, is gone."""
    tables, complete = campaign.out.view("leaderboard.md"), campaign.out.complete
    why = written.fault(campaign, kept)
    if found.reasons:
        why = "jobs are to be run"
    elif records:
        why = "records are to be made"
    elif any(forced("leaderboard", view) for view in written.views(campaign.out)):
        why = "was asked for"
    if why:
        found.reasons[tables] = why
    if why or not complete.exists() or forced("failures", complete):
        found.reasons[complete] = why or NOT_RUN


def _same_spec(job: Job, spec: Json | None) -> bool:
    """Whether a result is of the job as it is planned; keys that are new have their defaults."""
    if spec is None:
        return False
    planned = _without_places(job.spec.model_dump(mode="json"))
    try:
        told = type(job.spec).model_validate(spec).model_dump(mode="json")
    except ValueError:
        return False
    return _without_places(told) == planned


def _without_places(spec: Json) -> Json:
    """A spec without the folders of what it names by content, too: they may have moved."""
    told = {**spec, **({"plugins": None} if "plugin_sha256" in spec else {})}
    model, data = spec.get("model") or {}, spec.get("data") or {}
    if model.get("identity"):
        told["model"] = {**model, "source": None}
    if data.get("inputs"):
        told["data"] = {**data, "root": None}
    return told


def _read(path: Path, job: Job) -> Left:
    try:
        result = stages.read(path)
    except Invalid as error:
        return Left(False, str(error) if path.exists() else NOT_RUN)
    models = None
    if job.rule == "profile" and result["status"] == "ok":
        models = dict(_entries(result))
    of_leak = part_digest(result) if job.rule == "leak" else None
    return Left(
        done=True,
        spec=result.get("spec"),
        read=result.get("read"),
        written=result.get("written", {}),
        product=of_leak or stages.product(result),
        models=models,
        can_come_back=_holds_the_model(result.get("decision_file")),
    )


def _holds_the_model(part: object) -> bool:
    """Whether a result's decision, with its delta, is enough to make its model again."""
    if not isinstance(part, dict) or part.get("status") != "ok":
        return False
    delta = part.get("delta")
    return delta is None or (isinstance(delta, dict) and delta.get("status") == "ok")


def _entries(profile: Json) -> Iterator[tuple[str, str]]:
    models = profile.get("models")
    for name, entry in (models if isinstance(models, dict) else {}).items():
        yield name, part_digest(entry)
