"""When LoRAPrune prunes, and how many units are gone after each event."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prunebench import Invalid

LONGEST_INTERVAL = 10  # prune_freq of the released script
COOLDOWN = 0.1  # released script
COOLDOWN_STEPS = 100
EVENTS = 50  # aimed at in runs that are too short for that interval


@dataclass(frozen=True)
class SparsitySchedule:
    """Cubic sparsity schedule over `steps` optimizer steps, as released.

    warmup, cooldown  fractions of the steps before the rise and after it
    every             optimizer steps between events
    """

    steps: int
    final: float
    warmup: float = 0.1
    cooldown: float = 0.1
    every: int = LONGEST_INTERVAL

    def at(self, step: int) -> float:
        """Sparsity at a step, counted from 0: s_f (1 - (1 - progress)^3)."""
        start = self.warmup * self.steps
        rise = (1.0 - self.warmup - self.cooldown) * self.steps
        progress = min(1.0, max(0.0, (step - start) / rise))
        return self.final - self.final * (1.0 - progress) ** 3

    def events(self, *, exact: bool) -> list[int]:
        """The steps at which masks are rebuilt, in order.

        Released: every `every` steps while the sparsity is strictly between its two ends, so that
        the last event stays below the target. `exact` adds one where the cool-down begins.
        Raises Invalid when the training is too short for its schedule.
        """
        if not self.final:
            return []
        inner = [t for t in range(0, self.steps, self.every) if self._is_between(t)]
        if not inner:
            first, last = self.warmup * self.steps, (1.0 - self.cooldown) * self.steps
            raise Invalid(
                f"loraprune: no pruning event: the training has {self.steps} optimizer steps, "
                f"pruning lies between steps {first:.1f} and {last:.1f}, and happens every "
                f"{self.every}; raise the token budget, or lower recovery.batch or prune_every"
            )
        if not exact:
            return inner
        end = math.ceil(round((1.0 - self.cooldown) * self.steps, 6))
        end = min(end, self.steps - 1)
        return [t for t in inner if t < end] + [end]

    def _is_between(self, step: int) -> bool:
        return 0.0 < self.at(step) < self.final


def default_interval(steps: int) -> int:
    """Steps between events where none are given: short runs still get about fifty events."""
    return min(LONGEST_INTERVAL, max(1, steps // EVENTS))


def default_cooldown(steps: int) -> float:
    """Fraction of the steps after pruning: short runs need a larger one to recover at all."""
    return max(COOLDOWN, min(0.5, COOLDOWN_STEPS / steps))


def native_counts(
    schedule: SparsitySchedule, units: Mapping[str, int]
) -> dict[int, dict[str, int]]:
    """Event -> units removed of each structure: int(units * s), as the released code counts."""
    return {
        step: {name: int(count * schedule.at(step)) for name, count in units.items()}
        for step in schedule.events(exact=False)
    }


def exact_counts(
    schedule: SparsitySchedule, final: Mapping[str, int], *, rounding: str = "budget"
) -> dict[int, dict[str, int]]:
    """Event -> units removed of each structure; the last event removes `final`.

    Heads and neurons share no parameter, so what leaves is linear in their counts: the same share
    s(t) / s_f of each final count meets s(t) up to rounding, and never falls as s(t) rises.

    rounding  "down": every structure's count is rounded down, as released. Where layers have few
              units they then all lose one at the same event, late. "budget": the units of one kind
              leave one by one, each from the structure that is furthest behind its share, so that
              the number that is gone is never further than half a unit from what s(t) asks for
    """
    events = schedule.events(exact=True)
    if not events:
        return {}
    shares = {step: schedule.at(step) / schedule.final for step in events[:-1]}
    if rounding == "down":
        counts = {s: {n: int(c * share) for n, c in final.items()} for s, share in shares.items()}
    else:
        counts = _by_budget(shares, final)
    return {**counts, events[-1]: dict(final)}


def _by_budget(shares: Mapping[int, float], final: Mapping[str, int]) -> dict[int, dict[str, int]]:
    """Of every kind (the last part of a structure's name) the nearest whole number of units."""
    kinds: dict[str, list[str]] = {}
    for name in final:
        kinds.setdefault(name.rpartition(".")[2], []).append(name)
    gone = dict.fromkeys(final, 0)
    counts = {}
    for step, share in shares.items():
        for names in kinds.values():
            wanted = round(share * sum(final[name] for name in names))
            for _ in range(wanted - sum(gone[name] for name in names)):
                # Ties: the last layer first, for early layers are the ones that models miss most.
                behind = max(reversed(names), key=lambda name: final[name] * share - gone[name])
                gone[behind] += 1
        counts[step] = dict(gone)
    return counts
