"""Instruction examples -> token ids with labels, cut at the token budget, in training order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Foreign, Json, Plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

import hashlib
import logging
import math
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..errors import Invalid
from .settings import RecoverySettings
from .template import prompt

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

PADDING = 0  # an id that every embedding has
IGNORED = -100  # label of a position without loss (torch's cross_entropy and transformers)


class Example(NamedTuple):
    """One encoded record; positions before `first` carry no label."""

    ids: array[int]
    first: int

    def cut(self, length: int) -> Example:
        return Example(self.ids[:length], self.first)

    @property
    def is_labelled(self) -> bool:
        return self.first < len(self.ids)


class Examples:
    """Torch map-style data set of `{"input_ids": [...], "labels": [...]}`, in training order."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = list(examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        ids, first = self.examples[index].ids.tolist(), self.examples[index].first
        return {"input_ids": ids, "labels": [IGNORED] * min(first, len(ids)) + ids[first:]}


@dataclass(frozen=True)
class RecoveryData:
    """Everything that one tuning trains on, and what it amounts to.

    A batch is `batch` consecutive examples of `dataset` (the last one may be smaller); a record
    that is passed twice stands in it twice.
    """

    dataset: Examples
    batch: int
    tokens: int  # non-padding tokens of all steps together
    steps: int  # optimizer steps
    passes: float  # examples / usable records
    text_sha256: str  # of prompts and responses, in order
    ids_sha256: str  # of token ids and label positions, in order
    cut: int = 0  # examples that were longer than the length
    left_out: Mapping[str, int] = field(default_factory=dict)  # reason -> number of records

    def first(self, count: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """The first examples, always the same ones, as a batch: three [count, longest] tensors."""
        batch = Collator()([self.dataset[at] for at in range(min(count, len(self.dataset)))])
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def tokens_after(self, steps: int) -> int:
        """Non-padding tokens that went through in the first `steps` optimizer steps."""
        return sum(len(example.ids) for example in self.dataset.examples[: steps * self.batch])

    def summary(self) -> Json:
        """Plain JSON data, for records."""
        return {
            "examples": len(self.dataset),
            "tokens": self.tokens,
            "steps": self.steps,
            "passes": self.passes,
            "truncated": self.cut,
            "left_out": dict(self.left_out),
            "text_sha256": self.text_sha256,
            "ids_sha256": self.ids_sha256,
        }


@dataclass(frozen=True)
class Collator:
    """Pads examples of different lengths to one batch: three [batch, longest] tensors.

    Padding is masked out, so any id does that the embedding has a row for; a tokenizer's own
    padding token need not be such a one.
    """

    def __call__(self, examples: Sequence[Mapping[str, list[int]]]) -> Json:
        ids = [example["input_ids"] for example in examples]
        return {
            "input_ids": self._padded(ids, PADDING),
            "attention_mask": self._padded([[1] * len(row) for row in ids], 0),
            "labels": self._padded([example["labels"] for example in examples], IGNORED),
        }

    def _padded(self, rows: Sequence[list[int]], value: int) -> Foreign:
        import torch

        longest = max(len(row) for row in rows)
        filled = [row + [value] * (longest - len(row)) for row in rows]
        return torch.tensor(filled, dtype=torch.long)  # [batch, longest]


def encode(
    examples: Sequence[Mapping[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    settings: RecoverySettings,
    *,
    seed: int,
    where: str = "tuning data",
) -> RecoveryData:
    """Training data of exactly one tuning: shuffled by `seed`, cut at the budget or the epochs.

    `examples`: records with `instruction`, `output` and perhaps `input`. Prompt and response are
    tokenised together, the end token follows the response, and everything is cut at
    `settings.length`; a record that keeps no labelled token is left out and counted. When the data
    is shorter than the budget it is passed again in a new order. The last example is cut so that
    the budget is met to the token; if the budget ends inside its prompt it is left off instead,
    and `tokens` is that much lower.

    Raises `Invalid` for no data, a record without instruction or output, an empty response
    (with `empty_response: error`) and a budget smaller than one batch. `where` names the data.
    """
    records, left_out = _checked(examples, settings, where)
    encoder = _Encoder(records, tokenizer, settings, where)
    taken = _within_epochs if settings.tokens is None else _within_budget
    chosen = list(taken(encoder, settings, seed))
    dataset = Examples([example for _, example in chosen])
    tokens = sum(len(example.ids) for _, example in chosen)
    if len(dataset) < settings.batch:
        if len(encoder.too_long) == len(records):
            raise Invalid(
                f"{where}: recovery.length: all {len(records)} prompts are longer than the length "
                f"of {settings.length} tokens, so that no response is left to learn; raise length"
            )
        key = "epochs" if settings.tokens is None else "tokens"
        raise Invalid(
            f"{where}: recovery.{key}: expected at least one batch of {settings.batch} examples, "
            f"got {len(dataset)} examples ({tokens} tokens) from {key} = {getattr(settings, key)}; "
            f"raise {key}, give more data or lower recovery.batch"
        )
    if encoder.too_long:
        left_out["prompt_too_long"] = len(encoder.too_long)
        logger.warning("%s: %d prompts do not fit the length", where, len(encoder.too_long))
    return RecoveryData(
        dataset=dataset,
        batch=settings.batch,
        tokens=tokens,
        steps=math.ceil(len(dataset) / settings.batch),
        passes=len(dataset) / len(records),
        text_sha256=_text_digest((records[index] for index, _ in chosen), settings),
        ids_sha256=_ids_digest(dataset),
        cut=sum(index in encoder.cut for index, _ in chosen),
        left_out=left_out,
    )


def _checked(
    examples: Sequence[Mapping[str, str]], settings: RecoverySettings, where: str
) -> tuple[list[Mapping[str, str]], dict[str, int]]:
    """The usable records and, by reason, the number of those left out."""
    records, empty = [], 0
    for number, example in enumerate(examples):
        _check_record(example, settings, f"{where}: record {number}")
        if example["output"].strip():
            records.append(example)
        elif settings.empty_response == "error":
            raise Invalid(
                f"{where}: record {number}: the response ('output') is empty; mend the record "
                "or set recovery.empty_response: leave_out"
            )
        else:
            empty += 1
    if not records:
        raise Invalid(f"{where}: expected instruction records with a response, got none")
    return records, {"empty_response": empty} if empty else {}


def _check_record(example: Plain, settings: RecoverySettings, where: str) -> None:
    if not isinstance(example, Mapping):
        raise Invalid(f"{where}: expected a mapping, got {type(example).__name__}")
    for key in ("instruction", "output"):
        if not isinstance(example.get(key), str):
            raise Invalid(f"{where}: expected text under {key!r}, got {example.get(key)!r}")
    if not example["instruction"].strip() and settings.template != "none":
        raise Invalid(f"{where}: the instruction is empty")
    if not isinstance(example.get("input", ""), str | None):
        raise Invalid(f"{where}: expected text under 'input', got {example['input']!r}")


class _Encoder:
    """Encodes records when they are first asked for, many at once: a budget needs few of them."""

    chunk = 512

    def __init__(
        self,
        records: Sequence[Mapping[str, str]],
        tokenizer: PreTrainedTokenizerBase,
        settings: RecoverySettings,
        where: str,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise Invalid(f"{where}: the tokenizer has no end token (eos_token) to end responses")
        self.records, self.tokenizer, self.settings = records, tokenizer, settings
        self.too_long: set[int] = set()
        self.cut: set[int] = set()
        self._known: dict[int, Example] = {}

    def pass_over(self, order: Sequence[int]) -> Iterator[tuple[int, Example]]:
        """(record number, example) in the order given; examples without a label are skipped."""
        for start in range(0, len(order), self.chunk):
            part = order[start : start + self.chunk]
            self._encode([index for index in part if index not in self._known])
            for index in part:
                if index not in self.too_long:
                    yield index, self._known[index]

    def _encode(self, indices: Sequence[int]) -> None:
        records = [self.records[index] for index in indices]
        if not records:
            return
        prompts = [prompt(record, template=self.settings.template) for record in records]
        wholes = [text + record["output"] for text, record in zip(prompts, records, strict=True)]
        rows = zip(indices, self._ids(prompts), self._ids(wholes), strict=True)
        for index, before, whole in rows:
            self._known[index] = example = self._labelled(before, whole)
            if len(whole) + 1 > self.settings.length:
                self.cut.add(index)
            if not example.is_labelled:
                self.too_long.add(index)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        rows = self.tokenizer(texts, add_special_tokens=True, verbose=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        # Some tokenizers end every text; the prompt must have no end and the response one.
        return [row[:-1] if row and row[-1] == end else row for row in rows]

    def _labelled(self, before: list[int], whole: list[int]) -> Example:
        # A token in which prompt and response merge (a blank) belongs to the response.
        differing = (at for at, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b)
        shared = next(differing, min(len(before), len(whole)))
        ids = array("i", [*whole, self.tokenizer.eos_token_id][: self.settings.length])
        # The first position is never predicted, so it never carries a label.
        return Example(ids, max(1, shared) if self.settings.loss_on == "response" else 1)


def _orders(count: int, seed: int) -> Iterator[list[int]]:
    """One shuffled order of `count` records after another, the same ones for the same seed."""
    epoch = 0
    while True:
        order = list(range(count))
        # A text seed: Python hashes it with SHA-512, so neighbouring seeds share nothing.
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield order
        epoch += 1


def _within_epochs(
    encoder: _Encoder, settings: RecoverySettings, seed: int
) -> Iterator[tuple[int, Example]]:
    assert settings.epochs is not None  # checked with the settings: epochs or tokens
    left = round(settings.epochs * len(encoder.records))
    for order in _orders(len(encoder.records), seed):
        yield from encoder.pass_over(order[:left])
        left -= len(order)
        if left <= 0:
            return


def _within_budget(
    encoder: _Encoder, settings: RecoverySettings, seed: int
) -> Iterator[tuple[int, Example]]:
    assert settings.tokens is not None  # the caller chose by it
    left = settings.tokens
    for order in _orders(len(encoder.records), seed):
        before = left
        for index, example in encoder.pass_over(order):
            example = example.cut(left)
            if example.is_labelled:
                left -= len(example.ids)
                yield index, example
            if left == 0 or not example.is_labelled:
                return
        if left == before:  # no record keeps a label: another pass would not change that
            return


def _text_digest(records: Iterable[Mapping[str, str]], settings: RecoverySettings) -> str:
    digest = hashlib.sha256()
    for record in records:
        for text in (prompt(record, template=settings.template), record["output"]):
            data = text.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _ids_digest(dataset: Examples) -> str:
    digest = hashlib.sha256()
    for ids, first in dataset.examples:
        digest.update(len(ids).to_bytes(8, "little") + first.to_bytes(8, "little"))
        digest.update(ids.tobytes())
    return digest.hexdigest()
