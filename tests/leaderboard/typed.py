"""The leaderboard's functions for the factory's plain records, which become typed ones here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prunebench import leaderboard
from prunebench.leaderboard import Problem, Report
from prunebench.leaderboard.numbers import collect as collecting
from prunebench.leaderboard.numbers.collect import Collected
from prunebench.leaderboard.numbers.losses import missing_parts as missing_parts_of
from prunebench.leaderboard.numbers.measurements import measurements as measurements_of
from prunebench.leaderboard.numbers.quantities import Measurement
from prunebench.leaderboard.views import show
from prunebench.record.form import Record
from prunebench.record.store import record_of

Given = Mapping[str, Any] | Record


def typed(record: Given) -> Record:
    return record if isinstance(record, Record) else record_of(record, "made by a test")


def build(records: Iterable[Given], problems: Iterable[Problem], out: Path, **more: Any) -> Report:
    return leaderboard.build(map(typed, records), problems, out, **more)


def analyse(
    records: Iterable[Given], problems: Iterable[Problem], out: Path, **more: Any
) -> Report:
    return leaderboard.analyse(map(typed, records), problems, out, **more)


def collect(records: Iterable[Given], problems: Iterable[Problem] = ()) -> Collected:
    return collecting.collect(map(typed, records), problems)


def measurements(record: Given) -> Iterator[Measurement]:
    return measurements_of(typed(record))


def missing_parts(record: Given) -> Iterator[tuple[str, str, str]]:
    return missing_parts_of(typed(record))


def record_text(record: Given) -> str:
    return show.record_text(typed(record))
