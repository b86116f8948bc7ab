"""Does LoRAPrune's criterion save memory and time? A pruning step, against the vanilla criterion.

    python benchmarks/loraprune_memory.py [--shape tiny small wide] [--length 64] [--rounds 5]
    python benchmarks/loraprune_memory.py --shape llama-7b --device cuda --dtype bfloat16

Both train the same LoRA at batch 1 and score all heads and neurons of the layers that are not
protected at the end of the step. The criteria: `lora` looks at A, B and their gradients; `vanilla`
(first-order Taylor) needs the gradients of all target weights, which are unfrozen and kept over the
micro-batches of the step, as the paper's baseline does; `vanilla-fp32` (16-bit weights only) sums
them in fp32, as 128 accumulations need. Memory: the peak of tensors, weights included, at the worst
moment of a step (the allocator's own count on a GPU, every allocation in PyTorch's profiler on a
CPU). Throughput: median time of a step of `--accumulate` micro-batches, criteria taking turns (on a
CPU the process's own time, one thread). The longer `--length`, the less a spared gradient counts.
`llama-7b-layers`: 7B widths with one and two layers, and what they extrapolate to for 32.
The paper (Table 4, LLaMA-7B): memory x 0.474 (38.6 to 18.3 GB) and throughput x 1.646. About 38.6
is what 16-bit weights and fp32 sums take. Gradients of the weights' own type can never save more
than half, so fp32 shapes end above 0.5. Random weights: the values of scores mean nothing here.
Exit status 1 if a ratio to the last criterion misses its goal (0.48 and 1.6) in any shape.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from typing import Any

import torch
from tabulate import tabulate

from prunebench.models.shapes import make_config, random_model
from prunebench.plugins.discovery import discover
from prunebench.profiling.memory import watch

make_step = discover()["loraprune"].load_step()

GIB = 2**30
MEMORY_GOAL, THROUGHPUT_GOAL = 0.48, 1.6
HEAD_DIM = 128
SHAPES = {  # hidden, FFN, layers, vocabulary (in the small ones the same 4 % of all as in 7B)
    "tiny": (256, 688, 6, 400),
    "small": (512, 1376, 8, 1000),
    "wide": (1024, 2752, 8, 2000),
    "llama-7b-1": (4096, 11008, 1, 32000),
    "llama-7b-2": (4096, 11008, 2, 32000),
    "llama-7b": (4096, 11008, 32, 32000),
}
SPANS = {"llama-7b-layers": ("llama-7b-1", "llama-7b-2", 32)}


def main() -> int:
    options = _arguments()
    torch.set_num_threads(1)
    rows, met = [], True
    for shape in options.shape:
        criteria = ["lora", "vanilla"]
        if options.dtype != "float32":
            criteria.append("vanilla-fp32")
        memory = {name: _memory(shape, name, options) for name in criteria}
        seconds = _seconds(shape, criteria, options) if shape not in SPANS else {}
        for name in criteria:
            less = memory["lora"] / memory[name]
            faster = seconds[name] / seconds["lora"] if seconds else None
            rows.append([shape, name, memory[name] / GIB, less, seconds.get(name), faster])
            if name == criteria[-1]:
                met &= less <= MEMORY_GOAL and (faster is None or faster >= THROUGHPUT_GOAL)
    headers = ["shape", "criterion", "peak GiB", "memory ratio", "s per step", "throughput ratio"]
    sys.stdout.write(tabulate(rows, headers, floatfmt=".3f", missingval="-") + "\n")
    where = _where(options.device)
    sys.stdout.write(
        f"{where}, {options.dtype}, batch 1, length {options.length}, {options.accumulate} "
        f"micro-batches per step, median of {options.rounds}. Ratios: LoRA-guided to the row's "
        f"criterion; goals: memory <= {MEMORY_GOAL}, throughput >= {THROUGHPUT_GOAL}\n"
    )
    return 0 if met else 1


def _memory(shape: str, criterion: str, options: argparse.Namespace) -> float:
    """Peak bytes of a step; for a span of layers, extrapolated linearly."""
    if shape in SPANS:
        one, two, layers = SPANS[shape]
        first, second = (_memory(name, criterion, options) for name in (one, two))
        return first + (layers - 1) * (second - first)
    with _fresh(shape, criterion, options) as step:
        step.run()  # the optimizer's moments come into being
        held = step.held_bytes()
        with watch(options.device) as memory, memory.part("step"):
            step.run()
        return held + memory.parts["step"].allocated_bytes


def _seconds(shape: str, criteria: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step of each criterion; one model at a time is in memory."""
    taken: dict[str, list[float]] = {name: [] for name in criteria}
    for _ in range(options.turns):
        for name in criteria:
            with _fresh(shape, name, options) as step:
                step.run()
                for _ in range(options.rounds):
                    start = _now(options.device)
                    step.run()
                    taken[name].append(_now(options.device) - start)
    return {name: statistics.median(times) for name, times in taken.items()}


class _fresh:
    """A step that is gone from memory when the block ends."""

    def __init__(self, shape: str, criterion: str, options: argparse.Namespace) -> None:
        self.arguments = (shape, criterion, options)

    def __enter__(self) -> Any:
        self.step: Any = _step(*self.arguments)
        return self.step

    def __exit__(self, *_: object) -> None:
        self.step = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _step(shape: str, criterion: str, options: argparse.Namespace) -> Any:
    """A step of the criterion on random weights, made where they are needed."""
    hidden, neurons, layers, vocabulary = SHAPES[shape]
    sizes = {
        "hidden_size": hidden,
        "intermediate_size": neurons,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "num_attention_heads": hidden // HEAD_DIM,
        "num_key_value_heads": hidden // HEAD_DIM,
        "max_position_embeddings": options.length,
    }
    config = make_config("llama-7b", sizes)
    model = random_model(config, dtype=options.dtype, device=options.device)
    return make_step(
        model,
        micro_batches=options.accumulate,
        length=options.length,
        seed=0,
        criterion=criterion,
    )


def _now(device: str) -> float:
    """Seconds of the device; of this process alone on a CPU, which others may use as well."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _where(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    return "CPU, one thread"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*SHAPES, *SPANS]
    parser.add_argument("--shape", nargs="+", choices=known, default=["tiny", "small", "wide"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--accumulate", type=int, default=16, help="micro-batches per step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
