"""Share of a campaign's wall time that is not model work (imports, start-up, scheduling, files).

    python benchmarks/demo_overhead.py [--config config/demo.yaml] [--cores 2]

Runs the campaign from nothing in a temporary folder and adds up, over all jobs, the time that each
spent at work on a model (scoring, tuning, evaluating, timing) times its threads. What is
left of cores x wall time is overhead; of it, what the jobs' own start-up takes is shown too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print the table of jobs and the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "config" / "demo.yaml")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wall_s = run(options.config.resolve(), options.cores, Path(folder))
        report(Path(folder) / "results", wall_s, options.cores)


def run(config: Path, cores: int, folder: Path) -> float:
    """Run the campaign in `folder`; returns seconds."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "all", "--cores", str(cores)]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    commands = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    start_s = time.perf_counter()
    subprocess.run(
        [*command, "--configfile", str(config)], env={**os.environ, "PATH": commands}, check=True
    )
    return time.perf_counter() - start_s


def report(results: Path, wall_s: float, cores: int) -> None:
    """Add up the jobs' own figures."""
    kinds: dict[str, list[float]] = {}
    for path in results.rglob("*.json"):
        timing = _timing(path)
        if timing:
            kind = "profile" if path.parent.name == "profiles" else path.stem
            threads = cores if kind == "profile" else 1
            jobs, job_s, model_s = kinds.get(kind, [0, 0.0, 0.0])
            job_s += threads * timing["job_s"]
            kinds[kind] = [jobs + 1, job_s, model_s + threads * timing.get("model_s", 0.0)]
    rows = [[kind, *figures] for kind, figures in sorted(kinds.items())]
    print(tabulate(rows, headers=["job", "jobs", "core-s", "of it model work"], floatfmt=".1f"))
    model_s = sum(row[3] for row in rows)
    job_s = sum(row[2] for row in rows)
    total_s = cores * wall_s
    print(f"wall {wall_s:.0f} s on {cores} cores; not model work: {1 - model_s / total_s:.1%},")
    print(f"of which start-up and files of the jobs {(job_s - model_s) / total_s:.1%}, ")
    print(f"scheduling and idle cores {1 - job_s / total_s:.1%}")


def _timing(path: Path) -> dict[str, float] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return content.get("timing") if isinstance(content, dict) else None


if __name__ == "__main__":
    main()
