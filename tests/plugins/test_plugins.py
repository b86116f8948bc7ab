"""Plugins: found and described without importing them, digested by content, loaded by path."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prunebench.errors import Invalid
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


def test_a_name_that_is_taken_is_refused(tmp_path):
    place = folder(tmp_path)
    place.rename(tmp_path / "random")
    text = DESCRIPTION.replace("name: toy", "name: random")
    (tmp_path / "random" / "method.yaml").write_text(text)
    with pytest.raises(Invalid, match="name 'random' is already taken by"):
        discovery.discover((str(tmp_path),))


def test_a_folder_without_prune_is_refused(tmp_path):
    place = folder(tmp_path, method="def cut(): pass\n")
    with pytest.raises(Invalid, match=r"expected a function prune\(model, ctx\)"):
        discovery.read(place).load()
    (place / "method.py").unlink()
    with pytest.raises(Invalid, match="expected a file method.py"):
        discovery.read(place)
