"""The three ways in which a job can end without a number, and how each is reported."""

from __future__ import annotations


class PrunebenchError(Exception):
    """Base class: its message is shown to the user as it is, without a traceback."""


class Invalid(PrunebenchError):
    """The user's input is wrong: the message names file, key, what was expected and what came."""


class Unsupported(PrunebenchError):
    """This cell cannot be computed here by design; it becomes a `skipped` row with this reason."""


class Failure(PrunebenchError):
    """The work was tried and failed; the cell becomes a `failed` row with this reason."""
