"""OLMo 2: LLaMA-shaped, but attention and MLP read the residual stream as it is, and what they
write is normalised; queries and keys are normalised over all heads together.

So a head that leaves changes the mean square by which the others are divided. Here the mean is over
the heads that are left, masked or sliced (`Gate.side` statistics): gain and eps stay, and so does
the scale of the other heads. A mean that went on counting the absent heads as zeros would be exact
too, but would double all attention logits where half of the heads leave.

When channels of the stream leave, all that is written shrinks as in families with one eps for
several norms (`llama.exact`), and what reads without a norm grows by as much. What a norm behind a
writer gives shrinks by itself: it reads what was scaled, and its gain and eps stay.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from prunebench.modules import stack_at
from prunebench.pruning.architectures import llama, parts
from prunebench.pruning.structure import Structure

STACK = llama.STACK
refresh = llama.refresh


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """As in LLaMA, but for the norms of queries and keys, and of what is written."""
    return llama.assemble(model, _heads, llama.neurons, _exact)


def _heads(model: PreTrainedModel, i: int) -> Structure:
    """Unit: one KV head with the query heads that read it, and their parts of the norms' gains."""
    attention = stack_at(model, STACK)[i].self_attn
    query, key = llama.head_indices(attention)
    return parts.block(
        model,
        "heads",
        i,
        f"{STACK}.{i}.self_attn",
        reads={"q_proj": query, "k_proj": key, "v_proj": key},
        writes="o_proj",
        index=query,
        norms={"q_norm": query, "k_norm": key},
    )


def _exact(model: PreTrainedModel, stream: Structure) -> Structure:
    """Scale writers one way and readers the other; of the norms only the last one is corrected."""
    scaled = llama.exact(model, stream)
    head = "lm_head.weight"
    readers = [c.parameter for c in stream.couplings if c.parameter not in (*scaled.writers, head)]
    matrices = tuple(name for name in readers if model.get_parameter(name).dim() == 2)
    return replace(scaled, norms=scaled.norms[-1:], readers=matrices)
