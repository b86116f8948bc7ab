"""Suites of zero-shot tasks, read from `prunebench/suites/*.yaml`: a new one needs no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot.check import known_rule
from prunebench.files import read_yaml
from prunebench.untyped import Json, JsonMap, Plain

FOLDER = Path(__file__).resolve().parent.parent.parent / "suites"
KEYS = {"name", "like", "display", "stock", "group", "split", "metric", "file", "hub", "fields"}
SUITE_KEYS = {"name", "summary", "include", "tasks"}

Scoring = Literal["shared", "plain"]
"""Common beginnings of requests computed once, or each request by itself as lm-eval does it."""


@dataclass(frozen=True)
class Task:
    """One entry of a suite; `like` in the YAML copies all keys but the name from another entry."""

    name: str  # the row's name in records; also the name given to lm-eval
    display: str  # the column's title
    stock: str  # lm-eval's own definition, relative to lm_eval/tasks
    split: str  # the split that the stock definition evaluates
    metric: str  # the metric that is reported: acc or acc_norm (both are kept)
    file: str  # local documents: <root>/zeroshot/<file>.jsonl (default: the name)
    group: str | None = None  # name of the stock group, where `stock` is one (then: pooled items)
    hub: bool = True  # whether the hub has the documents
    fields: JsonMap = field(default_factory=dict)  # what a document must hold: check.py


@dataclass(frozen=True)
class Suite:
    """A named, ordered set of tasks; its score is the plain mean of the tasks' metrics."""

    name: str
    summary: str
    tasks: tuple[Task, ...]


def suite_names() -> list[str]:
    """Names of the suites that come with the package."""
    return sorted(_name_of(path) for path in FOLDER.glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """Read a suite by its name (`zeroshot/7`) or from a YAML file of the user's.

    Raises Invalid, naming file and key, when the suite is unknown or its file is malformed.
    """
    path = _path_of(str(name))
    raw = _read(path)
    entries: dict[str, Task] = {}
    for other in raw.get("include", []):
        entries.update({task.name: task for task in load_suite(other).tasks})
    plain: dict[str, Json] = {}
    for position, given in enumerate(raw["tasks"]):
        where = f"{path}: tasks[{position}]"
        plain_entry = _resolve(given, plain, where)
        task = _task(plain_entry, where)
        if task.name in entries:
            raise Invalid(f"{where}.name: task {task.name!r} is listed twice")
        plain[task.name] = plain_entry
        entries[task.name] = task
    return Suite(name=raw["name"], summary=raw["summary"], tasks=tuple(entries.values()))


def _name_of(path: Path) -> str:
    return path.stem.replace("-", "/", 1)


def _path_of(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise Invalid(f"suite file {path} does not exist")
        return path
    path = FOLDER / f"{name.replace('/', '-', 1)}.yaml"
    if "/" not in name or not path.is_file():
        raise Invalid(f"unknown suite {name!r}; known: {', '.join(suite_names())}")
    return path


def _read(path: Path) -> Json:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise Invalid(f"{path}: expected a mapping with the keys {sorted(SUITE_KEYS)}")
    if unknown := sorted(set(raw) - SUITE_KEYS):
        raise Invalid(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(sorted(SUITE_KEYS))}")
    for key, kind in (("name", str), ("summary", str), ("tasks", list)):
        if not isinstance(raw.get(key), kind):
            raise Invalid(f"{path}: {key}: expected a {kind.__name__}, got {raw.get(key)!r}")
    return raw


def _resolve(given: Plain, siblings: Mapping[str, Json], where: str) -> Json:
    """Copy the keys of the entry that `like` names: `task` of this file, or `suite:task`."""
    if not isinstance(given, dict):
        raise Invalid(f"{where}: expected a mapping, got {given!r}")
    if unknown := sorted(set(given) - KEYS):
        raise Invalid(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(KEYS))}")
    entry = dict(given)
    like = entry.pop("like", None)
    if like is None:
        return entry
    suite, _, task = str(like).rpartition(":")
    if suite:
        known = {other.name: _plain(other) for other in load_suite(suite).tasks}
    else:
        known = dict(siblings)
    if task not in known:
        raise Invalid(f"{where}.like: no entry {like!r}; known: {', '.join(sorted(known))}")
    inherited = {key: value for key, value in known[task].items() if key != "file"}
    return {**inherited, **entry}


def _plain(task: Task) -> Json:
    return {key: value for key, value in vars(task).items() if value is not None}


def _task(entry: JsonMap, where: str) -> Task:
    for key in ("name", "display", "stock", "split", "metric"):
        if not isinstance(entry.get(key), str):
            raise Invalid(f"{where}.{key}: expected a string, got {entry.get(key)!r}")
    if entry["metric"] not in ("acc", "acc_norm"):
        raise Invalid(f"{where}.metric: expected acc or acc_norm, got {entry['metric']!r}")
    fields = entry.get("fields", {})
    for path, rule in fields.items():
        if not known_rule(rule):
            raise Invalid(f"{where}.fields.{path}: unknown rule {rule!r}")
    return Task(
        name=entry["name"],
        display=entry["display"],
        stock=entry["stock"],
        split=entry["split"],
        metric=entry["metric"],
        file=entry.get("file", entry["name"]),
        group=entry.get("group"),
        hub=bool(entry.get("hub", True)),
        fields=fields,
    )
