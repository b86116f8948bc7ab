"""The demo: a miniature world of text and tasks, and the recipe of a model that knows it."""

from __future__ import annotations

from prunebench.demo.train import pretrain
from prunebench.demo.world import write_world

__all__ = ["pretrain", "write_world"]
