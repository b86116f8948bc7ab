"""Real shapes on the meta device: published parameter counts, and plans that meet their target."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE, select
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
    "OPT-6.7B": (
        "opt",
        {
            "vocab_size": 50272, "hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
        6_658_473_984,
    ),
    "OPT-350m": (
        "opt",
        {
            "vocab_size": 50272, "hidden_size": 1024, "ffn_dim": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "word_embed_proj_dim": 512, "do_layer_norm_before": False,
        },
        331_196_416,
    ),
    "OLMo-2-7B": (
        "olmo2", {**LLAMA, "vocab_size": 100352, "num_key_value_heads": 32}, 7_298_617_344
    ),
    "StableLM-3B": (
        "stablelm",
        {
            "vocab_size": 50304, "hidden_size": 2560, "intermediate_size": 6912,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        },
        2_795_443_200,
    ),
    "StableLM-2-12B": (
        "stablelm",
        {
            "vocab_size": 100352, "hidden_size": 5120, "intermediate_size": 13824,
            "num_hidden_layers": 40, "num_attention_heads": 32, "num_key_value_heads": 8,
            "qk_layernorm": True, "use_parallel_residual": True,
        },
        12_143_185_920,
    ),
    "Gemma-3-1B": (
        "gemma3_text",
        {
            "vocab_size": 262144, "head_dim": 256, "tie_word_embeddings": True,
            "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
            "num_attention_heads": 4, "num_key_value_heads": 1,
        },
        999_885_952,
    ),
    "SmolLM3-3B": (
        "smollm3",
        {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008,
            "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 4,
        },
        3_075_098_624,
    ),
    "Mixtral-8x7B": (
        "mixtral", {**GROUPED, "num_local_experts": 8, "num_experts_per_tok": 2}, 46_702_792_704
    ),
    "Qwen3-30B-A3B": (
        "qwen3_moe",
        {
            "vocab_size": 151936, "hidden_size": 2048, "moe_intermediate_size": 768,
            "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
            "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
        },
        30_532_122_624,
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
    scores = {n: torch.arange(s.units) for n, s in structures.items() if s.kind != "layers"}
    decision = select(budget, scores, 0.2)
    slice_model(model, decision)
    achieved = 1.0 - count_parameters(model) / published
    assert achieved == pytest.approx(decision.how["achieved"], abs=1e-12)
    assert abs(achieved - 0.2) <= TOLERANCE
