"""What is asked of every model family, in this repository or outside it.

`FamilyCase` is one tiny model and what is true of its family; each check takes one and raises
`Failure` in a sentence that names the entry which is wrong.

    check_kinds          every layer lists what the case says
    check_masked         the sliced model is the masked one, and that says something
    check_gates          factors of 1 change nothing, and every factor is felt
    check_entries        no coupling, gate, norm or list of modules can be left out or turned round
"""

from __future__ import annotations

from prunebench.pruning.conformance.case import LLAMA_SIZES, FamilyCase
from prunebench.pruning.conformance.checks import check_kinds, check_masked
from prunebench.pruning.conformance.decisions import evenly, unevenly
from prunebench.pruning.conformance.entries import check_entries
from prunebench.pruning.conformance.felt import check_gates

__all__ = [
    "LLAMA_SIZES",
    "FamilyCase",
    "check_entries",
    "check_gates",
    "check_kinds",
    "check_masked",
    "evenly",
    "unevenly",
]
