"""Decisions of committed runs: made by the pruning stage run again, and carried out.

    python benchmarks/decisions.py make results/reference/stories
    python benchmarks/decisions.py apply results/reference/stories

make   runs the pruning job of every cell that has no decision yet and was not tuned by the suite.
       Where the weights have the digest in the record, the decision is put beside the record;
       where they have another (another processor, another version of a library), it is not.
apply  makes the weights of every decision in a temporary folder, compares their digest with the
       record's, and exits with 1 where one differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from prunebench.campaign import specs
from prunebench.campaign.config import Campaign, Cell, build
from prunebench.campaign.paths import CellPaths
from prunebench.decisions import form
from prunebench.decisions.applying import apply
from prunebench.errors import PrunebenchError
from prunebench.files import read_yaml
from prunebench.jobs import prune, work
from prunebench.models import folders
from prunebench.record import store
from prunebench.whole import write_bytes


def main() -> int:
    """Do what the command line says for one folder of results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("do", choices=["make", "apply"])
    parser.add_argument("folder", type=Path, help="results/reference/<campaign>")
    parser.add_argument("--skip", nargs="*", default=[], metavar="LABEL", help="make: not these")
    options = parser.parse_args()
    failed, done, total_bytes = 0, 0, 0
    found = (
        make(options.folder, options.skip) if options.do == "make" else carry_out(options.folder)
    )
    for where, problem, size in found:
        failed, done, total_bytes = failed + bool(problem), done + (not problem), total_bytes + size
        print(f"{where}: {problem or f'ok, {size:,} bytes'}", flush=True)
    print(f"{done} of {done + failed} decisions, {total_bytes:,} bytes")
    return 1 if failed and options.do == "apply" else 0


def make(folder: Path, skip: Collection[str]) -> Iterator[tuple[str, str | None, int]]:
    """Cell, what is wrong, and bytes, of every decision that was to be made."""
    file = folder / "campaign.yaml"
    campaign = build(read_yaml(file), file=str(file))
    for cell in campaign.cells:
        own = CellPaths(folder / "cells" / cell.path)
        record = store.read(own.record)
        if cell.label in skip or own.decision_file.exists():
            continue
        if record.status != "ok" or record.cell.recovery:
            continue
        with TemporaryDirectory() as place:
            result, made = pruned(campaign, cell, Path(place))
            if result["status"] != "ok":
                yield cell.path, str(result["reason"]), 0
            elif result["decision_file"]["status"] == "ok":
                assert record.model is not None
                if result["model"]["weights_sha256"] != record.model.weights_sha256:
                    yield cell.path, "other weights come out here", 0
                    continue
                write_bytes(own.decision_file, made.decision_file.read_bytes())
                if made.delta.exists():
                    write_bytes(own.delta, made.delta.read_bytes())
                yield cell.path, None, own.decision_file.stat().st_size


def pruned(campaign: Campaign, cell: Cell, place: Path) -> tuple[dict[str, object], CellPaths]:
    """The result of a cell's pruning job, and its files."""
    moved = replace(campaign, folder=place)
    if (other := specs.matched_cell(campaign, cell)) is not None:
        stage = moved.out.cell(other).prune
        result, _ = pruned(campaign, other, place)
        work.put(stage, result)
    own = moved.out.cell(cell)
    own.folder.mkdir(parents=True, exist_ok=True)
    inputs = () if other is None else (stage,)
    result = work.attempt(
        prune.prune, specs.prune_spec(campaign, cell), work.JobIO(own.prune, "cpu", inputs)
    )
    return result, own


def carry_out(folder: Path) -> Iterator[tuple[str, str | None, int]]:
    """Cell, what is wrong, and bytes, of every decision that lies in the folder."""
    for path in sorted(folder.glob(f"cells/*/*/*/*/{form.NAME}")):
        where, problem = str(path.parent.relative_to(folder / "cells")), None
        record = store.read(path.with_name("record.json"))
        with TemporaryDirectory() as place:
            try:
                apply(path, Path(place) / "model")
                found = folders.weights_digest(Path(place) / "model")
                if record.model is None or found != record.model.weights_sha256:
                    problem = "other weights than the record's"
            except PrunebenchError as error:
                problem = str(error)
        yield where, problem, path.stat().st_size


if __name__ == "__main__":
    sys.exit(main())
