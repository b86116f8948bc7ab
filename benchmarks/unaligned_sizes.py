"""What do unaligned widths cost? The same share is removed, with kept units a multiple of 1, 8, 64.

    python benchmarks/unaligned_sizes.py --device cuda --shape llama-7b --layers 4
    python benchmarks/unaligned_sizes.py --shape small

Heads and neurons, or channels of the hidden width, leave at random; `share of limit` is the
speed-up over dense as a fraction of the ratio of MACs (prefill) or of bytes read (decode). The
models of one kind take turns, so their rows compare. Random weights: only shapes matter here. Exit
status 1 if, at any point, the largest multiple reaches less than the unrounded widths' share of the
prefill limit (5 % of slack): a GPU on which alignment does not matter passes as well.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch
from tabulate import tabulate

from prunebench.models.shapes import make_config, random_model
from prunebench.profiling import Point, measure
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import select
from prunebench.pruning.surgery import slice_model

MULTIPLES = (1, 8, 64)
SLACK = 0.95
SMALL = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "vocab_size": 1000}
SMALL |= {"num_attention_heads": 8, "num_key_value_heads": 8}
KINDS = {"heads and neurons": ("heads", "neurons"), "hidden": ("hidden",)}


def main() -> int:
    options = _arguments()
    points = [Point.of(batch=b, prompt=p, new=options.new) for b, p in options.points]
    rows, passed = [], True
    for what, kinds in KINDS.items():
        sources: dict[str, Any] = {"dense": lambda: _model(options)}
        for multiple in MULTIPLES:
            sources[str(multiple)] = lambda m=multiple, k=kinds: _cut(options, k, m)
        profiles = measure(
            sources,
            points,
            device=options.device,
            repeats=options.rounds,
            cuda_graphs=options.cuda_graphs,
        )
        rows += [row for name in sources for row in _rows(what, name, profiles[name])]
        passed &= _rounding_pays(profiles)
    headers = ["removed", "multiple of", "aligned to", "parameters M", "point", "prefill ms"]
    headers += ["speed-up", "share of limit", "decode ms", "speed-up", "share of limit"]
    where = profiles["dense"]["device"]
    print(f"{where}; {options.shape}, {options.layers} layers, {options.sparsity:.0%} removed\n")
    print(tabulate(rows, headers=headers, floatfmt=".3f", missingval="-"))
    return 0 if passed else 1


def _model(options: argparse.Namespace) -> Any:
    small = SMALL if options.shape == "small" else {}
    overrides = {**small, "num_hidden_layers": options.layers}
    config = make_config("llama-7b" if small else options.shape, overrides)
    dtype = "float32" if options.device == "cpu" else "bfloat16"
    return random_model(config, dtype=dtype, device=options.device)


def _cut(options: argparse.Namespace, kinds: tuple[str, ...], multiple: int) -> Any:
    model = _model(options)
    structures = structures_of(model)
    draw = torch.Generator().manual_seed(0)
    scores = {
        name: torch.rand(structure.units, generator=draw)
        for name, structure in structures.items()
        if structure.kind in kinds
    }
    # Heads are whole heads anyway: their width is a multiple of 64 or 128.
    multiples = {kind: multiple for kind in kinds if kind != "heads"}
    decision = select(Budget(model, structures), scores, options.sparsity, multiple_of=multiples)
    slice_model(model, decision)
    return model


def _rows(what: str, name: str, profile: dict[str, Any]) -> list[list[Any]]:
    if profile["status"] != "ok":
        return [[what, name, None, None, profile["reason"]]]
    return [
        [what, name, profile["aligned_to"], profile["parameters"] / 1e6, *_point(entry)]
        for entry in profile["points"]
    ]


def _point(entry: dict[str, Any]) -> list[Any]:
    figures: list[Any] = [entry["name"]]
    for phase, time in (("prefill", "prefill_ms"), ("decode", "decode_ms_per_token")):
        seen, gained = entry[time], entry[f"{phase}_speedup"]
        figures.append(None if seen is None else seen["median"])
        figures += [gained["ratio"], gained["share_of_limit"]] if gained else [None, None]
    return figures


def _rounding_pays(profiles: dict[str, Any]) -> bool:
    first, last = (profiles[str(multiple)]["points"] for multiple in (MULTIPLES[0], MULTIPLES[-1]))
    return all(
        aligned["status"] == "ok"
        and aligned["prefill_speedup"]["share_of_limit"]
        >= SLACK * unaligned["prefill_speedup"]["share_of_limit"]
        for unaligned, aligned in zip(first, last, strict=True)
    )


def _pair(text: str) -> tuple[int, int]:
    batch, prompt = text.split("x")
    return int(batch), int(prompt)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="llama-7b", help="a named shape, or small")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--sparsity", type=float, default=0.45, help="gives odd widths")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--points", nargs="+", type=_pair, default=[(1, 128), (8, 128)], metavar="BATCHxPROMPT"
    )
    parser.add_argument("--new", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cuda-graphs", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
