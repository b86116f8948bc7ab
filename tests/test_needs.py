"""What a cluster is asked for: more for a larger model, more on a further try."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunebench.campaign.config import build
from prunebench.estimate import needs as module
from prunebench.estimate.needs import START_MIN, UNKNOWN_MIN, Needs, announced, needs

RAW = {
    "name": "two",
    "models": [
        {"name": "small", "kind": "random", "shape": "tinyllama-1.1b"},
        {"name": "large", "kind": "random", "shape": "llama-7b"},
        {"name": "nobody", "kind": "hub", "id": "nobody/knows"},
    ],
    "methods": [{"name": "magnitude", "recovery": "both"}],
    "data": {"source": "hub"},
    "sparsities": [0.2],
    "recovery": {"text": ["wikitext2"], "tokens": 1_000_000},
    "profile": {"points": [{"batch": 1, "prompt": 64, "new": 16}]},
    "resources": {"mem_mb": 3000},
}


@pytest.fixture(scope="module")
def campaign():
    return build(RAW, file="two.yaml", folder=Path(), check_files=False)


def test_a_large_model_asks_for_more_than_a_small_one(campaign):
    asked = needs(campaign, device="cuda")
    small, large = (f"recover/{name}/magnitude+lora" for name in ("small", "large"))
    weights_mib = 2 * 6.7e9 / 2**20
    assert weights_mib < asked.memory(large, 1) < 2 * weights_mib
    assert 3000 < asked.memory(small, 1) < asked.memory(large, 1) / 2
    assert asked.runtime(small, 1) < asked.runtime(large, 1)
    assert "prune/small/magnitude" in asked.minutes and "profile/large/" in asked.minutes


def test_what_nobody_can_estimate_asks_for_what_the_campaign_says(campaign):
    asked = needs(campaign, device="cuda")
    assert asked.memory("prune/nobody/magnitude", 1) == module.SNAKEMAKE_MIB + 3000
    assert asked.runtime("prune/nobody/magnitude", 1) == UNKNOWN_MIN


def test_each_try_asks_for_twice_as_much_and_the_last_one_ends_itself():
    asked = Needs({"a": 5000}, {"a": 30}, 4000, tries=3)
    memory = [asked.memory("a", attempt) - module.SNAKEMAKE_MIB for attempt in (1, 2, 3)]
    assert memory == [5000, 10000, 20000]
    assert [asked.runtime("a", attempt) for attempt in (1, 2, 3)] == [30, 60, 120]
    assert [asked.memory_limit("a", attempt) for attempt in (1, 2, 3)] == [0, 0, 20000]
    limits = [asked.time_limit("a", attempt) for attempt in (1, 2, 3)]
    assert limits[:2] == [0, 0] and 0 < limits[2] < 120 * 60


def test_a_campaigns_own_time_limit_is_met_before_the_clusters():
    asked = Needs({}, {"a": 30}, 4000, tries=3, own_s=600)
    assert asked.time_limit("a", 1) == asked.time_limit("a", 3) == 600
    assert asked.runtime("a", 1) == asked.runtime("a", 3) == 10 + START_MIN


def test_jobs_know_what_the_run_asked_for(monkeypatch):
    monkeypatch.delenv(module.VARIABLE, raising=False)
    assert announced() is None
    monkeypatch.setenv(module.VARIABLE, "")  # put back afterwards
    asked = Needs({"a": 5000}, {"a": 30}, 4000, tries=3)
    asked.announce()
    assert announced() == asked
