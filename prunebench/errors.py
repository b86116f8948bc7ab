"""The three ways in which a job can end without a number, and how each is reported."""

from __future__ import annotations

from prunebench.units import MIB
from prunebench.untyped import Plain


class PrunebenchError(Exception):
    """Base class: its message is shown to the user as it is, without a traceback."""


class Invalid(PrunebenchError):
    """The user's input is wrong: the message names file, key, what was expected and what came."""


class Unsupported(PrunebenchError):
    """This cell cannot be computed here by design; it becomes a `skipped` row with this reason."""


class Failure(PrunebenchError):
    """The work was tried and failed; the cell becomes a `failed` row with this reason."""


def describe_error(error: BaseException) -> str:
    """One line for the table: an out of memory by that name, with the peak that was reached.

    Any other error is its type and message; the suite's own ones are their message.
    """
    import torch

    text = " ".join(str(error).split())
    if isinstance(error, PrunebenchError):
        return text
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(w in text for w in FULL):
        peak = torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_available() else None
        reached = f" (peak {peak:.0f} MiB)" if peak else ""
        return f"out of memory{reached}: {text[:200]}"
    return f"{type(error).__name__}: {text[:500]}"


FULL = ("can't allocate memory", "not enough memory", "out of memory")
"""Out-of-memory messages that arrive as plain RuntimeErrors."""


def unknown(where: str, got: str, known: Plain) -> str:
    """Message on an unknown name."""
    return f"{where}: unknown name {got!r}; known: {', '.join(known)}"
