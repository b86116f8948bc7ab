"""`prunebench status`: cells done, lost and to come, and what is at work, from files alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from prunebench.cli import main

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "m", "kind": "random", "shape": "llama-7b", "overrides": {}}],
    "methods": [{"name": "random"}, {"name": "magnitude"}],
    "sparsities": [0.5],
    "seeds": [0, 1],
    "data": {"source": "demo"},
    "perplexity": [{"name": "ppl/t", "corpora": [{"corpus": "newswire"}], "length": 128}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "toy"
    (root / "cells" / "m" / "random" / "0.5").mkdir(parents=True)
    campaign = yaml.safe_dump(CAMPAIGN)
    (root / "campaign.yaml").write_text(campaign, encoding="utf-8")
    return root


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_status_counts_cells_and_tells_how_far_jobs_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = folder / "cells" / "m"
    assert main(["status", str(folder)]) == 0
    assert capsys.readouterr().out == (
        "toy: 4 cells: 0 ok, 0 failed, 0 skipped, 4 open; not known whether it is running\n"
    )
    write(cells / "dense/0/seed0/evaluate.json", json.dumps({"status": "ok"}))
    lost = {"status": "failed", "reason": "out of memory"}
    write(cells / "random/0.5/seed0/evaluate.json", json.dumps(lost))
    # One cell is pruned and is now evaluated; of another one nothing was heard for long.
    write(cells / "random/0.5/seed1/prune.json", json.dumps({"status": "ok"}))
    write(cells / "random/0.5/seed1/prune.log", "step 1/2 loss 1.0")
    write(cells / "random/0.5/seed1/evaluate.log", "perplexity:  75%|##| 3/4 [00:01<00:01]")
    silent = write(cells / "magnitude/0.5/seed0/prune.log", "")
    past = time.time() - 3600
    os.utime(silent, (past, past))
    write(folder / ".running", "{}")
    assert main(["status", str(folder)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "toy: 4 cells: 1 ok, 1 failed, 0 skipped, 2 open; not running"
    assert [line.partition(", last heard of")[0] for line in lines] == [
        "  ✗ m  random 50 % seed 0  failed while evaluating: out of memory",
        "  evaluating m  random 50 % seed 1  75 %",
    ]


def test_status_of_no_campaign_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", str(tmp_path)]) == 1
    assert "expected results of a campaign" in capsys.readouterr().err
