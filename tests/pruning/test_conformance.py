"""What is asked of families: each check finds the fault that it is for, and names its place."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from family_cases import CASES

from prunebench.errors import Failure
from prunebench.pruning import gates
from prunebench.pruning.architectures import llama, opt
from prunebench.pruning.conformance import check_entries, check_gates, check_kinds, check_masked
from prunebench.pruning.structure import Coupling, Gate

LLAMA = CASES["llama"]


def damage(monkeypatch, change, family=llama):
    """Let the family list what `change` makes of its structures."""
    right = family.structures
    monkeypatch.setattr(family, "structures", lambda model: change(dict(right(model))))


def changed(name, **fields):
    """A change that replaces fields of one structure: field -> function of what it was."""

    def change(structures):
        old = structures.get(name)  # not there in a check's smaller model
        if old is not None:
            new = {field: make(getattr(old, field)) for field, make in fields.items()}
            structures[name] = replace(old, **new)
        return structures

    return change


def without(name):
    return lambda structures: {n: s for n, s in structures.items() if n != name}


def renamed(structures):
    return {("0.heads" if n == "layers.0.heads" else n): s for n, s in structures.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers"), "llama: no structure of kind 'layers'.*leave the kind out of the case"),
        (without("hidden"), "llama: no structure of kind 'hidden'.*LayerNorm"),
        (without("layers.1.heads"), "llama: layer 1 has no heads, other layers have"),
        (renamed, "llama: 0.heads should be 'layers.0.heads'"),
    ],
)
def test_a_kind_that_is_not_listed_is_named(monkeypatch, change, message):
    damage(monkeypatch, change)
    with pytest.raises(Failure, match=message):
        check_kinds(LLAMA)


def test_a_kind_that_the_case_does_not_know_is_named():
    with pytest.raises(Failure, match="llama: lists 'hidden', which the case says it has not"):
        check_kinds(replace(LLAMA, kinds=("heads", "neurons", "layers")))


def test_a_family_without_layers_or_hidden_only_says_so():
    check_kinds(CASES["opt-350m"])
    assert set(CASES["opt-350m"].kinds) == {"heads", "neurons"}


def test_a_sliced_model_that_is_another_is_told(monkeypatch):
    damage(monkeypatch, changed("layers.0.heads", gates=lambda _: ()))
    with pytest.raises(Failure, match="llama, heads: the sliced model's logits differ .* by "):
        check_masked(LLAMA, ("heads",))


def test_a_decision_that_changes_nothing_tests_nothing():
    faint = replace(LLAMA, settings={**LLAMA.settings, "initializer_range": 1e-4})
    with pytest.raises(Failure, match="llama, heads: masking changes no logit by more than 0.1"):
        check_masked(faint, ("heads",))


def test_a_parameter_that_leaves_uncounted_is_told(monkeypatch):
    from prunebench.pruning.selection import Budget

    right = Budget.left
    monkeypatch.setattr(Budget, "left", lambda *args, **more: right(*args, **more) - 1)
    with pytest.raises(Failure, match="of the parameters should have left by the couplings"):
        check_masked(LLAMA, ("neurons",))


def test_a_gate_that_is_not_neutral_at_one_is_named(monkeypatch):
    def doubles(model, gate, factors):
        return [model.get_submodule(gate.module).register_forward_hook(lambda m, a, out: 2 * out)]

    monkeypatch.setitem(gates.SIDES, "statistics", doubles)
    with pytest.raises(Failure, match="olmo2: with all factors at 1 .*: a gate of layers.0.heads"):
        check_gates(CASES["olmo2"])


def test_a_gate_without_a_gradient_is_named(monkeypatch):
    def deaf(model, gate, factors):
        return gates._input(model, gate, lambda: factors().detach())

    monkeypatch.setitem(gates.SIDES, "deaf", deaf)
    change = changed("layers.1.neurons", gates=lambda old: (replace(old[0], side="deaf"),))
    damage(monkeypatch, change)
    with pytest.raises(Failure, match="llama: layers.1.neurons: no gradient reaches its factors"):
        check_gates(LLAMA)


def kill(monkeypatch, share):
    """Let a share of OPT's neurons in layer 1 be dead: no token excites them."""
    from prunebench.pruning.conformance import case as cases

    right = cases.tiny_model

    def with_dead(settings, *, seed):
        model = right(settings, seed=seed)
        with torch.no_grad():
            bias = model.model.decoder.layers[1].fc1.bias
            bias[: int(share * len(bias))] = -1e4
        return model

    monkeypatch.setattr(cases, "tiny_model", with_dead)


def test_dead_neurons_of_a_relu_are_let_pass(monkeypatch):
    kill(monkeypatch, 0.1)
    check_gates(CASES["opt"])


def test_too_many_dead_neurons_are_told(monkeypatch):
    kill(monkeypatch, 0.75)
    with pytest.raises(Failure, match="neurons: .* no gradient, more than half.*ReLU"):
        check_gates(CASES["opt"])


def test_a_factor_without_gradient_that_matters_is_no_dead_neuron(monkeypatch):
    def partly(model, gate, factors):
        def some():
            first, rest = factors()[:3], factors()[3:]
            return torch.cat([first.detach(), rest])

        return gates._input(model, gate, some)

    monkeypatch.setitem(gates.SIDES, "partly", partly)
    change = changed("layers.1.neurons", gates=lambda old: (replace(old[0], side="partly"),))
    damage(monkeypatch, change, opt)
    with pytest.raises(
        Failure, match=r"\d+ of 48 factors have no gradient .*but masking them moves"
    ):
        check_gates(CASES["opt"])


def test_an_entry_that_is_not_needed_is_named(monkeypatch):
    again = changed("layers.0.heads", gates=lambda old: (*old, *old))
    damage(monkeypatch, again)
    told = "gates without model.layers.0.self_attn.o_proj (input)"
    with pytest.raises(Failure, match=re.escape(told)):
        check_entries(LLAMA, "heads")


def test_a_parameter_whose_order_is_free_must_be_called_inert():
    with pytest.raises(Failure, match="opt: .*the values of .*k_proj.bias change nothing.*`inert`"):
        check_entries(replace(CASES["opt"], inert=()), "heads")


def test_what_is_wrongly_called_inert_is_told():
    case = replace(CASES["llama-biases"], inert=("k_proj.bias",))
    with pytest.raises(Failure, match="k_proj.bias is said to be inert, but its values matter"):
        check_entries(case, "heads")


def test_a_case_that_is_too_small_says_so():
    with pytest.raises(Failure, match="layers.0.heads: its 1 units all stay; give the case more"):
        check_entries(CASES["falcon-7b"], "heads")


def test_names_of_entries():
    from prunebench.pruning.conformance.entries import entry_name

    index = torch.arange(2).view(2, 1)
    assert entry_name(Coupling("a.weight", 1, index)) == "a.weight (1)"
    assert entry_name(Gate("a", "input", index)) == "a (input)"
    assert entry_name("a.weight") == "a.weight"
