"""Kernels that repeat bit for bit; where a device lacks one, the job says which.

A GPU adds in whatever order its threads finish, unless torch is asked for other kernels. Asked to
warn only, attention's backward pass stays as it is; asked strictly, it repeats, and an operation
without such a kernel raises. A job that meets one runs again, warned only, and its record notes it.
"""

from __future__ import annotations

import logging
import os
import random
import re
from collections.abc import Callable

from prunebench.untyped import Foreign, Json

logger = logging.getLogger(__name__)

MISSING = re.compile(r"(\S+) does not have a deterministic implementation")
NOTE = "nondeterministic"
"""Key of a job's result: the operation that had no deterministic kernel."""

_warn_only = False


def ask(seed: int, device: str) -> None:
    """Seed the global generators of torch, numpy and Python; ask for deterministic kernels.

    On a GPU strictly.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=_warn_only or device == "cpu")
    memory: Foreign = torch.utils.deterministic  # its module sets the attribute by hand
    memory.fill_uninitialized_memory = False  # costs time, decides nothing


def repeatably(work: Callable[[], Json]) -> Json:
    """What `work` returns; done again with warnings only where a kernel is missing, and noted."""
    global _warn_only
    try:
        return work()
    except RuntimeError as error:
        operation = without_kernel(error)
        if operation is None or _warn_only:
            raise
        logger.warning("%s has no deterministic kernel here: the job runs again without", operation)
    _warn_only = True
    try:
        return {**work(), NOTE: operation}
    finally:
        _warn_only = False


def without_kernel(error: Exception) -> str | None:
    """The operation that torch refused for want of a deterministic kernel; None: another error."""
    found = MISSING.search(str(error)) if isinstance(error, RuntimeError) else None
    return found.group(1) if found else None
