"""Named shapes: their parameters are the published numbers; random models of them run as cells."""

from __future__ import annotations

import json

import pytest
import torch
from job_specs import attempt, changed, evaluating, pruning, recovering

from prunebench.campaign.config import build
from prunebench.errors import Invalid
from prunebench.jobs import evaluate, prune, recover
from prunebench.models import shapes
from prunebench.results import leaks as leak
from prunebench.text.calibration import calibration_tokens
from prunebench.text.source import Source

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@pytest.mark.parametrize("name", shapes.shapes())
def test_a_shape_has_the_published_number_of_parameters(name):
    assert shapes.count(shapes.make_config(name)) == shapes.find_shape(name).parameters


def test_one_wrong_size_is_seen_in_the_number_of_parameters():
    config = shapes.make_config("llama-7b", {"intermediate_size": 11007})
    assert shapes.find_shape("llama-7b").parameters - shapes.count(config) == 32 * 3 * 4096


def test_an_unknown_shape_and_an_unknown_override_are_named():
    with pytest.raises(Invalid, match="unknown shape 'lama-7b'; known: llama-7b, llama-13b"):
        shapes.make_config("lama-7b")
    with pytest.raises(Invalid, match="llama has no key 'num_layer'"):
        shapes.make_config("llama-7b", {"num_layer": 2})
    with pytest.raises(Invalid, match="shape llama-7b with .*'num_attention_heads': 3"):
        shapes.make_config("llama-7b", {"num_attention_heads": 3})


def test_overrides_reach_a_family_that_has_other_names_for_them():
    assert shapes.make_config("bloom-7b1", {"num_hidden_layers": 2}).n_layer == 2


def make(seed=0, dtype="float32"):
    config = shapes.make_config("llama-7b", SMALL)
    return shapes.random_model(config, dtype=dtype, device="cpu", seed=seed)


def test_the_seed_decides_the_weights_and_the_callers_random_state_stays():
    before = torch.get_rng_state()
    first, again, other = make(), make(), make(seed=1)
    assert torch.equal(before, torch.get_rng_state())
    weight = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(first.get_parameter(weight), again.get_parameter(weight))
    assert not torch.equal(first.get_parameter(weight), other.get_parameter(weight))
    assert 0.015 < first.get_parameter(weight).std() < 0.025  # the family's initial weights


def test_a_random_model_is_made_in_its_type_and_computes():
    model = make(dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and not model.training
    assert model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.isfinite().all()


def test_bytes_are_the_tokens_of_random_text():
    tokenizer = shapes.byte_tokenizer(shapes.make_config("llama-7b", SMALL))
    rows = Source("random").rows("wikitext2", "train")
    assert rows == Source("random").rows("wikitext2", "train")
    assert rows != Source("random").rows("ptb", "train")
    tokens = calibration_tokens(rows, tokenizer, samples=4, length=2048, seed=0)
    assert tokens.shape == (4, 2048) and tokens.max() < 259
    with pytest.raises(Invalid, match="vocab_size >= 259 for bytes, got 100"):
        shapes.byte_tokenizer(shapes.make_config("llama-7b", {"vocab_size": 100}))


ENTRY = {"name": "small", "kind": "random", "shape": "llama-7b", "overrides": SMALL}
CAMPAIGN = {
    "name": "toy",
    "models": [ENTRY],
    "data": {"source": "random"},
    "methods": ["random"],
    "sparsities": [0.2],
}


def test_a_campaign_may_name_a_random_model():
    model = build(CAMPAIGN, file="toy.yaml").models["small"]
    assert (model.kind, model.source, model.overrides) == ("random", "llama-7b", SMALL)


def test_random_text_leaks_into_nothing():
    campaign = build({**CAMPAIGN, "calibration": {"corpus": "wikitext2"}}, file="toy.yaml")
    assert leak.check(campaign) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": [{"name": "m", "kind": "random"}]}, "needs the key 'shape'"),
        (
            {"models": [{"name": "m", "kind": "random", "shape": "gpt-9"}]},
            r"models\[0\].shape: unknown shape 'gpt-9'; known: llama-7b",
        ),
        (
            {"models": [{"name": "m", "kind": "hub", "id": "x", "overrides": {"a": 1}}]},
            r"models\[0\].overrides: only a model of kind 'random'",
        ),
        (
            {"models": [{"name": "m", "kind": "hub", "id": "x"}]},
            "'random' is for models of kind 'random' only, not for 'm'",
        ),
        ({"perplexity": ["ppl/llm-pruner"]}, "there is no text to evaluate on"),
    ],
)
def test_what_a_random_model_or_random_text_cannot_be(changes, message):
    with pytest.raises(Invalid, match=message):
        build({**CAMPAIGN, **changes}, file="toy.yaml")


def test_a_cell_of_a_random_model_is_pruned_and_tuned_but_not_evaluated(tmp_path):
    """From a shape to a pruned and tuned model, on random text, through the jobs."""
    from prunebench.plugins.discovery import discover

    entry = {"name": "small", "kind": "random", "source": "llama-7b", "overrides": SMALL}
    calibration = {"corpus": "wikitext2", "split": "train", "samples": 4, "length": 16}
    tuning = {"instructions": "alpaca", "tokens": 2000, "batch": 4, "micro_batch": 4, "length": 256}
    params = discover()["llm_pruner"].params({"protect_last": 1}, where="test")
    spec = pruning(tmp_path, method="llm_pruner", params=params, calibration=calibration)
    spec = changed(spec, model=entry, data={"source": "random"})
    stage = tmp_path / "prune.json"
    pruned = attempt(prune.prune, spec, stage)
    assert pruned["status"] == "ok", pruned["reason"]
    assert pruned["model"]["kind"] == "random" and pruned["cost"]["backward_tokens"] == 4 * 16
    tuned = attempt(recover.recover, recovering(spec, tuning), tmp_path / "recover.json", stage)
    assert tuned["status"] == "ok", tuned["reason"]
    assert 1000 < tuned["tuning"]["tuning_tokens"] <= 2000
    protocol = {"name": "ppl/t", "corpus": "wikitext2", "split": "test", "length": 32}
    measured = evaluating(spec, protocol, zeroshot={"suite": "zeroshot/7"})
    figures = attempt(evaluate.evaluate, measured, tmp_path / "e.json", tmp_path / "recover.json")
    skipped = {"status": "skipped", "reason": "random weights"}
    assert figures["status"] == "ok" and figures["zeroshot"] == skipped
    assert list(figures["perplexity"].values()) == [skipped]
    json.dumps(figures)
