"""Surgery: masked equals sliced, gates are differentiable, and the checker can fail."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_tiny
from torch.utils._python_dispatch import TorchDispatchMode

from prunebench.errors import Invalid, Unsupported
from prunebench.pruning import architectures, surgery
from prunebench.pruning.structure import Decision
from prunebench.pruning.surgery import (
    count_decoder_parameters,
    count_parameters,
    cut,
    gated,
    logits,
    masked,
    slice_model,
)

TOKENS = torch.randint(258, (3, 21), generator=torch.Generator().manual_seed(1))


def test_empty_decision_changes_nothing():
    model = make_tiny()
    before = logits(model, TOKENS)
    verification, stock = cut(model, Decision({}), TOKENS)
    assert torch.equal(before, logits(model, TOKENS))
    assert stock and verification.max_abs_logit_difference == 0.0
    assert verification.arithmetic == "float32"


def test_uncorrected_norms_are_noticed(monkeypatch):
    """Without the RMSNorm correction a narrower model is another function."""
    monkeypatch.setattr("prunebench.pruning.surgery._correct_norms", lambda *_: None)
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
    message = "'gpt2' is not .*known: bloom, .*stablelm.* .docs/adding-a"
    with pytest.raises(Unsupported, match=message):
        architectures.structures_of(model)


def test_counts_see_shared_weights_once():
    untied, tied = make_tiny(), make_tiny(tie_word_embeddings=True)
    assert count_parameters(untied) - count_parameters(tied) == 258 * 32
    assert count_decoder_parameters(untied) == count_parameters(untied) - 2 * 258 * 32 - 32


def test_masked_is_a_context_and_leaves_no_trace():
    model = make_tiny()
    before = logits(model, TOKENS)
    with masked(model, Decision({"layers.1.heads": (0,)})):
        assert (logits(model, TOKENS) - before).abs().max() > 1e-3
    assert torch.equal(before, logits(model, TOKENS))


def test_rounding_that_a_model_amplifies_is_told_from_an_error(tiny, monkeypatch):
    """With a tolerance below float32's rounding the comparison is made in float64, and passes; a
    cut that is wrong by little is still refused, and no weight has changed."""
    model, tokens = tiny("llama", intermediate_size=700), torch.arange(2, 66).view(2, 32)
    # Sums over so many neurons are taken in another order once some have left; 48 may not be.
    decision = Decision({"layers.1.neurons": tuple(range(5, 691)), "layers.0.heads": (1,)})
    monkeypatch.setattr(surgery, "tolerance", lambda *_: 1e-9)
    verification, _ = cut(copy.deepcopy(model), decision, tokens)
    assert verification.passed and verification.arithmetic == "float64"

    def slightly_wrong(model, decision):
        stock = slice_model(model, decision)
        model.model.layers[2].mlp.down_proj.weight.data.mul_(1 + 1e-5)
        return stock

    monkeypatch.setattr(surgery, "slice_model", slightly_wrong)
    verification, _ = cut(copy.deepcopy(model), decision, tokens)
    assert not verification.passed and verification.arithmetic == "float64"
    before = copy.deepcopy(model.state_dict())
    with surgery.in_double(model) as doubled:
        assert doubled and model.dtype == torch.float64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with surgery.in_double(model.bfloat16()) as doubled:
        assert not doubled


@pytest.mark.parametrize("family", ["llama", "gemma2", "falcon"])
def test_what_models_compute_in_float32_is_computed_in_float64_too(tiny, family):
    """Norms and softmax ask for float32 whatever the weights' type. Left so, the comparison in
    float64 has float32's rounding, which a deep model may amplify beyond any tolerance."""
    model, tokens = tiny(family), torch.arange(2, 66).view(2, 32)
    lost = []

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            before = [t.dtype for t in args if isinstance(t, torch.Tensor)]
            if torch.float64 in before and getattr(result, "dtype", None) == torch.float32:
                lost.append(func)
            return result

    with surgery.in_double(model), torch.no_grad(), Casts():
        wide = model(tokens, use_cache=False).logits
    assert wide.dtype == torch.float64
    assert not lost
