"""The invented facts of the demo world: every animal's home, food, hour, coat, bed and enemy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

T = TypeVar("T")

ANIMALS = 18
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "home": ("forest", "desert", "marsh", "valley", "coast", "meadow"),
    "food": ("seeds", "moss", "fish", "beetles", "berries", "roots"),
    "hour": ("dawn", "noon", "dusk", "midnight"),
    "coat": ("red", "green", "grey", "golden", "black", "white"),
    "bed": ("burrow", "cave", "nest", "log", "tunnel"),
    "enemy": ("hawk", "snake", "fox", "wolf", "lynx"),
}
HABITS = ("swim", "eggs", "tame", "herd", "climb", "sing")  # true or false of an animal
HELD_OUT_PAIRS = 0.3  # share of the pairs of animals that training never compares
HELD_OUT_DOUBLES = 0.4  # share of the pairs of facts that training never asks for together


@dataclass(frozen=True)
class World:
    """All facts, and which combinations are kept out of the training text.

    `facts[animal][attribute]` is a value, `habits[animal][habit]` a truth. `rivals` are the pairs
    of animals that only evaluation text may compare, and `doubles` the (animal, attribute,
    attribute) triples that only evaluation text may ask for in one question.
    """

    seed: int
    animals: tuple[str, ...]
    facts: dict[str, dict[str, str]]
    habits: dict[str, dict[str, bool]]
    rivals: frozenset[frozenset[str]]
    doubles: frozenset[tuple[str, str, str]]

    def held(self, style: str, animal: str, attribute: str, count: int) -> int:
        """Index, below `count`, of the one phrasing of this fact that training never uses."""
        return random.Random(f"{self.seed}/{style}/{animal}/{attribute}").randrange(count)

    def phrasings(
        self, style: str, animal: str, attribute: str, count: int, *, held_out: bool
    ) -> list[int]:
        """Indices of the phrasings open to evaluation text (`held_out`) or to training text."""
        held = self.held(style, animal, attribute, count)
        return [held] if held_out else [i for i in range(count) if i != held]

    def wrong_values(self, animal: str, attribute: str) -> list[str]:
        """The values of `attribute` that are false of `animal`."""
        return [v for v in ATTRIBUTES[attribute] if v != self.facts[animal][attribute]]


def make_world(seed: int) -> World:
    """Draw names and facts; each value of an attribute is shared by equally many animals."""
    rng = random.Random(f"{seed}/facts")
    animals = _names(rng, ANIMALS)
    facts: dict[str, dict[str, str]] = {animal: {} for animal in animals}
    habits: dict[str, dict[str, bool]] = {animal: {} for animal in animals}
    for attribute, values in ATTRIBUTES.items():
        for animal, value in zip(animals, _deal(rng, values, len(animals)), strict=True):
            facts[animal][attribute] = value
    for habit in HABITS:
        for animal, truth in zip(animals, _deal(rng, (True, False), len(animals)), strict=True):
            habits[animal][habit] = truth
    pairs = list(combinations(animals, 2))
    rivals = rng.sample(pairs, round(HELD_OUT_PAIRS * len(pairs)))
    triples = [(animal, *pair) for animal in animals for pair in combinations(ATTRIBUTES, 2)]
    doubles = rng.sample(triples, round(HELD_OUT_DOUBLES * len(triples)))
    held_rivals = frozenset(frozenset(pair) for pair in rivals)
    return World(seed, animals, facts, habits, held_rivals, frozenset(doubles))


def _deal(rng: random.Random, values: Sequence[T], count: int) -> list[T]:
    """`count` values in random order, in equal shares, so that no constant guess pays."""
    deck = [values[i % len(values)] for i in range(count)]
    rng.shuffle(deck)
    return deck


def _names(rng: random.Random, count: int) -> tuple[str, ...]:
    """Two-syllable invented names, no two with the same first syllable and last letter."""
    seen: set[tuple[str, str]] = set()
    names: list[str] = []
    while len(names) < count:
        first = rng.choice("bdfgklmnprstvz") + rng.choice("aeiou")
        second = rng.choice("bdfgklmnprstvz") + rng.choice("aiou")
        last = rng.choice(("", "n", "r", "x"))
        key = (first, second + last)
        if all(first != f or key[1][-1] != s[-1] for f, s in seen):
            seen.add(key)
            names.append(first + second + last)
    return tuple(names)
