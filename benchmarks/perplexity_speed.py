"""Speed of the perplexity loop, as a share of bare forward passes of the same model (>= 0.9).

    python benchmarks/perplexity_speed.py [--model FOLDER] [--windows 512] [--rounds 7]

Both sides see the same windows in the same batches, in turns, so that a busy machine meets both
alike. Bare is `model(ids)` alone; ours adds the loss of every token, sums and their bookkeeping.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch
from tabulate import tabulate

from prunebench.evaluation import perplexity
from prunebench.models import folders

LENGTH = 128


def main() -> None:
    """Print tokens/s of both sides and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(os.environ.get("PRUNEBENCH_MODELS", "."), "wikibooks-llama-6m")
    parser.add_argument("--model", default=str(default))
    parser.add_argument("--windows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    model, tokenizer = folders.load(options.model)
    text = [f"Item {i} is a line of text like many others." for i in range(40 * options.windows)]
    batch = max(1, perplexity.TOKENS_PER_BATCH // LENGTH)
    ids = perplexity.windows(tokenizer, text, LENGTH)[: options.windows]

    @torch.inference_mode()
    def bare() -> None:
        for part in ids.split(batch):
            model(part, use_cache=False)

    pieces = list(ids)
    ours, plain = [], []
    for round_number in range(options.rounds + 1):
        for times, work in ((plain, bare), (ours, lambda: perplexity.losses(model, pieces, batch))):
            start_s = time.perf_counter()
            work()
            if round_number:  # the first round warms up
                times.append(time.perf_counter() - start_s)
    ratios = [p / o for p, o in zip(plain, ours, strict=True)]
    tokens = ids.numel()
    rows = [
        ["bare forward", tokens / statistics.median(plain)],
        ["perplexity loop", tokens / statistics.median(ours)],
    ]
    print(tabulate(rows, headers=["", "tokens/s"], floatfmt=",.0f"))
    print(f"ratio: median {statistics.median(ratios):.3f} (of {len(ratios)} rounds)")


if __name__ == "__main__":
    main()
