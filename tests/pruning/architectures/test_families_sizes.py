"""Real shapes on the meta device: published parameter counts, and plans that meet their target."""

from __future__ import annotations

import pytest
import torch
from family_cases import LAYER_NORM
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.selection import TOLERANCE, Budget, select
from prunebench.pruning.surgery import count_parameters, slice_model

LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
GROUPED = {**LLAMA, "num_key_value_heads": 8, "intermediate_size": 14336}
GEMMA = {"vocab_size": 256000, "head_dim": 256, "tie_word_embeddings": True}

# name: (family, config, parameters in the published checkpoint, a tied weight counted once)
MODELS = {
    "LLaMA-7B": ("llama", LLAMA, 6_738_415_616),
    "Llama-2-13B": (
        "llama",
        {
            **LLAMA, "hidden_size": 5120, "intermediate_size": 13824,
            "num_hidden_layers": 40, "num_attention_heads": 40,
        },
        13_015_864_320,
    ),
    "Llama-3-8B": ("llama", {**GROUPED, "vocab_size": 128256}, 8_030_261_248),
    "Mistral-7B": ("mistral", GROUPED, 7_241_732_096),
    "Qwen2-7B": (
        "qwen2",
        {
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
            "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        },
        7_615_616_512,
    ),
    "Qwen3-8B": (
        "qwen3",
        {
            **GROUPED, "vocab_size": 151936, "intermediate_size": 12288,
            "num_hidden_layers": 36, "head_dim": 128,
        },
        8_190_735_360,
    ),
    "Gemma-2B": (
        "gemma",
        {
            **GEMMA, "hidden_size": 2048, "intermediate_size": 16384,
            "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1,
        },
        2_506_172_416,
    ),
    "Gemma-7B": (
        "gemma",
        {
            **GEMMA, "hidden_size": 3072, "intermediate_size": 24576,
            "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
        },
        8_537_680_896,
    ),
    "Gemma-2-9B": (
        "gemma2",
        {
            **GEMMA, "hidden_size": 3584, "intermediate_size": 14336,
            "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8,
        },
        9_241_705_984,
    ),
    "GLM-4-9B": (
        "glm",
        {
            **LLAMA, "vocab_size": 151552, "intermediate_size": 13696, "num_hidden_layers": 40,
            "num_key_value_heads": 2, "head_dim": 128, "attention_bias": True,
        },
        9_399_951_360,
    ),
    "Phi-3-mini-4k": (
        "phi3",
        {**LLAMA, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192},
        3_821_079_552,
    ),
    "BLOOM-7b1": (
        "bloom",
        {"vocab_size": 250880, "hidden_size": 4096, "n_layer": 30, "n_head": 32},
        7_069_016_064,
    ),
    "Pythia-6.9B": (
        "gpt_neox",
        {**LLAMA, "vocab_size": 50432, "intermediate_size": 16384},
        6_857_302_016,
    ),
    "Falcon-7B": (
        "falcon",
        {
            "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32,
            "num_attention_heads": 71, "tie_word_embeddings": True,
        },
        6_921_720_704,  # the hub says 7,217,189,760: the file holds the shared matrix twice
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_plans_at_real_shapes(name):
    family, config, published = MODELS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config))
    structures = structures_of(model)
    budget = Budget(model, structures)
    assert count_parameters(model) == budget.total == published
    kinds = ("heads", "neurons") if family in LAYER_NORM else ("heads", "neurons", "hidden")
    scores = {n: torch.arange(s.units) for n, s in structures.items() if s.kind in kinds}
    decision = select(budget, scores, 0.2)
    slice_model(model, decision)
    achieved = 1.0 - count_parameters(model) / published
    assert achieved == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert abs(achieved - 0.2) <= TOLERANCE
