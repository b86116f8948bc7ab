"""How far a run is and how long it will still take, from how long its jobs took so far."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

TAIL = 4096
COUNT = re.compile(r"(?:step |(?:perplexity|requests):[^\r\n]*?\| *)(\d+)/(\d+)")
"""What tuning, perplexity and lm-eval write on their way; loading and saving have bars, too."""


@dataclass(frozen=True)
class Running:
    """A job that runs, since when (seconds), on how many cores; its log says how far it is."""

    rule: str
    wildcards: dict[str, str]
    outputs: tuple[Path, ...]
    since: float
    cores: float = 1.0
    log: Path | None = None

    @property
    def done(self) -> float | None:
        """Share that is done of what it is at, 0 to 1; None where its log does not say."""
        return None if self.log is None else how_far(self.log)


def how_far(log: Path) -> float | None:
    """The last count in a job's log as a share, 0 to 1; None where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            found = COUNT.findall(file.read().decode("utf-8", "replace"))
    except OSError:
        return None
    if not found or not int(found[-1][1]):
        return None
    return min(1.0, int(found[-1][0]) / int(found[-1][1]))


@dataclass
class Pace:
    """Jobs planned and done, by rule.

    cores    of the run; a job takes its share of them
    planned  rule -> number of jobs of this run
    """

    cores: int
    planned: dict[str, int] = field(default_factory=dict)
    running: dict[int, Running] = field(default_factory=dict)
    spent: dict[str, list[float]] = field(default_factory=dict)  # core-seconds of ended jobs

    @property
    def total(self) -> int:
        """Jobs of this run."""
        return sum(self.planned.values())

    @property
    def ended(self) -> int:
        """Jobs that ended, well or not."""
        return sum(map(len, self.spent.values()))

    def start(self, job: int, running: Running) -> None:
        """A job has begun."""
        self.running[job] = running

    def end(self, job: int, now: float) -> Running | None:
        """A job has ended; returns what it was, None if it was never seen to begin."""
        if (running := self.running.pop(job, None)) is None:
            return None
        spent = (now - running.since) * min(running.cores, self.cores)
        self.spent.setdefault(running.rule, []).append(spent)
        return running

    def left_s(self, now: float) -> float | None:
        """Seconds that are left, as if every job took what others of its rule took; None at first.

        A rule of which no job has ended is taken to cost what the mean job does.
        """
        if not self.ended:
            return None
        overall = sum(map(sum, self.spent.values())) / self.ended
        left = 0.0
        for rule, planned in self.planned.items():
            past = self.spent.get(rule, [])
            mean = sum(past) / len(past) if past else overall
            left += mean * max(0, planned - len(past))
            for job in list(self.running.values()):  # the panel reads while jobs begin and end
                if job.rule == rule:
                    left -= min(mean, (now - job.since) * min(job.cores, self.cores))
        return max(0.0, left) / self.cores
