"""What the family files are put together from: structures, from names of modules and indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.modules import stack_at, weight_at
from prunebench.pruning.structure import Coupling, Gate, Norm, Structure
from prunebench.pruning.tying import head_is_tied


def block(
    model: nn.Module,
    kind: str,
    layer: int,
    prefix: str,
    *,
    reads: Mapping[str, Tensor],
    writes: str,
    index: Tensor,
    numbers: str | None = None,
    norms: Mapping[str, Tensor] | None = None,
) -> Structure:
    """The heads or neurons of one layer.

    prefix   path of the attention or MLP; all other names are below it
    reads    Linears that read the residual stream -> index [units, width] of their output features
    writes   the Linear that writes into the stream, and `index` [units, width] of its inputs
    numbers  see `Structure`
    norms    RMSNorms over all of a projection -> index [units, width] of their features
    """
    couplings = [c for name, i in reads.items() for c in rows(model, f"{prefix}.{name}", i)]
    couplings.append(Coupling(f"{prefix}.{writes}.weight", 1, index))
    gates = [Gate(f"{prefix}.{writes}", "input", unit_of(index))]
    for name, i in (norms or {}).items():
        couplings.append(Coupling(f"{prefix}.{name}.weight", 0, i))
        gates.append(Gate(f"{prefix}.{name}", "statistics", unit_of(i)))
    return Structure(
        name=f"layers.{layer}.{kind}",
        kind=kind,
        layer=layer,
        units=len(index),
        couplings=tuple(couplings),
        gates=tuple(gates),
        numbers=f"{prefix}.{numbers}" if numbers else None,
    )


def neurons(
    model: nn.Module, layer: int, prefix: str, *, reads: Sequence[str], writes: str
) -> Structure:
    """Neurons of an MLP that is not fused: a row of each of `reads`, a column of `writes`."""
    units = weight_at(model, f"{prefix}.{writes}").shape[1]
    index = consecutive(units, units)
    rows_of = dict.fromkeys(reads, index)
    return block(model, "neurons", layer, prefix, reads=rows_of, writes=writes, index=index)


def hidden(
    model: PreTrainedModel,
    blocks: Iterable[Structure],
    *,
    embedding: str,
    norms: Sequence[str],
    head: str = "lm_head",
) -> Structure:
    """The residual stream of an RMSNorm model: its writers are gated, its readers lose columns.

    What reads and writes follows from the heads and neurons. All writers are to be scaled
    (`Structure.writers`, the embedding first); a family that corrects eps instead clears them.
    """
    width = weight_at(model, embedding).shape[1]
    index = torch.arange(width).view(-1, 1)  # [width, 1]
    blocks = tuple(blocks)
    writers = [c for s in blocks for name in _writers(s) for c in rows(model, name, index)]
    writers.insert(0, Coupling(f"{embedding}.weight", 1, index))
    readers = [Coupling(name, 1, index) for s in blocks for name in readers_of(model, s)]
    if not head_is_tied(model):
        readers.append(Coupling(f"{head}.weight", 1, index))
    gains = [Coupling(f"{name}.weight", 0, index) for name in norms]
    modules = [embedding, *(name for structure in blocks for name in _writers(structure))]
    return Structure(
        name="hidden",
        kind="hidden",
        layer=None,
        units=width,
        couplings=(*writers, *readers, *gains),
        gates=tuple(Gate(module, "output", unit_of(index)) for module in modules),
        norms=tuple(Norm(name) for name in norms),
        writers=tuple(c.parameter for c in writers),
    )


def layers(model: nn.Module, blocks: Iterable[Structure], stack: str) -> Structure:
    """Whole decoder layers: one whose writers are gated off passes its input on unchanged.

    stack   path of the list of layers
    """
    gates = []
    for structure in blocks:
        layer = structure.layer
        assert layer is not None  # a block lies in one
        for writer in _writers(structure):
            features = weight_at(model, writer).shape[0]
            gates.append(Gate(writer, "output", torch.full((features,), layer)))
    modules = tuple(f"{stack}.{i}" for i in range(len(stack_at(model, stack))))
    return Structure("layers", "layers", None, len(modules), (), tuple(gates), modules)


def by_name(structures: Iterable[Structure]) -> dict[str, Structure]:
    """Structures under their names, in their order."""
    return {structure.name: structure for structure in structures}


def rows(model: nn.Module, name: str, index: Tensor) -> list[Coupling]:
    """Output features of a Linear: rows of its weight, and its bias if it has one."""
    couplings = [Coupling(f"{name}.weight", 0, index)]
    if model.get_submodule(name).bias is not None:
        couplings.append(Coupling(f"{name}.bias", 0, index))
    return couplings


def consecutive(features: int, units: int) -> Tensor:
    """Index [units, features / units] of units that lie one after another."""
    return torch.arange(features).view(units, -1)


def stacked(*parts: Tensor) -> Tensor:
    """Index [units, sum of widths] of a fused Linear: each part [units, width] lies below the last.

    A part covers its own features 0..n-1.
    """
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.numel())
    return torch.cat([part + start for part, start in zip(parts, starts, strict=False)], dim=1)


def unit_of(index: Tensor) -> Tensor:
    """Invert an index [units, width] that covers 0..features-1: the unit of each feature."""
    units, width = index.shape
    inverse = torch.empty(units * width, dtype=torch.long)
    inverse[index.reshape(-1)] = torch.arange(units).repeat_interleave(width)
    return inverse


def readers_of(model: nn.Module, structure: Structure) -> list[str]:
    """Weights of heads or neurons that read the residual stream."""
    rows = [c.parameter for c in structure.couplings if c.dim == 0]
    return [name for name in rows if model.get_parameter(name).dim() == 2]


def _writers(structure: Structure) -> list[str]:
    """Modules of heads or neurons that write into the residual stream."""
    written = [c.parameter for c in structure.couplings if c.dim == 1]
    return [name.rpartition(".")[0] for name in written]
