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
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import datasets
import lm_eval
import lm_eval.utils
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from prunebench.errors import Failure, Unsupported
from prunebench.evaluation.written import Written
from prunebench.evaluation.zeroshot import shared
from prunebench.evaluation.zeroshot.generate import generate
from prunebench.evaluation.zeroshot.outcomes import request_key
from prunebench.evaluation.zeroshot.suites import Scoring
from prunebench.evaluation.zeroshot.tasks import code_allowed

# Without a GPU a batch that fits the caches is as fast as a large one, and pads less.
CPU_BATCH_SIZE = 16
GPU_BATCH_SIZE = 64
KINDS = ("tasks", "groups")
"""What a dictionary of lm-eval's task manager holds."""
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

    What scores a request is lm-eval's own code where `plain` says why, and else `shared.Scorer`,
    which computes the same log-likelihoods and each common beginning once.
    """

    def __init__(self, *args: Passed, plain: str | None = None, **kwargs: Passed) -> None:
        # Log-probabilities in the type of a bfloat16 model are so coarse that choices tie.
        super().__init__(*args, softmax_dtype="float32", **kwargs)
        self.cut: set[str] = set()
        self.answers: dict[str, Written] = {}
        self.plain = plain
        self.sizes: list[int] = []
        self._max_length = self.max_length  # lm-eval looks it up again for every request
        # The answers of an item share their context, which lm-eval encodes with each of them.
        self._encode_once = functools.lru_cache(maxsize=4)(super().tok_encode)

    def tok_encode(self, string: str, *args: Passed, **kwargs: Passed) -> list[int]:
        if args or kwargs:
            return list(super().tok_encode(string, *args, **kwargs))
        return list(self._encode_once(string))

    def _loglikelihood_tokens(
        self, requests: list[Foreign], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Foreign]:
        for texts, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise Failure(
                    f"zero-shot: an answer of {len(continuation)} tokens does not fit the model's "
                    f"context of {self.max_length} tokens: {texts[1][:60]!r}..."
                )
            if len(context) + len(continuation) > self.max_length + 1:
                self.cut.add(request_key(texts))
        if self.plain:
            return list(super()._loglikelihood_tokens(requests, disable_tqdm, override_bs))
        fitting = [
            shared.Request((context + continuation)[-(self.max_length + 1) :], len(continuation))
            for _, context, continuation in requests
        ]
        self.sizes.append(self.batch_size)
        with tqdm(total=len(fitting), disable=disable_tqdm, desc="log-likelihoods") as bar:
            scorer = shared.Scorer(self.model, self.batch_size, bar.update)
            answers = scorer.score(fitting)
        self.batch_size_per_gpu = scorer.rows
        self.sizes.append(scorer.rows)
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            if texts is not None:  # parts of a rolling likelihood have no text of their own
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def generate_until(self, requests: list[Foreign], disable_tqdm: bool = False) -> list[str]:
        """Texts that the model writes, and in `answers` what else is known of them."""
        arguments = [request.args for request in requests]
        rows = GPU_BATCH_SIZE if self.batch_size == "auto" else self.batch_size
        with tqdm(total=len(arguments), disable=disable_tqdm, desc="answers") as bar:
            found, rows = generate(self, arguments, rows, bar.update)
        self.sizes.append(rows)
        for (context, how), answer in zip(arguments, found, strict=True):
            self.answers[request_key((context, how))] = answer
            self.cache_hook.add_partial("generate_until", (context, how), answer.text)
        return [answer.text for answer in found]


def run(
    model: Module,
    tokenizer: PreTrainedTokenizerBase,
    parts: Sequence[Json],
    *,
    device: str,
    batch_size: int | str,
    limit: int | None,
    scoring: Scoring = "shared",
    chat: bool = False,
) -> tuple[Json, How]:
    """Score loaded tasks with lm-eval; returns its results and how it went about it.

    `parts` are lm-eval's dictionaries of tasks and groups; `chat` puts prompts through the chat
    template, examples as earlier turns. `scoring` "shared" computes what requests have in common
    once, where the model allows it; "plain" is lm-eval's own way. `batch_size="auto"` is a fixed
    number, so that figures do not depend on how much memory happened to be free; on a GPU, the
    plain way lets lm-eval find one.
    """
    import copy

    if tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
        raise Unsupported("lm-eval needs a tokenizer with a BOS or EOS token, this one has neither")
    plain = "as the campaign asks" if scoring == "plain" else shared.why_not(model)
    if batch_size == "auto" and device.startswith("cpu"):
        batch_size = CPU_BATCH_SIZE
    elif batch_size == "auto" and not plain:
        batch_size = GPU_BATCH_SIZE
    was_training = model.training
    # lm-eval may add a padding token: not to the caller's tokenizer.
    harness = Harness(
        pretrained=model.to(device),
        tokenizer=copy.deepcopy(tokenizer),
        batch_size=batch_size,
        plain=plain,
    )
    try:
        with templates_compiled_once():
            results = lm_eval.evaluate(
                harness,
                {kind: dict(ChainMap(*(part[kind] for part in parts))) for kind in KINDS},
                limit=limit,
                # Any positive number makes lm-eval report the standard error of a mean, in closed
                # form.
                bootstrap_iters=1,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                confirm_run_unsafe_code=code_allowed(),
            )
    finally:
        model.train(was_training)
    return results, how(harness)


@dataclass(frozen=True)
class How:
    """How a run went about it.

    cut          keys of the requests that were longer than `positions` (outcomes.request_key)
    answers      what the model wrote, by the key of the request
    bos          whether prompts began with the tokenizer's BOS
    batch_sizes  requests that ran at once; several where memory did not suffice for the first
    plain        why common beginnings were not shared; None where they were
    """

    cut: set[str]
    answers: dict[str, Written]
    positions: int
    bos: bool
    batch_sizes: list[int]
    plain: str | None


def how(harness: Harness) -> How:
    """What a harness has done so far."""
    first = harness.tok_encode("The")[:1]
    found = [*harness.sizes, *harness.batch_sizes.values()]
    return How(
        cut=harness.cut,
        answers=harness.answers,
        positions=harness.max_length,
        bos=first == [harness.tokenizer.bos_token_id],
        batch_sizes=list(dict.fromkeys(found)) or [int(harness.batch_size)],
        plain=harness.plain,
    )


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
