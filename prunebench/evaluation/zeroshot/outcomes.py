"""Item outcomes: which documents a model got right, so that two models compare item by item."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.units import Z95
from prunebench.untyped import Json, JsonMap, Plain
from prunebench.whole import write_bytes

SCHEMA_VERSION = 1
ACCURACIES = ("acc", "acc_norm")
HASHES = ("documents", "prompts", "targets")
MOST = 1e100
"""Of a metric: NaN, infinity and what would become infinite in a sum are refused."""
MOST_BYTES = 2**28
"""Unpacked, of a file: a packed one of a few bytes could fill the memory."""


def task_outcomes(
    samples: Sequence[JsonMap],
    *,
    metric: str,
    version: Plain,
    cut: Collection[str],
    chance: float | None = None,
) -> Json:
    """Item outcomes of one task, from lm-eval's samples in document order.

    `acc` and `acc_norm` are strings of one digit an item, 1 for right, or None where the stock
    definition has no such metric; `score` has another metric's values, as such a string or as a
    list of numbers. `documents` names each item by the first 8 hexadecimal digits of lm-eval's
    document hash; `hashes` covers documents, prompts with their choices, and targets. `chance` is
    the accuracy of guessing; None: one over the number of answers that a document offers.
    """
    prompts = [json.dumps(sample["arguments"], ensure_ascii=False) for sample in samples]
    return {
        "metric": metric,
        "version": version,
        "items": len(samples),
        "acc": _digits(samples, "acc"),
        "acc_norm": _digits(samples, "acc_norm"),
        "score": None if metric in ACCURACIES else _digits(samples, metric),
        "chance": _guessing(samples) if chance is None else chance,
        "cut": sum(any(request_key(a) in cut for a in sample["arguments"]) for sample in samples),
        "documents": [sample["doc_hash"][:8] for sample in samples],
        "hashes": {
            "documents": digest(sample["doc_hash"] for sample in samples),
            "prompts": digest(prompts),
            "targets": digest(sample["target_hash"] for sample in samples),
        },
    }


def request_key(arguments: Sequence[Plain]) -> str:
    """A request's arguments (context and continuation, or how to generate) as one text."""
    return json.dumps(list(arguments), ensure_ascii=False, sort_keys=True)


def write(items: JsonMap, path: Path) -> None:
    """Write item outcomes compressed, in one step; equal outcomes give equal bytes."""
    plain = json.dumps(items, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    buffer = io.BytesIO()
    # Neither a time nor a file name goes into the header.
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        packed.write(plain)
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> Json:
    """Read item outcomes. Raises Invalid, naming file and key, when it is not such a file."""
    try:
        with gzip.open(path) as packed:
            plain = packed.read(MOST_BYTES + 1)
        if len(plain) > MOST_BYTES:
            raise Invalid(f"{path}: holds more than {MOST_BYTES >> 20} MiB, as no such file does")
        items = json.loads(plain)
    except FileNotFoundError as error:
        raise Invalid(f"item outcomes {path} do not exist; evaluate that model first") from error
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise Invalid(f"{path}: not a file of item outcomes ({type(error).__name__})") from error
    version = items.get("schema_version") if isinstance(items, dict) else None
    if version != SCHEMA_VERSION or type(version) is not int:
        raise Invalid(f"{path}: expected item outcomes of schema version {SCHEMA_VERSION}")
    if not isinstance(tasks := items.get("tasks"), dict):
        raise Invalid(f"{path}: tasks: expected an object")
    for name, task in tasks.items():
        if fault := _fault(task):
            raise Invalid(f"{path}: tasks.{name}: {fault}")
    found: Json = items
    return found


def _fault(task: Plain) -> str | None:
    """What is wrong with a task's outcomes; None where nothing is."""
    if not isinstance(task, dict):
        return "expected an object"
    items, hashes = task.get("items"), task.get("hashes")
    if type(items) is not int or items < 1:
        return "items: expected a whole number from 1"
    if not isinstance(task.get("metric"), str):
        return "metric: expected a name"
    if not isinstance(hashes, dict) or not all(isinstance(hashes.get(key), str) for key in HASHES):
        return f"hashes: expected {', '.join(HASHES)}"
    for key in (*ACCURACIES, "score"):
        if (values := task.get(key)) is not None and not _are_values(values, items):
            return f"{key}: expected a value for each of {items} items"
    return None


def _are_values(values: Plain, items: int) -> bool:
    if isinstance(values, str):
        return len(values) == items and set(values) <= {"0", "1"}
    return (
        isinstance(values, list)
        and len(values) == items
        and all(type(value) in (int, float) and abs(value) <= MOST for value in values)
    )


def paired(dense_items: JsonMap | Path, items: JsonMap | Path) -> Json:
    """Compare two models on the same items: `{"tasks": {name: comparison}, "mean": comparison}`.

    A comparison has `difference` (share right, second minus first), its 95 % interval `low`,
    `high`, and `mcnemar_p`, the exact two-sided p-value of McNemar's test.

    The interval is the adjusted Wald interval for paired proportions (Bonett and Price, 2012,
    doi:10.3102/1076998611411915): one is added to both discordant counts and two to the number of
    items. It keeps its coverage where the plain interval does not, and has a width also when two
    models agree on every item. Of a metric that is not right or wrong it is the normal interval of
    the mean difference, and the p-value that of the sign test. That of the mean of the tasks takes
    the tasks as independent; its p-value pools the items of all tasks. Tasks that only one side has
    are left out, and then the mean is None. Raises Invalid when the harness differs, or documents,
    metrics or prompts of a task.
    """
    first = read(dense_items) if isinstance(dense_items, Path) else dense_items
    second = read(items) if isinstance(items, Path) else items
    if first.get("harness") != second.get("harness"):
        raise Invalid(
            f"cannot compare item by item: scored by {first.get('harness')} and "
            f"{second.get('harness')}; evaluate both models with the same harness"
        )
    names = [name for name in second["tasks"] if name in first["tasks"]]
    pairs = {name: _pair(name, first["tasks"][name], second["tasks"][name]) for name in names}
    complete = names and set(first["tasks"]) == set(second["tasks"])
    return {
        "tasks": {name: _comparison([pair]) for name, pair in pairs.items()},
        "mean": _comparison(list(pairs.values())) if complete else None,
    }


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: discordant items fall either way evenly."""
    from scipy.special import bdtr  # scipy.stats would take seconds to import

    fewer, both = min(only_first, only_second), only_first + only_second
    return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))


@dataclass(frozen=True)
class _Pair:
    """Two models on the items of one task. centre, variance: of the interval of the difference;
    lost, won: items on which the second is worse, and better."""

    difference: float
    centre: float
    variance: float
    lost: int
    won: int


def _pair(name: str, first: JsonMap, second: JsonMap) -> _Pair:
    """The comparison of one task. Raises Invalid where the items differ."""
    for key, what in (("metric", "metrics"), ("items", "numbers of items")):
        if first[key] != second[key]:
            raise Invalid(
                f"{name}: cannot compare item by item: {what} differ ({first[key]}, {second[key]})"
            )
    for key in HASHES:
        if first["hashes"][key] != second["hashes"][key]:
            raise Invalid(
                f"{name}: cannot compare item by item: the {key} differ (hash "
                f"{first['hashes'][key][:12]}, {second['hashes'][key][:12]}); evaluate both models "
                "on the same files with the same harness"
            )
    before, after = _values(name, first), _values(name, second)
    items = len(before)
    changes = [b - a for a, b in zip(before, after, strict=True)]
    lost, won = sum(change < 0 for change in changes), sum(change > 0 for change in changes)
    difference = math.fsum(changes) / items
    if all(value in (0.0, 1.0) for value in (*before, *after)):
        low, high = (lost + 1) / (items + 2), (won + 1) / (items + 2)
        variance = (high + low - (high - low) ** 2) / (items + 2)
        return _Pair(difference, high - low, variance, lost, won)
    spread = math.fsum((change - difference) ** 2 for change in changes) / max(1, items - 1)
    return _Pair(difference, difference, spread / items, lost, won)


def _values(name: str, task: JsonMap) -> list[float]:
    """A task's values item by item."""
    metric = task["metric"]
    values = task.get(metric if metric in ACCURACIES else "score")
    if values is None:
        raise Invalid(f"{name}: cannot compare item by item: {metric} has no value for each item")
    return [float(value) for value in values]


def _comparison(pairs: Sequence[_Pair]) -> dict[str, float]:
    """Difference, interval and p-value of the plain mean over tasks (one task: of that task)."""
    tasks = len(pairs)
    centre = sum(pair.centre for pair in pairs) / tasks
    half = Z95 * math.sqrt(sum(pair.variance for pair in pairs)) / tasks
    return {
        "difference": sum(pair.difference for pair in pairs) / tasks,
        "low": max(-1.0, centre - half),
        "high": min(1.0, centre + half),
        "mcnemar_p": mcnemar_p(sum(pair.lost for pair in pairs), sum(pair.won for pair in pairs)),
    }


def _digits(samples: Sequence[JsonMap], metric: str) -> str | list[float] | None:
    """One digit an item where a metric is right or wrong, else its values."""
    if not all(isinstance(sample.get(metric), int | float) for sample in samples):
        return None
    values = [float(sample[metric]) for sample in samples]
    if all(value in (0.0, 1.0) for value in values):
        return "".join("1" if value else "0" for value in values)
    return values


def _guessing(samples: Sequence[JsonMap]) -> float:
    return math.fsum(1 / len(sample["resps"]) for sample in samples) / len(samples)


def digest(texts: Plain) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()
