"""Item outcomes: which documents a model got right, so that two models compare item by item."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

from prunebench.errors import Invalid
from prunebench.units import Z95
from prunebench.untyped import Json, JsonMap, Plain
from prunebench.whole import write_bytes

SCHEMA_VERSION = 1


def task_outcomes(
    samples: Sequence[JsonMap], *, metric: str, version: Plain, cut: set[tuple[str, str]]
) -> Json:
    """Item outcomes of one task, from lm-eval's samples in document order.

    `acc` and `acc_norm` are strings of one digit an item, 1 for right, or None where the stock
    definition has no such metric. `documents` names each item by the first 8 hexadecimal digits of
    lm-eval's document hash; `hashes` covers documents, prompts with their choices, and targets.
    """
    prompts = [json.dumps(sample["arguments"], ensure_ascii=False) for sample in samples]
    return {
        "metric": metric,
        "version": version,
        "items": len(samples),
        "acc": _digits(samples, "acc"),
        "acc_norm": _digits(samples, "acc_norm"),
        # Of guessing: from the number of answers that each document offers.
        "chance": math.fsum(1 / len(sample["resps"]) for sample in samples) / len(samples),
        "cut": sum(any(tuple(pair) in cut for pair in sample["arguments"]) for sample in samples),
        "documents": [sample["doc_hash"][:8] for sample in samples],
        "hashes": {
            "documents": digest(sample["doc_hash"] for sample in samples),
            "prompts": digest(prompts),
            "targets": digest(sample["target_hash"] for sample in samples),
        },
    }


def write(items: JsonMap, path: Path) -> None:
    """Write item outcomes compressed, in one step; equal outcomes give equal bytes."""
    plain = json.dumps(items, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    buffer = io.BytesIO()
    # Neither a time nor a file name goes into the header.
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as packed:
        packed.write(plain)
    write_bytes(path, buffer.getvalue())


def read(path: Path) -> Json:
    """Read item outcomes. Raises Invalid, naming the file, when it is not such a file."""
    try:
        items = json.loads(gzip.decompress(path.read_bytes()))
    except FileNotFoundError as error:
        raise Invalid(f"item outcomes {path} do not exist; evaluate that model first") from error
    except (OSError, EOFError, ValueError) as error:
        raise Invalid(f"{path}: not a file of item outcomes ({type(error).__name__})") from error
    if not isinstance(items, dict) or items.get("schema_version") != SCHEMA_VERSION:
        raise Invalid(f"{path}: expected item outcomes of schema version {SCHEMA_VERSION}")
    return items


def paired(dense_items: JsonMap | Path, items: JsonMap | Path) -> Json:
    """Compare two models on the same items: `{"tasks": {name: comparison}, "mean": comparison}`.

    A comparison has `difference` (share right, second minus first), its 95 % interval `low`,
    `high`, and `mcnemar_p`, the exact two-sided p-value of McNemar's test.

    The interval is the adjusted Wald interval for paired proportions (Bonett and Price, 2012,
    doi:10.3102/1076998611411915): one is added to both discordant counts and two to the number of
    items. It keeps its coverage where the plain interval does not, and has a width also when two
    models agree on every item. That of the mean of the tasks takes the tasks as independent; its
    p-value pools the items of all tasks. Tasks that only one side has are left out, and then the
    mean is None. Raises Invalid when the harness differs, or documents, metrics or prompts of a
    task.
    """
    first = read(dense_items) if isinstance(dense_items, Path) else dense_items
    second = read(items) if isinstance(items, Path) else items
    if first.get("harness") != second.get("harness"):
        raise Invalid(
            f"cannot compare item by item: scored by {first.get('harness')} and "
            f"{second.get('harness')}; evaluate both models with the same harness"
        )
    names = [name for name in second["tasks"] if name in first["tasks"]]
    counts = {
        name: _discordant(name, first["tasks"][name], second["tasks"][name]) for name in names
    }
    complete = names and set(first["tasks"]) == set(second["tasks"])
    return {
        "tasks": {name: _comparison([count]) for name, count in counts.items()},
        "mean": _comparison(list(counts.values())) if complete else None,
    }


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test: discordant items fall either way evenly."""
    from scipy.special import bdtr  # scipy.stats would take seconds to import

    fewer, both = min(only_first, only_second), only_first + only_second
    return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))


def _discordant(name: str, first: JsonMap, second: JsonMap) -> tuple[int, int, int]:
    """(items, right only in the first, right only in the second) of one task."""
    for key, what in (("metric", "metrics"), ("items", "numbers of items")):
        if first[key] != second[key]:
            raise Invalid(
                f"{name}: cannot compare item by item: {what} differ ({first[key]}, {second[key]})"
            )
    for key in ("documents", "prompts", "targets"):
        if first["hashes"][key] != second["hashes"][key]:
            raise Invalid(
                f"{name}: cannot compare item by item: the {key} differ (hash "
                f"{first['hashes'][key][:12]}, {second['hashes'][key][:12]}); evaluate both models "
                "on the same files with the same harness"
            )
    pairs = list(zip(first[first["metric"]], second[second["metric"]], strict=True))
    return len(pairs), pairs.count(("1", "0")), pairs.count(("0", "1"))


def _comparison(counts: Sequence[tuple[int, int, int]]) -> dict[str, float]:
    """Difference, interval and p-value of the plain mean over tasks (one task: of that task)."""
    difference = centre = variance = 0.0
    for items, only_first, only_second in counts:
        lost, won = (only_first + 1) / (items + 2), (only_second + 1) / (items + 2)
        difference += (only_second - only_first) / items
        centre += won - lost
        variance += (won + lost - (won - lost) ** 2) / (items + 2)
    tasks = len(counts)
    half = Z95 * math.sqrt(variance) / tasks
    return {
        "difference": difference / tasks,
        "low": max(-1.0, centre / tasks - half),
        "high": min(1.0, centre / tasks + half),
        "mcnemar_p": mcnemar_p(sum(count[1] for count in counts), sum(c[2] for c in counts)),
    }


def _digits(samples: Sequence[JsonMap], metric: str) -> str | None:
    if not all(metric in sample for sample in samples):
        return None
    return "".join("1" if sample[metric] else "0" for sample in samples)


def digest(texts: Plain) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()
