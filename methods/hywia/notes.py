"""What the record learns of the gates: blends to be plotted, the training curve, score sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from prunebench import Structure
from prunebench.pruning.saliency import Side
from prunebench.untyped import Json

from .fusion import Attentions


def blend_maps(attentions: Attentions, structures: Mapping[str, Structure]) -> dict[str, Json]:
    """Heat maps, layers x matrices, of the fine score's weight: its mean and spread over channels.

    A weight of 1 is LLM-Pruner's element-wise score, 0 its vector-wise one.
    """
    cells = {
        (structures[name].layer, _short(side)): attention[:, 0].detach()
        for name, group in attentions.items()
        for side, attention in group.items()
    }
    mean = "weight of the fine score, mean over channels"
    spread = "weight of the fine score, standard deviation over channels"
    return {
        "blend": _heatmap(mean, cells, lambda w: float(w.mean())),
        "blend_spread": _heatmap(spread, cells, lambda w: float(w.std(correction=0))),
    }


def _heatmap(
    title: str, cells: Mapping[tuple[int | None, str], Tensor], of: Callable[[Tensor], float]
) -> Json:
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    matrices = list(dict.fromkeys(matrix for _, matrix in cells))
    return {
        "plot": "heatmap",
        "title": title,
        "rows": [f"layer {layer}" for layer in layers],
        "columns": matrices,
        "values": [
            [of(cells[at, m]) if (at, m) in cells else None for m in matrices] for at in layers
        ],
    }


def _short(side: Side) -> str:
    """A matrix's name inside its layer: model.layers.3.mlp.up_proj.weight -> up_proj."""
    return side.parameter.removesuffix(".weight").rpartition(".")[2]


def training_curve(losses: Sequence[float]) -> Json:
    """The calibration loss of each step's samples, under the soft unit gates of that step."""
    return {
        "plot": "line",
        "title": "training of the gates, units weighed softly",
        "x_label": "step",
        "y_label": "calibration loss (nats per token)",
        "series": {"loss of the step's samples": [[i + 1, loss] for i, loss in enumerate(losses)]},
    }


def score_scale(fine: Mapping[Side, Tensor]) -> dict[str, float]:
    """Smallest and largest mean fine score of a matrix: raw scores decide what a drawn gate does.

    Well below 1 it is a constant over channels; at 10 and more it saturates at random.
    """
    means = [float(values.mean()) for values in fine.values()]
    return {"smallest": min(means), "largest": max(means)}
