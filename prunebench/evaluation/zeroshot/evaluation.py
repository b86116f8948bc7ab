"""Figures of one model on one suite of tasks, as the parts `zeroshot` and `generation` of its
record."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunebench.errors import Failure, Invalid
from prunebench.evaluation.zeroshot import outcomes
from prunebench.evaluation.zeroshot.answers import asked, health, majority
from prunebench.evaluation.zeroshot.suites import Scoring, Suite, Task, load_suite
from prunebench.untyped import Foreign, Json, JsonMap, Module, Plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunebench.text.source import Source

log = logging.getLogger(__name__)

ITEMS = "items.json.gz"


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
    items_file: str = ITEMS,
) -> Json:
    """Score a model in memory with lm-eval on a suite, and write its item outcomes.

    `source` (text.source.Source) says where documents come from: the hub, or local files at
    `source.task_file(name)`. `limit` takes the first documents of each task (of each subtask, where
    a task is a group) and is recorded. The item outcomes go to `workdir/items_file`, for
    `outcomes.paired` to compare two models item by item.

    A task that the source does not have is skipped with its reason, and then there is no mean: the
    score of a suite is the mean of all its tasks. Raises Invalid for task files or limits
    that are wrong (before the model runs), and Failure when the hub cannot be reached.
    """
    plan = load_suite(suite)
    settings = {**_settings(device, batch_size, limit), "scoring": scoring}
    found, skipped, ran = _score(model, tokenizer, plan, source, settings)
    items = _identity(plan, limit) | {"tasks": {name: found[name]["outcome"] for name in found}}
    outcomes.write(items, workdir / items_file)
    tasks = {
        task.name: _row(task, found[task.name])
        if task.name in found
        else _skipped_row(task, skipped[task.name])
        for task in plan.tasks
    }
    summary = {**_summary(plan, tasks, limit), "items_file": items_file}
    return {**summary, **(_run(ran) if ran else {})}


def _score(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    plan: Suite,
    source: Source,
    settings: JsonMap,
) -> tuple[dict[str, Json], dict[str, str], list[Foreign]]:
    """What was found by task (outcome, metrics, details), reasons of tasks left out, how it ran."""
    from prunebench.evaluation.zeroshot import tasks

    ready, skipped = tasks.prepare(plan, source)
    if not ready:
        return {}, skipped, []
    from prunebench.evaluation.zeroshot import harness

    found: dict[str, Json] = {}
    ran: list[Foreign] = []
    with harness.quiet(), tempfile.TemporaryDirectory(prefix="prunebench-") as folder:
        limit = settings["limit"]
        ready, loaded = tasks.load_tasks(ready, folder=Path(folder), skipped=skipped, limit=limit)
        ready = _possible(model, tokenizer, ready, skipped)
        # The chat template is one switch for all tasks of a call.
        for chat in (False, True):
            some = [entry for entry in ready if entry.task.chat == chat]
            if not some:
                continue
            parts = [loaded[entry.task.name] for entry in some]
            results, how = harness.run(model, tokenizer, parts, chat=chat, **settings)
            ran.append(how)
            for entry, part in zip(some, parts, strict=True):
                found[entry.task.name] = _found(entry, part["tasks"], results, how)
    for name in [name for name, one in found.items() if one["cut"] == one["items"]]:
        skipped[name] = (
            f"all {found.pop(name)['items']} items are longer than the model's {ran[0].positions} "
            "positions: the harness would score what is left of them"
        )
    return found, skipped, ran


def _possible(
    model: Module, tokenizer: PreTrainedTokenizerBase, ready: Sequence[Foreign], skipped: Json
) -> list[Foreign]:
    """The entries that this model can be asked; the reasons of the others go to `skipped`."""
    positions = getattr(model.config, "max_position_embeddings", None)
    for entry in ready:
        if entry.task.chat and not getattr(tokenizer, "chat_template", None):
            skipped[entry.task.name] = "the model's tokenizer has no chat template"
        elif entry.generates and positions and entry.generation["max_gen_toks"] >= positions:
            skipped[entry.task.name] = (
                f"{entry.generation['max_gen_toks']} new tokens leave no room for a question in "
                f"the model's {positions} positions; set max_new_tokens"
            )
    return [entry for entry in ready if entry.task.name not in skipped]


def _found(entry: Foreign, objects: JsonMap, results: JsonMap, how: Foreign) -> Json:
    """Item outcomes and lm-eval's figures of one entry of a suite, and how it was asked."""
    _check_counts(entry, results["n-samples"])
    task = entry.task
    parts = {
        part.name: [s for s in results["samples"][part.name] if s["filter"] == entry.filter]
        for part in entry.parts
    }
    samples = [sample for some in parts.values() for sample in some]
    outcome = outcomes.task_outcomes(
        samples,
        metric=task.metric,
        version=results["versions"].get(task.name),
        cut=how.cut,
        chance=0.0 if task.chance is None and entry.generates else task.chance,
    )
    if outcome["cut"]:
        log.warning(
            "%s: %d of %d items exceed the model's context: lm-eval cut them from the left",
            task.name,
            outcome["cut"],
            outcome["items"],
        )
    figures = results["results"][task.name]
    return {
        "outcome": outcome,
        "cut": outcome["cut"],
        "items": outcome["items"],
        "value": _figure(figures, task.metric, entry.filter),
        "stderr": _figure(figures, f"{task.metric}_stderr", entry.filter),
        "acc": _figure(figures, "acc", entry.filter),
        "acc_norm": _figure(figures, "acc_norm", entry.filter),
        "known": sorted({key.partition(",")[0] for key in figures if "_stderr" not in key}),
        "majority": _majority(task, outcome, objects, parts),
        "asked": asked(entry, samples),
        "generated": health(entry, samples, how.answers) if entry.generates else None,
    }


def _majority(task: Task, outcome: JsonMap, objects: JsonMap, parts: JsonMap) -> float | None:
    """What the most frequent right answer gets; None of a metric that is not right or wrong."""
    values = outcome[task.metric if task.metric in outcomes.ACCURACIES else "score"]
    if not isinstance(values, str):
        return None
    return majority([(objects[name], samples) for name, samples in parts.items()])


def _run(ran: Sequence[Foreign]) -> Json:
    """How the harness was run, as the record has it."""
    plain = next((how.plain for how in ran if how.plain), None)
    return {
        "bos": ran[0].bos,
        "batch_size": list(dict.fromkeys(size for how in ran for size in how.batch_sizes)),
        "scoring": "plain" if plain else "shared",
        "plain_because": plain,
    }


def _row(task: Task, found: JsonMap) -> Json:
    value, outcome = found["value"], found["outcome"]
    if value is None:
        raise Failure(
            f"{task.name}: lm-eval reports no {task.metric}, only {', '.join(found['known'])}"
        )
    if not 0 <= value <= 1:
        raise Failure(
            f"{task.name}: {task.metric} is {value:g}; a suite's score is a mean of shares, so "
            "choose a metric from 0 to 1"
        )
    return {
        "status": "ok",
        "reason": None,
        "metric": task.metric,
        "filter": task.filter,
        "value": value,
        "stderr": found["stderr"],
        "acc": found["acc"],
        "acc_norm": found["acc_norm"],
        "items": outcome["items"],
        "truncated": outcome["cut"],
        "chance": outcome["chance"],
        "majority": found["majority"],
        "version": outcome["version"],
        "hash": outcomes.digest(outcome["hashes"][key] for key in sorted(outcome["hashes"])),
        **found["asked"],
        "generated": found["generated"],
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
    if not entry.task.fields:
        return  # nothing is known of the documents, and the definition may drop some
    for part in entry.parts:
        seen = counted[part.name]["original"]
        if part.count is not None and seen != part.count:
            raise Failure(
                f"{part.name}: lm-eval read {seen} documents of the {part.count} in "
                f"{part.documents}"
            )


def _figure(figures: JsonMap, name: str, filter_name: str) -> float | None:
    value = figures.get(f"{name},{filter_name}")
    # lm-eval says "N/A" for the error of a single item.
    return None if value is None or isinstance(value, str) else float(value)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
