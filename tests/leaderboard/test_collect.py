"""Records into frames: what may share a column, which cells count, which record of a cell."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from prunebench.leaderboard import Problem, read_records
from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.views.columns import titles
from prunebench.record import store

from . import factory
from .typed import collect, measurements, missing_parts


def of_kind(made: dict[str, Any], kind: str) -> list[Quantity]:
    return [m.quantity for m in measurements(made) if m.quantity.kind == kind]


def test_the_factorys_records_are_valid() -> None:
    for made in factory.campaign(seeds=1):
        store.record_of(made, "here")
    store.record_of(factory.lost(), "here")


# --- what may share a column ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"length": 2048},
        {"limit": 10},
        {"split": "validation"},
        {"mode": "documents"},
        {"tokens": 5},
        {"data_sha256": "cd" * 32},
        {"device": "cuda: H100"},
        {"corpus": "c4"},
    ],
)
def test_perplexities_of_another_protocol_never_share_a_column(change: dict[str, Any]) -> None:
    first = factory.record(perplexity=10.0)
    second = factory.record(perplexity=10.0, seed=1)
    only = {"ppl/wikitext2-128": factory.ppl(10.0)}
    first["perplexity"], second["perplexity"] = only, only
    assert of_kind(first, "perplexity") == of_kind(second, "perplexity")
    second["perplexity"] = {"ppl/wikitext2-128": factory.ppl(10.0, **change)}
    assert of_kind(first, "perplexity") != of_kind(second, "perplexity")


@pytest.mark.parametrize(
    "change",
    [
        {"limit": 100},
        {"suite": "zeroshot/pat14"},
        {"harness": {"name": "lm-eval", "version": "0.4.9"}},
        {"device": "cuda: H100"},
        {"mean_chance": 0.25},
    ],
)
def test_suites_of_another_setting_never_share_a_column(change: dict[str, Any]) -> None:
    first, second = factory.record(), factory.record(seed=1)
    assert of_kind(first, "zeroshot") == of_kind(second, "zeroshot")
    second["zeroshot"] |= change
    assert of_kind(first, "zeroshot") != of_kind(second, "zeroshot")


def test_a_mean_over_fewer_tasks_is_another_column() -> None:
    first, second = factory.record(), factory.record(seed=1)
    second["zeroshot"]["tasks"]["boolq"] = {"status": "skipped", "reason": "no file"}
    assert of_kind(first, "zeroshot") != of_kind(second, "zeroshot")


@pytest.mark.parametrize("change", [{"hash": "ee" * 32}, {"version": 2}, {"items": 9}])
def test_another_version_of_a_task_is_another_column(change: dict[str, Any]) -> None:
    first, second = factory.record(), factory.record(seed=1)
    second["zeroshot"]["tasks"]["boolq"] |= change
    different = set(of_kind(first, "task")) ^ set(of_kind(second, "task"))
    assert {quantity.name for quantity in different} == {"boolq"}


def test_another_device_or_point_is_another_column() -> None:
    first, second = factory.record(), factory.record(seed=1)
    second["profile"]["device"] = "cuda: H100"
    assert not set(of_kind(first, "prefill_ms")) & set(of_kind(second, "prefill_ms"))
    assert of_kind(first, "parameters") == of_kind(second, "parameters")
    third = factory.record(seed=2)
    third["profile"]["points"] = [factory.point(random.Random(0), 0.5, batch=8)]
    assert not set(of_kind(first, "prefill_ms")) & set(of_kind(third, "prefill_ms"))


def test_titles_are_short_until_they_would_be_equal() -> None:
    def perplexity(**details: str) -> Quantity:
        known = {"length": "128", "split": "test", "protocol": "p"} | details
        return Quantity("perplexity", "wikitext2", tuple(known.items()))

    assert titles([perplexity()]) == ["wikitext2/128 ↓"]
    assert titles([perplexity(), perplexity(length="64")]) == ["wikitext2/128 ↓", "wikitext2/64 ↓"]
    assert titles([perplexity(), perplexity(limit="9")]) == [
        "wikitext2/128 all ↓",
        "wikitext2/128 first 9 ↓",
    ]
    assert titles([perplexity(), perplexity(split="train"), Quantity("task", "piqa")]) == [
        "wikitext2/128 test ↓",
        "wikitext2/128 train ↓",
        "piqa ↑",
    ]


# --- which cells count ---------------------------------------------------------------------------


def test_seeds_share_a_row_and_other_cells_do_not() -> None:
    records = [factory.record(seed=seed) for seed in range(3)]
    records += [
        factory.record(sparsity=0.2),
        factory.record(model="other"),
        factory.record(label="magnitude-l2"),
        factory.record() | {"cell": factory.cell(params={"norm": 2})},
        factory.record() | {"cell": factory.cell(recovery=True)},
        factory.record() | {"cell": factory.cell(campaign="second")},
    ]
    collected = collect(records)
    assert sorted(collected.rows["ok"]) == [1, 1, 1, 1, 1, 1, 3]
    assert len(set(zip(collected.rows.model, collected.rows.name, strict=True))) < 7
    same = collected.rows[(collected.rows.model == "demo-llama") & (collected.rows.sparsity == 0.5)]
    same = same[(same.label == "magnitude-l1") & (same.campaign == "demo")]
    assert same["name"].nunique() == 3  # one label, three variants: each is told apart


def test_numbers_of_a_failed_cell_are_left_out() -> None:
    half = factory.record(perplexity=1e9) | {"status": "failed", "reason": "zero-shot: no memory"}
    collected = collect([half, factory.record(perplexity=10.0, seed=1)])
    kinds = [quantity.kind for quantity in collected.quantities]
    assert collected.values["cell"].unique().tolist() == [1]
    assert kinds.count("perplexity") == 2
    assert collected.rows[["ok", "failed"]].values.tolist() == [[1, 1]]


def test_of_two_records_of_a_cell_the_newest_that_is_ok_counts() -> None:
    def at(day: int, **changes: Any) -> dict[str, Any]:
        made = factory.record(perplexity=float(day)) | changes
        made["provenance"] = factory.provenance(0) | {"created": f"2026-01-0{day}T00:00:00Z"}
        return made

    failed = at(9) | {"status": "failed", "reason": "x"}
    for order in ([at(2), at(5), failed], [failed, at(5), at(2)]):
        collected = collect(order)
        assert [r.provenance.created[:10] for r in collected.records] == ["2026-01-05"]
        assert len(collected.problems) == 1
        assert collected.problems[0].path == "demo-llama / magnitude-l1 / 0.5 / seed 0"


def test_the_same_record_twice_is_no_problem() -> None:
    collected = collect([factory.record(), factory.record()])
    assert len(collected.records) == 1 and not collected.problems


def test_no_records() -> None:
    collected = collect([])
    assert collected.rows.empty and collected.values.empty and collected.quantities == ()


# --- marks ---------------------------------------------------------------------------------------


def marked(**changes: Any) -> list[str]:
    made = factory.record()
    for key, value in changes.items():
        made[key] = made[key] | value
    row = collect([made, factory.record(seed=1)]).rows.iloc[0]
    return [m for m in ("leak", "native", "off_target", "unverified", "shared_device") if row[m]]


@pytest.mark.parametrize(
    ("part", "value", "mark"),
    [
        ("leak", factory.leak(0.01), "leak"),
        ("leak", {"status": "ok", "sets": {"ptb": {"share": 0.0, "same_corpus": True}}}, "leak"),
        ("sparsity", {"native": True}, "native"),
        ("sparsity", {"within_tolerance": False}, "off_target"),
        ("verify", {"passed": False}, "unverified"),
        ("profile", {"shared_device": True}, "shared_device"),
        ("profile", {"device": "cuda: H100, driver 1, shared device"}, "shared_device"),
    ],
)
def test_one_cell_marks_its_row(part: str, value: dict[str, Any], mark: str) -> None:
    assert marked(**{part: value}) == [mark]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("leak", factory.leak(0.0099)),
        ("leak", {"status": "skipped", "reason": "no calibration text"}),
        ("sparsity", {"native": False, "native_ratio": 0.6, "within_tolerance": None}),
        ("verify", {"status": "skipped", "reason": "nothing was cut"}),
        ("profile", {"shared_device": None}),
    ],
)
def test_what_deserves_no_mark(part: str, value: dict[str, Any]) -> None:
    assert marked(**{part: value}) == []


# --- reading, and what is missing ----------------------------------------------------------------


def test_load_names_what_it_cannot_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "a" / "record.json", tmp_path / "b" / "record.json"
    store.write(good, factory.record())
    store.write(bad, factory.record())
    bad.write_text(bad.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    records, problems = read_records([bad, good, tmp_path / "absent.json"], root=tmp_path)
    assert [store.as_mapping(record) for record in records] == [factory.record()]
    assert [problem.path for problem in problems] == ["absent.json", "b/record.json"]
    assert problems[1].reason.startswith("truncated or not JSON at line")


def test_missing_parts_are_found_wherever_they_are() -> None:
    made = factory.record()
    lost = {"status": "failed", "reason": "why"}
    made["perplexity"]["ppl/ptb-128"] = lost
    made["perplexity"]["ppl/wikitext2-128"] = factory.ppl(2.0) | {"value": None, "nll": 800.0}
    made["zeroshot"]["tasks"]["boolq"] = {"status": "skipped", "reason": "no file"}
    made["profile"]["points"][0] = {"name": "p", "batch": 1, "prompt": 1, "new": 1} | lost
    made["cost"]["recover"] = lost
    made["leak"] = None
    store.record_of(made, "here")
    assert list(missing_parts(made)) == [
        (
            "perplexity ppl/wikitext2-128",
            "failed",
            "the perplexity is too large for a floating-point number",
        ),
        ("perplexity ppl/ptb-128", "failed", "why"),
        ("zeroshot boolq", "skipped", "no file"),
        ("profile p", "failed", "why"),
        ("cost recover", "failed", "why"),
    ]
    assert list(missing_parts(factory.record())) == []
    assert json.dumps([Problem("a", "b").path]) == '["a"]'


def test_records_of_other_weights_than_the_dense_rows_are_left_out_with_the_reason() -> None:
    def of(digest: str | None, **keys: Any) -> dict[str, Any]:
        made = factory.record(**keys)
        return {**made, "model": {**made["model"], "original_weights_sha256": digest}}

    dense = of("a" * 64, label="dense", sparsity=0.0)
    own, foreign, old = of("a" * 64, seed=0), of("b" * 64, seed=1), of(None, seed=2)
    found = collect([dense, own, foreign, old])
    assert [r.cell.seed for r in found.records if r.cell.label != "dense"] == [0, 2]
    (problem,) = found.problems
    assert "made from other weights (bbbbbbbbbbbb)" in problem.reason and "seed 1" in problem.path
    assert collect([dense, own, old]).problems == ()
