"""What FLAP's bias is worth: perplexity with biases of some structures, of two origins.

    python benchmarks/flap_bias.py [--model FOLDER] [--data FOLDER] [--corpora NAME ...]
        [--sparsities 0.2 0.5] [--samples 32] [--length 128] [--limit 500] [--seed 0]

One decision of FLAP for each sparsity, without biases; then biases are put on nothing, on what
attention writes, on what the MLPs write, or on both. `dense`: the mean of what enters the
consumers of the dense model, as published. `pruned`: of what enters them once everything before
them is pruned and has its own biases. Perplexities are those of the masked model, on calibration
text and on the test text of each corpus, so that what is fitted and what is gained can be told
apart.
Defaults: $PRUNEBENCH_MODELS/wikibooks-llama-6m, $PRUNEBENCH_DATA, wikitext2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ORIGINS = ("dense", "pruned")
ON: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "attention": ("heads",),
    "MLPs": ("neurons",),
    "both": ("heads", "neurons"),
}


def main() -> int:
    """Measure all variants and print their table."""
    from tabulate import tabulate

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models, data = (os.environ.get(f"PRUNEBENCH_{name}", ".") for name in ("MODELS", "DATA"))
    parser.add_argument("--model", type=Path, default=Path(models) / "wikibooks-llama-6m")
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--corpora", nargs="+", default=["wikitext2"])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.2, 0.5])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trial = Trial(options)
    for sparsity in options.sparsities:
        print(f"\n{options.model.name}, {sparsity:.0%}, {options.samples} x {options.length} of "
              f"{', '.join(options.corpora)}")  # fmt: skip
        print(tabulate(trial.rows(sparsity), headers=trial.headers, floatfmt=".1f"), flush=True)
    return 0


class Trial:
    """The model, its texts, and what is measured on them."""

    def __init__(self, options: argparse.Namespace) -> None:
        from prunebench.models.folders import load
        from prunebench.pruning.architectures import structures_of
        from prunebench.text.calibration import calibration_tokens
        from prunebench.text.source import Source

        self.model, self.tokenizer = load(options.model)
        self.structures = structures_of(self.model)
        source = Source("local", options.data)
        self.tokens = calibration_tokens(
            source.mixture(options.corpora, "train"), self.tokenizer,
            samples=options.samples, length=options.length, seed=options.seed,
        )  # fmt: skip
        splits = {"wikitext2": "test", "ptb": "validation"}
        self.texts = {name: source.rows(name, splits[name]) for name in splits}
        self.options = options
        self.headers = ["bias on", "mean of", "calibration", *self.texts]

    def rows(self, sparsity: float) -> Iterator[list[Any]]:
        """One line of the table for every variant."""
        from prunebench.pruning.signals import signals
        from prunebench.pruning.surgery import masked

        decision = self.decide(sparsity)
        chosen = {name: self.structures[name] for name in decision.keep}
        with masked(self.model, decision):
            yield ["nothing", "", *self.perplexities()]
        dense = signals(self.model, chosen, self.tokens)
        for on in ("attention", "MLPs", "both"):
            own = [name for name, s in chosen.items() if s.kind in ON[on]]
            for origin in ORIGINS:
                means = {name: dense[name].mean for name in own}
                if origin == "pruned":
                    means = self.on_the_pruned_path(decision, own)
                with self.biased(decision, means), masked(self.model, decision):
                    yield [on, origin, *self.perplexities()]

    def on_the_pruned_path(self, decision: Any, names: Sequence[str]) -> dict[str, Any]:
        """Means of what enters each consumer when all before it is pruned and has its bias."""
        from prunebench import Decision
        from prunebench.pruning.signals import signals
        from prunebench.pruning.surgery import masked

        means: dict[str, Any] = {}
        order = sorted(names, key=lambda name: (self.structures[name].layer, name))
        for name in order:  # attention comes before the MLP: "heads" before "neurons"
            before = {n: kept for n, kept in decision.keep.items() if self.reached(n, name)}
            with self.biased(decision, means), masked(self.model, Decision(before)):
                means[name] = signals(self.model, {name: self.structures[name]}, self.tokens)[
                    name
                ].mean
        return means

    def reached(self, one: str, other: str) -> bool:
        """Whether a structure writes before another does."""
        places = [(self.structures[n].layer, self.structures[n].kind) for n in (one, other)]
        return places[0] < places[1]

    def decide(self, sparsity: float) -> Any:
        """FLAP's decision, without biases."""
        from prunebench import Context
        from prunebench.plugins.discovery import discover
        from prunebench.profiling.cost import Cost
        from prunebench.pruning.budget import Budget

        plugin = discover()["flap"]
        device = next(self.model.parameters()).device
        context = Context(
            sparsity=sparsity,
            seed=self.options.seed,
            device=device,
            params=plugin.params({"compensate": False}, where="flap"),
            workdir=Path("."),
            structures=self.structures,
            budget=Budget(self.model, self.structures),
            cost=Cost(device),
            tokenizer=self.tokenizer,
            sample_calibration=lambda samples, length: self.tokens,
            load_recovery=lambda: None,
        )
        return plugin.load()(self.model, context)

    @contextmanager
    def biased(self, decision: Any, means: dict[str, Any]) -> Iterator[None]:
        """Add, inside the block, W[:, gone] mean[gone] to what each of these consumers writes."""
        handles = []
        for name, mean in means.items():
            structure = self.structures[name]
            kept = set(decision.keep[name])
            gone = [unit for unit in range(structure.units) if unit not in kept]
            columns = structure.consumer_index[gone].flatten()
            module = self.model.get_submodule(structure.consumer)
            lost = (module.weight.double()[:, columns] @ mean[columns]).float().detach()
            handles.append(module.register_forward_hook(lambda _, __, out, lost=lost: out + lost))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def perplexities(self) -> list[float]:
        """On the calibration text, then on the others."""
        import math

        from prunebench.evaluation.perplexity import losses, perplexity
        from prunebench.evaluation.protocols import Protocol

        sums, counts = losses(self.model, list(self.tokens), 8)
        found = [math.exp(sum(sums) / sum(counts))]
        for name, rows in self.texts.items():
            protocol = Protocol("flap-bias", name, "-", self.options.length,
                                limit=self.options.limit)  # fmt: skip
            found.append(perplexity(self.model, self.tokenizer, rows, protocol)["value"])
        return found


if __name__ == "__main__":
    sys.exit(main())
