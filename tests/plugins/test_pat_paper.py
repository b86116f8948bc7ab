"""PAT's published numbers: complete, marked as not comparable, and those that its text states."""

from __future__ import annotations

from itertools import groupby
from statistics import mean

import pytest

from prunebench.leaderboard.papers.published import read_published
from prunebench.plugins.discovery import discover

PUBLISHED = read_published(discover()["pat"].folder / "paper.yaml")


def value(**wanted):
    (found,) = [p for p in PUBLISHED if all(getattr(p, k) == v for k, v in wanted.items())]
    return found.value


def test_every_number_says_that_it_is_not_comparable():
    assert len(PUBLISHED) == 50 + 12 + 8
    for number in PUBLISHED:
        assert number.protocol in ("generation/pat14", "generation/pat-dora")
        assert "not comparable with lm-eval" in number.note
        assert number.evidence == "read"


def test_the_statements_of_the_text_close():
    main = {"table": "Table 1", "model": "llama-2-7b"}
    gain = value(**main, label="PAT", sparsity=0.25) - value(**main, label="LoRA-64")
    assert gain == pytest.approx(1.26)
    second = {"table": "Table 2", "model": "llama-2-13b", "sparsity": 0.3}
    trainable = value(**second, label="no identity loss") - value(**second, label="PAT")
    assert trainable == pytest.approx(-0.30)
    frozen = value(**second, label="PAT") - value(**second, label="frozen mask")
    assert frozen == pytest.approx(4.06)


def test_both_tables_agree_on_pat():
    for number in PUBLISHED:
        if number.table == "Table 2" and number.label == "PAT":
            wanted = {"table": "Table 1", "label": "PAT", "sparsity": number.sparsity}
            assert value(**wanted, model=number.model) == number.value


def test_pat_leads_its_own_table_at_every_ratio():
    rows = [p for p in PUBLISHED if p.table == "Table 1" and p.sparsity]
    key = lambda p: (p.sparsity, p.label)  # noqa: E731
    means = {k: mean(p.value for p in group) for k, group in groupby(sorted(rows, key=key), key)}
    for sparsity in (0.2, 0.25, 0.3):
        ranked = sorted((v, label) for (s, label), v in means.items() if s == sparsity)
        assert ranked[-1][1] == "PAT"
