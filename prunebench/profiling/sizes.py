"""How large a model is: parameters by place, bytes of its weights, bytes of its folder."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from math import gcd
from pathlib import Path

import torch
from torch import Tensor, nn

from prunebench.modules import module_of
from prunebench.units import MIB
from prunebench.untyped import Json

NO_FOLDER = "the model was measured without its folder"


def size(model: nn.Module, path: Path | str | None = None) -> Json:
    """Count a model; no value is read, so a model on the meta device is counted too.

    A tied weight is one parameter and counts once. `decoder_parameters` are those of the decoder
    blocks, `embedding_parameters` those of the input and the output embedding; norms and position
    tables outside the blocks are in `parameters` only. `weight_bytes` leaves buffers out.
    `aligned_to` divides every width of the decoder blocks' matrices: kernels like powers of two.

    Args:
        path: the folder in which the model lies; without it `disk_*` are None.
    """
    parameters = list(model.parameters())  # PyTorch lists a shared parameter once
    bytes_of: Counter[torch.dtype] = Counter()
    for parameter in parameters:
        bytes_of[parameter.dtype] += tensor_bytes(parameter)
    weight_bytes = sum(bytes_of.values())
    disk_bytes = None if path is None else folder_bytes(Path(path))
    return {
        "parameters": sum(p.numel() for p in parameters),
        "decoder_parameters": sum(p.numel() for p in decoder_blocks(model).parameters()),
        "embedding_parameters": sum(p.numel() for p in _embeddings(model)),
        "aligned_to": _alignment(model),
        "dtype": str(bytes_of.most_common(1)[0][0]).removeprefix("torch."),
        "weight_bytes": weight_bytes,
        "weights_mib": weight_bytes / MIB,
        "disk_bytes": disk_bytes,
        "disk_mib": None if disk_bytes is None else disk_bytes / MIB,
        "missing": {} if path is not None else dict.fromkeys(("disk_bytes", "disk_mib"), NO_FOLDER),
    }


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks: of all module lists the one with most parameters."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        return nn.ModuleList()
    # max() keeps the first of equals, and modules() yields an outer list before an inner one.
    return max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()))


def resident_bytes(model: nn.Module) -> int:
    """Bytes that the model itself keeps on its device: parameters and buffers."""
    return sum(tensor_bytes(tensor) for tensor in chain(model.parameters(), model.buffers()))


def decode_weight_bytes(model: nn.Module) -> int:
    """Bytes of weights that one decoding step reads: all but an untied input embedding's.

    Of an input embedding a step reads one row for each sequence, which is left out; a tied one is
    read whole as the output projection.
    """
    total = sum(tensor_bytes(parameter) for parameter in model.parameters())
    known = module_of(model)
    source, head = known.get_input_embeddings(), known.get_output_embeddings()
    if head is None or source is None or source.weight is head.weight:
        return total
    return total - tensor_bytes(source.weight)


def tensor_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's elements."""
    return tensor.numel() * tensor.element_size()


def folder_bytes(path: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _alignment(model: nn.Module) -> int:
    """Greatest common divisor of the widths of all matrices in the decoder blocks."""
    matrices = (p for p in decoder_blocks(model).parameters() if p.dim() == 2)
    return gcd(*chain.from_iterable(matrix.shape for matrix in matrices))


def _embeddings(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the input and the output embedding, each once."""
    known = module_of(model)
    modules = (known.get_input_embeddings(), known.get_output_embeddings())
    parameters = chain.from_iterable(m.parameters() for m in modules if m is not None)
    return list({id(parameter): parameter for parameter in parameters}.values())
