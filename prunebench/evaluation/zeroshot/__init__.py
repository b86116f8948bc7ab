"""Suites of tasks through lm-eval, whose answers are chosen or generated: on the hub's documents,
on local files, or on the demo's.

    result = evaluate(model, tokenizer, suite="zeroshot/7", source=source, workdir=folder)

Importing this package imports neither torch nor lm-eval: `evaluate` does, in the job that calls it.
Read `evaluation.py` first; then `suites.py` and `stock.py` (what is asked), `tasks.py` (stock
definitions on other documents), `shared.py` (common beginnings once), `generate.py` and
`answers.py` (what models write), and `outcomes.py` (item outcomes and their statistics).
"""

from prunebench.evaluation.zeroshot.evaluation import ITEMS, evaluate
from prunebench.evaluation.zeroshot.outcomes import paired
from prunebench.evaluation.zeroshot.suites import Suite, Task, load_suite, suite_names
from prunebench.evaluation.zeroshot.texts import item_texts

__all__ = [
    "ITEMS",
    "Suite",
    "Task",
    "evaluate",
    "item_texts",
    "load_suite",
    "paired",
    "suite_names",
]
