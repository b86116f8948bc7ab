"""The documents stay true: their code runs, their links lead somewhere."""

from __future__ import annotations

import re

import pytest
from conftest import REPOSITORY, make_tiny
from job_specs import attempt, pruning

from prunebench.jobs import prune
from prunebench.models import folders
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


def test_the_method_of_the_guide_prunes(tmp_path, tokenizer):
    guide = REPOSITORY / "docs" / "adding-a-method.md"
    (description,), (code,) = fences(guide, "yaml"), fences(guide, "python")
    folder = tmp_path / "plugins" / "mine"
    folder.mkdir(parents=True)
    (folder / "method.yaml").write_text(description)
    (folder / "method.py").write_text(code)
    folders.save(make_tiny(intermediate_size=96), tokenizer, tmp_path / "tiny", uniform=True)
    own = {"method": "mine", "params": {"scope": "layer"}, "plugins": [str(tmp_path / "plugins")]}
    spec = pruning(tmp_path / "tiny", sparsity=0.3, **own)
    result = attempt(prune.prune, spec, tmp_path / "cell" / "prune.json")
    assert result["status"] == "ok", result["reason"]
    assert result["sparsity"]["within_tolerance"] and result["verify"]["passed"]


def test_the_family_of_the_guide_is_one_that_is_tested():
    """Its code is that of the file it names, its table lists the families that there are."""
    guide = REPOSITORY / "docs" / "adding-a-model.md"
    folder = REPOSITORY / "prunebench" / "pruning" / "architectures"
    source = (folder / "gpt_neox.py").read_text()
    code = fences(guide, "python")
    assert len(code) == 2 and all(fence in source for fence in code)
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
