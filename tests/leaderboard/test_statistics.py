"""Errors, differences and ranks against SciPy and by hand."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunebench.leaderboard.numbers.statistics import average_ranks, leader_ranks, summarise

from . import factory
from .typed import collect

MEANS = st.lists(st.floats(1, 100), min_size=1, max_size=8)


def cells(
    values: Sequence[float | None], *, label: str = "a", sparsity: float = 0.5, error: float = 0.01
) -> list[dict[str, Any]]:
    """One cell per value, with a perplexity and nothing else; None is a perplexity that failed."""
    nothing = {"status": "skipped", "reason": "not asked for"}
    made = []
    for seed, value in enumerate(values):
        entry = {"status": "failed", "reason": "overflow"}
        if value is not None:
            entry = factory.ppl(value, nll_stderr=error)
        record = factory.record(label=label, sparsity=sparsity, seed=seed)
        record["perplexity"] = {"key": entry}
        made.append(record | {"zeroshot": nothing, "profile": nothing, "cost": nothing})
    return made


def summary_of(records: Sequence[dict[str, Any]], kind: str = "perplexity") -> pd.DataFrame:
    """Summary of one kind of quantity, by row name and sparsity."""
    collected = collect(records)
    summary = summarise(collected)
    kinds = [quantity.kind for quantity in collected.quantities]
    summary = summary[[kinds[q] == kind for q in summary["quantity"]]]
    return summary.join(collected.rows[["name", "sparsity"]], on="row").set_index(
        ["name", "sparsity"]
    )


def only(records: Sequence[dict[str, Any]], kind: str = "perplexity") -> pd.Series:
    summary = summary_of(records, kind)
    return summary.loc[("a", 0.5)]


# --- mean, deviation, interval -------------------------------------------------------------------


def test_mean_and_sample_deviation_over_seeds() -> None:
    values = [10.0, 11.0, 13.5]
    found = only(cells(values))
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(statistics.mean(values), rel=1e-15)
    assert found["sd"] == pytest.approx(statistics.stdev(values), rel=1e-14)
    sample = stats.t.interval(0.95, 2, statistics.mean(values), stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx(sample, rel=1e-12)
    assert found["interval"] == "seeds"


def test_one_seed_has_no_deviation_and_its_interval_comes_from_items() -> None:
    found = only(cells([10.0], error=0.02))
    assert found["n"] == 1 and math.isnan(found["sd"])
    assert found["error"] == pytest.approx(0.2)  # perplexity times the error of the mean loss
    assert found["high"] - found["mean"] == pytest.approx(1.96 * 0.2, rel=1e-4)
    assert found["interval"] == "run"


def test_an_interval_of_the_record_itself_is_kept_as_it_is() -> None:
    made = factory.record(label="a")
    made["profile"]["points"][0]["decode_speedup"] = {"ratio": 2.0, "low": 0.9, "high": 2.1}
    found = only([made], kind="decode_speedup")
    assert (found["low"], found["mean"], found["high"]) == (0.9, 2.0, 2.1)
    assert found["interval"] == "run"


def test_equal_seeds_have_no_spread_not_even_of_rounding() -> None:
    found = only(cells([1.1 + 2.2, 3.3, 3.3]))
    assert found["sd"] == 0.0
    assert found["interval"] == "run"


def test_item_error_does_not_shrink_with_seeds() -> None:
    one, three = only(cells([10.0])), only(cells([10.0, 10.0, 10.0]))
    assert three["error"] == pytest.approx(one["error"])


def test_a_missing_value_is_not_a_zero() -> None:
    found = only(cells([10.0, None, 12.0]))
    assert found["n"] == 2 and found["mean"] == 11.0
    summary = summary_of([*cells([None, None]), *cells([10.0], label="b")])
    assert ("a", 0.5) not in summary.index


def test_without_items_or_seeds_there_is_no_interval() -> None:
    records = cells([10.0])
    records[0]["perplexity"]["key"]["nll_stderr"] = None
    found = only(records)
    assert math.isnan(found["low"]) and found["interval"] == ""


# --- difference from a reference row ---


def against_reference(records: Sequence[dict[str, Any]], kind: str = "perplexity") -> pd.Series:
    collected = collect(records)
    summary = summarise(collected, reference="ref")
    kinds = [quantity.kind for quantity in collected.quantities]
    summary = summary[[kinds[q] == kind for q in summary["quantity"]]]
    return summary.join(collected.rows["name"], on="row").set_index("name").loc["a"]


def test_difference_from_a_reference_row_of_the_same_sparsity() -> None:
    values, others = [10.0, 11.0, 13.0], [8.0, 8.4, 9.1]
    records = [
        *cells(values),
        *cells(others, label="ref"),
        *cells([1.0], label="ref", sparsity=0.2),
    ]
    found = against_reference(records)
    expected = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    ends = found["reference_difference_low"], found["reference_difference_high"]
    assert ends == pytest.approx(tuple(expected), rel=1e-12)
    assert found["reference_difference"] == pytest.approx(
        statistics.mean(values) - statistics.mean(others)
    )
    collected = collect(records)
    own = summarise(collected, reference="ref").join(collected.rows["name"], on="row")
    assert own[own["name"] == "ref"]["reference_difference"].isna().all()
    assert summarise(collected)["reference_difference"].isna().all()


def test_a_reference_that_is_never_pruned_is_compared_with_rows_of_all_sparsities() -> None:
    unpruned = cells([8.0, 8.4, 9.1], label="ref", sparsity=0.0)
    found = against_reference([*cells([10.0, 11.0, 13.0]), *unpruned])
    mean = statistics.mean([8.0, 8.4, 9.1])
    assert found["reference_difference"] == pytest.approx(34 / 3 - mean)
    pruned_too = cells([5.0], label="ref", sparsity=0.2)  # then nothing stands in for a missing one
    found = against_reference([*cells([10.0, 11.0, 13.0]), *unpruned, *pruned_too])
    assert math.isnan(found["reference_difference"])


def test_a_single_run_against_a_reference_with_seeds_has_the_seeds_error() -> None:
    found = against_reference([*cells([10.0]), *cells([8.0, 8.4, 9.1], label="ref")])
    expected = stats.ttest_1samp([8.0, 8.4, 9.1], 10.0).confidence_interval(0.95)
    assert found["reference_difference_interval"] == "seeds"
    assert 10 - found["reference_difference_high"] == pytest.approx(expected.low, rel=1e-12)


def test_difference_from_a_reference_is_paired_where_the_record_is() -> None:
    records = [factory.record(label="ref"), factory.record(label="a")]
    records[1]["zeroshot"]["versus_reference"] = {"difference": 0.0, "low": -0.01, "high": 0.02}
    found = against_reference(records, kind="zeroshot")
    ends = found["reference_difference_low"], found["reference_difference_high"]
    assert ends == (-0.01, 0.02) and found["reference_difference_interval"] == "paired items"


# --- difference from dense -----------------------------------------------------------------------


def test_difference_over_seeds_from_one_dense_run() -> None:
    values = [10.0, 11.0, 13.0]
    found = only([*cells(values), *cells([8.0], label="dense", sparsity=0.0)])
    assert found["difference"] == pytest.approx(statistics.mean(values) - 8)
    expected = stats.ttest_1samp(values, 8.0).confidence_interval(0.95)
    ends = found["difference_low"] + 8, found["difference_high"] + 8
    assert ends == pytest.approx(tuple(expected), rel=1e-12)
    assert found["difference_interval"] == "seeds"


def test_difference_over_seeds_of_both_is_welchs() -> None:
    values, dense = [10.0, 11.0, 13.0], [8.0, 8.4, 9.1, 8.2]
    found = only([*cells(values), *cells(dense, label="dense", sparsity=0.0)])
    expected = stats.ttest_ind(values, dense, equal_var=False).confidence_interval(0.95)
    ends = found["difference_low"], found["difference_high"]
    assert ends == pytest.approx(tuple(expected), rel=1e-12)


def test_difference_of_single_runs_has_both_item_errors() -> None:
    found = only([*cells([10.0]), *cells([8.0], label="dense", sparsity=0.0)])
    half = (found["difference_high"] - found["difference_low"]) / 2
    assert half == pytest.approx(1.96 * math.hypot(0.1, 0.08), rel=1e-4)
    assert found["difference_interval"] == "run"


def test_difference_of_single_runs_is_paired_where_the_record_is() -> None:
    dense = factory.record(label="dense", sparsity=0.0)
    pruned = factory.record(label="a")
    for task in pruned["zeroshot"]["tasks"].values():
        task["versus_dense"] = factory.versus(-0.05, 0.01)
    found = only([dense, pruned], kind="zeroshot")
    half = (found["difference_high"] - found["difference_low"]) / 2
    assert half == pytest.approx(1.96 * 0.01 / math.sqrt(7))
    assert found["difference_interval"] == "paired items"
    pruned["zeroshot"]["versus_dense"] = {"difference": -0.05, "low": -0.07, "high": -0.02}
    found = only([dense, pruned], kind="zeroshot")
    assert (found["difference_low"], found["difference_high"]) == (-0.07, -0.02)


def test_one_task_without_a_pair_makes_the_mean_unpaired() -> None:
    dense, pruned = factory.record(label="dense", sparsity=0.0), factory.record(label="a")
    pruned["zeroshot"]["tasks"]["boolq"]["versus_dense"] = None
    assert only([dense, pruned], kind="zeroshot")["difference_interval"] == "run"


def test_no_difference_without_dense_or_across_devices() -> None:
    assert math.isnan(only(cells([10.0, 11.0]))["difference"])
    dense = cells([8.0], label="dense", sparsity=0.0)
    dense[0]["provenance"]["device"] = "cuda: H100"
    assert math.isnan(only([*cells([10.0, 11.0]), *dense])["difference"])


def test_dense_is_what_was_neither_pruned_nor_tuned() -> None:
    tuned = cells([7.0], label="adapted", sparsity=0.0)
    tuned[0]["cell"]["recovery"] = True
    plain = cells([8.0], label="untouched", sparsity=0.0)
    summary = summary_of([*cells([10.0]), *tuned, *plain])
    assert summary.loc[("a", 0.5), "difference"] == 2.0
    assert summary.loc[("adapted", 0.0), "difference"] == -1.0
    assert math.isnan(summary.loc[("untouched", 0.0), "difference"])


# --- ranks ---------------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    #                 leader   overlaps  apart  overlaps third
    means, halves = [10.0, 11.0, 15.0, 15.5, 30.0], [0.6, 0.5, 1.0, 0.2, 0.0]
    lows = [m - h for m, h in zip(means, halves, strict=True)]
    highs = [m + h for m, h in zip(means, halves, strict=True)]
    assert leader_ranks(means, lows, highs, better="lower") == [1, 1, 3, 3, 5]
    assert leader_ranks(means, lows, highs, better="higher") == [4, 4, 2, 2, 1]


def test_touching_intervals_overlap() -> None:
    assert leader_ranks([1, 2], [0.5, 1.5], [1.5, 2.5], better="lower") == [1, 1]
    assert leader_ranks([1, 2], [0.5, 1.6], [1.5, 2.4], better="lower") == [1, 2]


@given(means=MEANS, half=st.floats(0, 5), better=st.sampled_from(["lower", "higher"]))
def test_the_best_leads_and_ranks_follow_the_means(
    means: list[float], half: float, better: str
) -> None:
    lows, highs = [m - half for m in means], [m + half for m in means]
    ranks = leader_ranks(means, lows, highs, better=better)
    best = min(means) if better == "lower" else max(means)
    assert ranks[means.index(best)] == 1
    order = sorted(range(len(means)), key=lambda i: means[i], reverse=better == "higher")
    ordered = [ranks[i] for i in order]
    assert ordered == sorted(ordered)
    assert all(rank <= place for place, rank in enumerate(ordered, start=1))


@given(means=MEANS, half=st.floats(0, 5))
def test_ranks_do_not_depend_on_the_order(means: list[float], half: float) -> None:
    def ranked(values: list[float]) -> list[tuple[float, int]]:
        ends = [v - half for v in values], [v + half for v in values]
        return sorted(zip(values, leader_ranks(values, *ends, better="lower"), strict=True))

    assert ranked(means) == ranked(means[::-1])


def test_best_is_the_best_and_what_overlaps_it_per_sparsity() -> None:
    records = [
        *cells([10.0, 10.4, 9.6], label="a"),
        *cells([10.5, 10.9, 10.1], label="b"),
        *cells([20.0, 20.1, 19.9], label="c"),
        *cells([5.0, 5.1, 4.9], label="c", sparsity=0.2),
        *cells([3.0], label="dense", sparsity=0.0),
    ]
    summary = summary_of(records)
    assert summary["rank"].fillna(0).to_dict() == {
        ("a", 0.5): 1,
        ("b", 0.5): 1,
        ("c", 0.5): 3,
        ("c", 0.2): 1,
        ("dense", 0.0): 0,
    }
    # alone at its sparsity, nothing is best
    assert [key for key, best in summary["best"].items() if best] == [("a", 0.5), ("b", 0.5)]


@pytest.mark.parametrize(
    ("part", "change"), [("sparsity", {"within_tolerance": False}), ("verify", {"passed": False})]
)
def test_rows_of_another_size_or_unverified_are_not_ranked(
    part: str, change: dict[str, Any]
) -> None:
    cheat = cells([1.0, 1.1], label="cheat")
    honest = [*cells([10.0, 10.1], label="a"), *cells([20.0, 20.1], label="b")]
    assert summary_of([*cheat, *honest]).loc[("cheat", 0.5), "rank"] == 1
    cheat[0][part] |= change
    summary = summary_of([*cheat, *honest])
    assert math.isnan(summary.loc[("cheat", 0.5), "rank"])
    assert summary.loc[("a", 0.5), "rank"] == 1 and summary.loc[("a", 0.5), "best"]


def test_average_ranks_count_what_is_lost() -> None:
    records = [
        *cells([10.0, 10.1], label="a"),
        *cells([20.0, 20.1], label="b"),
        *cells([10.0, 10.1], label="a", sparsity=0.2),
        *cells([5.0, 5.1], label="b", sparsity=0.2),
        *cells([1.0, 1.1], label="c", sparsity=0.2),
        factory.lost(label="c", sparsity=0.5),
        *cells([50.0], label="a", sparsity=0.9),  # alone there: no comparison
    ]
    collected = collect(records)
    found = average_ranks(collected, summarise(collected))
    assert [(f.name, f.average, f.ranked, f.failed) for f in found] == [
        ("a", 2.0, 2, 0),  # those ranked everywhere come first
        ("b", 2.0, 2, 0),
        ("c", 1.0, 1, 1),
    ]
    assert {line.comparisons for line in found} == {2}
