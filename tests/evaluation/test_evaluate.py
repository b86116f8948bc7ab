"""Perplexity: the protocol's rules, and agreement with known values."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.perplexity import perplexity, windows
from prunebench.evaluation.protocols import Protocol

ROWS = [f"row {i} of the text, with some words" for i in range(40)]
WINDOWS = Protocol("ppl/test", "encyclopedia", "test", 32)


def test_uniform_logits_give_the_vocabulary_size(tokenizer):
    model = make_tiny()
    torch.nn.init.zeros_(model.lm_head.weight)
    figure = perplexity(model, tokenizer, ROWS, WINDOWS)
    assert figure["value"] == pytest.approx(258, rel=1e-6)
    assert figure["nll_stderr"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("mode", ["windows", "documents"])
def test_the_figure_does_not_depend_on_the_batch_size(tokenizer, mode):
    model, protocol = make_tiny(), Protocol("ppl/test", "encyclopedia", "test", 32, mode)
    rows = [row * (1 + i % 3) for i, row in enumerate(ROWS)]
    figures = [perplexity(model, tokenizer, rows, protocol, batch_size=b) for b in (1, 3, 64)]
    for figure in figures[1:]:
        assert figure["nll"] == pytest.approx(figures[0]["nll"], abs=1e-6)
        assert figure["tokens"] == figures[0]["tokens"]


def test_a_batch_that_memory_does_not_allow_is_halved_and_recorded(tokenizer, monkeypatch):
    model, whole = make_tiny(), perplexity(make_tiny(), tokenizer, ROWS, WINDOWS, batch_size=3)
    tried = []
    monkeypatch.setattr(model.model, "forward", limited(model.model.forward, tried))
    figure = perplexity(model, tokenizer, ROWS, WINDOWS, batch_size=12)
    assert tried[:3] == [12, 6, 3]
    assert figure["batch_size"] == 3
    assert figure["nll"] == whole["nll"]


def limited(forward, tried, most=3):
    """A forward function whose memory is enough for so many windows at once."""

    def run(ids, **options):
        tried.append(len(ids))
        if len(ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(ids, **options)

    return run


def test_one_window_that_memory_does_not_allow_is_an_error(tokenizer, monkeypatch):
    model = make_tiny()
    monkeypatch.setattr(model.model, "forward", limited(model.model.forward, [], most=0))
    with pytest.raises(torch.OutOfMemoryError):
        perplexity(model, tokenizer, ROWS, WINDOWS, batch_size=4)


def test_windows_are_cut_from_one_stream_and_the_tail_is_dropped(tokenizer):
    ids = tokenizer("\n\n".join(ROWS)).input_ids
    cut = windows(tokenizer, ROWS, 32)
    assert cut.shape == (len(ids) // 32, 32)
    assert cut.reshape(-1).tolist() == ids[: len(ids) // 32 * 32]
    assert (cut == tokenizer.bos_token_id).sum() == 1  # only where the stream begins
    figure = perplexity(make_tiny(), tokenizer, ROWS, WINDOWS)
    assert figure["tokens"] == len(ids) // 32 * 31


def test_against_a_plain_loop(tokenizer):
    model = make_tiny()
    figure = perplexity(model, tokenizer, ROWS, WINDOWS)
    losses = [model(w[None], labels=w[None]).loss.item() for w in windows(tokenizer, ROWS, 32)]
    assert figure["nll"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)
    assert figure["value"] == pytest.approx(math.exp(figure["nll"]))
    spread = torch.tensor(losses).std(unbiased=True).item() / len(losses) ** 0.5
    assert figure["nll_stderr"] == pytest.approx(spread, rel=1e-4)


def test_documents_begin_with_bos_and_are_cut(tokenizer):
    protocol = Protocol("ppl/test", "encyclopedia", "test", 10, "documents", limit=4)
    figure = perplexity(make_tiny(), tokenizer, ["short", *ROWS], protocol)
    assert figure["items"] == 4
    assert figure["tokens"] == 5 + 3 * 9


def test_limit_is_recorded(tokenizer):
    protocol = Protocol("ppl/test", "encyclopedia", "test", 32, limit=3)
    figure = perplexity(make_tiny(), tokenizer, ROWS, protocol)
    assert figure["limit"] == 3 and figure["tokens"] == 3 * 31


def test_too_little_text_is_refused(tokenizer):
    with pytest.raises(Invalid, match="fewer than 32 tokens"):
        perplexity(make_tiny(), tokenizer, ["a"], WINDOWS)


def test_more_tokens_than_positions_is_refused(tokenizer):
    protocol = Protocol("ppl/2048", "encyclopedia", "test", 300)
    with pytest.raises(Invalid, match="windows of 300 tokens, but the model has only 256"):
        perplexity(make_tiny(), tokenizer, ROWS * 9, protocol)


def test_a_loss_that_is_not_finite_is_a_failure(tokenizer):
    model = make_tiny()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(Failure, match="the mean loss is nan"):
        perplexity(model, tokenizer, ROWS, WINDOWS)


def test_stories260k_agrees_with_stock_transformers(shared_models, shared_data):
    """46,713 predictions, mean loss 1.4972: proof that loading and tokenising are right."""
    from prunebench.models import folders
    from prunebench.text.source import Source

    model, tokenizer = folders.load(shared_models / "stories260k")
    rows = Source("local", shared_data).rows("tinystories", "train")
    protocol = Protocol("ppl/stories", "tinystories", "train", 512, "documents", limit=120)
    figure = perplexity(model, tokenizer, rows, protocol)
    assert figure["tokens"] == 46_713
    assert figure["nll"] == pytest.approx(1.4972, abs=1e-4)
