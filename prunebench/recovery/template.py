"""Prompt templates of instruction tuning: the text that stands before the response."""

from __future__ import annotations

from collections.abc import Mapping

# Stanford Alpaca's two prompts (github.com/tatsu-lab/stanford_alpaca), character for character.
TEMPLATES = {
    "alpaca": {
        "with_input": (
            "Below is an instruction that describes a task, paired with an input that provides "
            "further context. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        ),
        "without_input": (
            "Below is an instruction that describes a task. "
            "Write a response that appropriately completes the request.\n\n"
            "### Instruction:\n{instruction}\n\n### Response:\n"
        ),
    },
    # Plain text has no prompt: all of it is the response.
    "none": {"with_input": "", "without_input": ""},
}


def prompt(example: Mapping[str, str], *, template: str = "alpaca") -> str:
    """The text before the response of `example` {instruction, input?}; a blank input is none."""
    given = example.get("input") or ""
    kind = "with_input" if given.strip() else "without_input"
    return TEMPLATES[template][kind].format(instruction=example["instruction"], input=given)
