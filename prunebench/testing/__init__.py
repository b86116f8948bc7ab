"""What is asked of every method and of every model family, for whoever writes one.

check_method(folder) -> Report     every check on tiny models; `prunebench check-method FOLDER`
method_tests(__file__)             the same as a test of pytest, one case for each check
check_family(folder)               the same of a model family; `prunebench check-family FOLDER`
family_tests(__file__)             and as a test of pytest, one case for each of the family's
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunebench.testing.family import check_family, family_tests
    from prunebench.testing.method import check_method, method_tests
    from prunebench.testing.report import Report

__all__ = ["Report", "check_family", "check_method", "family_tests", "method_tests"]
PLACES = {
    "Report": "prunebench.testing.report",
    "check_family": "prunebench.testing.family",
    "family_tests": "prunebench.testing.family",
    "check_method": "prunebench.testing.method",
    "method_tests": "prunebench.testing.method",
}


def __getattr__(name: str) -> object:
    if name not in PLACES:
        raise AttributeError(f"module 'prunebench.testing' has no attribute {name!r}")
    return getattr(import_module(PLACES[name]), name)
