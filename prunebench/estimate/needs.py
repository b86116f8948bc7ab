"""What a cluster is asked for on behalf of each job: memory and time, from the plan's estimates.

The scheduler ends a job that takes more than it asked for, and Snakemake submits it once more with
twice as much, as often as its profile says. The last of these tries has limits of its own, a little
below the cluster's: what ends there ends as a record with its reason.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from prunebench.campaign.config import Campaign
from prunebench.estimate.machine import Machine, cpu, gpu
from prunebench.estimate.stages import Assumptions
from prunebench.estimate.table import MARGIN, PlanRow, plan_rows

VARIABLE = "PRUNEBENCH_NEEDS"
"""Environment variable by which a submitted job knows what the run that submitted it asked for."""
HOST_MIB = 4096
"""Of the host, for a process with a GPU beside the weights that pass through it."""
SNAKEMAKE_MIB = 1000
"""Of Snakemake's own processes around a job, which a cluster counts with it (three, 250 each)."""
SLACK = 2.0
"""Time that is asked for / estimated: a plan knows neither the node nor the method."""
START_MIN = 10
"""For imports from a shared file system; the last half of it is left to write down the reason."""
UNKNOWN_MIN = 240
"""Where there is no estimate."""


@dataclass(frozen=True)
class Needs:
    """What jobs ask for, by `<rule>/<model>/<label>`.

    mem_mib   of the job itself; jobs that are not in it: `otherwise_mib`
    minutes   of the job with its start; jobs that are not in it: UNKNOWN_MIN
    tries     how often a job is submitted at most
    own_s     the campaign's own time limit
    """

    mem_mib: Mapping[str, int]
    minutes: Mapping[str, int]
    otherwise_mib: int
    tries: int = 1
    own_s: int | None = None

    def memory(self, job: str, attempt: int) -> int:
        """MiB that the cluster is asked for: twice as much for the job with each attempt."""
        return SNAKEMAKE_MIB + self._own_mib(job, attempt)

    def runtime(self, job: str, attempt: int) -> int:
        """Minutes that it is asked for. A campaign's own limit is met before, at any attempt."""
        if self.own_s is not None:
            return math.ceil(self.own_s / 60) + START_MIN
        return int(self.minutes.get(job, UNKNOWN_MIN) * 2 ** (attempt - 1))

    def memory_limit(self, job: str, attempt: int) -> int:
        """MiB at which the job ends itself; 0: it does not, the cluster does and it comes again."""
        return self._own_mib(job, attempt) if attempt >= self.tries else 0

    def time_limit(self, job: str, attempt: int) -> int:
        """Seconds after which it ends itself; 0 as above."""
        if self.own_s is not None:
            return self.own_s
        last = attempt >= self.tries
        return 60 * self.runtime(job, attempt) - 30 * START_MIN if last else 0

    def _own_mib(self, job: str, attempt: int) -> int:
        return int(self.mem_mib.get(job, self.otherwise_mib) * 2 ** (attempt - 1))

    def announce(self) -> None:
        """Let the jobs that this process submits know, too."""
        os.environ[VARIABLE] = json.dumps(vars(self))


def announced() -> Needs | None:
    """What the run that submitted this process asked for; None where none did."""
    told = os.environ.get(VARIABLE)
    return None if told is None else Needs(**json.loads(told))


def needs(campaign: Campaign, *, device: str, tries: int = 1) -> Needs:
    """What a campaign's jobs ask for; never less memory than the campaign says.

    device  "cuda" or "cpu", whose speed is that of the machine at hand
    tries   how often a job is submitted at most
    """
    machine = cpu(campaign.resources.threads) if device == "cpu" else gpu()
    least = campaign.resources.mem_mb
    memory: dict[str, int] = {}
    minutes: dict[str, float] = {}
    for row in plan_rows(campaign, Assumptions(machine)):
        for job, minute in row.minutes.items():
            name = f"{job}/{row.model}/{_label(campaign, job, row)}"
            memory[name] = max(memory.get(name, least), _mib(row, job, machine))
            # A profile is one job for all rows of a model.
            minutes[name] = minute + (minutes.get(name, 0.0) if job == "profile" else 0.0)
    asked = {name: math.ceil(SLACK * minute) + START_MIN for name, minute in minutes.items()}
    return Needs(memory, asked, least, tries, campaign.resources.timeout_s)


def _label(campaign: Campaign, job: str, row: PlanRow) -> str:
    """Rows that differ only in recovery share a pruning job, all rows of a model its profile."""
    return {"prune": campaign.rows[row.label].pruned_as, "profile": ""}.get(job, row.label)


def _mib(row: PlanRow, job: str, machine: Machine) -> int:
    """Host memory of a job."""
    if machine.is_cpu:
        return math.ceil(1024 * MARGIN * row.memory_gib[job])
    return math.ceil(1024 * MARGIN * row.weight_gib) + HOST_MIB
