"""How much of a zero-shot evaluation is forward passes, and how much is everything around them?

    python benchmarks/zeroshot_cost.py [--model FOLDER] [--data FOLDER] [--limit 200]
        [--suite zeroshot/7] [--device cpu] [--batch-size auto] [--threads 1]

Evaluates one model once, as a job does, and times model.forward (synchronised on a GPU) against the
whole of `prunebench.evaluation.zeroshot.evaluate`: checking files, building prompts, tokenising,
scoring and writing item outcomes. Importing lm-eval, once per job, is shown apart. One thread
unless told otherwise: threads that wait for a busy core would count as forward passes, while on
idle cores more threads shorten the passes only. Exit status 1 below 85 %.
Defaults: $PRUNEBENCH_MODELS/wikibooks-llama-6m and $PRUNEBENCH_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from prunebench.evaluation.zeroshot import evaluate
from prunebench.models.folders import load
from prunebench.text.source import Source

GOAL = 0.85


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model, device=options.device)
    began = time.perf_counter()
    import prunebench.evaluation.zeroshot.harness  # noqa: F401

    import_s = time.perf_counter() - began
    forward = Forward(model.forward, synchronise=_synchronise(options.device))
    model.forward = forward
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = evaluate(
            model,
            tokenizer,
            suite=options.suite,
            source=Source(kind="local", root=options.data),
            device=options.device,
            batch_size=options.batch_size,
            limit=options.limit,
            workdir=Path(folder),
        )
        wall_s = time.perf_counter() - began
    share = forward.seconds / wall_s
    items = sum(task["items"] or 0 for task in result["tasks"].values())
    rows = [
        ("items", items),
        ("forward passes", forward.passes),
        ("tokens, padding included", forward.tokens),
        ("threads", torch.get_num_threads()),
        ("importing lm-eval, s", f"{import_s:.1f}"),
        ("evaluation, s", f"{wall_s:.1f}"),
        ("of it forward passes, s", f"{forward.seconds:.1f}"),
        (f"share of forward passes (goal: {GOAL:.0%})", f"{share:.1%}"),
    ]
    print(tabulate(rows, colalign=("left", "right")))
    return 0 if share >= GOAL else 1


class Forward:
    """A forward function that adds up its time, calls and tokens."""

    def __init__(self, call: Callable[..., Any], *, synchronise: Callable[[], None]) -> None:
        self.call, self.synchronise = call, synchronise
        self.seconds, self.passes, self.tokens = 0.0, 0, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.synchronise()
        began = time.perf_counter()
        output = self.call(*args, **kwargs)
        self.synchronise()
        self.seconds += time.perf_counter() - began
        self.passes += 1
        self.tokens += output.logits.shape[0] * output.logits.shape[1]
        return output


def _synchronise(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def _options() -> argparse.Namespace:
    models, data = os.environ.get("PRUNEBENCH_MODELS"), os.environ.get("PRUNEBENCH_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(models) / "wikibooks-llama-6m" if models else None
    parser.add_argument("--model", type=Path, default=default, required=default is None)
    parser.add_argument("--data", type=Path, default=data, required=data is None)
    parser.add_argument("--limit", type=int, default=200, help="items per task; 0: all")
    parser.add_argument("--suite", default="zeroshot/7")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=_batch_size, default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.limit, options.data = options.limit or None, Path(options.data)
    return options


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else int(text)


if __name__ == "__main__":
    sys.exit(main())
