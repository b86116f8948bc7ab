"""What pruning saves in llama.cpp: prefill and decoding of dense and pruned models, in turns.

    python benchmarks/llama_cpp_speed.py DENSE PRUNED [PRUNED ...] [--type f32] [--prompt 128]
        [--new 32] [--rounds 7] [--threads 1] [--skip-torch]

Folders are models as campaigns save them. Each is exported to GGUF (in a folder that is deleted
afterwards) and asked the same random prompt by llama.cpp, greedily; then the same by PyTorch with
its cache, in float32. All models are in memory at once and take turns in every round, so that
neighbours on the machine touch them alike. Shown: tokens a second (medians), the speed-up over the
dense model (median of the ratios of each round), and what it could be at most: prefill by
multiplications, decoding by bytes of weights. llama.cpp is the package xllamacpp: pip install
'.[llama]'.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

Speeds = tuple[float, float]
"""Prefill and decoding, tokens a second."""


def main() -> int:
    """Measure and print one table for each runtime."""
    import torch
    from tabulate import tabulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("pruned", type=Path, nargs="+")
    parser.add_argument("--type", default="f32", choices=["f32", "f16", "bf16", "q8_0"])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip-torch", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folders = [options.dense, *options.pruned]
    limits = [_limits(folder) for folder in folders]
    ids = torch.randint(1000, (options.prompt,), generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as root:
        runtimes = {f"llama.cpp, {options.type}": [
            _in_llama_cpp(folder, Path(root) / f"{i}.gguf", ids.tolist(), options)
            for i, folder in enumerate(folders)
        ]}  # fmt: skip
        if not options.skip_torch:
            runtimes["PyTorch, float32"] = [_in_torch(folder, ids, options) for folder in folders]
        for name, asks in runtimes.items():
            print(f"\n{name}, {options.threads} threads, prompt {options.prompt}, "
                  f"{options.new} new, medians of {options.rounds} rounds")  # fmt: skip
            print(tabulate(_rows(folders, limits, _in_turns(asks, options.rounds)), headers=[
                "model", "prefill/s", "decode/s", "prefill x", "at most", "decode x", "at most",
            ], floatfmt=("", ".0f", ".1f", ".2f", ".2f", ".2f", ".2f")))  # fmt: skip
    return 0


def _limits(folder: Path) -> Speeds:
    """Parameters that a token is multiplied with, and bytes of weights that decoding reads."""
    from prunebench.models.folders import load
    from prunebench.profiling.sizes import decode_weight_bytes

    model, _ = load(folder)
    read = decode_weight_bytes(model)
    return read / 4, float(read)


def _in_llama_cpp(
    folder: Path, path: Path, ids: list[int], options: argparse.Namespace
) -> Callable[[], Speeds]:
    import xllamacpp as engine

    from prunebench.models.gguf_export import export_gguf

    export_gguf(folder, path, kind=options.type)
    params = engine.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.verbosity = len(ids) + options.new + 8, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    server = engine.Server(params)
    asked = {"prompt": ids, "max_tokens": options.new, "temperature": 0.0, "cache_prompt": False,
             "ignore_eos": True}  # fmt: skip

    def ask() -> Speeds:
        timings: dict[str, Any] = server.handle_completions(asked)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]

    return ask


def _in_torch(folder: Path, ids: Any, options: argparse.Namespace) -> Callable[[], Speeds]:
    import torch

    from prunebench.models.folders import load

    model, _ = load(folder)

    @torch.inference_mode()
    def ask() -> Speeds:
        start = perf_counter()
        found = model(ids[None], use_cache=True, logits_to_keep=1)
        middle = perf_counter()
        for _ in range(options.new - 1):
            chosen = found.logits[:, -1:].argmax(dim=-1)
            found = model(chosen, past_key_values=found.past_key_values, use_cache=True)
        end = perf_counter()
        return len(ids) / (middle - start), (options.new - 1) / (end - middle)

    return ask


def _in_turns(asks: list[Callable[[], Speeds]], rounds: int) -> list[list[Speeds]]:
    """The speeds of every model in every round; the first round is a warm-up."""
    found: list[list[Speeds]] = [[] for _ in asks]
    for turn in range(-1, rounds):
        order = range(len(asks)) if turn % 2 else reversed(range(len(asks)))
        for i in order:
            speeds = asks[i]()
            if turn >= 0:
                found[i].append(speeds)
    return found


def _rows(folders: list[Path], limits: list[Speeds], speeds: list[list[Speeds]]) -> list[list[Any]]:
    rows = []
    for folder, most, own in zip(folders, limits, speeds, strict=True):
        ratios = [[a / b for a, b in zip(mine, dense, strict=True)]
                  for mine, dense in zip(own, speeds[0], strict=True)]  # fmt: skip
        prefill, decode = (median(round_[k] for round_ in own) for k in range(2))
        faster = [median(ratio[k] for ratio in ratios) for k in range(2)]
        bound = [limits[0][k] / most[k] for k in range(2)]
        name = "/".join(folder.parts[-4:-1]) or folder.name
        rows.append([name, prefill, decode, faster[0], bound[0], faster[1], bound[1]])
    return rows


if __name__ == "__main__":
    sys.exit(main())
