"""A folder of files that are none of what the commands expect, beside some that are whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from conftest import REPOSITORY, tiny_settings

CAMPAIGN: dict[str, Any] = {
    "name": "toy",
    "models": [{"name": "small", "kind": "random", "shape": "pythia-70m"}],
    "data": {"source": "random"},
    "methods": ["random"],
    "sparsities": [0.2],
    "calibration": {"corpus": "newswire"},
    "texts": None,
}
REFERENCE = REPOSITORY / "results" / "reference" / "demo"
DENSE = "cells/demo-llama/dense/0/seed0/record.json"
LONG = "n" * 250
BOMB = ["a: &a [x, x, x, x, x, x, x, x, x]"] + [
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
]
SUITE = "name: own/suite\nsummary: Made by a test.\ntasks: [{}]\n"
RAW: dict[str, bytes] = {
    "empty.yaml": b"",
    "binary.yaml": bytes(range(256)),
    "zeros.yaml": bytes(4096),
    "latin.yaml": "name: é".encode("latin-1"),
    "cut.yaml": b"name: [a, b",
    "tab.yaml": b"\tname: x",
    "list.yaml": b"[]",
    "object.yaml": b"{}",
    "null.yaml": b"null",
    "number.yaml": b"5",
    "text.yaml": b"just words",
    "two.yaml": b"name: a\n---\nname: b\n",
    "python.yaml": b"name: !!python/object/apply:os.system ['touch evil']\n",
    "date.yaml": b"name: 2026-99-99\n",
    "bomb.yaml": "\n".join(BOMB).encode(),
    "circle.yaml": b"name: &a [*a]\n",
    "deep.yaml": b"name: " + b"[" * 3000 + b"]" * 3000,
    "anchor.yaml": b"name: *nowhere\n",
    "large.yaml": b"# " + b"x" * (5 * 2**20),
    "keys.yaml": b"1: a\n",
    "yte.yaml": b"__use_yte__: true\nname: x\n",
    "bad_suite.yaml": SUITE.format("{name: ../out, stock: piqa, metric: acc}").encode(),
    "bad_group.yaml": SUITE.format("{stock: piqa, metric: acc, group: ../out}").encode(),
    "bad_stock.yaml": SUITE.format("{name: a, stock: ../a.yaml, metric: b, split: c}").encode(),
    "self_suite.yaml": f"include: [self_suite.yaml]\n{SUITE.format('')}".encode(),
    "empty.json": b"",
    "binary.json": bytes(range(256)),
    "list.json": b"[]",
    "object.json": b"{}",
    "deep.json": b"[" * 100_000,
    "nan.json": b'{"schema_version": NaN}',
    "empty.gguf": b"",
    "binary.gguf": bytes(range(256)),
    "cut.gguf": b"GGUF" + (3).to_bytes(4, "little") + (10**9).to_bytes(8, "little"),
}


def make(place: Path) -> None:
    """Fill a folder."""
    for name, content in RAW.items():
        (place / name).write_bytes(content)
    whole = yaml.safe_dump(CAMPAIGN, sort_keys=False)
    (place / "good.yaml").write_text(whole)
    (place / "twice.yaml").write_text(f"{whole}seeds: [0]\nseeds: [1]\n")
    (place / "deep_twice.yaml").write_text(
        whole.replace("  kind: random", "  kind: random\n  kind: hub")
    )
    (place / "folder").mkdir()
    (place / "folder.yaml").mkdir()
    (place / "locked.yaml").symlink_to("locked.yaml")
    _results(place)
    _models(place)
    _plugins(place)


def _results(place: Path) -> None:
    """A finished campaign's records, and folders in which something of them is wrong."""
    shutil.copytree(REFERENCE, place / "done")
    for name, content in {**RAW, "wrong.yaml": b"name: toy\n"}.items():
        if name in (
            "empty.yaml",
            "binary.yaml",
            "object.yaml",
            "list.yaml",
            "wrong.yaml",
            "yte.yaml",
        ):
            (place / "kept" / name[:-5]).mkdir(parents=True)
            (place / "kept" / name[:-5] / "campaign.yaml").write_bytes(content)
    (place / "kept" / "folder" / "campaign.yaml").mkdir(parents=True)
    record = json.loads((REFERENCE / DENSE).read_text())
    changes: dict[str, dict[str, Any]] = {
        "newer": {"schema_version": 999},
        "edited": {"status": "failed", "reason": "so"},
        "unsealed": {"checksum": None},
        "alien": {"cell": {"campaign": "x"}},
    }
    for name, change in changes.items():
        (place / f"{name}.json").write_text(json.dumps({**record, **change}))


def _models(place: Path) -> None:
    """Folders that are no models."""
    for name in ("empty", "binary", "list", "object"):
        (place / "models" / name).mkdir(parents=True)
        shutil.copy(place / f"{name}.json", place / "models" / name / "config.json")
    (place / "models" / "weightless").mkdir()
    settings = json.dumps(tiny_settings())
    (place / "models" / "weightless" / "config.json").write_text(settings)
    for name, content in (("hollow", b""), ("noise", bytes(range(256)) * 4)):
        (place / "models" / name).mkdir()
        (place / "models" / name / "config.json").write_text(settings)
        (place / "models" / name / "model.safetensors").write_bytes(content)
    (place / "models" / "outside").mkdir()
    (place / "models" / "outside" / "config.json").write_text(settings)
    index = json.dumps({"weight_map": {"a": "../noise/model.safetensors"}})
    (place / "models" / "outside" / "model.safetensors.index.json").write_text(index)


def _plugins(place: Path) -> None:
    """Folders that are no plugins."""
    yaml_of = "name: {}\nsummary: A method that a test has made.\nkind: method\n"
    code = "def prune(model, ctx):\n    return None\n"
    for name, description, method in (
        ("fine", yaml_of.format("fine"), code),
        ("codeless", yaml_of.format("codeless"), None),
        ("broken", "name: [", code),
        ("hollow", "", code),
        ("other", yaml_of.format("another"), code),
        ("escape", yaml_of.format("../escape"), code),
        ("newline", 'name: "newline\\n"\nsummary: x\nkind: method\n', code),
        ("unknown", yaml_of.format("unknown") + "colour: red\n", code),
        ("syntax", yaml_of.format("syntax"), "def prune(:\n"),
        ("binary", yaml_of.format("binary"), "\0\0"),
        ("nothing", yaml_of.format("nothing"), "x = 1\n"),
    ):
        folder = place / "plugins" / name
        folder.mkdir(parents=True)
        (folder / "method.yaml").write_text(description)
        if method is not None:
            (folder / "method.py").write_text(method)
    for name, text in (("family_broken", "name: ["), ("family_hollow", "")):
        (place / name).mkdir()
        (place / name / "family.yaml").write_text(text)
