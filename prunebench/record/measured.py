"""What is measured of a model, as its record has it: perplexity, accuracy, size, speed, cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, Tag

from prunebench.record.parts import (
    EITHER,
    Amount,
    Bos,
    Closed,
    Count,
    Lost,
    RecordPart,
    Share,
    Size,
)


class Perplexity(Closed):
    """One perplexity under one protocol."""

    status: Literal["ok"] = Field(description="ok when it was measured.")
    reason: None = Field(None, description="Null when it was measured.")
    value: Annotated[float, Field(gt=0)] | None = Field(
        description="exp of the mean loss of a token; null where that is too large for a float."
    )
    nll: Amount | None = Field(None, description="Mean loss of a token in nats.")
    nll_stderr: Amount | None = Field(None, description="Its standard error over windows.")
    tokens: Size = Field(description="Number of predicted tokens.")
    items: Count | None = Field(None, description="Number of windows or documents.")
    mode: Literal["windows", "documents"] = Field(
        "windows", description="One stream of text cut into windows, or each document by itself."
    )
    corpus: str = Field(description="Name of the corpus.")
    split: str = Field(description="Split of the corpus.")
    length: Size = Field(description="Length of a window in tokens.")
    limit: int | None = Field(
        description="Windows or documents that the run was limited to; null for the whole text."
    )
    data_sha256: str | None = Field(None, description="Digest of the text.")
    bos: Bos = Field("text", description="Where BOS stood: once before the text, before every "
                     "window, or nowhere.")  # fmt: skip
    truncated: Count | None = Field(
        None, description="Documents that were longer than that; null for windows."
    )
    batch_size: Count | None = Field(None, description="Windows or documents that ran at once.")
    attention: str | None = Field(None, description="Attention implementation of the model.")
    dtype: str | None = Field(None, description="Type of its weights.")
    device: str | None = Field(None, description="Device if not the provenance's.")
    tokens_per_s: Amount | None = Field(None, description="Speed of the evaluation.")
    wall_s: Amount | None = Field(None, description="Duration of the evaluation.")


class Difference(RecordPart):
    """A difference from another cell, paired item by item."""

    difference: float | None = Field(description="This minus the other.")
    low: float | None = Field(description="Lower end of its 95 % interval.")
    high: float | None = Field(description="Upper end of its 95 % interval.")
    mcnemar_p: Share | None = Field(None, description="p of McNemar's test.")


MaybeDifference = (
    Annotated[Annotated[Difference, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
)


class FewShot(RecordPart):
    """Where the examples before each question come from."""

    split: str | None = Field(description="Split; null for examples in the task's definition.")
    seed: int = Field(description="What drew them, where the task draws them.")


class AnswerSample(RecordPart):
    """One question, and what the model answered."""

    prompt: str = Field(description="End of the prompt.")
    target: str = Field(description="The right answer.")
    answer: str = Field(description="The beginning of the model's answer; it may be empty.")


class Generated(RecordPart):
    """What the answers to a task look like that the model writes itself, greedily."""

    max_new_tokens: Size = Field(description="Tokens after which an answer is cut.")
    stop: list[str] = Field(description="Texts that end an answer, besides the end of text.")
    tokens: Amount = Field(description="Mean length of an answer in tokens.")
    empty: Share = Field(description="Share of answers without a visible character.")
    repeating: Share = Field(
        description="Share of answers of which more than half of the sequences of four tokens "
        "stand in them before."
    )
    at_limit: Share = Field(description="Share of answers that were cut at max_new_tokens.")
    samples: list[AnswerSample] = Field(description="The first items.")


class TaskPart(RecordPart):
    """Accuracy on one task."""

    status: Literal["ok"] = Field(description="ok when the task was run.")
    reason: None = Field(None, description="Null when the task was run.")
    metric: str = Field(description="Name of the metric that value is (acc, exact_match, ...).")
    filter: str | None = Field(
        None, description="The harness's filter by which an answer is found; null: there is one."
    )
    value: Share = Field(description="The figure that counts.")
    stderr: Amount | None = Field(None, description="Its standard error over items.")
    acc: Share | None = Field(None, description="Accuracy.")
    acc_norm: Share | None = Field(None, description="Length-normalised accuracy.")
    items: Size = Field(description="Number of items.")
    truncated: Count | None = Field(
        None,
        description="Items of which the harness cut the beginning because they did not fit.",
    )
    chance: Share | None = Field(None, description="Accuracy of guessing.")
    majority: Share | None = Field(
        None, description="Accuracy of always giving the most frequent right answer (its position)."
    )
    shots: Count = Field(0, description="Examples before each question.")
    fewshot: FewShot | None = Field(None, description="Where they are from; null without any.")
    chat: bool = Field(False, description="Whether prompts went through the chat template.")
    prompt: str | None = Field(
        None, description="The first item's prompt, where there are examples or generated answers."
    )
    generated: Generated | None = Field(
        None, description="What the answers look like; null where none is generated."
    )
    version: JsonValue = Field(None, description="The harness's version of the task.")
    hash: str | None = Field(None, description="Digest of the prompts.")
    versus_dense: MaybeDifference = Field(None, description="Difference from dense.")
    versus_reference: MaybeDifference = Field(
        None, description="Difference from the campaign's reference row."
    )


class HarnessPart(RecordPart):
    """The program that scored."""

    name: str = Field(description="Name of the harness.")
    version: str = Field(description="Version of the harness.")


class SuitePart(Closed):
    """Figures of a suite of tasks: choices between given answers, or answers that are generated."""

    status: Literal["ok"] = Field(description="ok when the suite was run.")
    reason: str | None = Field(None, description="Null when the suite was run.")
    suite: str = Field(description="Key of the suite.")
    limit: int | None = Field(
        description="Items per task that the run was limited to; null for all of them."
    )
    mean: Share | None = Field(description="Plain mean over the tasks; null if one is missing.")
    mean_stderr: Amount | None = Field(None, description="Its standard error over items.")
    mean_chance: Share | None = Field(None, description="Mean chance level.")
    mean_above_chance: float | None = Field(None, description="Mean minus chance level.")
    device: str | None = Field(None, description="Device if not the provenance's.")
    wall_s: Amount | None = Field(None, description="Duration of the evaluation.")
    bos: bool | None = Field(None, description="Whether prompts began with the tokenizer's BOS.")
    batch_size: list[int] | None = Field(
        None, description="Requests that ran at once; several where the harness changed it."
    )
    scoring: Literal["shared", "plain"] = Field(
        "plain", description="Whether common beginnings of requests were computed once."
    )
    plain_because: str | None = Field(None, description="Why they were not.")
    attention: str | None = Field(None, description="Attention implementation of the model.")
    dtype: str | None = Field(None, description="Type of its weights.")
    items_file: str | None = Field(None, description="File with the outcome of each item.")
    versus_dense: MaybeDifference = Field(None, description="The mean's difference from dense.")
    versus_reference: MaybeDifference = Field(
        None, description="The mean's difference from the campaign's reference row."
    )
    harness: HarnessPart = Field(description="What scored it, with its version.")
    tasks: dict[
        str,
        Annotated[Annotated[TaskPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER],
    ] = Field(description="One entry per task, under the task's name.")


class Continuation(RecordPart):
    """A prompt, and how the model goes on."""

    prompt: str = Field(description="What was given.")
    text: str = Field(description="What the model wrote.")
    ended: bool = Field(description="Whether it ended the text by itself.")
    repeating: bool = Field(
        description="Whether more than half of its sequences of four tokens stand in it before."
    )


class TextsPart(Closed):
    """A fixed set of prompts, continued greedily."""

    status: Literal["ok"] = Field("ok", description="ok when they were continued.")
    tokens: Size = Field(description="Most tokens that were added.")
    texts: list[Continuation] = Field(description="One for each prompt, in their order.")


class Quartiles(RecordPart):
    """A repeated timing."""

    median: Amount = Field(description="Median.")
    q25: Amount | None = Field(None, description="First quartile.")
    q75: Amount | None = Field(None, description="Third quartile.")
    n: Count | None = Field(None, description="Number of repeats.")


class Speedup(RecordPart):
    """A speed-up over dense; above 1 is faster."""

    ratio: Amount | None = Field(description="Dense time over this time.")
    low: Amount | None = Field(None, description="Lower end of its 95 % interval.")
    high: Amount | None = Field(None, description="Upper end of its 95 % interval.")
    limit: Amount | None = Field(
        None,
        description="Ratio of MACs (prefill) or of bytes read (decode): no faster is possible.",
    )
    share_of_limit: Amount | None = Field(None, description="ratio / limit.")


MaybeSpeedup = (
    Annotated[Annotated[Speedup, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
)


class PointPart(RecordPart):
    """What was measured at one named point (batch, prompt length, new tokens)."""

    name: str = Field(description="Name of the point.")
    status: str = Field("ok", description="Missing or ok unless the point failed.")
    reason: str | None = Field(None, description="Why the point is missing.")
    batch: Size = Field(description="Sequences at once.")
    prompt: Size = Field(description="Tokens of the prompt.")
    new: Count | None = Field(description="Tokens that are generated.")
    prefill_ms: Quartiles | None = Field(None, description="Time of the prompt.")
    decode_ms_per_token: Quartiles | None = Field(None, description="Time of a new token.")
    peak_allocated_mib: Amount | None = Field(None, description="Peak memory.")
    kv_cache_mib: Amount | None = Field(None, description="Memory of the KV cache.")
    prefill_speedup: MaybeSpeedup = Field(None, description="Prefill against dense.")
    decode_speedup: MaybeSpeedup = Field(None, description="Decode against dense.")
    missing: dict[str, str] = Field(
        default_factory=dict, description="Figures that could not be had, with their reasons."
    )

    @property
    def lost(self) -> bool:
        """Whether nothing was measured there."""
        return self.status in ("failed", "skipped")


class ProfilePart(RecordPart):
    """Size, latency and memory of the model."""

    status: Literal["ok"] = Field(description="ok when it was measured.")
    device: str = Field(description="The device and its threads.")
    series: str | None = Field(
        None, description="Rows of one series were timed in turns with each other, not only dense."
    )
    shared_device: bool | None = Field(
        None, description="Whether another process used the device meanwhile; marks the row."
    )
    parameters: Count | None = Field(None, description="Number of parameters.")
    decoder_parameters: Count | None = Field(None, description="Those in decoder blocks.")
    embedding_parameters: Count | None = Field(None, description="Those in embeddings and head.")
    aligned_to: Count | None = Field(
        None, description="Largest number that divides all widths of the decoder's matrices."
    )
    weights_mib: Amount | None = Field(None, description="Memory of the weights.")
    disk_mib: Amount | None = Field(None, description="Size of the saved weights.")
    attention: str | None = Field(None, description="Attention implementation of the model.")
    dtype: str | None = Field(None, description="Type of its weights.")
    macs: Annotated[int | float, Field(ge=0)] | None = Field(
        None, description="Multiply-accumulates of one forward pass of `macs_length` tokens."
    )
    macs_length: Count | None = Field(None, description="Its length in tokens (batch 1).")
    points: list[PointPart] = Field(description="One entry per named point.")


class StepPart(RecordPart):
    """One step of a method, measured by itself."""

    status: Literal["ok"] = Field(description="ok when it was measured.")
    micro_batches: Size = Field(description="Sequences in a step.")
    length: Size = Field(description="Tokens of a sequence.")
    tokens: Size = Field(description="Tokens of a step.")
    device: str = Field(description="The device and its threads.")
    attention: str | None = Field(None, description="Attention implementation of the model.")
    dtype: str | None = Field(None, description="Type of its weights.")
    step_ms: Quartiles = Field(description="Time of a step.")
    tokens_per_s: Amount = Field(description="Tokens over the median time.")
    macs: Annotated[int | float, Field(ge=0)] | None = Field(
        description="Multiply-accumulates of a step."
    )
    held_mib: Amount = Field(description="Memory of what lies there between steps.")
    floor_mib: Amount = Field(description="The least that a step must keep at once.")
    peak_allocated_mib: Amount = Field(description="Peak memory of a step.")
    peak_reserved_mib: Amount | None = Field(
        None, description="The same, with what the allocator held in reserve."
    )


MaybeStep = (
    Annotated[Annotated[StepPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
)


class JobCost(RecordPart):
    """What one job used."""

    status: Literal["ok"] = Field("ok", description="ok when it was measured.")
    wall_s: Amount | None = Field(description="Duration of the job's work.")
    cpu_s: Amount | None = Field(None, description="Processor time of all its threads.")
    attention: str | None = Field(None, description="Attention implementation of the model.")
    dtype: str | None = Field(None, description="Type of its weights.")
    forward_tokens: Count | None = Field(None, description="Tokens through the forward pass.")
    backward_tokens: Count | None = Field(None, description="Tokens through the backward pass.")
    peak_device_mib: Amount | None = Field(None, description="Peak device memory; null on the CPU.")
    peak_device_reserved_mib: Amount | None = Field(
        None, description="The same, with what the allocator held in reserve."
    )
    peak_host_mib: Amount | None = Field(None, description="Peak host memory.")
    energy_j: Amount | None = Field(
        None, description="Energy of the whole device; null where no driver gives it."
    )


MaybeJobCost = (
    Annotated[Annotated[JobCost, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
)


class CostPart(Closed):
    """What it cost to make the model."""

    status: Literal["ok"] = Field("ok", description="ok when the cost was measured.")
    prune: MaybeJobCost = Field(description="The pruning job.")
    recover: MaybeJobCost = Field(
        None, description="The recovery job; null when the cell has none."
    )
