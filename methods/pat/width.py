"""How many channels of the residual stream stay: near the target, aligned, and loadable."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunebench import Invalid, Unsupported
from prunebench.pruning.budget import Budget
from prunebench.pruning.selection import TOLERANCE
from prunebench.untyped import Foreign

ALIGNMENTS = (64, 32, 16, 8, 4, 2, 1)
"""What hardware likes, best first."""


@dataclass(frozen=True)
class Width:
    """The chosen width, what it is a multiple of, and the share of parameters that leaves."""

    kept: int
    multiple: int
    achieved: float


def choose_width(
    budget: Budget,
    config: Foreign,
    sparsity: float,
    *,
    width: int | None = None,
    multiple_of: int | None = None,
) -> Width:
    """The width at which `sparsity` of all parameters leaves, rounded.

    Tried in turn: multiples of both the number of heads and 64, of heads and 8, then of 64, 32, ...
    alone; the first that is within half a point of the target counts, else the nearest multiple of
    the number of heads. `multiple_of` replaces all these, `width` the whole search.
    Raises Invalid when transformers refuses the width that was asked for, Unsupported when no
    width is left.
    """
    units = budget.structures["hidden"].units
    if width is not None:
        return _given(budget, config, width)
    heads = config.num_attention_heads
    multiples = [math.lcm(64, heads), math.lcm(8, heads), *ALIGNMENTS]
    fallbacks = [heads, 1]
    if multiple_of is not None:
        multiples, fallbacks = [], [multiple_of]
    for multiple in multiples:
        found = _nearest(budget, config, sparsity, multiple)
        if found and abs(found.achieved - sparsity) <= TOLERANCE:
            return found
    for multiple in fallbacks:
        found = _nearest(budget, config, sparsity, multiple)
        if found:
            return found
    raise Unsupported(
        f"pat: no hidden width below {units} is a multiple of {fallbacks[0]} and loadable as "
        f"{config.model_type}: lower multiple_of"
    )


def refusal(config: Foreign, width: int) -> str | None:
    """Why a stock checkpoint of this family cannot have the width, or None if it can."""
    # The export writes such a Llama as the same computation under Mistral's name.
    if config.model_type == "llama" and not (config.attention_bias or config.mlp_bias):
        return None
    try:
        type(config)(**{**config.to_dict(), "hidden_size": width})
    except Exception as error:  # the check's own type differs between releases
        return " ".join(str(error).split())
    return None


def _given(budget: Budget, config: Foreign, width: int) -> Width:
    units = budget.structures["hidden"].units
    if not 0 < width < units:
        raise Invalid(f"pat: width: expected 1..{units - 1}, got {width}")
    reason = refusal(config, width)
    if reason is not None:
        heads = config.num_attention_heads
        below = width // heads * heads
        near = [w for w in (below, below + heads) if 0 < w < units]
        raise Invalid(
            f"pat: width: {config.model_type} cannot take {width}: {reason}; "
            f"take {' or '.join(map(str, near)) or 'another'}"
        )
    return Width(width, 1, _achieved(budget, width))


def _nearest(budget: Budget, config: Foreign, sparsity: float, multiple: int) -> Width | None:
    """The loadable multiple whose share of parameters is nearest to the target."""
    units = budget.structures["hidden"].units
    one = budget.total - budget.left({"hidden": 1})  # what leaves with one channel
    ideal = units - sparsity * budget.total / one
    for width in sorted(range(multiple, units, multiple), key=lambda w: abs(w - ideal)):
        if refusal(config, width) is None:
            return Width(width, multiple, _achieved(budget, width))
    return None


def _achieved(budget: Budget, width: int) -> float:
    removed = budget.structures["hidden"].units - width
    return 1.0 - budget.left({"hidden": removed}) / budget.total
