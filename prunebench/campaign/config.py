"""A campaign file becomes a validated Campaign and its cells. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from prunebench.campaign.explain import checked
from prunebench.campaign.parts import (
    Calibration,
    CampaignFile,
    ModelEntry,
    Part,
    Profile,
    Resources,
    SparsityOf,
    Steps,
    SuiteRun,
    Texts,
)
from prunebench.campaign.paths import CampaignFolder
from prunebench.campaign.reading import below, from_here
from prunebench.campaign.rows import Row, build_rows
from prunebench.campaign.settings import (
    Recovery,
    check_corpora,
    check_once,
    read_protocols,
    read_recovery,
)
from prunebench.errors import Invalid, unknown
from prunebench.evaluation.protocols import Protocol
from prunebench.files import check_plain, read_yaml
from prunebench.models.shapes import find_shape
from prunebench.models.shipped import MODELS_VARIABLE, check_shipped, locate
from prunebench.plugins.discovery import Plugins, discover
from prunebench.pruning.architectures import use
from prunebench.text.source import Source, open_source


class Model(Part):
    """A model entry. `source` is a hub id, a folder or a shape, as the campaign file writes it.

    overrides  of a random model: keys of its configuration with other values
    identity   digests of what a local folder holds, where they are known
    families   folders of families outside the project that may be its
    """

    name: str
    kind: str
    source: str
    revision: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    overrides: dict[str, JsonValue] = {}
    identity: dict[str, str] = {}
    families: tuple[str, ...] = ()


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

    def under(self, label: str) -> Cell:
        """The cell of another row for the same model, sparsity and seed."""
        return Cell(self.model, label, self.sparsity, self.seed)


@dataclass(frozen=True)
class Campaign:
    """A validated campaign file."""

    name: str
    file: str
    models: Mapping[str, Model]
    rows: Mapping[str, Row]
    plugins: Plugins
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    source: str
    data_root: str | None
    calibration: Calibration | None
    recovery: Recovery | None
    perplexity: tuple[Protocol, ...]
    zeroshot: SuiteRun | None
    generation: SuiteRun | None
    texts: Texts | None
    profile: Profile | None
    sparsity_of: SparsityOf = "model"
    resources: Resources = field(default_factory=Resources)
    keep_models: Literal["none", "last", "all"] = "all"
    reference: str | None = None
    seeds_at: Mapping[float, tuple[int, ...]] = field(default_factory=dict)
    steps: Steps | None = None
    papers: tuple[str, ...] = ()
    folder: Path | None = None

    @property
    def asked(self) -> tuple[SuiteRun, ...]:
        """The suites that models are asked, with how."""
        return tuple(run for run in (self.zeroshot, self.generation) if run is not None)

    @property
    def suites(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(run.suite for run in self.asked)

    @property
    def out(self) -> CampaignFolder:
        """Where results go: results/<name>, or `folder`."""
        return CampaignFolder(self.folder or Path("results") / self.name)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, dense first, in the order of the campaign file."""
        return tuple(
            Cell(model, row.label, sparsity, seed)
            for model in self.models
            for row in sorted(self.rows.values(), key=lambda r: not self._unpruned(r))
            for sparsity in ((0.0,) if self._unpruned(row) else row.sparsities or self.sparsities)
            for seed in self._seeds(row, sparsity)
        )

    def __contains__(self, cell: object) -> bool:
        """Whether a cell is one of the campaign's."""
        return cell in self._known

    @cached_property
    def _known(self) -> frozenset[Cell]:
        return frozenset(self.cells)

    @cached_property
    def code(self) -> Mapping[str, str]:
        """Digest of the code of each method that a row or a step names, as it was when asked for:
        once for all cells, since each one's spec has it."""
        steps = self.steps.rows if self.steps else ()
        names = {row.method for row in self.rows.values()} | {step.method for step in steps}
        return {name: self.plugins[name].digest() for name in names}

    @property
    def step_cells(self) -> list[Cell]:
        """A cell for each model and each single step; nothing of the model is removed there."""
        rows = self.steps.rows if self.steps else ()
        return [Cell(model, row.label, 0.0, self.seeds[0]) for model in self.models for row in rows]

    @property
    def dense(self) -> Row:
        """The unpruned row without recovery that everything is compared with."""
        return next(r for r in self.rows.values() if self._unpruned(r) and not r.recovery)

    def pruned(self, cell: Cell) -> Cell:
        """The cell whose pruning job this one shares: the twin without recovery, or itself."""
        return cell.under(self.rows[cell.label].pruned_as)

    def _unpruned(self, row: Row) -> bool:
        return self.plugins[row.method].unpruned

    def _seeds(self, row: Row, sparsity: float) -> tuple[int, ...]:
        """One seed is enough for what no seed can change; the others would be fake repeats."""
        seeds = row.seeds or self.seeds_at.get(sparsity, self.seeds)
        return seeds[:1] if self.is_fixed(row) and not row.recovery else seeds

    def is_fixed(self, row: Row) -> bool:
        """Whether no seed changes the row's decision, nor that of the row it is matched to."""
        own = self.plugins[row.method].deterministic
        others = (r for r in self.rows.values() if r.pruned_as == row.matched)
        return own and all(self.is_fixed(other) for other in others)


DEMO_ROOT = Path("results") / "_demo" / "world"


def load_campaign(path: str | Path) -> Campaign:
    """Read and check a campaign file, and that the models and files it names exist.

    Raises Invalid with one line that names file, key and what was expected.
    """
    return build(read_yaml(Path(path)), file=str(path))


def build(
    raw: object, *, file: str, folder: Path | None = None, check_files: bool = True
) -> Campaign:
    """Check a campaign given as plain data; `file` is named in errors.

    folder       what `plugins` are relative to; default: the folder of `file`
    check_files  whether models and data must be there, as a run needs and a report does not
    """
    check_plain(raw, file)
    given = checked(CampaignFile, raw, where=file)
    place = folder or Path(file).parent
    plugins = _discover(given.plugins, place, file)
    recovery = read_recovery(given.recovery, file)
    if given.calibration is not None:
        check_corpora(f"{file}: calibration.corpus", given.calibration.corpus)
    campaign = Campaign(
        name=given.name,
        file=file,
        models=_models(given.models, _families(given.families, place, file), file),
        rows=build_rows(given, plugins, file=file),
        plugins=plugins,
        sparsities=tuple(sorted(given.sparsities)),
        sparsity_of=given.sparsity_of,
        seeds=given.seeds,
        source=given.data.source,
        data_root=given.data.root,
        calibration=given.calibration,
        recovery=recovery,
        perplexity=tuple(read_protocols(given.perplexity, file)),
        zeroshot=given.zeroshot,
        generation=given.generation,
        texts=given.texts,
        profile=given.profile,
        resources=given.resources,
        keep_models=given.keep_models,
        reference=given.reference,
        seeds_at=_seeds_at(given, file),
        steps=given.steps,
        papers=given.papers,
    )
    _check_names(campaign)
    check_once(campaign.perplexity, file)
    if check_files:
        for i, model in enumerate(campaign.models.values()):
            _check_model(model, f"{file}: models[{i}]")
        _check_data(campaign)
    return campaign


def _discover(places: tuple[str, ...], folder: Path, file: str) -> Plugins:
    try:
        return discover(below(folder, place) for place in places)
    except Invalid as error:
        raise Invalid(f"{file}: plugins: {error}") from None


def _seeds_at(given: CampaignFile, file: str) -> dict[float, tuple[int, ...]]:
    """Seeds by sparsity. Raises Invalid for a sparsity that is named twice or that no row has."""
    rows = (entry.sparsities or () for entry in given.methods)
    known = {*given.sparsities, *(sparsity for row in rows for sparsity in row)}
    found: dict[float, tuple[int, ...]] = {}
    for i, entry in enumerate(given.seeds_at):
        for sparsity in entry.sparsities:
            where = f"{file}: seeds_at[{i}].sparsities: {sparsity:g}"
            if sparsity not in known:
                raise Invalid(f"{where}: no row has this sparsity")
            if sparsity in found:
                raise Invalid(f"{where}: is named twice")
            found[sparsity] = entry.seeds
    return found


def _families(places: tuple[str, ...], folder: Path, file: str) -> tuple[str, ...]:
    """Folders of families outside the project, from the working folder on; they are known then."""
    found = []
    for place in places:
        try:
            found.append(from_here(use(below(folder, place)).folder))
        except Invalid as error:
            raise Invalid(f"{file}: families: {error}") from None
    return tuple(found)


def _models(
    entries: tuple[ModelEntry, ...], families: tuple[str, ...], file: str
) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for i, entry in enumerate(entries):
        where = f"{file}: models[{i}]"
        if entry.name in models:
            raise Invalid(f"{where}.name: {entry.name!r} is already taken")
        models[entry.name] = Model(
            name=entry.name,
            kind=entry.kind,
            source=_model_source(entry, where),
            revision=entry.revision,
            dtype=entry.dtype,
            trust_remote_code=entry.trust_remote_code,
            overrides=entry.overrides or {},
            families=families,
        )
    return models


def _model_source(entry: ModelEntry, where: str) -> str:
    if entry.kind == "demo":
        return "demo-llama"
    key = {"local": "path", "hub": "id", "random": "shape"}[entry.kind]
    source: str | None = getattr(entry, key)
    if source is None:
        raise Invalid(f"{where}: kind {entry.kind!r} needs the key {key!r}")
    if entry.kind == "random":
        try:
            find_shape(source)
        except Invalid as error:
            raise Invalid(f"{where}.shape: {error}") from None
    elif entry.overrides is not None:
        raise Invalid(f"{where}.overrides: only a model of kind 'random' has them")
    return source


def _check_model(model: Model, where: str) -> None:
    folder = locate(model.kind, model.source)
    if model.kind == "demo":
        check_shipped()
    if model.kind == "local" and not (folder / "config.json").is_file():
        root = os.environ.get(MODELS_VARIABLE)
        hint = "" if root else f" (the environment variable {MODELS_VARIABLE} is not set)"
        raise Invalid(f"{where}.path: expected a folder with config.json: {folder}{hint}")


def _check_names(campaign: Campaign) -> None:
    if campaign.reference is not None and campaign.reference not in campaign.rows:
        where = f"{campaign.file}: reference"
        raise Invalid(unknown(where, campaign.reference, campaign.rows))
    for i, row in enumerate(campaign.steps.rows if campaign.steps else ()):
        where = f"{campaign.file}: steps.rows[{i}]"
        if row.method not in campaign.plugins:
            raise Invalid(f"{where}.method: {campaign.plugins.why_not(row.method)}")
        if row.label in campaign.rows:
            raise Invalid(f"{where}.label: {row.label!r} is already taken")
    for i, name in enumerate(campaign.papers):
        if name not in campaign.plugins:
            raise Invalid(f"{campaign.file}: papers[{i}]: {campaign.plugins.why_not(name)}")
    for key, asked in (("zeroshot", campaign.zeroshot), ("generation", campaign.generation)):
        if asked is None:
            continue
        from prunebench.evaluation.zeroshot import load_suite

        try:
            load_suite(asked.suite)
        except Invalid as error:
            raise Invalid(f"{campaign.file}: {key}.suite: {error}") from None


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
        for protocol in campaign.perplexity:
            source.corpus_file(protocol.corpus, protocol.split)
        if campaign.calibration is not None:
            for corpus in campaign.calibration.corpus:
                source.corpus_file(corpus, campaign.calibration.split)
        if campaign.recovery is not None:
            for corpus in campaign.recovery.text:
                source.corpus_file(corpus, "train")
            if campaign.recovery.instructions is not None:
                source.instructions_file(campaign.recovery.instructions)
    except Invalid as error:
        raise Invalid(f"{campaign.file}: {error}") from None


def _check_random(campaign: Campaign) -> None:
    """Random letters may never stand for a corpus in a number that means something."""
    where = f"{campaign.file}: data.source: 'random'"
    trained = [model.name for model in campaign.models.values() if model.kind != "random"]
    if trained:
        raise Invalid(f"{where} is for models of kind 'random' only, not for {trained[0]!r}")
    if campaign.perplexity or campaign.zeroshot or campaign.generation:
        raise Invalid(
            f"{where}: there is no text to evaluate on; leave out perplexity, zeroshot, generation"
        )


def campaign_source(campaign: Campaign) -> Source:
    """The campaign's data source."""
    return open_source(campaign.source, campaign.data_root, demo_root=DEMO_ROOT)
