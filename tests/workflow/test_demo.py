"""The README's table is what a reader's own `make demo` prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from prunebench import leaderboard
from prunebench.leaderboard.report import Report
from prunebench.leaderboard.views.compare import MARK, compare
from prunebench.results.tables import read_campaign, read_cells

REFERENCE = REPOSITORY / "results" / "reference" / "demo"
SAME = 1e-4
"""Of the dense model's perplexity, relative: it is the same model on every machine."""


def report(folder: Path) -> Report:
    return leaderboard.analyse(*read_cells(read_campaign(folder)), folder, title="demo")


def perplexities(folder: Path) -> dict[str, float]:
    record = json.loads((folder / "cells/demo-llama/dense/0/seed0/record.json").read_text())
    return {key: column["value"] for key, column in record["perplexity"].items()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_fresh_demo_agrees_with_the_reference(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(tmp_path), "--cores", "2"]
    command += ["--configfile", str(REPOSITORY / "config" / "demo.yaml")]
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    fresh = tmp_path / "results" / "demo"
    assert perplexities(fresh) == pytest.approx(perplexities(REFERENCE), rel=SAME)
    table, alone = compare(report(REFERENCE), report(fresh))
    quality = [
        row for row in table.rows if row[3].text.rstrip(" ↓↑").endswith(("/128", "Zero-shot"))
    ]
    assert len(quality) == 30 and not alone
    assert [row for row in quality if row[-1].text == MARK] == []


def test_the_readme_shows_the_reference() -> None:
    tables = (REFERENCE / "leaderboard.md").read_text(encoding="utf-8")
    quality = tables.split("### Quality\n")[1].split("\n\n")[1]
    assert quality.startswith("|   Sparsity | Method")
    assert quality in (REPOSITORY / "README.md").read_text(encoding="utf-8")
