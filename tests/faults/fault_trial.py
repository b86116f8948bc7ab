"""One fault tried: do it, mend it as a user would, compare with the undisturbed run."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fault_campaign
from faults import Fault

CALLS = 4


@dataclass(frozen=True)
class Trial:
    """How a fault ended. `cure` as it was found; `ran` in all calls; `said`: the first reason."""

    fault: Fault
    cure: str
    ran: dict[str, int]
    said: str
    same: bool

    @property
    def held(self) -> bool:
        """Whether the end is that of an undisturbed run, by the cure that was promised."""
        expected = self.fault.ran is None or set(self.ran) == self.fault.ran
        cured = self.fault.cure in (self.cure, "any")
        return self.same and cured and expected


def undisturbed(place: Path, tokenizer: Any) -> dict[str, Any]:
    """Run the campaign in a folder; its numbers."""
    place.mkdir(parents=True)
    os.chdir(place)
    fault_campaign.prepare(place, tokenizer)
    done = fault_campaign.call()
    assert done.failed == [] and done.ran["evaluate"] == 4
    assert fault_campaign.planned() == {}
    return fault_campaign.numbers()


def attempt(fault: Fault, base: Path, place: Path, numbers: dict[str, Any]) -> Trial:
    """Try a fault on a copy of the undisturbed run."""
    shutil.copytree(base, place, dirs_exist_ok=True)
    os.chdir(place)
    fault.do()
    cure, said, ran = "nothing", "", dict[str, int]()
    if fault_campaign.planned():
        cure = "call"
    else:
        said = next(iter(_failed()), "")
    for _ in range(CALLS):
        done = fault_campaign.call()
        for rule, count in done.ran.items():
            ran[rule] = ran.get(rule, 0) + count
        if not done.failed:
            break
        said = said or done.failed[0]
        cure = "retry"
        assert fault_campaign.retry(), "a failed campaign of which nothing can be cleared"
    same = not _failed() and fault_campaign.numbers() == numbers
    stuck = fault_campaign.planned() != {}
    return Trial(fault, cure, ran, said, same and not stuck)


def _failed() -> list[str]:
    from prunebench.errors import Invalid
    from prunebench.results.tables import failures

    try:
        return failures(Path("results/toy"))
    except Invalid as error:
        return [str(error)]
