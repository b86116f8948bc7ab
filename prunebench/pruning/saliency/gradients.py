"""Gradients that are reduced to channels as they arrive, and freed at once.

Memory: weights + activations + about one layer's gradients. First-order measures take the absolute
value of the gradient of the mean loss of the whole batch, so one pass takes all samples; passes of
`micro_batch` samples must sum gradients up in full before that, and memory grows by all of them.
Second-order measures run one pass for each sample: `param_second` adds up channel sums, exactly;
`param_mix` is not linear in the squares and keeps them for all weights in fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prunebench.errors import Failure, Invalid, Unsupported
from prunebench.pruning.saliency.calibration import CalibrationLoss, Meter, only_these_learn
from prunebench.pruning.saliency.measures import channel_sums, measure_of
from prunebench.pruning.saliency.units import Side


def channel_saliency(
    model: PreTrainedModel,
    sides: Sequence[Side],
    measures: Sequence[str],
    *,
    tokens: Tensor | None = None,
    labels: Tensor | None = None,
    streamed: bool = True,
    micro_batch: int | None = None,
    sample_weights: Sequence[float] | None = None,
    cost: Meter | None = None,
) -> dict[str, dict[Side, Tensor]]:
    """Importance of every channel: {measure: {side: Tensor [channels]}}, fp32 on the CPU.

    tokens          [samples, length] token ids; only l1 and l2 do without
    labels          [samples, length], -100 where a prediction does not count; default: `tokens`
    streamed        reduce and free each gradient as soon as it is complete. False: keep them all,
                    then reduce by the same code (the usual way, for comparison)
    micro_batch     samples per pass of first-order measures; default: all
    sample_weights  weights of the samples' squared gradients; default: 1 / samples each
    cost            meter that is told the tokens of every pass

    Nothing is rescaled. The loss is the mean over counted predictions, in fp32; gradients have the
    weight's dtype. The model's mode stays as it is; `requires_grad` flags and `.grad` are restored.
    Raises Unsupported when a weight cannot give a gradient, Failure when one is not finite.
    """
    scorer = _Scorer(model, sides, measures)
    if not any(measure_of(name).uses_data for name in measures):
        with only_these_learn(model, {}):
            scorer.for_each(lambda name: scorer.reduce(name, measures))
        return scorer.result()
    if tokens is None:
        raise Invalid(f"saliency: {', '.join(measures)}: expected calibration tokens, got none")
    batch = CalibrationLoss(tokens, tokens if labels is None else labels, cost)
    weights = sample_weights or [1.0 / len(tokens)] * len(tokens)
    if len(weights) != len(tokens):
        raise Invalid(f"saliency: {len(weights)} sample weights for {len(tokens)} samples")
    with torch.enable_grad(), only_these_learn(model, scorer.parameters):
        open_measures = _second_order(scorer, batch, weights, streamed=streamed)
        _first_order(scorer, batch, open_measures, micro_batch, streamed=streamed)
    return scorer.result()


def _second_order(
    scorer: _Scorer, batch: CalibrationLoss, weights: Sequence[float], *, streamed: bool
) -> list[str]:
    """One pass for each sample; squared gradients are added up, as channel sums where possible.

    Returns the measures that remain to be reduced.
    """
    names = [name for name in scorer.measures if measure_of(name).uses_squares]
    others = [name for name in scorer.measures if name not in names]
    additive = streamed and all(measure_of(name).additive for name in names)
    for i, weight in enumerate(weights if names else ()):

        def take(name: str, weight: float = weight) -> None:
            if additive:
                scorer.reduce(name, names, scale=weight)
            else:
                scorer.square(name, weight)

        one = slice(i, i + 1)
        _one_pass(scorer, batch, one, batch.predictions(one), take if streamed else None)
        if not streamed:
            scorer.for_each(take, with_gradient=True)
    return others if additive else [*scorer.measures]


def _first_order(
    scorer: _Scorer,
    batch: CalibrationLoss,
    names: Sequence[str],
    micro_batch: int | None,
    *,
    streamed: bool,
) -> None:
    """One pass over all samples; or several, whose gradients add up before they are reduced."""

    def take(name: str) -> None:
        scorer.reduce(name, names)

    if not any(measure_of(name).uses_gradient for name in names):
        scorer.for_each(take)
        return
    samples, predictions = len(batch.tokens), batch.predictions(slice(None))
    step = micro_batch or samples
    for start in range(0, samples, step):
        last = start + step >= samples
        part = slice(start, start + step)
        _one_pass(scorer, batch, part, predictions, take if streamed and last else None)
    if not streamed:
        scorer.for_each(take, with_gradient=True)


def _one_pass(
    scorer: _Scorer,
    batch: CalibrationLoss,
    part: slice,
    predictions: int,
    take: Callable[[str], None] | None,
) -> None:
    """Forward and backward of samples `part`; `take(name)` is called as each gradient arrives."""
    handles = []
    if take is not None:
        for name, parameter in scorer.parameters.items():
            hook = partial(_arrived, take, name)
            handles.append(parameter.register_post_accumulate_grad_hook(hook))
    try:
        batch.loss(scorer.model, part, predictions).backward()
    finally:
        for handle in handles:
            handle.remove()


def _arrived(take: Callable[[str], None], name: str, _: Tensor) -> None:
    take(name)


class _Scorer:
    """The weights to be scored and what is known of their channels so far."""

    def __init__(
        self, model: PreTrainedModel, sides: Sequence[Side], measures: Sequence[str]
    ) -> None:
        self.model, self.sides, self.measures = model, tuple(sides), tuple(measures)
        names = dict.fromkeys(side.parameter for side in sides)
        self.parameters = {name: model.get_parameter(name) for name in names}
        for name, parameter in self.parameters.items():
            if not parameter.is_floating_point():
                raise Unsupported(
                    f"{name} is {parameter.dtype}: a quantised weight gives no gradient and its "
                    "codes no norm; load the model in float32, bfloat16 or float16"
                )
        self.dims = {name: [s.dim for s in sides if s.parameter == name] for name in names}
        self.sums: dict[tuple[str, Side], Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    def reduce(self, name: str, measures: Sequence[str], *, scale: float = 1.0) -> None:
        """Add this parameter's channel sums and free its gradient and squares."""
        parameter = self.parameters[name]
        squares = self.squares.pop(name, None)
        if parameter.grad is None and squares is None:  # `result` says so of what is missing then
            measures = [measure for measure in measures if not measure_of(measure).uses_data]
        sums = channel_sums(measures, self.dims[name], parameter, parameter.grad, squares)
        parameter.grad = None
        for (measure, dim), values in sums.items():
            key = measure, Side(name, dim)
            values = values if scale == 1.0 else values * scale
            self.sums[key] = self.sums[key] + values if key in self.sums else values

    def square(self, name: str, weight: float) -> None:
        """Add this parameter's squared gradient to its accumulator, fp32, and free it."""
        found = self.parameters[name].grad
        assert found is not None  # called where there is one
        gradient = found.float()
        if name not in self.squares:
            self.squares[name] = torch.zeros_like(gradient)
        self.squares[name].addcmul_(gradient, gradient, value=weight)
        self.parameters[name].grad = None

    def for_each(self, take: Callable[[str], None], *, with_gradient: bool = False) -> None:
        """`take` every parameter, or every one that has a gradient."""
        for name, parameter in self.parameters.items():
            if not with_gradient or parameter.grad is not None:
                take(name)

    def result(self) -> dict[str, dict[Side, Tensor]]:
        """Everything, after a check that it is complete and finite."""
        for measure in self.measures:
            for side in self.sides:
                values = self.sums.get((measure, side))
                if values is None:
                    raise Unsupported(
                        f"{side.parameter} got no gradient: it is not used, or its module "
                        "(quantised, frozen by design) passes none on to it"
                    )
                if not bool(values.isfinite().all()):
                    raise Failure(
                        f"{measure} of {side.parameter} is not finite: the weight or its gradient "
                        f"holds NaN or infinity in {self.parameters[side.parameter].dtype}"
                    )
        return {m: {s: self.sums[m, s].cpu() for s in self.sides} for m in self.measures}
