"""Calibration samples: distinct windows of a text, placed by a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunebench.errors import Invalid

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHARACTERS = 16
"""Characters of text set aside for one token: enough for any tokenizer on any usual text."""
LONG = 4_000_000
"""Characters of a text that takes too long to be tokenised whole in every job."""


def calibration_tokens(
    rows: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int,
    length: int,
    seed: int,
    bos: str = "text",
) -> Tensor:
    """Draw [samples, length] token ids: distinct windows of the joined text, placed by the seed.

    Windows never overlap. Of a long text only the parts that were drawn are tokenised, which takes
    milliseconds instead of the time for all of it; a short text is tokenised whole.

    bos   "text": where the tokenizer puts it, once before the whole text, so that hardly a window
          begins with it; "window": every window is BOS and length - 1 tokens; "none": nowhere

    Raises Invalid when the text is too short, or BOS is wanted and the tokenizer has none.
    """
    import torch

    if bos == "window":
        if tokenizer.bos_token_id is None:
            raise Invalid("calibration: bos: window, but the tokenizer has no BOS token")
        plain = calibration_tokens(
            rows, tokenizer, samples=samples, length=length - 1, seed=seed, bos="none"
        )
        return torch.cat([torch.full((samples, 1), tokenizer.bos_token_id), plain], dim=1)

    text = "\n".join(row.strip() for row in rows if row.strip())
    generator = torch.Generator().manual_seed(seed)
    size = CHARACTERS * length
    if len(text) >= LONG and len(text) // size >= 2 * samples:
        parts = [
            text[start : start + size] for start in _starts(len(text), size, samples, generator)
        ]
        encoded = tokenizer(parts, add_special_tokens=False, verbose=False).input_ids
        # A part begins anywhere, so that its first token may be a piece of a word.
        windows = [ids[1 : 1 + length] for ids in encoded]
        if all(len(ids) == length for ids in windows):
            return torch.tensor(windows)
    encoded = tokenizer(text, add_special_tokens=bos == "text", verbose=False)
    stream = torch.tensor(encoded.input_ids)
    if len(stream) < samples * length:
        raise Invalid(
            f"calibration: {samples} samples of {length} tokens need {samples * length} tokens, "
            f"the text has {len(stream)}; ask for fewer or shorter samples, or give more text"
        )
    starts = torch.tensor(_starts(len(stream), length, samples, generator))  # [samples]
    return stream[starts[:, None] + torch.arange(length)]


def _starts(total: int, size: int, samples: int, generator: torch.Generator) -> list[int]:
    """Where `samples` of the slots of `size` begin that `total` holds, shifted at random."""
    import torch

    slots = total // size
    offset = int(torch.randint(total - slots * size + 1, (1,), generator=generator))
    chosen = torch.randperm(slots, generator=generator)[:samples]
    return (offset + chosen * size).tolist()
