"""Every family: masked equals sliced, and no entry of any structure can be left out unnoticed."""

from __future__ import annotations

import pytest
import torch
from family_cases import CASES, SHARP, TOKENS, decisions, keep, losing, model_of
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.pruning import surgery
from prunebench.pruning.architectures import FAMILIES, structures_of
from prunebench.pruning.conformance import check_entries, check_gates, check_kinds, check_masked
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import cut, logits, slice_model

TOLERANCE = 1e-5
EACH = pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)


def test_every_listed_family_has_a_case():
    assert {case.family for case in CASES.values()} == set(FAMILIES)


@EACH
def test_all_structures_are_listed(case):
    check_kinds(case)


@pytest.mark.parametrize("case, kinds", decisions())
def test_masked_equals_sliced(case, kinds):
    check_masked(CASES[case], kinds)


@EACH
def test_every_gate_of_every_structure_is_felt(case):
    check_gates(case)


@pytest.mark.parametrize("case, kind", [(c, kind) for c in CASES for kind in losing(c)])
def test_a_forgotten_entry_is_noticed(case, kind):
    """Leaving any one entry out must raise or give other logits, never pass."""
    check_entries(CASES[case], kind)


@pytest.mark.parametrize("case", CASES)
def test_a_model_can_be_pruned_again(case):
    model = model_of(case)
    slice_model(model, Decision(keep(case)))
    structures = structures_of(model)
    again = {
        n: tuple(range(min(s.units // 2, s.units - s.least), s.units))
        for n, s in structures.items()
    }
    verification, _ = cut(model, Decision(again), TOKENS)
    assert verification.max_abs_logit_difference < TOLERANCE


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
        units, least = structures[name].units, structures[name].least
        kept = data.draw(st.sets(st.integers(0, units - 1), min_size=least, max_size=units))
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
    heads, sizes = group * kv, CASES[case].sizes
    drawn = {"heads": heads, "groups": kv, "head_dim": width, "neurons": draw(st.integers(2, 30))}
    shape = {
        "hidden_size": (12 if "head_dim" in sizes else width) * heads,
        "num_hidden_layers": draw(st.integers(1, 2)),
        "tie_word_embeddings": draw(st.booleans()),
        **{key: drawn[size] for size, key in sizes.items()},
    }
    sharp = SHARP if "rms_norm_eps" in CASES[case].settings else {}
    return CASES[case].model(seed=draw(st.integers(0, 99)), **shape, **sharp)
