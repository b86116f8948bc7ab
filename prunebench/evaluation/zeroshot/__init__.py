"""Zero-shot accuracy through lm-eval: on the hub's documents, on local files, or on the demo's.

    result = evaluate(model, tokenizer, suite="zeroshot/7", source=source, workdir=folder)

Importing this package imports neither torch nor lm-eval: `evaluate` does, in the job that calls it.
Read `evaluation.py` first; then `tasks.py` (redirection of stock tasks) and `outcomes.py` (item
outcomes and their statistics).
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
