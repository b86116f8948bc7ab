"""From a campaign to jobs: what each needs to know, as JSON text that goes on its command line.

The text is the job's whole input besides files. Snakemake keeps it as a rule parameter, so that a
job runs again exactly when something that it depends on has changed: its own cell, the data and the
model (both by content), or the code of its method, whose folder's digest is part of it. Imports no
torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from prunebench.campaign import inputs
from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.rows import Row


def prune_spec(campaign: Campaign, cell: Cell) -> str:
    """Input of a pruning job. `cell.label` is a row's `pruned_as`."""
    row = pruned_row(campaign, cell.label)
    plugin = campaign.plugins[row.method]
    return _text(
        **_common(campaign, cell),
        method=row.method,
        params=dict(row.params),
        multiple_of=dict(row.multiple_of),
        plugins=list(campaign.plugin_folders),
        plugin_sha256=plugin.digest(),
        calibration=campaign.calibration,
        recovery=campaign.recovery if plugin.tunes_itself else None,
        inputs={
            **({} if plugin.reference else inputs.of_calibration(campaign)),
            **(inputs.of_tuning(campaign) if plugin.tunes_itself else {}),
        },
    )


def recover_spec(campaign: Campaign, cell: Cell) -> str:
    """Input of a recovery job, which starts from the output of a pruning job."""
    return _text(
        **_common(campaign, cell), recovery=campaign.recovery, inputs=inputs.of_tuning(campaign)
    )


def evaluate_spec(campaign: Campaign, cell: Cell) -> str:
    """Input of an evaluation job."""
    return _text(
        **_common(campaign, cell),
        perplexity=list(campaign.perplexity),
        zeroshot=campaign.zeroshot,
        inputs=inputs.of_evaluation(campaign),
    )


def profile_spec(campaign: Campaign, model: str) -> str:
    """Input of a profiling job: one model's dense and pruned versions, measured in turns."""
    return _text(model=_model(campaign, model), profile=campaign.profile)


def leak_spec(campaign: Campaign) -> str:
    """All that the check of training text against evaluation text depends on."""
    return _text(
        source=campaign.source,
        data_root=campaign.data_root,
        calibration=campaign.calibration,
        instructions=campaign.recovery and campaign.recovery.get("instructions"),
        text=campaign.recovery and campaign.recovery.get("text"),
        perplexity=list(campaign.perplexity),
        suite=campaign.zeroshot and campaign.zeroshot["suite"],
        inputs={
            **inputs.of_calibration(campaign),
            **inputs.of_tuning(campaign),
            **inputs.of_evaluation(campaign),
        },
    )


def pruned_row(campaign: Campaign, pruned_as: str) -> Row:
    """A row that is pruned under this name (rows that differ only in recovery share it)."""
    return next(row for row in campaign.rows.values() if row.pruned_as == pruned_as)


def stage(campaign: Campaign, cell: Cell) -> str:
    """File below results/<campaign>/cells/ that describes the cell's final model."""
    row = campaign.rows[cell.label]
    if row.recovery:
        return f"{cell.path}/recover.json"
    return f"{Cell(cell.model, row.pruned_as, cell.sparsity, cell.seed).path}/prune.json"


def matched_cell(campaign: Campaign, cell: Cell) -> Cell | None:
    """The cell whose decision gives the numbers of kept units; None for a row of its own mind."""
    if (name := pruned_row(campaign, cell.label).matched) is None:
        return None
    fixed = campaign.is_fixed(pruned_row(campaign, name))
    return Cell(cell.model, name, cell.sparsity, campaign.seeds[0] if fixed else cell.seed)


def profiled_cells(campaign: Campaign, model: str, pruned_as: str) -> list[Cell]:
    """Pruning jobs whose models are measured: one per sparsity, of the first seed.

    Time and memory depend on shapes, not on values: other seeds and the tuned twin share them.
    """
    first = pruned_row(campaign, pruned_as).label
    cells = [c for c in campaign.cells if (c.model, c.label) == (model, first)]
    seed = cells[0].seed
    return [Cell(model, pruned_as, cell.sparsity, seed) for cell in cells if cell.seed == seed]


def dense_cell(campaign: Campaign, model: str) -> Cell:
    """The cell of the unpruned model."""
    return Cell(model, campaign.dense.label, 0.0, campaign.seeds[0])


def _common(campaign: Campaign, cell: Cell) -> dict[str, Any]:
    return {
        "model": _model(campaign, cell.model),
        "sparsity": cell.sparsity,
        "seed": cell.seed,
        "source": campaign.source,
        "data_root": campaign.data_root,
    }


def _model(campaign: Campaign, name: str) -> dict[str, Any]:
    """A model entry with what identifies it by content; a hub revision becomes its commit."""
    identity = inputs.of_model(campaign, campaign.models[name])
    entry = asdict(campaign.models[name])
    revision = identity.pop("revision", entry["revision"])
    return {**entry, "revision": revision, "identity": identity}


def _text(**parts: Any) -> str:
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))
