"""prunebench: a reproducible benchmark of structured pruning of large language models.

What a method imports is here, and stays: `Context`, `Decision`, `Structure`, and the errors
`Unsupported`, `Failure` and `Invalid`. Names are looked up when they are used, so that importing
the package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from prunebench.errors import Failure, Invalid, Unsupported
    from prunebench.plugins.context import Context
    from prunebench.pruning.structure import Decision, Structure

__all__ = ["Context", "Decision", "Failure", "Invalid", "Structure", "Unsupported", "__version__"]
PLACES = {
    "Context": "prunebench.plugins.context",
    "Decision": "prunebench.pruning.structure",
    "Failure": "prunebench.errors",
    "Invalid": "prunebench.errors",
    "Structure": "prunebench.pruning.structure",
    "Unsupported": "prunebench.errors",
}


def __getattr__(name: str) -> object:
    if name not in PLACES:
        raise AttributeError(f"module 'prunebench' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PLACES])
