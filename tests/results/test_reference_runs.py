"""The committed runs: records that can be read, and tables that this code makes of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunebench.results.assemble import report_text

REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference"
RUNS = sorted(path.parent for path in REFERENCE.glob("*/campaign.yaml"))
TABLES = ("leaderboard.md", "failures.md", "paper_vs_measured.md")


def test_there_are_runs_and_the_readme_names_each() -> None:
    readme = (REFERENCE / "README.md").read_text(encoding="utf-8")
    headings = [line for line in readme.splitlines() if line.startswith("## ")]
    named = {name.strip() for line in headings for name in line.removeprefix("## ").split(",")}
    assert RUNS and {run.name for run in RUNS} <= named


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_its_tables_come_out_again(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / run.name
    shutil.copytree(run / "cells", folder / "cells")
    for name in ("campaign.yaml", "leak.json"):
        if (run / name).is_file():
            shutil.copy(run / name, folder)
    report_text(folder)
    for name in TABLES:
        made = (folder / name).read_text(encoding="utf-8")
        assert made == (run / name).read_text(encoding="utf-8"), name
