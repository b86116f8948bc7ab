"""Two rows' accuracies compared item by item, from the outcomes that lie beside their records.

Records hold such comparisons with the dense row and the reference row alone; a claim may be about
any two.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.campaign.config import Cell
from prunebench.campaign.paths import CampaignFolder, CellPaths
from prunebench.errors import Invalid
from prunebench.leaderboard.numbers.differences import Gap
from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.papers.claims import BY_ITEM, Pairing
from prunebench.results.gather import broken_items
from prunebench.untyped import Json

if TYPE_CHECKING:
    from prunebench.record.form import Record

PAIRED = "paired items"


def pairing(folder: Path) -> Pairing:
    """Compares two records of the campaign in `folder`: first minus second, as a fraction.

    None where the quantity is no accuracy of items, or items of either are not there, were changed
    since they were written, or are of another harness or other documents.
    """
    out = CampaignFolder(folder)

    @cache
    def compared(mine: CellPaths, other: CellPaths, items: str) -> Json | None:
        from prunebench.evaluation.zeroshot import paired

        own, its = getattr(mine, items), getattr(other, items)
        if broken_items(mine, own) or broken_items(other, its):
            return None
        try:
            return paired(its, own)
        except Invalid:  # of another harness, or of other documents
            return None

    def gap(mine: Record, other: Record, quantity: Quantity) -> Gap | None:
        generated = quantity.detail("answers") == "generated"
        if quantity.kind not in BY_ITEM:
            return None
        items = "generation_items" if generated else "items"
        versus = compared(out.cell(_cell(mine)), out.cell(_cell(other)), items)
        if versus is None:
            return None
        found = versus["tasks"].get(quantity.name) if quantity.kind == "task" else versus["mean"]
        return found and Gap(found["difference"], found["low"], found["high"], PAIRED)

    return gap


def _cell(record: Record) -> Cell:
    named = record.cell
    return Cell(named.model, named.label, named.sparsity, named.seed)
