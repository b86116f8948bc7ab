"""What a campaign will cost, from the shapes of its models alone: estimates, never measurements.

machine.py  what the jobs run on: a GPU of given speed, or the processor at hand
sizes.py    shapes -> the few numbers that the formulas need
stages.py   memory and arithmetic of pruning, tuning, evaluation and profile: the formulas
table.py    a campaign -> rows
text.py     rows -> text with totals
needs.py    rows -> what a cluster is asked for, job by job
docs/paper-reproduction.md states the formulas and what they leave out.
"""

from __future__ import annotations

from prunebench.estimate.machine import Machine, cpu, gpu
from prunebench.estimate.sizes import Sizes, sizes_of
from prunebench.estimate.stages import Assumptions
from prunebench.estimate.table import plan_rows
from prunebench.estimate.text import plan_text

__all__ = ["Assumptions", "Machine", "Sizes", "cpu", "gpu", "plan_rows", "plan_text", "sizes_of"]
