"""What methods are given of the model's inside: signals, layers one by one, restoration, biases."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, TOKENS, model_of

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning.architectures import blocks_of, structures_of
from prunebench.pruning.by_layer import by_layer
from prunebench.pruning.restoration import add_bias, restore
from prunebench.pruning.signals import signals
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import cut, gated, logits, masked


def consumed(structures):
    return {n: s for n, s in structures.items() if s.kind in ("heads", "neurons")}


def entering(model, module):
    """What enters a module in one pass of all tokens: [tokens, features]."""
    seen = []
    hook = model.get_submodule(module).register_forward_pre_hook(lambda _, a: seen.append(a[0]))
    with torch.no_grad():
        model(TOKENS)
    hook.remove()
    return seen[0].flatten(0, 1).double()


@pytest.mark.parametrize("case", ["llama", "bloom", "falcon-40b", "phi3"])
def test_signals_are_those_of_one_pass_whatever_the_batch(case):
    model = model_of(case)
    structures = consumed(structures_of(model))
    found = signals(model, structures, TOKENS, moments=True, batch=2)
    for name, structure in structures.items():
        x = entering(model, structure.consumer)
        signal = found[name]
        assert signal.tokens == len(x) == TOKENS.numel()
        torch.testing.assert_close(signal.mean, x.mean(dim=0), atol=1e-5, rtol=1e-4)
        variance = x.var(dim=0, correction=0)
        torch.testing.assert_close(signal.variance, variance, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(signal.norm, x.norm(dim=0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(signal.moment, x.T @ x / len(x), atol=1e-4, rtol=1e-4)
        assert structure.per_unit(signal.mean).shape[0] == structure.units
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("case", CASES)
def test_layer_by_layer_is_the_model(case):
    """Dense, then with units that leave on the way: the stream is that of the masked model."""
    model = model_of(case)
    structures = structures_of(model)
    kept = {n: range(s.units // 2, s.units) for n, s in structures.items() if s.kind == "neurons"}
    for decision in ({}, kept):
        for layer in by_layer(model, structures, TOKENS, batch=2):
            layer.keep({n: units for n, units in decision.items() if n in layer.structures})
            last = torch.cat(layer.outputs())
        ends: list = []
        final = model.get_submodule(blocks_of(model)[-1])
        hook = final.register_forward_hook(lambda _, a, o, ends=ends: ends.append(o))
        with masked(model, Decision({n: tuple(u) for n, u in decision.items()})):
            logits(model, TOKENS)
        hook.remove()
        expected = ends[0][0] if isinstance(ends[0], tuple) else ends[0]
        torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    assert layer.index == len(blocks_of(model)) - 1


def test_what_enters_the_neurons_of_experts_is_refused_with_the_reason():
    model = model_of("qwen3_moe")
    structures = structures_of(model)
    reason = "layers.0.neurons: .* every expert.*no single module consumes them"
    with pytest.raises(Unsupported, match=reason):
        signals(model, consumed(structures), TOKENS)
    layers = by_layer(model, structures, TOKENS)
    with pytest.raises(Unsupported, match=reason):
        next(layers).signals()
    assert list(next(layers).signals()) == ["layers.1.heads", "layers.1.neurons"]  # no experts
    with pytest.raises(Invalid, match="hidden: only heads and neurons are consumed by one module"):
        structures["hidden"].consumer  # noqa: B018  the property is what is asked
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_layer_without_one_of_its_parts():
    model = model_of("llama")
    structures = structures_of(model)
    first = next(by_layer(model, structures, TOKENS))
    (bare,) = first.outputs(without=["layers.0.heads", "layers.0.neurons"])
    torch.testing.assert_close(bare, first.inputs[0])
    (half,) = first.outputs(without=["layers.0.heads"])
    assert (half - first.inputs[0]).abs().max() > 1e-3
    with pytest.raises(Invalid, match=r"layer 0: 'layers.1.heads' is none of"):
        first.keep({"layers.1.heads": [0]})


@pytest.mark.parametrize("damping", [0.0, 0.01, 10.0])
@pytest.mark.parametrize("name", ["layers.1.neurons", "layers.1.heads"])
def test_restoration_lowers_the_error_that_it_states(name, damping):
    model = model_of("llama")
    structure = structures_of(model)[name]
    x = entering(model, structure.consumer)
    # Fewer tokens than neurons leave the moment singular; a little noise on top is full rank.
    x = x + 0.05 * torch.randn(4, *x.shape, dtype=x.dtype).mean(dim=0)
    x = torch.cat([x, 0.1 * torch.eye(x.shape[1], dtype=x.dtype)])
    moment = x.T @ x / len(x)
    kept = range(max(1, structure.units // 3), structure.units)
    weight = model.get_parameter(f"{structure.consumer}.weight")
    old = weight.detach().clone().double()
    stay = structure.consumer_index[list(kept)].flatten()
    error = (x @ old.T - x[:, stay] @ old[:, stay].T).square().sum()
    found = restore(model, structure, kept, moment, damping=damping)
    new = weight.detach().double()
    left = (x @ old.T - x[:, stay] @ new[:, stay].T).square().sum()
    whole = (x @ old.T).square().sum()
    assert found.before == pytest.approx(float(error / whole), rel=1e-4)
    assert found.after == pytest.approx(float(left / whole), rel=1e-3)
    assert found.after < found.before * (0.9 if damping < 1 else 1.0)


def test_restoration_changes_nothing_where_nothing_leaves():
    model = model_of("llama")
    structure = structures_of(model)["layers.0.neurons"]
    before = logits(model, TOKENS)
    moment = torch.eye(structure.units)
    found = restore(model, structure, range(structure.units), moment)
    assert found.before == found.after == 0 and torch.equal(logits(model, TOKENS), before)
    with pytest.raises(Invalid, match=r"layers.0.neurons: expected a moment \(48, 48\)"):
        restore(model, structure, [0], torch.eye(3))


@pytest.mark.parametrize("case", ["llama", "gemma2", "bloom", "phi3"])
def test_a_bias_makes_up_for_constant_inputs_and_survives_the_cut(case):
    """With a unit's input held constant, its loss is a constant, too."""
    model = model_of(case)
    structure = structures_of(model)["layers.1.neurons"]
    weight = model.get_parameter(f"{structure.consumer}.weight")
    writes = model.get_submodule(structure.consumer)
    hook = writes.register_forward_pre_hook(lambda _, a: (a[0].index_fill(2, gone, 0.5),))
    gone = torch.arange(4)
    dense = logits(model, TOKENS)
    hook.remove()
    gained = add_bias(model, structure, 0.5 * weight.detach()[:, gone].sum(dim=1))
    assert gained == (0 if case == "bloom" else weight.shape[0])
    factor = torch.ones(structure.units)
    factor[gone] = 0.0
    with gated(model, {structure.name: factor}):
        torch.testing.assert_close(logits(model, TOKENS), dense, atol=1e-4, rtol=1e-4)
    keep = {structure.name: tuple(range(4, structure.units)), "layers.0.heads": (0,)}
    verification, _ = cut(model, Decision(keep), TOKENS)
    assert verification.passed and verification.masked_minus_dense > 0
    with pytest.raises(Invalid, match="expected values"):
        add_bias(model, structures_of(model)["layers.1.neurons"], torch.ones(3))
