"""A campaign on a real Slurm of one node: whatever happens to a job, it ends as a record.

The jobs stand in for the suite's, and misbehave on their first try; Slurm, its plugin, the profile,
the rules and the tables are what a campaign has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster.slurm import cluster, missing
from conftest import REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "a", "kind": "demo"}],
    "data": {"source": "demo"},
    "methods": ["magnitude"],
    "sparsities": [0.3],
    "resources": {"mem_mb": 500},
}
CALL = """#!{python}
import sys
from prunebench.cli import main

sys.executable = {job!r}
sys.exit(main())
"""
JOB = """#!{python}
import json, os, pathlib, sys, time

_, _, kind, *arguments = sys.argv
out = pathlib.Path(arguments[arguments.index("--out") + 1])
job = kind.split(".")[-1] + "-" + out.parts[-4]
first = pathlib.Path({place!r}, job)
try:
    with first.open("x") as file:
        file.write(os.environ["SLURM_JOB_ID"])
    if job == "prune-dense":
        held = b"x" * (3000 << 20)
        time.sleep(600)
    if job in ("prune-magnitude", "evaluate-dense"):
        time.sleep(600)
    if job == "evaluate-magnitude":
        time.sleep(15)
except FileExistsError:
    pass
from prunebench.record import stages
lost = {{"status": "failed", "reason": "stands in", "spec": json.loads(
    arguments[arguments.index("--spec") + 1])}}
inputs = [pathlib.Path(name) for name in arguments[: arguments.index("--spec")]]
stages.write(out, {{**lost, "read": stages.rests_on(inputs)}})
"""
# Of the row that overstays: a minute, the least that Slurm knows; then what the profile gives.
RUNTIME = "prune:runtime=1 if wildcards.label == 'magnitude' and attempt == 1 else 60"


def start(place: Path, commands: Path) -> subprocess.Popen[str]:
    """Run the campaign on the cluster."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--workflow-profile", str(REPOSITORY / "profiles" / "slurm")]
    command += ["--directory", str(place), "--configfile", str(place / "campaign.yaml")]
    command += ["--resources", "mem_mb=100000", "--slurm-no-account"]  # and no GPU
    command += ["--slurm-status-command", "squeue", "--set-resources", RUNTIME]
    command += ["--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "20"]
    path = f"{place}/bin:{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)}
    with (place / "log").open("a") as log:
        return subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)


def wait_for(file: Path, process: subprocess.Popen[str]) -> str:
    while not (file.exists() and file.read_text()):
        assert process.poll() is None, (file.parent / "log").read_text()[-3000:]
        time.sleep(0.5)
    return file.read_text()


def asked(place: Path, rule: str, label: str) -> list[tuple[int, int]]:
    """MB and minutes that each try of a job asked for."""
    lines = (place / "slurm" / "submitted").read_text().splitlines()
    own = [line for line in lines if f"rule_{rule}_" in line and f"_{label}_" in line]
    found = [re.search(r"-t (\d+) .*--mem (\d+)", line) for line in own]
    return [(int(match[2]), int(match[1])) for match in found if match]


def test_jobs_that_the_cluster_ends_come_again_with_more(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    job, call = tmp_path / "bin" / "job", tmp_path / "bin" / "prunebench"
    job.write_text(JOB.format(python=sys.executable, place=str(tmp_path)))
    call.write_text(CALL.format(python=sys.executable, job=str(job)))
    for file in (job, call):
        file.chmod(0o755)
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    with cluster(tmp_path / "slurm") as commands:
        node = [commands / "scontrol", "update", f"nodename={os.uname().nodename.split('.')[0]}"]
        process = start(tmp_path, commands)
        subprocess.run([commands / "scancel", wait_for(tmp_path / "evaluate-dense", process)])
        wait_for(tmp_path / "evaluate-magnitude", process)
        subprocess.run([*node, "state=drain", "reason=test"], check=True)
        time.sleep(20)  # what runs there ends, what is queued waits
        subprocess.run([*node, "state=resume"], check=True)
        process.wait(timeout=1800)
    log = (tmp_path / "log").read_text()
    folder = tmp_path / "results" / "toy"
    for label, sparsity in (("dense", "0"), ("magnitude", "0.3")):
        record = json.loads(
            (folder / "cells/a" / label / sparsity / "seed0/record.json").read_text()
        )
        assert record["reason"].endswith("stands in"), log
    (least, _), (more, _) = asked(tmp_path, "prune", "dense")
    assert least - 1000 == (more - 1000) / 2  # of memory
    assert [minutes for _, minutes in asked(tmp_path, "prune", "magnitude")] == [1, 60]
    assert len(asked(tmp_path, "evaluate", "dense")) == 2  # after scancel
    assert len(asked(tmp_path, "evaluate", "magnitude")) == 1  # the drained node ended what it had
    assert "leaderboard.md" in {path.name for path in folder.iterdir()}
