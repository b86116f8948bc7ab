"""One line for a job that ended: which cell, and its numbers or the reason why there are none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from prunebench.untyped import Json

DOING = {
    "world": "writing the demo's world",
    "prune": "pruning",
    "recover": "tuning",
    "evaluate": "evaluating",
    "step": "measuring a step",
    "profile": "timing",
    "leak": "looking for leaks",
    "leaderboard": "writing the tables",
}
"""Rules that a person waits for, in words."""
MARKS = {"ok": ("✓ ", "green"), "failed": ("✗ ", "bold red"), "skipped": ("– ", "yellow")}
"""How a cell ended: what stands before its line, and its colour on a terminal."""


def subject(wildcards: Mapping[str, str]) -> str:
    """What a job is about: `demo-llama  pat 50 % seed 1`, as far as its wildcards say."""
    words = [wildcards.get("model", "")]
    if "label" in wildcards:
        sparsity = float(wildcards.get("sparsity", 0))
        words.append(f"{wildcards['label']} {100 * sparsity:g} % seed {wildcards.get('seed', 0)}")
    return "  ".join(word for word in words if word)


def outcome(rule: str, outputs: tuple[Path, ...]) -> tuple[str, str] | None:
    """How a job ended (ok, failed, skipped) and what to say of it; None where nothing is worth it.

    A job that failed has ended well for Snakemake; its file says what happened.
    """
    result = _read(outputs)
    if result is None:
        return None
    if result.get("status") in ("failed", "skipped"):
        reason = " ".join(str(result.get("reason")).split())
        return result["status"], f"{result['status']} while {DOING.get(rule, rule)}: {reason}"
    if rule != "evaluate":
        return None
    return "ok", "  ".join(numbers(result))


def numbers(result: Json) -> Iterator[str]:
    """The quality of a cell, from its evaluation: `encyclopedia/128 4.12`, `zero-shot 68.5 %`,
    `generated 12.0 %`.
    """
    for column in result.get("perplexity", {}).values():
        name = f"{column['corpus']}/{column['length']}"
        yield f"{name} {column['value']:.2f}" if column["status"] == "ok" else f"{name} –"
    for name, key in (("zero-shot", "zeroshot"), ("generated", "generation")):
        suite = result.get(key) or {}
        if suite.get("status") == "ok":
            if name == "zero-shot" and any(t.get("shots") for t in suite.get("tasks", {}).values()):
                name = "few-shot"
            mean = suite["mean"]  # null where a task is missing
            yield f"{name} –" if mean is None else f"{name} {100 * mean:.1f} %"


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:04:05`."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _read(outputs: tuple[Path, ...]) -> Json | None:
    if len(outputs) != 1 or outputs[0].suffix != ".json":
        return None
    try:
        result: Json = json.loads(outputs[0].read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result
