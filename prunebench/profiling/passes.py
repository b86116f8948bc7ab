"""Tokens that pass through a model, counted where they pass, whoever calls it and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor
from transformers import PreTrainedModel

from prunebench.untyped import Module, Passed

See = Callable[..., None]


@contextmanager
def counted(model: PreTrainedModel, layers: Sequence[str], see: See) -> Iterator[None]:
    """Tell `see` of every token that passes the decoder layers inside the block.

    layers  paths of the model's decoder layers
    see     takes tokens as `forward` or `backward`, such as `Cost.see`

    A pass through one of L layers counts 1 / L, so that a method that runs the model layer by layer
    is counted as fairly as one that calls it whole. Padding does not count where the model is
    called with a mask [batch, length]. Backward passes are counted where a gradient arrives at a
    layer's output. Works through hooks; copies of the model made inside the block count, too.
    """
    real = {"share": 1.0}  # of the positions of the pass that is going on

    def begin(_: Module, __: Passed, kwargs: Passed) -> None:
        mask = kwargs.get("attention_mask")
        plain = isinstance(mask, Tensor) and mask.dim() == 2
        real["share"] = mask.float().mean().item() if plain else 1.0

    def end(*_: Passed) -> None:
        real["share"] = 1.0

    def passed(_: Module, args: Passed, kwargs: Passed, output: Passed) -> None:
        entered: Tensor = args[0] if args else kwargs["hidden_states"]  # [batch, length, hidden]
        tokens = entered.shape[:-1].numel() * real["share"] / len(layers)
        see(forward=tokens)
        left: Tensor = output[0] if isinstance(output, tuple) else output
        if left.requires_grad:
            left.register_hook(lambda _: see(backward=tokens))

    decoder: Module = model.get_decoder()  # not base_model: OPT runs its decoder past that
    handles = [
        decoder.register_forward_pre_hook(begin, with_kwargs=True),
        decoder.register_forward_hook(end, always_call=True),
    ]
    for path in layers:
        layer = model.get_submodule(path)
        handles.append(layer.register_forward_hook(passed, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
