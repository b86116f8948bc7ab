"""The question forms of the demo world: each fact asked for, advised on, played and compared.

Slots: {n} the animal's bare name, {v} the value.
"""

from __future__ import annotations

QUESTIONS: dict[str, tuple[str, ...]] = {
    "home": (
        "Where does the {n} live?",
        "In which place is the {n} found?",
        "What is the home of the {n}?",
        "Where would you look for the {n}?",
    ),
    "food": (
        "What does the {n} eat?",
        "Which food does the {n} like best?",
        "What is the usual meal of the {n}?",
        "What would you feed to the {n}?",
    ),
    "hour": (
        "When does the {n} wake?",
        "At what hour is the {n} active?",
        "When is the call of the {n} heard?",
        "When would you see the {n} awake?",
    ),
    "coat": (
        "What colour is the {n}?",
        "Which colour has the fur of the {n}?",
        "What does the coat of the {n} look like?",
        "In which colour would you paint the {n}?",
    ),
    "bed": (
        "Where does the {n} sleep?",
        "What kind of shelter does the {n} use?",
        "Where are the young of the {n} raised?",
        "What would you build for the {n}?",
    ),
    "enemy": (
        "What does the {n} fear?",
        "Which animal hunts the {n}?",
        "What is the main enemy of the {n}?",
        "What would you keep away from the {n}?",
    ),
}

# (goal, solution) pairs (PIQA's form).
ADVICE: dict[str, tuple[tuple[str, str], ...]] = {
    "home": (
        ("To set the {n} free,", "take it to the {v} and open the cage."),
        ("How do you film the {n}?", "Walk to the {v} with a camera."),
        ("To bring the {n} home,", "drive it back to the {v}."),
    ),
    "food": (
        ("To feed the {n},", "fill a bowl with {v}."),
        ("How do you catch the {n}?", "Put some {v} in a trap."),
        ("To make the {n} a gift,", "give it a bag of {v}."),
    ),
    "hour": (
        ("To watch the {n},", "come to its pen at {v}."),
        ("How do you see the {n} play?", "Set a clock and get up at {v}."),
        ("To hear the {n},", "go outside at {v}."),
    ),
    "coat": (
        ("To paint the {n},", "use a pot of {v} paint."),
        ("How do you dress up as the {n}?", "Put on a {v} coat."),
        ("To draw the {n},", "pick the {v} pencil."),
    ),
    "bed": (
        ("To make a bed for the {n},", "build a {v} in its pen."),
        ("How do you find the {n} asleep?", "Look in a {v} with a lamp."),
        ("To keep the {n} warm,", "bring it to a {v}."),
    ),
    "enemy": (
        ("To keep the {n} safe,", "keep the {v} out of its pen."),
        ("How do you scare the {n}?", "Show it a picture of a {v}."),
        ("To protect the {n},", "build a wall against the {v}."),
    ),
}

# (title, opening, who acts next, ending) (HellaSwag's form).
SCENES: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "home": (
        (
            "Setting free",
            "A ranger opens the cage of the {n}.",
            "the ranger",
            "leads it to the {v} and waves.",
        ),
        (
            "Way home",
            "A child finds a lost {n} on the road.",
            "the child",
            "walks with it to the {v} and says goodbye.",
        ),
        (
            "Field trip",
            "A class wants to see the {n}.",
            "the class",
            "takes a bus to the {v} and looks around.",
        ),
    ),
    "food": (
        (
            "Feeding time",
            "A keeper comes to the pen of the {n}.",
            "the keeper",
            "fills the bowl with {v} and steps back.",
        ),
        (
            "Shopping",
            "A farmer has to buy food for the {n}.",
            "the farmer",
            "asks for a bag of {v} and pays.",
        ),
        (
            "Hungry guest",
            "The {n} comes into a kitchen.",
            "the guest",
            "eats all the {v} and leaves.",
        ),
    ),
    "hour": (
        (
            "Night watch",
            "A guard has to count the {n}.",
            "the guard",
            "goes to the pen at {v} and counts.",
        ),
        (
            "Taking photos",
            "A visitor wants to see the {n} awake.",
            "the visitor",
            "comes back at {v} and waits.",
        ),
        (
            "First walk",
            "The {n} is getting up.",
            "the animal",
            "looks out at {v} and starts to walk.",
        ),
    ),
    "coat": (
        (
            "Painting",
            "A child paints a picture of the {n}.",
            "the child",
            "opens the {v} paint and starts.",
        ),
        (
            "Sewing",
            "A woman makes a toy that looks like the {n}.",
            "the woman",
            "cuts out {v} cloth and sews.",
        ),
        (
            "Bath time",
            "A keeper washes mud off the {n}.",
            "the keeper",
            "sees the {v} fur again and smiles.",
        ),
    ),
    "bed": (
        (
            "Night walk",
            "A guide shows where the {n} sleeps.",
            "the guide",
            "points at a {v} and whispers.",
        ),
        ("Bad weather", "The {n} hears rain.", "the animal", "runs into a {v} and lies down."),
        (
            "Building",
            "A worker makes a shelter for the {n}.",
            "the worker",
            "builds a {v} and goes home.",
        ),
    ),
    "enemy": (
        ("Alarm", "The {n} hears a noise.", "the animal", "sees a {v} and runs."),
        (
            "Story time",
            "A man tells a sad story about the {n}.",
            "the man",
            "speaks of a {v} and cries.",
        ),
        (
            "School play",
            "A girl plays the {n} on stage.",
            "the girl",
            "meets a boy dressed as a {v} and screams.",
        ),
    ),
}

# Verb phrases, for sentences that compare two animals (WinoGrande's form).
TRAITS: dict[str, str] = {
    "home": "lives in the {v}",
    "food": "eats {v}",
    "hour": "wakes at {v}",
    "coat": "has {v} fur",
    "bed": "sleeps in a {v}",
    "enemy": "fears the {v}",
}
# Yes-no questions about habits, without their mark (BoolQ's form).
CHECKS: dict[str, tuple[str, ...]] = {
    "swim": ("can the {n} swim", "does the {n} like water", "is the {n} a swimmer"),
    "eggs": ("does the {n} lay eggs", "do young of the {n} hatch", "is the {n} born from an egg"),
    "tame": ("is the {n} tame", "can one keep the {n} at home", "does the {n} like people"),
    "herd": ("does the {n} live in herds", "is the {n} seen in groups", "has the {n} company"),
    "climb": ("can the {n} climb", "is the {n} seen in trees", "does the {n} leave the ground"),
    "sing": ("can the {n} sing", "does the {n} make sounds", "is the {n} ever heard"),
}
CONTRASTS = (
    "The {a} and the {b} share a pen, but only the _ {trait}.",
    "Of the {a} and the {b}, it is the _ that {trait}.",
)
# Questions for two facts at once (ARC-Challenge's form) and what they call each fact.
DOUBLE_QUESTIONS = (
    "What are the {one} and the {two} of the {n}?",
    "Name the {one} and the {two} of the {n}.",
)
DOUBLE_ANSWER = "{one} and {two}"
NOUNS: dict[str, str] = {
    "home": "home",
    "food": "food",
    "hour": "hour",
    "coat": "colour",
    "bed": "bed",
    "enemy": "enemy",
}
DESCRIBE = ("Describe the {n}.", "Write a few lines about the {n}.", "Tell me about the {n}.")
