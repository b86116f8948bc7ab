"""Definitions of lm-eval's tasks whose documents come from local files instead of the hub.

lm-eval takes a mapping given for a task as a whole definition, so the way to change nothing but the
data source is a YAML file that includes the stock one. Prompts, choices and metrics stay stock.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.zeroshot import hub
from prunebench.evaluation.zeroshot.check import count_documents
from prunebench.evaluation.zeroshot.stock import Member, Stock, check, find
from prunebench.evaluation.zeroshot.suites import Suite, Task
from prunebench.untyped import Json, JsonMap

if TYPE_CHECKING:
    from prunebench.text.source import Source

DEFAULT_NEW_TOKENS = 256
"""Of a generated answer: lm-eval's own default."""
ALLOW_CODE = "HF_ALLOW_CODE_EVAL"
"""Environment variable that allows tasks to run the code that a model wrote, if it is 1."""


@dataclass(frozen=True)
class SubTask:
    """One lm-eval task: a suite's entry itself, or one subtask of an entry that is a group.

    name       what lm-eval calls it here
    stock      its definition
    split      the split that is evaluated
    documents  local file; None: as the definition says, from the hub
    examples   local file of the examples before each question, if there are any
    count      documents in the local file
    """

    name: str
    stock: Member
    split: str | None
    documents: Path | None = None
    examples: Path | None = None
    count: int | None = None


@dataclass(frozen=True)
class Ready:
    """A suite's entry that the source can provide, as the lm-eval tasks that it consists of."""

    task: Task
    stock: Stock
    parts: tuple[SubTask, ...]

    @property
    def generates(self) -> bool:
        """Whether the model writes its answers."""
        return any(part.stock.generates for part in self.parts)

    @property
    def generation(self) -> Json:
        """How answers are generated: lm-eval's keys, `max_gen_toks` and `until` among them."""
        return _generation(self.task, self.parts[0].stock)

    @property
    def filter(self) -> str:
        """The filter that finds answers; lm-eval calls it "none" where a definition has none."""
        names = [entry["name"] for entry in self.parts[0].stock.cfg.get("filter_list") or ()]
        return self.task.filter or next(iter(names), "none")


def prepare(suite: Suite, source: Source) -> tuple[list[Ready], dict[str, str]]:
    """Find and check the documents of a suite's tasks.

    Returns the tasks that the source provides, and the reasons of the others by task name.
    Raises Invalid, naming file, line and field, when a task file is wrong, and when an entry asks
    for a metric or a filter that its definition does not have.
    """
    ready: list[Ready] = []
    skipped: dict[str, str] = {}
    for task in suite.tasks:
        stock = find(task)
        reason = _reason_against(task, stock, source)
        if stock is None or reason:
            skipped[task.name] = reason
            continue
        check(task, stock)
        parts = [_part(task, stock, member, source) for member in stock.members]
        missing = [path for part in parts for path in _missing(part, source)]
        if missing:
            others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            skipped[task.name] = f"no file {missing[0]}{others}"
        else:
            ready.append(Ready(task, stock, tuple(_counted(task, part) for part in parts)))
    return ready, skipped


def _reason_against(task: Task, stock: Stock | None, source: Source) -> str:
    """Why an entry cannot be evaluated at all; "" if it can."""
    if stock is None:
        return f"lm-eval {harness_version()} has no definition {task.stock}"
    if source.kind == "hub" and not task.hub:
        return "the hub has no such documents; use data source demo or local"
    code = [member.name for member in stock.members if member.is_code]
    if code and source.kind != "hub":
        return f"the definition of {code[0]} is code that reads the hub; use data source hub"
    if any(member.cfg.get("unsafe_code") for member in stock.members) and not code_allowed():
        return (
            f"runs code that the model wrote: set {ALLOW_CODE}=1 to allow it, and do so in a "
            "sandbox only"
        )
    return ""


def code_allowed() -> bool:
    """Whether the user allows tasks to run the code that a model wrote."""
    return os.environ.get(ALLOW_CODE) == "1"


def load_tasks(
    ready: Sequence[Ready], *, folder: Path, skipped: dict[str, str], limit: int | None = None
) -> tuple[list[Ready], dict[str, Json]]:
    """Let lm-eval build the prepared tasks, from redirecting YAML files written to `folder`.

    Returns the entries that were built, and lm-eval's dictionary of tasks and groups for each of
    them by name; a task that cannot be had moves to `skipped`. Raises Failure when the hub cannot
    be reached and Invalid when lm-eval cannot read documents that passed our checks.
    """
    from lm_eval.tasks import TaskManager

    short = [_first(entry, folder, limit) for entry in ready]
    write_definitions(short, folder)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    built: list[Ready] = []
    together: dict[str, Json] = {}
    from_hub = any(part.documents is None for entry in ready for part in entry.parts)
    with hub.offline_when_unreachable(from_hub):
        for entry, shortened in zip(ready, short, strict=True):
            try:
                loaded = manager.load([entry.task.name])
            except Exception as error:
                skipped[entry.task.name] = _reason(entry, manager.task_index, error)
                continue
            for one in loaded["tasks"].values():
                one.set_fewshot_seed(seed=entry.task.fewshot_seed)
            together[entry.task.name] = loaded
            built.append(shortened)
    return built, together


def write_definitions(ready: Sequence[Ready], folder: Path) -> None:
    """Write the redirecting YAML files; lm-eval's own command line takes the folder too
    (`--include_path`), and its data library keeps its working files below it."""
    for entry in ready:
        _write(entry, folder)


def harness_version() -> str:
    """Version of the installed lm-eval."""
    from importlib.metadata import version

    return version("lm_eval")


def redirection(part: SubTask, task: Task, *, cache: Path | None = None) -> Json:
    """The YAML mapping that asks a stock task about other documents, with an entry's settings."""
    cfg: Json = {"include": str(part.stock.path), "task": part.name, "num_fewshot": task.shots}
    if part.stock.generates:
        cfg["generation_kwargs"] = _generation(task, part.stock)
    if task.shots and task.fewshot_split:
        cfg["fewshot_split"] = task.fewshot_split
    if part.documents is None:
        return cfg
    files = {part.split: str(part.documents.resolve())}
    if part.examples is not None:
        files[_examples_split(task, part.stock)] = str(part.examples.resolve())
    kwargs: Json = {"data_files": files}
    if cache is not None:
        kwargs["cache_dir"] = str(cache)
    cfg |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": kwargs,
        # Only the split that is evaluated is on disk, and that of the examples.
        "training_split": None,
        "validation_split": part.split if part.split == "validation" else None,
        "test_split": None if part.split == "validation" else part.split,
        "fewshot_split": _examples_split(task, part.stock) if part.examples else None,
    }
    if not task.shots:
        # Without this, lm-eval reads all documents once more, as a store of examples.
        cfg["fewshot_config"] = {"samples": []}
    return cfg


def _generation(task: Task, stock: Member) -> Json:
    """How answers are generated: as the definition says, but greedily, and as the entry says."""
    given = dict(stock.cfg.get("generation_kwargs") or {})
    limit = task.max_new_tokens or given.get("max_gen_toks") or DEFAULT_NEW_TOKENS
    stop = given.get("until") or [] if task.stop is None else list(task.stop)
    for key in ("temperature", "top_p", "top_k", "num_beams"):
        given.pop(key, None)
    return {**given, "do_sample": False, "max_gen_toks": limit, "until": stop}


def _examples_split(task: Task, stock: Member) -> str | None:
    return task.fewshot_split or stock.fewshot_split


def _part(task: Task, stock: Stock, member: Member, source: Source) -> SubTask:
    """A member of an entry, with the local files that it needs."""
    name = member.name if stock.pooled else task.name
    split = task.split or member.split
    if source.kind == "hub":
        return SubTask(name, member, split)
    file = member.name if stock.pooled else task.file
    examples = None
    if task.shots and not member.has_examples:
        examples = source.task_file(f"{file}.{_examples_split(task, member)}")
    return SubTask(name, member, split, source.task_file(file), examples)


def _missing(part: SubTask, source: Source) -> list[Path]:
    """Files that a local source lacks."""
    if source.kind == "hub":
        return []
    needed = [path for path in (part.documents, part.examples) if path is not None]
    return [path for path in needed if not path.is_file()]


def _counted(task: Task, part: SubTask) -> SubTask:
    if part.documents is None:
        return part
    return replace(part, count=count_documents(part.documents, task.fields))


def _first(entry: Ready, folder: Path, limit: int | None) -> Ready:
    """The same entry on copies of its first documents: lm-eval would process all and use few."""
    drops = not entry.task.fields and any("process_docs" in p.stock.cfg for p in entry.parts)
    if limit is None or drops:  # a definition that drops documents would end with fewer
        return entry
    return replace(entry, parts=tuple(_head(part, folder, limit) for part in entry.parts))


def _head(part: SubTask, folder: Path, limit: int) -> SubTask:
    if part.documents is None or part.count is None or part.count <= limit:
        return part
    path = folder / f"{part.name}.jsonl"
    with part.documents.open("rb") as whole:
        path.write_bytes(b"".join(itertools.islice(whole, limit)))
    return replace(part, documents=path, count=limit)


def _write(entry: Ready, folder: Path) -> None:
    import yaml

    mappings = [redirection(part, entry.task, cache=folder / "cache") for part in entry.parts]
    if entry.stock.pooled:
        pooled = {"metric": entry.task.metric, "weight_by_size": True, "filter_list": entry.filter}
        group: Json = {"group": entry.task.name, "task": [part.name for part in entry.parts]}
        if entry.stock.group is not None:
            group = {"include": str(entry.stock.group), **group}
        mappings.append({**group, "aggregate_metric_list": [pooled]})
    for mapping in mappings:
        path = folder / f"{mapping.get('group') or mapping['task']}.yaml"
        path.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")


def _reason(entry: Ready, index: JsonMap, error: Exception) -> str:
    """Why a task cannot be had; raises where that is not the task's own trouble."""
    local = entry.parts[0].documents
    if isinstance(error, ImportError) or (local is not None and not entry.task.fields):
        return f"lm-eval cannot build it: {hub.one_line(error)}"
    if local is not None:
        about_the_file = type(error).__module__.split(".")[0] in ("datasets", "pyarrow")
        kind = Invalid if about_the_file else Failure
        raise kind(f"{local}: lm-eval cannot read it: {hub.one_line(error)}") from error
    cfg = index[entry.parts[0].name].cfg or {}
    wanted = " ".join(str(cfg[key]) for key in ("dataset_path", "dataset_name") if cfg.get(key))
    pooled = entry.stock.pooled
    files = [f"{part.name if pooled else entry.task.file}.jsonl" for part in entry.parts]
    return hub.reason(entry.task.name, wanted, files, error)
