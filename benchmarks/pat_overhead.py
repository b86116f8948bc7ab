"""What PAT's modules cost in training, and what the folded model gains afterwards.

    python benchmarks/pat_overhead.py [--shape tiny small wide] [--batch 8] [--length 128]
    python benchmarks/pat_overhead.py --shape llama-7b --device cuda --dtype bfloat16

Training: an optimizer step (forward, backward, penalty, clipping, AdamW) with LoRA and the modules
against one with LoRA of the same rank alone, and against LoRA of the rank that has as many
trainable parameters (the paper's LoRA-64 to its 20 beside modules of rank 200). All take turns step
by step; the median of the time (on a CPU the process's own, one thread) and the peak of tensors,
weights and optimizer state included. The modules' rank is 5 % of the width, LoRA's 0.5 %.
Inference: prefill and decode of the dense model and of one that was folded and cut to three
quarters of its width, by `prunebench.profiling`. Random weights: times depend on shapes alone.
Exit status 1 if a step takes more than 1.25 x the time or 1.15 x the memory of LoRA's.
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
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.plugins.discovery import discover
from prunebench.profiling import Point, measure, watch
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import slice_model
from prunebench.recovery import RecoverySettings, attach

PLUGIN = discover()["pat"]
PLUGIN.load()
from prunebench_plugin_pat.fold import fold  # noqa: E402
from prunebench_plugin_pat.options import Options  # noqa: E402
from prunebench_plugin_pat.schedule import Schedule  # noqa: E402
from prunebench_plugin_pat.sparsifier import Sparsifier  # noqa: E402

MIB = 2**20
TIME_GOAL, MEMORY_GOAL = 1.25, 1.15
HEAD_DIM = 64
SHAPES = {  # hidden, FFN, layers, vocabulary (in the small ones the same 4 % of all as in 7B)
    "tiny": (256, 688, 6, 400),
    "small": (512, 1376, 8, 1000),
    "wide": (1024, 2752, 8, 2000),
    "llama-7b-4": (4096, 11008, 4, 32000),
    "llama-7b": (4096, 11008, 32, 32000),
}
VARIANTS = ("lora", "lora-matched", "pat")
POINTS = ((1, 128, 16), (8, 128, 16))


class Step:
    """A model in training under one variant, and its optimizer."""

    def __init__(self, shape: str, variant: str, options: argparse.Namespace) -> None:
        self.options = options
        self.model = build(shape, options)
        width = self.model.config.hidden_size
        rank = max(1, width // 200)
        if variant == "lora-matched":
            rank += _matching(self.model)
        settings = RecoverySettings.from_config({"preset": "pat", "rank": rank, "alpha": rank / 5})
        self.wrapped = attach(self.model, settings, seed=0).train()
        self.sparsifier = sparsify(self.model) if variant == "pat" else None
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)

    @property
    def trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.trained)

    def run(self) -> None:
        """One optimizer step."""
        options = self.options
        shape = (options.batch, options.length)
        ids = torch.randint(self.model.config.vocab_size, shape, device=options.device)
        with torch.autocast(options.device, torch.bfloat16, enabled=options.dtype == "bfloat16"):
            loss = self.wrapped(input_ids=ids, labels=ids, use_cache=False).loss
            if self.sparsifier is not None:
                loss = loss + self.sparsifier.penalty()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 0.3)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def held_bytes(self) -> int:
        """Bytes of weights, adapters and optimizer state between two steps."""
        tensors: list[Tensor] = [*self.model.parameters(), *self.model.buffers()]
        for state in self.optimizer.state.values():
            tensors += [value for value in state.values() if torch.is_tensor(value)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main() -> int:
    options = _arguments()
    torch.set_num_threads(1)
    training, inference, met = [], [], True
    for shape in options.shape:
        rows = _training(shape, options)
        training += rows
        met &= rows[-1][4] <= TIME_GOAL and rows[-1][6] <= MEMORY_GOAL
        if not options.no_inference:
            inference += _inference(shape, options)
    where = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    headers = ["shape", "variant", "trainable", "ms/step", "x", "peak MiB", "x"]
    print(tabulate(training, headers, floatfmt=("", "", ",", ".1f", ".3f", ".1f", ".3f")))
    print(
        f"{where}, {options.dtype}, batch {options.batch} x {options.length}, median of "
        f"{options.rounds} steps. x: to lora; goals {TIME_GOAL} and {MEMORY_GOAL} for pat\n"
    )
    headers = ["shape", "width", "point", "prefill ms", "dense", "x", "decode ms", "dense", "x"]
    print(tabulate(inference, headers, floatfmt=".3f"))
    return 0 if met else 1


def build(shape: str, options: argparse.Namespace) -> LlamaForCausalLM:
    """Random weights, made where they are needed."""
    hidden, neurons, layers, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        num_attention_heads=max(4, hidden // (2 * HEAD_DIM)),
        max_position_embeddings=2048,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    try:
        with torch.device(options.device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def sparsify(model: LlamaForCausalLM) -> Sparsifier:
    """The modules as PAT makes them, a quarter of the width to leave, in the middle of training."""
    options = Options.from_params(PLUGIN.params({}, where="benchmark"))
    hidden = structures_of(model)["hidden"]
    sparsifier = Sparsifier(
        hidden,
        kept=hidden.units * 3 // 4,
        options=options,
        schedule=Schedule(3000, 1000, 800),
        tied=False,
        seed=0,
    )
    sparsifier.step = 500
    sparsifier.attach(model)
    return sparsifier


def _matching(model: LlamaForCausalLM) -> int:
    """The LoRA rank whose parameters are as many as the modules' (rank 200 counts as 44 on 7B)."""
    per_rank = sum(sum(m.weight.shape) for n, m in model.named_modules() if n.endswith("proj"))
    sparsifier = sparsify(model)
    count = sum(parameter.numel() for parameter in sparsifier.parameters())
    sparsifier.detach(model)
    return max(1, round(count / per_rank))


def _training(shape: str, options: argparse.Namespace) -> list[list[Any]]:
    """One row per variant: time in turns first, then memory one at a time."""
    steps = {name: Step(shape, name, options) for name in VARIANTS}
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for done in range(options.rounds + options.warmup):
        for name in VARIANTS if done % 2 else reversed(VARIANTS):
            start_s = _now_s(options.device)
            steps[name].run()
            if done >= options.warmup:
                taken[name].append(1e3 * (_now_s(options.device) - start_s))
    trainable = {name: step.trainable for name, step in steps.items()}
    steps.clear()
    peaks = {name: _peak_mib(shape, name, options) for name in VARIANTS}
    rows = []
    for name in VARIANTS:
        time_ms = statistics.median(taken[name])
        ratio = time_ms / statistics.median(taken["lora"])
        more = peaks[name] / peaks["lora"]
        rows.append([shape, name, trainable[name], time_ms, ratio, peaks[name], more])
    return rows


def _peak_mib(shape: str, variant: str, options: argparse.Namespace) -> float:
    gc.collect()
    step = Step(shape, variant, options)
    step.run()  # the optimizer's moments come into being
    held = step.held_bytes()
    with watch(options.device) as memory, memory.part("step"):
        step.run()
    return (held + memory.parts["step"].allocated_bytes) / MIB


def _inference(shape: str, options: argparse.Namespace) -> list[list[Any]]:
    """One row per point: the folded model's median times beside the dense model's."""

    def folded() -> nn.Module:
        model = build(shape, options)
        sparsifier = sparsify(model)
        sparsifier.settle()
        sparsifier.detach(model)
        fold(model, sparsifier)
        slice_model(model, Decision({"hidden": tuple(range(sparsifier.kept))}))
        return model

    models = {"dense": lambda: build(shape, options), "folded": folded}
    points = [Point.of(batch=b, prompt=p, new=n) for b, p, n in POINTS]
    profiles = measure(models, points, device=options.device, repeats=options.rounds)
    rows = []
    for dense, pruned in zip(*(profiles[name]["points"] for name in models), strict=True):
        row = [shape, SHAPES[shape][0] * 3 // 4, pruned["name"]]
        for key, gain in (
            ("prefill_ms", "prefill_speedup"),
            ("decode_ms_per_token", "decode_speedup"),
        ):
            row += [pruned[key]["median"], dense[key]["median"], pruned[gain]["ratio"]]
        rows.append(row)
    return rows


def _now_s(device: str) -> float:
    """Seconds of the device; of this process alone on a CPU, which others may use as well."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", choices=SHAPES, default=["tiny", "small", "wide"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--no-inference", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
