"""Memory and time of gradient scoring: streamed against keeping all gradients.

    python benchmarks/scoring_memory.py [--sizes 6M 30M 120M 350M] [--device cpu] [--repeats 5]

Random Llamas; all heads and neurons are scored with param_first. Each size runs in a process of its
own. Weights: bytes of all parameters. Activations: peak of the forward pass with its graph kept,
above the weights. Peaks are those of tensor memory, weights included. Times are medians over
interleaved repeats, of processor time on a CPU, so that neighbours do not count. Exit status 1 if a
streamed peak exceeds 1.35 x (weights + activations), or if streamed scoring takes more than 1.1 x
the time of the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from statistics import median
from time import perf_counter, process_time
from typing import Any

MOST_MEMORY, MOST_TIME = 1.35, 1.10
MIB = 2**20
LENGTH, VOCABULARY = 64, 2048
SIZES = {  # hidden, FFN, layers, heads, KV heads
    "6M": (256, 688, 6, 8, 4),
    "30M": (512, 1376, 9, 8, 8),
    "120M": (768, 2048, 16, 12, 12),
    "350M": (1024, 2816, 27, 16, 16),
    "7B": (4096, 11008, 32, 32, 32),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES][:4])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--samples", type=int, default=2, help=f"of {LENGTH} tokens")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--one", choices=SIZES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return 0
    rows = [_in_process(size, options) for size in options.sizes]
    _show(rows, options.samples)
    passed = all(r["memory"] <= MOST_MEMORY and r["time"] <= MOST_TIME for r in rows)
    return 0 if passed else 1


def measure(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Peaks (bytes) and times (s) of both ways, on one model."""
    import torch

    from prunebench.profiling.memory import watch
    from prunebench.pruning.architectures import structures_of
    from prunebench.pruning.saliency import channel_saliency, sides_of

    model = random_llama(size, options.device, options.dtype)
    tokens = torch.randint(VOCABULARY, (options.samples, LENGTH))
    blocks = [s for s in structures_of(model).values() if s.kind in ("heads", "neurons")]
    sides = sides_of(blocks)

    def score(streamed: bool) -> None:
        channel_saliency(model, sides, ["param_first"], tokens=tokens, streamed=streamed)
        _wait(options.device)

    score(True)  # warm-up
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    found: dict[str, Any] = {"size": size, "weights": weights}
    found["parameters"] = sum(p.numel() for p in model.parameters())
    with watch(options.device) as memory:
        with memory.part("activations"):
            _forward(model, sides, tokens.to(options.device))
        for way in ("streamed", "kept"):
            with memory.part(way):
                score(way == "streamed")
    peaks = {name: peak.allocated_bytes or 0 for name, peak in memory.parts.items()}
    found["activations"] = peaks["activations"]
    found |= {way: weights + peaks[way] for way in ("streamed", "kept")}
    clock = process_time if options.device == "cpu" else perf_counter
    times: dict[str, list[float]] = {"streamed": [], "kept": []}
    for turn in range(options.repeats):
        for way in ("streamed", "kept") if turn % 2 else ("kept", "streamed"):
            start = clock()
            score(way == "streamed")
            times[way].append(clock() - start)
    found["streamed_s"], found["kept_s"] = (median(taken) for taken in times.values())
    found["memory"] = found["streamed"] / (weights + found["activations"])
    found["time"] = found["streamed_s"] / found["kept_s"]
    return found


def _forward(model: Any, sides: Any, tokens: Any) -> None:
    """A forward pass and its loss, with what backward needs for these weights."""
    from torch.nn import functional

    model.requires_grad_(False)
    for name in {side.parameter for side in sides}:
        model.get_parameter(name).requires_grad_(True)
    logits = model(tokens, use_cache=False).logits
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())
    assert loss.requires_grad
    model.requires_grad_(True)


def random_llama(size: str, device: str, dtype: str) -> Any:
    """A Llama of one of SIZES with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, ffn, layers, heads, kv = SIZES[size]
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=LENGTH,
        dtype=getattr(torch, dtype),
    )
    torch.manual_seed(0)
    with torch.device(device):
        return LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()


def _wait(device: str) -> None:
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _in_process(size: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size in a fresh process, so that no size sees another's memory."""
    command = [sys.executable, __file__, "--one", size, "--device", options.device]
    command += ["--dtype", options.dtype, "--repeats", str(options.repeats)]
    command += ["--samples", str(options.samples)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def _show(rows: list[dict[str, Any]], samples: int) -> None:
    from tabulate import tabulate

    headers = ["size", "parameters M", "weights MiB", "activations MiB", "streamed MiB", "kept MiB"]
    headers += ["streamed / (w + a)", "kept / (w + a)", "streamed s", "kept s", "time ratio", "met"]
    table = []
    for r in rows:
        base = r["weights"] + r["activations"]
        mib = [r[key] / MIB for key in ("weights", "activations", "streamed", "kept")]
        met = "yes" if r["memory"] <= MOST_MEMORY and r["time"] <= MOST_TIME else "NO"
        ratios = [r["memory"], r["kept"] / base, r["streamed_s"], r["kept_s"], r["time"], met]
        table.append([r["size"], r["parameters"] / 1e6, *mib, *ratios])
    print(
        f"param_first, {samples} samples of {LENGTH} tokens; limits {MOST_MEMORY} and {MOST_TIME}"
    )
    print(tabulate(table, headers=headers, floatfmt=".2f"))


if __name__ == "__main__":
    sys.exit(main())
