"""Suites of zero-shot tasks, read from `prunebench/suites/*.yaml`: a new one needs no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from prunebench.errors import Invalid
from prunebench.evaluation.zeroshot.check import known_rule
from prunebench.files import read_yaml
from prunebench.untyped import Json, JsonMap, Plain

FOLDER = Path(__file__).resolve().parent.parent.parent / "suites"
KEYS = frozenset(
    ("name", "like", "display", "stock", "group", "split", "metric", "file", "hub", "fields")
) | frozenset(("shots", "fewshot", "filter", "chance", "chat", "max_new_tokens", "stop"))
SUITE_KEYS = {"name", "summary", "include", "tasks"}
FEWSHOT_SEED = 1234
"""What draws examples unless an entry says otherwise: lm-eval's own default."""

Scoring = Literal["shared", "plain"]
"""Common beginnings of requests computed once, or each request by itself as lm-eval does it."""


@dataclass(frozen=True)
class Task:
    """One entry of a suite; `like` in the YAML copies all keys but the name from another entry.

    name            the row's name in records; also the name given to lm-eval
    display         the column's title (default: the name)
    stock           the definition: a file below lm_eval/tasks, the name of one of lm-eval's tasks,
                    groups or tags, or `prunebench:` and a file below prunebench/suites
    split           the split that is evaluated (default: as the definition says)
    metric          the metric that is reported, a share from 0 to 1 (of acc and acc_norm, both are
                    kept)
    file            local documents: <root>/zeroshot/<file>.jsonl (default: the name); examples for
                    few shots: <root>/zeroshot/<file>.<split>.jsonl
    group           name of the stock group, where `stock` is the file of one (then: pooled items)
    hub             whether the hub has the documents
    fields          what a document must hold: check.py
    shots           examples before each question (default: 0, whatever the definition says)
    fewshot_split   split that the examples are from (default: as the definition says)
    fewshot_seed    what draws them, where the definition draws
    filter          lm-eval's filter that finds the answer, where the definition has several
    chance          accuracy of guessing (default: one over the number of choices; of generated
                    answers 0)
    chat            whether prompts go through the tokenizer's chat template
    max_new_tokens  of a generated answer (default: as the definition says, or lm-eval's 256)
    stop            texts that end a generated answer (default: as the definition says)
    """

    name: str
    display: str
    stock: str
    metric: str
    file: str
    split: str | None = None
    group: str | None = None
    hub: bool = True
    fields: JsonMap = field(default_factory=dict)
    shots: int = 0
    fewshot_split: str | None = None
    fewshot_seed: int = FEWSHOT_SEED
    filter: str | None = None
    chance: float | None = None
    chat: bool = False
    max_new_tokens: int | None = None
    stop: tuple[str, ...] | None = None


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
    return _load(str(name), ())


def _load(name: str, within: tuple[Path, ...]) -> Suite:
    """within: files that are being read, which must not include themselves."""
    path = _path_of(name)
    if path in within:
        raise Invalid(f"{path}: includes itself, or takes its own entries by `like`")
    within = (*within, path)
    raw = _read(path)
    entries: dict[str, Task] = {}
    for other in raw.get("include") or []:
        entries.update({task.name: task for task in _load(str(other), within).tasks})
    plain: dict[str, Json] = {}
    for position, given in enumerate(raw["tasks"]):
        where = f"{path}: tasks[{position}]"
        plain_entry = _resolve(given, plain, where, within)
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
    if not isinstance(raw.get("include") or [], list):
        raise Invalid(f"{path}: include: expected names of suites, got {raw['include']!r}")
    return raw


def _resolve(
    given: Plain, siblings: Mapping[str, Json], where: str, within: tuple[Path, ...]
) -> Json:
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
        known = {other.name: _plain(other) for other in _load(suite, within).tasks}
    else:
        known = dict(siblings)
    if task not in known:
        raise Invalid(f"{where}.like: no entry {like!r}; known: {', '.join(sorted(known))}")
    inherited = {key: value for key, value in known[task].items() if key != "file"}
    return {**inherited, **entry}


def _plain(task: Task) -> Json:
    """A task as its entry in a file says it."""
    entry = {key: value for key, value in vars(task).items() if value is not None}
    fewshot = {"seed": entry.pop("fewshot_seed"), "split": entry.pop("fewshot_split", None)}
    return {**entry, "fewshot": fewshot, "stop": entry.get("stop")}


def _task(entry: JsonMap, where: str) -> Task:
    for key in ("stock", "metric"):
        if not isinstance(entry.get(key), str):
            raise Invalid(f"{where}.{key}: expected a string, got {entry.get(key)!r}")
    name = entry.get("name") or entry["stock"]
    for key, (what, fits) in RULES.items():
        given = name if key == "name" else entry.get(key)
        if given is not None and not fits(given):
            raise Invalid(f"{where}.{key}: expected {what}, got {given!r}")
    if entry["stock"].endswith(".yaml") and not isinstance(entry.get("split"), str):
        raise Invalid(f"{where}.split: expected a string, got {entry.get('split')!r}")
    fields = entry.get("fields") or {}
    if not isinstance(fields, dict):
        raise Invalid(f"{where}.fields: expected paths with rules, got {fields!r}")
    for path, rule in fields.items():
        if not known_rule(rule):
            raise Invalid(f"{where}.fields.{path}: unknown rule {rule!r}")
    fewshot = entry.get("fewshot") or {}
    seed = fewshot.get("seed")
    stop = entry.get("stop")
    return Task(
        name=name,
        display=entry.get("display") or name,
        stock=entry["stock"],
        metric=entry["metric"],
        file=entry.get("file") or name,
        split=entry.get("split"),
        group=entry.get("group"),
        hub=bool(entry.get("hub", True)),
        fields=fields,
        shots=entry.get("shots") or 0,
        fewshot_split=fewshot.get("split"),
        fewshot_seed=FEWSHOT_SEED if seed is None else seed,
        filter=entry.get("filter"),
        chance=entry.get("chance"),
        chat=bool(entry.get("chat", False)),
        max_new_tokens=entry.get("max_new_tokens"),
        stop=None if stop is None else tuple(stop),
    )


def _is_text(value: Plain) -> bool:
    return isinstance(value, str) and bool(value)


def _is_file_name(value: Plain) -> bool:
    """It becomes part of paths: it must not lead out of their folder."""
    plain = _is_text(value) and value == Path(value).name and value != ".."
    return plain and value.isprintable() and len(value) <= 100


def _is_definition(value: Plain) -> bool:
    """A name, or a file below the folder of definitions."""
    return _is_text(value) and not Path(value).is_absolute() and ".." not in Path(value).parts


def _is_whole(value: Plain, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_fewshot(value: Plain) -> bool:
    if not isinstance(value, dict) or set(value) - {"split", "seed"}:
        return False
    split, seed = value.get("split"), value.get("seed", 0)
    return (split is None or _is_file_name(split)) and _is_whole(seed, 0)


RULES: Mapping[str, tuple[str, Callable[[Plain], bool]]] = {
    "name": ("a name without / and of at most 100 characters", _is_file_name),
    "stock": ("a name, or a file below the definitions", _is_definition),
    "group": ("a name without /", _is_file_name),
    "display": ("a title", _is_text),
    "split": ("a string without /", _is_file_name),
    "file": ("a name without / and of at most 100 characters", _is_file_name),
    "filter": ("the name of a filter", _is_text),
    "shots": ("a whole number from 0", lambda value: _is_whole(value, 0)),
    "fewshot": ("split and seed (a whole number from 0)", _is_fewshot),
    "chance": (
        "a share from 0 to 1",
        lambda value: isinstance(value, int | float) and 0 <= value <= 1,
    ),
    "chat": ("true or false", lambda value: isinstance(value, bool)),
    "max_new_tokens": ("a whole number from 1", lambda value: _is_whole(value, 1)),
    "stop": (
        "a list of texts",
        lambda value: isinstance(value, list | tuple) and all(map(_is_text, value)),
    ),
}
"""What the optional keys of an entry must be."""
