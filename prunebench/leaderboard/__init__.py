"""Records into the leaderboard: tables in Markdown, CSV and on a terminal, from records alone.

quantities (what may share a column) -> collect (records to frames) -> statistics (errors, ranks)
-> columns, tables (what a reader sees) -> markdown, terminal (how), report (files).
"""

from __future__ import annotations

from prunebench.leaderboard.collect import Problem, load
from prunebench.leaderboard.report import Report, build
from prunebench.leaderboard.terminal import terminal

__all__ = ["Problem", "Report", "build", "load", "terminal"]
