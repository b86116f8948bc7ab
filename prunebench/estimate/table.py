"""A campaign's plan as rows and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from prunebench.campaign.config import Campaign, Cell, build
from prunebench.campaign.rows import Row
from prunebench.campaign.specs import profiled_cells
from prunebench.errors import Invalid, Unsupported
from prunebench.estimate import stages
from prunebench.estimate.sizes import Sizes, lora_parameters, sizes_of
from prunebench.estimate.stages import Assumptions, Stage
from prunebench.files import read_yaml
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
    hours       GPU hours of all its jobs; a pruning that two rows share is in the first of them
    disk_gb     what stays on disk afterwards
    reason      why there is no estimate; the figures are empty then
    """

    model: str
    label: str
    cells: int
    parameters: int | None = None
    weight_gib: float = 0.0
    memory_gib: Mapping[str, float] = field(default_factory=dict)
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
            model = _Model(campaign, *sizes_of(entry))
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


def _row(
    model: _Model, row: Row, cells: list[Cell], assumptions: Assumptions, *, first: bool
) -> PlanRow:
    base = PlanRow(cells[0].model, row.label, len(cells))
    try:
        jobs = list(_jobs(model, row, cells, assumptions, first=first))
    except (Invalid, Unsupported) as error:  # targets that the family has not, data of unknown size
        return replace(base, reason=str(error))
    memory: dict[str, float] = {}
    for name, stage, _ in jobs:
        memory[name] = max(memory.get(name, 0.0), stage.memory_bytes / GIB)
    return replace(
        base,
        parameters=model.sizes.parameters,
        weight_gib=model.sizes.weight_bytes / GIB,
        memory_gib=memory,
        hours=sum(stage.seconds(assumptions) for _, stage, _ in jobs) / 3600,
        disk_gb=sum(disk for _, _, disk in jobs) / GB,
    )


def _jobs(
    model: _Model, row: Row, cells: list[Cell], assumptions: Assumptions, *, first: bool
) -> Iterator[tuple[str, Stage, float]]:
    """(job, its cost, bytes that it leaves on disk) of all cells; the shared ones once."""
    campaign, sizes = model.campaign, model.sizes
    plugin = campaign.plugins[row.method]
    for cell in cells:
        kept = 1.0 - cell.sparsity
        saved = kept * sizes.weight_bytes
        if first:
            changed = not plugin.unpruned
            yield "prune", _prune(model, row, kept, assumptions), saved if changed else 0.0
        if row.recovery:
            yield "recover", _recover(model, kept, assumptions), saved
        measured = stages.evaluate(sizes, campaign.perplexity, campaign.asked, kept)
        yield "evaluate", measured, 0.0
    if campaign.profile and first and not plugin.unpruned:
        own = sorted({1.0 - cell.sparsity for cell in cells}, reverse=True)
        timed = stages.profile(sizes, campaign.profile, own)
        whole = stages.profile(sizes, campaign.profile, _together(campaign, cells[0].model))
        yield "profile", replace(timed, memory_bytes=whole.memory_bytes), 0.0


def _together(campaign: Campaign, model: str) -> list[float]:
    """What is kept of the models that lie on the device at once: the largest group of a profile."""
    assert campaign.profile is not None  # the caller asked
    cells = profiled_cells(campaign, model)
    kept = [1.0, *sorted((1.0 - c.sparsity for c in cells if c.sparsity > 0), reverse=True)]
    return kept[: campaign.profile.together]


def _prune(model: _Model, row: Row, kept: float, assumptions: Assumptions) -> Stage:
    """Upper bounds: what a method reads is its own affair, only its kind is known here."""
    plugin = model.campaign.plugins[row.method]
    if plugin.tunes_itself:
        return _recover(model, 1.0, assumptions)
    calibration = model.campaign.calibration
    if plugin.deterministic or calibration is None:  # no calibration text is drawn for it
        return stages.load_only(model.sizes)
    own = [row.params.get(key) for key in ("samples", "length")]
    samples, length = (int(value) if isinstance(value, int) else 0 for value in own)
    tokens = (samples or calibration.samples) * (length or calibration.length)
    return stages.score(model.sizes, tokens, kept)


def _recover(model: _Model, kept: float, assumptions: Assumptions) -> Stage:
    recovery = model.campaign.recovery
    assert recovery is not None  # rows with tuning need it: the campaign was validated
    settings = recovery.settings()
    tokens = stages.recovery_tokens(recovery, settings, assumptions)
    return stages.recover(
        model.sizes, settings, lora_parameters(model.empty, settings), tokens, kept
    )


def plan_text(file: Path, assumptions: Assumptions) -> str:
    """The plan of a campaign file, for reading. Models and data need not be there."""
    from tabulate import tabulate

    campaign = build(read_yaml(file), file=str(file), check_files=False)
    rows = plan_rows(campaign, assumptions)
    head = ["model", "parameters", "row", "cells", *(f"{job} GiB" for job in JOBS)]
    head += ["cells on", "profile on", "GPU h", "disk GB"]
    table = tabulate([_line(row) for row in rows], head, "simple", disable_numparse=True)
    lines = [f"{file}: estimates from shapes, not measurements", "", table, ""]
    return "\n".join([*lines, *_totals(rows), *_unknown(rows), *_notes(campaign, assumptions)])


def _line(row: PlanRow) -> list[str]:
    if row.reason:
        return [row.model, "?", row.label, str(row.cells), *["?"] * (len(JOBS) + 4)]
    memory = [f"~{row.memory_gib[job]:.1f}" if job in row.memory_gib else "-" for job in JOBS]
    cards = [_card(row.card_gb(*CELL_JOBS))]
    cards.append(_card(row.card_gb("profile")) if "profile" in row.memory_gib else "-")
    figures = [f"~{row.hours:.1f}", f"~{row.disk_gb:.1f}"]
    return [row.model, f"{row.parameters:,}", row.label, str(row.cells), *memory, *cards, *figures]


def _card(gb: int | None) -> str:
    return f"{gb} GB" if gb else f"> {max(CARDS_GIB)} GB"


def _totals(rows: list[PlanRow]) -> list[str]:
    known = [row for row in rows if row.reason is None]
    if not known:
        return ["total: nothing could be estimated"]
    cells = sum(row.cells for row in known)
    hours, disk = sum(row.hours for row in known), sum(row.disk_gb for row in known)
    weights = {row.model: row.weight_gib for row in known}
    cards = [row.card_gb(*CELL_JOBS) for row in known]
    return [
        f"total of {cells} cells: ~{hours:.0f} GPU h, ~{disk:.0f} GB of results beside "
        f"~{sum(weights.values()) * GIB / GB:.0f} GB of models",
        f"all cells fit on cards of {_card(None if None in cards else max(filter(None, cards)))}; "
        f"host memory: ~{max(weights.values()):.0f} GiB and a few more (weights pass through it)",
    ]


def _unknown(rows: list[PlanRow]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            reasons.setdefault(f"{row.model}: {row.reason}", []).append(row.label)
    return [f"? {reason} (rows {', '.join(labels)})" for reason, labels in reasons.items()]


def _notes(campaign: Campaign, assumptions: Assumptions) -> list[str]:
    unknown = [suite for suite in campaign.suites if suite not in stages.SUITE_TOKENS]
    return [
        *(f"? suite {suite}: its size is not known, its time not counted" for suite in unknown),
        "",
        f"assumed: {assumptions.tflops:g} TFLOP/s sustained; {assumptions.example_tokens} tokens "
        "for each tuning example where no token budget is given; bfloat16 unless the entry says",
        "per token: 2 N forward, 4 N with LoRA, 6 N with all gradients (N: parameters in use); "
        "memory: weights + activations + 16 bytes for each LoRA parameter",
        "a profile holds all versions of a model at once: set `together` where they do not fit",
        "not in it: what methods that tune by themselves add to LoRA, waiting, retries; "
        "docs/paper-reproduction.md has the formulas",
    ]
