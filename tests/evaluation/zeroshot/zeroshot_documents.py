"""A few documents for each zero-shot task, in the schemas of the real files, and their use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunebench.evaluation.zeroshot import evaluate, load_suite
from prunebench.text.source import Source

ITEMS = 6  # documents per task


def document(task: str, i: int) -> dict[str, Any]:
    """The i-th document of a task."""
    name, other = f"thing {i}", f"place {i}"
    choices = {"text": [f"{name} a", f"{other} bb", "none ccc", "d"], "label": ["A", "B", "C", "D"]}
    if task == "arc_challenge" and i % 2:  # 3 choices for every second document
        choices = {key: values[:3] for key, values in choices.items()}
    question = {"question": f"What is {name}?", "choices": choices, "answerKey": "ABC"[i % 3]}
    return {
        "boolq": {"passage": f"{name} is in {other}.", "question": f"is {name}", "label": i % 2},
        "piqa": {"goal": f"move {name}", "sol1": "push it", "sol2": "eat it", "label": i % 2},
        "hellaswag": {
            "activity_label": "Moving",
            "ctx_a": f"A man sees {name}.",
            "ctx_b": "he" if i % 2 else "",
            "endings": ["takes it.", "drops it all.", "is a cat.", "sings."],
            "label": str(i % 4),
        },
        "winogrande": {
            "sentence": f"{name} hit {other} so _ broke.",
            "option1": name,
            "option2": other,
            "answer": str(1 + i % 2),
        },
        "arc_easy": question,
        "arc_challenge": question,
        "openbookqa": {
            "question_stem": f"{name} is",
            "choices": choices,
            "answerKey": "DCBA"[i % 4],
        },
        "copa": {
            "premise": f"{name} fell.",
            "question": "cause" if i % 2 else "effect",
            "choice1": "It was pushed.",
            "choice2": "It broke.",
            "label": i % 2,
        },
        "multirc": {"paragraph": name, "question": "Where?", "answer": other, "label": i % 2},
        "rte": {"premise": f"{name} is in {other}.", "hypothesis": f"{name} is.", "label": i % 2},
        "siqa": {
            "context": f"Ana has {name}.",
            "question": "Why?",
            "answerA": "To look",
            "answerB": "To sell it",
            "answerC": "No reason",
            "label": str(1 + i % 3),
        },
        "wic": {
            "sentence1": f"{name} runs",
            "sentence2": "a run",
            "word": "run",
            "start1": 0,
            "end1": 5,
            "label": i % 2,
        },
        "wsc": {
            "text": f"Bob saw {name} and he left .",
            "span1_text": "Bob",
            "span2_text": "he",
            "span2_index": 5,
            "label": i % 2,
        },
        "gsm8k": {
            "question": f"Ana has {i} apples and buys 2. How many has she?",
            "answer": f"She has {i} + 2 = <<{i}+2={i + 2}>>{i + 2} apples.\n#### {i + 2}",
        },
        "triviaqa": {"question": f"Where is {name}", "answer": {"aliases": [other, f"a {other}"]}},
        "nq_open": {"question": f"where is {name}", "answer": [other]},
        "mmlu": {"question": f"{name}?", "choices": ["a", "b", "c", "d"], "answer": i % 4},
    }[task]


def write_task(root: Path, task: str, *, file: str | None = None, items: int = ITEMS) -> Path:
    """Write documents of a task to <root>/zeroshot/<file or task>.jsonl."""
    path = root / "zeroshot" / f"{file or task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document(task, i)) + "\n" for i in range(items)))
    return path


def local_source(root: Path) -> Source:
    """A local source with documents of the tasks of zeroshot/7."""
    for task in load_suite("zeroshot/7").tasks:
        write_task(root, task.name)
    return Source(kind="local", root=root)


def run(model: Any, tokenizer: Any, source: Any, workdir: Path, **changes: Any) -> dict[str, Any]:
    """Evaluate a model on zeroshot/7, or as `changes` say."""
    settings = {"suite": "zeroshot/7", "source": source, "batch_size": 4, "workdir": workdir}
    return evaluate(model, tokenizer, **{**settings, **changes})
