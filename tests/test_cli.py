"""The command line: quick to answer, one line for a mistake, an exit status that tells."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from prunebench.cli import main


def test_help_and_planning_import_nothing_heavy():
    code = (
        "import sys\nfrom prunebench import cli\n"
        "from prunebench.campaign import config, specs\n"
        "from prunebench.results import tables\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'peft', 'lm_eval', 'datasets', 'pandas'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout and "print the leaderboard" in done.stdout


def test_list_names_every_plugin(capsys):
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert "dense" in shown and "magnitude" in shown


def test_validate_counts_the_cells(capsys):
    assert main(["validate", "config/demo.yaml"]) == 0
    assert "config/demo.yaml: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["validate", "config/nowhere.yaml"], "config/nowhere.yaml: no such file"),
        (["report", "nowhere"], "nowhere: expected results of a campaign, found no campaign.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_status_one(arguments, message, capsys):
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error == f"prunebench: {message}\n"


def test_the_schema_that_editors_read_accepts_every_shipped_campaign(capsys):
    import jsonschema
    import yaml
    from conftest import REPOSITORY

    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    check = jsonschema.Draft202012Validator(schema)
    files = [f for f in (REPOSITORY / "config").glob("*.yaml") if f.stem != "pretrain"]
    for file in files:
        campaign = yaml.safe_load(file.read_text())
        assert not list(check.iter_errors(campaign)), file
        assert list(check.iter_errors({**campaign, "sparsitys": [0.1]})), file
    assert "Fractions of parameters" in schema["properties"]["sparsities"]["description"]
