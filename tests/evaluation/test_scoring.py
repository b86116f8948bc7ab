"""Logits only where they are scored: the same figures, whatever the family, in little memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family_cases import CASES, TOKENS, model_of

from prunebench.errors import Unsupported
from prunebench.evaluation import scoring
from prunebench.evaluation.perplexity import losses
from prunebench.evaluation.written import continue_prompts


@pytest.mark.parametrize("case", CASES)
def test_the_head_is_each_familys_own_soft_caps_and_scales_included(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 5 * 258)
    monkeypatch.setattr(scoring, "NORMALISED_AT_ONCE", 2 * 258)
    model = model_of(case)
    assert scoring.has_own_decoder(model)
    with torch.inference_mode():
        logits = model(TOKENS).logits[:, :-1].float()
        hidden = scoring.hidden_states(model, TOKENS, use_cache=False).last_hidden_state[:, :-1]
        targets = TOKENS[:, 1:].flatten()
        scores = scoring.target_scores(model, hidden.flatten(0, 1), targets)
        found = scoring.target_losses(model, hidden.flatten(0, 1), targets)
    expected = logits.log_softmax(-1).flatten(0, 1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(scores.log_probs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(-found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(scores.greedy, logits.flatten(0, 1).argmax(-1) == targets)
    assert "forward" not in vars(model.get_decoder())  # nothing of the model is left changed


def test_no_more_logits_than_asked_for_are_made_at_once(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 7 * 258)
    model, seen = tiny("llama"), []
    model.lm_head.register_forward_hook(lambda _, __, out: seen.append(out.numel() // 258))
    sums, counts = losses(model, list(TOKENS), batch_size=3)
    assert max(seen) == 7 and sum(seen) == sum(counts) == 3 * 20
    with torch.inference_mode():
        log_probs = model(TOKENS).logits[:, :-1].log_softmax(-1)
    expected = -log_probs.gather(2, TOKENS[:, 1:, None]).sum(dim=(1, 2))
    assert sums == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_model_that_runs_only_as_a_whole_is_measured_all_the_same(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    expected, _ = losses(model, list(TOKENS), batch_size=2)
    monkeypatch.setattr(type(model), "base_model_prefix", "absent")
    assert not scoring.has_own_decoder(model)
    assert losses(model, list(TOKENS), batch_size=2)[0] == pytest.approx(expected, rel=1e-5)


def test_prompts_are_continued_as_each_would_be_alone(tiny: Any, tokenizer: Any) -> None:
    model = tiny("llama", max_position_embeddings=64)
    prompts = ["A", "A longer prompt", "x y"]
    found = continue_prompts(model, tokenizer, prompts, 12)
    assert found["status"] == "ok" and found["tokens"] == 12
    assert [text["prompt"] for text in found["texts"]] == prompts
    for text in found["texts"]:
        ids = torch.tensor([tokenizer(text["prompt"]).input_ids])
        alone = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=1)
        new = alone[0, ids.shape[1] :].tolist()
        assert text["ended"] == (1 in new)
        assert text["text"] == tokenizer.decode(new[: new.index(1)] if 1 in new else new)
    with pytest.raises(Unsupported, match="exceed the model's 64 positions; set texts.tokens"):
        continue_prompts(model, tokenizer, prompts, 60)


def test_a_continuation_that_repeats_itself_is_marked(tiny: Any, tokenizer: Any) -> None:
    model = tiny("llama")
    letter = tokenizer("z", add_special_tokens=False).input_ids[0]
    model.lm_head.register_forward_hook(
        lambda _, __, out: torch.zeros_like(out).index_fill_(-1, torch.tensor([letter]), 1.0)
    )
    (text,) = continue_prompts(model, tokenizer, ["A"], 16)["texts"]
    assert (text["text"], text["repeating"], text["ended"]) == ("z" * 16, True, False)
