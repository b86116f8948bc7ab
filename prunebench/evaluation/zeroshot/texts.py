"""The texts of a suite's items, for the check of training text against evaluation text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Plain

if TYPE_CHECKING:
    from prunebench.text.source import Source

from collections.abc import Iterator

from prunebench.evaluation.zeroshot.check import read_documents, strings
from prunebench.evaluation.zeroshot.suites import Task, load_suite


def item_texts(*, suite: str, source: Source) -> dict[str, Iterator[str]]:
    """One text an item (all the text fields of a document, a line each), by task.

    Reads local files, so sources `local` and `demo` only: a task without a file of its own (a group
    too) is left out, and with source `hub` the result is empty.
    """
    found: dict[str, Iterator[str]] = {}
    for task in load_suite(suite).tasks:
        path = None if task.group else source.task_file(task.file)
        if path is not None and path.is_file():
            found[task.name] = _texts(path, task)
    return found


def _texts(path: Plain, task: Task) -> Iterator[str]:
    for document in read_documents(path, task.fields):
        known = strings(document, task.fields) if task.fields else _all_strings(document)
        yield "\n".join(known)


def _all_strings(value: Plain) -> Iterator[str]:
    """Every text in a document of which no field is declared."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _all_strings(part)
