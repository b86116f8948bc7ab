"""Helpers of the saliency tests: tokens, all sides of a model, gradients the plain way."""

from __future__ import annotations

import torch
from torch import nn

from prunebench.pruning.architectures import structures_of
from prunebench.pruning.saliency import channel_saliency, sides_of

DATA = ("vectorize", "param_first", "param_second", "param_mix")


def tokens_for(samples=4, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(258, (samples, length), generator=generator)


def all_sides(model):
    return sides_of(structures_of(model).values())


def saliency(model, measures=DATA, tokens=None, **options):
    tokens = tokens_for() if tokens is None else tokens
    return channel_saliency(model, all_sides(model), measures, tokens=tokens, **options)


def gradients(model, tokens, scale=1.0):
    """Gradients of the mean loss, the plain way."""
    model.zero_grad()
    logits = model(tokens).logits[:, :-1].flatten(0, 1)
    loss = scale * nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return found
