"""What a campaign is allowed to do, and should know about before it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.evaluation.protocols import resolve_bos
from prunebench.models.shapes import find_shape, shapes
from prunebench.pruning.architectures import relies_on_bos

if TYPE_CHECKING:
    from prunebench.campaign.config import Campaign, Model


def warnings(campaign: Campaign) -> list[str]:
    """One line for each setting that makes a number mean little. Looks at local files only."""
    found = []
    for model in campaign.models.values():
        if not relies_on_bos(_family(model)):
            continue
        asked = {protocol.name: protocol.bos for protocol in campaign.perplexity}
        if campaign.calibration is not None:
            asked["calibration"] = campaign.calibration.bos
        found += [
            f"{campaign.file}: {name}: bos: {bos}, but the model {model.name} relies on BOS in "
            "front of every window; leave bos out, or say window"
            for name, bos in asked.items()
            if resolve_bos(bos, relies_on_bos=True) != "window"
        ]
    return found


def _family(model: Model) -> str:
    """The model type, where it can be known without loading or downloading anything."""
    from prunebench.models.shipped import locate

    if model.kind == "random":
        return str(find_shape(model.source).config["model_type"])
    by_id = {shape.hub.lower(): shape for shape in shapes().values()}
    if model.kind == "hub" and model.source.lower() in by_id:
        return str(by_id[model.source.lower()].config["model_type"])
    file = locate(model.kind, model.source) / "config.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, Invalid):
        return ""
