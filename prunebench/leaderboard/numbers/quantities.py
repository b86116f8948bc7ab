"""What one record measured, as numbers that say with which others they may be compared.

A Quantity is one column of the report. Two numbers share it only if protocol, limit, data, harness
and device are the same, so that no column can mix them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Z95 = 1.959963984540054  # half-width of a 95 % interval in standard errors
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


def measurements(record: Mapping[str, Any]) -> Iterator[Measurement]:
    """Every number of a record that a table may show; missing parts give none."""
    yield from _perplexities(record)
    yield from _zeroshot(record)
    yield from _size(record)
    yield from _speed(record)
    yield from _cost(record)


def is_missing(part: Any) -> bool:
    """Whether a part of a record is absent, failed or skipped."""
    return not isinstance(part, Mapping) or part.get("status") in ("failed", "skipped")


def evaluation_device(record: Mapping[str, Any]) -> str:
    return record["provenance"].get("device") or ""


def _details(**details: Any) -> tuple[tuple[str, str], ...]:
    return tuple((key, str(value)) for key, value in details.items() if value is not None)


def _perplexities(record: Mapping[str, Any]) -> Iterator[Measurement]:
    if is_missing(part := record.get("perplexity")):
        return
    for key, entry in part.items():
        if is_missing(entry) or entry.get("value") is None:
            continue
        details = _details(
            length=entry["length"],
            mode=entry.get("mode", "windows"),
            split=entry["split"],
            limit=entry.get("limit"),
            bos=None if entry.get("bos", "text") == "text" else entry["bos"],
            tokens=entry["tokens"],
            protocol=key,
            data=(entry.get("data_sha256") or "")[:12] or None,
        )
        device = entry.get("device") or evaluation_device(record)
        error = entry.get("nll_stderr")
        # d exp(x) = exp(x) dx: the loss's error becomes the perplexity's
        error = None if error is None else error * entry["value"]
        yield Measurement(
            Quantity("perplexity", entry["corpus"], details, device), entry["value"], error
        )


def _zeroshot(record: Mapping[str, Any]) -> Iterator[Measurement]:
    if is_missing(part := record.get("zeroshot")):
        return
    device = part.get("device") or evaluation_device(record)
    harness = f"{part['harness']['name']} {part['harness']['version']}"
    common = {"suite": part["suite"], "limit": part.get("limit"), "harness": harness}
    tasks = {name: task for name, task in sorted(part["tasks"].items()) if not is_missing(task)}
    plan = _details(**common, tasks=", ".join(tasks), chance=_rounded(part.get("mean_chance")))
    suite = {
        kind: Quantity(kind, part["suite"], plan, device) for kind in ("zeroshot", "above_chance")
    }
    if part.get("mean") is not None:
        yield Measurement(
            suite["zeroshot"],
            part["mean"],
            part.get("mean_stderr"),
            **_ends("difference", *_paired_mean(part, tasks, "versus_dense")),
            **_ends("reference", *_paired_mean(part, tasks, "versus_reference")),
        )
    if part.get("mean_above_chance") is not None:
        yield Measurement(suite["above_chance"], part["mean_above_chance"], part.get("mean_stderr"))
    for name, task in tasks.items():
        details = _details(
            **common,
            metric=task["metric"],
            items=task["items"],
            chance=_rounded(task.get("chance")),
            version=task.get("version"),
            prompts=(task.get("hash") or "")[:12] or None,
        )
        yield Measurement(
            Quantity("task", name, details, device),
            task["value"],
            task.get("stderr"),
            **_ends("difference", *_paired(task.get("versus_dense"))),
            **_ends("reference", *_paired(task.get("versus_reference"))),
        )


def _rounded(chance: float | None) -> str | None:
    return None if chance is None else f"{chance:.4g}"


Ends = tuple[float | None, float | None]


def _ends(prefix: str, low: float | None, high: float | None) -> dict[str, float | None]:
    return {f"{prefix}_low": low, f"{prefix}_high": high}


def _paired(versus: Any) -> Ends:
    return (None, None) if is_missing(versus) else (versus["low"], versus["high"])


def _paired_mean(part: Mapping[str, Any], tasks: Mapping[str, Any], key: str) -> Ends:
    """95 % interval of the mean's difference; tasks share no items: their errors add up."""
    if not is_missing(whole := part.get(key)):
        return whole["low"], whole["high"]
    versus = [task.get(key) for task in tasks.values()]
    if not versus or any(is_missing(v) or None in (v["low"], v["high"]) for v in versus):
        return None, None
    centre = sum(v["difference"] for v in versus) / len(versus)
    half = sum(((v["high"] - v["low"]) / 2) ** 2 for v in versus) ** 0.5 / len(versus)
    return centre - half, centre + half


def _size(record: Mapping[str, Any]) -> Iterator[Measurement]:
    if (model := record.get("model")) and model.get("parameters") is not None:
        yield Measurement(Quantity("parameters", ""), model["parameters"])
    if is_missing(profile := record.get("profile")):
        return
    if profile.get("macs") is not None:
        length = _details(length=profile.get("macs_length"))
        yield Measurement(Quantity("macs", "", length), profile["macs"])
    for kind in ("aligned_to", "weights_mib", "disk_mib"):
        if profile.get(kind) is not None:
            yield Measurement(Quantity(kind, ""), profile[kind])


def _speed(record: Mapping[str, Any]) -> Iterator[Measurement]:
    if is_missing(profile := record.get("profile")):
        return
    for point in profile["points"]:
        if is_missing(point):
            continue
        details = _details(batch=point["batch"], prompt=point["prompt"], new=point["new"])

        def quantity(kind: str, point=point, details=details) -> Quantity:
            return Quantity(kind, point["name"], details, profile["device"])

        for kind in ("prefill_ms", "decode_ms_per_token"):
            if point.get(kind):
                yield Measurement(quantity(kind), point[kind]["median"], _timing_error(point[kind]))
        for kind in ("prefill_speedup", "decode_speedup"):
            ratio = point.get(kind)
            if not is_missing(ratio) and ratio.get("ratio") is not None:
                ends = {"low": ratio.get("low"), "high": ratio.get("high")}
                yield Measurement(quantity(kind), ratio["ratio"], **ends)
                phase = kind.removesuffix("_speedup")
                for key, name in (("limit", "limit"), ("share_of_limit", "share")):
                    if ratio.get(key) is not None:
                        yield Measurement(quantity(f"{phase}_{name}"), ratio[key])
        for kind in ("peak_allocated_mib", "kv_cache_mib"):
            if point.get(kind) is not None:
                yield Measurement(quantity(kind), point[kind])


def _timing_error(timing: Mapping[str, Any]) -> float | None:
    if None in (timing.get("q25"), timing.get("q75")) or not timing.get("n"):
        return None
    return MEDIAN_ERROR * (timing["q75"] - timing["q25"]) / timing["n"] ** 0.5


def _cost(record: Mapping[str, Any]) -> Iterator[Measurement]:
    if is_missing(cost := record.get("cost")):
        return
    for job in ("prune", "recover"):
        if is_missing(used := cost.get(job)):
            continue
        for name in (kind.removeprefix(f"{job}_") for kind in KINDS if kind.startswith(job)):
            if used.get(name) is not None:
                quantity = Quantity(f"{job}_{name}", "", (), evaluation_device(record))
                yield Measurement(quantity, used[name])
