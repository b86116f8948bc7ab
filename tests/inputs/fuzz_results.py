"""Results of jobs and items of tasks, as the jobs write them, for the fuzz tests."""

from __future__ import annotations

from typing import Any

MODEL: dict[str, Any] = {
    "family": "llama", "kind": "demo", "source": "x", "revision": None, "parameters_dense": 100,
    "parameters": 50, "weights_sha256": "ab",
}  # fmt: skip
EXPORT: dict[str, Any] = {"loadable_by": "transformers", "path": "model"}
COST: dict[str, Any] = {"wall_s": 1.0}
PPL: dict[str, Any] = {
    "status": "ok", "reason": None, "value": 9.0, "nll": 2.2, "tokens": 70, "corpus": "newswire",
    "split": "test", "length": 8, "limit": None, "data_sha256": "cd",
}  # fmt: skip
ENDED: dict[str, Any] = {"status": "ok", "reason": None, "spec": {"seed": 0}, "read": {}}
RESULTS: dict[str, Any] = {
    "prune.json": {
        **ENDED,
        "model": MODEL,
        "sparsity": {"target": 0.5, "achieved": 0.5, "within_tolerance": True, "note": None},
        "verify": {"max_abs_logit_difference": 0.0, "tolerance": 1e-4, "passed": True},
        "export": EXPORT,
        "cost": COST,
        "written": {"model/model.safetensors": "10-ab"},
    },
    "recover.json": {
        **ENDED,
        "model": MODEL,
        "export": EXPORT,
        "cost": COST,
        "tuning": {"tuning_tokens": 10, "loss": [1.0, 0.5]},
    },
    "evaluate.json": {
        **ENDED,
        "perplexity": {"ppl/t:newswire-test@8": PPL},
        "zeroshot": {"status": "skipped", "reason": "the campaign asks for none"},
        "notes": ["something"],
    },
}
TASK: dict[str, Any] = {
    "metric": "acc", "version": 1, "items": 4, "acc": "1010", "acc_norm": None, "score": None,
    "chance": 0.5, "cut": 0, "documents": ["a", "b", "c", "d"],
    "hashes": {"documents": "d", "prompts": "p", "targets": "t"},
}  # fmt: skip
ITEMS: dict[str, Any] = {
    "schema_version": 1,
    "suite": "zeroshot/demo7",
    "limit": None,
    "harness": {"name": "lm-eval", "version": "0"},
    "tasks": {"one": TASK, "two": {**TASK, "metric": "f1", "score": [0.5, 1.0, 0.0, 0.25]}},
}
