"""Whether training or calibration text contains evaluation items: shared n-grams, hashed."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from prunebench.untyped import Json

NORMALISATION = "NFKC, lower case, runs of letters and digits"
WORD = re.compile(r"[^\W_]+")
CHUNK_WORDS = 1 << 18  # words hashed at a time: bounds the memory that training text takes
KNOWN_WORDS = 1 << 20  # words whose hash is remembered
# An odd multiplier, so that every word of an n-gram and its place matter to the hash.
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def leak(
    training_texts: Iterable[str],
    evaluation_texts: Mapping[str, Iterable[str]],
    *,
    n: int = 13,
) -> Json:
    """Share of evaluation items that have an n-gram of words in common with the training text.

    An item is one row or document of an evaluation set. Text is normalised first (so case,
    punctuation and `@-@` do not matter), and n-grams never cross from one text into the next. An
    item of fewer than n words has no n-gram: it is `short`, not checked, and not in the share. 13
    words are what GPT-3's contamination study used (arXiv:2005.14165, appendix C). Both sides may
    be generators: memory holds the n-gram hashes of the evaluation text, and of the training text
    only a chunk at a time.

    Returns `{"n", "normalisation", "training": {"texts", "words"}, "sets": {name: {"items",
    "checked", "short", "contaminated", "share", "reason"}}}`; a share without a checked item is
    None with a reason. Raises ValueError when n is below 1.
    """
    if n < 1:
        raise ValueError(f"n-gram length: expected at least 1, got {n}")
    hasher = _WordHasher()
    sets = {name: _Items.of(texts, n, hasher) for name, texts in evaluation_texts.items()}
    wanted = np.unique(np.concatenate([items.hashes for items in sets.values()] or [_NO_HASHES]))
    found = np.zeros(len(wanted), dtype=bool)
    texts = words = 0
    for chunk in _chunks(training_texts, hasher):
        texts, words = texts + chunk.texts, words + len(chunk.words)
        if len(wanted):
            hashes, _ = chunk.ngrams(n)
            place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            found[place[wanted[place] == hashes]] = True
    shared = wanted[found]
    return {
        "n": n,
        "normalisation": NORMALISATION,
        "training": {"texts": texts, "words": words},
        "sets": {name: items.report(shared) for name, items in sets.items()},
    }


_NO_HASHES = np.zeros(0, dtype=np.uint64)


class _WordHasher:
    """Normalised words of a text as 64-bit hashes that are the same in every process."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str) -> list[int]:
        normal = unicodedata.normalize("NFKC", text).lower()
        known, hashes = self.known, []
        for word in WORD.findall(normal):
            value = known.get(word)
            if value is None:
                if len(known) >= KNOWN_WORDS:
                    known.clear()
                packed = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
                value = known[word] = int.from_bytes(packed.digest(), "little")
            hashes.append(value)
        return hashes


class _Chunk:
    """Several texts: their words' hashes in a row, and the text that each word belongs to."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.texts = len(rows)
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        joined = [value for row in rows for value in row]
        self.words = np.array(joined, dtype=np.uint64)  # [words]
        self.owner = np.repeat(np.arange(len(rows)), lengths)  # [words]

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all n-grams within a text, and the text of each: two arrays [n-grams]."""
        count = max(len(self.words) - n + 1, 0)
        hashes = np.zeros(count, dtype=np.uint64)
        for offset in range(n):  # Horner's rule, modulo 2^64
            hashes = hashes * MULTIPLIER + self.words[offset : offset + count]
        inside = self.owner[:count] == self.owner[n - 1 : n - 1 + count]
        return hashes[inside], self.owner[:count][inside]


class _Items:
    """N-gram hashes of an evaluation set, with the item that each belongs to."""

    def __init__(self, hashes: np.ndarray, owner: np.ndarray, items: int) -> None:
        self.hashes, self.owner, self.items = hashes, owner, items

    @classmethod
    def of(cls, texts: Iterable[str], n: int, hasher: _WordHasher) -> _Items:
        hashes, owners, items = [_NO_HASHES], [np.zeros(0, dtype=np.int64)], 0
        for chunk in _chunks(texts, hasher):
            values, owner = chunk.ngrams(n)
            hashes.append(values)
            owners.append(owner + items)
            items += chunk.texts
        return cls(np.concatenate(hashes), np.concatenate(owners), items)

    def report(self, shared: np.ndarray) -> Json:
        checked = len(np.unique(self.owner))
        contaminated = len(np.unique(self.owner[np.isin(self.hashes, shared)]))
        nothing = "no item is long enough to have an n-gram" if self.items else "no items"
        return {
            "items": self.items,
            "checked": checked,
            "short": self.items - checked,
            "contaminated": contaminated,
            "share": contaminated / checked if checked else None,
            "reason": None if checked else nothing,
        }


def _chunks(texts: Iterable[str], hasher: _WordHasher) -> Iterator[_Chunk]:
    rows: list[list[int]] = []
    words = 0
    for text in texts:
        rows.append(hasher(text))
        words += len(rows[-1])
        if words >= CHUNK_WORDS:
            yield _Chunk(rows)
            rows, words = [], 0
    if rows:
        yield _Chunk(rows)
