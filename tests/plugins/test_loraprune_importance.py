"""LoRAPrune's importance: the worked example to its digits, and the estimate's identities."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from prunebench.plugins.discovery import discover

discover()["loraprune"].load()
from prunebench_plugin_loraprune import importance  # noqa: E402
from prunebench_plugin_loraprune.importance import Pair  # noqa: E402
from prunebench_plugin_loraprune.options import Formula  # noqa: E402

CODE, PAPER = Formula.of("code"), Formula.of("paper")
PLAIN = Formula.of("code", eta=0.0)
SCALE = 2.0


def example(b=((0.5,), (-1.0,))):
    """Two outputs, three inputs, rank 1, alpha / rank = 2; L = |x Wm^T - I|^2 / 2 by autograd.

    Returns the pair with its gradients, and the true gradient of the merged weight.
    """
    weight = torch.tensor([[1.0, -2, 3], [0, 4, -1]], dtype=torch.float64)
    a = torch.tensor([[1.0, 2, -1]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[1.0, 0, 2], [0, 1, -1]], dtype=torch.float64)
    merged = weight + SCALE * b @ a
    merged.retain_grad()
    target = torch.eye(2, dtype=torch.float64)
    (0.5 * (x @ merged.T - target).square().sum()).backward()
    return Pair(weight, a.detach(), b.detach(), a.grad, b.grad, SCALE), merged.grad


def random_pair(*, out=6, width=5, rank=2, scale=2.0, b=1.0, a=None, loss_factor=1.0, seed=0):
    """A random adapted Linear after one backward pass, in fp64, and its true gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, x, target = draw(out, width), draw(7, width), draw(7, out)
    a = (draw(rank, width) if a is None else a).requires_grad_()
    b = (b * draw(out, rank)).requires_grad_()
    merged = weight + scale * b @ a
    merged.retain_grad()
    (loss_factor * (x @ merged.T - target).square().sum()).backward()
    return Pair(weight, a.detach(), b.detach(), a.grad, b.grad, scale), merged.grad


def check(got, expected, tolerance=1e-12):
    torch.testing.assert_close(
        got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance
    )


def test_the_example_of_the_released_code():
    pair, gradient = example()
    check(gradient, [[5, -2, 12], [0, -2, 2]])
    check(pair.grad_b, [[-22], [-12]])
    check(pair.grad_a, [[5, 2, 8]])
    check(importance.estimate(pair, CODE), [[90.5, 1, 202], [43, -2, 100]])
    check(importance.weight_scores(pair, CODE), [[181, 0, 404], [86, 0, 100]])


def test_the_example_without_the_quadratic_term():
    check(importance.estimate(example()[0], PLAIN), [[-19.5, -43, 26], [-17, -26, 4]])


def test_the_example_of_the_paper():
    scores = importance.weight_scores(example()[0], PAPER)
    check(scores, [[18428.0625, 1, 255025], [1849, 16, 0]])


def test_the_example_of_the_vanilla_criterion():
    pair, gradient = example()
    merged = pair.weight + SCALE * pair.b @ pair.a
    check(importance.first_order(gradient, merged, CODE), [[10, 0, 24], [0, 0, 2]])


def test_the_example_with_the_first_b():
    pair, gradient = example(b=((0.0,), (0.0,)))
    check(gradient, [[6, -5, 17], [-2, 4, -8]])
    check(pair.grad_b, [[-42], [28]])
    check(pair.grad_a, [[0, 0, 0]])
    got = importance.estimate(pair, CODE)
    check(got, [[-42, -84, 42], [28, 56, -28]])
    torch.testing.assert_close(got, SCALE * gradient @ pair.a.T @ pair.a)


@pytest.mark.parametrize(
    ("dim", "sums", "normalised"),
    [(0, [585, 186], [0.952990, 0.303002]), (1, [267, 0, 504], [0.468129, 0, 0.883660])],
)
def test_the_example_by_channel(dim, sums, normalised):
    channels = importance.channel_scores(example()[0], dim, CODE)
    check(channels, sums)
    index = torch.arange(len(sums)).view(-1, 1)
    kept = torch.ones(len(sums), dtype=torch.float64)
    check(importance.module_scores(channels, index, kept, CODE), normalised, 5e-7)


@pytest.mark.parametrize("dim", [0, 1])
def test_blocks_of_rows_change_nothing(dim, monkeypatch):
    pair, _ = random_pair(out=11)
    whole = importance.weight_scores(pair, CODE).sum(dim=1 - dim)
    monkeypatch.setattr(importance, "BLOCK_ROWS", 4)
    torch.testing.assert_close(importance.channel_scores(pair, dim, CODE), whole)


@pytest.mark.parametrize("eta", [0.25, 1.0, 3.0])
def test_the_estimate_is_the_move_of_one_virtual_step(eta):
    pair, _ = random_pair()
    moved = (pair.b - eta * pair.grad_b) @ (pair.a - eta * pair.grad_a)
    expected = (pair.b @ pair.a - moved) / eta
    torch.testing.assert_close(importance.estimate(pair, Formula.of("code", eta=eta)), expected)


def test_the_chain_rule_in_the_adapter():
    pair, gradient = random_pair()
    torch.testing.assert_close(pair.grad_b, pair.scale * gradient @ pair.a.T)
    torch.testing.assert_close(pair.grad_a, pair.scale * pair.b.T @ gradient)
    sketch = gradient @ pair.a.T @ pair.a + pair.b @ pair.b.T @ gradient
    torch.testing.assert_close(importance.estimate(pair, PLAIN), pair.scale * sketch)


def test_with_an_orthonormal_a_of_full_rank_it_is_the_gradient():
    a = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    pair, gradient = random_pair(rank=5, scale=1.0, b=0.0, a=a)
    torch.testing.assert_close(importance.estimate(pair, PLAIN), gradient)
    low, gradient = random_pair(rank=2, scale=1.0, b=0.0)
    assert not torch.allclose(importance.estimate(low, PLAIN), gradient)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_rank_is_at_most_twice_that_of_the_adapter(eta):
    pair, gradient = random_pair(out=9, width=8, rank=2)
    assert torch.linalg.matrix_rank(gradient) > 4
    got = importance.estimate(pair, Formula.of("code", eta=eta))
    assert torch.linalg.matrix_rank(got) == 4


def test_scaling_the_loss_scales_the_scores_only_without_the_quadratic_term():
    pairs = [random_pair(loss_factor=factor)[0] for factor in (0.01, 0.03)]
    linear = [importance.weight_scores(pair, PLAIN) for pair in pairs]
    torch.testing.assert_close(linear[1], 3.0 * linear[0])
    index, kept = torch.arange(6).view(3, 2), torch.ones(3, dtype=torch.float64)

    def normalised(pair, formula):
        channels = importance.channel_scores(pair, 0, formula)
        return importance.module_scores(channels, index, kept, formula)

    torch.testing.assert_close(normalised(pairs[1], PLAIN), normalised(pairs[0], PLAIN))
    apart = normalised(pairs[1], CODE) - normalised(pairs[0], CODE)
    assert apart.abs().max() > 1e-3


def test_a_module_has_norm_one_and_a_unit_that_is_gone_does_not_count():
    channels, index = torch.rand(12, dtype=torch.float64) + 0.1, torch.arange(12).view(4, 3)
    kept = torch.tensor([1.0, 1, 0, 1], dtype=torch.float64)
    scores = importance.module_scores(channels, index, kept, CODE)
    assert abs(scores.norm() - 1) < 1e-6 and scores[2] == 0
    alone = importance.module_scores(channels, index[[0, 1, 3]], kept[[0, 1, 3]], CODE)
    torch.testing.assert_close(scores[[0, 1, 3]], alone)
    plain = importance.module_scores(channels, index, kept, PAPER)
    torch.testing.assert_close(plain, channels.view(4, 3).sum(1) * kept)


def test_each_named_difference_changes_the_scores():
    pair, _ = random_pair()
    first = importance.weight_scores(pair, CODE)
    for change in ({"power": "square"}, {"eta": 0.0}, {"scale_in_weight": False}):
        assert not torch.allclose(importance.weight_scores(pair, Formula.of(**change)), first)
    scaled = importance.estimate(pair, Formula.of(scale_in_estimate=True))
    torch.testing.assert_close(scaled, pair.scale * importance.estimate(pair, CODE))


def test_flavours_are_defaults_of_what_is_not_given():
    assert dataclasses.asdict(PAPER) == {
        "power": "square", "normalisation": "none", "eta": 1.0,
        "scale_in_estimate": False, "scale_in_weight": False,
    }  # fmt: skip
    assert Formula.of("paper", power="abs", eta=None).power == "abs"
    assert Formula.of("code") == dataclasses.replace(
        PAPER, power="abs", normalisation="l2", scale_in_weight=True
    )
