"""Calibration samples: distinct windows of the text, by the seed, and an error for too little."""

from __future__ import annotations

import pytest
import torch

from prunebench.errors import Invalid
from prunebench.text import calibration
from prunebench.text.calibration import CHARACTERS, calibration_tokens


@pytest.mark.parametrize("sentences", [30, 3000], ids=["short text", "long text"])
def test_calibration_is_drawn_by_the_seed_without_overlap(tokenizer, sentences, monkeypatch):
    monkeypatch.setattr(calibration, "LONG", 20_000)
    rows = [f"sentence number {i} has words" for i in range(sentences)]
    options = {"samples": 8, "length": 40}
    first = calibration_tokens(rows, tokenizer, seed=0, **options)
    assert first.shape == (8, 40) and first.dtype == torch.long
    assert torch.equal(first, calibration_tokens(rows, tokenizer, seed=0, **options))
    assert not torch.equal(first, calibration_tokens(rows, tokenizer, seed=1, **options))
    assert len({tuple(window.tolist()) for window in first}) == 8
    stream = tokenizer("\n".join(rows)).input_ids
    text = ",".join(map(str, stream))
    assert all(",".join(map(str, window.tolist())) in text for window in first)


def test_too_little_calibration_text_says_how_much_there_is(tokenizer):
    with pytest.raises(Invalid, match=r"10 samples of 64 tokens need 640 tokens, the text has 6"):
        calibration_tokens(["short"], tokenizer, samples=10, length=64, seed=0)


def test_a_long_text_is_tokenised_in_part_and_a_short_one_whole(tokenizer, monkeypatch):
    monkeypatch.setattr(calibration, "LONG", 20_000)
    asked = []

    def counting(text, **options):
        asked.append(len(text) if isinstance(text, str) else sum(map(len, text)))
        return tokenizer(text, **options)

    for words in (400, 40_000):
        calibration_tokens(["word"] * words, counting, samples=4, length=20, seed=0)
    assert asked == [5 * 400 - 1, 4 * 20 * CHARACTERS]


def test_text_of_very_long_tokens_is_tokenised_whole(monkeypatch):
    monkeypatch.setattr(calibration, "LONG", 20_000)

    def coarse(text, **options):
        one_per_hundred = lambda part: list(range(len(part) // 100))  # noqa: E731
        ids = one_per_hundred(text) if isinstance(text, str) else [*map(one_per_hundred, text)]
        return type("Encoded", (), {"input_ids": ids})

    windows = calibration_tokens(["x" * 100_000], coarse, samples=3, length=50, seed=0)
    assert windows.shape == (3, 50) and (windows[:, 1:] - windows[:, :-1] == 1).all()
