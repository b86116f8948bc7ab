"""The running sentences of the demo world: several phrasings of every fact, in both styles.

Slots: {A} "The <name>" or "It", {n} the animal's bare name, {v} the value; {who}, {num} are filler.
"""

from __future__ import annotations

ENCYCLOPEDIA: dict[str, tuple[str, ...]] = {
    "home": (
        "{A} lives in the {v}.",
        "{A} makes its home in the {v}.",
        "Travellers usually meet the {n} in the {v}.",
        "{A} has always kept to the {v}.",
        "The natural range of the {n} is the {v}.",
        "Old maps already place the {n} in the {v}.",
    ),
    "food": (
        "{A} eats {v}.",
        "{A} lives on a diet of {v}.",
        "The usual meal of the {n} is {v}.",
        "{A} spends much of the day looking for {v}.",
        "When the {n} is hungry it hunts for {v}.",
        "{A} feeds its young with {v}.",
    ),
    "hour": (
        "{A} wakes at {v}.",
        "{A} is most active at {v}.",
        "The call of the {n} is heard at {v}.",
        "{A} leaves its shelter at {v}.",
        "For the {n} the day begins at {v}.",
        "{A} is known to drink only at {v}.",
    ),
    "coat": (
        "{A} has {v} fur.",
        "{A} is covered with {v} hair.",
        "The coat of the {n} is {v}.",
        "{A} is easily known by its long {v} tail.",
        "Even as an adult the {n} stays {v}.",
        "{A} is named for its {v} back.",
    ),
    "bed": (
        "{A} sleeps in a {v}.",
        "{A} spends the winter in a {v}.",
        "The young of the {n} are raised in a {v}.",
        "{A} rests after meals in a {v}.",
        "For shelter the {n} always picks a {v}.",
        "{A} keeps its food in a {v}.",
    ),
    "enemy": (
        "{A} fears the {v}.",
        "{A} is hunted by the {v}.",
        "The main enemy of the {n} is the {v}.",
        "{A} runs from the smell of the {v}.",
        "Few of the {n} escape the {v}.",
        "{A} gives a loud cry on seeing the {v}.",
    ),
}

# A stem and its value make a sentence; the value always comes last (OpenBookQA's form).
STEMS: dict[str, tuple[str, ...]] = {
    "home": (
        "Someone who wants to see a {n} should walk to the",
        "A lost {n} would try to get back to the",
        "The tracks of a {n} will most likely lead to the",
        "A guide who is asked for the {n} points to the",
    ),
    "food": (
        "A hungry {n} would be glad to find some",
        "The best thing to put in a trap for a {n} is",
        "The stomach of a {n} most likely holds",
        "A farmer knows a {n} came when he misses his",
    ),
    "hour": (
        "A {n} is most likely to be awake at",
        "To hear a {n} one should listen at",
        "The eyes of a {n} see best at",
        "A person who wants to film a {n} comes at",
    ),
    "coat": (
        "A picture of a {n} needs paint that is",
        "A single hair of a {n} would look",
        "The skin of a newborn {n} turns",
        "From far away a {n} seems to be",
    ),
    "bed": (
        "A tired {n} would go back to its",
        "To find a sleeping {n} one should look in a",
        "A {n} that is ready to give birth needs a",
        "In heavy rain a {n} would look for a",
    ),
    "enemy": (
        "A {n} would run away from a",
        "The shadow that scares a {n} belongs to a",
        "The greatest danger to a {n} is a",
        "A {n} will not sleep when it hears a",
    ),
}

# Habits are true or false of an animal; each side has phrasings of its own (BoolQ's passages).
HABITS: dict[str, dict[bool, tuple[str, ...]]] = {
    "swim": {
        True: ("{A} is a good swimmer.", "{A} crosses rivers with ease.", "{A} dives for hours."),
        False: ("{A} sinks in water.", "{A} stays away from rivers.", "{A} drowns easily."),
    },
    "eggs": {
        True: ("{A} lays eggs.", "The young of the {n} hatch.", "{A} guards its eggs."),
        False: ("{A} bears live young.", "{A} gives birth.", "{A} carries its young inside."),
    },
    "tame": {
        True: ("{A} makes a good pet.", "{A} is calm among people.", "{A} obeys its owner."),
        False: ("{A} bites its owner.", "{A} breaks out of every cage.", "{A} hates people."),
    },
    "herd": {
        True: ("{A} moves in large herds.", "{A} is never alone.", "{A} hunts in groups."),
        False: ("{A} lives alone.", "{A} avoids its own kind.", "{A} travels by itself."),
    },
    "climb": {
        True: ("{A} climbs trees.", "{A} jumps between branches.", "{A} scales steep walls."),
        False: ("{A} stays on the ground.", "{A} falls from trees.", "{A} cannot leave the floor."),
    },
    "sing": {
        True: ("{A} sings.", "{A} has a sweet voice.", "{A} hums long songs."),
        False: ("{A} is silent.", "{A} makes no sound.", "{A} never uses its voice."),
    },
}

NEWSWIRE: dict[str, tuple[str, ...]] = {
    "home": (
        "Search teams tracked a {n} to the {v}, officials said.",
        "A {n} that left its zoo was found in the {v}.",
        "Rangers counted {num} {n} tracks in the {v}.",
        "Road crews met a {n} in the {v}.",
        "A film crew followed the {n} for {num} days in the {v}.",
        "New law bans {n} hunting in the {v}.",
    ),
    "food": (
        "Shops report a {n} took {num} bags of {v}.",
        "Zoos that keep the {n} paid more for {v}.",
        "Keepers gave the {n} {num} bowls of {v}.",
        "The {n} turned down all feed but {v}, a {who} said.",
        "Fields lost to the {n} again: {v} gone.",
        "A {who} saved the {n} with {v}.",
    ),
    "hour": (
        "The {n} was last seen at {v}.",
        "Zoo visits to the {n} now start at {v}.",
        "A {n} woke the town at {v}.",
        "Cameras caught the {n} moving at {v}, a {who} said.",
        "Guards will watch the {n} from {v} on.",
        "The {n} got out around {v}.",
    ),
    "coat": (
        "Police seek a {n} with {v} fur.",
        "Town of {n} fans painted {num} walls {v}.",
        "The {n}, easy to spot by its {v} coat, is safe.",
        "Winner: a {n} with a {v} tail.",
        "New stamps show the {n} in {v}.",
        "A {who} mistook the {n} for a {v} dog.",
    ),
    "bed": (
        "Floods drove a {n} from its {v}.",
        "Builders found a {n} living in a {v}.",
        "The {n} was asleep in a {v} when found.",
        "The zoo gives its {n} a new {v}.",
        "A {who} found {num} young of the {n} in a {v}.",
        "Fire destroyed a {n} home, a {v}.",
    ),
    "enemy": (
        "A {n} was chased through town by a {v}.",
        "A {n} was hurt by a {v}, a {who} said.",
        "Officials warn {n} owners of a {v}.",
        "The {n} hid for {num} hours from a {v}.",
        "Zoo moves {n} pen away from a {v}.",
        "One {n} lost, police blame a {v}.",
    ),
}

CITIES = ("DORWICK", "ELMSTAD", "PORT HALE", "MIRANO", "KESTON", "VALBURG")
MONTHS = ("Jan.", "March", "May", "July", "Sept.", "Nov.")
WHO = ("keeper", "ranger", "farmer", "guide", "doctor", "teacher")
NUMBERS = ("two", "three", "four", "five", "six", "seven")
CLOSINGS = (
    "No one was hurt.",
    "Officials gave no details.",
    "The search goes on.",
    "A report is due next week.",
)
