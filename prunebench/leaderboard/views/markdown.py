"""The leaderboard and its failures as Markdown that a reader understands by itself.

All text from records is escaped: a name can break no table and bring in no markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prunebench.leaderboard.views import formats, paper_tables
from prunebench.leaderboard.views.facts import Facts, Loss, counts
from prunebench.leaderboard.views.tables import Section, Table, TableCell

if TYPE_CHECKING:
    from prunebench.leaderboard.report import Report

# As entities these are never taken for structure, by any reader of Markdown or HTML.
ENTITIES = str.maketrans({character: f"&#{ord(character)};" for character in "&<>|\\`*[]~$"})
EXAMPLES = 3
HOW_TO_READ = (
    "A row is a method at a target **sparsity**: the share of all the model's parameters that is "
    "removed, or of its decoder blocks' where the table says so; **achieved** is the share that is "
    "gone. **n** cells differ in their seed only. "
    "`12.34 ± 0.21 (0.05)` is their mean, their sample standard deviation, and the standard error "
    "of one run over its test items (text windows for perplexity); the two errors are kept apart. "
    "↓ lower is better, ↑ higher is better.",
    "**Bold** is the best of its sparsity, with every row whose 95 % interval overlaps that of the "
    "best; nothing is bold where all rows are level. **Rank** is the mean of a row's ranks over "
    "the columns of its table; rows that overlap so share a rank. Intervals are Student's t over "
    "seeds; where there is one seed, or seeds change nothing, they come from within the run: from "
    "its test items (paired with dense where the records allow) or its repeated timings. Numbers "
    "of cells that failed are left out.",
)


def leaderboard(report: Report) -> str:
    """The page: counts, how to read, protocols, average ranks, then each model's tables."""
    blocks = [f"# {escape(report.title)}", *_introduction(report.facts)]
    if report.ranks.rows:
        blocks += ["## All models", *_ranks(report.ranks)]
    for section in report.sections:
        blocks += _section(section)
    return "\n\n".join(blocks) + "\n"


def paper_vs_measured(report: Report) -> str:
    """Published numbers and claims beside what was measured, with verdicts and their rules."""
    verdicts, claims = report.verdicts, report.claims
    blocks = [f"# Paper against measured: {escape(report.title)}"]
    if not verdicts and not claims:
        return blocks[0] + "\n\nNo method of this campaign has published numbers on file.\n"
    blocks.append(f"**Published numbers: {paper_tables.counted(verdicts)}.**")
    beside = paper_tables.verdict_table(verdicts)
    blocks += ["## Published numbers", paper_tables.RULE]
    blocks.append(table_text(beside) if beside.rows else "None has a measured one beside it.")
    if claims:
        blocks += ["## Claims", paper_tables.CLAIM_RULE]
        blocks.append(table_text(paper_tables.claim_table(claims)))
    unmatched = paper_tables.unmatched_table(verdicts)
    if unmatched.rows:
        blocks += ["## Published numbers without a measured one", table_text(unmatched)]
    blocks.append("Every number is in [paper_vs_measured.csv](paper_vs_measured.csv).")
    return "\n\n".join(blocks) + "\n"


def failures(report: Report) -> str:
    """Everything that was not measured, with its reason."""
    facts = report.facts
    blocks = [f"# What was not measured: {escape(report.title)}", f"{counts(facts)}."]
    if facts.lost_cells:
        rows = [
            _cells(loss.cells[0], loss.status, loss.reason, loss.log) for loss in facts.lost_cells
        ]
        blocks += ["## Cells", _grid(("Cell", "Status", "Reason", "Log"), rows)]
    if facts.problems:
        rows = [_cells(problem.path, problem.reason) for problem in facts.problems]
        blocks += ["## Records left out", _grid(("Record", "Reason"), rows)]
    if facts.lost_parts:
        rows = [
            _cells(loss.part, loss.status, loss.reason, _examples(loss))
            for loss in facts.lost_parts
        ]
        header = ("Part", "Status", "Reason", "Cells")
        blocks += ["## Parts of cells that are ok", _grid(header, rows)]
    if len(blocks) == 2:
        blocks.append("Everything that was planned was measured.")
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """Text that shows as it is: on one line, without markup, in and out of tables."""
    line = formats.one_line(text).translate(ENTITIES)
    # an underscore within a word is only an underscore
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", "&#95;", line)


def table_text(table: Table) -> str:
    """A drawn table as a pipe table."""
    return _grid(table.header, table.rows, table.align)


def _introduction(facts: Facts) -> list[str]:
    # `see failures.md` only where there is something to see
    lost = facts.lost_cells or facts.lost_parts or facts.problems
    see = " Reasons are in [failures.md](failures.md)." if lost else ""
    blocks = [f"**{counts(facts)}.**{see}"]
    if not facts.models:
        return blocks
    facts_list = [
        f"**Campaign** {_listed(facts.campaigns)}: models {_listed(facts.models)}; "
        f"rows {_listed(facts.methods)}; "
        f"sparsities {', '.join(map(formats.percent, facts.sparsities))}; "
        f"{formats.seeds(list(facts.seeds))}",
        f"**Measured** {' to '.join(facts.dates)} with {_listed(facts.versions)}; "
        f"{_listed(facts.packages)}",
        f"**Devices** {_listed(facts.devices) or 'not recorded'}",
    ]
    protocols = [
        f"**{escape(title)}** (key {escape(key)}): {escape(text)}"
        for title, key, text in facts.protocols
    ]
    blocks += [_bullets(facts_list), "## How to read", *HOW_TO_READ, _bullets(protocols)]
    blocks.append(
        "Every digit is in [leaderboard.csv](leaderboard.csv) (one line per row and quantity) and "
        "[cells.csv](cells.csv) (one line per cell). What the papers say stands beside what was "
        "measured in [paper_vs_measured.md](paper_vs_measured.md)."
    )
    return [block for block in blocks if block]


def _ranks(table: Table) -> list[str]:
    text = (
        "Average of a row's ranks over all quality columns of all models and sparsities (1 is "
        "best). A row without results or off its target has no rank: compare those that are ranked "
        "everywhere."
    )
    return [text, table_text(table)]


def _section(section: Section) -> list[str]:
    blocks = [f"## {escape(section.heading)}", escape(section.lead)]
    for table in section.tables:
        blocks += [f"### {escape(table.title)}", escape(table.caption), table_text(table)]
        if table.legend:
            blocks.append(" · ".join(escape(entry) for entry in table.legend))
    return [block for block in blocks if block]


def _grid(
    header: Sequence[str], rows: Iterable[Sequence[TableCell]], align: Sequence[str] | None = None
) -> str:
    import pandas as pd

    texts = [[_bold(cell) for cell in row] for row in rows]
    frame = pd.DataFrame(texts, columns=[escape(title) for title in header], dtype=object)
    aligned = tuple(align or ("left",) * len(header))
    return frame.to_markdown(index=False, disable_numparse=True, colalign=aligned)


def _bold(cell: TableCell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.bold and text else text


def _cells(*texts: str) -> list[TableCell]:
    return [TableCell(text) for text in texts]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(escape(name) for name in names)


def _bullets(entries: Sequence[str]) -> str:
    return "\n".join(f"- {entry}" for entry in entries)


def _examples(loss: Loss) -> str:
    shown = "; ".join(loss.cells[:EXAMPLES])
    more = len(loss.cells) - EXAMPLES
    return f"{shown}; and {more} more" if more > 0 else shown
