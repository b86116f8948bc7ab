"""Protected layers: the paper's, in proportion, and never all of them."""

from __future__ import annotations

import pytest
from conftest import make_tiny

from prunebench.errors import Unsupported
from prunebench.pruning.architectures import structures_of
from prunebench.pruning.protection import open_layers, require, unprotected


@pytest.mark.parametrize(
    "total, layers",
    [(32, range(4, 30)), (40, range(5, 38)), (22, range(3, 21)), (6, range(1, 6)), (4, range(4))],
)
def test_auto_is_the_papers_share(total, layers):
    assert open_layers(total, "auto", "auto") == layers


def test_numbers_are_taken_as_they_are_and_one_layer_must_be_left():
    assert open_layers(5, 1, 2) == range(1, 3)
    with pytest.raises(Unsupported, match="protect_first 4 and protect_last 2 leave none of 5"):
        open_layers(5, 4, 2)


def test_structures_of_open_layers_and_those_that_span_all():
    structures = structures_of(make_tiny(num_hidden_layers=4))
    chosen = unprotected(structures, ["heads", "hidden"], protect_first=1, protect_last=1)
    assert list(chosen) == ["layers.1.heads", "layers.2.heads", "hidden"]


def test_a_kind_that_the_family_lacks_is_named_with_the_reason():
    structures = structures_of(make_tiny("gpt_neox"))
    require(structures, ["heads", "neurons", "layers"])
    message = "hidden cannot be pruned, only its heads, neurons, layers: channels of a LayerNorm"
    with pytest.raises(Unsupported, match=message):
        require(structures, ["heads", "hidden"])
