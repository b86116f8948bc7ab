"""Which width PAT chooses: near the target, aligned, and one that transformers can load."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from pat_toy import PLUGIN  # noqa: F401 (makes the plugin's modules importable)
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE

from prunebench_plugin_pat.width import choose_width, refusal  # isort: skip

SHAPES = {
    "llama-7b": ("llama", {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                           "num_attention_heads": 32, "vocab_size": 32000}),
    "llama-13b": ("llama", {"hidden_size": 5120, "intermediate_size": 13824,
                            "num_hidden_layers": 40, "num_attention_heads": 40,
                            "vocab_size": 32000}),
    "gemma-2b": ("gemma", {"hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18,
                           "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
                           "vocab_size": 256000}),
    "wikibooks": ("llama", {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6,
                            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
                            "vocab_size": 4096, "tie_word_embeddings": True}),
}  # fmt: skip


def budget_of(name):
    family, shape = SHAPES[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    return Budget(model, structures_of(model)), model.config


@pytest.mark.parametrize(
    "name, widths",
    [
        ("llama-7b", {0.20: (3264, 64), 0.25: (3072, 64), 0.30: (2880, 64)}),
        ("llama-13b", {0.20: (4080, 40), 0.25: (3840, 320), 0.30: (3600, 40)}),
        ("gemma-2b", {0.20: (1640, 8), 0.25: (1536, 64), 0.30: (1432, 8)}),
        ("wikibooks", {0.20: (204, 4), 0.25: (192, 64), 0.30: (180, 4)}),
    ],
)
def test_the_best_aligned_width_near_the_target(name, widths):
    budget, config = budget_of(name)
    for sparsity, (kept, multiple) in widths.items():
        width = choose_width(budget, config, sparsity)
        assert (width.kept, width.multiple) == (kept, multiple)
        assert abs(width.achieved - sparsity) <= TOLERANCE
        assert kept % multiple == 0


def test_a_quarter_of_llama_7b():
    budget, config = budget_of("llama-7b")
    kept = choose_width(budget, config, 0.25).kept
    assert budget.left({"hidden": 4096 - kept}) == 5_053_811_712


def tiny_budget(family="llama", **changes):
    model = make_tiny(family, **changes)
    return Budget(model, structures_of(model)), model.config


def test_the_campaigns_multiple_counts_and_the_share_is_stated():
    budget, config = tiny_budget()
    width = choose_width(budget, config, 0.2, multiple_of=8)
    assert (width.kept, width.achieved) == (24, 0.25)
    with pytest.raises(Unsupported, match="no hidden width below 32 is a multiple of 64"):
        choose_width(budget, config, 0.2, multiple_of=64)


def test_a_width_that_the_architecture_cannot_take_names_those_it_can():
    budget, config = tiny_budget(attention_bias=True)
    assert refusal(config, 24) is None
    with pytest.raises(Invalid, match=r"llama cannot take 22: .*multiple.*; take 20 or 24"):
        choose_width(budget, config, 0.3, width=22)
    assert choose_width(budget, config, 0.3).kept % 4 == 0  # the search passes over such widths
    with pytest.raises(Invalid, match=r"expected 1..31, got 32"):
        choose_width(budget, config, 0.3, width=32)


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_others_take_any_width(family):
    budget, config = tiny_budget(family)
    assert choose_width(budget, config, 0.3, width=22).kept == 22
