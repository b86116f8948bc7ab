"""The hidden width as a structure like any other: the baselines prune it, exactly and loadable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_tiny

from prunebench.models import folders
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.surgery import count_parameters, cut, logits

TOKENS = torch.randint(258, (3, 21), generator=torch.Generator().manual_seed(1))
METHODS = {
    "random": {"kinds": ["hidden"]},
    "magnitude": {"kinds": ["hidden"]},
    "llm_pruner": {"mode": "channel"},
}
FAMILIES = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "mistral": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True},
    "gemma": {"tie_word_embeddings": True},
}


def decide(model, name, sparsity, multiple_of=None, **params):
    plugin = discover()[name]
    structures = structures_of(model)
    context = Context(
        sparsity=sparsity,
        seed=0,
        device=torch.device("cpu"),
        params=plugin.params({**METHODS[name], **params}, where="test"),
        workdir=Path(),
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=None,
        sample_calibration=lambda samples, length: TOKENS,
        load_recovery=lambda: None,
        multiple_of=multiple_of or {},
    )
    return plugin.load()(model, context)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_a_quarter_of_the_width_leaves(method, family, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_tiny(family.partition("-")[0], **FAMILIES[family])
    before = count_parameters(model)
    decision = decide(model, method, 0.25)
    assert set(decision.keep) == {"hidden"} and len(decision.keep["hidden"]) == 24
    verification, uniform = cut(model, decision, TOKENS)
    assert verification.passed and verification.masked_minus_dense > 1e-3
    assert abs(1 - count_parameters(model) / before - 0.25) <= 0.005
    assert folders.save(model, tokenizer, tmp_path / "model", uniform=uniform) == "transformers"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))


def test_the_width_is_a_multiple_of_what_the_campaign_says():
    decision = decide(make_tiny(), "magnitude", 0.4, {"hidden": 16})
    assert len(decision.keep["hidden"]) == 16
    assert decision.how["achieved"] == pytest.approx(0.5)


def test_all_kinds_together_meet_the_target():
    model = make_tiny()
    before = count_parameters(model)
    kinds = ["heads", "neurons", "hidden"]
    decision = decide(model, "magnitude", 0.5, kinds=kinds, protect_first=0, protect_last=0)
    assert {name.rpartition(".")[2] for name in decision.keep} == {"heads", "neurons", "hidden"}
    assert cut(model, decision, TOKENS)[0].passed
    assert abs(1 - count_parameters(model) / before - 0.5) < 0.01
