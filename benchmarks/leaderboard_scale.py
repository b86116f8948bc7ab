"""How long and how much memory the tables of many cells take: `leaderboard_scale.py [CELLS]`.

Writes that many synthetic records (10,000 unless told), reads them back as the leaderboard job
does, and builds every table, plot and the page. Prints, per step, seconds on the clock and on the
processor, and the peak memory of the process.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from leaderboard import factory  # noqa: E402

from prunebench import leaderboard  # noqa: E402
from prunebench.leaderboard.papers.published import read_papers  # noqa: E402
from prunebench.plugins.discovery import discover  # noqa: E402
from prunebench.record import store  # noqa: E402

MODELS, METHODS, SPARSITIES, SEEDS = 5, 20, tuple(i / 10 for i in range(10)), 10


def main() -> None:
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        os.fsync = lambda _: None  # what is thrown away need not outlive a crash of the machine
        with timed(f"write {cells} records"):
            paths = [_write(out, made) for made in islice(_campaign(), cells)]
        with timed("read and check them"):
            records, problems = leaderboard.read_records(paths)
        with timed("build all views"):
            papers = read_papers(discover())
            report = leaderboard.build(records, problems, out, title="scale", papers=papers)
        with timed("draw for a terminal"):
            leaderboard.terminal(report, width=120)
        for file in report.files:
            print(f"{file.name:18} {file.stat().st_size / 2**20:8.1f} MiB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{'peak memory':18} {peak:8.0f} MiB")


@contextmanager
def timed(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what:26} {wall:8.1f} s  ({cpu:.1f} s of processor time)", flush=True)


def _campaign() -> Iterator[dict]:
    # many labels: a label of the factory's methods, and made-up ones
    known = tuple(factory.METHODS)
    methods = (*known, *(f"method-{i}" for i in range(METHODS - len(known))))
    for seed in range(SEEDS):
        for model in range(MODELS):
            for method in methods:
                for sparsity in SPARSITIES:
                    yield factory.record(
                        model=f"model-{model}",
                        label=method,
                        sparsity=sparsity,
                        seed=seed,
                        decision=factory.decision(layers=32),
                        tuning=factory.tuning(),
                    )


def _write(out: Path, made: dict) -> Path:
    cell = made["cell"]
    name = f"{cell['model']}/{cell['label']}/{cell['sparsity']}/seed{cell['seed']}"
    path = out / "cells" / name / "record.json"
    store.write(path, made)
    return path


if __name__ == "__main__":
    main()
