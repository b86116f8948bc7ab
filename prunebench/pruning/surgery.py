"""Surgery on models: gate units, slice them off for real, verify that both agree, count."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from prunebench.errors import Invalid
from prunebench.modules import module_at, stack_at
from prunebench.pruning.architectures import blocks_of, refresh, structures_of
from prunebench.pruning.gates import attach
from prunebench.pruning.structure import Decision, Structure
from prunebench.pruning.tying import head_is_tied, tie
from prunebench.untyped import Foreign, Json, Passed

DOUBLED_AT_MOST = 1_000_000_000
"""Parameters of a model that is verified in float64 where float32 is too coarse."""


@contextmanager
def gated(
    model: PreTrainedModel,
    factors: Mapping[str, Tensor],
    *,
    structures: Mapping[str, Structure] | None = None,
) -> Iterator[None]:
    """Multiply units by factors for as long as the context lasts.

    factors: structure name -> Tensor [units]; differentiable, read anew at every forward pass, so
    an in-place change takes effect at once. Works through hooks: the model itself is not changed.
    `structures` is needed when modules were wrapped since (by LoRA, for example).
    """
    known = structures if structures is not None else structures_of(model)
    handles: list[RemovableHandle] = []
    try:
        for name, factor in factors.items():
            if name not in known:
                raise Invalid(f"gated: unknown structure {name!r}")
            if factor.shape != (known[name].units,):
                expected, got = (known[name].units,), tuple(factor.shape)
                raise Invalid(f"gated: {name}: expected shape {expected}, got {got}")
            for gate in known[name].gates:
                handles += attach(model, gate, factor)
        yield
    finally:
        for handle in handles:
            handle.remove()


def masked(
    model: PreTrainedModel,
    decision: Decision,
    *,
    structures: Mapping[str, Structure] | None = None,
) -> AbstractContextManager[None]:
    """Context in which `model` behaves as if `decision` had been carried out."""
    known = structures if structures is not None else structures_of(model)
    decision.check(known)
    device = next(model.parameters()).device
    factors = {}
    for name, kept in decision.keep.items():
        factor = torch.zeros(known[name].units, device=device)
        factor[list(kept)] = 1.0
        factors[name] = factor
    return gated(model, factors, structures=known)


@torch.no_grad()
def slice_model(
    model: PreTrainedModel,
    decision: Decision,
    *,
    structures: Mapping[str, Structure] | None = None,
) -> bool:
    """Remove, in place, every unit that `decision` does not keep.

    When d of D hidden channels are kept, the mean inside RMSNorm changes. Exact again is
    gain * sqrt(D / d) with eps * D / d; or, where eps must stay, with all writers * sqrt(d / D),
    and readers without a norm of their own * sqrt(D / d).
    Returns True if the stock class can build the result from its config.
    Raises Invalid if the decision does not fit the model.
    """
    structures = structures if structures is not None else structures_of(model)
    decision.check(structures)
    tied = head_is_tied(model)
    for name, kept in decision.keep.items():
        structure = structures[name]
        if len(kept) == structure.units or structure.kind == "layers":
            continue
        units = torch.tensor(kept)
        for coupling in structure.couplings:
            positions = coupling.index[units].reshape(-1).sort().values  # [kept * width]
            _shrink(model, coupling.parameter, coupling.dim, positions)
        keep_members(model, structure, kept)
        _correct_norms(model, structure, len(kept))
        remember_numbers(model, structure, kept)
    if "layers" in decision.keep:
        _drop_layers(model, structures["layers"], decision.keep["layers"])
    if tied:
        tie(model)
    model.config.tie_word_embeddings = tied
    for module in model.modules():
        sync_features(module)
    return refresh(model)


def _shrink(model: nn.Module, name: str, dim: int, positions: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    old = getattr(module, leaf)
    kept = old.detach().index_select(dim, positions.to(old.device)).contiguous()
    setattr(module, leaf, nn.Parameter(kept, requires_grad=old.requires_grad))


def remember_numbers(model: nn.Module, structure: Structure, kept: Sequence[int]) -> None:
    """Where the function depends on it, note which of the original units are left."""
    if structure.numbers is None:
        return
    path, _, leaf = structure.numbers.rpartition(".")
    module = model.get_submodule(path)
    device = next(module.parameters()).device
    before = getattr(module, leaf, torch.arange(structure.units, device=device))
    module.register_buffer(leaf, before[list(kept)])


def keep_members(model: nn.Module, structure: Structure, kept: Sequence[int]) -> None:
    """Take the modules of units that are not kept out of their lists."""
    for members in structure.members:
        places = members.index[list(kept)].reshape(-1).sort().values.tolist()
        replace_list(model, members.path, [stack_at(model, members.path)[i] for i in places])


def spread_members(model: nn.Module, path: str, places: Sequence[int], total: int) -> None:
    """The opposite: the modules of a list at `places` of one of `total`, copies in between."""
    left = dict(zip(sorted(places), stack_at(model, path), strict=True))
    spare = next(iter(left.values()))
    full = [left[i] if i in left else copy.deepcopy(spare) for i in range(total)]
    replace_list(model, path, full)


def replace_list(model: nn.Module, path: str, modules: Sequence[nn.Module]) -> None:
    """Put other modules into the ModuleList at a path."""
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, nn.ModuleList(modules))


def _correct_norms(model: nn.Module, structure: Structure, kept: int) -> None:
    share = structure.units / kept
    for name in structure.writers:
        model.get_parameter(name).mul_(share**-0.5)
    for name in structure.readers:
        model.get_parameter(name).mul_(share**0.5)
    for norm in structure.norms:
        module = module_at(model, norm.module)
        factor = share ** (norm.power / 2)
        module.weight.copy_((module.weight + norm.offset) * factor - norm.offset)
        if not structure.writers:
            module.variance_epsilon *= share


def _drop_layers(model: PreTrainedModel, structure: Structure, kept: tuple[int, ...]) -> None:
    path = structure.modules[0].rpartition(".")[0]
    stack = stack_at(model, path)
    replace_list(model, path, [stack[i] for i in kept])
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[i] for i in kept]


def sync_features(module: nn.Module) -> None:
    """Let the feature counts that a module states agree with its weight."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


@dataclass(frozen=True)
class Verification:
    """Largest absolute logit differences, over fixed tokens, and whether surgery was exact.

    `arithmetic` is "float64" where float32's own rounding is larger than the tolerance.
    """

    max_abs_logit_difference: float
    masked_minus_dense: float
    tolerance: float
    passed: bool
    arithmetic: str

    def to_dict(self) -> Json:
        """Plain data for the record."""
        return asdict(self)


def cut(model: PreTrainedModel, decision: Decision, tokens: Tensor) -> tuple[Verification, bool]:
    """Carry out `decision` for real and compare with the masked model on `tokens` [batch, length].

    Returns the verification and whether the stock class can build the result. The tolerance is 1e-4
    in fp32 (5e-6 of the largest logit if above 20), 4 % of it in fp16 and bf16. A deep model that
    pruning has unsettled amplifies rounding: where an fp32 model misses the tolerance, the same two
    models are compared in float64.
    """
    dense = logits(model, tokens)
    with masked(model, decision):
        expected = logits(model, tokens)
        with in_double(model) as doubled:
            exact = logits(model, tokens) if doubled else expected
    stock = slice_model(model, decision)
    most, arithmetic = tolerance(model, dense), str(model.dtype).removeprefix("torch.")
    difference = (logits(model, tokens) - expected).abs().max().item()
    effect = (expected - dense).abs().max().item()
    if difference > most and doubled:
        arithmetic = "float64"
        with in_double(model):
            difference = (logits(model, tokens) - exact).abs().max().item()
    return Verification(difference, effect, most, difference <= most, arithmetic), stock


@contextmanager
def in_double(model: PreTrainedModel) -> Iterator[bool]:
    """The model in float64 while the context lasts, if it is in float32 (then True).

    Weights come back to the bit: every float32 is a float64. What a model computes in float32
    whatever its type (norms, softmax) is computed in float64, too. A model of more than a billion
    parameters is left as it is, for the memory that this takes.
    """
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.dtype == torch.float32]
    whole = all(parameter.dtype == torch.float32 for parameter in model.parameters())
    if not whole or count_parameters(model) > DOUBLED_AT_MOST:
        yield False
        return
    experts = getattr(model.config, "_experts_implementation", None)
    try:
        for tensor in tensors:
            tensor.data = tensor.data.double()
        model.config._experts_implementation = "eager"  # the grouped product has no float64
        with _Doubled():  # type: ignore[no-untyped-call]  # the base class has no types
            yield True
    finally:
        model.config._experts_implementation = experts
        for tensor in tensors:
            tensor.data = tensor.data.float()


class _Doubled(TorchDispatchMode):
    """Casts from float64 to float32 do nothing."""

    def __torch_dispatch__(
        self, func: Foreign, types: Passed, args: Foreign = (), kwargs: Foreign = None
    ) -> Foreign:
        given = dict(kwargs or {})
        if func is torch.ops.aten._to_copy.default and given.get("dtype") == torch.float32:
            if args[0].dtype == torch.float64:
                given["dtype"] = torch.float64
        return func(*args, **given)


def tolerance(model: PreTrainedModel, reference: Tensor) -> float:
    """Logit difference that rounding explains, for logits as large as `reference`: see `cut`."""
    largest = reference.abs().max().item()
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    return max(1e-4, 5e-6 * largest) if exact else 0.04 * largest


@torch.no_grad()
def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Logits [batch, length, vocabulary] in fp32 on the CPU, in evaluation mode."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    output: Tensor = model(tokens.to(device), use_cache=False).logits.float().cpu()
    model.train(was_training)
    return output


def count_parameters(model: nn.Module) -> int:
    """Number of parameters; shared ones are counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_decoder_parameters(model: PreTrainedModel) -> int:
    """Parameters of the decoder blocks alone: no embedding, no final norm, no output head."""
    return sum(count_parameters(model.get_submodule(name)) for name in blocks_of(model))
