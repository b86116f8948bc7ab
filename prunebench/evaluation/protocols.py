"""Perplexity protocols: how a figure is measured, as data. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from prunebench.untyped import JsonMap


@dataclass(frozen=True)
class Protocol:
    """How a perplexity is measured; the key travels with every number.

    mode    "windows": rows joined by two newlines, tokenised once, cut into
            windows of `length`, tail dropped, every window predicts length - 1 tokens
            "documents": every row by itself, cut at `length`
    limit   first windows or documents only; None for all
    bos     where the tokenizer's BOS token stands. "text": where the tokenizer puts it, once before
            the joined text (the papers' protocol for LLaMA) or before each document; "window":
            before every window or document, in place of its last token; "none": nowhere; "auto":
            "window" for families that were trained with it in front of everything, else "text"
    """

    name: str
    corpus: str
    split: str
    length: int
    mode: str = "windows"
    limit: int | None = None
    bos: str = "auto"

    @property
    def key(self) -> str:
        """For example `ppl/llm-pruner:wikitext2-test@128`, with `+bos` or `-bos` if not by text."""
        end = {"window": "+bos", "none": "-bos"}.get(self.bos, "")
        return f"{self.name}:{self.corpus}-{self.split}@{self.length}{end}"

    def for_family(self, *, relies_on_bos: bool) -> Protocol:
        """The protocol as a model of a family is measured under it: `bos` is never "auto"."""
        return replace(self, bos=resolve_bos(self.bos, relies_on_bos=relies_on_bos))


def resolve_bos(bos: str, *, relies_on_bos: bool) -> str:
    """What "auto" stands for in a family: "window" where it relies on BOS, else "text"."""
    if bos != "auto":
        return bos
    return "window" if relies_on_bos else "text"


NAMED: Mapping[str, JsonMap] = {
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
