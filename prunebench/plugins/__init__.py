"""Methods and baselines: found by their YAML, run through a Context. Imports no torch."""
