"""The committed runs: records that can be read, and tables that this code makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prunebench.cli import main
from prunebench.results.tables import report_text

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


# One with a profile and many seeds, one of two devices with failures, one with logs.
@pytest.mark.parametrize("name", ["demo", "smollm2-gpu", "pat-long"])
def test_a_copy_under_another_name_gives_the_same_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = next(run for run in RUNS if run.name == name)
    copy, elsewhere = tmp_path / "handed on" / "renamed", tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr("prunebench.leaderboard.views.plots.plot_files", lambda fronts: iter(()))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    records = {path: path.read_bytes() for path in copy.rglob("record.json")}
    failed = any(json.loads(content)["status"] == "failed" for content in records.values())
    assert main(["leaderboard", str(copy)]) == 0
    assert {path: path.read_bytes() for path in copy.rglob("record.json")} == records
    for name in TABLES:
        assert (copy / name).read_bytes() == (run / name).read_bytes(), name
    assert main(["report", str(copy)]) == main(["failures", str(copy)]) == int(failed)
    capsys.readouterr()
    assert main(["compare", str(copy), str(run)]) == 0
    assert "0 of them beyond error" in capsys.readouterr().out
    assert main(["show", str(next(iter(records)).parent)]) == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert list(elsewhere.iterdir()) == []
