"""Shared n-grams: what counts as contaminated, what is too short to tell, and that chunks agree."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunebench.text import leak as module
from prunebench.text.leak import leak

WORDS = [f"w{i}" for i in range(60)]
TEXT = " ".join(WORDS)


def share(training: list[str], items: list[str], n: int = 13) -> dict:
    return leak(training, {"set": items}, n=n)["sets"]["set"]


def test_thirteen_words_in_common_are_a_leak_and_twelve_are_not() -> None:
    item = " ".join(["x"] * 20 + WORDS[5:18] + ["y"] * 20)
    almost = " ".join(["x"] * 20 + WORDS[5:17] + ["y"] * 20)
    assert share([TEXT], [item])["contaminated"] == 1
    assert share([TEXT], [almost])["contaminated"] == 0
    assert share([TEXT], [item, almost])["share"] == 0.5


def test_short_items_are_counted_apart_and_not_in_the_share() -> None:
    found = share([TEXT], [" ".join(WORDS[:12]), TEXT, "", " ".join(["z"] * 13)])
    assert (found["items"], found["checked"], found["short"]) == (4, 2, 2)
    assert (found["contaminated"], found["share"], found["reason"]) == (1, 0.5, None)


def test_without_a_checked_item_the_share_is_missing_with_a_reason() -> None:
    short, nothing = share([TEXT], ["a b"]), share([TEXT], [])
    assert (short["share"], short["reason"]) == (None, "no item is long enough to have an n-gram")
    assert (nothing["share"], nothing["reason"]) == (None, "no items")
    assert share([], [TEXT])["share"] == 0.0


def test_case_punctuation_and_width_do_not_hide_a_leak() -> None:
    changed = TEXT.upper().replace(" ", " @-@ ", 5).replace(" ", ", ").replace("W1", "Ｗ1")
    assert share([changed], [TEXT])["share"] == 1.0
    swapped = " ".join([*WORDS[:8], "other", *WORDS[8:16]])
    assert share([TEXT], [swapped])["share"] == 0.0


def test_order_matters_and_ngrams_do_not_cross_texts() -> None:
    assert share([" ".join(reversed(WORDS))], [TEXT])["share"] == 0.0
    halves = [" ".join(WORDS[:7]), " ".join(WORDS[7:14])]
    assert share(halves, [" ".join(WORDS[:14])])["share"] == 0.0
    assert share([" ".join(halves)], [" ".join(WORDS[:14])])["share"] == 1.0


def test_sets_are_reported_apart_and_training_is_counted() -> None:
    found = leak([TEXT, "a b"], {"hit": [TEXT], "miss": [" ".join(["q"] * 20)]})
    assert found["training"] == {"texts": 2, "words": 62}
    assert [found["sets"][name]["share"] for name in ("hit", "miss")] == [1.0, 0.0]
    assert found["n"] == 13 and found["normalisation"]


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        leak([], {}, n=0)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=6),
    st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=6),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_it_agrees_with_sets_of_tuples_for_any_chunk_size(
    training: list, items: list, n: int, chunk: int
) -> None:
    def ngrams(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known = set(itertools.chain.from_iterable(map(ngrams, training)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_WORDS", chunk)
        patch.setattr(module, "KNOWN_WORDS", 2)
        found = share([" ".join(t) for t in training], [" ".join(t) for t in items], n)
    assert found["checked"] == sum(len(item) >= n for item in items)
    assert found["contaminated"] == sum(bool(ngrams(item) & known) for item in items)


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from prunebench.text.leak import _WordHasher; print(_WordHasher()('Één test'))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(module.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1 and len(runs.pop()) > 20


def test_wikitext_test_rows_in_its_own_text_and_in_other_text(shared_data: Path) -> None:
    rows = (shared_data / "wikitext2" / "test.txt").read_text(encoding="utf-8").splitlines()
    other = (shared_data / "ptb" / "train.txt").read_text(encoding="utf-8").splitlines()
    assert share(rows, rows)["share"] == 1.0
    assert share(other, rows)["share"] < 0.01
