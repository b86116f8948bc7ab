"""Stock task definitions of lm-eval whose documents come from local files instead of the hub.

lm-eval takes a mapping given for a task as a whole definition, so the way to change nothing but the
data source is a YAML file that includes the stock one. Prompts, choices and metrics stay stock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Json, JsonMap

if TYPE_CHECKING:
    from prunebench.text.source import Source

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.zeroshot import hub
from prunebench.evaluation.zeroshot.check import count_documents
from prunebench.evaluation.zeroshot.suites import Suite, Task


@dataclass(frozen=True)
class SubTask:
    """One lm-eval task: a suite's entry itself, or one subtask of an entry that is a group."""

    name: str
    stock: Path
    documents: Path | None  # local file; None: as the stock definition says, from the hub
    count: int | None  # documents in the local file


@dataclass(frozen=True)
class Ready:
    """A suite's entry that the source can provide, as the lm-eval tasks that it consists of."""

    task: Task
    parts: tuple[SubTask, ...]


def prepare(suite: Suite, source: Source) -> tuple[list[Ready], dict[str, str]]:
    """Find and check the documents of a suite's tasks.

    Returns the tasks that the source provides, and the reasons of the others by task name.
    Raises Invalid, naming file, line and field, when a task file is wrong.
    """
    ready: list[Ready] = []
    skipped: dict[str, str] = {}
    for task in suite.tasks:
        stock = stock_path(task)
        if not stock.is_file():
            skipped[task.name] = f"lm-eval {harness_version()} has no definition {task.stock}"
        elif source.kind == "hub" and not task.hub:
            skipped[task.name] = "the hub has no such documents; use data source demo or local"
        else:
            parts = [_part(task, name, path, source) for name, path in _members(task, stock)]
            missing = [part.documents for part in parts if _is_missing(part, source)]
            if missing:
                others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                skipped[task.name] = f"no file {missing[0]}{others}"
            else:
                ready.append(Ready(task, tuple(_counted(task, part) for part in parts)))
    return ready, skipped


def load_tasks(
    ready: Sequence[Ready], *, folder: Path, skipped: dict[str, str], limit: int | None = None
) -> tuple[list[Ready], Json]:
    """Let lm-eval build the prepared tasks, from redirecting YAML files written to `folder`.

    Returns the entries that were built and lm-eval's dictionary of tasks and groups; a task that
    the hub turns out not to have moves to `skipped`. Raises Failure when the hub cannot be reached
    and Invalid when lm-eval cannot read documents that passed our checks.
    """
    from lm_eval.tasks import TaskManager

    short = [_first(entry, folder, limit) for entry in ready]
    write_definitions(short, folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    built: list[Ready] = []
    together: Json = {"tasks": {}, "groups": {}}
    from_hub = any(part.documents is None for entry in ready for part in entry.parts)
    with hub.offline_when_unreachable(from_hub):
        for entry, shortened in zip(ready, short, strict=True):
            try:
                loaded = manager.load([entry.task.name])
            except Exception as error:
                skipped[entry.task.name] = _reason(entry, manager.task_index, error)
                continue
            together["tasks"].update(loaded["tasks"])
            together["groups"].update(loaded["groups"])
            built.append(shortened)
    return built, together


def write_definitions(ready: Sequence[Ready], folder: Path) -> None:
    """Write the redirecting YAML files; lm-eval's own command line takes the folder too
    (`--include_path`), and its data library keeps its working files below it."""
    for entry in ready:
        _write(entry, folder)


def stock_path(task: Task) -> Path:
    """Where the installed lm-eval keeps a task's definition (importing nothing heavy)."""
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks" / task.stock


def harness_version() -> str:
    """Version of the installed lm-eval."""
    from importlib.metadata import version

    return version("lm_eval")


def redirection(part: SubTask, task: Task, *, cache: Path | None = None) -> Json:
    """The YAML mapping that asks a stock task about other documents, 0-shot."""
    cfg: Json = {"include": str(part.stock), "task": part.name, "num_fewshot": 0}
    if part.documents is None:
        return cfg
    kwargs: Json = {"data_files": {task.split: str(part.documents.resolve())}}
    if cache is not None:
        kwargs["cache_dir"] = str(cache)
    return cfg | {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": kwargs,
        # Only the evaluated split is on disk, and 0-shot needs no other.
        "training_split": None,
        "validation_split": task.split if task.split == "validation" else None,
        "test_split": task.split if task.split == "test" else None,
        "fewshot_split": None,
        # Without this, lm-eval reads all documents once more, as a store of examples.
        "fewshot_config": {"samples": []},
    }


def _members(task: Task, stock: Path) -> list[tuple[str, Path]]:
    """Names and definitions of an entry's lm-eval tasks; those of a group are stock names."""
    if task.group is None:
        return [(task.name, stock)]
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=str(stock.parent), include_defaults=False).task_index
    return sorted((name, index[name].yaml_path) for name in _leaves(task.group, index))


def _leaves(name: str, index: JsonMap) -> Iterator[str]:
    entry = index[name]
    if entry.kind.name == "TASK":
        yield name
    children = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task", [])
    for child in [] if isinstance(children, str) else children:
        yield from _leaves(child, index)


def _part(task: Task, name: str, stock: Path, source: Source) -> SubTask:
    if source.kind == "hub":
        return SubTask(name, stock, None, None)
    return SubTask(name, stock, source.task_file(name if task.group else task.file), None)


def _is_missing(part: SubTask, source: Source) -> bool:
    return source.kind != "hub" and (part.documents is None or not part.documents.is_file())


def _counted(task: Task, part: SubTask) -> SubTask:
    if part.documents is None:
        return part
    return replace(part, count=count_documents(part.documents, task.fields))


def _first(entry: Ready, folder: Path, limit: int | None) -> Ready:
    """The same entry on copies of its first documents: lm-eval would process all and use few."""
    if limit is None:
        return entry
    return Ready(entry.task, tuple(_head(part, folder, limit) for part in entry.parts))


def _head(part: SubTask, folder: Path, limit: int) -> SubTask:
    if part.documents is None or part.count is None or part.count <= limit:
        return part
    path = folder / f"{part.name}.jsonl"
    with part.documents.open("rb") as whole:
        path.write_bytes(b"".join(itertools.islice(whole, limit)))
    return replace(part, documents=path, count=limit)


def _write(entry: Ready, folder: Path) -> None:
    import yaml

    cache = folder / "cache"
    mappings = [redirection(part, entry.task, cache=cache) for part in entry.parts]
    if entry.task.group is not None:
        members = [part.name for part in entry.parts]
        stock = str(stock_path(entry.task))
        mappings.append({"include": stock, "group": entry.task.name, "task": members})
    for mapping in mappings:
        path = folder / f"{mapping.get('group') or mapping['task']}.yaml"
        path.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")


def _reason(entry: Ready, index: JsonMap, error: Exception) -> str:
    """Why the hub cannot provide a task; raises where that is not the task's own trouble."""
    local = entry.parts[0].documents
    if local is not None:
        about_the_file = type(error).__module__.split(".")[0] in ("datasets", "pyarrow")
        kind = Invalid if about_the_file else Failure
        raise kind(f"{local}: lm-eval cannot read it: {hub.one_line(error)}") from error
    cfg = index[entry.parts[0].name].cfg or {}
    wanted = " ".join(str(cfg[key]) for key in ("dataset_path", "dataset_name") if cfg.get(key))
    files = [f"{part.name if entry.task.group else entry.task.file}.jsonl" for part in entry.parts]
    return hub.reason(entry.task.name, wanted, files, error)
