"""Streamed gradients: equal to the plain way, freed at once, and refused with a reason."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from saliency_toy import DATA, all_sides, saliency, tokens_for
from torch import nn

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.profiling.cost import Cost
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.saliency import (
    MEASURES,
    Side,
    channel_saliency,
    sides_of,
)
from prunebench.pruning.saliency import gradients as gradients_module

EXACT = {"rtol": 0, "atol": 0}


@pytest.mark.parametrize("measure", DATA)
def test_streamed_equals_not_streamed(measure):
    model = make_tiny()
    streamed = saliency(model, [measure])[measure]
    kept = saliency(model, [measure], streamed=False)[measure]
    # Only param_second adds up in another order; everything else is equal bit for bit.
    tolerance = {"rtol": 1e-6, "atol": 0} if measure == "param_second" else EXACT
    for side, values in streamed.items():
        torch.testing.assert_close(values, kept[side], **tolerance)


def test_repeating_gives_the_same_bits_and_several_measures_cost_nothing_in_accuracy():
    model = make_tiny()
    together, again = saliency(model), saliency(model)
    for measure in DATA:
        alone = saliency(model, [measure])[measure]
        for side, values in together[measure].items():
            assert torch.equal(values, again[measure][side])
            torch.testing.assert_close(values, alone[side], rtol=1e-6, atol=0)


def test_streaming_frees_each_gradient_before_the_next_layer(monkeypatch):
    held = []
    model = make_tiny()
    real = gradients_module._Scorer.reduce

    def counting(self, *args, **options):
        held.append(sum(p.grad is not None for p in model.parameters()))
        return real(self, *args, **options)

    monkeypatch.setattr(gradients_module._Scorer, "reduce", counting)
    saliency(model, ["param_first"])
    assert max(held) == 1
    held.clear()
    saliency(model, ["param_first"], streamed=False)
    assert max(held) == len(list(model.parameters()))


def test_only_asked_weights_get_gradients():
    model = make_tiny()
    structure = structures_of(model)["layers.1.neurons"]
    got = channel_saliency(model, sides_of([structure]), ["param_first"], tokens=tokens_for())
    assert {side.parameter.split(".")[-2] for side in got["param_first"]} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    full = saliency(model, ["param_first"])["param_first"]
    for side, values in got["param_first"].items():
        torch.testing.assert_close(values, full[side], **EXACT)


def test_micro_batches_add_up_to_the_batch_even_with_unequal_labels():
    model, tokens = make_tiny(), tokens_for(samples=5)
    labels = tokens.clone()
    labels[0, :9] = -100
    whole = saliency(model, ["param_first"], tokens, labels=labels)["param_first"]
    parts = saliency(model, ["param_first"], tokens, labels=labels, micro_batch=2)["param_first"]
    other = saliency(model, ["param_first"], tokens)["param_first"]
    for side, values in whole.items():
        torch.testing.assert_close(parts[side], values, rtol=1e-3, atol=1e-7)
    assert any(not torch.allclose(values, other[side], rtol=1e-2) for side, values in whole.items())


def test_sample_weights_weigh_the_squares():
    model, tokens = make_tiny(), tokens_for(samples=2)
    side = Side("model.layers.0.mlp.up_proj.weight", 0)
    first, second = (
        saliency(model, ["param_second"], tokens[i : i + 1])["param_second"][side] for i in (0, 1)
    )
    got = saliency(model, ["param_second"], tokens, sample_weights=[0.7, 0.2])["param_second"][side]
    torch.testing.assert_close(got, 0.7 * first + 0.2 * second, rtol=1e-5, atol=0)


def test_the_model_is_left_as_it_was_even_after_an_error():
    model = make_tiny()
    model.lm_head.weight.requires_grad_(False)
    kept = torch.ones_like(model.model.norm.weight)
    model.model.norm.weight.grad = kept
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(Failure):
        saliency(model)
    assert model.model.norm.weight.grad is kept
    assert not model.lm_head.weight.requires_grad
    assert all(p.requires_grad for n, p in model.named_parameters() if n != "lm_head.weight")
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_norms_leave_gradients_alone():
    model = make_tiny()
    model.model.norm.weight.grad = kept = torch.ones_like(model.model.norm.weight)
    saliency(model, ["l1"])
    assert model.model.norm.weight.grad is kept


def test_it_works_inside_no_grad_and_counts_tokens():
    model, cost = make_tiny(), Cost(torch.device("cpu"))
    with torch.no_grad():
        saliency(model, ["param_first", "param_second"], tokens_for(4, 12), cost=cost)
    report = cost.report()
    assert (report["forward_tokens"], report["backward_tokens"]) == (2 * 48, 2 * 48)


def test_a_gradient_that_is_not_finite_fails_and_names_its_parameter():
    model = make_tiny()
    down = model.model.layers[2].mlp.down_proj
    down.register_full_backward_hook(lambda *_: (torch.full((4, 12, 48), float("nan")),))
    with pytest.raises(Failure, match=r"layers\.\d\..*not finite.*torch\.float32"):
        saliency(model, ["param_first"])


def test_a_loss_that_is_not_finite_fails():
    model = make_tiny()
    with torch.no_grad():
        model.lm_head.weight[5, 5] = float("inf")
    with pytest.raises(Failure, match="loss on the calibration samples is nan"):
        saliency(model, ["vectorize"])


@pytest.mark.parametrize("measure", ["param_first", "l2"])
def test_a_quantised_weight_is_unsupported(measure):
    model = make_tiny()
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = nn.Parameter(linear.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(Unsupported, match=r"layers\.1\.mlp\.up_proj\.weight is torch\.int8"):
        saliency(model, [measure])


@pytest.mark.parametrize("measure", DATA)
@pytest.mark.parametrize("streamed", [True, False])
def test_a_weight_that_passes_no_gradient_on_is_unsupported(measure, streamed):
    model = make_tiny()
    linear = model.model.layers[1].mlp.up_proj
    linear.forward = lambda x: nn.functional.linear(x, linear.weight.detach())
    with pytest.raises(Unsupported, match=r"up_proj\.weight got no gradient"):
        saliency(model, [measure], streamed=streamed)


def test_weights_made_in_inference_mode_are_unsupported():
    with torch.inference_mode():
        model = make_tiny()
    with pytest.raises(Unsupported, match="cannot give a gradient"):
        saliency(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["taylor"]}, "unknown measure 'taylor'; known: vectorize"),
        ({"tokens": torch.zeros(3, dtype=torch.long)}, r"expected tokens and labels .* got \(3,\)"),
        ({"labels": torch.full((4, 12), -100)}, "no token of a calibration sample has a label"),
        ({"sample_weights": [1.0]}, "1 sample weights for 4 samples"),
    ],
)
def test_wrong_input_is_named(options, message):
    with pytest.raises(Invalid, match=message):
        saliency(make_tiny(), **options)


def test_measures_that_need_tokens_say_so():
    model = make_tiny()
    with pytest.raises(Invalid, match="param_first: expected calibration tokens"):
        channel_saliency(model, all_sides(model), ["param_first"])
    assert {name for name, m in MEASURES.items() if not m.uses_data} == {"l1", "l2"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scores_of_half_precision_weights_are_fp32_and_near(dtype):
    exact, half = make_tiny(), make_tiny().to(dtype)
    side = Side("model.layers.0.mlp.down_proj.weight", 1)
    wanted = saliency(exact, ["param_first"])["param_first"][side]
    got = saliency(half, ["param_first"])["param_first"][side]
    assert got.dtype == torch.float32
    assert torch.corrcoef(torch.stack([got, wanted]))[0, 1] > 0.98
