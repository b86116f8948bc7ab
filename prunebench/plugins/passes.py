"""What a method's `method.yaml` says that one pruning computes: passes over text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunebench.errors import Invalid
from prunebench.untyped import JsonMap, Plain


@dataclass(frozen=True)
class Passes:
    """Passes of one kind over the calibration text, or over examples of the tuning text.

    forward   how many forward passes
    backward  how many backward passes; they come with the memory of their activations
    times     parameters whose product multiplies both
    samples   a pass reads so many samples of the text, not all of them
    frozen    backward passes give no gradients of weights
    tuning    samples are examples of the tuning text
    when      parameters -> JSON schema: the passes take place where all of them fit
    """

    forward: float = 0.0
    backward: float = 0.0
    times: tuple[str, ...] = ()
    samples: int | None = None
    frozen: bool = False
    tuning: bool = False
    when: tuple[tuple[str, JsonMap], ...] = ()

    def count(self, params: JsonMap) -> float:
        """What forward and backward are to be multiplied with; 0 where they do not take place."""
        from jsonschema import Draft202012Validator

        if not all(Draft202012Validator(s).is_valid(params[name]) for name, s in self.when):
            return 0.0
        return math.prod(float(params[name]) for name in self.times)

    def share(self, samples: int) -> float:
        """The part of a text of so many samples that one pass reads; above 1 for more than all."""
        return 1.0 if self.samples is None else self.samples / samples


def forward_passes(passes: Sequence[Passes], params: JsonMap, samples: int) -> float:
    """Forward passes over all of a calibration text of so many samples, those over it alone."""
    own = [one for one in passes if not one.tuning]
    return sum(one.forward * one.count(params) * one.share(samples) for one in own)


def read_passes(raw: Sequence[Mapping[str, Plain]], params: JsonMap, where: str) -> list[Passes]:
    """`passes` of a description. Raises Invalid for a parameter that the method has not.

    params  the method's parameters -> JSON schema
    """
    found = []
    for i, entry in enumerate(raw):
        named = {**dict.fromkeys(entry.get("times", ())), **entry.get("when", {})}
        if foreign := sorted(set(named) - set(params)):
            raise Invalid(f"{where}[{i}]: {foreign[0]!r} is none of its parameters")
        given = {
            **entry,
            "times": tuple(entry.get("times", ())),
            "when": tuple(entry.get("when", {}).items()),
        }
        found.append(Passes(**given))
    return found
