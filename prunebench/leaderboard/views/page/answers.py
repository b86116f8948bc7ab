"""What the models of a section write: answers to sample questions, and prompts continued.

Questions and prompts stand once, with the text of each row in the order of the tables, dense first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.views import formats
from prunebench.leaderboard.views.tables import make_lines
from prunebench.record.form import Record
from prunebench.record.measured import TaskPart
from prunebench.record.parts import there
from prunebench.untyped import Json

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

QUESTIONS = 3  # of each task
FEW = 6  # rows that are all shown at first
BEST = 2  # of each sparsity, where there are more than FEW
MOST_PROMPT = 700  # characters, the last ones; all of it is in the record
MOST_TEXT = 1500  # characters of an answer or a continuation, the first ones


@dataclass(frozen=True)
class _Row:
    """A row of the tables with its records, the first seed in front."""

    name: str
    sparsity: float
    records: tuple[Record, ...]


def written(collected: Collected, summary: pd.DataFrame) -> list[Json | None]:
    """What each section's models wrote, in the order of the sections; None where nothing was.

    rows   name, sparsity, and whether it is shown at first
    tasks  name, how it was asked, and questions with the answer of each row (null: it has none)
    texts  how many tokens, and prompts with [text, ended, repeating] of each row, or null
    """
    records: dict[int, list[Record]] = {}
    cells = collected.cells.sort_values("seed", kind="stable")
    for place, row, status in zip(cells.index, cells["row"], cells["status"], strict=True):
        if status == "ok":
            records.setdefault(row, []).append(collected.records[place])
    found = []
    for campaign, model in dict.fromkeys((row.campaign, row.model) for row in collected.table):
        lines = make_lines(collected, summary, campaign=campaign, model=model)
        rows = [
            _Row(line.name, line.sparsity, tuple(records.get(line.row.index, ())))
            for line in lines
            if line.row is not None
        ]
        found.append(_section([row for row in rows if any(map(_writes, row.records))]))
    return found


def _writes(record: Record) -> bool:
    return bool(there(record.texts)) or any(task.generated for _, task in _tasks(record))


def _section(rows: Sequence[_Row]) -> Json | None:
    if not rows:
        return None
    shown = _shown(rows)
    return {
        "rows": [
            {"name": row.name, "sparsity": formats.percent(row.sparsity), "shown": i in shown}
            for i, row in enumerate(rows)
        ],
        "tasks": [
            _task(name, rows)
            for name in sorted({name for row in rows for r in row.records for name, _ in _tasks(r)})
        ],
        "texts": _texts(rows),
    }


def _shown(rows: Sequence[_Row]) -> set[int]:
    """All of a few rows; of many dense and the best of each sparsity, which stand first."""
    if len(rows) <= FEW:
        return set(range(len(rows)))
    taken: dict[float, list[int]] = {}
    for i, row in enumerate(rows):
        taken.setdefault(row.sparsity, []).append(i)
    return {i for sparsity, own in taken.items() for i in own[: BEST if sparsity else 1]}


def _tasks(record: Record) -> list[tuple[str, TaskPart]]:
    """The tasks of a record that have generated answers."""
    suite = there(record.generation)
    entries = [(name, there(task)) for name, task in (suite.tasks if suite else {}).items()]
    return [(name, task) for name, task in entries if task is not None and task.generated]


def _task(name: str, rows: Sequence[_Row]) -> Json:
    """The task's first questions, with every row's answers."""
    parts = [_first(dict(_tasks(record)).get(name) for record in row.records) for row in rows]
    asked: dict[tuple[str, str], list[str | None]] = {}
    for i, part in enumerate(parts):
        samples = part.generated.samples if part and part.generated else []
        for sample in samples[:QUESTIONS]:
            question = (sample.prompt, sample.target)
            if question in asked or len(asked) < QUESTIONS:
                asked.setdefault(question, [None] * len(rows))[i] = sample.answer[:MOST_TEXT]
    about = dict.fromkeys(_how(part) for part in parts if part)
    return {
        "name": name,
        "how": " or ".join(about),
        "questions": [
            {"prompt": prompt[-MOST_PROMPT:], "target": target[:MOST_TEXT], "answers": answers}
            for (prompt, target), answers in asked.items()
        ],
    }


def _how(part: TaskPart) -> str:
    limit = f"at most {part.generated.max_new_tokens} new tokens" if part.generated else ""
    chat = ["through the chat template"] if part.chat else []
    return ", ".join([f"{part.shots}-shot", *chat, limit, f"scored by {part.metric}"])


def _texts(rows: Sequence[_Row]) -> Json | None:
    """The prompts, with how every row goes on."""
    parts = [_first(there(record.texts) for record in row.records) for row in rows]
    found: dict[str, list[list[str | bool] | None]] = {}
    for i, part in enumerate(parts):
        for text in part.texts if part else ():
            own = found.setdefault(text.prompt, [None] * len(rows))
            own[i] = [text.text[:MOST_TEXT], text.ended, text.repeating]
    if not found:
        return None
    limits = sorted({part.tokens for part in parts if part})
    prompts = [{"prompt": p[-MOST_PROMPT:], "texts": texts} for p, texts in found.items()]
    return {"tokens": " or ".join(map(str, limits)), "prompts": prompts}


def _first(found: Iterable[T | None]) -> T | None:
    """That of the first seed that has one."""
    return next((part for part in found if part is not None), None)
