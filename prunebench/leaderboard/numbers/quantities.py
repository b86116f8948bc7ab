"""What one record measured, as numbers that say with which others they may be compared.

A Quantity is one column of the report. Two numbers share it only if protocol, limit, data, harness
and device are the same, so that no column can mix them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from prunebench.record.form import Record
from prunebench.record.measured import (
    CostPart,
    Difference,
    PointPart,
    ProfilePart,
    Quartiles,
    StepPart,
    SuitePart,
    TaskPart,
)
from prunebench.record.parts import Lost, there

FEWEST_REPEATS = 4  # quartiles of fewer say nothing of an error
MEDIAN_ERROR = 0.929  # standard error of a median over IQR / sqrt(n), for normal noise


@dataclass(frozen=True)
class Kind:
    """How numbers of a kind are read: unit, the better direction, whether methods are ranked."""

    unit: str
    better: str = ""  # "lower", "higher" or "" where neither is better in itself
    ranked: bool = False


KINDS: dict[str, Kind] = {
    "perplexity": Kind("perplexity", "lower", ranked=True),
    "zeroshot": Kind("fraction", "higher", ranked=True),
    "above_chance": Kind("fraction", "higher"),
    "task": Kind("fraction", "higher", ranked=True),
    "parameters": Kind("count"),
    "macs": Kind("count"),
    "aligned_to": Kind("count"),
    "weights_mib": Kind("MiB"),
    "disk_mib": Kind("MiB"),
    # Times and peaks of different rows come from jobs of their own, so no rank tells them apart: a
    # speed-up over the dense model, measured in turns in the row's own job, does.
    "prefill_ms": Kind("ms", "lower"),
    "prefill_speedup": Kind("ratio", "higher", ranked=True),
    "prefill_limit": Kind("ratio"),
    "prefill_share": Kind("fraction", "higher"),
    "decode_ms_per_token": Kind("ms", "lower"),
    "decode_speedup": Kind("ratio", "higher", ranked=True),
    "decode_limit": Kind("ratio"),
    "decode_share": Kind("fraction", "higher"),
    "peak_allocated_mib": Kind("MiB", "lower"),
    "kv_cache_mib": Kind("MiB", "lower"),
} | {
    f"{job}_{name}": Kind(unit, "lower")
    for job in ("prune", "recover")
    for name, unit in (
        ("wall_s", "s"),
        ("forward_tokens", "count"),
        ("backward_tokens", "count"),
        ("peak_device_mib", "MiB"),
        ("peak_device_reserved_mib", "MiB"),
        ("peak_host_mib", "MiB"),
        ("energy_j", "J"),
    )
}
KINDS |= {
    "step_tokens_per_s": Kind("tokens/s", "higher"),
    "step_peak_mib": Kind("MiB", "lower"),
    "step_floor_mib": Kind("MiB"),
    "step_macs_per_token": Kind("count"),
}
QUALITY = ("perplexity", "zeroshot")


@dataclass(frozen=True, order=True)
class Quantity:
    """One column: what is measured, under which protocol, on which device ("" where none)."""

    kind: str
    name: str  # corpus, suite, task or point; "" where the kind says all
    details: tuple[tuple[str, str], ...] = ()
    device: str = ""

    def detail(self, key: str) -> str:
        return dict(self.details).get(key, "")


@dataclass(frozen=True)
class Measurement:
    """One number of one record; `error` is its standard error within the run (over items)."""

    quantity: Quantity
    value: float
    error: float | None = None
    low: float | None = None  # 95 % interval within the run, where the record itself has one
    high: float | None = None
    difference_low: float | None = None  # 95 % interval of value - dense, paired item by item
    difference_high: float | None = None
    reference_low: float | None = None  # the same, from the campaign's reference row
    reference_high: float | None = None


def measurements(record: Record) -> Iterator[Measurement]:
    """Every number of a record that a table may show; missing parts give none."""
    if step := there(record.step):
        yield from _step(step)
        return
    yield from _perplexities(record)
    if zeroshot := there(record.zeroshot):
        yield from _zeroshot(zeroshot, evaluation_device(record))
    yield from _size(record)
    if profile := there(record.profile):
        yield from _speed(profile)
    if cost := there(record.cost):
        yield from _cost(cost, evaluation_device(record))


def evaluation_device(record: Record) -> str:
    """The device of everything that names none of its own."""
    return record.provenance.device or ""


def _details(**details: object) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in details.items() if value is not None)


def _perplexities(record: Record) -> Iterator[Measurement]:
    for key, part in (there(record.perplexity) or {}).items():
        entry = there(part)
        if entry is None or entry.value is None:
            continue
        details = _details(
            length=entry.length,
            mode=entry.mode,
            split=entry.split,
            limit=entry.limit,
            bos=None if entry.bos == "text" else entry.bos,
            tokens=entry.tokens,
            protocol=key,
            data=(entry.data_sha256 or "")[:12] or None,
        )
        device = entry.device or evaluation_device(record)
        # d exp(x) = exp(x) dx: the loss's error becomes the perplexity's
        error = None if entry.nll_stderr is None else entry.nll_stderr * entry.value
        yield Measurement(Quantity("perplexity", entry.corpus, details, device), entry.value, error)


def _zeroshot(part: SuitePart, default_device: str) -> Iterator[Measurement]:
    device = part.device or default_device
    harness = f"{part.harness.name} {part.harness.version}"
    common = {"suite": part.suite, "limit": part.limit, "harness": harness}
    tasks = {name: task for name, lost in sorted(part.tasks.items()) if (task := there(lost))}
    plan = _details(**common, tasks=", ".join(tasks), chance=_rounded(part.mean_chance))
    suite = {
        kind: Quantity(kind, part.suite, plan, device) for kind in ("zeroshot", "above_chance")
    }
    if part.mean is not None:
        yield Measurement(
            suite["zeroshot"],
            part.mean,
            part.mean_stderr,
            **_ends("difference", *_paired_mean(part, tasks.values(), "versus_dense")),
            **_ends("reference", *_paired_mean(part, tasks.values(), "versus_reference")),
        )
    if part.mean_above_chance is not None:
        yield Measurement(suite["above_chance"], part.mean_above_chance, part.mean_stderr)
    for name, task in tasks.items():
        details = _details(
            **common,
            metric=task.metric,
            items=task.items,
            chance=_rounded(task.chance),
            version=task.version,
            prompts=(task.hash or "")[:12] or None,
        )
        yield Measurement(
            Quantity("task", name, details, device),
            task.value,
            task.stderr,
            **_ends("difference", *_paired(task.versus_dense)),
            **_ends("reference", *_paired(task.versus_reference)),
        )


def _rounded(chance: float | None) -> str | None:
    return None if chance is None else f"{chance:.4g}"


Ends = tuple[float | None, float | None]


def _ends(prefix: str, low: float | None, high: float | None) -> dict[str, float | None]:
    return {f"{prefix}_low": low, f"{prefix}_high": high}


def _paired(versus: Difference | Lost | None) -> Ends:
    found = there(versus)
    return (None, None) if found is None else (found.low, found.high)


def _paired_mean(part: SuitePart, tasks: Collection[TaskPart], key: str) -> Ends:
    """95 % interval of the mean's difference; tasks share no items: their errors add up."""
    whole: Difference | Lost | None = getattr(part, key)
    if found := there(whole):
        return found.low, found.high
    centres, squares = [], []
    for task in tasks:
        versus: Difference | Lost | None = getattr(task, key)
        one = there(versus)
        if one is None or one.difference is None or one.low is None or one.high is None:
            return None, None
        centres.append(one.difference)
        squares.append(((one.high - one.low) / 2) ** 2)
    if not centres:
        return None, None
    centre, half = sum(centres) / len(centres), sum(squares) ** 0.5 / len(squares)
    return centre - half, centre + half


def _size(record: Record) -> Iterator[Measurement]:
    if record.model is not None:
        yield Measurement(Quantity("parameters", ""), record.model.parameters)
    if (profile := there(record.profile)) is None:
        return
    if profile.macs is not None:
        yield Measurement(Quantity("macs", "", _details(length=profile.macs_length)), profile.macs)
    for kind in ("aligned_to", "weights_mib", "disk_mib"):
        value: float | None = getattr(profile, kind)
        if value is not None:
            yield Measurement(Quantity(kind, ""), value)


def _speed(profile: ProfilePart) -> Iterator[Measurement]:
    for point in profile.points:
        if not point.lost:
            yield from _at(point, profile.device)


def _at(point: PointPart, device: str) -> Iterator[Measurement]:
    details = _details(batch=point.batch, prompt=point.prompt, new=point.new)

    def quantity(kind: str) -> Quantity:
        return Quantity(kind, point.name, details, device)

    timings = {"prefill_ms": point.prefill_ms, "decode_ms_per_token": point.decode_ms_per_token}
    for kind, timing in timings.items():
        if timing:
            yield Measurement(quantity(kind), timing.median, _timing_error(timing))
    for phase, lost in (("prefill", point.prefill_speedup), ("decode", point.decode_speedup)):
        found = there(lost)
        if found is not None and found.ratio is not None:
            ends = {"low": found.low, "high": found.high}
            yield Measurement(quantity(f"{phase}_speedup"), found.ratio, **ends)
            if found.limit is not None:
                yield Measurement(quantity(f"{phase}_limit"), found.limit)
            if found.share_of_limit is not None:
                yield Measurement(quantity(f"{phase}_share"), found.share_of_limit)
    memory = {"peak_allocated_mib": point.peak_allocated_mib, "kv_cache_mib": point.kv_cache_mib}
    for kind, amount in memory.items():
        if amount is not None:
            yield Measurement(quantity(kind), amount)


def _timing_error(timing: Quartiles) -> float | None:
    if timing.q25 is None or timing.q75 is None:
        return None
    if timing.n is None or timing.n < FEWEST_REPEATS:
        return None
    return MEDIAN_ERROR * (timing.q75 - timing.q25) / math.sqrt(timing.n)


def _step(step: StepPart) -> Iterator[Measurement]:
    details = _details(micro_batches=step.micro_batches, length=step.length)

    def quantity(kind: str) -> Quantity:
        return Quantity(kind, f"{step.micro_batches} x {step.length}", details, step.device)

    error = _timing_error(step.step_ms)
    if error is not None:  # d (n / t) = n / t * dt / t
        error *= step.tokens_per_s / step.step_ms.median
    yield Measurement(quantity("step_tokens_per_s"), step.tokens_per_s, error)
    # what the allocator counted has no error
    yield Measurement(quantity("step_peak_mib"), step.peak_allocated_mib, 0.0)
    yield Measurement(quantity("step_floor_mib"), step.floor_mib, 0.0)
    if step.macs:
        yield Measurement(quantity("step_macs_per_token"), step.macs / step.tokens, 0.0)


def _cost(cost: CostPart, device: str) -> Iterator[Measurement]:
    for job, lost in (("prune", cost.prune), ("recover", cost.recover)):
        if (used := there(lost)) is None:
            continue
        for name in (kind.removeprefix(f"{job}_") for kind in KINDS if kind.startswith(job)):
            value: float | None = getattr(used, name)
            if value is not None:
                yield Measurement(Quantity(f"{job}_{name}", "", (), device), value)
