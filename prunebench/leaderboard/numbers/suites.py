"""A suite of tasks as numbers: its mean, each task, and what generated answers look like."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

from prunebench.leaderboard.numbers.quantities import Details, Measurement, Quantity, details_of
from prunebench.record.measured import Difference, SuitePart, TaskPart
from prunebench.record.parts import Lost, there

ACCURACIES = ("acc", "acc_norm")  # metrics that need no name beside "accuracy"
Tasks = Mapping[str, TaskPart]


def suite_measurements(kind: str, part: SuitePart, default_device: str) -> Iterator[Measurement]:
    """Every number of a suite. `kind` is that of its mean: "zeroshot" or "generation"."""
    device = part.device or default_device
    tasks = {name: task for name, lost in sorted(part.tasks.items()) if (task := there(lost))}
    common = {
        "suite": part.suite,
        "limit": part.limit,
        "harness": f"{part.harness.name} {part.harness.version}",
        "answers": "generated" if kind == "generation" else None,
    }
    yield from _means(kind, part, tasks, common, device)
    for name, task in tasks.items():
        yield Measurement(
            Quantity("task", name, _task_details(task, common), device),
            task.value,
            task.stderr,
            **_ends("difference", *_paired(task.versus_dense)),
            **_ends("reference", *_paired(task.versus_reference)),
            majority=task.majority,
        )
        yield from _answers(name, task, common, device)


def _means(
    kind: str, part: SuitePart, tasks: Tasks, common: Mapping[str, object], device: str
) -> Iterator[Measurement]:
    plan = details_of(
        **common,
        tasks=", ".join(tasks),
        chance=_rounded(part.mean_chance),
        **_plan(tasks),
    )
    if part.mean is not None:
        yield Measurement(
            Quantity(kind, part.suite, plan, device),
            part.mean,
            part.mean_stderr,
            **_ends("difference", *_paired_mean(part, tasks.values(), "versus_dense")),
            **_ends("reference", *_paired_mean(part, tasks.values(), "versus_reference")),
            majority=_mean_majority(tasks),
        )
    if part.mean_above_chance is not None:
        above = Quantity("above_chance", part.suite, plan, device)
        yield Measurement(above, part.mean_above_chance, part.mean_stderr)


def _plan(tasks: Tasks) -> dict[str, object]:
    """What is said of a suite only where it is not so of every suite: in the order of its tasks."""
    shots = [task.shots for task in tasks.values()]
    metrics = sorted({task.metric for task in tasks.values()})
    limits = sorted({task.generated.max_new_tokens for task in tasks.values() if task.generated})
    return {
        "shots": _listed(shots if len(set(shots)) > 1 else shots[:1]) if any(shots) else None,
        "chat": "yes" if any(task.chat for task in tasks.values()) else None,
        "metrics": _listed(metrics) if set(metrics) - set(ACCURACIES) else None,
        "max_new_tokens": _listed(limits) or None,
    }


def _task_details(task: TaskPart, common: Mapping[str, object]) -> Details:
    examples, generated = task.fewshot, task.generated
    return details_of(
        **common,
        metric=task.metric,
        items=task.items,
        chance=_rounded(task.chance),
        version=task.version,
        prompts=(task.hash or "")[:12] or None,
        filter=task.filter,
        shots=task.shots or None,
        examples=examples and f"{examples.split or 'of the task'}, seed {examples.seed}",
        chat="yes" if task.chat else None,
        max_new_tokens=generated and generated.max_new_tokens,
        stop=generated and json.dumps(generated.stop, ensure_ascii=False),
    )


def _answers(
    name: str, task: TaskPart, common: Mapping[str, object], device: str
) -> Iterator[Measurement]:
    """Mean length in tokens, and shares of answers, of a task that has generated ones."""
    if (found := task.generated) is None:
        return
    details = _task_details(task, common)
    for kind in ("tokens", "empty", "repeating", "at_limit"):
        value: float = getattr(found, kind)
        yield Measurement(Quantity(f"answer_{kind}", name, details, device), value)


def _mean_majority(tasks: Tasks) -> float | None:
    """The plain mean over the tasks; None where one does not say."""
    found = [task.majority for task in tasks.values() if task.majority is not None]
    return sum(found) / len(found) if found and len(found) == len(tasks) else None


def _listed(values: Collection[object]) -> str:
    return ", ".join(map(str, values))


def _rounded(chance: float | None) -> str | None:
    return None if chance is None else f"{chance:.4g}"


Ends = tuple[float | None, float | None]


def _ends(prefix: str, low: float | None, high: float | None) -> dict[str, float | None]:
    return {f"{prefix}_low": low, f"{prefix}_high": high}


def _paired(versus: Difference | Lost | None) -> Ends:
    found = there(versus)
    return (None, None) if found is None else (found.low, found.high)


def _paired_mean(part: SuitePart, tasks: Collection[TaskPart], key: str) -> Ends:
    """95 % interval of the mean's difference; tasks share no items: their errors add up."""
    whole: Difference | Lost | None = getattr(part, key)
    if found := there(whole):
        return found.low, found.high
    centres, squares = [], []
    for task in tasks:
        versus: Difference | Lost | None = getattr(task, key)
        one = there(versus)
        if one is None or one.difference is None or one.low is None or one.high is None:
            return None, None
        centres.append(one.difference)
        squares.append(((one.high - one.low) / 2) ** 2)
    if not centres:
        return None, None
    centre, half = sum(centres) / len(centres), sum(squares) ** 0.5 / len(squares)
    return centre - half, centre + half
