"""How long and how much memory it takes to plan many cells: `planning_scale.py [CELLS ...]`.

For campaigns of about 100, 1,000 and 10,000 cells (unless told): `snakemake --dry-run` through the
project's Snakefile before anything has run; then every command that reads a campaign or its
results, on a folder in which all jobs ended (as `failed`: it holds as many files as any other). A
line for each: seconds on the clock and on the processor, peak memory, exit status.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from prunebench.campaign import config  # noqa: E402
from prunebench.record import stages  # noqa: E402
from prunebench.results.outstanding import jobs_of  # noqa: E402

MODELS = 5
SPARSITIES = [0.2, 0.5]
TUNED = ("random", "magnitude", "llm_pruner", "hywia")
"""Methods of two rows each, with tuning and without."""
TUNING = ("loraprune", "pat")
COMMANDS = (
    ("validate", "{file}"),
    ("plan", "{file}"),
    ("leaderboard", "{folder}"),
    ("report", "{folder}"),
    ("failures", "{folder}"),
    ("status", "{folder}"),
    ("check", "{folder}"),
)


def main() -> None:
    wanted = [int(text) for text in sys.argv[1:]] or [100, 1_000, 10_000]
    for cells in wanted:
        with tempfile.TemporaryDirectory() as place:
            measure(Path(place), cells)


def measure(place: Path, cells: int) -> None:
    """Plan a campaign of about so many cells in `place`, and read its results."""
    os.chdir(place)
    one, two = (len(build(raw_campaign(seeds)).cells) for seeds in (1, 2))
    raw = raw_campaign(1 + max(0, math.ceil((cells - one) / (two - one))))
    file = place / "campaign.yaml"
    file.write_text(yaml.safe_dump(raw))
    campaign = build(raw)
    jobs = jobs_of(campaign)
    print(f"\n{len(campaign.cells)} cells, {len(jobs)} jobs", flush=True)
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    snakemake += ["--dry-run", "--quiet", "--cores", "1", "--configfile", str(file)]
    run("snakemake --dry-run", snakemake)
    os.fsync = lambda _: None  # what is thrown away need not outlive a crash of the machine
    for path, job in jobs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        lost = {"status": "failed", "reason": "a benchmark", "read": stages.rests_on(job.inputs)}
        stages.write(path, {**lost, "spec": job.spec.model_dump(mode="json")})
    campaign.out.campaign.write_text(yaml.safe_dump(raw))
    run("the same, all has run", snakemake)
    for command, argument in COMMANDS:
        told = argument.format(file=file, folder=campaign.out.root)
        run(f"prunebench {command}", [sys.executable, "-m", "prunebench", command, told])


def raw_campaign(seeds: int) -> dict[str, object]:
    """A campaign of the embedded model under several names, with every method in several rows."""
    demo = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text())
    methods = [{"name": name, "recovery": "both"} for name in TUNED]
    methods += [{"name": name} for name in TUNING]
    kept = ("data", "calibration", "recovery", "perplexity", "zeroshot", "profile")
    return {
        **{key: demo[key] for key in kept},
        "name": "scale",
        "models": [{"name": f"model-{i}", "kind": "demo"} for i in range(MODELS)],
        "methods": methods,
        "sparsities": SPARSITIES,
        "seeds": list(range(seeds)),
        "reference": "random",
    }


def build(raw: dict[str, object]) -> config.Campaign:
    return config.build(raw, file="campaign.yaml", folder=Path())


def run(what: str, command: list[str]) -> None:
    """Run a command and print what it took."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    print(
        f"  {what:24}{wall:8.1f} s  ({used.ru_utime + used.ru_stime:.1f} s of processor time), "
        f"{used.ru_maxrss / 2**10:6.0f} MiB, exit {process.returncode}",
        flush=True,
    )


if __name__ == "__main__":
    main()
