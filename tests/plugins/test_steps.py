"""Steps of plugins: the criteria score alike what they must, and keep what they say."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Invalid, Unsupported
from prunebench.plugins.discovery import discover


def step(plugin, **options):
    sizes = {"micro_batches": 2, "length": 8, "seed": 0}
    return discover()[plugin].load_step()(make_tiny(), **sizes, **options)


def targets(model):
    return [p for n, p in model.named_parameters() if n.endswith("base_layer.weight")]


def test_the_vanilla_criterion_keeps_gradients_of_all_targets_and_the_other_none():
    lora, vanilla = step("loraprune"), step("loraprune", criterion="vanilla")
    for made in (lora, vanilla):
        seen = []
        scores = made._scores

        def look(structure, made=made, seen=seen, scores=scores):
            seen.append(sum(p.grad is not None for p in targets(made.model)))
            return scores(structure)

        made._scores = look
        made.run()
        made.seen = set(seen)
    assert lora.seen == {0} and vanilla.seen == {3 * 7}
    assert lora.kept_bytes == 0
    assert vanilla.kept_bytes == sum(4 * p.numel() for p in targets(vanilla.model))


def test_sums_in_fp32_are_the_gradients_of_the_weights_own_type():
    torch.manual_seed(0)
    plain, summed = (step("loraprune", criterion=c) for c in ("vanilla", "vanilla-fp32"))
    found = []
    for made in (plain, summed):
        torch.manual_seed(1)
        scores = []
        inner = made._scores
        made._scores = lambda s, inner=inner, scores=scores: scores.append(inner(s))
        made.run()
        found.append(torch.cat(scores))
    torch.testing.assert_close(*found)
    assert found[0].abs().max() > 0


def test_a_step_moves_adapters_and_no_weight():
    made = step("loraprune")
    before = [p.clone() for p in targets(made.model)]
    adapters = [p.clone() for p in made.model.parameters() if p.requires_grad]
    made.run()
    after = [p for p in made.model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(before, targets(made.model), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(adapters, after, strict=True))


def test_what_a_step_cannot_be():
    with pytest.raises(Invalid, match="criterion: expected one of lora, vanilla"):
        step("loraprune", criterion="magic")
    with pytest.raises(Invalid, match="needs gradients of the weights"):
        step("loraprune", criterion="vanilla", bits=8)
    with pytest.raises(Unsupported, match="needs a CUDA device"):
        step("loraprune", bits=8)
    with pytest.raises(Invalid, match="expected a file step.py with make_step"):
        step("random")


def test_scoring_keeps_gradients_only_when_it_does_not_stream():
    streamed, kept = (step("llm_pruner", streamed=s) for s in (True, False))
    blocks = sum(4 * p.numel() for n, p in kept.model.named_parameters() if "_proj.weight" in n)
    assert streamed.kept_bytes == 0 and kept.kept_bytes == blocks
    streamed.run()
    assert streamed.tokens == 16
