"""Perplexity protocols: how a figure is measured, as data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """How a perplexity is measured; the key travels with every number.

    mode    "windows": rows joined by two newlines, tokenised once, cut into
            windows of `length`, tail dropped, every window predicts length - 1 tokens
            "documents": every row by itself, cut at `length`
    limit   first windows or documents only; None for all
    """

    name: str
    corpus: str
    split: str
    length: int
    mode: str = "windows"
    limit: int | None = None

    @property
    def key(self) -> str:
        """For example `ppl/llm-pruner:wikitext2-test@128`."""
        return f"{self.name}:{self.corpus}-{self.split}@{self.length}"


NAMED: Mapping[str, Mapping[str, Any]] = {
    "ppl/llm-pruner": {
        "name": "ppl/llm-pruner",
        "corpora": [{"corpus": "wikitext2"}, {"corpus": "ptb", "split": "validation"}],
        "length": 128,
    },
    "ppl/2048": {
        "name": "ppl/2048",
        "corpora": [{"corpus": "wikitext2"}, {"corpus": "ptb", "split": "validation"}],
        "length": 2048,
    },
}
"""Protocols of the papers: LLM-Pruner's (also the older LoRAPrune tables), and its long variant."""
