"""A small form of benchmarks/faults.py: every fault is seen, and some of each kind are mended."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import fault_campaign
import fault_trial
import pytest
import real_faults
from conftest import REPOSITORY
from faults import Fault, faults

TRIED = (
    "killed: while pruning",
    "failed: recover.json: out of memory",
    "garbled: evaluate.json holds {}",
    "edited: sparsity.achieved in prune.json",
    "swapped: evaluate.json of the untuned row",
    "damaged: model.safetensors of a tuned model: a bit flipped",
    "lost: all models, and one cell is unfinished",
    "lost: result of a finished cell, and the tables",
    "record: of another campaign",
    "view: `prunebench report` on an unfinished campaign",
    "kept: campaign.yaml deleted",
    "moved: as git keeps it: without models, page and plots",
    "SIGKILL: before a pruning's result is there",
    "two at once: a second call while one runs is refused",
    "plugin: kills its process",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    """A finished campaign, and its numbers."""
    here = Path.cwd()
    base = tmp_path_factory.mktemp("faults") / "base"
    yield base, fault_trial.undisturbed(base, tokenizer)
    os.chdir(here)


def test_there_are_many_of_many_kinds() -> None:
    kinds = Counter(fault.kind for fault in every())
    assert len(kinds) >= 18 and kinds.total() >= 160
    assert len({fault.id for fault in every()}) == kinds.total()


def every() -> list[Fault]:
    """Those of a finished campaign and those that strike a process at work."""
    return [*faults(), *real_faults.faults()]


def test_the_table_of_the_document_has_no_lost_cell() -> None:
    text = (REPOSITORY / "docs" / "reliability.md").read_text()
    rows = re.findall(r"^\| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", text, re.M)[1:]
    assert len(rows) >= 40 and len({kind for kind, *_ in rows}) >= 8
    assert {f"{kind}: {name}" for kind, name, *_ in rows} <= {fault.id for fault in every()}
    assert {end for *_, end in rows} == {"same digits"}


@pytest.mark.parametrize("name", TRIED)
def test_the_end_is_that_of_an_undisturbed_run(name: str, undisturbed: Any, tmp_path: Path) -> None:
    base, numbers = undisturbed
    [fault] = [fault for fault in every() if fault.id == name]
    trial = fault_trial.attempt(fault, base, tmp_path / "campaign", numbers)
    assert trial.held
    assert not list(Path("results").glob("**/*.pt")) and not list(Path("results").glob("**/*.pth"))


@pytest.mark.timeout(900)
def test_the_plan_sees_each_fault(undisturbed: Any, tmp_path: Path) -> None:
    base, _ = undisturbed
    unseen = []
    for number, fault in enumerate(faults()):
        place = tmp_path / str(number)
        shutil.copytree(base, place)
        os.chdir(place)
        fault.do()
        if bool(fault_campaign.planned()) != _is_planned(fault):
            unseen.append(fault.id)
        shutil.rmtree(place)
    assert unseen == []


def _is_planned(fault: Fault) -> bool:
    """Whether the same call has something to do; a failed job waits for `retry`, its tables not."""
    return fault.cure != "nothing"
