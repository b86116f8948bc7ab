"""The view of equal compute: what is best for no more than a row took."""

from __future__ import annotations

from typing import Any

import pytest

from prunebench.leaderboard.numbers.statistics import summarise
from prunebench.leaderboard.views.sections import make_sections
from prunebench.leaderboard.views.tables import Table

from . import factory
from .typed import collect


def cell(label: str, perplexity: float, passes: int | None, **more: Any) -> dict[str, Any]:
    """A record that took so many token passes: a third of them forward, two thirds backward."""
    made = factory.record(label=label, perplexity=perplexity, **more)
    tokens = None if passes is None else passes // 3
    for name in ("forward_tokens", "backward_tokens"):
        made["cost"]["prune"][name] = tokens
    return made


def equal_compute(*records: dict[str, Any]) -> Table | None:
    collected = collect([factory.record(label="dense", sparsity=0.0), *records])
    (section,) = make_sections(collected, summarise(collected))
    return next((t for t in section.tables if t.title == "Equal compute"), None)


def shown(table: Table) -> list[tuple[str, str, bool]]:
    """(row, passes, whether its perplexity is bold) of the pruned rows, in their order."""
    quality = next(i for i, title in enumerate(table.header) if title.startswith("wikitext2"))
    passes = table.header.index("Token passes")
    return [
        (r[1].text.strip(), r[passes].text, r[quality].bold)
        for r in table.rows
        if r[0].text != "0 %"
    ]


def test_a_row_is_compared_with_those_that_took_no_more() -> None:
    table = equal_compute(
        cell("costly", 20.0, 300_000), cell("middle", 40.0, 30_000), cell("cheap", 30.0, 3_000)
    )
    assert shown(table) == [
        ("cheap", "3.00 k", False),  # nothing to be compared with
        ("middle", "30.0 k", False),  # worse than what took less
        ("costly", "300 k", True),
    ]


def test_what_costs_more_does_not_take_the_prize_from_the_cheaper() -> None:
    table = equal_compute(
        cell("cheap", 30.0, 3_000), cell("even-cheaper", 50.0, 300), cell("costly", 20.0, 300_000)
    )
    assert [bold for _, _, bold in shown(table)] == [False, True, True]


@pytest.mark.parametrize(("passes", "bold"), [(31_200, False), (36_000, True)])
def test_equal_means_within_a_twentieth(passes: int, bold: bool) -> None:
    table = equal_compute(cell("a", 40.0, 30_000), cell("b", 20.0, passes), cell("c", 90.0, 3_000))
    assert dict((name, is_bold) for name, _, is_bold in shown(table))["a"] is bold


def test_tuning_counts_and_so_do_its_seconds() -> None:
    tuned = cell("tuned", 20.0, 3_000)
    tuned["cell"]["recovery"] = True
    tuned["cost"]["recover"] = dict(tuned["cost"]["prune"], forward_tokens=9_000, wall_s=100.0)
    table = equal_compute(tuned, cell("plain", 40.0, 3_000))
    assert [passes for _, passes, _ in shown(table)] == ["3.00 k", "14.0 k"]
    seconds = [float(row[table.header.index("Seconds")].text) for row in table.rows]
    assert seconds[-1] > 100.0 > seconds[-2]


def test_a_row_without_a_figure_stands_last_and_never_leads() -> None:
    table = equal_compute(
        cell("unknown", 10.0, None), cell("cheap", 30.0, 3_000), cell("costly", 20.0, 300_000)
    )
    assert shown(table)[-1] == ("unknown", "–", False)
    assert [bold for _, _, bold in shown(table)[:2]] == [False, True]


def test_there_is_no_table_where_all_took_the_same() -> None:
    assert equal_compute(cell("a", 20.0, 3_000), cell("b", 30.0, 3_000)) is None
