"""What a record lacks: parts that were tried or wanted, and inputs that did not fit."""

from __future__ import annotations

from collections.abc import Iterator

from prunebench.record.form import Record
from prunebench.record.parts import Lost, there

PARTS = (
    *("verify", "export", "perplexity", "zeroshot", "generation", "texts"),
    *("profile", "cost", "leak"),
)


def missing_parts(record: Record) -> Iterator[tuple[str, str, str]]:
    """(part, status, reason) of each part of a record that was tried or wanted and is not there."""
    for name in PARTS:
        yield from _if_lost(getattr(record, name), name)
    for key, entry in (there(record.perplexity) or {}).items():
        yield from _if_lost(entry, f"perplexity {key}")
        measured = there(entry)
        if measured is not None and measured.nll is not None and measured.value is None:
            reason = "the perplexity is too large for a floating-point number"
            yield f"perplexity {key}", "failed", reason
    for name, lost in (("zeroshot", record.zeroshot), ("generation", record.generation)):
        if suite := there(lost):
            for key, task in suite.tasks.items():
                yield from _if_lost(task, f"{name} {key}")
    if profile := there(record.profile):
        for point in profile.points:
            if point.lost:
                yield f"profile {point.name}", point.status, point.reason or ""
            else:
                yield from _if_lost(point.prefill_speedup, f"profile {point.name} prefill_speedup")
                yield from _if_lost(point.decode_speedup, f"profile {point.name} decode_speedup")
    if cost := there(record.cost):
        yield from _if_lost(cost.prune, "cost prune")
        yield from _if_lost(cost.recover, "cost recover")


def _if_lost(part: object, name: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(part, Lost):
        yield name, part.status, part.reason


def truncated(record: Record) -> dict[str, tuple[int, int | None]]:
    """Evaluation set -> (inputs that did not fit and lost a part, all inputs)."""
    perplexities = [(k, there(part)) for k, part in (there(record.perplexity) or {}).items()]
    tasks = [
        (key + suffix, there(part))
        for suffix, lost in (("", record.zeroshot), (", generated", record.generation))
        if (suite := there(lost))
        for key, part in suite.tasks.items()
    ]
    return {
        name: (part.truncated, part.items)
        for name, part in [*perplexities, *tasks]
        if part is not None and part.truncated
    }
