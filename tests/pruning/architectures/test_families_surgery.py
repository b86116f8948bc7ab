"""Every family: masked equals sliced, and no entry of any structure can be left out unnoticed."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from conftest import make_tiny
from family_cases import (
    CASES,
    LAYER_NORM,
    SHARP,
    TOKENS,
    decisions,
    family_of,
    keep,
    model_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.pruning import surgery
from prunebench.pruning.architectures import FAMILIES, structures_of
from prunebench.pruning.selection import Budget
from prunebench.pruning.structure import Coupling, Decision, Structure
from prunebench.pruning.surgery import count_parameters, cut, gated, logits, masked, slice_model

TOLERANCE = 1e-5


def test_every_listed_family_has_a_case():
    assert {family_of(case) for case in CASES} == set(FAMILIES)


@pytest.mark.parametrize("case, kind", decisions())
def test_masked_equals_sliced(case, kind):
    model, decision = model_of(case), Decision(keep(case, kind))
    budget = Budget(model, structures_of(model))
    verification, _ = cut(model, decision, TOKENS)
    assert verification.max_abs_logit_difference < TOLERANCE
    assert verification.masked_minus_dense > 0.1  # otherwise nothing was tested
    achieved = 1.0 - count_parameters(model) / budget.total
    assert achieved > 0 and budget.sparsity(decision) == pytest.approx(achieved, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_all_structures_are_listed(case):
    structures = structures_of(model_of(case))
    expected = [f"layers.{i}.{kind}" for i in range(3) for kind in ("heads", "neurons")]
    stream = [] if family_of(case) in LAYER_NORM else ["hidden"]
    assert list(structures) == [*expected, *stream, "layers"]


@pytest.mark.parametrize("case", CASES)
def test_a_model_can_be_pruned_again(case):
    model = model_of(case)
    slice_model(model, Decision(keep(case, "all")))
    structures = structures_of(model)
    again = {n: tuple(range(s.units // 2, s.units)) for n, s in structures.items()}
    verification, _ = cut(model, Decision(again), TOKENS)
    assert verification.max_abs_logit_difference < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_every_gate_of_every_structure_has_a_gradient(case):
    model = model_of(case)
    factors = {n: torch.ones(s.units, requires_grad=True) for n, s in structures_of(model).items()}
    with gated(model, factors):
        gated_logits = model(TOKENS).logits
    assert torch.allclose(gated_logits, logits(model, TOKENS), atol=1e-5)
    gated_logits.square().mean().backward()
    assert all(factor.grad.abs().min() > 0 for factor in factors.values())


def removals(structure: Structure) -> list[Structure]:
    """The structure without each of its entries in turn, and with each index the wrong way round.

    (Gates of `hidden` behind one another do not replace each other: each is at another writer.)
    """
    found = []
    for part in ("couplings", "gates", "norms", "writers"):
        entries = getattr(structure, part)
        for i in range(len(entries)):
            rest = (*entries[:i], *entries[i + 1 :])
            found.append(dataclasses.replace(structure, **{part: rest}))
    for i, coupling in enumerate(structure.couplings):
        flipped = Coupling(coupling.parameter, coupling.dim, coupling.index.flip(0))
        others = (*structure.couplings[:i], flipped, *structure.couplings[i + 1 :])
        found.append(dataclasses.replace(structure, couplings=others))
    if structure.numbers:
        found.append(dataclasses.replace(structure, numbers=None))
    return found


MUTATED = {
    "heads": ({"layers.0.heads": (1,)},),
    "neurons": ({"layers.1.neurons": tuple(range(3, 40))},),
    "hidden": ({"hidden": tuple(range(3, 32))},),
    "layers": ({"layers": (0,)}, {"layers": (1,)}),  # together they drop every layer
}


@pytest.mark.parametrize("case, kind", [pair for pair in decisions() if pair[1] != "all"])
def test_a_forgotten_entry_is_noticed(case, kind, monkeypatch):
    """Leaving any one entry out must raise or give other logits, never pass."""
    model = make_tiny(family_of(case), **{**CASES[case], "num_hidden_layers": 2})
    right = structures_of(model)
    ((name, _),) = MUTATED[kind][0].items()
    decided = [Decision(keep) for keep in MUTATED[kind]]
    expected = [_masked_logits(model, decision) for decision in decided]
    for wrong in removals(right[name]):
        damaged = {**right, name: wrong}
        monkeypatch.setattr(surgery, "structures_of", lambda _, damaged=damaged: damaged)
        noticed = [
            _difference(copy.deepcopy(model), decision, target) > 10 * TOLERANCE
            for decision, target in zip(decided, expected, strict=True)
        ]
        assert any(noticed), f"not needed: {_what(right[name], wrong)}"


def _masked_logits(model, decision):
    with masked(model, decision):
        return logits(model, TOKENS)


def _difference(model, decision, expected):
    """How far the masked and the sliced model are from what is right; infinite if it raises."""
    try:
        gated = _masked_logits(model, decision)
        slice_model(model, decision)
        both = torch.stack([gated, logits(model, TOKENS)])
    except (RuntimeError, ValueError, ArithmeticError):
        return torch.inf
    return (both - expected).abs().max().item()


def _what(right: Structure, wrong: Structure) -> str:
    for part in ("couplings", "gates", "norms", "writers"):
        missing = [e for e in getattr(right, part) if e not in getattr(wrong, part)]
        if missing:
            return f"{part}: {missing[0]}"
    return "numbers"


def test_a_slope_of_another_head_is_noticed(monkeypatch):
    """ALiBi: heads that are renumbered after pruning get slopes that are not theirs."""
    model, decision = model_of("bloom"), Decision({"layers.0.heads": (1, 2, 3)})

    def renumber(model, structure, kept):
        path, _, leaf = structure.numbers.rpartition(".")
        model.get_submodule(path).register_buffer(leaf, torch.arange(len(kept)))

    monkeypatch.setattr(surgery, "remember_numbers", renumber)
    verification, _ = cut(model, decision, TOKENS)
    assert not verification.passed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_masked_equals_sliced_for_random_shapes(data):
    case = data.draw(st.sampled_from(sorted(CASES)), label="case")
    model = data.draw(random_model(case), label="model")
    keep = {}
    structures = structures_of(model)
    for name in data.draw(st.lists(st.sampled_from(sorted(structures)), unique=True, min_size=1)):
        units = structures[name].units
        kept = data.draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units))
        keep[name] = tuple(sorted(kept))
    verification, _ = cut(model, Decision(keep), TOKENS)
    largest = max(1.0, logits(model, TOKENS).abs().max().item())
    assert verification.max_abs_logit_difference < TOLERANCE * largest


@st.composite
def random_model(draw, case):
    """A model of a case with drawn sizes, biases and ties."""
    group, kv, width = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
        draw(st.sampled_from([4, 8])),
    )
    heads, neurons = group * kv, draw(st.integers(2, 30))
    shape = {
        "num_attention_heads": heads,
        "num_hidden_layers": draw(st.integers(1, 2)),
        "tie_word_embeddings": draw(st.booleans()),
    }
    family = family_of(case)
    if family in LAYER_NORM:  # heads fill the width
        shape["hidden_size"] = heads * width
    else:
        shape |= {"hidden_size": 12 * heads, "head_dim": width, "num_key_value_heads": kv, **SHARP}
    if family == "falcon":
        shape |= {"ffn_hidden_size": neurons}
        shape |= {"num_kv_heads": kv} if case == "falcon-40b" else {}
    elif family != "bloom":
        shape["intermediate_size"] = neurons
    return make_tiny(family, seed=draw(st.integers(0, 99)), **{**CASES[case], **shape})
