"""What is timed is what is meant: decode with a cache equals the full forward pass; fair orders."""

from __future__ import annotations

import gc
from itertools import islice

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prunebench.garbage import no_collection
from prunebench.profiling.graphs import FixedDecoder
from prunebench.profiling.latency import decode, prefill, rounds, time_round

TOLERANCE = 1e-5  # fp32, logits of order 0.1
SHAPE = {"vocab_size": 61, "hidden_size": 32}
FAMILIES = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt_neox": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48},
    "qwen3": {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
    },
}


def ids_for(model, batch: int = 2, length: int = 12) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(61, (batch, length), generator=draw)  # [batch, length]
    return ids if model is None else ids.to(model.device)


@torch.inference_mode()
def check_decode(model, prompt: int = 7) -> None:
    """After each new token the logits equal those of one pass over the whole sequence."""
    ids = ids_for(model)
    full = model(input_ids=ids).logits  # [batch, length, vocabulary]
    for new in range(1, ids.shape[1] - prompt + 1):
        output = prefill(model, ids[:, :prompt])
        torch.testing.assert_close(
            output.logits[:, -1], full[:, prompt - 1], atol=TOLERANCE, rtol=0
        )
        last = decode(model, output.past_key_values, ids[:, prompt : prompt + new])
        torch.testing.assert_close(
            last.logits[:, -1], full[:, prompt + new - 1], atol=TOLERANCE, rtol=0
        )


def test_decode_equals_full_forward(tiny):
    check_decode(tiny())


def test_decode_of_mixed_shapes_equals_full_forward(mixed):
    check_decode(mixed)


@pytest.mark.parametrize("family", FAMILIES)
def test_decode_of_other_families_equals_full_forward(family):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE, **FAMILIES[family])
    check_decode(AutoModelForCausalLM.from_config(config).eval())


def test_decode_that_loses_its_cache_is_caught(tiny):
    """Negative twin: a model that forgets the prompt must not pass the check."""
    model = tiny()
    forward = model.forward

    def forgetful(**kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            kwargs["past_key_values"] = None
        return forward(**kwargs)

    model.forward = forgetful
    with pytest.raises(AssertionError):
        check_decode(model)


@torch.inference_mode()
def check_fixed(model, prompt: int = 7) -> None:
    """A fixed decoder ends with the logits of one pass over all, the second time as well."""
    ids = ids_for(model)
    full = model(input_ids=ids).logits
    fixed = FixedDecoder(model, model.config, ids[:, :prompt], ids.shape[1] - prompt)
    for _ in range(2):
        fixed.rewind()
        fixed.run(ids[:, prompt:])
        torch.testing.assert_close(fixed.logits[:, -1], full[:, -1], atol=TOLERANCE, rtol=0)


def test_fixed_decoder_equals_full_forward(tiny, mixed):
    check_fixed(tiny())
    check_fixed(mixed)


def test_fixed_decoder_that_does_not_rewind_is_caught(tiny, monkeypatch):
    monkeypatch.setattr(FixedDecoder, "rewind", lambda self: None)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check_fixed(tiny())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured_decoder_equals_full_forward(tiny, mixed):
    check_fixed(tiny().cuda())
    check_fixed(mixed.cuda())


def test_prefill_makes_logits_of_the_last_position_only(tiny):
    model = tiny()
    assert prefill(model, ids_for(model)).logits.shape == (2, 1, 61)


def test_a_round_without_new_tokens_has_no_decode_time(tiny):
    ids = ids_for(None)
    prefill_ms, decode_ms = time_round(tiny(), ids, ids[:, :0])
    assert prefill_ms > 0
    assert decode_ms is None


def test_each_model_goes_first_as_often_as_any_other():
    orders = list(islice(rounds(["a", "b", "c"], seed=0), 40))
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    for one, other in ("ab", "bc", "ac"):
        assert sum(order.index(one) < order.index(other) for order in orders) == 20
    assert orders == list(islice(rounds(["a", "b", "c"], seed=0), 40))
    assert orders != list(islice(rounds(["a", "b", "c"], seed=1), 40))


def test_garbage_collector_is_off_inside_and_restored_after():
    with pytest.raises(RuntimeError, match="planted"), no_collection():
        assert not gc.isenabled()
        raise RuntimeError("planted")
    assert gc.isenabled()
