"""A campaign's plan as text, for reading."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prunebench.campaign.config import Campaign, build
from prunebench.estimate import stages
from prunebench.estimate.machine import cpu, gpu
from prunebench.estimate.stages import Assumptions
from prunebench.estimate.table import (
    CARDS_GIB,
    CELL_JOBS,
    GB,
    GIB,
    JOBS,
    MARGIN,
    PlanRow,
    plan_rows,
)
from prunebench.files import read_yaml

MIB_OF_GIB = 1024


def plan_text(
    file: Path, *, device: str = "cuda", tflops: float | None = None, example_tokens: int = 150
) -> str:
    """The plan of a campaign file. Models and data need not be there.

    `device`: "cuda" or "cpu". `tflops`: arithmetic that one job sustains, 10^12 operations a
    second; None: 150 on a GPU, and on a CPU what is timed here with the campaign's threads.
    """
    from tabulate import tabulate

    campaign = build(read_yaml(file), file=str(file), check_files=False)
    machine = cpu(campaign.resources.threads, tflops) if device == "cpu" else gpu(tflops)
    assumptions = Assumptions(machine, example_tokens)
    rows = plan_rows(campaign, assumptions)
    columns = _columns(is_cpu=machine.is_cpu)
    cells = [[*_first(row), *(show(row) for show in columns.values())] for row in rows]
    head = ["model", "parameters", "row", "cells", *columns]
    table = tabulate(cells, head, "simple", disable_numparse=True)
    lines = [f"{file}: estimates from shapes, not measurements", "", table, ""]
    totals = _totals(rows, campaign, is_cpu=machine.is_cpu)
    return "\n".join([*lines, *totals, *_unknown(rows), *_notes(campaign, assumptions)])


def _columns(*, is_cpu: bool) -> dict[str, Callable[[PlanRow], str]]:
    """Heading -> what stands below it; of a row that could not be estimated, a question mark."""
    columns: dict[str, Callable[[PlanRow], str]] = {}
    for job in JOBS:
        columns[f"{job} GiB"] = partial(_memory, job)
    for job in CELL_JOBS:
        columns[f"{job} min"] = partial(_minutes, job)
    if not is_cpu:
        columns["cells on"] = lambda row: _card(row.card_gb(*CELL_JOBS))
        columns["profile on"] = lambda row: (
            _card(row.card_gb("profile")) if "profile" in row.memory_gib else "-"
        )
    columns["h" if is_cpu else "GPU h"] = lambda row: _about(row.hours)
    columns["disk GB"] = lambda row: _about(row.disk_gb)
    return {name: _known(show) for name, show in columns.items()}


def _memory(job: str, row: PlanRow) -> str:
    return _about(row.memory_gib.get(job))


def _minutes(job: str, row: PlanRow) -> str:
    return _about(row.minutes.get(job))


def _known(show: Callable[[PlanRow], str]) -> Callable[[PlanRow], str]:
    return lambda row: "?" if row.reason else show(row)


def _first(row: PlanRow) -> list[str]:
    parameters = "?" if row.parameters is None else f"{row.parameters:,}"
    return [row.model, parameters, row.label, str(row.cells)]


def _about(value: float | None) -> str:
    return "-" if value is None else f"~{value:.1f}"


def _card(gb: int | None) -> str:
    return f"{gb} GB" if gb else f"> {max(CARDS_GIB)} GB"


def _totals(rows: list[PlanRow], campaign: Campaign, *, is_cpu: bool) -> list[str]:
    known = [row for row in rows if row.reason is None]
    if not known:
        return ["total: nothing could be estimated"]
    cells = sum(row.cells for row in known)
    hours, disk = sum(row.hours for row in known), sum(row.disk_gb for row in known)
    weights = {row.model: row.weight_gib for row in known}
    where = "h of one job at a time" if is_cpu else "GPU h"
    return [
        f"total of {cells} cells: ~{hours:.0f} {where}, ~{disk:.0f} GB of results beside "
        f"~{sum(weights.values()) * GIB / GB:.1f} GB of models",
        _host_memory(known, campaign) if is_cpu else _cards(known, max(weights.values())),
    ]


def _cards(known: list[PlanRow], largest_gib: float) -> str:
    cards = [row.card_gb(*CELL_JOBS) for row in known]
    smallest = _card(None if None in cards else max(filter(None, cards)))
    return (
        f"all cells fit on cards of {smallest}; "
        f"host memory: ~{largest_gib:.0f} GiB and a few more (weights pass through it)"
    )


def _host_memory(known: list[PlanRow], campaign: Campaign) -> str:
    needed = MARGIN * max(gib for row in known for gib in row.memory_gib.values()) * MIB_OF_GIB
    given = campaign.resources.mem_mb
    advice = "" if needed <= given else f"; set it to {100 * -int(-needed // 100)}"
    largest = f"the largest job: ~{needed:.0f} MiB with a tenth to spare"
    return f"{largest}; resources.mem_mb is {given}{advice}"


def _unknown(rows: list[PlanRow]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            reasons.setdefault(f"{row.model}: {row.reason}", []).append(row.label)
    return [f"? {reason} (rows {', '.join(labels)})" for reason, labels in reasons.items()]


def _notes(campaign: Campaign, assumptions: Assumptions) -> list[str]:
    unknown = [suite for suite in campaign.suites if suite not in stages.SUITE_TOKENS]
    machine = assumptions.machine
    speed, dtype = f"{machine.tflops:g} TFLOP/s sustained", "bfloat16"
    if machine.is_cpu:
        speed, dtype = f"{1000 * machine.tflops:.0f} GFLOP/s sustained by a job", "float32"
    return [
        *(f"? suite {suite}: its size is not known, its time not counted" for suite in unknown),
        "",
        f"assumed: {speed}; {assumptions.example_tokens} tokens "
        f"for each tuning example where no token budget is given; {dtype} unless the entry says",
        "per token: 2 N forward, 4 N with LoRA, 6 N with all gradients (N: parameters in use); "
        "memory: weights + activations + 16 bytes for each LoRA parameter",
        "GiB and min: of the largest cell, with nothing beside it; a profile holds all versions of "
        "a model at once: set `together` where they do not fit",
        "not in it: what methods that tune by themselves add to LoRA, waiting, retries; "
        "docs/paper-reproduction.md has the formulas",
    ]
