"""Peak host memory of an evaluation with a long vocabulary: logits of all positions, or in parts.

    python benchmarks/evaluation_memory.py [--hidden 512] [--length 2048] [--windows 2]

Builds a small random Gemma (vocabulary 256,000, tied embedding, two layers; what the logits take
does not depend on the hidden size, only the time does: Gemma-2B has 2048), and evaluates the same
random tokens in processes of their own. Perplexity of windows of 2,048 tokens: from the whole
tensor of logits ("whole"), and from a few rows at a time ("parts", what the suite does). One
zero-shot question of 2,048 tokens with two answers: by lm-eval's own passes ("plain"), and with
common beginnings once ("shared"). Prints peaks above the loaded model and the figures, which must
agree; exit status 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time

import torch
from tabulate import tabulate
from torch.nn import functional
from transformers import GemmaConfig, GemmaForCausalLM

from prunebench.evaluation.perplexity import losses
from prunebench.evaluation.zeroshot.shared import Request, Scorer

WAYS = ("perplexity whole", "perplexity parts", "zero-shot plain", "zero-shot shared")
ANSWER = 8
"""Tokens of an answer."""


def main() -> int:
    options = _options()
    if options.way:
        print(json.dumps(_measure(options)))
        return 0
    rows, figures = [], {}
    for way in WAYS:
        command = [sys.executable, __file__, "--way", way]
        command += [f"--{k}={getattr(options, k)}" for k in ("hidden", "length", "windows")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        figures[way] = found["figure"]
        rows.append([way, found["model_mib"], found["peak_mib"], found["seconds"], found["figure"]])
    headers = ["", "loaded MiB", "peak above it MiB", "seconds", "nats"]
    print(tabulate(rows, headers=headers, floatfmt=("", ",.0f", ",.0f", ".1f", ".6f")))
    close = [abs(figures[a] / figures[b] - 1) < 1e-6 for a, b in (WAYS[:2], WAYS[2:])]
    return 0 if all(close) else 1


def _measure(options: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(0)
    config = GemmaConfig(
        num_hidden_layers=2,
        hidden_size=options.hidden,
        intermediate_size=8 * options.hidden,
        num_attention_heads=options.hidden // 256,
        num_key_value_heads=1,
        max_position_embeddings=8192,
    )
    model = GemmaForCausalLM(config).eval()
    ids = torch.randint(3, config.vocab_size, (options.windows, options.length))
    loaded = _peak_mib()
    began = time.perf_counter()
    figure = {
        "perplexity whole": _whole,
        "perplexity parts": _parts,
        "zero-shot plain": _plain,
        "zero-shot shared": _shared,
    }[options.way](model, ids)
    seconds = time.perf_counter() - began
    peak = _peak_mib() - loaded
    return {"model_mib": loaded, "peak_mib": peak, "seconds": seconds, "figure": figure}


@torch.inference_mode()
def _whole(model: GemmaForCausalLM, ids: torch.Tensor) -> float:
    """Mean loss with the logits of all positions at once, normalised a few rows at a time."""
    logits = model(ids, use_cache=False).logits[:, :-1].flatten(0, 1)
    parts = zip(logits.split(8), ids[:, 1:].flatten().split(8), strict=True)
    total = sum(functional.cross_entropy(a, b, reduction="sum").double() for a, b in parts)
    return float(total / ids[:, 1:].numel())


def _parts(model: GemmaForCausalLM, ids: torch.Tensor) -> float:
    sums, counts = losses(model, list(ids), len(ids))
    return sum(sums) / sum(counts)


def _requests(ids: torch.Tensor) -> list[Request]:
    context = ids[0, :-ANSWER].tolist()
    answers = torch.randint(3, 256_000, (2, ANSWER), generator=torch.Generator().manual_seed(1))
    return [Request(context + answer, ANSWER) for answer in answers.tolist()]


@torch.inference_mode()
def _plain(model: GemmaForCausalLM, ids: torch.Tensor) -> float:
    """What lm-eval does: logits and log-probabilities of all positions of all requests."""
    tokens = torch.tensor([request.tokens for request in _requests(ids)])
    log_probs = model(tokens[:, :-1]).logits.log_softmax(dim=-1)[:, -ANSWER:]
    return -float(log_probs.gather(2, tokens[:, -ANSWER:, None]).sum())


def _shared(model: GemmaForCausalLM, ids: torch.Tensor) -> float:
    return -sum(score for score, _ in Scorer(model, 2).score(_requests(ids)))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
