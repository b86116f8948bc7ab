"""From what a model has shown at one point to the entry in its record."""

from __future__ import annotations

from dataclasses import asdict

from prunebench.profiling.intervals import speedup, summary
from prunebench.profiling.points import Point
from prunebench.profiling.turns import ModelRun, TurnOptions
from prunebench.units import MIB
from prunebench.untyped import Json

NO_ALLOCATOR = "the CPU has no caching allocator"
NO_NEW_TOKENS = "the point has no new tokens"


def figures(run: ModelRun, base: ModelRun | None, point: Point, options: TurnOptions) -> Json:
    """The entry of one model at one point; every None in it has its reason under `missing`.

    Times are milliseconds, memory MiB, ratios fractions. `decode_ms_per_token` is the time of one
    step for the whole batch; `*_tokens_per_s` count the tokens of all sequences.
    """
    entry: Json = {**asdict(point), "status": run.status, "reason": run.reason}
    entry |= _memory(run)
    timed = run.status == "ok"
    prefill = summary(run.prefill_ms) if timed else None
    decode = summary(run.decode_ms) if timed and run.decode_ms else None
    entry["prefill_ms"] = prefill
    entry["decode_ms_per_token"] = decode
    entry["prefill_tokens_per_s"] = _rate(point.batch * point.prompt, prefill)
    entry["decode_tokens_per_s"] = _rate(point.batch, decode)
    entry["prefill_speedup"] = _speedup(run, base, "prefill_ms", "prefill_macs", options)
    entry["decode_speedup"] = _speedup(run, base, "decode_ms", "decode_bytes", options)
    entry["missing"] = _missing(entry, run, base, point, options)
    return entry


def _memory(run: ModelRun) -> Json:
    """Peaks and cache in MiB, and the two figures that bound a speed-up."""
    seen = run.probe
    phases = {"": ("prefill", "decode"), "prefill_": ("prefill",), "decode_": ("decode",)}
    memory: Json = {
        f"{prefix}peak_{kind}_mib": seen.peak_mib(kind, *parts)
        for prefix, parts in phases.items()
        for kind in ("allocated", "reserved")
    }
    memory["kv_cache_mib"] = _mib(seen.kv_cache_bytes)
    memory["prefill_macs"] = seen.prefill_macs
    memory["decode_read_mib"] = _mib(seen.decode_bytes)
    return memory


def _speedup(
    run: ModelRun, base: ModelRun | None, times: str, bound: str, options: TurnOptions
) -> Json | None:
    """Speed-up over the baseline beside its limit; None where either was not timed."""
    if base is None or run.status != "ok" or base.status != "ok" or not getattr(run, times):
        return None
    limit = getattr(base.probe, bound) / getattr(run.probe, bound)
    return speedup(
        getattr(base, times), getattr(run, times), limit=limit, confidence=options.confidence
    )


def _missing(
    entry: Json, run: ModelRun, base: ModelRun | None, point: Point, options: TurnOptions
) -> dict[str, str]:
    """Why each None of an entry is None."""
    absent = [key for key, value in entry.items() if value is None and key != "reason"]
    if run.status != "ok":
        return dict.fromkeys(absent, run.reason or run.status)
    reasons = {}
    for key in absent:
        if key.startswith("decode_") and not point.new:
            reasons[key] = NO_NEW_TOKENS
        elif key.endswith("_speedup"):
            why = base.reason if base else "not among the models"
            reasons[key] = f"{options.baseline}: {why}"
        else:
            reasons[key] = NO_ALLOCATOR
    return reasons


def _rate(tokens: int, latency: Json | None) -> float | None:
    return None if latency is None else 1e3 * tokens / latency["median"]


def _mib(count: float | None) -> float | None:
    return None if count is None else count / MIB
