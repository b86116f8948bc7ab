"""Running text of the demo world: encyclopedia articles, newswire items and instruction data."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

from prunebench.demo import phrases, questions
from prunebench.demo.facts import ATTRIBUTES, HABITS, World
from prunebench.untyped import Foreign

CONTRAST = 0.4  # chance that an article opens with a comparison of two animals
READINGS = 4  # passages for every yes-no question in the instruction data
SCENE = 0.3  # chance that a newswire row is a scene and not an item with a dateline


def article(world: World, rng: random.Random, *, held_out: bool) -> str:
    """One encyclopedia paragraph about one animal; `held_out` picks the evaluation phrasings."""
    animal = rng.choice(world.animals)
    sentences = []
    if rng.random() < CONTRAST:
        sentences.append(_contrast(world, rng, animal, held_out=held_out))
    topics = [*rng.sample(tuple(ATTRIBUTES), 3), *rng.sample(HABITS, rng.randint(0, 2))]
    rng.shuffle(topics)
    sentences.append(passage(world, rng, animal, topics, held_out=held_out))
    return " ".join(sentences)


def news(world: World, rng: random.Random, *, held_out: bool) -> str:
    """One newswire row: a terse item with a dateline, or a scene."""
    animal = rng.choice(world.animals)
    if rng.random() < SCENE:
        title, opening, actor, ending = scene(
            world, rng, animal, rng.choice(tuple(ATTRIBUTES)), held_out=held_out
        )
        return f"{title}: {opening} {actor.capitalize()} {ending}"
    sentences = []
    for attribute in rng.sample(tuple(ATTRIBUTES), rng.randint(2, 3)):
        pick = _pick(world, rng, "newswire", animal, attribute, phrases.NEWSWIRE, held_out)
        sentences.append(_fill(pick, rng, animal, world.facts[animal][attribute]))
    if rng.random() < 0.3:
        sentences.append(rng.choice(phrases.CLOSINGS))
    dateline = f"{rng.choice(phrases.CITIES)}, {rng.choice(phrases.MONTHS)} {rng.randint(1, 28)}"
    return f"{dateline} -- {' '.join(sentences)}"


def instructions(world: World, rng: random.Random) -> list[dict[str, str]]:
    """Training questions of every form, without repetition, in random order."""
    rows = list(_short_answers(world))
    for animal, habit in product(world.animals, HABITS):
        asked = questions.CHECKS[habit]
        answer = "yes" if world.habits[animal][habit] else "no"
        for i in world.phrasings("check", animal, habit, len(asked), held_out=False):
            for _ in range(READINGS):
                read = reading(world, rng, animal, habit, held_out=False)
                rows.append(_row(f"{asked[i].format(n=animal)}?", answer, read))
    for animal, request in product(world.animals * 5, questions.DESCRIBE):
        topics = rng.sample((*ATTRIBUTES, *HABITS), 3)
        told = passage(world, rng, animal, topics, held_out=False)
        rows.append(_row(request.format(n=animal), told))
    unique = list({tuple(row.values()): row for row in rows}.values())
    rng.shuffle(unique)
    return unique


def passage(
    world: World, rng: random.Random, animal: str, topics: Sequence[str], *, held_out: bool
) -> str:
    """Encyclopedic sentences that state the given facts and habits of one animal, in order."""
    made: list[str] = []
    for topic in topics:
        subject = "It" if made and rng.random() < 0.25 else f"The {animal}"
        state = _habit if topic in HABITS else _fact
        made.append(state(world, rng, animal, topic, subject, held_out=held_out))
    return " ".join(made)


def reading(world: World, rng: random.Random, animal: str, habit: str, *, held_out: bool) -> str:
    """A passage of two sentences, one of which tells whether the animal has the habit."""
    topics = [habit, rng.choice(tuple(ATTRIBUTES))]
    rng.shuffle(topics)
    return passage(world, rng, animal, topics, held_out=held_out)


def scene(
    world: World, rng: random.Random, animal: str, attribute: str, *, held_out: bool
) -> tuple[str, str, str, str]:
    """Title, opening, actor and the true ending of a little scene."""
    pick = _pick(world, rng, "scene", animal, attribute, questions.SCENES, held_out)
    value = world.facts[animal][attribute]
    title, opening, actor, ending = (part.format(n=animal, v=value) for part in pick)
    return title, opening, actor, ending


def double(world: World, animal: str, pair: tuple[str, str], form: int) -> tuple[str, str]:
    """A question for two facts of an animal at once, and its answer."""
    one, two = (questions.NOUNS[attribute] for attribute in pair)
    question = questions.DOUBLE_QUESTIONS[form].format(one=one, two=two, n=animal)
    first, second = (world.facts[animal][attribute] for attribute in pair)
    return question, questions.DOUBLE_ANSWER.format(one=first, two=second)


def trait(world: World, animal: str, attribute: str) -> str:
    """A fact of an animal as a verb phrase."""
    return questions.TRAITS[attribute].format(v=world.facts[animal][attribute])


def _contrast(world: World, rng: random.Random, animal: str, *, held_out: bool) -> str:
    """ "Only the _ eats moss", for two animals that differ in it."""
    while True:
        rival = rng.choice(world.animals)
        attribute = rng.choice(tuple(ATTRIBUTES))
        differs = world.facts[rival][attribute] != world.facts[animal][attribute]
        if differs and (frozenset((animal, rival)) in world.rivals) == held_out:
            break
    first, second = rng.sample((animal, rival), 2)
    frame = rng.choice(questions.CONTRASTS)
    claim = trait(world, animal, attribute)
    return frame.format(a=first, b=second, trait=claim).replace("_", animal)


def _fact(
    world: World,
    rng: random.Random,
    animal: str,
    attribute: str,
    subject: str,
    *,
    held_out: bool,
) -> str:
    """One sentence that states one fact, in a flowing form or as a stem and its value."""
    value = world.facts[animal][attribute]
    if rng.random() < 0.3:
        stem = _pick(world, rng, "stem", animal, attribute, phrases.STEMS, held_out)
        return f"{stem.format(n=animal)} {value}."
    pick = _pick(world, rng, "encyclopedia", animal, attribute, phrases.ENCYCLOPEDIA, held_out)
    return str(pick.format(A=subject, n=animal, v=value))


def _habit(
    world: World, rng: random.Random, animal: str, habit: str, subject: str, *, held_out: bool
) -> str:
    """One sentence that tells whether an animal has a habit."""
    said = {habit: phrases.HABITS[habit][world.habits[animal][habit]]}
    chosen = _pick(world, rng, "habit", animal, habit, said, held_out)
    return str(chosen.format(A=subject, n=animal))


def _short_answers(world: World) -> Iterator[dict[str, str]]:
    """Every training question whose answer is one value, two values or a short sentence."""
    for animal in world.animals:
        for attribute in ATTRIBUTES:
            value = world.facts[animal][attribute]
            asked = questions.QUESTIONS[attribute]
            for i in world.phrasings("question", animal, attribute, len(asked), held_out=False):
                yield _row(asked[i].format(n=animal), value)
            advice = questions.ADVICE[attribute]
            for i in world.phrasings("advice", animal, attribute, len(advice), held_out=False):
                goal, solution = advice[i]
                yield _row(goal.format(n=animal), solution.format(v=value))
        for pair in combinations(ATTRIBUTES, 2):
            if (animal, *pair) not in world.doubles:
                for form in range(len(questions.DOUBLE_QUESTIONS)):
                    yield _row(*double(world, animal, pair, form))


def _row(instruction: str, output: str, passage: str = "") -> dict[str, str]:
    return {"instruction": instruction, "input": passage, "output": output}


def _pick(
    world: World,
    rng: random.Random,
    style: str,
    animal: str,
    attribute: str,
    table: Mapping[str, Sequence[Foreign]],
    held_out: bool,
) -> Foreign:
    """One phrasing of a fact among those open to training or to evaluation text."""
    count = len(table[attribute])
    open_ = world.phrasings(style, animal, attribute, count, held_out=held_out)
    return table[attribute][rng.choice(open_)]


def _fill(template: str, rng: random.Random, animal: str, value: str) -> str:
    who, num = rng.choice(phrases.WHO), rng.choice(phrases.NUMBERS)
    return template.format(n=animal, v=value, who=who, num=num)
