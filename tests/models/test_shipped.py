"""The demo's model: the weights that came with the package, and what a new training reaches."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunebench.campaign.config import build
from prunebench.demo import pretrain, write_world
from prunebench.errors import Invalid
from prunebench.evaluation.perplexity import perplexity
from prunebench.evaluation.protocols import Protocol
from prunebench.models import folders, shipped
from prunebench.models.shipped import locate
from prunebench.text.source import open_source

CAMPAIGN = {
    "name": "toy",
    "models": [{"name": "demo-llama", "kind": "demo"}],
    "data": {"source": "demo"},
    "methods": ["random"],
    "sparsities": [0.5],
}
CLOSE = 0.05  # of a perplexity: what another seed or another processor changes


def test_the_weights_are_those_that_came_with_the_package() -> None:
    shipped.check_shipped()
    model, tokenizer = folders.load(locate("demo", "demo-llama"))
    assert sum(p.numel() for p in model.parameters()) == 1_005_824
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.parametrize("damage", ["changed", "absent"])
def test_other_weights_are_refused_before_any_job(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo-llama"
    shutil.copytree(shipped.DEMO_MODEL, folder)
    weights = folder / shipped.WEIGHTS
    if damage == "changed":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    else:
        weights.unlink()
    monkeypatch.setattr(shipped, "DEMO_MODEL", folder)
    with pytest.raises(Invalid, match="the demo's model (was changed|is missing): .* again"):
        build(CAMPAIGN, file="toy.yaml")


@pytest.mark.slow
def test_a_new_training_reaches_the_same_quality(tmp_path: Path) -> None:
    write_world(tmp_path / "world")
    pretrain(tmp_path / "world", tmp_path / "model", threads=2)
    source = open_source("demo", None, demo_root=tmp_path / "world")
    for corpus in ("encyclopedia", "newswire"):
        protocol, rows = Protocol("ppl/t", corpus, "test", 128), source.rows(corpus, "test")
        new, old = (
            perplexity(*folders.load(folder), rows, protocol)["value"]
            for folder in (tmp_path / "model", shipped.DEMO_MODEL)
        )
        assert new == pytest.approx(old, rel=CLOSE)
