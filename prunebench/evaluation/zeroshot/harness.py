"""lm-eval in process on a model that is already in memory: never a scorer of our own.

Imports lm-eval at once; only the job that evaluates imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunebench.untyped import Foreign, Json, Module, Passed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

import contextlib
import functools
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import datasets
import lm_eval
import lm_eval.utils
from lm_eval.models.huggingface import HFLM

from prunebench.errors import Failure, Unsupported

# Without a GPU a batch that fits the caches is as fast as a large one, and pads less.
CPU_BATCH_SIZE = 16
CHATTER = {
    "lm_eval": logging.ERROR,
    "transformers": logging.ERROR,
    "datasets": logging.CRITICAL,
    "huggingface_hub": logging.CRITICAL,
}


class Harness(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's Hugging Face model, which also remembers the requests that it had to cut.

    lm-eval cuts a request that is longer than the model's context from the left and says so only in
    its log. How many items were cut belongs beside their score.
    """

    def __init__(self, *args: Passed, **kwargs: Passed) -> None:
        super().__init__(*args, **kwargs)
        self.cut: set[tuple[str, str]] = set()
        self._max_length = self.max_length  # lm-eval looks it up again for every request
        # The answers of an item share their context, which lm-eval encodes with each of them.
        self._encode_once = functools.lru_cache(maxsize=4)(super().tok_encode)

    def tok_encode(self, string: str, *args: Passed, **kwargs: Passed) -> list[int]:
        if args or kwargs:
            return list(super().tok_encode(string, *args, **kwargs))
        return list(self._encode_once(string))

    def _loglikelihood_tokens(
        self, requests: list[Foreign], *args: Passed, **kwargs: Passed
    ) -> list[Foreign]:
        for texts, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise Failure(
                    f"zero-shot: an answer of {len(continuation)} tokens does not fit the model's "
                    f"context of {self.max_length} tokens: {texts[1][:60]!r}..."
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.cut.add(texts)
        return list(super()._loglikelihood_tokens(requests, *args, **kwargs))


def run(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Json,
    *,
    device: str,
    batch_size: int | str,
    limit: int | None,
) -> tuple[Json, How]:
    """Score loaded tasks with lm-eval; returns its results and how it went about it.

    `batch_size="auto"` lets lm-eval find one on a GPU, and is fixed on a CPU, where there is no
    memory error to find it by. Requests are batched by length, which is lm-eval's own doing.
    """
    import copy

    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise Unsupported("lm-eval needs a tokenizer with a BOS or EOS token, this one has neither")
    if batch_size == "auto" and device.startswith("cpu"):
        batch_size = CPU_BATCH_SIZE
    was_training = model.training
    # lm-eval may add a padding token: not to the caller's tokenizer.
    harness = Harness(
        pretrained=model.to(device), tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size
    )
    try:
        with templates_compiled_once():
            # Any positive number makes lm-eval report the standard error of a mean, in closed form.
            results = lm_eval.evaluate(harness, tasks, limit=limit, bootstrap_iters=1)
    finally:
        model.train(was_training)
    return results, how(harness)


@dataclass(frozen=True)
class How:
    """How a run went about it.

    cut          (context, continuation) of the requests that were longer than `positions`
    bos          whether prompts began with the tokenizer's BOS
    batch_sizes  requests that ran at once, in the order in which lm-eval settled on them
    """

    cut: set[tuple[str, str]]
    positions: int
    bos: bool
    batch_sizes: list[int]


def how(harness: Harness) -> How:
    """What a harness has done so far."""
    first = harness.tok_encode("The")[:1]
    sizes = list(dict.fromkeys(harness.batch_sizes.values())) or [int(harness.batch_size)]
    return How(harness.cut, harness.max_length, first == [harness.tokenizer.bos_token_id], sizes)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the chatter of lm-eval and its data library; progress bars of the scoring stay."""
    before = {name: logging.getLogger(name).level for name in CHATTER}
    bars = datasets.is_progress_bar_enabled()
    for name, level in CHATTER.items():
        logging.getLogger(name).setLevel(level)
    datasets.disable_progress_bars()
    try:
        # lm-eval prints the batch size that it found; standard output belongs to the caller.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Keep compiled prompt templates for the duration of a run.

    lm-eval compiles the same few templates for every document, several times: on a small model that
    alone costs a fifth of the wall time. What they render is unchanged.
    """
    environment = lm_eval.utils.env
    environment.from_string = functools.lru_cache(maxsize=512)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string
