"""Calibration samples: distinct windows of a text, placed by a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunebench.errors import Invalid

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHARACTERS = 16
"""Characters of text set aside for one token: enough for any tokenizer on any usual text."""
LONG = 4_000_000
"""Characters of a text that takes too long to be tokenised whole in every job."""


def calibration_tokens(
    rows: Sequence[str], tokenizer: Any, *, samples: int, length: int, seed: int
) -> Tensor:
    """Draw [samples, length] token ids: distinct windows of the joined text, placed by the seed.

    Windows never overlap. Of a long text only the parts that were drawn are tokenised, which takes
    milliseconds instead of the time for all of it; a short text is tokenised whole. Raises Invalid
    when it has fewer than samples x length tokens.
    """
    import torch

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
    stream = torch.tensor(tokenizer(text, verbose=False).input_ids)
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
