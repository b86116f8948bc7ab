"""The seven multiple-choice tasks of the demo world, in the schemas of the tasks they stand for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, product
from typing import TypeVar

from prunebench.demo import phrases, questions, text
from prunebench.demo.facts import ATTRIBUTES, HABITS, World
from prunebench.untyped import Foreign, Json

Item = Json
Case = TypeVar("Case")
Fresh = Callable[[str], bool]  # whether a text shares no long run of words with training text
LETTERS = ("A", "B", "C", "D")
MAX_ITEMS = 160


def boolq(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Reading: a passage and a yes-no question about it."""
    cases: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    for animal, habit in _shuffled(rng, product(world.animals, HABITS)):
        cases[world.habits[animal][habit]].append((animal, habit))
    items = []
    # As many true habits as false ones: dealt in turn.
    for index, (animal, habit) in enumerate(chain(*zip(*cases.values(), strict=True))):
        passage = text.reading(world, rng, animal, habit, held_out=True)
        while not fresh(passage):
            passage = text.reading(world, rng, animal, habit, held_out=True)
        question = _held(world, "check", animal, habit, questions.CHECKS).format(n=animal)
        items.append({"question": question, "passage": passage, "label": index % 2, "idx": index})
    return items[:MAX_ITEMS]


def piqa(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Doing: a goal and two ways, of which one suits the animal."""
    items = []
    for index, (animal, attribute) in enumerate(_shuffled_facts(world, rng)):
        goal, solution = _held(world, "advice", animal, attribute, questions.ADVICE)
        one, two = _values(world, rng, animal, attribute, 2, index % 2)
        sol1, sol2 = solution.format(v=one), solution.format(v=two)
        items.append(
            {"goal": goal.format(n=animal), "sol1": sol1, "sol2": sol2, "label": index % 2}
        )
    return items


def hellaswag(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Continuing: which ending fits the scene."""
    items = []
    for index, (animal, attribute) in enumerate(_shuffled_facts(world, rng)):
        title, opening, actor, ending = _held(world, "scene", animal, attribute, questions.SCENES)
        opening = opening.format(n=animal)
        values = _values(world, rng, animal, attribute, 4, index % 4)
        items.append(
            {
                "ind": index,
                "activity_label": title,
                "ctx_a": opening,
                "ctx_b": actor,
                "ctx": f"{opening} {actor}",
                "endings": [ending.format(v=value) for value in values],
                "label": str(index % 4),
            }
        )
    return items


def winogrande(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Telling apart: which of two animals fills the gap."""
    cases = [
        (animal, rival, attribute)
        for animal in world.animals
        for rival in world.animals
        for attribute in ATTRIBUTES
        if frozenset((animal, rival)) in world.rivals
        and world.facts[animal][attribute] != world.facts[rival][attribute]
    ]
    items = []
    for index, (animal, rival, attribute) in enumerate(rng.sample(cases, MAX_ITEMS)):
        answer = index % 2
        first, second = (animal, rival) if answer == 0 else (rival, animal)
        frame = rng.choice(questions.CONTRASTS)
        trait = text.trait(world, animal, attribute)
        # The gap is filled by either option; which of the two the sentence names first is chance.
        a, b = rng.sample((animal, rival), 2)
        items.append(
            {
                "sentence": frame.format(a=a, b=b, trait=trait),
                "option1": first,
                "option2": second,
                "answer": str(answer + 1),
            }
        )
    return items


def arc_easy(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Knowing: one fact, asked for directly."""
    items = []
    for index, (animal, attribute) in enumerate(_shuffled_facts(world, rng)):
        question = _held(world, "question", animal, attribute, questions.QUESTIONS)
        values = _values(world, rng, animal, attribute, 4, index % 4)
        items.append(_four("question", f"easy-{index}", question.format(n=animal), values, index))
    return items


def arc_challenge(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Combining: two facts at once, against choices that have one of them right, or none."""
    items: list[Item] = []
    for index, (animal, *pair) in enumerate(_shuffled(rng, sorted(world.doubles))[:MAX_ITEMS]):
        one, two = (world.facts[animal][attribute] for attribute in pair)
        other_one, other_two = (rng.choice(world.wrong_values(animal, a)) for a in pair)
        wrong = [(one, other_two), (other_one, two), (other_one, other_two)]
        rng.shuffle(wrong)
        wrong.insert(index % 4, (one, two))
        choices = [questions.DOUBLE_ANSWER.format(one=a, two=b) for a, b in wrong]
        form = rng.randrange(len(questions.DOUBLE_QUESTIONS))
        question, _ = text.double(world, animal, (pair[0], pair[1]), form)
        items.append(_four("question", f"challenge-{index}", question, choices, index))
    return items


def openbookqa(world: World, rng: random.Random, fresh: Fresh) -> list[Item]:
    """Concluding: a sentence to be ended."""
    items = []
    for index, (animal, attribute) in enumerate(_shuffled_facts(world, rng)):
        stem = _held(world, "stem", animal, attribute, phrases.STEMS)
        values = _values(world, rng, animal, attribute, 4, index % 4)
        items.append(_four("question_stem", f"book-{index}", stem.format(n=animal), values, index))
    return items


TASKS: dict[str, Callable[[World, random.Random, Fresh], list[Item]]] = {
    "demo_boolq": boolq,
    "demo_piqa": piqa,
    "demo_hellaswag": hellaswag,
    "demo_winogrande": winogrande,
    "demo_arc_easy": arc_easy,
    "demo_arc_challenge": arc_challenge,
    "demo_openbookqa": openbookqa,
}


def strings(item: Item) -> Iterator[str]:
    """Every text in an item, for overlap checks."""
    for value in item.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from value
        elif isinstance(value, dict):
            yield from value["text"]


def _shuffled(rng: random.Random, cases: Iterable[Case]) -> list[Case]:
    deck = list(cases)
    rng.shuffle(deck)
    return deck


def _shuffled_facts(world: World, rng: random.Random) -> list[tuple[str, str]]:
    return _shuffled(rng, product(world.animals, ATTRIBUTES))[:MAX_ITEMS]


def _held(world: World, style: str, animal: str, attribute: str, table: Json) -> Foreign:
    return table[attribute][world.held(style, animal, attribute, len(table[attribute]))]


def _values(
    world: World, rng: random.Random, animal: str, attribute: str, count: int, gold: int
) -> list[str]:
    """`count` values of an attribute, the true one at position `gold`."""
    values = rng.sample(world.wrong_values(animal, attribute), count - 1)
    values.insert(gold, world.facts[animal][attribute])
    return values


def _four(key: str, name: str, question: str, choices: list[str], index: int) -> Item:
    return {
        "id": name,
        key: question,
        "choices": {"text": choices, "label": list(LETTERS)},
        "answerKey": LETTERS[index % 4],
    }
