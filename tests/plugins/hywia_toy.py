"""Helpers of the HyWIA tests: contexts, one small matrix, and the grains of a tiny model."""

from __future__ import annotations

from pathlib import Path

import torch

from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.protection import unprotected
from prunebench.pruning.saliency import Side, channel_saliency, channel_sums, sides_of
from prunebench.pruning.structure import Coupling, Structure
from prunebench.text.calibration import calibration_tokens

PLUGINS = discover()
PRUNE = PLUGINS["hywia"].load()

from prunebench_plugin_hywia.fusion import COARSE, FINE, Fusion, Grains, grains_of  # noqa: E402

TEXT = [f"sentence {i}: {i * i} is the square of {i}, and {i % 7} its rest" for i in range(400)]
WIDE = {"num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 256}
SIDE = Side("layer.weight", 0)


def context(model, tokenizer, *, method="hywia", sparsity=0.4, seed=0, **params):
    def sample(samples, length):
        return calibration_tokens(
            TEXT, tokenizer, samples=samples or 6, length=length or 24, seed=seed
        )

    structures = structures_of(model)
    return Context(
        sparsity=sparsity,
        seed=seed,
        device=torch.device("cpu"),
        params=PLUGINS[method].params(params, where="test"),
        workdir=Path("."),
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=tokenizer,
        sample_calibration=sample,
        load_recovery=lambda: None,
    )


def grains(salience, dim=0):
    """Grains of a matrix whose products of weight and gradient are given [rows, columns]."""
    sums = channel_sums([FINE, COARSE], [dim], salience, torch.ones_like(salience))
    return Grains(sums[FINE, dim], sums[COARSE, dim])


def blend(one, attention):
    """z [channels] of one matrix whose channels are units."""
    index = torch.arange(len(one.fine)).view(-1, 1)
    structure = Structure("s", "neurons", 0, len(index), (Coupling(*SIDE, index),))
    return Fusion({"s": {SIDE: one}}, {"s": structure}).scores({"s": {SIDE: attention}})["s"]


def random_grains(seed=0, channels=40, scale=1e-3):
    generator = torch.Generator().manual_seed(seed)
    return grains(scale * torch.randn(channels, 12, generator=generator) ** 3)


def model_groups(model, tokens):
    """(structures, grains of all heads and neurons)."""
    structures = unprotected(structures_of(model), ("heads", "neurons"))
    saliency = channel_saliency(model, sides_of(structures.values()), [FINE, COARSE], tokens=tokens)
    return structures, grains_of(saliency, structures)


def tokens_for(samples=4, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(258, (samples, length), generator=generator)
