"""The form of each job's result, as far as a record is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import JsonValue, Tag, ValidationError

from prunebench.errors import Invalid
from prunebench.record import stages
from prunebench.record.decided import MaybeDecision
from prunebench.record.explain import explained
from prunebench.record.form import Drawn, ExportPart, Kept, LeakOfSet, ModelFacts, Sparsity
from prunebench.record.measured import (
    MaybeJobCost,
    MaybeStep,
    Perplexity,
    ProfilePart,
    SuitePart,
    TextsPart,
)
from prunebench.record.parts import EITHER, Amount, Lost, RecordPart
from prunebench.untyped import Json

MaybeSuite = Annotated[
    Annotated[SuitePart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]
MaybePerplexity = Annotated[
    Annotated[Perplexity, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]
MaybeTexts = Annotated[
    Annotated[TextsPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]
MaybeExport = Annotated[
    Annotated[ExportPart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]
MaybeProfile = Annotated[
    Annotated[ProfilePart, Tag("<there>")] | Annotated[Lost, Tag("<Lost>")], EITHER
]


class Ran(RecordPart):
    """What every job says of itself."""

    spec: dict[str, JsonValue] | None = None
    provenance: dict[str, JsonValue] | None = None
    method_notes: dict[str, JsonValue] | None = None
    nondeterministic: str | None = None


class Checked(RecordPart):
    """The comparison of the masked and the sliced model."""

    max_abs_logit_difference: Amount
    tolerance: Amount
    passed: bool


class Pruned(Ran):
    """Of a pruning job."""

    model: ModelFacts
    sparsity: Sparsity
    decision: dict[str, Kept] | None = None
    verify: Checked
    export: MaybeExport
    cost: MaybeJobCost
    calibration: list[Drawn] | None = None
    decision_file: MaybeDecision | None = None


class Recovered(Ran):
    """Of a tuning job."""

    model: ModelFacts
    export: MaybeExport
    cost: MaybeJobCost
    tuning: dict[str, JsonValue] | None = None
    decision_file: MaybeDecision | None = None


class Evaluated(Ran):
    """Of an evaluation."""

    perplexity: dict[str, MaybePerplexity]
    zeroshot: MaybeSuite
    generation: MaybeSuite | None = None
    texts: MaybeTexts | None = None
    notes: list[str] = []


class Stepped(Ran):
    """Of a single step."""

    model: ModelFacts
    step: MaybeStep


class Profiled(Ran):
    """Of a profile: one entry for each model."""

    models: dict[str, MaybeProfile]


class LeakOfKind(RecordPart):
    """Of calibration text, or of tuning text."""

    sets: dict[str, LeakOfSet]


class Leaked(Ran):
    """Of the check of training text."""

    calibration: LeakOfKind | None = None
    tuning: LeakOfKind | None = None


FORMS: dict[str, type[Ran]] = {
    "prune": Pruned,
    "recover": Recovered,
    "evaluate": Evaluated,
    "step": Stepped,
    "profiles": Profiled,
    "leak": Leaked,
}


def read(path: Path) -> Json:
    """A job's result in its form. Raises Invalid, in one line, for anything else."""
    result = stages.read(path)
    kind = "profiles" if path.parent.name == "profiles" else path.stem
    form = FORMS[kind] if result["status"] == "ok" else Ran
    try:
        form.model_validate(result)
    except ValidationError as error:
        raise Invalid(f"{path}: {explained(error)}; {stages.ADVICE}") from None
    return result
