"""Training of HyWIA's gates: differentiable unit gates, frozen weights, progress, divergence."""

from __future__ import annotations

import pytest
import torch
from conftest import make_tiny
from hywia_toy import model_groups, tokens_for
from prunebench_plugin_hywia import training as training_module
from prunebench_plugin_hywia.fusion import Fusion
from prunebench_plugin_hywia.gate import Gates
from prunebench_plugin_hywia.training import GateTraining, hard_gates, soft_gates, soft_top_k, train

from prunebench.errors import Failure
from prunebench.profiling.cost import Cost

QUICK = {"steps": 12, "batch": 4, "rate": 0.03, "temperature": 0.5, "seed": 0}


def run(model, tokens, cost=None, **changes):
    structures, groups = model_groups(model, tokens)
    gates = Gates(groups, seed=0, trained=True)
    kept = {name: structure.units // 2 for name, structure in structures.items()}
    options = GateTraining(**{**QUICK, **changes})
    report = train(
        model, gates, Fusion(groups, structures), structures, kept, tokens, options, cost
    )
    return gates, report


def test_soft_top_k_adds_up_and_follows_the_scores():
    scores, kept = torch.randn(5, 30), torch.tensor([[3], [10], [15], [29], [1]])
    soft = soft_top_k(scores, kept)
    torch.testing.assert_close(soft.sum(dim=1, keepdim=True), kept.float(), rtol=1e-3, atol=0)
    assert torch.equal(soft.argsort(dim=1), scores.argsort(dim=1))
    sharp = soft_top_k(100 * scores, kept)
    assert float(sharp.topk(3).values[0].min()) > 0.5 > float(sharp[4].sort().values[-2])


def test_a_unit_gains_only_what_the_others_lose():
    scores = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    kept, direction = torch.tensor([[3], [5]]), torch.randn(2, 8, dtype=torch.float64)
    soft = soft_top_k(scores, kept)
    (whole,) = torch.autograd.grad(soft.sum(), scores, retain_graph=True)
    assert float(whole.abs().max()) < 1e-4
    (gradient,) = torch.autograd.grad((soft * direction).sum(), scores)
    step = 1e-4 * torch.randn(2, 8, dtype=torch.float64)
    ends = [(soft_top_k(scores + s * step, kept) * direction).sum() for s in (0.5, -0.5)]
    assert (ends[0] - ends[1]).item() == pytest.approx(float((gradient * step).sum()), rel=1e-3)


def test_unit_gates_prefer_the_highest_and_pass_a_gradient():
    scores = {n: torch.rand(k).requires_grad_() for n, k in (("a", 6), ("b", 6), ("c", 9))}
    kept = {"a": 2, "b": 5, "c": 4}
    factors, hard = soft_gates(scores, kept, 0.5), hard_gates(scores, kept)
    assert list(hard) == list(kept) == sorted(factors)
    near = soft_gates(scores, kept, 1e-5)
    for name, count in kept.items():
        stay = set(hard[name].nonzero().flatten().tolist())
        assert stay == set(scores[name].topk(count).indices.tolist())
        assert stay == set(factors[name].topk(count).indices.tolist())
        assert factors[name].sum().item() == pytest.approx(count, rel=1e-3)
        torch.testing.assert_close(near[name], hard[name], atol=1e-3, rtol=0)
    (factors["a"] * torch.arange(6.0)).sum().backward()
    assert bool((scores["a"].grad != 0).all()) and scores["b"].grad.abs().max() == 0


def test_ties_and_zero_scores_have_finite_gradients():
    scores = {"a": torch.tensor([0.0, 0.0, 1.0, 1.0]).requires_grad_()}
    factors = soft_gates(scores, {"a": 2}, 0.5)["a"]
    assert factors.detach().round().tolist() == [0, 0, 1, 1]
    assert hard_gates(scores, {"a": 3})["a"].tolist() == [0, 1, 1, 1]
    (factors * torch.arange(4.0)).sum().backward()
    assert bool(scores["a"].grad.isfinite().all())


def test_training_lowers_the_loss_of_the_pruned_model_and_moves_the_blend():
    model, tokens = make_tiny(intermediate_size=96), tokens_for(8, 16)
    gates, report = run(model, tokens, steps=40, batch=8)
    assert report.after < report.before and report.to_dict()["improved"]
    assert min(report.losses[-5:]) < report.losses[0]
    with torch.no_grad():
        moved = [a for group in gates.attentions().values() for a in group.values()]
    assert max(float((a[:, 0] - 0.5).abs().max()) for a in moved) > 0.05


def test_weights_are_frozen_and_get_no_gradients(monkeypatch):
    model, tokens, learning = make_tiny(), tokens_for(), []
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    real = training_module._check_gradients

    def spy(gates, step):
        learning.extend(p.requires_grad or p.grad is not None for p in model.parameters())
        return real(gates, step)

    monkeypatch.setattr(training_module, "_check_gradients", spy)
    run(model, tokens, steps=3)
    assert learning and not any(learning)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_seed_decides_and_tokens_are_counted():
    model, tokens, cost = make_tiny(), tokens_for(6, 10), Cost(torch.device("cpu"))
    _, first = run(model, tokens, cost, steps=5, batch=2)
    torch.rand(9)  # the global generator must not matter
    _, again = run(model, tokens, steps=5, batch=2)
    _, other = run(model, tokens, steps=5, batch=2, seed=1)
    assert first == again and first.losses != other.losses
    report = cost.report()
    assert report["backward_tokens"] == 5 * 2 * 10
    assert report["forward_tokens"] == 5 * 2 * 10 + 2 * 2 * 10  # a quarter of 6, twice


@pytest.mark.parametrize(
    ("samples", "steps", "passes"), [(32, 16, 1.5), (10, 16, 1.6), (100, 16, 1.44)]
)
def test_default_batches_see_the_samples_one_and_a_half_times(samples, steps, passes):
    batches = list(GateTraining(**{**QUICK, "steps": steps, "batch": None}).batches(samples))
    seen = torch.cat(batches)
    assert len(batches) == steps and len(seen) == pytest.approx(passes * samples, rel=0.03)
    assert sorted(seen[:samples].tolist()) == list(range(samples))


def test_a_gate_that_makes_things_much_worse_has_diverged(monkeypatch):
    monkeypatch.setattr(training_module, "DIVERGED", 0.5)
    with pytest.raises(
        Failure, match=r"diverged: the calibration loss rose from .*; lower gate_lr"
    ):
        run(make_tiny(), tokens_for(), steps=2)


def test_a_gradient_that_is_not_finite_has_diverged():
    model = make_tiny()
    down = model.model.layers[2].mlp.down_proj
    structures, groups = model_groups(model, tokens_for())
    down.register_full_backward_hook(lambda *_: (torch.full((4, 12, 48), float("nan")),))
    gates, kept = Gates(groups, seed=0, trained=True), {"layers.2.neurons": 24}
    options = GateTraining(**{**QUICK, "steps": 2})
    with pytest.raises(Failure, match="diverged: their gradient is not finite at step 1"):
        train(
            model, gates, Fusion(groups, structures), structures, kept, tokens_for(), options, None
        )
