"""The leaderboard on a terminal: the compact tables, cut to its width."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.compare import compare
from prunebench.leaderboard.views.facts import counts
from prunebench.leaderboard.views.tables import Section, Table, TableCell
from prunebench.untyped import Foreign

if TYPE_CHECKING:
    from prunebench.leaderboard.report import Report

BEST = "*"
LOST_SHOWN = 10
NAMES = 2  # columns that say which row it is
NAME_WIDTH = 32
QUALITY_PRIORITY = 2  # of the columns that a narrow terminal should keep


def terminal(report: Report, *, width: int | None = None) -> str:
    """Counts, one compact table per model, what was lost, where the files are.

    `width` is in characters (default: the terminal's). Columns are dropped, the least telling
    first, until a table fits; sparsity, method and the first quality column always stay.
    """
    width = width or shutil.get_terminal_size((100, 24)).columns
    blocks = [formats.shorten(f"{report.title}: {counts(report.facts)}", max(width, 60))]
    for section in report.sections:
        blocks.append(formats.shorten(f"{section.heading} ({section.lead})", width))
        table, text = _best_fit(section, width)
        blocks.append(text)
        blocks.append("\n".join(formats.shorten(entry, width) for entry in _legend(table)))
    if report.facts.lost_cells or report.facts.problems:
        blocks.append("\n".join(_lost(report, width)))
    blocks.append("\n".join(str(file) for file in report.files))
    return "\n\n".join(block for block in blocks if block) + "\n"


def side_by_side(first: Report, second: Report, *, names: tuple[str, str]) -> str:
    """Two reports compared: the numbers that both have, then what only one has, then losses."""
    table, alone = compare(first, second)
    blocks = [f"A  {names[0]}: {counts(first.facts)}\nB  {names[1]}: {counts(second.facts)}"]
    blocks.append(table.caption)
    if table.rows:
        blocks.append(_draw(table, list(range(len(table.header)))))
        blocks.append("\n".join(table.legend))
    blocks.append("\n".join(formats.one_line(line) for line in alone))
    return "\n\n".join(block for block in blocks if block)


def fit(table: Table, width: int) -> str:
    """Draw a table within `width` characters, dropping columns by their priority."""
    kept = list(range(len(table.header)))
    text = _draw(table, kept)
    while max(map(len, text.splitlines())) > width:
        worst = max(kept, key=lambda column: (table.priorities[column], column))
        if table.priorities[worst] == 0:
            break
        kept.remove(worst)
        text = _draw(table, kept)
    return text


def _best_fit(section: Section, width: int) -> tuple[Table, str]:
    """The table with errors if it keeps every quality column within `width`, else the brief one."""
    text = fit(section.compact, width)
    titles = zip(section.compact.header, section.compact.priorities, strict=True)
    if all(title in text for title, priority in titles if priority <= QUALITY_PRIORITY):
        return section.compact, text
    return section.brief, fit(section.brief, width)


def _draw(table: Table, kept: list[int]) -> str:
    from tabulate import SEPARATING_LINE, tabulate

    rows: list[Foreign] = []  # lines of text, and tabulate's own mark for a rule
    before: float | None = 0.0
    for position, row in enumerate(table.rows):
        texts = [_text(row[column]) for column in kept]
        block = table.blocks[position] if table.blocks else before
        if block is None and not any(texts[NAMES:]):
            continue  # a remark on columns that were dropped
        if rows and block != before:
            rows.append(SEPARATING_LINE)
        before = block
        rows.append(texts)
    header = [formats.shorten(table.header[column], NAME_WIDTH) for column in kept]
    align = [table.align[column] for column in kept]
    return tabulate(rows, header, "simple", disable_numparse=True, colalign=align)


def _text(cell: TableCell) -> str:
    # a star in front leaves right-aligned numbers in line
    return f"{BEST * cell.bold}{formats.shorten(cell.text, NAME_WIDTH)}"


def _legend(table: Table) -> list[str]:
    bold = any(cell.bold for row in table.rows for cell in row)
    best = [f"{BEST} best of its sparsity, or within the 95 % interval of the best"] if bold else []
    return [*best, *table.legend]


def _lost(report: Report, width: int) -> list[str]:
    facts = report.facts
    found = [(f"{x.cells[0]}: {x.status}: {x.reason}", x.log) for x in facts.lost_cells]
    found += [(f"{problem.path}: {problem.reason}", "") for problem in facts.problems]
    lines = []
    for text, log in found[:LOST_SHOWN]:
        lines.append(f"  {formats.shorten(text, max(width - 2, 20))}")
        lines += [f"    log: {log}"] if log else []
    more = len(found) - LOST_SHOWN
    more_text = [f"  and {more} more: see failures.md"] if more > 0 else []
    return ["Not measured:", *lines, *more_text]
