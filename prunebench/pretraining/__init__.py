"""Train small language models from nothing: the loop that the demo shares, and recipes for text."""

from prunebench.pretraining.recipe import Recipe, read_recipe
from prunebench.pretraining.train import pretrain

__all__ = ["Recipe", "read_recipe", "pretrain"]
