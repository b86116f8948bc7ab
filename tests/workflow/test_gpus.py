"""Several GPUs on one machine: jobs side by side, each on a device of its own.

The devices are names in CUDA's variable, and the jobs stand in for the suite's: they say which
device they were given, and when. All else is what a campaign runs: Snakemake, the rules,
`prunebench prune`, its locks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": name, "kind": "demo"} for name in ("a", "b")],
    "data": {"source": "demo"},
    "methods": ["magnitude"],
    "sparsities": [0.3],
    "profile": {"points": [{"batch": 1, "prompt": 8, "new": 2}]},
}
CALL = """#!{python}
import sys
from prunebench.cli import main

sys.executable = {job!r}
sys.exit(main())
"""
JOB = """#!{python}
import json, os, pathlib, signal, sys, time
from prunebench.record import stages

start, (_, _, kind, *arguments) = time.time(), sys.argv
out = pathlib.Path(arguments[arguments.index("--out") + 1])
spec = json.loads(arguments[arguments.index("--spec") + 1])
try:
    die = pathlib.Path({place!r}, "killed").touch(exist_ok=False) is None
except FileExistsError:
    die = False  # the first job alone
time.sleep(0.5)
told = {{"kind": kind.split(".")[-1], "start": start, "end": time.time(), "out": str(out)}}
told["device"] = os.environ["CUDA_VISIBLE_DEVICES"]
with open({place!r} + "/jobs", "a") as file:
    file.write(json.dumps(told) + "\\n")
if die:
    os.kill(os.getpid(), signal.SIGKILL)
lost = {{"status": "failed", "reason": "stands in", "spec": spec}}
inputs = [pathlib.Path(name) for name in arguments[: arguments.index("--spec")]]
stages.write(out, {{**lost, "read": stages.rests_on(inputs)}})
"""


def run(place: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> list[dict]:
    """Run the campaign in `place` with stand-ins for jobs; what each of them told."""
    (place / "bin").mkdir()
    (place / "campaign.yaml").write_text(yaml.safe_dump(CAMPAIGN))
    job = place / "bin" / "job"
    job.write_text(JOB.format(python=sys.executable, place=str(place)))
    call = place / "bin" / "prunebench"
    call.write_text(CALL.format(python=sys.executable, job=str(job)))
    for file in (job, call):
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{call.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("TMPDIR", str(place))  # the locks lie there
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(place), "--configfile", str(place / "campaign.yaml"), *options]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=1200)
    assert done.returncode != 0 and (place / "jobs").exists(), done.stdout  # stand-ins measure none
    return [json.loads(line) for line in (place / "jobs").read_text().splitlines()]


def side_by_side(jobs: list[dict]) -> list[tuple[dict, dict]]:
    """Pairs of jobs that ran at the same time."""
    pairs = combinations(jobs, 2)
    return [(a, b) for a, b in pairs if a["start"] < b["end"] and b["start"] < a["end"]]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_gpus_have_a_job_each_and_a_killed_job_frees_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa,GPU-bbbb")
    jobs = run(tmp_path, monkeypatch, "--cores", "8", "--resources", "gpu=2")
    kinds = [job["kind"] for job in jobs]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "prune": 4, "evaluate": 4, "profile": 2
    }  # fmt: skip
    assert {job["device"] for job in jobs} == {"GPU-aaaa", "GPU-bbbb"}
    together = side_by_side(jobs)
    assert together
    for one, other in together:
        assert one["device"] != other["device"], (one, other)
    reasons = [
        json.loads(Path(tmp_path, job["out"]).read_text())["reason"]
        for job in jobs
        if job["kind"] == "prune"
    ]
    assert sum("killed by SIGKILL" in reason for reason in reasons) == 1
    assert len(list(tmp_path.glob("prunebench-gpus-*/*.lock"))) == 2
