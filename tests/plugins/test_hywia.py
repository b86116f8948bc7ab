"""HyWIA: decisions of every fusion, equality with LLM-Pruner, counts, notes, refusals."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_tiny
from hywia_toy import PLUGINS, PRUNE, WIDE, context
from prunebench_plugin_hywia import method as method_module
from transformers import LlamaConfig, LlamaForCausalLM

from prunebench.errors import Failure, Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.protection import unprotected
from prunebench.pruning.selection import TOLERANCE, channel_counts
from prunebench.pruning.surgery import count_parameters, cut, logits

LLM_PRUNER = PLUGINS["llm_pruner"].load()
FUSIONS = ["gate", "mean", "softmax", "fine", "coarse", "fixed"]
SHORT = {"gate_steps": 3, "gate_batch": 2}


def scores_of(monkeypatch, prune, model, ctx):
    """The scores that a method gives to the selection."""
    seen = {}
    monkeypatch.setattr(type(ctx), "select", lambda self, scores, **how: seen.update(scores))
    prune(model, ctx)
    monkeypatch.undo()
    return seen


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_every_fusion_meets_the_target_and_is_cut_exactly(tokenizer, fusion, family):
    model = make_tiny(family, **WIDE)
    dense = count_parameters(model)
    ctx = context(model, tokenizer, fusion=fusion, protect_first=1, sparsity=0.3, **SHORT)
    decision = PRUNE(model, ctx)
    assert not any(name.startswith("layers.0.") for name in decision.keep)
    verification, _ = cut(model, decision, torch.randint(258, (2, 16)))
    assert verification.passed and verification.masked_minus_dense > verification.tolerance
    assert abs(1 - count_parameters(model) / dense - 0.3) <= TOLERANCE
    json.dumps(ctx.notes, allow_nan=False)


@pytest.mark.parametrize(("fusion", "measure"), [("fine", "param_first"), ("coarse", "vectorize")])
@pytest.mark.parametrize("kv_heads", [16, 8])
def test_one_granularity_alone_is_llm_pruner_to_the_bit(
    monkeypatch, tokenizer, fusion, measure, kv_heads
):
    model = make_tiny(**{**WIDE, "num_key_value_heads": kv_heads})
    theirs = context(model, tokenizer, method="llm_pruner", importance=measure)
    ours = context(model, tokenizer, fusion=fusion)
    assert PRUNE(model, ours).keep == LLM_PRUNER(model, theirs).keep
    expected = scores_of(monkeypatch, LLM_PRUNER, model, theirs)
    got = scores_of(monkeypatch, PRUNE, model, ours)
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    mean = scores_of(monkeypatch, PRUNE, model, context(model, tokenizer, fusion="mean"))
    assert not all(torch.equal(mean[name], expected[name]) for name in expected)


def test_blends_are_made_of_llm_pruners_scores(monkeypatch, tokenizer):
    model = make_tiny(**WIDE)
    found = {
        fusion: scores_of(monkeypatch, PRUNE, model, context(model, tokenizer, fusion=fusion))
        for fusion in ("fine", "coarse", "mean")
    }
    for name, mean in found["mean"].items():
        half = (found["fine"][name] + found["coarse"][name]) / 2
        torch.testing.assert_close(mean, half, rtol=1e-5, atol=0)


def test_the_older_fusion_is_param_second_where_all_samples_weigh_the_same(monkeypatch, tokenizer):
    model = make_tiny(**WIDE)
    theirs = context(model, tokenizer, method="llm_pruner", importance="param_second", samples=1)
    ours = context(model, tokenizer, fusion="fixed", evratio=1.0, samples=1)
    expected = scores_of(monkeypatch, LLM_PRUNER, model, theirs)
    for name, got in scores_of(monkeypatch, PRUNE, model, ours).items():
        torch.testing.assert_close(got, expected[name])
    more = context(model, tokenizer, fusion="fixed", samples=4)
    other = scores_of(monkeypatch, PRUNE, model, more)
    assert not torch.allclose(other["layers.1.neurons"], expected["layers.1.neurons"], rtol=0.01)


@pytest.mark.parametrize(
    ("ratio", "heads", "neurons", "left"),
    [
        (0.05, 1, 551, 6_507_851_776),
        (0.10, 3, 1101, 6_223_081_472),
        (0.15, 4, 1652, 5_992_517_632),
        (0.20, 6, 2202, 5_707_747_328),
        (0.25, 8, 2752, 5_422_977_024),
        (0.30, 9, 3303, 5_192_413_184),
        (0.50, 16, 5504, 4_107_538_432),
        (0.60, 19, 6605, 3_592_204_288),
        (0.65, 20, 7156, 3_361_640_448),
    ],
)
def test_native_counts_of_llama_7b(ratio, heads, neurons, left):
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig())
    structures = structures_of(model)
    removed = channel_counts(unprotected(structures, ("heads", "neurons")), ratio)
    assert set(removed) == {f"layers.{i}.{k}" for i in range(4, 30) for k in ("heads", "neurons")}
    assert removed["layers.4.heads"] == heads and removed["layers.29.neurons"] == neurons
    assert Budget(model, structures).left(removed) == left


@pytest.mark.parametrize("steps", [0, 3])
def test_native_mode_is_marked_and_takes_the_sparsity_as_its_ratio(tokenizer, steps):
    model = make_tiny(**WIDE)
    ctx = context(model, tokenizer, native=True, sparsity=0.2, protect_first=1, gate_steps=steps)
    decision = PRUNE(model, ctx)
    assert decision.how["native_ratio"] == 0.2
    assert len(decision.keep["layers.1.heads"]) == 7  # of 8: 12 of 64 key channels, whole heads
    assert len(decision.keep["layers.1.neurons"]) == 204  # of 256
    PRUNE(model, other := context(model, tokenizer, native=True, ratio=0.5, gate_steps=steps))
    assert other.sparsity != 0.5


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("native", [False, True])
def test_sparsity_zero_changes_nothing(tokenizer, steps, native):
    model, tokens = make_tiny(**WIDE), torch.arange(20).view(1, -1)
    before = logits(model, tokens)
    decision = PRUNE(
        model, context(model, tokenizer, sparsity=0.0, gate_steps=steps, native=native)
    )
    cut(model, decision, tokens)
    assert not decision.keep and torch.equal(logits(model, tokens), before)


def test_the_gate_seed_is_the_cells_unless_it_is_given(tokenizer):
    model = make_tiny(**WIDE)
    blends = []
    for params in ({"seed": 5}, {"gate_seed": 5}, {"gate_seed": 6}):
        ctx = context(model, tokenizer, gate_steps=0, **params)
        PRUNE(model, ctx)
        blends.append(ctx.notes["blend"]["values"])
        assert ctx.notes["gate"]["seed"] == params.get("gate_seed", 5)
    assert torch.allclose(*map(torch.tensor, blends[:2]), atol=0.02)  # texts differ, draws do not
    assert not torch.allclose(*map(torch.tensor, blends[1:]), atol=0.02)


@pytest.mark.parametrize("steps", [0, 3])
def test_the_seed_alone_decides(tokenizer, steps):
    model = make_tiny(**WIDE)
    first = PRUNE(model, context(model, tokenizer, gate_steps=steps, seed=1))
    torch.rand(17)  # the global generator must not matter
    again = PRUNE(model, context(model, tokenizer, gate_steps=steps, seed=1))
    other = PRUNE(model, context(model, tokenizer, gate_steps=steps, seed=2))
    assert again.to_json() == first.to_json() != other.to_json()


def test_the_record_learns_blends_training_and_score_sizes(tokenizer):
    model = make_tiny(**WIDE)
    ctx = context(model, tokenizer, protect_first=1, **SHORT)
    PRUNE(model, ctx)
    notes = ctx.notes
    assert notes["calibration"] == {"samples": 6, "length": 24}
    assert 0 < notes["mean_fine_score"]["smallest"] < notes["mean_fine_score"]["largest"]
    for key in ("blend", "blend_spread"):
        plot = notes[key]
        assert plot["plot"] == "heatmap" and plot["rows"] == ["layer 1", "layer 2"]
        assert plot["columns"] == [f"{n}_proj" for n in ("q", "k", "v", "o", "gate", "up", "down")]
        assert len(plot["values"]) == 2 and all(0 <= v <= 1 for row in plot["values"] for v in row)
    assert len({v for row in notes["blend"]["values"] for v in row}) > 5
    (points,) = notes["gate_training"]["series"].values()
    assert notes["gate_training"]["plot"] == "line" and [x for x, _ in points] == [1, 2, 3]
    gate = notes["gate"]
    assert gate["steps"] == 3 and gate["parameters"] == 14 * 257
    assert gate["improved"] == (gate["loss_after"] < gate["loss_before"])


def test_scores_that_are_blended_are_not_rescaled(monkeypatch, tokenizer):
    """The decision of the released gate follows the loss's scale; its blends are raw scores."""
    model = make_tiny(**WIDE)
    fine, drawn = (
        scores_of(monkeypatch, PRUNE, model, context(model, tokenizer, **params))
        for params in ({"fusion": "fine"}, {"gate_steps": 0})
    )
    for name, scores in drawn.items():
        assert bool((scores <= fine[name] * (1 + 1e-6)).all()) and float(scores.sum()) > 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_dead_layer_fails_with_the_reason(tokenizer, fusion):
    model = make_tiny(**WIDE)
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.zero_()
    ctx = context(model, tokenizer, fusion=fusion, **SHORT)
    with pytest.raises(Failure, match=r"zero everywhere in model\.layers\.2\..* \(and in 2 more\)"):
        PRUNE(model, ctx)
    PRUNE(model, context(model, tokenizer, fusion=fusion, protect_last=1, sparsity=0.2, **SHORT))


def test_divergence_reaches_the_record_and_no_other_fusion_steps_in(monkeypatch, tokenizer):
    def diverging(*args):
        raise Failure("hywia: training of the gates diverged")

    monkeypatch.setattr(method_module, "train", diverging)
    model = make_tiny(**WIDE)
    with pytest.raises(Failure, match="diverged"):
        PRUNE(model, context(model, tokenizer))
    PRUNE(model, context(model, tokenizer, gate_steps=0))


def test_protection_is_not_given_up_to_reach_a_target(tokenizer):
    model = make_tiny(**WIDE)
    with pytest.raises(Unsupported, match="cannot be reached"):
        PRUNE(model, context(model, tokenizer, sparsity=0.5, protect_first=2))


def test_weights_and_flags_are_left_as_they_were(tokenizer):
    model = make_tiny(**WIDE)
    model.model.norm.weight.requires_grad_(False)
    before = {name: p.clone() for name, p in model.named_parameters()}
    PRUNE(model, context(model, tokenizer, **SHORT))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["model.norm.weight"]
    assert all(p.grad is None for p in model.parameters())
