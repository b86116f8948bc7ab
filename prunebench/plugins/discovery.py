"""Discover methods and baselines: reads their YAML only, imports one when it is asked to run."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.schema import check_schema
from prunebench.untyped import Call, Foreign, Json, JsonMap

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("baselines", "methods")
SCHEMA = Path(__file__).parent.parent / "schemas" / "method.schema.yaml"


@dataclass(frozen=True)
class Plugin:
    """A method as its `method.yaml` describes it.

    unpruned       True for the unpruned model that every campaign measures (sparsity 0 only)
    tunes_itself   it spends the campaign's tuning tokens itself; the suite does not tune after it
    deterministic  its decision does not depend on the seed (without recovery one seed is enough)
    sets_sparsity  parameters that set the sparsity as the paper does: rows are compared by the
                   sparsity that came of them, not by these
    """

    name: str
    folder: Path
    summary: str
    kind: str
    unpruned: bool
    tunes_itself: bool
    deterministic: bool
    params_schema: JsonMap
    sets_sparsity: tuple[str, ...] = ()

    def params(self, given: JsonMap, *, where: str) -> Json:
        """Defaults overlaid with `given`. Raises Invalid when they do not fit the schema."""
        defaults = {k: v["default"] for k, v in self.params_schema.items() if "default" in v}
        merged = {**defaults, **given}
        schema = {
            "type": "object",
            "properties": self.params_schema,
            "additionalProperties": False,
        }
        check_schema(merged, schema, where=where)
        return merged

    def digest(self) -> str:
        """SHA-256 over the folder's code and description: editing it re-runs its cells."""
        parts = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            relevant = path.suffix == ".py" or path.name == "method.yaml"
            if relevant and "__pycache__" not in path.parts:
                parts.update(str(path.relative_to(self.folder)).encode() + b"\0")
                parts.update(path.read_bytes() + b"\0")
        return parts.hexdigest()

    def load(self) -> Call:
        """Import `method.py` and return its `prune(model, ctx) -> Decision`.

        The folder becomes a package, so that a method may have several files.
        """
        return self._function("method", "prune", "(model, ctx)")

    def load_step(self) -> Call:
        """Import `step.py`, which not every plugin has, and return its `make_step(model, ...)`.

        It makes what `profiling.steps` measures.
        """
        return self._function("step", "make_step", "(model, *, micro_batches, length, seed)")

    def _function(self, file: str, name: str, arguments: str) -> Call:
        path = self.folder / f"{file}.py"
        package = f"prunebench_plugin_{self.name}"
        _import(package, self.folder / "__init__.py", [str(self.folder)])
        module = _import(f"{package}.{file}", path, None)
        if not callable(getattr(module, name, None)):
            raise Invalid(f"{path}: expected a function {name}{arguments}")
        function: Call = getattr(module, name)
        return function


def discover(extra: tuple[str, ...] = ()) -> dict[str, Plugin]:
    """All plugins of the project and of `extra` folders, by name, without importing any."""
    found: dict[str, Plugin] = {}
    for parent in [*(ROOT / name for name in FOLDERS), *(Path(path) for path in extra)]:
        for description in sorted(parent.glob("*/method.yaml")):
            plugin = read(description.parent)
            if plugin.name in found:
                raise Invalid(
                    f"{description}: name {plugin.name!r} is already taken by "
                    f"{found[plugin.name].folder}"
                )
            found[plugin.name] = plugin
    return found


def read(folder: Path) -> Plugin:
    """One plugin folder's description. Raises Invalid naming file and key."""
    path = folder / "method.yaml"
    raw = read_yaml(path)
    check_schema(raw, _schema(), where=str(path))
    if raw["name"] != folder.name:
        raise Invalid(f"{path}: name: expected {folder.name!r} as its folder, got {raw['name']!r}")
    if not (folder / "method.py").is_file():
        raise Invalid(f"{folder}: expected a file method.py with prune(model, ctx)")
    params = raw.get("params", {})
    if foreign := sorted(set(raw.get("sets_sparsity", ())) - set(params)):
        raise Invalid(f"{path}: sets_sparsity: {foreign[0]!r} is none of its parameters")
    return Plugin(
        name=raw["name"],
        folder=folder,
        summary=raw["summary"],
        kind=raw["kind"],
        unpruned=raw.get("unpruned", False),
        tunes_itself=raw.get("tunes_itself", False),
        deterministic=raw.get("deterministic", False),
        params_schema=params,
        sets_sparsity=tuple(raw.get("sets_sparsity", ())),
    )


@cache
def _schema() -> Foreign:
    return read_yaml(SCHEMA)


def _import(name: str, path: Path, search: list[str] | None) -> Foreign:
    if not path.is_file():
        spec = importlib.machinery.ModuleSpec(name, None, is_package=search is not None)
        spec.submodule_search_locations = search
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        return module
    found = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
