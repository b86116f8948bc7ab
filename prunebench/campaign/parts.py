"""The parts of a campaign file, as they are written there: types, defaults, descriptions.

`prunebench schema` prints the JSON schema that follows from them. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Strict,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1)]
Natural = Annotated[int, Strict(), Field(ge=0)]
Length = Annotated[int, Strict(), Field(ge=2)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32)]  # numpy's generators take no more
Number = Annotated[float, Strict()]
Name = Annotated[str, Strict(), Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Split = Literal["train", "validation", "test"]
SparsityOf = Literal["model", "decoder"]
Bos = Literal["auto", "text", "window", "none"]
BOS = (
    "Where the tokenizer's BOS token stands. text: once, before the whole text; window: before "
    "every window; none: nowhere; auto: window for families that rely on it (Gemma), else text, as "
    "in the papers."
)


PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a little girl who",
    "Water boils when",
    "The most important thing to know about money is",
    "def is_even(number):\n",
)


def _listed(value: object) -> object:
    """A list as a tuple, and a single name as a list of one; anything else is for the type."""
    return tuple(value) if isinstance(value, list) else value


def _unique(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < len(values):
        found = {"values": list(values)}
        raise PydanticCustomError("twice", "{values} has non-unique elements", found)
    return values


def _exact(value: float) -> float:
    """Cells are named by the first six digits: two that differ later would be one."""
    if float(f"{value:g}") != value:
        raise PydanticCustomError(
            "digits", "{value} has more than six digits; write {short}",
            {"value": value, "short": f"{value:g}"},
        )  # fmt: skip
    return value


Fraction = Annotated[float, Strict(), Field(gt=0, lt=1), AfterValidator(_exact)]


def _one_or_several(value: object) -> object:
    return (value,) if isinstance(value, str) else _listed(value)


Corpora = Annotated[
    tuple[Text, ...],
    BeforeValidator(_one_or_several, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
Listed = BeforeValidator(_listed)
Sparsities = Annotated[tuple[Fraction, ...], Listed, Field(min_length=1), AfterValidator(_unique)]
Seeds = Annotated[tuple[Seed, ...], Listed, Field(min_length=1), AfterValidator(_unique)]


class Part(BaseModel):
    """A part of a campaign file or of a job's input: no key beside those that are described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_its_keys(cls, value: object) -> object:
        """Name keys that are missing or unknown as keys of this part, with those that it has."""
        if not isinstance(value, dict):
            return value
        if unknown := sorted(str(key) for key in value if key not in cls.model_fields):
            known = ", ".join(sorted(cls.model_fields))
            found = {"unknown": ", ".join(map(repr, unknown)), "known": known}
            raise PydanticCustomError("key", "unknown key {unknown}; known: {known}", found)
        for name, field in cls.model_fields.items():
            if field.is_required() and name not in value:
                raise PydanticCustomError("key", "'{name}' is a required property", {"name": name})
        return value


class ModelEntry(Part):
    """A model to prune. Which of path, id and shape it needs follows from its kind."""

    name: Name = Field(description="Name in tables and paths.")
    kind: Literal["demo", "local", "hub", "random"] = Field(
        description="demo: trained by the suite; local: a folder; hub: a hub id; random: a named "
        "shape with random weights."
    )
    path: Text | None = Field(
        None, description="local: a folder, absolute or below $PRUNEBENCH_MODELS."
    )
    id: Text | None = Field(None, description="hub: the model's id.")
    shape: Text | None = Field(
        None, description="random: name of a shape in models/shapes.yaml, such as llama-7b."
    )
    overrides: dict[str, JsonValue] | None = Field(
        None, description="random: keys of the configuration with other values."
    )
    revision: Text | None = Field(
        None, description="hub: commit hash, or a name that becomes one; recorded."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 on a GPU."
    )
    trust_remote_code: Flag = Field(
        False, description="Run code from the checkpoint. Off unless named here."
    )


class DataEntry(Part):
    """Where corpora, instructions and tasks come from."""

    source: Literal["demo", "local", "hub", "random"] = Field(
        description="demo: the embedded world; local: a folder; hub: the Hugging Face hub; random: "
        "random letters, for random weights."
    )
    root: Text | None = Field(None, description="local: the folder; default $PRUNEBENCH_DATA.")


class Multiples(Part):
    """Kept units are a multiple of this number, by kind."""

    heads: Count | None = None
    neurons: Count | None = None
    hidden: Count | None = None

    def given(self) -> dict[str, int]:
        """Those that are set."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


SIZES: Mapping[str, Mapping[str, int]] = {
    "gpu": {"neurons": 64, "hidden": 64},
    "nvidia": {"neurons": 512, "hidden": 256},
    "deci": {"neurons": 256},
    "ggml": {"neurons": 32, "hidden": 32},
}
"""Multiples by name. Heads are whole everywhere: their unit is a KV group."""


def _preset(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in SIZES:
        known = ", ".join(SIZES)
        found = {"value": repr(value), "known": known}
        raise PydanticCustomError("preset", "unknown preset {value}; known: {known}", found)
    return dict(SIZES[value])


Aligned = Annotated[
    Multiples,
    BeforeValidator(
        _preset, json_schema_input_type=Literal["gpu", "nvidia", "deci", "ggml"] | Multiples
    ),
]
ALIGNED = (
    "Kept units are a multiple of a number, by kind, in every scope: {neurons: 64}; or a preset. "
    "gpu: neurons and width x64; nvidia: width x256, neurons x512; deci: neurons x256, for engines "
    "that round them so; ggml: neurons and width x32, so that rows fit q8_0 and q4_0. Heads are "
    "always whole."
)


class MethodEntry(Part):
    """A row of the table, or two of them: a method with its parameters."""

    name: Text = Field(description="Folder name below methods/ or baselines/.")
    label: Name | None = Field(None, description="The row's label; default the name.")
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Parameters of the method; see its method.yaml."
    )
    matched: Text | None = Field(
        None,
        description="Label of another row (without +lora): as many units of each structure are "
        "kept as there, for the same model, sparsity and seed, and the method only chooses which. "
        "Default label: <name>_matched-<row>.",
    )
    recovery: Literal["none", "after", "both"] | None = Field(
        None,
        description="none: as pruned; after: LoRA recovery follows; both: one row each. Default: "
        "after if the campaign has recovery.",
    )
    multiple_of: Aligned | None = Field(None, description=f"{ALIGNED} Default: the campaign's.")
    sparsities: Sparsities | None = Field(
        None, description="The row's own; default the campaign's."
    )
    seeds: Seeds | None = Field(None, description="Seeds of this row; default: the campaign's.")


def _method(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class Calibration(Part):
    """Text that scoring methods may look at."""

    corpus: Corpora = Field(description="Name of a corpus, or several: drawn from all their text.")
    split: Split = "train"
    samples: Count = Field(10, description="Number of windows.")
    length: Length = Field(128, description="Tokens per window.")
    bos: Bos = Field("auto", description=BOS)
    seed: Seed | None = Field(
        None, description="Draws the windows, the same for all cells; default: the cell's seed."
    )


class CorpusEntry(Part):
    """One corpus of a perplexity protocol."""

    corpus: Text
    split: Split = "test"


class PerplexityEntry(Part):
    """A perplexity protocol, written out."""

    name: Text = Field(description="Name of the protocol; travels with every number.")
    corpora: Annotated[tuple[CorpusEntry, ...], Listed, Field(min_length=1)]
    length: Length = Field(description="Tokens per window or document.")
    mode: Literal["windows", "documents"] = Field("windows", description="See `Protocol`.")
    limit: Count | None = Field(None, description="First windows or documents only.")
    bos: Bos = Field("auto", description=BOS)


PerplexityItem = Annotated[
    Annotated[Text, Tag("<name>")] | Annotated[PerplexityEntry, Tag("<entry>")],
    Discriminator(lambda value: "<name>" if isinstance(value, str) else "<entry>"),
]


class SuiteRun(Part):
    """A suite of tasks through lm-eval."""

    suite: Text = Field(description="Name of a suite, such as zeroshot/7, or a YAML file of one.")
    limit: Count | None = Field(None, description="Items per task; marked in the table.")
    batch_size: Count | Literal["auto"] = Field(
        "auto",
        description="Requests at once. auto: 64 on a GPU, 16 on a CPU; halved where "
        "memory does not suffice.",
    )
    scoring: Literal["shared", "plain"] = Field(
        "shared",
        description="shared: what requests have in common is computed once; plain: each "
        "request by itself, by lm-eval's own code.",
    )


class Texts(Part):
    """Prompts that every row continues, greedily, for a reader to look at."""

    prompts: Annotated[tuple[Text, ...], Listed, Field(min_length=1)] = Field(
        PROMPTS, description="What is continued."
    )
    tokens: Count = Field(60, description="Most tokens that are added.")


class PointEntry(Part):
    """A working point: sequences at once, tokens of the prompt, new tokens."""

    batch: Count
    prompt: Count
    new: Natural


class Profile(Part):
    """Latency and memory points."""

    points: Annotated[tuple[PointEntry, ...], Listed, Field(min_length=1)]
    repeats: Count = Field(20, description="Timed rounds.")
    warmup: Natural = Field(3, description="Untimed rounds before them.")
    compile: Flag = Field(False, description="Time the models under torch.compile.")
    cuda_graphs: Flag = Field(False, description="Decode by replaying a captured CUDA graph.")
    macs_length: Count = Field(64, description="Tokens for which MACs are counted.")
    together: Annotated[int, Strict(), Field(ge=2)] | None = Field(
        None,
        description="Models that may lie on the device at once, dense among them. More are "
        "measured in groups, each beside dense. Default: all of a model's rows.",
    )


class Resources(Part):
    """What one job needs; the scheduler never starts more than fit."""

    threads: Count = Field(1, description="CPU threads of one job.")
    mem_mb: Count = Field(4000, description="Host memory of one job.")
    timeout_s: Count | None = Field(
        None, description="A job that runs longer fails with that reason."
    )


class StepRow(Part):
    """One pruning step that is measured by itself."""

    label: Name = Field(description="Name of the step's row.")
    method: Text = Field(description="A plugin that has a step.py.")
    params: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of its make_step."
    )
    micro_batches: Count | None = Field(None, description="Instead of the common number.")
    length: Length | None = Field(None, description="Instead of the common number.")


class Steps(Part):
    """Single pruning steps that are measured by themselves, for memory and throughput."""

    micro_batches: Count = Field(description="Sequences in a step.")
    length: Length = Field(description="Tokens of a sequence.")
    rounds: Count = Field(description="Timed steps.")
    rows: Annotated[tuple[StepRow, ...], Listed, Field(min_length=1)]


class SeedsAt(Part):
    """Other seeds at some sparsities: one where a curve is drawn, more where a claim is judged."""

    sparsities: Sparsities
    seeds: Seeds


class CampaignFile(Part):
    """A campaign: a grid of cells - models x methods x sparsities x seeds - under one protocol."""

    name: Name = Field(description="Name of the campaign; results go to results/<name>/.")
    models: Annotated[tuple[ModelEntry, ...], Listed, Field(min_length=1)] = Field(
        description="The models to prune."
    )
    methods: Annotated[
        tuple[Annotated[MethodEntry, BeforeValidator(_method)], ...],
        BeforeValidator(_listed, json_schema_input_type=list[str | MethodEntry]),
        Field(min_length=1),
    ] = Field(description="Rows of the table. A name, or a name with parameters and a label.")
    sparsities: Sparsities = Field(description="Fractions of parameters to remove.")
    sparsity_of: SparsityOf = Field(
        "model",
        description="What they are fractions of. model: all parameters; decoder: those of the "
        "decoder blocks. Of a small model the embedding is so large a part that half of all is "
        "far more than half of the blocks.",
    )
    data: DataEntry
    plugins: Annotated[tuple[Text, ...], Listed] = Field(
        (),
        description="Further plugin folders, or folders of such, relative to this file.",
    )
    families: Annotated[tuple[Text, ...], Listed] = Field(
        (),
        description="Folders of model families that the project does not have, relative to this "
        "file.",
    )
    seeds: Seeds = Field(
        (0,),
        description="Seeds of calibration, tuning and random choices; several give error bars.",
    )
    seeds_at: Annotated[tuple[SeedsAt, ...], Listed] = Field(
        (), description="Other seeds at some sparsities, for rows that name no seeds."
    )
    calibration: Calibration | None = None
    recovery: Mapping[str, JsonValue] | None = Field(
        None,
        description="LoRA recovery after pruning: settings of prunebench.recovery, and its data: "
        "`instructions` (name of a data set) or `text` (corpora).",
    )
    perplexity: Annotated[tuple[PerplexityItem, ...], Listed] = Field(
        (), description="Perplexity protocols, by name or written out."
    )
    zeroshot: SuiteRun | None = Field(None, description="Tasks whose score is the zero-shot mean.")
    generation: SuiteRun | None = Field(
        None, description="Tasks whose answers the model writes, such as generation/5."
    )
    texts: Texts | None = Field(
        default_factory=Texts,
        description="Prompts that each row continues, for the page; null: none.",
    )
    profile: Profile | None = None
    multiple_of: Aligned = Field(default_factory=Multiples, description=ALIGNED)
    keep_models: Literal["none", "last", "all"] = Field(
        "all",
        description="Which saved models stay on disk once all jobs that read them have ended well. "
        "all; last: of each cell the last (what was tuned afterwards goes); none: decisions alone, "
        "from which `prunebench apply` makes them again.",
    )
    resources: Resources = Field(default_factory=Resources)
    reference: Text | None = Field(
        None, description="Label of the row with which differences are also computed."
    )
    steps: Steps | None = None
    papers: Annotated[tuple[Text, ...], Listed] = Field(
        (), description="Plugins whose papers are judged too, beside those of the rows."
    )
