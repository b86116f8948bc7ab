"""One tiny random model for every family and variant, and decisions that fit it."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from conftest import make_tiny

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision

TOKENS = torch.randint(2, 258, (3, 21), generator=torch.Generator().manual_seed(1))

SHARP = {"rms_norm_eps": 0.02}  # large, so that a wrong eps is seen
CASES: dict[str, dict[str, Any]] = {
    "llama": SHARP,
    "llama-biases": {
        "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
    },
    "llama-mha": {"num_key_value_heads": 4},
    "mistral": {"sliding_window": 6, **SHARP},
    "qwen2": {"tie_word_embeddings": True, **SHARP},
    "qwen3": SHARP,
    "qwen3-tied": {"tie_word_embeddings": True, **SHARP},
    "gemma": {"tie_word_embeddings": True, **SHARP},
    "gemma-biases": {"attention_bias": True, **SHARP},
    "gemma2": {
        "tie_word_embeddings": True, "sliding_window": 6, "query_pre_attn_scalar": 8, **SHARP,
    },
    "glm": {"attention_bias": True, **SHARP},
    "glm4": {"attention_bias": True, **SHARP},
    "phi3": SHARP,
    "bloom": {"tie_word_embeddings": True},
    "gpt_neox": {},
    "gpt_neox-sequential": {"use_parallel_residual": False},
    "falcon-7b": {"tie_word_embeddings": True},  # one KV head for all queries
    "falcon-40b": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon-mha": {"multi_query": False, "parallel_attn": False, "bias": True},
}  # fmt: skip
LAYER_NORM = ("bloom", "falcon", "gpt_neox")
EAGER_ONLY = ("bloom", "gemma2")  # transformers offers no SDPA for them


def family_of(case: str) -> str:
    """The `model_type` of a case."""
    return case.partition("-")[0]


@cache
def _original(case: str) -> Any:
    return make_tiny(family_of(case), **CASES[case])


def model_of(case: str) -> Any:
    """A fresh copy of a case's model."""
    return copy.deepcopy(_original(case))


@cache
def keep(case: str, which: str) -> dict[str, tuple[int, ...]]:
    """A decision about heads, neurons, hidden, layers or all; empty where a case has no such unit.

    Layers lose different units, so that the result is mixed; a single KV group stays.
    """
    structures = structures_of(_original(case))
    units = {name: structure.units for name, structure in structures.items()}
    groups = units["layers.0.heads"]
    heads = {"layers.0.heads": tuple(range(1, groups)), "layers.2.heads": (0,)}
    last = units["layers.1.neurons"] - 1
    neurons = {"layers.1.neurons": tuple(range(3, last - 7)), "layers.2.neurons": (0, last)}
    single = {
        "heads": heads if groups > 1 else {},
        "neurons": neurons,
        "hidden": {"hidden": tuple(range(3, 32))} if "hidden" in units else {},
        "layers": {"layers": (0, 2)},
    }
    chosen = single.values() if which == "all" else [single[which]]
    return {name: kept for decision in chosen for name, kept in decision.items()}


KINDS = ("heads", "neurons", "hidden", "layers", "all")


def decisions() -> list[tuple[str, str]]:
    """All (case, kind) for which there is something to decide."""
    without = {(c, "hidden") for c in CASES if family_of(c) in LAYER_NORM}
    without.add(("falcon-7b", "heads"))
    return [(case, kind) for case in CASES for kind in KINDS if (case, kind) not in without]


def pruned(case: str, which: str = "all") -> Any:
    """A case's model after surgery."""
    from prunebench.pruning.surgery import slice_model

    model = model_of(case)
    slice_model(model, Decision(keep(case, which)))
    return model
