"""Measures: the worked example to its digits, and the identities behind them."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from saliency_toy import DATA, all_sides, gradients, saliency, tokens_for
from torch import nn

from prunebench.pruning.saliency import (
    Side,
    channel_saliency,
    channel_sums,
    unit_scores,
)
from prunebench.pruning.saliency import measures as measures_module
from prunebench.pruning.structure import Coupling, Structure
from prunebench.pruning.surgery import gated

# The worked example: one gated FFN with 2 channels, hidden 2 (weights, gradients and digits given).
EXAMPLE = {
    "gate": (0, [[1, -2], [3, 0.5]], [[0.1, 0.2], [-0.1, 0.4]]),
    "up": (0, [[0.5, 1], [-1, 2]], [[0.2, -0.1], [0.3, 0.1]]),
    "down": (1, [[2, -1], [0.5, 1]], [[0.1, 0.3], [-0.2, 0.2]]),
}
EXPECTED = {
    "vectorize": {"gate": [0.3, 0.1], "up": [0, 0.1], "down": [0.1, 0.1], "sum": [0.4, 0.3]},
    "param_first": {"gate": [0.5, 0.5], "up": [0.2, 0.5], "down": [0.3, 0.5], "sum": [1.0, 1.5]},
    "param_second": {
        "gate": [0.17, 0.13],
        "up": [0.02, 0.13],
        "down": [0.05, 0.13],
        "sum": [0.24, 0.39],
    },
    "param_mix": {
        "gate": [0.575, 0.525],
        "up": [0.2, 0.525],
        "down": [0.285, 0.525],
        "sum": [1.06, 1.575],
    },
}

matrices = st.integers(0, 2**31 - 1).map(
    lambda seed: torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed))
)


@pytest.mark.parametrize("measure", DATA)
def test_worked_example_to_the_printed_digits(measure):
    channels = {}
    for name, (dim, weight, gradient) in EXAMPLE.items():
        g = torch.tensor(gradient)
        sums = channel_sums([measure], [dim], torch.tensor(weight).float(), g, g.square())
        channels[Side(f"{name}.weight", dim)] = sums[measure, dim]
        expected = torch.tensor(EXPECTED[measure][name]).float()
        torch.testing.assert_close(sums[measure, dim], expected, rtol=0, atol=1e-6)
    index = torch.arange(2).view(2, 1)
    couplings = tuple(Coupling(side.parameter, side.dim, index) for side in channels)
    scores = unit_scores(channels, Structure("ffn", "neurons", 0, 2, couplings))
    torch.testing.assert_close(scores, torch.tensor(EXPECTED[measure]["sum"]), rtol=0, atol=1e-6)
    assert int(scores.argmin()) == (1 if measure == "vectorize" else 0)


@pytest.mark.parametrize("measure", DATA)
@pytest.mark.parametrize("tied", [False, True])
def test_streamed_sums_equal_the_plain_formula(measure, tied):
    model, tokens = make_tiny(tie_word_embeddings=tied), tokens_for()
    got = saliency(model, [measure], tokens)[measure]
    mean = gradients(model, tokens)
    each = [gradients(model, tokens[i : i + 1]) for i in range(len(tokens))]
    for side, values in got.items():
        w, g = model.get_parameter(side.parameter).detach(), mean[side.parameter]
        a = torch.stack([one[side.parameter] ** 2 for one in each]).mean(dim=0)
        salience = {
            "vectorize": w * g,
            "param_first": (w * g).abs(),
            "param_second": w * a * w,
            "param_mix": (w * g - 0.5 * w * a * w).abs(),
        }[measure]
        others = [d for d in range(w.dim()) if d != side.dim]
        expected = salience.sum(dim=others) if others else salience
        torch.testing.assert_close(values, expected.abs(), rtol=2e-4, atol=1e-8)


def test_small_blocks_change_nothing(monkeypatch):
    w, g = torch.randn(37, 11), torch.randn(37, 11)
    whole = channel_sums(DATA, [0, 1], w, g)
    monkeypatch.setattr(measures_module, "BLOCK_ELEMENTS", 40)
    for key, values in channel_sums(DATA, [0, 1], w, g).items():
        torch.testing.assert_close(values, whole[key], rtol=1e-5, atol=1e-6)


def test_weight_norms_need_no_tokens_and_no_gradients():
    model = make_tiny()
    channels = channel_saliency(model, all_sides(model), ["l1", "l2"])
    side = Side("model.layers.0.mlp.down_proj.weight", 1)
    weight = model.get_parameter(side.parameter)
    torch.testing.assert_close(channels["l1"][side], weight.abs().sum(dim=0))
    torch.testing.assert_close(channels["l2"][side], weight.square().sum(dim=0))


@settings(deadline=None)
@given(matrices)
def test_vectorize_never_exceeds_param_first(wg):
    sums = channel_sums(["vectorize", "param_first"], [0, 1], wg[0], wg[1])
    for dim in (0, 1):
        assert bool((sums["vectorize", dim] <= sums["param_first", dim] + 1e-5).all())


@settings(deadline=None)
@given(matrices, st.floats(0.01, 100))
def test_scaling_the_loss_scales_first_and_second_order(wg, c):
    names = ("vectorize", "param_first", "param_second")
    one = channel_sums(names, [0], wg[0], wg[1])
    scaled = channel_sums(names, [0], wg[0], c * wg[1])
    for name, power in zip(names, (1, 1, 2), strict=True):
        # vectorize can cancel, so its tolerance is that of the sum's largest terms
        atol = 1e-5 * float(one["param_first", 0].max()) * c
        torch.testing.assert_close(scaled[name, 0], one[name, 0] * c**power, rtol=1e-4, atol=atol)


def test_mix_is_not_homogeneous():
    w, g = torch.full((1, 1), 2.0), torch.full((1, 1), 0.5)
    (one,) = channel_sums(["param_mix"], [0], w, g).values()
    (two,) = channel_sums(["param_mix"], [0], w, 2 * g).values()
    assert not torch.allclose(two, 2 * one, rtol=0.1) and not torch.allclose(two, 4 * one, rtol=0.1)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_mean_of_squares_is_at_least_the_square_of_the_mean(seed, samples):
    """Jensen; and equality for one sample. In channel sums: sum w a w >= sum (w g)^2."""
    model, tokens = make_tiny(num_hidden_layers=1), tokens_for(samples, seed=seed)
    second = saliency(model, ["param_second"], tokens)["param_second"]
    mean = gradients(model, tokens)
    for side, values in second.items():
        w, g = model.get_parameter(side.parameter).detach(), mean[side.parameter]
        others = [d for d in range(w.dim()) if d != side.dim]
        square = (w * g).square()
        least = square.sum(dim=others) if others else square
        assert bool((values >= least * (1 - 1e-3) - 1e-9).all())
        if samples == 1:
            torch.testing.assert_close(values, least, rtol=1e-3, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_first_order_identity_between_producer_and_consumer(seed):
    """Sum of w g over an up row = over its down column; over v rows = over o columns of a head."""
    model = make_tiny(seed=seed, num_key_value_heads=4).double()  # MHA
    channels = saliency(model, ["vectorize"], tokens_for(seed=seed))["vectorize"]
    layer = "model.layers.1."
    up = channels[Side(layer + "mlp.up_proj.weight", 0)]
    down = channels[Side(layer + "mlp.down_proj.weight", 1)]
    torch.testing.assert_close(up, down, rtol=1e-3, atol=1e-6 * float(up.max()))
    v = channels[Side(layer + "self_attn.v_proj.weight", 0)]
    o = channels[Side(layer + "self_attn.o_proj.weight", 1)]
    assert v.shape == o.shape
    mean = gradients(model, tokens_for(seed=seed))
    signed = [
        (model.get_parameter(layer + n) * mean[layer + n]).sum(dim=1 - dim).view(4, 8).sum(dim=1)
        for n, dim in (("self_attn.v_proj.weight", 0), ("self_attn.o_proj.weight", 1))
    ]
    torch.testing.assert_close(*signed, rtol=1e-6, atol=1e-12)


def test_vectorize_is_the_slope_along_a_neurons_gate():
    """|dL/df| at f = 1, where f scales the neuron: the sum of w g over its down column."""
    model, tokens = make_tiny(), tokens_for()
    factor = torch.ones(48, requires_grad=True)
    with gated(model, {"layers.1.neurons": factor}):
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
        nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).backward()
    down = saliency(model, ["vectorize"], tokens)["vectorize"]
    slope = down[Side("model.layers.1.mlp.down_proj.weight", 1)]
    torch.testing.assert_close(slope, factor.grad.abs(), rtol=1e-3, atol=1e-6)
