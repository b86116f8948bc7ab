"""Synthetic parts of records that hold what models wrote: generated answers, continued prompts."""

from __future__ import annotations

import math
import random
from typing import Any

from . import factory

QUESTIONS = (
    ("Q: What is the capital of France?\nA:", "Paris"),
    ("Q: How many legs has a spider?\nA:", "8"),
    ("Q: Which metal is liquid at room temperature?\nA:", "Mercury"),
    ("Q: Who wrote Faust?\nA:", "Goethe"),
)
PROMPTS = ("The river rises in the", "In 1923 the company")


def with_written(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a generated suite, continued prompts, and majorities of its tasks."""
    cell = record["cell"]
    rng = random.Random(f"written {cell['label']} {cell['sparsity']} {cell['seed']}")
    for task in record["zeroshot"]["tasks"].values():
        task["majority"] = task["chance"] + 0.05
    generated = {"generation": generation(rng, cell), "texts": texts(cell)}
    return record | generated


def generation(rng: random.Random, cell: dict[str, Any]) -> dict[str, Any]:
    """A suite of two tasks, on one of which pruned rows are below the most frequent answer."""
    loss = factory.METHODS.get(cell["label"], 1.0) * cell["sparsity"]
    made = {
        "gsm8k": answered(0.4 * math.exp(-2 * loss) + rng.uniform(0, 0.01), cell, shots=5),
        "triviaqa": answered(0.5 * math.exp(-loss) + rng.uniform(0, 0.01), cell),
    }
    mean = sum(task["value"] for task in made.values()) / len(made)
    return {
        "status": "ok",
        "reason": None,
        "suite": "generation/2",
        "limit": None,
        "mean": mean,
        "mean_stderr": 0.01,
        "mean_chance": None,
        "mean_above_chance": None,
        "harness": {"name": "lm-eval", "version": "0.4.13"},
        "attention": "sdpa",
        "dtype": "float32",
        "batch_size": [16],
        "scoring": "plain",
        "plain_because": "answers are generated",
        "tasks": made,
    }


def answered(value: float, cell: dict[str, Any], *, shots: int = 0, **changes: Any) -> Any:
    """One task of such a suite."""
    who = f"{cell['label']} {cell['sparsity']:g} seed {cell['seed']}"
    samples = [
        {"prompt": prompt, "target": target, "answer": f" {target}, says {who}"}
        for prompt, target in QUESTIONS
    ]
    examples = {"fewshot": {"split": "train", "seed": 1234}} if shots else {}
    generated = {
        "max_new_tokens": 64,
        "stop": ["\n\n", "Q:"],
        "tokens": 12.5 + cell["seed"],
        "empty": 0.02,
        "repeating": min(1.0, cell["sparsity"]),
        "at_limit": 0.25,
        "samples": samples,
    }
    made = factory.task(value, items=400) | {"metric": "exact_match", "acc": None, "chance": None}
    made |= {
        "majority": 0.3,
        "shots": shots,
        **examples,
        "prompt": "Q: ...",
        "generated": generated,
    }
    return made | changes


def texts(cell: dict[str, Any]) -> dict[str, Any]:
    """Dense ends by itself, pruned rows repeat."""
    whole = cell["sparsity"] == 0
    who = f"{cell['label']} {cell['sparsity']:g}"
    text = f" and {who} goes on" if whole else f" and {who}" + " goes on and on" * 9
    entry = {"text": text, "ended": whole, "repeating": not whole}
    return {"tokens": 48, "texts": [{"prompt": prompt, **entry} for prompt in PROMPTS]}
