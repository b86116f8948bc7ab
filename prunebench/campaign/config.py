"""A campaign file becomes a validated Campaign and its cells. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prunebench.campaign.rows import Row, build_rows
from prunebench.campaign.settings import read_calibration, read_protocols, read_recovery
from prunebench.errors import Invalid, unknown
from prunebench.files import read_yaml
from prunebench.models.shapes import find_shape
from prunebench.plugins.discovery import Plugin, check_schema, discover
from prunebench.text.source import Source, corpora_of, open_source

MODELS_VARIABLE = "PRUNEBENCH_MODELS"
SCHEMA = Path(__file__).parent.parent / "schemas" / "campaign.schema.yaml"
RESOURCE_DEFAULTS = {"threads": 1, "mem_mb": 4000, "timeout_s": None}


@dataclass(frozen=True)
class Model:
    """A model entry. `source` is a hub id, a folder or a shape, as the campaign file writes it.

    overrides  of a random model: keys of its configuration with other values
    """

    name: str
    kind: str
    source: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """Model x row x sparsity x seed."""

    model: str
    label: str
    sparsity: float
    seed: int

    @property
    def path(self) -> str:
        """Folder of the cell below results/<campaign>/cells/."""
        return f"{self.model}/{self.label}/{self.sparsity:g}/seed{self.seed}"


@dataclass(frozen=True)
class Campaign:
    """A validated campaign file."""

    name: str
    file: str
    models: Mapping[str, Model]
    rows: Mapping[str, Row]
    plugins: Mapping[str, Plugin]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    source: str
    data_root: str | None
    calibration: Mapping[str, Any] | None
    recovery: Mapping[str, Any] | None
    perplexity: tuple[Mapping[str, Any], ...]
    zeroshot: Mapping[str, Any] | None
    profile: Mapping[str, Any] | None
    resources: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    plugin_folders: tuple[str, ...] = ()
    steps: Mapping[str, Any] | None = None
    claims: tuple[Mapping[str, Any], ...] = ()
    folder: Path | None = None

    @property
    def out(self) -> Path:
        """Where results go: results/<name>, or `folder`."""
        return self.folder or Path("results") / self.name

    @property
    def cells(self) -> list[Cell]:
        """All cells, dense first, in the order of the campaign file."""
        return [
            Cell(model, row.label, sparsity, seed)
            for model in self.models
            for row in sorted(self.rows.values(), key=lambda r: not self._reference(r))
            for sparsity in ((0.0,) if self._reference(row) else row.sparsities or self.sparsities)
            for seed in self._seeds(row)
        ]

    @property
    def dense(self) -> Row:
        """The unpruned row without recovery that everything is compared with."""
        return next(r for r in self.rows.values() if self._reference(r) and not r.recovery)

    def _reference(self, row: Row) -> bool:
        return self.plugins[row.method].reference

    def _seeds(self, row: Row) -> tuple[int, ...]:
        """One seed is enough for what no seed can change; the others would be fake repeats."""
        seeds = row.seeds or self.seeds
        return seeds[:1] if self.is_fixed(row) and not row.recovery else seeds

    def is_fixed(self, row: Row) -> bool:
        """Whether no seed changes the row's decision, nor that of the row it is matched to."""
        own = self.plugins[row.method].deterministic
        others = (r for r in self.rows.values() if r.pruned_as == row.matched)
        return own and all(self.is_fixed(other) for other in others)


DEMO_ROOT = Path("results") / "_demo" / "world"
DEMO_MODEL = Path("results") / "_demo" / "model"


def load(path: str | Path) -> Campaign:
    """Read and check a campaign file, and that the models and files it names exist.

    Raises Invalid with one line that names file, key and what was expected.
    """
    file = str(path)
    raw = read_yaml(Path(path))
    return build(raw, file=file)


def build(raw: Any, *, file: str, check_files: bool = True) -> Campaign:
    """Check a campaign given as plain data; `file` is named in errors.

    check_files  whether models and data must be there, as a run needs and a report does not
    """
    check_schema(raw, read_yaml(SCHEMA), where=file)
    plugins = discover(tuple(raw.get("plugins", ())))
    recovery = read_recovery(raw.get("recovery"), file)
    rows = build_rows(raw, plugins, recovery=recovery is not None, file=file)
    campaign = Campaign(
        name=raw["name"],
        file=file,
        models=_models(raw["models"], file),
        rows=rows,
        plugins=plugins,
        sparsities=tuple(sorted(float(s) for s in raw["sparsities"])),
        seeds=tuple(raw.get("seeds", [0])),
        source=raw["data"]["source"],
        data_root=raw["data"].get("root"),
        calibration=read_calibration(raw.get("calibration"), file),
        recovery=recovery,
        perplexity=tuple(read_protocols(raw.get("perplexity", []), file)),
        zeroshot=raw.get("zeroshot"),
        profile=raw.get("profile"),
        resources={**RESOURCE_DEFAULTS, **raw.get("resources", {})},
        reference=raw.get("reference"),
        plugin_folders=tuple(raw.get("plugins", ())),
        steps=raw.get("steps"),
        claims=tuple(raw.get("claims", ())),
    )
    _check_names(campaign)
    if check_files:
        for i, model in enumerate(campaign.models.values()):
            _check_model(model, f"{file}: models[{i}]")
        _check_data(campaign)
    return campaign


def portable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A campaign as its results keep it: readable from any working folder."""
    if "plugins" not in raw:
        return dict(raw)
    return {**raw, "plugins": [str(Path(path).resolve()) for path in raw["plugins"]]}


def _models(entries: list[Mapping[str, Any]], file: str) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for i, entry in enumerate(entries):
        where = f"{file}: models[{i}]"
        if entry["name"] in models:
            raise Invalid(f"{where}.name: {entry['name']!r} is already taken")
        models[entry["name"]] = Model(
            name=entry["name"],
            kind=entry["kind"],
            source=_model_source(entry, where),
            revision=entry.get("revision"),
            dtype=entry.get("dtype", "auto"),
            trust_remote_code=entry.get("trust_remote_code", False),
            overrides=entry.get("overrides", {}),
        )
    return models


def _model_source(entry: Mapping[str, Any], where: str) -> str:
    if entry["kind"] == "demo":
        return str(DEMO_MODEL)
    key = {"local": "path", "hub": "id", "random": "shape"}[entry["kind"]]
    if key not in entry:
        raise Invalid(f"{where}: kind {entry['kind']!r} needs the key {key!r}")
    if entry["kind"] == "random":
        try:
            find_shape(entry[key])
        except Invalid as error:
            raise Invalid(f"{where}.shape: {error}") from None
    elif "overrides" in entry:
        raise Invalid(f"{where}.overrides: only a model of kind 'random' has them")
    return entry[key]


def _check_model(model: Model, where: str) -> None:
    folder = locate(model.kind, model.source)
    if model.kind == "local" and not (folder / "config.json").is_file():
        root = os.environ.get(MODELS_VARIABLE)
        hint = "" if root else f" (the environment variable {MODELS_VARIABLE} is not set)"
        raise Invalid(f"{where}.path: expected a folder with config.json: {folder}{hint}")


def locate(kind: str, source: str) -> Path:
    """Folder of a model's weights: below $PRUNEBENCH_MODELS if it does not exist by itself."""
    given = Path(source).expanduser()
    root = os.environ.get(MODELS_VARIABLE)
    beside = kind == "local" and root and not given.is_absolute() and not given.is_dir()
    return Path(root) / given if beside and root else given


def _check_names(campaign: Campaign) -> None:
    if campaign.reference is not None and campaign.reference not in campaign.rows:
        where = f"{campaign.file}: reference"
        raise Invalid(unknown(where, campaign.reference, campaign.rows))
    if campaign.zeroshot is not None:
        from prunebench.evaluation.zeroshot import load_suite

        try:
            load_suite(campaign.zeroshot["suite"])
        except Invalid as error:
            raise Invalid(f"{campaign.file}: zeroshot.suite: {error}") from None


def _check_data(campaign: Campaign) -> None:
    """What can be known to be missing before any job starts."""
    if campaign.source == "hub":
        return
    if campaign.source == "random":
        _check_random(campaign)
    try:
        source = campaign_source(campaign)
        if campaign.source in ("demo", "random"):
            return
        recovery = campaign.recovery or {}
        tuned = {"corpus": recovery.get("text", ()), "split": "train"}
        for item in [*campaign.perplexity, *filter(None, [campaign.calibration]), tuned]:
            for corpus in corpora_of(item["corpus"]):
                source.corpus_file(corpus, item["split"])
        if "instructions" in recovery:
            source.instructions_file(recovery["instructions"])
    except Invalid as error:
        raise Invalid(f"{campaign.file}: {error}") from None


def _check_random(campaign: Campaign) -> None:
    """Random letters may never stand for a corpus in a number that means something."""
    where = f"{campaign.file}: data.source: 'random'"
    trained = [model.name for model in campaign.models.values() if model.kind != "random"]
    if trained:
        raise Invalid(f"{where} is for models of kind 'random' only, not for {trained[0]!r}")
    if campaign.perplexity or campaign.zeroshot:
        raise Invalid(f"{where}: there is no text to evaluate on; leave out perplexity, zeroshot")


def campaign_source(campaign: Campaign) -> Source:
    """The campaign's data source."""
    return open_source(campaign.source, campaign.data_root, demo_root=DEMO_ROOT)
