"""Text that a model writes: what a reader sees of damage, and a fixed set of prompts continued."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunebench.errors import Unsupported
from prunebench.untyped import Json, Module

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

N_GRAM = 4
"""Tokens in a row that are looked for again: seq-rep-4 of Welleck et al., arXiv:1908.04319."""


@dataclass(frozen=True)
class Written:
    """A text that a model wrote.

    text    up to the stop string, where there is one
    tokens  ids of the text
    ended   whether a stop string or the end of text was reached within the limit
    """

    text: str
    tokens: Sequence[int]
    ended: bool

    @property
    def empty(self) -> bool:
        """Whether there is no visible character."""
        return not self.text.strip()

    @property
    def repeating(self) -> bool:
        """Whether more than half of its sequences of four tokens stand in it before."""
        grams = Counter(zip(*(self.tokens[i:] for i in range(N_GRAM)), strict=False))
        return 2 * len(grams) < grams.total()


def continue_prompts(
    model: Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], tokens: int
) -> Json:
    """Continue prompts greedily by at most `tokens` tokens; the `texts` part of a record.

    Raises Unsupported where the model's positions leave no room for a prompt and its continuation.
    """
    import torch

    eos = tokenizer.eos_token_id
    rows = [tokenizer(prompt).input_ids for prompt in prompts]
    longest = max(map(len, rows))
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest + tokens > positions:
        raise Unsupported(
            f"{longest} tokens of a prompt and {tokens} new ones exceed the model's {positions} "
            "positions; set texts.tokens or texts.prompts"
        )
    # Padding stands on the left, so that all rows go on at once.
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    device = next(model.parameters()).device
    output = model.generate(
        ids.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=0 if eos is None else eos,
    )
    found = []
    for prompt, row in zip(prompts, output[:, longest:].tolist(), strict=True):
        ended = eos in row
        own = row[: row.index(eos)] if ended else row
        written = Written(str(tokenizer.decode(own)), own, ended)
        found.append(
            {
                "prompt": prompt,
                "text": written.text,
                "ended": written.ended,
                "repeating": written.repeating,
            }
        )
    return {"status": "ok", "tokens": tokens, "texts": found}
