"""Families outside the project: checked as those inside, pruned as those inside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from job_specs import attempt, changed, pruning

from prunebench.campaign import specs
from prunebench.campaign.config import build
from prunebench.cli import main
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.jobs import prune
from prunebench.jobs.trial import make_model
from prunebench.testing import check_family, family_tests

FAMILY = Path(__file__).parent / "families" / "starcoder2"


@pytest.fixture
def family(tmp_path):
    """Function that makes a copy of the family with one thing in a file put otherwise."""

    def altered(old="", new="", file="family.py"):
        folder = tmp_path / "starcoder2"
        shutil.copytree(FAMILY, folder)
        path = folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        description = folder / "family.yaml"  # one case is enough
        text = description.read_text()
        description.write_text(text[: text.index("  - name: tied")])
        return folder

    return altered


test_a_good_family_passes = family_tests(str(FAMILY))


WRONG = {
    "a coupling is missing": (
        'reads=("c_fc",)',
        "reads=()",
        ("neurons: after the cut, model.layers.", ".mlp.c_proj does not fit"),
    ),
    "a name is wrong": ("f\"{STACK}.{i}.mlp\"", "f\"{STACK}.{i}.ml\"", ("AttributeError", "ml")),
    "a name of the class is wrong": (
        "layer.mlp.c_proj", "layer.mlp.c_pro", ("AttributeError", "starcoder2/family.py:"),
    ),
    "layers are not counted anew": (
        "config.num_hidden_layers = len(layers)", "pass", ("layers",),
    ),
    "layers are not listed": (
        "[*blocks, parts.layers(model, blocks, STACK)]", "blocks", ("of kind 'layers'",),
    ),
    "a stack by another name": (
        "STACK", "PLACE", ("family.py: expected STACK",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_entry_is_named(what, family):
    old, new, words = WRONG[what]
    problems, cases = check_family(family(old, new))
    assert cases == 1 and problems
    for word in words:
        assert any(word in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_a_family_may_say_that_layers_cannot_leave(family):
    folder = family("[*blocks, parts.layers(model, blocks, STACK)]", "blocks")
    description = folder / "family.yaml"
    description.write_text(description.read_text().replace("neurons, layers]", "neurons]"))
    assert check_family(folder) == ([], 1)


DESCRIPTIONS = {
    "unknown key": ("summary:", "sumary:", "family.yaml: top level: unknown key 'sumary'"),
    "another name": ("name: starcoder2", "name: other", "name: expected 'starcoder2'"),
    "a known type": (
        "model_types: [starcoder2]",
        "model_types: [llama]",
        "model_types: 'llama' is a family of the project (llama.py)",
    ),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_wrong_description_is_one_line(what, family, capsys):
    old, new, message = DESCRIPTIONS[what]
    folder = family(old, new, "family.yaml")
    assert main(["check-family", str(folder)]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and message in shown[1]
    with pytest.raises(Invalid) as caught:
        build(campaign(folder), file=str(folder.parent / "c.yaml"), check_files=False)
    assert str(caught.value).startswith(f"{folder.parent / 'c.yaml'}: families: ")
    assert message in str(caught.value)


def campaign(folder, model=None):
    local = {"name": "t", "kind": "local", "path": str(model)}
    return {
        "name": "c",
        "models": [local if model else {"name": "t", "kind": "demo"}],
        "families": [folder.name],
        "data": {"source": "demo"},
        "methods": ["random"],
        "sparsities": [0.3],
    }


def test_its_models_are_pruned_and_an_edit_runs_them_again(family, tmp_path):
    folder = family()
    make_model(
        {"model_type": "starcoder2", **read_yaml(FAMILY / "family.yaml")["cases"][0]["config"]},
        tmp_path / "original",
    )
    raw, file = campaign(folder, tmp_path / "original"), str(tmp_path / "c.yaml")
    built = build(raw, file=file, check_files=False)
    planned = specs.prune_spec(built, built.cells[-1])
    given = {"model": planned.model.model_dump(), "sparsity_of": "decoder"}
    spec = changed(pruning(tmp_path / "original"), **given)
    result = attempt(prune.prune, spec, tmp_path / "prune.json")
    assert result["status"] == "ok", result["reason"]
    assert result["model"]["family"] == "starcoder2" and result["verify"]["passed"]
    again = build(raw, file=file, check_files=False)
    assert specs.prune_spec(again, built.cells[-1]) == planned
    (folder / "family.py").write_text((folder / "family.py").read_text() + "# changed\n")
    edited = specs.prune_spec(build(raw, file=file, check_files=False), built.cells[-1])
    assert json.dumps(edited.model.identity) != json.dumps(planned.model.identity)
