"""The frozen weights in 8 or 4 bits while LoRA trains, and plain weights again at the end."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import nn

from prunebench import Unsupported
from prunebench.modules import module_at
from prunebench.untyped import Json

from .importance import adapter, plain_weight


def check_bits(bits: int, device: torch.device) -> None:
    """Raise Unsupported where the frozen weights cannot be held in so many bits."""
    if bits == 16:
        return
    if device.type != "cuda":
        raise Unsupported(f"loraprune: bits: {bits} needs a CUDA device, got {device.type}")
    if find_spec("bitsandbytes") is None:
        raise Unsupported(f"loraprune: bits: {bits} needs the package bitsandbytes, not installed")


def quantise(model: nn.Module, names: Sequence[str], bits: int) -> None:
    """Put the named Linears into `bits` bits, in place; nothing happens for 16.

    8 bits: rows of int8 with a scale each (LLM.int8, outlier threshold 6). 4 bits: NF4 blocks.
    """
    if bits == 16:
        return
    for name in names:
        _set(model, name, _quantised(module_at(model, name), bits))


@torch.no_grad()
def merge_quantised(model: nn.Module, names: Sequence[str], dtype: torch.dtype) -> None:
    """Replace the named LoRA layers by Linears of the de-quantised weight plus s B A.

    The sum is not quantised again, so that what was trained is what is evaluated.
    """
    for name in names:
        layer = module_at(model, name)
        a, b, scale = adapter(layer)
        weight = plain_weight(layer).float() + scale * (b.float() @ a.float())  # [out, in]
        bias = layer.base_layer.bias
        width, out = weight.T.shape
        linear = nn.Linear(width, out, bias=bias is not None, device="meta")
        linear.weight = nn.Parameter(weight.to(dtype))
        if bias is not None:
            linear.bias = nn.Parameter(bias.to(dtype))
        _set(model, name, linear)


def _quantised(linear: nn.Linear, bits: int) -> nn.Module:
    import bitsandbytes as bnb

    out, width = linear.weight.shape
    weight, device = linear.weight.data.cpu(), linear.weight.device
    keys: Json = {"bias": linear.bias is not None, "device": "meta"}
    # bitsandbytes quantises where the parameter, not its module, is moved to its device.
    if bits == 8:
        new: nn.Module = bnb.nn.Linear8bitLt(
            width, out, has_fp16_weights=False, threshold=6.0, **keys
        )
        frozen = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        dtype = linear.weight.dtype
        new = bnb.nn.Linear4bit(width, out, compute_dtype=dtype, quant_type="nf4", **keys)
        frozen = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    new.weight = frozen.to(device)
    if linear.bias is not None:
        new.bias = linear.bias
    return new


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, module)
