"""Folding PAT's modules is exact on every family, and each part that could be forgotten matters."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from pat_toy import FAMILIES, TOKENS, family, harden, meta_llama, scramble, sparsifier_of, tuned
from torch import nn

from prunebench.errors import Failure
from prunebench.models import folders
from prunebench.pruning import surgery
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import count_parameters, cut, logits, slice_model
from prunebench.recovery import merge

from prunebench_plugin_pat.fold import check, fold  # isort: skip
from prunebench_plugin_pat.sparsifier import HSM  # isort: skip

FLAVOURS = ["code", "paper"]


def folded(name, *, flavour="code", **changes):
    """(model with the modules folded in, decision, logits of the live model)."""
    model = family(name, **changes)
    sparsifier = scramble(sparsifier_of(model, flavour=flavour))
    decision = harden(sparsifier)
    live = logits(model, TOKENS)
    sparsifier.detach(model)
    fold(model, sparsifier)
    return model, decision, live


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", FAMILIES)
def test_t1_fresh_modules_change_nothing(name, flavour):
    model = family(name)
    before = logits(model, TOKENS)
    sparsifier = sparsifier_of(model, flavour=flavour)
    assert torch.equal(logits(model, TOKENS), before)
    scramble(sparsifier)
    assert (logits(model, TOKENS) - before).abs().max() > 1e-2  # the modules are in place


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", FAMILIES)
def test_t2_shut_channels_are_zero_in_the_whole_stream(name, flavour):
    model = family(name)
    sparsifier = scramble(sparsifier_of(model, flavour=flavour))
    harden(sparsifier)
    with torch.no_grad():
        states = model(TOKENS, output_hidden_states=True).hidden_states[:-1]  # the last is normed
    assert len(states) == 3
    for state in states:
        assert state[..., sparsifier.keep == 0].abs().max() == 0.0
        assert state[..., sparsifier.keep == 1].abs().min() > 0.0


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", FAMILIES)
def test_t3_folded_and_sliced_is_the_live_model(name, flavour):
    model, decision, live = folded(name, flavour=flavour)
    tied = model.config.tie_word_embeddings
    verification, stock = cut(model, decision, TOKENS)
    assert verification.passed and stock
    assert (logits(model, TOKENS) - live).abs().max() < 1e-5
    assert model.config.hidden_size == 24 and model.config.head_dim == 8
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert shared == tied


def test_t4_eps_that_is_left_as_it_was_is_noticed(monkeypatch):
    """fp64, initialisation of 0.02: a sensitive check, 2.5e-3 against 1e-7."""

    def difference(correct):
        torch.manual_seed(0)
        model = make_tiny(rms_norm_eps=1e-5).double()
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=0.02)
        sparsifier = scramble(sparsifier_of(model).double())
        decision = harden(sparsifier)
        live = logits(model, TOKENS)
        sparsifier.detach(model)
        fold(model, sparsifier)
        slice_model(model, decision)
        if not correct:
            for module in model.modules():
                if hasattr(module, "variance_epsilon"):
                    module.variance_epsilon = 1e-5
        return (logits(model, TOKENS) - live).abs().max().item()

    assert difference(correct=True) < 1e-6
    assert difference(correct=False) > 1e-4


@pytest.mark.parametrize("forgotten", ["s", "embedding"])
def test_t5_a_part_that_is_not_folded_is_noticed(forgotten, monkeypatch):
    if forgotten == "s":
        whole = HSM.matrix
        monkeypatch.setattr(HSM, "matrix", lambda self: whole(self) / self.s.double()[:, None])
    model, decision, live = folded("llama")
    if forgotten == "embedding":
        model.model.embed_tokens.weight.data.copy_(family("llama").model.embed_tokens.weight)
    with pytest.raises(Failure, match="folding moved logits"):
        check(model, structures_of(model)["hidden"], decision, TOKENS, live)


def test_t5_gains_that_are_not_corrected_are_noticed(monkeypatch):
    monkeypatch.setattr(surgery, "_correct_norms", lambda *_: None)
    model, decision, _ = folded("llama")
    verification, _ = cut(model, decision, TOKENS)
    assert not verification.passed and verification.max_abs_logit_difference > 0.1


def test_a_fold_that_is_exact_passes_its_check():
    model, decision, live = folded("llama")
    report = check(model, structures_of(model)["hidden"], decision, TOKENS, live)
    assert report["fold_max_abs_logit_difference"] <= 1e-5 < report["fold_tolerance"]


def test_t12_a_quarter_of_llama_7b_has_the_published_size():
    model = meta_llama()
    assert slice_model(model, Decision({"hidden": tuple(range(3072))}))
    assert count_parameters(model) == 5_053_811_712
    assert model.config.hidden_size == 3072 and model.config.head_dim == 128


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_t12_parameters_shrink_as_the_width(name):
    model = family(name)
    before = count_parameters(model)
    own = sum(p.numel() for n, p in model.named_parameters() if "q_norm" in n or "k_norm" in n)
    slice_model(model, Decision({"hidden": tuple(range(24))}))
    assert (count_parameters(model) - own) * 32 == (before - own) * 24


@pytest.mark.parametrize("kept", [24, 22])
@pytest.mark.parametrize("name", FAMILIES)
def test_t13_the_saved_model_is_an_ordinary_one(name, kept, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    model = family(name)
    sparsifier = scramble(sparsifier_of(model, kept=kept))
    decision = harden(sparsifier)
    sparsifier.detach(model)
    fold(model, sparsifier)
    uniform = slice_model(model, decision)
    loader = folders.save(model, tokenizer, tmp_path / "model", uniform=uniform)
    if name == "llama-tied-biases" and kept == 22:  # see test_pat_width.py
        assert loader == "prunebench"
        return
    assert loader == "transformers"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert again.config.hidden_size == kept
    assert torch.equal(logits(again, TOKENS), logits(model, TOKENS))
    assert again.generate(TOKENS, max_new_tokens=4, do_sample=False).shape == (3, 25)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", FAMILIES)
def test_t14_lora_merged_then_folded_is_the_tuned_model(name, flavour):
    model, wrapped, sparsifier = tuned(name, flavour=flavour)
    decision = harden(sparsifier)
    live = logits(model, TOKENS)
    sparsifier.detach(model)
    merge(wrapped, {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)})
    fold(model, sparsifier)
    slice_model(model, decision)
    scale = max(1.0, live.abs().max().item() / 10)
    assert (logits(model, TOKENS) - live).abs().max() < 1e-5 * scale
