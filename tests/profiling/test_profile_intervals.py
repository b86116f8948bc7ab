"""Medians, quartiles and the interval of a ratio: known values, coverage, too few rounds."""

from __future__ import annotations

import random

import pytest

from prunebench.profiling.intervals import interval_rank, speedup, summary


def test_summary_of_known_values():
    assert summary([4.0, 1.0, 3.0, 2.0, 5.0]) == {"median": 3.0, "q25": 2.0, "q75": 4.0, "n": 5}
    assert summary([7.0]) == {"median": 7.0, "q25": 7.0, "q75": 7.0, "n": 1}


# From published tables of the sign test: critical values for two sides.
@pytest.mark.parametrize(
    "count, confidence, rank",
    [(5, 0.95, None), (6, 0.95, 0), (8, 0.95, 0), (9, 0.95, 1), (20, 0.95, 5), (20, 0.99, 3)],
)
def test_rank_matches_the_sign_test(count, confidence, rank):
    assert interval_rank(count, confidence) == rank


def test_interval_covers_the_true_median_as_often_as_it_says():
    draw = random.Random(0)
    hits = 0
    for _ in range(2000):
        noise = [draw.lognormvariate(0, 0.5) for _ in range(20)]  # true median 1
        interval = speedup(noise, [1.0] * 20)
        hits += interval["low"] <= 1 <= interval["high"]
    assert 0.945 <= hits / 2000 <= 0.975  # exactly 0.9586; 3 standard errors are 0.013


def test_speedup_is_paired_by_round():
    slow_spell = [1.0, 1.0, 50.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    interval = speedup([2 * ms for ms in slow_spell], slow_spell, limit=2.5)
    assert (interval["low"], interval["ratio"], interval["high"]) == (2.0, 2.0, 2.0)
    assert interval["share_of_limit"] == pytest.approx(0.8)


def test_too_few_rounds_have_a_ratio_but_no_interval():
    interval = speedup([2.0, 2.0], [1.0, 1.0])
    assert interval["ratio"] == 2.0
    assert interval["low"] is None and interval["high"] is None
    assert interval["share_of_limit"] is None


def test_unequal_numbers_of_rounds_are_refused():
    with pytest.raises(ValueError):
        speedup([1.0, 1.0], [1.0])
