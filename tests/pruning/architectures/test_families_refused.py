"""Variants that cannot be pruned exactly say so in a line."""

from __future__ import annotations

import pytest
from conftest import make_tiny

from prunebench.errors import Unsupported
from prunebench.pruning.architectures import structures_of

LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4}
REFUSED = [
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "no released model has it"),
    ("bloom", {"slow_but_exact": True}, "no released model has it"),
    ("falcon", {"alibi": True, "multi_query": False}, "Falcon with ALiBi .* cannot be pruned"),
    ("phi3", {"rope_parameters": {**LONG, "long_factor": [2.0] * 4}}, "Phi-3 with longrope"),
]


@pytest.mark.parametrize("family, changes, message", REFUSED)
def test_variants_without_an_exact_surgery_are_refused(family, changes, message):
    assert structures_of(make_tiny(family))  # the family itself is known
    with pytest.raises(Unsupported, match=message):
        structures_of(make_tiny(family, **changes))


def test_the_one_kv_group_of_a_multi_query_model_stays():
    structures = structures_of(make_tiny("falcon"))
    assert {s.units for s in structures.values() if s.kind == "heads"} == {1}
