"""Marks beside names, and what never shares a column."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from . import factory
from .views import column, page, small, tables


@pytest.mark.parametrize(
    ("part", "value", "symbol"),
    [
        ("leak", factory.leak(0.3), "†"),
        ("sparsity", {"native": True}, "◊"),
        ("sparsity", {"within_tolerance": False}, "§"),
        ("verify", {"passed": False}, "✗"),
        ("profile", {"shared_device": True}, "¶"),
    ],
)
def test_marks_stand_at_the_row_and_only_they_are_explained(
    tmp_path: Path, part: str, value: dict[str, Any], symbol: str
) -> None:
    records = small()
    records[-1][part] = records[-1][part] | value
    text = page(records, tmp_path)
    names = column(tables(text)["Quality"], "Method")
    assert sum(symbol in name for name in names) == 1
    legends = [line for line in text.splitlines() if line.startswith(tuple("†‡◊§✗¶"))]
    assert legends and all(line.startswith(f"{symbol} ") for line in legends)
    assert not any(other in line for line in legends for other in set("†‡◊§✗¶") - {symbol})


def test_a_limited_run_never_passes_for_a_full_one(tmp_path: Path) -> None:
    records = small()
    limited = records[-1]
    limited["perplexity"]["ppl/wikitext2-128"]["limit"] = 10
    limited["zeroshot"]["limit"] = 100
    text = page(records, tmp_path)
    quality = tables(text)["Quality"]
    assert "wikitext2/128 all ↓" in quality[0] and "wikitext2/128 first 10 ↓ ‡" in quality[0]
    assert "Zero-shot all ↑" in quality[0] and "Zero-shot first 100 ↑ ‡" in quality[0]
    full = dict(zip(column(quality, "Method"), column(quality, "wikitext2/128 all ↓"), strict=True))
    part = column(quality, "wikitext2/128 first 10 ↓ ‡")
    assert full["pat"].endswith("(n = 2)**") and part.count("–") == 2
    assert "‡ limited run" in text and "the first 10 windows only" in text
    assert "‡" not in page(small(), tmp_path)


def test_devices_have_tables_of_their_own(tmp_path: Path) -> None:
    records = small()
    for record in records[-3:]:
        record["provenance"]["device"] = "cuda: H100"
        record["profile"]["device"] = "cuda: H100"
    text = page(records, tmp_path)
    assert text.count("### Quality") == 2 and text.count("### Speed") == 2
    first, second = text.split("### Quality")[1:]
    assert "on cpu, 2 threads" in first.splitlines()[2]
    assert "on cuda: H100" in second.splitlines()[2]
    assert "pat" not in first.split("###")[0] and "magnitude" not in second.split("###")[0]


def test_many_protocols_make_a_table_per_length(tmp_path: Path) -> None:
    records = small()
    for record in records:
        record["perplexity"] = {
            f"ppl/{corpus}-{length}": factory.ppl(9.0, corpus=corpus, length=length)
            for corpus in ("wikitext2", "ptb", "c4")
            for length in (128, 2048)
        }
    found = tables(page(records, tmp_path))
    titles = ["c4/128 ↓", "ptb/128 ↓", "wikitext2/128 ↓"]
    assert found["Quality at window length 128"][0][4:7] == titles
    assert "Zero-shot ↑" in found["Quality, zero-shot"][0]


def test_models_have_sections_and_campaigns_are_told_apart(tmp_path: Path) -> None:
    records = small(models=("m1", "m2"))
    assert re.findall("^## (m.*)", page(records, tmp_path), re.M) == ["m1", "m2"]
    records[0]["cell"]["campaign"] = "other"
    found = re.findall("^## (m.*)", page(records, tmp_path), re.M)
    assert found == ["m1 (demo)", "m2 (demo)", "m1 (other)"]
