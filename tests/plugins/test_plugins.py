"""Plugins: found and described without importing them, digested by content, loaded by path."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from prunebench.campaign.config import build
from prunebench.cli import main
from prunebench.errors import Invalid, Unsupported
from prunebench.plugins import discovery

DESCRIPTION = "name: toy\nsummary: A method made by a test.\nkind: method\n"
METHOD = "def prune(model, ctx):\n    return 'decided'\n"


def folder(tmp_path, description=DESCRIPTION, **files):
    place = tmp_path / "toy"
    place.mkdir()
    (place / "method.yaml").write_text(description)
    for name, text in {"method": METHOD, **files}.items():
        (place / f"{name}.py").write_text(text)
    return place


def test_the_project_has_exactly_one_reference():
    found = discovery.discover()
    assert {"dense", "random", "magnitude"} <= set(found)
    assert [name for name, plugin in found.items() if plugin.unpruned] == ["dense"]


def test_discovery_imports_neither_methods_nor_torch():
    code = (
        "import sys; from prunebench.plugins.discovery import discover; discover();"
        "print([m for m in ('torch', 'transformers', 'peft', 'lm_eval') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_folder_is_a_package_and_loads_by_path(tmp_path):
    place = folder(
        tmp_path,
        method="from .helper import word\n\ndef prune(model, ctx):\n    return word\n",
        helper="word = 'helped'\n",
    )
    plugin = discovery.discover((str(tmp_path),))["toy"]
    assert plugin.folder == place
    assert plugin.load()(None, None) == "helped"


def test_digest_follows_code_and_description_only(tmp_path):
    place = folder(tmp_path)
    before = discovery.read(place).digest()
    (place / "README.md").write_text("words")
    (place / "paper.yaml").write_text("[]")
    assert discovery.read(place).digest() == before
    (place / "method.py").write_text(METHOD + "# changed\n")
    after = discovery.read(place).digest()
    assert after != before
    (place / "extra.py").write_text("")
    assert discovery.read(place).digest() != after


@pytest.mark.parametrize(
    "description, message",
    [
        ("name: other\nsummary: A method made by a test.\nkind: method\n", "name: expected 'toy'"),
        (DESCRIPTION + "speed: 3\n", "unknown key 'speed'"),
        ("name: toy\nkind: method\n", "'summary' is a required property"),
        (DESCRIPTION.replace("method\n", "miracle\n"), "kind: 'miracle' is not one of"),
        (DESCRIPTION + "params: {a: {default: 1}}\n", "'description' is a required property"),
        (DESCRIPTION + "params: [", "not valid YAML"),
        (DESCRIPTION + "sets_sparsity: [ratio]\n", "sets_sparsity: 'ratio' is none of its param"),
    ],
)
def test_a_wrong_description_names_file_and_key(tmp_path, description, message):
    with pytest.raises(Invalid, match=message) as caught:
        discovery.read(folder(tmp_path, description))
    assert str(caught.value).startswith(str(tmp_path / "toy" / "method.yaml"))


def test_a_name_that_is_taken_is_refused_where_it_is_asked_for(tmp_path):
    place = folder(tmp_path)
    place.rename(tmp_path / "random")
    text = DESCRIPTION.replace("name: toy", "name: random")
    (tmp_path / "random" / "method.yaml").write_text(text)
    found = discovery.discover((str(tmp_path),))
    assert found["magnitude"].name == "magnitude"
    with pytest.raises(Invalid, match="name 'random' is already taken by .*baselines/random"):
        found["random"]


def test_a_folder_without_prune_is_refused(tmp_path):
    place = folder(tmp_path, method="def cut(): pass\n")
    with pytest.raises(Invalid, match=r"expected a function prune\(model, ctx\)"):
        discovery.read(place).load()
    (place / "method.py").unlink()
    with pytest.raises(Invalid, match="expected a file method.py"):
        discovery.read(place)


BROKEN = {
    "no description": (None, {}, "expected a file method.yaml; `prunebench new` makes one"),
    "another name": ("name: other\nsummary: A method made by a test.\nkind: method\n", {}, "'toy'"),
    "a default of another type": (
        DESCRIPTION + "params: {a: {description: x, type: integer, default: one}}\n",
        {},
        "method.yaml: default of params: a: 'one' is not of type 'integer'",
    ),
    "no schema": (
        DESCRIPTION + "params: {a: {description: x, type: intger, default: 1}}\n",
        {},
        "method.yaml: params.a.type: 'intger' is not valid under any of the given schemas",
    ),
    "NaN": (
        DESCRIPTION + "params: {a: {description: x, type: number, default: .nan}}\n",
        {},
        "method.yaml: params.a.default: nan is no number that can be computed with",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_stands_in_nobodys_way(tmp_path, name, capsys):
    """It is a line in `list`, and refused where a campaign uses it, before any job."""
    description, files, message = BROKEN[name]
    place = folder(tmp_path, description or "", **files)
    if description is None:
        (place / "method.yaml").unlink()
    found = discovery.discover([tmp_path])
    assert found["random"] and message in found.broken["toy"]
    with pytest.raises(Invalid, match="toy"):
        found["toy"]
    assert main(["list", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "magnitude" in shown.out and shown.err == f"prunebench: {found.broken['toy']}\n"
    campaign = {**CAMPAIGN, "plugins": [tmp_path.name]}
    file = str(tmp_path.parent / "campaign.yaml")
    assert build(campaign, file=file, check_files=False).cells
    with pytest.raises(Invalid) as caught:
        build({**campaign, "methods": ["toy"]}, file=file, check_files=False)
    assert str(caught.value) == f"{file}: methods[0].name: {found.broken['toy']}"


CAMPAIGN = {
    "name": "c",
    "models": [{"name": "demo", "kind": "demo"}],
    "data": {"source": "demo"},
    "methods": ["random"],
    "sparsities": [0.5],
}


def test_places_that_hold_no_plugin_are_refused(tmp_path, monkeypatch):
    with pytest.raises(Invalid, match="no such folder of plugins"):
        discovery.discover([tmp_path / "gone"])
    with pytest.raises(Invalid, match="found no method.yaml"):
        discovery.discover([tmp_path])
    monkeypatch.setenv(discovery.VARIABLE, str(tmp_path / "gone"))
    assert "no such folder" in discovery.discover().broken[f"${discovery.VARIABLE}"]
    with pytest.raises(Invalid, match="c.yaml: plugins: .*no such folder of plugins"):
        build({**CAMPAIGN, "plugins": ["x"]}, file=str(tmp_path / "c.yaml"), check_files=False)


def test_plugins_come_from_a_variable_and_from_packages(tmp_path, monkeypatch):
    folder(tmp_path).rename(tmp_path / "toy")
    monkeypatch.setenv(discovery.VARIABLE, str(tmp_path))
    found = discovery.discover()
    assert found["toy"].origin == "$PRUNEBENCH_PLUGINS" and discovery.is_outside(found["toy"])
    monkeypatch.delenv(discovery.VARIABLE)
    package(tmp_path / "site", "clip", "clip_for_prunebench", DESCRIPTION.replace("toy", "clip"))
    package(tmp_path / "site", "gone", "no_such_package", None)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    found = discovery.discover()
    assert found["clip"].load()(None, None) == "decided"
    assert found["clip"].origin == "the package dist-clip"
    assert found.broken["gone"] == (
        "package dist-gone: entry point 'gone': cannot import no_such_package: there is no such "
        "package; install it again"
    )
    assert discovery.locate("clip", [found["clip"].folder]) == dataclasses.replace(
        found["clip"], origin="the project"
    )


def package(site, name, module, description):
    """An installed package whose entry point is a plugin."""
    info = site / f"dist_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{discovery.GROUP}]\n{name} = {module}\n")
    if description is not None:
        (site / module).mkdir()
        (site / module / "method.yaml").write_text(description)
        (site / module / "method.py").write_text(METHOD)


def test_shared_code_is_imported_and_digested_where_it_is_used(tmp_path):
    place = folder(
        tmp_path, method="from .norms import word\n\ndef prune(model, ctx):\n    return word\n"
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "method.yaml").write_text(DESCRIPTION.replace("toy", "other"))
    (other / "method.py").write_text(METHOD)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "norms.py").write_text("from .words import word\n")
    (shared / "words.py").write_text("word = 'shared'\n")
    (shared / "unused.py").write_text("")
    found = discovery.discover([tmp_path])
    assert set(found.broken) == set() and found["toy"].load()(None, None) == "shared"
    before = {name: found[name].digest() for name in ("toy", "other")}
    (shared / "unused.py").write_text("# changed\n")
    assert found["toy"].digest() == before["toy"]
    (shared / "words.py").write_text("word = 'changed'\n")
    assert found["toy"].digest() != before["toy"]
    assert found["other"].digest() == before["other"]
    before = found["toy"].digest()
    (place / "test_toy.py").write_text("")
    assert found["toy"].digest() == before


def test_a_description_says_which_models_it_is_for(tmp_path):
    plugin = discovery.read(folder(tmp_path, DESCRIPTION + "families: [llama]\nneeds: [hidden]\n"))
    plugin.check_model("llama", frozenset({"hidden", "heads"}))
    with pytest.raises(Unsupported, match="written for llama .* not for bloom"):
        plugin.check_model("bloom", frozenset({"hidden"}))
    with pytest.raises(Unsupported, match="needs hidden .* llama has not; it has heads"):
        plugin.check_model("llama", frozenset({"heads"}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("nan")]])
def test_parameters_that_are_no_numbers_are_refused(tmp_path, value):
    more = "params: {a: {description: x, default: 1}}\n"
    plugin = discovery.read(folder(tmp_path, DESCRIPTION + more))
    with pytest.raises(Invalid, match=r"methods\[0\].params.a.*expected a finite number"):
        plugin.params({"a": value}, where="methods[0].params")


def test_new_makes_a_plugin_that_is_found(tmp_path, capsys):
    assert main(["new", "mine", "--in", str(tmp_path)]) == 0
    assert "methods: [mine]" in capsys.readouterr().out
    assert discovery.discover([tmp_path])["mine"].deterministic
    method = (tmp_path / "mine" / "method.py").read_text()
    assert len(method[method.index("def prune") :].splitlines()) <= 20
    for name, message in (
        ("mine", "exists already"),
        ("Mine", "cannot be a method's"),
        ("shared", "cannot be a method's"),
        ("magnitude", "'magnitude' is already taken by"),
    ):
        assert main(["new", name, "--in", str(tmp_path)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["new", "other", "--in", str(tmp_path / "mine" / "README.md")]) == 1
    assert "cannot be made" in capsys.readouterr().err
