"""What is claimed beside what was measured, its limit, and the verdict. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.parts import ClaimEntry, PointEntry
from prunebench.errors import Invalid
from prunebench.record.parts import Lost, there
from prunebench.record.store import read
from prunebench.untyped import Json, JsonMap
from prunebench.whole import write_json, write_text

STEP_FIGURES = ("memory_ratio", "throughput_ratio")
HEADERS = ("Claim", "Source", "Published", "Measured", "Limit", "Goal", "Verdict")


@dataclass(frozen=True)
class Figure:
    """A measured figure. low, high: its interval; limit: none is better; reason: why it is None."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    reason: str | None = None


def write_table(campaign: Campaign) -> Path:
    """Write claims.json and claims.md into the campaign's folder; returns the latter's path."""
    from tabulate import tabulate

    lines = claim_lines(campaign)
    write_json(campaign.out.view("claims.json"), {"campaign": campaign.name, "claims": lines})
    body = [[_cell(line, header) for header in HEADERS] for line in lines]
    table = tabulate(body, HEADERS, tablefmt="github", disable_numparse=True)
    path = campaign.out.view("claims.md")
    write_text(path, f"# Claims: {campaign.name}\n\n{_where(campaign)}\n\n{table}\n\n{NOTES}\n")
    return path


NOTES = """\
Speed-ups are over the dense model at the same point, measured in turns, with a 95 % interval.
Limit: of prefill the ratio of MACs, of decode the ratio of bytes read, of memory the ratio of what
must be kept, of throughput the ratio of MACs. The goal decides the verdict. A published figure
beyond the limit cannot come from this quantity alone."""


def claim_lines(campaign: Campaign) -> list[Json]:
    """Each claim with its figure and verdict, as plain data."""
    lines = []
    for claim in campaign.claims:
        figure = _figure(campaign, claim)
        given = {key: value for key, value in claim.model_dump().items() if value is not None}
        figures = {**vars(figure), "verdict": verdict(claim, figure)}
        lines.append({"published": claim.published, **given, **figures})
    return lines


def verdict(claim: ClaimEntry, figure: Figure) -> str:
    """reached | not reached | measured (no goal) | not measured: why."""
    if figure.value is None:
        return f"not measured: {figure.reason}"
    found = "measured"
    if claim.at_least is not None:
        found = "reached" if figure.value >= claim.at_least else "not reached"
    elif claim.at_most is not None:
        found = "reached" if figure.value <= claim.at_most else "not reached"
    published, limit = claim.published, figure.limit
    if published is None or limit is None:
        return found
    beyond = published < limit if claim.figure == "memory_ratio" else published > limit
    return f"{found}; the published figure is beyond the limit" if beyond else found


def check_claims(campaign: Campaign) -> None:
    """Raise Invalid, naming the key, where a step or a claim names what the campaign has not."""
    if (campaign.steps or campaign.claims) and len(campaign.models) != 1:
        raise Invalid(f"{campaign.file}: steps and claims are for one model, not for several")
    rows = campaign.steps.rows if campaign.steps else ()
    for i, entry in enumerate(rows):
        if entry.method not in campaign.plugins:
            where = f"{campaign.file}: steps.rows[{i}].method"
            raise Invalid(f"{where}: unknown method {entry.method!r}")
    steps = {entry.label for entry in rows}
    cells = {(cell.label, cell.sparsity) for cell in campaign.cells}
    timed = campaign.profile.points if campaign.profile else ()
    points = {_point_name(point) for point in timed}
    for i, claim in enumerate(campaign.claims):
        where = f"{campaign.file}: claims[{i}]"
        if claim.figure in STEP_FIGURES:
            named = {"of": claim.of, "to": claim.to}
            missing = [key for key, label in named.items() if label not in steps]
        else:
            missing = [] if (claim.of, claim.sparsity) in cells else ["of, sparsity"]
            missing += [] if claim.point in points else ["point"]
        if missing:
            raise Invalid(f"{where}.{missing[0]}: names nothing that this campaign measures")


def _figure(campaign: Campaign, claim: ClaimEntry) -> Figure:
    if claim.figure in STEP_FIGURES:
        return _of_steps(campaign, claim)
    return _of_record(campaign, claim)


def _of_steps(campaign: Campaign, claim: ClaimEntry) -> Figure:
    """Memory: of / to. Throughput: tokens per second, of / to; its limit is the ratio of MACs."""
    pair = [_read(campaign.out.step(str(label))) for label in (claim.of, claim.to)]
    for step in pair:
        if step["status"] != "ok":
            return Figure(reason=step["reason"])
    of, to = pair
    if claim.figure == "memory_ratio":
        limit = of["floor_mib"] / to["floor_mib"]
        return Figure(of["peak_allocated_mib"] / to["peak_allocated_mib"], limit=limit)
    per_token = [step["macs"] / step["tokens"] for step in pair]
    limit = per_token[1] / per_token[0] if all(per_token) else None
    return Figure(of["tokens_per_s"] / to["tokens_per_s"], limit=limit)


def _of_record(campaign: Campaign, claim: ClaimEntry) -> Figure:
    """A speed-up over dense at a point, or its share of the limit."""
    (model,) = campaign.models
    assert claim.sparsity is not None  # checked with the campaign
    path = campaign.out.cell(Cell(model, claim.of, claim.sparsity, campaign.seeds[0])).record
    if not path.is_file():
        return Figure(reason=f"no {path}")
    record = read(path)
    if record.status != "ok" or record.profile is None:
        return Figure(reason=record.reason)
    if isinstance(record.profile, Lost):
        return Figure(reason=record.profile.reason)
    point = next((p for p in record.profile.points if p.name == claim.point), None)
    if point is None:
        return Figure(reason=f"no point {claim.point}")
    phase, _, what = claim.figure.partition("_")
    ratio = there(point.prefill_speedup if phase == "prefill" else point.decode_speedup)
    if ratio is None:
        return Figure(reason=point.reason or point.missing.get(f"{phase}_speedup"))
    if what == "share":
        return Figure(ratio.share_of_limit, limit=1.0)
    return Figure(ratio.ratio, ratio.low, ratio.high, ratio.limit)


def _cell(line: JsonMap, header: str) -> str:
    if header == "Measured":
        interval = line["low"] is not None
        ends = f" ({line['low']:.3f} to {line['high']:.3f})" if interval else ""
        return _number(line["value"]) + ends
    if header == "Goal":
        signs = {"at_least": "≥", "at_most": "≤"}
        return "".join(f"{sign} {line[key]:g}" for key, sign in signs.items() if key in line)
    value = line[header.lower()]
    return _number(value) if header in ("Published", "Limit") else str(value).replace("|", "/")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _where(campaign: Campaign) -> str:
    """On what all this was measured, from the parts themselves."""
    devices: set[str] = set()
    dates: set[str] = set()
    packages: dict[str, str | None] = {}
    for path in sorted(campaign.out.measurements()):
        part = _read(path)
        found = [part, *part.get("models", {}).values()]
        devices |= {one["device"] for one in found if one.get("device")}
        if made := part.get("provenance"):
            dates.add(made["created"][:10])
            packages |= made["packages"]
    named = ("torch", "transformers", "peft")
    versions = ", ".join(f"{name} {packages.get(name)}" for name in named)
    where = "; ".join(sorted(devices)) or "nothing measured"
    return f"{where}; {versions}; {', '.join(sorted(dates))}"


def _point_name(point: PointEntry) -> str:
    return f"b{point.batch}-p{point.prompt}-n{point.new}"


def _read(path: Path) -> Json:
    if not path.is_file():
        return {"status": "failed", "reason": f"no {path}"}
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found
