"""Gates that do more than scale activations: experts that nobody is sent to, norms over heads."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from family_cases import TOKENS, model_of

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.gates import route
from prunebench.pruning.selection import Budget, lowest, select
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import gated, logits, masked, slice_model


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe"])
def test_a_masked_expert_gets_no_token_and_the_shares_of_the_others_add_up(case):
    model, seen = model_of(case), {}
    experts = model.model.layers[0].mlp.experts
    hook = experts.register_forward_pre_hook(
        lambda _, args: seen.update(zip("hik", args, strict=True))
    )
    with masked(model, Decision({"layers.0.experts": (0, 2, 3, 5)})):
        logits(model, TOKENS)
    hook.remove()
    assert set(seen["i"].unique().tolist()) <= {0, 2, 3, 5}
    assert torch.allclose(seen["k"].sum(dim=1), torch.ones(TOKENS.numel()), atol=1e-6)


@pytest.mark.parametrize("normalised", [True, False])
def test_experts_are_chosen_as_the_router_of_transformers_chooses(normalised):
    model = make_tiny("qwen3_moe", norm_topk_prob=normalised)
    router = model.model.layers[1].mlp.gate
    own, weights, chosen = router(torch.randn(50, 32))
    again = route(router, own, weights.dtype)
    assert torch.equal(again[2], chosen) and torch.allclose(again[1], weights, atol=1e-7)


def test_without_renormalisation_too_a_masked_expert_is_a_sliced_one():
    model = make_tiny("qwen3_moe", norm_topk_prob=False, initializer_range=0.06)
    decision = Decision({"layers.0.experts": (1, 2, 5), "layers.2.experts": (0, 4)})
    dense = logits(model, TOKENS)
    with masked(model, decision):
        expected = logits(model, TOKENS)
    assert slice_model(model, decision) is False  # layers have different numbers of experts now
    assert (logits(model, TOKENS) - expected).abs().max() < 1e-5
    assert (expected - dense).abs().max() > 0.05


def test_a_gate_at_zero_gives_a_finite_gradient():
    model, factor = model_of("mixtral"), torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    factor.requires_grad_()
    with gated(model, {"layers.1.experts": factor}):
        model(TOKENS).logits.square().mean().backward()
    assert bool(factor.grad.isfinite().all()) and factor.grad[1] == 0 and factor.grad[0] != 0


def test_as_many_experts_stay_as_each_token_is_sent_to():
    model = model_of("mixtral")
    structures = structures_of(model)
    scores = {n: torch.arange(6.0) for n, s in structures.items() if s.kind == "experts"}
    budget = Budget(model, structures)
    with pytest.raises(Invalid, match="layers.0.experts: every token goes to 2 experts, so at le"):
        Decision({"layers.0.experts": (3,)}).check(structures)
    with pytest.raises(Invalid, match="layers.0.experts: may lose 0..4 of 6 units, got 5"):
        lowest(budget, scores, {"layers.0.experts": 5})
    most = budget.sparsity(Decision(dict.fromkeys(scores, (4, 5))))
    for scope in ("layer", "global"):
        kept = select(budget, scores, most, scope=scope).keep
        assert kept == dict.fromkeys(scores, (4, 5))
        with pytest.raises(Unsupported, match="removing all units that may leave"):
            select(budget, scores, most + 0.05, scope=scope)


def test_a_parameter_that_is_gated_is_itself_again_afterwards():
    model = model_of("mixtral")
    before, parameters = logits(model, TOKENS), dict(model.named_parameters())
    with masked(model, Decision({"layers.0.neurons": (0, 1)})):
        assert (logits(model, TOKENS) - before).abs().max() > 1e-3
    after = dict(model.named_parameters())
    assert after.keys() == parameters.keys()
    assert all(after[name] is parameter for name, parameter in parameters.items())
    assert torch.equal(logits(model, TOKENS), before)


def test_other_heads_keep_their_scale_when_some_leave_a_common_norm():
    """OLMo 2: the mean square is over the heads that are left, so their queries stay as large."""
    model, sizes = model_of("olmo2"), []
    norm = model.model.layers[0].self_attn.q_norm

    def note(_, __, output):
        sizes.append(output[..., 16:].square().mean().sqrt().item())

    for decision in (Decision({}), Decision({"layers.0.heads": (1,)})):
        with masked(model, decision):
            hook = norm.register_forward_hook(note)
            logits(model, TOKENS)
            hook.remove()
    assert sizes[1] == pytest.approx(sizes[0], rel=0.15)
