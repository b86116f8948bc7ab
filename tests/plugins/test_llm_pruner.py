"""LLM-Pruner: the paper's counts, what each mode may prune, decisions, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_tiny
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.errors import Invalid, Unsupported
from prunebench.plugins.context import Context
from prunebench.plugins.discovery import discover
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.protection import unprotected
from prunebench.pruning.selection import TOLERANCE, channel_counts
from prunebench.pruning.surgery import count_parameters, cut, logits
from prunebench.text.calibration import calibration_tokens

PLUGIN = discover()["llm_pruner"]
PRUNE = PLUGIN.load()
TEXT = ["the quick brown fox jumps over the lazy dog and runs away from it all"] * 40
SHAPES = {
    "llama-7b": {},
    "llama-3-8b": {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8},
    "tinyllama": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_key_value_heads": 4,
    },
}
WIDE = {"num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 256}


def context(model, tokenizer, *, sparsity=0.2, seed=0, text=TEXT, **params):
    def sample(samples, length):
        return calibration_tokens(
            text, tokenizer, samples=samples or 6, length=length or 24, seed=seed
        )

    structures = structures_of(model)
    return Context(
        sparsity=sparsity,
        seed=seed,
        device=torch.device("cpu"),
        params=PLUGIN.params(params, where="test"),
        workdir=Path("."),
        structures=structures,
        budget=Budget(model, structures),
        cost=Cost(torch.device("cpu")),
        tokenizer=tokenizer,
        sample_calibration=sample,
        load_recovery=lambda: None,
    )


def left_native(shape, ratio, **params):
    """Parameters left by the native counts, from shapes alone."""
    from prunebench_plugin_llm_pruner.method import KINDS

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape]))
    structures = structures_of(model)
    params = PLUGIN.params(params, where="test")
    first, last = params["protect_first"], params["protect_last"]
    kinds = KINDS[params["mode"]]
    chosen = unprotected(structures, kinds, protect_first=first, protect_last=last)
    return Budget(model, structures).left(channel_counts(chosen, ratio))


@pytest.mark.parametrize(
    ("shape", "ratio", "first", "last", "left"),
    [
        ("llama-7b", 0.25, "auto", "auto", 5_422_977_024),
        ("llama-7b", 0.25, 4, 2, 5_422_977_024),
        ("llama-7b", 0.60, 3, 1, 3_350_188_032),
        ("llama-7b", 0.00, "auto", "auto", 6_738_415_616),
        ("llama-3-8b", 0.25, 4, 2, 6_612_586_496),
        ("tinyllama", 0.25, 4, 4, 945_907_712),
    ],
)
def test_native_block_counts_are_the_published_ones(shape, ratio, first, last, left):
    assert left_native(shape, ratio, protect_first=first, protect_last=last) == left


@pytest.mark.parametrize(("ratio", "left"), [(0.2, 5_389_416_396), (0.5, 3_369_207_808)])
def test_native_channel_counts_are_the_published_ones(ratio, left):
    assert left_native("llama-7b", ratio, mode="channel") == left


def test_another_layer_range_gives_another_count():
    assert left_native("llama-7b", 0.25, protect_first=3, protect_last=1) != 5_422_977_024


@pytest.mark.parametrize(
    "importance",
    ["vectorize", "param_first", "param_second", "param_mix", "l1", "l2", "random"],
)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_importance_meets_the_target_and_is_cut_exactly(tokenizer, importance, scope):
    model = make_tiny(**WIDE)
    dense = count_parameters(model)
    ctx = context(model, tokenizer, importance=importance, scope=scope, protect_first=1)
    decision = PRUNE(model, ctx)
    assert not any(name.startswith("layers.0.") for name in decision.keep)
    verification, _ = cut(model, decision, torch.randint(258, (2, 16)))
    assert verification.passed and verification.masked_minus_dense > verification.tolerance
    assert abs(1 - count_parameters(model) / dense - 0.2) <= TOLERANCE


@pytest.mark.parametrize("reduction", ["sum", "mean", "max", "prod"])
def test_every_reduction_decides(tokenizer, reduction):
    model = make_tiny(**WIDE)
    decision = PRUNE(model, context(model, tokenizer, reduction=reduction))
    assert decision.how["achieved"] == pytest.approx(0.2, abs=TOLERANCE)


def test_a_product_that_underflows_is_skipped_with_the_reason(tokenizer):
    model = make_tiny(num_hidden_layers=12)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e-20)  # tiny gradients in every matrix of the hidden group
    with pytest.raises(Unsupported, match="hidden: the product over 111 matrices underflows"):
        PRUNE(model, context(model, tokenizer, mode="channel", reduction="prod"))


def test_channel_mode_prunes_the_hidden_width_only(tokenizer):
    model = make_tiny(hidden_size=128)
    decision = PRUNE(model, context(model, tokenizer, mode="channel", sparsity=0.4))
    assert set(decision.keep) == {"hidden"}
    assert cut(model, decision, torch.randint(258, (2, 16)))[0].passed


def test_layer_mode_keeps_the_first_layers(tokenizer):
    model = make_tiny(num_hidden_layers=6)
    decision = PRUNE(model, context(model, tokenizer, mode="layer", sparsity=0.4))
    kept = decision.keep["layers"]
    assert kept == tuple(range(len(kept))) and 1 < len(kept) < 6


def test_native_mode_is_marked_and_takes_the_papers_ratio(tokenizer):
    model = make_tiny(**WIDE)
    ctx = context(model, tokenizer, native=True, protect_first=1, protect_last=0)
    decision = PRUNE(model, ctx)
    assert decision.how["native_ratio"] == 0.25
    assert len(decision.keep["layers.1.heads"]) == 6  # of 8
    assert len(decision.keep["layers.1.neurons"]) == 192  # of 256


def test_native_mode_refuses_what_the_paper_does_not_have(tokenizer):
    model = make_tiny(**WIDE)
    with pytest.raises(Unsupported, match="no block-wise setting for sparsity 0.3"):
        PRUNE(model, context(model, tokenizer, native=True, sparsity=0.3))
    with pytest.raises(Invalid, match="expected scope 'layer'"):
        PRUNE(model, context(model, tokenizer, native=True, scope="global"))


def test_protection_is_not_given_up_to_reach_a_target(tokenizer):
    model = make_tiny(**WIDE)
    with pytest.raises(Unsupported, match="cannot be reached"):
        PRUNE(model, context(model, tokenizer, sparsity=0.5, protect_first=2))


@pytest.mark.parametrize("mode", ["block", "channel", "layer"])
@pytest.mark.parametrize("native", [False, True])
def test_sparsity_zero_changes_nothing(tokenizer, mode, native):
    model = make_tiny(**WIDE)
    before = logits(model, torch.arange(20).view(1, -1))
    decision = PRUNE(model, context(model, tokenizer, sparsity=0.0, mode=mode, native=native))
    cut(model, decision, torch.arange(20).view(1, -1))
    assert torch.equal(logits(model, torch.arange(20).view(1, -1)), before)


@pytest.mark.parametrize("importance", ["param_first", "param_second", "random"])
def test_the_seed_alone_decides(tokenizer, importance):
    model = make_tiny(**WIDE)
    text = [f"sentence {i}: {i * i} is the square of {i}" for i in range(400)]
    options = {"importance": importance, "text": text, "sparsity": 0.4}
    first = PRUNE(model, context(model, tokenizer, seed=1, **options))
    torch.rand(17)  # the global generator must not matter
    again = PRUNE(model, context(model, tokenizer, seed=1, **options))
    other = PRUNE(model, context(model, tokenizer, seed=2, **options))
    assert again.to_json() == first.to_json()
    assert other.to_json() != first.to_json()


def test_streamed_and_not_streamed_decide_alike(tokenizer):
    model = make_tiny(**WIDE)
    decisions = {
        PRUNE(model, context(model, tokenizer, sparsity=0.4, **options)).to_json()
        for options in ({}, {"streamed": False}, {"micro_batch": 2})
    }
    assert len(decisions) == 1


def test_weights_and_flags_are_left_as_they_were(tokenizer):
    model = make_tiny(**WIDE)
    model.model.norm.weight.requires_grad_(False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    PRUNE(model, context(model, tokenizer))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(p.grad is None for p in model.parameters())


def test_tokens_are_counted_and_noted(tokenizer):
    model = make_tiny(**WIDE)
    ctx = context(model, tokenizer, importance="param_mix", samples=3, length=8)
    PRUNE(model, ctx)
    report = ctx.cost.report()
    assert (report["forward_tokens"], report["backward_tokens"]) == (48, 48)  # batch and samples
    assert ctx.notes["calibration"]["samples"] == 3
    assert "fp32" in ctx.notes["calibration"]["memory"]


def test_calibration_text_that_is_too_short_is_the_users_error(tokenizer):
    model = make_tiny(**WIDE)
    ctx = context(model, tokenizer, samples=500, length=128)
    with pytest.raises(Invalid, match=r"need 64000 tokens, the text has \d+"):
        PRUNE(model, ctx)
