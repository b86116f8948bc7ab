"""Gemma, Gemma-2 and Gemma 3 (text): gains are 1 + w, the embedding is scaled by sqrt(hidden_size).

That factor shrinks with the width, by as much as all writers of the stream must shrink if eps is to
stay. So the other writers are scaled and the embedding is not, which leaves a tied head exact too.
"""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from prunebench.pruning.architectures import llama
from prunebench.pruning.structure import Norm, Structure

STACK = llama.STACK
POST_NORMS = {
    "gemma": (),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
"""Norms between a writer and the stream. They read what the scaled writer gives, whose mean square
is as it was; so their output shrinks by just as much as it should, and their gain stays."""


def structures(model: PreTrainedModel) -> dict[str, Structure]:
    """As in LLaMA, but for the correction of the norms when hidden channels leave."""
    return llama.assemble(model, llama.heads, llama.neurons, _exact)


def refresh(model: PreTrainedModel) -> bool:
    """As in LLaMA; the embedding's factor follows the width."""
    uniform = llama.refresh(model)
    embedding, factor = model.model.embed_tokens, model.config.hidden_size**0.5
    if hasattr(embedding, "embed_scale"):  # older versions read the config in every forward pass
        embedding.scalar_embed_scale = factor
        embedding.embed_scale.fill_(factor)
    return uniform


def _exact(model: PreTrainedModel, stream: Structure) -> Structure:
    post = POST_NORMS[model.config.model_type]
    norms = [Norm(n.module, offset=1.0) for n in stream.norms if not n.module.endswith(post)]
    return replace(stream, norms=tuple(norms), writers=stream.writers[1:])  # not the embedding
