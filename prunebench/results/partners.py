"""Which cells a cell is compared with item by item."""

from __future__ import annotations

from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.paths import CellPaths
from prunebench.campaign.specs import dense_cell


def partners(campaign: Campaign, cell: Cell) -> dict[str, CellPaths]:
    """Cells that this one is compared with item by item, under the record's keys."""
    found = {"versus_dense": dense_cell(campaign, cell.model)}
    if campaign.reference is not None and cell.sparsity > 0:
        near = [
            Cell(cell.model, campaign.reference, sparsity, seed)
            for sparsity in (cell.sparsity, 0.0)  # 0: a reference that is never pruned
            for seed in (cell.seed, campaign.seeds[0])
        ]
        there = (other for other in near if other in campaign)
        found["versus_reference"] = next(there, near[0])
    return {key: campaign.out.cell(other) for key, other in found.items()}
