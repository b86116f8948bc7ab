"""A campaign's plan as rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.rows import Row
from prunebench.campaign.specs import profiled_cells
from prunebench.errors import Invalid, Unsupported
from prunebench.estimate import stages
from prunebench.estimate.sizes import Sizes, lora_parameters, sizes_of
from prunebench.estimate.stages import Assumptions, Stage
from prunebench.plugins.description import Plugin
from prunebench.plugins.passes import Passes
from prunebench.untyped import Module

GIB, GB = 2**30, 1e9
CARDS_GIB = {24: 22.5, 40: 38.5, 48: 46.5, 80: 78.0, 141: 139.0}
"""Memory that a card of so many GB leaves to a process."""
MARGIN = 1.1
CELL_JOBS = ("prune", "recover", "evaluate")
JOBS = (*CELL_JOBS, "profile")


@dataclass(frozen=True)
class PlanRow:
    """The cost of one model x row: all its sparsities and seeds.

    weight_gib  of the dense model
    memory_gib  job -> peak of the largest cell; jobs that the row has not are left out
    minutes     job -> wall time of the longest cell
    hours       of all its jobs; a pruning that two rows share is in the first of them
    disk_gb     what stays on disk afterwards
    reason      why there is no estimate; the figures are empty then
    """

    model: str
    label: str
    cells: int
    parameters: int | None = None
    weight_gib: float = 0.0
    memory_gib: Mapping[str, float] = field(default_factory=dict)
    minutes: Mapping[str, float] = field(default_factory=dict)
    hours: float = 0.0
    disk_gb: float = 0.0
    reason: str | None = None

    def card_gb(self, *jobs: str) -> int | None:
        """The smallest card on which these jobs fit with 10 % to spare; None if there is none."""
        need = MARGIN * max((self.memory_gib.get(job, 0.0) for job in jobs), default=0.0)
        return next((gb for gb, gib in CARDS_GIB.items() if need <= gib), None)


def plan_rows(campaign: Campaign, assumptions: Assumptions) -> list[PlanRow]:
    """Every model x row of a campaign, in its order."""
    rows = []
    for name, entry in campaign.models.items():
        cells: dict[str, list[Cell]] = {label: [] for label in campaign.rows}
        for cell in campaign.cells:
            if cell.model == name:
                cells[cell.label].append(cell)
        try:
            model = _Model(campaign, *sizes_of(entry, assumptions.machine.device))
        except (Unsupported, Invalid) as error:
            rows += [
                PlanRow(name, label, len(own), reason=str(error)) for label, own in cells.items()
            ]
            continue
        pruned: set[str] = set()
        for label, own in cells.items():
            row = campaign.rows[label]
            rows.append(_row(model, row, own, assumptions, first=row.pruned_as not in pruned))
            pruned.add(row.pruned_as)
    return rows


@dataclass(frozen=True)
class _Model:
    campaign: Campaign
    sizes: Sizes
    empty: Module  # the model on the meta device

    def kept(self, cell: Cell) -> float:
        """Share of all parameters that a cell keeps."""
        sizes, of = self.sizes, self.campaign.sparsity_of
        return 1.0 - cell.sparsity * (sizes.decoder / sizes.parameters if of == "decoder" else 1.0)


def _row(
    model: _Model, row: Row, cells: list[Cell], assumptions: Assumptions, *, first: bool
) -> PlanRow:
    base = PlanRow(cells[0].model, row.label, len(cells))
    try:
        jobs = list(_jobs(model, row, cells, assumptions, first=first))
    except (Invalid, Unsupported) as error:  # targets that the family has not, data of unknown size
        return replace(base, reason=str(error))
    machine = assumptions.machine
    memory: dict[str, float] = {}
    minutes: dict[str, float] = {}
    for name, stage, _ in jobs:
        memory[name] = max(memory.get(name, 0.0), stage.peak_bytes(machine) / GIB)
        minutes[name] = max(minutes.get(name, 0.0), stage.seconds(machine) / 60)
    return replace(
        base,
        parameters=model.sizes.parameters,
        weight_gib=model.sizes.weight_bytes / GIB,
        memory_gib=memory,
        minutes=minutes,
        hours=sum(stage.seconds(machine) for _, stage, _ in jobs) / 3600,
        disk_gb=sum(disk for _, _, disk in jobs) / GB,
    )


def _jobs(
    model: _Model, row: Row, cells: list[Cell], assumptions: Assumptions, *, first: bool
) -> Iterator[tuple[str, Stage, float]]:
    """(job, its cost, bytes of models that stay on disk) of all cells; the shared ones once."""
    campaign, sizes = model.campaign, model.sizes
    plugin = campaign.plugins[row.method]
    for cell in cells:
        kept = model.kept(cell)
        saved = kept * sizes.weight_bytes
        if first:
            stays = campaign.keep_models == "all" or (
                campaign.keep_models == "last" and not row.recovery
            )
            stays = stays and not plugin.unpruned
            yield "prune", _prune(model, row, kept, assumptions), saved if stays else 0.0
        if row.recovery:
            stays = campaign.keep_models != "none"
            yield "recover", _recover(model, kept, assumptions), saved if stays else 0.0
        measured = stages.evaluate(sizes, campaign.perplexity, campaign.asked, kept)
        yield "evaluate", measured, 0.0
    if campaign.profile and first and not plugin.unpruned:
        own = sorted({model.kept(cell) for cell in cells}, reverse=True)
        timed = stages.profile(sizes, campaign.profile, own)
        whole = stages.profile(sizes, campaign.profile, _together(model, cells[0].model))
        yield "profile", replace(timed, memory_bytes=whole.memory_bytes), 0.0


def _together(model: _Model, name: str) -> list[float]:
    """What is kept of the models that lie on the device at once: the largest group of a profile."""
    assert model.campaign.profile is not None  # the caller asked
    pruned = [cell for cell in profiled_cells(model.campaign, name) if cell.sparsity > 0]
    kept = [1.0, *sorted(map(model.kept, pruned), reverse=True)]
    return kept[: model.campaign.profile.together]


def _prune(model: _Model, row: Row, kept: float, assumptions: Assumptions) -> Stage:
    """What the method's description says of its passes, beside tuning if it tunes by itself."""
    plugin = model.campaign.plugins[row.method]
    job = stages.load_and_save(model.sizes, kept)
    if plugin.tunes_itself:
        job = _recover(model, 1.0, assumptions)
    calibration = model.campaign.calibration
    own = [row.params.get(key) for key in ("samples", "length")]
    samples, length = (int(value) if isinstance(value, int) else 0 for value in own)
    if calibration is not None:
        samples, length = samples or calibration.samples, length or calibration.length
    for passes in _unsaid(plugin) if plugin.passes is None else plugin.passes:
        times = passes.count(row.params)
        if passes.tuning:
            tokens = _examples(model, passes.samples or 0, assumptions)
        else:
            tokens = passes.share(samples) * samples * length if samples else 0.0
        forward, backward = times * passes.forward, times * passes.backward
        part = stages.passes(model.sizes, tokens, forward, backward, frozen=passes.frozen)
        job = stages.after(job, part)
    return job


def _unsaid(plugin: Plugin) -> tuple[Passes, ...]:
    """What is assumed of a method that does not say it."""
    reads = not plugin.deterministic and not plugin.tunes_itself
    return (Passes(forward=1.0, backward=1.0),) if reads else ()


def _examples(model: _Model, count: int, assumptions: Assumptions) -> float:
    """Tokens of so many tuning examples in one batch, padding included."""
    recovery = model.campaign.recovery
    assert recovery is not None  # a method that reads tuning text tunes by itself
    longest = assumptions.example_tokens * stages.padded(count)
    return count * min(float(recovery.settings().length), longest)


def _recover(model: _Model, kept: float, assumptions: Assumptions) -> Stage:
    recovery = model.campaign.recovery
    assert recovery is not None  # rows with tuning need it: the campaign was validated
    settings = recovery.settings()
    tokens = stages.recovery_tokens(recovery, settings, assumptions)
    return stages.recover(
        model.sizes, settings, lora_parameters(model.empty, settings), tokens, kept
    )
