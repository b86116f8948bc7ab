"""The formulas: memory and time of each stage of a cell, on one GPU or on a processor.

Coefficients of activations are bytes for each token and feature. They were fitted to what the
stages of this suite allocate on small models, and the tests compare them anew (b: bytes of a
weight). Attention is taken as computed in blocks, so that nothing grows with the square of the
length (eager attention and ALiBi need more).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from prunebench.campaign.parts import Profile, SuiteRun
from prunebench.campaign.settings import Recovery
from prunebench.errors import Unsupported
from prunebench.estimate.machine import Machine, gpu
from prunebench.estimate.sizes import Sizes
from prunebench.evaluation.perplexity import TOKENS_PER_BATCH
from prunebench.evaluation.protocols import Protocol
from prunebench.recovery import RecoverySettings

LOGITS_AT_ONCE = 2**24
"""Of an evaluation, in the model's type; few of them in float32 (evaluation/scoring.py)."""
TRAINED_BYTES = 16
"""Of a trained parameter: fp32 value, gradient and AdamW's two moments."""
REDUCED_BYTES = 12
"""Of the one weight whose gradient is being reduced: the gradient and fp32 products."""
PADDING_OF_TWO = 0.18
"""What each doubling of a micro-batch adds to tokens with padding / tokens: Alpaca, cut at 256."""
CHARACTERS_PER_TOKEN = 3.7
CORPUS_CHARACTERS = {
    ("wikitext2", "test"): 1.26e6,
    ("wikitext2", "train"): 10.8e6,
    ("ptb", "validation"): 0.40e6,
    ("ptb", "train"): 5.1e6,
}
"""Of the texts of the papers; others are taken as OTHER_CHARACTERS."""
OTHER_CHARACTERS = 1.0e6
INSTRUCTION_RECORDS = {"alpaca": 51_760, "lamini": 2_585_615}
SUITE_TOKENS = {
    "zeroshot/7": 2.7e6,
    "zeroshot/pat14": 11e6,
    "generation/5": 15e6,
    "generation/pat14": 6e6,
}
"""Tokens of all passes. zeroshot/7: its characters / 4, common beginnings once; the others are
guesses by item counts, of generated answers with the prompts and their new tokens."""
SUITE_ITEMS = {
    "zeroshot/7": 20_465,
    "zeroshot/pat14": 43_000,
    "generation/5": 33_000,
    "generation/pat14": 39_700,
}
SUITE_TASKS = {"zeroshot/7": 7, "zeroshot/pat14": 14, "generation/5": 5, "generation/pat14": 14}


@dataclass(frozen=True)
class Assumptions:
    """What the shapes do not tell.

    machine         what the jobs run on
    example_tokens  mean tokens of a tuning example
    """

    machine: Machine = field(default_factory=gpu)
    example_tokens: int = 150


@dataclass(frozen=True)
class Stage:
    """One job, or a part of it.

    memory_bytes   of its tensors, at their peak
    operations     of plain passes
    tuning         operations of LoRA tuning, which is slower
    traffic_bytes  read and written
    steps          tokens that are decoded one by one: launches without much arithmetic
    """

    memory_bytes: float
    operations: float = 0.0
    tuning: float = 0.0
    traffic_bytes: float = 0.0
    steps: float = 0.0

    def seconds(self, machine: Machine) -> float:
        """Wall time of the job, with nothing beside it."""
        operations = self.operations + self.tuning / machine.tuning_share
        arithmetic_s = operations / (machine.tflops * 1e12)
        traffic_s = self.traffic_bytes / machine.disk_bytes_per_s
        return machine.start_s + arithmetic_s + traffic_s + self.steps * machine.decode_step_s

    def peak_bytes(self, machine: Machine) -> float:
        """Peak memory of the device; on a processor, of the process."""
        return self.memory_bytes + machine.process_bytes


def load_and_save(sizes: Sizes, kept: float) -> Stage:
    """Weights are read, at most looked at one by one, and what is kept of them is saved."""
    memory = sizes.weight_bytes + REDUCED_BYTES * sizes.largest
    return Stage(memory, traffic_bytes=(1 + kept) * sizes.weight_bytes)


def passes(
    sizes: Sizes, tokens: float, forward: float, backward: float, *, frozen: bool = False
) -> Stage:
    """Forward and backward passes over `tokens`; gradients are reduced as they come.

    Memory: weights, and for a backward pass tokens (2 b outputs + 12 vocabulary) + 12 largest
    weight; forward passes are taken a few samples at a time. Operations: 2 active parameters per
    token forward, and 4 backward (2 where weights are frozen).
    """
    memory = float(sizes.weight_bytes)
    if backward:
        memory += tokens * (2 * sizes.dtype_bytes * sizes.outputs + 12 * sizes.vocabulary)
        memory += REDUCED_BYTES * sizes.largest
    each = 2.0 * forward + (2.0 if frozen else 4.0) * backward
    return Stage(memory, operations=each * sizes.active * tokens)


def after(first: Stage, second: Stage) -> Stage:
    """Two parts of one job, one after the other."""
    return Stage(
        max(first.memory_bytes, second.memory_bytes),
        operations=first.operations + second.operations,
        tuning=first.tuning + second.tuning,
        traffic_bytes=first.traffic_bytes + second.traffic_bytes,
        steps=first.steps + second.steps,
    )


def recover(
    sizes: Sizes, settings: RecoverySettings, lora: int, tokens: float, kept: float
) -> Stage:
    """LoRA on a model of which the share `kept` is left.

    Memory: weights + 16 LoRA parameters + micro-batch tokens (5 inputs + 2 b outputs +
    14 vocabulary). Operations: 4 active parameters + 6 LoRA parameters per token, padding included
    (frozen weights have no gradients).
    """
    at_once = settings.micro_batch * settings.length
    kept_outputs = 2 * sizes.dtype_bytes * sizes.outputs
    activations = at_once * (5 * sizes.inputs + kept_outputs + 14 * sizes.vocabulary)
    weights = kept * sizes.weight_bytes
    return Stage(
        weights + TRAINED_BYTES * lora + activations,
        tuning=padded(settings.micro_batch) * tokens * (4.0 * kept * sizes.active + 6.0 * lora),
        traffic_bytes=2 * weights,
    )


def padded(at_once: int) -> float:
    """Tokens with padding / tokens of examples: 1 for single sequences, 1.36 for four at once."""
    return 1.0 + PADDING_OF_TWO * math.log2(at_once)


def recovery_tokens(
    recovery: Recovery, settings: RecoverySettings, assumptions: Assumptions
) -> float:
    """Tokens of a tuning: its budget, or its epochs times the size of its data.

    Raises Unsupported where the size of the data is not known.
    """
    if settings.tokens is not None:
        return float(settings.tokens)
    assert settings.epochs is not None  # checked with the settings: epochs or tokens
    if recovery.instructions is None:
        characters = sum(
            CORPUS_CHARACTERS.get((corpus, "train"), OTHER_CHARACTERS) for corpus in recovery.text
        )
        return settings.epochs * characters / CHARACTERS_PER_TOKEN
    records = INSTRUCTION_RECORDS.get(recovery.instructions)
    if records is None:
        raise Unsupported(
            f"how many records {recovery.instructions!r} has is not known; give a token budget"
        )
    return settings.epochs * records * min(assumptions.example_tokens, settings.length)


def evaluate(
    sizes: Sizes,
    protocols: Sequence[Protocol],
    suites: Sequence[SuiteRun],
    kept: float,
) -> Stage:
    """Perplexities, and suites of tasks. Memory is that of the perplexities.

    Memory: weights + 4096 tokens (2 b outputs of one block) + the logits that are
    made at once. Operations: 2 active parameters per token.
    """
    at_once = max([TOKENS_PER_BATCH, *(p.length for p in protocols)])
    block = 2 * sizes.outputs / sizes.layers
    tokens = sum(_corpus_tokens(p) for p in protocols) + sum(map(_suite_tokens, suites))
    weights = kept * sizes.weight_bytes
    logits = min(LOGITS_AT_ONCE, at_once * sizes.vocabulary) * sizes.dtype_bytes
    return Stage(
        weights + at_once * sizes.dtype_bytes * block + logits,
        operations=2.0 * kept * sizes.active * tokens,
        traffic_bytes=weights,
    )


def profile(sizes: Sizes, settings: Profile, kept: Sequence[float]) -> Stage:
    """All models of a row at once, the dense one among them; `kept` of each.

    Memory: weights of all + the largest point's cache and one block's activations.
    """
    points = settings.points
    rounds = settings.repeats + settings.warmup
    block = 2 * sizes.outputs / sizes.layers
    values = max(p.batch * ((p.prompt + p.new) * sizes.cache + p.prompt * block) for p in points)
    work = sizes.dtype_bytes * values
    weights = sum(kept) * sizes.weight_bytes
    tokens = sum(p.batch * (p.prompt + p.new) for p in points)
    return Stage(
        weights + work,
        operations=2.0 * sum(kept) * sizes.active * tokens * rounds,
        traffic_bytes=weights,
        steps=rounds * len(kept) * sum(p.new for p in points),
    )


def _corpus_tokens(protocol: Protocol) -> float:
    if protocol.limit is not None:
        return protocol.limit * protocol.length
    place = protocol.corpus, protocol.split
    return CORPUS_CHARACTERS.get(place, OTHER_CHARACTERS) / CHARACTERS_PER_TOKEN


def _suite_tokens(run: SuiteRun) -> float:
    suite, limit = run.suite, run.limit
    tokens = SUITE_TOKENS.get(suite, 0.0)
    if limit is None or not tokens:
        return tokens
    return tokens * min(1.0, limit * SUITE_TASKS[suite] / SUITE_ITEMS[suite])
