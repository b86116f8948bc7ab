"""A tiny campaign for fault injection: planned and run as the workflow does, in this process.

`call` is one call of Snakemake: it asks the same planner, runs the jobs that it names in the same
order, and writes records and tables. No process is started, so that many faults can be tried.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import make_tiny

from prunebench.campaign import config, inputs
from prunebench.campaign.config import Campaign
from prunebench.campaign.paths import CampaignFolder
from prunebench.campaign.reading import portable
from prunebench.jobs import evaluate, profile, prune, recover, work
from prunebench.jobs.work import JobIO
from prunebench.models import folders
from prunebench.record import store
from prunebench.results import outstanding
from prunebench.results.repair import repair
from prunebench.results.tables import failures, make_tables, write_leaks
from prunebench.results.tidy import tidy
from prunebench.whole import write_text

JOBS: dict[str, Any] = {
    "prune": prune.prune,
    "recover": recover.recover,
    "evaluate": evaluate.evaluate,
    "profile": profile.profile,
}
CAMPAIGN: dict[str, Any] = {
    "name": "toy",
    "models": [{"name": "tiny", "kind": "local", "path": "tiny"}],
    "data": {"source": "local", "root": "data"},
    "methods": [{"name": "random", "recovery": "both"}, {"name": "toy", "recovery": "none"}],
    "plugins": ["plugins"],
    "sparsities": [0.3],
    "texts": None,
    "calibration": {"corpus": "newswire", "samples": 2, "length": 16},
    "perplexity": [
        {"name": "ppl/toy", "corpora": [{"corpus": "newswire"}], "length": 32, "limit": 4}
    ],
    "recovery": {
        "text": "newswire", "tokens": 256, "batch": 2, "micro_batch": 2, "length": 32, "rank": 2,
        "checkpoint_every": 2,
    },
}  # fmt: skip
DESCRIPTION = "name: toy\nsummary: A method made by a test.\nkind: method\ndeterministic: true\n"
METHOD = """
import torch

def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select({n: torch.arange(ctx.structures[n].units).float() for n in names})
"""
QUALITY = ("status", "model", "sparsity", "decision", "verify", "perplexity", "leak")
SPEED = ("wall_s", "tokens_per_s")


@dataclass(frozen=True)
class Outcome:
    """How a call ended: which jobs ran, and one line for each cell without a number."""

    ran: Counter[str]
    failed: list[str]


def prepare(place: Path, tokenizer: Any, **changes: Any) -> None:
    """A folder with a model, two splits of a corpus, a plugin and a campaign."""
    folders.save(make_tiny(intermediate_size=96), tokenizer, place / "tiny", uniform=True)
    (place / "data" / "newswire").mkdir(parents=True)
    for split, count in (("train", 80), ("test", 40)):
        rows = (f"{split} {i}: something happened somewhere, {i * i} times" for i in range(count))
        (place / "data" / "newswire" / f"{split}.txt").write_text("\n".join(rows))
    (place / "plugins" / "toy").mkdir(parents=True)
    (place / "plugins" / "toy" / "method.yaml").write_text(DESCRIPTION)
    (place / "plugins" / "toy" / "method.py").write_text(METHOD)
    (place / "campaign.yaml").write_text(yaml.safe_dump({**CAMPAIGN, **changes}))


def load() -> Campaign:
    """The campaign of the working folder, with nothing remembered of an earlier call."""
    for cached in (inputs._folder, inputs._file, inputs._suite_in, inputs._revisions):
        cached.cache_clear()
    return config.load_campaign("campaign.yaml")


def planned() -> dict[str, str]:
    """What a dry run would list: output below the campaign's folder -> why."""
    campaign = load()
    raw = yaml.safe_load(Path("campaign.yaml").read_text())
    found = outstanding.plan(campaign, portable(raw, Path())).reasons
    return {str(path.relative_to(campaign.out.root)): why for path, why in found.items()}


def call() -> Outcome:
    """Run what is outstanding, as Snakemake does; nothing where nothing is."""
    campaign, raw = load(), yaml.safe_load(Path("campaign.yaml").read_text())
    plan, ran = outstanding.plan(campaign, portable(raw, Path())), Counter[str]()
    if campaign.out.view("leaderboard.md") in plan:
        write_text(campaign.out.campaign, yaml.safe_dump(portable(raw, Path()), sort_keys=True))
    for path, job in outstanding.jobs_of(campaign).items():
        if path not in plan:
            continue
        ran[job.rule] += 1
        path.unlink(missing_ok=True)
        if job.rule == "leak":
            write_leaks(campaign.out.root)
        else:
            io = JobIO(path, "cpu", job.inputs)
            work.put(path, work.attempt(JOBS[job.rule], job.spec, io))
            tidy(campaign, after=path)
    if campaign.out.view("leaderboard.md") in plan:
        ran["leaderboard"] += 1
        campaign.out.complete.unlink(missing_ok=True)
        make_tables(campaign.out.root)
    failed = failures(campaign.out.root)
    if campaign.out.complete in plan and not failed:
        campaign.out.complete.touch()
    return Outcome(ran, failed)


def retry(*, all_corrupt: bool = False) -> list[str]:
    """`prunebench retry`: what it cleared, below the campaign's folder."""
    root = load().out.root
    return [str(c.path.relative_to(root)) for c in repair(root, all_corrupt=all_corrupt)]


def numbers() -> dict[str, Any]:
    """Decisions and digits of every cell, without times."""
    found = {}
    for path in sorted(CampaignFolder(Path("results/toy")).cells.glob("*/*/*/*/record.json")):
        record = store.as_mapping(store.read(path))
        kept = json.loads(json.dumps({key: record.get(key) for key in QUALITY}))
        for part in kept["perplexity"].values():
            for key in SPEED:
                part.pop(key, None) if isinstance(part, dict) else None
        found[path.parent.relative_to("results/toy/cells").as_posix()] = kept
    return found
