"""Suites in the tables: generated tasks, examples, what needs no model, how answers look."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.numbers.statistics import average_ranks, summarise
from prunebench.leaderboard.views.compare import compare

from . import factory
from .factory_written import with_written
from .typed import analyse, collect, measurements, missing_parts, record_text
from .views import column, page, small, tables

LOST = {"status": "failed", "reason": "no such file"}


def written(**changes: Any) -> list[dict[str, Any]]:
    return [with_written(record) for record in small(**changes)]


def of_kind(made: dict[str, Any], kind: str) -> list[Quantity]:
    return [m.quantity for m in measurements(made) if m.quantity.kind == kind]


# --- what may share a column ---------------------------------------------------------------------


def test_a_generated_suite_has_its_mean_its_tasks_and_its_answers() -> None:
    found = {(m.quantity.kind, m.quantity.name): m for m in measurements(with_written(made()))}
    task = found["task", "gsm8k"].quantity
    assert found["generation", "generation/2"].error == 0.01
    assert found["generation", "generation/2"].majority == pytest.approx(0.3)
    assert task.detail("shots") == "5" and task.detail("examples") == "train, seed 1234"
    assert task.detail("max_new_tokens") == "64" and task.detail("stop") == r'["\n\n", "Q:"]'
    assert found["answer_repeating", "gsm8k"].value == 0.5
    assert found["answer_tokens", "triviaqa"].value == 12.5
    assert found["zeroshot", "zeroshot/7"].majority == pytest.approx(0.407, abs=1e-3)


def made(**changes: Any) -> dict[str, Any]:
    return factory.record(**changes)


@pytest.mark.parametrize(
    "change",
    [
        {"shots": 3},
        {"fewshot": {"split": "train", "seed": 1}},
        {"chat": True},
        {"filter": "strict-match"},
        {"metric": "f1"},
        {"max_new_tokens": 256},
        {"stop": []},
    ],
)
def test_tasks_that_are_asked_otherwise_never_share_a_column(change: dict[str, Any]) -> None:
    first, second = with_written(made()), with_written(made(seed=1))
    task = second["generation"]["tasks"]["gsm8k"]
    assert of_kind(first, "task") == of_kind(second, "task")
    assert of_kind(first, "answer_empty") == of_kind(second, "answer_empty")
    (task["generated"] if set(change) & set(task["generated"]) else task).update(change)
    different = set(of_kind(first, "task")) ^ set(of_kind(second, "task"))
    assert {quantity.name for quantity in different} == {"gsm8k"}


def test_a_task_that_is_chosen_from_and_one_that_is_generated_never_share_a_column() -> None:
    record = with_written(made())
    record["generation"]["tasks"]["boolq"] = record["zeroshot"]["tasks"]["boolq"]
    assert len({q for q in of_kind(record, "task") if q.name == "boolq"}) == 2


def test_records_with_a_majority_share_columns_with_older_ones() -> None:
    old, new = made(), made(seed=1)
    for task in new["zeroshot"]["tasks"].values():
        task["majority"] = 0.6
    collected = collect([old, new])
    assert [q.kind for q in collected.quantities].count("zeroshot") == 1
    assert set(collected.majorities.values()) == {0.6} and len(collected.majorities) == 8
    table, alone = compare(*(analyse([r], [], Path(), title="x") for r in (made(), new)))
    assert not alone and table.rows


def test_a_mean_has_a_most_frequent_answer_only_where_all_tasks_have_one() -> None:
    record = with_written(made())
    record["generation"]["tasks"]["gsm8k"]["majority"] = None
    means = {m.quantity.kind: m.majority for m in measurements(record)}
    assert means["generation"] is None and means["zeroshot"] is not None


# --- what stands where ---------------------------------------------------------------------------


def test_generated_tasks_have_a_column_a_table_and_differences(tmp_path: Path) -> None:
    found = tables(page(written(), tmp_path))
    assert found["Quality"][0][4:8] == [
        "wikitext2/128 ↓",
        "ptb/128 ↓",
        "Zero-shot ↑",
        "Generated ↑",
    ]
    assert found["Difference from dense"][0][-1] == "Generated ↑"
    assert found["Generated tasks"][0] == ["Sparsity", "Method", "gsm8k ↑", "triviaqa ↑"]
    assert "gsm8k ↑" not in found["Zero-shot tasks"][0]
    assert found["All models"][0][1:5] == [
        "Average rank ↓",
        "Perplexity",
        "Zero-shot",
        "Generated",
    ]


def test_without_generated_answers_nothing_speaks_of_them(tmp_path: Path) -> None:
    text = page(small(), tmp_path)
    assert "enerated" not in text and "most frequent" not in text and "↧" not in text
    assert "examples before" not in text and "0-shot, all items, through" in text


def test_how_to_read_says_how_it_was_asked(tmp_path: Path) -> None:
    records = written()
    text = page(records, tmp_path)
    assert (
        "plain mean of exact_match on gsm8k, triviaqa; 0- to 5-shot, all items, answers generated "
        "greedily, at most 64 new tokens, through lm-eval 0.4.13" in text
    )
    assert "exact_match in %, mean ± standard deviation over seeds; 0- to 5-shot, answers" in text
    tasks = tables(text)["Generated tasks"]
    assert ["", "examples before each question", "5", "0"] in tasks
    for record in records:
        for task in record["generation"]["tasks"].values():
            task |= {"shots": 5, "chat": True}
    text = page(records, tmp_path)
    assert "; 5-shot, through the chat template, all items, answers" in text
    assert "examples before" not in text


def test_choices_with_examples_are_not_called_zero_shot(tmp_path: Path) -> None:
    records = small()
    for record in records:
        for task in record["zeroshot"]["tasks"].values():
            task["shots"] = 5
    text = page(records, tmp_path)
    assert "Zero-shot" not in text and "zero-shot" not in text
    found = tables(text)
    assert "5-shot ↑" in found["Quality"][0] and "5-shot" in found["All models"][0]
    assert "5-shot tasks" in found and "; 5-shot, all items" in text


def test_many_protocols_leave_both_suites_in_one_table(tmp_path: Path) -> None:
    records = written()
    for record in records:
        record["perplexity"] = {
            f"ppl/{corpus}-{length}": factory.ppl(9.0, corpus=corpus, length=length)
            for corpus in ("wikitext2", "ptb", "c4")
            for length in (128, 2048)
        }
    found = tables(page(records, tmp_path))
    assert {"Zero-shot ↑", "Generated ↑"} < set(found["Quality, zero-shot and generated"][0])
    assert not any(row[1] == "chance" for row in found["Quality at window length 128"])


# --- what needs no model -------------------------------------------------------------------------


def test_chance_and_the_most_frequent_answer_stand_below(tmp_path: Path) -> None:
    found = tables(page(written(), tmp_path))
    at = found["Quality"][0].index("Zero-shot ↑")
    lines = {row[1]: row for row in found["Quality"]}
    assert lines["chance"][at : at + 2] == ["35.7", ""]
    assert lines["most frequent answer"][at : at + 2] == ["40.7", "30.0"]
    names = [row[1] for row in found["Zero-shot tasks"]]
    floors = ["items", "chance", "most frequent answer", "largest error over items"]
    assert names[-4:] == floors
    assert "chance" not in [row[1] for row in found["Generated tasks"]]


def test_old_records_have_chance_below_and_no_mark(tmp_path: Path) -> None:
    found = tables(page(small(), tmp_path))
    assert found["Quality"][-1][1] == "chance" and "35.7" in found["Quality"][-1]
    assert found["Zero-shot tasks"][-2][1] == "chance"
    assert not any(row[1] == "chance" for row in found["Difference from dense"])


@pytest.mark.parametrize(("value", "marked"), [(0.29, True), (0.3, False), (0.31, False)])
def test_what_is_below_the_most_frequent_answer_is_marked(
    tmp_path: Path, value: float, marked: bool
) -> None:
    records = written()
    for record in records:
        record["generation"]["tasks"]["gsm8k"]["value"] = value
        record["generation"]["tasks"]["triviaqa"]["value"] = 0.5
        record["generation"]["mean"] = 0.4
    text = page(records, tmp_path)
    found = tables(text)
    cells = column(found["Generated tasks"], "gsm8k ↑")[:3]
    assert all(cell.endswith("↧") is marked for cell in cells)
    others = column(found["Generated tasks"], "triviaqa ↑")
    assert not any("↧" in cell for cell in [*others, *column(found["Quality"], "Generated ↑")])
    assert "↧ below the most frequent answer: what always giving" in text


def test_a_mean_below_the_floor_is_marked_in_the_quality_table(tmp_path: Path) -> None:
    records = written()
    for record in records:
        record["generation"]["mean"] = 0.2
    cells = column(tables(page(records, tmp_path))["Quality"], "Generated ↑")
    assert [cell.strip("*")[-1] for cell in cells[:3]] == ["↧"] * 3


# --- what answers look like ----------------------------------------------------------------------


def test_answers_are_told_by_task_as_means_over_seeds(tmp_path: Path) -> None:
    text = page(written(), tmp_path)
    table = tables(text)["Generated answers: gsm8k"]
    assert table[0][2:] == [
        "Answer tokens",
        "Empty answers ↓",
        "Repeating answers ↓",
        "Cut answers ↓",
    ]
    lines = {row[1]: row[2:] for row in table[1:]}
    assert lines["pat"] == ["13.5 ± 1.0", "2.0 ± 0.0", "50.0 ± 0.0", "25.0 ± 0.0"]
    assert lines["dense"][0] == "12.5 ± –"
    assert "Generated answers: triviaqa" in tables(text)
    assert "at the limit of 64 new tokens" in text


def test_every_digit_is_in_the_csv_and_no_text_of_the_models(tmp_path: Path) -> None:
    records = written()
    page(records, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "leaderboard.csv").read_text("utf-8"))))
    kinds = {row["kind"] for row in rows}
    assert {"generation", "answer_tokens", "answer_empty", "answer_repeating"} < kinds
    header = (tmp_path / "cells.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "generation.tasks.gsm8k.generated.at_limit" in header
    assert "zeroshot.tasks.boolq.majority" in header
    assert not re.search(r"samples|stop|texts\.texts|tasks\.\w+\.prompt", header)


# --- ranks, losses, words ------------------------------------------------------------------------


def test_generated_answers_rank_and_what_names_no_better_does_not() -> None:
    collected = collect(written())
    summary = summarise(collected)
    (best, worst) = average_ranks(collected, summary)
    assert best.name == "pat" and best.generation == 1.0 and worst.generation == 2.0
    assert best.comparisons == 4
    ranked = {collected.quantities[q].kind for q in summary[summary["rank"].notna()]["quantity"]}
    assert not any(kind.startswith("answer_") for kind in ranked)


def test_lost_and_cut_parts_are_told(tmp_path: Path) -> None:
    record = with_written(made())
    record["generation"]["tasks"]["gsm8k"] = LOST
    record["generation"]["mean"] = None
    record["generation"]["tasks"]["triviaqa"]["truncated"] = 3
    record["texts"] = LOST
    assert list(missing_parts(record)) == [
        ("texts", "failed", "no such file"),
        ("generation gsm8k", "failed", "no such file"),
    ]
    assert collect([record]).rows["truncated"].tolist() == [True]
    assert "triviaqa, generated: 3 of 400" in record_text(record)
    found = tables(page([record], tmp_path))
    assert "Generated ↑" not in found["Quality"][0]
    assert found["Generated tasks"][0][2:] == ["triviaqa ↑"]
    whole = with_written(made()) | {"generation": LOST}
    assert ("generation", "failed", "no such file") in missing_parts(whole)


def test_a_record_in_words_says_how_its_suites_ran() -> None:
    record = with_written(made())
    how = {"attention": "sdpa", "dtype": "float32", "batch_size": [32]}
    record["zeroshot"] |= how | {"scoring": "shared"}
    text = record_text(record)
    assert "float32, sdpa attention, batches of 16, each request by itself: answers are" in text
    assert "batches of 32, common beginnings of requests computed once (zero-shot)" in text
    assert "Generated (generation/2)" in text and "Repeating answers (gsm8k)" in text
    record["zeroshot"] |= {"scoring": "plain"}
    assert "batches of 32 (zero-shot)" in record_text(record)
