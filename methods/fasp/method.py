"""fasp: Wanda's score by column, and what is kept of the output matrices fitted anew (FASP)."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench import Context, Decision, Structure
from prunebench.pruning.restoration import restore
from prunebench.pruning.signals import Signal
from prunebench.untyped import Json, Plain


def prune(model: PreTrainedModel, ctx: Context) -> Decision:
    """Score a layer, fit its output matrices to what they wrote, and let it feed the next."""
    chosen = ctx.prunable()
    counts, scores, errors = ctx.counts(chosen), {}, []
    for layer in ctx.by_layer(model, ctx.calibration()):
        for name, signal in layer.signals(moments=True).items():
            if name not in chosen:
                continue
            structure = chosen[name]
            scores[name] = _score(model, structure, signal)
            keep = ctx.remove(scores, {name: counts[name]}).keep
            if name in keep:
                assert signal.moment is not None  # it was asked for
                damping = ctx.params["damping"]
                found = restore(model, structure, keep[name], signal.moment, damping=damping)
                errors.append([layer.index, structure.kind, found.before, found.after])
            layer.keep(keep)
    ctx.note("restoration", _plot(errors))
    return ctx.remove(scores, counts)


@torch.no_grad()
def _score(model: PreTrainedModel, structure: Structure, signal: Signal) -> Tensor:
    """Scores [units]: sum over the columns j of a unit of sum_i |W_ij| ||x_j||."""
    weight = model.get_parameter(f"{structure.consumer}.weight")
    columns = weight.abs().sum(dim=0, dtype=torch.float64) * signal.norm
    return structure.per_unit(columns).sum(dim=1)


def _plot(errors: list[list[Plain]]) -> Json:
    """Relative error of what each matrix writes, before and after the fit."""
    kinds = dict.fromkeys(kind for _, kind, *_ in errors)
    series = {
        f"{kind}, {when}": [[e[0], e[place]] for e in errors if e[1] == kind]
        for kind in kinds
        for place, when in ((2, "cut"), (3, "restored"))
    }
    title = "Squared error of the output matrices over their output's mean square"
    return {"plot": "line", "title": title, "x_label": "layer", "y_label": "error",
            "series": series}  # fmt: skip
