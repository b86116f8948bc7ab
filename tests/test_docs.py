"""The documents stay true: their code runs, their links lead somewhere."""

from __future__ import annotations

import dataclasses
import re

import pytest
from conftest import REPOSITORY, make_tiny
from job_specs import attempt, changed, pruning

from prunebench.jobs import prune
from prunebench.models import folders
from prunebench.plugins.discovery import read
from prunebench.pruning.architectures import FAMILIES, parts

DOCUMENTS = sorted(
    [
        REPOSITORY / "README.md",
        *(REPOSITORY / "docs").glob("*.md"),
        *REPOSITORY.glob("*/*/README.md"),
    ]
)


def fences(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), flags=re.S)


GUIDE = REPOSITORY / "docs" / "adding-a-method.md"


@pytest.mark.parametrize("number", range(len(fences(GUIDE, "python"))))
def test_the_methods_of_the_guide_prune(number, tmp_path, tokenizer):
    (description,), code = fences(GUIDE, "yaml"), fences(GUIDE, "python")[number]
    folder = tmp_path / "plugins" / "mine"
    folder.mkdir(parents=True)
    (folder / "method.yaml").write_text(description)
    (folder / "method.py").write_text(code)
    folders.save(make_tiny(intermediate_size=96), tokenizer, tmp_path / "tiny", uniform=True)
    own = {"method": "mine", "params": read(folder).defaults, "plugins": [str(folder)]}
    own["data"] = {"source": "random"}
    own["calibration"] = {"corpus": ["newswire"], "samples": 4, "length": 16}
    result = attempt(
        prune.prune, changed(pruning(tmp_path / "tiny"), sparsity=0.25, **own), tmp_path / "c" / "p"
    )
    assert result["status"] == "ok", result["reason"]
    assert result["sparsity"]["within_tolerance"] and result["verify"]["passed"]


def test_the_first_method_of_the_guide_is_that_of_a_new_folder(tmp_path):
    from prunebench.plugins.template import make

    folder = make("mine", tmp_path)
    assert fences(GUIDE, "python")[0] == (folder / "method.py").read_text()


def test_the_guide_names_all_that_there_is():
    """Every field of Context, every key of method.yaml, every check's limit."""
    from prunebench.files import read_yaml
    from prunebench.plugins.context import Context
    from prunebench.plugins.description import SCHEMA

    text = GUIDE.read_text()
    own = {"structures", "sample_calibration", "load_recovery", "notes"}
    fields = {field.name for field in dataclasses.fields(Context)} - own
    methods = {"calibration", "recovery", "prunable", "select", "lowest", "note", "checkpoints"}
    assert {name for name in fields | methods if f"ctx.{name}" not in text} == set()
    keys = read_yaml(SCHEMA)["properties"]
    trial = keys["trial"]["properties"]
    assert {key for key in (*keys, *trial) if key not in text} == set()


def test_the_family_of_the_guide_is_one_that_is_tested():
    """Its code is that of the file it names, its table lists the families that there are."""
    guide = REPOSITORY / "docs" / "adding-a-model.md"
    folder = REPOSITORY / "prunebench" / "pruning" / "architectures"
    source = (folder / "gpt_neox.py").read_text()
    *code, case = fences(guide, "python")
    assert len(code) == 2 and all(fence in source for fence in code)
    assert case.strip() in (REPOSITORY / "tests" / "family_cases.py").read_text()
    rows = re.findall(r"^\| (`.*`) \| `(\w+)\.py` \|", guide.read_text(), flags=re.M)
    listed = {name: file for names, file in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == FAMILIES
    for name in set(re.findall(r"`(parts\.\w+)`", guide.read_text())) - {"parts.py"}:
        assert hasattr(parts, name.partition(".")[2]), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_commands_of_the_readme_exist():
    """Every `prunebench X` and `make X` that the README names is a command."""
    from prunebench.cli import _parser

    text = (REPOSITORY / "README.md").read_text()
    commands = next(a for a in _parser()._actions if a.choices and "prune" in a.choices).choices
    named = set(re.findall(r"prunebench ([a-z]+) ", text))
    assert named and named <= set(commands)
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= targets


def test_the_table_of_the_readme_is_that_of_the_committed_run():
    reference = (REPOSITORY / "results" / "reference" / "demo" / "leaderboard.md").read_text()
    readme = (REPOSITORY / "README.md").read_text()
    rows = [line for line in readme.splitlines() if re.match(r"\| +(\d|Sparsity)", line)]
    assert len(rows) >= 5
    assert [row for row in rows if row not in reference.splitlines()] == []
