"""The form of a record: the results of one cell, as typed parts. Imports nothing heavy.

A part that could not be had is `Lost`, with its reason, never 0 and never absent without a word.
`prunebench schema record` prints the JSON schema that follows from this.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, Tag, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from prunebench.files import stays_inside
from prunebench.record.decided import MaybeDecision
from prunebench.record.measured import (
    CostPart,
    MaybeStep,
    Perplexity,
    ProfilePart,
    SuitePart,
    TextsPart,
)
from prunebench.record.parts import (
    EITHER,
    Amount,
    Bos,
    Closed,
    Count,
    Lost,
    RecordPart,
    Removed,
    Share,
    Size,
    Text,
)
from prunebench.untyped import Json

SCHEMA_VERSION = 1
CREATED = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|\+00:00)$"
MEASURED = ("model", "sparsity", "verify", "export", "perplexity", "zeroshot", "profile", "cost")
"""What a cell with status ok must have."""


class CellOf(Closed):
    """Which cell of which campaign a record is of."""

    campaign: Text = Field(description="Name of the campaign.")
    model: Text = Field(description="Name of the model in the campaign.")
    label: Text = Field(description="Name of the row; a method may have several.")
    method: Text = Field(description="Name of the plugin.")
    params: dict[str, JsonValue] = Field(
        description="Parameters given to the method; their keys are the method's own."
    )
    sparsity: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Target share of parameters that is removed; 0 means nothing is pruned."
    )
    sparsity_of: Literal["model", "decoder"] = Field(
        "model", description="What it is a share of: all parameters, or the decoder blocks'."
    )
    seed: int = Field(description="Seed of the cell.")
    recovery: bool = Field(description="Whether the suite tunes the model after pruning.")
    step: bool = Field(False, description="Whether one step of the method is all it measures.")
    matched: str | None = Field(
        None, description="Row whose numbers of kept units this one takes; null: none."
    )


class Imported(RecordPart):
    """The GGUF file that the model's weights were imported from."""

    file: Text = Field(description="Its name.")
    sha256: Text = Field(description="Its digest.")
    architecture: str = Field(description="Its architecture, under llama.cpp's name.")
    name: str | None = Field(None, description="The model's name in the file.")
    quantisation: dict[str, Size] = Field(
        description="Number of tensors of each type; the weights hold what these types had left."
    )
    general: dict[str, str] | None = Field(
        None, description="Licence, source and the like, under the file's keys `general.<key>`."
    )


class ModelFacts(RecordPart):
    """The model that was measured."""

    family: str | None = Field(description="Architecture family.")
    kind: str = Field(description="Where it comes from (hub, local, random, demo).")
    source: str | None = Field(description="Hub id or folder.")
    revision: str | None = Field(None, description="Commit on the hub; null elsewhere.")
    parameters_dense: Size = Field(description="Number of parameters before pruning.")
    parameters: Size = Field(description="Number of parameters after pruning.")
    weights_sha256: str | None = Field(None, description="Digest of the weights.")
    original_weights_sha256: str | None = Field(
        None, description="Digest of the weights before pruning."
    )
    original_files_sha256: str | None = Field(
        None, description="Digest of configuration, tokenizer and code of the original."
    )
    imported: Imported | None = Field(
        None, description="The GGUF file that the original was imported from; null: none."
    )


class Sparsity(Closed):
    """What share was asked for and what share was removed."""

    target: Share = Field(description="Share of parameters to remove.")
    achieved: Removed | None = Field(
        description="Share of all parameters removed; negative where a method added more."
    )
    decoder_achieved: Removed | None = Field(
        None, description="Share of the decoder blocks' parameters removed."
    )
    native_ratio: float | None = Field(
        None, description="The method's own nominal ratio that led to this."
    )
    native: bool | None = Field(
        None, description="Whether the method ran at its paper's own setting instead of the target."
    )
    multiple_of: dict[str, Size] | None = Field(
        None, description="Numbers that kept units are a multiple of, by kind; null: none."
    )
    within_tolerance: bool | None = Field(
        None, description="Whether achieved is as near to the target as the campaign asks."
    )
    note: str | None = Field(None, description="What a reader should know about it.")


class Kept(Closed):
    """How many units a structure had and how many of them are kept."""

    kind: str = Field(description="heads, neurons, hidden or layers.")
    layer: Count | None = Field(description="Decoder layer; null for what spans all.")
    units: Size = Field(description="Units before pruning.")
    kept: Size = Field(description="Units after pruning.")


class Verify(Closed):
    """The proof that the cut model computes what the masked one does."""

    status: Literal["ok"] = Field("ok", description="ok when the check was done.")
    reason: None = Field(None, description="Null when the check was done.")
    max_abs_logit_difference: Amount = Field(
        description="Largest difference of a logit between masked and sliced model."
    )
    tolerance: Amount = Field(description="Largest difference that passes.")
    arithmetic: str | None = Field(
        None,
        description="In what it was computed; float64 where float32's rounding was too coarse.",
    )
    passed: bool = Field(description="Whether the difference is within the tolerance.")
    read_back: Amount | None = Field(
        None,
        description="Largest difference of a logit between the model in memory and its saved "
        "folder, loaded again; null where none is saved.",
    )


def _inside(path: str) -> str:
    if not stays_inside(path):
        raise ValueError("expected a path beside the record")
    return path


Inside = Annotated[str, AfterValidator(_inside)]


class ExportPart(RecordPart):
    """The saved model."""

    status: Literal["ok"] = Field("ok", description="ok when the model was saved.")
    loadable_by: Literal["transformers", "prunebench"] = Field(
        description="transformers (stock from_pretrained) or prunebench (models.folders.load)."
    )
    path: Inside | None = Field(None, description="Folder of the model beside the record.")


class LeakOfSet(RecordPart):
    """Overlap of one evaluation set with calibration or tuning text."""

    share: Share | None = Field(description="Share of contaminated items.")
    same_corpus: bool | None = Field(
        None, description="Whether the method was given text of the same corpus."
    )
    reason: str | None = Field(None, description="Why there is no share.")


class Leak(RecordPart):
    """Overlap of calibration and tuning text with evaluation text."""

    status: Literal["ok"] = Field("ok", description="ok when the check was done.")
    n: Count | None = Field(None, description="Words in a row that count as an overlap.")
    sets: dict[str, LeakOfSet] = Field(
        default_factory=dict, description="One entry per evaluation set, under its name."
    )


class TunedOn(RecordPart):
    """What the model was tuned on, and how that went."""

    instructions: str = Field(
        description="Name of the instruction data, or of the corpora tuned on as plain text."
    )
    by: Literal["suite", "method"] = Field(description="After pruning, or by the method itself.")
    tuning_tokens: Count | None = Field(None, description="Tokens that were trained on.")
    steps: Count | None = Field(None, description="Steps of the optimizer.")
    loss: list[Annotated[list[int | float], Field(min_length=2, max_length=2)]] | None = Field(
        None, description="The curve: step, mean loss of the steps since the point before."
    )
    data: Json | None = Field(None, description="Examples, and how many were cut.")


class Drawn(RecordPart):
    """A calibration sample that the method drew."""

    corpus: list[str] = Field(description="Names of the corpora.")
    split: str = Field(description="Their split.")
    samples: Count | None = Field(description="Number of windows.")
    length: Count | None = Field(description="Tokens of a window.")
    seed: int = Field(description="What drew them.")
    bos: Bos = Field(description="Where BOS stood: once before the text, before every window, or "
                     "nowhere.")  # fmt: skip
    data_sha256: str | None = Field(None, description="Digest of the text.")
    warning: str | None = Field(None, description="What a reader should know about it.")


class Provenance(RecordPart):
    """Where, when and with what this was measured."""

    created: Annotated[str, Field(pattern=CREATED)] = Field(
        description="Time in UTC, ISO 8601, to the second."
    )
    prunebench_version: str = Field(description="Version of this library.")
    git_commit: str | None = Field(None, description="Commit of the checkout; null outside one.")
    git_dirty: bool | None = Field(
        None, description="Whether the checkout had uncommitted changes; null outside one."
    )
    python: str = Field(description="Version of Python.")
    platform: str | None = Field(None, description="Operating system and machine type.")
    packages: dict[str, str | None] = Field(
        description="Versions of the packages that matter; null for one that is not installed."
    )
    device: str | None = Field(description="The device that did the work.")
    plugin_sha256: str | None = Field(None, description="Digest of the method's folder.")
    data_sha256: dict[str, str | None] | None = Field(
        None, description="Digests of the data files that were read; of hub data the commits."
    )


class Record(Closed):
    """The results of one cell (model x row x sparsity x seed) of a campaign."""

    schema_version: Literal[1] = Field(1, description="A reader refuses every other version.")
    status: Literal["ok", "failed", "skipped"] = Field(
        description="Measured, or tried and gone wrong, or not to be had by design."
    )
    reason: str | None = Field(
        description="Why the cell failed or was skipped; null when it is ok."
    )
    log: str | None = Field(
        None,
        description="What the job that failed printed, from the campaign's folder on; null where "
        "none did, or it was not kept.",
    )
    cell: CellOf = Field(description="Which cell of which campaign this is.")
    model: ModelFacts | None = Field(None, description="The model that was measured.")
    sparsity: Sparsity | None = Field(None, description="What share was asked for and removed.")
    decision: dict[str, Kept] | None = Field(
        None, description="Units of each structure, and how many are kept, under its name."
    )
    decision_file: MaybeDecision | None = Field(
        None, description="The decision as a file beside the record; null in older records."
    )
    verify: (
        Annotated[Annotated[Verify, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
    ) = Field(None, description="The proof that the cut model computes what the masked one does.")
    export: (
        Annotated[Annotated[ExportPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="The saved model.")
    perplexity: (
        Annotated[
            Annotated[
                dict[
                    str,
                    Annotated[
                        Annotated[Perplexity, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")],
                        EITHER,
                    ],
                ],
                Tag("<there>"),
            ]
            | Annotated[Lost, Tag("<Lost>")],
            EITHER,
        ]
        | None
    ) = Field(None, description="One entry per perplexity protocol, under the protocol's key.")
    zeroshot: (
        Annotated[Annotated[SuitePart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="Zero-shot accuracy of a suite of tasks.")
    generation: (
        Annotated[Annotated[SuitePart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="A suite of tasks whose answers are generated; null: none.")
    texts: (
        Annotated[Annotated[TextsPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="A fixed set of prompts, continued; null: none.")
    profile: (
        Annotated[Annotated[ProfilePart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="Size, latency and memory of the model.")
    cost: (
        Annotated[Annotated[CostPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER]
        | None
    ) = Field(None, description="What it cost to make the model.")
    step: MaybeStep = Field(None, description="One step of a method, measured by itself.")
    leak: (
        Annotated[Annotated[Leak, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER] | None
    ) = Field(None, description="Overlap of calibration and tuning text with evaluation text.")
    tuning: TunedOn | None = Field(None, description="What it was tuned on; null: not tuned.")
    calibration: list[Drawn] | None = Field(
        None, description="The calibration samples that the method drew, in order."
    )
    method_notes: dict[str, JsonValue] | None = Field(
        None,
        description="What the method noted about itself, under keys of its own. {plot: heatmap, "
        "title, rows, columns, values} and {plot: line, title, x_label, y_label, series} are drawn",
    )
    notes: list[str] | None = Field(None, description="Sentences for the reader.")
    chain: dict[str, str] | None = Field(
        None,
        description="Products of the results that this record is made of, under their names; null "
        "in records of versions that kept none: what they rest on cannot be checked.",
    )
    provenance: Provenance = Field(description="Where, when and with what it was measured.")

    @model_validator(mode="after")
    def _is_whole(self) -> Record:
        """An ok cell has all parts and no reason; any other has a reason."""
        found: list[InitErrorDetails] = []
        if self.status == "ok":
            for name in MEASURED:
                if getattr(self, name) is None:
                    there = name in self.model_fields_set
                    kind = "model_type" if there else "missing"
                    context = {"class_name": name} if there else {}
                    found.append({"type": kind, "loc": (name,), "input": None, "ctx": context})
            if self.reason is not None:
                found.append({"type": "none_required", "loc": ("reason",), "input": self.reason})
        elif self.reason is None:
            found.append({"type": "string_type", "loc": ("reason",), "input": None})
        elif not self.reason:
            limits: dict[str, object] = {"min_length": 1}
            found.append(
                {"type": "string_too_short", "loc": ("reason",), "input": "", "ctx": limits}
            )
        if found:
            raise ValidationError.from_exception_data("Record", found)
        return self
