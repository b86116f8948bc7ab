"""The report: from records to tables, and from tables to files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunebench import record
from prunebench.leaderboard import exports, markdown
from prunebench.leaderboard.collect import Collected, Problem, collect
from prunebench.leaderboard.facts import Facts, gather
from prunebench.leaderboard.sections import make_sections, rank_table
from prunebench.leaderboard.statistics import average_ranks, summarise
from prunebench.leaderboard.tables import Section, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Report:
    """Everything that a view of the campaign needs; `files` are those that were written."""

    title: str
    facts: Facts
    ranks: Table
    sections: tuple[Section, ...]
    collected: Collected
    summary: pd.DataFrame
    files: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no cell failed and no record had to be left out (skipped cells may be)."""
        return not self.facts.failed and not self.facts.problems


def build(
    records: Iterable[Mapping[str, Any]],
    problems: Iterable[Problem],
    out: Path,
    *,
    title: str,
) -> Report:
    """Write leaderboard.md, leaderboard.csv, cells.csv and failures.md into the folder `out`.

    `records` are valid ones (`load` reads them), in any order: equal records give equal bytes.
    `problems` are the files that could not be read; they are named in failures.md.
    """
    collected = collect(records, problems)
    summary = summarise(collected)
    out = Path(out)
    report = Report(
        title=title,
        facts=gather(collected),
        ranks=rank_table(average_ranks(collected, summary)),
        sections=make_sections(collected, summary),
        collected=collected,
        summary=summary,
        files=tuple(out / name for name in FILES),
    )
    texts = {
        "leaderboard.md": markdown.leaderboard(report),
        "leaderboard.csv": exports.csv_text(exports.leaderboard_frame(collected, summary)),
        "cells.csv": exports.csv_text(exports.cells_frame(collected)),
        "failures.md": markdown.failures(report),
    }
    for name, text in texts.items():
        record.write_text(out / name, text)
    return report


FILES = ("leaderboard.md", "leaderboard.csv", "cells.csv", "failures.md")
