"""Definitions of tasks: lm-eval's own, by file or by name, and those that this package adds.

Reads YAML only: no data set is opened here, and nothing heavy imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot.suites import FOLDER, Task

if TYPE_CHECKING:
    from prunebench.untyped import Foreign, JsonMap

OWN = "prunebench:"
"""Begins the `stock` of an entry whose definition lies in prunebench/suites."""


@dataclass(frozen=True)
class Member:
    """One of lm-eval's tasks. cfg: its whole definition, functions not resolved."""

    name: str
    path: Path
    cfg: JsonMap

    @property
    def is_code(self) -> bool:
        """Whether the definition is a Python class, whose data cannot be redirected."""
        return "class" in self.cfg

    @property
    def generates(self) -> bool:
        """Whether the model writes its answers."""
        return bool(self.cfg.get("output_type") == "generate_until")

    @property
    def split(self) -> str | None:
        """The split that lm-eval evaluates."""
        return self.cfg.get("test_split") or self.cfg.get("validation_split")

    @property
    def fewshot_split(self) -> str | None:
        """The split that lm-eval takes examples from."""
        cfg = self.cfg
        return cfg.get("fewshot_split") or cfg.get("training_split") or cfg.get("validation_split")

    @property
    def has_examples(self) -> bool:
        """Whether the definition itself holds examples, so that no split has to."""
        return "samples" in (self.cfg.get("fewshot_config") or {})


@dataclass(frozen=True)
class Stock:
    """What an entry's `stock` stands for. group: the definition file of a group, if it has one."""

    members: tuple[Member, ...]
    pooled: bool
    group: Path | None = None


def find(task: Task) -> Stock | None:
    """The definition of an entry; None where the installed lm-eval has none."""
    if not task.stock.endswith(".yaml"):
        return _by_name(task.stock)
    path = stock_path(task)
    if not path.is_file():
        return None
    if task.group is not None:
        return _group(task.group, _index(path.parent))
    entry = next(e for e in _index(path.parent).values() if e.yaml_path == path)
    return Stock((Member(task.name, path, entry.cfg or {}),), pooled=False)


def stock_path(task: Task) -> Path:
    """Where the definition file of an entry lies (of one whose `stock` is a file)."""
    if task.stock.startswith(OWN):
        return FOLDER / task.stock.removeprefix(OWN)
    return _root() / task.stock


def check(task: Task, stock: Stock) -> None:
    """Compare what an entry asks for with its definition, before anything runs.

    Raises Invalid for a metric or a filter that the definition lacks, and where a filter has to be
    chosen.
    """
    for member in stock.members:
        metrics = [entry.get("metric") for entry in member.cfg.get("metric_list") or ()]
        if metrics and all(isinstance(m, str) for m in metrics) and task.metric not in metrics:
            raise Invalid(
                f"task {task.name}: metric {task.metric!r} is not one of {member.name}'s: "
                f"{', '.join(metrics)}"
            )
        filters = [entry["name"] for entry in member.cfg.get("filter_list") or ()]
        if task.filter is not None and task.filter not in (filters or ["none"]):
            known = ", ".join(filters) or "it has no filters"
            raise Invalid(f"task {task.name}: unknown filter {task.filter!r}; known: {known}")
        if task.filter is None and len(filters) > 1:
            raise Invalid(
                f"task {task.name}: {member.name} finds answers in several ways; choose one by "
                f"filter: {', '.join(filters)}"
            )


def _root() -> Path:
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


@cache
def _index(folder: Path | None) -> Mapping[str, Foreign]:
    """lm-eval's index of the definitions below a folder; None: of all of its own."""
    from lm_eval.tasks import TaskManager

    if folder is None:
        return dict(TaskManager().task_index)
    return dict(TaskManager(include_path=str(folder), include_defaults=False).task_index)


def _by_name(name: str) -> Stock | None:
    """A task, group or tag of lm-eval by its name.

    Definitions mostly lie in a folder whose name begins theirs. The index of all folders takes
    seconds, so it is asked last.
    """
    likely = [f for f in _root().iterdir() if f.is_dir() and name.startswith(f.name)]
    for folder in [*sorted(likely, key=lambda f: -len(f.name)), None]:
        index = _index(folder)
        if name in index:
            return _group(name, index)
    return None


def _group(name: str, index: Mapping[str, Foreign]) -> Stock:
    entry = index[name]
    members = tuple(
        Member(leaf, index[leaf].yaml_path, index[leaf].cfg or {})
        for leaf in sorted(set(_leaves(name, index)))
    )
    pooled = entry.kind.name in ("GROUP", "TAG")
    return Stock(members, pooled, entry.yaml_path if entry.kind.name == "GROUP" else None)


def _leaves(name: str, index: Mapping[str, Foreign]) -> Iterator[str]:
    entry = index[name]
    if entry.kind.name in ("TASK", "PY_TASK"):
        yield name
        return
    children = entry.tags if entry.kind.name == "TAG" else (entry.cfg or {}).get("task", [])
    for child in [] if isinstance(children, str) else children:
        yield from _leaves(child if isinstance(child, str) else child["task"], index)
