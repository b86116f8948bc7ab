"""What the tables of a campaign were made of, and what was written with them: views.json.

A view that was deleted, cut or edited is so known, and a record that is not the one that the tables
show; both come back with the next call.
"""

from __future__ import annotations

import json
from pathlib import Path

from prunebench.campaign.config import Campaign, Cell
from prunebench.campaign.paths import VIEWS, CampaignFolder
from prunebench.errors import Invalid
from prunebench.files import read_yaml
from prunebench.record import digests, stages, store
from prunebench.untyped import Json, JsonMap
from prunebench.whole import write_json


def keep(campaign: Campaign) -> None:
    """Write views.json: digests of the views, of the records behind them and of the campaign."""
    out = campaign.out
    write_json(
        out.manifest,
        {
            "views": digests.of_files(out.root, [path for path in views(out) if path.exists()]),
            "records": _records(campaign),
            "campaign": digests.of_file(out.campaign),
        },
    )


def read(out: CampaignFolder) -> Json:
    """What views.json says; nothing where it is not whole."""
    empty: Json = {"views": {}, "records": {}, "campaign": ""}
    try:
        found = stages.parse(out.manifest)
    except Invalid:
        return empty
    fits = all(isinstance(found.get(key), type(value)) for key, value in empty.items())
    return found if fits else empty


def fault(campaign: Campaign, kept: JsonMap) -> str | None:
    """Why the tables are to be made anew; None where they are those of this campaign.

    kept  the campaign as its results keep it
    """
    out = campaign.out
    known = read(out)
    if not known["views"]:
        return "the tables have not been made"
    try:
        same = _settings(read_yaml(out.campaign)) == _settings(kept)
    except (Invalid, ValueError, TypeError):
        same = False
    if not same or known["campaign"] != digests.of_file(out.campaign):
        return f"{out.campaign} is not the campaign of the tables"
    if lost := [path for path in views(out) if not path.exists()]:
        return f"{lost[0]} is missing"
    if changed := digests.changed(out.root, known["views"]):
        return f"{out.root / changed[0]} is not what was written"
    if known["records"] != _records(campaign):
        return "records are not those of the tables"
    return None


def chain_of(record: Path, cell: Cell, campaign: str, known: JsonMap) -> dict[str, str] | None:
    """What a record rests on; None where it is not whole, not of this cell, or does not say.

    known  what views.json says: a record that it knows is not checked again
    """
    try:
        if known["records"].get(cell.path) == digests.of_file(record):
            found = json.loads(record.read_bytes())
        else:
            found = store.as_mapping(store.read(record))
        own = found["cell"]
    except (OSError, ValueError, KeyError, TypeError, Invalid):
        return None
    place = Cell(own["model"], own["label"], own["sparsity"], own["seed"])
    if (own["campaign"], place) != (campaign, cell):
        return None
    chain: dict[str, str] | None = found.get("chain")
    return chain


def views(out: CampaignFolder) -> list[Path]:
    """The files that the tables are written to, and the folder of plots."""
    return [*(out.view(name) for name in VIEWS), out.view("plots")]


def _settings(campaign: JsonMap) -> str:
    """A campaign without the folders of its plugins, which another checkout has elsewhere."""
    told = {key: value for key, value in dict(campaign).items() if key != "plugins"}
    return json.dumps(told, sort_keys=True, default=list)


def _records(campaign: Campaign) -> dict[str, str]:
    """Digest of each cell's record that is there."""
    paths = {
        cell.path: campaign.out.cell(cell).record
        for cell in (*campaign.cells, *campaign.step_cells)
    }
    return {name: digests.of_file(path) for name, path in paths.items() if path.is_file()}
