"""The whole workflow on a tiny model: failures are rows, edits re-run their cells alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import REPOSITORY, make_tiny

from prunebench.models import folders
from prunebench.record import store

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "tiny", "kind": "local", "path": "tiny"}],
    "data": {"source": "local", "root": "data"},
    "methods": ["random", {"name": "toy", "label": "toy"}],
    "plugins": ["plugins"],
    "sparsities": [0.3],
    "perplexity": [
        {"name": "ppl/toy", "corpora": [{"corpus": "newswire"}], "length": 32, "limit": 20}
    ],
}
DESCRIPTION = "name: toy\nsummary: A method made by a test.\nkind: method\ndeterministic: true\n"
GOOD = """
import torch

def prune(model, ctx):
    names = [n for n, s in ctx.structures.items() if s.kind == "neurons"]
    return ctx.select({n: torch.arange(ctx.structures[n].units).float() for n in names})
"""
BAD = "def prune(model, ctx):\n    raise ValueError('the paper | did not say\\nhow')\n"


@pytest.fixture
def place(tmp_path, tokenizer):
    """A folder with a model, a corpus, a plugin and a campaign, as a user would have them."""
    folders.save(make_tiny(intermediate_size=96), tokenizer, tmp_path / "tiny", uniform=True)
    (tmp_path / "data" / "newswire").mkdir(parents=True)
    text = "\n".join(f"item {i}: something happened somewhere" for i in range(60))
    (tmp_path / "data" / "newswire" / "test.txt").write_text(text)
    (tmp_path / "plugins" / "toy").mkdir(parents=True)
    (tmp_path / "plugins" / "toy" / "method.yaml").write_text(DESCRIPTION)
    write(tmp_path, CAMPAIGN, GOOD)
    return tmp_path


def write(place, campaign, method):
    (place / "campaign.yaml").write_text(yaml.safe_dump(campaign))
    (place / "plugins" / "toy" / "method.py").write_text(method)


def snakemake(place, *options, wait=True):
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(place), "--configfile", str(place / "campaign.yaml")]
    command += ["--cores", "2", *options]  # profiles/default is found beside the Snakefile
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if not wait:
        return process
    output, _ = process.communicate(timeout=500)
    return process.returncode, output


def jobs_of(output):
    """Rules that were run, with how many jobs each had."""
    table = re.findall(r"^(\w+) +(\d+)$", output.split("Job stats:")[1].split("total")[0], re.M)
    return {rule: int(count) for rule, count in table if rule not in ("all", "leaderboard")}


def cell(place, label, sparsity="0.3"):
    folder = place / "results" / "toy" / "cells" / "tiny" / label / sparsity / "seed0"
    return store.as_mapping(store.read(folder / "record.json"))


@pytest.mark.timeout(900)
def test_a_campaign_from_failure_to_nothing_to_be_done(place):
    write(place, CAMPAIGN, BAD)
    code, output = snakemake(place)
    assert code != 0, output
    [lost] = [line for line in output.splitlines() if "✗" in line]
    assert "failed while pruning: ValueError: the paper | did not say how (toy/method.py:2)" in lost
    log = "cells/tiny/toy/0.3/seed0/prune.log"  # the terminal, the table and the page name it
    assert lost.endswith(f"; log: results/toy/{log}")
    assert f"(toy/method.py:2); log: results/toy/{log}" in output
    assert "raise ValueError" in (place / "results" / "toy" / log).read_text()
    for view in ("failures.md", "index.html"):
        assert log in (place / "results" / "toy" / view).read_text(), view
    assert sum("✓ tiny  " in line for line in output.splitlines()) == 2
    assert "Select jobs" not in output and "\x1b" not in output
    assert "`prunebench retry results/toy` lets them run again" in output
    failed, random = cell(place, "toy"), cell(place, "random")
    assert failed["status"] == "failed" and "ValueError" in failed["reason"]
    assert random["status"] == "ok" and random["verify"]["passed"]
    assert abs(random["sparsity"]["achieved"] - 0.3) < 0.005
    table = (place / "results" / "toy" / "leaderboard.md").read_text()
    assert "3 cells: 2 ok, 1 failed" in table and "the paper &#124; did not" in table

    write(place, CAMPAIGN, GOOD)  # editing a plugin runs its cells again, and no others
    code, output = snakemake(place, "--printshellcmds")
    assert code == 0, output
    assert jobs_of(output) == {"prune": 1, "evaluate": 1, "failures": 1}
    assert cell(place, "toy")["status"] == "ok"

    code, output = snakemake(place)
    assert code == 0 and "Nothing to be done" in output

    code, output = snakemake(place, "--report", "report.html")  # captions and categories included
    assert code == 0, output
    report = (place / "report.html").read_text()
    for words in ("Leaderboard", "Papers", "Trade-off", "Not measured"):
        assert words in report
    assert "Cells that failed or were skipped" in report

    write(place, {**CAMPAIGN, "sparsities": [0.3, 0.5]}, GOOD)  # and so does a new sparsity
    code, output = snakemake(place, "--dry-run")
    assert code == 0, output
    assert jobs_of(output) == {"prune": 2, "evaluate": 2, "failures": 1}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"methods": ["lorapune"]},
            "methods[0].name: unknown method 'lorapune'; known: adapt_pruner, dense",
        ),
        ({"sparsities": [1.5]}, "sparsities[0]: 1.5 is greater than or equal"),
        ({"data": {"source": "local", "root": "nowhere"}}, "data.root: no such folder: nowhere"),
        (
            {"models": [{"name": "tiny", "kind": "local", "path": "gone"}]},
            "models[0].path: expected a folder with config.json: ",
        ),
    ],
)
def test_a_wrong_campaign_is_refused_before_any_job(place, change, message):
    write(place, {**CAMPAIGN, **change}, GOOD)
    code, output = snakemake(place)
    assert code != 0
    assert "campaign.yaml: " in output and message in output
    assert "Traceback" not in output
    assert not (place / "results").exists()


def test_a_matched_row_is_pruned_after_the_row_that_it_is_matched_to(place):
    methods = [*CAMPAIGN["methods"], {"name": "random", "matched": "toy"}]
    write(place, {**CAMPAIGN, "methods": methods}, GOOD)
    code, output = snakemake(place, "--dry-run")
    assert code == 0, output
    assert jobs_of(output)["prune"] == 4
    target = "results/toy/cells/tiny/toy/0.3/seed0/prune.json"
    control = "results/toy/cells/tiny/random_matched-toy/0.3/seed0/prune.json"
    assert f"input: {target}\n    output: {control}" in output


def test_jobs_declare_a_gpu_only_where_one_is_offered(place):
    for options, device in (((), "cpu"), (("--resources", "gpu=2"), "cuda")):
        code, output = snakemake(place, "--dry-run", "--printshellcmds", *options)
        assert code == 0, output
        assert f"--device {device}" in output
        assert ("gpu=1" in output) == (device == "cuda")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_run_is_finished_by_the_next_one(place):
    """SIGKILL while jobs run; the next call completes, with bytes equal to an undisturbed run."""
    process = snakemake(place, wait=False)
    log = place / "results" / "toy" / "cells" / "tiny" / "random" / "0.3" / "seed0" / "prune.log"
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    code, output = snakemake(place)  # a second call while the first one lives
    assert code != 0 and f"process {process.pid} on" in output
    assert snakemake(place, "--dry-run")[0] == 0
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (place / "results" / "toy" / "complete").exists()
    assert list((place / ".snakemake" / "locks").iterdir())
    code, output = snakemake(place)
    assert code == 0, output
    resumed = cell(place, "random")
    code, output = snakemake(place, "--forceall")
    assert code == 0, output
    again = cell(place, "random")
    for part in ("model", "sparsity", "verify", "perplexity"):
        assert json.dumps(resumed[part]) == json.dumps(again[part])


@pytest.mark.timeout(900)
def test_what_is_read_from_outside_is_known_by_its_content(place, tokenizer):
    folders.save(make_tiny(intermediate_size=96), tokenizer, place / "other", uniform=True)
    models = [*CAMPAIGN["models"], {"name": "second", "kind": "local", "path": "other"}]
    write(place, {**CAMPAIGN, "models": models, "methods": ["random"], "plugins": []}, GOOD)
    assert snakemake(place)[0] == 0
    before = cell(place, "dense", "0")["model"]
    assert len(before["weights_sha256"]) == 64
    assert before["weights_sha256"] == before["original_weights_sha256"]

    for path in (place / "tiny").iterdir():  # touched, not changed
        os.utime(path)
    code, output = snakemake(place)
    assert code == 0 and "Nothing to be done" in output

    weights = place / "tiny" / "model.safetensors"
    size = weights.stat().st_size
    folders.save(make_tiny(intermediate_size=96, seed=1), tokenizer, place / "tiny", uniform=True)
    assert weights.stat().st_size == size
    code, output = snakemake(place, "--printshellcmds")
    assert code == 0, output
    assert jobs_of(output) == {"prune": 2, "evaluate": 2, "failures": 1}  # of that model alone
    after = cell(place, "dense", "0")["model"]
    assert after["weights_sha256"] == folders.weights_digest(place / "tiny")
    assert after["weights_sha256"] != before["weights_sha256"]
    assert cell(place, "random")["model"]["original_weights_sha256"] == after["weights_sha256"]

    text = place / "data" / "newswire" / "test.txt"
    text.write_text(text.read_text().replace("item 7", "item x"))
    code, output = snakemake(place, "--printshellcmds")
    assert code == 0, output
    assert jobs_of(output) == {"evaluate": 4, "leak": 1, "failures": 1}
