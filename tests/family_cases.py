"""One tiny random model for every family and variant, with all that tests must know of it."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from conftest import tiny_settings

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.conformance import FamilyCase, unevenly
from prunebench.pruning.structure import Decision

TOKENS = torch.randint(2, 258, (3, 21), generator=torch.Generator().manual_seed(1))

SHARP = {"rms_norm_eps": 0.02}  # large, so that a wrong eps is seen
TIED = {"tie_word_embeddings": True}
PLAIN = ("heads", "neurons", "layers")  # LayerNorm: no channel can leave exactly
FIXED = {"kinds": PLAIN, "own_loader": ("heads",)}  # and heads fill the width in the config
NEOX_SIZES = {"heads": "num_attention_heads", "neurons": "intermediate_size"}
STABLELM_SIZES = NEOX_SIZES | {"groups": "num_key_value_heads"}
FALCON_SIZES = {"heads": "num_attention_heads", "neurons": "ffn_hidden_size"}
ROPE = {"rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LOW_HIGH = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
BASES = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
}
EXPERTS = {"initializer_range": 0.05, **SHARP}
MIXTURE = {
    "kinds": ("heads", "neurons", "experts", "hidden", "layers"),
    "own_loader": ("neurons", "hidden"),  # one less is no size for torch's grouped product
}


def _case(name: str, config: dict[str, Any] | None = None, **facts: Any) -> FamilyCase:
    family = name.partition("-")[0]
    return FamilyCase(name, tiny_settings(family, **(config or {})), **facts)


_ALL = (
    _case("llama", SHARP),
    _case(
        "llama-biases", {"attention_bias": True, "mlp_bias": True, **TIED}, own_loader=("hidden",)
    ),
    _case("llama-mha", {"num_key_value_heads": 4}),
    _case("llama-3.1", {"rope_parameters": {"rope_type": "llama3", **ROPE, **LOW_HIGH}, **SHARP}),
    _case("mistral", {"sliding_window": 6, **SHARP}),
    _case("qwen2", {**TIED, **SHARP}),
    _case("qwen3", SHARP),
    _case("qwen3-tied", {**TIED, **SHARP}),
    _case("qwen3-yarn", {"rope_parameters": {"rope_type": "yarn", **ROPE}, **SHARP}),
    _case("smollm3", {"no_rope_layer_interval": 2, **TIED, **SHARP}),
    _case("olmo2", {"initializer_range": 0.04, **SHARP}),
    _case("olmo2-tied", {"initializer_range": 0.04, **TIED, **SHARP}),
    _case("gemma", {**TIED, **SHARP}),
    _case("gemma-biases", {"attention_bias": True, **SHARP}),
    _case(
        "gemma2",
        {"sliding_window": 6, "query_pre_attn_scalar": 8, **TIED, **SHARP},
        own_loader=("hidden",),  # its config wants heads to divide the width
        attentions=("eager",),  # transformers offers no SDPA for it
    ),
    _case(
        "gemma3_text",
        {
            "sliding_window": 6, "sliding_window_pattern": 2, "query_pre_attn_scalar": 8,
            "rope_parameters": BASES, **TIED, **SHARP,
        },
        own_loader=("hidden",),
    ),
    _case("glm", {"attention_bias": True, **SHARP}),
    _case("glm4", {"attention_bias": True, **SHARP}),
    _case("phi3", SHARP),
    _case("mixtral", EXPERTS, **MIXTURE),
    _case(
        "qwen3_moe", {"mlp_only_layers": [1], "norm_topk_prob": True, **EXPERTS}, **MIXTURE
    ),
    _case("opt", TIED, inert=("k_proj.bias",), sizes=NEOX_SIZES | {"neurons": "ffn_dim"}, **FIXED),
    _case(
        "opt-350m",
        {"do_layer_norm_before": False, "word_embed_proj_dim": 24, "init_std": 0.08},
        kinds=("heads", "neurons"),  # a layer that writes nothing still normalises
        own_loader=("heads",),
        inert=("k_proj.bias",),
        sizes=NEOX_SIZES | {"neurons": "ffn_dim"},
    ),
    _case("stablelm", {"use_qkv_bias": True}, sizes=STABLELM_SIZES, **FIXED),
    _case(
        "stablelm-12b",
        {"use_parallel_residual": True, "qk_layernorm": True, "num_key_value_heads": 2},
        sizes=STABLELM_SIZES,
        **FIXED,
    ),
    _case(
        "bloom",
        TIED,
        kinds=PLAIN,
        own_loader=("heads", "neurons"),
        attentions=("eager",),
        sizes={"heads": "num_attention_heads"},
    ),
    _case("gpt_neox", sizes=NEOX_SIZES, **FIXED),
    _case("gpt_neox-sequential", {"use_parallel_residual": False}, sizes=NEOX_SIZES, **FIXED),
    _case("falcon-7b", TIED, sizes=FALCON_SIZES, **FIXED),  # one KV head for all queries
    _case(
        "falcon-40b",
        {"new_decoder_architecture": True, "num_kv_heads": 2},
        sizes=FALCON_SIZES | {"groups": "num_kv_heads"},
        **FIXED,
    ),
    _case(
        "falcon-mha",
        {"multi_query": False, "parallel_attn": False, "bias": True},
        sizes=FALCON_SIZES,
        **FIXED,
    ),
)  # fmt: skip
CASES: dict[str, FamilyCase] = {case.name: case for case in _ALL}


@cache
def _original(case: str) -> Any:
    return CASES[case].model()


def model_of(case: str) -> Any:
    """A fresh copy of a case's model."""
    return copy.deepcopy(_original(case))


def losing(case: str) -> tuple[str, ...]:
    """Kinds of which some unit can leave: a single KV group stays."""
    structures = structures_of(_original(case)).values()
    return tuple(dict.fromkeys(s.kind for s in structures if s.units > s.least))


@cache
def keep(case: str) -> dict[str, tuple[int, ...]]:
    """A decision about all kinds at once, after which layers differ."""
    return unevenly(structures_of(_original(case)), CASES[case].kinds)


def decisions() -> list[tuple[str, tuple[str, ...]]]:
    """All (case, kinds) for which there is something to decide: each kind, and all together."""
    pairs = {case: losing(case) for case in CASES}
    return [(case, some) for case, all_ in pairs.items() for some in (*((k,) for k in all_), all_)]


def pruned(case: str) -> Any:
    """A case's model after surgery of all kinds."""
    from prunebench.pruning.surgery import slice_model

    model = model_of(case)
    slice_model(model, Decision(keep(case)))
    return model
