"""Kinds of numbers, and what says with which others one may be compared.

A Quantity is one column of the report. Two numbers share it only if protocol, limit, data, harness
and device are the same, so that no column can mix them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """How numbers of a kind are read: unit, the better direction, whether methods are ranked."""

    unit: str
    better: str = ""  # "lower", "higher" or "" where neither is better in itself
    ranked: bool = False


KINDS: dict[str, Kind] = {
    "perplexity": Kind("perplexity", "lower", ranked=True),
    "zeroshot": Kind("fraction", "higher", ranked=True),
    "generation": Kind("fraction", "higher", ranked=True),
    "above_chance": Kind("fraction", "higher"),
    "task": Kind("fraction", "higher", ranked=True),
    # What generated answers look like tells why an accuracy is low; it ranks nobody.
    "answer_tokens": Kind("tokens"),
    "answer_empty": Kind("fraction", "lower"),
    "answer_repeating": Kind("fraction", "lower"),
    "answer_at_limit": Kind("fraction", "lower"),
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
        ("cpu_s", "s"),
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
QUALITY = ("perplexity", "zeroshot", "generation")
SUITES = ("zeroshot", "generation")
"""Means over the tasks of a suite; also the names of these parts of a record."""


@dataclass(frozen=True, order=True)
class Quantity:
    """One column: what is measured, under which protocol, on which device ("" where none)."""

    kind: str
    name: str  # corpus, suite, task or point; "" where the kind says all
    details: tuple[tuple[str, str], ...] = ()
    device: str = ""

    def detail(self, key: str) -> str:
        """A detail of the protocol, or "" where it says nothing of it."""
        return dict(self.details).get(key, "")


Details = tuple[tuple[str, str], ...]


def details_of(**details: object) -> Details:
    """Details of a quantity as texts; None leaves one out."""
    return tuple((key, str(value)) for key, value in details.items() if value is not None)


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
    # what always giving the most frequent right answer gets; a fact of the data, which older
    # records do not have: it must not part columns, so it is no detail of the quantity
    majority: float | None = None
