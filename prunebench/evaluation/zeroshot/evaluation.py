"""Zero-shot accuracy of one model on one suite, as the `zeroshot` part of its record."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.zeroshot import outcomes
from prunebench.evaluation.zeroshot.suites import Scoring, Suite, Task, load_suite
from prunebench.untyped import Foreign, Json, JsonMap, Module, Plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunebench.text.source import Source

log = logging.getLogger(__name__)

ITEMS = "items.json.gz"
Outcome = Json


def evaluate(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    suite: str,
    source: Source,
    device: str = "cpu",
    batch_size: int | str = "auto",
    limit: int | None = None,
    scoring: Scoring = "shared",
    workdir: Path,
) -> Json:
    """Score a model in memory with lm-eval, 0-shot, and write its item outcomes.

    `source` (text.source.Source) says where documents come from: the hub, or local files at
    `source.task_file(name)`. `limit` takes the first documents of each task (of each subtask, where
    a task is a group) and is recorded. The item outcomes go to `workdir/items.json.gz`, for
    `outcomes.paired` to compare two models item by item.

    A task that the source does not have is skipped with its reason, and then there is no mean: the
    score of a suite is the mean of all its tasks. Raises Invalid for task files or limits
    that are wrong (before the model runs), and Failure when the hub cannot be reached.
    """
    plan = load_suite(suite)
    settings = {**_settings(device, batch_size, limit), "scoring": scoring}
    scored, skipped, how = _score(model, tokenizer, plan, source, settings)
    items = _identity(plan, limit) | {"tasks": {name: scored[name][0] for name in scored}}
    outcomes.write(items, workdir / ITEMS)
    tasks = {
        task.name: _row(task, *scored[task.name])
        if task.name in scored
        else _skipped_row(task, skipped[task.name])
        for task in plan.tasks
    }
    return {**_summary(plan, tasks, limit), **({} if how is None else _run(how))}


def _score(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    plan: Suite,
    source: Source,
    settings: JsonMap,
) -> tuple[dict[str, tuple[Outcome, Outcome]], dict[str, str], Foreign]:
    """Item outcomes and lm-eval's metrics by task, reasons of tasks left out, how it was run."""
    from prunebench.evaluation.zeroshot import tasks

    ready, skipped = tasks.prepare(plan, source)
    if not ready:
        return {}, skipped, None
    from prunebench.evaluation.zeroshot import harness

    with harness.quiet(), tempfile.TemporaryDirectory(prefix="prunebench-") as folder:
        ready, loaded = tasks.load_tasks(
            ready, folder=Path(folder), skipped=skipped, limit=settings["limit"]
        )
        if not ready:
            return {}, skipped, None
        results, how = harness.run(model, tokenizer, loaded, **settings)
    scored = {entry.task.name: _outcome(entry, results, how.cut) for entry in ready}
    for name in [
        name for name, (outcome, _) in scored.items() if outcome["cut"] == outcome["items"]
    ]:
        skipped[name] = (
            f"all {scored.pop(name)[0]['items']} items are longer than the model's {how.positions} "
            "positions: the harness would score what is left of them"
        )
    return scored, skipped, how


def _run(how: Foreign) -> Json:
    """How the harness was run, as the record has it."""
    return {
        "bos": how.bos,
        "batch_size": how.batch_sizes,
        "scoring": "plain" if how.plain else "shared",
        "plain_because": how.plain,
    }


def _outcome(entry: Plain, results: JsonMap, cut: set[Foreign]) -> tuple[Outcome, Outcome]:
    """Item outcomes and lm-eval's metrics of one entry of a suite."""
    _check_counts(entry, results["n-samples"])
    name = entry.task.name
    samples = [sample for part in entry.parts for sample in results["samples"][part.name]]
    outcome = outcomes.task_outcomes(
        samples, metric=entry.task.metric, version=results["versions"][name], cut=cut
    )
    if outcome["cut"]:
        log.warning(
            "%s: %d of %d items exceed the model's context: lm-eval cut them from the left",
            name,
            outcome["cut"],
            outcome["items"],
        )
    return outcome, results["results"][name]


def _row(task: Task, outcome: JsonMap, metrics: JsonMap) -> Json:
    value = _number(metrics, task.metric)
    if value is None:
        raise Failure(f"{task.name}: lm-eval reports no {task.metric}; its definition lacks it")
    return {
        "status": "ok",
        "reason": None,
        "metric": task.metric,
        "value": value,
        "stderr": _number(metrics, f"{task.metric}_stderr"),
        "acc": _number(metrics, "acc"),
        "acc_norm": _number(metrics, "acc_norm"),
        "items": outcome["items"],
        "truncated": outcome["cut"],
        "chance": outcome["chance"],
        "version": outcome["version"],
        "hash": outcomes.digest(outcome["hashes"][key] for key in sorted(outcome["hashes"])),
    }


def _skipped_row(task: Task, reason: str) -> Json:
    missing = ("value", "stderr", "acc", "acc_norm", "items", "chance", "version", "hash")
    return {
        "status": "skipped",
        "reason": reason,
        "metric": task.metric,
        **dict.fromkeys(missing),
    }


def _summary(plan: Suite, tasks: dict[str, Json], limit: int | None) -> Json:
    ok = [row for row in tasks.values() if row["status"] == "ok"]
    left_out = [name for name, row in tasks.items() if row["status"] != "ok"]
    reason = None
    if left_out:
        first = tasks[left_out[0]]["reason"]
        reason = (
            f"no mean: {len(left_out)} of {len(tasks)} tasks skipped "
            f"({', '.join(left_out)}): {first}"
        )
    complete = not left_out
    errors = [row["stderr"] for row in ok]
    mean = _mean([row["value"] for row in ok]) if complete else None
    chance = _mean([row["chance"] for row in ok]) if complete else None
    # The plain mean of independent tasks: its variance is the sum of theirs over their number^2.
    known = complete and None not in errors
    return {
        "status": "ok" if ok else "skipped",
        "reason": reason,
        "suite": plan.name,
        "limit": limit,
        "mean": mean,
        "mean_stderr": math.hypot(*errors) / len(errors) if known else None,
        "mean_chance": chance,
        "mean_above_chance": None if mean is None or chance is None else mean - chance,
        "items_file": ITEMS,
        "harness": _harness(),
        "tasks": tasks,
    }


def _identity(plan: Suite, limit: int | None) -> Json:
    """What two files of item outcomes must have in common to be compared."""
    return {
        "schema_version": outcomes.SCHEMA_VERSION,
        "suite": plan.name,
        "limit": limit,
        "harness": _harness(),
    }


def _harness() -> dict[str, str]:
    from prunebench.evaluation.zeroshot.tasks import harness_version

    return {"name": "lm-eval", "version": harness_version()}


def _settings(device: str, batch_size: int | str, limit: int | None) -> Json:
    """How to run the harness. Raises Invalid where limit or batch size is no positive integer."""
    if limit is not None and not _is_count(limit):
        raise Invalid(f"zero-shot limit: expected a whole number from 1, or null, got {limit!r}")
    if batch_size != "auto" and not _is_count(batch_size):
        raise Invalid(
            f"zero-shot batch size: expected a whole number from 1, or 'auto', got {batch_size!r}"
        )
    return {"device": device, "batch_size": batch_size, "limit": limit}


def _is_count(value: Plain) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_counts(entry: Plain, counted: Mapping[str, Mapping[str, int]]) -> None:
    """lm-eval must have seen every document of the file that we checked."""
    for part in entry.parts:
        seen = counted[part.name]["original"]
        if part.count is not None and seen != part.count:
            raise Failure(
                f"{part.name}: lm-eval read {seen} documents of the {part.count} in "
                f"{part.documents}"
            )


def _number(metrics: JsonMap, name: str) -> float | None:
    value = metrics.get(f"{name},none")
    # lm-eval says "N/A" for the error of a single item.
    return None if value is None or isinstance(value, str) else float(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
