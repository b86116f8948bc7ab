"""Tokenizers that know more tokens than the model's embedding has rows."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import make_tiny

from prunebench.errors import Invalid
from prunebench.evaluation.perplexity import perplexity
from prunebench.evaluation.protocols import Protocol
from prunebench.recovery import RecoverySettings, recover

RECORDS = [{"instruction": f"Say {i}.", "input": "", "output": "x" * (i + 1)} for i in range(12)]
SETTINGS = {"tokens": 1600, "batch": 2, "micro_batch": 2, "length": 250, "rank": 2, "dropout": 0.0}


def tuned(tokenizer, workdir, records=RECORDS):
    model = make_tiny()
    settings = RecoverySettings.from_config(SETTINGS)
    return recover(model, tokenizer, records, settings, workdir=workdir, seed=0, device="cpu")


@pytest.fixture
def padded(tokenizer):
    """The same tokenizer with a padding token of its own, whose id is the vocabulary's size."""
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"pad_token": "[PAD]"})
    assert other.pad_token_id == 258 == make_tiny().config.vocab_size
    return other


def test_a_padding_token_beyond_the_embedding_changes_nothing(tokenizer, padded, tmp_path):
    model, report = tuned(tokenizer, tmp_path / "a")
    other, its_report = tuned(padded, tmp_path / "b")
    assert report["loss"] == its_report["loss"]
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_no_padding_token_at_all_changes_nothing(tokenizer, tmp_path):
    without = copy.deepcopy(tokenizer)
    without.pad_token = None
    assert without.pad_token_id is None
    _, report = tuned(tokenizer, tmp_path / "a")
    assert tuned(without, tmp_path / "b")[1]["loss"] == report["loss"]


def test_a_token_in_the_text_that_has_no_row_is_named(padded, tmp_path):
    with pytest.raises(Invalid, match="tuning: the text holds a token with id 258.* only 258 rows"):
        tuned(padded, tmp_path, [{**RECORDS[0], "output": "a [PAD] b"}] * 12)
    protocol = Protocol("ppl/t", "encyclopedia", "test", 8)
    with pytest.raises(Invalid, match="token with id 258"):
        perplexity(make_tiny(), padded, ["a text with [PAD] in it"], protocol)
    assert perplexity(make_tiny(), padded, ["a text without"], protocol)["items"] == 1


def test_sequences_longer_than_the_models_positions_are_refused(tokenizer, tmp_path):
    model = make_tiny(max_position_embeddings=16)
    settings = RecoverySettings.from_config(SETTINGS)
    with pytest.raises(Invalid, match="tuning: sequences of .* model has only 16 positions"):
        recover(model, tokenizer, RECORDS, settings, workdir=tmp_path, seed=0, device="cpu")
