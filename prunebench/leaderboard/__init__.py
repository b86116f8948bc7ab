"""Records into the leaderboard: tables in Markdown, CSV and on a terminal, from records alone.

quantities (what may share a column) -> measurements (a record's numbers) -> collect (records to
frames) -> statistics (errors, ranks) -> columns, tables, suites, sections (what a reader sees),
verdicts, claims (papers), fronts (trade-off) -> markdown, terminal, plots,
page (how it is drawn) -> report (files). compare: two reports.
"""

from __future__ import annotations

from prunebench.leaderboard.numbers.collect import Problem, read_records
from prunebench.leaderboard.report import Report, analyse, build
from prunebench.leaderboard.views.terminal import side_by_side, terminal

__all__ = ["Problem", "Report", "analyse", "build", "read_records", "side_by_side", "terminal"]
