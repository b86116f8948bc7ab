"""What a reader needs beside an accuracy: how it was asked, what guessing gives, what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prunebench.evaluation.written import Written
from prunebench.evaluation.zeroshot.outcomes import request_key
from prunebench.untyped import Foreign, Json, JsonMap, Plain

if TYPE_CHECKING:
    from prunebench.evaluation.zeroshot.tasks import Ready

SAMPLES = 3
"""Items whose answers the record shows."""
SHOWN = 600
"""Characters of a prompt (its end) or of an answer (its beginning) that the record keeps."""


def asked(entry: Ready, samples: Sequence[JsonMap]) -> Json:
    """How an entry's questions were put, as its record has it."""
    task = entry.task
    member = entry.parts[0].stock
    split = None if member.has_examples else task.fewshot_split or member.fewshot_split
    plain = not task.shots and not task.chat and not entry.generates
    return {
        "shots": task.shots,
        "fewshot": {"split": split, "seed": task.fewshot_seed} if task.shots else None,
        "chat": task.chat,
        "prompt": None if plain or not samples else samples[0]["arguments"][0][0],
    }


def majority(parts: Sequence[tuple[Foreign, Sequence[JsonMap]]]) -> float | None:
    """Accuracy of always giving the most frequent right answer; of choices, its position.

    `parts` has lm-eval's task and its samples for every part of an entry. None where items have
    several right answers, or none that is known, and where the right one stands in the same place
    of every item (TruthfulQA lists it first): that is how a data set is written, not a guess.
    """
    right = [_right(task, sample) for task, samples in parts for sample in samples]
    if not right or not all(isinstance(one, int | str) for one in right):
        return None
    counts = Counter(right)
    return counts.most_common(1)[0][1] / len(right) if len(counts) > 1 else None


def health(entry: Ready, samples: Sequence[JsonMap], answers: Mapping[str, Written]) -> Json:
    """Shares of odd answers, and the first items with what was answered."""
    own = [answers[request_key(sample["arguments"][0])] for sample in samples]
    count = len(own)
    return {
        "max_new_tokens": entry.generation["max_gen_toks"],
        "stop": list(entry.generation["until"]),
        "tokens": sum(len(answer.tokens) for answer in own) / count,
        "empty": sum(answer.empty for answer in own) / count,
        "repeating": sum(answer.repeating for answer in own) / count,
        "at_limit": sum(not answer.ended for answer in own) / count,
        "samples": [
            {
                "prompt": sample["arguments"][0][0][-SHOWN:],
                "target": _text(sample["target"])[:SHOWN],
                "answer": answer.text[:SHOWN],
            }
            for sample, answer in zip(samples[:SAMPLES], own, strict=False)
        ],
    }


def _text(target: Plain) -> str:
    """A right answer, or the first of several."""
    if isinstance(target, list | tuple):
        return _text(target[0]) if target else ""
    return str(target)


def _right(task: Foreign, sample: JsonMap) -> Plain:
    """The right answer: of choices its position, as lm-eval finds it when it scores."""
    if task.OUTPUT_TYPE == "generate_until":
        return sample["target"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    document = sample["doc"]
    gold = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    if isinstance(gold, str):
        choices = task.doc_to_choice(document)
        return choices.index(gold) if gold in choices else None
    return gold
