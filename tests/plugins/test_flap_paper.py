"""FLAP's numbers and Wanda-sp's: means close, and sparsities follow from the models' shapes."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
import yaml

import prunebench.models
from prunebench.leaderboard.papers.published import Published, read_published
from prunebench.plugins.discovery import discover

SHAPES = Path(prunebench.models.__file__).parent / "shapes.yaml"
NUMBERS = [
    number
    for name in ("flap", "wanda_sp")
    for number in read_published(discover()[name].folder / "paper.yaml")
]


def share_of_all_parameters(number: Published) -> float:
    """What the ratio takes of a LLaMA: of its matrices (FLAP), or of the units of each layer."""
    shape = yaml.safe_load(SHAPES.read_text(encoding="utf-8"))[number.model]["config"]
    width, neurons = shape["hidden_size"], shape["intermediate_size"]
    layers, heads = shape["num_hidden_layers"], shape["num_attention_heads"]
    attention, mlp, ratio = 4 * width**2, 3 * width * neurons, number.native_ratio
    every = layers * (attention + mlp) + 2 * 32_000 * width + (2 * layers + 1) * width
    if number.method == "flap":
        return ratio * layers * (attention + mlp) / every
    gone = int(ratio * heads) / heads * attention + int(ratio * neurons) / neurons * mlp
    return layers * gone / every


@pytest.mark.parametrize("sparsity", sorted({n.sparsity for n in NUMBERS}))
def test_means_of_the_tasks_close(sparsity):
    for method in {n.method for n in NUMBERS}:
        values = {
            n.quantity: n.value
            for n in NUMBERS
            if (n.method, n.sparsity) == (method, sparsity) and n.quantity.startswith("zeroshot/")
        }
        if average := values.pop("zeroshot/7:mean", None):
            assert len(values) == 7
            assert mean(values.values()) == pytest.approx(average, abs=0.0051)


def test_sparsities_are_what_the_ratios_make_of_all_parameters():
    pruned = [n for n in NUMBERS if n.method != "dense"]
    assert {n.model for n in pruned} == {"llama-7b", "llama-13b", "llama-30b", "llama-65b"}
    for number in pruned:
        assert share_of_all_parameters(number) == pytest.approx(number.sparsity, abs=0.0006)
