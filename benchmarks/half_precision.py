"""Do methods decide the same in bfloat16 as in float32? Rank correlations and shared units.

    python benchmarks/half_precision.py [--model FOLDER] [--data FOLDER] [--corpus books]
        [--methods NAME ...] [--sparsity 0.5] [--of model|decoder] [--samples 10] [--length 128]
        [--device cpu]

Each method scores the same model twice, on the same calibration text: with weights and passes in
float32, and in bfloat16. Shown for each, over the structures that lose units: Spearman's rank
correlation of the scores (median and smallest), and which share of the units that leave in float32
leaves in bfloat16 too (all structures together; `by chance`: what two random choices of as many
units share). Methods that tune by themselves are left out: they would learn other weights.
Defaults: $PRUNEBENCH_MODELS/wikibooks-llama-6m and $PRUNEBENCH_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

METHODS = ("magnitude", "llm_pruner", "hywia", "wanda_sp", "flap", "fasp", "slimgpt")
TYPES = ("float32", "bfloat16")


def main() -> int:
    """Score in both types and print the table."""
    from tabulate import tabulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models, data = (os.environ.get(f"PRUNEBENCH_{name}", ".") for name in ("MODELS", "DATA"))
    parser.add_argument("--model", type=Path, default=Path(models) / "wikibooks-llama-6m")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--corpus", default="books")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--of", choices=("model", "decoder"), default="decoder")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{options.model.name}, {options.sparsity:.0%} of the {options.of}, {options.samples} x "
          f"{options.length} of {options.corpus}, {options.device}")  # fmt: skip
    rows = [
        compared(name, *(scored(name, dtype, options) for dtype in TYPES))
        for name in options.methods
    ]
    headers = ["method", "median rank corr.", "smallest", "units that leave", "shared", "by chance"]
    print(tabulate(rows, headers=headers, floatfmt=("", ".4f", ".4f", "", ".3f", ".3f")))
    return 0


@dataclass(frozen=True)
class Scored:
    """What a method said of every structure: scores of its units, and which of them stay."""

    scores: Mapping[str, Any]
    keep: Mapping[str, tuple[int, ...]]


def scored(method: str, dtype: str, options: argparse.Namespace) -> Scored:
    """Let a method decide on the model in one type."""
    from prunebench import Context
    from prunebench.models.folders import load
    from prunebench.plugins.discovery import discover
    from prunebench.profiling.cost import Cost
    from prunebench.pruning.architectures import structures_of
    from prunebench.pruning.budget import Budget
    from prunebench.text.calibration import calibration_tokens
    from prunebench.text.source import Source

    @dataclass(frozen=True)
    class Watched(Context):
        """Remembers the scores by which units are chosen."""

        seen: dict[str, Any] = field(default_factory=dict)

        def select(self, scores: Mapping[str, Any], **how: Any) -> Any:
            self.seen.update(scores)
            return super().select(scores, **how)

        def remove(self, scores: Mapping[str, Any], removed: Any, **how: Any) -> Any:
            self.seen.update(scores)
            return super().remove(scores, removed, **how)

    model, tokenizer = load(options.model, dtype=dtype, device=options.device)
    structures, plugin = structures_of(model), discover()[method]
    rows = Source("local", options.data).mixture(options.corpus, "train")
    tokens = calibration_tokens(
        rows, tokenizer, samples=options.samples, length=options.length, seed=0
    )
    context = Watched(
        sparsity=options.sparsity,
        seed=0,
        device=next(model.parameters()).device,
        params=plugin.params({}, where=method),
        workdir=Path("."),
        structures=structures,
        budget=Budget(model, structures, of=options.of),
        cost=Cost(next(model.parameters()).device),
        tokenizer=tokenizer,
        sample_calibration=lambda samples, length: tokens,
        load_recovery=lambda: None,
    )
    decision = plugin.load()(model, context)
    scores = {name: values.double().cpu().numpy() for name, values in context.seen.items()}
    return Scored(scores, {name: tuple(kept) for name, kept in decision.keep.items()})


def compared(method: str, first: Scored, second: Scored) -> list[Any]:
    """A line of the table."""
    from scipy.stats import spearmanr

    cut = [name for name, kept in first.keep.items() if len(kept) < len(first.scores[name])]
    correlations = [spearmanr(first.scores[n], second.scores[n]).statistic for n in cut]
    leave = shared = expected = 0.0
    for name in cut:
        units = len(first.scores[name])
        gone = [
            set(range(units)) - set(one.keep.get(name, range(units))) for one in (first, second)
        ]
        leave += len(gone[0])
        shared += len(gone[0] & gone[1])
        expected += len(gone[0]) * len(gone[1]) / units
    return [method, median(correlations), min(correlations), int(leave), shared / leave,
            expected / leave]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
