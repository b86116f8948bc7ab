"""The report for programs and for terminals: CSV, Parquet, what fits a width."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path

import pytest

from prunebench.leaderboard.views.terminal import fit, terminal

from . import factory
from .views import small, written


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def test_csv_has_every_digit(tmp_path: Path) -> None:
    values = [10.123456789012345, 11.2, 12.9]
    records = [factory.record(seed=i, perplexity=value) for i, value in enumerate(values)]
    written([*records, factory.lost(label="pat", reason='x, "y"\nz')], tmp_path)
    rows = rows_of(tmp_path / "leaderboard.csv")
    line = next(r for r in rows if r["kind"] == "perplexity" and r["of"] == "wikitext2")
    assert line["n"] == "3" and float(line["mean"]) == pytest.approx(sum(values) / 3, rel=1e-15)
    assert (
        float(line["sd"]) == pytest.approx(statistics.stdev(values), rel=1e-14)
        and len(line["sd"]) > 10
    )
    assert "length=128" in line["protocol"] and line["device"] == "cpu, 2 threads"
    assert float(line["item_stderr"]) > 0 and line["interval"] == "seeds"
    assert line["difference"] == "" and line["best"] == "False"
    lost = [r for r in rows if r["label"] == "pat"]
    assert len(lost) == 1 and lost[0]["kind"] == "" and lost[0]["mean"] == ""
    assert lost[0]["reasons"] == 'failed: x, "y"\nz' and lost[0]["cells_failed"] == "1"


def test_parquet_holds_what_the_csv_does(tmp_path: Path) -> None:
    import pandas as pd

    written([*small(), factory.lost(label="bad")], tmp_path)
    table = pd.read_parquet(tmp_path / "leaderboard.parquet")
    rows = rows_of(tmp_path / "leaderboard.csv")
    assert list(table.columns) == list(rows[0]) and len(table) == len(rows)
    means = [float(row["mean"]) for row in rows if row["mean"]]
    assert table["mean"].dropna().tolist() == means and table["mean"].isna().sum() == 1


def test_one_csv_line_per_cell(tmp_path: Path) -> None:
    records = [factory.record(seed=seed) for seed in range(3)]
    records[1]["cell"]["params"] = {"norm": 2}
    written([*records, factory.lost(label="pat")], tmp_path)
    rows = rows_of(tmp_path / "cells.csv")
    assert len(rows) == 4
    by_seed = {(r["cell.label"], r["cell.seed"]): r for r in rows}
    line = by_seed["magnitude-l1", "1"]
    key = "perplexity.ppl/wikitext2-128.value"
    assert float(line[key]) == records[1]["perplexity"]["ppl/wikitext2-128"]["value"]
    assert line["cell.params"] == '{"norm": 2}'
    assert line["profile.points.b1-p64-n16.prefill_ms.median"]
    assert line["zeroshot.tasks.boolq.versus_dense.mcnemar_p"] == "0.01"
    assert by_seed["pat", "0"][key] == "" and by_seed["pat", "0"]["status"] == "failed"


# --- terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_terminal_shows_what_fits(tmp_path: Path, width: int) -> None:
    records = [*factory.campaign(), factory.lost(label="new", reason="a long story " * 9)]
    report = written(records, tmp_path)
    text = terminal(report, width=width)
    body = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, body)) <= max(width, 60)
    assert "65 cells: 64 ok, 1 failed" in text
    assert "wikitext2/128 ↓" in text and "Method" in text
    assert ("Zero-shot ↑" in text) == (width >= 80)
    assert ("Notes" in text) == (width >= 120) and "failed" in text
    assert str(tmp_path / "leaderboard.md") in text


def test_a_wide_terminal_shows_the_errors_and_a_narrow_one_the_means(tmp_path: Path) -> None:
    report = written(list(factory.campaign()), tmp_path)
    assert "±" in terminal(report, width=120) and "±" not in terminal(report, width=75)
    assert "*" in terminal(report, width=75)


def test_a_terminal_shows_what_guessing_gets_below_its_column(
    tmp_path: Path,
) -> None:
    report = written(list(factory.campaign()), tmp_path)
    lines = terminal(report, width=120).splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[:1] == ["chance"])
    assert lines[at - 1].startswith("---") and lines[at].split() == ["chance", "35.7"]
    assert "chance" not in terminal(report, width=60)  # where the column was dropped


def test_fit_keeps_what_matters_most(tmp_path: Path) -> None:
    table = written(small(), tmp_path).sections[0].brief
    assert fit(table, 1).splitlines()[0].split() == ["Sparsity", "Method", "wikitext2/128", "↓"]
