"""What the tests of the report share: build it, read its tables back, small campaigns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prunebench.leaderboard import Report

from . import factory
from .typed import build


def written(records: Sequence[dict[str, Any]], out: Path, **more: Any) -> Report:
    problems = more.pop("problems", [])
    return build(records, problems, out, title=more.pop("title", "demo"), **more)


def page(records: Sequence[dict[str, Any]], out: Path) -> str:
    written(records, out)
    return (out / "leaderboard.md").read_text(encoding="utf-8")


def tables(text: str) -> dict[str, list[list[str]]]:
    """The pipe tables of a page under their headings, as rows of cells, the header first."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if not set("".join(cells)) <= set(":-"):
                found.setdefault(heading, []).append(cells)
    return found


def column(table: list[list[str]], title: str) -> list[str]:
    """What the rows have there; lines below them (items, chance) have no sparsity and are none."""
    rows = table[1:] if table[0][0] != "Sparsity" else [row for row in table[1:] if row[0]]
    return [row[table[0].index(title)] for row in rows]


def small(**changes: Any) -> list[dict[str, Any]]:
    """Dense and two methods at one sparsity with three seeds."""
    methods = ("magnitude-l1", "pat")
    return list(factory.campaign(methods=methods, sparsities=(0.5,), **changes))
