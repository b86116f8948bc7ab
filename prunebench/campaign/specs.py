"""From a campaign to jobs: what each needs to know, as JSON text that goes on its command line.

The text is the job's whole input besides files. Snakemake keeps it as a rule parameter, so that a
job runs again exactly when something that it depends on has changed: its own cell, the data and the
model (both by content), or the code of its method, whose folder's digest is part of it. A job's
result repeats its spec, so that a record follows from results alone. Imports no torch.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import JsonValue

from prunebench.campaign import inputs
from prunebench.campaign.config import DEMO_ROOT, Campaign, Cell, Model
from prunebench.campaign.parts import Calibration, Part, Profile, SparsityOf, SuiteRun, Texts
from prunebench.campaign.reading import from_here
from prunebench.campaign.rows import Row
from prunebench.campaign.settings import Recovery
from prunebench.evaluation.protocols import Protocol
from prunebench.plugins.discovery import Plugin, is_outside
from prunebench.text.source import Source, open_source


class DataSpec(Part):
    """Where a job's text comes from. `inputs`: digests, or commits, of what it reads there."""

    source: str
    root: str | None = None
    inputs: dict[str, str] = {}

    def open(self) -> Source:
        """The data source, at the commits that were planned."""
        found = open_source(self.source, self.root, demo_root=DEMO_ROOT)
        return replace(found, commits=self.inputs) if self.source == "hub" else found


class CellFacts(Part):
    """Which cell of which campaign a record is of."""

    campaign: str
    model: str
    label: str
    method: str
    params: dict[str, JsonValue]
    sparsity: float
    sparsity_of: SparsityOf = "model"
    seed: int
    recovery: bool
    matched: str | None = None
    step: bool = False

    @property
    def cell(self) -> Cell:
        """Its place in the grid."""
        return Cell(self.model, self.label, self.sparsity, self.seed)


class PruneSpec(Part):
    """Input of a pruning job.

    plugins   the folder of a plugin that lies outside the project
    recovery  is there for methods that tune by themselves alone
    """

    model: Model
    data: DataSpec
    sparsity: float
    sparsity_of: SparsityOf = "model"
    seed: int
    method: str
    params: dict[str, JsonValue]
    multiple_of: dict[str, int] = {}
    plugins: tuple[str, ...] = ()
    plugin_sha256: str
    calibration: Calibration | None = None
    recovery: Recovery | None = None


class RecoverSpec(Part):
    """Input of a recovery job, which starts from the output of a pruning job."""

    model: Model
    data: DataSpec
    seed: int
    recovery: Recovery


class EvaluateSpec(Part):
    """Input of an evaluation job. `pruned_as`: label of the row whose pruning job it rests on."""

    cell: CellFacts
    pruned_as: str
    model: Model
    data: DataSpec
    perplexity: tuple[Protocol, ...] = ()
    zeroshot: SuiteRun | None = None
    generation: SuiteRun | None = None
    texts: Texts | None = None


class ProfileSpec(Part):
    """Input of a profiling job: one model's dense and pruned versions, measured in turns."""

    model: Model
    profile: Profile


class StepSpec(Part):
    """Input of a job that measures one step of a method; `length`: tokens of a sequence."""

    cell: CellFacts
    model: Model
    micro_batches: int
    length: int
    rounds: int
    plugins: tuple[str, ...] = ()
    plugin_sha256: str


class LeakSpec(Part):
    """All that the check of training text against evaluation text depends on."""

    data: DataSpec
    calibration: Calibration | None = None
    recovery: Recovery | None = None
    perplexity: tuple[Protocol, ...] = ()
    suites: tuple[str, ...] = ()


def prune_spec(campaign: Campaign, cell: Cell) -> PruneSpec:
    """For a pruning job. `cell.label` is a row's `pruned_as`."""
    row = pruned_row(campaign, cell.label)
    plugin = campaign.plugins[row.method]
    calibration = {} if plugin.unpruned else inputs.of_calibration(campaign)
    tuning = inputs.of_recovery(campaign) if plugin.tunes_itself else {}
    return PruneSpec(
        model=_model(campaign, cell.model),
        data=_data(campaign, {**calibration, **tuning}),
        sparsity=cell.sparsity,
        sparsity_of=campaign.sparsity_of,
        seed=cell.seed,
        method=row.method,
        params=dict(row.params),
        multiple_of=dict(row.multiple_of),
        plugins=_places(plugin),
        plugin_sha256=campaign.code[plugin.name],
        calibration=campaign.calibration,
        recovery=campaign.recovery if plugin.tunes_itself else None,
    )


def recover_spec(campaign: Campaign, cell: Cell) -> RecoverSpec:
    """For a recovery job."""
    assert campaign.recovery is not None  # no row is recovered without
    return RecoverSpec(
        model=_model(campaign, cell.model),
        data=_data(campaign, inputs.of_recovery(campaign)),
        seed=cell.seed,
        recovery=campaign.recovery,
    )


def evaluate_spec(campaign: Campaign, cell: Cell) -> EvaluateSpec:
    """For an evaluation job."""
    return EvaluateSpec(
        cell=cell_facts(campaign, cell),
        pruned_as=campaign.rows[cell.label].pruned_as,
        model=_model(campaign, cell.model),
        data=_data(campaign, inputs.of_evaluation(campaign)),
        perplexity=campaign.perplexity,
        zeroshot=campaign.zeroshot,
        generation=campaign.generation,
        texts=campaign.texts,
    )


def profile_spec(campaign: Campaign, model: str) -> ProfileSpec:
    """For a profiling job."""
    assert campaign.profile is not None  # no row is profiled without
    return ProfileSpec(model=_model(campaign, model), profile=campaign.profile)


def step_spec(campaign: Campaign, cell: Cell) -> StepSpec:
    """For a job that measures a single step."""
    assert campaign.steps is not None  # no step is measured without
    entry = next(row for row in campaign.steps.rows if row.label == cell.label)
    plugin = campaign.plugins[entry.method]
    return StepSpec(
        cell=step_facts(campaign, cell),
        model=_model(campaign, cell.model),
        micro_batches=entry.micro_batches or campaign.steps.micro_batches,
        length=entry.length or campaign.steps.length,
        rounds=campaign.steps.rounds,
        plugins=_places(plugin),
        plugin_sha256=campaign.code[plugin.name],
    )


def step_facts(campaign: Campaign, cell: Cell) -> CellFacts:
    """The identity of a single step's cell, as its record has it."""
    assert campaign.steps is not None  # no step is measured without
    entry = next(row for row in campaign.steps.rows if row.label == cell.label)
    return CellFacts(
        campaign=campaign.name,
        model=cell.model,
        label=cell.label,
        method=entry.method,
        params=dict(entry.params),
        sparsity=cell.sparsity,
        seed=cell.seed,
        recovery=False,
        step=True,
    )


def leak_spec(campaign: Campaign) -> LeakSpec:
    """For the check of training text."""
    read = {
        **inputs.of_calibration(campaign),
        **inputs.of_recovery(campaign),
        **inputs.of_evaluation(campaign),
    }
    return LeakSpec(
        data=_data(campaign, read),
        calibration=campaign.calibration,
        recovery=campaign.recovery,
        perplexity=campaign.perplexity,
        suites=campaign.suites,
    )


def cell_facts(campaign: Campaign, cell: Cell) -> CellFacts:
    """The identity of a cell, as its record has it."""
    row = campaign.rows[cell.label]
    return CellFacts(
        campaign=campaign.name,
        model=cell.model,
        label=cell.label,
        method=row.method,
        params=dict(row.params),
        sparsity=cell.sparsity,
        sparsity_of=campaign.sparsity_of,
        seed=cell.seed,
        recovery=row.recovery,
        matched=row.matched,
    )


def pruned_row(campaign: Campaign, pruned_as: str) -> Row:
    """A row that is pruned under this name (rows that differ only in recovery share it)."""
    return next(row for row in campaign.rows.values() if row.pruned_as == pruned_as)


def matched_cell(campaign: Campaign, cell: Cell) -> Cell | None:
    """The cell whose decision gives the numbers of kept units; None if the row is not matched."""
    if (name := pruned_row(campaign, cell.label).matched) is None:
        return None
    fixed = campaign.is_fixed(pruned_row(campaign, name))
    return Cell(cell.model, name, cell.sparsity, campaign.seeds[0] if fixed else cell.seed)


def profiled_cells(campaign: Campaign, model: str) -> list[Cell]:
    """Pruning jobs whose models are measured: one for each row and sparsity, of the first seed.

    Time and memory depend on shapes, not on values: other seeds and the tuned twin share them.
    """
    first: dict[str, int] = {}
    found: dict[Cell, None] = {}
    for cell in (c for c in campaign.cells if c.model == model):
        if first.setdefault(cell.label, cell.seed) == cell.seed:
            found[campaign.pruned(cell)] = None
    return list(found)


def dense_cell(campaign: Campaign, model: str) -> Cell:
    """The cell of the unpruned model."""
    return Cell(model, campaign.dense.label, 0.0, campaign.seeds[0])


def _model(campaign: Campaign, name: str) -> Model:
    """A model entry with what identifies it by content; a hub revision becomes its commit."""
    entry = campaign.models[name]
    identity = inputs.of_model(campaign, entry)
    revision = identity.pop("revision", entry.revision)
    return entry.model_copy(update={"revision": revision, "identity": identity})


def _places(plugin: Plugin) -> tuple[str, ...]:
    """The folder of a plugin outside the project, from the working folder on where it is below."""
    if not is_outside(plugin):
        return ()
    return (from_here(plugin.folder),)


def _data(campaign: Campaign, read: inputs.Digests) -> DataSpec:
    return DataSpec(source=campaign.source, root=campaign.data_root, inputs=dict(read))
