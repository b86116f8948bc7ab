"""What a description says of a method's passes, and what `prunebench plan` makes of it."""

from __future__ import annotations

import pytest
import yaml

from prunebench.errors import Invalid
from prunebench.estimate import stages
from prunebench.estimate.sizes import Sizes
from prunebench.plugins.description import read
from prunebench.plugins.discovery import discover
from prunebench.plugins.passes import forward_passes, read_passes

SIZES = Sizes(
    parameters=1000, decoder=800, active=900, inputs=50, outputs=70, layers=2, largest=100,
    vocabulary=20, cache=8, dtype_bytes=4,
)  # fmt: skip
PARAMS = {"steps": {"type": "integer"}, "batch": {"type": "integer"}, "kind": {"enum": ["a", "b"]}}
TERMS = [
    {"forward": 1},
    {"forward": 2, "samples": 1, "times": ["steps", "batch"]},
    {"forward": 5, "backward": 1, "when": {"kind": {"const": "b"}}},
    {"forward": 7, "samples": 3, "tuning": True},
]


@pytest.mark.parametrize(("kind", "expected"), [("a", 1 + 2 * 6 / 8), ("b", 1 + 2 * 6 / 8 + 5)])
def test_passes_follow_parameters_and_samples(kind, expected):
    passes = read_passes(TERMS, PARAMS, "passes")
    given = {"steps": 3, "batch": 2, "kind": kind}
    assert forward_passes(passes, given, samples=8) == pytest.approx(expected)


@pytest.mark.parametrize("entry", [{"times": ["rate"]}, {"when": {"rate": {"const": 1}}}])
def test_a_parameter_that_the_method_has_not_is_named(entry):
    with pytest.raises(Invalid, match=r"passes\[0\]: 'rate' is none of its parameters"):
        read_passes([{"forward": 1, **entry}], PARAMS, "passes")


def test_operations_count_what_has_gradients():
    plain = stages.passes(SIZES, 10, 1.0, 0.0)
    scored = stages.passes(SIZES, 10, 1.0, 1.0)
    frozen = stages.passes(SIZES, 10, 1.0, 1.0, frozen=True)
    assert [s.operations for s in (plain, scored, frozen)] == [18_000, 54_000, 36_000]
    assert plain.memory_bytes == SIZES.weight_bytes < scored.memory_bytes == frozen.memory_bytes


def test_parts_of_a_job_add_up_in_time_and_not_in_memory():
    parts = stages.load_and_save(SIZES, 0.5), stages.passes(SIZES, 10, 1.0, 1.0)
    whole = stages.after(*parts)
    assert whole.memory_bytes == parts[1].memory_bytes > parts[0].memory_bytes
    assert (whole.operations, whole.traffic_bytes) == (54_000, 1.5 * SIZES.weight_bytes)


def test_every_shipped_method_says_what_it_reads():
    silent = {name for name, plugin in discover().items() if plugin.passes is None}
    assert silent == {"dense"}  # which prunes nothing


def test_a_pass_of_nothing_is_refused(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "method.py").write_text("def prune(model, ctx): ...\n")
    described = {"name": "mine", "summary": "Of a pass that reads a tuning text.", "kind": "method"}
    (folder / "method.yaml").write_text(yaml.safe_dump({**described, "passes": [{"tuning": True}]}))
    with pytest.raises(Invalid, match="samples"):
        read(folder)
