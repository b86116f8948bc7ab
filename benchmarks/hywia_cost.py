"""Time of HyWIA with its trained gate against LLM-Pruner, on the same model and calibration data.

    python benchmarks/hywia_cost.py [--size 6M] [--samples 32] [--length 128] [--rounds 5]

Random Llama. Both methods decide at 50 % with their default parameters, in turns; each round takes
both, in alternating order. Shown: medians over rounds and HyWIA's share by part (closed forms need
scoring alone; `drawn` is the released gate). Processor time on a CPU, so that neighbours do not
count, wall time on a GPU. Exit status 1 if the trained gate takes more than 3 x LLM-Pruner.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from scoring_memory import SIZES, VOCABULARY, random_llama

MOST = 3.0
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "llm_pruner": ("llm_pruner", {}),
    "hywia, mean": ("hywia", {"fusion": "mean"}),
    "hywia, drawn gate": ("hywia", {"gate_steps": 0}),
    "hywia, trained gate": ("hywia", {}),
}


def main() -> int:
    """Time the rows and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="6M")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    times = measure(options)
    return 0 if show(times, options) else 1


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every row in every round."""
    import torch

    model = random_llama(options.size, options.device, options.dtype)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(VOCABULARY, (options.samples, options.length), generator=generator)
    jobs = {name: _job(model, tokens, *row) for name, row in ROWS.items()}
    clock = process_time if options.device == "cpu" else perf_counter
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(-1, options.rounds):  # the first is a warm-up
        for name in list(jobs) if turn % 2 else reversed(jobs):
            start = clock()
            jobs[name]()
            if options.device != "cpu":
                torch.cuda.synchronize()
            if turn >= 0:
                times[name].append(clock() - start)
    return times


def _job(model: Any, tokens: Any, method: str, params: dict[str, Any]) -> Callable[[], Any]:
    """A function that lets a method decide on `model`."""
    from prunebench.plugins.context import Context
    from prunebench.plugins.discovery import discover
    from prunebench.profiling.cost import Cost
    from prunebench.pruning.architectures import structures_of
    from prunebench.pruning.budget import Budget

    plugin, structures = discover()[method], structures_of(model)
    device = next(model.parameters()).device
    context = Context(
        sparsity=0.5,
        seed=0,
        device=device,
        params=plugin.params(params, where=method),
        workdir=Path("."),
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(device),
        tokenizer=None,
        sample_calibration=lambda samples, length: tokens,
        load_recovery=lambda: None,
    )
    prune = plugin.load()
    return lambda: prune(model, context)


def show(times: dict[str, list[float]], options: argparse.Namespace) -> bool:
    """Print the table; whether the limit holds."""
    from tabulate import tabulate

    base = median(times["llm_pruner"])
    table = [[name, median(t), min(t), max(t), median(t) / base] for name, t in times.items()]
    print(f"{options.size}, {options.samples} x {options.length} tokens, {options.device}")
    headers = ["", "median s", "min s", "max s", "x llm_pruner"]
    print(tabulate(table, headers=headers, floatfmt=".2f"))
    met = table[-1][-1] <= MOST
    print(f"limit {MOST:.1f}: {'met' if met else 'NOT met'}")
    return met


if __name__ == "__main__":
    sys.exit(main())
