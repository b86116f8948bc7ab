"""Surgery: masked equals sliced, gates are differentiable, and the checker can fail."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import make_tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench import architectures
from prunebench.errors import Invalid, Unsupported
from prunebench.structure import Coupling, Decision
from prunebench.surgery import (
    count_decoder_parameters,
    count_parameters,
    cut,
    gated,
    logits,
    masked,
    slice_model,
)

FAMILIES = {
    "llama": {},
    "llama-biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama-mha": {"num_key_value_heads": 4},
    "mistral": {"num_key_value_heads": 1},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "qwen3-tied": {"tie_word_embeddings": True},
    "gemma": {"tie_word_embeddings": True},
    "gemma-untied": {},
}
TOKENS = torch.randint(258, (3, 21), generator=torch.Generator().manual_seed(1))
DECISIONS = {
    "heads": {"layers.0.heads": (1,)},
    "neurons": {"layers.1.neurons": tuple(range(3, 40)), "layers.2.neurons": (0, 47)},
    "hidden": {"hidden": tuple(range(4, 32))},
    "layers": {"layers": (0, 2)},
    "all": {
        "layers.0.heads": (1,),
        "layers.2.neurons": tuple(range(0, 48, 3)),
        "hidden": tuple(range(0, 30)),
        "layers": (0, 2),
    },
}


def family(name):
    return make_tiny(name.partition("-")[0], **FAMILIES[name])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("which", DECISIONS)
def test_masked_equals_sliced(name, which):
    model = family(name)
    keep = {n: k for n, k in DECISIONS[which].items() if "mha" not in name or "heads" not in n}
    if which == "heads" and name in ("llama-mha", "mistral"):
        keep = {"layers.0.heads": (0, 3)} if name == "llama-mha" else {"layers.1.neurons": (5,)}
    elif name == "mistral":
        keep.pop("layers.0.heads", None)
    before = count_parameters(model)
    verification, _ = cut(model, Decision(keep), TOKENS)
    assert verification.max_abs_logit_difference < 1e-5
    assert verification.masked_minus_dense > 1e-3  # otherwise nothing was tested
    assert verification.passed
    assert count_parameters(model) < before


@pytest.mark.parametrize("name", FAMILIES)
def test_empty_decision_changes_nothing(name):
    model = family(name)
    before = logits(model, TOKENS)
    verification, stock = cut(model, Decision({}), TOKENS)
    assert torch.equal(before, logits(model, TOKENS))
    assert stock and verification.max_abs_logit_difference == 0.0


@pytest.mark.parametrize("name", ["llama-biases", "qwen3"])
@pytest.mark.parametrize("structure", ["layers.0.heads", "layers.1.neurons", "hidden"])
def test_a_forgotten_coupling_is_noticed(name, structure, monkeypatch):
    """Dropping any one coupling must raise or give other logits, never pass."""
    original = architectures.family_of("llama").structures
    keep = {"layers.0.heads": (1,), "layers.1.neurons": (2, 7, 11), "hidden": tuple(range(20))}
    decision = Decision({structure: keep[structure]})
    count = len(original(family(name))[structure].couplings)
    for dropped in range(count):

        def incomplete(model, dropped=dropped):
            found = original(model)
            couplings = list(found[structure].couplings)
            del couplings[dropped]
            found[structure] = dataclasses.replace(found[structure], couplings=tuple(couplings))
            return found

        monkeypatch.setattr(architectures.family_of("llama"), "structures", incomplete)
        try:
            verification, _ = cut(family(name), decision, TOKENS)
        except (RuntimeError, ValueError):
            continue
        assert not verification.passed, f"coupling {dropped} is not needed?"


def test_a_wrong_index_is_noticed(monkeypatch):
    """One KV group that takes another group's query heads: the released codes' GQA mistake."""
    original = architectures.family_of("llama").structures

    def shuffled(model):
        found = original(model)
        heads = found["layers.0.heads"]
        wrong = []
        for coupling in heads.couplings:
            if "q_proj" in coupling.parameter:
                flipped = Coupling(coupling.parameter, coupling.dim, coupling.index.flip(0))
                wrong.append(flipped)
            else:
                wrong.append(coupling)
        found["layers.0.heads"] = dataclasses.replace(heads, couplings=tuple(wrong))
        return found

    monkeypatch.setattr(architectures.family_of("llama"), "structures", shuffled)
    verification, _ = cut(make_tiny(), Decision({"layers.0.heads": (1,)}), TOKENS)
    assert not verification.passed


def test_uncorrected_norms_are_noticed(monkeypatch):
    """Without the RMSNorm correction a narrower model is another function."""
    monkeypatch.setattr("prunebench.surgery._correct_norms", lambda *_: None)
    verification, _ = cut(make_tiny(), Decision({"hidden": tuple(range(24))}), TOKENS)
    assert not verification.passed


def test_gates_are_differentiable_and_read_anew():
    model = make_tiny()
    factor = torch.ones(2, requires_grad=True)
    with gated(model, {"layers.0.heads": factor}):
        same = model(TOKENS).logits
        assert torch.allclose(same, logits(model, TOKENS), atol=1e-6)
        same.square().mean().backward()
        assert factor.grad.abs().min() > 0
        with torch.no_grad():
            factor[0] = 0.0
        changed = logits(model, TOKENS)
    assert (changed - same.detach()).abs().max() > 1e-3
    assert torch.allclose(logits(model, TOKENS), same.detach(), atol=1e-6)  # hooks are gone


def test_gate_of_a_wrong_shape_is_refused():
    expected = r"layers.0.heads: expected shape \(2,\), got \(3,\)"
    wrong = {"layers.0.heads": torch.ones(3)}
    with pytest.raises(Invalid, match=expected), gated(make_tiny(), wrong):
        pass


@pytest.mark.parametrize(
    "keep, message",
    [
        ({"layers.9.heads": (0,)}, "unknown structure"),
        ({"layers.0.heads": ()}, "last unit"),
        ({"layers.0.heads": (1, 0)}, "ascending"),
        ({"layers.0.heads": (0, 2)}, "0..1"),
    ],
)
def test_impossible_decisions_are_refused(keep, message):
    with pytest.raises(Invalid, match=message):
        slice_model(make_tiny(), Decision(keep))


def test_unsupported_family_names_the_known_ones():
    model = make_tiny()
    model.config.model_type = "gpt2"
    with pytest.raises(Unsupported, match="'gpt2' is not supported; known: gemma, llama, mistral"):
        architectures.structures_of(model)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_pruned_models_generate_the_same_with_and_without_cache(attention):
    model = make_tiny(attn_implementation=attention)
    model.set_attn_implementation(attention)
    slice_model(model, Decision({**DECISIONS["all"], "layers.0.neurons": (1, 2, 3)}))
    mask = torch.ones_like(TOKENS)
    options = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False}
    cached = model.generate(TOKENS, use_cache=True, **options)
    assert cached.shape[1] > TOKENS.shape[1]
    assert torch.equal(cached, model.generate(TOKENS, use_cache=False, **options))


def test_left_padding_does_not_change_a_pruned_model():
    model = make_tiny()
    slice_model(model, Decision(DECISIONS["all"]))
    prompt = TOKENS[:1, :9]
    padded = torch.cat([torch.ones(1, 4, dtype=torch.long), prompt], dim=1)
    mask = torch.cat([torch.zeros(1, 4, dtype=torch.long), torch.ones_like(prompt)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        alone = model(prompt).logits[:, -1]
        batched = model(padded, attention_mask=mask, position_ids=positions).logits[:, -1]
    assert torch.allclose(alone, batched, atol=1e-5)


def test_counts_see_shared_weights_once():
    untied, tied = make_tiny(), make_tiny(tie_word_embeddings=True)
    assert count_parameters(untied) - count_parameters(tied) == 258 * 32
    assert count_decoder_parameters(untied) == count_parameters(untied) - 2 * 258 * 32 - 32


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_masked_equals_sliced_for_random_shapes(data):
    groups = data.draw(st.sampled_from([1, 2, 3]), label="query heads per KV head")
    kv = data.draw(st.integers(1, 4), label="KV heads")
    model = make_tiny(
        data.draw(st.sampled_from(["llama", "qwen2", "qwen3"])),
        seed=data.draw(st.integers(0, 99)),
        num_attention_heads=groups * kv,
        num_key_value_heads=kv,
        head_dim=data.draw(st.sampled_from([4, 8])),
        hidden_size=12 * groups * kv,
        intermediate_size=data.draw(st.integers(2, 30)),
        num_hidden_layers=2,
        tie_word_embeddings=data.draw(st.booleans()),
    )
    structures = architectures.structures_of(model)
    keep = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(structures)), unique=True, min_size=1)):
        units = structures[name].units
        kept = data.draw(st.sets(st.integers(0, units - 1), min_size=1, max_size=units))
        keep[name] = tuple(sorted(kept))
    verification, _ = cut(model, Decision(keep), TOKENS)
    assert verification.max_abs_logit_difference < 1e-4 and verification.passed


def test_masked_is_a_context_and_leaves_no_trace():
    model = make_tiny()
    before = logits(model, TOKENS)
    with masked(model, Decision({"layers.1.heads": (0,)})):
        assert (logits(model, TOKENS) - before).abs().max() > 1e-3
    assert torch.equal(before, logits(model, TOKENS))
