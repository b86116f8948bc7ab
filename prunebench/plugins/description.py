"""What a plugin's `method.yaml` says of it. Imports neither the plugin nor torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from prunebench import outside
from prunebench.errors import Invalid, Unsupported
from prunebench.files import read_yaml
from prunebench.plugins.passes import Passes, read_passes
from prunebench.schema import check_schema
from prunebench.untyped import Call, Foreign, Json, JsonMap, Plain

SCHEMA = Path(__file__).parent.parent / "schemas" / "method.schema.yaml"
DESCRIPTION = "method.yaml"


@dataclass(frozen=True)
class Plugin:
    """A method as its `method.yaml` describes it.

    origin          where it was found: "the project", a key, a variable or a package
    unpruned        True for the unpruned model that every campaign measures (sparsity 0 only)
    tunes_itself    it spends the campaign's tuning tokens itself; the suite does not tune after it
    changes_weights it changes weights in place before it returns its decision
    deterministic   its decision does not depend on the seed (without recovery one seed is enough)
    sets_sparsity   parameters that set the sparsity as the paper does: rows are compared by the
                    sparsity that came of them, not by these
    families        model types that it is written for; None: all
    needs           kinds of structures that a model must have for it
    passes          what one pruning computes beside tuning; None: not said
    trial           how the conformance kit tries it, where the usual way is not enough for it
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
    changes_weights: bool = False
    families: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    passes: tuple[Passes, ...] | None = None
    trial: JsonMap = field(default_factory=dict)
    origin: str = "the project"

    @property
    def defaults(self) -> Json:
        """The parameters that hold where a campaign gives none."""
        return {k: v["default"] for k, v in self.params_schema.items() if "default" in v}

    def params(self, given: JsonMap, *, where: str) -> Json:
        """Defaults overlaid with `given`. Raises Invalid when they do not fit the schema."""
        merged = {**self.defaults, **given}
        schema = {
            "type": "object",
            "properties": self.params_schema,
            "additionalProperties": False,
        }
        check_schema(merged, schema, where=where)
        _check_finite(merged, where)
        return merged

    def check_model(self, model_type: str, kinds: frozenset[str]) -> None:
        """Raise Unsupported for a family, or a lack of structures, that the description rules out.

        kinds  of the model's structures
        """
        if self.families is not None and model_type not in self.families:
            raise Unsupported(
                f"{self.name} is written for {', '.join(self.families)} (families in its "
                f"{DESCRIPTION}), not for {model_type}"
            )
        if missing := [kind for kind in self.needs if kind not in kinds]:
            raise Unsupported(
                f"{self.name} needs {missing[0]} (needs in its {DESCRIPTION}), which {model_type} "
                f"has not; it has {', '.join(sorted(kinds))}"
            )

    def digest(self) -> str:
        """SHA-256 over its code and description: editing them re-runs its cells."""
        return outside.digest(self.folder, DESCRIPTION)

    def load(self) -> Call:
        """Import `method.py` and return its `prune(model, ctx) -> Decision`.

        The folder becomes a package, so that a method may have several files.
        """
        return outside.function(self.folder, self.name, "method", "prune", "(model, ctx)")

    def load_step(self) -> Call:
        """Import `step.py`, which not every plugin has, and return its `make_step(model, ...)`.

        It makes what `profiling.steps` measures.
        """
        arguments = "(model, *, micro_batches, length, seed)"
        return outside.function(self.folder, self.name, "step", "make_step", arguments)


def read(folder: Path, *, name: str | None = None, origin: str = "the project") -> Plugin:
    """One plugin folder's description. Raises Invalid naming file and key.

    name  that it must have; default: the folder's
    """
    path, expected = folder / DESCRIPTION, name or folder.name
    if not path.is_file():
        raise Invalid(f"{folder}: expected a file {DESCRIPTION}; `prunebench new` makes one")
    raw = read_yaml(path)
    check_schema(raw, _schema(), where=str(path))
    if raw["name"] != expected:
        whose = "its folder" if name is None else "it is called"
        raise Invalid(f"{path}: name: expected {expected!r} as {whose}, got {raw['name']!r}")
    if not (folder / "method.py").is_file():
        raise Invalid(f"{folder}: expected a file method.py with prune(model, ctx)")
    params = raw.get("params", {})
    if foreign := sorted(set(raw.get("sets_sparsity", ())) - set(params)):
        raise Invalid(f"{path}: sets_sparsity: {foreign[0]!r} is none of its parameters")
    families = raw.get("families")
    plugin = Plugin(
        name=raw["name"],
        folder=folder,
        summary=raw["summary"],
        kind=raw["kind"],
        unpruned=raw.get("unpruned", False),
        tunes_itself=raw.get("tunes_itself", False),
        deterministic=raw.get("deterministic", False),
        params_schema=params,
        sets_sparsity=tuple(raw.get("sets_sparsity", ())),
        changes_weights=raw.get("changes_weights", False) or raw.get("tunes_itself", False),
        families=None if families is None else tuple(families),
        needs=tuple(raw.get("needs", ())),
        passes=tuple(read_passes(raw["passes"], params, f"{path}: passes"))
        if "passes" in raw
        else None,
        trial=raw.get("trial", {}),
        origin=origin,
    )
    _check_params(plugin, path)
    return plugin


def _check_params(plugin: Plugin, path: Path) -> None:
    """Each parameter is a JSON schema, and its default fits it."""
    from jsonschema import Draft202012Validator, SchemaError

    for name, schema in plugin.params_schema.items():
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            key = ".".join(map(str, error.absolute_path))
            place = f"{path}: params.{name}.{key}".rstrip(".")
            raise Invalid(f"{place}: {error.message}") from None
    plugin.params({}, where=f"{path}: default of params")
    plugin.params(plugin.trial.get("params", {}), where=f"{path}: trial.params")


def _check_finite(value: Plain, where: str) -> None:
    """Raise Invalid for NaN and infinity, which no comparison of a schema notices."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_finite(item, f"{where}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"{where}: expected a finite number, got {value}")


@cache
def _schema() -> Foreign:
    return read_yaml(SCHEMA)
