"""Is the noise of our timings what their intervals say? Dense is timed against dense.

    python benchmarks/profile_noise.py [--model FOLDER] [--device cuda] [--series 3] [--rounds 40]

`twin` is the dense model once more: the interval of its ratio must contain 1. `doubled` runs its
decoder twice in each call: its interval must not. Exit status 1 if either fails in any series.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tabulate import tabulate
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.models.folders import load
from prunebench.profiling import Point, measure

POINTS = [Point.of(batch=1, prompt=64, new=16), Point.of(batch=8, prompt=64, new=16)]
SHAPE = {  # of the demo's order of size
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of a model; default: random weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--series", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--confidence", type=float, default=0.999)
    options = parser.parse_args()
    models = _models(options.model)
    rows, where = [], ""
    for series in range(options.series):
        profiles = measure(
            models,
            POINTS,
            device=options.device,
            repeats=options.rounds,
            confidence=options.confidence,
            seed=series,
        )
        where = profiles["dense"]["device"]
        rows += [row for name in ("twin", "doubled") for row in _rows(series, name, profiles[name])]
    headers = [
        "series",
        "model",
        "point",
        "phase",
        "median ms",
        "ratio",
        "low",
        "high",
        "as it must",
    ]
    print(f"{where}; {options.rounds} rounds; intervals of {options.confidence:.1%}\n")
    print(tabulate(rows, headers=headers, floatfmt=".3f"))
    return 0 if all(row[-1] == "yes" for row in rows) else 1


def _models(folder: Path | None) -> dict[str, nn.Module]:
    """Three copies of one model; the last does its work twice."""
    models = {name: _model(folder) for name in ("dense", "twin", "doubled")}
    decoder = models["doubled"].model
    forward = decoder.forward

    def twice(*args, **kwargs):
        forward(*args, **(kwargs | {"past_key_values": None}))
        return forward(*args, **kwargs)

    decoder.forward = twice
    return models


def _model(folder: Path | None) -> nn.Module:
    if folder is not None:
        return load(folder)[0]
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def _rows(series: int, name: str, profile: dict) -> list[list]:
    """One row for each point and phase; the last column says whether the interval is as it must."""
    rows = []
    for point in profile["points"]:
        for phase, time in (("prefill", "prefill_ms"), ("decode", "decode_ms_per_token")):
            seen = point[f"{phase}_speedup"]
            contains_one = seen["low"] <= 1 <= seen["high"]
            verdict = "yes" if contains_one == (name == "twin") else "NO"
            figures = [point[time]["median"], seen["ratio"], seen["low"], seen["high"]]
            rows.append([series, name, point["name"], phase, *figures, verdict])
    return rows


if __name__ == "__main__":
    sys.exit(main())
