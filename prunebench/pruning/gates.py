"""Gates at work: hooks that put one factor per unit on what a model computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from prunebench.modules import module_at, module_of
from prunebench.pruning.structure import Gate
from prunebench.untyped import Foreign, Module, Passed


def attach(model: nn.Module, gate: Gate, factor: Tensor) -> list[RemovableHandle]:
    """Let `factor` [units] act at a gate until the returned hooks are removed.

    The factor is read anew at every forward pass, and gradients reach it.
    """
    return SIDES[gate.side](model, gate, lambda: factor[gate.unit_of.to(factor.device)])


def _input(model: nn.Module, gate: Gate, factors: Factors) -> list[RemovableHandle]:
    def scale(_: nn.Module, args: Passed) -> Foreign:
        return args[0] * factors().to(args[0]), *args[1:]

    return [model.get_submodule(gate.module).register_forward_pre_hook(scale)]


def _output(model: nn.Module, gate: Gate, factors: Factors) -> list[RemovableHandle]:
    def scale(_: nn.Module, __: Passed, output: Tensor) -> Tensor:
        return output * factors().to(output)

    return [model.get_submodule(gate.module).register_forward_hook(scale)]


def _statistics(model: nn.Module, gate: Gate, factors: Factors) -> list[RemovableHandle]:
    """x gain / rms(x) with the mean square weighed by squared factors, as if some were not there.

    At 0 and 1 that is the norm of the sliced projection, whose mean is over what is left; the scale
    of the others stays what the model was trained with.
    """

    def renormalise(module: nn.Module, args: Passed, output: Tensor) -> Tensor:
        squares = args[0].to(torch.promote_types(args[0].dtype, torch.float32)).square()
        weights = factors().to(squares).square()  # [features]
        whole = squares.mean(dim=-1, keepdim=True)
        left = (squares * weights).sum(dim=-1, keepdim=True) / weights.sum()
        eps: float = module_of(module).variance_epsilon
        corrected: Tensor = output * ((whole + eps) / (left + eps)).sqrt().to(output)
        return corrected

    return [model.get_submodule(gate.module).register_forward_hook(renormalise)]


def _routing(model: nn.Module, gate: Gate, factors: Factors) -> list[RemovableHandle]:
    """Choose experts again, with the logarithms of the factors added to the router's logits."""

    def choose(module: nn.Module, _: Passed, output: tuple[Tensor, Tensor, Tensor]) -> Foreign:
        logits, weights, _ = output
        present = factors().to(logits)  # [experts]
        smallest = torch.finfo(present.dtype).tiny  # no infinite gradient at 0
        added = torch.where(present > 0, present.clamp_min(smallest).log(), -torch.inf)
        return route(module, logits + added, weights.dtype)

    return [model.get_submodule(gate.module).register_forward_hook(choose)]


def route(router: Module, logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, weights of the chosen experts, and their numbers: [tokens, experts], 2 x [tokens, k].

    As the routers of Mixtral and Qwen3-MoE do it: the k largest shares of a softmax over all
    experts, made to add up to 1 unless the router's config says not to.
    """
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1)
    weights, chosen = shares.topk(router.top_k, dim=-1)
    if getattr(router, "norm_topk_prob", True):
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return logits, weights.to(dtype), chosen


def _columns(model: nn.Module, gate: Gate, factors: Factors) -> list[RemovableHandle]:
    """While the parameter's module runs, its attribute is the product, and then itself again."""
    path, _, leaf = gate.module.rpartition(".")

    def scale(module: nn.Module, _: Passed) -> None:
        own = module_of(module)._parameters.pop(leaf)
        setattr(module, leaf, own * factors().to(own))
        saved.append(own)

    def restore(module: nn.Module, _: Passed, __: Foreign) -> None:
        delattr(module, leaf)
        module.register_parameter(leaf, saved.pop())

    saved: list[nn.Parameter] = []
    owner = module_at(model, path)
    handles = [owner.register_forward_pre_hook(scale)]
    return [*handles, owner.register_forward_hook(restore, always_call=True)]


Factors = Callable[[], Tensor]
"""The factors now, one per feature: [features]."""

SIDES: dict[str, Callable[[nn.Module, Gate, Factors], list[RemovableHandle]]] = {
    "input": _input,
    "output": _output,
    "statistics": _statistics,
    "routing": _routing,
    "columns": _columns,
}
"""What a gate does, by its side."""
