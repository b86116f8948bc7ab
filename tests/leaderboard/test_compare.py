"""Two campaigns side by side, and one record for a person."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prunebench.leaderboard import side_by_side
from prunebench.leaderboard.views.compare import compare
from prunebench.record.store import as_mapping

from . import factory
from .typed import analyse, record_text

QUANTITY = "wikitext2/128 ↓"


def report(values: tuple[float, ...], **changes: Any) -> Any:
    records = [factory.record(seed=seed, perplexity=value) for seed, value in enumerate(values)]
    for record in records:
        for part, change in changes.items():
            record[part] = record[part] | change
    return analyse(records, [], Path("x"), title="demo")


def lines(first: Any, second: Any) -> dict[str, list[str]]:
    table, _ = compare(first, second)
    return {row[3].text: [cell.text for cell in row] for row in table.rows}


def test_a_difference_beyond_error_is_marked_and_no_other() -> None:
    first = report((10.0, 10.1, 10.2))
    found = lines(first, report((12.0, 12.1, 12.2)))[QUANTITY]
    assert found[4:6] == ["10.10 ± 0.10", "12.10 ± 0.10"]
    assert found[6].startswith("+2.00 (+1.") and found[7] == "*"
    assert lines(first, report((10.0, 10.4, 10.2)))[QUANTITY][7] == ""
    assert all(line[7] == "" for line in lines(first, first).values())


def test_a_count_has_no_error_and_an_unknown_error_marks_nothing() -> None:
    first = report((10.0,))
    second = report((10.0,), model={"parameters": 77})
    second_cost = {"wall_s": 99.0, "forward_tokens": 1, "backward_tokens": 1}
    third = report((10.0,), cost={"prune": second_cost})
    assert lines(first, second)["Parameters"][7] == "*"
    line = lines(first, third)["Prune s ↓"]
    assert line[6].endswith("n.i.") and line[7] == ""


def test_times_of_two_runs_are_not_judged_but_speed_ups_are() -> None:
    def timed(milliseconds: float, ratio: float) -> Any:
        records = [factory.record(seed=seed) for seed in range(2)]
        for point in (point for record in records for point in record["profile"]["points"]):
            point["decode_ms_per_token"] = dict.fromkeys(("median", "q25", "q75"), milliseconds)
            point["decode_ms_per_token"]["n"] = 20
            point["decode_speedup"] = factory.speedup(ratio)
        return analyse(records, [], Path("x"), title="demo")

    def marks(slower: Any) -> set[tuple[str, str]]:
        table, _ = compare(timed(3.0, 1.20), slower)
        found = [[cell.text for cell in row] for row in table.rows]
        return {(re.split(" [↑↓]", row[3])[0], row[7]) for row in found if "Decode" in row[3]}

    assert marks(timed(6.0, 1.21)) == {("Decode ms/token", ""), ("Decode speed-up", "")}
    assert marks(timed(6.0, 1.50)) == {("Decode ms/token", ""), ("Decode speed-up", "*")}


def test_other_protocols_and_devices_are_not_compared_but_named() -> None:
    first = report((10.0, 10.1))
    records = [as_mapping(record) for record in report((9.0, 9.1)).collected.records]
    for record in records:
        record["perplexity"]["ppl/wikitext2-128"]["length"] = 64
        record["profile"]["device"] = "cuda: H100"
        record["provenance"]["device"] = "cuda: H100"
    other = analyse(records, [], Path("x"), title="demo")
    table, alone = compare(first, other)
    shown = {row[3].text for row in table.rows}
    assert QUANTITY not in shown and "ptb/128 ↓" in shown  # quality: also across devices
    assert not any("Decode" in name or "Prefill" in name for name in shown)
    assert any(line.startswith("only in A: wikitext2/128 (") for line in alone)
    assert any("on cuda: H100" in line for line in alone if line.startswith("only in B"))


def test_rows_of_one_side_and_losses_are_told() -> None:
    first = report((10.0,))
    records = [factory.record(label="pat"), factory.lost(label="new", reason="no")]
    second = analyse(records, [], Path("x"), title="demo")
    text = side_by_side(first, second, names=("results/a", "results/b"))
    assert text.startswith("A  results/a: 1 cell: 1 ok") and "B  results/b: 2 cells: 1 ok" in text
    assert "only in A: demo-llama, magnitude-l1 at 50 %" in text
    assert "only in B: demo-llama, pat at 50 %" in text and "0 numbers in both" in text


def test_one_record_is_printed_for_a_person() -> None:
    record = factory.record(perplexity=12.5)
    record["decision"] = factory.decision(layers=2)
    record["zeroshot"]["tasks"]["boolq"] = {"status": "failed", "reason": "no such file"}
    record["cell"]["label"] = "a\x1b[2Jb"
    text = record_text(record)
    assert text.startswith("demo-llama / a [2Jb / 0.5 / seed 0: ok\n") and "\x1b" not in text
    for words in ("Target sparsity", "wikitext2/128", "12.50", "heads", "96 of 96", "torch 2.13.0"):
        assert words in text
    assert "zeroshot boolq" in text and "no such file" in text


def test_a_failed_record_says_why() -> None:
    text = record_text(factory.lost(reason="out of memory"))
    assert "failed: out of memory" in text and "Numbers" not in text
