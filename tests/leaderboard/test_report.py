"""The written tables: what a reader finds in them, and that nothing breaks them."""

from __future__ import annotations

import random
import re
from pathlib import Path

from prunebench.leaderboard import Problem, terminal

from . import factory
from .views import column, page, small, tables, written

HOSTILE = (
    "a|b <script>alert(1)</script> `x` *y* [z](http://e.org) \\ $1$ _u_\n# boom\r| c | \x1b[2J"
)


# --- what stands where ---------------------------------------------------------------------------


def test_dense_on_top_then_sparsity_then_quality(tmp_path: Path) -> None:
    methods = ("random", "pat", "llm-pruner")
    found = tables(page(list(factory.campaign(methods=methods, sparsities=(0.5, 0.2))), tmp_path))
    order = ["dense", *["pat", "llm-pruner", "random"] * 2]
    assert column(found["Quality"], "Method") == order
    assert column(found["Quality"], "Sparsity") == ["0 %", *["20 %"] * 3, *["50 %"] * 3]
    for title in ("Zero-shot tasks", "Size", "Speed at b1-p64-n16", "Cost of pruning"):
        assert column(found[title], "Method")[:7] == order
    assert column(found["Difference from dense"], "Method") == order[1:]


def test_best_is_bold_with_all_that_overlaps_it(tmp_path: Path) -> None:
    records = []
    values = {"magnitude-l1": (10.0, 10.4, 9.6), "pat": (10.5, 10.9, 10.1), "random": (20, 21, 22)}
    for label, perplexities in values.items():
        for seed, value in enumerate(perplexities):
            records.append(factory.record(label=label, seed=seed, perplexity=float(value)))
    quality = tables(page(records, tmp_path))["Quality"]
    cells = column(quality, "wikitext2/128 ↓")
    assert dict(zip(column(quality, "Method"), cells, strict=True)) == {
        "magnitude-l1": "**10.00 ± 0.40 (0.04)**",
        "pat": "**10.50 ± 0.40 (0.04)**",
        "random": "21.00 ± 1.00 (0.09)",
    }


def test_one_seed_shows_a_dash(tmp_path: Path) -> None:
    text = page([factory.record(perplexity=10.0)], tmp_path)
    quality = tables(text)["Quality"]
    assert column(quality, "wikitext2/128 ↓") == ["10.00 ± – (0.04)"]
    assert column(quality, "n") == ["1"]
    assert "± – one seed, so no deviation" in text


def test_no_dash_is_explained_where_none_is(tmp_path: Path) -> None:
    text = page([factory.record(seed=seed) for seed in range(2)], tmp_path)
    assert "± –" not in text and "not measured (reasons" not in text


def test_a_value_that_one_seed_lacks_is_told(tmp_path: Path) -> None:
    records = [factory.record(seed=seed, perplexity=10.0 + seed) for seed in range(3)]
    records[1]["perplexity"]["ppl/wikitext2-128"] = {"status": "failed", "reason": "loss is nan"}
    written(records, tmp_path)
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    quality = tables(text)["Quality"]
    assert column(quality, "wikitext2/128 ↓") == ["11.00 ± 1.41 (0.05) (n = 2)"]
    assert column(quality, "n") == ["3"]
    failures = (tmp_path / "failures.md").read_text(encoding="utf-8")
    assert "loss is nan" in failures and "perplexity ppl/wikitext2-128" in failures


def test_a_profile_of_one_seed_says_so_once(tmp_path: Path) -> None:
    records = [factory.record(seed=seed) for seed in range(3)]
    for record in records[1:]:
        record["profile"] = {"status": "skipped", "reason": "measured on the first seed"}
    speed = tables(page(records, tmp_path))["Speed at b1-p64-n16"]
    assert column(speed, "n") == ["1"]
    assert "(n = " not in " ".join(speed[1])


def test_tasks_show_items_and_chance(tmp_path: Path) -> None:
    tasks = tables(page(small(), tmp_path))["Zero-shot tasks"]
    lines = {row[1]: row for row in tasks}
    at = tasks[0].index("boolq ↑")
    assert lines["items"][at] == "3270" and lines["chance"][at] == "50.0"
    assert lines["largest error over items"][at] == "0.9"
    assert lines["items"][0] == ""


def test_cost_and_size(tmp_path: Path) -> None:
    records = small()
    for record in records:
        record["export"]["loadable_by"] = "transformers"
        record["verify"] |= {"max_abs_logit_difference": 0.25, "passed": False}
    found = tables(page(records, tmp_path))
    assert set(column(found["Size"], "Verified")) == {"✗ 2e-01"}
    assert set(column(found["Size"], "Loads with")) == {"transformers"}
    assert column(found["Cost of pruning"], "Forward tokens ↓") == ["81.9 k"] * 3
    assert "Recover s ↓" not in found["Cost of pruning"][0]


def test_recovery_has_its_columns(tmp_path: Path) -> None:
    records = small()
    used = {"wall_s": 60.0, "forward_tokens": 1000, "backward_tokens": 1000}
    for record in records[1:]:
        record["cost"]["recover"] = used
    cost = tables(page(records, tmp_path))["Cost of pruning"]
    assert column(cost, "Recover s ↓") == ["–", "60.0 ± 0.0", "60.0 ± 0.0"]


def test_a_reader_needs_no_other_page(tmp_path: Path) -> None:
    text = page(small(), tmp_path)
    assert text.startswith("# demo\n\n**7 cells: 7 ok, 0 failed, 0 skipped.**\n")
    assert "failures.md" not in text
    for word in (
        "perplexity on wikitext2 test, windows of 128 tokens, the whole text; 341,469 predicted",
        "plain mean of the accuracies on arc_challenge",
        "2026-01-01 to 2026-01-03",
        "prunebench 0.1.0 (0123456789)",
        "torch 2.13.0",
        "cpu, 2 threads",
        "chance 35.7 %",
        "↓ lower is better",
    ):
        assert word in text


# --- what was lost -------------------------------------------------------------------------------


def test_lost_cells_are_rows_and_are_counted(tmp_path: Path) -> None:
    records = [r for r in small() if r["cell"]["seed"] != 2]
    records += [
        factory.lost(label="pat", seed=2, reason="out of memory"),
        factory.lost(label="hywia", seed=0, reason="gate diverged"),
        factory.lost(label="hywia", seed=1, reason="gate diverged"),
        factory.lost(label="bert", seed=0, status="skipped", reason="not this architecture"),
    ]
    report = written(records, tmp_path, problems=[Problem("cells/x.json", "truncated")])
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    counts = "9 cells: 5 ok, 3 failed, 1 skipped; 1 record left out"
    assert f"**{counts}.**" in text and counts in terminal(report)
    assert not report.complete
    for name, table in tables(text).items():
        if name != "Average ranks" and table[0][0] == "Sparsity":
            rows = {(row[1], row[-1]) for row in table[1:]}
            assert ("pat", "failed: out of memory (seed 2)") in rows
            assert ("hywia", "failed: gate diverged (seeds 0, 1)") in rows
            assert ("bert", "skipped: not this architecture (seed 0)") in rows
    assert column(tables(text)["Quality"], "n") == ["1", "2 of 3", "2", "skipped", *["failed"] * 2]
    failures = (tmp_path / "failures.md").read_text(encoding="utf-8")
    assert failures.count("gate diverged") == 2 and "cells/x.json" in failures
    assert "demo-llama / bert / 0.5 / seed 0" in failures and "truncated" in failures


def test_nothing_lost(tmp_path: Path) -> None:
    report = written(small(), tmp_path)
    assert report.complete
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "Notes" not in text and "failed:" not in text
    failures = (tmp_path / "failures.md").read_text(encoding="utf-8")
    assert "Everything that was planned was measured." in failures


def test_only_lost_cells(tmp_path: Path) -> None:
    report = written([factory.lost(reason="no such model")], tmp_path)
    text = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "1 cell: 0 ok, 1 failed" in text and "failed: no such model (seed 0)" in text
    assert "failed" in terminal(report, width=60)


def test_no_records_at_all(tmp_path: Path) -> None:
    report = written([], tmp_path, problems=[Problem("a", "b")])
    assert "0 cells" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "0 cells" in terminal(report)
    assert (tmp_path / "leaderboard.csv").read_text(encoding="utf-8").count("\n") == 1


# --- nothing breaks it ---------------------------------------------------------------------------


def test_markup_in_names_neither_breaks_nor_enters_a_table(tmp_path: Path) -> None:
    records = [
        factory.record(label=HOSTILE, model=HOSTILE),
        factory.record(label="a", model=HOSTILE),
        factory.lost(label="b", model=HOSTILE, reason=HOSTILE),
    ]
    records[0]["perplexity"] = {HOSTILE: factory.ppl(3.0, corpus=HOSTILE, split=HOSTILE)}
    records[0]["provenance"]["device"] = HOSTILE
    report = written(records, tmp_path, problems=[Problem(HOSTILE, HOSTILE)], title=HOSTILE)
    for name in ("leaderboard.md", "failures.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "<" not in text and "\x1b" not in text and "\r" not in text
        assert "# boom" not in re.findall("^.{6}", text, re.M)
        assert "](http" not in text and "`x`" not in text and "*y*" not in text
        assert "&#60;script&#62;" in text and "_u_" not in text
        blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
        assert blocks
        for block in blocks:
            assert len({line.count("|") for line in block.splitlines()}) == 1
    shown = terminal(report, width=100)
    assert "\x1b" not in shown and "\n# boom" not in shown


def test_plain_names_stay_readable(tmp_path: Path) -> None:
    text = page([factory.record(label="llm_pruner-v1.5 (global)")], tmp_path)
    assert "llm_pruner-v1.5 (global)" in text


def test_records_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    records = [*small(models=("m1", "m2")), factory.lost(label="pat", seed=7)]
    problems = [Problem("b", "x"), Problem("a", "y")]
    first = written(records, tmp_path / "0", problems=problems)
    for turn in range(1, 4):
        rng = random.Random(turn)
        shuffled = rng.sample(records, len(records))
        again = written(
            [dict(rng.sample(list(r.items()), len(r))) for r in shuffled],
            tmp_path / str(turn),
            problems=problems[::-1],
        )
        for old, new in zip(first.files, again.files, strict=True):
            assert old.name == new.name and old.read_bytes() == new.read_bytes()
        assert terminal(again).split("0/")[0].split("\n\n")[:5] == terminal(first).split("\n\n")[:5]


# --- reference row and matched controls ---


def test_a_chosen_reference_row_has_a_table_of_its_own(tmp_path: Path) -> None:
    written(small(), tmp_path, reference="pat")
    found = tables((tmp_path / "leaderboard.md").read_text(encoding="utf-8"))
    assert column(found["Difference from pat"], "Method") == ["magnitude-l1"]
    assert "+" in column(found["Difference from pat"], "wikitext2/128 ↓")[0]


def test_a_matched_control_parts_choice_from_profile(tmp_path: Path) -> None:
    records = []
    for label, matched, values in (
        ("pat", None, (10.0, 10.1, 10.2)),
        ("random_matched-pat", "pat", (12.0, 12.1, 12.2)),
        ("random", None, (17.0, 17.1, 17.2)),
    ):
        for seed, value in enumerate(values):
            made = factory.record(label=label, seed=seed, perplexity=value)
            made["cell"] |= {"matched": matched, "method": label.partition("_")[0]}
            records.append(made)
    (row,) = tables(page(records, tmp_path))["Layer profile and choice of units"][1:]
    table = tables(page(records, tmp_path))["Layer profile and choice of units"]
    assert row[1:3] == ["pat", "random_matched-pat"]
    assert column(table, "wikitext2/128: choice of units")[0].startswith("−2.00 (")
    assert column(table, "wikitext2/128: layer profile")[0].startswith("−5.00 (")
    assert "Layer profile" not in page(small(), tmp_path)


def test_a_rounded_row_beside_a_free_one_has_its_price(tmp_path: Path) -> None:
    records = []
    for label, multiples, achieved, values in (
        ("magnitude", None, 0.5, (10.0, 10.1, 10.2)),
        ("magnitude-x64", {"neurons": 64}, 0.48, (11.0, 11.1, 11.2)),
    ):
        for seed, value in enumerate(values):
            made = factory.record(label=label, seed=seed, perplexity=value)
            made["cell"]["method"] = "magnitude"
            made["sparsity"] |= {"achieved": achieved, "multiple_of": multiples}
            records.append(made)
    table = tables(page(records, tmp_path))["Price of rounding"]
    (row,) = table[1:]
    assert row[1:4] == ["magnitude-x64", "neurons 64", "magnitude"]
    assert row[4:7] == ["48 %", "50 %", "−2.0"]
    assert column(table, "wikitext2/128: price")[0].startswith("+1.00 (")
    for record in records[:3]:
        record["cell"]["params"] = {"norm": "of other settings"}
    assert "Price of rounding" not in page(records, tmp_path)
    assert "Price of rounding" not in page(small(), tmp_path)


def test_every_table_says_when_sparsities_are_of_the_decoder_blocks(tmp_path: Path) -> None:
    records = small()
    for record in records:
        record["cell"]["sparsity_of"] = "decoder"
    lost = factory.lost(label="hywia", seed=3)
    lost["cell"]["sparsity_of"] = "decoder"
    found = tables(page([*records, lost], tmp_path))
    for title in ("Quality", "Difference from dense", "Zero-shot tasks", "Size", "Cost of pruning"):
        assert set(column(found[title], "Sparsity")) <= {"0 %", "50 % of decoder"}, title
        assert "50 % of decoder" in column(found[title], "Sparsity")
    pruned = column(found["Quality"], "Achieved")[1]
    share, whole = re.fullmatch(r"([0-9.]+) % \(([0-9.]+) % of all\)", pruned).groups()
    assert float(share) > float(whole)
