"""Every campaign file is planned: a dry run lists its jobs, with stand-ins for models and data.

`make plan` plans them all; here one of each kind is planned, and all are read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, make_tiny

from prunebench.campaign import config
from prunebench.models import folders
from prunebench.models.shipped import MODELS_VARIABLE
from prunebench.text.source import CORPORA, INSTRUCTIONS, SPLITS

FILES = sorted(f for f in (REPOSITORY / "config").glob("*.yaml") if f.stem != "pretrain")
QUICK = ("demo", "h100", "paper", "related", "smollm2", "stories")
PLANNED = [
    pytest.param(file, id=file.stem, marks=() if file.stem in QUICK else pytest.mark.slow)
    for file in FILES
]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory, tokenizer: object) -> dict[str, str]:
    """The two variables that name folders: a tiny model under every name, a line of every text."""
    models, data = (tmp_path_factory.mktemp(name) for name in ("models", "data"))
    for file in FILES:
        for entry in yaml.safe_load(file.read_text())["models"]:
            if entry["kind"] == "local" and not (models / entry["path"]).exists():
                folders.save(make_tiny(), tokenizer, models / entry["path"], uniform=True)
    texts = [c.file.format(split=split) for c in CORPORA.values() for split in SPLITS]
    for name in {*texts, *(file for file, _ in INSTRUCTIONS.values())}:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("stands in\n")
    return {MODELS_VARIABLE: str(models), "PRUNEBENCH_DATA": str(data)}


def dry_run(
    file: Path, folder: Path, variables: dict[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--dry-run", "--directory", str(folder), "--configfile", str(file), *options]
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    return subprocess.run(
        [*command, "--cores", "1"],
        cwd=REPOSITORY,
        env={**os.environ, **variables, "PATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_every_campaign_file_is_one(
    stand_ins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in stand_ins.items():
        monkeypatch.setenv(name, value)
    for file in FILES:
        assert config.load_campaign(file).cells, file.stem


@pytest.mark.parametrize("file", PLANNED)
def test_a_dry_run_lists_every_job(
    file: Path, stand_ins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = dry_run(file, tmp_path, stand_ins)
    assert done.returncode == 0, done.stderr[-2000:]
    table = done.stdout.split("Job stats:")[1].split("total")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M)}
    for name, value in stand_ins.items():
        monkeypatch.setenv(name, value)
    campaign = config.load_campaign(file)
    cells = campaign.cells
    assert jobs["evaluate"] == len(cells)
    assert jobs["prune"] == len({campaign.pruned(cell) for cell in cells})
    assert jobs.get("recover", 0) == sum(campaign.rows[c.label].recovery for c in cells)
    assert not list(tmp_path.glob("results/*/cells"))


def test_data_of_a_campaign_comes_from_the_hub_on_request(
    stand_ins: dict[str, str], tmp_path: Path
) -> None:
    """As `make real` asks for it where PRUNEBENCH_DATA names no folder."""
    file, variables = REPOSITORY / "config" / "smollm2-short.yaml", {**stand_ins}
    variables["PRUNEBENCH_DATA"] = ""
    refused = dry_run(file, tmp_path, variables)
    assert refused.returncode != 0 and "PRUNEBENCH_DATA, got neither" in refused.stdout
    done = dry_run(file, tmp_path, variables, "--config", "data={source: hub}", "--printshellcmds")
    assert done.returncode == 0, done.stderr[-2000:]
    sources = set(re.findall(r'"source":"(\w+)"', done.stdout))
    assert "hub" in sources and "local" not in sources


def test_the_hub_variant_of_smollm2_differs_in_its_model_alone() -> None:
    here, hub = (
        yaml.safe_load((REPOSITORY / "config" / f"{name}.yaml").read_text())
        for name in ("smollm2", "smollm2-hub")
    )
    assert {key for key in {*here, *hub} if here.get(key) != hub.get(key)} == {"name", "models"}
    assert [model["name"] for model in here["models"]] == [m["name"] for m in hub["models"]]
