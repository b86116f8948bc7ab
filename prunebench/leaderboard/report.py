"""The report: from records to tables, and from tables to files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.garbage import no_collection
from prunebench.leaderboard.numbers.collect import Collected, Problem, collect
from prunebench.leaderboard.numbers.statistics import average_ranks, summarise
from prunebench.leaderboard.papers.claims import Judged, Pairing, judge_claims
from prunebench.leaderboard.papers.verdicts import Verdict, judge
from prunebench.leaderboard.views import exports, markdown, page, paper_tables, plots
from prunebench.leaderboard.views.facts import Facts, gather
from prunebench.leaderboard.views.fronts import make_fronts
from prunebench.leaderboard.views.sections import make_sections, rank_table
from prunebench.leaderboard.views.tables import Section, Table
from prunebench.whole import write_bytes, write_text

if TYPE_CHECKING:
    import pandas as pd

    from prunebench.leaderboard.papers.published import Paper
    from prunebench.record.form import Record


@dataclass(frozen=True)
class Report:
    """Everything that a view of the campaign needs; `files` are those that were written."""

    title: str
    facts: Facts
    ranks: Table
    sections: tuple[Section, ...]
    verdicts: tuple[Verdict, ...]
    claims: tuple[Judged, ...]
    collected: Collected
    summary: pd.DataFrame
    files: tuple[Path, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether no cell failed and no record had to be left out (skipped cells may be)."""
        return not self.facts.failed and not self.facts.problems


def build(
    records: Iterable[Record],
    problems: Iterable[Problem],
    out: Path,
    *,
    title: str,
    reference: str | None = None,
    papers: Sequence[Paper] = (),
    paired: Pairing = lambda *_: None,
) -> Report:
    """Write every view of the records into the folder `out`.

    `records` come in any order (`read_records` reads them): equal records give equal bytes.
    `problems` are the files that could not be read; they are named in failures.md. `reference` is
    the label of a row that others are compared with beside dense; `papers` are what was published;
    `paired` compares two records' accuracies item by item.
    """
    with no_collection():  # it would walk over all records again and again
        report = analyse(
            records, problems, out, title=title, reference=reference, papers=papers, paired=paired
        )
        _write(report, Path(out))
    return report


def _write(report: Report, out: Path) -> None:
    """Write every view of the report into the folder `out`."""
    collected, summary = report.collected, report.summary
    leaderboard = exports.leaderboard_frame(collected, summary)
    judged = paper_tables.paper_frame(report.verdicts, report.claims)
    texts = {
        "leaderboard.md": markdown.leaderboard(report),
        "leaderboard.csv": exports.csv_text(leaderboard),
        "cells.csv": exports.csv_text(exports.cells_frame(collected)),
        "paper_vs_measured.md": markdown.paper_vs_measured(report),
        "paper_vs_measured.csv": exports.csv_text(judged),
        "failures.md": markdown.failures(report),
    }
    for name, text in texts.items():
        write_text(out / name, text)
    write_bytes(out / "leaderboard.parquet", exports.parquet_bytes(leaderboard))
    drawn = dict(plots.plot_files(make_fronts(collected, summary)))
    for name, content in drawn.items():
        write_bytes(out / "plots" / name, content)
    (out / "plots").mkdir(exist_ok=True)
    _remove_others(out / "plots", drawn)
    write_text(out / "index.html", page.render(report))


def _remove_others(folder: Path, kept: Collection[str]) -> None:
    """Delete plots of an earlier build that this one does not have."""
    for path in folder.glob("*.*"):
        if path.suffix in (".svg", ".png") and path.name not in kept:
            path.unlink()


def analyse(
    records: Iterable[Record],
    problems: Iterable[Problem],
    out: Path,
    *,
    title: str,
    reference: str | None = None,
    papers: Sequence[Paper] = (),
    paired: Pairing = lambda *_: None,
) -> Report:
    """The report without its files; arguments as for `build`."""
    collected = collect(records, problems)
    summary = summarise(collected, reference=reference)
    return Report(
        title=title,
        facts=gather(collected),
        ranks=rank_table(average_ranks(collected, summary), collected.quantities),
        sections=make_sections(collected, summary, reference=reference),
        verdicts=judge(collected, summary, papers),
        claims=judge_claims(collected, summary, papers, paired),
        collected=collected,
        summary=summary,
        files=tuple(out / name for name in FILES),
    )


FILES = (
    "index.html",
    *("leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "cells.csv"),
    *("paper_vs_measured.md", "paper_vs_measured.csv", "failures.md"),
)
