"""A method leaves a plain model, and the folder that is saved holds all of it.

What no file can hold (hooks, wrapped modules, a patched forward) would be lost between the job that
prunes and those that tune and measure; a changed type would be measured as the method's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prunebench.errors import Failure, Invalid
from prunebench.models import folders
from prunebench.pruning.surgery import count_parameters, logits, tolerance

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


@dataclass(frozen=True)
class Build:
    """How a model is put together.

    classes  path of every module -> its class
    hooks    path of every module -> how many hooks it has
    types    of all parameters
    """

    classes: Mapping[str, type]
    hooks: Mapping[str, int]
    types: frozenset[torch.dtype]

    @classmethod
    def of(cls, model: nn.Module) -> Build:
        """The build of `model` as it is now."""
        modules = dict(model.named_modules())
        return cls(
            classes={path: type(module) for path, module in modules.items()},
            hooks={path: _hooks(module) for path, module in modules.items()},
            types=frozenset(parameter.dtype for parameter in model.parameters()),
        )

    def check(self, model: nn.Module, method: str) -> None:
        """Raise Failure, with what to do, where `method` left more than weights in `model`."""
        now = Build.of(model)
        for path in [*self.classes, *now.classes]:
            was, found = self.classes.get(path), now.classes.get(path)
            if was is not found:
                raise Failure(
                    f"{method}: left {_name(found)} at {path or 'the top'} of the model where "
                    f"{_name(was)} was: a saved model cannot hold it; fold it into the weights "
                    "and put the module back before returning"
                )
            if now.hooks[path] > self.hooks[path]:
                raise Failure(
                    f"{method}: left a hook on {path or 'the model'} ({_name(found)}): a saved "
                    "model has none; remove it (handle.remove()) before returning"
                )
        if now.types != self.types:
            raise Failure(
                f"{method}: left weights in {_types(now)} that were in {_types(self)}: the row "
                "would be measured in another precision; convert them back before returning"
            )


@dataclass(frozen=True)
class Folder:
    """A saved model and how the next job loads it. dtype: torch's name of the type."""

    path: Path
    dtype: str
    device: str


def read_back(model: PreTrainedModel, saved: Folder, tokens: Tensor) -> float:
    """Load what was saved; returns the largest logit difference from `model`, which is EMPTIED.

    tokens  [batch, length]: few, since this is one reading of the files and two short passes. The
            weights in memory are given back first, so that the peak is that of one model.

    Raises Failure, with the reason, unless logits, number and type of the parameters agree.
    """
    expected, count, kind = logits(model, tokens), count_parameters(model), model.dtype
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)
    try:
        found, _ = folders.load(saved.path, dtype=saved.dtype, device=saved.device)
    except Invalid as error:
        raise Failure(f"the saved model cannot be read back: {error}") from None
    if (number := count_parameters(found)) != count:
        raise Failure(
            f"the model has {count:,} parameters in memory and {number:,} when read back: the "
            "method added or removed some that its class has no place for"
        )
    if found.dtype != kind:
        raise Failure(f"the model is {kind} in memory and {found.dtype} when read back")
    difference = (logits(found, tokens) - expected).abs().max().item()
    most = tolerance(found, expected)
    if not difference <= most:
        raise Failure(
            f"read back from its folder, the model's logits differ by {difference:.2e} from those "
            f"in memory (tolerance {most:.0e}): the method left something that no file holds, such "
            "as a patched forward, a changed buffer or an attribute"
        )
    return difference


def _hooks(module: nn.Module) -> int:
    return sum(len(getattr(module, kind)) for kind in HOOKS)


def _name(found: type | None) -> str:
    return "nothing" if found is None else found.__name__


def _types(build: Build) -> str:
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in build.types))
