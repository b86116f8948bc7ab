"""Paper against measured: a verdict needs the same setting, and a wrong number flips it."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from prunebench.evaluation.zeroshot.outcomes import write as write_items
from prunebench.leaderboard.numbers.statistics import summarise
from prunebench.leaderboard.papers.published import Claim, ClaimSide, Paper, Published, Rule
from prunebench.leaderboard.papers.verdicts import SPARSITY_TOLERANCE, Verdict, judge
from prunebench.pruning import selection
from prunebench.results.pairing import pairing

from . import factory
from .typed import build, collect

PPL = "ppl/2048:wikitext2-test@2048"
NUMBER = Published(
    model="llama-7b",
    method="taylor",
    label="Taylor",
    sparsity=0.5,
    sparsity_definition="parameters",
    native_ratio=0.6,
    params={},
    recovery="none",
    quantity=PPL,
    value=20.0,
    arxiv="0000.00000",
    table="Table 1",
    version="v1",
    evidence="read",
    note=None,
)


def cell(
    perplexities: tuple[float, ...] = (20.1, 20.2, 20.0),
    *,
    model: str = "llama-7b",
    label: str = "taylor",
    sparsity: float = 0.5,
    limit: int | None = None,
    parts: dict[str, dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """One record per perplexity; `parts` is merged into the record's parts."""
    made = []
    for seed, value in enumerate(perplexities):
        entry = factory.ppl(value, length=2048, limit=limit)
        record = factory.record(label=label, model=model, sparsity=sparsity, seed=seed)
        record["perplexity"] = {PPL: entry}
        record["sparsity"]["achieved"] = sparsity
        for part, change in (parts or {}).items():
            record[part] = record.get(part, {}) | change
        made.append(record)
    return made


def paper(*numbers: Published, claims: tuple[Claim, ...] = ()) -> Paper:
    defaults = {"taylor": {"scope": "layer", "native": False}}
    return Paper("A paper", "0000.00000", numbers, claims, defaults, {"taylor": ("native",)})


def verdicts(records: list[dict[str, Any]], **changes: Any) -> list[Verdict]:
    for record in records:
        record["cell"]["params"] = {"scope": "layer", "native": False} | record["cell"]["params"]
    collected = collect(records)
    number = dataclasses.replace(NUMBER, **changes)
    return list(judge(collected, summarise(collected), [paper(number)]))


def verdict(records: list[dict[str, Any]], **changes: Any) -> tuple[str, str]:
    (found,) = verdicts(records, **changes)
    return found.verdict, found.reason


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(20.1, "reproduced"), (20.41, "close"), (21.19, "close"), (21.3, "not reproduced")],
)
def test_the_verdict_follows_from_the_difference(measured: float, expected: str) -> None:
    """2 % of 20 is 0.4; three of it are 1.2."""
    values = (measured - 0.01, measured, measured + 0.01)
    assert verdict(cell(values))[0] == expected
    below = tuple(40 - value for value in values)
    assert verdict(cell(below))[0] == expected


def test_a_planted_wrong_number_flips_the_verdict() -> None:
    assert verdict(cell())[0] == "reproduced"
    assert verdict(cell(), value=2.0)[0] == "not reproduced"
    assert verdict(cell((20.1, 20.2, 25.0)))[0] != "reproduced"


def test_a_mean_that_could_be_anything_gives_no_verdict() -> None:
    found, reason = verdict(cell((10.0, 20.0, 30.0)))
    assert found == "not comparable" and "too uncertainly" in reason


def test_what_was_recalled_is_shown_and_not_judged() -> None:
    (found,) = verdicts(cell(), evidence="recalled")
    assert found.verdict == "unconfirmed" and found.measured is not None
    assert found.measured.mean == pytest.approx(20.1) and found.measured.n == 3
    assert verdict(cell(model="other"), evidence="recalled")[0] == "unconfirmed"


@pytest.mark.parametrize(
    ("records", "changes", "reason"),
    [
        (cell(model="llama-13b"), {}, "another model: llama-7b was not measured"),
        (cell(label="other"), {}, "another method: no row of taylor"),
        (cell(), {"params": {"scope": "global"}}, "other parameters: scope 'global' in the paper"),
        (cell(sparsity=0.2), {}, "another sparsity: 50.0% of all parameters; measured: 20.0%"),
        (cell(), {"sparsity_definition": "units"}, "another definition of sparsity: 50%"),
        (cell(), {"recovery": "alpaca-50k"}, "tuned on alpaca-50k in the paper, not tuned here"),
        (cell(), {"recovery": "unknown"}, "the paper does not say what it was tuned on"),
        (cell(), {"quantity": "ppl/128:wikitext2-test@128"}, "another protocol: ppl/128"),
        (cell(limit=5), {}, "a limited run"),
        (cell(), {"quantity": "profile/x:latency_s"}, "another device or another way of measuring"),
    ],
)  # fmt: skip
def test_what_differs_is_not_comparable_and_says_why(
    records: list[dict[str, Any]], changes: dict[str, Any], reason: str
) -> None:
    found, why = verdict(records, **changes)
    assert found == "not comparable" and reason in why


def test_weights_that_the_suite_made_are_nobodys_model() -> None:
    found, why = verdict(cell(model="llama-7b", parts={"model": {"kind": "random"}}))
    assert found == "not comparable" and "another model" in why


def test_a_hub_model_is_known_by_its_name_there() -> None:
    source = {"kind": "hub", "source": "huggyllama/Llama-7B-hf"}
    assert verdict(cell(model="mine", parts={"model": source}))[0] == "reproduced"


def test_units_match_a_native_row_of_the_same_ratio_only() -> None:
    native = {"native": True, "native_ratio": 0.6, "achieved": 0.41, "within_tolerance": False}
    changes = {"sparsity_definition": "units"}
    assert verdict(cell(parts={"sparsity": native}), **changes)[0] == "reproduced"
    assert (
        verdict(cell(parts={"sparsity": native}), **changes, native_ratio=0.5)[0]
        == "not comparable"
    )


def test_the_same_tuning_matches_and_another_budget_does_not() -> None:
    def tuned(examples: int) -> list[dict[str, Any]]:
        report = {"instructions": "alpaca", "by": "suite", "data": {"examples": examples}}
        records = cell(parts={"tuning": report})
        for record in records:
            record["cell"]["recovery"] = True
        return records

    assert verdict(tuned(49_700), recovery="alpaca-50k")[0] == "reproduced"
    assert "on alpaca, 2000 examples" in verdict(tuned(2000), recovery="alpaca-50k")[1]
    assert "tuned here, not in the paper" in verdict(tuned(2000))[1]


def test_matched_controls_are_never_taken_for_the_method() -> None:
    records = cell()
    for record in records:
        record["cell"]["matched"] = "other"
    assert verdict(records)[1] == "another method: no row of taylor"


def test_tasks_and_their_mean_are_compared_in_percent() -> None:
    records = cell()
    for record in records:
        record["zeroshot"]["tasks"]["boolq"]["value"] = 0.61
        record["zeroshot"]["mean"] = 0.5
    (task,) = verdicts(records, quantity="zeroshot/7:boolq", value=62.5)
    assert task.measured is not None and task.measured.mean == pytest.approx(61)
    assert task.verdict == "reproduced" and task.tolerance == 2
    (mean,) = verdicts(records, quantity="zeroshot/7:mean", value=52.5)
    assert (mean.verdict, mean.tolerance) == ("close", 1)
    assert verdict(records, quantity="zeroshot/14:boolq")[0] == "not comparable"


def test_parameters_are_compared_in_the_papers_unit() -> None:
    records = cell()
    for record in records:
        record["model"]["parameters"] = 3_350_000_000
    found = verdict(records, quantity="profile/p:parameters_billions", value=3.35)
    assert found == ("reproduced", "")


def test_the_tolerance_is_the_one_that_selection_keeps() -> None:
    assert SPARSITY_TOLERANCE == selection.TOLERANCE


# --- claims --------------------------------------------------------------------------------------


def claim(value: float, evidence: str = "read", **changes: Any) -> Claim:
    sides = ClaimSide("mine", {}, None, 0.5), ClaimSide("theirs", {}, None, 0.5)
    rule = Rule("perplexity", "wikitext2", *sides, form="difference", value=value)
    return Claim("mine is better", "abstract", evidence, (dataclasses.replace(rule, **changes),))


def judged(mine: tuple[float, ...], theirs: tuple[float, ...], made: Claim, out: Path) -> Any:
    records = [*cell(mine, label="mine"), *cell(theirs, label="theirs")]
    papers = [paper(claims=(made,))]
    report = build(records, [], out, title="t", papers=papers, paired=pairing(out))
    (found,) = report.claims
    return found


def test_a_claim_is_judged_by_direction_and_size(tmp_path: Path) -> None:
    better, worse = (10.0, 10.1, 10.2), (14.0, 14.1, 14.2)
    found = judged(better, worse, claim(-8.0), tmp_path)
    assert found.verdict == "holds" and found.share == pytest.approx(0.5)
    assert found.value == pytest.approx(-4) and found.low < -4 < found.high < 0
    assert judged(worse, better, claim(-8.0), tmp_path).verdict == "reversed"
    assert judged((8.0, 10.0, 15.0), worse, claim(-8.0), tmp_path).verdict == "undecided"
    assert judged(better, worse, claim(8.0), tmp_path).verdict == "reversed"  # a planted sign
    assert judged(better, worse, claim(-8.0, "recalled"), tmp_path).verdict == "unconfirmed"


def test_a_claim_about_a_ratio(tmp_path: Path) -> None:
    found = judged((7.0, 7.1, 7.2), (10.0, 10.1, 10.2), claim(0.5, form="ratio"), tmp_path)
    assert found.verdict == "holds" and found.ratio == pytest.approx(7.1 / 10.1)
    assert found.share == pytest.approx((1 - 7.1 / 10.1) / 0.5)


def outcomes(right: str, suite: str = "zeroshot/7") -> dict[str, Any]:
    """An items file of one task, whose digits say which items were answered rightly."""
    digests = dict.fromkeys(("documents", "prompts", "targets"), "0" * 64)
    task = {"metric": "acc", "version": 1, "items": len(right), "acc": right, "acc_norm": None}
    task |= {"score": None, "chance": 0.5, "cut": 0, "documents": [], "hashes": digests}
    harness = {"name": "lm-eval", "version": "0.4.13"}
    return {"harness": harness, "schema_version": 1, "suite": suite, "tasks": {"piqa": task}}


def write_outcomes(out: Path, *, seed: int, ahead: int) -> None:
    """1,000 items of two rows: mine is right wherever theirs is, and on `ahead` items more."""
    theirs, mine = "01" * 500, "11" * ahead + "01" * (500 - ahead)
    for label, right in (("mine", mine), ("theirs", theirs)):
        place = out / "cells" / "llama-7b" / label / "0.5" / f"seed{seed}"
        place.mkdir(parents=True)
        write_items(outcomes(right), place / "items.json.gz")


def test_accuracies_of_two_rows_are_compared_item_by_item(tmp_path: Path) -> None:
    """Mine is right wherever theirs is and on 20 of 1,000 items more: 2 points, and sure of it,
    although two accuracies of 1,000 items each are known to 3 points only."""
    write_outcomes(tmp_path, seed=0, ahead=20)
    made = claim(2.0, kind="task", name="piqa")
    found = judged((10.0,), (10.0,), made, tmp_path)
    assert found.verdict == "holds"
    assert found.value == pytest.approx(2.0)
    assert 1.0 < found.low < found.value < found.high < 3.1
    apart = judged((10.0,), (10.0,), made, tmp_path / "elsewhere")  # no items: as if independent
    assert apart.high - apart.low > 2 * (found.high - found.low)
    alone = judged((10.0,), (10.0, 10.2), made, tmp_path)  # at the seed that both have
    assert (alone.value, alone.low) == (found.value, found.low)
    seeds = judged((10.0, 10.1), (10.0, 10.2), made, tmp_path)  # no items of the second seed
    assert (seeds.low, seeds.high) != (found.low, found.high)
    write_outcomes(tmp_path, seed=1, ahead=10)
    both = judged((10.0, 10.1), (10.0, 10.2), made, tmp_path)
    assert both.value == pytest.approx(1.5) and both.verdict == "holds"
    assert found.low - 1 < both.low < found.low and both.high < found.high
    write_outcomes(tmp_path, seed=2, ahead=10)
    three = judged((10.0, 10.1, 10.2), (10.0, 10.2, 10.3), made, tmp_path)
    assert three.value < 0  # of the records' own numbers: three seeds have a spread


def test_only_accuracies_are_compared_across_devices(tmp_path: Path) -> None:
    write_outcomes(tmp_path, seed=0, ahead=20)
    records = [*cell((10.0,), label="mine"), *cell((12.0,), label="theirs")]
    records[1]["provenance"]["device"] = "another device"
    claims = (claim(2.0, kind="task", name="piqa"), claim(-2.0))
    papers = [paper(claims=claims)]
    report = build(records, [], tmp_path, title="t", papers=papers, paired=pairing(tmp_path))
    items, texts = report.claims
    assert items.verdict == "holds" and items.value == pytest.approx(2.0)
    assert "evaluated on two devices" in items.reason
    away = tmp_path / "elsewhere"  # where there are no items
    unpaired = build(records, [], away, title="t", papers=papers, paired=pairing(away)).claims[0]
    assert unpaired.verdict == "not comparable"
    assert texts.verdict == "not comparable" and "on both rows" in texts.reason


def test_tuned_rows_are_compared_with_tuned_ones(tmp_path: Path) -> None:
    """A claim that does not say which it means is judged on like rows alone."""
    tuned = {"instructions": "alpaca", "by": "suite", "tuning_tokens": 100, "steps": 2}
    (also_tuned,) = cell((9.0,), label="mine")
    also_tuned["cell"] |= {"recovery": True, "label": "mine+lora", "method": "mine"}
    records = [*cell((10.0,), label="mine"), *cell((14.0,), label="theirs")]
    records.append(also_tuned | {"tuning": tuned})
    report = build(records, [], tmp_path, title="t", papers=[paper(claims=(claim(-8.0),))])
    assert [(found.row, found.against) for found in report.claims] == [("mine", "theirs")]


def test_claims_without_rows_or_rule_say_so(tmp_path: Path) -> None:
    report = build(
        cell(label="mine"),
        [],
        tmp_path,
        title="t",
        papers=[paper(claims=(claim(-1.0), Claim("in words", "", "quoted", ())))],
    )
    first, second = report.claims
    assert (first.verdict, first.reason) == ("not comparable", "no row of theirs at 50%")
    assert second.verdict == "not comparable" and "words only" in second.reason


# --- files ---------------------------------------------------------------------------------------


def test_the_files_show_numbers_claims_and_what_is_left(tmp_path: Path) -> None:
    records = [*cell(label="mine"), *cell((30.0, 30.1, 30.2), label="theirs")]
    other = dataclasses.replace(NUMBER, model="llama-13b")
    mine = dataclasses.replace(NUMBER, method="mine", label="a | <b>")
    build(records, [], tmp_path, title="t", papers=[paper(mine, other, claims=(claim(-8.0),))])
    text = (tmp_path / "paper_vs_measured.md").read_text(encoding="utf-8")
    assert "**Published numbers: 1 reproduced, 0 close, 0 not reproduced, 1 not comparable" in text
    assert "| reproduced | arXiv 0000.00000 | Table 1 (v1), a &#124; &#60;b&#62; | read" in text
    assert "20.00 | 20.10 ± 0.10 (3)" in text.replace("  ", " ") and "holds" in text
    with open(tmp_path / "paper_vs_measured.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["verdict"] for line in lines] == ["reproduced", "not comparable", "holds"]
    assert float(lines[0]["difference"]) == pytest.approx(0.1)


def test_without_papers_the_file_says_so(tmp_path: Path) -> None:
    build(cell(), [], tmp_path, title="t")
    text = (tmp_path / "paper_vs_measured.md").read_text(encoding="utf-8")
    assert "No method of this campaign has published numbers on file." in text
