"""Tables of suites of tasks: accuracy per task, what guessing gets, what generated answers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prunebench.leaderboard.numbers.quantities import Quantity
from prunebench.leaderboard.numbers.suites import ACCURACIES
from prunebench.leaderboard.views import columns, formats
from prunebench.leaderboard.views.columns import Quantities, of_kinds
from prunebench.leaderboard.views.tables import MOST_FREQUENT, Line, Table, draw

GENERATED = "generated"  # the detail `answers` of a quantity of a generated suite
ANSWERS = ("answer_tokens", "answer_empty", "answer_repeating", "answer_at_limit")
LOOKS = (
    "what the answers look like: their mean length in tokens, and shares of them in %, mean ± "
    "standard deviation over seeds. Empty: without a visible character; repeating: more than half "
    "of its sequences of four tokens stand in it before; cut: still going on at the limit"
)
Majorities = Mapping[int, float]


def floor_lines(quantities: Quantities, majorities: Majorities) -> list[Line]:
    """What needs no model: guessing, and always giving the most frequent right answer.

    One line each, and only where a column has a value for it.
    """
    floors = {
        "chance": {i: _points(q.detail("chance")) for i, q in quantities.items()},
        MOST_FREQUENT: {i: _points(majorities.get(i)) for i in quantities},
    }
    return [Line(name, remarks=texts) for name, texts in floors.items() if any(texts.values())]


def task_tables(here: Quantities, body: Sequence[Line], majorities: Majorities) -> list[Table]:
    """Accuracy per task, a table per suite; the last lines are no models' (`floor_lines`)."""
    tasks = of_kinds(here, "task")
    chosen = {i: q for i, q in tasks.items() if q.detail("answers") != GENERATED}
    generated = {i: q for i, q in tasks.items() if i not in chosen}
    tables = []
    for group in (chosen, generated):
        if group:
            title = f"{suite_title(group.values())} tasks"
            tables.append(_tasks(title, group, body, majorities))
    return tables


def answer_tables(here: Quantities, body: Sequence[Line]) -> list[Table]:
    """What generated answers look like: a table per task, and so rows beside each other."""
    kinds = of_kinds(here, *ANSWERS)
    tables = []
    for name in sorted({quantity.name for quantity in kinds.values()}):
        group = {i: quantity for i, quantity in kinds.items() if quantity.name == name}
        limits = dict.fromkeys(q.detail("max_new_tokens") for q in group.values())
        caption = f"{LOOKS} of {' or '.join(limits)} new tokens"
        shown = columns.number_columns(group, columns.spread)
        tables.append(draw(f"Generated answers: {name}", caption, shown, body))
    return tables


def suite_title(quantities: Iterable[Quantity]) -> str:
    """Zero-shot, 5-shot, 0- to 5-shot, or Generated: of suites' means or of their tasks."""
    quantities = list(quantities)
    if any(quantity.detail("answers") == GENERATED for quantity in quantities):
        return "Generated"
    shots = columns.shots(quantities)
    return "Zero-shot" if shots == "0-shot" else shots


def _tasks(
    title: str, tasks: dict[int, Quantity], body: Sequence[Line], majorities: Majorities
) -> Table:
    errors = {i: [line.summary[i].error for line in body if i in line.summary] for i in tasks}
    worst = {i: max((e for e in found if e == e), default=None) for i, found in errors.items()}
    shots = {i: quantity.detail("shots") or "0" for i, quantity in tasks.items()}
    several = len(set(shots.values())) > 1
    ends = [
        Line("items", remarks={i: quantity.detail("items") for i, quantity in tasks.items()}),
        *([Line("examples before each question", remarks=shots)] if several else []),
        *floor_lines(tasks, majorities),
        Line("largest error over items", remarks={i: _points(error) for i, error in worst.items()}),
    ]
    shown = columns.number_columns(tasks, columns.spread, floors=majorities)
    return draw(title, _caption(tasks), shown, [*body, *ends])


def _caption(tasks: Quantities) -> str:
    metrics = sorted({quantity.detail("metric") for quantity in tasks.values()})
    named = "accuracy" if set(metrics) <= set(ACCURACIES) else " or ".join(metrics)
    caption = f"{named} in %, mean ± standard deviation over seeds"
    if any(quantity.detail("max_new_tokens") for quantity in tasks.values()):
        caption += f"; {columns.shots(tasks.values())}, {columns.greedily(tasks.values())}"
    return caption


def _points(value: str | float | None) -> str:
    return formats.plain(float(value), "fraction") if value not in (None, "") else ""
