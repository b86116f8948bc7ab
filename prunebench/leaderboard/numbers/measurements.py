"""What one record measured, as numbers under the quantities that they may share a column with."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prunebench.leaderboard.numbers.quantities import KINDS, Measurement, Quantity, details_of
from prunebench.leaderboard.numbers.suites import suite_measurements
from prunebench.record.form import Record
from prunebench.record.measured import CostPart, PointPart, ProfilePart, Quartiles, StepPart
from prunebench.record.parts import there

FEWEST_REPEATS = 4  # quartiles of fewer say nothing of an error
MEDIAN_ERROR = 0.929  # standard error of a median over IQR / sqrt(n), for normal noise


def measurements(record: Record) -> Iterator[Measurement]:
    """Every number of a record that a table may show; missing parts give none."""
    if step := there(record.step):
        yield from _step(step)
        return
    yield from _perplexities(record)
    for kind, suite in (("zeroshot", record.zeroshot), ("generation", record.generation)):
        if part := there(suite):
            yield from suite_measurements(kind, part, evaluation_device(record))
    yield from _size(record)
    if profile := there(record.profile):
        yield from _speed(profile)
    if cost := there(record.cost):
        yield from _cost(cost, evaluation_device(record))


def evaluation_device(record: Record) -> str:
    """The device of everything that names none of its own."""
    return record.provenance.device or ""


def _perplexities(record: Record) -> Iterator[Measurement]:
    for key, part in (there(record.perplexity) or {}).items():
        entry = there(part)
        if entry is None or entry.value is None:
            continue
        details = details_of(
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


def _size(record: Record) -> Iterator[Measurement]:
    if record.model is not None:
        yield Measurement(Quantity("parameters", ""), record.model.parameters)
    if (profile := there(record.profile)) is None:
        return
    if profile.macs is not None:
        yield Measurement(
            Quantity("macs", "", details_of(length=profile.macs_length)), profile.macs
        )
    for kind in ("aligned_to", "weights_mib", "disk_mib"):
        value: float | None = getattr(profile, kind)
        if value is not None:
            yield Measurement(Quantity(kind, ""), value)


def _speed(profile: ProfilePart) -> Iterator[Measurement]:
    for point in profile.points:
        if not point.lost:
            yield from _at(point, profile.device)


def _at(point: PointPart, device: str) -> Iterator[Measurement]:
    details = details_of(batch=point.batch, prompt=point.prompt, new=point.new)

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
    details = details_of(micro_batches=step.micro_batches, length=step.length)

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
