"""prunebench: a reproducible benchmark of structured pruning of large language models."""

__version__ = "0.1.0"
