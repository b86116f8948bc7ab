"""slicegpt: the stream is rotated to its principal directions, and the least ones leave."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure, Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.budget import Budget
from prunebench.pruning.protection import require
from prunebench.pruning.selection import select
from prunebench.pruning.structure import Norm
from prunebench.pruning.tying import head_is_tied
from prunebench.untyped import Passed


@torch.no_grad()
def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Fold the norms' gains, rotate everything that touches the stream, keep the first channels."""
    require(ctx.structures, ("hidden",))
    tokens = ctx.calibration()
    norms = ctx.structures["hidden"].norms
    readers = _readers(model, norms, tokens[:1])
    if head_is_tied(model):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.clone(), head.weight.requires_grad)
    for norm in norms:
        _fold(model, norm, readers[norm.module])
    structures = structures_of(model)
    moment = _moment(model, norms, tokens)
    damped = moment + 0.01 * moment.diagonal().mean() * torch.eye(len(moment)).to(moment)
    values, rotation = torch.linalg.eigh(damped)  # ascending
    values, rotation = values.flip(0), rotation.flip(1)
    rotate(model, structures["hidden"], rotation)
    budget = Budget(model, structures, of=ctx.budget.of)
    budget.total = ctx.budget.total  # of the model as it came, whose head may have been tied
    multiple = ctx.params["multiple_of"]
    decision = select(budget, {"hidden": values}, ctx.sparsity, multiple_of={"hidden": multiple})
    ctx.note("variance_kept", float(values[: _kept(decision, len(values))].sum() / values.sum()))
    return decision


def rotate(model: PreTrainedModel, hidden: Structure, rotation: Tensor) -> None:
    """Readers and embeddings W <- W Q, writers W <- Q^T W; gains of norms are 1 by now."""
    gains = {f"{norm.module}.weight" for norm in hidden.norms}
    for coupling in hidden.couplings:
        if coupling.parameter in gains:
            continue
        weight = model.get_parameter(coupling.parameter)
        wide = weight.double()
        turned = rotation.T @ wide if coupling.dim == 0 else wide @ rotation
        weight.copy_(turned.to(weight.dtype))


def _readers(model: PreTrainedModel, norms: Sequence[Norm], tokens: Tensor) -> dict[str, list[str]]:
    """The Linears that read what each norm gives. Raises Unsupported for a norm without any."""
    given: dict[int, str] = {}
    outputs = []  # kept, so that no other tensor gets the same identity
    readers: dict[str, list[str]] = {norm.module: [] for norm in norms}

    def gives(name: str, output: Tensor) -> None:
        given[id(output)] = name
        outputs.append(output)

    def reads(name: str, entering: Tensor) -> None:
        if id(entering) in given:
            readers[given[id(entering)]].append(name)

    with ExitStack() as hooks:
        for path, module in model.named_modules():
            if path in readers:
                hook = module.register_forward_hook(lambda _, a, o, p=path: gives(p, o))
            elif isinstance(module, nn.Linear):
                hook = module.register_forward_pre_hook(lambda _, a, p=path: reads(p, a[0]))
            else:
                continue
            hooks.callback(hook.remove)
        model(tokens.to(next(model.parameters()).device), use_cache=False)
    head = model.get_output_embeddings()
    for path, module in model.named_modules():  # it may read a slice, which is another tensor
        if module is head and path not in readers[norms[-1].module]:
            readers[norms[-1].module].append(path)
    if bare := [name for name, found in readers.items() if not found]:
        raise Unsupported(
            f"{bare[0]} feeds no Linear: its gain cannot be folded, so the stream cannot be rotated"
        )
    return readers


def _fold(model: PreTrainedModel, norm: Norm, readers: Sequence[str]) -> None:
    """Move a norm's gain into the Linears that read it."""
    weight = model.get_parameter(f"{norm.module}.weight")
    for name in readers:
        reader = model.get_parameter(f"{name}.weight")
        reader.copy_((reader.double() * (weight.double() + norm.offset)).to(reader.dtype))
    weight.fill_(1.0 - norm.offset)


def _moment(model: PreTrainedModel, norms: Sequence[Norm], tokens: Tensor) -> Tensor:
    """Sum over tokens and norms of x x^T, of what the norms give: [hidden, hidden], fp64."""
    sums: dict[str, Tensor] = {}

    def add(_: nn.Module, args: Passed, output: Tensor) -> None:
        rows = output.flatten(0, -2).double()
        sums["all"] = sums.get("all", 0.0) + rows.T @ rows

    with ExitStack() as hooks:
        for norm in norms:
            hooks.callback(model.get_submodule(norm.module).register_forward_hook(add).remove)
        for part in tokens.split(8):
            model.base_model(input_ids=part.to(next(model.parameters()).device), use_cache=False)
    return sums["all"]


def _kept(decision: Decision, units: int) -> int:
    return len(decision.keep.get("hidden", range(units)))
