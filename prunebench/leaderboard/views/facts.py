"""What the report says of the campaign as a whole: counts, protocols, devices, versions, losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prunebench.leaderboard.numbers.collect import Collected, Problem, cell_name
from prunebench.leaderboard.numbers.losses import missing_parts
from prunebench.leaderboard.numbers.quantities import QUALITY, Quantity
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.columns import greedily, shots, titles
from prunebench.record.form import Provenance, Record

T = TypeVar("T", str, int, float)

SHOWN_PACKAGES = ("torch", "transformers", "peft", "lm_eval")


@dataclass(frozen=True)
class Loss:
    """Something that was not measured: a cell, or (`part` set) a part of cells that are ok.

    log  of the job that failed, from the campaign's folder on, where there is one
    """

    cells: tuple[str, ...]
    status: str
    reason: str
    part: str = ""
    log: str = ""


@dataclass(frozen=True)
class Facts:
    """`protocols` are (name in the tables, key, explanation)."""

    ok: int
    failed: int
    skipped: int
    campaigns: tuple[str, ...]
    models: tuple[str, ...]
    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    dates: tuple[str, ...]
    versions: tuple[str, ...]
    packages: tuple[str, ...]
    devices: tuple[str, ...]
    protocols: tuple[tuple[str, str, str], ...]
    lost_cells: tuple[Loss, ...]
    lost_parts: tuple[Loss, ...]
    problems: tuple[Problem, ...]


def gather(collected: Collected) -> Facts:
    """All of it from the records."""
    records = collected.records
    status = [record.status for record in records]
    cells = [record.cell for record in records]
    days = sorted({record.provenance.created[:10] for record in records})
    return Facts(
        ok=status.count("ok"),
        failed=status.count("failed"),
        skipped=status.count("skipped"),
        campaigns=_unique(cell.campaign for cell in cells),
        models=_unique(cell.model for cell in cells),
        methods=_unique(cell.label for cell in cells),
        sparsities=_unique(cell.sparsity for cell in cells),
        seeds=_unique(cell.seed for cell in cells),
        dates=tuple(days if len(days) < 2 else (days[0], days[-1])),
        versions=_unique(_version(record.provenance) for record in records),
        packages=_packages(records),
        devices=_unique(q.device for q in collected.quantities if q.device),
        protocols=tuple(_protocols(collected.quantities)),
        lost_cells=tuple(
            Loss((cell_name(record),), record.status, record.reason or "", log=record.log or "")
            for record in records
            if record.status != "ok"
        ),
        lost_parts=tuple(_lost_parts(records)),
        problems=collected.problems,
    )


def counts(facts: Facts) -> str:
    """The first thing to know: 63 cells: 60 ok, 2 failed, 1 skipped."""
    total = facts.ok + facts.failed + facts.skipped
    parts = [f"{facts.ok} ok", f"{facts.failed} failed", f"{facts.skipped} skipped"]
    noun = "cell" if total == 1 else "cells"
    unread = len(facts.problems)
    files = f"; {unread} record{'s' * (unread != 1)} left out" if unread else ""
    return f"{total} {noun}: {', '.join(parts)}{files}"


def _unique(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(sorted(set(values)))


def _version(provenance: Provenance) -> str:
    commit = (provenance.git_commit or "")[:10]
    text = f"prunebench {provenance.prunebench_version}"
    text += f" ({commit}{', uncommitted changes' if provenance.git_dirty else ''})" * bool(commit)
    return text


def _packages(records: Sequence[Record]) -> tuple[str, ...]:
    """Python and the packages that decide numbers; several versions are all named."""
    found = {f"python {record.provenance.python}" for record in records}
    texts = [" / ".join(sorted(found))] if found else []
    for name in SHOWN_PACKAGES:
        versions = {v for record in records if (v := record.provenance.packages.get(name))}
        if versions:
            texts.append(f"{name} {' / '.join(sorted(versions))}")
    return tuple(texts)


def _protocols(quantities: Sequence[Quantity]) -> list[tuple[str, str, str]]:
    """One explanation per column title; what differs between models only is told as a range."""
    quality = [quantity for kind in QUALITY for quantity in quantities if quantity.kind == kind]
    explained: dict[tuple[str, str, str], set[int]] = {}
    for title, quantity in zip(_titles_of(quality), quality, strict=True):
        key = quantity.detail("protocol") or quantity.name
        text = _perplexity(quantity) if quantity.kind == "perplexity" else _suite(quantity)
        tokens = explained.setdefault((title, key, text), set())
        if quantity.detail("tokens"):
            tokens.add(int(quantity.detail("tokens")))
    return [
        (title, key, text + _predictions(tokens))
        for (title, key, text), tokens in explained.items()
    ]


def _titles_of(quality: Sequence[Quantity]) -> list[str]:
    """Titles as in the tables, where models and devices do not share a table."""
    return [titles([quantity])[0] for quantity in quality]


def _predictions(tokens: set[int]) -> str:
    if not tokens:
        return ""
    ends = sorted({min(tokens), max(tokens)})
    return f"; {' to '.join(f'{end:,}' for end in ends)} predicted tokens"


def _perplexity(quantity: Quantity) -> str:
    detail = dict(quantity.details)
    pieces = detail["mode"]
    cut = f"{pieces} of {detail['length']} tokens"
    if pieces == "documents":
        cut = f"{pieces} cut at {detail['length']} tokens"
    part = f"the first {detail['limit']} {pieces} only" if "limit" in detail else "the whole text"
    return f"perplexity on {quantity.name} {detail['split']}, {cut}, {part}"


def _suite(quantity: Quantity) -> str:
    detail = dict(quantity.details)
    figures = detail["metrics"].replace(", ", " or ") if "metrics" in detail else "the accuracies"
    how = [shots([quantity])]
    how += ["through the chat template"] if "chat" in detail else []
    how += [f"the first {detail['limit']} items of each" if "limit" in detail else "all items"]
    how += [greedily([quantity])] if "max_new_tokens" in detail else []
    chance = ""
    if "chance" in detail:  # not so where a task is missing, and with it the suite's mean
        chance = f"; chance {formats.plain(float(detail['chance']), 'fraction')} %"
    return (
        f"plain mean of {figures} on {detail['tasks']}; {', '.join(how)}, through "
        f"{detail['harness']}{chance}"
    )


def _lost_parts(records: Sequence[Record]) -> list[Loss]:
    """Parts that cells with status ok lack, one line per part and reason."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        if record.status == "ok":
            for lost in missing_parts(record):
                found.setdefault(lost, []).append(cell_name(record))
    return [
        Loss(tuple(cells), status, reason, part)
        for (part, status, reason), cells in sorted(found.items())
    ]
