"""Synthetic records that look like a campaign's, for the tests and the benchmark of the tables."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

TASKS = {
    "boolq": (3270, 0.5),
    "piqa": (1838, 0.5),
    "hellaswag": (10042, 0.25),
    "winogrande": (1267, 0.5),
    "arc_easy": (2376, 0.25),
    "arc_challenge": (1172, 0.25),
    "openbookqa": (500, 0.25),
}
# How much a method loses: perplexity grows with exp(loss * sparsity / (1 - sparsity)).
METHODS = {
    "random": 3.2,
    "magnitude-l1": 2.3,
    "magnitude-l2": 2.1,
    "llm-pruner": 1.5,
    "loraprune": 1.15,
    "hywia": 1.1,
    "pat": 0.9,
}
DENSE_PARAMETERS = 5_406_720


def campaign(
    *,
    models: Sequence[str] = ("demo-llama",),
    methods: Sequence[str] = tuple(METHODS),
    sparsities: Sequence[float] = (0.2, 0.5, 0.7),
    seeds: int = 3,
) -> Iterator[dict[str, Any]]:
    """Dense once per model, then methods x sparsities x seeds."""
    for model in models:
        yield record(model=model, label="dense", sparsity=0.0)
        for method in methods:
            for sparsity in sparsities:
                for seed in range(seeds):
                    yield record(model=model, label=method, sparsity=sparsity, seed=seed)


def record(
    *,
    label: str = "magnitude-l1",
    sparsity: float = 0.5,
    seed: int = 0,
    model: str = "demo-llama",
    perplexity: float | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One valid record that is ok; `changes` replaces whole top-level parts.

    The numbers depend on the arguments only; `perplexity` sets that on wikitext2.
    """
    rng = random.Random(f"{model} {label} {sparsity} {seed}")
    loss = METHODS.get(label, 1.0) * sparsity / (1 - sparsity) * rng.gauss(1, 0.03)
    achieved = 0.0 if sparsity == 0 else sparsity + rng.uniform(-0.003, 0.003)
    nll = math.log(21.3) + loss
    made = {
        "schema_version": 1,
        "status": "ok",
        "reason": None,
        "cell": cell(label=label, sparsity=sparsity, seed=seed, model=model),
        "model": model_part(achieved),
        "sparsity": {
            "target": sparsity,
            "achieved": achieved,
            "decoder_achieved": min(1.0, achieved * 1.2),
            "native_ratio": None,
            "within_tolerance": True,
            "note": None,
        },
        "verify": {"max_abs_logit_difference": 2.4e-6, "tolerance": 1e-4, "passed": True},
        "export": {"loadable_by": "prunebench", "path": "model"},
        "perplexity": {
            "ppl/wikitext2-128": ppl(perplexity or math.exp(nll)),
            "ppl/ptb-128": ppl(
                math.exp(nll + 0.6), corpus="ptb", split="validation", tokens=99_949
            ),
        },
        "zeroshot": zeroshot(rng, loss, sparsity),
        "profile": profile(rng, achieved),
        "cost": cost(rng, loss),
        "leak": leak(0.0),
        "notes": [],
        "provenance": provenance(seed),
    }
    return made | changes


def lost(*, status: str = "failed", reason: str = "out of memory", **which: Any) -> dict[str, Any]:
    """A record of a cell that failed or was skipped."""
    return {
        "schema_version": 1,
        "status": status,
        "reason": reason,
        "cell": cell(**which),
        "provenance": provenance(0),
    }


def cell(
    *,
    label: str = "magnitude-l1",
    sparsity: float = 0.5,
    seed: int = 0,
    model: str = "demo-llama",
    campaign: str = "demo",
    recovery: bool = False,
    params: dict[str, Any] | None = None,
    matched: str | None = None,
) -> dict[str, Any]:
    return {
        "campaign": campaign,
        "model": model,
        "label": label,
        "method": label.partition("-")[0] or "method",
        "params": params or {},
        "sparsity": sparsity,
        "seed": seed,
        "recovery": recovery,
        "matched": matched,
    }


def model_part(achieved: float = 0.0) -> dict[str, Any]:
    return {
        "family": "llama",
        "kind": "local",
        "source": "wikibooks-llama-6m",
        "revision": None,
        "parameters_dense": DENSE_PARAMETERS,
        "parameters": round(DENSE_PARAMETERS * (1 - achieved)),
        "weights_sha256": "0" * 64,
    }


def ppl(value: float, **changes: Any) -> dict[str, Any]:
    return {
        "status": "ok",
        "value": value,
        "nll": math.log(value),
        "nll_stderr": 0.0042,
        "tokens": 341_469,
        "corpus": "wikitext2",
        "split": "test",
        "length": 128,
        "limit": None,
        "data_sha256": "ab" * 32,
    } | changes


def zeroshot(rng: random.Random, loss: float, sparsity: float) -> dict[str, Any]:
    tasks = {}
    for name, (items, chance) in TASKS.items():
        best = chance + (1 - chance) * 0.35
        value = chance + (best - chance) * math.exp(-0.8 * loss) + rng.gauss(0, 0.004)
        tasks[name] = task(value, items=items, chance=chance)
        if sparsity > 0:
            tasks[name]["versus_dense"] = versus(value - best, 1 / math.sqrt(2.5 * items))
    values = [entry["value"] for entry in tasks.values()]
    chance = sum(entry["chance"] for entry in tasks.values()) / len(tasks)
    mean = sum(values) / len(values)
    error = math.sqrt(sum(entry["stderr"] ** 2 for entry in tasks.values())) / len(tasks)
    return {
        "status": "ok",
        "reason": None,
        "suite": "zeroshot/7",
        "limit": None,
        "mean": mean,
        "mean_stderr": error,
        "mean_chance": chance,
        "mean_above_chance": mean - chance,
        "harness": {"name": "lm-eval", "version": "0.4.13"},
        "tasks": tasks,
    }


def task(value: float, *, items: int = 500, chance: float = 0.25) -> dict[str, Any]:
    value = min(max(value, 0.0), 1.0)
    return {
        "status": "ok",
        "reason": None,
        "metric": "acc",
        "value": value,
        "stderr": math.sqrt(value * (1 - value) / (items - 1)),
        "acc": value,
        "acc_norm": None,
        "items": items,
        "chance": chance,
        "version": 1.0,
        "hash": "cd" * 32,
        "versus_dense": None,
    }


def versus(difference: float, error: float) -> dict[str, Any]:
    return {
        "difference": difference,
        "low": difference - 1.96 * error,
        "high": difference + 1.96 * error,
        "mcnemar_p": 0.01,
    }


def profile(rng: random.Random, achieved: float) -> dict[str, Any]:
    kept = 1 - achieved
    return {
        "status": "ok",
        "device": "cpu, 2 threads",
        "parameters": round(DENSE_PARAMETERS * kept),
        "decoder_parameters": round(DENSE_PARAMETERS * 0.8 * kept),
        "embedding_parameters": round(DENSE_PARAMETERS * 0.2),
        "weights_mib": DENSE_PARAMETERS * 4 * kept / 2**20,
        "disk_mib": DENSE_PARAMETERS * 4 * kept / 2**20,
        "macs": round(64 * DENSE_PARAMETERS * 0.9 * kept),
        "macs_length": 64,
        "points": [point(rng, kept)],
    }


def point(rng: random.Random, kept: float, *, batch: int = 1) -> dict[str, Any]:
    prefill = 14.2 * batch * (0.15 + 0.85 * kept) * rng.gauss(1, 0.02)
    decode = 3.1 * (0.4 + 0.6 * kept) * rng.gauss(1, 0.02)
    return {
        "name": f"b{batch}-p64-n16",
        "batch": batch,
        "prompt": 64,
        "new": 16,
        "prefill_ms": {"median": prefill, "q25": prefill * 0.98, "q75": prefill * 1.03, "n": 20},
        "decode_ms_per_token": {"median": decode, "q25": decode, "q75": decode * 1.04, "n": 20},
        "peak_allocated_mib": 40.0 * kept + 12,
        "kv_cache_mib": 0.4,
        "prefill_speedup": speedup(14.2 * batch / prefill),
        "decode_speedup": speedup(3.1 / decode),
    }


def speedup(ratio: float) -> dict[str, float]:
    return {"ratio": ratio, "low": ratio * 0.98, "high": ratio * 1.02}


def cost(rng: random.Random, loss: float) -> dict[str, Any]:
    return {
        "prune": {
            "wall_s": 2.0 + abs(loss) * rng.uniform(2, 2.2),
            "forward_tokens": 81_920,
            "backward_tokens": 81_920,
            "peak_device_mib": None,
            "peak_host_mib": 812.0,
        },
        "recover": None,
    }


def decision(*, layers: int = 8) -> dict[str, Any]:
    """Kept units that fall towards the middle, and one structure that spans all layers."""
    made = {"hidden": {"kind": "hidden", "layer": None, "units": 64, "kept": 64}}
    for layer in range(layers):
        gone = min(layer, layers - 1 - layer)
        for kind, units in (("heads", 8), ("neurons", 96)):
            kept = units - gone * units // layers
            entry = {"kind": kind, "layer": layer, "units": units, "kept": kept}
            made[f"layers.{layer}.{kind}"] = entry
    return made


def tuning(*, steps: int = 40) -> dict[str, Any]:
    loss = [[step, 2.0 + 3.0 * math.exp(-step / 12)] for step in range(1, steps + 1)]
    return {"instructions": "alpaca", "by": "suite", "tuning_tokens": 100_000, "loss": loss}


def notes() -> dict[str, Any]:
    """One note of each form that is drawn, and a plain one."""
    blends = [[(row + column) / 9 for column in range(6)] for row in range(3)]
    blends[0][0] = None
    lines = {name: [[x, x * slope] for x in range(9)] for name, slope in (("up", 1), ("down", -1))}
    return {
        "blends": {
            "plot": "heatmap",
            "title": "Blend of saliencies",
            "rows": ["coarse", "fine", "mixed"],
            "columns": list(range(6)),
            "values": blends,
        },
        "curve": {
            "plot": "line",
            "title": "Two curves",
            "x_label": "step",
            "y_label": "value",
            "series": lines,
        },
        "calibration": {"samples": 32, "length": 128},
    }


def leak(share: float) -> dict[str, Any]:
    return {"n": 13, "sets": {"wikitext2": {"items": 2891, "share": share, "reason": None}}}


def provenance(seed: int) -> dict[str, Any]:
    return {
        "created": f"2026-01-0{1 + seed % 9}T12:00:00Z",
        "prunebench_version": "0.1.0",
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "git_dirty": False,
        "python": "3.11.7",
        "platform": "Linux x86_64",
        "packages": {"torch": "2.13.0", "transformers": "5.23.0", "lm_eval": "0.4.13"},
        "device": "cpu, 2 threads",
        "plugin_sha256": "ef" * 32,
        "data_sha256": {},
    }
