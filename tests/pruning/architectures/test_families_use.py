"""Every family after surgery: saved, loaded, generating, padded, both attentions, with LoRA."""

from __future__ import annotations

import inspect

import pytest
import torch
from family_cases import CASES, TOKENS, keep, model_of, pruned
from job_specs import attempt, pruning
from transformers import AutoModelForCausalLM

from prunebench.jobs import prune
from prunebench.models import folders
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.conformance import evenly
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import logits, slice_model
from prunebench.recovery import RecoverySettings, attach, merge

GENERATE = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}


def save(model, tokenizer, folder, decision):
    uniform = slice_model(model, decision)
    loader = folders.save(model, tokenizer, folder, uniform=uniform, decision=decision.to_json())
    return loader == "transformers"


def generate(model, tokens, mask=None, **options):
    mask = torch.ones_like(tokens) if mask is None else mask
    return model.generate(tokens, attention_mask=mask, **GENERATE, **options)


@pytest.mark.parametrize("case", CASES)
def test_an_unpruned_model_is_loaded_as_stock_classes_load_it(case, tmp_path, tokenizer):
    model = model_of(case)
    assert save(model, tokenizer, tmp_path / "m", Decision({}))
    ours, _ = folders.load(tmp_path / "m")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "m").eval()
    assert torch.equal(logits(ours, TOKENS), logits(stock, TOKENS))
    assert torch.equal(logits(ours, TOKENS), logits(model, TOKENS))
    assert not any("head_numbers" in name for name in stock.state_dict())


def test_soft_capped_attention_is_not_left_to_sdpa(tmp_path, tokenizer):
    """SDPA has no soft-capping, and older versions of transformers drop it without a word."""
    save(model_of("gemma2"), tokenizer, tmp_path / "m", Decision({}))
    model, _ = folders.load(tmp_path / "m")
    assert model.config.attn_logit_softcapping and model.config._attn_implementation == "eager"
    capped = logits(model, TOKENS)
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = 0.1
    assert (logits(model, TOKENS) - capped).abs().max() > 1e-3  # it is at work


@pytest.mark.parametrize("case", CASES)
def test_a_mixed_model_comes_back_equal_and_generates(case, tmp_path, tokenizer):
    """Different shapes in each layer, fewer layers and channels: with a cache and without."""
    model = model_of(case)
    assert not save(model, tokenizer, tmp_path / "m", Decision(keep(case)))
    again, _ = folders.load(tmp_path / "m")
    assert torch.equal(logits(model, TOKENS), logits(again, TOKENS))
    assert again.config.tie_word_embeddings == model.config.tie_word_embeddings
    text = generate(again, TOKENS)
    assert torch.equal(text, generate(model, TOKENS))
    assert torch.equal(text, generate(again, TOKENS, use_cache=False))
    again_and_again = tmp_path / "n"
    folders.save(again, tokenizer, again_and_again, uniform=False)
    assert torch.equal(logits(folders.load(again_and_again)[0], TOKENS), logits(model, TOKENS))


@pytest.mark.parametrize("case", CASES)
def test_uniform_models_are_for_stock_classes_where_a_config_can_say_them(
    case, tmp_path, tokenizer
):
    """Every structure of a kind loses one unit."""
    for kind, decision in evenly(structures_of(model_of(case))).items():
        model = model_of(case)
        stock = save(model, tokenizer, tmp_path / kind, Decision(decision))
        assert stock == (kind not in CASES[case].own_loader), kind
        expected = logits(model, TOKENS)
        assert torch.equal(logits(folders.load(tmp_path / kind)[0], TOKENS), expected), kind
        if stock:
            plain = AutoModelForCausalLM.from_pretrained(tmp_path / kind).eval()
            assert torch.equal(logits(plain, TOKENS), expected), kind


@pytest.mark.parametrize("case", ["opt-350m", "qwen3_moe"])
def test_a_job_prunes_what_has_no_layers_to_lose_and_what_has_experts(case, tmp_path, tokenizer):
    folders.save(model_of(case), tokenizer, tmp_path / "original", uniform=True)
    result = attempt(prune.prune, pruning(tmp_path / "original"), tmp_path / "prune.json")
    assert result["status"] == "ok", result["reason"]
    assert result["verify"]["passed"] and result["sparsity"]["within_tolerance"]
    assert {facts["kind"] for facts in result["decision"].values()} == set(CASES[case].kinds)


@pytest.mark.parametrize("case", CASES)
def test_left_padding_changes_nothing(case):
    """A short and a long prompt in one batch give what each gives alone."""
    model = pruned(case)
    short, long = TOKENS[:1, :9], TOKENS[1:2, :14]
    width = long.shape[1] - short.shape[1]
    padded = torch.cat([torch.ones(1, width, dtype=torch.long), short], dim=1)
    mask = torch.ones(2, long.shape[1], dtype=torch.long)
    mask[0, :width] = 0
    batch = torch.cat([padded, long])
    together = generate(model, batch, mask)
    assert torch.equal(together[0, -8:], generate(model, short)[0, -8:])
    assert torch.equal(together[1, -8:], generate(model, long)[0, -8:])
    options = {"attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        last = model(batch, **options).logits[:, -1]
        alone = torch.cat([model(prompt).logits[:, -1] for prompt in (short, long)])
    assert torch.allclose(last, alone, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_both_attentions_agree(case):
    model = pruned(case)
    results = {}
    for attention in CASES[case].attentions:
        model.config._attn_implementation = attention
        results[attention] = logits(model, TOKENS), generate(model, TOKENS)
        assert torch.equal(results[attention][1], generate(model, TOKENS, use_cache=False))
    eager, text = results["eager"]
    for other, same in results.values():
        assert (eager - other).abs().max() < 1e-5 and torch.equal(text, same)


@pytest.mark.parametrize("case", CASES)
def test_lora_reaches_every_projection_and_merges(case):
    model = pruned(case)
    owned = {
        coupling.parameter.rpartition(".")[0]
        for structure in structures_of(model).values()
        if structure.kind in ("heads", "neurons")
        for coupling in structure.couplings
    }
    owned = {name for name in owned if isinstance(model.get_submodule(name), torch.nn.Linear)}
    wrapped = attach(
        model, RecoverySettings.from_config({"rank": 2, "dropout": 0.0, "targets": "auto"}), seed=0
    )
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default")
        for name, _ in wrapped.named_modules()
        if name.endswith(".lora_A.default")
    }
    assert adapted == owned  # every Linear of a block belongs to its heads or its neurons
    batch = {"input_ids": TOKENS, "attention_mask": torch.ones_like(TOKENS)}
    learning = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for _ in range(2):  # A learns from the second step on: B is 0 at first
        wrapped(**batch, labels=TOKENS).loss.backward()
        assert all(p.grad is not None for p in learning)
        optimizer.step()
    assert all(p.grad.abs().max() > 0 for p in learning)
    before = logits(wrapped, TOKENS)
    plain, report = merge(wrapped, batch)
    assert report["merge_max_abs_logit_difference"] < report["merge_tolerance"]
    assert torch.allclose(logits(plain, TOKENS), before, atol=1e-5)
    assert structures_of(plain).keys() == structures_of(pruned(case)).keys()
