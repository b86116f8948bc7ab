"""A model family that lies in a folder outside the package: `family.yaml` and `family.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from prunebench import outside
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.schema import check_schema
from prunebench.untyped import Foreign, Json

FAMILY = "family.yaml"
SCHEMA = Path(__file__).parent.parent.parent / "schemas" / "family.schema.yaml"
NEEDED = {"structures": "(model)", "refresh": "(model)", "STACK": ""}
"""What family.py must have."""


@dataclass(frozen=True)
class Family:
    """A family as its `family.yaml` describes it. cases: tiny models that it is checked on."""

    name: str
    folder: Path
    summary: str
    model_types: tuple[str, ...]
    relies_on_bos: bool
    cases: tuple[Json, ...]

    def load(self) -> ModuleType:
        """Import `family.py`. Raises Invalid where it lacks a function."""
        return _load(self.folder, self.name)


def read_family(folder: Path) -> Family:
    """One family folder's description. Raises Invalid naming file and key."""
    path = folder / FAMILY
    if not path.is_file():
        raise Invalid(f"{folder}: expected a file {FAMILY} (docs/adding-a-model.md)")
    raw = read_yaml(path)
    check_schema(raw, _schema(), where=str(path))
    if raw["name"] != folder.resolve().name:
        raise Invalid(f"{path}: name: expected {folder.name!r} as its folder, got {raw['name']!r}")
    if not (folder / "family.py").is_file():
        raise Invalid(f"{folder}: expected a file family.py with {', '.join(NEEDED)}")
    types = tuple(raw["model_types"])
    return Family(
        name=raw["name"],
        folder=folder,
        summary=raw["summary"],
        model_types=types,
        relies_on_bos=raw.get("relies_on_bos", False),
        cases=tuple(_case(case, types[0]) for case in raw["cases"]),
    )


def _case(given: Mapping[str, Foreign], model_type: str) -> Json:
    settings = {"model_type": model_type, **given["config"]}
    facts = {k: tuple(v) for k, v in given.items() if k not in ("config", "name")}
    return {"name": given.get("name", settings["model_type"]), "settings": settings, **facts}


@cache
def _load(folder: Path, name: str) -> ModuleType:
    module: ModuleType = outside.module(folder, f"prunebench_family_{name}", "family")
    for needed, arguments in NEEDED.items():
        if not hasattr(module, needed):
            raise Invalid(f"{folder / 'family.py'}: expected {needed}{arguments}")
    return module


@cache
def _schema() -> Foreign:
    return read_yaml(SCHEMA)
