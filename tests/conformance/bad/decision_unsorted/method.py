"""Bad: returns units in the order of their scores."""

from prunebench import Decision


def prune(model, ctx):
    return Decision({"layers.0.neurons": (5, 3, 4)})
