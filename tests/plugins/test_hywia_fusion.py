"""HyWIA's two granularities and their blends: the closed-form properties."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from hywia_toy import SIDE, blend, grains, model_groups, random_grains, tokens_for
from prunebench_plugin_hywia.fusion import (
    CLOSED_FORMS,
    Fusion,
    Grains,
    mean,
    repeat_weights,
    softmax,
)
from prunebench_plugin_hywia.gate import HIDDEN, Gates
from torch import nn

from prunebench.pruning.saliency import Side

TOY = torch.tensor([[1, -1], [0.5, 0.5], [2, -1]])
LAYER = "model.layers.1."


def drawn(one, seed=0):
    """Attention of a gate as it is drawn, on raw scores."""
    return Gates({"s": {SIDE: one}}, seed=seed, trained=False).attentions()["s"][SIDE].detach()


def learned(one, seed=0):
    """Attention of a trained gate's form, with parameters far from its start."""
    gates = Gates({"s": {SIDE: one}}, seed=seed, trained=True)
    with torch.no_grad():
        gates.gate.outer.normal_(generator=torch.Generator().manual_seed(seed))
    return gates.attentions()["s"][SIDE].detach()


FUSIONS = {**CLOSED_FORMS, "drawn": drawn, "learned": learned}


def test_the_worked_example_to_its_digits():
    one = grains(TOY)
    assert one.fine.tolist() == [2, 1, 3] and one.coarse.tolist() == [0, 1, 1]
    assert blend(one, mean(one)).tolist() == [1, 1, 2]
    fixed = torch.tensor([[0.6, 0.4]]).expand(3, 2)
    torch.testing.assert_close(blend(one, fixed), torch.tensor([1.2, 1.0, 2.2]))
    assert int(one.fine.argmin()) == 1 and int(one.coarse.argmin()) == 0


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("scale", [1e-5, 1.0, 30.0])
def test_every_blend_lies_between_coarse_and_fine(fusion, scale):
    one = random_grains(scale=scale)
    assert bool((one.coarse <= one.fine).all()) and bool((one.coarse < one.fine).any())
    attention = FUSIONS[fusion](one)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(40))
    z, slack = blend(one, attention), 1e-6 * one.fine
    assert bool((one.coarse - slack <= z).all()) and bool((z <= one.fine + slack).all())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_rows_of_one_sign_leave_nothing_to_blend(fusion):
    one = grains(torch.rand(20, 5) * torch.tensor([1.0, -1.0]).repeat(10)[:, None])
    torch.testing.assert_close(blend(one, FUSIONS[fusion](one)), one.fine)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_permuting_channels_permutes_the_blend_and_the_other_axis_does_not_matter(fusion):
    salience, order = torch.randn(30, 9), torch.randperm(30)
    z = blend(grains(salience), FUSIONS[fusion](grains(salience)))
    for changed, wanted in ((salience[order], z[order]), (salience[:, torch.randperm(9)], z)):
        one = grains(changed)
        torch.testing.assert_close(blend(one, FUSIONS[fusion](one)), wanted)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_sign_of_the_loss_does_not_matter(fusion):
    salience = torch.randn(30, 9)
    one, other = grains(salience), grains(-salience)
    assert torch.equal(blend(one, FUSIONS[fusion](one)), blend(other, FUSIONS[fusion](other)))


@pytest.mark.parametrize("fusion", ["mean", "softmax", "learned"])
def test_these_blends_scale_with_the_loss(fusion):
    one, other = random_grains(scale=1e-3), random_grains(scale=10.0)
    wanted = 1e4 * blend(one, FUSIONS[fusion](one))
    torch.testing.assert_close(blend(other, FUSIONS[fusion](other)), wanted, rtol=1e-4, atol=0)


def test_the_drawn_gate_depends_on_the_scale_of_the_loss_and_ends_as_a_constant():
    small, large = drawn(random_grains(scale=1e-8)), drawn(random_grains(scale=10.0))
    gate = Gates({"s": {SIDE: random_grains()}}, seed=0, trained=False).gate
    hidden = gate.inner_bias[0, :, 0].relu()
    limit = torch.sigmoid(gate.outer[0, 0] @ hidden + gate.outer_bias[0, 0, 0]).detach()
    torch.testing.assert_close(small[:, 0], limit.expand(40), rtol=1e-5, atol=0)
    assert float(large[:, 0].std()) > 100 * float(small[:, 0].std())


@pytest.mark.parametrize(("logit", "wanted"), [(0.0, "mean"), (40.0, "fine"), (-40.0, "coarse")])
def test_limits_of_the_gate(logit, wanted):
    one = random_grains()
    gates = Gates({"s": {SIDE: one}}, seed=0, trained=False)
    for parameter in gates.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(gates.gate.outer_bias, logit)
    expected = {"mean": (one.fine + one.coarse) / 2, "fine": one.fine, "coarse": one.coarse}
    z = blend(one, gates.attentions()["s"][SIDE])
    torch.testing.assert_close(z, expected[wanted], rtol=1e-6, atol=0)


def test_a_gate_is_the_released_network_with_the_released_ranges():
    one, gates = random_grains(scale=1.0), None
    spread = []
    for seed in range(50):
        gates = Gates({"s": {SIDE: one}}, seed=seed, trained=False)
        spread.append([p.detach().abs().amax() for p in gates.parameters()])
    assert gates.size() == 2 * HIDDEN + HIDDEN + HIDDEN + 1 == 257
    largest = torch.tensor(spread).amax(dim=0)
    limits = torch.tensor([0.5**0.5, 0.5**0.5, 0.125, 0.125])
    assert bool((largest <= limits).all()) and bool((largest > 0.9 * limits).all())
    gate, x = gates.gate, torch.stack([one.fine, one.coarse], dim=1)
    hidden = torch.relu(x @ gate.inner[0].T + gate.inner_bias[0, :, 0])
    weight = torch.sigmoid(hidden @ gate.outer[0, 0] + gate.outer_bias[0, 0, 0])
    torch.testing.assert_close(gates.attentions()["s"][SIDE][:, 0], weight)


def test_drawn_gates_average_to_one_half_and_differ_by_matrix_and_seed():
    one = random_grains()
    weights = torch.stack([drawn(one, seed)[0, 0] for seed in range(200)])
    assert abs(float(weights.mean()) - 0.5) < 4 * 0.045 / 200**0.5
    assert 0.02 < float(weights.std()) < 0.07
    two = Gates({"s": {SIDE: one, Side("other.weight", 0): one}}, seed=0, trained=False)
    first, second = two.attentions()["s"].values()
    assert not torch.equal(first, second)
    assert torch.equal(first, drawn(one))  # another matrix shifts no draw


def test_an_untrained_gate_that_is_to_be_trained_is_the_mean_exactly():
    groups = {"s": {SIDE: random_grains()}}
    attention = Gates(groups, seed=3, trained=True).attentions()["s"][SIDE]
    assert torch.equal(attention, torch.full((40, 2), 0.5))


def test_the_trained_gates_inputs_are_well_conditioned_at_any_scale():
    flat = Grains(torch.ones(6), torch.zeros(6))
    for one in (random_grains(scale=1e-6), random_grains(scale=1e3), flat):
        ((_, inputs),) = Gates({"s": {SIDE: one}}, seed=0, trained=True).batches
        assert inputs.shape == (1, 2, len(one.fine)) and float(inputs.abs().max()) < 8
        assert float(inputs.mean().abs()) < 1e-5


def test_softmax_follows_the_formula_and_two_unit_tokens_give_the_mean():
    one = random_grains()
    f, c = one.fine / one.fine.mean(), one.coarse / one.coarse.mean()
    torch.testing.assert_close(softmax(one)[:, 0], f.exp() / (f.exp() + c.exp()))
    tokens = torch.stack([one.fine / one.fine.norm(), one.coarse / one.coarse.norm()])
    rows = (tokens @ tokens.T / 40**0.5).softmax(dim=1)  # dot-product attention over two tokens
    torch.testing.assert_close(rows.mean(dim=0), torch.tensor([0.5, 0.5]))


def test_squares_of_the_older_fusion():
    def accumulated(ratio):
        weights = repeat_weights(3, ratio)
        return sum(w * g**2 for w, g in zip(weights, (1, 2, 3), strict=True))

    assert accumulated(0.6) == pytest.approx(1.24)
    assert accumulated(1.0) == pytest.approx(1 / 3)
    assert accumulated(0.6) != pytest.approx(14 / 3)  # LLM-Pruner's param_second


def coarse_of(model, tokens):
    structures, groups = model_groups(model, tokens)
    found = {side: one.coarse for group in groups.values() for side, one in group.items()}
    return structures, found


def test_coarse_is_the_slope_along_a_channels_scale():
    """|dL/da| at a = 1, where a multiplies a channel; a step of a changes the loss by as much."""
    model, tokens = make_tiny(), tokens_for()
    _, coarse = coarse_of(model, tokens)

    def loss(name, dim, scale):
        weight = model.get_parameter(name).detach() * (scale[:, None] if dim == 0 else scale)
        logits = torch.func.functional_call(model, {name: weight}, (tokens,)).logits[:, :-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    for module, dim in (("self_attn.q_proj", 0), ("mlp.gate_proj", 0), ("mlp.down_proj", 1)):
        side = Side(f"{LAYER}{module}.weight", dim)
        scale = torch.ones(len(coarse[side]), requires_grad=True)
        (slopes,) = torch.autograd.grad(loss(*side, scale), scale)
        largest = float(slopes.abs().max())
        torch.testing.assert_close(coarse[side], slopes.abs(), rtol=1e-3, atol=1e-4 * largest)
        channel, step = int(slopes.abs().argmax()), torch.zeros(len(slopes))
        step[channel] = 0.02
        with torch.no_grad():
            rise = loss(*side, 1 + step) - loss(*side, 1 - step)
        assert abs(float(rise)) / 0.04 == pytest.approx(largest, rel=0.02)


def test_producer_and_consumer_have_the_same_coarse_score_and_the_gate_projection_has_not():
    _, coarse = coarse_of(make_tiny(), tokens_for())
    up, gate = (coarse[Side(f"{LAYER}mlp.{n}_proj.weight", 0)] for n in ("up", "gate"))
    down = coarse[Side(LAYER + "mlp.down_proj.weight", 1)]
    tolerance = {"rtol": 1e-3, "atol": 1e-5 * float(up.max())}
    torch.testing.assert_close(up, down, **tolerance)
    assert not torch.allclose(gate, down, **tolerance)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_signed_sums_agree_where_one_matrix_feeds_the_next(kv_heads):
    """v rows and o columns channel by channel, q and k by whole heads; query heads that share a
    KV head add up."""
    model, tokens = make_tiny(num_key_value_heads=kv_heads), tokens_for()
    model(input_ids=tokens, labels=tokens).loss.backward()
    attention, config = model.model.layers[1].self_attn, model.config

    def sums(projection, dim, heads):
        """Signed sums of weight x gradient of each channel: [heads, head width]."""
        weight = getattr(attention, f"{projection}_proj").weight
        return (weight * weight.grad).detach().double().sum(dim=1 - dim).view(heads, -1)

    heads = config.num_attention_heads
    q, k = sums("q", 0, heads), sums("k", 0, kv_heads)
    v, o = sums("v", 0, kv_heads), sums("o", 1, heads)
    shared = (kv_heads, heads // kv_heads, -1)  # query heads of one KV head stand together
    close = {"rtol": 1e-4, "atol": 1e-5 * float(v.abs().max())}
    torch.testing.assert_close(o.view(shared).sum(1), v, **close)
    close["atol"] = 1e-5 * float(q.abs().max())
    by_head = q.view(shared).sum(1)
    torch.testing.assert_close(by_head.sum(1), k.sum(1), **close)
    assert not torch.allclose(by_head, k, **close)  # rotation mixes the channels of a head


def test_a_rescaling_that_leaves_the_network_alone_leaves_the_scores_alone():
    plain, gauged, tokens = make_tiny(), make_tiny(), tokens_for()
    rows = torch.tensor([2, 5])
    with torch.no_grad():
        mlp, attention = gauged.model.layers[1].mlp, gauged.model.layers[1].self_attn
        mlp.up_proj.weight[rows] *= 3.0
        mlp.down_proj.weight[:, rows] /= 3.0
        attention.v_proj.weight[4] *= 0.25  # channel 4 of KV head 0, read by query heads 0 and 1
        attention.o_proj.weight[:, [4, 12]] *= 4.0
    known, before = model_groups(plain, tokens)
    _, after = model_groups(gauged, tokens)
    for fusion in FUSIONS.values():
        old, new = (
            Fusion(g, known).scores({n: {s: fusion(x) for s, x in m.items()} for n, m in g.items()})
            for g in (before, after)
        )
        for name, scores in old.items():
            torch.testing.assert_close(new[name], scores, rtol=2e-3, atol=1e-6)
    with torch.no_grad():
        mlp.up_proj.weight[2] *= 3.0  # the network is another now
    _, other = model_groups(gauged, tokens)
    side = Side(LAYER + "mlp.up_proj.weight", 0)
    changed, kept = (g["layers.1.neurons"][side].fine[2] for g in (other, before))
    assert not torch.allclose(changed, kept, rtol=0.05)
